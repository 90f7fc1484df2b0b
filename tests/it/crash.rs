//! What must not be lost when a process is killed: real processes are killed at many moments, and resumed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Workshop, assert_same_files, contents, csv, texts};

/// Enough texts for many shards, so that kills fall between any two of them.
pub(crate) const N_TEXTS: usize = 1500;

/// One thread, so that the work takes long; the bytes do not depend on the number of threads.
pub(crate) const EXTRACT: [&str; 4] = ["extract", "pipeline.toml", "--threads", "1"];

pub(crate) fn workshop() -> Workshop {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", csv(&texts(N_TEXTS), 0));
    workshop
}

/// The result of an uninterrupted extraction: its files, by their path under `cache/<fingerprint>`.
pub(crate) struct Reference {
    pub(crate) fingerprint: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    n_shards: usize,
}

pub(crate) fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let workshop = workshop();
        workshop.succeed(&EXTRACT);
        let manifest = workshop.manifest();
        Reference {
            fingerprint: manifest["fingerprint"].as_str().unwrap().into(),
            files: contents(&workshop.cache()),
            n_shards: manifest["shards"].as_array().unwrap().len(),
        }
    })
}

/// The state of a cache folder at one moment, seen from outside.
struct Moment {
    n_shards: usize,
    n_documents: u64,
    planned: bool,
    names: Vec<String>,
}

fn look(cache: &Path) -> Moment {
    let names: Vec<String> = fs::read_dir(cache).map_or(Vec::new(), |entries| {
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    });
    // The manifest is replaced by a rename, so a reader always sees a complete one.
    let manifest: Option<Value> = fs::read(cache.join("manifest.json"))
        .ok()
        .map(|bytes| serde_json::from_slice(&bytes).expect("a manifest is whole at any moment"));
    let manifest = manifest.unwrap_or_default();
    Moment {
        n_shards: manifest["shards"].as_array().map_or(0, Vec::len),
        n_documents: manifest["documents"].as_u64().unwrap_or(0),
        planned: names.iter().any(|name| name.starts_with("plan-")),
        names,
    }
}

fn spawn(workshop: &Workshop) -> Child {
    let mut command = workshop.command(&EXTRACT);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Kills an extraction as soon as `now` holds. Returns whether it was killed before its end.
fn kill_when(workshop: &Workshop, cache: &Path, now: impl Fn(&Moment, Duration) -> bool) -> bool {
    let mut child = spawn(workshop);
    let start = Instant::now();
    while !now(&look(cache), start.elapsed()) && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "the moment never came");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(9)
}

/// Resumes the extraction, and compares everything with the reference.
fn assert_resumes_to_the_reference(workshop: &Workshop, cache: &Path, what: &str) {
    let left = look(cache);
    let report = workshop.json(&EXTRACT);
    assert_eq!(report["unique"], N_TEXTS, "{what}");
    assert_eq!(report["reused"], left.n_documents, "what was committed is computed again: {what}");
    assert_eq!(report["computed"], N_TEXTS as u64 - left.n_documents, "{what}");
    assert_same_files(&reference().files, &contents(cache));
    let names = look(cache).names;
    let left_over = names.iter().find(|name| name.starts_with("plan-") || name.starts_with("tmp-"));
    assert_eq!(left_over, None, "{what}");
}

#[test]
fn a_killed_extraction_resumes_to_the_same_bytes() {
    let Reference { fingerprint, n_shards, .. } = reference();
    assert!(*n_shards >= 30, "{n_shards} shards are too few to be killed between");
    type Now = Box<dyn Fn(&Moment, Duration) -> bool>;
    let shards = |least: usize| -> Now { Box::new(move |moment, _| moment.n_shards >= least) };
    let moments: [(&str, Now); 8] = [
        (
            "two milliseconds after its start",
            Box::new(|_, elapsed| elapsed > Duration::from_millis(2)),
        ),
        (
            "eight milliseconds after its start",
            Box::new(|_, elapsed| elapsed > Duration::from_millis(8)),
        ),
        ("when the plan is written", Box::new(|moment, _| moment.planned)),
        (
            "while a shard is written aside",
            Box::new(|moment, _| moment.names.iter().any(|name| name.starts_with("tmp-shard-"))),
        ),
        (
            "between a shard's rename and its manifest",
            Box::new(|moment, _| {
                let committed =
                    moment.names.iter().filter(|name| name.starts_with("shard-")).count();
                committed > moment.n_shards
            }),
        ),
        ("after the first shard", shards(1)),
        ("after half of the shards", shards(n_shards / 2)),
        ("near the end", shards(n_shards - 4)),
    ];
    let mut n_halfway = 0;
    for (what, now) in moments {
        let workshop = workshop();
        let cache = workshop.path("cache").join(fingerprint);
        let killed = kill_when(&workshop, &cache, now);
        let left = look(&cache).n_shards;
        n_halfway += usize::from(killed && (1..*n_shards).contains(&left));
        assert_resumes_to_the_reference(&workshop, &cache, what);
    }
    assert!(n_halfway >= 3, "only {n_halfway} kills fell into the work: this run proves nothing");
}

#[test]
fn an_extraction_killed_again_and_again_comes_to_the_same_bytes() {
    let workshop = workshop();
    let cache = workshop.path("cache").join(&reference().fingerprint);
    let mut n_killed = 0;
    for _ in 0..5 {
        let before = look(&cache).n_shards;
        n_killed +=
            usize::from(kill_when(&workshop, &cache, |moment, _| moment.n_shards >= before + 3));
    }
    assert!(n_killed >= 3, "only {n_killed} of 5 runs were killed in time");
    assert_resumes_to_the_reference(&workshop, &cache, "killed five times");
}

#[test]
fn a_killed_extraction_of_an_added_state_resumes_to_the_same_bytes() {
    // All texts but one have the mean. Then mean and cls are requested for all texts, so the shards lack different
    // states.
    let prepared = || {
        let workshop = workshop();
        workshop.write("train.csv", csv(&texts(N_TEXTS - 1), 0));
        workshop.succeed(&EXTRACT);
        workshop.write("train.csv", csv(&texts(N_TEXTS), 0));
        let pipeline = fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
        let both = pipeline.replace("[cache]\n", "[cache]\nstore = [\"cls\", \"mean\"]\n");
        assert_ne!(both, pipeline);
        workshop.write("pipeline.toml", both);
        workshop
    };
    let uninterrupted = prepared();
    uninterrupted.succeed(&EXTRACT);
    let expected = contents(&uninterrupted.cache());

    let workshop = prepared();
    let cache = workshop.cache();
    let last = look(&uninterrupted.cache()).n_shards;
    let mut n_killed = 0;
    for least in [reference().n_shards + 2, last - 2] {
        n_killed += usize::from(kill_when(&workshop, &cache, |moment, _| moment.n_shards >= least));
    }
    assert!(n_killed >= 1, "no run was killed in time");
    let ran = workshop.succeed(&EXTRACT);
    assert!(!ran.stderr.contains("planned again"), "{}", ran.stderr);
    assert_same_files(&expected, &contents(&cache));
}

#[test]
fn other_texts_after_a_kill_drop_the_plan_and_keep_what_was_committed() {
    let workshop = workshop();
    let cache = workshop.path("cache").join(&reference().fingerprint);
    assert!(kill_when(&workshop, &cache, |moment, _| moment.n_shards >= 5));
    let left = look(&cache);
    let mut before = contents(&cache);
    before.retain(|name, _| {
        (0..left.n_shards).any(|shard| name.starts_with(&format!("shard-{shard:06}/")))
    });

    workshop.write("train.csv", csv(&texts(N_TEXTS + 10), 0));
    let ran = workshop.succeed(&[&EXTRACT[..], &["--json"]].concat());
    assert!(
        ran.stderr.contains("what it committed is kept, the rest is planned again"),
        "{}",
        ran.stderr
    );
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["reused"], left.n_documents);
    let after = contents(&cache);
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
    assert_eq!(look(&cache).n_documents, N_TEXTS as u64 + 10);
    workshop.succeed(&["cache", "verify", "cache"]);
}

#[test]
fn a_committed_shard_is_never_written_again() {
    let workshop = workshop();
    let cache = workshop.path("cache").join(&reference().fingerprint);
    assert!(kill_when(&workshop, &cache, |moment, _| moment.n_shards >= 3));
    let inode = |shard: &str| fs::metadata(cache.join(shard).join("docs.parquet")).unwrap().ino();
    let shards = ["shard-000000", "shard-000001", "shard-000002"];
    let before = shards.map(inode);
    let ran = workshop.succeed(&EXTRACT);
    assert_eq!(shards.map(inode), before);
    let note =
        regex::Regex::new("note: resuming an unfinished extraction: [0-9,]+ of 1,500 texts done");
    assert!(note.unwrap().is_match(&ran.stderr), "{}", ran.stderr);
}

#[test]
fn a_plan_that_cannot_be_read_is_named_and_the_rest_is_planned_again() {
    let workshop = workshop();
    let cache = workshop.path("cache").join(&reference().fingerprint);
    assert!(kill_when(&workshop, &cache, |moment, _| moment.n_shards >= 3));
    for name in look(&cache).names.iter().filter(|name| name.starts_with("plan-")) {
        fs::write(cache.join(name), "{").unwrap();
    }
    let ran = workshop.succeed(&EXTRACT);
    let note = "note: the plan of an unfinished extraction in this cache cannot be read: what it committed is kept, \
                the rest is planned again";
    assert!(ran.stderr.contains(note), "{}", ran.stderr);
    let left = look(&cache);
    assert_eq!(left.n_documents, N_TEXTS as u64);
    assert!(!left.names.iter().any(|name| name.starts_with("plan-")), "{:?}", left.names);
}

#[test]
fn the_next_writer_removes_what_a_killed_one_left_and_nothing_else() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let cache = workshop.cache();
    let before = contents(&cache);
    // A shard that was renamed but not added to the manifest, temporary files, and a state that was renamed into its
    // shard but not added to the manifest.
    let left = [
        "shard-009999/docs.parquet",
        "tmp-shard-000001/cls-L02.parquet",
        "tmp-manifest.json",
        "shard-000001/cls-L01.parquet",
    ];
    for name in left {
        fs::create_dir_all(cache.join(name).parent().unwrap()).unwrap();
        fs::write(cache.join(name), "half of a file").unwrap();
    }
    workshop.write("notes.txt", "mine");
    fs::copy(workshop.path("notes.txt"), cache.join("notes.txt")).unwrap();
    // Everything requested exists, so nothing is written and nothing is removed.
    workshop.succeed(&EXTRACT);
    assert!(left.iter().all(|name| cache.join(name).is_file()));

    workshop.write("train.csv", csv(&texts(130), 0));
    workshop.succeed(&EXTRACT);
    let after = contents(&cache);
    let still = left.iter().find(|name| after.contains_key(**name));
    assert_eq!(still, None);
    assert_eq!(after["notes.txt"], b"mine");
    let mut kept = before.keys().filter(|name| *name != "manifest.json");
    assert!(kept.all(|name| before[name] == after[name]));
    workshop.succeed(&["cache", "verify", "cache"]);
}
