//! Models with a vector of each token, compared with `MultiVectorEncoder` of sentence-transformers; the folders, the
//! vectors and the scores are made by `scripts/fixtures/multi_vectors.py`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Float32Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Workshop, copy_folder, fixture, read_json};

/// The largest difference of a value, and of a score as a share of it where it is above 1.
const MOST: f64 = 1e-5;

const FOLDERS: [&str; 3] = ["colbert", "attended", "modern"];

/// The vectors of the tokens of a text.
type Vectors = Vec<Vec<f32>>;

fn folder(name: &str) -> PathBuf {
    fixture("multi_vectors").join(name)
}

fn path_of(name: &str) -> String {
    folder(name).display().to_string()
}

fn expected() -> Value {
    read_json(&folder("expected.json"))
}

fn texts(kind: &str) -> Vec<String> {
    serde_json::from_value(expected()[kind].clone()).unwrap()
}

/// The vectors of the documents, as sentence-transformers computes them.
fn documents(name: &str) -> Vec<Vectors> {
    serde_json::from_value(expected()["folders"][name]["documents"].clone()).unwrap()
}

/// The scores of each query, document by document.
fn scores(name: &str) -> Vec<Vec<f64>> {
    serde_json::from_value(expected()["folders"][name]["scores"].clone()).unwrap()
}

/// A workshop with the documents of the fixtures, one per line, and a pipeline of them for a model.
fn workshop(model: &Path, more: &str) -> Workshop {
    let workshop = Workshop::empty();
    workshop.write("texts.txt", texts("documents").join("\n") + "\n");
    write_pipeline(&workshop, model, more);
    workshop
}

fn write_pipeline(workshop: &Workshop, model: &Path, more: &str) {
    workshop.write(
        "pipeline.toml",
        format!(
            "[model]\npath = {model:?}\ndevice = \"cpu\"\n[data]\n\
             train = {{ path = \"texts.txt\", format = \"lines\" }}\n[cache]\ndtype = \"f32\"\n{more}"
        ),
    );
}

fn assert_vectors(got: &[Vectors], expected: &[Vectors], name: &str) {
    let lengths = |texts: &[Vectors]| texts.iter().map(Vec::len).collect::<Vec<usize>>();
    assert_eq!(lengths(got), lengths(expected), "{name}");
    let values =
        |texts: &[Vectors]| texts.iter().flatten().flatten().copied().collect::<Vec<f32>>();
    let (got, expected) = (values(got), values(expected));
    assert_eq!(got.len(), expected.len(), "{name}");
    for (got, expected) in got.into_iter().zip(expected) {
        let difference = (f64::from(got) - f64::from(expected)).abs();
        assert!(difference <= MOST, "{name}: {got} and {expected}");
    }
}

fn assert_score(got: &Value, expected: f64, place: &str) {
    let got = got.as_f64().unwrap();
    assert!(
        (got - expected).abs() <= MOST * expected.abs().max(1.0),
        "{place}: {got} and {expected}"
    );
}

/// The data of an `.npy` file of this type.
fn npy_data(bytes: &[u8], descr: &str) -> Vec<u8> {
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..10 + header_bytes].to_vec()).unwrap();
    assert!(header.contains(&format!("'{descr}'")), "{header}");
    bytes[10 + header_bytes..].to_vec()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn longs(bytes: &[u8]) -> Vec<usize> {
    let values = bytes.chunks_exact(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()));
    values.map(|value| value as usize).collect()
}

/// Vectors one after the other, cut where the next text begins.
fn cut(values: &[f32], offsets: &[usize], width: usize) -> Vec<Vectors> {
    let rows: Vec<Vec<f32>> = values.chunks(width).map(<[f32]>::to_vec).collect();
    assert_eq!(offsets[0], 0);
    assert_eq!(offsets[offsets.len() - 1], rows.len());
    offsets.windows(2).map(|pair| rows[pair[0]..pair[1]].to_vec()).collect()
}

/// The lists of vectors of a column.
fn lists(batch: &RecordBatch, column: &str) -> Vec<Vectors> {
    let column = batch.column_by_name(column).unwrap();
    let of = |values: &dyn Array| values.as_primitive::<Float32Type>().values().to_vec();
    let vectors = |list: &dyn Array| -> Vectors {
        list.as_fixed_size_list().iter().map(|vector| of(&*vector.unwrap())).collect()
    };
    column.as_list::<i32>().iter().map(|list| vectors(&*list.unwrap())).collect()
}

#[test]
fn embed_writes_a_list_of_vectors_for_each_text_in_every_format() {
    for name in FOLDERS {
        let workshop = workshop(&folder(name), "");
        let expected = documents(name);
        let n_vectors: usize = expected.iter().map(Vec::len).sum();
        let width = expected[0][0].len();
        let embed = |out: &str| {
            workshop.json(&["embed", "texts.txt", "--model", &path_of(name), "--out", out])
        };
        let report = embed("x.npy");
        let facts = ["state", "rows", "vectors", "dimensions"].map(|key| report[key].clone());
        assert_eq!(
            facts,
            [json!("multi-vector"), json!(6), json!(n_vectors), json!(width)],
            "{name}"
        );
        assert!(report["multi_vector"].as_str().unwrap().starts_with("Dense 16 -> "), "{report}");
        assert_eq!(report.get("sentence"), None);
        let values = floats(&npy_data(&fs::read(workshop.path("x.npy")).unwrap(), "<f4"));
        let offsets = fs::read(workshop.path("x.npy.offsets.npy")).unwrap();
        let offsets = longs(&npy_data(&offsets, "<i8"));
        assert_vectors(&cut(&values, &offsets, width), &expected, name);

        embed("x.safetensors");
        let bytes = fs::read(workshop.path("x.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor("embeddings").unwrap();
        assert_eq!(tensor.shape(), [n_vectors, width]);
        assert_eq!(longs(tensors.tensor("offsets").unwrap().data()), offsets);
        assert_vectors(&cut(&floats(tensor.data()), &offsets, width), &expected, name);

        embed("x.parquet");
        let file = File::open(workshop.path("x.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let rows: Vec<Vectors> =
            reader.flat_map(|batch| lists(&batch.unwrap(), "embedding")).collect();
        assert_vectors(&rows, &expected, name);
        embed("x.arrow");
        let file = File::open(workshop.path("x.arrow")).unwrap();
        let reader = arrow::ipc::reader::FileReader::try_new(file, None).unwrap();
        let rows: Vec<Vectors> =
            reader.flat_map(|batch| lists(&batch.unwrap(), "embedding")).collect();
        assert_vectors(&rows, &expected, name);
    }
}

#[test]
fn an_embedding_of_one_vector_a_text_removes_the_offsets_of_an_earlier_one() {
    let workshop = workshop(&folder("colbert"), "");
    let embed = |more: &[&str]| {
        let arguments = ["embed", "texts.txt", "--model", &path_of("colbert"), "--out", "x.npy"];
        workshop.json(&[&arguments[..], more].concat())
    };
    let offsets = workshop.path("x.npy.offsets.npy");
    let quantized = embed(&["--quantize", "ubinary"]);
    assert_eq!((&quantized["dimensions"], &quantized["dtype"]), (&json!(1), &json!("ubinary")));
    assert!(offsets.is_file());
    let pooled = embed(&["--pooling", "mean"]);
    assert_eq!((&pooled["state"], pooled.get("vectors")), (&json!("mean-L02"), None));
    assert!(!offsets.exists());
}

#[test]
fn an_export_has_a_row_for_each_token_with_a_vector() {
    for name in FOLDERS {
        let workshop = workshop(&folder(name), "store = [\"tokens\"]\n");
        let expected = documents(name);
        let width = expected[0][0].len();
        let cache = workshop.json(&["extract", "pipeline.toml"])["cache"].clone();
        let cache = cache.as_str().unwrap();
        let export = |format: &str| {
            let arguments = ["cache", "export", cache, "--pipeline", "pipeline.toml", "--to"];
            workshop.json(&[&arguments[..], &[format, "--state", "multi-vector"]].concat())
        };
        let report = export("npy");
        assert_eq!(report["rows"], json!(6), "{name}");
        assert_eq!(report["tokens"], json!(expected.iter().map(Vec::len).sum::<usize>()), "{name}");
        let made = workshop.path(report["folder"].as_str().unwrap());
        let read = |file: &str, descr| npy_data(&fs::read(made.join(file)).unwrap(), descr);
        let documents = longs(&read("tokens.doc.npy", "<i8"));
        let values = floats(&read("multi-vector.npy", "<f4"));
        let of_document = |document: usize| -> Vectors {
            let rows = values.chunks(width).zip(&documents);
            rows.filter(|(_, own)| **own == document).map(|(row, _)| row.to_vec()).collect()
        };
        let got: Vec<Vectors> = (0..6).map(of_document).collect();
        assert_vectors(&got, &expected, name);
        assert_eq!(read("tokens.token_id.npy", "<u4").len(), 4 * documents.len());

        let made = export("parquet-list")["folder"].clone();
        let file = File::open(workshop.path(made.as_str().unwrap()).join("tokens.parquet"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.unwrap()).unwrap();
        let rows: usize = reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(rows, documents.len());
    }
}

#[test]
fn an_export_refuses_states_of_all_tokens_beside_the_vectors() {
    let workshop = workshop(&folder("colbert"), "store = [\"tokens\", \"mean\"]\n");
    let cache = workshop.json(&["extract", "pipeline.toml"])["cache"].clone();
    let export =
        ["cache", "export", cache.as_str().unwrap(), "--to", "npy", "--state", "multi-vector"];
    let error = workshop.fail(&[&export[..], &["tokens-L02"]].concat());
    assert!(error.contains("tokens-L02 has a row for every token"), "{error}");
    let error = workshop.fail(&[&export[..], &["sentence"]].concat());
    assert!(error.contains("one vector of a text or one of each token"), "{error}");
    // A state of documents has a table of its own.
    let report = workshop.json(&[&export[..], &["mean-L02"]].concat());
    let files = report["files"].as_array().unwrap();
    for file in ["multi-vector.npy", "mean-L02.npy"] {
        assert!(files.contains(&json!(file)), "{report}");
    }
}

#[test]
fn similar_scores_texts_as_sentence_transformers_does() {
    for name in FOLDERS {
        let workshop = workshop(&folder(name), "");
        let (queries, documents, scores) = (texts("queries"), texts("documents"), scores(name));
        for (number, query) in queries.iter().enumerate() {
            let arguments = ["similar", "pipeline.toml", "--multi-vector", "--query", query];
            let found = workshop.json(&arguments)["matches"].clone();
            let found = found.as_array().unwrap();
            assert_eq!(found.len(), documents.len());
            for found in found {
                let place = documents.iter().position(|text| found["text"] == json!(text)).unwrap();
                let said = format!("{name}, query {number}, document {place}");
                assert_score(&found["score"], scores[number][place], &said);
            }
            let got: Vec<f64> =
                found.iter().map(|found| found["score"].as_f64().unwrap()).collect();
            assert!(got.windows(2).all(|pair| pair[0] >= pair[1]), "{got:?}");
        }
        // The first of two texts is the query.
        let pair = ["similar", "pipeline.toml", "--multi-vector", "--text", &queries[1], "--text"];
        let score = workshop.json(&[&pair[..], &[documents[4].as_str()]].concat())["score"].clone();
        assert_score(&score, scores[1][4], name);
    }
}

#[test]
fn the_prompts_of_queries_and_of_documents_are_taken_and_said() {
    let workshop = workshop(&folder("colbert"), "");
    let ask = |more: &[&str]| {
        let arguments =
            ["similar", "pipeline.toml", "--multi-vector", "--query", "is the snow cold?"];
        workshop.succeed(&[&arguments[..], more].concat())
    };
    let plain = ask(&[]);
    for said in [
        "the model's default prompt `document` (\"[D] \") is put before texts",
        "the model's prompt of queries (\"[Q] \") is put before the query",
        "by the vectors of their tokens (Dense 16 -> 8, identity, Normalize): maxsim",
        "cache.max_length = 16",
    ] {
        assert!(plain.stderr.contains(said), "{}", plain.stderr);
    }
    assert!(!plain.stderr.contains("head.pooling ="), "{}", plain.stderr);
    assert_eq!(ask(&["--prompt", "query"]).stdout, plain.stdout);
    assert_ne!(ask(&["--prompt", ""]).stdout, plain.stdout);
    // The last query is longer than the model takes.
    let long = &texts("queries")[3];
    let ran = workshop.succeed(&["similar", "pipeline.toml", "--multi-vector", "--query", long]);
    assert!(ran.stderr.contains("the query is longer than 12 tokens"), "{}", ran.stderr);
    let documents = texts("documents");
    for (document, is_cut) in [(&documents[4], true), (&documents[2], false)] {
        let pair = ["--multi-vector", "--text", "snow", "--text", document];
        let ran = workshop.succeed(&[&["similar", "pipeline.toml"], &pair[..]].concat());
        let warning =
            "the second text is longer than 16 tokens and truncated (raise cache.max_length)";
        assert_eq!(ran.stderr.contains(warning), is_cut, "{}", ran.stderr);
    }
}

#[test]
fn a_folder_without_vectors_of_tokens_is_refused_with_the_way_out() {
    let ask = ["similar", "pipeline.toml", "--query", "snow"];
    let with = |model: &Path, arguments: &[&str]| workshop(model, "").fail(arguments);
    let multi_vector = [&ask[..], &["--multi-vector"]].concat();
    let error = with(&fixture("tiny_bert"), &multi_vector);
    assert!(error.contains("got a folder without modules.json"), "{error}");
    assert!(error.contains("save_pretrained"), "{error}");
    let pooled = fixture("sentence_folders").join("truncated");
    let error = with(&pooled, &multi_vector);
    assert!(error.contains("got modules that make one vector of a text"), "{error}");
    let error = with(&folder("colbert"), &ask);
    assert!(error.contains("got modules that make one of each token"), "{error}");
    assert!(error.contains("similar --multi-vector"), "{error}");
    let embed =
        ["embed", "texts.txt", "--model", &path_of("colbert"), "--out", "x.npy", "--pooling"];
    let error = with(&pooled, &[&embed[..], &["sentence"]].concat());
    assert!(error.contains("got modules that make one of each token"), "{error}");
    let error = with(&pooled, &[&embed[..], &["multi-vector", "--layer", "1"]].concat());
    assert!(error.contains("the last layer, of which token vectors are made"), "{error}");
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let changed = |name: &str, file: &str, change: &dyn Fn(&mut Value)| {
        let workshop = Workshop::empty();
        workshop.write("texts.txt", "cold snow\nwarm film\n");
        let model = workshop.path("model");
        copy_folder(&folder(name), &model);
        let mut content = read_json(&model.join(file));
        change(&mut content);
        fs::write(model.join(file), content.to_string()).unwrap();
        write_pipeline(&workshop, Path::new("model"), "");
        workshop.fail(&["similar", "pipeline.toml", "--multi-vector", "--query", "snow"])
    };
    let pooling =
        "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling";
    let error = changed("colbert", "modules.json", &|modules| {
        let more = json!({ "idx": 4, "name": "4", "path": "4_Pool", "type": pooling });
        modules.as_array_mut().unwrap().push(more);
    });
    assert!(
        error.contains("HierarchicalTokenPooling`, which this program does not run"),
        "{error}"
    );
    let error = changed("colbert", "config_sentence_transformers.json", &|settings| {
        settings["model_type"] = json!("ColBERT");
    });
    assert!(
        error.contains("got `ColBERT`, of PyLate") && error.contains("save_pretrained"),
        "{error}"
    );
    let error = changed("colbert", "sentence_bert_config.json", &|settings| {
        settings["query_expansion"]["strategy"] = json!("soft");
    });
    assert!(error.contains("unknown variant `soft`"), "{error}");
    let error = changed("colbert", "sentence_bert_config.json", &|settings| {
        settings["query_expansion"]["token"] = json!("[NONE]");
    });
    assert!(error.contains("the token `[NONE]`, with which query_expansion fills up"), "{error}");
    let error = changed("modern", "sentence_bert_config.json", &|settings| {
        settings["query_expansion"]["length"] = json!(20);
    });
    assert!(error.contains("windows of 8 tokens on either side, and a length of 20"), "{error}");
}

#[test]
fn model_info_tells_how_the_vectors_of_tokens_are_made() {
    let workshop = Workshop::empty();
    let info = |name: &str| {
        workshop.json(&["model", "info", &path_of(name)])["sentence_transformers"].clone()
    };
    let colbert = info("colbert");
    assert_eq!(colbert["parts"], json!(["Transformer", "Dense", "MultiVectorMask", "Normalize"]));
    assert_eq!(
        (&colbert["max_length"], &colbert["default_prompt"]),
        (&json!(16), &json!("document"))
    );
    let none = ["sentence", "refused"].map(|key| colbert[key].clone());
    assert_eq!(none, [Value::Null, Value::Null]);
    let of_tokens = &colbert["multi_vector"];
    assert_eq!(of_tokens["steps"], json!("Dense 16 -> 8, identity, Normalize"));
    assert_eq!(
        of_tokens["queries"],
        json!("exactly 12 tokens, filled up with [MASK] that nothing attends to")
    );
    assert!(of_tokens["tokens"].as_str().unwrap().starts_with("of document, none of ! "));
    assert_eq!(
        info("attended")["multi_vector"],
        json!({
            "steps": "Dense 16 -> 6, tanh",
            "dimensions": 6,
            "tokens": "of query and document, none of the very . nowhere",
            "queries": "at least 8 tokens, filled up with [UNK], at most 10",
            "similarity": "meanmaxsim",
        })
    );
    assert_eq!(info("attended")["ignored"], json!([]));
    let ran = workshop.succeed(&["model", "info", &path_of("attended")]);
    for said in ["longest document", "Dense 16 -> 6, tanh: 6 values", "meanmaxsim"] {
        assert!(ran.stdout.contains(said), "{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("sentence vector"), "{}", ran.stdout);
}
