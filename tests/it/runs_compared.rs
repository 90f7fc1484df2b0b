//! `runs diff`: two runs beside each other, and how sure the difference is.

use std::{collections::BTreeSet, fs};

use serde_json::{Map, Value, json};

use crate::{
    cases::{Case, Data, predictions},
    support::{TINY_PIPELINE, Workshop, copy_folder, csv, read_json, texts},
};

const RUN: [&str; 2] = ["run", "pipeline.toml"];

const BOTH: [&str; 4] = ["runs", "diff", "runs/tiny/001", "runs/tiny/002"];

/// Runs a pipeline with other values, too.
fn run(workshop: &Workshop, settings: &[&str]) {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = RUN.into_iter().chain(settings).collect();
    workshop.succeed(&arguments);
}

/// Two runs of classes, of which the first learns next to nothing.
fn two_runs() -> Workshop {
    let workshop = Workshop::with_test_file();
    run(&workshop, &["train.lr=1e-5"]);
    run(&workshop, &["train.lr=0.02", "train.epochs=12", "head.pooling=max"]);
    workshop
}

fn numbers(value: &Value, keys: [&str; 3]) -> [f64; 3] {
    keys.map(|key| value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}")))
}

fn metric<'a>(diff: &'a Value, name: &str) -> &'a Value {
    let mut metrics = diff["metrics"].as_array().unwrap().iter();
    metrics.find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("{name} in {diff}"))
}

/// The two-sided p-value of so many rows that one run alone has right, and so many that the other has.
fn mcnemar(only_a: u32, only_b: u32) -> f64 {
    let n = only_a + only_b;
    let mut term = 0.5_f64.powi(n as i32);
    let mut tail = 0.0;
    for k in 0..=only_a.min(only_b) {
        tail += term;
        term *= f64::from(n - k) / f64::from(k + 1);
    }
    (2.0 * tail).min(1.0)
}

fn is_right(row: &Map<String, Value>) -> bool {
    row["predicted"] == row["label"]
}

#[test]
fn two_runs_are_compared_by_settings_data_metrics_and_examples() {
    let workshop = two_runs();
    let diff = workshop.json(&BOTH);
    assert_eq!((&diff["a"], &diff["b"]), (&json!("runs/tiny/001"), &json!("runs/tiny/002")));
    assert_eq!(
        diff["settings"],
        json!({
            "head.pooling": { "a": diff["settings"]["head.pooling"]["a"], "b": "max" },
            "train.epochs": { "a": 3, "b": 12 },
            "train.lr": { "a": 1e-5, "b": 0.02 },
        })
    );
    assert_eq!((&diff["data"]["same"], &diff["versions"]), (&json!(true), &json!({})));
    let files = diff["data"]["files"].as_array().unwrap();
    assert!(files.len() == 2 && files.iter().all(|file| file["a"] == file["b"]), "{files:?}");
    assert_eq!(
        (&diff["part"], &diff["rows"], &diff["reason"]),
        (&json!("test"), &json!(60), &Value::Null)
    );

    // What stands in the runs, and the exact test of the rows that one of them alone has right.
    let [a, b] = ["001", "002"].map(|run| {
        let metrics = read_json(&workshop.path(&format!("runs/tiny/{run}/metrics.json")));
        (metrics["test"].clone(), predictions(&workshop, &format!("runs/tiny/{run}")))
    });
    for name in
        ["accuracy", "macro_f1", "weighted_f1", "mcc", "roc_auc", "log_loss", "ece", "brier"]
    {
        let own = metric(&diff, name);
        let [of_a, of_b, difference] = numbers(own, ["a", "b", "difference"]);
        assert_eq!((json!(of_a), json!(of_b)), (a.0[name].clone(), b.0[name].clone()), "{name}");
        assert_eq!(difference, of_b - of_a, "{name}");
        let [low, high] = [0, 1].map(|end| own["ci"][end].as_f64().unwrap());
        assert!(low <= high, "{own}");
        let p = own["p_value"].as_f64().unwrap();
        assert!(p > 0.0 && p <= 1.0, "{own}");
        assert!(own["reason"].is_null(), "{own}");
    }
    let rows = || a.1.iter().zip(&b.1);
    let count = |wanted: [bool; 2]| {
        rows().filter(|(a, b)| [is_right(a), is_right(b)] == wanted).count() as u32
    };
    let (only_a, only_b) = (count([true, false]), count([false, true]));
    for name in ["accuracy", "micro_f1"] {
        let p = metric(&diff, name)["p_value"].as_f64().unwrap();
        assert!((p - mcnemar(only_a, only_b)).abs() < 1e-12, "{name}: {p}, {only_a} {only_b}");
    }
    assert!(only_b > only_a, "the second learns more: {only_a} {only_b}");

    let changed = rows().filter(|(a, b)| a["predicted"] != b["predicted"]).count();
    assert_eq!(diff["changed"], json!(changed));
    assert_eq!(
        (&diff["worse"]["count"], &diff["better"]["count"]),
        (&json!(only_a), &json!(only_b))
    );
    let better = diff["better"]["examples"].as_array().unwrap();
    assert_eq!(better.len() as u32, only_b);
    let expected: Vec<Value> = rows()
        .filter(|(a, b)| !is_right(a) && is_right(b))
        .map(|(a, b)| {
            json!({
                "text": a["text"], "truth": a["label"], "a": a["predicted"], "b": b["predicted"],
            })
        })
        .collect();
    assert_eq!(better, &expected);

    // The other way round every difference turns its sign, and nothing else changes.
    let back = workshop.json(&["runs", "diff", "tiny/002", "tiny/001"]);
    for own in diff["metrics"].as_array().unwrap() {
        let name = own["name"].as_str().unwrap();
        let other = metric(&back, name);
        let [one, of_other] = [own, other].map(|diff| diff["difference"].as_f64().unwrap());
        assert_eq!(one, -of_other, "{name}");
        let near = |one: &Value, other: &Value| {
            (one.as_f64().unwrap() - other.as_f64().unwrap()).abs() < 1e-3
        };
        assert!(near(&own["p_value"], &other["p_value"]), "{own} {other}");
    }
    assert_eq!(back["worse"]["count"], diff["better"]["count"]);
}

#[test]
fn a_comparison_is_shown_with_what_differs_and_few_examples() {
    let workshop = two_runs();
    let page = workshop.succeed(&BOTH).stdout;
    for wanted in [
        "a           runs/tiny/001\n",
        "b           runs/tiny/002\n",
        "versions    the same\n",
        "data        the same: train.csv (120 rows), test.csv (60 rows)\n",
        "rows        60 of test, the same\n",
    ] {
        assert!(page.contains(wanted), "{wanted} in {page}");
    }
    let line = |start: &str| {
        let mut lines = page.lines().map(str::trim_start);
        lines.find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {page}"))
    };
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<String>>();
    assert_eq!(words(line("train.lr")), ["train.lr", "0.00001", "0.02"]);
    assert_eq!(words(line("metrics ")), ["metrics", "metric", "a", "b", "b", "-", "a", "p"]);
    assert!(!page.contains("micro_f1"), "of single labels it is the accuracy: {page}");
    assert!(line("accuracy").contains(" ["), "{page}");
    assert!(line("changed ").contains(" worse in b, "), "{page}");
    let wide = page.lines().filter(|line| line.chars().count() > 100);
    assert_eq!(wide.count(), 0, "{page}");

    let n_better = |limit: &[&str]| {
        let page = workshop.succeed(&[&BOTH[..], limit].concat()).stdout;
        let better = page.split("\nbetter ").nth(1).unwrap().to_string();
        (better.lines().count(), page)
    };
    let all = workshop.json(&BOTH)["better"]["count"].as_u64().unwrap() as usize;
    // A header, the examples, and how many more there are.
    assert_eq!(n_better(&[]).0, 1 + all.min(10) + usize::from(all > 10));
    let (two, page) = n_better(&["--limit", "2"]);
    assert_eq!(two, 1 + 2 + 1);
    assert!(page.trim_end().ends_with(&format!("{} more", all - 2)), "{page}");
    let few = workshop.json(&[&BOTH[..], &["--limit", "2"]].concat());
    let examples = few["better"]["examples"].as_array().unwrap().len();
    assert_eq!((examples, few["better"]["count"].as_u64()), (2, Some(all as u64)));
}

#[test]
fn a_run_does_not_differ_from_itself_or_its_copy() {
    let workshop = Workshop::with_test_file();
    run(&workshop, &[]);
    copy_folder(&workshop.path("runs/tiny/001"), &workshop.path("copied"));
    for other in ["tiny/001", "copied"] {
        let diff = workshop.json(&["runs", "diff", "tiny", other]);
        assert_eq!(diff["settings"], json!({}));
        assert_eq!((&diff["changed"], &diff["worse"]["count"]), (&json!(0), &json!(0)));
        for metric in diff["metrics"].as_array().unwrap() {
            assert_eq!((&metric["difference"], &metric["p_value"]), (&json!(0.0), &json!(1.0)));
            assert_eq!(metric["ci"], json!([0.0, 0.0]), "{metric}");
        }
    }
}

#[test]
fn rows_are_matched_by_their_keys_whatever_their_order() {
    let workshop = two_runs();
    let straight = workshop.json(&BOTH);
    // The same rows the other way round, and another file.
    let test = fs::read_to_string(workshop.path("test.csv")).unwrap();
    let mut lines: Vec<&str> = test.lines().skip(1).collect();
    lines.reverse();
    workshop.write("reversed.csv", "text,label\n".to_string() + &lines.join("\n") + "\n");
    let second = ["train.lr=0.02", "train.epochs=12", "head.pooling=max"];
    run(&workshop, &[&second[..], &["data.test={path=\"reversed.csv\"}"]].concat());
    let turned = workshop.json(&["runs", "diff", "tiny/001", "tiny/003"]);
    assert_eq!(turned["data"]["same"], json!(false));
    assert!(turned["settings"]["data.test.path"]["b"].to_string().contains("reversed.csv"));
    assert!(turned["settings"].get("data.test").is_none(), "{}", turned["settings"]);
    assert_eq!(turned["changed"], straight["changed"]);
    assert_eq!(turned["better"], straight["better"]);
    let [one, other] = [&straight, &turned].map(|diff| metric(diff, "accuracy"));
    assert_eq!((&one["difference"], &one["p_value"]), (&other["difference"], &other["p_value"]));
}

#[test]
fn runs_of_other_test_rows_or_tasks_say_so_and_tell_no_difference() {
    let workshop = Workshop::with_test_file();
    run(&workshop, &[]);
    let assert_apart = |other: &str, reason: &str| {
        let diff = workshop.json(&["runs", "diff", "tiny/001", other]);
        assert!(diff["reason"].as_str().unwrap().contains(reason), "{diff}");
        for key in ["part", "rows", "changed", "worse", "better"] {
            assert!(diff[key].is_null(), "{key} in {diff}");
        }
        for metric in diff["metrics"].as_array().unwrap() {
            for key in ["difference", "ci", "p_value"] {
                assert!(metric[key].is_null(), "{metric}");
            }
            assert_eq!(metric["reason"], diff["reason"]);
        }
        let page = workshop.succeed(&["runs", "diff", "tiny/001", other]).stdout;
        assert!(page.contains("so differences cannot be told"), "{page}");
        diff
    };
    let all = texts(200);
    workshop.write("test.csv", csv(&all[150..], 150));
    run(&workshop, &[]);
    let diff = assert_apart("tiny/002", "other rows: 30 of 60 rows are among the 50");
    assert!(metric(&diff, "accuracy")["a"].is_f64() && metric(&diff, "accuracy")["b"].is_f64());
    assert_eq!(diff["data"]["same"], json!(false));
    assert_eq!(diff["data"]["rows"]["b"]["test"], json!(50));

    // The same texts with other labels.
    let relabelled = csv(&all[120..180], 120).replacen(",cold", ",warm", 3);
    workshop.write("test.csv", relabelled);
    run(&workshop, &[]);
    assert_apart("tiny/003", "the truth of 3 rows is another one");

    // Of validation rows, where there are no others.
    workshop.write_pipeline(TINY_PIPELINE);
    run(&workshop, &["data.split={train=0.7,validation=0.3,test=0.0}"]);
    let diff = assert_apart("tiny/004", "only one of them has test rows");
    // The values are of one part: the validation rows, if both have them, else those that one of them alone has.
    let runs = ["001", "004"]
        .map(|run| read_json(&workshop.path(&format!("runs/tiny/{run}/metrics.json"))));
    let part = if runs[0]["validation"].is_object() { "validation" } else { "test" };
    let accuracy = metric(&diff, "accuracy");
    assert_eq!(
        [&accuracy["a"], &accuracy["b"]],
        [&runs[0][part]["accuracy"], &runs[1][part]["accuracy"]]
    );
    run(&workshop, &["data.split={train=0.7,validation=0.3,test=0.0}", "train.lr=0.02"]);
    let diff = workshop.json(&["runs", "diff", "tiny/004", "tiny/005"]);
    assert_eq!((&diff["part"], &diff["rows"]), (&json!("validation"), &json!(36)));
    assert!(metric(&diff, "accuracy")["p_value"].is_f64());

    let numbers = all[..90].iter().map(|text| format!("{text},{}\n", text.len()));
    workshop.write("train.csv", "text,label\n".to_string() + &numbers.collect::<String>());
    run(&workshop, &["data.task=regression"]);
    let diff = assert_apart("tiny/006", "other tasks: classification and regression");
    let mse = metric(&diff, "mse");
    assert!(mse["a"].is_null() && mse["b"].is_f64(), "{mse}");
}

/// Two runs of a task, one of them trained for longer.
fn of_task(task: &'static str, data: Data, cache: &'static str) -> Value {
    let workshop = Case { task, data, cache, settings: "" }.workshop();
    run(&workshop, &["train.epochs=1"]);
    run(&workshop, &["train.epochs=6", "train.lr=0.02"]);
    let page = workshop.succeed(&BOTH).stdout;
    assert!(page.contains("rows        ") && page.contains("changed     "), "{page}");
    workshop.json(&BOTH)
}

#[test]
fn every_task_is_compared_by_its_own_metrics() {
    let short = "max_length = 32";
    let cases = [
        (
            "multilabel",
            Data::Labels,
            short,
            &["accuracy", "micro_f1", "samples_f1", "roc_auc", "brier"][..],
        ),
        ("regression", Data::Values, short, &["spearman", "pearson", "mse", "mae"]),
        ("classification", Data::PairClasses, short, &["accuracy", "macro_f1", "log_loss"]),
        (
            "tokens",
            Data::Iob2,
            short,
            &["token_accuracy", "entity_f1_strict", "entity_recall_strict", "macro_f1"],
        ),
        ("qa", Data::ImpossibleQuestions, "max_length = 24\nstride = 6", &["exact_match", "f1"]),
    ];
    for (task, data, cache, metrics) in cases {
        let diff = of_task(task, data, cache);
        assert!(diff["reason"].is_null(), "{task}: {}", diff["reason"]);
        for name in metrics {
            let own = metric(&diff, name);
            let [a, b, difference] = numbers(own, ["a", "b", "difference"]);
            assert!((difference - (b - a)).abs() < 1e-12, "{own}");
            let p = own["p_value"].as_f64().unwrap_or_else(|| panic!("{task}: {own}"));
            assert!(p > 0.0 && p <= 1.0, "{task}: {own}");
            let [low, high] = [0, 1].map(|end| own["ci"][end].as_f64().unwrap());
            assert!(low <= high, "{task}: {own}");
        }
        let count = |key: &str| diff[key]["count"].as_u64().unwrap();
        assert!(count("worse") + count("better") <= diff["changed"].as_u64().unwrap(), "{task}");
        let examples = ["worse", "better"].map(|key| diff[key]["examples"].as_array().unwrap());
        for example in examples.into_iter().flatten() {
            assert!(example["text"].is_string() && example["a"] != example["b"], "{example}");
            let has_second = matches!(data, Data::PairClasses | Data::ImpossibleQuestions);
            assert_eq!(example["text_pair"].is_string(), has_second, "{example}");
        }
    }
}

#[test]
fn runs_of_a_shipped_pipeline_are_compared() {
    let workshop = Workshop::checkout();
    workshop.take_small_model();
    for settings in [&[""; 0][..], &["--set", "head.kind=lda"]] {
        workshop.succeed(&[&["run", "pipelines/sentiment.toml"], settings].concat());
    }
    let diff = workshop.json(&["runs", "diff", "sentiment/001", "sentiment/002"]);
    assert_eq!(diff["settings"]["head.kind"], json!({ "a": "linear", "b": "lda" }));
    assert_eq!(diff["data"]["same"], json!(true));
    let names: Vec<&str> = diff["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| {
            assert!(metric["p_value"].is_f64() && metric["ci"].is_array(), "{metric}");
            metric["name"].as_str().unwrap()
        })
        .collect();
    assert_eq!(
        names,
        [
            "accuracy",
            "macro_f1",
            "micro_f1",
            "weighted_f1",
            "mcc",
            "roc_auc",
            "log_loss",
            "brier",
            "ece"
        ]
    );
    let keys: BTreeSet<&str> = diff.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "a", "b", "better", "changed", "data", "metrics", "part", "rows", "settings", "task",
        "versions", "worse",
    ];
    assert_eq!(keys, BTreeSet::from(expected));
}
