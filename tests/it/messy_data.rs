//! Data as people have it: a file with ten kinds of errors, and the formats in which data comes.

use std::{fs, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    record_batch::RecordBatch,
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use serde_json::{Value, json};

use crate::{
    cases::{conll, sentences, squad},
    support::{TINY_PIPELINE, Workshop, csv, label, read_json, texts},
};

const RUN: [&str; 2] = ["run", "pipeline.toml"];

#[test]
fn of_an_array_in_one_line_only_the_items_that_cannot_be_read_are_left_out() {
    let item = |number: usize| {
        let text = &texts(60)[number];
        format!("{{\"text\": \"{text}\", \"label\": \"{}\"}}", label(number))
    };
    let mut items: Vec<Vec<u8>> = (0..60).map(|number| item(number).into_bytes()).collect();
    // A byte that is not UTF-8, and an item without a label, both on the only line.
    items[0][11] = 0xff;
    items[1] = b"{\"text\": \"no label\"}".to_vec();
    let workshop = workshop("train = { path = \"all.json\" }\nclean = { skip_bad = true }");
    workshop.write("all.json", [b"[", &items.join(&b", "[..])[..], b"]"].concat());
    run_and_replay(&workshop);
    assert_eq!(split(&workshop).iter().sum::<u64>(), 58);
    let bad = fs::read_to_string(workshop.path("runs/tiny/001/bad_rows.csv")).unwrap();
    assert_eq!(bad.lines().count(), 3, "a header and two items: {bad}");
    // The format of the file is stored in the lock.
    let lock = read_json(&workshop.path("runs/tiny/001/lock.json"));
    assert_eq!(lock["pipeline"]["data"]["train"][0]["format"], "json");
}

/// Creates a workshop whose pipeline has these lines in `[data]`.
fn workshop(data: &str) -> Workshop {
    let workshop = Workshop::empty();
    let toml = TINY_PIPELINE.replace("train = { path = \"train.csv\" }", data);
    workshop.write_pipeline(&toml.replace("max_length = 32", "max_length = 32\nstride = 6"));
    workshop
}

/// Returns the numbers of training, validation and test rows of the first run, from its lock.
fn split(workshop: &Workshop) -> [u64; 3] {
    let lock = read_json(&workshop.path("runs/tiny/001/lock.json"));
    ["train", "validation", "test"].map(|part| lock["split"][part].as_u64().unwrap())
}

/// Runs the pipeline and replays the run from its lock.
fn run_and_replay(workshop: &Workshop) -> Value {
    let report = workshop.json(&RUN);
    let ran = workshop.succeed(&["run", "--locked", "runs/tiny/001/lock.json"]);
    assert!(ran.stdout.contains("the same bytes as"), "{}", ran.stdout);
    report
}

/// Returns a csv file with a byte order mark, spaces in its header, semicolons, a column of texts that is not called
/// `text`, 150 missing labels, a label with two spellings, empty texts, repeated rows, and an open quote on line 302.
fn messy() -> String {
    let mut lines = vec!["\u{feff} review ; label ;note".to_owned()];
    for (number, text) in texts(600).iter().enumerate() {
        let label = match (number % 4, label(number)) {
            (1, _) => "",
            (0, "cold") => "Cold",
            (_, label) => label,
        };
        lines.push(format!("{text};{label};"));
    }
    lines.extend((0..3).map(|_| "  ;cold;".to_owned()));
    lines.extend((0..5).map(|number| lines[1 + 4 * number].clone()).collect::<Vec<_>>());
    lines.insert(301, "\"the snow;cold;".to_owned());
    lines.join("\n") + "\n"
}

#[test]
fn a_messy_file_says_what_is_wrong_one_after_the_other_and_then_runs() {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", messy());
    let mut arguments = RUN.map(String::from).to_vec();
    for (message, cure, set) in [
        (
            "train.csv:1: expected a column `text` for `text`, got the columns `review ; label ;note`",
            "set `delimiter = \";\"` of this source",
            "data.train.delimiter=;",
        ),
        (
            "train.csv:302: expected a record whose quotes are closed",
            "data.clean.skip_bad = true",
            "data.clean.skip_bad=true",
        ),
        (
            "train.csv:3: expected a label for each text, got none: 150 of 608 records have no label",
            "data.clean.drop_unlabelled = true",
            "data.clean.drop_unlabelled=true",
        ),
    ] {
        let so_far: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = workshop.run(&so_far);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        let words = ran.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(message) && words.contains(cure), "{words}");
        arguments.extend(["--set".to_owned(), set.to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = workshop.succeed(&arguments);
    for (words, n_times) in [
        ("note: train.csv has no column `text`: texts are read from `review`, the only column", 1),
        ("warning: train.csv: 1 line that cannot be read, left out", 1),
        ("warning: train.csv: 150 of 608 records have no label and were left out", 1),
        ("labels that differ only in spelling are different classes: `Cold`, `cold`", 1),
        ("warning: train: 3 rows without a text, left out", 1),
        ("warning: train: 5 repeated rows, left out before the split", 1),
    ] {
        assert_eq!(ran.stderr.matches(words).count(), n_times, "{words}: {}", ran.stderr);
    }
    let bad_rows = fs::read_to_string(workshop.path("runs/tiny/001/bad_rows.csv")).unwrap();
    assert_eq!(
        bad_rows,
        "file,line,reason\ntrain.csv,302,\"expected a record whose quotes are closed, got an open quote\"\n"
    );
    let checks = read_json(&workshop.path("runs/tiny/001/checks.json"));
    let train = &checks["files"][0];
    assert_eq!((&train["bad_lines"], &train["read"]), (&json!(1), &json!(458)), "{train}");
    assert_eq!((&train["empty"], &train["duplicates"]["count"]), (&json!(3), &json!(5)));
    assert_eq!(split(&workshop).iter().sum::<u64>(), 450);

    // The lock has all settings: a replay guesses nothing, and skips the same lines.
    let lock = read_json(&workshop.path("runs/tiny/001/lock.json"));
    assert_eq!(lock["pipeline"]["data"]["train"][0]["text"], json!("review"));
    let ran = workshop.succeed(&["run", "--locked", "runs/tiny/001/lock.json"]);
    assert!(ran.stdout.contains("the same bytes as"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("texts are read from"), "{}", ran.stderr);

    // Both stages read the same rows, also if they are run separately.
    let extracted = workshop.json(&[&["extract"][..], &arguments[1..]].concat());
    assert_eq!(extracted["computed"], json!(0), "{extracted}");
}

#[test]
fn one_note_says_which_column_is_read_and_two_that_may_be_are_listed() {
    let workshop = workshop("train = { path = \"train.csv\" }");
    let rows = csv(&texts(60), 0).replace("text,label", "said,label");
    workshop.write("train.csv", &rows);
    let ran = workshop.succeed(&["extract", "pipeline.toml"]);
    let note = "note: train.csv has no column `text`: texts are read from `said`";
    assert_eq!(ran.stderr.matches(note).count(), 1, "{}", ran.stderr);
    let lines = rows.lines().map(|line| match line.split_once(',') {
        Some(("said", label)) => format!("said,why,{label}\n"),
        Some((text, label)) => format!("{text},{text},{label}\n"),
        None => line.to_owned(),
    });
    workshop.write("train.csv", lines.collect::<String>());
    let error = workshop.fail(&RUN);
    assert!(error.contains("got the columns `said`, `why`, `label`"), "{error}");
}

#[test]
fn a_column_says_which_part_a_row_is_for() {
    let workshop = workshop("train = { path = \"all.csv\", split_column = \"fold\" }");
    let folds = ["train", "train", "train", "Train", "dev", "test"];
    let rows = csv(&texts(60), 0);
    let rows = rows.lines().enumerate().map(|(line, row)| match line {
        0 => format!("{row},fold\n"),
        // Rows that are assigned to a part are kept, even if they are empty or duplicates.
        55 => "the snow,cold,train\n".to_owned(),
        60 => " ,cold,test\n".to_owned(),
        line => format!("{row},{}\n", folds[(line - 1) % 6]),
    });
    workshop.write("all.csv", rows.collect::<String>());
    run_and_replay(&workshop);
    assert_eq!(split(&workshop), [40, 10, 10]);
    let checks = read_json(&workshop.path("runs/tiny/001/checks.json"));
    let parts: Vec<_> = checks["files"].as_array().unwrap().iter().map(|f| &f["part"]).collect();
    assert_eq!(parts, ["train", "validation", "test"]);
    assert!(checks["split"].is_null(), "nothing is left to be split");

    // If no row is assigned to validation, it is split from train.
    let all = fs::read_to_string(workshop.path("all.csv")).unwrap();
    workshop.write("all.csv", all.replace(",dev", ",train"));
    fs::remove_dir_all(workshop.path("runs")).unwrap();
    workshop.json(&RUN);
    let [train, validation, test] = split(&workshop);
    assert_eq!((train + validation, test), (50, 10));
    assert!(validation > 5);
    workshop.write("all.csv", all.replace(",dev", ",tset"));
    let error = workshop.fail(&RUN);
    assert!(error.contains("all.csv:6: expected train, validation"), "{error}");
}

#[test]
fn lists_of_pairs_by_part_are_read_as_they_are() {
    let workshop = workshop("train = { path = \"data_full.json\" }");
    let texts = texts(60);
    let list = |numbers: std::ops::Range<usize>| -> Vec<Value> {
        numbers.map(|number| json!([texts[number], label(number)])).collect()
    };
    let file = json!({ "oos_train": list(0..3), "val": list(3..13), "train": list(13..50), "test": list(50..60) });
    workshop.write("data_full.json", file.to_string());
    run_and_replay(&workshop);
    assert_eq!(split(&workshop), [40, 10, 10]);
}

#[test]
fn test_items_of_one_file_that_are_left_out_are_a_loss_that_is_said() {
    let workshop = workshop("train = { path = \"all.json\" }\nclean = { skip_bad = true }");
    let texts = texts(60);
    let list = |numbers: std::ops::Range<usize>| -> Vec<Value> {
        numbers.map(|number| json!([texts[number], label(number)])).collect()
    };
    let bad = json!([1, 2, 3]);
    let test = [list(50..60), vec![bad.clone(), bad.clone()]].concat();
    let validation = [list(40..50), vec![bad]].concat();
    let file = json!({ "train": list(0..40), "val": validation, "test": test });
    workshop.write("all.json", file.to_string());
    let ran = workshop.succeed(&RUN);
    assert!(ran.stderr.contains("2 given test rows are left out"), "{}", ran.stderr);
    assert_eq!(split(&workshop), [40, 10, 10]);
    let checks = read_json(&workshop.path("runs/tiny/001/checks.json"));
    let bad: Vec<_> = checks["files"].as_array().unwrap().iter().map(|f| &f["bad_lines"]).collect();
    assert_eq!(bad, [&Value::Null, &json!(1), &json!(2)]);
}

#[test]
fn lists_of_labels_in_json_are_several_labels() {
    let data = "task = \"multilabel\"\ntrain = { path = \"a.json\" }";
    let workshop = workshop(data);
    let rows = texts(60).into_iter().enumerate().map(|(number, text)| {
        let labels: Vec<&str> = [label(number), label(number / 3)][..number % 3].to_vec();
        if number % 2 == 0 {
            json!([text, labels])
        } else {
            json!({ "text": text, "label": labels })
        }
    });
    workshop.write("a.json", Value::Array(rows.collect()).to_string());
    run_and_replay(&workshop);
    let lock = read_json(&workshop.path("runs/tiny/001/lock.json"));
    assert_eq!(lock["labels"].as_array().map(Vec::len), Some(3), "{}", lock["labels"]);
}

#[test]
fn a_folder_for_each_label_is_hashed_as_a_whole() {
    let workshop = workshop("train = { path = \"reviews\" }");
    for (number, text) in texts(60).iter().enumerate() {
        let folder = workshop.path("reviews").join(label(number));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number}.txt")), format!("{text}\n")).unwrap();
    }
    let report = run_and_replay(&workshop);
    assert_eq!(report["extract"]["documents"], json!(60));
    let ran = workshop.succeed(&["predict", "runs/tiny", "reviews", "--json"]);
    assert_eq!(ran.stdout.lines().count(), 60);
    // With one more text, the data are no longer the same.
    workshop.write("reviews/cold/61.txt", "the snow");
    let ran = workshop.run(&["run", "--locked", "runs/tiny/001/lock.json"]);
    assert!(ran.has_failed() && ran.stderr.contains("reviews: expected"), "{}", ran.stderr);
}

#[test]
fn labels_in_a_file_beside_the_texts_are_read_and_hashed() {
    let workshop = workshop("train = { path = \"texts.txt\", label_path = \"labels.txt\" }");
    let labels: Vec<&str> = (0..60).map(label).collect();
    workshop.write("texts.txt", texts(60).join("\n") + "\n");
    workshop.write("labels.txt", labels.join("\n") + "\n");
    run_and_replay(&workshop);
    workshop.write("labels.txt", labels.join("\n").replacen("cold", "warm", 1) + "\n");
    let ran = workshop.run(&["run", "--locked", "runs/tiny/001/lock.json"]);
    assert!(ran.has_failed() && ran.stderr.contains("labels.txt: expected"), "{}", ran.stderr);
    workshop.write("labels.txt", labels[1..].join("\n") + "\n");
    let error = workshop.fail(&RUN);
    assert!(error.contains("labels.txt:60: expected a label for line 60 of texts.txt"), "{error}");
}

/// Converts a SQuAD file to csv, with the start of each answer shifted by this many characters.
fn table(squad: &str, shift: u64) -> String {
    let file: Value = serde_json::from_str(squad).unwrap();
    let mut rows = "id,question,context,answer,answer_start\n".to_owned();
    for paragraph in file["data"][0]["paragraphs"].as_array().unwrap() {
        let context = paragraph["context"].as_str().unwrap();
        for question in paragraph["qas"].as_array().unwrap() {
            let text = |key: &str| question[key].as_str().unwrap();
            let answer = &question["answers"][0];
            let start = answer["answer_start"].as_u64().map(|start| (start + shift).to_string());
            rows.push_str(&format!(
                "{},{},{context},{},{}\n",
                text("id"),
                text("question"),
                answer["text"].as_str().unwrap_or_default(),
                start.unwrap_or_default()
            ));
        }
    }
    rows
}

#[test]
fn questions_in_a_table_are_those_of_a_squad_file_and_answers_are_moved_to_where_they_stand() {
    let source = |path: &str| format!("task = \"qa\"\ntrain = {{ path = \"{path}\" }}");
    let metrics = |workshop: &Workshop, arguments: &[&str]| {
        workshop.json(&[&RUN[..], arguments].concat());
        read_json(&workshop.path("runs/tiny/001/metrics.json"))
    };
    let squad = squad(30, 1, true);
    let of_squad = workshop(&source("train.json"));
    of_squad.write("train.json", &squad);
    let expected = metrics(&of_squad, &[]);
    let of_table = workshop(&source("train.csv"));
    of_table.write("train.csv", table(&squad, 0));
    assert_eq!(metrics(&of_table, &[]), expected);
    let ran = of_table.succeed(&["predict", "runs/tiny", "train.csv", "--json"]);
    assert_eq!(ran.stdout.lines().count(), 60);

    let shifted = workshop(&source("train.csv"));
    shifted.write("train.csv", table(&squad, 2));
    let nearest = ["--set", "data.misplaced=nearest"];
    assert_eq!(metrics(&shifted, &nearest), expected);
    let ran = shifted.succeed(&[&RUN[..], &nearest].concat());
    assert!(ran.stderr.contains("40 answers are not where `answer_start` says"), "{}", ran.stderr);
    assert!(ran.stderr.contains("moved to the nearest place where they are"), "{}", ran.stderr);
    let ran = shifted.succeed(&["run", "--locked", "runs/tiny/001/lock.json"]);
    assert!(ran.stdout.contains("the same bytes as"), "{}", ran.stdout);
    // Without the key `misplaced`, there is nothing to train on, and the error names the key.
    let ran = shifted.run(&RUN);
    assert!(ran.stderr.contains("data.misplaced = \"nearest\" moves"), "{}", ran.stderr);
}

#[test]
fn given_test_rows_that_are_left_out_are_a_loss_that_is_said() {
    let workshop = Workshop::with_test_file();
    let test = fs::read_to_string(workshop.path("test.csv")).unwrap();
    let test = test.replacen(",cold\n", ",\n", 2);
    workshop.write("test.csv", test + "one,two,three\n");
    let set = ["--set", "data.clean={skip_bad=true,drop_unlabelled=true}"];
    let ran = workshop.succeed(&[&RUN[..], &set].concat());
    assert!(ran.stderr.contains("3 given test rows are left out"), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be compared with published ones"), "{}", ran.stderr);
}

#[test]
fn json_objects_that_lack_their_labels_are_unlabelled_like_empty_cells() {
    let workshop = workshop("train = { path = \"a.jsonl\" }");
    let rows = texts(60).into_iter().enumerate().map(|(number, text)| match number {
        0 | 1 => json!({ "text": text }),
        2 => json!({ "text": text, "label": null }),
        _ => json!({ "text": text, "label": label(number) }),
    });
    let lines: String = rows.map(|row| format!("{row}\n")).collect();
    workshop.write("a.jsonl", lines);
    let error = workshop.fail(&RUN);
    assert!(error.contains("a.jsonl:1: expected the key `label` for `label`"), "{error}");
    let ran = workshop.succeed(&[&RUN[..], &["--set", "data.clean.drop_unlabelled=true"]].concat());
    let warning = "a.jsonl: 3 of 60 records have no label and were left out";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert_eq!(split(&workshop).iter().sum::<u64>(), 57);
}

#[test]
fn rows_whose_split_or_answer_cannot_be_read_are_left_out() {
    let source = "{ path = \"train.csv\", split_column = \"fold\" }";
    let workshop = workshop(&format!("task = \"qa\"\ntrain = {source}"));
    let rows = table(&squad(30, 1, false), 0);
    let rows = rows.lines().enumerate().map(|(line, row)| {
        let fold = ["test", "train", "train", "dev"][line % 4];
        match (line, row.rsplit_once(',')) {
            (0, _) => format!("{row},fold\n"),
            (1, _) => format!("{row},tset\n"),
            (4, Some((row, _))) => format!("{row},soon,{fold}\n"),
            _ => format!("{row},{fold}\n"),
        }
    });
    workshop.write("train.csv", rows.collect::<String>());
    let error = workshop.fail(&RUN);
    assert!(error.contains("train.csv:2: expected train, validation"), "{error}");
    assert!(error.contains("data.clean.skip_bad = true"), "{error}");
    let ran = workshop.succeed(&[&RUN[..], &["--set", "data.clean.skip_bad=true"]].concat());
    assert_eq!(split(&workshop), [29, 15, 14]);
    assert!(ran.stderr.contains("1 given test row is left out"), "{}", ran.stderr);
    assert_eq!(bad_rows(&workshop), ["train.csv,2", "train.csv,5"]);
}

/// File and line of what bad_rows.csv of the first run lists.
fn bad_rows(workshop: &Workshop) -> Vec<String> {
    let rows = fs::read_to_string(workshop.path("runs/tiny/001/bad_rows.csv")).unwrap();
    let place = |row: &str| row.splitn(3, ',').take(2).collect::<Vec<_>>().join(",");
    rows.lines().skip(1).map(place).collect()
}

#[test]
fn a_malformed_line_of_words_costs_its_sentence() {
    let workshop = workshop("task = \"tokens\"\ntrain = { path = \"train.conll\" }");
    let good = conll(&sentences(60, 1));
    // The first word has no tag, and the last is no text.
    let lines = [good.replacen('\t', "", 1).as_bytes(), b"caf\xE9\tO\n"].concat();
    workshop.write("train.conll", lines);
    let error = workshop.fail(&RUN);
    assert!(error.contains("train.conll:1: expected at least 2 columns"), "{error}");
    assert!(error.contains("such sentences out with data.clean.skip_bad = true"), "{error}");
    let ran = workshop.succeed(&[&RUN[..], &["--set", "data.clean.skip_bad=true"]].concat());
    let warning = "train.conll: 2 sentences that cannot be read, left out";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert_eq!(split(&workshop).iter().sum::<u64>(), 59);
    let last = format!("train.conll,{}", good.lines().count() + 1);
    assert_eq!(bad_rows(&workshop), ["train.conll,1", last.as_str()]);
}

#[test]
fn a_malformed_question_costs_itself_alone() {
    let workshop = workshop("task = \"qa\"\ntrain = { path = \"train.json\" }");
    let mut file: Value = serde_json::from_str(&squad(30, 1, true)).unwrap();
    let paragraphs = &mut file["data"][0]["paragraphs"];
    paragraphs[0]["qas"][0]["question"] = json!(7);
    paragraphs[0]["qas"][1]["answers"] = json!([{ "text": "frost" }]);
    paragraphs[1]["context"] = Value::Null;
    workshop.write("train.json", file.to_string());
    let error = workshop.fail(&RUN);
    assert!(error.contains("for question 1 of paragraph 1 of article 1 `cold`"), "{error}");
    assert!(error.contains("such questions out with data.clean.skip_bad = true"), "{error}");
    let ran = workshop.succeed(&[&RUN[..], &["--set", "data.clean.skip_bad=true"]].concat());
    let warning = "train.json: 4 questions that cannot be read, left out";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert_eq!(split(&workshop).iter().sum::<u64>(), 56);
    assert_eq!(bad_rows(&workshop), ["train.json,"; 4]);
    // What is no JSON as a whole stays an error.
    let half: String = file.to_string().chars().take(2000).collect();
    workshop.write("train.json", half);
    let ran = workshop.run(&[&RUN[..], &["--set", "data.clean.skip_bad=true"]].concat());
    assert!(
        ran.has_failed() && ran.stderr.contains("train.json:1: expected one JSON"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_text_of_a_folder_that_is_no_text_costs_itself() {
    let workshop = workshop("train = { path = \"reviews\" }\nclean = { skip_bad = true }");
    for (number, text) in texts(60).iter().enumerate() {
        let folder = workshop.path("reviews").join(label(number));
        fs::create_dir_all(&folder).unwrap();
        let text: &[u8] = if number == 7 { b"caf\xE9" } else { text.as_bytes() };
        fs::write(folder.join(format!("{number}.txt")), text).unwrap();
    }
    run_and_replay(&workshop);
    assert_eq!(split(&workshop).iter().sum::<u64>(), 59);
    assert_eq!(bad_rows(&workshop), ["reviews/warm/7.txt,1"]);
}

#[test]
fn a_row_of_a_gzipped_parquet_file_that_lacks_what_is_needed_costs_itself() {
    let workshop = workshop("task = \"qa\"\ntrain = { path = \"train.parquet\" }");
    let table = table(&squad(30, 1, false), 0);
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|row| row.split(',').collect()).collect();
    let strings = |column: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row[column])))
    };
    // The third row does not say where its answer starts.
    let starts = rows.iter().enumerate();
    let starts = starts.map(|(place, row)| row[4].parse::<i64>().ok().filter(|_| place != 2));
    let starts: ArrayRef = Arc::new(starts.collect::<Int64Array>());
    let columns = [
        ("question", strings(1)),
        ("context", strings(2)),
        ("answer", strings(3)),
        ("answer_start", starts),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties =
        WriterProperties::builder().set_compression(Compression::GZIP(Default::default())).build();
    let file = fs::File::create(workshop.path("train.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let error = workshop.fail(&RUN);
    assert!(error.contains("train.parquet:3: expected the number of characters"), "{error}");
    let ran = workshop.succeed(&[&RUN[..], &["--set", "data.clean.skip_bad=true"]].concat());
    let warning = "train.parquet: 1 row that cannot be read, left out (a run lists them in \
                   bad_rows.csv); the first is row 3: expected the number of characters";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert_eq!(split(&workshop).iter().sum::<u64>(), 59);
    assert_eq!(bad_rows(&workshop), ["train.parquet,3"]);
}
