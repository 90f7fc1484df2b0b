//! Input that is not what it seems: read if there is only one way to read it, and otherwise rejected with an error that
//! leads to the cure.

use std::sync::Mutex;

use frostbert::{cache::progress::Progress, internals::experiment::Experiment};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::{Workshop, copy_folder, csv, fixture, texts};

/// Creates a workshop whose pipeline reads a file with this name and content.
fn workshop(name: &str, content: impl AsRef<[u8]>) -> Workshop {
    let workshop = Workshop::tiny();
    workshop.write(name, content);
    let toml = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    workshop.write("pipeline.toml", toml.replace("train.csv", name));
    workshop
}

fn documents_of(workshop: &Workshop) -> Value {
    workshop.json(&["extract", "pipeline.toml"])["documents"].clone()
}

fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
    let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
    units
        .flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
        .collect()
}

#[test]
fn a_file_is_read_by_its_byte_order_mark_its_line_ends_and_its_magic_bytes() {
    let rows = csv(&texts(30), 0);
    for big_endian in [false, true] {
        for encoding in ["utf-8", "utf-16"] {
            let workshop = workshop("a.csv", utf16(&rows, big_endian));
            let set = format!("data.train={{path=\"a.csv\", encoding=\"{encoding}\"}}");
            let report = workshop.json(&["run", "pipeline.toml", "--set", &set]);
            assert_eq!(report["extract"]["documents"], 30, "{encoding}, {big_endian}");
        }
    }
    assert_eq!(documents_of(&workshop("a.csv", rows.replace('\n', "\r"))), 30);
    let error = workshop("a.csv.gz", &rows).fail(&["extract", "pipeline.toml"]);
    assert!(
        error.contains(
            "expected gzip data, as the name ends in .gz, got data that is not compressed"
        ),
        "{error}"
    );
    assert!(error.contains("hint: take .gz off"), "{error}");
}

#[test]
fn another_delimiter_is_seen_in_the_header_and_can_be_set() {
    let workshop = workshop("a.csv", csv(&texts(30), 0).replace(',', ";"));
    let error = workshop.fail(&["run", "pipeline.toml"]);
    assert!(error.contains("got the columns `text;label`"), "{error}");
    assert!(error.contains("hint: set `delimiter = \";\"` of this source"), "{error}");
    let set = "data.train={path=\"a.csv\", delimiter=\";\"}";
    let report = workshop.json(&["run", "pipeline.toml", "--set", set]);
    assert_eq!(report["extract"]["documents"], 30);
    let error = workshop.fail(&[
        "run",
        "pipeline.toml",
        "--set",
        "data.train={path=\"a.csv\", delimiter=\"\\\"\"}",
    ]);
    assert!(error.contains("a `delimiter` of one ASCII character"), "{error}");
}

#[test]
fn lines_that_a_quote_swallows_are_named() {
    let mut rows = csv(&texts(40), 0).replace(',', "\t");
    rows = rows.replacen("the ", "\"the ", 1);
    let mut lines: Vec<String> = rows.lines().map(String::from).collect();
    lines[5] = format!("x\" {}", lines[5]);
    let workshop = workshop("a.tsv", lines.join("\n") + "\n");
    let ran = workshop.succeed(&["run", "pipeline.toml"]);
    let warning = "warning: a.tsv: in 1 record, a quote joins several lines with tabs into one field, first in lines \
                   2 to 6; if quotes are ordinary characters of the texts, set `quoting = false` for the source\n";
    // Once, though stage 1 and stage 2 both read the file.
    assert_eq!(ran.stderr.matches(warning).count(), 1, "{}", ran.stderr);
    let ran = workshop.succeed(&["extract", "pipeline.toml"]);
    assert_eq!(ran.stderr.matches(warning).count(), 1, "{}", ran.stderr);
    let ran = workshop.succeed(&[
        "run",
        "pipeline.toml",
        "--set",
        "data.train={path=\"a.tsv\", quoting=false}",
    ]);
    assert!(!ran.stderr.contains("a quote"), "{}", ran.stderr);
}

#[test]
fn json_that_is_none_says_what_stands_there_and_an_array_of_objects_is_read() {
    let rows: Vec<String> = texts(30)
        .iter()
        .enumerate()
        .map(|(n, text)| format!("{{\"text\": \"{text}\", \"label\": \"{}\"}}", ["a", "b"][n % 2]))
        .collect();
    for (name, content) in [
        ("a.json", format!("[{}]", rows.join(",\n"))),
        ("a.jsonl", format!("[\n{}\n]\n", rows.join(",\n  "))),
    ] {
        let report = workshop(name, content).json(&["run", "pipeline.toml"]);
        assert_eq!(report["extract"]["documents"], 30, "{name}");
    }
    for (bad, words) in [
        (
            "{\"text\": NaN, \"label\": \"a\"}",
            "a.jsonl:31: expected one JSON object, got NaN (column 10), which is not JSON",
        ),
        ("{\"text\": \"x \\ud83d\", \"label\": \"a\"}", "got half of a surrogate pair"),
    ] {
        let content = format!("{}\n{bad}\n", rows.join("\n"));
        let error = workshop("a.jsonl", content).fail(&["extract", "pipeline.toml"]);
        assert!(error.contains(words), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_named_pipe_is_refused_at_once() {
    let workshop = workshop("a.csv", "");
    std::fs::remove_file(workshop.path("a.csv")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(workshop.path("a.csv")).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    for command in ["run", "extract"] {
        let error = workshop.fail(&[command, "pipeline.toml"]);
        assert!(error.contains("a.csv: expected a regular file"), "{error}");
        assert!(error.contains("hint: write its contents to a file first"), "{error}");
    }
}

#[test]
fn a_tokenizer_that_is_larger_than_the_model_is_found_when_the_folder_is_opened() {
    let workshop = Workshop::tiny();
    let model = workshop.copy_model("model");
    let path = model.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.insert("elephant".into(), 90.into());
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let toml = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let tiny = fixture("tiny_bert").display().to_string();
    workshop.write("pipeline.toml", toml.replace(&tiny, "model"));
    let error = workshop.fail(&["extract", "pipeline.toml"]);
    assert!(
        error.contains("model/tokenizer.json`: expected ids from 0 to 89, as the model has 90 embeddings, got ids up to 90"),
        "{error}"
    );
}

#[test]
fn near_copies_that_could_not_be_looked_for_say_why() {
    let workshop = Workshop::tiny();
    let rows = csv(&texts(40), 0);
    workshop.write("train.csv", &rows);
    workshop.write("test.csv", &rows);
    let toml = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let both = "\"train.csv\" }\ntest = { path = \"test.csv\" }\nsplit = { train = 1.0, validation = 0.0, test = 0.0 }";
    workshop.write("pipeline.toml", toml.replace("\"train.csv\" }", both));
    let ran = workshop.succeed(&["run", "pipeline.toml"]);
    // The text is wrapped to fit a terminal.
    let said: Vec<&str> = ran.stdout.split_whitespace().collect();
    assert!(
        said.join(" ").contains("near-duplicates were not looked for: all 40 rows of validation and test are exact copies of rows of train"),
        "{}",
        ran.stdout
    );
}

#[test]
fn nothing_of_a_text_or_a_name_commands_a_terminal() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    let text = "the snow \u{1b}[31mis\u{7}\u{9b}2J cold";
    let ran = workshop.succeed(&["predict", "runs/tiny", "--text", text]);
    assert!(ran.stdout.contains("\\u{1b}[31mis\\u{7}\\u{9b}2J"), "{}", ran.stdout);
    assert!(!ran.stdout.chars().any(|c| c.is_control() && c != '\n'), "{}", ran.stdout);
    // Programs get the original text.
    let ran = workshop.succeed(&["predict", "runs/tiny", "--text", text, "--json"]);
    let line: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(line["text"], text);
    let error = workshop.run(&["extract", "\u{1b}[2J.toml"]).stderr;
    assert!(error.contains("\\u{1b}[2J.toml") && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn counts_of_one_are_said_of_one() {
    let workshop = workshop("a.txt", "the snow is cold\n");
    let ran = workshop.succeed(&["extract", "pipeline.toml"]);
    assert!(ran.stdout.contains("1 text, 1 distinct"), "{}", ran.stdout);
}

#[test]
fn a_library_that_is_not_there_is_not_said_to_be_built_without_cuda() {
    let workshop = Workshop::tiny();
    let toml = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    workshop.write("pipeline.toml", toml.replace("device = \"cpu\"", "device = \"auto\""));
    let error = workshop.fail(&["extract", "pipeline.toml", "--ort-lib", "nowhere.so"]);
    assert!(!error.contains("CUDA"), "{error}");
    assert!(error.contains("cannot use ONNX Runtime") && error.contains("nowhere.so"), "{error}");
}

/// Records the progress of the stage that trains heads.
#[derive(Default)]
struct HeadsDone {
    is_training: Mutex<bool>,
    steps: Mutex<Vec<u64>>,
}

impl Progress for HeadsDone {
    fn start(&self, stage: &str, _: Option<u64>, _: &'static str) {
        *self.is_training.lock().unwrap() = stage == "training heads";
    }

    fn advance(&self, units: u64, _: u64) {
        if *self.is_training.lock().unwrap() {
            self.steps.lock().unwrap().push(units);
        }
    }

    fn finish(&self) {
        *self.is_training.lock().unwrap() = false;
    }
}

#[test]
fn fits_in_full_batch_are_counted_one_by_one_as_they_end() {
    let workshop = Workshop::tiny();
    let toml = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let sweep = "[head]\nkind = \"logistic\"\n[sweep]\nC = [0.1, 1.0, 10.0]\nfolds = 3\n";
    let at = |name: &str| format!("{:?}", workshop.path(name).display().to_string());
    let toml = toml.replace("\"train.csv\"", &at("train.csv"));
    let folders = format!("[run]\ndir = {}\n", at("runs"));
    let toml = toml.replace("[cache]\n", &format!("{folders}[cache]\ndir = {}\n", at("cache")));
    workshop.write("pipeline.toml", toml + sweep);
    workshop.succeed(&["extract", "pipeline.toml"]);
    let experiment = Experiment::open(workshop.path("pipeline.toml")).unwrap();
    let done = HeadsDone::default();
    experiment.sweep(&done).unwrap();
    let steps = done.steps.into_inner().unwrap();
    assert_eq!(steps.iter().sum::<u64>(), 9, "{steps:?}");
    assert_eq!(steps.iter().filter(|units| **units == 1).count(), 9, "{steps:?}");
}

#[test]
fn a_jina_v2_that_normalises_queries_is_refused_with_the_way_out_for_code_of_a_repository() {
    let workshop = Workshop::empty();
    let model = workshop.path("model");
    copy_folder(&fixture("families/jina_v2_four_heads"), &model);
    workshop.json(&["model", "info", "model"]);
    let refusal = || {
        let error = workshop.fail(&["model", "info", "model"]);
        assert!(error.contains("--trust-remote-code"), "{error}");
        assert!(!error.contains("remove auto_map"), "{error}");
        error
    };

    // Saved again by `transformers`: the class does not name its repository, but the weights have its norms.
    let path = model.join("model.safetensors");
    let before = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&before).unwrap();
    let norm = tensors.tensor("bert.embeddings.LayerNorm.weight").unwrap();
    let name = "encoder.layer.0.attention.self.layer_norm_q.weight";
    let named = tensors.tensors().into_iter().chain([(format!("bert.{name}"), norm)]);
    std::fs::write(&path, safetensors::serialize(named, None).unwrap()).unwrap();
    let error = refusal();
    assert!(error.contains(name), "{error}");

    std::fs::write(&path, &before).unwrap();
    let config = model.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let class = "modeling_bert.JinaBertModel";
    let of_hub = format!("jinaai/jina-bert-v2-qk-post-norm--{class}");
    std::fs::write(&config, text.replace(class, &of_hub)).unwrap();
    let error = refusal();
    assert!(error.contains("qk-post-norm"), "{error}");
}
