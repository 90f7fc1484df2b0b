//! Obstacles for a writer: another writer, a folder without permissions, and a full disk.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    crash::{EXTRACT, N_TEXTS, Reference, reference, workshop},
    support::{
        Ran, Workshop, assert_same_files, contents, csv, csv_with_repeats, finish, program,
        read_json, say, texts,
    },
};

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let path = workshop.cache().join("writer.lock");
    fs::write(&path, "4242\n").unwrap();
    let lock = File::open(&path).unwrap();
    lock.try_lock().unwrap();
    // Cached states can be read, and an extraction that has nothing to add needs no lock.
    workshop.succeed(&["train", "pipeline.toml"]);
    workshop.succeed(&EXTRACT);
    workshop.write("train.csv", csv(&texts(N_TEXTS), 0));
    insta::assert_snapshot!(workshop.fail(&EXTRACT));
    workshop.succeed(&["cache", "verify", "cache"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "4242\n", "the holder's number was overwritten");
    drop(lock);
    workshop.succeed(&EXTRACT);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns the program run as a user who is subject to permissions, or `None`, after a message, if that is not
/// possible.
fn as_a_common_user(workshop: &Workshop, arguments: &[&str]) -> Option<Command> {
    const NOBODY: u32 = 65534;
    let mut command = workshop.command(arguments);
    if fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
        command.uid(NOBODY).gid(NOBODY);
        let mut probe = program(&workshop.path(""), &["tokenize", "--text", "a", "--model"]);
        probe.arg(crate::support::fixture("tiny_bert")).uid(NOBODY).gid(NOBODY);
        if !probe.output().is_ok_and(|output| output.status.success()) {
            say("skipped: root ignores permissions, and nobody may not run the program here");
            return None;
        }
    }
    Some(command)
}

#[test]
fn a_cache_folder_without_the_right_to_write_is_a_clear_error_and_can_be_read() {
    let workshop = Workshop::tiny();
    set_mode(&workshop.path(""), 0o755);
    fs::create_dir(workshop.path("cache")).unwrap();
    fs::create_dir(workshop.path("runs")).unwrap();
    set_mode(&workshop.path("runs"), 0o777);
    set_mode(&workshop.path("cache"), 0o555);
    let Some(command) = as_a_common_user(&workshop, &EXTRACT) else {
        return;
    };
    let ran = finish(command);
    assert!(ran.has_failed(), "{}", ran.stdout);
    insta::assert_snapshot!(
        "a_cache_dir_without_the_right_to_write",
        workshop.normalise(&ran.stderr)
    );

    set_mode(&workshop.path("cache"), 0o755);
    workshop.succeed(&EXTRACT);
    let cache = workshop.cache();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.push(cache.clone());
    for path in &entries {
        set_mode(path, if path.is_dir() { 0o555 } else { 0o444 });
    }
    let Some(command) = as_a_common_user(&workshop, &["train", "pipeline.toml"]) else {
        return;
    };
    let ran = finish(command);
    assert_eq!(ran.code, Some(0), "training only reads the cache: {}", ran.stderr);
    let Some(command) = as_a_common_user(&workshop, &EXTRACT) else {
        return;
    };
    let ran = finish(command);
    assert_eq!(ran.code, Some(0), "nothing is to be written: {}", ran.stderr);
    workshop.write("train.csv", csv(&texts(N_TEXTS), 0));
    let Some(command) = as_a_common_user(&workshop, &EXTRACT) else {
        return;
    };
    let ran = finish(command);
    insta::assert_snapshot!("a_cache_without_the_right_to_write", workshop.normalise(&ran.stderr));
    set_mode(&cache, 0o755);
}

/// Extracts to a disk of 300 KiB in a separate mount namespace, then enlarges the disk and extracts again.
const FULL_DISK: &str = r#"
mount -t tmpfs -o size=300k tmpfs cache || exit 77
"$0" extract pipeline.toml --threads 1 --json > refused.json 2> refused.txt && exit 81
ls cache/*/shard-000000 2> /dev/null && exit 82
"$0" extract pipeline.toml --threads 1 --yes
code=$?
cp cache/*/manifest.json left.json
mount -o remount,size=50m cache || exit 77
"$0" extract pipeline.toml --threads 1 --json > resumed.json || exit 79
cp -r cache saved
exit $code
"#;

/// Runs a script that mounts a disk. Root needs no user namespace, and other users may be allowed one; returns `None`
/// if neither works.
pub(crate) fn run_with_a_small_disk(workshop: &Workshop, script: &str) -> Option<Ran> {
    if Command::new("unshare").arg("--help").output().is_err() {
        say("skipped: there is no `unshare` to mount a small disk with");
        return None;
    }
    let attempts = ["-m", "-rm"].into_iter().map(|namespaces| {
        let mut command = Command::new("unshare");
        command.args([namespaces, "sh", "-c", script, env!("CARGO_BIN_EXE_frostbert")]);
        command.current_dir(workshop.path("")).stdin(Stdio::null());
        finish(command)
    });
    let ran = attempts
        .into_iter()
        .find(|ran| ran.code != Some(77) && !ran.stderr.contains("unshare failed"));
    if ran.is_none() {
        say("skipped: this machine lets a test mount no small disk");
    }
    ran
}

#[test]
fn a_full_disk_is_named_and_loses_nothing_that_was_committed() {
    let workshop = workshop();
    fs::create_dir(workshop.path("cache")).unwrap();
    let Some(ran) = run_with_a_small_disk(&workshop, FULL_DISK) else {
        return;
    };
    assert!(ran.has_failed(), "{}", ran.stderr);
    assert_names_the_full_disk(&ran, "cache/");
    let refused = crate::support::read_json(&workshop.path("refused.json"));
    assert_eq!(refused["error"]["kind"], "no_space", "a refusal is no report: {refused}");
    let refused = fs::read_to_string(workshop.path("refused.txt")).unwrap();
    let expected = regex::Regex::new(
        r"error: [\d.]+ MB are to be written to `cache/\w+`, which has [\d.]+ MB left\nhint: free some space, .*--yes",
    );
    assert!(expected.unwrap().is_match(&refused), "{refused}");

    let left = read_json(&workshop.path("left.json"));
    let resumed = read_json(&workshop.path("resumed.json"));
    assert!(left["documents"].as_u64().unwrap() > 0, "the disk was full before the first commit");
    assert_eq!(resumed["reused"], left["documents"]);
    let Reference { fingerprint, files, .. } = reference();
    assert_same_files(files, &contents(&workshop.path("saved").join(fingerprint)));
}

/// Trains with a folder of runs on a disk of 32 KiB, then enlarges the disk and trains again.
const FULL_RUNS: &str = r#"
mount -t tmpfs -o size=32k tmpfs runs || exit 77
"$0" run pipeline.toml
code=$?
mount -o remount,size=50m runs || exit 77
"$0" predict runs/tiny --text a && exit 78
"$0" run pipeline.toml >&2 || exit 79
"$0" predict runs/tiny --text a >&2 || exit 80
exit $code
"#;

#[test]
fn a_disk_full_of_runs_is_named_and_the_half_written_run_is_never_taken_for_one() {
    let workshop = workshop();
    fs::create_dir(workshop.path("runs")).unwrap();
    let Some(ran) = run_with_a_small_disk(&workshop, FULL_RUNS) else {
        return;
    };
    assert!(ran.has_failed(), "{}", ran.stderr);
    assert_names_the_full_disk(&ran, "runs/tiny/001/");
}

/// Asserts that stderr names a file under `folder`, the system's reason once, and the cure.
pub(crate) fn assert_names_the_full_disk(ran: &Ran, folder: &str) {
    let expected = format!(
        r"(?m)^error: cannot [a-z ]+ `{folder}[^`]+`: No space left on device \(os error 28\)\nhint: free some space "
    );
    assert!(regex::Regex::new(&expected).unwrap().is_match(&ran.stderr), "{}", ran.stderr);
}

/// Adds states to a cache on a disk that has room for half of them, which is more than are written at a time. Reads the
/// cache there, then enlarges the disk and resumes.
const FULL_WHILE_ADDING: &str = r#"
mkdir base && mv cache/* base || exit 76
size=$(($(du -sk base | cut -f1) + 500))
mount -t tmpfs -o size=${size}k tmpfs cache || exit 77
cp -r base/* cache || exit 78
"$0" extract pipeline.toml --threads 1 --yes
code=$?
cp cache/*/manifest.json left.json
"$0" cache verify cache >&2 || exit 79
"$0" train pipeline.toml >&2 || exit 80
mount -o remount,size=50m cache || exit 77
"$0" extract pipeline.toml --threads 2 --json > resumed.json || exit 81
cp -r cache saved
exit $code
"#;

#[test]
fn a_disk_that_is_full_of_added_states_loses_none_and_can_be_read() {
    let prepared = || {
        let workshop = Workshop::rich(600);
        let means = "cache.store=[\"mean\"]";
        workshop.succeed(&["extract", "pipeline.toml", "--set", means]);
        workshop
    };
    let workshop = prepared();
    let Some(ran) = run_with_a_small_disk(&workshop, FULL_WHILE_ADDING) else {
        return;
    };
    assert!(ran.has_failed(), "{}", ran.stderr);
    assert_names_the_full_disk(&ran, "cache/");
    let left = read_json(&workshop.path("left.json"));
    let shards = left["shards"].as_array().unwrap().iter();
    let grown: Vec<u64> = shards
        .filter(|shard| shard["origins"].as_array().unwrap().len() == 2)
        .map(|shard| shard["documents"].as_u64().unwrap())
        .collect();
    assert!(!grown.is_empty(), "the disk was full before the first commit");
    let resumed = read_json(&workshop.path("resumed.json"));
    assert_eq!(resumed["reused"], grown.iter().sum::<u64>());

    let uninterrupted = prepared();
    uninterrupted.succeed(&EXTRACT);
    assert_same_files(&contents(&uninterrupted.path("cache")), &contents(&workshop.path("saved")));
}

#[test]
fn what_reads_during_an_extraction_sees_a_whole_cache_and_a_second_writer_sees_who_writes() {
    let workshop = Workshop::rich(1200);
    let means = ["--set", "cache.store=[\"mean\"]"];
    workshop.succeed(&[&EXTRACT[..], &means].concat());
    let n_shards = |workshop: &Workshop| workshop.manifest()["shards"].as_array().unwrap().len();
    let n_before = n_shards(&workshop);
    // Adds states for existing texts, and new texts.
    workshop.write("train.csv", csv_with_repeats(1500));
    let mut writer =
        workshop.command(&EXTRACT).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut n_rounds, mut n_refused) = (0, 0);
    let mut n_shards_seen = n_before;
    let old = csv_with_repeats(1200);
    workshop.write("old.csv", old);
    let on_old = ["train", "pipeline.toml", "--set", "data.train={ path = \"old.csv\" }"];
    while writer.try_wait().unwrap().is_none() {
        let info = workshop.json(&["cache", "info", workshop.cache().to_str().unwrap()]);
        let shards = info["shards"].as_array().unwrap().len();
        assert!(shards >= n_shards_seen, "{shards} shards after {n_shards_seen}");
        n_shards_seen = shards;
        workshop.succeed(&["cache", "verify", "cache"]);
        let ran = workshop.run(&EXTRACT);
        if ran.code != Some(0) {
            assert_eq!(ran.code, Some(5), "busy: {}", ran.stderr);
            let holder = format!("is being written by process {}\nhint: wait", writer.id());
            assert!(ran.stderr.contains(&holder), "{}", ran.stderr);
            n_refused += 1;
        }
        workshop.succeed(&on_old);
        n_rounds += 1;
    }
    assert!(writer.wait().unwrap().success());
    assert!(
        n_rounds > 0 && n_refused > 0,
        "{n_rounds} rounds, {n_refused} refused: this run proves nothing"
    );
    assert!(n_shards(&workshop) > n_before);
    workshop.succeed(&["cache", "verify", "cache"]);
    assert_eq!(workshop.json(&EXTRACT)["reused"], 1500);
}

#[test]
fn a_forecast_is_a_little_above_what_is_written_then() {
    let workshop = Workshop::rich(600);
    let steps: [&[&str]; 3] = [
        &["cache.store=[\"mean\", \"words\"]", "cache.layers=[-1]"],
        &[],
        &["cache.dtype=f32", "cache.shard_tokens=3000"],
    ];
    let pattern = regex::Regex::new(r"tokens, ([0-9.]+) (kB|MB) to write").unwrap();
    for settings in steps {
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<&str> = EXTRACT.into_iter().chain(["--json"]).chain(set).collect();
        let ran = workshop.succeed(&arguments);
        // Stdout contains a single JSON object, whatever is printed to stderr.
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let written = report["bytes_written"].as_f64().unwrap();
        let forecast = pattern.captures(&ran.stderr).expect("a forecast");
        let unit = if &forecast[2] == "kB" { 1e3 } else { 1e6 };
        let forecast: f64 = forecast[1].parse::<f64>().unwrap() * unit;
        assert!(
            (1.0..1.35).contains(&(forecast / written)),
            "{settings:?}: {forecast} of {written}"
        );
    }
}
