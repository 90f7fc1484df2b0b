//! Input that could silently give a wrong result: it is read correctly, or there is a warning or an error.

use serde_json::{Value, json};

use crate::{
    cases::predictions,
    support::{Workshop, copy_folder, csv, fixture, minilm, read_json, texts},
};

/// Returns a pipeline for the tiny BERT with these keys of `[data]`, followed by `rest`.
fn pipeline(data: &str, rest: &str) -> String {
    format!(
        "[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n[cache]\nmax_length = 48\n[data]\n{data}\n{rest}\n"
    )
}

/// Generates tagged sentences, in documents with these numbers of sentences.
fn documents(sizes: &[usize]) -> String {
    let mut text = String::new();
    for (document, size) in sizes.iter().enumerate() {
        text.push_str("-DOCSTART-\tO\n\n");
        for sentence in 0..*size {
            let digit = sentence % 10;
            text.push_str(&format!(
                "the\tO\nsnow\tX\n{document}\tO\n{digit}\tO\n{}\tO\n\n",
                sentence / 10
            ));
        }
    }
    text
}

#[test]
fn a_document_that_holds_nearly_all_sentences_is_learned_from_and_the_real_shares_are_said() {
    let workshop = Workshop::empty();
    workshop.write_pipeline(&pipeline(
        "task = \"tokens\"\ntrain = { path = \"a.conll\" }",
        "[train]\nepochs = 1",
    ));
    for (sizes, rows, warning) in [
        (
            &[38, 1, 1][..],
            [38, 1, 1],
            "the split is far from data.split: train 38 (95.0 % of sentences instead of 70.0 %), validation 1 (2.5 % \
             of sentences instead of 15.0 %), test 1 (2.5 % of sentences instead of 15.0 %): the 40 sentences of \
             train are of 3 documents, which are never split, and the largest has 38",
        ),
        (
            &[40],
            [40, 0, 0],
            "no sentence for validation and test: the 40 sentences of train are all of one document, and a document \
             is never split: train 40 (100.0 % of sentences instead of 70.0 %), validation 0 (0.0 % of sentences \
             instead of 15.0 %), test 0 (0.0 % of sentences instead of 15.0 %); name files in data.validation and \
             data.test, or give all of data.split to the other parts",
        ),
    ] {
        workshop.write("a.conll", documents(sizes));
        for seed in ["seed=42", "seed=1"] {
            let ran = workshop.succeed(&["run", "pipeline.toml", "--set", seed]);
            assert!(ran.stderr.contains(warning), "{}", ran.stderr);
            let row = ran
                .stdout
                .lines()
                .find(|line| line.trim_start().starts_with("X "))
                .unwrap_or_default();
            let counts: Vec<usize> =
                row.split_whitespace().filter_map(|cell| cell.parse().ok()).collect();
            assert_eq!(counts, rows, "{}", ran.stdout);
        }
    }
    workshop.write("a.conll", documents(&[2; 20]));
    let ran = workshop.succeed(&["run", "pipeline.toml"]);
    assert!(!ran.stderr.contains("data.split"), "{}", ran.stderr);
}

#[test]
fn a_head_that_diverged_never_wins_a_sweep_and_is_counted() {
    let workshop = Workshop::empty();
    let rows = texts(40).into_iter().enumerate();
    let rows: Vec<String> = rows.map(|(n, text)| format!("{text},{}", n % 7)).collect();
    workshop.write("a.csv", format!("text,label\n{}\n", rows.join("\n")));
    workshop.write_pipeline(&pipeline(
        "task = \"regression\"\ntrain = { path = \"a.csv\" }",
        "[head]\nkind = \"mlp\"\nhidden = [64, 64]\nactivation = \"relu\"\n[train]\noptimizer = \"sgd\"\nepochs = 10\n\
         [sweep]\nlr = [0.01, 1.0, 10.0]",
    ));
    for seed in 1..=4 {
        let seed = format!("seed={seed}");
        let report = workshop.json(&["run", "pipeline.toml", "--set", &seed]);
        let report = &report["sweep"];
        assert_eq!(report["best"]["settings"]["lr"], 0.01, "{seed}");
        let rows = report["leaderboard"].as_array().unwrap();
        let diverged: Vec<&Value> = rows.iter().filter(|row| row["diverged"] != 0).collect();
        assert!(
            !diverged.is_empty() && diverged.iter().all(|row| row["score"].is_null()),
            "{seed}: {rows:?}"
        );
        let run = workshop.path(report["run"].as_str().unwrap());
        assert!(run.join("leaderboard.csv").is_file());
    }
    // If all heads diverge, the leaderboard says so, and no run is written.
    let ran = workshop.run(&[
        "run",
        "pipeline.toml",
        "--set",
        "sweep.lr=[1e6, 1e8]",
        "--set",
        "name=all",
    ]);
    assert!(ran.has_failed(), "{}", ran.stderr);
    assert!(ran.stderr.contains("none could be trained to the end"), "{}", ran.stderr);
    let board = std::fs::read_to_string(workshop.path("runs/all/001/leaderboard.csv")).unwrap();
    assert!(board.lines().next().unwrap().contains("n_diverged"), "{board}");
}

/// Generates a SQuAD file with questions whose contexts contain `answer` after a varying number of words.
fn questions(answer: &str, n: usize) -> String {
    let paragraphs = (0..n).map(|number| {
        let words = ["film", "warm", "the", "not", "and", "bad"];
        let before: Vec<&str> =
            (0..2 + number % 4).map(|place| words[(number + place) % 6]).collect();
        let before = before.join(" ");
        let context = format!("{before} {answer} and film very bad frost {number}");
        let start = before.chars().count() + 1;
        json!({ "context": context, "qas": [{
            "id": format!("q{number}"),
            "question": format!("where do we go on day {number}?"),
            "answers": [{ "text": answer, "answer_start": start }],
        }] })
    });
    let paragraphs: Vec<Value> = paragraphs.collect();
    json!({ "version": "v", "data": [{ "title": "t", "paragraphs": paragraphs }] }).to_string()
}

#[test]
fn answers_at_characters_that_the_tokeniser_drops_are_learned_and_given_back_whole() {
    let workshop = Workshop::empty();
    let toml = pipeline(
        "task = \"qa\"\ntrain = { path = \"a.json\" }",
        "[head]\nkind = \"mlp\"\nlayers = [1]\n[train]\nepochs = 12\nlr = 3e-3\nearly_stopping = false",
    );
    let toml = toml.replace("MODEL", &minilm().display().to_string());
    workshop.write("pipeline.toml", toml.replace("max_length = 48", "max_length = 64\nstride = 8"));
    for answer in [
        "मुंबई में",
        "\u{200b}paris",
        "paris \u{2764}\u{fe0f}",
        "caf\u{65}\u{301}",
        "pa\u{ad}ris\u{ad}",
        "paris",
    ] {
        workshop.write("a.json", questions(answer, 60));
        let report = workshop.json(&["run", "pipeline.toml"]);
        let exact = report["train"]["metrics"]["test"]["exact_match"].as_f64().unwrap();
        assert!(exact >= 0.8, "{answer:?}: {exact}");
    }
    // Answers of only characters that the tokenizer drops are counted, and not trained on as anything else.
    workshop.write("a.json", questions("\u{200b}\u{200c}", 60));
    let ran = workshop.run(&["run", "pipeline.toml"]);
    assert!(
        ran.stderr
            .contains("of train, 42 because the tokenizer drops all characters of the answer"),
        "{}",
        ran.stderr
    );
}

#[test]
fn words_and_entities_of_a_text_end_with_the_characters_that_belong_to_them() {
    let workshop = Workshop::empty();
    workshop.write("a.conll", documents(&[8; 5]));
    workshop.write_pipeline(&pipeline(
        "task = \"tokens\"\ntrain = { path = \"a.conll\" }",
        "[train]\nepochs = 1",
    ));
    workshop.succeed(&["run", "pipeline.toml"]);
    let text = "the sno\u{308}w\u{308} \u{200b}cold\u{fe0f} film";
    let ran = workshop.succeed(&["predict", "runs/pipeline", "--text", text, "--json"]);
    let prediction: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        prediction["words"],
        json!(["the", "sno\u{308}w\u{308}", "\u{200b}cold\u{fe0f}", "film"])
    );
}

#[test]
fn ids_of_labels_are_counted_in_one_way_in_all_files_or_refused() {
    let workshop = Workshop::empty();
    workshop.write("labels.txt", "World\nSports\nBusiness\nSci\n");
    let file = |name: &str, labels: &[&str], first: usize| {
        let rows = texts(first + 40).split_off(first).into_iter().enumerate();
        let rows: Vec<String> =
            rows.map(|(n, text)| format!("{text},{}", labels[n % labels.len()])).collect();
        workshop.write(name, format!("text,label\n{}\n", rows.join("\n")));
    };
    workshop.write_pipeline(&pipeline(
        "labels = \"labels.txt\"\ntrain = { path = \"train.csv\" }\ntest = { path = \"test.csv\" }",
        "[train]\nepochs = 1",
    ));
    let names = ["World", "Sports", "Business", "Sci"];
    file("train.csv", &names, 0);
    file("test.csv", &["1", "2", "3"], 40);
    let error = workshop.fail(&["run", "pipeline.toml"]);
    assert!(error.contains("got ids from 1 to 3, which may be counted either way"), "{error}");
    file("train.csv", &["0", "1", "2", "3"], 0);
    file("test.csv", &["1", "2", "4"], 40);
    let error = workshop.fail(&["run", "pipeline.toml"]);
    assert!(error.contains("got `4` here, and `0` on line 2 of train.csv"), "{error}");

    // Ids are counted from 1, or from 0, in all files, including a later file that does not show which.
    for (name, ids) in [("one", ["1", "2", "3", "4"]), ("zero", ["0", "1", "2", "3"])] {
        file("train.csv", &ids, 0);
        file("test.csv", &ids[1..3], 40);
        let set = format!("name={name}");
        workshop.succeed(&["run", "pipeline.toml", "--set", &set]);
        file("more.csv", &ids[1..3], 80);
        let run = format!("runs/{name}");
        let of_ids = workshop.json(&["evaluate", &run, "--data", "more.csv"]);
        file("more.csv", &names[1..3], 80);
        let of_names = workshop.json(&["evaluate", &run, "--data", "more.csv"]);
        assert_eq!(of_ids["metrics"], of_names["metrics"], "{name}");
    }
}

#[test]
fn a_tokenizer_config_decides_the_case_as_it_does_in_transformers() {
    let workshop = Workshop::empty();
    let model = workshop.copy_model("model");
    let tokens = |config: Option<&str>| {
        let path = model.join("tokenizer_config.json");
        match config {
            Some(config) => std::fs::write(path, config).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
        let found = workshop.json(&["tokenize", "--model", "model", "--text", "The COLD snow"]);
        found["tokens"].clone()
    };
    // The result of transformers 5.24.
    let lower = json!(["[CLS]", "the", "cold", "snow", "[SEP]"]);
    let cased = json!(["[CLS]", "[UNK]", "[UNK]", "snow", "[SEP]"]);
    assert_eq!(tokens(None), lower);
    assert_eq!(tokens(Some("{\"do_lower_case\": true}")), lower);
    assert_eq!(
        tokens(Some("{\"do_lower_case\": false, \"tokenizer_class\": \"BertTokenizer\"}")),
        cased
    );
    assert_eq!(
        tokens(Some(
            "{\"do_lower_case\": false, \"tokenizer_class\": \"PreTrainedTokenizerFast\"}"
        )),
        lower
    );
    // Different tokens need a different cache.
    workshop.write("a.txt", "The COLD snow\n");
    workshop.write(
        "pipeline.toml",
        "[model]\npath = \"model\"\ndevice = \"cpu\"\n[data]\ntrain = { path = \"a.txt\" }\n[cache]\nmax_length = 32\n",
    );
    let fingerprint = |config: &str| {
        tokens(Some(config));
        workshop.json(&["extract", "pipeline.toml"])["fingerprint"].clone()
    };
    assert_ne!(fingerprint("{\"do_lower_case\": true}"), fingerprint("{\"do_lower_case\": false}"));
}

#[test]
fn large_integers_lists_of_labels_and_missing_ones_are_read_as_what_they_are() {
    let workshop = Workshop::empty();
    let rows = texts(40).into_iter().enumerate();
    let of = |n: usize| ["[\"a\", \"b, c\"]", "[\"a\"]", "[]"][n % 3];
    let rows: Vec<String> = rows
        .map(|(n, text)| format!("{{\"id\": 1234567890123456789012345678{n:02}, \"text\": \"{text}\", \"label\": {}}}", of(n)))
        .collect();
    workshop.write("a.jsonl", rows.join("\n"));
    workshop.write_pipeline(&pipeline(
        "task = \"multilabel\"\ntrain = { path = \"a.jsonl\", id = \"id\" }",
        "[train]\nepochs = 1",
    ));
    workshop.succeed(&["run", "pipeline.toml"]);
    let head = read_json(&workshop.path("runs/pipeline/001/head.json"));
    assert_eq!(head["labels"], json!(["a", "b, c"]));
    let rows = predictions(&workshop, "runs/pipeline/001");
    let ids = rows.iter().map(|row| row["id"].as_str().unwrap());
    let is_whole = |id: &str| id.len() == 30 && id.starts_with("1234567890123456789012345678");
    assert!(rows.len() > 3 && ids.clone().all(is_whole), "{:?}", ids.collect::<Vec<_>>());

    // A list is not a single label, and NaN is not a label.
    let error = workshop.fail(&["run", "pipeline.toml", "--set", "data.task=classification"]);
    assert!(error.contains("expected one label, got a list of 2 labels"), "{error}");
    let labels = ["a", "b", "NaN"];
    let rows: Vec<String> =
        texts(30).iter().enumerate().map(|(n, text)| format!("{text},{}", labels[n % 3])).collect();
    workshop.write("nan.csv", format!("text,label\n{}\n", rows.join("\n")));
    let error = workshop.fail(&[
        "run",
        "pipeline.toml",
        "--set",
        "data.task=classification",
        "--set",
        "data.train={path=\"nan.csv\"}",
    ]);
    assert!(
        error.contains(
            "nan.csv:4: expected a label for each text, got none: 10 of 30 records have no label"
        ),
        "{error}"
    );
    // Lists in the format of pandas.
    let cell = |n: usize| ["\"['a', 'b']\"", "['b']", "[]"][n % 3];
    let rows: Vec<String> =
        texts(30).iter().enumerate().map(|(n, text)| format!("{text},{}", cell(n))).collect();
    workshop.write("lists.csv", format!("text,label\n{}\n", rows.join("\n")));
    workshop.succeed(&[
        "run",
        "pipeline.toml",
        "--set",
        "data.train={path=\"lists.csv\"}",
        "--set",
        "name=lists",
    ]);
    let head = read_json(&workshop.path("runs/lists/001/head.json"));
    assert_eq!(head["labels"], json!(["a", "b"]));
}

#[test]
fn a_file_is_read_as_the_train_source_where_their_names_end_alike_and_as_format_says() {
    let workshop = Workshop::empty();
    let tsv = |first: usize, n: usize| csv(&texts(first + n)[first..], first).replace(',', "\t");
    workshop.write("train.txt", tsv(0, 60));
    workshop.write("new.txt", tsv(60, 9));
    workshop.write("more.csv", csv(&texts(80)[70..], 70));
    workshop.write_pipeline(&pipeline(
        "train = { path = \"train.txt\", format = \"tsv\" }",
        "[train]\nepochs = 1",
    ));
    workshop.succeed(&["run", "pipeline.toml"]);
    let lines = |arguments: &[&str]| {
        let ran = workshop.succeed(&[&["predict", "runs/pipeline", "--json"], arguments].concat());
        let texts = ran.stdout.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["text"].as_str().unwrap().to_string()
        });
        texts.collect::<Vec<_>>()
    };
    assert_eq!(lines(&["new.txt"]), texts(69)[60..]);
    assert_eq!(lines(&["more.csv"]), texts(80)[70..], "another ending tells its own format");
    assert_eq!(lines(&["new.txt", "--format", "lines"])[0], "text\tlabel");
    let metrics = workshop.json(&["evaluate", "runs/pipeline", "--data", "new.txt"]);
    assert!(metrics["metrics"]["accuracy"].is_number(), "{metrics}");
    workshop.write("more.dat", csv(&texts(80)[70..], 70));
    workshop.json(&["evaluate", "runs/pipeline", "--data", "more.dat", "--format", "csv"]);
    // For a file in another format, the error says how it was read.
    workshop.write("plain.txt", "the snow\nis cold\n");
    let error = workshop.fail(&["predict", "runs/pipeline", "plain.txt"]);
    assert!(
        error.contains(
            "the file is read as tsv, like the run's train source: --format lines changes that"
        ),
        "{error}"
    );
    let ran = workshop.run(&["predict", "runs/pipeline", "plain.txt", "--format", "text"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
}

#[test]
fn rows_in_two_parts_and_rows_that_a_run_knows_are_counted_as_rows_and_as_texts() {
    let workshop = Workshop::empty();
    let all = texts(100);
    workshop.write("train.csv", csv(&all[..60], 0));
    workshop.write("validation.csv", csv(&all[60..80], 60));
    // Five test rows, with four different texts, are also in validation, and one is in train.
    let own = csv(&all[80..], 80);
    let shared: String =
        [60, 61, 62, 63, 63, 0].iter().map(|n| format!("{},plain\n", all[*n])).collect();
    workshop.write("test.csv", own + &shared);
    workshop.write_pipeline(&pipeline(
        "train = { path = \"train.csv\" }\nvalidation = { path = \"validation.csv\" }\ntest = { path = \"test.csv\" }",
        "[train]\nepochs = 1",
    ));
    let ran = workshop.succeed(&["run", "pipeline.toml"]);
    for warning in [
        "warning: 5 test rows (4 texts) also occur in validation\n",
        "warning: 1 test row (1 text) also occurs in train\n",
        "warning: test: 1 repeated row, kept\n",
    ] {
        assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    }
    assert!(
        ran.stdout.contains("5 test rows (4 texts) also occur in validation"),
        "{}",
        ran.stdout
    );

    let ran = workshop.succeed(&["evaluate", "runs/pipeline", "--data", "train.csv"]);
    assert!(
        ran.stderr
            .contains("60 rows of train.csv (60 texts) are among those that the head learned from"),
        "{}",
        ran.stderr
    );
    let ran = workshop.succeed(&["evaluate", "runs/pipeline", "--data", "test.csv"]);
    assert!(
        ran.stderr.contains("1 row of test.csv (1 text) is among those that the head learned from"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(
            "5 rows of test.csv (4 texts) are among those that were used to choose its epoch"
        ),
        "{}",
        ran.stderr
    );
    workshop.write("new.csv", csv(&texts(120)[100..], 100));
    let ran = workshop.succeed(&["evaluate", "runs/pipeline", "--data", "new.csv"]);
    assert!(!ran.stderr.contains("among those"), "{}", ran.stderr);
}

#[test]
fn a_run_of_pairs_knows_a_pair_by_both_of_its_texts() {
    let workshop = Workshop::empty();
    let all = texts(80);
    let pairs = |rows: std::ops::Range<usize>, shift: usize| {
        let rows =
            rows.map(|n| format!("{},{},{}\n", all[n], all[(n + shift) % 80], ["x", "y"][n % 2]));
        std::iter::once("text,other,label\n".to_string()).chain(rows).collect::<String>()
    };
    workshop.write("a.csv", pairs(0..60, 1));
    workshop.write_pipeline(&pipeline(
        "train = { path = \"a.csv\", text_pair = \"other\" }\nsplit = { train = 0.8, validation = 0.2, test = 0.0 }",
        "[train]\nepochs = 1",
    ));
    workshop.succeed(&["run", "pipeline.toml"]);
    workshop.write("same.csv", pairs(0..60, 1));
    workshop.write("other.csv", pairs(0..60, 2));
    let warned =
        |file: &str| workshop.succeed(&["evaluate", "runs/pipeline", "--data", file]).stderr;
    assert!(warned("same.csv").contains("48 rows of same.csv"), "{}", warned("same.csv"));
    assert!(!warned("other.csv").contains("among those"), "{}", warned("other.csv"));
}

#[test]
fn a_model_is_used_as_it_was_when_it_was_hashed() {
    use frostbert::internals::{
        data::document::Document,
        encoder::{checkpoint::Checkpoint, tokenizer::TextTokenizer, windows::Overflow},
    };

    let workshop = Workshop::empty();
    let folder = workshop.path("model");
    copy_folder(&fixture("tiny_bert"), &folder);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let hash = checkpoint.hashes.tokenizer;
    let path = folder.join("tokenizer.json");
    let other = std::fs::read_to_string(&path)
        .unwrap()
        .replace("\"lowercase\":true", "\"lowercase\":false");
    let other = other.replace("\"lowercase\": true", "\"lowercase\": false");
    std::fs::write(&path, other).unwrap();
    let ids = |tokenizer: TextTokenizer| {
        tokenizer.encode(&[Document::Text("The SNOW")], false).unwrap()[0].windows[0].ids.clone()
    };
    let used = ids(TextTokenizer::new(&checkpoint.tokenizer, 32, Overflow::Truncate).unwrap());
    let replaced = Checkpoint::open(&folder).unwrap();
    assert_ne!(replaced.hashes.tokenizer, hash);
    assert_ne!(ids(TextTokenizer::new(&replaced.tokenizer, 32, Overflow::Truncate).unwrap()), used);
}

#[test]
fn a_model_onnx_that_is_replaced_before_it_is_loaded_is_an_error() {
    use frostbert::internals::encoder::{
        checkpoint::Checkpoint,
        device::Precision,
        provider::Provider,
        session::{EncoderSession, SessionOptions},
    };

    let workshop = Workshop::empty();
    let folder = workshop.path("model");
    copy_folder(&fixture("families/odd_onnx"), &folder);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let options = SessionOptions {
        provider: Provider::Cpu,
        precision: Precision::F32,
        layers: vec![1],
        intra_threads: 1,
    };
    let open = || EncoderSession::open(crate::support::runtime(), &checkpoint, &options);
    assert!(open().is_ok());
    let model = folder.join("model.onnx");
    std::fs::copy(&model, folder.join("aside")).unwrap();
    std::fs::rename(folder.join("aside"), &model).unwrap();
    let error = open().err().unwrap();
    assert!(error.to_string().contains("replaced meanwhile"), "{error}");
}

#[test]
fn a_json_array_is_read_by_evaluate_and_predict_as_by_run() {
    let workshop = Workshop::empty();
    let array = |first: usize, n: usize| {
        let all = texts(first + n);
        let rows = (first..first + n)
            .map(|n| json!({ "text": all[n], "label": if n % 2 == 0 { "a" } else { "b" } }));
        Value::from(rows.collect::<Vec<_>>()).to_string()
    };
    workshop.write("train.json", array(0, 60));
    workshop.write("train.csv", csv(&texts(60), 0));
    workshop.write("new.json", array(60, 12));
    workshop.write_pipeline(&pipeline("train = { path = \"train.json\" }", "[train]\nepochs = 1"));
    workshop.succeed(&["run", "pipeline.toml"]);
    let metrics = workshop.json(&["evaluate", "runs/pipeline", "--data", "new.json"]);
    assert!(metrics["metrics"]["accuracy"].is_number(), "{metrics}");
    let set = ["--set", "data.train.path=train.csv", "--set", "name=csv"];
    workshop.succeed(&[&["run", "pipeline.toml"][..], &set].concat());
    for run in ["runs/pipeline", "runs/csv"] {
        let ran = workshop.succeed(&["predict", run, "new.json", "--json"]);
        assert_eq!(ran.stdout.lines().count(), 12, "{run}");
    }
}

#[test]
fn words_of_which_nothing_is_left_are_counted() {
    let workshop = Workshop::empty();
    let sentences = documents(&[8; 5]).replacen("snow\tX", "\u{200b}\tX", 3);
    workshop.write("a.conll", sentences);
    workshop.write_pipeline(&pipeline(
        "task = \"tokens\"\ntrain = { path = \"a.conll\" }",
        "[train]\nepochs = 1",
    ));
    let ran = workshop.succeed(&["run", "pipeline.toml"]);
    assert!(
        ran.stderr.contains("the tokenizer drops all characters of 3 words (U+200B, U+200B, U+200B): nothing is learned from them"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_cosine_is_not_said_to_have_learned_from_rows() {
    let workshop = Workshop::empty();
    let all = texts(40);
    let rows: String = (0..39).map(|n| format!("{},{},{}\n", all[n], all[n + 1], n % 5)).collect();
    workshop.write("a.csv", format!("text,other,label\n{rows}"));
    workshop.write_pipeline(&pipeline(
        "task = \"similarity\"\ntrain = { path = \"a.csv\", text_pair = \"other\" }",
        "[head]\nkind = \"cosine\"",
    ));
    workshop.succeed(&["run", "pipeline.toml"]);
    let ran = workshop.succeed(&["evaluate", "runs/pipeline", "--data", "a.csv"]);
    assert!(!ran.stderr.contains("learned from"), "{}", ran.stderr);
}
