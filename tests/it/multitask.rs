//! Several tasks with one model and one cache.

use std::fs;

use serde_json::{Value, json};

use crate::{
    cases::{Data, PIPELINE, conll, outputs, predicted, sentences, squad},
    support::{Workshop, assert_same_files, csv, minilm, read_json, texts},
};

const TOP: &str =
    "name = \"tiny\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\nbatch_tokens = 512\n";

/// Creates a workshop with two tasks on one file, one task on another file with some of the same texts, and one of
/// words.
fn workshop() -> Workshop {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(90), 0));
    workshop.write("test.csv", csv(&texts(120)[90..], 90));
    let lengths = texts(130).into_iter().skip(60);
    let rows = lengths.map(|text| format!("{text},{}\n", text.split(' ').count()));
    workshop.write("lengths.csv", "text,words\n".to_string() + &rows.collect::<String>());
    workshop.write("words.conll", conll(&sentences(60, 1)));
    let tasks = "[cache]\nmax_length = 32\nshard_tokens = 400\n\
        [tasks.kind.data]\ntrain = { path = \"train.csv\" }\ntest = { path = \"test.csv\" }\n\
        [tasks.kind.train]\nepochs = 3\n\
        [tasks.attending.data]\ntrain = { path = \"train.csv\" }\ntest = { path = \"test.csv\" }\n\
        [tasks.attending.head]\npooling = \"attention\"\n[tasks.attending.train]\nepochs = 2\n\
        [tasks.length.data]\ntask = \"regression\"\ntrain = { path = \"lengths.csv\", label = \"words\" }\n\
        [tasks.length.train]\nepochs = 2\n\
        [tasks.names.data]\ntask = \"tokens\"\ntrain = { path = \"words.conll\" }\n\
        [tasks.names.head]\nkind = \"crf\"\nlayers = [1]\n[tasks.names.train]\nepochs = 2\n";
    workshop.write_pipeline(&format!("{TOP}{tasks}"));
    workshop
}

const NAMES: [(&str, &str); 4] = [
    ("attending", "classification"),
    ("kind", "classification"),
    ("length", "regression"),
    ("names", "tokens"),
];

fn assert_tasks(report: &Value) {
    assert!(report["run"].is_string() && report["seconds"].is_f64(), "{report}");
    let tasks = report["tasks"].as_object().unwrap();
    let names: Vec<(&str, &str)> =
        tasks.iter().map(|(name, task)| (name.as_str(), task["task"].as_str().unwrap())).collect();
    assert_eq!(names, NAMES);
    for (name, task) in tasks {
        assert_eq!(task["run"], format!("{}/{name}", report["run"].as_str().unwrap()));
        assert!(task["seconds"].is_f64());
        for part in ["train", "validation", "test"] {
            assert!(task["metrics"][part].is_object(), "{name} {part}");
        }
    }
}

#[test]
fn several_tasks_print_what_each_of_them_would_and_share_a_cache() {
    let workshop = workshop();
    let report = workshop.json(&["run", PIPELINE]);
    assert_tasks(&report["train"]);
    // One cache without duplicates: 130 texts and 60 sentences.
    assert_eq!(workshop.manifest()["documents"], json!(190));
    assert_eq!(report["extract"]["documents"], json!(2 * 120 + 70 + 60));

    let again = workshop.json(&["run", PIPELINE]);
    assert_eq!(again["extract"]["computed"], json!(0));
    let trained = workshop.json(&["train", PIPELINE]);
    assert_tasks(&trained);
    for (name, _) in NAMES {
        let first = outputs(&workshop, &report["train"]["tasks"][name]["run"]);
        assert_same_files(&first, &outputs(&workshop, &trained["tasks"][name]["run"]));
    }
}

#[test]
fn a_text_of_two_tasks_is_computed_once() {
    let workshop = workshop();
    // 120 texts of two tasks that read the same file, 10 more of a third task, and 60 sentences.
    let report = workshop.json(&["extract", PIPELINE]);
    assert_eq!(report["computed"], json!(190), "{report}");
    let report = workshop.json(&["extract", PIPELINE]);
    assert_eq!((&report["computed"], report["reused"].as_u64() > Some(0)), (&json!(0), true));
}

#[test]
fn a_head_of_several_is_the_head_of_its_task_alone() {
    let workshop = workshop();
    let report = workshop.json(&["run", PIPELINE]);
    workshop.write_pipeline(&format!(
        "{TOP}[cache]\nmax_length = 32\nshard_tokens = 400\n[data]\n\
         train = {{ path = \"train.csv\" }}\ntest = {{ path = \"test.csv\" }}\n[train]\nepochs = 3\n"
    ));
    let alone = workshop.json(&["run", PIPELINE]);
    assert_eq!(alone["extract"]["computed"], json!(0));
    assert_same_files(
        &outputs(&workshop, &report["train"]["tasks"]["kind"]["run"]),
        &outputs(&workshop, &alone["train"]["run"]),
    );
}

#[test]
fn the_folder_of_each_task_is_a_run() {
    let workshop = workshop();
    let report = workshop.json(&["run", PIPELINE]);
    for (name, file) in [
        ("kind", "test.csv"),
        ("attending", "test.csv"),
        ("length", "lengths.csv"),
        ("names", "words.conll"),
    ] {
        let run = format!("runs/tiny/001/{name}");
        let measured = workshop.json(&["evaluate", &run, "--data", file]);
        assert!(measured["metrics"]["n"].as_u64() >= Some(30), "{measured}");
        if file == "test.csv" {
            let test = &report["train"]["tasks"][name]["metrics"]["test"];
            assert_eq!(measured["metrics"], *test);
        }
        let lines = predicted(&workshop, &[&run, "--text", "the snow is cold"]);
        assert_eq!(lines.len(), 1);
        let replayed = workshop.json(&["run", "--locked", &format!("{run}/lock.json")]);
        assert_same_files(
            &outputs(&workshop, &report["train"]["tasks"][name]["run"]),
            &outputs(&workshop, &replayed["train"]["run"]),
        );
    }
}

#[test]
fn questions_among_the_tasks_give_all_of_them_their_lengths() {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(24), 0));
    workshop.write("questions.json", squad(5, 1, false));
    workshop.write(
        PIPELINE,
        format!(
            "{}[tasks.kind.data]\ntrain = {{ path = \"train.csv\" }}\n[tasks.kind.train]\nepochs = 1\n\
             [tasks.answers.data]\ntask = \"qa\"\ntrain = {{ path = \"questions.json\" }}\n\
             [tasks.answers.train]\nepochs = 1\n",
            TOP.replace("MODEL", &minilm().display().to_string())
        ),
    );
    workshop.json(&["run", PIPELINE]);
    let inputs = &workshop.manifest()["inputs"];
    assert_eq!(inputs["max_length"], json!(384), "{inputs}");
    assert_eq!((&inputs["overflow"], &inputs["stride"]), (&json!("windows"), &json!(128)));
    for task in ["kind", "answers"] {
        let lock = read_json(&workshop.path(&format!("runs/tiny/001/{task}/lock.json")));
        let cache = &lock["pipeline"]["cache"];
        assert_eq!(
            (&cache["max_length"], &cache["overflow"], &cache["stride"]),
            (&json!(384), &json!("windows"), &json!(128)),
            "{task}"
        );
    }
    let line = predicted(&workshop, &["runs/tiny/001/kind", "--text", "the snow"]);
    assert!(line[0]["label"].is_string());
}

#[test]
fn garbage_is_what_none_of_the_tasks_needs() {
    let workshop = workshop();
    workshop.json(&["extract", PIPELINE]);
    let collected = workshop.json(&["cache", "gc", "cache", "--pipeline", PIPELINE]);
    assert_eq!(collected["caches"][0]["dropped"], json!(0), "{collected}");
    // Without the task `lengths`, the 10 texts that only it reads are no longer needed.
    let toml = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let others: Vec<&str> =
        toml.split("[tasks.").filter(|task| !task.starts_with("length")).collect();
    workshop.write(PIPELINE, others.join("[tasks."));
    let collected = workshop.json(&["cache", "gc", "cache", "--pipeline", PIPELINE, "--yes"]);
    assert_eq!(collected["caches"][0]["dropped"], json!(10), "{collected}");
    assert_eq!(workshop.json(&["run", PIPELINE])["extract"]["computed"], json!(0));
}

#[test]
fn nothing_is_trained_where_the_data_of_one_task_is_at_fault() {
    let workshop = workshop();
    workshop.json(&["extract", PIPELINE]);
    let file = Data::Iob2.test_file();
    let settings = format!("tasks.names.data.test={{ path = \"{file}\" }}");
    workshop.write(file, "the\tB-NEW\n\n");
    let message = workshop.fail(&["run", PIPELINE, "--set", &settings]);
    assert!(message.contains("B-NEW"), "{message}");
    assert!(!workshop.path("runs").exists());
}
