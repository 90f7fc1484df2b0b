//! Extraction on several machines that share a bucket of an object store, which is one of our own on 127.0.0.1.

mod store;

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use store::{ACCESS_KEY, Conditions, Fault, Store};

use crate::support::{Ran, Workshop, assert_same_files, contents, finish, read_json};

const N_TEXTS: usize = 240;

const SHARED: &str = "s3://bucket/corpus";

const PLAN: [&str; 4] = ["plan", "pipeline.toml", "--out", SHARED];

/// The names of the objects of a plan begin like this.
const PREFIX: &str = "corpus/";

/// The variables that name a store and its key.
fn variables(store: &Store) -> [(&'static str, String); 6] {
    [
        ("AWS_ENDPOINT_URL", store.address()),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_DISABLE_BULK_DELETE", "true".into()),
    ]
}

fn run(workshop: &Workshop, store: &Store, arguments: &[&str]) -> Ran {
    let mut command = workshop.command(arguments);
    command.envs(variables(store));
    finish(command)
}

fn json(workshop: &Workshop, store: &Store, arguments: &[&str]) -> Value {
    let ran = run(workshop, store, &[arguments, &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn fail(workshop: &Workshop, store: &Store, arguments: &[&str]) -> String {
    let ran = run(workshop, store, arguments);
    assert!(ran.has_failed() && ran.stdout.is_empty(), "{arguments:?}: {}", ran.stderr);
    ran.stderr
}

fn start(workshop: &Workshop, store: &Store, arguments: &[String]) -> Child {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = workshop.command(&arguments);
    command.envs(variables(store)).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn stdout_of(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The arguments of a worker that does all tasks.
fn work_on_all(n_tasks: u64) -> Vec<String> {
    let arguments = ["work", SHARED, "--threads", "1", "--scratch", "."].map(String::from);
    arguments.into_iter().chain((0..n_tasks).map(|task| task.to_string())).collect()
}

/// The cache of one machine: its fingerprint and its files.
fn one_machine() -> &'static (String, BTreeMap<String, Vec<u8>>) {
    static ONE_MACHINE: OnceLock<(String, BTreeMap<String, Vec<u8>>)> = OnceLock::new();
    ONE_MACHINE.get_or_init(|| {
        let workshop = Workshop::rich(N_TEXTS);
        let report = workshop.json(&["extract", "pipeline.toml", "--threads", "1"]);
        (report["fingerprint"].as_str().unwrap().into(), contents(&workshop.cache()))
    })
}

/// Fetches the cache of the plan to a folder, and asserts that it is that of one machine.
fn pull_and_compare(workshop: &Workshop, store: &Store, folder: &str) {
    let (fingerprint, files) = one_machine();
    let report = json(workshop, store, &["cache", "pull", SHARED, folder]);
    let cache = &report["caches"][0];
    assert_eq!(cache["fingerprint"], fingerprint.as_str());
    assert_eq!((&cache["documents"], &cache["existed"]), (&N_TEXTS.into(), &false.into()));
    assert_same_files(files, &contents(&workshop.path(folder).join(fingerprint)));
    let left: Vec<String> = fs::read_dir(workshop.path(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, std::slice::from_ref(fingerprint));
}

#[test]
fn machines_that_share_a_bucket_make_the_cache_of_one_machine() {
    let (workshop, store) = (Workshop::rich(N_TEXTS), Store::new(Conditions::Kept));
    // Both plan, at the same time: one of them finds the plan of the other.
    let plan: Vec<String> =
        [&PLAN[..], &["--json"]].concat().into_iter().map(String::from).collect();
    let plans = [start(&workshop, &store, &plan), start(&workshop, &store, &plan)];
    let plans = plans.map(|child| serde_json::from_str::<Value>(&stdout_of(child)).unwrap());
    assert_eq!(plans[0]["plan"], plans[1]["plan"]);
    assert_eq!(plans.iter().filter(|plan| plan["existed"] == true).count(), 1);
    assert!(store.names("corpus/tmp-").is_empty(), "the probe left something");

    let n_tasks = plans[0]["tasks"].as_u64().unwrap();
    assert!(n_tasks >= 8, "{n_tasks} tasks are too few to be shared");
    let missing = fail(&workshop, &store, &["commit", SHARED]);
    assert!(missing.contains(&format!("the receipts of {n_tasks} tasks")), "{missing}");
    let work = work_on_all(n_tasks);
    let done = [start(&workshop, &store, &work), start(&workshop, &store, &work)].map(|child| {
        let lines = stdout_of(child);
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["status"] == "done").count() as u64
    });
    assert_eq!(done[0] + done[1], n_tasks, "each task is done by one of them");
    assert_eq!(store.names("corpus/receipts/").len() as u64, n_tasks);

    // A part of an array job finds nothing to do.
    let part = ["extract", "pipeline.toml", "--out", SHARED, "--part", "2/3"];
    assert_eq!(json(&workshop, &store, &part)["done"], 0);

    let report = json(&workshop, &store, &["commit", SHARED]);
    assert_eq!((&report["documents"], &report["existed"]), (&N_TEXTS.into(), &false.into()));
    assert_eq!(json(&workshop, &store, &["commit", SHARED])["existed"], true);
    let manifest = format!("{PREFIX}{}/manifest.json", one_machine().0);
    assert_eq!(store.object(&manifest), one_machine().1["manifest.json"]);

    // The objects of the cache stay, and everything else goes.
    let stray = format!("corpus/objects/{}", "a".repeat(64));
    store.put(&stray, b"left by nobody");
    let n_objects = store.names("corpus/objects/").len();
    let vacuumed = json(&workshop, &store, &["vacuum", SHARED, "--older-than", "0s"]);
    assert!(vacuumed["removed"].as_u64().unwrap() > n_tasks, "{vacuumed}");
    assert_eq!(store.names("corpus/objects/").len(), n_objects - 1);
    for gone in ["corpus/plan.json", "corpus/receipts/", "corpus/texts/", stray.as_str()] {
        assert!(store.names(gone).is_empty(), "{gone} is left");
    }

    pull_and_compare(&workshop, &store, "pulled");
    let again = json(&workshop, &store, &["cache", "pull", SHARED, "pulled"]);
    let again = &again["caches"][0];
    assert_eq!((&again["existed"], &again["fetched"]), (&true.into(), &0.into()));
    workshop.succeed(&["cache", "verify", "pulled"]);
    workshop.succeed(&["train", "pipeline.toml", "--set", "cache.dir=pulled"]);
    // Nobody wrote to a folder of that name.
    assert!(!workshop.path("s3:").exists());
}

#[test]
fn conflicts_broken_connections_and_busy_stores_lose_nothing() {
    let (workshop, store) = (Workshop::rich(N_TEXTS), Store::new(Conditions::Kept));
    store.fail("PUT", "corpus/plan.json", &[Fault::LostAnswer]);
    store.fail("PUT", "corpus/texts/", &[Fault::LostAnswer]);
    // Some of the objects: each waits for the next try.
    store.fail("PUT", "corpus/objects/0", &[Fault::LostRequest]);
    let receipts = [Fault::Conflict, Fault::LostRequest, Fault::LostAnswer];
    store.fail("PUT", "corpus/receipts/", &receipts);
    store.fail("GET", "corpus/texts/", &[Fault::SlowDown, Fault::HalfBody]);
    store.fail("GET", "corpus/objects/", &[Fault::HalfBody]);
    let plan = json(&workshop, &store, &PLAN);
    // The plan is there as it was meant, although no answer said so.
    assert_eq!(plan["existed"], false);
    let n_tasks = plan["tasks"].as_u64().unwrap();
    let lines = stdout_of(start(&workshop, &store, &work_on_all(n_tasks)));
    let n_done = lines.lines().filter(|line| line.contains("\"status\":\"done\"")).count() as u64;
    assert_eq!(n_done, n_tasks);
    json(&workshop, &store, &["commit", SHARED]);
    pull_and_compare(&workshop, &store, "pulled");
    let n_objects = |prefix: &str| store.names(prefix).len();
    // Of the plan, of the manifests that `objects` and `texts` do not have, of the texts and the receipt of each task, of
    // the mark of the commit, and of the objects.
    let expected = 1
        + (1 + 2)
        + 6 * n_tasks as usize
        + receipts.len()
        + n_objects("corpus/objects/0")
        + n_objects("corpus/objects/");
    assert_eq!(store.n_faults(), expected, "not every request failed as it should");
}

#[test]
fn the_receipt_that_is_there_decides() {
    let (workshop, store) = (Workshop::rich(N_TEXTS), Store::new(Conditions::Kept));
    json(&workshop, &store, &PLAN);
    json(&workshop, &store, &["extract", "pipeline.toml", "--out", SHARED, "--part", "1/1"]);
    let receipts = store.names("corpus/receipts/");
    // As of a worker on another kind of CPU: the same shards, with another value in the receipt.
    let mut other: Value = serde_json::from_slice(&store.object(&receipts[0])).unwrap();
    other["shards"][0]["origins"][0]["onnxruntime"] = "another".into();
    store.put(&receipts[0], &serde_json::to_vec(&other).unwrap());
    let ran = run(&workshop, &store, &["work", SHARED, "0"]);
    assert!(ran.stdout.contains("\"status\":\"skipped\""), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(store.object(&receipts[0]), serde_json::to_vec(&other).unwrap());
    json(&workshop, &store, &["commit", SHARED]);
    json(&workshop, &store, &["cache", "pull", SHARED, "pulled"]);
    let manifest = workshop.path("pulled").join(&one_machine().0).join("manifest.json");
    let origin = &read_json(&manifest)["shards"][0]["origins"][0];
    assert_eq!(origin["onnxruntime"], "another");
}

#[test]
fn a_store_that_does_not_keep_conditions_is_refused() {
    let workshop = Workshop::rich(N_TEXTS);
    for (conditions, told) in [
        (Conditions::Ignored, "where a second file replaced the first"),
        (Conditions::Unknown, "the store does not support this request"),
    ] {
        let store = Store::new(conditions);
        let refused = fail(&workshop, &store, &PLAN);
        assert!(refused.contains(told) && refused.contains("conditional puts"), "{refused}");
        assert!(store.names("").is_empty(), "{:?}", store.names(""));
    }
}

#[test]
fn an_object_with_other_bytes_is_named_and_what_was_fetched_is_kept() {
    let (workshop, store) = (Workshop::rich(N_TEXTS), Store::new(Conditions::Kept));
    json(&workshop, &store, &["extract", "pipeline.toml", "--out", SHARED, "--part", "1/1"]);
    let report = json(&workshop, &store, &["commit", SHARED]);
    let name = store.names("corpus/objects/").pop().unwrap();
    let whole = store.object(&name);
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    store.put(&name, &damaged);
    let pull = ["cache", "pull", SHARED, "pulled"];
    let stderr = fail(&workshop, &store, &pull);
    assert!(stderr.contains(&format!("s3://bucket/{name}")), "{stderr}");
    assert!(!workshop.path("pulled").join(&one_machine().0).exists(), "half a cache");
    store.put(&name, &whole);
    let again = json(&workshop, &store, &pull);
    let fetched = again["caches"][0]["fetched"].as_u64().unwrap();
    assert!((1..report["bytes"].as_u64().unwrap()).contains(&fetched), "{fetched}");
    workshop.succeed(&["cache", "verify", "pulled"]);
}

#[test]
fn training_and_sweeps_fetch_the_cache_that_they_read() {
    let (workshop, store) = (Workshop::rich(N_TEXTS), Store::new(Conditions::Kept));
    json(&workshop, &store, &["extract", "pipeline.toml", "--out", SHARED, "--part", "1/1"]);
    let bytes = json(&workshop, &store, &["commit", SHARED])["bytes"].as_u64().unwrap();
    let shared = format!("cache.dir={SHARED}");
    let with = |max_size: String, arguments: &[&str]| {
        let mut command = workshop.command(&[arguments, &["--set", &shared, "--json"]].concat());
        command.envs(variables(&store));
        command.env("FROSTBERT_PULL_DIR", "near").env("FROSTBERT_PULL_MAX_SIZE", max_size);
        finish(command)
    };
    let near = workshop.path("near");
    let train = ["train", "pipeline.toml"];
    let ran = with("much".into(), &train);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("FROSTBERT_PULL_MAX_SIZE: expected a size"), "{}", ran.stderr);
    let ran = with(format!("{}B", bytes - 1), &train);
    assert!(
        ran.has_failed() && ran.stderr.contains("(or FROSTBERT_PULL_MAX_SIZE)"),
        "{}",
        ran.stderr
    );
    // A pipeline that cannot be used is refused before anything is fetched.
    let wrong = ["train", "pipeline.toml", "--set", "cache.max_length=0"];
    let ran = with(String::new(), &wrong);
    assert!(ran.has_failed() && ran.stderr.contains("cache.max_length is 0"), "{}", ran.stderr);
    let ran = with(String::new(), &[&train[..], &["--dry-run"]].concat());
    assert!(ran.stderr.contains("nothing is fetched from"), "{}", ran.stderr);
    let (fingerprint, files) = one_machine();
    assert!(!near.join(fingerprint).exists());

    let ran = with(format!("{bytes}B"), &train);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("fetched "), "{}", ran.stderr);
    assert_same_files(files, &contents(&near.join(fingerprint)));
    let fetched: Value = serde_json::from_str(&ran.stdout).unwrap();
    let local = workshop.json(&[&train[..], &["--set", "cache.dir=near"]].concat());
    assert_eq!(fetched["metrics"], local["metrics"]);
    let run = fetched["run"].as_str().unwrap();
    // The store is not asked for what is there, and the run names the folder of this machine.
    for name in store.names("corpus/objects/") {
        store.put(&name, b"damaged");
    }
    let ran = with(String::new(), &["sweep", "pipeline.toml", "--set", "sweep.lr=[1e-3, 1e-2]"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    workshop.succeed(&["predict", run, "train.csv"]);
    assert!(!workshop.path("s3:").exists() && !workshop.path("cache").exists());
}

#[test]
fn of_several_caches_only_the_one_that_the_pipeline_reads_is_fetched() {
    let (workshop, store) = (Workshop::rich(N_TEXTS), Store::new(Conditions::Kept));
    let [other, own] = [16, 20].map(|length| {
        let length = format!("cache.max_length={length}");
        let part = ["extract", "pipeline.toml", "--out", SHARED, "--part", "1/1", "--set", &length];
        json(&workshop, &store, &part);
        let committed = json(&workshop, &store, &["commit", SHARED]);
        // There is no room for another plan before.
        json(&workshop, &store, &["vacuum", SHARED, "--older-than", "0s"]);
        committed["fingerprint"].as_str().unwrap().to_string()
    });
    let train = |length: usize| {
        let settings = [format!("cache.dir={SHARED}"), format!("cache.max_length={length}")];
        let mut command = workshop.command(&[
            "train",
            "pipeline.toml",
            "--set",
            &settings[0],
            "--set",
            &settings[1],
        ]);
        command.envs(variables(&store)).env("FROSTBERT_PULL_DIR", "near");
        finish(command)
    };
    let ran = train(12);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    for told in
        [SHARED, "nothing was committed with these settings", "differs in max_length", "-> 12"]
    {
        assert!(ran.stderr.contains(told), "no `{told}` in {}", ran.stderr);
    }
    // Not even its manifest is read.
    store.put(&format!("{PREFIX}{other}/manifest.json"), b"damaged");
    let ran = train(20);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let fetched: Vec<String> = fs::read_dir(workshop.path("near"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(fetched, [own]);
}

#[test]
fn what_a_store_cannot_be_asked_for_is_said_before_anything_is_read() {
    let (workshop, store) = (Workshop::rich(N_TEXTS), Store::new(Conditions::Kept));
    let with = |name: &str, value: Option<&str>, arguments: &[&str]| {
        let mut command = workshop.command(arguments);
        command.envs(variables(&store));
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
        let ran = finish(command);
        assert!(ran.has_failed(), "{arguments:?}");
        ran.stderr
    };
    let stderr = with("AWS_ALLOW_HTTP", None, &PLAN);
    assert!(stderr.contains("set AWS_ALLOW_HTTP=true"), "{stderr}");
    let stderr = with("AWS_SECRET_ACCESS_KEY", None, &PLAN);
    assert!(stderr.contains("check the variables AWS_*"), "{stderr}");
    let stderr = with("AWS_ACCESS_KEY_ID", Some("stranger"), &PLAN);
    assert!(stderr.contains("check the credentials"), "{stderr}");
    let stderr =
        with("AWS_REGION", Some("us-east-1"), &["plan", "pipeline.toml", "--out", "s3://"]);
    assert!(stderr.contains("s3://BUCKET/PREFIX"), "{stderr}");
    for command in ["commit", "vacuum"] {
        let stderr = fail(&workshop, &store, &[command, "s3://elsewhere/corpus"]);
        assert!(stderr.contains("check that the bucket exists"), "{stderr}");
    }
    assert!(store.names("").is_empty());
}
