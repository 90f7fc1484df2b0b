//! A kill in the middle of a shard costs one batch, and processes that only read do not wait for a writer.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Workshop, assert_same_files, contents, csv, texts};

const EXTRACT: [&str; 4] = ["extract", "pipeline.toml", "--threads", "1"];

/// Creates a workshop with one shard of many batches, with states of every kind.
fn one_shard() -> Workshop {
    let workshop = Workshop::rich(3000);
    let pipeline = fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let tokens = pipeline.lines().find(|line| line.starts_with("shard_tokens")).unwrap();
    let one = pipeline.replace(tokens, "shard_tokens = 10000000");
    workshop.write("pipeline.toml", one);
    workshop
}

fn log_bytes(workshop: &Workshop) -> u64 {
    let Ok(caches) = fs::read_dir(workshop.path("cache")) else {
        return 0;
    };
    let files = caches.flat_map(|cache| fs::read_dir(cache.unwrap().path()).unwrap());
    let logs = files.map(Result::unwrap).filter(|file| {
        let name = file.file_name();
        name.to_string_lossy().starts_with("tmp-batches-")
    });
    logs.map(|file| file.metadata().map_or(0, |file| file.len())).sum()
}

/// Kills an extraction as soon as its logs have this many bytes.
fn kill_when_logged(workshop: &Workshop, n_bytes: u64) {
    let mut command = workshop.command(&EXTRACT);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while log_bytes(workshop) < n_bytes {
        let has_ended = child.try_wait().unwrap().is_some();
        assert!(!has_ended, "it ended before its log had grown");
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_kill_before_the_first_commit_costs_a_batch_and_not_the_shard() {
    let whole = one_shard();
    let report = whole.json(&EXTRACT);
    let expected = contents(&whole.cache());
    let total = report["tokens"].as_u64().unwrap();
    let workshop = one_shard();
    // Kill it twice, each time after the log has grown by more than a fifth of its final size.
    let bytes: u64 =
        fs::metadata(whole.cache().join("shard-000000/tokens-L02.parquet")).unwrap().len();
    let mut grown = 0;
    for _ in 0..2 {
        kill_when_logged(&workshop, grown + bytes);
        assert!(log_bytes(&workshop) > grown, "what was there is kept");
        grown = log_bytes(&workshop);
        assert!(!workshop.cache().join("manifest.json").exists(), "before the first commit");
    }
    let report = workshop.json(&EXTRACT);
    let again = report["tokens"].as_u64().unwrap();
    assert!(again > 0 && again < total * 2 / 3, "{again} of {total} tokens again");
    assert_same_files(&expected, &contents(&workshop.cache()));
}

#[test]
fn of_a_damaged_log_only_what_is_whole_is_taken() {
    let whole = one_shard();
    whole.json(&EXTRACT);
    let expected = contents(&whole.cache());
    let workshop = one_shard();
    kill_when_logged(&workshop, 200_000);
    let files = fs::read_dir(workshop.cache()).unwrap().map(|file| file.unwrap().path());
    for log in files.filter(|path| path.display().to_string().contains("tmp-batches-")) {
        let mut bytes = fs::read(&log).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 8;
        fs::write(&log, bytes).unwrap();
    }
    workshop.json(&EXTRACT);
    assert_same_files(&expected, &contents(&workshop.cache()));
}

#[test]
fn where_nothing_is_to_be_computed_no_other_process_is_waited_for() {
    let workshop = Workshop::with_test_file();
    workshop.json(&["run", "pipeline.toml"]);
    workshop.succeed(&["evaluate", "runs/tiny", "--data", "test.csv"]);
    let lock = fs::File::options()
        .read(true)
        .write(true)
        .open(workshop.cache().join("writer.lock"))
        .unwrap();
    lock.lock().unwrap();
    let plan = json!({
        "settings": { "shard_tokens": 1, "batch_tokens": 1 },
        "states": [], "first_shard": 0, "added": [], "documents": 0, "keys": "0".repeat(64),
    });
    let plan_path = workshop.cache().join("plan-0123456789abcdef.json");
    fs::write(&plan_path, plan.to_string()).unwrap();
    for command in [
        &["run", "pipeline.toml"][..],
        &["extract", "pipeline.toml"],
        &["train", "pipeline.toml"],
        &["evaluate", "runs/tiny", "--data", "test.csv"],
    ] {
        workshop.succeed(command);
        assert!(plan_path.exists(), "it is the other process's");
    }
    workshop.write("more.csv", csv(&texts(200), 0));
    let more = ["extract", "pipeline.toml", "--set", "data.train={path=\"more.csv\"}"];
    let stderr = workshop.fail(&more);
    assert!(stderr.contains("is being written by"), "{stderr}");
    // The next process removes what a killed writer left.
    drop(lock);
    workshop.succeed(&["run", "pipeline.toml"]);
    assert!(!plan_path.exists());
}
