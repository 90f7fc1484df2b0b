//! Reads the Parquet files of a cache and of a run with the `parquet` crate, to see what other tools will find in them.

use std::{collections::HashMap, fs::File, path::Path};

use frostbert::cache::{
    fingerprint::{Key, Mode},
    states::{Dtype, Pooling},
};
use parquet::{
    basic::{Compression, ConvertedType, Encoding, Repetition, Type as PhysicalType},
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use serde_json::{Value, json};

use crate::support::{TINY_PIPELINE, TINY_ROWS, Workshop, fixture, read_json};

const HIDDEN: usize = 32;

fn open(path: &Path) -> SerializedFileReader<File> {
    SerializedFileReader::new(File::open(path).unwrap()).unwrap()
}

/// Returns the name, physical type, converted type and length of each column, all of which must be REQUIRED.
fn shape(reader: &SerializedFileReader<File>) -> Vec<(String, PhysicalType, ConvertedType, i32)> {
    let schema = reader.metadata().file_metadata().schema_descr();
    schema
        .columns()
        .iter()
        .map(|column| {
            assert_eq!(
                column.self_type().get_basic_info().repetition(),
                Repetition::REQUIRED,
                "{}",
                column.name()
            );
            assert_eq!(
                (column.max_def_level(), column.max_rep_level()),
                (0, 0),
                "{}",
                column.name()
            );
            (
                column.name().to_string(),
                column.physical_type(),
                column.converted_type(),
                column.type_length(),
            )
        })
        .collect()
}

/// Extracts the tiny data, storing three states of two layers in this type.
fn extracted(dtype: &str) -> Workshop {
    let workshop = Workshop::tiny();
    let store = "cache.store=[\"max\", \"cls\", \"mean\"]";
    let dtype = format!("cache.dtype={dtype}");
    workshop.json(&[
        "extract",
        "pipeline.toml",
        "--set",
        store,
        "--set",
        "cache.layers=[0, -1]",
        "--set",
        &dtype,
    ]);
    workshop
}

#[test]
fn a_state_is_one_plain_column_of_bytes_that_says_what_it_is() {
    for (dtype, value_bytes) in [("f16", 2), ("f32", 4)] {
        let workshop = extracted(dtype);
        let manifest = workshop.manifest();
        let shard = workshop.cache().join("shard-000000");
        for pooling in ["cls", "mean", "max"] {
            for layer in [0, 2] {
                let reader = open(&shard.join(format!("{pooling}-L0{layer}.parquet")));
                let length = (HIDDEN * value_bytes) as i32;
                let expected = (
                    "state".into(),
                    PhysicalType::FIXED_LEN_BYTE_ARRAY,
                    ConvertedType::NONE,
                    length,
                );
                assert_eq!(shape(&reader), [expected]);

                let file = reader.metadata().file_metadata();
                assert_eq!(file.version(), 1);
                let pairs = file.key_value_metadata().unwrap().iter();
                let pairs: HashMap<&str, &str> =
                    pairs.map(|pair| (pair.key.as_str(), pair.value.as_deref().unwrap())).collect();
                assert_eq!(
                    pairs["frostbert.fingerprint"],
                    manifest["fingerprint"].as_str().unwrap()
                );
                assert_eq!(pairs["frostbert.dtype"], dtype);
                assert_eq!(pairs["frostbert.hidden"], HIDDEN.to_string());
                assert_eq!(pairs["frostbert.pooling"], pooling);
                assert_eq!(pairs["frostbert.layer"], layer.to_string());

                for group in reader.metadata().row_groups() {
                    let column = group.column(0);
                    assert_eq!(column.compression(), Compression::UNCOMPRESSED);
                    assert!(column.encodings().any(|encoding| encoding == Encoding::PLAIN));
                    assert!(column.dictionary_page_offset().is_none(), "a dictionary");
                    assert!(column.statistics().is_none(), "statistics");
                    assert!(column.offset_index_offset().is_some(), "no offset index");
                }
            }
        }
    }
}

#[test]
fn documents_have_the_columns_of_the_format() {
    let workshop = extracted("f16");
    let reader = open(&workshop.cache().join("shard-000000/docs.parquet"));
    let column =
        |name: &str, physical, converted, length| (name.to_string(), physical, converted, length);
    use ConvertedType::{NONE, UINT_16, UINT_32, UINT_64};
    use PhysicalType::{BOOLEAN, FIXED_LEN_BYTE_ARRAY, INT32, INT64};
    assert_eq!(
        shape(&reader),
        [
            column("key", FIXED_LEN_BYTE_ARRAY, NONE, 32),
            column("window", INT32, UINT_16, -1),
            column("n_windows", INT32, UINT_16, -1),
            column("n_tokens", INT32, UINT_32, -1),
            column("truncated", BOOLEAN, NONE, -1),
            column("token_start", INT64, UINT_64, -1),
        ]
    );
    for column in reader.metadata().row_group(0).columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)), "{}", column.column_path());
    }
}

/// Returns the documents of a shard: the key, the number of tokens, and the first token.
fn documents(shard: &Path) -> Vec<(Key, u32, u64)> {
    let reader = open(&shard.join("docs.parquet"));
    reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let fields: HashMap<String, Field> = row.unwrap().into_columns().into_iter().collect();
            let (Field::Bytes(key), Field::UInt(n_tokens), Field::ULong(start)) =
                (&fields["key"], &fields["n_tokens"], &fields["token_start"])
            else {
                panic!("other types: {fields:?}")
            };
            assert_eq!(
                (&fields["window"], &fields["n_windows"]),
                (&Field::UShort(0), &Field::UShort(1))
            );
            (Key(key.data().try_into().unwrap()), *n_tokens, *start)
        })
        .collect()
}

/// Returns the decoded rows of a state's file.
fn states(path: &Path, dtype: Dtype) -> Vec<Vec<f32>> {
    let reader = open(path);
    reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let columns = row.unwrap().into_columns();
            let [(_, Field::Bytes(bytes))] = &columns[..] else {
                panic!("other columns: {columns:?}")
            };
            let mut state = vec![0.0; HIDDEN];
            dtype.decode(bytes.data(), &mut state);
            state
        })
        .collect()
}

#[test]
fn the_manifest_tells_every_files_size_checksum_and_rows() {
    let workshop = extracted("f16");
    let manifest = workshop.manifest();
    let (mut n_documents, mut n_tokens, mut keys) = (0, 0, Vec::new());
    for shard in manifest["shards"].as_array().unwrap() {
        let folder = workshop.cache().join(shard["name"].as_str().unwrap());
        let states = ["cls-L00", "cls-L02", "mean-L00", "mean-L02", "max-L00", "max-L02"];
        assert_eq!(shard["origins"][0]["states"], json!(states));
        let files = shard["files"].as_array().unwrap();
        assert_eq!(files.len(), 7);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 7);
        for file in files {
            let path = folder.join(file["name"].as_str().unwrap());
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(file["bytes"], json!(bytes.len()));
            assert_eq!(file["blake3"], json!(blake3::hash(&bytes).to_hex().as_str()));
            let rows = open(&path).metadata().file_metadata().num_rows();
            assert_eq!(shard["documents"], json!(rows), "{}", path.display());
        }
        let documents = documents(&folder);
        let mut next = 0;
        for (key, tokens, start) in &documents {
            assert_eq!(*start, next);
            next += u64::from(*tokens);
            keys.push(*key);
        }
        assert_eq!(shard["tokens"], json!(next));
        assert!(next <= 400, "a shard of {next} tokens, where shard_tokens is 400");
        n_documents += documents.len();
        n_tokens += next;
    }
    assert_eq!((&manifest["documents"], n_documents), (&json!(TINY_ROWS), TINY_ROWS));
    assert_eq!(manifest["tokens"], json!(n_tokens));
    assert!(keys.is_sorted(), "documents go to shards in key order");
}

#[test]
fn the_cache_holds_what_transformers_computes() {
    let json = read_json(&fixture("tiny_bert/expected.json"));
    let texts = json["texts"].as_array().unwrap().iter();
    let texts: Vec<&Value> =
        texts.filter(|text| text["text_pair"].is_null() && text["text"] != json!("")).collect();
    let workshop = Workshop::empty();
    let lines: Vec<String> =
        texts.iter().map(|text| json!({ "text": text["text"] }).to_string()).collect();
    workshop.write("corpus.jsonl", lines.join("\n"));
    workshop.write_pipeline(&TINY_PIPELINE.replace("train.csv", "corpus.jsonl"));
    let store = "cache.store=[\"cls\", \"mean\", \"max\"]";
    for (dtype, tolerance) in [(Dtype::F32, 1e-4), (Dtype::F16, 2e-3)] {
        let name = format!("cache.dtype={}", dtype.name());
        let dir = format!("cache.dir={}", dtype.name());
        let report = workshop.json(&[
            "extract",
            "pipeline.toml",
            "--set",
            store,
            "--set",
            &name,
            "--set",
            &dir,
        ]);
        let shard = workshop.path(report["cache"].as_str().unwrap()).join("shard-000000");
        let documents = documents(&shard);
        assert_eq!(documents.len(), texts.len());
        for pooling in Pooling::ALL {
            let rows = states(&shard.join(format!("{}-L02.parquet", pooling.name())), dtype);
            for text in &texts {
                let key = Key::of(Mode::Text, &[text["text"].as_str().unwrap()]);
                let row = documents.iter().position(|(known, ..)| *known == key).unwrap();
                let expected = pooled(&text["hidden_states"][2], pooling);
                for (got, expected) in rows[row].iter().zip(expected) {
                    let difference = (f64::from(*got) - expected).abs();
                    assert!(
                        difference <= tolerance,
                        "{} of {}: {difference}",
                        pooling.name(),
                        text["text"]
                    );
                }
            }
        }
    }
}

/// Pools `[token][hidden]` in f64, in the simplest way.
fn pooled(tokens: &Value, pooling: Pooling) -> Vec<f64> {
    let tokens: Vec<Vec<f64>> = serde_json::from_value(tokens.clone()).unwrap();
    (0..HIDDEN)
        .map(|place| {
            let values = tokens.iter().map(|token| token[place]);
            match pooling {
                Pooling::Cls => tokens[0][place],
                Pooling::Mean => values.sum::<f64>() / tokens.len() as f64,
                Pooling::Max => values.fold(f64::NEG_INFINITY, f64::max),
                Pooling::Given(column) => unreachable!("no encoder pools {column}"),
            }
        })
        .collect()
}
