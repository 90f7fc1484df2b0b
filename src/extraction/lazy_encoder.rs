//! An encoder that is opened only when something has to be encoded.

use std::path::Path;

use frostbert_cache::progress::Progress;

use crate::{
    config::settings::Pipeline,
    encoder::{
        Encoder, EncoderSettings,
        checkpoint::Checkpoint,
        device::{Device, Devices, all_cuda, why_no_cuda},
        provider::WITHOUT_CUDA,
        runtime::Runtime,
    },
    error::Result,
    extraction::machine::Machine,
};

/// An encoder that is opened when the first text needs it: a run that finds everything in the cache loads no model.
pub(crate) struct LazyEncoder<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) machine: &'a Machine,
    pub(crate) checkpoint: &'a Checkpoint,
    /// The layers to output when it is opened.
    pub(crate) layers: Vec<usize>,
    pub(crate) encoder: Option<Encoder>,
    /// What `device = "auto"` chose and why, once that is known.
    pub(crate) auto_took: Option<String>,
}

impl LazyEncoder<'_> {
    /// Returns the devices that will run; opens the encoder only if that is needed to find out.
    pub(crate) fn devices(&mut self, progress: &dyn Progress) -> Result<Devices> {
        let settings = &self.pipeline.extraction;
        match &settings.device {
            Device::Cpu => Ok(Devices::Cpu),
            Device::Cuda(numbers) => Ok(Devices::Cuda(numbers.clone())),
            Device::AllCuda => Ok(Devices::Cuda(all_cuda(&self.runtime()?)?)),
            Device::Auto => match why_no_cuda(settings.precision, &self.machine.onnxruntime) {
                Some(reason) => {
                    // If the library is missing, nothing can be said about its build, and it may not be needed either.
                    if self.machine.onnxruntime.exists() {
                        self.note_auto(&format!("the CPU: {reason}"), progress);
                    }
                    Ok(Devices::Cpu)
                }
                None => Ok(self.open(progress)?.devices.clone()),
            },
        }
    }

    /// Loads ONNX Runtime.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        Runtime::load(&self.machine.onnxruntime)
    }

    /// Returns the encoder, and opens it if it is not open yet.
    pub(crate) fn open(&mut self, progress: &dyn Progress) -> Result<&mut Encoder> {
        if self.encoder.is_none() {
            let settings = &self.pipeline.extraction;
            progress.start("loading the model", None, "");
            let encoder = Encoder::open(
                &self.runtime()?,
                self.checkpoint,
                &EncoderSettings {
                    device: settings.device.clone(),
                    precision: settings.precision,
                    layers: self.layers.clone(),
                    threads: self.machine.threads,
                },
            )?;
            progress.finish();
            if settings.device == Device::Auto {
                self.note_auto(&why_auto_took(&encoder), progress);
            }
            self.encoder = Some(encoder);
        }
        Ok(self.encoder.as_mut().expect("just opened"))
    }

    /// Reports once what `auto` chose; only as a detail if nobody would expect another device.
    fn note_auto(&mut self, took: &str, progress: &dyn Progress) {
        if self.auto_took.is_none() {
            let message = format!("device auto chose {took}");
            let has_gpu = Path::new("/dev/nvidiactl").exists();
            if took.ends_with(WITHOUT_CUDA) && !has_gpu {
                progress.detail(&message);
            } else {
                progress.note(&message);
            }
            self.auto_took = Some(took.into());
        }
    }
}

/// Returns what `device = "auto"` chose, and why.
pub(crate) fn why_auto_took(encoder: &Encoder) -> String {
    if let Some(reason) = &encoder.auto_reason {
        return format!("the CPU: {reason}");
    }
    let placement = encoder.placement.as_ref();
    let gpu = placement.and_then(|placement| placement.gpu.as_ref());
    let name = gpu.map_or(String::new(), |name| format!(" ({name})"));
    format!("{}{name}: CUDA works, and its states match the CPU's", encoder.devices)
}
