use std::{collections::BTreeSet, fs};

use toml::{Table, Value};

use super::*;
use crate::config::{
    file::{HeadSection, TrainSection},
    settings::Pipeline,
};

/// Reads the documentation of the pipeline file.
fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pipeline.md");
    fs::read_to_string(path).unwrap()
}

/// Formats names as code in Markdown.
fn code<T: ToString>(items: &[T]) -> String {
    let names: Vec<String> = items.iter().map(|item| format!("`{}`", item.to_string())).collect();
    names.join(", ")
}

/// Returns the row of a key in the documentation's table of its section.
fn row(key: &Key) -> String {
    let default = match toml::from_str::<Table>(&format!("value = {}", key.default)) {
        Ok(_) => format!("`{}`", key.default),
        Err(_) => key.default.to_string(),
    };
    let range = match key.values {
        Values::Any | Values::Layers => String::new(),
        values => format!("; {}", values.range()),
    };
    let kinds = match key.kinds {
        ALL_KINDS => "all kinds".into(),
        LEARNED => format!("all but `{Cosine}`"),
        kinds => code(kinds),
    };
    let tasks = match key.tasks.len() {
        n if n == ALL_TASKS.len() => String::new(),
        _ => format!("; for {}", code(key.tasks)),
    };
    let needs = match key.needs {
        Condition::Nothing => "",
        Condition::Sgd => "; with `sgd`",
        Condition::Adam => "; with `adam` and `adamw`",
        Condition::Focal => "; with `focal`",
        Condition::Unfreeze => "; with `unfreeze`",
    };
    let elsewhere = match key.elsewhere {
        Ignored => String::new(),
        Refused { except: [], .. } => "; refused elsewhere".into(),
        Refused { except, .. } => format!("; refused elsewhere, but for {}", code(except)),
    };
    let (path, meaning) = (key.path(), key.meaning);
    format!("| `{path}` | {default} | {meaning}{range} | {kinds}{tasks}{needs}{elsewhere} |")
}

#[test]
fn the_page_of_the_pipeline_file_has_a_row_for_every_key_of_the_table() {
    let page = page();
    for section in [Head, Train] {
        let expected: Vec<String> =
            KEYS.iter().filter(|key| key.section == section).map(row).collect();
        let start = format!("| `{}.", section.name());
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with(&start)).collect();
        assert_eq!(rows, expected, "the table should be:\n{}", expected.join("\n"));
    }
}

#[test]
fn the_page_of_the_pipeline_file_has_the_heads_losses_and_metrics_of_every_task() {
    let page = page();
    for task in ALL_TASKS {
        let start = format!("| `{task}` |");
        let row = page.lines().find(|line| line.starts_with(&start)).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let named = |cell: &str| -> Vec<String> {
            cell.split('`').skip(1).step_by(2).map(String::from).collect()
        };
        let facts = task.facts();
        assert_eq!(named(cells[4]), names_of(facts.kinds), "the heads of {task}");
        let mut losses = names_of(facts.losses);
        if *task == Tokens {
            losses.push("crf".into());
        }
        assert_eq!(named(cells[5]), losses, "the losses of {task}");
        let metrics = match task {
            Similarity => vec!["regression".to_string()],
            _ => names_of(facts.metrics),
        };
        assert_eq!(named(cells[6]), metrics, "the metrics of {task}");
    }
}

fn names_of<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn the_table_has_the_keys_of_the_sections_with_their_defaults() {
    let head = Table::try_from(HeadSection::default()).unwrap();
    let train = Table::try_from(TrainSection::default()).unwrap();
    for (section, written) in [(Head, head), (Train, train)] {
        let keys = KEYS.iter().filter(|key| key.section == section);
        for key in keys.clone() {
            let default = toml::from_str::<Table>(&format!("value = {}", key.default));
            let default = default.ok().map(|table| table["value"].clone());
            match (written.get(key.name), default) {
                (written, Some(default)) => assert_eq!(written, Some(&default), "{}", key.path()),
                (Some(Value::Array(none)), None) => assert!(none.is_empty(), "{}", key.path()),
                (written, None) => assert_eq!(written, None, "{}", key.path()),
            }
        }
        let known: BTreeSet<&str> = keys.map(|key| key.name).collect();
        for name in written.keys() {
            assert!(known.contains(name.as_str()), "{} is not in the table", name);
        }
    }
}

#[test]
fn every_key_of_the_table_is_one_of_the_file() {
    for key in &KEYS {
        let value = match (key.name, key.values) {
            ("kind", _) => "\"linear\"".to_string(),
            ("pca", _) => "8".into(),
            ("clip", _) => "1.0".into(),
            ("loss", _) => "\"focal\"".into(),
            ("label", _) => "\"other\"".into(),
            ("class_weights", _) => "\"balanced\"".into(),
            ("hidden", _) => "[8]".into(),
            ("unfreeze", _) => "\"all\"".into(),
            ("layer_lr" | "layer_decay", _) => "0.5".into(),
            ("lora", _) => "{ rank = 4 }".into(),
            _ => key.default.to_string(),
        };
        let text = format!("{} = {value}", key.name);
        let known = match key.section {
            Head => toml::from_str::<HeadSection>(&text).map(|_| ()),
            Train => toml::from_str::<TrainSection>(&text).map(|_| ()),
        };
        assert_eq!(known, Ok(()), "{text}");
    }
}

#[test]
fn a_key_has_an_effect_where_its_kind_its_task_and_what_it_needs_are_there() {
    let choice =
        |task, kind, optimizer, loss| Choice { task, kind, optimizer, loss, unfreezes: false };
    let adam = OptimizerKind::AdamW;
    let has_effect = |name: &str, choice| Key::find(name).unwrap().has_effect(choice);
    let linear = choice(Classification, Linear, adam, None);
    assert!(has_effect("lr", linear) && has_effect("layer", linear) && has_effect("betas", linear));
    assert!(!has_effect("C", linear) && !has_effect("momentum", linear));
    assert!(!has_effect("gamma", linear) && !has_effect("hidden", linear));
    assert!(has_effect("gamma", choice(Classification, Linear, adam, Some(Loss::Focal))));
    assert!(has_effect("momentum", choice(Classification, Linear, OptimizerKind::Sgd, None)));
    let tags = choice(Tokens, Crf, adam, None);
    assert!(!has_effect("pooling", tags) && !has_effect("max_answer_tokens", tags));
    // It has an effect so that it is refused, and not silently dropped.
    assert!(has_effect("label", tags));
    assert_eq!(Key::find("rate").map(|key| key.name), None);
    assert!(has_effect("unfreeze", linear) && !has_effect("layer_lr", linear));
    let trains_layers = Choice { unfreezes: true, ..linear };
    assert!(has_effect("layer_lr", trains_layers) && has_effect("lora_rank", trains_layers));
    assert!(!has_effect("lora_rank", choice(Classification, Ridge, adam, None)));
}

/// Returns a value of a key other than its default.
fn other_value(key: &Key) -> &'static str {
    match key.name {
        "C" | "lambda" | "clip" => "2.5",
        "dropout" | "warmup" | "label_smoothing" | "lr" | "weight_decay" | "momentum" => "0.25",
        "layer_lr" | "layer_decay" => "0.25",
        "lora" => "{ rank = 4 }",
        "betas" => "[0.5, 0.5]",
        "hidden" => "[8]",
        "activation" => "\"tanh\"",
        "optimizer" => "\"sgd\"",
        "schedule" => "\"cosine\"",
        "early_stopping" => "false",
        "skip" | "layer_norm" => "true",
        _ => "7",
    }
}

#[test]
fn a_key_of_some_kinds_changes_the_settings_of_these_kinds_alone() {
    let settings = |kind: HeadKind, key: Option<&Key>| {
        let line = |section: Section| match key {
            Some(key) if key.section == section => format!("{} = {}", key.name, other_value(key)),
            _ => String::new(),
        };
        let text = format!(
            "[model]\npath = \"m\"\n[data]\ntrain = {{ path = \"a.csv\" }}\n[head]\nkind = \"{kind}\"\n{}\n[train]\n{}",
            line(Head),
            line(Train)
        );
        let file = toml::from_str(&text).unwrap();
        Pipeline::check("pipeline.toml".as_ref(), file).unwrap().head.kind
    };
    let of_kinds =
        |key: &&Key| key.kinds == STEPWISE || key.kinds == LAYERED || key.kinds.len() < 4;
    let elsewhere = ["loss", "gamma", "class_weights", "label_smoothing"];
    for key in KEYS.iter().filter(of_kinds).filter(|key| !elsewhere.contains(&key.name)) {
        for kind in ALL_KINDS {
            let changes = settings(*kind, Some(key)) != settings(*kind, None);
            assert_eq!(changes, key.kinds.contains(kind), "{} of {kind}", key.path());
        }
    }
}
