//! Chooses the device that runs the encoder and explains why a device cannot.

use std::{fmt, path::Path, str::FromStr};

use ort::{
    ep::{ArenaExtendStrategy, CUDA},
    session::{Session, builder::SessionBuilder},
};
use serde::{Deserialize, Serialize};

use super::{
    cuda_failure,
    ort_error::{encoder_error, plain_reason},
    provider::{WITHOUT_CUDA, check_provider_library, has_cuda_provider},
    runtime::Runtime,
};
use crate::error::{Error, Result};

/// The device that `model.device` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// CUDA's first device if it works, otherwise the CPU; the choice is reported.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA devices of these numbers, each listed once; it is an error if one does not work.
    Cuda(Vec<u32>),
    /// Every CUDA device of the machine; it is an error if there is none.
    AllCuda,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "`{name}` is not a device: expected auto, cpu, cuda, cuda:N, cuda:N,M or cuda:all"
            )
        };
        match name {
            "auto" => return Ok(Device::Auto),
            "cpu" => return Ok(Device::Cpu),
            "cuda" => return Ok(Device::Cuda(vec![0])),
            "cuda:all" => return Ok(Device::AllCuda),
            _ => {}
        }
        let numbers = name.strip_prefix("cuda:").ok_or_else(refuse)?;
        let mut devices: Vec<u32> = Vec::new();
        for number in numbers.split(',') {
            let number = number.trim().parse().map_err(|_| refuse())?;
            if devices.contains(&number) {
                return Err(format!("`{name}` names device {number} twice"));
            }
            devices.push(number);
        }
        Ok(Device::Cuda(devices))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(numbers) => Devices::Cuda(numbers.clone()).fmt(f),
            Device::AllCuda => f.write_str("cuda:all"),
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
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The devices in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// The CPU.
    Cpu,
    /// The CUDA devices of these numbers, at least one.
    Cuda(Vec<u32>),
}

impl Devices {
    /// Returns `cpu` or `cuda`, as recorded in the fingerprint, in which device numbers do not matter.
    pub fn name(&self) -> &'static str {
        match self {
            Devices::Cpu => "cpu",
            Devices::Cuda(_) => "cuda",
        }
    }

    /// Returns the token budget of a batch if the pipeline does not set one: small enough for a CPU's cache, or large
    /// enough to fill a GPU. It is a constant because a plan must not depend on a measurement. See
    /// `docs/performance.md`.
    pub fn default_batch_tokens(&self) -> usize {
        match self {
            Devices::Cpu => 512,
            Devices::Cuda(_) => 32_768,
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Devices::Cpu => f.write_str("cpu"),
            Devices::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// Checks what can be known before anything is loaded or written: that the device has kernels for the precision and, if
/// CUDA is requested, that a CUDA provider is installed next to ONNX Runtime.
///
/// # Errors
/// Returns [`Error::Device`] with the reason and a hint.
pub(crate) fn check(device: &Device, precision: Precision, library: &Path) -> Result<()> {
    let library = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    let folder = library.parent().unwrap_or(Path::new("."));
    match device {
        Device::Cuda(_) | Device::AllCuda => {
            check_precision(device, false, precision)?;
            // If the library itself is missing, loading it will report that.
            if library.is_file() { check_provider_library(folder, device) } else { Ok(()) }
        }
        Device::Auto if why_no_cuda(precision, &library).is_none() => Ok(()),
        Device::Auto | Device::Cpu => check_precision(&Device::Cpu, true, precision),
    }
}

/// Returns an error if the device has no kernels for the precision.
pub(super) fn check_precision(
    device: &impl fmt::Display,
    is_cpu: bool,
    precision: Precision,
) -> Result<()> {
    let (reason, hint) = match (is_cpu, precision) {
        (true, Precision::F16) => (
            "a CPU has no kernels for precision `f16`",
            "set model.precision = \"f32\"; states are still stored in the type of cache.dtype, f16 by default",
        ),
        (false, Precision::Int8) => (
            "precision `int8` runs on a CPU only",
            "set model.precision = \"f16\", which is fast on a GPU, or model.device = \"cpu\"",
        ),
        _ => return Ok(()),
    };
    Err(Error::Device { device: device.to_string(), reason: reason.into(), hint: hint.into() })
}

/// Registers CUDA for a session such that a failure is an error and never a silent run on the CPU.
///
/// `whole_graph` requires every operator to run on the GPU. Our own graph can guarantee that; a model.onnx computes
/// shapes, which ONNX Runtime always does on the CPU.
///
/// # Errors
/// Returns [`Error::Device`] with ONNX Runtime's reason and a hint.
pub(crate) fn register_cuda(
    builder: SessionBuilder,
    runtime: &Runtime,
    number: u32,
    whole_graph: bool,
) -> Result<SessionBuilder> {
    cuda_failure::check_libraries(runtime, number)?;
    let provider = CUDA::default()
        .with_device_id(number as i32)
        // The largest batches of each shard come first, so what the first one needs is enough; doubling would waste
        // memory.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        // Precision f32 means f32, not TensorFloat-32 with its ten mantissa bits.
        .with_tf32(false)
        .build()
        .error_on_failure();
    let mut registered = builder.with_execution_providers([provider]);
    if whole_graph {
        // A node without a GPU kernel is an error too, rather than a silent fallback to the CPU.
        registered = registered.and_then(SessionBuilder::with_disable_cpu_fallback);
    }
    registered.map_err(|error| cuda_failure::explain(&plain_reason(&error), runtime, number))
}

/// Returns the numbers of all CUDA devices, as ONNX Runtime counts them.
///
/// # Errors
/// Returns [`Error::Device`] with the reason and a hint if there is no device or one of them does not work.
pub(crate) fn all_cuda(runtime: &Runtime) -> Result<Vec<u32>> {
    // More than any machine has; it ends the loop whatever ONNX Runtime answers.
    const MOST: u32 = 64;
    let mut numbers = Vec::new();
    for number in 0..MOST {
        let builder =
            Session::builder(&runtime.environment).map_err(encoder_error("create a session"))?;
        match register_cuda(builder, runtime, number, false) {
            Ok(_) => numbers.push(number),
            Err(error) if numbers.is_empty() || !cuda_failure::is_beyond_the_last(&error) => {
                return Err(error);
            }
            Err(_) => break,
        }
    }
    Ok(numbers)
}

/// Returns why `auto` does not try a GPU, if it does not: there is no CUDA provider library next to ONNX Runtime, or
/// the precision runs on a CPU only.
pub(crate) fn why_no_cuda(precision: Precision, library: &Path) -> Option<&'static str> {
    if precision == Precision::Int8 {
        return Some("precision `int8` runs on a CPU only");
    }
    (!has_cuda_provider(library)).then_some(WITHOUT_CUDA)
}

/// Returns whether this machine's processor has instructions that multiply bytes and add them up in 32 bits (VNNI on
/// x86-64).
pub(crate) fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        true
    }
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
    /// 8-bit weights and inputs in linear layers, everything else in single precision; CPU only.
    Int8,
}

impl Precision {
    /// Returns the name used in pipelines and the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        }
    }

    /// Returns what a user should know before this precision is used on a processor with or without VNNI, if anything.
    pub(crate) fn note(self, has_vnni: bool) -> Option<&'static str> {
        (self == Precision::Int8 && !has_vnni).then_some(
            "this processor has no VNNI instructions, so int8 is unlikely to be faster than f32 here; \
             `frostbert precision-report PIPELINE` measures both",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_parsed_back() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3", "cuda:0,1", "cuda:all"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(vec![0])));
        assert_eq!("cuda:2, 0".parse(), Ok(Device::Cuda(vec![2, 0])));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let refuse = |name: &str| name.parse::<Device>().unwrap_err();
        for name in ["gpu", "cuda:", "cuda:x", "cuda:0,", "cuda:-1", "cuda0"] {
            assert!(refuse(name).contains("cuda:N,M"), "{name}");
        }
        assert_eq!(refuse("cuda:1,1"), "`cuda:1,1` names device 1 twice");
    }

    #[test]
    fn int8_without_vnni_has_a_note() {
        assert!(Precision::Int8.note(false).unwrap().contains("no VNNI"));
        for (precision, has_vnni) in
            [(Precision::Int8, true), (Precision::F32, false), (Precision::F16, false)]
        {
            assert_eq!(precision.note(has_vnni), None, "{precision:?}");
        }
    }

    #[test]
    fn the_numbers_of_devices_stand_in_no_fingerprint() {
        let several = Devices::Cuda(vec![0, 2]);
        assert_eq!((several.name(), &several.to_string()[..]), ("cuda", "cuda:0,2"));
        assert_eq!(several.default_batch_tokens(), 32_768);
    }
}
