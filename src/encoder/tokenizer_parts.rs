//! Tokenizers of folders without a tokenizer.json, built from a vocabulary and the small files beside it.
//!
//! The result is what the tokenizer.json of such a model contains: built as `transformers` (5.24) does it, and for
//! DeBERTa as its `convert_slow_tokenizer.py` does, which keeps the normalisation that the model was trained with.

mod kinds;
mod sentencepiece;
mod settings;
mod vocabulary;

use std::path::{Path, PathBuf};

use frostbert_cache::wording::counted;
use kinds::{Algorithm, Frame, KINDS, SentenceRules, TokenizerKind};
use serde_json::{Value, json};
use settings::{TokenizerSettings, without_fast};
use vocabulary::Vocabulary;

use super::config::ConfigFile;
use crate::error::{Error, Result};

/// The files that a vocabulary may be in.
pub(super) const VOCABULARIES: [&str; 5] =
    ["vocab.txt", "vocab.json", "spm.model", "spiece.model", "sentencepiece.bpe.model"];

/// Files that are read beside a vocabulary.
pub(super) const BESIDE: [&str; 2] = ["merges.txt", "added_tokens.json"];

/// The way out for a tokenizer that cannot be built.
const SAVE: &str = "with Python's transformers, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes \
                    tokenizer.json, which is read as it is";

/// A tokenizer.json that was built.
pub(super) struct BuiltTokenizer {
    /// The file with the vocabulary.
    pub(super) path: PathBuf,
    pub(super) json: Value,
    /// What was taken although no file says so.
    pub(super) warning: Option<String>,
}

/// Returns whether a folder contains a vocabulary from which a tokenizer may be built.
pub(super) fn exist(folder: &Path) -> bool {
    VOCABULARIES.iter().any(|name| folder.join(name).is_file())
}

/// Returns the first special token of these keys that the files of a folder name, such as `mask_token`.
///
/// # Errors
/// Returns an error if one of the files cannot be read.
pub(super) fn named_token(folder: &Path, keys: &[&str]) -> Result<Option<String>> {
    let settings = TokenizerSettings::read(folder)?;
    let mut named = keys.iter().filter_map(|key| settings.special(key, ""));
    Ok(named.find(|token| !token.is_empty()).map(String::from))
}

/// Builds the tokenizer of a folder. `lowercase` replaces what the files say about case.
///
/// # Errors
/// Returns an error if the files are not those of a known kind of tokenizer, if one of them is missing or damaged, or
/// if `lowercase` is given for a tokenizer that never converts texts to lower case.
pub(super) fn build(folder: &Path, lowercase: Option<bool>) -> Result<BuiltTokenizer> {
    let settings = TokenizerSettings::read(folder)?;
    let kind = kind_of(folder, &settings)?;
    for name in kind.files {
        let path = folder.join(name);
        if !path.is_file() {
            let expected = format!("tokenizer.json, or else {}", kind.files.join(" and "));
            return Err(refuse(&path, expected, "no such file".into(), SAVE));
        }
    }
    let path = folder.join(kind.files[0]);
    if lowercase.is_some() && kind.lower_cases.is_none() {
        return Err(refuse_lowercase(&path));
    }
    let damaged = |got: String| {
        refuse(&path, "the vocabulary of a tokenizer".into(), got, "fetch the checkpoint again")
    };
    let defaults = &kind.special;
    let vocabulary = match kind.algorithm {
        Algorithm::WordPiece => {
            let default = defaults.text("unk_token");
            let unknown = settings.special("unk_token", default).unwrap_or(default);
            Vocabulary::word_pieces(&path, unknown)
        }
        Algorithm::ByteLevel => Vocabulary::byte_pairs(&path),
        Algorithm::SentencePiece(order, _) => {
            Vocabulary::sentence_pieces(&path, order, &settings, defaults)
        }
    };
    let mut vocabulary = vocabulary.map_err(damaged)?;
    let (lower_cases, warning) = case_of(kind, &settings, &vocabulary, lowercase);
    let further = std::mem::take(&mut vocabulary.marked);
    let n_pieces = vocabulary.len();
    let added = settings.added_tokens(&vocabulary.ids(), n_pieces, defaults, further);
    let added = added.map_err(damaged)?;
    let post_processor = kind.post_processor(&settings, &added).map_err(damaged)?;
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": kind.normalizer(&settings, lower_cases, &vocabulary),
        "pre_tokenizer": kind.pre_tokenizer(&settings),
        "post_processor": post_processor,
        "decoder": kind.decoder(&settings),
        "model": vocabulary.model,
    });
    Ok(BuiltTokenizer { path, json, warning })
}

/// Returns the error for `model.lowercase` where a tokenizer has no such choice.
pub(super) fn refuse_lowercase(path: &Path) -> Error {
    let expected = "a tokenizer that may convert texts to lower case, as BERT's, because model.lowercase is set";
    let got = "one that has no such choice".into();
    refuse(path, expected.into(), got, "leave model.lowercase out")
}

/// Determines whether texts are converted to lower case, and warns if neither a file nor the user says so although the
/// vocabulary has capitals.
fn case_of(
    kind: &TokenizerKind,
    settings: &TokenizerSettings,
    vocabulary: &Vocabulary,
    lowercase: Option<bool>,
) -> (bool, Option<String>) {
    match (lowercase.or(settings.flag("do_lower_case")), kind.lower_cases) {
        (_, None) => (false, None),
        (Some(said), _) => (said, None),
        (None, Some(default)) if kind.algorithm != Algorithm::WordPiece => (default, None),
        (None, Some(false)) => (false, None),
        (None, Some(true)) => match vocabulary.n_capitals() {
            0 => (true, None),
            n_capitals => {
                let warning = format!(
                    "{} has {} with capitals, and no tokenizer_config.json says whether texts are converted to lower \
                     case: they are not (transformers would); set model.lowercase to true or false to decide it",
                    kind.files[0],
                    counted(n_capitals, "piece"),
                );
                (false, Some(warning))
            }
        },
    }
}

/// Finds the kind of a folder's tokenizer: that of the class that it names, or else of its model.
fn kind_of(folder: &Path, settings: &TokenizerSettings) -> Result<&'static TokenizerKind> {
    let model = ConfigFile::read(&folder.join("config.json")).ok();
    let of_model = model.as_ref().and_then(|model| model.text("tokenizer_class"));
    let class = settings.class().or(of_model.map(without_fast));
    let (found, named) = match (class, &model) {
        (Some(class), _) => (
            KINDS.iter().find(|kind| kind.classes.contains(&class)),
            format!("a tokenizer of the class `{class}`"),
        ),
        (None, Some(model)) => (
            KINDS.iter().find(|kind| kind.model_types.contains(&model.model_type())),
            format!("that of a model of type `{}`", model.model_type()),
        ),
        (None, None) => {
            (None, "neither a tokenizer_class nor a config.json that tells its kind".into())
        }
    };
    found.ok_or_else(|| {
        let classes = KINDS.iter().flat_map(|kind| kind.classes);
        let classes: Vec<&str> = classes.copied().collect();
        let expected = format!("tokenizer.json, or the files of a {}", classes.join(", "));
        refuse(&folder.join("tokenizer.json"), expected, named, SAVE)
    })
}

impl TokenizerKind {
    fn normalizer(
        &self,
        settings: &TokenizerSettings,
        lower_cases: bool,
        vocabulary: &Vocabulary,
    ) -> Value {
        let rules = match self.algorithm {
            Algorithm::WordPiece => {
                return json!({
                    "type": "BertNormalizer",
                    "clean_text": true,
                    "handle_chinese_chars": settings.flag("tokenize_chinese_chars").unwrap_or(true),
                    "strip_accents": settings.flag("strip_accents"),
                    "lowercase": lower_cases,
                });
            }
            Algorithm::ByteLevel => return Value::Null,
            Algorithm::SentencePiece(_, rules) => rules,
        };
        let table = vocabulary.charsmap.as_ref();
        let table =
            table.map(|table| json!({ "type": "Precompiled", "precompiled_charsmap": table }));
        let lower = lower_cases.then(|| json!({ "type": "Lowercase" }));
        let mut parts: Vec<Value> = Vec::new();
        match rules {
            SentenceRules::Table => return table.unwrap_or_default(),
            SentenceRules::Albert => {
                parts.extend(["``", "''"].map(|quotes| {
                    json!({ "type": "Replace", "pattern": { "String": quotes }, "content": "\"" })
                }));
                if settings.flag("keep_accents") != Some(true) {
                    parts.extend(["NFKD", "StripAccents"].map(|name| json!({ "type": name })));
                }
                parts.extend(lower);
                parts.extend(table);
            }
            SentenceRules::Deberta => {
                parts.extend(lower);
                parts.push(json!({ "type": "Strip", "strip_left": true, "strip_right": true }));
                parts.extend(table);
                parts.push(
                    json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }),
                );
            }
        }
        json!({ "type": "Sequence", "normalizers": parts })
    }

    fn pre_tokenizer(&self, settings: &TokenizerSettings) -> Value {
        let rules = match self.algorithm {
            Algorithm::WordPiece => return json!({ "type": "BertPreTokenizer" }),
            Algorithm::ByteLevel => {
                return json!({
                    "type": "ByteLevel",
                    "add_prefix_space": settings.flag("add_prefix_space").unwrap_or(false),
                    "trim_offsets": true,
                    "use_regex": true,
                });
            }
            Algorithm::SentencePiece(_, rules) => rules,
        };
        let mut parts: Vec<Value> = Vec::new();
        match rules {
            SentenceRules::Table | SentenceRules::Albert => {
                parts.push(json!({ "type": "WhitespaceSplit" }));
            }
            SentenceRules::Deberta if settings.flag("split_by_punct") == Some(true) => {
                parts.push(json!({ "type": "Punctuation", "behavior": "Isolated" }));
            }
            SentenceRules::Deberta => {}
        }
        parts.push(metaspace(settings));
        json!({ "type": "Sequence", "pretokenizers": parts })
    }

    /// Only needed to turn tokens back into texts, by other programs that read the tokenizer.json.
    fn decoder(&self, settings: &TokenizerSettings) -> Value {
        match self.algorithm {
            Algorithm::WordPiece => json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }),
            Algorithm::ByteLevel => {
                json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true })
            }
            Algorithm::SentencePiece(..) => metaspace(settings),
        }
    }

    /// Returns the part that puts special tokens around texts.
    ///
    /// # Errors
    /// Describes a special token that the files take away.
    fn post_processor(
        &self,
        settings: &TokenizerSettings,
        added: &[Value],
    ) -> Result<Value, String> {
        let keys = match self.frame {
            Frame::Typed | Frame::Roberta => ["cls_token", "sep_token"],
            Frame::Doubled => ["bos_token", "eos_token"],
        };
        let mut ends = Vec::new();
        for key in keys {
            let text = settings.special(key, self.special.text(key)).unwrap_or_default();
            let token = added.iter().find(|token| token["content"] == text);
            let id = token.and_then(|token| token["id"].as_u64());
            ends.push((
                text,
                id.ok_or_else(|| format!("no {key} in the settings of the tokenizer"))?,
            ));
        }
        let ((start, start_id), (end, end_id)) = (ends[0], ends[1]);
        if self.frame == Frame::Roberta {
            return Ok(json!({
                "type": "RobertaProcessing",
                "sep": [end, end_id],
                "cls": [start, start_id],
                "trim_offsets": settings.flag("trim_offsets").unwrap_or(true),
                "add_prefix_space": settings.flag("add_prefix_space").unwrap_or(false),
            }));
        }
        let special =
            |text: &str, kind: u8| json!({ "SpecialToken": { "id": text, "type_id": kind } });
        let sequence = |id: &str, kind: u8| json!({ "Sequence": { "id": id, "type_id": kind } });
        let single = vec![special(start, 0), sequence("A", 0), special(end, 0)];
        let mut pair = single.clone();
        if self.frame == Frame::Typed {
            pair.extend([sequence("B", 1), special(end, 1)]);
        } else {
            pair.extend([special(end, 0), sequence("B", 0), special(end, 0)]);
        }
        let described = |text: &str, id: u64| json!({ "id": text, "ids": [id], "tokens": [text] });
        let mut special_tokens = serde_json::Map::new();
        special_tokens.insert(start.into(), described(start, start_id));
        special_tokens.insert(end.into(), described(end, end_id));
        Ok(json!({
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": special_tokens,
        }))
    }
}

fn metaspace(settings: &TokenizerSettings) -> Value {
    let adds = settings.flag("add_prefix_space").unwrap_or(true);
    let scheme = if adds { "always" } else { "never" };
    json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true })
}

fn refuse(path: &Path, expected: String, got: String, hint: &str) -> Error {
    Error::Checkpoint { path: path.to_path_buf(), expected, got, hint: hint.into() }
}
