//! Vectors that another model made, in place of texts: the heads have the bytes of those over a cache with the same
//! states, and whatever does not go together with such vectors is refused.

use std::{fs, fs::File, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Float32Array, ListArray, RecordBatch, StringArray},
    datatypes::{Float16Type, Float32Type, Float64Type},
};
use frostbert::cache::{Cache, Key, Mode};
use half::f16;
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use crate::support::{TINY_PIPELINE, TINY_ROWS, Workshop, label, read_json, texts};

const HIDDEN: usize = 32;

/// A pipeline over vectors in place of [`TINY_PIPELINE`].
const OWN: &str = r#"name = "own"

[data]
train = { SOURCE, label = "label", label_separator = ";" }

[train]
epochs = 3
"#;

const NPY: &str = "path = \"v.npy\", label_path = \"data.csv\"";
const PARQUET: &str = "path = \"v.parquet\", state = \"embedding\"";

/// The labels, the number and the set of labels of a row.
fn cells(row: usize) -> [String; 3] {
    let set =
        if row.is_multiple_of(5) { format!("{};odd", label(row)) } else { label(row).to_string() };
    [label(row).to_string(), (row % 7).to_string(), set]
}

/// A workshop with data.csv, the pipeline over its texts, its states in the cache, and the same states in v.npy and
/// v.parquet, in the order of the rows.
fn workshop() -> Workshop {
    let workshop = Workshop::empty();
    let texts = texts(TINY_ROWS);
    let mut csv = String::from("text,label,value,labels\n");
    for (row, text) in texts.iter().enumerate() {
        csv.push_str(&format!("{text},{}\n", cells(row).join(",")));
    }
    workshop.write("data.csv", csv);
    let source = "path = \"data.csv\", label = \"label\", label_separator = \";\"";
    workshop.write_pipeline(&TINY_PIPELINE.replace("path = \"train.csv\"", source));
    workshop.succeed(&["extract", "pipeline.toml"]);
    let keys: Vec<Key> = texts.iter().map(|text| Key::of(Mode::Text, &[text])).collect();
    let cache = Cache::open(workshop.cache()).unwrap();
    let states = cache.rows(&keys, "mean-L02".parse().unwrap()).unwrap();
    let rows: Vec<Vec<f32>> = states.rows().into_iter().map(|row| row.to_vec()).collect();
    write_npy(&workshop.path("v.npy"), "<f2", "False", &rows);
    write_parquet(&workshop.path("v.parquet"), list(&rows), rows.len());
    write_own(&workshop, NPY);
    workshop
}

fn write_own(workshop: &Workshop, source: &str) {
    workshop.write("own.toml", OWN.replace("SOURCE", source));
}

fn list(rows: &[Vec<f32>]) -> ArrayRef {
    let rows = rows.iter().map(|row| Some(row.iter().map(|value| Some(*value))));
    Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows))
}

/// Writes vectors with the cells of each row.
fn write_parquet(path: &Path, vectors: ArrayRef, n_rows: usize) {
    let all: Vec<[String; 3]> = (0..n_rows).map(cells).collect();
    let column = |place: usize| -> ArrayRef {
        Arc::new(all.iter().map(|cells| Some(cells[place].as_str())).collect::<StringArray>())
    };
    let ids: StringArray = (0..n_rows).map(|row| Some(format!("id-{row}"))).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("name", Arc::new(ids)),
        ("embedding", vectors),
        ("label", column(0)),
        ("value", column(1)),
        ("labels", column(2)),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    );
    let batch = batch.unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Writes an array as numpy.save does.
fn write_npy(path: &Path, descr: &str, fortran: &str, rows: &[Vec<f32>]) {
    let shape = format!("({}, {})", rows.len(), rows[0].len());
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    for value in rows.iter().flatten() {
        match descr {
            "<f2" => bytes.extend(f16::from_f32(*value).to_le_bytes()),
            "<f8" => bytes.extend(f64::from(*value).to_le_bytes()),
            _ => bytes.extend(value.to_le_bytes()),
        }
    }
    fs::write(path, bytes).unwrap();
}

/// Vectors of a few values, which differ from row to row and say the label.
fn small_rows(n_rows: usize) -> Vec<Vec<f32>> {
    let row = |row: usize| {
        let mut values = vec![0.25 + row as f32 / 65_536.0; 4];
        values[row % 3] += 2.0;
        values
    };
    (0..n_rows).map(row).collect()
}

/// Runs both pipelines with these settings and compares files of their run folders.
fn require_same(workshop: &Workshop, settings: &[&str], report: &str, names: &[&str]) {
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", *setting]).collect();
    let run = |pipeline: &str| {
        let report = &workshop.json(&[&["run", pipeline][..], &set].concat())[report];
        workshop.path(report["run"].as_str().unwrap())
    };
    let (cached, own) = (run("pipeline.toml"), run("own.toml"));
    for name in names {
        let [expected, got] = [&cached, &own].map(|run| fs::read(run.join(name)).unwrap());
        assert!(expected == got, "{name} with {settings:?}");
    }
}

const HEAD: [&str; 2] = ["head.safetensors", "metrics.json"];

#[test]
fn heads_over_given_vectors_have_the_bytes_of_those_over_a_cache() {
    let workshop = workshop();
    for kind in ["linear", "mlp", "ridge", "lda", "logistic", "linfa-logistic", "linfa-svm"] {
        require_same(&workshop, &[&format!("head.kind={kind}")], "train", &HEAD);
    }
    require_same(&workshop, &["head.kind=linear", "head.pca=4"], "train", &HEAD);
    for (task, column) in [("regression", "value"), ("multilabel", "labels")] {
        let (task, label) = (format!("data.task={task}"), format!("data.train.label={column}"));
        for kind in ["linear", "mlp", "ridge"] {
            let kind = format!("head.kind={kind}");
            require_same(&workshop, &[&task, &label, &kind], "train", &HEAD);
        }
    }
}

#[test]
fn a_sweep_over_given_vectors_has_the_leaderboard_of_one_over_a_cache() {
    let workshop = workshop();
    let sweep =
        "sweep={ kind = [\"linear\", \"mlp\", \"logistic\"], lr = [1e-3, 1e-2], folds = 3 }";
    let names = ["head.safetensors", "metrics.json", "leaderboard.csv"];
    require_same(&workshop, &[sweep], "sweep", &names);
}

#[test]
fn the_same_values_in_any_type_and_form_give_the_same_head() {
    let workshop = workshop();
    let folder = workshop.path("v.npy");
    let head = |source: &str| {
        write_own(&workshop, source);
        let report = workshop.json(&["run", "own.toml"]);
        assert!(report["extract"].is_null() && report["train"]["cache"].is_null(), "{report}");
        let run = workshop.path(report["train"]["run"].as_str().unwrap());
        let head = read_json(&run.join("head.json"));
        (fs::read(run.join("head.safetensors")).unwrap(), head["states"][0].clone())
    };
    let (expected, state) = head(NPY);
    assert_eq!(state, "column:vectors");
    assert_eq!(head(PARQUET), (expected.clone(), "column:embedding".into()));
    // Values of f16 are the same in the wider types.
    let keys: Vec<Key> = texts(TINY_ROWS).iter().map(|text| Key::of(Mode::Text, &[text])).collect();
    let cache = Cache::open(workshop.cache()).unwrap();
    let states = cache.rows(&keys, "mean-L02".parse().unwrap()).unwrap();
    let rows: Vec<Vec<f32>> = states.rows().into_iter().map(|row| row.to_vec()).collect();
    for descr in ["<f4", "<f8"] {
        write_npy(&folder, descr, "False", &rows);
        assert_eq!(head(NPY).0, expected, "{descr}");
    }
    let width = HIDDEN as i32;
    let halves = rows.iter().map(|row| Some(row.iter().map(|value| Some(f16::from_f32(*value)))));
    let halves = FixedSizeListArray::from_iter_primitive::<Float16Type, _, _>(halves, width);
    let doubles = rows.iter().map(|row| Some(row.iter().map(|value| Some(f64::from(*value)))));
    let doubles = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(doubles, width);
    for vectors in [Arc::new(halves) as ArrayRef, Arc::new(doubles)] {
        let data_type = vectors.data_type().clone();
        write_parquet(&workshop.path("v.parquet"), vectors, rows.len());
        assert_eq!(head(PARQUET).0, expected, "{data_type}");
    }
}

#[test]
fn a_run_is_replayed_predicts_for_a_file_and_is_evaluated_on_one() {
    let workshop = workshop();
    write_own(&workshop, &format!("{PARQUET}, id = \"name\""));
    let report = workshop.json(&["run", "own.toml"]);
    let run = report["train"]["run"].as_str().unwrap();
    assert!(!workshop.path("models").exists());
    let page = fs::read_to_string(workshop.path(run).join("report.html")).unwrap();
    assert!(page.contains("given (embedding)"));
    let ran = workshop.succeed(&["run", "--locked", run]);
    assert!(ran.stdout.contains("the same bytes as"), "{}", ran.stdout);

    let lines = |arguments: &[&str]| -> Vec<Value> {
        let ran = workshop.succeed(&[arguments, &["--json"]].concat());
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let predicted = lines(&["predict", run, "v.parquet"]);
    assert_eq!(predicted.len(), TINY_ROWS);
    assert_eq!((&predicted[3]["id"], &predicted[3]["text"]), (&"id-3".into(), &"id-3".into()));
    let cached = workshop.json(&["train", "pipeline.toml"]);
    let of_texts = lines(&[
        "predict",
        cached["train"]["run"].as_str().or(cached["run"].as_str()).unwrap(),
        "data.csv",
    ]);
    for (own, cached) in predicted.iter().zip(&of_texts) {
        assert_eq!(own["label"], cached["label"]);
    }
    // An array has no ids.
    let predicted = lines(&["predict", run, "v.npy"]);
    assert_eq!((predicted.len(), &predicted[0]["text"]), (TINY_ROWS, &"row 1".into()));
    let evaluated = workshop.json(&["evaluate", run, "--data", "v.parquet"]);
    assert!(evaluated.to_string().contains("macro_f1"), "{evaluated}");

    write_parquet(&workshop.path("narrow.parquet"), list(&small_rows(5)), 5);
    for arguments in
        [&["predict", run, "narrow.parquet"][..], &["evaluate", run, "--data", "narrow.parquet"]]
    {
        let error = workshop.fail(arguments);
        assert!(error.contains("vectors of 32 values, as the head was trained on"), "{error}");
    }
    let error = workshop.fail(&["predict", run, "--text", "a cold film"]);
    assert!(error.contains("a vector for each prediction"), "{error}");

    write_parquet(&workshop.path("v.parquet"), list(&small_rows(TINY_ROWS)), TINY_ROWS);
    let error = workshop.fail(&["run", "--locked", run]);
    assert!(error.contains("v.parquet: expected [hash], got [hash]"), "{error}");
}

#[test]
fn vectors_that_do_not_fit_into_memory_are_streamed() {
    let workshop = Workshop::empty();
    // 9,000 vectors of 32 values are more than a mebibyte.
    let rows: Vec<Vec<f32>> = small_rows(9_000).iter().map(|row| row.repeat(8)).collect();
    write_parquet(&workshop.path("v.parquet"), list(&rows), rows.len());
    write_own(&workshop, PARQUET);
    let arguments = ["run", "own.toml", "--set", "train.memory_mb=1", "--set", "train.epochs=1"];
    let report = workshop.json(&arguments);
    assert!(report["train"]["metrics"]["test"]["accuracy"].as_f64().unwrap() > 0.9, "{report}");
}

#[test]
fn a_bad_vector_is_an_error_with_its_row_or_left_out_and_listed() {
    let workshop = Workshop::empty();
    write_own(&workshop, PARQUET);
    let good = small_rows(60);
    type Rows = Vec<Option<Vec<Option<f32>>>>;
    let rows: Rows =
        good.iter().map(|row| Some(row.iter().map(|value| Some(*value)).collect())).collect();
    let write = |rows: &Rows| {
        let vectors = ListArray::from_iter_primitive::<Float32Type, _, _>(rows.iter().cloned());
        write_parquet(&workshop.path("v.parquet"), Arc::new(vectors), rows.len());
    };
    let values = |values: &[f32]| -> Option<Vec<Option<f32>>> {
        Some(values.iter().map(|value| Some(*value)).collect())
    };
    for (bad, got) in [
        (values(&[0.0, f32::NAN, 0.0, 0.0]), "NaN as value 2 of 4"),
        (values(&[0.0, 0.0, 0.0, f32::INFINITY]), "inf as value 4 of 4"),
        (values(&[0.0, 0.0, 0.0]), "got 3"),
        (values(&[]), "an empty vector"),
        (None, "got a null"),
        (Some(vec![Some(0.0), None, Some(0.0), Some(0.0)]), "a null as value 2 of 4"),
    ] {
        let mut rows = rows.clone();
        (rows[16], rows[40]) = (bad.clone(), bad);
        write(&rows);
        let error = workshop.fail(&["run", "own.toml"]);
        assert!(error.contains("v.parquet:17: ") && error.contains(got), "{error}");
        assert!(error.contains("data.clean.skip_bad"), "{error}");
        let skip = ["run", "own.toml", "--set", "data.clean.skip_bad=true"];
        let run = workshop.json(&skip)["train"]["run"].clone();
        let bad = fs::read_to_string(workshop.path(run.as_str().unwrap()).join("bad_rows.csv"));
        let bad = bad.unwrap();
        assert!(bad.contains("v.parquet,17,") && bad.contains("v.parquet,41,"), "{bad}");
    }
    let numbers: ArrayRef = Arc::new(Float32Array::from_iter_values((0..60).map(|n| n as f32)));
    write_parquet(&workshop.path("v.parquet"), numbers, 60);
    let error = workshop.fail(&["run", "own.toml"]);
    assert!(error.contains("lists of floats in the column `embedding` for `state`"), "{error}");
}

#[test]
fn vectors_of_two_widths_are_refused_with_both_places() {
    let workshop = Workshop::empty();
    write_parquet(&workshop.path("v.parquet"), list(&small_rows(60)), 60);
    let narrow: Vec<Vec<f32>> = small_rows(9).into_iter().map(|row| row[..3].to_vec()).collect();
    write_parquet(&workshop.path("test.parquet"), list(&narrow), 9);
    write_own(&workshop, PARQUET);
    let test = "data.test={ path = \"test.parquet\", state = \"embedding\", label = \"label\" }";
    let error = workshop.fail(&["run", "own.toml", "--set", test]);
    let expected = "test.parquet:1: expected a vector of 4 values, as in row 1 of v.parquet, got 3";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn an_array_that_cannot_be_read_is_refused_with_the_cure() {
    let workshop = Workshop::empty();
    let rows = small_rows(30);
    let mut labels = String::from("label\n");
    (0..30).for_each(|row| labels.push_str(&format!("{}\n", label(row))));
    workshop.write("data.csv", &labels);
    write_own(&workshop, NPY);
    let path = workshop.path("v.npy");
    let refused = || workshop.fail(&["run", "own.toml"]);
    for (descr, fortran, expected) in [
        ("<f4", "True", "got Fortran order"),
        (">f4", "False", "got values of type `>f4`"),
        ("<i4", "False", "got values of type `<i4`"),
    ] {
        write_npy(&path, descr, fortran, &rows);
        let error = refused();
        assert!(error.contains(expected) && error.contains("save it with"), "{error}");
    }
    write_npy(&path, "<f4", "False", &rows);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    assert!(refused().contains("the 30 vectors of 4 values that its header declares"));
    // More bytes than there are addresses: 4 times the width is 2^64 + 4, which a product of 64 bits takes for 4.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4611686018427387905), }";
    let mut crafted = b"\x93NUMPY\x01\x00".to_vec();
    crafted.extend(118u16.to_le_bytes());
    crafted.extend(format!("{header:<117}\n").as_bytes());
    crafted.extend(1f32.to_le_bytes());
    fs::write(&path, crafted).unwrap();
    assert!(refused().contains("the 1 vector of "));
    fs::write(&path, b"text").unwrap();
    assert!(refused().contains("an array in the format of numpy.save"));
    let mut bad = rows.clone();
    bad[16][1] = f32::NAN;
    write_npy(&path, "<f4", "False", &bad);
    let error = refused();
    assert!(error.contains("v.npy:17: ") && error.contains("NaN as value 2 of 4"), "{error}");
    write_npy(&path, "<f4", "False", &rows[..29]);
    let error = refused();
    assert!(
        error.contains("data.csv: expected 29 rows, as v.npy has vectors, got more"),
        "{error}"
    );
    // A label on each line is enough.
    write_npy(&path, "<f4", "False", &rows);
    workshop.write("labels.txt", labels.trim_start_matches("label\n"));
    write_own(&workshop, "path = \"v.npy\", label_path = \"labels.txt\"");
    workshop.succeed(&["run", "own.toml"]);
    write_own(&workshop, "path = \"v.npy\"");
    assert!(refused().contains("a file of labels for these vectors"));
    write_own(&workshop, "path = \"v.npy\", label_path = \"data.csv\", state = \"e\"");
    assert!(refused().contains("an array, which has no columns"));
}

#[test]
fn what_needs_an_encoder_is_refused() {
    let workshop = Workshop::empty();
    write_parquet(&workshop.path("v.parquet"), list(&small_rows(60)), 60);
    write_own(&workshop, PARQUET);
    workshop.succeed(&["run", "own.toml"]);
    let error = workshop.fail(&["extract", "own.toml"]);
    assert!(error.contains("the rows bring vectors of another model with them"), "{error}");
    let with_model = ["run", "own.toml", "--set", "model.path=models/minilm"];
    assert!(workshop.fail(&with_model).contains("model.path is set"));
    let with_cache = ["run", "own.toml", "--set", "cache.dtype=f32"];
    assert!(workshop.fail(&with_cache).contains("[cache] is set"));
    let swept = ["sweep", "own.toml", "--set", "sweep={ layer = [1, 2] }"];
    assert!(workshop.fail(&swept).contains("sweep.layer is set"));
    let run = "runs/own";
    let served = workshop.fail(&["serve", run, "--port", "0"]);
    assert!(served.contains("the rows bring vectors of another model with them"), "{served}");
    let exported = workshop.fail(&["export", run, "--to", "onnx", "--out", "whole"]);
    assert!(exported.contains("vectors of another model"), "{exported}");
    let head = workshop.json(&["export", run, "--to", "onnx-head", "--out", "head"]);
    assert!(head["check"]["largest_difference"].as_f64().unwrap() < 1e-5, "{head}");
    let dry = workshop.json(&["run", "own.toml", "--dry-run"]);
    assert!(dry["extract"].is_null() && dry["tasks"][0]["heads"] == 1, "{dry}");
}
