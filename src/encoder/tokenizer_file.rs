//! Reads and hashes tokenizer.json as it is used, with the normaliser that tokenizer_config.json asks for. Without a
//! tokenizer.json, it is built from the files of older folders.

use std::path::{Path, PathBuf};

use frostbert_cache::fingerprint::{self, Digest};
use serde_json::{Value, json};

use super::{
    config::{ConfigFile, MOST_SIZE},
    tokenizer_parts::{self, BuiltTokenizer},
};
use crate::error::{Error, Result};

/// The tokenizers that `transformers` (5.24) rebuilds from tokenizer_config.json with BERT's normaliser, whatever
/// tokenizer.json contains; their older names end in `Fast`.
const BUILT_FROM_CONFIG: [&str; 11] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "MPNetTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
    "LxmertTokenizer",
    "LayoutLMTokenizer",
    "LayoutLMv2Tokenizer",
    "FunnelTokenizer",
    "SplinterTokenizer",
];

/// The tokenizers that are taken from tokenizer.json unchanged or that ignore `do_lower_case`.
const TAKEN_AS_IT_IS: [&str; 7] = [
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "ConvBertTokenizer",
    "RobertaTokenizer",
    "XLMRobertaTokenizer",
    "CamembertTokenizer",
    "DebertaTokenizer",
];

/// The model families whose tokenizers are in [`BUILT_FROM_CONFIG`], for configs that name no tokenizer class.
const WITH_SUCH_A_TOKENIZER: [&str; 19] = [
    "bert",
    "distilbert",
    "electra",
    "mpnet",
    "convbert",
    "ernie",
    "funnel",
    "layoutlm",
    "layoutlmv2",
    "lxmert",
    "megatron-bert",
    "mobilebert",
    "nezha",
    "nomic_bert",
    "qdqbert",
    "realm",
    "retribert",
    "splinter",
    "squeezebert",
];

/// The longest piece allowed in a vocabulary, in bytes; SentencePiece's own have at most 16 characters by default.
const LONGEST_PIECE: usize = 1000;

/// The JSON of a tokenizer.
#[derive(Clone, Debug)]
pub struct TokenizerFile {
    /// The path of tokenizer.json, or of the vocabulary from which it was built.
    pub path: PathBuf,
    /// The blake3 of the JSON in use, which is that of the file unless tokenizer_config.json changes it.
    pub blake3: Digest,
    /// Whether there is no tokenizer.json, and this one was built from the vocabulary in `path`.
    pub is_built: bool,
    /// What was taken although no file of the folder says so.
    pub warning: Option<String>,
    /// One more than the highest id that the tokenizer gives.
    pub vocabulary: usize,
    pub(super) json: Vec<u8>,
}

impl TokenizerFile {
    /// Reads tokenizer.json and, if they exist, tokenizer_config.json and config.json in the same folder.
    ///
    /// `transformers` builds BERT-like tokenizers from tokenizer_config.json: `do_lower_case` (true if absent),
    /// `strip_accents` (the same as lower-casing if absent) and `tokenize_chinese_chars` (true if absent) replace the
    /// normaliser of tokenizer.json. The same happens here; without a tokenizer_config.json, tokenizer.json applies
    /// unchanged.
    ///
    /// If there is no tokenizer.json, it is built from a vocab.txt or another vocabulary in the folder, if there is
    /// one.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is not JSON, there is no vocabulary, or the config of a tokenizer
    /// of another kind asks for a different case than tokenizer.json has.
    pub fn open(path: &Path) -> Result<TokenizerFile> {
        TokenizerFile::open_with_lowercase(path, None)
    }

    /// Like [`TokenizerFile::open`]; `lowercase` decides whether texts are converted to lower case, whatever the files
    /// say.
    ///
    /// # Errors
    /// Returns an error in the same cases, and if `lowercase` is given for a tokenizer without such a choice.
    pub fn open_with_lowercase(path: &Path, lowercase: Option<bool>) -> Result<TokenizerFile> {
        if exists(path) && !path.is_file() {
            let folder = path.parent().unwrap_or(Path::new(""));
            let BuiltTokenizer { path, json, warning } = tokenizer_parts::build(folder, lowercase)?;
            let bytes = json.to_string().into_bytes();
            let vocabulary = check(&path, &json)?;
            return Ok(TokenizerFile::of(path, bytes, vocabulary, true, warning));
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let mut tokenizer: Value = parsed(path, &bytes, "a Hugging Face tokenizer.json")?;
        let vocabulary = check(path, &tokenizer)?;
        let of_config = normalizer_of_config(path, &tokenizer)?;
        let mut normalizer = of_config.unwrap_or_else(|| tokenizer["normalizer"].clone());
        if let Some(lowercase) = lowercase {
            if normalizer["type"] != "BertNormalizer" {
                return Err(tokenizer_parts::refuse_lowercase(path));
            }
            normalizer["lowercase"] = lowercase.into();
        }
        let bytes = if tokenizer["normalizer"] == normalizer {
            bytes
        } else {
            tokenizer["normalizer"] = normalizer;
            tokenizer.to_string().into_bytes()
        };
        Ok(TokenizerFile::of(path.to_path_buf(), bytes, vocabulary, false, None))
    }

    fn of(
        path: PathBuf,
        json: Vec<u8>,
        vocabulary: usize,
        is_built: bool,
        warning: Option<String>,
    ) -> TokenizerFile {
        let blake3 = fingerprint::hash_bytes(&json);
        TokenizerFile { path, blake3, is_built, warning, vocabulary, json }
    }

    /// Returns the tokenizer.json as it is used.
    pub(crate) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Returns the tokenizer.json that was built, if one was.
    pub(crate) fn built_json(&self) -> Option<&[u8]> {
        self.is_built.then_some(&self.json[..])
    }
}

/// Returns whether there is a tokenizer.json at a path, or a vocabulary next to it from which one can be built.
pub(super) fn exists(path: &Path) -> bool {
    path.is_file() || path.parent().is_some_and(tokenizer_parts::exist)
}

/// Checks a tokenizer.json, and returns one more than the highest id that it gives.
fn check(path: &Path, tokenizer: &Value) -> Result<usize> {
    let vocabulary = count_ids(tokenizer).ok_or_else(|| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: "a Hugging Face tokenizer.json".into(),
        got: "one without a vocabulary".into(),
        hint: "fetch the checkpoint again".into(),
    })?;
    if vocabulary > MOST_SIZE {
        return Err(Error::Checkpoint {
            path: path.to_path_buf(),
            expected: format!("ids of tokens below {MOST_SIZE}"),
            got: format!("ids up to {}", vocabulary - 1),
            hint: "fetch the tokenizer.json that belongs to the model".into(),
        });
    }
    check_sizes(path, tokenizer)?;
    Ok(vocabulary)
}

fn parsed(path: &Path, bytes: &[u8], what: &str) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|error| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: what.into(),
        got: format!("a file that cannot be parsed: {error}"),
        hint: "fetch the checkpoint again".into(),
    })
}

/// Rejects sizes at which the crate `tokenizers` runs out of stack or memory, because that failure cannot be caught.
fn check_sizes(path: &Path, tokenizer: &Value) -> Result<()> {
    let refuse = |expected: String, got: String| Error::Checkpoint {
        path: path.to_path_buf(),
        expected,
        got,
        hint: "fetch the tokenizer.json that belongs to the model".into(),
    };
    // A list of pieces with scores becomes a tree whose depth is the length of the longest piece.
    let pieces = tokenizer["model"]["vocab"].as_array().into_iter().flatten();
    let lengths = pieces.filter_map(|piece| piece[0].as_str().map(str::len));
    if let Some(length) = lengths.max().filter(|length| *length > LONGEST_PIECE) {
        return Err(refuse(
            format!("vocabulary pieces of at most {LONGEST_PIECE} bytes"),
            format!("one of {length}"),
        ));
    }
    let mut parts = vec![&tokenizer["normalizer"]];
    while let Some(part) = parts.pop() {
        parts.extend(part["normalizers"].as_array().into_iter().flatten());
        let Some(map) = part["precompiled_charsmap"].as_str() else {
            continue;
        };
        let (said, there) = (tree_bytes(map), map.len() / 4 * 3);
        if said.is_none_or(|said| said > there) {
            let got = match said {
                Some(said) => format!("one that announces {said}"),
                None => "one without a size".into(),
            };
            return Err(refuse(
                format!("a precompiled_charsmap of at most the {there} bytes that are there"),
                got,
            ));
        }
    }
    Ok(())
}

/// Returns the size at the start of a precompiled_charsmap: four bytes, little-endian, in base64.
fn tree_bytes(map: &str) -> Option<usize> {
    let digit = |byte: &u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    // Six digits of six bits each hold four bytes and half of the next.
    let first = map.as_bytes().get(..6)?;
    let bits =
        first.iter().try_fold(0u64, |bits, byte| Some(bits << 6 | u64::from(digit(byte)?)))?;
    Some(((bits >> 4) as u32).swap_bytes() as usize)
}

fn is_word_piece(tokenizer: &Value) -> bool {
    tokenizer["model"]["type"].as_str().is_none_or(|kind| kind == "WordPiece")
}

/// Returns the normaliser that `transformers` builds from the tokenizer_config.json next to tokenizer.json; `None` if
/// there is no such file or the tokenizer is taken from tokenizer.json unchanged.
///
/// # Errors
/// Returns an error if a file is not JSON, or if the config of a tokenizer of another kind asks for a case that
/// tokenizer.json does not have.
fn normalizer_of_config(path: &Path, tokenizer: &Value) -> Result<Option<Value>> {
    let config_path = path.with_file_name("tokenizer_config.json");
    if !config_path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(&config_path).map_err(Error::io("read", &config_path))?;
    let config = parsed(&config_path, &bytes, "a Hugging Face tokenizer_config.json")?;
    let model = ConfigFile::read(&path.with_file_name("config.json")).ok();
    let of_model = model.as_ref().and_then(|model| model.text("tokenizer_class"));
    let class = config["tokenizer_class"].as_str().or(of_model);
    let class = class.map(|class| class.strip_suffix("Fast").unwrap_or(class));
    let is_built = match (class, &model) {
        (Some(class), _) => BUILT_FROM_CONFIG.contains(&class),
        (None, Some(model)) => WITH_SUCH_A_TOKENIZER.contains(&model.model_type()),
        (None, None) => false,
    };
    let flag = |key: &str| config[key].as_bool();
    if is_built && is_word_piece(tokenizer) {
        return Ok(Some(json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": flag("strip_accents"),
            "lowercase": flag("do_lower_case").unwrap_or(true),
        })));
    }
    let decides = class.is_none_or(|class| !TAKEN_AS_IT_IS.contains(&class));
    match flag("do_lower_case") {
        Some(asked) if decides && asked != lower_cases(&tokenizer["normalizer"]) => {
            Err(Error::Checkpoint {
                path: config_path,
                expected: "`do_lower_case` as in tokenizer.json".into(),
                got: format!("`do_lower_case` {asked}, although tokenizer.json does the opposite"),
                hint: "how a tokenizer of this class treats that is not known here: save both files again with \
                       transformers (AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER))"
                    .into(),
            })
        }
        _ => Ok(None),
    }
}

/// Returns whether a normaliser or a part of it converts text to lower case.
fn lower_cases(normalizer: &Value) -> bool {
    let parts = normalizer["normalizers"].as_array().into_iter().flatten();
    normalizer["type"] == "Lowercase"
        || normalizer["lowercase"] == true
        || parts.into_iter().any(lower_cases)
}

/// Returns the number of ids that a tokenizer can give: one more than the highest.
fn count_ids(tokenizer: &Value) -> Option<usize> {
    let size = match &tokenizer["model"]["vocab"] {
        Value::Object(ids) => {
            ids.values().filter_map(Value::as_u64).max().map(|id| id.saturating_add(1))
        }
        Value::Array(pieces) => Some(pieces.len() as u64),
        _ => None,
    };
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added = added.filter_map(|token| token["id"].as_u64()).max();
    // Saturate: no model has that many embeddings, whatever the exact number.
    let ids = size.into_iter().chain(added.map(|id| id.saturating_add(1)));
    let special = special_ids(&tokenizer["post_processor"]).into_iter().max();
    let special = special.map(|id| id.saturating_add(1));
    // Special tokens alone do not make a vocabulary.
    let size = ids.max()?;
    Some(size.max(special.unwrap_or(0)) as usize)
}

/// Returns the ids that a post-processor or a part of it adds around a text.
fn special_ids(part: &Value) -> Vec<u64> {
    let template = part["special_tokens"].as_object().into_iter().flatten();
    let template = template.filter_map(|(_, token)| token["ids"].as_array());
    let pair = ["sep", "cls"].map(|name| &part[name][1]);
    let ids = template.flatten().chain(pair).filter_map(Value::as_u64);
    let parts = part["processors"].as_array().into_iter().flatten();
    ids.chain(parts.flat_map(special_ids)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a cased tokenizer of a type, with this tokenizer_config.json and config.json.
    fn open(model: &str, config: Option<&str>, family: &str) -> Result<(Value, bool)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let own = json!({
            "model": { "type": model, "vocab": { "a": 0, "b": 7 } },
            "added_tokens": [{ "id": 9 }],
            "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                            "strip_accents": null, "lowercase": false },
        });
        std::fs::write(&path, own.to_string()).unwrap();
        if let Some(config) = config {
            std::fs::write(path.with_file_name("tokenizer_config.json"), config).unwrap();
        }
        std::fs::write(path.with_file_name("config.json"), family).unwrap();
        let file = TokenizerFile::open(&path)?;
        assert_eq!(file.vocabulary, 10);
        assert_eq!(file.blake3, fingerprint::hash_bytes(&file.json));
        let json: Value = serde_json::from_slice(&file.json).unwrap();
        let is_file = file.json == std::fs::read(&path).unwrap();
        Ok((json["normalizer"].clone(), is_file))
    }

    #[test]
    fn a_tokenizer_of_berts_kind_is_normalised_as_its_configuration_says() {
        let bert = r#"{"model_type": "bert"}"#;
        let lower = Some(r#"{"do_lower_case": true}"#);
        let class =
            |class: &str| format!(r#"{{"tokenizer_class": "{class}", "do_lower_case": true}}"#);
        // The result of transformers 5.24 for each.
        for (config, family, lowercase) in [
            (None, bert, false),
            (lower, bert, true),
            (Some("{}"), bert, true),
            (Some(r#"{"do_lower_case": false}"#), bert, false),
            (lower, r#"{"model_type": "mobilebert"}"#, true),
            (lower, r#"{"model_type": "other", "tokenizer_class": "BertTokenizer"}"#, true),
            (Some(&class("BertTokenizer")), "{}", true),
            (Some(&class("ElectraTokenizerFast")), "{}", true),
            (Some(&class("PreTrainedTokenizerFast")), bert, false),
            (Some(&class("ConvBertTokenizer")), bert, false),
        ] {
            let (normalizer, is_file) = open("WordPiece", config, family).unwrap();
            assert_eq!(normalizer["lowercase"], lowercase, "{config:?} {family}");
            assert_eq!(is_file, !lowercase, "{config:?} {family}");
        }
        let config =
            r#"{"do_lower_case": false, "strip_accents": true, "tokenize_chinese_chars": false}"#;
        let (normalizer, _) = open("WordPiece", Some(config), bert).unwrap();
        assert_eq!(normalizer["strip_accents"], true);
        assert_eq!(normalizer["handle_chinese_chars"], false);
    }

    #[test]
    fn a_tokenizer_of_another_kind_that_contradicts_its_configuration_is_refused() {
        let other = r#"{"model_type": "deberta-v2"}"#;
        for (model, config, is_refused) in [
            ("Unigram", r#"{"do_lower_case": true}"#, true),
            ("Unigram", r#"{"do_lower_case": false}"#, false),
            ("Unigram", r#"{}"#, false),
            ("WordPiece", r#"{"tokenizer_class": "AlbertTokenizer", "do_lower_case": true}"#, true),
            ("BPE", r#"{"tokenizer_class": "RobertaTokenizer", "do_lower_case": true}"#, false),
        ] {
            let opened = open(model, Some(config), other);
            assert_eq!(opened.is_err(), is_refused, "{model} {config}: {opened:?}");
        }
        let parts = json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, { "type": "Lowercase" }] });
        assert!(
            lower_cases(&parts)
                && !lower_cases(&json!({ "type": "NFC" }))
                && !lower_cases(&Value::Null)
        );
    }

    #[test]
    fn ids_of_special_tokens_count_as_ids_that_it_gives() {
        let count = |post_processor: Value| {
            count_ids(
                &json!({ "model": { "vocab": { "a": 3 } }, "post_processor": post_processor }),
            )
        };
        assert_eq!(count(Value::Null), Some(4));
        let template =
            json!({ "special_tokens": { "[CLS]": { "ids": [2, 8] }, "[SEP]": { "ids": [3] } } });
        assert_eq!(count(template.clone()), Some(9));
        assert_eq!(count(json!({ "sep": ["</s>", 2], "cls": ["<s>", 5] })), Some(6));
        assert_eq!(count(json!({ "processors": [{ "type": "ByteLevel" }, template] })), Some(9));
        assert_eq!(count_ids(&json!({ "post_processor": { "sep": ["</s>", 2] } })), None);
    }

    #[test]
    fn sizes_that_would_end_the_program_are_refused() {
        let check = |tokenizer: Value| check_sizes(Path::new("tokenizer.json"), &tokenizer);
        let pieces = |length: usize| json!({ "model": { "vocab": [["a", 0.0], ["b".repeat(length), -1.0]] } });
        assert!(check(pieces(LONGEST_PIECE)).is_ok());
        let error = check(pieces(LONGEST_PIECE + 1)).unwrap_err().to_string();
        assert!(error.contains("got one of 1001"), "{error}");
        let map = |map: &str| {
            json!({ "normalizer": { "type": "Sequence", "normalizers": [{ "type": "NFC" },
            { "type": "Precompiled", "precompiled_charsmap": map }] } })
        };
        // Base64 of the bytes 4, 0, 0, 0 and four zero bytes.
        assert_eq!(tree_bytes("BAAAAAAAAAA="), Some(4));
        assert!(check(map("BAAAAAAAAAA=")).is_ok());
        for bad in ["/////w==", "AAAAQAAA", "", "AAA", "~~~~~~~~"] {
            assert!(check(map(bad)).is_err(), "{bad}");
        }
        assert!(check(json!({})).is_ok());
    }
}
