//! The prompts of a folder that sentence-transformers saved, and whether pooling counts their tokens.

use std::{collections::BTreeMap, path::Path};

use frostbert_cache::wording::{name_list, nearest, shorten};
use serde::{Deserialize, de::DeserializeOwned};

use super::sentence_files::MODEL_SETTINGS;
use crate::error::{Error, Result};

/// The prompts of a model folder; none if the folder names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderPrompts {
    /// Their texts by name. An empty one is no prompt, but may be chosen.
    pub(super) texts: BTreeMap<String, String>,
    /// The name of the one that is put before texts if none is chosen.
    default: Option<String>,
}

/// The prompts that `encode_query` and `encode_document` of a multi-vector model take without being told.
const OF_QUERIES: &str = "query";
const OF_DOCUMENTS: &str = "document";

/// What the file of prompts says about them; it says more.
#[derive(Deserialize)]
struct PromptsFile {
    #[serde(default)]
    prompts: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    default_prompt_name: Option<String>,
    #[serde(default)]
    model_type: Option<String>,
}

impl PromptsFile {
    /// The name of the prompt that is put before texts if none is chosen. A multi-vector model has markers of queries
    /// and of documents, without which it was never trained: what is embedded is a document.
    fn default_name(&self) -> Option<String> {
        if self.model_type.as_deref() != Some("MultiVectorEncoder") {
            return self.default_prompt_name.clone();
        }
        let prompts = self.prompts.as_ref()?;
        prompts.contains_key(OF_DOCUMENTS).then(|| OF_DOCUMENTS.into())
    }
}

/// What the file of the pooling says about prompts.
#[derive(Deserialize)]
struct PromptPooling {
    #[serde(default)]
    include_prompt: Option<bool>,
}

/// Why a prompt cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownPrompt {
    /// What is wrong with it, to follow its key.
    pub(crate) problem: String,
    /// How to fix it.
    pub(crate) hint: String,
}

impl FolderPrompts {
    /// Reads the prompts of a folder.
    ///
    /// # Errors
    /// Returns an error if their file is damaged, or names a default prompt that it does not have.
    pub fn read(folder: &Path) -> Result<FolderPrompts> {
        let path = folder.join(MODEL_SETTINGS);
        let Some(file) = read_if_there::<PromptsFile>(&path)? else {
            return Ok(FolderPrompts::default());
        };
        let default = file.default_name();
        let texts = file.prompts.unwrap_or_default().into_iter();
        let texts = texts.map(|(name, text)| (name, text.unwrap_or_default()));
        let prompts = FolderPrompts { texts: texts.collect(), default };
        match &prompts.default {
            Some(name) if !prompts.texts.contains_key(name) => Err(Error::Checkpoint {
                path,
                expected: format!("a `default_prompt_name` among its prompts: {}", prompts.names()),
                got: format!("`{}`", shorten(name, 40)),
                hint: "name one of them, or remove `default_prompt_name`".into(),
            }),
            _ => Ok(prompts),
        }
    }

    /// Returns the text of a prompt that is given by its name, or as it is. A single word can only be a name, as it would
    /// run into the texts.
    ///
    /// # Errors
    /// Returns an error if it is the name of no prompt of the folder.
    pub(crate) fn text_of<'a>(&'a self, given: &'a str) -> Result<&'a str, UnknownPrompt> {
        if let Some(text) = self.texts.get(given) {
            return Ok(text);
        }
        let is_of_a_name =
            |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        if given.is_empty() || !given.chars().all(is_of_a_name) {
            return Ok(given);
        }
        let meant = nearest(given, self.texts.keys().map(String::as_str));
        let meant = meant.map_or(String::new(), |name| format!("did you mean `{name}`? "));
        Err(UnknownPrompt {
            problem: format!(
                "`{}`, which is no name of a prompt of the model (there are: {})",
                shorten(given, 40),
                self.names()
            ),
            hint: format!(
                "{meant}name one of them, or give a text with what separates it from the texts that follow it, as in \
                 \"query: \""
            ),
        })
    }

    /// Returns the name and the text of the default prompt, if there is one.
    pub fn default_prompt(&self) -> Option<(&str, &str)> {
        let name = self.default.as_deref()?;
        Some((name, self.texts.get(name)?.as_str()))
    }

    /// Returns the prompt of queries of a multi-vector model; empty if it has none.
    pub(crate) fn of_queries(&self) -> &str {
        self.texts.get(OF_QUERIES).map_or("", String::as_str)
    }

    /// Describes the prompts that are not empty, as in `` `query` ("query: ") ``; `None` if there are none.
    pub fn described(&self) -> Option<String> {
        let texts = self.texts.iter().filter(|(_, text)| !text.is_empty());
        let described: Vec<String> =
            texts.map(|(name, text)| format!("`{name}` (\"{}\")", shorten(text, 60))).collect();
        (!described.is_empty()).then(|| described.join(", "))
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.texts.keys().map(String::as_str).collect();
        name_list(names.into_iter())
    }
}

/// Returns whether a pooling counts the tokens of a prompt, as it does if its folder does not say.
///
/// # Errors
/// Returns an error if the file that says so is damaged.
pub(super) fn include_prompt(pooling: &Path) -> Result<bool> {
    let file = read_if_there::<PromptPooling>(&pooling.join("config.json"))?;
    Ok(file.and_then(|file| file.include_prompt).unwrap_or(true))
}

/// Reads a JSON file; `None` if there is none.
fn read_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: "JSON as sentence-transformers writes it".into(),
        got: error.to_string(),
        hint: "fetch the file again, or remove it".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(file: &str, text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), text).unwrap();
        folder
    }

    fn read(prompts: &str) -> Result<FolderPrompts> {
        FolderPrompts::read(folder(MODEL_SETTINGS, prompts).path())
    }

    #[test]
    fn a_prompt_is_given_by_name_or_as_it_is_and_a_word_is_always_a_name() {
        let prompts =
            read(r#"{"prompts": {"query": "query: ", "document": "", "x y": "z"}}"#).unwrap();
        for (given, text) in [
            ("query", "query: "),
            ("document", ""),
            ("x y", "z"),
            ("", ""),
            ("query: ", "query: "),
            ("query ", "query "),
            ("\u{67e5}\u{8be2}", "\u{67e5}\u{8be2}"),
        ] {
            assert_eq!(prompts.text_of(given), Ok(text));
        }
        let unknown = prompts.text_of("qeury").unwrap_err();
        assert!(unknown.problem.contains("(there are: `document`, `query`, `x y`)"), "{unknown:?}");
        assert!(unknown.hint.starts_with("did you mean `query`? name one of them"), "{unknown:?}");
        let unknown = FolderPrompts::default().text_of("query").unwrap_err();
        assert!(unknown.problem.contains("(there are: none)"), "{unknown:?}");
        assert!(unknown.hint.starts_with("name one of them"), "{unknown:?}");
    }

    #[test]
    fn prompts_that_are_not_empty_are_described_and_the_default_is_one_of_them() {
        let prompts = read(
            r#"{"__version__": {}, "prompts": {"query": "query: ", "document": null}, "default_prompt_name": "query"}"#,
        );
        let prompts = prompts.unwrap();
        assert_eq!(prompts.described().as_deref(), Some("`query` (\"query: \")"));
        assert_eq!(prompts.default_prompt(), Some(("query", "query: ")));
        let empty = read(r#"{"prompts": {"document": ""}, "default_prompt_name": null}"#).unwrap();
        assert_eq!((empty.described(), empty.default_prompt()), (None, None));
        let error = read(r#"{"prompts": {"a": "b"}, "default_prompt_name": "c"}"#).unwrap_err();
        assert!(error.to_string().contains("among its prompts: `a`, got `c`"), "{error}");
        assert!(read(r#"{"prompts": ["a"]}"#).is_err());
        let none = FolderPrompts::read(tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(none, FolderPrompts::default());
    }

    #[test]
    fn what_a_multi_vector_model_embeds_has_the_prompt_of_documents() {
        let both = r#""prompts": {"query": "[Q] ", "document": "[D] ", "other": "o: "}"#;
        let of = |more: &str| read(&format!("{{{both}, {more}}}")).unwrap();
        let multi_vector =
            of(r#""model_type": "MultiVectorEncoder", "default_prompt_name": "other""#);
        assert_eq!(multi_vector.default_prompt(), Some(("document", "[D] ")));
        assert_eq!(multi_vector.of_queries(), "[Q] ");
        let single = of(r#""model_type": "SentenceTransformer", "default_prompt_name": "other""#);
        assert_eq!(single.default_prompt(), Some(("other", "o: ")));
        let none = read(r#"{"model_type": "MultiVectorEncoder", "prompts": null}"#).unwrap();
        assert_eq!((none.default_prompt(), none.of_queries()), (None, ""));
    }

    #[test]
    fn pooling_counts_prompts_unless_the_folder_says_that_it_does_not() {
        let of = |pooling: &str| include_prompt(folder("config.json", pooling).path());
        assert!(of("{}").unwrap() && of(r#"{"include_prompt": true}"#).unwrap());
        assert!(!of(r#"{"pooling_mode": "mean", "include_prompt": false}"#).unwrap());
        assert!(of("{").is_err());
        assert!(include_prompt(tempfile::tempdir().unwrap().path()).unwrap());
    }
}
