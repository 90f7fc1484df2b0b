//! `scripts/gpu-pack` and the script `unpack` that it writes: pieces of a given size, which are checked and joined.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::support::{Workshop, assert_same_files, contents, repository, say};

const MOST_BYTES: u64 = 4096;

fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

/// Returns incompressible bytes.
fn noise(seed: u64, n_bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let byte = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n_bytes).map(byte).collect()
}

/// Creates stand-ins for the libraries, the binary and the model.
fn inputs() -> Workshop {
    let workshop = Workshop::empty();
    for folder in ["libs", "model"] {
        fs::create_dir(workshop.path(folder)).unwrap();
    }
    for (number, name) in [
        "libs/libonnxruntime.so.1.31.1",
        "libs/libonnxruntime_providers_shared.so",
        "libs/libonnxruntime_providers_cuda.so",
        "libs/libonnxruntime_providers_tensorrt.so",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "program",
        "corpus.txt",
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(workshop.path(name), noise(number as u64, 3000)).unwrap();
    }
    let program = workshop.path("program");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    workshop
}

fn pack(workshop: &Workshop, out: &str, tool: &str) -> Output {
    let path = |name: &str| workshop.path(name).display().to_string();
    let mut command = Command::new(repository().join("scripts/gpu-pack"));
    for (option, value) in [
        ("--libs", path("libs")),
        ("--binary", path("program")),
        ("--model", path("model")),
        ("--corpus", path("corpus.txt")),
        ("--out", path(out)),
        ("--max-piece", MOST_BYTES.to_string()),
        ("--with", tool.into()),
    ] {
        command.args([option, &value]);
    }
    command.output().unwrap()
}

fn unpack(pieces: &Path, target: &Path) -> Output {
    let mut command = Command::new("sh");
    command.arg(pieces.join("unpack")).arg(target);
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn pieces_are_of_the_size_asked_for_and_join_to_what_was_packed() {
    for tool in ["zstd", "xz"] {
        if !has(tool) {
            say(&format!("skipped: there is no {tool} here"));
            continue;
        }
        let workshop = inputs();
        for out in ["first", "second"] {
            let packed = pack(&workshop, out, tool);
            assert!(packed.status.success(), "{}", stderr(&packed));
        }
        let first = contents(&workshop.path("first"));
        assert_same_files(&first, &contents(&workshop.path("second")));
        let pieces: Vec<u64> = first
            .iter()
            .filter(|(name, _)| name.starts_with("piece-"))
            .map(|(_, bytes)| bytes.len() as u64)
            .collect();
        // The pieces hold eight incompressible files of 3,000 bytes, and gpu-check.
        assert!(pieces.len() >= 6, "{} pieces", pieces.len());
        let (last, full) = pieces.split_last().unwrap();
        assert!(full.iter().all(|bytes| *bytes == MOST_BYTES) && *last <= MOST_BYTES);

        let target = workshop.path("target");
        let unpacked = unpack(&workshop.path("first"), &target);
        assert!(unpacked.status.success(), "{}", stderr(&unpacked));
        let joined = contents(&target);
        let names: Vec<&str> = joined.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "bin/frostbert",
                "data/corpus.txt",
                "libs/libonnxruntime.so.1.31.1",
                "libs/libonnxruntime_providers_cuda.so",
                "libs/libonnxruntime_providers_shared.so",
                "models/minilm/config.json",
                "models/minilm/model.safetensors",
                "models/minilm/tokenizer.json",
                "scripts/gpu-check",
            ]
        );
        for (packed, original) in [
            ("bin/frostbert", "program"),
            ("libs/libonnxruntime.so.1.31.1", "libs/libonnxruntime.so.1.31.1"),
            ("models/minilm/model.safetensors", "model/model.safetensors"),
        ] {
            assert_eq!(joined[packed], fs::read(workshop.path(original)).unwrap());
        }
        let mode = fs::metadata(target.join("bin/frostbert")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o755);
    }
}

#[test]
fn a_piece_that_is_missing_or_damaged_is_named_and_nothing_is_unpacked() {
    let Some(tool) = ["zstd", "xz"].into_iter().find(|tool| has(tool)) else {
        return say("skipped: there is neither zstd nor xz here");
    };
    let workshop = inputs();
    let packed = pack(&workshop, "pieces", tool);
    assert!(packed.status.success(), "{}", stderr(&packed));
    let (pieces, target) = (workshop.path("pieces"), workshop.path("target"));
    let piece = pieces.join("piece-0002");
    let bytes = fs::read(&piece).unwrap();
    fs::remove_file(&piece).unwrap();
    let refused = unpack(&pieces, &target);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(stderr(&refused), "error: unpack: not here yet: piece-0002\n");

    let mut damaged = bytes;
    damaged[100] ^= 1;
    fs::write(&piece, damaged).unwrap();
    let refused = unpack(&pieces, &target);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("piece-0002: FAILED") && said.contains("bring it again"), "{said}");
    assert!(contents(&target).is_empty());

    let again = pack(&workshop, "pieces", tool);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("is not empty"), "{}", stderr(&again));
}
