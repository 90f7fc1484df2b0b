//! An example: a record of a data file with its target and its keys.

use std::path::PathBuf;

use frostbert_cache::fingerprint::{Digest, Key};
use serde::{Deserialize, Serialize};

use super::{Answer, Part, Target};

/// One labelled row.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The keys of its documents in a cache: one, or for a pair that is encoded separately two, in order. See
    /// [`Record::documents`](super::Record::documents).
    pub keys: Vec<Key>,
    /// Its own name, where the source has one.
    pub id: Option<String>,
    /// Its text; for questions the question, for words all of them with one space between.
    pub text: String,
    /// Its second text; for questions the context.
    pub text_pair: Option<String>,
    /// Its words, for tokens.
    pub words: Option<Vec<String>>,
    /// What it is to be learned as.
    pub target: Target,
    /// What it is for.
    pub part: Part,
    /// What it belongs to, numbered over all files: rows of one document (tokens), of one context (qa). A split never
    /// tears it apart.
    pub group: Option<u64>,
    /// Its file, a place in [`Dataset::files`](super::dataset::Dataset::files).
    pub file: usize,
    /// The line of the file (from 1) on which it starts; for Parquet the row.
    pub line: Option<u64>,
}

impl Example {
    /// The answers that stand in the context where they say, which is what a span can be learned from. None for a
    /// question with answers ([`Target::answers`]) means that there is nothing to learn from it, not that it has none.
    pub fn spans(&self) -> impl Iterator<Item = &Answer> {
        let context = self.text_pair.as_deref().unwrap_or_default();
        let answers = self.target.answers().iter();
        answers.filter(move |answer| answer.matches(context))
    }
}

/// A data file as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path, as the pipeline names it.
    pub path: PathBuf,
    /// blake3 of its bytes.
    pub blake3: Digest,
    /// Records in it.
    pub rows: usize,
}

/// The name of a part in pipelines and reports.
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Validation => "validation",
        Part::Test => "test",
    }
}
