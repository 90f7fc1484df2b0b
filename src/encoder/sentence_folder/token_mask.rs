//! A MultiVectorMask module: which tokens of a text have a vector.

use std::{collections::HashSet, path::Path};

use serde::Deserialize;

use super::json;
use crate::error::Result;

/// What a text is encoded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextRole {
    /// What is searched for.
    Query,
    /// What is searched.
    Document,
}

impl TextRole {
    fn name(self) -> &'static str {
        match self {
            TextRole::Query => "query",
            TextRole::Document => "document",
        }
    }
}

/// The settings of the module, as it saves them.
#[derive(Clone, Debug, Default, Deserialize)]
struct MaskSettings {
    skiplist_words: Option<Vec<String>>,
    skiplist_tasks: Option<TaskList>,
    keep_only_token_ids: Option<Vec<u32>>,
}

/// One task stands for a list of one.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum TaskList {
    One(String),
    Several(Vec<String>),
}

/// Which tokens of queries and of documents have a vector, by their names in the vocabulary.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenMask {
    /// The tokens without a vector.
    skipped: Vec<String>,
    /// The names of the tasks that skip them.
    tasks: Vec<String>,
    /// The only tokens of a document with a vector, if there are some.
    only: Vec<u32>,
}

impl TokenMask {
    /// Reads the module in a folder; without settings every token has a vector.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be read.
    pub(super) fn read(folder: &Path) -> Result<TokenMask> {
        let path = folder.join("config.json");
        let settings: MaskSettings = if path.is_file() {
            json(&path, "the settings of a MultiVectorMask module")?
        } else {
            Default::default()
        };
        Ok(TokenMask {
            skipped: settings.skiplist_words.unwrap_or_default(),
            tasks: match settings.skiplist_tasks {
                None => vec![TextRole::Document.name().into()],
                Some(TaskList::One(task)) => vec![task],
                Some(TaskList::Several(tasks)) => tasks,
            },
            only: settings.keep_only_token_ids.unwrap_or_default(),
        })
    }

    /// Whether every token of every text has a vector.
    pub(super) fn keeps_all(&self) -> bool {
        (self.skipped.is_empty() || self.tasks.is_empty()) && self.only.is_empty()
    }

    /// Which tokens of a text have a vector, where `id_of` returns the ids of tokens. A word that is no token of the
    /// vocabulary is skipped nowhere, as in sentence-transformers: its parts may be those of other words.
    pub(super) fn filter(
        &self,
        role: TextRole,
        id_of: impl Fn(&str) -> Option<u32>,
    ) -> TokenFilter {
        let skips = self.tasks.iter().any(|task| task == role.name());
        let skipped = self.skipped.iter().filter(|_| skips).filter_map(|word| id_of(word));
        let only: HashSet<u32> = self.only.iter().copied().collect();
        TokenFilter {
            skipped: skipped.collect(),
            only: (role == TextRole::Document && !only.is_empty()).then_some(only),
        }
    }

    /// What it does, in a few words.
    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if !self.skipped.is_empty() && !self.tasks.is_empty() {
            let words: Vec<&str> = self.skipped.iter().map(String::as_str).collect();
            parts.push(format!("of {}, none of {}", self.tasks.join(" and "), words.join(" ")));
        }
        if !self.only.is_empty() {
            parts.push(format!("of document, only those of {} ids", self.only.len()));
        }
        if parts.is_empty() { "all".into() } else { parts.join("; ") }
    }
}

/// Which tokens have a vector, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenFilter {
    skipped: HashSet<u32>,
    /// All tokens that are not skipped if `None`.
    only: Option<HashSet<u32>>,
}

impl TokenFilter {
    /// Whether a token has a vector.
    pub(crate) fn keeps(&self, id: u32) -> bool {
        !self.skipped.contains(&id) && self.only.as_ref().is_none_or(|only| only.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(settings: &str) -> TokenMask {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), settings).unwrap();
        TokenMask::read(folder.path()).unwrap()
    }

    /// The ids below 6 of the tokens that have a vector, in a vocabulary of `a`, `b`, `c`.
    fn kept(settings: &str, role: TextRole) -> Vec<u32> {
        let id_of = |word: &str| ["a", "b", "c"].iter().position(|known| *known == word);
        let filter = mask(settings).filter(role, |word| id_of(word).map(|id| id as u32));
        (0..6).filter(|id| filter.keeps(*id)).collect()
    }

    #[test]
    fn words_are_skipped_in_documents_unless_the_folder_names_other_tasks() {
        use TextRole::{Document, Query};
        let words = r#""skiplist_words": ["a", "c", "no token"]"#;
        for (settings, documents, queries) in [
            ("{}".to_string(), vec![0, 1, 2, 3, 4, 5], vec![0, 1, 2, 3, 4, 5]),
            (format!("{{{words}}}"), vec![1, 3, 4, 5], vec![0, 1, 2, 3, 4, 5]),
            (
                format!(r#"{{{words}, "skiplist_tasks": "query"}}"#),
                vec![0, 1, 2, 3, 4, 5],
                vec![1, 3, 4, 5],
            ),
            (
                format!(r#"{{{words}, "skiplist_tasks": ["query", "document"]}}"#),
                vec![1, 3, 4, 5],
                vec![1, 3, 4, 5],
            ),
            (
                format!(r#"{{{words}, "keep_only_token_ids": [0, 1, 5]}}"#),
                vec![1, 5],
                vec![0, 1, 2, 3, 4, 5],
            ),
        ] {
            assert_eq!(kept(&settings, Document), documents, "{settings}");
            assert_eq!(kept(&settings, Query), queries, "{settings}");
        }
        assert!(mask("{}").keeps_all());
        assert!(mask(r#"{"skiplist_words": ["a"], "skiplist_tasks": []}"#).keeps_all());
        assert!(!mask(r#"{"skiplist_words": ["a"]}"#).keeps_all());
        assert_eq!(
            mask(r#"{"skiplist_words": [".", "!"]}"#).describe(),
            "of document, none of . !"
        );
    }
}
