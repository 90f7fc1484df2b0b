//! An encoder that is opened when something has to be encoded.

use super::{extract::Machine, settings::Pipeline};
use crate::{
    encoder::{
        Encoder, EncoderSettings,
        checkpoint::Checkpoint,
        device::{Device, Provider, may_take_cuda},
        runtime::Runtime,
    },
    error::Result,
    progress::Progress,
};

/// An encoder that is opened when the first text needs it: a run that finds everything cached loads no model.
pub(super) struct LazyEncoder<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) machine: &'a Machine,
    pub(super) checkpoint: &'a Checkpoint,
    /// The layers to put out when it is opened.
    pub(super) layers: Vec<usize>,
    pub(super) encoder: Option<Encoder>,
}

impl LazyEncoder<'_> {
    /// The device that will run; opens the encoder only where `auto` has to find out.
    pub(super) fn provider(&mut self, progress: &dyn Progress) -> Result<Provider> {
        let settings = &self.pipeline.extraction;
        match settings.device {
            Device::Cpu => Ok(Provider::Cpu),
            Device::Cuda(number) => Ok(Provider::Cuda(number)),
            Device::Auto if !may_take_cuda(settings.precision, &self.machine.onnxruntime) => {
                Ok(Provider::Cpu)
            }
            Device::Auto => Ok(self.open(progress)?.provider),
        }
    }

    /// ONNX Runtime, loaded.
    pub(super) fn runtime(&self) -> Result<Runtime> {
        Runtime::load(&self.machine.onnxruntime)
    }

    /// The encoder, opened where it is not.
    pub(super) fn open(&mut self, progress: &dyn Progress) -> Result<&mut Encoder> {
        if self.encoder.is_none() {
            let settings = &self.pipeline.extraction;
            progress.start("loading the model", None, "");
            let encoder = Encoder::open(
                &self.runtime()?,
                self.checkpoint,
                &EncoderSettings {
                    device: settings.device,
                    precision: settings.precision,
                    layers: self.layers.clone(),
                    threads: self.machine.threads,
                },
            )?;
            progress.finish();
            if let Some(reason) = &encoder.provider_reason {
                progress.note(&format!("device auto took the CPU: {reason}"));
            }
            self.encoder = Some(encoder);
        }
        Ok(self.encoder.as_mut().expect("just opened"))
    }
}
