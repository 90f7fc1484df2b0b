//! Examines CUDA: ONNX Runtime's provider, the libraries that it needs, the driver, and the devices that it can use.

use serde::Serialize;

use crate::{
    doctor::Problem,
    encoder::{
        cuda_libraries::{Library, cuda_version_of, load_all},
        device::{Device, Precision, all_cuda, check},
        gpus::Gpus,
        provider::PROVIDER_LIBRARIES,
        runtime::Runtime,
    },
    error::Result,
};

/// What was found about CUDA.
#[derive(Clone, Debug, Serialize)]
pub struct CudaFindings {
    /// Whether this ONNX Runtime was built with its CUDA provider.
    pub compiled_in: Option<bool>,
    /// The CUDA version that the provider was built for.
    pub version: Option<u32>,
    /// The libraries that the provider needs.
    pub libraries: Vec<Library>,
    /// What the driver reports.
    pub driver: Gpus,
    /// The numbers of the devices that ONNX Runtime can use, as in `model.device = "cuda:N"`.
    pub devices: Vec<u32>,
    /// Why it can use none.
    pub problem: Option<Problem>,
}

/// Examines CUDA and lets ONNX Runtime count its devices.
pub(super) fn look(runtime: Option<&Runtime>) -> CudaFindings {
    let mut findings = CudaFindings {
        compiled_in: None,
        version: None,
        libraries: Vec::new(),
        driver: Gpus::look(),
        devices: Vec::new(),
        problem: None,
    };
    let Some(runtime) = runtime else {
        return findings;
    };
    findings.problem = findings.ask(runtime).err().map(|error| Problem::small(&error));
    findings
}

impl CudaFindings {
    fn ask(&mut self, runtime: &Runtime) -> Result<()> {
        self.compiled_in = Some(false);
        check(&Device::AllCuda, Precision::F32, &runtime.library)?;
        self.compiled_in = Some(true);
        let provider = runtime.folder().join(PROVIDER_LIBRARIES[1]);
        self.version = cuda_version_of(&provider)?;
        self.libraries = load_all(&provider)?;
        self.devices = all_cuda(runtime)?;
        Ok(())
    }
}
