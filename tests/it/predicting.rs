//! Predictions for many records: states from the run's cache, parts in a folder, and answers line by line.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE},
    support::{RICH_PIPELINE, Workshop, contents, csv, csv_with_repeats, texts},
};

/// Predicts for a file with the run's cache and without it, and asserts that the bytes are the same. Returns the report
/// of the first prediction.
fn assert_same_without_cache(workshop: &Workshop, file: &str, more: &[&str]) -> Value {
    let predict = |out: &str| {
        let arguments = ["predict", "runs/tiny", file, "--out", out, "--with-text"];
        workshop.json(&[&arguments, more].concat())
    };
    let with = predict("with.parquet");
    fs::rename(workshop.path("cache"), workshop.path("aside")).unwrap();
    let without = predict("without.parquet");
    fs::rename(workshop.path("aside"), workshop.path("cache")).unwrap();
    assert_eq!(without["reused"], json!(0));
    assert_eq!((&with["rows"], &with["skipped"]), (&without["rows"], &without["skipped"]));
    let bytes = |name: &str| fs::read(workshop.path(name)).unwrap();
    assert!(bytes("with.parquet") == bytes("without.parquet"), "{file}");
    with
}

#[test]
fn states_of_the_cache_are_not_computed_again_and_give_the_same_bytes() {
    let workshop = Workshop::with_test_file();
    workshop.succeed(&["run", "pipeline.toml"]);
    let report = assert_same_without_cache(&workshop, "train.csv", &["--probabilities"]);
    assert_eq!((&report["rows"], &report["reused"]), (&json!(120), &json!(120)));
    // The runtime is not loaded if nothing is encoded.
    let without_runtime = ["--out", "a.csv", "--ort-lib", "no-such-library.so"];
    let ran = workshop.succeed(&[&["predict", "tiny", "train.csv"][..], &without_runtime].concat());
    let note = "the states of 120 texts were in the run's cache";
    assert!(ran.stderr.contains(note), "{}", ran.stderr);

    // Known and new rows, repeated rows, and one without a text.
    let mut rows = csv(&texts(150), 0);
    rows.push_str(" ,cold\n");
    rows.extend(csv(&texts(10), 0).lines().skip(1).map(|line| format!("{line}\n")));
    workshop.write("mixed.csv", rows);
    let report = assert_same_without_cache(&workshop, "mixed.csv", &["--probabilities"]);
    assert_eq!((&report["rows"], &report["skipped"]), (&json!(161), &json!(1)));
    assert_eq!(report["reused"], json!(160), "test.csv has the rest");
    workshop.write("new.csv", csv(&texts(220)[190..], 190));
    assert_eq!(assert_same_without_cache(&workshop, "new.csv", &[])["reused"], json!(0));
}

#[test]
fn windows_words_tokens_pairs_and_answers_are_read_from_the_cache_too() {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv_with_repeats(60));
    workshop.write_pipeline(&RICH_PIPELINE.replace("\"rich\"", "\"tiny\""));
    workshop.succeed(&["run", PIPELINE]);
    workshop.write("some.csv", csv(&texts(80)[40..], 40));
    assert_eq!(assert_same_without_cache(&workshop, "some.csv", &[])["reused"], json!(20));

    let attention = "[head]\npooling = \"attention\"\nlayers = [1, 2]\n[train]\nepochs = 1\n";
    let epoch = "[train]\nepochs = 1\n";
    for (task, data, settings) in [
        ("classification", Data::Classes, attention),
        ("tokens", Data::Iob2, epoch),
        ("tokens", Data::Iob2, "[head]\nlayers = [1, 2]\n[train]\nepochs = 1\n"),
        ("qa", Data::Questions, epoch),
        ("regression", Data::PairValues, epoch),
    ] {
        let case = Case { task, data, cache: "max_length = 32\nstride = 8", settings };
        let workshop = case.workshop();
        workshop.succeed(&["run", PIPELINE, "--set", "cache.dtype=f16"]);
        let report = assert_same_without_cache(&workshop, data.test_file(), &[]);
        assert!(report["reused"].as_u64() >= report["rows"].as_u64(), "{task}: {report}");
    }
}

#[test]
fn a_damaged_cache_is_told_and_everything_is_encoded() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    let out = ["predict", "tiny", "train.csv", "--out"];
    workshop.succeed(&[&out[..], &["whole.csv"]].concat());
    let shard = workshop.cache().join("shard-000000");
    let mut files = fs::read_dir(&shard).unwrap().map(|entry| entry.unwrap().path());
    let state = files.find(|path| path.to_string_lossy().contains("mean-")).unwrap();
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    let ran = workshop.succeed(&[&out[..], &["damaged.csv"]].concat());
    assert!(ran.stderr.contains("texts are encoded again"), "{}", ran.stderr);
    let read = |name: &str| fs::read_to_string(workshop.path(name)).unwrap();
    assert_eq!(read("whole.csv"), read("damaged.csv"));
}

#[test]
fn a_folder_gets_parts_and_one_that_holds_something_stays() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    let report = workshop.json(&["predict", "tiny", "train.csv", "--out", "labelled/"]);
    assert_eq!((&report["out"], &report["rows"]), (&json!("labelled/"), &json!(120)));
    let files: Vec<String> = contents(&workshop.path("labelled")).into_keys().collect();
    assert_eq!(files, ["_parts.json", "part-00000.parquet"]);
    workshop.json(&["predict", "tiny", "train.csv", "--out", "one.parquet"]);
    let bytes = |name: &str| fs::read(workshop.path(name)).unwrap();
    assert!(bytes("labelled/part-00000.parquet") == bytes("one.parquet"));
    let ran = workshop.run(&["predict", "tiny", "train.csv", "--out", "labelled/"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("expected a folder that is empty"), "{}", ran.stderr);
}

#[test]
fn who_types_is_answered_line_by_line() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    let mut command = workshop.command(&["predict", "tiny", "-", "--json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for text in ["the cold snow", "very warm", "film"] {
        writeln!(input, "{text}").unwrap();
        input.flush().unwrap();
        // The next line is written only after the answer to this one.
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["text"], text);
    }
    drop(input);
    assert!(answers.next().is_none() && child.wait().unwrap().success());
}

#[test]
fn several_runs_answer_side_by_side() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    workshop.succeed(&["run", "pipeline.toml", "--set", "name=other", "--set", "head.kind=lda"]);
    let one = |run: &str| -> Value {
        let ran = workshop.succeed(&["predict", run, "--text", "the cold snow", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let both = ["predict", "tiny", "--run", "other"];
    let ran = workshop.succeed(&[&both[..], &["--text", "the cold snow", "--json"]].concat());
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(said["text"], "the cold snow");
    for run in ["tiny", "other"] {
        for key in ["label", "confidence", "probabilities"] {
            assert_eq!(said[format!("{run}.{key}")], one(run)[key], "{run}.{key}");
        }
        assert!(ran.stderr.contains(&format!("note: runs/{run}/001: ")), "{}", ran.stderr);
    }
    let ran = workshop.succeed(&[&both[..], &["--text", "the cold snow"]].concat());
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(lines[0].starts_with("tiny: ") && lines[1].starts_with("other: "), "{}", ran.stdout);

    workshop.write("new.csv", "name,text\na,the cold snow\nb,\n");
    let out = ["new.csv", "--id-column", "name", "--out", "out.csv", "--with-text"];
    workshop.succeed(&[&both[..], &out, &["--probabilities"]].concat());
    let written = fs::read_to_string(workshop.path("out.csv")).unwrap();
    let of = |run: &str| {
        let columns = ["label", "confidence", "p_cold", "p_plain", "p_warm"];
        columns.map(|column| format!("{run}.{column}")).join(",")
    };
    assert_eq!(
        written.lines().next().unwrap(),
        format!("name,text,{},{}", of("tiny"), of("other"))
    );
    assert_eq!(written.lines().count(), 3);

    // Two runs of the same name are distinguished by their folders.
    workshop.succeed(&["run", "pipeline.toml"]);
    let two = ["predict", "tiny/001", "--run", "tiny/002", "--text", "a", "--json"];
    let said: Value = serde_json::from_str(&workshop.succeed(&two).stdout).unwrap();
    assert!(said["runs/tiny/001.label"].is_string() && said["runs/tiny/002.label"].is_string());
}
