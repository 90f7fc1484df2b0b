//! `frostbert compare`: heads on a frozen encoder beside its trained layers, over one cache.

use std::fs;

use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE},
    support::{Workshop, read_json},
};

/// The values of a weight and a bias for three classes over 32 features, and those of a layer.
const LINEAR: u64 = 32 * 3 + 3;
const LAYER: u64 = 8_544;

fn compare(workshop: &Workshop, arguments: &[&str]) -> Value {
    workshop.json(&[&["compare", PIPELINE], arguments].concat())
}

fn method<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut methods = report["rows"].as_array().unwrap().iter();
    methods.find(|method| method["method"] == name).unwrap_or_else(|| panic!("{name} in {report}"))
}

#[test]
fn every_method_is_measured_with_what_it_takes() {
    let workshop = Workshop::tiny();
    let report = compare(&workshop, &["--seeds", "2", "--epochs", "2"]);
    let names: Vec<&str> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["method"].as_str().unwrap())
        .collect();
    // The model has two layers: the last two are all.
    assert_eq!(names, ["features", "linear", "mlp", "top-1", "all"]);
    assert_eq!((&report["metric"], &report["seeds"]), (&json!("accuracy"), &json!(2)));
    for (name, kind, unfreeze, trainable, heads) in [
        ("features", "logistic", 0, LINEAR, 1),
        ("linear", "linear", 0, LINEAR, 2),
        ("mlp", "mlp", 0, 32 * 256 + 256 + 256 * 3 + 3, 2),
        ("top-1", "linear", 1, LINEAR + LAYER, 2),
        ("all", "linear", 2, LINEAR + 2 * LAYER, 2),
    ] {
        let own = method(&report, name);
        assert_eq!((&own["kind"], &own["unfreeze"]), (&json!(kind), &json!(unfreeze)), "{own}");
        assert_eq!(own["metric"], "accuracy", "{own}");
        assert_eq!(own["trainable"], trainable, "{own}");
        assert_eq!(own["training_bytes"], 16 * trainable, "{own}");
        let values: Vec<f64> =
            own["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        assert_eq!(values.len(), heads, "{own}");
        let mean = values.iter().sum::<f64>() / heads as f64;
        let value = own["value"].as_f64().unwrap();
        assert!((mean - value).abs() < 1e-12 && (0.0..=1.0).contains(&value), "{own}");
        let end = |place: usize| own["ci"][place].as_f64().unwrap();
        assert!(end(0) <= value && value <= end(1), "{own}");
        assert!(own["seconds"].as_f64().unwrap() > 0.0, "{own}");
        let epochs = own["epochs"].as_f64().unwrap();
        assert_eq!(epochs == 0.0, name == "features", "{own}");
        assert_eq!(epochs == 2.0, unfreeze > 0, "the pipeline has three epochs: {own}");
    }
    // All but the best are compared with it.
    let others = || {
        let rows = report["rows"].as_array().unwrap().iter();
        rows.filter(|own| !own["difference"].is_null())
    };
    assert_eq!(others().count(), names.len() - 1, "{report}");
    for own in others() {
        let number = |key: &str| own[key].as_f64().unwrap();
        assert!(number("difference") <= 0.0 && own["difference_ci"].is_array(), "{own}");
        assert!(0.0 <= number("p_value") && number("p_value") <= number("p_adjusted"), "{own}");
        assert!(number("p_adjusted") <= 1.0, "{own}");
    }
    let rows = report["rows"].as_array().unwrap().iter();
    let peaks: Option<Vec<u64>> = rows.map(|own| own["peak_bytes"].as_u64()).collect();
    if let Some(peaks) = peaks {
        // Each is that of the program, which needs about as much to encode the same texts.
        let other = ["extract", PIPELINE, "--set", "cache.dir=other"];
        let whole = workshop.json(&other)["peak_rss_bytes"].as_u64().unwrap();
        let usual = whole / 8..8 * whole;
        assert!(peaks.iter().all(|peak| usual.contains(peak)), "{peaks:?} beside {whole}");
    }
    let info = workshop.json(&["model", "info", &model_folder(&workshop), "--classes", "3"]);
    let everything = &report["fine_tuning"];
    for key in ["trainable", "training_bytes"] {
        assert_eq!(everything[key], info["fine_tuning"][key], "{key}");
    }
    assert_eq!(everything["least_seconds"], method(&report, "all")["seconds"]);
    assert_eq!(report["report"], "methods.html");
    let page = fs::read_to_string(workshop.path("methods.html")).unwrap();
    for words in
        ["feature extraction, logistic", "top 1 layer", "full fine-tuning, computed", "<svg"]
    {
        assert!(page.contains(words), "{words}");
    }
    // One cache holds what all of them read, and no run was written.
    assert_eq!(fs::read_dir(workshop.path("cache")).unwrap().count(), 1);
    assert!(!workshop.path("runs").exists());
}

#[test]
fn the_head_of_full_fine_tuning_reads_both_texts_of_a_pair() {
    let case = Case {
        task: "classification",
        data: Data::PairClasses,
        cache: "max_length = 60",
        settings: "[train]\nepochs = 1",
    };
    let workshop = case.workshop();
    let info = workshop.json(&["model", "info", &model_folder(&workshop), "--classes", "2"]);
    let encoder = info["parameters"].as_u64().unwrap();
    // Two classes over `[u, v, |u - v|, u * v]`.
    let head = 4 * 32 * 2 + 2;
    for methods in ["linear,top-1", "mlp", "features", "top-1"] {
        let arguments = ["--methods", methods, "--seeds", "1", "--epochs", "1"];
        let report = compare(&workshop, &arguments);
        assert_eq!(report["fine_tuning"]["trainable"], encoder + head, "{methods}");
        assert_eq!(report["fine_tuning"]["training_bytes"], 16 * (encoder + head), "{methods}");
        if methods == "linear,top-1" {
            assert_eq!(method(&report, "linear")["trainable"], head);
            assert_eq!(method(&report, "top-1")["trainable"], head + LAYER);
        }
    }
}

fn model_folder(workshop: &Workshop) -> String {
    let text = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let line = text.lines().find(|line| line.starts_with("path = ")).unwrap();
    line.split('"').nth(1).unwrap().to_string()
}

#[test]
fn a_method_scores_what_the_run_of_its_settings_scores() {
    let workshop = Workshop::tiny();
    let methods = ["--methods", "linear,top-1", "--seeds", "1", "--epochs", "2"];
    let report = compare(&workshop, &methods);
    let top = vec!["--set", "train.unfreeze=1", "--set", "train.epochs=2"];
    for (name, sets) in [("linear", Vec::new()), ("top-1", top)] {
        let run = workshop.json(&[vec!["run", PIPELINE], sets].concat());
        let folder = workshop.path(run["train"]["run"].as_str().unwrap());
        let accuracy = &read_json(&folder.join("metrics.json"))["test"]["accuracy"];
        let value = method(&report, name)["value"].as_f64().unwrap();
        assert!(
            (accuracy.as_f64().unwrap() - value).abs() < 1e-9,
            "{name}: {accuracy} and {value}"
        );
    }
    let one = compare(&workshop, &[&methods[..], &["--threads", "1"]].concat());
    for name in ["linear", "top-1"] {
        let [many, one] = [&report, &one].map(|report| method(report, name));
        assert_eq!((&many["values"], &many["ci"]), (&one["values"], &one["ci"]));
    }
}

#[test]
fn every_method_reads_the_maximum_where_the_pipeline_does() {
    let workshop = Workshop::tiny();
    let sets = ["--set", "head.pooling=max"];
    let methods = ["--methods", "features,linear,mlp,top-1", "--seeds", "1", "--epochs", "1"];
    let report = compare(&workshop, &[&methods[..], &sets].concat());
    for (name, own) in [
        ("features", &["--set", "head.kind=logistic"][..]),
        ("linear", &[]),
        ("top-1", &["--set", "train.unfreeze=1", "--set", "train.epochs=1"]),
    ] {
        let run = workshop.json(&[&["run", PIPELINE], &sets[..], own].concat());
        let folder = workshop.path(run["train"]["run"].as_str().unwrap());
        let accuracy =
            read_json(&folder.join("metrics.json"))["test"]["accuracy"].as_f64().unwrap();
        let value = method(&report, name)["value"].as_f64().unwrap();
        assert!((accuracy - value).abs() < 1e-9, "{name}: {accuracy} and {value}");
    }
    assert_eq!(method(&report, "mlp")["diverged"], 0);
}

#[test]
fn a_comparison_is_one_table_for_people() {
    let workshop = Workshop::tiny();
    let arguments =
        ["compare", PIPELINE, "--methods", "features,all", "--seeds", "1", "--epochs", "1"];
    let shown = workshop.succeed(&[&arguments[..], &["--out", "page.html"]].concat()).stdout;
    for words in [
        "features (logistic)",
        "\n            all ",
        "to the best (p)",
        "full fine-tuning",
        "over ",
        "page.html",
    ] {
        assert!(shown.contains(words), "{words:?} in {shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    // Of two methods, the worse one has its difference with one p-value.
    let differences = regex::Regex::new(r"[+-]0\.[0-9]{3} \([01]\.[0-9]{3}\)").unwrap();
    assert_eq!(differences.find_iter(&shown).count(), 1, "{shown}");
    assert!(workshop.path("page.html").is_file());
}

#[test]
fn the_figures_are_shown_even_if_the_page_cannot_be_written() {
    let workshop = Workshop::tiny();
    // The name of a file has at most 255 bytes.
    let out = format!("{}.html", "long".repeat(100));
    let ran =
        workshop.run(&["compare", PIPELINE, "--methods", "linear", "--seeds", "1", "--out", &out]);
    assert!(ran.has_failed(), "{}", ran.stderr);
    assert!(ran.stdout.contains("full fine-tuning"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_encoded() {
    let workshop = Workshop::tiny();
    let files = ["train.csv", PIPELINE].map(|name| workshop.path(name));
    let before = files.each_ref().map(|file| fs::read(file).unwrap());
    for (arguments, expected) in [
        (&["--set", "head.pooling=attention"][..], "--set head.pooling=mean"),
        (
            &["--methods", "linear,top-3"],
            "expected at most the 2 layers of the model, got --methods top-3",
        ),
        (
            &["--set", "data.split={train=0.8, validation=0.2, test=0.0}"],
            "give data.split.test a share",
        ),
        (&["--out", "nowhere/page.html"], "create nowhere"),
        (&["--out", "nowhere/"], "as in --out nowhere/methods.html"),
        (&["--out", "."], "a file, not a folder"),
        (&["--out", "./train.csv"], "a file other than those that are read"),
        (&["--out", PIPELINE], "a file other than those that are read"),
    ] {
        let ran = workshop.run(&[&["compare", PIPELINE], arguments].concat());
        assert!(ran.has_failed(), "{arguments:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(expected), "{arguments:?}: {}", ran.stderr);
        assert!(!workshop.path("cache").exists(), "{arguments:?}");
        let after = files.each_ref().map(|file| fs::read(file).unwrap());
        assert!(after == before, "{arguments:?} changed a file");
    }
    for (wrong, expected) in [
        (["--methods", "top-0"], "expected features, linear, mlp, all, or top-1"),
        (["--methods", "top-9223372036854775808"], "and so on to top-10000"),
        (["--seeds", "0"], "--seeds"),
        (["--epochs", "0"], "--epochs"),
    ] {
        let ran = workshop.run(&[&["compare", PIPELINE], &wrong[..]].concat());
        assert_eq!(ran.code, Some(2), "{wrong:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{wrong:?}: {}", ran.stderr);
    }
}

#[test]
fn what_the_pipeline_says_of_its_own_head_does_not_stand_in_the_way() {
    let workshop = Workshop::tiny();
    let text = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let head = "[head]\nkind = \"mlp\"\nhidden = [8]\nlayers = [1]\npooling = \"cls\"";
    let sweep = "[sweep]\nlr = [0.1]\nselect = \"macro_f1\"";
    workshop.write_pipeline(&format!("{text}\n{head}\n{sweep}\n"));
    let report = compare(&workshop, &["--seeds", "1", "--epochs", "1"]);
    assert_eq!(report["metric"], "macro_f1");
    assert_eq!(method(&report, "mlp")["trainable"], 32 * 8 + 8 + 8 * 3 + 3);
    assert_eq!(method(&report, "linear")["trainable"], LINEAR);
    assert_eq!(method(&report, "top-1")["trainable"], LINEAR + LAYER);
}
