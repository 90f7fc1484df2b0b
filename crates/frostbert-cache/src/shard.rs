//! A shard while it is being filled: the states of its windows arrive in any order and are stored in document order.

use std::{collections::HashMap, ops::Range};

use crate::{
    fingerprint::Key,
    states::{Alignment, BatchStates, Dtype, Pooling, StateId, StateKind, StateValues, WordPlace},
};

/// The documents of a shard, their windows, and the token rows of each window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentTable {
    keys: Vec<Key>,
    truncated: Vec<bool>,
    /// The first window of each document, followed by the number of windows.
    first_window: Vec<u32>,
    /// The first token row of each window, followed by the number of token rows.
    token_start: Vec<u64>,
}

impl DocumentTable {
    /// Adds a document with the token counts of its windows.
    pub fn push(&mut self, key: Key, truncated: bool, windows: impl Iterator<Item = u32>) {
        if self.keys.is_empty() {
            (self.first_window, self.token_start) = (vec![0], vec![0]);
        }
        self.keys.push(key);
        self.truncated.push(truncated);
        for n_tokens in windows {
            let start = self.n_tokens();
            self.token_start.push(start + u64::from(n_tokens));
        }
        self.first_window.push(self.token_start.len() as u32 - 1);
    }

    /// Returns the number of documents.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether there are no documents.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the number of windows of all documents.
    pub fn n_windows(&self) -> usize {
        self.token_start.len().saturating_sub(1)
    }

    /// Returns the number of token rows of all windows.
    pub fn n_tokens(&self) -> u64 {
        self.token_start.last().copied().unwrap_or(0)
    }

    /// Returns the key of a document.
    pub fn key(&self, document: usize) -> Key {
        self.keys[document]
    }

    /// Returns the keys in document order.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Returns whether a document was truncated.
    pub fn truncated(&self, document: usize) -> bool {
        self.truncated[document]
    }

    /// Returns the windows of a document, numbered across the shard.
    pub fn windows(&self, document: usize) -> Range<usize> {
        self.first_window[document] as usize..self.first_window[document + 1] as usize
    }

    /// Returns the token rows of a window.
    pub fn window_tokens(&self, window: usize) -> Range<u64> {
        self.token_start[window]..self.token_start[window + 1]
    }

    /// Returns the number of tokens in each window of a document.
    pub fn lengths(&self, document: usize) -> impl Iterator<Item = u32> + '_ {
        let windows = self.windows(document).map(|window| self.window_tokens(window));
        windows.map(|tokens| (tokens.end - tokens.start) as u32)
    }

    /// Returns the number of token rows in all windows of a document.
    pub fn n_tokens_of(&self, document: usize) -> u64 {
        let tokens = self.tokens(document);
        tokens.end - tokens.start
    }

    /// Returns the token rows of a document, for all its windows in order.
    pub fn tokens(&self, document: usize) -> Range<u64> {
        let windows = self.windows(document);
        self.token_start[windows.start]..self.token_start[windows.end]
    }
}

/// A shard's content apart from its states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardLayout {
    /// The documents.
    pub documents: DocumentTable,
    /// The position of each token row in its document; empty unless token or word states are stored.
    pub alignment: Alignment,
    /// The words of all documents; empty unless word states are stored.
    pub words: Vec<WordPlace>,
    /// The first word of each document, followed by the number of words; empty if `words` is.
    pub word_start: Vec<u32>,
}

impl ShardLayout {
    /// Adds a document with the alignments of its windows and its words, if they are stored.
    pub fn push<'a>(
        &mut self,
        key: Key,
        truncated: bool,
        windows: &[u32],
        alignments: impl Iterator<Item = &'a Alignment>,
        words: &[WordPlace],
    ) {
        self.documents.push(key, truncated, windows.iter().copied());
        for window in alignments {
            self.alignment.token_ids.extend(&window.token_ids);
            self.alignment.words.extend(&window.words);
            self.alignment.char_starts.extend(&window.char_starts);
            self.alignment.char_ends.extend(&window.char_ends);
            self.alignment.sequences.extend(&window.sequences);
        }
        if self.word_start.is_empty() {
            self.word_start.push(0);
        }
        self.words.extend(words);
        self.word_start.push(self.words.len() as u32);
    }

    /// Adds a document of another shard, with any alignment and words stored there.
    pub(super) fn push_from(&mut self, other: &ShardLayout, document: usize) {
        let lengths: Vec<u32> = other.documents.lengths(document).collect();
        let tokens = other.documents.tokens(document);
        let alignment = (!other.alignment.is_empty()).then(|| other.alignment.part(tokens));
        let has_words = !other.words.is_empty();
        let words = if has_words { &other.words[other.words_of(document)] } else { &[] };
        let (key, truncated) = (other.documents.key(document), other.documents.truncated(document));
        self.push(key, truncated, &lengths, alignment.iter(), words);
    }

    /// Returns the number of rows of a state in this shard.
    pub fn rows(&self, kind: StateKind) -> usize {
        match kind {
            StateKind::Pooled(_) => self.documents.len(),
            StateKind::Words => self.words.len(),
            StateKind::Tokens => self.documents.n_tokens() as usize,
        }
    }

    /// Returns the indices of a document's words in `words`.
    pub fn words_of(&self, document: usize) -> Range<usize> {
        self.word_start[document] as usize..self.word_start[document + 1] as usize
    }
}

/// Contiguous rows of one state, in the storage type.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRows {
    /// The state.
    pub state: StateId,
    /// `rows x hidden` values, little-endian.
    pub bytes: Vec<u8>,
}

/// A window of a shard, given by its document's row and its number in the document.
pub type WindowPlace = (u32, u16);

/// A shard in memory: its layout, and a buffer per state that is filled batch by batch.
pub struct OpenShard {
    layout: ShardLayout,
    states: Vec<StateRows>,
    hidden: usize,
    dtype: Dtype,
    missing_windows: usize,
    /// Pooled windows of documents with several windows, until all windows of a document have arrived.
    pooled: HashMap<u32, Vec<PooledWindow>>,
}

struct PooledWindow {
    window: u16,
    state: usize,
    values: Vec<f32>,
}

impl OpenShard {
    /// Creates an empty shard with this layout for these states.
    pub fn new(layout: ShardLayout, states: &[StateId], hidden: usize, dtype: Dtype) -> OpenShard {
        let row_bytes = hidden * dtype.size_bytes();
        let states = states.iter().map(|state| StateRows {
            state: *state,
            bytes: vec![0; layout.rows(state.kind) * row_bytes],
        });
        OpenShard {
            states: states.collect(),
            missing_windows: layout.documents.n_windows(),
            layout,
            hidden,
            dtype,
            pooled: HashMap::new(),
        }
    }

    /// Copies the states of a batch to where its windows belong; `windows[i]` is the window in row `i` of the batch.
    ///
    /// For a document of several windows, the mean is the token-weighted mean of the windows' means, the maximum is
    /// that of their maxima, and the `[CLS]` state is that of the first window.
    ///
    /// # Panics
    /// Panics if the batch lacks a state, its rows do not fit the windows, or a pooled value does not fit the storage
    /// type, all of which are bugs in the caller.
    pub fn place(&mut self, windows: &[WindowPlace], batch: &[BatchStates]) {
        for number in 0..self.states.len() {
            let state = self.states[number].state;
            let source = batch
                .iter()
                .find(|source| source.state == state)
                .expect("a batch holds every state of its shard");
            match &source.values {
                StateValues::Pooled(values) => self.place_pooled(number, windows, values),
                StateValues::Rows(bytes) => self.place_rows(number, windows, bytes),
            }
        }
        self.missing_windows -= windows.len();
        let n_pooled = self
            .states
            .iter()
            .filter(|rows| matches!(rows.state.kind, StateKind::Pooled(_)))
            .count();
        for (document, _) in windows {
            let n_windows = self.layout.documents.windows(*document as usize).len();
            let parts = self.pooled.get(document);
            if parts.is_some_and(|parts| parts.len() == n_windows * n_pooled) {
                self.join_windows(*document);
            }
        }
    }

    fn place_pooled(&mut self, number: usize, windows: &[WindowPlace], values: &[f32]) {
        assert_eq!(values.len(), windows.len() * self.hidden, "a row a window");
        for ((document, window), values) in windows.iter().zip(values.chunks_exact(self.hidden)) {
            if self.layout.documents.windows(*document as usize).len() == 1 {
                self.store_pooled(number, *document, values);
            } else {
                let parts = self.pooled.entry(*document).or_default();
                parts.push(PooledWindow {
                    window: *window,
                    state: number,
                    values: values.to_vec(),
                });
            }
        }
    }

    fn place_rows(&mut self, number: usize, windows: &[WindowPlace], mut bytes: &[u8]) {
        let row_bytes = self.hidden * self.dtype.size_bytes();
        let StateRows { state, bytes: target } = &mut self.states[number];
        let mut put = |row: usize, n_rows: usize| {
            let (rows, rest) = bytes.split_at(n_rows * row_bytes);
            target[row * row_bytes..(row + n_rows) * row_bytes].copy_from_slice(rows);
            bytes = rest;
        };
        for (document, window) in windows {
            let document = *document as usize;
            if state.kind == StateKind::Words {
                let words = self.layout.words_of(document);
                let own = words.filter(|word| self.layout.words[*word].window == *window);
                own.for_each(|word| put(word, 1));
            } else {
                let documents = &self.layout.documents;
                let window = documents.windows(document).start + usize::from(*window);
                let tokens = documents.window_tokens(window);
                put(tokens.start as usize, (tokens.end - tokens.start) as usize);
            }
        }
        assert!(bytes.is_empty(), "a row for each token or word of the windows");
    }

    fn join_windows(&mut self, document: u32) {
        let Some(mut parts) = self.pooled.remove(&document) else {
            return;
        };
        // Batches arrive in any order, but sums run over windows in order.
        parts.sort_unstable_by_key(|part| (part.state, part.window));
        for parts in parts.chunk_by(|a, b| a.state == b.state) {
            let state = parts[0].state;
            let StateKind::Pooled(pooling) = self.states[state].state.kind else {
                continue;
            };
            let lengths = self.layout.documents.lengths(document as usize);
            let n_tokens: Vec<f32> = lengths.map(|length| length as f32).collect();
            let joined = join_pooled(pooling, parts, &n_tokens);
            self.store_pooled(state, document, &joined);
        }
    }

    fn store_pooled(&mut self, number: usize, document: u32, values: &[f32]) {
        let row_bytes = self.hidden * self.dtype.size_bytes();
        let mut row = Vec::with_capacity(row_bytes);
        self.dtype
            .encode(values, &mut row)
            .expect("the encoder's worker lets no value through that does not fit");
        let start = document as usize * row_bytes;
        self.states[number].bytes[start..start + row_bytes].copy_from_slice(&row);
    }

    /// Returns whether every window has its states.
    pub fn is_complete(&self) -> bool {
        self.missing_windows == 0
    }

    /// Returns the layout.
    pub fn layout(&self) -> &ShardLayout {
        &self.layout
    }

    /// Returns the states received so far.
    pub fn states(&self) -> &[StateRows] {
        &self.states
    }

    /// Consumes the shard and returns its states.
    pub fn into_states(self) -> Vec<StateRows> {
        self.states
    }

    pub(crate) fn into_parts(self) -> (ShardLayout, Vec<StateRows>) {
        (self.layout, self.states)
    }
}

/// Combines the pooled vectors of a document's windows, in order, into one.
fn join_pooled(pooling: Pooling, windows: &[PooledWindow], n_tokens: &[f32]) -> Vec<f32> {
    let mut joined = windows[0].values.clone();
    match pooling {
        Pooling::Cls | Pooling::Given(_) => {}
        Pooling::Max => {
            for window in &windows[1..] {
                for (largest, value) in joined.iter_mut().zip(&window.values) {
                    *largest = largest.max(*value);
                }
            }
        }
        Pooling::Mean => {
            let total: f32 = n_tokens.iter().sum();
            joined.fill(0.0);
            for (window, n_tokens) in windows.iter().zip(n_tokens) {
                for (sum, value) in joined.iter_mut().zip(&window.values) {
                    *sum += value * (n_tokens / total);
                }
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::fingerprint::Mode;

    fn pooled(pooling: Pooling, values: &[f32]) -> BatchStates {
        BatchStates {
            state: StateId::pooled(pooling, 1),
            values: StateValues::Pooled(values.to_vec()),
        }
    }

    #[test]
    fn windows_of_a_document_are_joined_whatever_order_they_come_in() {
        let mut layout = ShardLayout::default();
        let key = |text: &str| Key::of(Mode::Text, &[text]);
        layout.push(key("short"), false, &[2], iter::empty(), &[]);
        layout.push(key("long"), false, &[3, 1], iter::empty(), &[]);
        let states = Pooling::ALL.map(|pooling| StateId::pooled(pooling, 1));
        let orders: [&[(WindowPlace, f32)]; 2] = [
            &[((0, 0), 1.0), ((1, 0), 4.0), ((1, 1), -8.0)],
            &[((1, 1), -8.0), ((0, 0), 1.0), ((1, 0), 4.0)],
        ];
        for order in orders {
            let mut shard = OpenShard::new(layout.clone(), &states, 1, Dtype::F32);
            for (window, value) in order {
                assert!(!shard.is_complete());
                let batch = Pooling::ALL.map(|pooling| pooled(pooling, &[*value]));
                shard.place(&[*window], &batch);
            }
            assert!(shard.is_complete());
            let long = |state: &StateRows| {
                let mut values = [0.0; 2];
                Dtype::F32.decode(&state.bytes, &mut values);
                values[1]
            };
            let joined: Vec<f32> = shard.into_states().iter().map(long).collect();
            // cls of the first window; (3 x 4 + 1 x -8) / 4; the larger.
            assert_eq!(joined, [4.0, 1.0, 4.0]);
        }
    }
}
