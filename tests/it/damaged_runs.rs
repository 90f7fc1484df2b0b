//! Run folders that were changed after the run: heads, their descriptions, and locks.

use std::{fs, path::Path};

use frostbert::cache::fingerprint::hash_file;
use serde_json::{Value, json};

use crate::{
    support::{Workshop, read_json},
    sweep::{SWEEP, workshop as sweep_workshop},
};

const PREDICT: [&str; 4] = ["predict", "runs/tiny", "--text", "the cold snow"];

fn with_run() -> Workshop {
    let workshop = Workshop::with_test_file();
    workshop.json(&["run", "pipeline.toml"]);
    workshop
}

fn refused(workshop: &Workshop, file: &str) -> String {
    let evaluate = ["evaluate", "runs/tiny", "--data", "test.csv"];
    let stderr = workshop.fail(&evaluate);
    assert_eq!(stderr, workshop.fail(&PREDICT));
    assert!(
        stderr.contains(&format!("001/{file}`: expected")) && stderr.contains("hint: "),
        "{stderr}"
    );
    stderr
}

/// Updates the hash of a file in the lock of a run, as the user who made the run could.
fn lock_again(run: &Path, file: &str) {
    let lock = run.join("lock.json");
    let mut locked = read_json(&lock);
    locked["outputs"][file] = json!(hash_file(&run.join(file)).unwrap());
    fs::write(&lock, locked.to_string()).unwrap();
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_head_with_any_bit_changed_is_not_used() {
    let workshop = with_run();
    for name in ["head.safetensors", "head.json"] {
        let path = workshop.path("runs/tiny/001").join(name);
        let good = fs::read(&path).unwrap();
        for place in [good.len() / 2, good.len() - 3] {
            flip(&path, place);
            let stderr = refused(&workshop, name);
            assert!(stderr.contains("as lock.json says"), "{stderr}");
            fs::write(&path, &good).unwrap();
        }
        workshop.succeed(&PREDICT);
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_whoever_wrote_them() {
    let workshop = with_run();
    let run = workshop.path("runs/tiny/001");
    let weights = run.join("head.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    lock_again(&run, "head.safetensors");
    let stderr = refused(&workshop, "head.safetensors");
    assert!(stderr.contains("expected numbers in `"), "{stderr}");
}

#[test]
fn outputs_that_are_not_finite_are_refused_by_predict_and_evaluate() {
    let workshop = with_run();
    let run = workshop.path("runs/tiny/001");
    let weights = run.join("head.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for value in bytes[header..].chunks_exact_mut(4) {
        value.copy_from_slice(&3e38f32.to_le_bytes());
    }
    fs::write(&weights, bytes).unwrap();
    lock_again(&run, "head.safetensors");
    for command in [&PREDICT[..], &["evaluate", "runs/tiny", "--data", "test.csv"]] {
        let stderr = workshop.fail(command);
        assert!(stderr.contains("not finite"), "{command:?}: {stderr}");
    }
}

#[test]
fn a_description_with_sizes_that_cannot_be_is_refused_whoever_wrote_it() {
    let workshop = with_run();
    let run = workshop.path("runs/tiny/001");
    let head = run.join("head.json");
    let good = read_json(&head);
    let huge = json!(1u64 << 62);
    for (pointer, value) in [
        ("/network/n_features", huge.clone()),
        ("/network/n_features", json!(0)),
        ("/network/n_outputs", huge.clone()),
        ("/network/hidden", json!([1u64 << 40, 1u64 << 40])),
        ("/network/n_layers", huge),
        ("/temperature", json!(0.0)),
        ("/labels", json!(["cold"])),
        ("/states", json!([])),
        ("/layers", json!([18446744073709551615u64])),
    ] {
        let mut described = good.clone();
        *described.pointer_mut(pointer).unwrap() = value;
        fs::write(&head, described.to_string()).unwrap();
        lock_again(&run, "head.json");
        refused(&workshop, "head.json");
    }
}

#[test]
fn a_lock_whose_settings_make_other_states_than_its_heads_is_refused() {
    let workshop = with_run();
    let lock = workshop.path("runs/tiny/001/lock.json");
    let good = read_json(&lock);
    for (pointer, value) in [
        ("/pipeline/cache/max_length", json!(31)),
        ("/pipeline/cache/dtype", json!("f32")),
        ("/pipeline/data/task", json!("multilabel")),
        ("/cache/fingerprint", json!("0123456789abcdef")),
        ("/outputs/head.json", json!("0".repeat(64))),
    ] {
        let mut locked = good.clone();
        *locked.pointer_mut(pointer).unwrap() = value;
        fs::write(&lock, locked.to_string()).unwrap();
        let stderr = workshop.fail(&PREDICT);
        assert!(stderr.contains("runs/tiny/001/"), "{pointer}: {stderr}");
    }
    for short in ["/model/weights", "/data/0/blake3", "/split/rows", "/cache/rows"] {
        let mut locked = good.clone();
        *locked.pointer_mut(short).unwrap() = json!("abc");
        fs::write(&lock, locked.to_string()).unwrap();
        for command in [&PREDICT[..], &["run", "--locked", "runs/tiny/001/lock.json"]] {
            let stderr = workshop.fail(command);
            assert!(stderr.contains("64 hexadecimal digits"), "{short}: {stderr}");
        }
    }
}

#[test]
fn a_torn_lock_hides_no_older_run() {
    let workshop = with_run();
    workshop.json(&["train", "pipeline.toml"]);
    let newest = workshop.path("runs/tiny/002/lock.json");
    let whole = fs::read(&newest).unwrap();
    let expected = workshop.succeed(&PREDICT).stdout;
    for length in [0, whole.len() / 2] {
        fs::write(&newest, &whole[..length]).unwrap();
        let ran = workshop.succeed(&PREDICT);
        assert_eq!(ran.stdout, expected);
        assert!(ran.stderr.contains("warning: runs/tiny/002 is skipped"), "{}", ran.stderr);
        // Named itself, it is said to be torn.
        let stderr = workshop.fail(&["predict", "runs/tiny/002", "--text", "a"]);
        assert!(stderr.contains("002/lock.json`: expected a lock file"), "{stderr}");
    }
    // Folders with other names are not runs.
    for name in ["18446744073709551615", "+5", "0004"] {
        fs::create_dir(workshop.path("runs/tiny").join(name)).unwrap();
    }
    let run = workshop.json(&["train", "pipeline.toml"])["run"].clone();
    assert_eq!(run, json!("runs/tiny/003"));
}

#[test]
fn a_sweep_with_a_torn_lock_goes_on() {
    let workshop = sweep_workshop("lr = [1e-3, 1e-2]\nfolds = 2");
    workshop.succeed(SWEEP);
    let run = workshop.path("runs/tiny/001");
    let expected = fs::read(run.join("leaderboard.csv")).unwrap();
    // The state that a kill leaves behind: the work done so far, and a lock that is cut off.
    let lock: Value = read_json(&run.join("lock.json"));
    fs::create_dir(run.join("unfinished")).unwrap();
    let mut child = workshop.command(SWEEP).spawn().unwrap();
    let plan = workshop.path("runs/tiny/002/unfinished/lock.json");
    while fs::read(&plan).map_or(0, |bytes| bytes.len()) < lock.to_string().len() / 4 {
        assert!(child.try_wait().unwrap().is_none(), "the sweep ended before its plan was seen");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(workshop.path("runs/tiny/002/lock.json"), "").unwrap();
    let resumed = workshop.succeed(SWEEP);
    assert!(resumed.stderr.contains("resuming the unfinished sweep"), "{}", resumed.stderr);
    assert!(!workshop.path("runs/tiny/003").exists());
    let second = workshop.path("runs/tiny/002/leaderboard.csv");
    assert!(fs::read(second).unwrap() == expected);
}

#[test]
fn a_run_folder_holds_no_file_that_was_being_written() {
    let workshop = with_run();
    let names: Vec<String> = fs::read_dir(workshop.path("runs/tiny/001"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name == "lock.json"));
    assert!(names.iter().all(|name| !name.starts_with("tmp-")), "{names:?}");
}
