//! Why CUDA is unavailable and how to fix it: tells the ways in which it fails apart by ONNX Runtime's messages.

use super::{
    cuda_libraries::{DRIVER_LIBRARY, Library, cuda_version_of, explain_missing, load_all},
    gpus::Gpus,
    provider::{PROVIDER_LIBRARIES, Provider, WITHOUT_CUDA, check_provider_library},
    runtime::Runtime,
};
use crate::error::{Error, Result};

/// The beginning of the reason given when a device number is too high.
const NO_SUCH_DEVICE: &str = "there is no CUDA device ";

const OR_CPU: &str = "or set model.device = \"cpu\"";

/// Returns whether the error means that the requested device does not exist although others do.
pub(super) fn is_beyond_the_last(error: &Error) -> bool {
    matches!(error, Error::Device { reason, .. } if reason.starts_with(NO_SUCH_DEVICE))
}

/// Checks that the provider's own libraries, its dependencies, and the driver's library can be loaded.
pub(super) fn check_libraries(runtime: &Runtime, number: u32) -> Result<()> {
    let device = Provider::Cuda(number);
    check_provider_library(runtime.folder(), &device)?;
    let provider = runtime.folder().join(PROVIDER_LIBRARIES[1]);
    let cuda = cuda_version_of(&provider)?;
    match explain_libraries(&load_all(&provider)?, cuda, &Gpus::look) {
        None => Ok(()),
        Some((reason, hint)) => Err(Error::Device { device: device.to_string(), reason, hint }),
    }
}

/// Returns the reason and a hint if a library that the provider needs cannot be loaded; `None` if all were loaded.
pub(crate) fn explain_libraries(
    libraries: &[Library],
    cuda: Option<u32>,
    gpus: &dyn Fn() -> Gpus,
) -> Option<(String, String)> {
    let driver = libraries
        .iter()
        .filter(|library| library.name == DRIVER_LIBRARY)
        .find_map(|library| library.problem.as_ref());
    let driver = driver.map(|_| no_driver(cuda, &gpus()));
    match (explain_missing(libraries, cuda), driver) {
        // Report both at once: nobody should install 2 GB only to learn that there is no driver.
        (Some((reason, hint)), Some((driver, driver_hint))) => {
            Some((format!("{reason}; and {driver}"), format!("{driver_hint}. Then {hint}")))
        }
        (Some(missing), None) => Some(missing),
        (None, Some((driver, hint))) => Some((driver, format!("{hint}; {OR_CPU}"))),
        (None, None) => None,
    }
}

fn no_driver(cuda: Option<u32>, gpus: &Gpus) -> (String, String) {
    let needed = least_driver(cuda);
    match (&gpus.driver, gpus.control_device) {
        (None, false) => (
            format!("there is no NVIDIA driver: neither `{DRIVER_LIBRARY}` nor `/dev/nvidiactl`"),
            format!(
                "install the NVIDIA driver{needed}; a container needs the host's, as with `docker run --gpus all`"
            ),
        ),
        _ => (
            format!("the driver's `{DRIVER_LIBRARY}` is not found, though its kernel module is loaded"),
            "install the driver's library for CUDA (libcuda1, libnvidia-compute), or put its folder on \
             LD_LIBRARY_PATH; a container gets it with `docker run --gpus all`"
                .into(),
        ),
    }
}

/// Returns the oldest driver for a CUDA version, from NVIDIA's table of minor version compatibility.
fn least_driver(cuda: Option<u32>) -> &'static str {
    match cuda {
        Some(12) => ", 525 or later for CUDA 12",
        Some(13) => ", 580 or later for CUDA 13",
        _ => "",
    }
}

/// Turns a message from ONNX Runtime into a device error.
pub(super) fn explain(words: &str, runtime: &Runtime, number: u32) -> Error {
    let provider = runtime.folder().join(PROVIDER_LIBRARIES[1]);
    let facts = FailureContext {
        cuda: cuda_version_of(&provider).ok().flatten(),
        onnxruntime: &runtime.version,
        gpus: &Gpus::look,
    };
    let (reason, hint) = facts.explain(words);
    Error::Device { device: Provider::Cuda(number).to_string(), reason, hint }
}

/// The facts that are known in addition to ONNX Runtime's message.
struct FailureContext<'a> {
    cuda: Option<u32>,
    onnxruntime: &'a str,
    gpus: &'a dyn Fn() -> Gpus,
}

impl FailureContext<'_> {
    fn explain(&self, words: &str) -> (String, String) {
        let failure = failure(words);
        let cuda = failure.as_ref().filter(|failure| failure.library == "CUDA");
        let (reason, hint) = match cuda.map(|failure| failure.number) {
            // cudaErrorInsufficientDriver
            Some(35) => self.old_driver(),
            // cudaErrorNoDevice
            Some(100) => (
                "the driver finds no CUDA device".into(),
                "check that nvidia-smi lists a GPU, that CUDA_VISIBLE_DEVICES does not hide it, and that a container \
                 was started with GPUs"
                    .into(),
            ),
            // cudaErrorMemoryAllocation
            Some(2) => (
                "the GPU has too little free memory".into(),
                "check with nvidia-smi what else uses it, or lower model.batch_tokens".into(),
            ),
            // cudaErrorSystemDriverMismatch, cudaErrorCompatNotSupportedOnDevice
            Some(803 | 804) => (
                "the driver's library and its kernel module are of different versions".into(),
                "restart the machine after a driver's update; keep a CUDA compatibility package (cuda-compat) off \
                 LD_LIBRARY_PATH"
                    .into(),
            ),
            // cudaErrorNoKernelImageForDevice
            Some(209) => (
                format!(
                    "ONNX Runtime {} has no CUDA kernels for this GPU's architecture",
                    self.onnxruntime
                ),
                "use an onnxruntime-gpu that was built for it".into(),
            ),
            _ => match failure {
                Some(Failure {
                    library,
                    number,
                    words,
                }) => (
                    format!("{library} failure {number}: {words}"),
                    "check the driver with nvidia-smi, and the CUDA libraries with `frostbert doctor`"
                        .into(),
                ),
                None => self.explain_words(words),
            },
        };
        (reason, format!("{hint}; {OR_CPU}"))
    }

    fn explain_words(&self, words: &str) -> (String, String) {
        if let Some((number, count)) = invalid_device(words) {
            let known = match count {
                1 => "the only one is 0".into(),
                count => format!("there are {count}, 0 to {}", count - 1),
            };
            return (
                format!("{NO_SUCH_DEVICE}{number}: {known}"),
                "name a device that exists (CUDA_VISIBLE_DEVICES decides which ones are visible and how they are \
                 numbered)".into(),
            );
        }
        if words.contains("assigned to the default CPU EP") {
            return (
                format!(
                    "ONNX Runtime {} has no CUDA kernel for some nodes of the graph, and they must not run on the CPU",
                    self.onnxruntime
                ),
                "use a newer onnxruntime-gpu".into(),
            );
        }
        if words.contains("not enabled in this build") {
            return (
                format!("{WITHOUT_CUDA}, whatever libraries are next to it"),
                "name the libonnxruntime.so of an onnxruntime-gpu package with --ort-lib".into(),
            );
        }
        if words.contains("cuDNN is unavailable") {
            return (
                words.into(),
                "put cuDNN 9 on LD_LIBRARY_PATH, or its files beside ONNX Runtime".into(),
            );
        }
        (
            words.into(),
            "check the driver with nvidia-smi, and the CUDA libraries with `frostbert doctor`"
                .into(),
        )
    }

    fn old_driver(&self) -> (String, String) {
        let version = self.cuda.map_or(String::new(), |cuda| format!(" {cuda}"));
        let has = match &(self.gpus)().driver {
            Some(driver) => format!("driver {driver} is"),
            None => "the driver is missing, or".into(),
        };
        (
            format!(
                "{has} too old for CUDA{version}, which ONNX Runtime {} was built for",
                self.onnxruntime
            ),
            format!(
                "install a newer NVIDIA driver{}, or an onnxruntime-gpu for an older CUDA",
                least_driver(self.cuda)
            ),
        )
    }
}

/// A failure as reported by one of the CUDA libraries.
struct Failure<'a> {
    library: &'static str,
    number: u32,
    words: &'a str,
}

/// Finds `CUDA failure 35: ... ; GPU=-1 ; ...` among the source locations in a message from ONNX Runtime.
fn failure(words: &str) -> Option<Failure<'_>> {
    ["CUDA", "CUBLAS", "CUDNN"].into_iter().find_map(|library| {
        let (_, after) = words.split_once(&format!("{library} failure "))?;
        let (number, after) = after.split_once(": ")?;
        Some(Failure {
            library,
            number: number.parse().ok()?,
            words: after.split(" ; ").next().unwrap_or(after).trim(),
        })
    })
}

/// Returns the requested number and the device count from
/// `Invalid device ID: 3, must be between 0 (inclusive) and 2 (exclusive).`
fn invalid_device(words: &str) -> Option<(u32, u32)> {
    let after = words.split_once("Invalid device ID: ")?.1;
    let (number, after) = after.split_once(',')?;
    let count = after.split_once("(inclusive) and ")?.1;
    let count = count.split_whitespace().next()?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

#[cfg(test)]
mod tests;
