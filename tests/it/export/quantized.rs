//! `cache export --quantize`: every format holds the integers of the values that are exported otherwise. That these are
//! those of sentence-transformers is tested beside the code.

use std::fs;

use arrow::{
    array::AsArray,
    datatypes::{Int8Type, UInt8Type},
};
use safetensors::{SafeTensors, tensor::Dtype as TensorType};
use serde_json::json;

use super::{
    FORMATS, export,
    read::{Column, Columns, HIDDEN, read, read_npy},
    workshop,
};
use crate::support::{TINY_PIPELINE, Workshop, fixture, read_json, texts};

const KINDS: [&str; 4] = ["int8", "uint8", "binary", "ubinary"];

/// Returns the least and the greatest value of each dimension.
fn ranges(vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let of = |choose: fn(f32, f32) -> f32| -> Vec<f32> {
        let column = |dimension: usize| vectors.iter().map(move |vector| vector[dimension]);
        (0..HIDDEN).map(|dimension| column(dimension).reduce(choose).unwrap()).collect()
    };
    vec![of(f32::min), of(f32::max)]
}

/// Returns the integers of vectors, worked out value by value.
fn integers(kind: &str, vectors: &[Vec<f32>]) -> Column {
    let ranges = ranges(vectors);
    let step = |dimension: usize, value: f32| {
        let width = (ranges[1][dimension] - ranges[0][dimension]) / 255.0;
        let width = if width == 0.0 { 1.0 } else { width };
        ((value - ranges[0][dimension]) / width).floor().clamp(0.0, 255.0)
    };
    let byte = |vector: &[f32], byte: usize| -> f32 {
        let bits = (0..8)
            .map(|bit| if vector[8 * byte + bit] > 0.0 { f32::from(128u8 >> bit) } else { 0.0 });
        bits.sum()
    };
    let rows = vectors.iter().map(|vector| -> Vec<f32> {
        let unsigned: Vec<f32> = if kind.ends_with("int8") {
            vector.iter().enumerate().map(|(dimension, value)| step(dimension, *value)).collect()
        } else {
            (0..HIDDEN / 8).map(|number| byte(vector, number)).collect()
        };
        let shift = if kind.starts_with('u') { 0.0 } else { 128.0 };
        unsigned.into_iter().map(|value| value - shift).collect()
    });
    let dtype = if kind.starts_with('u') { TensorType::U8 } else { TensorType::I8 };
    Column::States(dtype, rows.collect())
}

fn states(columns: &Columns) -> impl Iterator<Item = (&String, &Vec<Vec<f32>>)> {
    columns.iter().filter_map(|(name, column)| match column {
        Column::States(_, vectors) => Some((name, vectors)),
        _ => None,
    })
}

#[test]
fn every_format_holds_the_integers_of_every_state() {
    let workshop = workshop("f16");
    let floats = read(&export(&workshop, "npy", &["--as", "f32"]), "npy");
    assert_eq!(states(&floats).count(), 4);
    for kind in KINDS {
        for format in FORMATS {
            let folder = export(&workshop, format, &["--quantize", kind]);
            assert!(folder.display().to_string().ends_with(&format!("-{format}-{kind}")));
            assert_eq!(read_json(&folder.join("export.json"))["quantize"], kind);
            let got = read(&folder, format);
            for (name, vectors) in states(&floats) {
                assert!(got[name] == integers(kind, vectors), "{format}, {kind}: {name} differs");
                let path = folder.join(format!("{name}.ranges.npy"));
                assert_eq!(path.exists(), kind.ends_with("int8"), "{format}, {kind}");
                if path.exists() {
                    let written = read_npy(&fs::read(path).unwrap());
                    assert!(written == Column::States(TensorType::F32, ranges(vectors)), "{name}");
                }
            }
        }
    }
}

#[test]
fn embed_writes_the_same_integers_to_every_kind_of_file() {
    let workshop = Workshop::empty();
    let model = fixture("tiny_bert").display().to_string();
    workshop.write("texts.txt", texts(30).join("\n") + "\n");
    let embed = |out: &str, more: &[&str]| {
        let call = ["embed", "texts.txt", "--model", &model, "--set", "cache.max_length=32"];
        workshop.json(&[&call[..], &["--out", out], more].concat())
    };
    let npy = |name: &str| read_npy(&fs::read(workshop.path(name)).unwrap());
    embed("rows.npy", &[]);
    let Column::States(_, floats) = npy("rows.npy") else { panic!("embeddings are vectors") };
    for kind in KINDS {
        let report = embed("small.npy", &["--quantize", kind]);
        let expected = integers(kind, &floats);
        assert!(npy("small.npy") == expected, "{kind}");
        let width = if kind.ends_with("int8") { HIDDEN } else { HIDDEN / 8 };
        assert_eq!((&report["dtype"], &report["dimensions"]), (&json!(kind), &json!(width)));
        let has_ranges = kind.ends_with("int8");
        assert_eq!(workshop.path("small.npy.ranges.npy").exists(), has_ranges, "{kind}");
        if has_ranges {
            let written = npy("small.npy.ranges.npy");
            assert!(written == Column::States(TensorType::F32, ranges(&floats)), "{kind}");
        }
        let Column::States(dtype, vectors) = expected else { panic!("integers are vectors") };
        let values: Vec<i64> = vectors.concat().into_iter().map(|value| value as i64).collect();

        embed("small.safetensors", &["--quantize", kind]);
        let bytes = fs::read(workshop.path("small.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor("embeddings").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &[30, width][..]));
        let got = tensor.data().iter().map(|byte| match dtype {
            TensorType::I8 => i64::from(i8::from_le_bytes([*byte])),
            _ => i64::from(*byte),
        });
        assert!(got.eq(values.iter().copied()), "{kind}");

        embed("small.arrow", &["--quantize", kind]);
        let file = fs::File::open(workshop.path("small.arrow")).unwrap();
        let mut batches = arrow::ipc::reader::FileReader::try_new(file, None).unwrap();
        let batch = batches.next().unwrap().unwrap();
        let lists = batch.column(0).as_fixed_size_list();
        let got: Vec<i64> = match dtype {
            TensorType::I8 => {
                let numbers = lists.values().as_primitive::<Int8Type>().values().iter();
                numbers.map(|number| i64::from(*number)).collect()
            }
            _ => {
                let numbers = lists.values().as_primitive::<UInt8Type>().values().iter();
                numbers.map(|number| i64::from(*number)).collect()
            }
        };
        assert!(got == values, "{kind}");
    }
}

#[test]
fn a_single_vector_has_no_range_and_few_are_warned_of() {
    let workshop = Workshop::empty();
    workshop.write("corpus.csv", "text\nthe snow is cold\n");
    workshop.write_pipeline(&TINY_PIPELINE.replace("train.csv", "corpus.csv"));
    workshop.json(&["extract", "pipeline.toml"]);
    let cache = workshop.cache_named().display().to_string();
    let run =
        |kind: &str| workshop.run(&["cache", "export", &cache, "--to", "npy", "--quantize", kind]);
    let refused = run("uint8");
    assert!(refused.has_failed());
    assert!(refused.stderr.contains("1 vector of documents has no range"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--quantize binary"), "{}", refused.stderr);
    assert!(!workshop.path(&format!("{cache}-npy-uint8")).exists());
    let ran = run("ubinary");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    workshop.write("corpus.csv", "text\nthe snow is cold\nthe film is good\n");
    workshop.json(&["extract", "pipeline.toml"]);
    let ran = run("int8");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("by the range of only 2 vectors"), "{}", ran.stderr);
    let both = ["cache", "export", &cache, "--to", "npy", "--quantize", "int8", "--as", "f32"];
    assert_eq!(workshop.run(&both).code, Some(2));
}
