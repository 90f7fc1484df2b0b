//! Extraction beyond one machine: parts and workers that share a folder leave the cache that one machine would.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    damage::patch_model,
    disk::{assert_names_the_full_disk, run_with_a_small_disk},
    support::{
        Workshop, assert_same_files, contents, csv, csv_with_repeats, finish, read_json,
        repository, say, texts,
    },
};

const N_TEXTS: usize = 240;

const PLAN: [&str; 4] = ["plan", "pipeline.toml", "--out", "shared"];

/// An extraction on one machine, of every kind of state: the files of its cache.
struct OneMachine {
    fingerprint: String,
    files: BTreeMap<String, Vec<u8>>,
}

fn one_machine() -> &'static OneMachine {
    static ONE_MACHINE: OnceLock<OneMachine> = OnceLock::new();
    ONE_MACHINE.get_or_init(|| {
        let workshop = Workshop::rich(N_TEXTS);
        let report = workshop.json(&["extract", "pipeline.toml", "--threads", "1"]);
        OneMachine {
            fingerprint: report["fingerprint"].as_str().unwrap().into(),
            files: contents(&workshop.cache()),
        }
    })
}

/// Commits the plan of `shared`, and asserts that the cache is that of one machine.
fn commit_and_compare(workshop: &Workshop) {
    let OneMachine { fingerprint, files } = one_machine();
    let report = workshop.json(&["commit", "shared"]);
    assert_eq!(report["fingerprint"], fingerprint.as_str());
    assert_eq!((&report["documents"], &report["existed"]), (&N_TEXTS.into(), &false.into()));
    assert_same_files(files, &contents(&workshop.path("shared").join(fingerprint)));
}

/// Plans a workshop like that of [`one_machine`], and returns the number of tasks.
fn planned(workshop: &Workshop) -> usize {
    let report = workshop.json(&PLAN);
    assert_eq!((&report["unique"], &report["existed"]), (&N_TEXTS.into(), &false.into()));
    let n_tasks = report["tasks"].as_u64().unwrap() as usize;
    assert!(n_tasks >= 8, "{n_tasks} tasks are too few to be shared");
    n_tasks
}

/// The arguments of a worker that does all tasks.
fn work_on_all(n_tasks: usize) -> Vec<String> {
    let tasks = (0..n_tasks).map(|task| task.to_string());
    ["work", "shared", "--threads", "1", "--scratch", "."]
        .map(String::from)
        .into_iter()
        .chain(tasks)
        .collect()
}

fn start(workshop: &Workshop, arguments: &[String]) -> Child {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = workshop.command(&arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The lines that a worker printed, by task.
fn statuses(stdout: &str) -> BTreeMap<u64, String> {
    let lines = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = |line: Value| {
        (line["task"].as_u64().unwrap(), line["status"].as_str().unwrap().to_string())
    };
    lines.map(of).collect()
}

/// The receipts of the plan in a folder, by name.
fn receipts(shared: &Path) -> Vec<PathBuf> {
    let plans = fs::read_dir(shared.join("receipts")).into_iter().flatten();
    let plans = plans.map(|entry| entry.unwrap().path());
    let mut receipts: Vec<PathBuf> = plans
        .flat_map(|plan| fs::read_dir(plan).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    receipts.sort();
    receipts
}

#[test]
fn parts_in_any_order_and_twice_make_the_cache_of_one_machine() {
    let workshop = Workshop::rich(N_TEXTS);
    for part in ["3/4", "1/4", "1/4", "4/4", "2/4", "3/4"] {
        let arguments = ["extract", "pipeline.toml", "--out", "shared", "--part", part];
        let report = workshop.json(&arguments);
        let got = (report["part"].as_u64(), report["parts"].as_u64());
        assert_eq!(got, (part[..1].parse().ok(), Some(4)));
    }
    commit_and_compare(&workshop);
    // A second commit finds the cache of the first.
    assert_eq!(workshop.json(&["commit", "shared"])["existed"], true);
}

#[test]
fn a_part_that_was_done_is_skipped() {
    let workshop = Workshop::rich(N_TEXTS);
    let n_tasks = planned(&workshop) as u64;
    let part = ["extract", "pipeline.toml", "--out", "shared", "--part", "1/1"];
    let first = workshop.json(&part);
    assert_eq!((&first["done"], &first["skipped"]), (&n_tasks.into(), &0.into()));
    let second = workshop.json(&part);
    assert_eq!((&second["done"], &second["skipped"]), (&0.into(), &n_tasks.into()));
    commit_and_compare(&workshop);
}

#[test]
fn an_array_job_takes_its_part_from_the_scheduler() {
    let workshop = Workshop::rich(N_TEXTS);
    let n_tasks = planned(&workshop);
    let extract = ["extract", "pipeline.toml", "--out", "shared"];
    for id in ["7", "8"] {
        let mut command = workshop.command(&extract);
        command.env("SLURM_ARRAY_TASK_ID", id).env("SLURM_ARRAY_TASK_MIN", "7");
        command.env("SLURM_ARRAY_TASK_COUNT", "2");
        let ran = finish(command);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    assert_eq!(receipts(&workshop.path("shared")).len(), n_tasks);
    let mut command = workshop.command(&[&extract[..], &["--part", "/3"]].concat());
    command.env("JOB_COMPLETION_INDEX", "2");
    let ran = finish(command);
    assert!(ran.stdout.contains("3 of 3") && ran.stdout.contains("0 tasks done"), "{}", ran.stdout);
    for wrong in [&extract[..], &[&extract[..], &["--part", "/3"]].concat()[..]] {
        let ran = workshop.run(wrong);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("--part K/N"), "{}", ran.stderr);
    }
    commit_and_compare(&workshop);
}

#[test]
fn tasks_of_several_shards_make_the_same_cache() {
    let workshop = Workshop::rich(N_TEXTS);
    let report = workshop.json(&[&PLAN[..], &["--shards", "3"]].concat());
    let (tasks, shards) = (report["tasks"].as_u64().unwrap(), report["shards"].as_u64().unwrap());
    assert_eq!(tasks, shards.div_ceil(3));
    let tasks: String = (0..tasks).rev().map(|task| format!("{task}\n")).collect();
    let mut command = assert_cmd::Command::from_std(workshop.command(&["work", "shared"]));
    let ran = command.write_stdin(tasks + "\n").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    commit_and_compare(&workshop);
}

#[test]
fn the_cache_is_read_checked_and_extended_like_any_other() {
    let workshop = Workshop::rich(N_TEXTS);
    workshop.json(&["extract", "pipeline.toml", "--out", "shared", "--part", "1/1"]);
    commit_and_compare(&workshop);
    let vacuumed = workshop.json(&["vacuum", "shared", "--older-than", "0s"]);
    assert!(vacuumed["removed"].as_u64().unwrap() > 0, "{vacuumed}");
    // Nothing but the cache is left.
    let left: Vec<String> = fs::read_dir(workshop.path("shared"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, [one_machine().fingerprint.clone()]);
    let shared = ["--set", "cache.dir=shared"];
    workshop.succeed(&["cache", "verify", "shared"]);
    workshop.succeed(&[&["train", "pipeline.toml"], &shared[..]].concat());

    // More texts are added on one machine, as to a cache that one machine made.
    let more = csv_with_repeats(N_TEXTS + 60);
    workshop.write("train.csv", &more);
    let report = workshop.json(&[&["extract", "pipeline.toml"], &shared[..]].concat());
    assert_eq!((&report["reused"], &report["computed"]), (&N_TEXTS.into(), &60.into()));
    let other = Workshop::rich(N_TEXTS);
    other.succeed(&["extract", "pipeline.toml"]);
    other.write("train.csv", &more);
    other.succeed(&["extract", "pipeline.toml"]);
    let grown = workshop.path("shared").join(&one_machine().fingerprint);
    assert_same_files(&contents(&other.cache()), &contents(&grown));

    // There is a cache now, so there is nothing to plan.
    let refused = workshop.fail(&PLAN);
    assert!(
        refused.contains("which is complete") && refused.contains("cache.dir=shared"),
        "{refused}"
    );
}

/// The number of folders that workers have, or left, among the files of a workshop.
fn n_folders_of_workers(workshop: &Workshop) -> usize {
    let entries = fs::read_dir(workshop.path("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("frostbert-worker-")).count()
}

#[test]
fn a_worker_that_is_killed_loses_nothing_that_has_a_receipt() {
    for n_before in [0, 1, 4] {
        let workshop = Workshop::rich(N_TEXTS);
        let n_tasks = planned(&workshop);
        let shared = workshop.path("shared");
        let mut worker = start(&workshop, &work_on_all(n_tasks));
        let begun = Instant::now();
        while receipts(&shared).len() < n_before {
            assert!(begun.elapsed() < Duration::from_secs(60), "task {n_before} was never done");
            std::thread::sleep(Duration::from_micros(300));
        }
        worker.kill().unwrap();
        worker.wait().unwrap();
        let kept = receipts(&shared).into_iter();
        let kept: BTreeMap<PathBuf, Vec<u8>> =
            kept.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        assert!(kept.len() >= n_before);
        if (1..n_tasks).contains(&kept.len()) {
            assert_eq!(n_folders_of_workers(&workshop), 1, "it was killed at work");
        }
        let missing = workshop.run(&["commit", "shared"]);
        if kept.len() < n_tasks {
            assert_eq!(missing.code, Some(4), "{}", missing.stderr);
            assert!(!shared.join(&one_machine().fingerprint).exists());
        }
        let arguments = work_on_all(n_tasks);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = workshop.succeed(&arguments);
        assert_eq!(n_folders_of_workers(&workshop), 0);
        let skipped = statuses(&ran.stdout).into_values().filter(|status| status == "skipped");
        assert_eq!(skipped.count(), kept.len());
        for (path, bytes) in kept {
            assert_eq!(fs::read(&path).unwrap(), bytes, "{}", path.display());
        }
        if missing.code == Some(4) {
            commit_and_compare(&workshop);
        }
    }
}

#[test]
fn two_drivers_on_one_plan_give_each_task_one_receipt() {
    let workshop = Workshop::rich(N_TEXTS);
    // Both plan, at the same time: one of them finds the plan of the other.
    let plan = [&PLAN[..], &["--json"]].concat().into_iter().map(String::from);
    let plan: Vec<String> = plan.collect();
    let reports = [start(&workshop, &plan), start(&workshop, &plan)].map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    });
    assert_eq!(reports[0]["plan"], reports[1]["plan"]);
    let existed = reports.iter().filter(|report| report["existed"] == true);
    assert_eq!(existed.count(), 1);

    let n_tasks = reports[0]["tasks"].as_u64().unwrap() as usize;
    let work = work_on_all(n_tasks);
    let done = [start(&workshop, &work), start(&workshop, &work)].map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        statuses(&String::from_utf8(output.stdout).unwrap())
    });
    for task in 0..n_tasks as u64 {
        let of_both = [done[0][&task].as_str(), done[1][&task].as_str()];
        let n_done = of_both.iter().filter(|status| **status == "done").count();
        assert_eq!(n_done, 1, "task {task} by both: {of_both:?}");
    }
    assert_eq!(receipts(&workshop.path("shared")).len(), n_tasks);

    let commit = ["commit", "shared", "--json"].map(String::from);
    let existed = [start(&workshop, &commit), start(&workshop, &commit)].map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["existed"] == true
    });
    assert_eq!(existed.iter().filter(|existed| **existed).count(), 1);
    let OneMachine { fingerprint, files } = one_machine();
    assert_same_files(files, &contents(&workshop.path("shared").join(fingerprint)));
    let left: Vec<String> = fs::read_dir(workshop.path("shared"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("tmp-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_text_that_cannot_be_encoded_fails_its_task_alone_and_the_job() {
    // The id of the word `bad` in the tiny vocabulary.
    const BAD: usize = 78;
    let workshop = Workshop::tiny();
    patch_model(&workshop, "embeddings.word_embeddings.weight", BAD, f32::NAN);
    let mut all: Vec<String> =
        texts(120).iter().map(|text| text.replace("bad", "good film")).collect();
    all[40] = "the film is bad".into();
    workshop.write("train.csv", csv(&all, 0));
    let own = ["--set", "model.path=model"];
    let n_tasks = workshop.json(&[&PLAN[..], &own].concat())["tasks"].as_u64().unwrap();
    let part = ["extract", "pipeline.toml", "--out", "shared", "--part", "1/1"];
    for _ in 0..2 {
        let stderr = workshop.fail(&[&part[..], &own].concat());
        for told in ["error: 1 task cannot be done", "task ", "train.csv:42 ", "NaN"] {
            assert!(stderr.contains(told), "no `{told}` in {stderr}");
        }
        assert_eq!(receipts(&workshop.path("shared")).len() as u64, n_tasks - 1);
    }
    // A worker goes on after it, and tells its client which it was.
    let tasks: Vec<String> = (0..n_tasks).map(|task| task.to_string()).collect();
    let tasks = tasks.iter().map(String::as_str);
    let arguments: Vec<&str> = ["work", "shared"].into_iter().chain(tasks).collect();
    let ran = workshop.run(&arguments);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let statuses = statuses(&ran.stdout);
    assert_eq!(statuses.len() as u64, n_tasks);
    let failed: Vec<&u64> =
        statuses.iter().filter(|(_, status)| *status == "failed").map(|(task, _)| task).collect();
    assert_eq!(failed.len(), 1);
    let stderr = workshop.fail(&["commit", "shared"]);
    let told = format!("the receipts of 1 task of {n_tasks} ({})", failed[0]);
    assert!(stderr.contains(&told), "no `{told}` in {stderr}");
}

/// Does the plan of `shared` with two workers of the client that the adapters for Ray and Spark share.
const CLIENT: &str = r#"
import sys, threading
import frostbert_workers as shared

out, program = "shared", sys.argv[1]
n_tasks = shared.plan("pipeline.toml", out, program)["tasks"]
answers = []

def work(tasks):
    worker = shared.Worker(out, program, scratch=".", threads=1)
    answers.extend(worker.run(task) for task in tasks)
    worker.close()

threads = [threading.Thread(target=work, args=(range(first, n_tasks, 2),)) for first in (0, 1)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert {answer["status"] for answer in answers} == {"done"}, answers
assert shared.finish(answers, n_tasks, out, program)["existed"] is False
"#;

#[test]
fn the_client_of_the_adapters_makes_the_cache_of_one_machine() {
    if Command::new("python3").arg("--version").output().is_err() {
        say("skipped: there is no python3");
        return;
    }
    let workshop = Workshop::rich(N_TEXTS);
    let client = repository().join("distributed");
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.current_dir(workshop.path("")).args(arguments).stdin(Stdio::null());
        command.env("PYTHONPATH", &client).env("PYTHONDONTWRITEBYTECODE", "1");
        let ran = finish(command);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    };
    python(&["-c", CLIENT, env!("CARGO_BIN_EXE_frostbert")]);
    let OneMachine { fingerprint, files } = one_machine();
    assert_same_files(files, &contents(&workshop.path("shared").join(fingerprint)));
    // Its own tests, with a program that ends, hangs and babbles.
    python(&["-m", "unittest", "discover", &client.to_string_lossy()]);
}

/// Plans and extracts on a disk of 500 KiB, then enlarges it and goes on.
const FULL_DISK: &str = r#"
mkdir shared && mount -t tmpfs -o size=500k tmpfs shared || exit 77
"$0" plan pipeline.toml --out shared --json > plan.json || exit 78
"$0" extract pipeline.toml --out shared --part 1/1 --threads 1
code=$?
find shared/receipts -name '*.json' | wc -l > receipts.txt
find shared -name 'tmp-*' | wc -l > left.txt
mount -o remount,size=50m shared || exit 77
"$0" extract pipeline.toml --out shared --part 1/1 --json > resumed.json || exit 79
"$0" commit shared --json > commit.json || exit 80
"$0" cache verify shared >&2 || exit 81
exit $code
"#;

#[test]
fn a_full_disk_is_named_and_what_has_a_receipt_is_kept() {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", csv(&texts(1500), 0));
    let Some(ran) = run_with_a_small_disk(&workshop, FULL_DISK) else {
        return;
    };
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_names_the_full_disk(&ran, "shared/");
    let number = |name: &str| -> u64 {
        fs::read_to_string(workshop.path(name)).unwrap().trim().parse().unwrap()
    };
    let n_tasks = read_json(&workshop.path("plan.json"))["tasks"].as_u64().unwrap();
    let n_receipts = number("receipts.txt");
    assert!((1..n_tasks).contains(&n_receipts), "{n_receipts} of {n_tasks}");
    assert_eq!(number("left.txt"), 0, "what was half written is removed");
    let resumed = read_json(&workshop.path("resumed.json"));
    assert_eq!(resumed["skipped"], n_receipts);
    assert_eq!(read_json(&workshop.path("commit.json"))["documents"], 1500);
}

#[test]
fn a_cache_of_other_texts_is_not_taken_for_that_of_the_plan() {
    let workshop = Workshop::rich(N_TEXTS);
    let n_tasks = planned(&workshop);
    workshop.succeed(&["extract", "pipeline.toml", "--out", "shared", "--part", "1/1"]);
    // A fingerprint does not cover the texts.
    workshop.write("train.csv", csv_with_repeats(40));
    workshop.succeed(&["extract", "pipeline.toml", "--set", "cache.dir=shared"]);
    let refused = workshop.fail(&["commit", "shared"]);
    assert!(refused.contains("a cache with other files"), "{refused}");
    let refused = workshop.fail(&["vacuum", "shared", "--older-than", "0s"]);
    assert!(refused.contains("and no cache"), "{refused}");
    assert_eq!(receipts(&workshop.path("shared")).len(), n_tasks);

    fs::remove_dir_all(workshop.path("shared").join(&one_machine().fingerprint)).unwrap();
    commit_and_compare(&workshop);
}

#[test]
fn what_does_not_fit_the_plan_is_refused() {
    let workshop = Workshop::rich(N_TEXTS);
    let part = ["extract", "pipeline.toml", "--out", "shared", "--part", "1/4"];
    fs::create_dir_all(workshop.path("shared/texts")).unwrap();
    workshop.write("shared/texts/mine.txt", "of a user");
    let vacuum = &["vacuum", "shared", "--older-than", "0s"][..];
    for arguments in [&["work", "shared", "0"][..], &["commit", "shared"], vacuum] {
        let ran = workshop.run(arguments);
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        assert!(ran.stderr.contains("hint: run `frostbert plan"), "{}", ran.stderr);
    }
    planned(&workshop);
    // The same plan again is no other one.
    assert_eq!(workshop.json(&PLAN)["existed"], true);
    let longer = ["--set", "cache.max_length=20"];
    for (arguments, code, told) in [
        ([&PLAN[..], &longer].concat(), 2, "another plan"),
        ([&PLAN[..], &["--shards", "2"]].concat(), 2, "another plan"),
        ([&part[..], &longer].concat(), 2, "[cache] is not that of the plan"),
        ([&part[..], &["--set", "data.clean.drop_empty=false"]].concat(), 2, "[data] is not that"),
        ([&part[..], &["--set", "model.precision=int8"]].concat(), 2, "precision f32 -> int8"),
        (vec!["extract", "pipeline.toml", "--part", "1/4"], 2, "--out"),
        (vec!["work", "shared", "100000"], 2, "a task from 0 to"),
        #[cfg(not(feature = "remote"))]
        (vec!["plan", "pipeline.toml", "--out", "s3://bucket/cache"], 2, "s3://bucket/cache"),
    ] {
        let ran = workshop.run(&arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "no `{told}` in {}", ran.stderr);
    }
    assert!(!workshop.path("s3:").exists());
    // Where caches are is no matter of the plan.
    workshop.succeed(&[&part[..], &["--set", "cache.dir=elsewhere"]].concat());
    assert!(!workshop.path("elsewhere").exists());

    // What a plan that was begun needs stays, whatever its age.
    let refused = workshop.fail(&["vacuum", "shared", "--older-than", "0s"]);
    assert!(refused.contains("and no cache"), "{refused}");
    let vacuum = ["vacuum", "shared", "--older-than", "0s", "--force"];
    // The texts of the plans that were refused.
    assert!(workshop.json(&vacuum)["removed"].as_u64().unwrap() > 0);
    // Left by nobody, and taken aside by a vacuum that was interrupted.
    let left = "a".repeat(64);
    workshop.write(&format!("shared/objects/tmp-vacuum-{left}"), "left");
    workshop.json(&["vacuum", "shared", "--older-than", "12h", "--force"]);
    assert!(workshop.path("shared/objects").join(&left).exists());
    workshop.write("shared/objects/notes", "of a user");
    let forced = workshop.json(&vacuum);
    assert_eq!((&forced["removed"], &forced["too_new"]), (&1.into(), &0.into()));
    for part in ["1/1", "2/2"] {
        let arguments = ["extract", "pipeline.toml", "--out", "shared", "--part", part];
        workshop.succeed(&arguments);
    }

    // A file that is gone is named, and its task is done again once its receipt is removed.
    let receipt = &receipts(&workshop.path("shared"))[2];
    let lost = read_json(receipt)["shards"][0]["files"][1]["blake3"].as_str().unwrap().to_string();
    fs::remove_file(workshop.path("shared/objects").join(&lost)).unwrap();
    let ran = workshop.run(&["commit", "shared"]);
    assert!(ran.has_failed() && ran.stderr.contains(&lost), "{}", ran.stderr);
    assert!(ran.stderr.contains("remove the receipt"), "{}", ran.stderr);
    assert!(!workshop.path("shared").join(&one_machine().fingerprint).exists());
    fs::remove_file(receipt).unwrap();
    workshop.succeed(&["work", "shared", "2"]);
    commit_and_compare(&workshop);
}
