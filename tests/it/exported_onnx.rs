//! `scripts/export-onnx.py`: what it exports is read, and has the states of the original. The Python that
//! FROSTBERT_PYTHON names runs it. Exports that need no Python to be tested are among the families.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Ran, Workshop, finish, fixture, repository, say, texts};

/// Returns the Python that FROSTBERT_PYTHON names, if it has what the script needs.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("FROSTBERT_PYTHON").filter(|python| !python.is_empty());
    let python = named.map(PathBuf::from).filter(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import onnx, onnxruntime, onnxscript, torch, transformers"]);
        finish(command).code == Some(0)
    });
    if python.is_none() {
        say(
            "skipped: FROSTBERT_PYTHON names no Python with torch, transformers, onnx, onnxscript and onnxruntime",
        );
    }
    python
}

/// Runs the script on the tiny BERT, into a folder of the workshop.
fn export(python: &Path, workshop: &Workshop) -> Ran {
    let mut command = Command::new(python);
    command.arg(repository().join("scripts/export-onnx.py"));
    command.arg(fixture("tiny_bert")).arg(workshop.path("exported")).env("HF_HUB_OFFLINE", "1");
    finish(command)
}

/// Returns the values of an `.npy` file of f32.
fn floats(npy: &[u8]) -> Vec<f32> {
    let start = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let values = npy[start..].chunks_exact(4);
    values.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn a_model_that_the_script_exports_has_the_states_of_the_original_in_every_layer() {
    let Some(python) = python() else { return };
    let workshop = Workshop::empty();
    let Ran { code, stdout, stderr } = export(&python, &workshop);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    workshop.write("texts.txt", texts(20).join("\n") + "\n");
    let original = fixture("tiny_bert").display().to_string();
    for layer in ["0", "1", "2"] {
        let rows = |model: &str, out: &str| {
            workshop.json(&[
                "embed",
                "texts.txt",
                "--model",
                model,
                "--layer",
                layer,
                "--out",
                out,
                "--set",
                "cache.max_length=32",
                "--set",
                "model.device=cpu",
            ]);
            floats(&fs::read(workshop.path(out)).unwrap())
        };
        let (own, exported) = (rows(&original, "own.npy"), rows("exported", "exported.npy"));
        assert_eq!((own.len(), exported.len()), (20 * 32, 20 * 32));
        let differences = own.iter().zip(&exported).map(|(own, exported)| (own - exported).abs());
        let largest = differences.fold(0.0f32, f32::max);
        assert!(largest <= 1e-4, "layer {layer}: the largest difference is {largest}");
    }
    let info = workshop.json(&["model", "info", "exported"]);
    assert_eq!(info["layers"], 2);
    assert_eq!(info["family"], "bert");

    let again = export(&python, &workshop);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("exists: name another folder"), "{}", again.stderr);
}
