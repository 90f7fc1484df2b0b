//! The shared libraries that ONNX Runtime's CUDA provider needs, and whether they can be loaded here.
//!
//! The provider's ELF file lists its dependencies. Whether a library can be loaded is left to the dynamic loader
//! itself: only the loader knows LD_LIBRARY_PATH, its cache and the system folders, and it will treat them the same way
//! for ONNX Runtime.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use frostbert_cache::mmap;
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{Dyn, FileHeader},
};
use serde::Serialize;

use crate::error::{Error, Result};

/// The driver's library, which comes with the machine and is in no CUDA package.
pub(crate) const DRIVER_LIBRARY: &str = "libcuda.so.1";

/// cuDNN, which newer providers do not list in their ELF file: they open it when a kernel first needs it.
const CUDNN: &str = "libcudnn.so.9";

/// A shared library that the CUDA provider needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Library {
    /// The file name including the required version, such as `libcublasLt.so.13`.
    pub name: String,
    /// The component it belongs to: `cuBLAS`, `cuDNN`, `the driver`, or `the system` for everything that is not
    /// NVIDIA's.
    pub part: &'static str,
    /// The PyPI package that contains it.
    pub package: Option<String>,
    /// Why it cannot be loaded, in the loader's words; `None` if it was loaded.
    pub problem: Option<String>,
}

impl Library {
    /// Returns whether the library is NVIDIA's.
    pub fn is_cuda(&self) -> bool {
        self.part != SYSTEM
    }
}

const SYSTEM: &str = "the system";

/// File name prefixes, the component each belongs to, and its package without the suffix for the CUDA version.
const PARTS: [(&str, &str, Option<&str>); 10] = [
    ("libcuda.so", "the driver", None),
    ("libcudart.so", "CUDA runtime", Some("nvidia-cuda-runtime")),
    ("libcublas", "cuBLAS", Some("nvidia-cublas")),
    ("libcudnn", "cuDNN", Some("nvidia-cudnn")),
    ("libcufft", "cuFFT", Some("nvidia-cufft")),
    ("libcurand", "cuRAND", Some("nvidia-curand")),
    ("libcusparse", "cuSPARSE", Some("nvidia-cusparse")),
    ("libcusolver", "cuSOLVER", Some("nvidia-cusolver")),
    ("libnvrtc", "NVRTC", Some("nvidia-cuda-nvrtc")),
    ("libnvJitLink", "nvJitLink", Some("nvidia-nvjitlink")),
];

/// Loads every library that a provider needs and returns the result for each, so that all missing libraries are
/// reported together. If the loader cannot find a library, the folder of ONNX Runtime is searched, and then the folders
/// into which pip installs it along with the package onnxruntime-gpu; ONNX Runtime, which asks for it by name, then
/// gets the same one.
///
/// # Errors
/// Returns an error if the provider's file cannot be read or is not a 64-bit ELF file.
pub(crate) fn load_all(provider: &Path) -> Result<Vec<Library>> {
    let mut names = needed(provider)?;
    if !names.iter().any(|name| name.starts_with("libcudnn")) {
        names.push(CUDNN.into());
    }
    let cuda = cuda_version(&names);
    let folders = folders_near(provider);
    let mut told = BTreeSet::new();
    let mut libraries = Vec::new();
    for name in names {
        let problem = load(&name, &folders).err();
        // A library that exists may itself lack a dependency.
        let lacked = problem.as_deref().and_then(missing_file).unwrap_or(&name);
        if told.insert(lacked.to_string()) {
            libraries.push(describe(lacked, cuda, problem.clone()));
        }
        if lacked != name && told.insert(name.clone()) {
            libraries.push(describe(&name, cuda, None));
        }
    }
    Ok(libraries)
}

/// Returns the names of the libraries that a library's ELF file depends on (its DT_NEEDED entries), in order.
///
/// # Errors
/// Returns an error if the file cannot be read or is not a 64-bit ELF file.
pub(crate) fn needed(library: &Path) -> Result<Vec<String>> {
    let bytes = mmap::map(library)?;
    names_needed(&bytes).map_err(|error| Error::Device {
        device: "cuda".into(),
        reason: format!("`{}` is not a library for this machine: {error}", library.display()),
        hint: "copy the three libraries of one onnxruntime-gpu package again; or set model.device = \"cpu\""
            .into(),
    })
}

fn names_needed(bytes: &[u8]) -> object::Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((entries, link)) = sections.dynamic(endian, bytes)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, bytes, link)?;
    let needed = entries.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED));
    needed
        .map(|entry| {
            let name = entry.string(endian, strings)?;
            Ok(String::from_utf8_lossy(name).into_owned())
        })
        .collect()
}

/// Returns the CUDA version of a provider, which is that of the CUDA runtime among its dependencies.
fn cuda_version(names: &[String]) -> Option<u32> {
    let runtime = names.iter().find_map(|name| name.strip_prefix("libcudart.so."))?;
    runtime.split('.').next()?.parse().ok()
}

/// Returns the CUDA version that a provider was built for, such as 13.
///
/// # Errors
/// Returns an error in the same cases as [`needed`].
pub(crate) fn cuda_version_of(provider: &Path) -> Result<Option<u32>> {
    Ok(cuda_version(&needed(provider)?))
}

/// Returns folders that may contain libraries the loader does not find by itself.
fn folders_near(provider: &Path) -> Vec<PathBuf> {
    let own = provider.parent().unwrap_or(Path::new("."));
    let mut folders = vec![own.to_path_buf()];
    // site-packages/onnxruntime/capi and site-packages/nvidia/<part>/lib
    if let Some(packages) = own.ancestors().nth(2) {
        let parts = std::fs::read_dir(packages.join("nvidia")).into_iter().flatten();
        let mut parts: Vec<PathBuf> =
            parts.filter_map(|part| Some(part.ok()?.path().join("lib"))).collect();
        parts.sort();
        folders.extend(parts);
    }
    folders
}

/// Loads a library for the lifetime of the process, or returns the loader's message.
fn load(name: &str, folders: &[PathBuf]) -> Result<(), String> {
    let by_name = match ort::util::preload_dylib(name) {
        Ok(()) => return Ok(()),
        Err(error) => words_of(&error),
    };
    if missing_file(&by_name) != Some(name) {
        return Err(by_name);
    }
    match folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()) {
        Some(path) => ort::util::preload_dylib(path).map_err(|error| words_of(&error)),
        None => Err(by_name),
    }
}

/// Returns the loader's own message, which is the source of the error if it has one.
fn words_of(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Returns the name of the file that the loader did not find.
fn missing_file(words: &str) -> Option<&str> {
    let (name, reason) = words.split_once(": ")?;
    reason.starts_with("cannot open shared object file: No such file").then_some(name)
}

fn describe(name: &str, cuda: Option<u32>, problem: Option<String>) -> Library {
    let known = PARTS.iter().find(|(start, ..)| name.starts_with(start));
    let (part, package) = known.map_or((SYSTEM, None), |(_, part, package)| (*part, *package));
    // The names of CUDA 12 packages end in the version; among those of CUDA 13, only cuDNN's does.
    let package = package.map(|package| match cuda {
        Some(version) if version < 13 || package == "nvidia-cudnn" => {
            format!("{package}-cu{version}")
        }
        _ => package.into(),
    });
    Library { name: name.into(), part, package, problem }
}

/// Returns the reason and a hint for libraries that cannot be loaded; `None` if all were loaded.
pub(crate) fn explain_missing(
    libraries: &[Library],
    cuda: Option<u32>,
) -> Option<(String, String)> {
    let broken: Vec<&Library> = libraries
        .iter()
        .filter(|library| library.problem.is_some() && library.name != DRIVER_LIBRARY)
        .collect();
    let [first, ..] = broken[..] else {
        return None;
    };
    let is_missing = |library: &&&Library| {
        let problem = library.problem.as_deref().unwrap_or_default();
        missing_file(problem).is_some()
    };
    let missing: Vec<&&Library> = broken.iter().filter(is_missing).collect();
    let mut reasons = Vec::new();
    if !missing.is_empty() {
        let names: Vec<String> = missing
            .iter()
            .map(|library| format!("`{}` ({})", library.name, library.part))
            .collect();
        reasons.push(format!(
            "the CUDA provider needs libraries that are not found: {}",
            names.join(", ")
        ));
    }
    for library in broken.iter().filter(|library| !is_missing(library)) {
        let problem = library.problem.as_deref().unwrap_or_default();
        reasons.push(format!("`{}` cannot be loaded: {problem}", library.name));
    }
    let packages: BTreeSet<&str> =
        broken.iter().filter_map(|library| library.package.as_deref()).collect();
    let version = cuda.map_or(String::new(), |version| format!(" {version}"));
    let hint = if packages.is_empty() {
        format!(
            "install the package of this system that holds `{}`; or set model.device = \"cpu\"",
            first.name
        )
    } else {
        format!(
            "get CUDA{version} and cuDNN 9 from the system's packages, or `pip install {}`, and put their folders of \
         libraries on LD_LIBRARY_PATH (or the files beside ONNX Runtime); or set model.device = \"cpu\"",
            Vec::from_iter(packages).join(" ")
        )
    };
    Some((reasons.join("; "), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(name: &str) -> Library {
        let words = format!("{name}: cannot open shared object file: No such file or directory");
        describe(name, Some(13), Some(words))
    }

    #[test]
    fn what_is_missing_is_named_with_its_part_and_its_package() {
        let libraries = [
            missing("libcublasLt.so.13"),
            missing("libcublas.so.13"),
            missing("libcuda.so.1"),
            missing("libcudnn.so.9"),
            describe("libcurand.so.10", Some(13), None),
        ];
        let (reason, hint) = explain_missing(&libraries, Some(13)).unwrap();
        assert_eq!(
            reason,
            "the CUDA provider needs libraries that are not found: `libcublasLt.so.13` (cuBLAS), `libcublas.so.13` \
             (cuBLAS), `libcudnn.so.9` (cuDNN)"
        );
        assert!(hint.contains("pip install nvidia-cublas nvidia-cudnn-cu13`"), "{hint}");
    }

    #[test]
    fn packages_of_cuda_12_carry_its_number() {
        let package = |name| describe(name, Some(12), None).package;
        assert_eq!(package("libcudart.so.12").unwrap(), "nvidia-cuda-runtime-cu12");
        assert_eq!(package("libcudnn.so.9").unwrap(), "nvidia-cudnn-cu12");
        assert_eq!(package("libcuda.so.1"), None);
    }

    #[test]
    fn a_missing_driver_alone_is_no_missing_library() {
        assert_eq!(explain_missing(&[missing(DRIVER_LIBRARY)], Some(13)), None);
    }

    #[test]
    fn a_library_that_is_there_and_cannot_be_loaded_is_told_in_the_loaders_words() {
        let words = "/lib/libcublas.so.13: file too short";
        let broken = describe("libcublas.so.13", Some(13), Some(words.into()));
        let (reason, _) = explain_missing(&[broken], Some(13)).unwrap();
        assert_eq!(
            reason,
            "`libcublas.so.13` cannot be loaded: /lib/libcublas.so.13: file too short"
        );
    }

    #[test]
    fn the_needs_of_this_very_program_are_read() {
        let program = std::env::current_exe().unwrap();
        let names = needed(&program).unwrap();
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
        let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = needed(&text).unwrap_err().to_string();
        assert!(error.contains("is not a library for this machine"), "{error}");
    }
}
