//! ONNX Runtime itself: a shared library that is checked and loaded once per process.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use frostbert_cache::mmap;
use ort::{LoadDynamicError, environment::Environment, logging::LogLevel};

use crate::error::{Error, Result};

/// The loaded ONNX Runtime.
#[derive(Clone)]
pub struct Runtime {
    /// The path of the loaded library.
    pub library: PathBuf,
    /// The version, such as `1.31.1`.
    pub version: String,
    pub(super) environment: Environment,
}

/// The minor version of the oldest ONNX Runtime 1.x with the API that this program calls.
pub(crate) const NEEDED_MINOR_VERSION: u32 = ort::MINOR_VERSION;

static LOADED: OnceLock<Runtime> = OnceLock::new();

impl Runtime {
    /// Loads ONNX Runtime from a library file; a second call returns the runtime of the first.
    ///
    /// # Errors
    /// Returns an error if the file is missing, cannot be loaded, or is older than this program requires.
    pub fn load(library: &Path) -> Result<Runtime> {
        if let Some(loaded) = LOADED.get() {
            return Ok(loaded.clone());
        }
        let needed = format!("version 1.{NEEDED_MINOR_VERSION} or later");
        let refuse = |got: String, hint: &str| Error::Runtime {
            expected: needed.clone(),
            got,
            hint: hint.into(),
        };
        // Use an absolute path, or the loader would first look next to the program.
        let library = library.canonicalize().map_err(|error| {
            refuse(
                format!("`{}`: {error}", library.display()),
                "`make setup` fetches it into runtime/, `pip install onnxruntime` into a Python environment; or name \
                 the library with --ort-lib or ORT_DYLIB_PATH",
            )
        })?;
        let builder = ort::init_from(&library).map_err(|error| match error {
            LoadDynamicError::BadVersion { version_str, path } => refuse(
                format!("version {version_str} at `{}`", path.display()),
                "`make setup` or `pip install -U onnxruntime` fetches the right one; or name another with --ort-lib",
            ),
            LoadDynamicError::MissingApi { path } => refuse(
                format!("`{}`, which is not ONNX Runtime (it lacks OrtGetApiBase)", path.display()),
                "name libonnxruntime.so itself with --ort-lib",
            ),
            LoadDynamicError::Dlopen { error, path } => refuse(
                // The loader's own message is in the source.
                match std::error::Error::source(&error) {
                    Some(reason) => format!("`{}`: {reason}", path.display()),
                    None => format!("`{}`: {error}", path.display()),
                },
                "name a libonnxruntime.so for this machine with --ort-lib; `make setup` fetches one",
            ),
            LoadDynamicError::InvalidVersionString => refuse(
                format!("`{}`, whose version is not valid text", library.display()),
                "name another libonnxruntime.so with --ort-lib",
            ),
        })?;
        let environment =
            builder.with_name("frostbert").with_telemetry(false).build().map_err(|error| {
                Error::Runtime {
                    expected: "an environment".into(),
                    got: error.to_string(),
                    hint: "name another libonnxruntime.so with --ort-lib".into(),
                }
            })?;
        // Failures come back as errors with the same message, so nothing should be printed as well.
        environment.set_log_level(LogLevel::Fatal);
        let version = version_of(&library);
        let runtime = Runtime { library, version, environment };
        Ok(LOADED.get_or_init(|| runtime).clone())
    }

    /// Returns the folder of the library, which must also contain its providers' libraries.
    pub fn folder(&self) -> &Path {
        // The canonical path of a file has a parent.
        self.library.parent().unwrap_or(Path::new("/"))
    }
}

/// Returns the version in the file name, else that of the symbols in the file, else `unknown`.
fn version_of(library: &Path) -> String {
    let from_name = library
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once(".so."))
        .map(|(_, version)| version.to_string());
    let from_symbols = || symbol_version(&mmap::map(library).ok()?);
    from_name.or_else(from_symbols).unwrap_or_else(|| "unknown".into())
}

/// Returns ONNX Runtime for this module's unit tests, loaded once.
#[cfg(test)]
pub(super) fn for_tests() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/libonnxruntime.so");
        Runtime::load(&library).expect("runtime/ is not there: run `make setup`")
    })
}

/// Returns the text after `VERS_` in the version of ONNX Runtime's symbols, as in `OrtGetApiBase@@VERS_1.31.1`.
fn symbol_version(bytes: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"\0VERS_";
    let starts = bytes.windows(MARK.len()).enumerate();
    let mut versions = starts.filter(|(_, window)| *window == MARK).filter_map(|(start, _)| {
        let rest = &bytes[start + MARK.len()..];
        let end = rest.iter().position(|byte| *byte == 0)?;
        let version = std::str::from_utf8(&rest[..end]).ok()?;
        let numbers = version.split('.').all(|part| part.parse::<u32>().is_ok());
        numbers.then(|| version.to_string())
    });
    versions.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_symbols_stands_in_for_that_of_the_file_name() {
        let version = |bytes: &[u8]| symbol_version(bytes);
        assert_eq!(version(b"a\0VERS_x\0\0VERS_1.31.1\0b").unwrap(), "1.31.1");
        assert_eq!(version(b"VERS_1.31.1"), None);
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/libonnxruntime.so");
        let library = library.canonicalize().expect("runtime/ is not there: run `make setup`");
        let bytes = mmap::map(&library).unwrap();
        let name = library.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(name, format!("libonnxruntime.so.{}", version(&bytes).unwrap()));
    }
}
