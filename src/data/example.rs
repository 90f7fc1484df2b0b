//! An example: a record of a data file with its target and its keys.

use std::path::PathBuf;

use frostbert_cache::fingerprint::{Digest, Key};
use serde::{Deserialize, Serialize};

use super::{Answer, Part, Target};

/// A labelled example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The keys of its documents in a cache, in order: one, or two for a pair that is encoded separately. See
    /// [`Record::documents`](super::Record::documents).
    pub keys: Vec<Key>,
    /// Its id, if the source has ids.
    pub id: Option<String>,
    /// Its text; for qa the question, for tokens the words joined by single spaces.
    pub text: String,
    /// Its second text; for qa the context.
    pub text_pair: Option<String>,
    /// Its words, for tokens.
    pub words: Option<Vec<String>>,
    /// Its target.
    pub target: Target,
    /// The split that it belongs to.
    pub part: Part,
    /// The group that it belongs to, numbered over all files: a document (tokens) or a context (qa). A split never
    /// separates the rows of a group.
    pub group: Option<u64>,
    /// Its file, as an index into [`Dataset::files`](super::dataset::Dataset::files).
    pub file: usize,
    /// The line of the file (from 1) on which it starts; for Parquet, the row.
    pub line: Option<u64>,
}

impl Example {
    /// Iterates over the answers that occur in the context at their position, which are those that a span can be
    /// learned from. If a question has answers ([`Target::answers`]) but none of these, nothing can be learned from it;
    /// it still counts as answerable.
    pub fn spans(&self) -> impl Iterator<Item = &Answer> {
        let context = self.text_pair.as_deref().unwrap_or_default();
        let answers = self.target.answers().iter();
        answers.filter(move |answer| answer.matches(context))
    }
}

/// A data file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path, as in the pipeline.
    pub path: PathBuf,
    /// The BLAKE3 hash of its bytes.
    pub blake3: Digest,
    /// Number of records in it.
    pub rows: usize,
}

/// Returns the name of a split in pipelines and reports.
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Validation => "validation",
        Part::Test => "test",
    }
}
