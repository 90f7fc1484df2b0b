//! Training on states that do not fit into `train.memory_mb`, so they are read from disk in every epoch.

use std::fs;

use serde_json::{Value, json};

use crate::{
    cases::{PIPELINE, conll, outputs, sentences, squad},
    support::{Workshop, assert_same_files, contents, csv, read_json, texts},
};

const STREAMED: [&str; 2] = ["--set", "train.memory_mb=1"];

/// The size of a row: three layers of 32 values in f32 for each token or word.
const ROW_BYTES: u64 = 3 * 32 * 4;

/// Creates a workshop with texts whose states take several megabytes, in many shards.
fn workshop(task: &str, file: &str, head: &str) -> Workshop {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(700), 0));
    workshop.write("test.csv", csv(&texts(760)[700..], 700));
    workshop.write("train.conll", conll(&sentences(900, 1)));
    workshop.write("test.conll", conll(&sentences(60, 2)));
    workshop.write("train.json", squad(160, 1, false));
    workshop.write("test.json", squad(20, 2, false));
    workshop.write_pipeline(&format!(
        "name = \"tiny\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n\
         [cache]\nmax_length = 32\nstride = 8\nshard_tokens = 1500\ndtype = \"f32\"\n\
         [data]\ntask = \"{task}\"\ntrain = {{ path = \"train.{file}\" }}\ntest = {{ path = \"test.{file}\" }}\n\
         [head]\nlayers = [0, 1, 2]\n{head}\n[train]\nepochs = 4\nlr = 1e-2\n"
    ));
    workshop
}

fn workshops() -> [(Workshop, &'static str); 3] {
    [
        (workshop("classification", "csv", "pooling = \"attention\""), "csv"),
        (workshop("tokens", "conll", "kind = \"crf\""), "conll"),
        (workshop("qa", "json", "kind = \"mlp\"\nhidden = [16]"), "json"),
    ]
}

fn run(workshop: &Workshop, arguments: &[&str]) -> Value {
    workshop.json(&[&["run", PIPELINE], arguments].concat())
}

#[test]
fn streamed_states_give_the_same_bytes_for_any_number_of_threads_and_are_measured_alike_again() {
    for (workshop, file) in workshops() {
        let first = run(&workshop, &[&STREAMED[..], &["--threads", "1"]].concat());
        let words = match file {
            "conll" => {
                fs::read_to_string(workshop.path("train.conll")).unwrap().matches('\t').count()
                    as u64
            }
            _ => first["extract"]["tokens"].as_u64().unwrap(),
        };
        assert!(words * ROW_BYTES > 5 << 19, "{words} rows are not several times the memory");
        assert!(workshop.manifest()["shards"].as_array().unwrap().len() > 4);
        let expected = outputs(&workshop, &first["train"]["run"]);
        for threads in ["2", "4"] {
            let again = run(&workshop, &[&STREAMED[..], &["--threads", threads]].concat());
            assert_same_files(&expected, &outputs(&workshop, &again["train"]["run"]));
        }
        let test = format!("test.{file}");
        let measured = workshop.json(&["evaluate", "runs/tiny/001", "--data", &test]);
        assert_eq!(measured["metrics"], first["train"]["metrics"]["test"]);
    }
}

#[test]
fn streaming_changes_the_order_of_samples_and_little_else() {
    for (workshop, file) in workshops() {
        let streamed = run(&workshop, &STREAMED);
        let in_memory = run(&workshop, &[]);
        let name = match file {
            "csv" => "macro_f1",
            "json" => "f1",
            _ => "entity_f1_strict",
        };
        let of = |report: &Value| report["train"]["metrics"]["test"][name].as_f64().unwrap();
        let difference = of(&streamed) - of(&in_memory);
        assert!(difference.abs() < 0.1, "{name}: {streamed} {in_memory}");
        let lock =
            |number: &str| read_json(&workshop.path(&format!("runs/tiny/{number}/lock.json")));
        assert_eq!(lock("001")["cache"]["rows"], lock("002")["cache"]["rows"]);

        // A head gives the same results on states in memory and on disk.
        let mut other = lock("002");
        other["pipeline"]["train"]["memory_mb"] = json!(1);
        workshop.write("runs/tiny/002/lock.json", other.to_string());
        let train = format!("train.{file}");
        let on_disk = workshop.json(&["evaluate", "runs/tiny/002", "--data", &train]);
        other["pipeline"]["train"]["memory_mb"] = json!(2048);
        workshop.write("runs/tiny/002/lock.json", other.to_string());
        let in_memory = workshop.json(&["evaluate", "runs/tiny/002", "--data", &train]);
        assert_eq!(on_disk, in_memory);
    }
}

#[test]
fn texts_that_join_the_cache_later_change_no_byte_of_a_streamed_head() {
    for (workshop, file) in workshops() {
        let first = run(&workshop, &STREAMED);
        let n_shards =
            |workshop: &Workshop| workshop.manifest()["shards"].as_array().unwrap().len();
        let before = n_shards(&workshop);
        let more = format!("more.{file}");
        match file {
            "csv" => workshop.write(&more, csv(&texts(1100)[760..], 760)),
            "json" => workshop.write(&more, squad(60, 3, false)),
            _ => workshop.write(&more, conll(&sentences(300, 3))),
        }
        let source = format!("data.train={{ path = \"{more}\" }}");
        workshop.json(&["extract", PIPELINE, "--set", &source]);
        assert!(n_shards(&workshop) > before);
        let again = workshop.json(&[&["train", PIPELINE][..], &STREAMED].concat());
        assert_same_files(
            &outputs(&workshop, &first["train"]["run"]),
            &outputs(&workshop, &again["run"]),
        );
        let folder = workshop.path(again["run"].as_str().unwrap());
        assert!(contents(&folder)["head.safetensors"].len() > 1000);
    }
}

#[test]
fn cosines_of_streamed_pairs_are_those_of_pairs_in_memory() {
    let workshop = Workshop::empty();
    let all = texts(9000);
    // A second text is the first one of a row far below, so pairs do not lie on disk in their order.
    let row = |number: usize| {
        let second = &all[(number * 11 + 3) % all.len()];
        format!("{},{second},{}\n", all[number], number % 7)
    };
    let rows: String = (0..all.len()).map(row).collect();
    workshop.write("train.csv", format!("text,other,score\n{rows}"));
    workshop.write_pipeline(
        "name = \"tiny\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n\
         [cache]\nmax_length = 32\ndtype = \"f32\"\n\
         [data]\ntask = \"similarity\"\n\
         train = { path = \"train.csv\", text_pair = \"other\", label = \"score\" }\n",
    );
    run(&workshop, &STREAMED);
    run(&workshop, &[]);
    for name in ["metrics.json", "predictions.parquet"] {
        let bytes = |run: &str| fs::read(workshop.path("runs/tiny").join(run).join(name)).unwrap();
        assert!(bytes("001") == bytes("002"), "{name}");
    }
}

#[test]
fn heads_of_many_rows_in_memory_are_the_same_bytes_for_any_number_of_threads() {
    for (workshop, file) in workshops() {
        workshop.json(&["extract", PIPELINE]);
        let kinds: &[&[&str]] = match file {
            "csv" => &[
                &["--set", "head.kind=mlp", "--set", "head.hidden=[40, 40]"],
                &["--set", "head.pca=20", "--set", "head.layers=[2]"],
            ],
            "conll" => &[
                &["--set", "head.kind=linear", "--set", "head.layers=[1]"],
                &["--set", "head.kind=mlp"],
            ],
            _ => &[
                &["--set", "head.kind=linear", "--set", "head.hidden=[]"],
                &["--set", "head.kind=matching"],
            ],
        };
        for kind in kinds {
            let heads = ["1", "2", "4"].map(|threads| {
                let arguments = [&["train", PIPELINE, "--threads", threads], *kind].concat();
                outputs(&workshop, &workshop.json(&arguments)["run"])
            });
            assert_same_files(&heads[0], &heads[1]);
            assert_same_files(&heads[0], &heads[2]);
        }
    }
}
