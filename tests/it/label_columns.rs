//! Heads that are trained on other columns of labels than the one they are evaluated on: an annotator, a rule, a weak
//! label.

use std::{fs, path::Path, time::Duration};

use frostbert::internals::data::{Record, Source, WantedFields};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::support::{Workshop, minilm, read_json, repository, texts};

const SWEEP: &[&str] = &["sweep", "pipeline.toml"];

/// Reads the reviews that are shipped with the repository.
fn reviews() -> Vec<Record> {
    let source = Source::new(repository().join("data/reviews.csv"));
    let want = WantedFields { label: true, text_pair: false };
    let rows = frostbert::internals::data::read(&source, want).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn csv_of(header: &[&str], rows: &[Vec<&str>]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).unwrap();
    for row in rows {
        writer.write_record(row).unwrap();
    }
    writer.into_inner().unwrap()
}

/// Writes reviews to train.csv, with 30 % of the labels in the column `noisy` changed; to judged.csv without that
/// column; and to noisy.csv, with those labels in the column `label`.
fn noisy_reviews(workshop: &Workshop) {
    let labels = ["negative", "neutral", "positive"];
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut train, mut noisy, mut judged) = (Vec::new(), Vec::new(), Vec::new());
    let rows = reviews();
    for (number, row) in rows.iter().enumerate() {
        let (text, label) = (row.text.as_str(), row.label.as_deref().unwrap());
        if number % 3 == 2 {
            judged.push(vec![text, label]);
            continue;
        }
        let others: Vec<&str> = labels.into_iter().filter(|one| *one != label).collect();
        let flipped = if rng.gen_bool(0.3) { others[rng.gen_range(0..2)] } else { label };
        train.push(vec![text, label, flipped]);
        noisy.push(vec![text, flipped]);
    }
    workshop.write("train.csv", csv_of(&["text", "label", "noisy"], &train));
    workshop.write("judged.csv", csv_of(&["text", "label"], &judged));
    workshop.write("noisy.csv", csv_of(&["text", "label"], &noisy));
}

/// Returns a pipeline that trains on a file and is evaluated on judged.csv.
fn pipeline_of(train: &str, model: &str, rest: &str) -> String {
    format!(
        "name = \"tiny\"\n[model]\npath = \"{model}\"\ndevice = \"cpu\"\n[data]\ntrain = {{ path = \"{train}\" }}\n\
         validation = {{ path = \"judged.csv\" }}\nsplit = {{ train = 1.0, validation = 0.0, test = 0.0 }}\n\
         [cache]\nmax_length = 64\n{rest}"
    )
}

fn validation(report: &Value) -> f64 {
    let metrics = &report["metrics"]["validation"];
    metrics["macro_f1"].as_f64().unwrap()
}

fn score_of(report: &Value, label: &str) -> f64 {
    let mut rows = report["leaderboard"].as_array().unwrap().iter();
    let row = rows.find(|row| row["settings"]["label"] == label).unwrap();
    row["score"].as_f64().unwrap()
}

fn bytes(workshop: &Workshop, report: &Value, name: &str) -> Vec<u8> {
    let run = workshop.path(report["run"].as_str().unwrap());
    fs::read(run.join(name)).unwrap()
}

fn column(path: &Path, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let place = reader.headers().unwrap().iter().position(|one| one == name);
    let place = place.unwrap_or_else(|| panic!("a column {name}"));
    let records = reader.records();
    records.map(|record| record.unwrap()[place].to_string()).collect()
}

#[test]
fn of_two_columns_the_one_with_fewer_wrong_labels_wins_and_each_head_is_that_of_a_file_with_its_labels()
 {
    let workshop = Workshop::empty();
    noisy_reviews(&workshop);
    let model = minilm().display().to_string();
    // The class weights show which labels they were counted from.
    // C is given: choosing it by folds would take 35 more fits for each of the heads.
    let train = "[head]\nC = 0.01\n[train]\nlr = 1e-2\nepochs = 20\nclass_weights = \"balanced\"\n";
    let sweep = format!(
        "{train}[sweep]\nlabel = [\"noisy\", \"label\"]\nkind = [\"linear\", \"logistic\"]\n"
    );
    workshop.write("pipeline.toml", pipeline_of("train.csv", &model, &sweep));
    let report = workshop.json(&["run", "pipeline.toml"])["sweep"].clone();
    assert_eq!(report["heads"], 4);
    assert_eq!(report["best"]["settings"]["label"], "label");
    let run = workshop.path(report["run"].as_str().unwrap());
    let mut labels = column(&run.join("leaderboard.csv"), "label");
    assert_eq!(labels[0], "label");
    labels.sort_unstable();
    assert_eq!(labels, ["label", "label", "noisy", "noisy"]);
    assert!(column(&run.join("effects.csv"), "value").contains(&"noisy".into()));
    // Both columns are trained on in one pass over the states: there is one unit for each way of fitting.
    assert_eq!(column(&run.join("timings.csv"), "heads"), ["2", "2"]);
    assert_eq!(read_json(&run.join("head.json"))["label_column"], "label");
    let lock = read_json(&run.join("lock.json"));
    assert_eq!(lock["winner"]["train"]["label"], "label");

    for kind in ["linear", "logistic"] {
        for (label, file) in [("label", "train.csv"), ("noisy", "noisy.csv")] {
            let kind_key = format!("head.kind={kind}");
            workshop.write("plain.toml", pipeline_of(file, &model, train));
            let plain = workshop.json(&["train", "plain.toml", "--set", &kind_key]);
            let mut rows = report["leaderboard"].as_array().unwrap().iter();
            let settings = serde_json::json!({ "kind": kind, "label": label });
            let row = rows.find(|row| row["settings"] == settings).unwrap();
            let score = row["score"].as_f64().unwrap();
            assert!((score - validation(&plain)).abs() < 1e-12, "{kind} {label}");
            // A head trained on the column alone equals the one trained on the file, to the last bit.
            workshop.write("column.toml", pipeline_of("train.csv", &model, train));
            let label_key = format!("train.label={label}");
            let set = ["--set", &kind_key, "--set", &label_key];
            let own = workshop.json(&[&["train", "column.toml"][..], &set].concat());
            let [one, other] =
                [&own, &plain].map(|report| bytes(&workshop, report, "head.safetensors"));
            assert!(one == other, "{kind} {label}");
            let run = own["run"].as_str().unwrap();
            let again = workshop.json(&["evaluate", run, "--data", "judged.csv"]);
            let again = again["metrics"]["macro_f1"].as_f64().unwrap();
            assert!((again - validation(&own)).abs() < 1e-12, "{kind} {label}");
        }
    }
    let lock = format!("{}/lock.json", report["run"].as_str().unwrap());
    let replay = workshop.succeed(&["run", "--locked", &lock]);
    assert!(replay.stdout.contains("the same bytes"), "{}", replay.stdout);
}

/// Writes texts with two labels that the tiny model can distinguish, and the further cells that `cells` returns for
/// each number and label; every fourth text goes to judged.csv.
fn two_labels(workshop: &Workshop, columns: &[&str], cells: impl Fn(usize, &str) -> Vec<String>) {
    let (mut train, mut judged) = (Vec::new(), Vec::new());
    for (number, text) in texts(120).into_iter().enumerate() {
        let label = ["a", "b"][usize::from(number % 3 == 0)];
        let row = [vec![text, label.to_string()], cells(number, label)].concat();
        match number % 4 {
            3 => judged.push(row),
            _ => train.push(row),
        }
    }
    let header = [&["text", "label"], columns].concat();
    let written = |rows: &[Vec<String>]| {
        let rows: Vec<Vec<&str>> =
            rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        csv_of(&header, &rows)
    };
    workshop.write("train.csv", written(&train));
    workshop.write("judged.csv", written(&judged));
}

fn other(label: &str) -> String {
    if label == "a" { "b" } else { "a" }.to_string()
}

/// Writes the tiny model's pipeline for train.csv and judged.csv.
fn write_tiny(workshop: &Workshop, rest: &str) {
    workshop.write_pipeline(&pipeline_of("train.csv", "MODEL", rest));
}

#[test]
fn folds_learn_from_a_column_and_are_judged_by_the_label() {
    let workshop = Workshop::empty();
    two_labels(&workshop, &["swapped"], |_, label| vec![other(label)]);
    // A discriminant trained on swapped labels predicts the other class for every row.
    write_tiny(
        &workshop,
        "[head]\nlambda = 1.0\n[sweep]\nfolds = 3\nkind = [\"lda\"]\nselect = \"accuracy\"\nlabel = [\"label\", \"swapped\"]\n",
    );
    let report = workshop.json(&["run", "pipeline.toml"])["sweep"].clone();
    let (own, swapped) = (score_of(&report, "label"), score_of(&report, "swapped"));
    assert!(own > 0.6, "{own}");
    assert!((own + swapped - 1.0).abs() < 1e-12, "{own} {swapped}");
    // With the swapped column alone, the winner is trained again on the training and validation rows, and predicts the
    // other class too.
    let set = ["--set", "sweep.label=[\"swapped\"]"];
    let again = workshop.json(&[SWEEP, &set].concat());
    let run = workshop.path(again["run"].as_str().unwrap());
    let train = &read_json(&run.join("metrics.json"))["train"];
    let accuracy = train["accuracy"].as_f64().unwrap();
    assert!(accuracy < 0.4, "it is measured by the label, {accuracy}");
}

#[test]
fn a_row_with_an_empty_cell_is_not_learned_from_and_is_counted() {
    let workshop = Workshop::empty();
    two_labels(&workshop, &["some"], |number, label| {
        vec![if number % 5 < 2 { "" } else { label }.to_string()]
    });
    let head = "[head]\nkind = \"ridge\"\nlambda = 1.0\nstandardize = false\n";
    write_tiny(&workshop, &format!("{head}[sweep]\nlabel = [\"label\", \"some\"]\n"));
    let ran = workshop.succeed(&["run", "pipeline.toml"]);
    let n_empty = (0..120).filter(|n| n % 4 != 3 && n % 5 < 2).count();
    let counted = format!("{n_empty} of 90 rows have no label in the column `some`");
    assert!(ran.stderr.contains(&counted), "{}", ran.stderr);
    let swept = workshop.json(SWEEP);
    // Nor does it count among the rows of a learning curve.
    let curve =
        ["sweep.label=[\"some\"]", "sweep.kind=[\"ridge\", \"lda\"]", "sweep.fraction=[0.5, 1.0]"];
    let sets: Vec<&str> = curve.iter().flat_map(|set| ["--set", *set]).collect();
    let report = workshop.json(&[SWEEP, &sets].concat());
    let run = workshop.path(report["run"].as_str().unwrap());
    let curve = fs::read_to_string(run.join("learning_curve.csv")).unwrap();
    let points: Vec<Vec<&str>> = curve.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(points[0][..3], ["kind", "fraction", "train_rows"]);
    let whole = points.iter().filter(|point| point[1] == "1");
    let n_rows: Vec<&str> = whole.map(|point| point[2]).collect();
    let expected = (90 - n_empty).to_string();
    assert_eq!(n_rows, [expected.as_str(); 2]);
    // Remove the rows without a label from the file.
    let all = fs::read_to_string(workshop.path("train.csv")).unwrap();
    let full: Vec<&str> = all.lines().filter(|line| !line.ends_with(',')).collect();
    assert_eq!(full.len(), 1 + 90 - n_empty);
    workshop.write("train.csv", full.join("\n"));
    write_tiny(&workshop, head);
    let fewer = workshop.json(&["train", "pipeline.toml"]);
    let (score, expected) = (score_of(&swept, "some"), validation(&fewer));
    assert!((score - expected).abs() < 1e-12, "{score} {expected}");
    assert_ne!(score, score_of(&swept, "label"), "a test that can fail");
}

#[test]
fn a_killed_sweep_of_columns_goes_on_to_the_same_bytes() {
    let workshop = Workshop::empty();
    two_labels(&workshop, &["swapped"], |_, label| vec![other(label)]);
    let sweep = "folds = 3\nseeds = 4\nlr = { min = 1e-4, max = 1e-1, log = true }\nepochs = [20, 30]\ntrials = 80\n\
                 pooling = [\"cls\", \"mean\", \"max\"]\nlayer = [1, 2]\nlabel = [\"label\", \"swapped\"]";
    write_tiny(&workshop, &format!("[sweep]\n{sweep}\n"));
    workshop.succeed(&["extract", "pipeline.toml"]);
    let mut child = workshop.command(SWEEP).spawn().unwrap();
    let unfinished = workshop.path("runs/tiny/001/unfinished");
    let n_kept = || fs::read_dir(&unfinished).map_or(0, |entries| entries.count());
    // Its plan, the program's version and two units.
    while n_kept() < 4 {
        assert!(child.try_wait().unwrap().is_none(), "killed in time");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = workshop.succeed(SWEEP);
    assert!(resumed.stderr.contains("resuming"), "{}", resumed.stderr);
    let whole = workshop.json(SWEEP);
    for name in ["leaderboard.csv", "effects.csv", "head.safetensors"] {
        let own = fs::read(workshop.path("runs/tiny/001").join(name)).unwrap();
        assert!(own == bytes(&workshop, &whole, name), "{name}");
    }
}

#[test]
fn what_is_wrong_with_columns_of_labels_is_said_with_its_place_and_a_cure() {
    let workshop = Workshop::empty();
    let cells = |number: usize, label: &str| {
        let question = ["film", "weather"][number % 2];
        vec![question.to_string(), label.to_string(), String::new(), "a".into()]
    };
    two_labels(&workshop, &["topic", "same", "nobody", "one"], cells);
    workshop.write("lines.txt", "a text\n");
    for (rest, problem, cure) in [
        (
            "[sweep]\nlabel = [\"label\", \"topic\"]",
            "train.csv:2: expected one of the labels `a`, `b` in the column `topic`, which the head learns from \
             instead of `label`, got `film`",
            "give it a task of its own: [tasks.NAME]",
        ),
        (
            "[sweep]\nlabel = [\"label\", \"annotator\"]",
            "train.csv:1: expected a column `annotator`",
            "name columns in train.label and sweep.label",
        ),
        ("[sweep]\nlabel = [9]", "a column number 9", "sweep.label"),
        ("[sweep]\nlabel = [\"nobody\"]", "only empty cells", "sweep.label"),
        ("[train]\nlabel = \"one\"", "two labels in the column `one`, got only `a`", "train.label"),
        ("[sweep]\nlabel = [0.5]", "label = 0.5", "values that the key can have"),
        (
            "[sweep]\ntrials = 2\nlabel = { min = 1, max = 2 }",
            "is a distribution",
            "list the columns",
        ),
    ] {
        write_tiny(&workshop, rest);
        let error = workshop.fail(&["run", "pipeline.toml"]);
        assert!(error.contains(problem), "{rest}: {error}");
        assert!(error.contains(cure), "{rest}: {error}");
    }
    write_tiny(&workshop, "[sweep]\nlabel = [\"same\"]");
    let lines = ["--set", "data.train.path=lines.txt", "--set", "data.train.label=a"];
    let error = workshop.fail(&[&["run", "pipeline.toml"][..], &lines].concat());
    assert!(error.contains("a file of lines, which has no columns"), "{error}");
    for task in ["multilabel", "regression"] {
        let error = workshop.fail(&["run", "pipeline.toml", "--set", &format!("data.task={task}")]);
        assert!(error.contains("sweep.label names columns with one label"), "{error}");
        assert!(error.contains("[tasks.NAME]"), "{error}");
    }
    // With folds, or if the winner is trained again, validation rows are trained on, so their file needs the column.
    let judged = fs::read_to_string(workshop.path("judged.csv")).unwrap();
    let two_cells = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join(",");
    let judged: Vec<String> = judged.lines().map(two_cells).collect();
    workshop.write("judged.csv", judged.join("\n"));
    for key in ["folds = 3", "refit = true"] {
        write_tiny(&workshop, &format!("[sweep]\nlabel = [\"same\"]\n{key}"));
        let error = workshop.fail(&["run", "pipeline.toml"]);
        assert!(error.contains("judged.csv:1: expected a column `same`"), "{error}");
    }
    assert!(!workshop.path("cache").exists() && !workshop.path("runs").exists());
}
