//! `cache export`: compares every value of every format with the rows of the cache, and tests what is refused.

mod quantized;
mod read;

use std::{collections::BTreeMap, fs, path::PathBuf};

use frostbert::cache::{
    fingerprint::{Key, Mode},
    reader::{CacheReader, rows_of},
    states::{Dtype, StateId, StateKind},
};
use read::{Column, Columns, HIDDEN, read};
use safetensors::tensor::Dtype as TensorType;
use serde_json::json;

use crate::support::{
    Ran, TINY_PIPELINE, Workshop, csv, finish, read_json, repository, say, texts,
};

const FORMATS: [&str; 4] = ["npy", "safetensors", "arrow", "parquet-list"];
const STATES: [&str; 4] = ["cls-L00", "mean-L02", "words-L02", "tokens-L02"];

/// Creates a workshop with a cache in this type, with short texts and long ones in windows, small shards, and four
/// states.
fn workshop(dtype: &str) -> Workshop {
    let workshop = Workshop::empty();
    let texts = texts(60);
    // Three texts of 70 to 90 tokens, one of which occurs twice, and a name for each row.
    let long = |first: usize| texts[first..first + 6].join(" ");
    let mut rows: Vec<String> = texts[..40].to_vec();
    rows.extend([long(40), long(46), long(0), long(40), texts[3].clone()]);
    let mut csv = String::from("name,text\n");
    for (number, row) in rows.iter().enumerate() {
        csv.push_str(&format!("r\u{e9}view-{number},{row}\n"));
    }
    workshop.write("corpus.csv", csv);
    workshop.write_pipeline(
        &TINY_PIPELINE
            .replace("shard_tokens = 400", "shard_tokens = 150")
            .replace("\"train.csv\"", "\"corpus.csv\", id = \"name\"")
            .replace(
                "max_length = 32",
                &format!(
                    "max_length = 32\noverflow = \"windows\"\nstride = 8\nlayers = [2]\ndtype = \"{dtype}\""
                ),
            ),
    );
    workshop.json(&[
        "extract",
        "pipeline.toml",
        "--set",
        "cache.store=[\"mean\", \"words\", \"tokens\"]",
    ]);
    // A second extraction adds a state, so that shards have files of two origins.
    workshop.json(&[
        "extract",
        "pipeline.toml",
        "--set",
        "cache.store=[\"cls\"]",
        "--set",
        "cache.layers=[0]",
    ]);
    workshop
}

fn export(workshop: &Workshop, format: &str, more: &[&str]) -> PathBuf {
    let cache = workshop.cache_named().display().to_string();
    let arguments = [&["cache", "export", &cache, "--to", format][..], more].concat();
    let report = workshop.json(&arguments);
    let folder = workshop.path(report["folder"].as_str().unwrap());
    for name in report["files"].as_array().unwrap() {
        assert!(folder.join(name.as_str().unwrap()).is_file(), "{name}");
    }
    let n_files = report["files"].as_array().unwrap().len();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), n_files + 1);
    folder
}

/// Returns the expected columns of an export of these keys, read from the cache row by row.
fn expected(cache: &CacheReader, states: &[StateId], keys: &[Key], as_f32: bool) -> Columns {
    let dtype = cache.manifest().dtype;
    let type_of = match (dtype, as_f32) {
        (Dtype::F16, false) => TensorType::F16,
        _ => TensorType::F32,
    };
    let hex = keys.iter().map(|key| key.to_hex()).collect();
    let mut columns = Columns::from([("documents.key".to_string(), Column::Texts(hex))]);
    let mut numbers: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for state in states {
        let mut vectors = Vec::new();
        for (document, key) in keys.iter().enumerate() {
            let (shard, row) = cache.locate(key, *state).unwrap();
            let layout = cache.read_layout(shard).unwrap();
            let file = cache.open_state(shard, *state).unwrap();
            let range = rows_of(&layout, state.kind, row as usize);
            for row in range.clone() {
                let mut vector = vec![0.0; HIDDEN];
                dtype.decode(file.row(row), &mut vector);
                vectors.push(vector);
            }
            let mut put = |name: &str, value: i64| {
                let name = format!("{}.{name}", state.kind.name());
                numbers.entry(name).or_default().push(value);
            };
            if state.kind == StateKind::Words {
                for word in &layout.words[range] {
                    put("doc", document as i64);
                    put("sequence", word.sequence.into());
                    put("word", word.word.into());
                    put("char_start", word.char_start.into());
                    put("char_end", word.char_end.into());
                    put("window", word.window.into());
                    put("position", word.position.into());
                }
            } else if state.kind == StateKind::Tokens {
                let windows = layout.documents.windows(row as usize);
                for window in windows.clone() {
                    let tokens = layout.documents.window_tokens(window);
                    for token in tokens.clone() {
                        put("doc", document as i64);
                        put("window", (window - windows.start) as i64);
                        put("position", (token - tokens.start) as i64);
                        let token = token as usize;
                        put("token_id", layout.alignment.token_ids[token].into());
                        put("word", layout.alignment.words[token].into());
                        put("char_start", layout.alignment.char_starts[token].into());
                        put("char_end", layout.alignment.char_ends[token].into());
                        put("sequence", layout.alignment.sequences[token].into());
                    }
                }
            }
        }
        columns.insert(state.to_string(), Column::States(type_of, vectors));
    }
    let numbers = numbers.into_iter();
    columns.extend(numbers.map(|(name, values)| (name, Column::Numbers(values))));
    columns
}

/// Compares an export with the expected columns. Tables also have the keys of tokens and words, which arrays do not.
fn assert_columns(mut got: Columns, expected: &Columns, format: &str) {
    let Column::Texts(keys) = &expected["documents.key"] else { panic!("keys are texts") };
    for table in ["tokens", "words"] {
        let key = got.remove(&format!("{table}.key"));
        assert_eq!(key.is_some(), matches!(format, "arrow" | "parquet-list"), "{format} {table}");
        if let Some(key) = key {
            let Column::Numbers(documents) = &expected[&format!("{table}.doc")] else {
                panic!("documents are numbers")
            };
            let own = documents.iter().map(|document| keys[*document as usize].clone());
            assert_eq!(key, Column::Texts(own.collect()), "{format}");
        }
    }
    let names = |columns: &Columns| columns.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(expected), "{format}");
    for (name, column) in expected {
        assert!(got[name] == *column, "{format}: {name} differs: {:?}", got[name]);
    }
}

fn open_cache(workshop: &Workshop) -> CacheReader {
    CacheReader::open(&workshop.cache()).unwrap().unwrap()
}

fn states() -> Vec<StateId> {
    STATES.iter().map(|state| state.parse().unwrap()).collect()
}

/// Returns the keys of all documents, in the order of the cache.
fn cache_order(cache: &CacheReader) -> Vec<Key> {
    let shards = 0..cache.manifest().shards.len() as u32;
    let tables = shards.map(|shard| cache.read_documents(shard).unwrap());
    tables.flat_map(|table| table.keys().to_vec()).collect()
}

#[test]
fn every_format_holds_every_value_of_the_cache_in_its_order() {
    for (dtype, as_f32) in [("f16", false), ("f32", false), ("f16", true)] {
        let workshop = workshop(dtype);
        let cache = open_cache(&workshop);
        assert!(cache.manifest().shards.len() > 3, "too few shards");
        let keys = cache_order(&cache);
        assert_eq!(keys.len(), 43, "distinct documents");
        let expected = expected(&cache, &states(), &keys, as_f32);
        let Column::Numbers(windows) = &expected["tokens.window"] else {
            panic!("windows are numbers")
        };
        assert!(windows.contains(&2), "no text of three windows");
        for format in FORMATS {
            let more: &[&str] = if as_f32 { &["--as", "f32"] } else { &[] };
            let folder = export(&workshop, format, more);
            assert_eq!(
                folder.file_name().unwrap().to_str().unwrap(),
                format!("{}-{format}", cache.manifest().fingerprint)
            );
            assert_columns(read(&folder, format), &expected, format);
        }
    }
}

#[test]
fn with_a_pipeline_rows_line_up_with_its_data_files() {
    let workshop = workshop("f16");
    let cache = open_cache(&workshop);
    let corpus = fs::read_to_string(workshop.path("corpus.csv")).unwrap();
    let records: Vec<(&str, &str)> =
        corpus.lines().skip(1).map(|line| line.split_once(',').unwrap()).collect();
    let keys: Vec<Key> = records.iter().map(|(_, text)| Key::of(Mode::Text, &[text])).collect();
    assert_eq!((keys[40], keys[3]), (keys[43], keys[44]), "two texts stand there twice");
    let states: Vec<StateId> = states().into_iter().filter(|state| state.layer == 2).collect();
    let mut expected = expected(&cache, &states, &keys, false);
    let ids = records.iter().map(|(id, _)| id.to_string()).collect();
    expected.insert("documents.id".into(), Column::Texts(ids));
    let lines = (0..records.len() as i64).map(|row| row + 2).collect();
    expected.insert("documents.line".into(), Column::Numbers(lines));
    for format in FORMATS {
        let folder = export(
            &workshop,
            format,
            &[
                "--pipeline",
                "pipeline.toml",
                "--set",
                "cache.store=[\"mean\", \"words\", \"tokens\"]",
            ],
        );
        // Arrays contain the index of the file, and its name separately; tables contain the name.
        let source = match format {
            "npy" | "safetensors" => Column::Numbers(vec![0; records.len()]),
            _ => Column::Texts(vec!["corpus.csv".into(); records.len()]),
        };
        let mut expected = expected.clone();
        expected.insert("documents.source".into(), source);
        assert_columns(read(&folder, format), &expected, format);
        let description = read_json(&folder.join("export.json"));
        assert_eq!(description["sources"], json!(["corpus.csv"]));
        assert_eq!(description["rows"], json!(records.len()));
    }
}

#[test]
fn the_two_texts_of_a_pair_have_a_row_each() {
    let workshop = Workshop::empty();
    workshop.write("pairs.csv", "a,b\nthe snow,the frost\n,\nthe film,the snow\n");
    let source = "\"pairs.csv\", text = \"a\", text_pair = \"b\"";
    workshop.write_pipeline(&TINY_PIPELINE.replace("\"train.csv\"", source));
    workshop.json(&["extract", "pipeline.toml"]);
    let cache = workshop.cache_named().display().to_string();
    let arguments = ["cache", "export", &cache, "--to", "npy", "--pipeline", "pipeline.toml"];
    let ran = workshop.succeed(&arguments);
    assert!(
        ran.stderr.contains("1 record with nothing but white space has no row"),
        "{}",
        ran.stderr
    );
    let columns = read(&workshop.path(&format!("{cache}-tiny-npy")), "npy");
    assert_eq!(columns["documents.part"], Column::Numbers(vec![0, 1, 0, 1]));
    assert_eq!(columns["documents.line"], Column::Numbers(vec![2, 2, 4, 4]));
    let Column::Texts(keys) = &columns["documents.key"] else { panic!("keys are texts") };
    assert_eq!(keys[0], keys[3]);
}

#[test]
fn a_state_that_not_every_document_has_is_left_out_and_can_be_asked_for() {
    let workshop = Workshop::tiny();
    workshop.json(&["extract", "pipeline.toml"]);
    let few: Vec<String> = texts(10);
    workshop.write("few.csv", csv(&few, 0));
    workshop.json(&[
        "extract",
        "pipeline.toml",
        "--set",
        "data.train.path=few.csv",
        "--set",
        "cache.store=[\"cls\"]",
    ]);
    let cache = workshop.cache_named().display().to_string();
    let ran = workshop.succeed(&["cache", "export", &cache, "--to", "npy"]);
    assert!(ran.stderr.contains("10 of 120 documents have cls-L02"), "{}", ran.stderr);
    let columns = read(&workshop.path(&format!("{cache}-npy")), "npy");
    assert_eq!(columns.keys().collect::<Vec<_>>(), ["documents.key", "mean-L02"]);

    let asked = ["cache", "export", &cache, "--to", "npy", "--state", "cls-L02", "mean-L02"];
    let ran = workshop.succeed(&asked);
    assert!(ran.stderr.contains("110 of 120 documents lack"), "{}", ran.stderr);
    let got = read(&workshop.path(&format!("{cache}-npy")), "npy");
    let reader = open_cache(&workshop);
    let Column::Texts(keys) = &got["documents.key"] else { panic!("keys are texts") };
    assert_eq!(keys.len(), 10);
    let keys: Vec<Key> = keys.iter().map(|key| Key::from_hex(key).unwrap()).collect();
    let states = ["cls-L02", "mean-L02"].map(|state| state.parse().unwrap());
    assert_columns(got, &expected(&reader, &states, &keys, false), "npy");
}

#[test]
fn what_cannot_be_exported_is_refused_and_leaves_nothing() {
    let workshop = Workshop::tiny();
    workshop.json(&["extract", "pipeline.toml"]);
    let cache = workshop.cache_named().display().to_string();
    let npy = ["cache", "export", &cache, "--to", "npy", "--out", "out"];
    let with = |more: &[&str]| workshop.fail(&[&npy, more].concat());
    insta::assert_snapshot!("a_state_that_the_cache_has_not", with(&["--state", "max-L02"]));
    let pipeline = ["--pipeline", "pipeline.toml"];
    insta::assert_snapshot!(
        "a_pipeline_of_another_cache",
        with(&[&pipeline[..], &["--set", "cache.max_length=64"]].concat())
    );
    workshop.write("train.csv", csv(&texts(123), 0));
    insta::assert_snapshot!("records_that_the_cache_lacks", with(&pipeline));
    insta::assert_snapshot!("settings_without_a_pipeline", with(&["--set", "seed=1"]));
    assert!(!workshop.path("out").exists() && !workshop.path("out.partial").exists());

    fs::create_dir(workshop.path("out")).unwrap();
    workshop.write("out/thesis.txt", "mine");
    insta::assert_snapshot!("a_folder_of_something_else", with(&[]));
    fs::remove_file(workshop.path("out/thesis.txt")).unwrap();

    let shard = workshop.cache().join("shard-000000/mean-L02.parquet");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[100] ^= 1;
    fs::write(&shard, bytes).unwrap();
    insta::assert_snapshot!("a_damaged_shard", with(&[]));
    assert_eq!(fs::read_dir(workshop.path("out")).unwrap().count(), 0);
    assert!(!workshop.path("out.partial").exists());
}

/// Returns the Python with numpy, safetensors, pyarrow, polars, duckdb and blake3 that FROSTBERT_PYTHON names, if it is
/// set.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("FROSTBERT_PYTHON").filter(|python| !python.is_empty());
    if python.is_none() {
        say(
            "skipped: FROSTBERT_PYTHON names no Python with numpy, safetensors, pyarrow, polars and duckdb",
        );
    }
    python.map(PathBuf::from)
}

#[test]
fn other_tools_read_the_same_values() {
    let Some(python) = python() else { return };
    for dtype in ["f16", "f32"] {
        let workshop = workshop(dtype);
        let mut folders = vec![workshop.cache()];
        for format in FORMATS {
            folders.push(export(&workshop, format, &[]));
            let records = ["--pipeline", "pipeline.toml", "--as", "f32"];
            folders.push(export(&workshop, format, &records));
        }
        let mut command = std::process::Command::new(&python);
        command.arg(repository().join("scripts/check-export.py")).args(folders);
        let Ran { code, stdout, stderr } = finish(command);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        // Eight comparisons for each of two exports, except that DuckDB does not support f16 in Arrow.
        let n_readings = if dtype == "f16" { 15 } else { 16 };
        let n_equal = stdout.matches(" values equal").count();
        assert_eq!(n_equal, n_readings, "{stdout}");
    }
}
