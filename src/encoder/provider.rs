//! The provider that a session runs on, and the libraries that ONNX Runtime needs for it.

use std::{fmt, path::Path};

use crate::error::{Error, Result};

/// The execution provider of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's CPU provider.
    Cpu,
    /// ONNX Runtime's CUDA provider on the device of this number.
    Cuda(u32),
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provider::Cpu => f.write_str("cpu"),
            Provider::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Why `auto` chooses the CPU if ONNX Runtime has no CUDA provider.
pub(crate) const WITHOUT_CUDA: &str = "this ONNX Runtime was built without CUDA";

/// Returns whether there is a CUDA provider library next to this ONNX Runtime.
pub(crate) fn has_cuda_provider(library: &Path) -> bool {
    let library = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    library.with_file_name(PROVIDER_LIBRARIES[1]).is_file()
}

/// The libraries next to ONNX Runtime that form its CUDA provider.
pub(crate) const PROVIDER_LIBRARIES: [&str; 2] =
    ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"];

/// Returns an error that names the missing file; ONNX Runtime's own error would say less.
pub(super) fn check_provider_library(folder: &Path, device: &impl fmt::Display) -> Result<()> {
    for name in PROVIDER_LIBRARIES {
        if !folder.join(name).is_file() {
            return Err(Error::Device {
                device: device.to_string(),
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
