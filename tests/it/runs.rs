//! Runs by name and tag, lists of runs, and the removal of old runs.

use std::{collections::BTreeSet, fs, process::Command, thread, time::Duration};

use serde_json::{Value, json};

use crate::support::{Ran, TINY_PIPELINE, Workshop, contents, copy_folder, csv, read_json, texts};

const RUN: [&str; 2] = ["run", "pipeline.toml"];

fn predict(workshop: &Workshop, run: &str) -> Ran {
    workshop.succeed(&["predict", run, "--text", "the cold snow"])
}

/// Changes the lock of a run to say that it was finished long ago.
fn make_old(workshop: &Workshop, run: &str) {
    let path = workshop.path(run).join("lock.json");
    let mut lock = read_json(&path);
    assert!(lock["created"].is_string());
    lock["created"] = json!("2020-01-01T00:00:00Z");
    fs::write(path, lock.to_string()).unwrap();
}

fn removed(report: &Value) -> Vec<&str> {
    report["removed"].as_array().unwrap().iter().map(|run| run.as_str().unwrap()).collect()
}

#[test]
fn a_run_is_found_by_its_folder_its_name_or_a_tag() {
    let workshop = Workshop::tiny();
    workshop.succeed(&RUN);
    for run in ["runs/tiny/001", "runs/tiny", "tiny", "tiny/001"] {
        let ran = predict(&workshop, run);
        assert!(ran.stderr.contains("note: runs/tiny/001: classification"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("newest"), "there is no other: {}", ran.stderr);
    }
    workshop.succeed(&RUN);
    let ran = predict(&workshop, "tiny");
    assert!(ran.stderr.contains("the newest run of runs/tiny is used"), "{}", ran.stderr);
    assert!(ran.stderr.contains("note: runs/tiny/002: classification"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "the same data: {}", ran.stderr);

    // A tag refers to a run until it is moved or removed.
    assert_eq!(
        workshop.json(&["runs", "tag", "tiny/001", "production"]),
        json!({ "tag": "production", "run": "runs/tiny/001", "before": null })
    );
    for tag in ["production", "runs/production"] {
        let ran = predict(&workshop, tag);
        assert!(ran.stderr.contains("note: runs/tiny/001: classification"), "{}", ran.stderr);
    }
    let ran = workshop.succeed(&["evaluate", "production", "--data", "train.csv"]);
    assert!(ran.stderr.contains("the run with the tag production is used"), "{}", ran.stderr);
    assert!(ran.stderr.contains("note: runs/tiny/001: classification"), "{}", ran.stderr);
    assert_eq!(
        workshop.succeed(&["runs", "tag", "tiny", "production"]).stdout,
        "production moved from runs/tiny/001 to runs/tiny/002\n"
    );
    assert!(predict(&workshop, "production").stderr.contains("note: runs/tiny/002: "));
    let replayed = workshop.json(&["run", "--locked", "production"]);
    assert_eq!(replayed["replay"]["lock"], "runs/tiny/002/lock.json");
    workshop.succeed(&["runs", "tag", "--remove", "production"]);
    let ran = workshop.run(&["predict", "production", "--text", "a"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    let ran = workshop.run(&["runs", "tag", "--remove", "production"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("expected a tag of runs/tags.json"), "{}", ran.stderr);

    // What is not there is answered with what was probably meant.
    workshop.succeed(&["runs", "tag", "tiny", "production"]);
    for (typed, meant) in [
        ("prodution", "production"),
        ("runs/prodution", "runs/production"),
        ("tinny", "tiny"),
        ("tinny/001", "tiny/001"),
        ("runs/tinny", "runs/tiny"),
    ] {
        let ran = workshop.run(&["predict", typed, "--text", "a"]);
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        let meant = format!("did you mean {meant}?");
        assert!(ran.stderr.contains(&meant), "no {meant:?} in {}", ran.stderr);
        let ran = workshop.run(&["runs", "rm", typed, "--yes"]);
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        assert!(ran.stderr.contains(&meant), "no {meant:?} in {}", ran.stderr);
    }
    let ran = workshop.run(&["runs", "tag", "--remove", "prodution"]);
    assert!(ran.stderr.contains("did you mean production?"), "{}", ran.stderr);
    let ran = workshop.run(&["predict", "nothing-like-it", "--text", "a"]);
    assert!(!ran.stderr.contains("did you mean"), "{}", ran.stderr);

    // Ambiguous names are not valid tags.
    for tag in ["tiny", "002", "a/b", ".hidden", ""] {
        let ran = workshop.run(&["runs", "tag", "tiny", tag]);
        assert_eq!(ran.code, Some(2), "{tag}: {}", ran.stderr);
    }
}

#[test]
fn a_newest_run_of_other_data_labels_or_task_is_warned_of() {
    let workshop = Workshop::tiny();
    workshop.succeed(&RUN);
    workshop.write("train.csv", csv(&texts(130), 0));
    workshop.succeed(&RUN);
    let ran = predict(&workshop, "tiny");
    let warned = "warning: runs/tiny/002 has other data than runs/tiny/001 before it";
    assert!(ran.stderr.contains(warned), "{}", ran.stderr);
    assert!(!predict(&workshop, "tiny/002").stderr.contains("warning"), "it was named itself");

    workshop.write("train.csv", csv(&texts(130), 0).replace(",plain", ",dull"));
    workshop.succeed(&RUN);
    let ran = predict(&workshop, "tiny");
    assert!(ran.stderr.contains("003 has other labels and other data than"), "{}", ran.stderr);

    let numbers = texts(90).into_iter().map(|text| format!("{text},{}\n", text.len()));
    workshop.write("train.csv", "text,label\n".to_string() + &numbers.collect::<String>());
    workshop.succeed(&["run", "pipeline.toml", "--set", "data.task=regression"]);
    let ran = predict(&workshop, "tiny");
    assert!(ran.stderr.contains("004 has another task and other"), "{}", ran.stderr);
}

#[test]
fn a_tag_whose_run_is_gone_or_whose_file_is_damaged_is_an_error_with_a_cure() {
    let workshop = Workshop::tiny();
    workshop.succeed(&RUN);
    workshop.succeed(&["runs", "tag", "tiny", "best"]);
    fs::remove_dir_all(workshop.path("runs/tiny/001")).unwrap();
    insta::assert_snapshot!(workshop.fail(&["predict", "best", "--text", "a"]));
    workshop.write("runs/tags.json", "{ \"best\": 1 }");
    insta::assert_snapshot!(
        "a_damaged_file_of_tags",
        workshop.fail(&["predict", "best", "--text", "a"])
    );
}

#[test]
fn runs_are_listed_with_what_they_are_worth() {
    let workshop = Workshop::with_test_file();
    workshop.succeed(&RUN);
    let other = ["--set", "train.lr=0.02", "--set", "head.pooling=max"];
    workshop.succeed(&[&RUN[..], &other].concat());
    workshop.succeed(&["runs", "tag", "tiny/002", "best"]);
    workshop.succeed(&["runs", "tag", "tiny/002", "v1.0"]);
    fs::create_dir(workshop.path("runs/tiny/003")).unwrap();
    let list = workshop.json(&["runs", "ls"]);
    assert_eq!(list["unfinished"], json!(["runs/tiny/003"]));
    let [first, second] = &list["runs"].as_array().unwrap()[..] else { panic!("{list}") };
    let keys: BTreeSet<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "ci", "created", "head", "metric", "model", "name", "number", "part", "run", "settings",
        "tags", "task", "value",
    ];
    assert_eq!(keys, BTreeSet::from(expected));
    assert_eq!(
        (&first["run"], &first["name"], &first["number"]),
        (&json!("runs/tiny/001"), &json!("tiny"), &json!(1))
    );
    assert_eq!((&first["tags"], &second["tags"]), (&json!([]), &json!(["best", "v1.0"])));
    assert_eq!(first["model"], "tiny_bert");
    let metrics = read_json(&workshop.path("runs/tiny/001/metrics.json"));
    assert_eq!((&first["metric"], &first["part"]), (&json!("macro_f1"), &json!("test")));
    assert_eq!(first["value"], metrics["test"]["macro_f1"]);
    assert_eq!(first["ci"], metrics["test"]["macro_f1_ci"]);
    let lock = read_json(&workshop.path("runs/tiny/001/lock.json"));
    assert_eq!(first["created"], lock["created"]);
    let changed = |run: &Value| run["settings"].as_object().unwrap().clone();
    assert!(!changed(first).contains_key("train.lr"), "{first}");
    assert_eq!(changed(second)["train.lr"], json!(0.02));
    assert_eq!(changed(second)["head.pooling"], json!("max"));
    assert_eq!(changed(first)["cache.max_length"], json!(32));

    let ran = workshop.succeed(&["runs", "ls", "runs"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 2, "{}", ran.stdout);
    let value = |run: &Value| {
        let end = |end: usize| run["ci"][end].as_f64().unwrap();
        format!("{:.3} [{:.3}, {:.3}]", run["value"].as_f64().unwrap(), end(0), end(1))
    };
    for (line, run) in [(lines[1], first), (lines[3], second)] {
        assert!(line.starts_with(run["run"].as_str().unwrap()), "{line}");
        assert!(line.contains(&value(run)) && line.contains("  linear  macro_f1  "), "{line}");
    }
    assert!(lines[3].ends_with("best, v1.0"), "{}", ran.stdout);
    // What the runs differ in comes first.
    assert!(
        lines[4].trim_start().starts_with("head.pooling = max, train.lr = 0.02, "),
        "{}",
        lines[4]
    );
    assert!(!lines[2].contains("train.lr") && lines[2].contains("cache.max_length = 32"));
    assert!(ran.stderr.contains("runs/tiny/003 holds no finished run"), "{}", ran.stderr);
    assert_eq!(workshop.run(&["runs", "ls", "nowhere"]).code, Some(4));

    // Without a test part, the metric is that of validation.
    workshop.write_pipeline(TINY_PIPELINE);
    let without = "data.split={train=0.7,validation=0.3,test=0.0}";
    workshop.succeed(&["run", "pipeline.toml", "--set", without]);
    let list = workshop.json(&["runs", "ls"]);
    let last = list["runs"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["number"], &last["part"]), (&json!(4), &json!("validation")), "{last}");
}

#[test]
fn a_run_is_shown_with_all_that_made_it_and_how_to_get_it_again() {
    let workshop = Workshop::with_test_file();
    workshop.succeed(&[&RUN[..], &["--set", "train.lr=0.02"]].concat());
    workshop.succeed(&["runs", "tag", "tiny", "best"]);
    let shown = workshop.json(&["runs", "show", "best"]);
    let listed = workshop.json(&["runs", "ls"])["runs"][0].clone();
    for (key, value) in listed.as_object().unwrap() {
        assert_eq!(shown[key], *value, "{key}");
    }
    let run = workshop.path("runs/tiny/001");
    let (lock, metrics) = (read_json(&run.join("lock.json")), read_json(&run.join("metrics.json")));
    assert_eq!(shown["data"], lock["data"]);
    assert_eq!(shown["labels"], lock["labels"]);
    let rows = shown["rows"].as_object().unwrap();
    let n_rows: u64 = rows.values().map(|rows| rows.as_u64().unwrap()).sum();
    assert_eq!((rows["test"].as_u64(), n_rows), (Some(60), 180));
    for name in ["accuracy", "accuracy_ci", "log_loss", "roc_auc"] {
        assert_eq!(shown["metrics"][name], metrics["test"][name], "{name}");
    }
    let versions = &shown["versions"];
    assert_eq!((&versions["frostbert"], &versions["device"]), (&lock["frostbert"], &json!("cpu")));
    let command = "frostbert run --locked runs/tiny/001/lock.json";
    assert_eq!((&shown["command"], &shown["sweep"]), (&json!(command), &json!(false)));

    let page = workshop.succeed(&["runs", "show", "tiny"]).stdout;
    for wanted in
        ["run         runs/tiny/001\n", "train.lr", "60 test", "tags        best\n", command]
    {
        assert!(page.contains(wanted), "{wanted} in {page}");
    }
    let accuracy = metrics["test"]["accuracy"].as_f64().unwrap();
    let line = page.lines().find(|line| line.contains(" accuracy ")).unwrap();
    assert!(line.contains(&format!("{accuracy:.3} [")), "{line}");

    // A copy lies in no folder of runs, and is the same run.
    copy_folder(&run, &workshop.path("copied"));
    let copied = workshop.json(&["runs", "show", "copied"]);
    assert_eq!((&copied["name"], &copied["number"]), (&json!("tiny"), &Value::Null));
    assert_eq!((&copied["metrics"], &copied["tags"]), (&shown["metrics"], &json!([])));
    let ran = workshop.run(&["runs", "show", "nowhere"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
}

#[test]
fn runs_are_sorted_by_any_metric_and_those_without_it_stand_last() {
    let workshop = Workshop::with_test_file();
    for rate in ["1e-5", "0.02", "0.005"] {
        workshop.succeed(&[&RUN[..], &["--set", &format!("train.lr={rate}")]].concat());
    }
    let numbers = texts(90).into_iter().map(|text| format!("{text},{}\n", text.len()));
    workshop.write("numbers.csv", "text,label\n".to_string() + &numbers.collect::<String>());
    workshop.write_pipeline(&TINY_PIPELINE.replace("train.csv", "numbers.csv"));
    let regression = ["--set", "data.task=regression", "--set", "name=numbers"];
    workshop.succeed(&[&RUN[..], &regression].concat());
    let sorted = |metric: &str| -> Vec<Value> {
        let list = workshop.json(&["runs", "ls", "--sort", metric]);
        list["runs"].as_array().unwrap().clone()
    };
    for (metric, higher_is_better) in [("accuracy", true), ("log_loss", false)] {
        let runs = sorted(metric);
        let values: Vec<f64> = runs.iter().filter_map(|run| run["value"].as_f64()).collect();
        assert_eq!((runs.len(), values.len()), (4, 3), "{runs:?}");
        let is_in_order =
            values.is_sorted_by(|a, b| if higher_is_better { a >= b } else { a <= b });
        assert!(is_in_order, "{metric}: {values:?}");
        for run in &runs[..3] {
            let metrics = workshop.path(run["run"].as_str().unwrap()).join("metrics.json");
            let metrics = read_json(&metrics);
            let test = &metrics["test"];
            assert_eq!((&run["metric"], &run["value"]), (&json!(metric), &test[metric]));
            assert_eq!(run["ci"], test[format!("{metric}_ci")]);
        }
        let last = &runs[3];
        assert_eq!(
            (&last["name"], &last["metric"], &last["value"]),
            (&json!("numbers"), &Value::Null, &Value::Null)
        );
    }
    assert_eq!(sorted("mse")[0]["name"], "numbers");
    let ran = workshop.run(&["runs", "ls", "--sort", "acuracy"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean accuracy?"), "{}", ran.stderr);
}

#[test]
fn old_runs_are_removed_and_no_tagged_unfinished_or_written_one() {
    let workshop = Workshop::tiny();
    for _ in 0..5 {
        workshop.succeed(&["run", "pipeline.toml", "--set", "train.epochs=1"]);
    }
    workshop.succeed(&["runs", "tag", "tiny/002", "keep-me"]);
    fs::create_dir_all(workshop.path("runs/tiny/006/unfinished")).unwrap();
    workshop.write("runs/notes.txt", "mine");
    fs::create_dir(workshop.path("runs/other")).unwrap();
    let before = contents(&workshop.path("runs"));
    let asked = workshop.json(&["runs", "prune", "--keep", "2", "--dry-run"]);
    assert_eq!(removed(&asked), ["runs/tiny/003", "runs/tiny/001"]);
    assert!(asked["bytes"].as_u64().unwrap() > 1000 && asked["dry_run"] == json!(true));
    assert!(contents(&workshop.path("runs")) == before, "only asked");

    // Another process is writing the first run: its folder is locked in the same way as by a run.
    let folder = fs::File::open(workshop.path("runs/tiny/001")).unwrap();
    folder.lock_shared().unwrap();
    // Nobody is there to ask.
    let ran = workshop.run(&["runs", "prune", "--keep", "2"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("this removes 1 run, "), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: run it again with --yes"), "{}", ran.stderr);
    let ran = workshop.succeed(&["runs", "prune", "--keep", "2", "--yes"]);
    drop(folder);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "removed runs/tiny/003",
            "kept runs/tiny/006: it is not finished",
            "kept runs/tiny/002: it has the tag keep-me",
            "kept runs/tiny/001: another process is writing it",
        ]
    );
    assert!(lines[4].starts_with("removed 1 run, "), "{}", ran.stdout);
    let left: Vec<bool> =
        (1..=6).map(|n| workshop.path(&format!("runs/tiny/00{n}")).exists()).collect();
    assert_eq!(left, [true, true, false, true, true, true]);
    assert!(workshop.path("runs/notes.txt").exists() && workshop.path("runs/other").exists());
    let names = fs::read_dir(workshop.path("runs/tiny")).unwrap();
    assert_eq!(names.count(), 5, "nothing is left aside");

    // By age: the newest run of a name is kept, however old it is.
    for run in ["runs/tiny/004", "runs/tiny/005", "runs/tiny/002"] {
        make_old(&workshop, run);
    }
    let report = workshop.json(&["runs", "prune", "--older-than", "30d", "--yes"]);
    assert_eq!(removed(&report), ["runs/tiny/004"]);
    let again = workshop.json(&["runs", "prune", "--older-than", "30d"]);
    assert_eq!(removed(&again), [""; 0], "where nothing goes, nobody is asked");
    assert!(predict(&workshop, "keep-me").stderr.contains("runs/tiny/002: "));
    for wrong in [&["runs", "prune"][..], &["runs", "prune", "--older-than", "soon"]] {
        assert_eq!(workshop.run(wrong).code, Some(2));
    }
}

#[test]
fn runs_of_one_name_are_listed_and_removed_alone() {
    let workshop = Workshop::tiny();
    for name in ["tiny", "other", "tiny", "other"] {
        let name = format!("name={name}");
        workshop.succeed(&["run", "pipeline.toml", "--set", "train.epochs=1", "--set", &name]);
    }
    let listed = |runs: &str| -> Vec<String> {
        let list = workshop.json(&["runs", "ls", runs]);
        let runs = list["runs"].as_array().unwrap().iter();
        runs.map(|run| run["run"].as_str().unwrap().to_string()).collect()
    };
    for of_name in ["tiny", "runs/tiny", "runs/tiny/"] {
        assert_eq!(listed(of_name), ["runs/tiny/001", "runs/tiny/002"], "{of_name}");
    }
    assert_eq!(listed("runs").len(), 4);
    let report = workshop.json(&["runs", "prune", "other", "--keep", "1", "--yes"]);
    assert_eq!(removed(&report), ["runs/other/001"]);
    assert_eq!(listed("runs"), ["runs/other/002", "runs/tiny/001", "runs/tiny/002"]);
    let ran = workshop.run(&["runs", "prune", "othr", "--keep", "1", "--yes"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("did you mean other?"), "{}", ran.stderr);
    // A tag is no folder of runs, so that it is not suggested for itself.
    workshop.succeed(&["runs", "tag", "tiny", "production"]);
    let ran = workshop.run(&["runs", "ls", "production"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(!ran.stderr.contains("did you mean"), "{}", ran.stderr);
    let ran = workshop.run(&["predict", "tiny/009", "--text", "a"]);
    assert!(
        ran.stderr.contains("the newest runs of tiny are tiny/002, tiny/001;"),
        "{}",
        ran.stderr
    );
}

#[test]
fn where_there_are_no_runs_a_list_says_how_to_make_one() {
    let said = Workshop::tiny().fail(&["runs", "ls"]);
    assert!(said.contains("hint: no runs yet: `frostbert run PIPELINE` makes one"), "{said}");
    assert!(!said.contains("runs ls"), "{said}");
}

#[test]
#[cfg(unix)]
fn a_run_with_a_tag_stays_by_whatever_name_it_is_found() {
    use std::os::unix::fs::symlink;

    let workshop = Workshop::tiny();
    for _ in 0..3 {
        workshop.succeed(&["run", "pipeline.toml", "--set", "train.epochs=1"]);
    }
    symlink("tiny", workshop.path("runs/latest")).unwrap();
    workshop.succeed(&["runs", "tag", "runs/tiny/001", "v1.0"]);
    workshop.succeed(&["runs", "tag", "runs/latest/002", "through-the-link"]);
    let report = workshop.json(&["runs", "prune", "--keep", "1"]);
    assert_eq!(removed(&report), [""; 0], "{report}");
    for run in ["001", "002", "003"] {
        assert!(workshop.path(&format!("runs/tiny/{run}/lock.json")).exists(), "{run}");
    }
    // Names with dots are not taken for files.
    let ran = workshop.succeed(&["run", "--locked", "v1.0"]);
    assert!(ran.stdout.contains("the same bytes as runs/tiny/001/lock.json"), "{}", ran.stdout);
    let twice = ["predict", "v1.0", "--run", "tiny/001", "--text", "the cold snow"];
    let ran = workshop.run(&twice);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("is named twice"), "{}", ran.stderr);
}

/// Starts a run of two tasks of which the second never ends, and waits until the first has.
pub(crate) fn begun(workshop: &Workshop) -> std::process::Child {
    workshop.write("train.csv", csv(&texts(120), 0));
    workshop.write_pipeline(
        "name = \"two\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n[cache]\nmax_length = 32\n\
         [tasks.first.data]\ntrain = { path = \"train.csv\" }\n[tasks.first.train]\nepochs = 1\n\
         [tasks.second.data]\ntrain = { path = \"train.csv\" }\n\
         [tasks.second.train]\nepochs = 1000000\nearly_stopping = false\n",
    );
    let mut command: Command = workshop.command(&[&RUN[..], &["--quiet"]].concat());
    let child = command.spawn().unwrap();
    let first = workshop.path("runs/two/001/first/lock.json");
    for _ in 0..1200 {
        if first.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(first.exists(), "the first task ends soon");
    child
}

#[test]
fn a_run_of_several_tasks_is_held_while_it_is_written_and_by_the_tag_of_a_task() {
    let workshop = Workshop::empty();
    let mut child = begun(&workshop);
    let all = ["runs", "prune", "--keep", "0", "--yes"];
    let report = workshop.json(&all);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(removed(&report), [""; 0]);
    assert_eq!(report["kept"][0]["why"], "another process is writing it");
    workshop.succeed(&["runs", "tag", "two/001/first", "good"]);
    assert_eq!(removed(&workshop.json(&all)), [""; 0]);
    assert!(predict(&workshop, "good").stderr.contains("note: runs/two/001/first: "));
    workshop.succeed(&["runs", "tag", "--remove", "good"]);
    let report = workshop.json(&all);
    assert_eq!(removed(&report), [""; 0]);
    assert_eq!(report["kept"][0]["why"], "it is not finished");

    // Killed with one task done, it is none of the newest that are kept: the whole run before it stays.
    fs::rename(workshop.path("runs/two/001"), workshop.path("runs/two/003")).unwrap();
    let short = ["--set", "tasks.second.train.epochs=1"];
    for run in ["runs/two/004", "runs/two/005"] {
        assert_eq!(workshop.json(&[&RUN[..], &short].concat())["train"]["run"], run);
        assert!(!workshop.path(run).join("unfinished").exists());
    }
    for (from, to) in [("004", "001"), ("005", "002")] {
        let name = |number: &str| workshop.path(&format!("runs/two/{number}"));
        fs::rename(name(from), name(to)).unwrap();
    }
    let report = workshop.json(&["runs", "prune", "--keep", "1", "--yes"]);
    assert_eq!(removed(&report), ["runs/two/001"]);
    assert_eq!(report["kept"][0]["run"], "runs/two/003");
    let removed_by_name = workshop.json(&["runs", "rm", "two/003", "--yes"]);
    assert_eq!(removed(&removed_by_name), ["runs/two/003"]);
}
