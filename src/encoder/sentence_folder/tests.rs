use std::fs;

use super::*;
use crate::encoder::prompts::include_prompt;

const NEW: &str = "sentence_transformers.sentence_transformer.modules.pooling.Pooling";

/// A folder with these modules after the encoder, the first of which is a pooling with these settings.
fn folder(modules: &[&str], pooling: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let listed = modules.iter().enumerate().map(|(place, class)| {
        let path = if place == 0 { String::new() } else { format!("{place}_module") };
        fs::create_dir_all(folder.path().join(&path)).unwrap();
        serde_json::json!({ "idx": place, "name": place.to_string(), "path": path, "type": class })
    });
    let listed = Value::Array(listed.collect()).to_string();
    fs::write(folder.path().join(MODULES), listed).unwrap();
    if modules.len() > 1 {
        fs::write(folder.path().join("1_module/config.json"), pooling).unwrap();
    }
    folder
}

fn read(folder: &tempfile::TempDir) -> SentenceFolder {
    SentenceFolder::read(folder.path()).unwrap().unwrap()
}

fn poolings(pooling: &str) -> Result<Vec<Pooling>> {
    read(&folder(&["sentence_transformers.models.Transformer", NEW], pooling)).poolings(None)
}

#[test]
fn a_pooling_is_read_in_both_spellings_and_several_are_kept_in_their_order() {
    use Pooling::{Cls, Max, Mean};
    for (settings, expected) in [
        (r#"{"pooling_mode": "cls"}"#, vec![Cls]),
        (r#"{"pooling_mode": ["mean", "max"]}"#, vec![Mean, Max]),
        (r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#, vec![Mean]),
        (
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true, "pooling_mode_cls_token": true}"#,
            vec![Cls, Max, Mean],
        ),
        (r#"{"pooling_mode_cls_token": false}"#, vec![Mean]),
        // The new key counts.
        (r#"{"pooling_mode": "max", "pooling_mode_cls_token": true}"#, vec![Max]),
    ] {
        assert_eq!(poolings(settings).unwrap(), expected, "{settings}");
    }
}

#[test]
fn a_pooling_that_is_not_computed_is_refused_by_its_name() {
    for settings in [
        r#"{"pooling_mode": "lasttoken"}"#,
        r#"{"pooling_mode": ["mean", "lasttoken"]}"#,
        r#"{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": true}"#,
    ] {
        let error = poolings(settings).unwrap_err().to_string();
        assert!(error.contains("got `lasttoken`, which this program does not compute"), "{error}");
    }
    let error = poolings(r#"{"pooling_mode": 3}"#).unwrap_err().to_string();
    assert!(error.ends_with("got 3"), "{error}");
}

#[test]
fn classes_that_are_not_run_are_refused_by_their_names() {
    let transformer = "sentence_transformers.base.modules.transformer.Transformer";
    for (modules, named) in [
        (&["sentence_transformers.models.StaticEmbedding"][..], "models.StaticEmbedding`"),
        (&["sentence_transformers.base.modules.router.Router", NEW], "router.Router`"),
        (&[transformer, "sentence_transformers.models.WeightedLayerPooling"], "LayerPooling`"),
        (&[transformer, NEW, "sentence_transformers.models.LayerNorm"], "models.LayerNorm`"),
        (&["custom_st.Transformer", NEW], "custom_st.Transformer`"),
        (&[transformer], "the encoder alone"),
    ] {
        let error = read(&folder(modules, "{}")).poolings(None).unwrap_err().to_string();
        assert!(error.contains(named), "{modules:?}: {error}");
    }
    // Where the folder holds no checkpoint either, there is nothing to run.
    let router = folder(&["sentence_transformers.models.Router"], "{}");
    let error = encoder_folder(router.path()).unwrap_err().to_string();
    assert!(error.contains("`sentence_transformers.models.Router`"), "{error}");
    fs::write(router.path().join("config.json"), "{}").unwrap();
    assert_eq!(encoder_folder(router.path()).unwrap(), router.path());
}

#[test]
fn whether_prompts_are_pooled_is_read_where_the_pooling_lies() {
    let left_out = r#"{"include_prompt": false}"#;
    let folder = folder(&["sentence_transformers.models.Transformer", NEW], left_out);
    let counts = || include_prompt(&pooling_folder(folder.path()).unwrap()).unwrap();
    assert!(!counts());
    fs::remove_file(folder.path().join(MODULES)).unwrap();
    assert!(counts());
    fs::rename(folder.path().join("1_module"), folder.path().join("1_Pooling")).unwrap();
    assert!(!counts());
}

#[test]
fn what_goes_to_transformers_as_it_is_is_said_to_have_no_effect() {
    let folder = folder(&["sentence_transformers.models.Transformer", NEW], "{}");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let plain = r#"{"max_seq_length": 24, "tokenizer_args": {}, "processing_kwargs": null}"#;
    write("sentence_bert_config.json", plain);
    assert!(read(&folder).ignored().unwrap().is_empty());
    let modules = r#"[{"path": "", "type": "a.Transformer", "kwargs": ["task"]},
                      {"path": "1_module", "type": "a.Pooling", "kwargs": []}]"#;
    write(MODULES, modules);
    let given =
        r#"{"tokenizer_args": {"model_max_length": 8}, "processing_kwargs": {"text": {"a": 1}}}"#;
    write("sentence_bert_config.json", given);
    assert_eq!(
        read(&folder).ignored().unwrap(),
        [
            r#"tokenizer_args = {"model_max_length":8}"#,
            r#"processing_kwargs = {"text":{"a":1}}"#,
            r#"kwargs = ["task"] of Transformer"#,
        ]
    );
}

#[test]
fn a_module_outside_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["../other", "/other"] {
        let listed = format!(
            r#"[{{"path": "{path}", "type": "sentence_transformers.models.Transformer"}}]"#
        );
        fs::write(folder.path().join(MODULES), listed).unwrap();
        let error = SentenceFolder::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("modules inside the folder"), "{error}");
    }
    fs::write(folder.path().join(MODULES), "{}").unwrap();
    assert!(SentenceFolder::read(folder.path()).is_err());
    fs::remove_file(folder.path().join(MODULES)).unwrap();
    assert!(SentenceFolder::read(folder.path()).unwrap().is_none());
}

#[test]
fn the_longest_input_is_the_folders_and_never_more_than_the_positions() {
    let folder = folder(&["sentence_transformers.models.Transformer", NEW], "{}");
    let length = || read(&folder).max_length().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    assert_eq!(length(), None);
    write("tokenizer_config.json", r#"{"model_max_length": 1000000000000000019884624838656}"#);
    assert_eq!(length(), None);
    write("config.json", r#"{"model_type": "other", "max_position_embeddings": 512}"#);
    assert_eq!(length(), Some(512));
    write("tokenizer_config.json", r#"{"model_max_length": 384}"#);
    assert_eq!(length(), Some(384));
    write("sentence_bert_config.json", r#"{"max_seq_length": 256, "do_lower_case": false}"#);
    assert_eq!(length(), Some(256));
    write("sentence_bert_config.json", r#"{"max_seq_length": 1024}"#);
    assert_eq!(length(), Some(512));
}
