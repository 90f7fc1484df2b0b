//! Sentence-transformers folders compared with `SentenceTransformer.encode`; the folders and the expected vectors are made
//! by `scripts/fixtures/sentence_folders.py`.

mod info;

use std::{fs, path::PathBuf};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Float32Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Workshop, copy_folder, fixture, read_json};

/// The largest difference of a value.
const MOST: f32 = 1e-5;

const FOLDERS: [&str; 4] = ["cls", "mean_max_dense", "truncated", "old_layout"];

fn folder(name: &str) -> PathBuf {
    fixture("sentence_folders").join(name)
}

fn path_of(name: &str) -> String {
    folder(name).display().to_string()
}

fn expected() -> Value {
    read_json(&folder("expected.json"))
}

/// The vectors of the texts, as sentence-transformers computes them.
fn vectors(name: &str) -> Vec<Vec<f32>> {
    let vectors = expected()["folders"][name]["vectors"].clone();
    serde_json::from_value(vectors).unwrap()
}

/// A workshop with the texts of the fixtures, one per line, and as the rows of a csv file for a pipeline on this model.
fn workshop(name: &str, more: &str) -> Workshop {
    let workshop = Workshop::empty();
    let texts: Vec<String> = serde_json::from_value(expected()["texts"].clone()).unwrap();
    workshop.write("texts.txt", texts.join("\n") + "\n");
    workshop.write(
        "pipeline.toml",
        format!(
            "[model]\npath = {:?}\ndevice = \"cpu\"\n[data]\ntrain = {{ path = \"texts.txt\", format = \"lines\" }}\n\
             [cache]\ndtype = \"f32\"\n{more}",
            folder(name)
        ),
    );
    workshop
}

/// The rows of an `.npy` file of f32.
fn npy(bytes: &[u8]) -> Vec<Vec<f32>> {
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..10 + header_bytes].to_vec()).unwrap();
    assert!(header.contains("'<f4'"), "{header}");
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let width: usize = shape.split(", ").nth(1).unwrap().parse().unwrap();
    let values = bytes[10 + header_bytes..].chunks_exact(4);
    let values: Vec<f32> =
        values.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

fn assert_close(got: &[Vec<f32>], name: &str) {
    let expected = vectors(name);
    assert_eq!(got.len(), expected.len(), "{name}");
    for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_eq!(got.len(), expected.len(), "{name}, text {number}");
        for (got, expected) in got.iter().zip(expected) {
            let difference = (got - expected).abs();
            assert!(difference <= MOST, "{name}, text {number}: {got} and {expected}");
        }
    }
}

#[test]
fn embed_writes_what_sentence_transformers_returns() {
    for name in FOLDERS {
        let workshop = workshop(name, "");
        let arguments = ["embed", "texts.txt", "--model", &path_of(name), "--out", "rows.npy"];
        let report = workshop.json(&arguments);
        assert_close(&npy(&fs::read(workshop.path("rows.npy")).unwrap()), name);
        let dimensions = vectors(name)[0].len();
        assert_eq!(
            (&report["state"], &report["dimensions"], &report["dtype"]),
            (&json!("sentence"), &json!(dimensions), &json!("f32")),
            "{name}"
        );
        let ran = workshop.succeed(&arguments);
        let length = expected()["folders"][name]["max_length"].clone();
        let note = format!("cache.max_length = {length}");
        assert!(ran.stderr.contains(&note), "{name}: {}", ran.stderr);
        assert!(ran.stdout.contains("sentence ("), "{name}: {}", ran.stdout);
    }
}

#[test]
fn embed_uses_what_a_pipeline_has_cached_in_f16_if_it_is_asked_for_f16() {
    let workshop = workshop("truncated", "");
    workshop.json(&["extract", "pipeline.toml", "--set", "cache.dtype=f16"]);
    let model = path_of("truncated");
    for (dtype, computed, reused) in [("f16", 0, 6), ("f32", 6, 0)] {
        let arguments = ["embed", "texts.txt", "--model", &model, "--out", "rows.npy"];
        let more = ["--dtype", dtype, "--set", "model.device=cpu"];
        let report = workshop.json(&[&arguments[..], &more].concat());
        let counts = (&report["computed"], &report["reused"]);
        assert_eq!(counts, (&json!(computed), &json!(reused)), "{dtype}");
    }
}

#[test]
fn a_dense_module_in_pytorch_model_bin_gives_the_vectors_of_its_safetensors_to_the_bit() {
    let workshop = workshop("mean_max_dense", "");
    let embed = |model: &str| {
        workshop.json(&["embed", "texts.txt", "--model", model, "--out", "rows.npy"]);
        fs::read(workshop.path("rows.npy")).unwrap()
    };
    let model = workshop.path("model");
    copy_folder(&folder("mean_max_dense"), &model);
    fs::remove_file(model.join("2_Dense/model.safetensors")).unwrap();
    let weights = model.join("2_Dense/pytorch_model.bin");
    fs::copy(folder("mean_max_dense.bin"), &weights).unwrap();
    let of_torch = embed("model");
    assert_close(&npy(&of_torch), "mean_max_dense");
    assert_eq!(of_torch, embed(&path_of("mean_max_dense")));

    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    let error = workshop.fail(&["embed", "texts.txt", "--model", "model", "--out", "rows.npy"]);
    assert!(error.contains("2_Dense/pytorch_model.bin"), "{error}");
}

#[test]
fn a_text_is_tokenized_wherever_the_encoder_lies_in_the_folder() {
    let workshop = Workshop::empty();
    let tokens = |model: &str| {
        workshop.json(&["tokenize", "--model", model, "--text", "The film is not very good."])
    };
    let of_encoder = tokens(&path_of("old_layout/0_Transformer"));
    assert!(of_encoder["ids"].as_array().unwrap().len() > 2, "{of_encoder}");
    assert_eq!(tokens(&path_of("old_layout")), of_encoder);
}

#[test]
fn the_last_layer_may_be_named_by_its_number() {
    let name = "mean_max_dense";
    let workshop = workshop(name, "");
    let model = path_of(name);
    let arguments = ["embed", "texts.txt", "--model", &model, "--out", "rows.npy", "--layer", "2"];
    assert_eq!(workshop.json(&arguments)["state"], json!("sentence"));
    assert_close(&npy(&fs::read(workshop.path("rows.npy")).unwrap()), name);
    let earlier = ["embed", "texts.txt", "--model", &model, "--out", "rows.npy", "--layer", "1"];
    assert_eq!(workshop.json(&earlier)["state"], json!("mean-L01"));
}

#[test]
fn a_pooling_that_is_named_is_written_as_before() {
    let workshop = workshop("truncated", "");
    let report = workshop.json(&[
        "embed",
        "texts.txt",
        "--model",
        &path_of("truncated"),
        "--out",
        "rows.npy",
        "--pooling",
        "mean",
    ]);
    assert_eq!((&report["state"], &report["dimensions"]), (&json!("mean-L02"), &json!(16)));
    assert_eq!(report.get("sentence"), None);
    let error = workshop.fail(&[
        "embed",
        "texts.txt",
        "--model",
        &path_of("truncated"),
        "--out",
        "rows.npy",
        "--pooling",
        "sentence",
        "--layer",
        "1",
    ]);
    assert!(error.contains("the last layer, of which sentence vectors are made"), "{error}");
    let plain = fixture("tiny_bert").display().to_string();
    let error = workshop.fail(&[
        "embed",
        "texts.txt",
        "--model",
        &plain,
        "--out",
        "rows.npy",
        "--pooling",
        "sentence",
        "--set",
        "cache.max_length=32",
    ]);
    assert!(error.contains("a folder without modules.json"), "{error}");
}

#[test]
fn an_export_has_the_vectors_in_every_format() {
    let name = "mean_max_dense";
    let workshop = workshop(name, "");
    let report = workshop.json(&["extract", "pipeline.toml"]);
    let cache = report["cache"].as_str().unwrap().to_string();
    let export = |format: &str, states: &[&str]| {
        let arguments = ["cache", "export", &cache, "--to", format, "--pipeline", "pipeline.toml"];
        let report = workshop.json(&[&arguments[..], &["--state"], states].concat());
        workshop.path(report["folder"].as_str().unwrap())
    };
    let npy_folder = export("npy", &["sentence"]);
    assert_close(&npy(&fs::read(npy_folder.join("sentence.npy")).unwrap()), name);
    assert!(!npy_folder.join("mean-L02.npy").exists(), "only the vector was asked for");
    let described = read_json(&npy_folder.join("export.json"));
    let derived = json!({ "name": "sentence", "states": ["mean-L02", "max-L02"], "width": 12 });
    assert_eq!(described["derived"], derived);

    let bytes =
        fs::read(export("safetensors", &["sentence"]).join("documents.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("sentence").unwrap();
    let values = tensor.data().chunks_exact(4);
    let values: Vec<f32> =
        values.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_close(&values.chunks(12).map(<[f32]>::to_vec).collect::<Vec<_>>(), name);

    // With another state beside it.
    let file =
        fs::File::open(export("parquet-list", &["sentence", "max-L02"]).join("documents.parquet"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.unwrap()).unwrap().build().unwrap();
    let rows: Vec<Vec<f32>> =
        reader.flat_map(|batch| rows_of(&batch.unwrap(), "sentence")).collect();
    assert_close(&rows, name);
    let file = fs::File::open(export("arrow", &["max-L02", "sentence"]).join("documents.arrow"));
    let reader = arrow::ipc::reader::FileReader::try_new(file.unwrap(), None).unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let rows: Vec<Vec<f32>> = batches.iter().flat_map(|batch| rows_of(batch, "sentence")).collect();
    assert_close(&rows, name);
    assert_eq!(rows_of(&batches[0], "max-L02")[0].len(), 16);
}

/// The rows of a column of lists.
fn rows_of(batch: &RecordBatch, column: &str) -> Vec<Vec<f32>> {
    let column = batch.column_by_name(column).unwrap();
    let of =
        |values: &dyn arrow::array::Array| values.as_primitive::<Float32Type>().values().to_vec();
    match column.as_fixed_size_list_opt() {
        Some(lists) => lists.iter().map(|row| of(&*row.unwrap())).collect(),
        None => column.as_list::<i32>().iter().map(|row| of(&*row.unwrap())).collect(),
    }
}

#[test]
fn an_export_without_a_pipeline_finds_the_folder_and_refuses_another() {
    let workshop = workshop("truncated", "");
    let report = workshop.json(&["extract", "pipeline.toml"]);
    let cache = report["cache"].as_str().unwrap();
    let export = ["cache", "export", cache, "--to", "npy", "--state", "sentence"];
    let report = workshop.json(&export);
    let rows =
        npy(&fs::read(workshop.path(report["folder"].as_str().unwrap()).join("sentence.npy"))
            .unwrap());
    // In the order of the cache, so the vectors are compared as sets.
    let sorted = |mut rows: Vec<Vec<f32>>| {
        rows.sort_by(|one, other| one[0].total_cmp(&other[0]));
        rows
    };
    for (got, expected) in sorted(rows).iter().zip(sorted(vectors("truncated"))) {
        let differences = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
        assert!(differences.fold(0.0, f32::max) <= MOST);
    }
    let other = path_of("cls");
    let error = workshop.fail(&[&export[..], &["--model", &other]].concat());
    assert!(error.contains("the model that made the cache"), "{error}");
    let error = workshop.fail(&["cache", "export", cache, "--to", "npy", "--model", &other]);
    assert!(
        error.contains("--model is needed for --state sentence and multi-vector alone"),
        "{error}"
    );
    let misspelt = |state: &str| {
        let ran = workshop.run(&["cache", "export", cache, "--to", "npy", "--state", state]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        ran.stderr
    };
    let said = misspelt("sentense");
    assert!(said.contains("or `sentence` or `multi-vector`; did you mean sentence?"), "{said}");
    let said = misspelt("median-L06");
    assert!(said.contains("or `sentence`") && !said.contains("did you mean"), "{said}");
}

#[test]
fn an_export_without_a_pipeline_finds_the_case_that_the_cache_was_made_with() {
    let workshop = workshop("truncated", "");
    let cased = ["extract", "pipeline.toml", "--set", "model.lowercase=false"];
    let report = workshop.json(&cased);
    let cache = report["cache"].as_str().unwrap();
    let export = ["cache", "export", cache, "--to", "npy", "--state", "sentence"];
    let report = workshop.json(&export);
    let folder = workshop.path(report["folder"].as_str().unwrap());
    assert!(folder.join("sentence.npy").is_file());
    // A pipeline says which case it is.
    let lower = [&export[..], &["--pipeline", "pipeline.toml"]].concat();
    assert!(workshop.fail(&lower).contains("the model that made the cache"));
}

#[test]
fn a_pipeline_takes_pooling_store_and_length_from_the_folder_and_says_it() {
    let workshop = workshop("cls", "");
    let ran = workshop.succeed(&["extract", "pipeline.toml"]);
    assert!(
        ran.stderr.contains("cls: cache.max_length = 12, head.pooling = cls"),
        "{}",
        ran.stderr
    );
    let manifest = workshop.manifest();
    assert_eq!(manifest["inputs"]["max_length"], json!(12));
    let states = serde_json::to_string(&manifest["shards"]).unwrap();
    assert!(states.contains("cls-L02") && !states.contains("mean-L02"), "{states}");
}

#[test]
fn similar_compares_sentence_vectors_and_says_so() {
    let name = "mean_max_dense";
    let workshop = workshop(name, "");
    let texts: Vec<String> = serde_json::from_value(expected()["texts"].clone()).unwrap();
    let vectors = vectors(name);
    // The vectors are of length 1.
    let cosine = |i: usize, j: usize| -> f64 {
        vectors[i].iter().zip(&vectors[j]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let pair = ["similar", "pipeline.toml", "--text", &texts[0], "--text", &texts[1]];
    let score = workshop.json(&pair)["score"].as_f64().unwrap();
    assert!((score - cosine(0, 1)).abs() < 1e-5, "{score} and {}", cosine(0, 1));
    let ran = workshop.succeed(&pair);
    assert!(
        ran.stderr.contains("compared by sentence vectors: mean + max, Dense 32 -> 12, tanh"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("for heads alone"), "{}", ran.stderr);
    let query = ["similar", "pipeline.toml", "--query", &texts[0], "--top", "6"];
    let matches = workshop.json(&query)["matches"].clone();
    for found in matches.as_array().unwrap() {
        let number = texts.iter().position(|text| found["text"] == json!(text)).unwrap();
        let score = found["score"].as_f64().unwrap();
        assert!((score - cosine(0, number)).abs() < 1e-5, "{found}");
    }
    assert_eq!(matches.as_array().unwrap().len(), texts.len());

    // A single pooling is what heads read of the folder, but more may follow in the sentence vector.
    let workshop = self::workshop("truncated", "");
    let pair = ["similar", "pipeline.toml", "--text", &texts[0], "--text", &texts[1]];
    let said = workshop.succeed(&pair).stderr;
    assert!(said.contains("6 of 16 values; head.pooling = mean is for heads alone"), "{said}");
}

#[test]
fn a_head_reads_sentence_vectors_and_predicts_the_same_from_the_cache_and_without_it() {
    let workshop = Workshop::tiny();
    let model = workshop.path("sentences");
    copy_folder(&folder("mean_max_dense"), &model);
    workshop.write_pipeline(
        "name = \"s\"\n[model]\npath = \"sentences\"\ndevice = \"cpu\"\n[data]\ntrain = { path = \"train.csv\" }\n\
         [train]\nepochs = 2\n",
    );
    workshop.json(&["run", "pipeline.toml"]);
    let head = read_json(&workshop.path("runs/s/001/head.json"));
    assert_eq!(head["pooling"], json!("sentence"));
    assert_eq!(head["states"], json!(["mean-L02", "max-L02"]));
    assert_eq!(head["layers"], json!([2]));
    assert_eq!(head["network"]["n_features"], json!(12));
    let metrics = workshop.json(&["evaluate", "runs/s", "--data", "train.csv"]);
    assert!(metrics["metrics"]["accuracy"].is_number(), "{metrics}");
    let predict = |out: &str| {
        let report = workshop.json(&["predict", "runs/s", "train.csv", "--out", out]);
        (report["reused"].clone(), fs::read_to_string(workshop.path(out)).unwrap())
    };
    let (reused, from_cache) = predict("a.csv");
    assert!(reused.as_u64() > Some(0), "{reused}");
    fs::rename(workshop.path("cache"), workshop.path("away")).unwrap();
    assert_eq!(predict("b.csv"), (json!(0), from_cache));
    workshop.json(&["run", "--locked", "runs/s/001/lock.json"]);
    assert!(workshop.path("runs/s/002").exists());

    // Another Dense module makes other vectors of the same states.
    let dense = model.join("2_Dense/model.safetensors");
    let mut bytes = fs::read(&dense).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&dense, bytes).unwrap();
    let error = workshop.fail(&["predict", "runs/s", "--text", "the cold snow"]);
    assert!(error.contains("the modules"), "{error}");
    let error = workshop.fail(&["run", "--locked", "runs/s/001/lock.json"]);
    assert!(error.contains("the modules after the encoder in "), "{error}");
    assert!(error.contains("restore these inputs"), "{error}");
    assert!(!workshop.path("runs/s/003").exists(), "nothing runs on other modules");
}

#[test]
fn a_head_may_read_one_of_the_poolings_or_the_sentence_vector_in_a_sweep() {
    let workshop = Workshop::tiny();
    copy_folder(&folder("truncated"), &workshop.path("sentences"));
    workshop.write_pipeline(
        "name = \"s\"\n[model]\npath = \"sentences\"\ndevice = \"cpu\"\n[data]\ntrain = { path = \"train.csv\" }\n\
         [head]\nkind = \"ridge\"\nlambda = 1.0\n[sweep]\npooling = [\"mean\", \"sentence\"]\n",
    );
    workshop.json(&["extract", "pipeline.toml"]);
    workshop.json(&["sweep", "pipeline.toml"]);
    let board = fs::read_to_string(workshop.path("runs/s/001/leaderboard.csv")).unwrap();
    assert!(board.contains("sentence") && board.contains("mean"), "{board}");

    // Whichever won, a replay needs the modules that the other one read.
    workshop.json(&["run", "--locked", "runs/s/001/lock.json"]);
    fs::remove_file(workshop.path("runs/s/001/head.json")).unwrap();
    let settings = workshop.path("sentences/config_sentence_transformers.json");
    let mut changed = read_json(&settings);
    changed["truncate_dim"] = json!(5);
    fs::write(settings, changed.to_string()).unwrap();
    let error = workshop.fail(&["run", "--locked", "runs/s/001/lock.json"]);
    assert!(error.contains("the modules after the encoder in "), "{error}");
}

#[test]
fn what_is_not_computed_is_refused_by_its_name_with_the_way_out() {
    let workshop = Workshop::tiny();
    let model = workshop.path("sentences");
    copy_folder(&folder("cls"), &model);
    fs::write(model.join("1_Pooling/config.json"), r#"{"pooling_mode": "lasttoken"}"#).unwrap();
    workshop.write_pipeline(
        "[model]\npath = \"sentences\"\ndevice = \"cpu\"\n[data]\ntrain = { path = \"train.csv\" }\n",
    );
    let error = workshop.fail(&["extract", "pipeline.toml"]);
    assert!(error.contains("`lasttoken`") && error.contains("head.pooling"), "{error}");
    workshop.json(&["extract", "pipeline.toml", "--set", "head.pooling=mean"]);
    let info = workshop.json(&["model", "info", "sentences"]);
    let refused = info["sentence_transformers"]["refused"].as_str().unwrap();
    assert!(refused.contains("`lasttoken`"), "{refused}");
}
