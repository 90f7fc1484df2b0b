//! Model folders in old forms: pytorch_model.bin beside the safetensors of the same weights, and vocabularies without a
//! tokenizer.json beside the fast tokenizers of `transformers`. The files are made by `scripts/fixtures/old_forms.py`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use frostbert::internals::{
    data::document::Document,
    encoder::{
        checkpoint::Checkpoint, tokenizer::TextTokenizer, tokenizer_file::TokenizerFile,
        windows::Overflow,
    },
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    families::{open_session, run},
    support::{Workshop, fixture, read_json},
};

/// The folders in tests/fixtures/old_forms/tokenizers.
const TOKENIZERS: [&str; 9] = [
    "bert",
    "bert_named",
    "bert_cased",
    "mpnet",
    "roberta",
    "xlm_roberta",
    "camembert",
    "deberta_v2",
    "albert",
];

fn weights(name: &str) -> PathBuf {
    fixture("old_forms/weights").join(name)
}

fn tokenizer(name: &str) -> PathBuf {
    fixture("old_forms/tokenizers").join(name)
}

/// Makes a model folder of the small BERT, with these files of weights under other names.
fn model(workshop: &Workshop, folder: &str, files: &[(&str, &str)]) -> PathBuf {
    let target = workshop.path(folder);
    fs::create_dir(&target).unwrap();
    for (from, to) in
        [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json")].iter().chain(files)
    {
        fs::copy(weights(from), target.join(to)).unwrap();
    }
    target
}

/// The states of both layers for a few tokens.
fn states(folder: &Path) -> Vec<Vec<f32>> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let window = (vec![2, 11, 47, 5, 89, 3], vec![0, 0, 0, 1, 1, 1]);
    let mut session = open_session(&checkpoint, &[0, 1]);
    run(&mut session, &[&window], checkpoint.config.hidden).remove(0)
}

fn hash(folder: &Path) -> String {
    Checkpoint::open(folder).unwrap().hashes.weights.to_string()
}

fn refusal(folder: &Path) -> String {
    let Err(error) = Checkpoint::open(folder) else { panic!("`{}` is opened", folder.display()) };
    format!("{error}; {}", error.hint().unwrap())
}

#[test]
fn weights_of_torch_give_the_states_of_the_same_safetensors_to_the_bit() {
    for (file, same) in [
        ("f32.bin", "f32.safetensors"),
        ("old_names.bin", "f32.safetensors"),
        ("legacy.bin", "f32.safetensors"),
        ("f16.bin", "f16.safetensors"),
        ("bf16.bin", "bf16.safetensors"),
    ] {
        let workshop = Workshop::empty();
        let of_torch = model(&workshop, "torch", &[(file, "pytorch_model.bin")]);
        let plain = model(&workshop, "plain", &[(same, "model.safetensors")]);
        let expected = states(&plain);
        assert!(expected[1].iter().any(|value| value.abs() > 0.1), "{file}");
        assert_eq!(states(&of_torch), expected, "{file}");
        let parameters = |folder: &Path| Checkpoint::open(folder).unwrap().parameters().unwrap();
        assert_eq!(parameters(&of_torch), parameters(&plain), "{file}");
    }
}

#[test]
fn the_tensors_of_a_whole_sentence_transformer_give_the_states_of_its_encoder() {
    let workshop = Workshop::empty();
    let plain = model(&workshop, "plain", &[("f32.safetensors", "model.safetensors")]);
    let bytes = fs::read(plain.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for (number, prefix) in ["0.auto_model.", "auto_model."].into_iter().enumerate() {
        let folder = model(&workshop, &format!("saved_{number}"), &[]);
        let named = tensors.tensors().into_iter();
        let named = named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
        // A Dense module that follows is no part of the encoder.
        let dense = tensors.tensor("embeddings.token_type_embeddings.weight").unwrap();
        let named = named.chain([("2.linear.weight".to_string(), dense)]);
        let saved = safetensors::serialize(named, None).unwrap();
        fs::write(folder.join("model.safetensors"), saved).unwrap();
        assert_eq!(states(&folder), states(&plain), "{prefix}");
        let parameters = |folder: &Path| Checkpoint::open(folder).unwrap().parameters().unwrap();
        assert_eq!(parameters(&folder), parameters(&plain), "{prefix}");
    }
}

#[test]
fn shards_of_torch_give_the_states_of_one_file() {
    let workshop = Workshop::empty();
    let names = [
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ];
    let sharded = model(&workshop, "sharded", &names.map(|name| (name, name)));
    let plain = model(&workshop, "plain", &[("f32.safetensors", "model.safetensors")]);
    assert_eq!(states(&sharded), states(&plain));
    let report = workshop.json(&["model", "verify", "sharded"]);
    assert_eq!(report["damaged"], json!([]));
    assert_eq!(report["files"], json!(5));

    let before = hash(&sharded);
    let shard = sharded.join(names[2]);
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, bytes).unwrap();
    assert_ne!(hash(&sharded), before);
    fs::remove_file(&shard).unwrap();
    let message = refusal(&sharded);
    assert!(message.contains(names[2]) && message.contains("fetch this shard"), "{message}");
}

#[test]
fn the_weights_of_a_model_are_its_safetensors_where_there_are_both() {
    let workshop = Workshop::empty();
    let both = [("f32.safetensors", "model.safetensors"), ("f16.bin", "pytorch_model.bin")];
    let folder = model(&workshop, "model", &both);
    let safetensors = hash(&folder);
    fs::remove_file(folder.join("pytorch_model.bin")).unwrap();
    assert_eq!(hash(&folder), safetensors);

    let of_torch = model(&workshop, "torch", &[("f16.bin", "pytorch_model.bin")]);
    let path = of_torch.join("pytorch_model.bin");
    let file = frostbert::cache::fingerprint::hash_file(&path).unwrap();
    assert_eq!(hash(&of_torch), file.to_string());
}

#[test]
fn a_file_that_would_run_something_is_refused_by_the_name_of_it() {
    let workshop = Workshop::empty();
    let folder = model(&workshop, "model", &[("f32.bin", "pytorch_model.bin")]);
    let path = folder.join("pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    for (bytes, what) in [
        (b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.".to_vec(), "`posix.system`"),
        (whole[..whole.len() - 9].to_vec(), "cut off"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "torch.save did not write"),
        (Vec::new(), "0 bytes"),
    ] {
        fs::write(&path, bytes).unwrap();
        let message = refusal(&folder);
        assert!(message.contains("pytorch_model.bin") && message.contains(what), "{message}");
        assert!(message.contains("save_pretrained"), "{message}");
        let report = workshop.run(&["model", "verify", "model"]);
        assert!(report.stdout.contains("damaged: model/pytorch_model.bin"), "{}", report.stdout);
    }
}

#[test]
fn every_tokenizer_that_is_built_gives_the_tokens_of_transformers() {
    for name in TOKENIZERS {
        let folder = tokenizer(name);
        let path = folder.join("tokenizer.json");
        assert!(!path.exists());
        let tokenizer = TextTokenizer::open(&path, 512, Overflow::Truncate).unwrap();
        let expected = read_json(&folder.join("expected.json"));
        let texts = expected["texts"].as_array().unwrap();
        assert_eq!(texts.len(), 21);
        for text in texts {
            let first = text["text"].as_str().unwrap();
            let input = match text["text_pair"].as_str() {
                Some(second) => Document::Pair(first, second),
                None => Document::Text(first),
            };
            let encoding = tokenizer.encode(&[input], false).unwrap();
            let window = &encoding[0].windows[0];
            assert_eq!(json!(window.ids), text["ids"], "{name}: {first:?}");
            assert_eq!(json!(window.type_ids), text["type_ids"], "{name}: {first:?}");
            if text["text_pair"].is_null() {
                let table = tokenizer.table(first).unwrap();
                assert_eq!(json!(table.ids), text["ids"], "{name}: {first:?}");
                assert_eq!(json!(table.offsets), text["offsets"], "{name}: {first:?}");
            }
        }
    }
}

/// Opens the tokenizer of a folder with `model.lowercase`.
fn in_case(folder: &Path, lowercase: Option<bool>) -> Result<TokenizerFile, String> {
    let file = TokenizerFile::open_with_lowercase(&folder.join("tokenizer.json"), lowercase);
    file.map_err(|error| error.to_string())
}

#[test]
fn a_vocabulary_with_capitals_keeps_case_and_says_so_unless_a_file_or_the_user_decides() {
    let warning = |name: &str, lowercase| in_case(&tokenizer(name), lowercase).unwrap().warning;
    assert_eq!(warning("bert", None), None);
    assert_eq!(warning("bert_named", None), None);
    let cased = warning("bert_cased", None).unwrap();
    assert!(cased.contains("vocab.txt has") && cased.contains("model.lowercase"), "{cased}");
    for lowercase in [false, true] {
        assert_eq!(warning("bert_cased", Some(lowercase)), None);
    }
    for (name, lowercase) in [("bert", true), ("bert_named", false), ("bert_cased", false)] {
        let hash = |lowercase| in_case(&tokenizer(name), lowercase).unwrap().blake3;
        assert_ne!(hash(Some(true)), hash(Some(false)), "{name}");
        assert_eq!(hash(None), hash(Some(lowercase)), "{name}");
    }
    // ALBERT's and DeBERTa's have the choice too; the others never convert a text.
    for (name, is_refused) in [
        ("albert", false),
        ("deberta_v2", false),
        ("mpnet", false),
        ("roberta", true),
        ("xlm_roberta", true),
        ("camembert", true),
    ] {
        let opened = in_case(&tokenizer(name), Some(true));
        assert_eq!(opened.is_err(), is_refused, "{name}");
        if let Err(message) = opened {
            assert!(message.contains("model.lowercase"), "{message}");
        }
    }
}

#[test]
fn the_tokenizer_of_a_folder_is_the_one_of_its_class_and_a_missing_or_strange_one_is_named() {
    let workshop = Workshop::empty();
    let folder = workshop.path("model");
    fs::create_dir(&folder).unwrap();
    let vocab = fs::read(tokenizer("bert").join("vocab.txt")).unwrap();
    fs::write(folder.join("vocab.txt"), &vocab).unwrap();
    fs::write(folder.join("config.json"), r#"{"model_type": "distilbert"}"#).unwrap();
    let hash = |folder: &Path| in_case(folder, None).unwrap().blake3;
    assert_eq!(hash(&folder), hash(&tokenizer("bert")));
    let class = |class: &str| {
        let config = json!({ "tokenizer_class": class }).to_string();
        fs::write(folder.join("tokenizer_config.json"), config).unwrap();
        in_case(&folder, None)
    };
    assert!(class("ElectraTokenizerFast").is_ok());
    let strange = class("BertJapaneseTokenizer").unwrap_err();
    assert!(strange.contains("`BertJapaneseTokenizer`"), "{strange}");
    let missing = class("RobertaTokenizer").unwrap_err();
    assert!(missing.contains("vocab.json") && missing.contains("merges.txt"), "{missing}");
    let damaged = class("MPNetTokenizer").map(|file| file.vocabulary);
    assert!(damaged.is_ok(), "{damaged:?}");
    fs::write(folder.join("vocab.txt"), "a\nb\n").unwrap();
    let damaged = class("BertTokenizer").unwrap_err();
    assert!(damaged.contains("vocab.txt") && damaged.contains("no `[UNK]`"), "{damaged}");
    fs::write(folder.join("vocab.txt"), &vocab).unwrap();
    fs::write(folder.join("added_tokens.json"), r#"{"<new>": 7}"#).unwrap();
    let moved = class("BertTokenizer").unwrap_err();
    assert!(moved.contains("the id 7 for `<new>`"), "{moved}");
    fs::write(folder.join("added_tokens.json"), "[]").unwrap();
    assert!(class("BertTokenizer").unwrap_err().contains("added_tokens.json"));
}

#[test]
fn a_sentencepiece_model_that_is_cut_off_is_refused() {
    let workshop = Workshop::empty();
    // The ends of the last piece, and of the part about training after it.
    for (name, file, pieces_end, training_end) in [
        ("deberta_v2", "spm.model", 4108, 4180),
        ("xlm_roberta", "sentencepiece.bpe.model", 4104, 4132),
    ] {
        let folder = workshop.path(name);
        fs::create_dir(&folder).unwrap();
        fs::copy(tokenizer(name).join("config.json"), folder.join("config.json")).unwrap();
        let whole = fs::read(tokenizer(name).join(file)).unwrap();
        let opened = |end: usize| {
            fs::write(folder.join(file), &whole[..end]).unwrap();
            in_case(&folder, None)
        };
        assert!(opened(whole.len()).is_ok(), "{name}");
        for (end, what) in [
            (0, "0 bytes that are none, or not all of one"),
            (1, "1 bytes that are none, or not all of one"),
            (pieces_end - 1, "not all of one"),
            (pieces_end, "do not say how it was trained"),
            (training_end, "do not say how texts are normalised"),
            (whole.len() - 1, "not all of one"),
        ] {
            let message = opened(end).unwrap_err();
            assert!(message.contains(file) && message.contains(what), "{name}, {end}: {message}");
        }
    }
}

/// The small BERT of the tests with a vocab.txt in place of its tokenizer.json.
fn without_tokenizer_json(workshop: &Workshop, change: impl Fn(&str) -> String) -> PathBuf {
    let folder = workshop.copy_model("model");
    let path = folder.join("tokenizer.json");
    let vocab: Value = read_json(&path)["model"]["vocab"].clone();
    let mut pieces: Vec<(&String, &Value)> = vocab.as_object().unwrap().iter().collect();
    pieces.sort_by_key(|(_, id)| id.as_u64());
    let lines: String = pieces.iter().map(|(piece, _)| change(piece) + "\n").collect();
    fs::write(folder.join("vocab.txt"), lines).unwrap();
    fs::remove_file(path).unwrap();
    folder
}

#[test]
fn the_tokenizer_that_was_built_is_kept_in_the_cache_and_is_part_of_its_fingerprint() {
    let workshop = Workshop::tiny();
    let folder = without_tokenizer_json(&workshop, str::to_string);
    let extract = ["extract", "pipeline.toml", "--set", "model.path=model"];
    let built = workshop.json(&extract);
    let kept = workshop.path(built["cache"].as_str().unwrap()).join("tokenizer.json");
    fs::copy(&kept, folder.join("tokenizer.json")).unwrap();
    let given = workshop.json(&extract);
    assert_eq!(given["fingerprint"], built["fingerprint"]);
    assert_eq!(given["computed"], json!(0));
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    assert_eq!(workshop.json(&["model", "verify", "model"])["damaged"], json!([]));
    let info = workshop.succeed(&["model", "info", "model"]).stdout;
    assert!(info.contains("built from model/vocab.txt"), "{info}");
    let tokens = workshop.json(&["tokenize", "--model", "model", "--text", "The film"]);
    assert_eq!(tokens["ids"].as_array().unwrap().len(), 4);

    // Another vocabulary is another model.
    let vocab = fs::read_to_string(folder.join("vocab.txt")).unwrap();
    fs::write(folder.join("vocab.txt"), vocab.replace("\nfilm\n", "\nfilms\n")).unwrap();
    let other = workshop.json(&extract);
    assert_ne!(other["fingerprint"], built["fingerprint"]);
}

#[test]
fn a_run_on_a_vocabulary_with_capitals_warns_and_model_lowercase_is_part_of_the_run() {
    let workshop = Workshop::tiny();
    without_tokenizer_json(&workshop, |piece| piece.replace("film", "Film"));
    let run = |case: &str| {
        let case = format!("model.lowercase={case}");
        workshop.run(&["run", "pipeline.toml", "--set", "model.path=model", "--set", &case])
    };
    let plain = workshop.run(&["run", "pipeline.toml", "--set", "model.path=model"]);
    assert!(plain.stderr.contains("model.lowercase"), "{}", plain.stderr);
    for case in ["true", "false"] {
        let ran = run(case);
        assert!(!ran.stderr.contains("model.lowercase"), "{}", ran.stderr);
    }
    let fingerprint = |number: &str| {
        let lock = read_json(&workshop.path(&format!("runs/tiny/{number}/lock.json")));
        lock["cache"]["fingerprint"].clone()
    };
    // What was taken, and the same when it is said.
    assert_eq!(fingerprint("001"), fingerprint("003"));
    assert_ne!(fingerprint("001"), fingerprint("002"));
    workshop.write("new.csv", "text\nthe Film is good\n");
    workshop.succeed(&["predict", "runs/tiny/002", "new.csv", "--out", "out.csv"]);
    workshop.succeed(&["run", "--locked", "runs/tiny/002/lock.json"]);
}

#[test]
fn model_lowercase_is_refused_for_a_tokenizer_without_case() {
    let workshop = Workshop::tiny();
    let folder = workshop.copy_model("model");
    let path = folder.join("tokenizer.json");
    let mut json = read_json(&path);
    json["normalizer"] = Value::Null;
    fs::write(&path, json.to_string()).unwrap();
    let set = ["--set", "model.path=model", "--set", "model.lowercase=false"];
    let stderr = workshop.fail(&[&["extract", "pipeline.toml"][..], &set].concat());
    assert!(stderr.contains("tokenizer.json") && stderr.contains("model.lowercase"), "{stderr}");
}
