//! Implements `frostbert doctor`, which finds out whether stage 1 can run here, on which device, how fast, and what to
//! do if it cannot.
//!
//! Everything is tried: the libraries are loaded, the model computes, a file is written and read back.

pub(crate) mod cuda;
pub(crate) mod disk;
pub(crate) mod machine;
pub(crate) mod model;
pub(crate) mod process_memory;
pub(crate) mod python_environment;

use std::path::{Path, PathBuf};

use cuda::CudaFindings;
use disk::CacheFindings;
use frostbert_cache::{fingerprint::FORMAT_VERSION, progress::Progress};
use machine::{Cpu, Memory};
use model::{DeviceFindings, ModelFindings};
use python_environment::PythonEnvironment;
use serde::Serialize;

use crate::{
    config::settings::Pipeline,
    encoder::{
        device::{Device, Precision},
        runtime::{NEEDED_MINOR_VERSION, Runtime},
    },
    error::Error,
    extraction::machine::Machine,
};

/// A problem, and how to solve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it prevents extraction.
    pub fatal: bool,
}

impl Problem {
    /// Creates a problem from an error that prevents extraction.
    fn fatal(error: &Error) -> Problem {
        Problem { reason: error.to_string(), hint: error.hint().map(String::from), fatal: true }
    }

    /// Creates a problem that does not prevent extraction, from an error about something that was not requested.
    fn small(error: &Error) -> Problem {
        let reason = match error {
            // The device is named next to the problem.
            Error::Device { reason, .. } => reason.clone(),
            error => error.to_string(),
        };
        Problem { reason, hint: error.hint().map(String::from), fatal: false }
    }
}

/// How ONNX Runtime was found.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimeSearch {
    /// What gave its path: `--ort-lib`, `ORT_DYLIB_PATH`, `environment` (the Python environment that the program is
    /// installed in), `found` (by searching), or `not found`.
    pub how: &'static str,
    /// The folders that were searched, in order, if its path was not given.
    #[serde(serialize_with = "frostbert_cache::wording::paths_shown")]
    pub looked: Vec<PathBuf>,
    /// The Python environment that the program is installed in, if it is in one.
    pub python: Option<PythonEnvironment>,
}

/// What to examine besides the machine: the settings of a pipeline, or the defaults.
#[derive(Clone, Debug)]
pub struct DoctorRequest {
    /// The checkpoint folder.
    pub model: PathBuf,
    /// The device.
    pub device: Device,
    /// The precision to compute in.
    pub precision: Precision,
    /// The folder of caches.
    pub cache_dir: PathBuf,
}

impl DoctorRequest {
    /// Creates the request for a pipeline. Without one, it is for the model that `make setup` fetches, the device
    /// `auto`, and the folder `cache`.
    pub fn of(pipeline: Option<&Pipeline>) -> DoctorRequest {
        match pipeline.map(|pipeline| &pipeline.extraction) {
            Some(settings) => DoctorRequest {
                model: settings.model.clone(),
                device: settings.device.clone(),
                precision: settings.precision,
                cache_dir: settings.cache_dir.clone(),
            },
            None => DoctorRequest {
                model: "models/minilm".into(),
                device: Device::Auto,
                precision: Precision::F32,
                cache_dir: "cache".into(),
            },
        }
    }
}

/// What was found about ONNX Runtime.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimeFindings {
    /// The library file.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub library: PathBuf,
    /// How it was found.
    #[serde(flatten)]
    pub search: RuntimeSearch,
    /// Its version, if it was loaded.
    pub version: Option<String>,
    /// The oldest version that this program supports.
    pub needed: String,
    /// Why it could not be loaded.
    pub problem: Option<Problem>,
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// This program's version.
    pub frostbert: &'static str,
    /// The version of the cache format that it writes.
    pub cache_format: u32,
    /// What was found about ONNX Runtime.
    pub onnxruntime: RuntimeFindings,
    /// CUDA: the provider, its libraries, the driver and its GPUs.
    pub cuda: CudaFindings,
    /// The CPU.
    pub cpu: Cpu,
    /// The number of threads to use.
    pub threads: usize,
    /// The memory.
    pub memory: Memory,
    /// The outcome of `model.device`; `None` if it could not be tried.
    pub device: Option<DeviceFindings>,
    /// The model and its speed.
    pub model: ModelFindings,
    /// The folder of caches.
    pub cache: CacheFindings,
}

impl Diagnosis {
    /// Returns all problems, in the order of the fields.
    pub fn problems(&self) -> Vec<&Problem> {
        let device = self.device.as_ref();
        let problems = [
            self.onnxruntime.problem.as_ref(),
            self.cuda.problem.as_ref(),
            device.and_then(|device| device.problem.as_ref()),
            self.model.problem.as_ref(),
            self.cache.problem.as_ref(),
        ];
        problems.into_iter().flatten().collect()
    }

    /// Returns whether an extraction can run.
    pub fn is_well(&self) -> bool {
        self.problems().iter().all(|problem| !problem.fatal)
    }
}

/// Examines everything. This takes a few seconds, because the model is run, and a file is written to the folder of
/// caches and removed again.
pub fn examine(
    asked: &DoctorRequest,
    machine: &Machine,
    search: RuntimeSearch,
    progress: &dyn Progress,
) -> Diagnosis {
    progress.start("loading ONNX Runtime", None, "");
    let loaded = Runtime::load(&machine.onnxruntime);
    let onnxruntime = runtime_findings(&machine.onnxruntime, search, &loaded);
    let runtime = loaded.ok();
    let cuda = cuda::look(runtime.as_ref());
    progress.finish();
    progress.start("trying the model", None, "");
    let (device, model) = model::try_model(asked, runtime.as_ref(), machine.threads);
    progress.finish();
    progress.start("writing to the folder of caches", None, "");
    let cache = disk::look(&asked.cache_dir);
    progress.finish();
    Diagnosis {
        frostbert: env!("CARGO_PKG_VERSION"),
        cache_format: FORMAT_VERSION,
        onnxruntime,
        cuda,
        cpu: Cpu::look(),
        threads: machine.threads,
        memory: Memory::look(),
        device,
        model,
        cache,
    }
}

fn runtime_findings(
    library: &Path,
    search: RuntimeSearch,
    loaded: &Result<Runtime, Error>,
) -> RuntimeFindings {
    let in_environment = search.python.as_ref().and_then(PythonEnvironment::problem);
    RuntimeFindings {
        library: match loaded {
            Ok(runtime) => runtime.library.clone(),
            Err(_) => library.to_path_buf(),
        },
        search,
        version: loaded.as_ref().ok().map(|runtime| runtime.version.clone()),
        needed: format!("1.{NEEDED_MINOR_VERSION}"),
        problem: loaded.as_ref().err().map(Problem::fatal).or(in_environment),
    }
}
