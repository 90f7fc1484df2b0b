//! Which device runs the encoder, and what to say when it cannot.

use std::{fmt, path::Path, str::FromStr};

use ort::{ep::CUDA, session::builder::SessionBuilder};
use serde::{Deserialize, Serialize};

use super::{runtime::Runtime, session::plain_reason};
use crate::error::{Error, Result};

/// What `model.device` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// CUDA where it works, else the CPU; the choice is reported.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number; an error where it does not work.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Device::Cuda)
                .ok_or_else(|| {
                    format!("`{name}` is no device; known are auto, cpu, cuda and cuda:N")
                }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A device that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's CPU provider.
    Cpu,
    /// ONNX Runtime's CUDA provider on the device of this number.
    Cuda(u32),
}

impl Provider {
    /// The token budget of a batch where the pipeline names none: small enough for a CPU's cache, or large enough to
    /// fill a GPU. A fixed number, because a plan must not depend on a measurement. See `docs/performance.md`.
    pub fn default_batch_tokens(self) -> usize {
        match self {
            Provider::Cpu => 512,
            Provider::Cuda(_) => 32_768,
        }
    }

    /// `cpu` or `cuda`: what stands in the fingerprint, where the number of the device does not matter.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Cpu => "cpu",
            Provider::Cuda(_) => "cuda",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provider::Cpu => f.write_str("cpu"),
            Provider::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Checks what can be known before anything is loaded or written: that the device has kernels for the precision, and
/// that a CUDA provider lies beside ONNX Runtime where CUDA is asked for.
///
/// # Errors
/// [`Error::Device`] with the reason and the cure.
pub fn check(device: Device, precision: Precision, library: &Path) -> Result<()> {
    let library = library
        .canonicalize()
        .unwrap_or_else(|_| library.to_path_buf());
    let folder = library.parent().unwrap_or(Path::new("."));
    match device {
        Device::Cuda(number) => {
            check_precision(Provider::Cuda(number), precision)?;
            // Without the library itself, loading it says so.
            match library.is_file() {
                true => check_provider_library(folder, number),
                false => Ok(()),
            }
        }
        Device::Auto if may_take_cuda(precision, &library) => Ok(()),
        Device::Auto | Device::Cpu => check_precision(Provider::Cpu, precision),
    }
}

/// Fails where the device has no kernels for the precision.
pub(super) fn check_precision(provider: Provider, precision: Precision) -> Result<()> {
    let (reason, hint) = match (provider, precision) {
        (Provider::Cpu, Precision::F16) => (
            "a CPU has no kernels for precision `f16`",
            "set model.precision = \"f32\"; what is *stored* in f16 is cache.dtype, the default",
        ),
        (Provider::Cuda(_), Precision::Int8) => (
            "precision `int8` runs on a CPU only",
            "set model.precision = \"f16\", which is what is fast on a GPU, or model.device = \"cpu\"",
        ),
        _ => return Ok(()),
    };
    Err(Error::Device {
        device: provider.to_string(),
        reason: reason.into(),
        hint: hint.into(),
    })
}

/// Registers CUDA for a session, so that a failure is an error and never a quiet run on the CPU.
///
/// `whole_graph` says that every operator must run there. Our own graph can promise that; a model.onnx computes shapes,
/// which ONNX Runtime always does on the CPU.
///
/// # Errors
/// [`Error::Device`] with the reason that ONNX Runtime gives, and the cure.
pub fn register_cuda(
    builder: SessionBuilder,
    runtime: &Runtime,
    number: u32,
    whole_graph: bool,
) -> Result<SessionBuilder> {
    check_provider_library(runtime.folder(), number)?;
    let provider = CUDA::default()
        .with_device_id(number as i32)
        .build()
        .error_on_failure();
    let mut registered = builder.with_execution_providers([provider]);
    if whole_graph {
        // A node that the GPU has no kernel for is an error too, not a quiet detour over the CPU.
        registered = registered.and_then(SessionBuilder::with_disable_cpu_fallback);
    }
    registered.map_err(|error| Error::Device {
        device: Provider::Cuda(number).to_string(),
        reason: plain_reason(&error),
        hint: "check the driver with nvidia-smi, and put the CUDA and cuDNN libraries that this ONNX Runtime was built \
               for on LD_LIBRARY_PATH; or set model.device = \"cpu\""
            .into(),
    })
}

/// Whether `auto` has a GPU to try: where a CUDA provider's library lies beside this ONNX Runtime, and the precision is
/// not one that runs on a CPU only.
pub fn may_take_cuda(precision: Precision, library: &Path) -> bool {
    precision != Precision::Int8 && has_cuda_provider(library)
}

/// Whether a CUDA provider's library lies beside this ONNX Runtime.
pub fn has_cuda_provider(library: &Path) -> bool {
    let library = library
        .canonicalize()
        .unwrap_or_else(|_| library.to_path_buf());
    library.with_file_name(PROVIDER_LIBRARIES[1]).is_file()
}

const PROVIDER_LIBRARIES: [&str; 2] = [
    "libonnxruntime_providers_shared.so",
    "libonnxruntime_providers_cuda.so",
];

/// Fails with the missing file's name, before ONNX Runtime fails with less.
fn check_provider_library(folder: &Path, number: u32) -> Result<()> {
    for name in PROVIDER_LIBRARIES {
        if !folder.join(name).is_file() {
            return Err(Error::Device {
                device: Provider::Cuda(number).to_string(),
                reason: format!(
                    "`{name}` is not beside ONNX Runtime in `{}`: this runtime was built without CUDA",
                    folder.display()
                ),
                hint: "name the libonnxruntime.so of an onnxruntime-gpu package with --ort-lib, its three libraries in \
                       one folder; or set model.device = \"cpu\""
                    .into(),
            });
        }
    }
    Ok(())
}

/// The numerical formats that the encoder can compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Half precision weights, arithmetic and outputs; CUDA only.
    F16,
    /// 8-bit weights and inputs of linear layers, all else in single precision; CPU only.
    Int8,
}

impl Precision {
    /// The name in pipelines and the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_parsed_back() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        assert!("gpu".parse::<Device>().unwrap_err().contains("cuda:N"));
        assert!("cuda:".parse::<Device>().is_err());
    }
}
