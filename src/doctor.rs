//! What `frostbert doctor` finds out: whether stage 1 can run here, on what, how fast, and what to do where it cannot.
//!
//! Nothing is taken for granted: the libraries are loaded, the model computes, a file is written and read back.

pub(crate) mod cuda;
pub(crate) mod disk;
pub(crate) mod machine;
pub(crate) mod model;

use std::path::{Path, PathBuf};

use cuda::CudaFindings;
use disk::CacheFindings;
use frostbert_cache::{fingerprint::FORMAT_VERSION, progress::Progress};
use machine::{Cpu, Memory};
use model::{DeviceFindings, ModelFindings};
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

/// Something that is wrong, and the cure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether nothing can be extracted because of it.
    pub fatal: bool,
}

impl Problem {
    /// Nothing can be extracted because of this error.
    fn fatal(error: &Error) -> Problem {
        Problem { reason: error.to_string(), hint: error.hint().map(String::from), fatal: true }
    }

    /// Something cannot be used that nobody asked for.
    fn small(error: &Error) -> Problem {
        let reason = match error {
            // Which device it is stands beside it.
            Error::Device { reason, .. } => reason.clone(),
            error => error.to_string(),
        };
        Problem { reason, hint: error.hint().map(String::from), fatal: false }
    }
}

/// How the program came by its ONNX Runtime.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimeSearch {
    /// What named it: `--ort-lib`, `ORT_DYLIB_PATH`, `found`, or `not found`.
    pub how: &'static str,
    /// The folders that were looked into, in order, where nothing named it.
    #[serde(serialize_with = "frostbert_cache::wording::paths_shown")]
    pub looked: Vec<PathBuf>,
}

/// What is to be examined, beside the machine: what a pipeline says, or the defaults.
#[derive(Clone, Debug)]
pub struct DoctorRequest {
    /// The checkpoint folder.
    pub model: PathBuf,
    /// The device.
    pub device: Device,
    /// What it is to compute in.
    pub precision: Precision,
    /// The folder of caches.
    pub cache_dir: PathBuf,
}

impl DoctorRequest {
    /// What a pipeline says; without one the model that `make setup` fetches, `auto`, and `cache`.
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

/// ONNX Runtime.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimeFindings {
    /// The library file.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub library: PathBuf,
    /// How it was come by.
    #[serde(flatten)]
    pub search: RuntimeSearch,
    /// Its version, where it was loaded.
    pub version: Option<String>,
    /// The oldest version that this program runs with.
    pub needed: String,
    /// Why it was not loaded.
    pub problem: Option<Problem>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// This program's version.
    pub frostbert: &'static str,
    /// The version of the cache format that it writes.
    pub cache_format: u32,
    /// ONNX Runtime.
    pub onnxruntime: RuntimeFindings,
    /// CUDA: the provider, its libraries, the driver and its GPUs.
    pub cuda: CudaFindings,
    /// The CPU.
    pub cpu: Cpu,
    /// Threads that will be used.
    pub threads: usize,
    /// Memory.
    pub memory: Memory,
    /// What `model.device` asks for, and what it gets; `None` where it could not be tried.
    pub device: Option<DeviceFindings>,
    /// The model, and how fast it is.
    pub model: ModelFindings,
    /// The folder of caches.
    pub cache: CacheFindings,
}

impl Diagnosis {
    /// Everything that is wrong, in the order in which it stands here.
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

    /// Whether an extraction can run.
    pub fn is_well(&self) -> bool {
        self.problems().iter().all(|problem| !problem.fatal)
    }
}

/// Looks at everything. It takes some seconds: a model computes, and a file is written to the folder of caches and
/// removed.
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
    RuntimeFindings {
        library: match loaded {
            Ok(runtime) => runtime.library.clone(),
            Err(_) => library.to_path_buf(),
        },
        search,
        version: loaded.as_ref().ok().map(|runtime| runtime.version.clone()),
        needed: format!("1.{NEEDED_MINOR_VERSION}"),
        problem: loaded.as_ref().err().map(Problem::fatal),
    }
}
