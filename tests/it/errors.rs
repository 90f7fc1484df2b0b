//! Invalid input, with the exact text on stderr. Every message names the file, the line if there is one, and the cure;
//! a failure has a non-zero exit code and leaves stdout empty.

use std::path::PathBuf;

use insta::assert_snapshot;

use crate::support::{TINY_PIPELINE, Workshop, csv, repository, say, texts};

const RUN: [&str; 2] = ["run", "pipeline.toml"];

/// Returns the tiny workshop with this `train.csv`.
fn with_data(content: impl AsRef<[u8]>) -> Workshop {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", content);
    workshop
}

/// Returns the tiny workshop with this at the end of its pipeline.
fn with_pipeline(addition: &str) -> Workshop {
    let workshop = Workshop::tiny();
    workshop.write_pipeline(&format!("{TINY_PIPELINE}{addition}"));
    workshop
}

fn rows(n_rows: usize) -> String {
    csv(&texts(n_rows), 0)
}

#[test]
fn a_missing_column_is_named_with_those_there_are() {
    let workshop = with_data(rows(9).replacen("text,label", "review,kind", 1));
    assert_snapshot!(workshop.fail(&RUN));
    // An extraction needs no labels, so it succeeds.
    let workshop = with_data(rows(9).replacen("text,label", "text,stars", 1));
    assert_snapshot!("a_missing_label_column", workshop.fail(&RUN));
    workshop.succeed(&["extract", "pipeline.toml"]);
}

#[test]
fn bytes_that_are_no_utf8_are_shown_with_their_line() {
    let mut bytes = rows(9).into_bytes();
    let line_feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let fourth_line = line_feeds.map(|(place, _)| place + 1).nth(2).unwrap();
    bytes[fourth_line + 5] = 0xE9;
    let workshop = with_data(bytes);
    let stderr = workshop.fail(&RUN);
    assert!(stderr.contains("train.csv:4:"), "{stderr}");
    assert_snapshot!(stderr);
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_the_known_ones() {
    assert_snapshot!(with_pipeline("learning_rate = 0.1\n").fail(&RUN));
    assert_snapshot!("an_unknown_section", with_pipeline("\n[trian]\nlr = 0.1\n").fail(&RUN));
    let workshop = Workshop::tiny();
    workshop.write_pipeline(
        &TINY_PIPELINE.replace("\"train.csv\" }", "\"train.csv\", lable = \"stars\" }"),
    );
    assert_snapshot!("an_unknown_key_of_a_source", workshop.fail(&RUN));
}

#[test]
fn a_value_of_the_wrong_kind_is_shown_with_its_place() {
    assert_snapshot!(with_pipeline("lr = \"fast\"\n").fail(&RUN));
    assert_snapshot!("an_unknown_word", with_pipeline("schedule = \"linaer\"\n").fail(&RUN));
    assert_snapshot!("a_number_out_of_range", with_pipeline("lr = -1.0\n").fail(&RUN));
    assert_snapshot!("no_toml", with_pipeline("lr = \n").fail(&RUN));
}

#[test]
fn a_pipeline_file_that_is_not_there_is_named() {
    assert_snapshot!(Workshop::tiny().fail(&["run", "pipelines/none.toml"]));
}

#[test]
fn an_override_that_fits_nothing_says_so() {
    let run = |setting: &str| Workshop::tiny().fail(&["run", "pipeline.toml", "--set", setting]);
    assert_snapshot!(run("train.learning_rate=0.1"));
    assert_snapshot!("an_override_of_the_wrong_kind", run("train.lr=fast"));
    assert_snapshot!("an_override_inside_a_value", run("name.first=a"));
    assert_snapshot!("an_override_of_a_torn_list", run("cache.store=[cls"));
}

#[test]
fn a_data_file_that_is_not_there_is_named() {
    let workshop = Workshop::tiny();
    std::fs::remove_file(workshop.path("train.csv")).unwrap();
    assert_snapshot!(workshop.fail(&RUN));
    assert_snapshot!(
        "a_data_file_that_is_not_there_for_extract",
        workshop.fail(&["extract", "pipeline.toml"])
    );
}

#[test]
fn an_empty_file_is_named() {
    assert_snapshot!(with_data("").fail(&RUN));
    assert_snapshot!("a_header_alone", with_data("text,label\n").fail(&RUN));
    assert_snapshot!(
        "a_header_alone_for_extract",
        with_data("text,label\n").fail(&["extract", "pipeline.toml"])
    );
    assert_snapshot!("nothing_but_empty_texts", with_data("text,label\n ,a\n ,b\n").fail(&RUN));
}

#[test]
fn one_class_alone_is_nothing_to_learn_from() {
    assert_snapshot!(with_data("text,label\nthe snow,a\nthe frost,a\nthe film,a\n").fail(&RUN));
}

#[test]
fn a_row_without_a_label_is_named() {
    assert_snapshot!(with_data(rows(9).replacen(",warm\n", ",\n", 1)).fail(&RUN));
}

#[test]
fn a_row_with_too_few_fields_is_named() {
    assert_snapshot!(with_data(rows(9).replacen(",warm\n", "\n", 1)).fail(&RUN));
}

#[test]
fn a_label_that_only_the_test_file_has_is_named_with_its_line() {
    let workshop = Workshop::tiny();
    workshop.write("test.csv", "text,label\nthe snow,cold\nthe film,hot\n");
    let with_test =
        TINY_PIPELINE.replace("\"train.csv\" }", "\"train.csv\" }\ntest = { path = \"test.csv\" }");
    workshop.write_pipeline(&with_test);
    let stderr = workshop.fail(&RUN);
    assert!(stderr.contains("test.csv:3:") && stderr.contains("`hot`"), "{stderr}");
    assert_snapshot!(stderr);
}

#[test]
fn a_model_file_that_is_not_there_is_named() {
    let workshop = Workshop::tiny();
    let run = ["run", "pipeline.toml", "--set", "model.path=model"];
    assert_snapshot!("a_model_folder_that_is_not_there", workshop.fail(&run));
    let model = workshop.copy_model("model");
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    assert_snapshot!(workshop.fail(&run));
}

#[test]
fn damaged_weights_are_named() {
    let run = ["run", "pipeline.toml", "--set", "model.path=model"];
    let weights = |change: fn(&mut Vec<u8>)| {
        let workshop = Workshop::tiny();
        let path = workshop.copy_model("model").join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        workshop.fail(&run)
    };
    assert_snapshot!("truncated_weights", weights(|bytes| bytes.truncate(bytes.len() - 1000)));
    assert_snapshot!(
        "weights_of_another_kind",
        weights(|bytes| *bytes = b"<html>not found</html>".to_vec())
    );
    assert_snapshot!("empty_weights", weights(Vec::clear));
    let one_name = |bytes: &mut Vec<u8>| {
        let name = b"encoder.layer.1.output.dense.bias";
        let place = bytes.windows(name.len()).position(|window| window == name).unwrap();
        bytes[place] = b'x';
    };
    assert_snapshot!("weights_that_lack_a_tensor", weights(one_name));
}

#[test]
fn a_damaged_config_or_tokenizer_is_named() {
    let workshop = Workshop::tiny();
    let model = workshop.copy_model("model");
    let run = ["run", "pipeline.toml", "--set", "model.path=model"];
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    for (name, content) in [
        ("a_config_that_is_no_json", "{ \"model_type\": ".to_string()),
        ("a_config_of_another_family", config.replace("\"bert\"", "\"roformer\"")),
        ("a_config_of_other_weights", config.replace("\"hidden_size\": 32", "\"hidden_size\": 64")),
    ] {
        std::fs::write(model.join("config.json"), content).unwrap();
        assert_snapshot!(name, workshop.fail(&run));
    }
    std::fs::write(model.join("config.json"), &config).unwrap();
    std::fs::write(model.join("tokenizer.json"), "[]").unwrap();
    assert_snapshot!("a_tokenizer_of_another_kind", workshop.fail(&run));
}

#[test]
fn a_text_longer_than_the_model_can_read_is_refused_before_work() {
    assert_snapshot!(Workshop::tiny().fail(&[
        "run",
        "pipeline.toml",
        "--set",
        "cache.max_length=65"
    ]));
}

/// Compiles a shared library from C. Returns `None`, after a message, if there is no compiler.
fn library(workshop: &Workshop, code: &str) -> Option<PathBuf> {
    workshop.write("library.c", code);
    let path = workshop.path("libonnxruntime.so");
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&path)
        .arg(workshop.path("library.c"))
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        say("skipped: there is no C compiler to make a false ONNX Runtime with");
        return None;
    }
    Some(path)
}

const OLD_RUNTIME: &str = r#"
static const void *api(unsigned version) { return 0; }
static const char *version(void) { return "1.10.0"; }
static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = { api, version };
const void *OrtGetApiBase(void) { return &base; }
"#;

#[test]
fn an_onnx_runtime_of_the_wrong_version_is_refused() {
    let workshop = Workshop::tiny();
    if library(&workshop, OLD_RUNTIME).is_some() {
        assert_snapshot!(workshop.fail(&[
            "run",
            "pipeline.toml",
            "--ort-lib",
            "libonnxruntime.so"
        ]));
    }
}

#[test]
fn a_library_that_is_no_onnx_runtime_is_refused() {
    let workshop = Workshop::tiny();
    if library(&workshop, "int answer(void) { return 42; }").is_some() {
        assert_snapshot!(workshop.fail(&[
            "run",
            "pipeline.toml",
            "--ort-lib",
            "libonnxruntime.so"
        ]));
    }
    let workshop = Workshop::tiny();
    workshop.write("text.so", "no library at all");
    assert_snapshot!(
        "a_file_that_is_no_library",
        workshop.fail(&["run", "pipeline.toml", "--ort-lib", "text.so"])
    );
}

#[test]
fn a_library_that_is_not_there_is_named() {
    let workshop = Workshop::tiny();
    assert_snapshot!(workshop.fail(&[
        "run",
        "pipeline.toml",
        "--ort-lib",
        "nowhere/libonnxruntime.so"
    ]));
    let workshop = Workshop::tiny();
    let mut command = workshop.command(&RUN);
    command.env("ORT_DYLIB_PATH", "elsewhere/libonnxruntime.so");
    let ran = crate::support::finish(command);
    assert!(ran.has_failed());
    assert_snapshot!("a_library_that_is_not_there_by_variable", workshop.normalise(&ran.stderr));
}

#[test]
fn cuda_that_cannot_be_had_is_an_error_and_never_a_run_on_the_cpu() {
    if repository().join("runtime/libonnxruntime_providers_cuda.so").exists() {
        say("skipped: the runtime of this checkout has a CUDA provider");
        return;
    }
    let workshop = Workshop::tiny();
    assert_snapshot!(workshop.fail(&["run", "pipeline.toml", "--set", "model.device=cuda"]));
    assert!(!workshop.path("runs").exists());
    let stderr = workshop.fail(&["run", "pipeline.toml", "--set", "model.device=cuda:3"]);
    assert!(stderr.contains("cuda:3"), "{stderr}");
    assert_snapshot!(
        "an_unknown_device",
        workshop.fail(&["run", "pipeline.toml", "--set", "model.device=gpu"])
    );
}

#[test]
fn half_precision_on_a_cpu_points_to_the_type_that_is_stored() {
    assert_snapshot!(Workshop::tiny().fail(&[
        "run",
        "pipeline.toml",
        "--set",
        "model.precision=f16"
    ]));
}

#[test]
fn a_cache_file_with_one_flipped_byte_is_named() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["extract", "pipeline.toml"]);
    let path = workshop.cache().join("shard-000000/mean-L02.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_snapshot!(workshop.fail(&["train", "pipeline.toml"]));
}

#[test]
fn training_without_a_cache_says_what_to_run_first() {
    let workshop = Workshop::tiny();
    assert_snapshot!(workshop.fail(&["train", "pipeline.toml"]));
    workshop.succeed(&["extract", "pipeline.toml"]);
    let other_length = ["train", "pipeline.toml", "--set", "cache.max_length=16"];
    assert_snapshot!("training_with_a_cache_of_another_length", workshop.fail(&other_length));
    assert_snapshot!(
        "training_on_a_state_that_is_not_stored",
        workshop.fail(&["train", "pipeline.toml", "--set", "head.pooling=cls"])
    );
    workshop.write("train.csv", rows(200));
    assert_snapshot!(
        "training_on_rows_that_are_not_cached",
        workshop.fail(&["train", "pipeline.toml"])
    );
}

#[test]
fn a_head_that_the_cache_would_not_hold_is_refused_before_work() {
    let workshop = Workshop::tiny();
    assert_snapshot!(workshop.fail(&["run", "pipeline.toml", "--set", "cache.store=[\"cls\"]"]));
    assert!(!workshop.path("cache").exists());
    let layer = ["run", "pipeline.toml", "--set", "head.layers=[7]"];
    assert_snapshot!("a_layer_that_the_model_has_not", workshop.fail(&layer));
}

#[test]
fn predicting_without_a_run_says_what_to_name() {
    let workshop = Workshop::tiny();
    assert_snapshot!(workshop.fail(&["predict", "runs/tiny", "--text", "the snow"]));
    std::fs::create_dir(workshop.path("empty")).unwrap();
    assert_snapshot!(
        "predicting_with_an_empty_folder",
        workshop.fail(&["predict", "empty", "--text", "the snow"])
    );
    assert_snapshot!(
        "evaluating_without_a_run",
        workshop.fail(&["evaluate", "runs/tiny", "--data", "train.csv"])
    );
}

#[test]
fn a_cache_folder_that_is_none_is_named() {
    let workshop = Workshop::tiny();
    assert_snapshot!(workshop.fail(&["cache", "info", "nowhere"]));
    assert_snapshot!(
        "verifying_a_folder_without_caches",
        workshop.fail(&["cache", "verify", "nowhere"])
    );
}

#[test]
fn a_training_that_diverges_is_stopped() {
    let settings =
        ["run", "pipeline.toml", "--set", "train.optimizer=sgd", "--set", "train.lr=1e30"];
    assert_snapshot!(Workshop::tiny().fail(&settings));
}
