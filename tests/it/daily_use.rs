//! Everyday use: embeddings with one command, a pipeline generated from a data file, files of predictions, messy data,
//! and failures that scripts can tell apart.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{TINY_PIPELINE, Workshop, csv, fixture, texts};

/// Returns the arguments of `embed` with the tiny BERT.
fn embed<'a>(model: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["embed", "--model", model, "--set", "cache.max_length=32"], rest].concat()
}

/// Returns the keys of a JSON object.
fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Returns the header, which contains the shape, and the f32 values of a .npy file.
fn npy(bytes: &[u8]) -> (String, Vec<f32>) {
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..10 + header_bytes].to_vec()).unwrap();
    let values = bytes[10 + header_bytes..].chunks_exact(4);
    (header, values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[test]
fn embed_writes_a_row_for_each_record_and_costs_nothing_the_second_time() {
    let workshop = Workshop::empty();
    let model = fixture("tiny_bert").display().to_string();
    let texts = texts(20);
    let mut lines = texts.clone();
    lines.push(texts[3].clone());
    workshop.write("texts.txt", lines.join("\n") + "\n");
    let first = workshop.json(&embed(&model, &["texts.txt", "--out", "rows.npy"]));
    assert_eq!(
        keys(&first),
        BTreeSet::from([
            "cache",
            "computed",
            "dimensions",
            "dtype",
            "out",
            "reused",
            "rows",
            "seconds",
            "state",
            "truncated",
        ])
    );
    assert_eq!((&first["rows"], &first["dimensions"]), (&json!(21), &json!(32)));
    assert_eq!((&first["computed"], &first["dtype"]), (&json!(20), &json!("f32")));
    let second = workshop.json(&embed(&model, &["texts.txt", "--out", "again.npy"]));
    assert_eq!((&second["computed"], &second["reused"]), (&json!(0), &json!(20)));
    let (rows, again) = (
        fs::read(workshop.path("rows.npy")).unwrap(),
        fs::read(workshop.path("again.npy")).unwrap(),
    );
    assert!(rows == again);
    let (header, values) = npy(&rows);
    assert!(header.contains("'shape': (21, 32)") && header.contains("<f4"), "{header}");
    assert_eq!(values[3 * 32..4 * 32], values[20 * 32..], "the same text has the same row");
    assert!(!workshop.path("rows.npy.meta.parquet").exists(), "nothing else was asked for");

    // Another format has the same values, with further columns next to them.
    let csv = csv(&texts, 0);
    workshop.write("texts.csv", &csv);
    workshop.json(&embed(
        &model,
        &["texts.csv", "--out", "rows.arrow", "--with-text", "--label-column", "label"],
    ));
    workshop.json(&embed(&model, &["texts.csv", "--out", "rows.safetensors", "--with-text"]));
    assert!(workshop.path("rows.safetensors.meta.parquet").exists());
    let bytes = fs::read(workshop.path("rows.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("embeddings").unwrap();
    assert_eq!(tensor.shape(), [20, 32]);
    let expected: Vec<u8> = values[..20 * 32].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(tensor.data() == expected);
    let file = fs::File::open(workshop.path("rows.arrow")).unwrap();
    let mut batches = arrow::ipc::reader::FileReader::try_new(file, None).unwrap();
    let batch = batches.next().unwrap().unwrap();
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["text", "label", "embedding"]);
    assert_eq!(batch.num_rows(), 20);
}

#[test]
fn embed_reads_stdin_and_refuses_a_file_of_no_known_kind() {
    let workshop = Workshop::empty();
    let model = fixture("tiny_bert").display().to_string();
    let mut command = workshop.command(&embed(&model, &["-", "--out", "rows.npy", "--json"]));
    workshop.write("stdin.txt", "the cold snow\nvery warm\n");
    command.stdin(fs::File::open(workshop.path("stdin.txt")).unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"], 2);
    let ran = workshop.run(&embed(&model, &["stdin.txt", "--out", "rows.xlsx"]));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains(".npy, .parquet, .arrow or .safetensors"), "{}", ran.stderr);
}

#[test]
fn init_writes_a_pipeline_that_runs() {
    let workshop = Workshop::empty();
    let model = fixture("tiny_bert").display().to_string();
    let rows = csv(&texts(60), 0).replace("text,label", "what people say;kind of it");
    let rows: String = rows.lines().map(|line| line.replace(',', ";") + "\n").collect();
    // A tenth of the rows have no label.
    let rows: String = rows
        .lines()
        .enumerate()
        .map(|(number, line)| match line.rsplit_once(';') {
            Some((text, _)) if number % 10 == 5 => format!("{text};\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    workshop.write("said.csv", format!("\u{feff}{rows}"));
    let said = workshop.json(&["init", "said.csv", "--model", &model]);
    assert_eq!((&said["text"], &said["label"]), (&json!("what people say"), &json!("kind of it")));
    let pipeline = fs::read_to_string(workshop.path("said.toml")).unwrap();
    assert!(
        pipeline.contains("delimiter = \";\"") && pipeline.contains("drop_unlabelled"),
        "{pipeline}"
    );
    let again = workshop.run(&["init", "said.csv"]);
    assert_eq!(again.code, Some(2), "a file that is there stays: {}", again.stderr);
    let ran = workshop.succeed(&["run", "said.toml", "--set", "cache.max_length=32"]);
    assert!(
        ran.stderr.contains("6 of 60 records have no label and were left out"),
        "{}",
        ran.stderr
    );
}

#[test]
fn init_notices_a_file_without_a_header_and_reads_it_as_it_is_told() {
    let workshop = Workshop::empty();
    let model = fixture("tiny_bert").display().to_string();
    let rows = csv(&texts(60), 0).replace("text,label\n", "");
    workshop.write("said.csv", &rows);
    let init = |arguments: &[&str]| {
        let all = ["init", "said.csv", "--force", "--json", "--model", model.as_str()];
        let ran = workshop.succeed(&[&all[..], arguments].concat());
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        (said["records"].as_u64().unwrap(), ran.stderr)
    };
    let (n_records, said) = init(&[]);
    assert_eq!(n_records, 59);
    let notice =
        "said.csv: the first record looks like values, but is taken as the names of the columns";
    assert!(said.contains(notice) && said.contains("call init again with --no-header"), "{said}");
    let (n_records, said) = init(&["--no-header"]);
    assert_eq!(n_records, 60);
    assert!(!said.contains("header"), "{said}");
    let pipeline = fs::read_to_string(workshop.path("said.toml")).unwrap();
    assert!(pipeline.contains("header = false, text = 0, label = 1"), "{pipeline}");
    workshop.succeed(&["run", "said.toml", "--set", "cache.max_length=32"]);

    // Neither the name, nor the delimiter, nor the encoding is what is usual.
    let said = format!("what|kind\n{}", rows.replace(',', "|").replace("the ", "th\u{e9} "));
    let latin: Vec<u8> = said.chars().map(|c| u8::try_from(c).unwrap()).collect();
    workshop.write("said.data", latin);
    let refused = workshop.run(&["init", "said.data"]);
    assert!(refused.has_failed(), "{}", refused.stdout);
    let told = ["--format", "csv", "--delimiter", "|", "--encoding", "latin1"];
    let said = workshop.json(&[&["init", "said.data", "--out", "other.toml"][..], &told].concat());
    assert_eq!((&said["records"], &said["header"]), (&json!(60), &json!(true)));
    let pipeline = fs::read_to_string(workshop.path("other.toml")).unwrap();
    for key in ["format = \"csv\"", "delimiter = \"|\"", "encoding = \"latin1\"", "text = \"what\""]
    {
        assert!(pipeline.contains(key), "no {key} in {pipeline}");
    }
}

#[test]
fn init_refuses_settings_of_a_csv_file_for_other_files() {
    let workshop = Workshop::empty();
    workshop.write("said.jsonl", "{\"text\": \"the cold snow\", \"label\": \"cold\"}\n");
    for told in [&["--no-header"][..], &["--delimiter", ";"]] {
        let refused = workshop.run(&[&["init", "said.jsonl"], told].concat());
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        let said =
            format!("{} is for csv and tsv files, but `said.jsonl` is read as jsonl", told[0]);
        assert!(refused.stderr.contains(&said), "{}", refused.stderr);
        assert!(!workshop.path("said.toml").exists());
    }
    workshop.succeed(&["init", "said.jsonl"]);
}

#[test]
fn a_missing_label_is_counted_and_may_be_left_out() {
    let workshop = Workshop::tiny();
    let rows = csv(&texts(40), 0);
    let rows: Vec<String> = rows
        .lines()
        .enumerate()
        .map(|(number, line)| match line.rsplit_once(',') {
            Some((text, _)) if number == 4 || number == 9 => format!("{text}, "),
            Some((text, "cold")) if number % 2 == 0 => format!("{text},Cold"),
            Some((text, "plain")) if number == 12 => format!("{text},N/A"),
            _ => line.to_string(),
        })
        .collect();
    workshop.write("train.csv", rows.join("\n") + "\n");
    let ran = workshop.run(&["run", "pipeline.toml"]);
    assert_eq!(ran.code, Some(3));
    assert!(
        ran.stderr
            .contains("train.csv:5: expected a label for each text, got none: 2 of 40 records"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("data.clean.drop_unlabelled = true"), "{}", ran.stderr);
    let ran =
        workshop.succeed(&["run", "pipeline.toml", "--set", "data.clean.drop_unlabelled=true"]);
    assert!(ran.stderr.contains("2 of 40 records have no label"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`Cold`, `cold`"), "labels that look alike: {}", ran.stderr);
    assert!(ran.stderr.contains("`N/A` is learned as a label"), "{}", ran.stderr);
}

#[test]
fn ids_are_carried_where_the_train_source_has_a_column_of_them() {
    let workshop = Workshop::tiny();
    let rows = csv(&texts(60), 0);
    let rows: String =
        rows.lines().skip(1).enumerate().map(|(n, row)| format!("t{n},{row}\n")).collect();
    workshop.write("train.csv", format!("name,text,label\n{rows}"));
    workshop.succeed(&["run", "pipeline.toml", "--set", "data.train.id=name"]);
    let header = |file: &str| {
        workshop.json(&["predict", "tiny", file, "--out", "out.csv"]);
        let written = fs::read_to_string(workshop.path("out.csv")).unwrap();
        let lines: Vec<String> = written.lines().take(2).map(String::from).collect();
        (lines[0].clone(), lines[1].clone())
    };
    workshop.write("new.csv", "text,name\nthe cold snow,a\n");
    let (names, first) = header("new.csv");
    assert_eq!(names, "name,label,confidence");
    assert!(first.starts_with("a,"), "{first}");
    let ran = workshop.succeed(&["predict", "tiny", "new.csv", "--json"]);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(said["id"], "a");
    assert!(header("train.csv").1.starts_with("t0,"), "of the run's own files too");
    // Elsewhere there may be none, or another column is asked for.
    workshop.write("bare.csv", "text,other\nthe cold snow,a\n");
    assert_eq!(header("bare.csv").0, "label,confidence");
    workshop.write("bare.jsonl", "{\"text\": \"the cold snow\"}\n");
    assert_eq!(header("bare.jsonl").0, "label,confidence");
    let ran = workshop.succeed(&["predict", "tiny", "bare.csv", "--set", "id=other", "--json"]);
    assert!(ran.stdout.starts_with("{\"id\":\"a\","), "{}", ran.stdout);
    // An id that nobody asked for may be missing, or be no name.
    let lines = "{\"text\": \"the cold snow\", \"name\": \"a\"}\n";
    let others = "{\"text\": \"warm\"}\n{\"text\": \"good\", \"name\": [1]}\n";
    workshop.write("some.jsonl", format!("{lines}{lines}{others}"));
    let ran = workshop.succeed(&["predict", "tiny", "some.jsonl", "--json"]);
    let rows = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let ids: Vec<Value> = rows.map(|row: Value| row["id"].clone()).collect();
    assert_eq!(ids, [json!("a"), json!("a"), Value::Null, Value::Null]);
    let said = workshop.fail(&["predict", "tiny", "some.jsonl", "--id-column", "name"]);
    assert!(said.contains("some.jsonl:3: expected the key `name` for `id`"), "{said}");
    workshop.write("twice.csv", "text,name,name\nthe cold snow,a,b\n");
    assert_eq!(header("twice.csv").0, "label,confidence");
}

#[test]
fn an_id_that_nobody_asked_for_gives_way_to_a_column_of_predictions() {
    let workshop = Workshop::tiny();
    let rows = csv(&texts(60), 0);
    let rows: String =
        rows.lines().skip(1).enumerate().map(|(n, row)| format!("t{n},{row}\n")).collect();
    workshop.write("train.csv", format!("confidence,text,label\n{rows}"));
    workshop.succeed(&["run", "pipeline.toml", "--set", "data.train.id=confidence"]);
    workshop.write("new.csv", "text,confidence\nthe cold snow,a\n");
    let predict = ["predict", "tiny", "new.csv", "--out", "out.csv"];
    workshop.succeed(&predict);
    let written = fs::read_to_string(workshop.path("out.csv")).unwrap();
    assert!(written.starts_with("label,confidence\n"), "{written}");
    let ran = workshop.run(&[&predict[..], &["--id-column", "confidence"]].concat());
    assert!(ran.stderr.contains("rename the column in the file"), "{}", ran.stderr);
}

#[test]
fn predictions_go_to_a_file_with_the_ids_in_order() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    workshop.write("new.csv", "name,text\na,the cold snow\nb,  \nc,\"very warm, good\"\n");
    let out = |name: &str, more: &[&str]| {
        let arguments = ["predict", "runs/tiny", "new.csv", "--id-column", "name", "--out", name];
        workshop.json(&[&arguments, more].concat())
    };
    let report = out("out.csv", &["--probabilities"]);
    let expected = ["bad", "encoded", "out", "resumed", "reused", "rows", "seconds", "skipped"];
    assert_eq!(keys(&report), BTreeSet::from(expected));
    assert_eq!((&report["rows"], &report["skipped"]), (&json!(3), &json!(1)));
    let written = fs::read_to_string(workshop.path("out.csv")).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines[0], "name,label,confidence,p_cold,p_plain,p_warm");
    assert!(lines[1].starts_with("a,") && lines[2] == "b,,,,," && lines[3].starts_with("c,"));

    // The file contains the same JSON lines as stdout.
    out("out.jsonl", &[]);
    let written = fs::read_to_string(workshop.path("out.jsonl")).unwrap();
    let rows: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ran =
        workshop.succeed(&["predict", "runs/tiny", "new.csv", "--id-column", "name", "--json"]);
    let said: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), 2, "a record without a text has no prediction");
    assert!(ran.stderr.contains("1 record without a text was skipped"), "{}", ran.stderr);
    assert!(ran.stderr.contains("runs/tiny/001: classification of 3 labels"), "{}", ran.stderr);
    for (said, row) in [(&said[0], &rows[0]), (&said[1], &rows[2])] {
        assert_eq!((&said["label"], &said["id"]), (&row["label"], &row["name"]));
        assert_eq!(said["confidence"], row["confidence"]);
    }
    assert_eq!(rows[1]["label"], Value::Null);

    // Only the most probable labels, and no label that is less certain than requested.
    let one = |more: &[&str]| -> Value {
        let text = ["predict", "runs/tiny", "--text", "the cold snow", "--json"];
        serde_json::from_str(&workshop.succeed(&[&text, more].concat()).stdout).unwrap()
    };
    assert_eq!(one(&[])["probabilities"].as_object().unwrap().len(), 3);
    let top = one(&["--top", "2"]);
    let probabilities: Vec<f64> =
        top["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).collect();
    assert!(probabilities.len() == 2 && probabilities[0] >= probabilities[1], "{top}");
    assert_eq!(one(&["--min-confidence", "1"])["label"], "");
    let ran = workshop.run(&["predict", "runs/tiny", "new.csv", "--out", "out.docx"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
}

#[test]
fn a_file_is_read_with_the_columns_that_are_asked_for() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    workshop.write("other.csv", "nr;said\n1;the cold snow\n");
    let ran = workshop.succeed(&[
        "predict",
        "runs/tiny",
        "other.csv",
        "--text-column",
        "said",
        "--set",
        "delimiter=;",
        "--json",
    ]);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(said["text"], "the cold snow");
    let ran = workshop.run(&["predict", "runs/tiny", "other.csv", "--set", "colour=red"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
}

/// Returns the exit code of a command, and the error that it prints as JSON.
fn error_of(workshop: &Workshop, arguments: &[&str]) -> (Option<i32>, Value) {
    let ran = workshop.run(&[arguments, &["--json"]].concat());
    let said: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| {
        panic!("{arguments:?}: {error} in `{}`; {}", ran.stdout, ran.stderr)
    });
    assert_eq!(keys(&said), BTreeSet::from(["error"]));
    assert_eq!(keys(&said["error"]), BTreeSet::from(["file", "hint", "kind", "line", "message"]));
    assert!(ran.stderr.contains("error: "), "people are told, too: {}", ran.stderr);
    (ran.code, said["error"].clone())
}

#[test]
fn failures_are_told_apart_by_kind_and_exit_code() {
    let workshop = Workshop::tiny();
    let kinds = |arguments: &[&str]| {
        let (code, error) = error_of(&workshop, arguments);
        (code, error["kind"].as_str().unwrap().to_string())
    };
    let is = |code: i32, kind: &str| (Some(code), kind.to_string());
    assert_eq!(kinds(&["run", "no-such.toml"]), is(4, "missing"));
    assert_eq!(kinds(&["run", "pipeline.toml", "--set", "train.lrr=1"]), is(2, "usage"));
    assert_eq!(kinds(&["run"]), is(2, "usage"));
    assert_eq!(kinds(&["train", "pipeline.toml"]), is(4, "missing"));
    assert_eq!(kinds(&["predict", "runs/none", "--text", "a"]), is(4, "missing"));
    assert_eq!(
        kinds(&["run", "pipeline.toml", "--set", "model.path=no-such-model"]),
        is(4, "missing")
    );

    workshop.succeed(&["run", "pipeline.toml"]);
    let head = workshop.path("runs/tiny/001/head.safetensors");
    let mut bytes = fs::read(&head).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&head, bytes).unwrap();
    assert_eq!(kinds(&["predict", "runs/tiny/001", "--text", "a"]), is(3, "data"));

    // The error for a malformed record names the file and the line.
    workshop.write("train.csv", "text,label\none,a\ntwo\n");
    let (code, error) = error_of(&workshop, &["run", "pipeline.toml"]);
    assert_eq!((code, &error["kind"]), (Some(3), &json!("data")));
    assert_eq!((&error["file"], &error["line"]), (&json!("train.csv"), &json!(3)));
    assert!(error["hint"].is_string() && error["message"].is_string());
}

#[test]
fn an_interrupted_command_says_in_a_line_what_is_kept() {
    const N_TEXTS: usize = 3000;
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(N_TEXTS), 0));
    workshop.write_pipeline(TINY_PIPELINE);
    let mut command = workshop.command(&["extract", "pipeline.toml"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // A hundred shards follow the first.
    let start = Instant::now();
    while !has_a_shard(&workshop) && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "no shard was committed");
        std::thread::sleep(Duration::from_millis(2));
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted: what was committed is kept"), "{said}");
    // What was committed is not computed again.
    let report = workshop.json(&["extract", "pipeline.toml"]);
    let [documents, computed, reused] =
        ["documents", "computed", "reused"].map(|key| report[key].as_u64().unwrap());
    assert_eq!((documents, computed + reused), (N_TEXTS as u64, N_TEXTS as u64));
    assert!(computed > 0 && reused > 0, "{computed} computed, {reused} reused");
}

/// Whether a cache of the workshop has a committed shard.
fn has_a_shard(workshop: &Workshop) -> bool {
    let caches = fs::read_dir(workshop.path("cache"));
    caches.into_iter().flatten().flatten().any(|cache| {
        let manifest = fs::read_to_string(cache.path().join("manifest.json"));
        manifest.is_ok_and(|manifest| manifest.contains("shard-000000"))
    })
}
