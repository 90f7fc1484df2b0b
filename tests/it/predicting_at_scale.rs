//! Predictions for many records: parts that are continued, several runs over one pass of the encoder, bad records, columns
//! that are carried along.

use std::{
    fs,
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{RICH_PIPELINE, Workshop, contents, csv, csv_with_repeats, texts};

/// Creates a workshop with a trained run and `new.csv`, whose texts are in no cache.
fn with_new_texts(n_texts: usize) -> Workshop {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    workshop.write("new.csv", csv(&texts(n_texts + 1_000)[1_000..], 0));
    workshop
}

fn predict<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["predict", "runs/tiny/001", file][..], more].concat()
}

/// The names of the files in a folder.
fn names(workshop: &Workshop, folder: &str) -> Vec<String> {
    contents(&workshop.path(folder)).into_keys().collect()
}

#[test]
fn a_call_that_was_killed_goes_on_after_its_last_part_with_the_same_bytes() {
    let workshop = with_new_texts(12_000);
    let part_rows = ["--part-rows", "500", "--probabilities"];
    let to = |out| predict("new.csv", &[&part_rows[..], &["--out", out]].concat());
    let mut child = workshop
        .command(&to("killed/"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !workshop.path("killed/part-00001.parquet").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no part was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let n_parts =
        names(&workshop, "killed").iter().filter(|name| name.starts_with("part-")).count();
    assert!((2..24).contains(&n_parts), "{n_parts} of 24 parts were written before the kill");
    // What a killed process leaves of a part.
    workshop.write("killed/.frostbert-left.tmp", "half a part");

    let ran = workshop.succeed(&[&to("killed/")[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["rows"], json!(12_000));
    assert_eq!(report["resumed"], json!(500 * n_parts));
    assert_eq!(report["encoded"], json!(12_000 - 500 * n_parts));
    let note = format!("killed/ holds {n_parts} parts of these predictions: going on");
    assert!(ran.stderr.contains(&note), "{}", ran.stderr);

    workshop.json(&to("whole/"));
    let (killed, whole) = (contents(&workshop.path("killed")), contents(&workshop.path("whole")));
    assert!(killed == whole, "{:?} and {:?}", killed.keys(), whole.keys());
    assert_eq!(whole.len(), 25, "{:?}", whole.keys());
}

#[test]
fn parts_of_other_input_runs_or_options_are_refused_and_stay() {
    let workshop = with_new_texts(90);
    workshop.succeed(&["run", "pipeline.toml", "--set", "head.kind=lda"]);
    let part_rows = ["--part-rows", "20", "--out", "parts/"];
    let call = predict("new.csv", &part_rows);
    workshop.json(&call);
    // As if it had been killed.
    let begun = |n_parts: usize| {
        let path = workshop.path("parts/_parts.json");
        let description = fs::read_to_string(&path).unwrap();
        fs::write(&path, description.replace("\"complete\": true", "\"complete\": false")).unwrap();
        for number in n_parts..5 {
            let _ = fs::remove_file(workshop.path(&format!("parts/part-{number:05}.parquet")));
        }
    };
    begun(3);
    let before = contents(&workshop.path("parts"));
    workshop.write("other.csv", csv(&texts(90), 0));
    let of_other_run = [&["predict", "runs/tiny/002", "new.csv"][..], &part_rows].concat();
    for (arguments, key) in [
        (predict("other.csv", &part_rows), "`input.digest`"),
        (of_other_run, "`runs`"),
        ([&call[..], &["--with-text"]].concat(), "`columns.texts`"),
        ([&call[..], &["--min-confidence", "0.9"]].concat(), "`columns.min_confidence`"),
        ([&call[..], &["--batch", "1"]].concat(), "`batch`"),
        ([&call[..], &["--set", "quoting=false"]].concat(), "`input.settings.quoting`"),
        (predict("new.csv", &["--part-rows", "30", "--out", "parts/"]), "`part_rows`"),
        (predict("-", &[&part_rows[..], &["--format", "csv"]].concat()), "read only once"),
    ] {
        let ran = workshop.run(&arguments);
        assert_eq!(ran.code, Some(2), "{key}: {}", ran.stderr);
        assert!(ran.stderr.contains(key), "{key}: {}", ran.stderr);
        assert!(contents(&workshop.path("parts")) == before, "{key}");
    }
    assert_eq!(workshop.json(&call)["resumed"], json!(60));
    let ran = workshop.run(&call);
    assert_eq!(ran.code, Some(2), "parts that are all there: {}", ran.stderr);
    assert!(ran.stderr.contains("expected a folder that is empty"), "{}", ran.stderr);
    // All parts are there, but the call was killed before it could note that.
    begun(5);
    assert_eq!(workshop.json(&call)["resumed"], json!(90));
    assert_eq!(names(&workshop, "parts").len(), 6);
}

#[test]
fn a_bad_record_keeps_the_parts_before_it_and_skip_bad_goes_on() {
    let workshop = with_new_texts(100);
    let mut rows = fs::read_to_string(workshop.path("new.csv")).unwrap();
    rows.push_str("one,two,three\nthe cold snow,cold\n");
    workshop.write("new.csv", rows);
    let call = predict("new.csv", &["--part-rows", "40", "--out", "parts/"]);
    let ran = workshop.run(&call);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("new.csv") && ran.stderr.contains("102"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--skip-bad"), "{}", ran.stderr);
    let ran = workshop.succeed(&[&call[..], &["--skip-bad", "--json"]].concat());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["resumed"], json!(80));
    assert_eq!((&report["rows"], &report["bad"]), (&json!(101), &json!(1)));
    let list = fs::read_to_string(workshop.path("parts/_bad_rows.csv")).unwrap();
    assert!(list.starts_with("file,line,reason\nnew.csv,102,"), "{list}");
}

#[test]
fn bad_records_are_counted_and_listed_next_to_the_output() {
    let workshop = with_new_texts(3);
    let objects = "{\"text\": \"the cold snow\"}\n{\"text\": \nno object\n{\"text\": \"warm\"}\n";
    workshop.write("new.jsonl", objects);
    let call = predict("new.jsonl", &["--out", "out.csv"]);
    let ran = workshop.run(&call);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("line 2") || ran.stderr.contains(":2"), "{}", ran.stderr);
    assert!(!workshop.path("out.csv").exists());
    let ran = workshop.succeed(&[&call[..], &["--skip-bad", "--json"]].concat());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["rows"], &report["bad"]), (&json!(2), &json!(2)));
    let warning = "2 records that cannot be read left out, listed in out.bad_rows.csv";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    let list = fs::read_to_string(workshop.path("out.bad_rows.csv")).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines[1].starts_with("new.jsonl,2,") && lines[2].starts_with("new.jsonl,3,"), "{list}");
    // Without a bad record the list is there too, so that it is never one of an earlier call.
    workshop.json(&predict("new.csv", &["--out", "out.csv", "--skip-bad"]));
    let list = fs::read_to_string(workshop.path("out.bad_rows.csv")).unwrap();
    assert_eq!(list, "file,line,reason\n");
}

#[test]
fn runs_of_the_same_model_share_one_pass_and_predict_what_each_does_alone() {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv_with_repeats(60));
    let pipeline = RICH_PIPELINE.replace("\"rich\"", "\"tiny\"");
    workshop.write_pipeline(&pipeline);
    let runs: [&[&str]; 3] = [
        &[],
        &["--set", "name=shallow", "--set", "head.layers=[1]", "--set", "head.pooling=cls"],
        &["--set", "name=attention", "--set", "head.pooling=attention"],
    ];
    for settings in runs {
        workshop.succeed(&[&["run", "pipeline.toml"][..], settings].concat());
    }
    // More records than are encoded at a time; among them some without a text, and some that the cache has.
    let mut rows = csv(&texts(1_300)[30..], 0);
    rows.push_str(" ,cold\n");
    workshop.write("new.csv", rows);
    let out = |name| ["new.csv", "--probabilities", "--batch", "1", "--out", name];
    let all = ["predict", "tiny", "--run", "shallow", "--run", "attention"];
    let report = workshop.json(&[&all[..], &out("all.csv")].concat());
    assert_eq!((&report["rows"], &report["skipped"]), (&json!(1_271), &json!(1)));
    assert_eq!(report["encoded"], json!(1_270), "three runs over one pass: {report}");
    let columns = |file: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(workshop.path(file)).unwrap();
        text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
    };
    let together = columns("all.csv");
    for (place, run) in ["tiny", "shallow", "attention"].into_iter().enumerate() {
        workshop.json(&[&["predict", run][..], &out("one.csv")].concat());
        for (line, (alone, together)) in columns("one.csv").iter().zip(&together).enumerate() {
            let width = alone.len();
            let own = &together[place * width..(place + 1) * width];
            if line == 0 {
                let named: Vec<String> = alone.iter().map(|name| format!("{run}.{name}")).collect();
                assert_eq!(own, named);
            } else {
                assert_eq!(own, alone, "{run}, line {}", line + 1);
            }
        }
    }
    // States of the cache are used by each run, and only the rest is encoded, once.
    let cached = [&all[..], &["new.csv", "--out", "cached.csv"]].concat();
    let report = workshop.json(&cached);
    assert_eq!((&report["reused"], &report["encoded"]), (&json!(90), &json!(1_240)), "{report}");
}

#[test]
fn with_batches_of_one_a_text_has_the_same_prediction_in_any_company() {
    let workshop = with_new_texts(40);
    let probabilities = |file: &str| -> Vec<String> {
        let call = predict(file, &["--batch", "1", "--probabilities", "--out", "out.csv"]);
        assert_eq!(workshop.json(&call)["reused"], json!(0));
        let text = fs::read_to_string(workshop.path("out.csv")).unwrap();
        text.lines().skip(1).map(str::to_owned).collect()
    };
    let all = probabilities("new.csv");
    let text = fs::read_to_string(workshop.path("new.csv")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for row in [0, 17, 39] {
        workshop.write("one.csv", format!("{}\n{}\n", lines[0], lines[row + 1]));
        assert_eq!(probabilities("one.csv"), [all[row].clone()]);
    }
}

#[test]
fn columns_are_carried_along_unchanged_from_and_to_every_format() {
    let workshop = with_new_texts(3);
    workshop.write(
        "in.csv",
        "number,text,label,note\n7,the cold snow,cold,\" a, b \"\n8,very warm,warm,\n",
    );
    workshop.write(
        "in.jsonl",
        "{\"number\": 7, \"text\": \"the cold snow\", \"label\": \"cold\", \"note\": \" a, b \"}\n\
         {\"number\": 8, \"text\": \"very warm\", \"label\": \"warm\", \"note\": \"\"}\n",
    );
    // The first output is read again as Parquet.
    let keep = ["--keep-columns", "number,note,label"];
    let parquet = [&keep[..], &["--with-text", "--out", "in.parquet"]].concat();
    workshop.json(&predict("in.csv", &parquet));
    for input in ["in.csv", "in.jsonl"] {
        for out in ["out.csv", "out.jsonl"] {
            workshop.json(&predict(input, &[&keep[..], &["--out", out]].concat()));
            let written = fs::read_to_string(workshop.path(out)).unwrap();
            let lines: Vec<&str> = written.lines().collect();
            if out == "out.csv" {
                assert_eq!(lines[0], "number,note,input.label,label,confidence");
                assert!(lines[1].starts_with("7,\" a, b \",cold,"), "{input}: {written}");
                assert!(lines[2].starts_with("8,,warm,"), "{input}: {written}");
            } else {
                let object: Value = serde_json::from_str(lines[0]).unwrap();
                assert_eq!(object["number"], "7", "{input}");
                assert_eq!(object["note"], " a, b ", "{input}");
                assert_eq!(object["input.label"], "cold", "{input}");
            }
        }
    }
    let again = ["--keep-columns", "note,input.label", "--out", "again.csv"];
    workshop.json(&predict("in.parquet", &again));
    let written = fs::read_to_string(workshop.path("again.csv")).unwrap();
    assert!(
        written.starts_with("note,input.label,label,confidence\n\" a, b \",cold,"),
        "{written}"
    );
    workshop.json(&predict("in.csv", &["--keep-columns", "*", "--out", "every.csv"]));
    let written = fs::read_to_string(workshop.path("every.csv")).unwrap();
    assert!(written.starts_with("number,text,input.label,note,label,confidence\n"), "{written}");

    let ran = workshop.run(&predict("in.csv", &["--keep-columns", "colour", "--out", "x.csv"]));
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    let told = ran.stderr.contains("`colour` for `--keep-columns`") && ran.stderr.contains("note");
    assert!(told, "{}", ran.stderr);
    workshop.write("in.txt", "the cold snow\n");
    let lines = ["--format", "lines", "--keep-columns", "note", "--out", "x.csv"];
    let ran = workshop.run(&predict("in.txt", &lines));
    assert!(ran.has_failed() && ran.stderr.contains("a format with columns"), "{}", ran.stderr);
}

#[test]
fn a_stream_from_stdin_gives_the_same_file_as_a_file() {
    let workshop = with_new_texts(2_500);
    workshop.json(&predict("new.csv", &["--batch", "64", "--out", "file.parquet"]));
    let streamed = ["--format", "csv", "--batch", "64", "--out", "stream.parquet", "--json"];
    let mut command = workshop.command(&predict("-", &streamed));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let rows = fs::read(workshop.path("new.csv")).unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&rows).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = |name: &str| fs::read(workshop.path(name)).unwrap();
    assert!(bytes("file.parquet") == bytes("stream.parquet"));
}

#[test]
fn an_error_ends_the_call_although_its_input_stays_open() {
    let workshop = with_new_texts(1);
    // That there is no such folder shows when the first records are predicted.
    let call = predict("-", &["--format", "csv", "--out", "missing/out.csv"]);
    let mut command = workshop.command(&call);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let rows = csv(&texts(3_000), 0);
    let writer = std::thread::spawn(move || {
        // Not all of them may be read.
        let _ = input.write_all(rows.as_bytes());
        input
    });
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("still waiting for records that nobody needs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    drop(writer.join().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("out.csv"), "{said}");
}

#[test]
fn a_folder_without_a_part_is_begun_again() {
    let workshop = with_new_texts(30);
    // What a call leaves that was killed before its first part: its description, which it may not have written yet.
    for description in
        ["", "{ \"complete\": false, \"of\": { \"input\":", "{\"complete\":false,\"of\":{}}"]
    {
        let _ = fs::remove_dir_all(workshop.path("parts"));
        fs::create_dir(workshop.path("parts")).unwrap();
        workshop.write("parts/_parts.json", description);
        workshop.write("parts/.frostbert-left.tmp", "half a part");
        let report = workshop.json(&predict("new.csv", &["--out", "parts/"]));
        assert_eq!((&report["rows"], &report["resumed"]), (&json!(30), &json!(0)), "{report}");
        assert_eq!(names(&workshop, "parts"), ["_parts.json", "part-00000.parquet"]);
        let ran = workshop.run(&predict("new.csv", &["--out", "parts/"]));
        assert_eq!(ran.code, Some(2), "it is complete now: {}", ran.stderr);
    }
    // With a part, or with a file of somebody else, nobody knows what the folder is.
    workshop.write("parts/_parts.json", "");
    for other in ["part-00000.parquet", "notes.txt"] {
        let ran = workshop.run(&predict("new.csv", &["--out", "parts/"]));
        assert_eq!(ran.code, Some(2), "{other}: {}", ran.stderr);
        fs::remove_file(workshop.path("parts/part-00000.parquet")).unwrap_or_default();
        workshop.write("parts/notes.txt", "mine");
    }
    assert_eq!(fs::read_to_string(workshop.path("parts/notes.txt")).unwrap(), "mine");
}
