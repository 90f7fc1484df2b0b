//! The machine: finds ONNX Runtime and the default model.

use std::path::{Path, PathBuf};

use frostbert::internals::{
    doctor::{RuntimeSearch, python_environment::PythonEnvironment},
    extraction::machine::Machine,
};

/// Where `make setup` puts the default model.
const DEFAULT_MODEL: &str = "models/minilm";

/// Returns the machine with ONNX Runtime from the flag, the variable, the Python environment that the program is
/// installed in, the checkout, or the system, and how it was found.
pub(super) fn machine(
    ort_lib: Option<&Path>,
    threads: usize,
    go_on: bool,
) -> (Machine, RuntimeSearch) {
    let python = python_environment();
    let named = |how, path: PathBuf| (in_folder(&path).unwrap_or(path), how, Vec::new());
    let (onnxruntime, how, looked) = match (ort_lib, std::env::var_os("ORT_DYLIB_PATH")) {
        (Some(path), _) => named("--ort-lib", path.to_path_buf()),
        (None, Some(path)) if !path.is_empty() => named("ORT_DYLIB_PATH", path.into()),
        _ => search(python.as_ref()),
    };
    let machine = Machine::new(onnxruntime, threads).go_on(go_on);
    (machine, RuntimeSearch { how, looked, python })
}

/// Returns the folder of a model, and in place of the default one, if that is not there, the one that is installed in
/// the program's Python environment.
pub(super) fn or_installed(model: &Path) -> PathBuf {
    let is_missing = model == Path::new(DEFAULT_MODEL) && !model.exists();
    let installed = || python_environment()?.model();
    is_missing.then(installed).flatten().unwrap_or_else(|| model.to_path_buf())
}

fn python_environment() -> Option<PythonEnvironment> {
    PythonEnvironment::of(&std::env::current_exe().ok()?)
}

/// Returns the library, how it was found, and the folders that were searched.
fn search(python: Option<&PythonEnvironment>) -> (PathBuf, &'static str, Vec<PathBuf>) {
    let mut looked = Vec::new();
    if let Some(folder) = python.map(PythonEnvironment::runtime_folder) {
        let library = in_folder(&folder);
        looked.push(folder);
        if let Some(library) = library {
            return (library, "environment", looked);
        }
    }
    let program = std::env::current_exe().ok();
    // In a checkout, the program is in target/release and the library in runtime.
    let near = program.iter().flat_map(|program| program.ancestors().skip(1)).take(4);
    let near = std::iter::once(Path::new("")).chain(near).map(|folder| folder.join("runtime"));
    let system =
        ["/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    for folder in near.chain(system.map(PathBuf::from)) {
        let library = in_folder(&folder);
        looked.push(folder);
        if let Some(library) = library {
            return (library, "found", looked);
        }
    }
    (PathBuf::from("runtime/libonnxruntime.so"), "not found", looked)
}

/// Returns the libonnxruntime.so in a folder, or the one with the highest version.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let libraries: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.")
        })
        .collect();
    // Versions are compared as numbers: 1.31 is newer than 1.9. The plain name, a link to the one in use, takes
    // precedence.
    libraries.into_iter().max_by_key(|path| {
        let name =
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let version = name.strip_prefix("libonnxruntime.so").unwrap_or_default();
        let numbers: Vec<u64> = version.split('.').filter_map(|part| part.parse().ok()).collect();
        (numbers.is_empty(), numbers)
    })
}
