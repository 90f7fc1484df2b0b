//! A shard while it is being filled: rows arrive in any order and lie in document order.

use super::manifest::ShardEntry;
use crate::{
    fingerprint::Key,
    states::{StateId, StateRows},
};

/// One document of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentRow {
    /// Its key.
    pub key: Key,
    /// Its real tokens.
    pub n_tokens: u32,
    /// Whether its end was cut off.
    pub truncated: bool,
}

/// A shard in memory: its documents, and a buffer per state that fills up batch by batch.
pub struct OpenShard {
    documents: Vec<DocumentRow>,
    states: Vec<StateRows>,
    row_bytes: usize,
    missing_rows: usize,
}

impl OpenShard {
    /// An empty shard for these documents and states, `row_bytes` per state row.
    pub fn new(documents: Vec<DocumentRow>, states: &[StateId], row_bytes: usize) -> OpenShard {
        let states = states
            .iter()
            .map(|state| StateRows {
                state: *state,
                bytes: vec![0; documents.len() * row_bytes],
            })
            .collect();
        OpenShard {
            missing_rows: documents.len(),
            documents,
            states,
            row_bytes,
        }
    }

    /// Puts the rows of a batch where its documents lie: row `i` of each state belongs to document `positions[i]`.
    ///
    /// # Panics
    /// When the batch lacks a state, or its rows do not fit the positions: a bug of the caller.
    pub fn place(&mut self, positions: &[u32], batch: &[StateRows]) {
        for target in &mut self.states {
            let source = batch
                .iter()
                .find(|rows| rows.state == target.state)
                .expect("a batch holds every state of its shard");
            assert_eq!(
                source.bytes.len(),
                positions.len() * self.row_bytes,
                "one row per document"
            );
            for (position, row) in positions
                .iter()
                .zip(source.bytes.chunks_exact(self.row_bytes))
            {
                let start = *position as usize * self.row_bytes;
                target.bytes[start..start + self.row_bytes].copy_from_slice(row);
            }
        }
        self.missing_rows -= positions.len();
    }

    /// Whether every document has its states.
    pub fn is_complete(&self) -> bool {
        self.missing_rows == 0
    }

    pub(super) fn into_parts(self) -> (Vec<DocumentRow>, Vec<StateRows>) {
        (self.documents, self.states)
    }
}

/// What is said of a shard beside its rows.
#[derive(Clone, Debug)]
pub struct ShardOrigin {
    /// The device that computed it.
    pub device: String,
    /// The ONNX Runtime that computed it.
    pub onnxruntime: String,
    /// Token budget of its batches.
    pub batch_tokens: usize,
}

pub(super) fn shard_name(number: usize) -> String {
    format!("shard-{number:06}")
}

pub(super) fn entry_bytes(entry: &ShardEntry) -> u64 {
    entry.files.iter().map(|file| file.bytes).sum()
}
