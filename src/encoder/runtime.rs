//! ONNX Runtime itself: one shared library, checked and loaded once for the process.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use ort::{LoadDynamicError, environment::Environment};

use crate::error::{Error, Result};

/// The loaded ONNX Runtime.
#[derive(Clone)]
pub struct Runtime {
    /// The library that was loaded.
    pub library: PathBuf,
    /// Its version, as `1.31.1`.
    pub version: String,
    pub(super) environment: Environment,
}

static LOADED: OnceLock<Runtime> = OnceLock::new();

impl Runtime {
    /// Loads ONNX Runtime from a library file; a second call returns the first one's runtime.
    ///
    /// # Errors
    /// When the file is missing, cannot be loaded, or is older than this program was made for.
    pub fn load(library: &Path) -> Result<Runtime> {
        if let Some(loaded) = LOADED.get() {
            return Ok(loaded.clone());
        }
        let needed = format!("version 1.{} or later", ort::MINOR_VERSION);
        let refuse = |got: String, hint: &str| Error::Runtime {
            expected: needed.clone(),
            got,
            hint: hint.into(),
        };
        // An absolute path, or the loader would look beside the program first.
        let library = library.canonicalize().map_err(|error| {
            refuse(
                format!("`{}`: {error}", library.display()),
                "`make setup` fetches it into runtime/; or name the library with --ort-lib or ORT_DYLIB_PATH",
            )
        })?;
        let builder = ort::init_from(&library).map_err(|error| match error {
            LoadDynamicError::BadVersion { version_str, path } => refuse(
                format!("version {version_str} at `{}`", path.display()),
                "`make setup` fetches the right one; or name another with --ort-lib",
            ),
            LoadDynamicError::MissingApi { path } => refuse(
                format!("`{}`, which is no ONNX Runtime (it lacks OrtGetApiBase)", path.display()),
                "name libonnxruntime.so itself with --ort-lib",
            ),
            LoadDynamicError::Dlopen { error, path } => refuse(
                // The loader's own words are in the source.
                match std::error::Error::source(&error) {
                    Some(reason) => format!("`{}`: {reason}", path.display()),
                    None => format!("`{}`: {error}", path.display()),
                },
                "name a libonnxruntime.so for this machine with --ort-lib; `make setup` fetches one",
            ),
            LoadDynamicError::InvalidVersionString => refuse(
                format!("`{}`, whose version is no text", library.display()),
                "name another libonnxruntime.so with --ort-lib",
            ),
        })?;
        let environment = builder
            .with_name("frostbert")
            .with_telemetry(false)
            .build()
            .map_err(|error| Error::Runtime {
                expected: "an environment".into(),
                got: error.to_string(),
                hint: "name another libonnxruntime.so with --ort-lib".into(),
            })?;
        let version = version_of(&library);
        let runtime = Runtime {
            library,
            version,
            environment,
        };
        Ok(LOADED.get_or_init(|| runtime).clone())
    }

    /// The folder that the library lies in, where its providers' libraries must lie too.
    pub fn folder(&self) -> &Path {
        // A canonical path of a file has a parent.
        self.library.parent().unwrap_or(Path::new("/"))
    }
}

/// The version in the build information, else in the file name, else `unknown`.
fn version_of(library: &Path) -> String {
    let from_name = library
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once(".so."))
        .map(|(_, version)| version.to_string());
    let from_build = || {
        let info = ort::info();
        let branch = info.split("git-branch=").nth(1)?.split(',').next()?;
        Some(branch.trim_start_matches("rel-").to_string())
    };
    from_name
        .or_else(from_build)
        .unwrap_or_else(|| "unknown".into())
}

/// ONNX Runtime for the unit tests of this folder, loaded once.
#[cfg(test)]
pub(super) fn for_tests() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/libonnxruntime.so");
        Runtime::load(&library).expect("runtime/ is not there: run `make setup`")
    })
}
