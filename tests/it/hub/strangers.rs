//! A hub, or something that answers in its place, that asks for a token, for too much disk space, or for file names of
//! its own choice.

use serde_json::{Value, json};

use super::{
    PULL, fail, run_with,
    server::{COMMIT, Hub, tiny_bert},
    succeed,
};
use crate::support::Workshop;

#[test]
fn another_port_of_the_hubs_host_gets_no_token() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    hub.store_beside();
    hub.require_token("hf_right");
    let ran = run_with(&workshop, &hub, &PULL, &[("HF_TOKEN", "hf_right")]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (own, other): (Vec<_>, Vec<_>) = hub.asked().into_iter().partition(|request| request.own);
    assert!(own.iter().all(|request| request.authorization.is_some()));
    assert!(!other.is_empty() && other.iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_model_that_the_disk_cannot_hold_is_not_begun_unless_it_is_wanted() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    hub.announce("model.safetensors", 1 << 49);
    let stderr = fail(&workshop, &hub, &PULL);
    assert!(stderr.contains("expected room for 562949953.4 MB in `models/tiny`"), "{stderr}");
    assert!(stderr.contains("--yes"), "{stderr}");
    let asked = |file: &str| hub.asked().iter().any(|asked| asked.path.contains(file));
    assert!(asked("config.json") && !asked("model.safetensors"));
    // The file is smaller than its listed size.
    let stderr = fail(&workshop, &hub, &[&PULL[..], &["--yes"]].concat());
    assert!(stderr.contains("before the transfer ended"), "{stderr}");
    assert!(asked("model.safetensors"));
}

#[test]
fn a_list_of_files_with_what_can_be_no_commit_hash_or_size_is_refused() {
    let file = |name: &str, hash: &str, size: u64| {
        if name.ends_with(".safetensors") {
            json!({ "rfilename": name, "lfs": { "sha256": hash, "size": size } })
        } else {
            json!({ "rfilename": name, "blobId": hash, "size": size })
        }
    };
    let sound = |name: &str| {
        let digits = if name.ends_with(".safetensors") { 64 } else { 40 };
        file(name, &"a".repeat(digits), 10)
    };
    let list = |commit: &str, config: Value, last: Value| json!({ "sha": commit, "siblings": [config, sound("tokenizer.json"), last] });
    let weights = sound("model.safetensors");
    let up = "../".repeat(20);
    for (list, words) in [
        (
            list("../../x", sound("config.json"), weights.clone()),
            "a commit of 40 hexadecimal digits",
        ),
        (
            list(COMMIT, file("config.json", &up[..40], 10), weights.clone()),
            "size and hash of `config.json`",
        ),
        (
            list(COMMIT, file("config.json", &"é".repeat(20), 10), weights.clone()),
            "size and hash of `config.json`",
        ),
        (
            list(COMMIT, file("config.json", &"a".repeat(40), u64::MAX), weights),
            "bytes of `config.json`",
        ),
        (list(COMMIT, sound("config.json"), sound("config.json")), "`config.json` twice"),
        (json!([[]]), "cannot be parsed"),
    ] {
        let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
        hub.list_always(list);
        let stderr = fail(&workshop, &hub, &PULL);
        assert!(stderr.contains(words), "{words}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn a_shard_that_is_no_file_of_weights_is_refused() {
    let (workshop, mut files) = (Workshop::empty(), tiny_bert());
    files.remove("model.safetensors");
    let index = json!({ "weight_map": { "x": "tokenizer.json" } });
    files.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
    let hub = Hub::of(files);
    let stderr = fail(&workshop, &hub, &PULL);
    assert!(stderr.contains("does not end with .safetensors"), "{stderr}");
    let hub = Hub::of(tiny_bert());
    succeed(&workshop, &hub, &PULL);
}
