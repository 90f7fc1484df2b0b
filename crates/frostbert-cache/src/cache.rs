//! A cache as an array: open a folder, name some keys and a state, and get their rows.

use std::path::Path;

use ndarray::{Array2, Axis};

use crate::{
    about::note_use,
    error::{Error, Result},
    fingerprint::Key,
    index::Location,
    reader::{CacheReader, rows_of},
    states::{StateId, StateKind},
    wording::{name_list, part_of},
};

/// A cache folder, open for reading.
///
/// Opening it reads the manifest and the keys of all documents (40 bytes each); states are memory-mapped and checked
/// against their checksums when rows are requested. A writer may add to the cache meanwhile, but the additions are not
/// visible.
///
/// ```no_run
/// use frostbert_cache::{Cache, Key, Mode, Pooling, StateId};
///
/// let cache = Cache::open("cache/397e9e01919ffd5e")?;
/// let keys = ["I would buy it again.", "It broke."].map(|text| Key::of(Mode::Text, &[text]));
/// let rows = cache.rows(&keys, StateId::pooled(Pooling::Mean, 6))?;
/// assert_eq!(rows.dim(), (2, cache.hidden()));
/// # Ok::<(), frostbert_cache::Error>(())
/// ```
pub struct Cache {
    reader: CacheReader,
}

impl Cache {
    /// Opens `<cache.dir>/<fingerprint>`, the folder that holds `manifest.json`.
    ///
    /// # Errors
    /// Returns [`Error::Miss`] if the folder is not a cache, and [`Error::Damage`] if the manifest or a table of
    /// documents is damaged.
    pub fn open(folder: impl AsRef<Path>) -> Result<Cache> {
        let reader = CacheReader::existing(folder.as_ref())?;
        note_use(reader.folder());
        Ok(Cache { reader })
    }

    /// Returns the cache folder.
    pub fn folder(&self) -> &Path {
        self.reader.folder()
    }

    /// Returns the number of values in a row, which is the model's hidden size.
    pub fn hidden(&self) -> usize {
        self.reader.manifest().hidden
    }

    /// Returns the number of distinct documents.
    pub fn n_documents(&self) -> u64 {
        self.reader.manifest().documents
    }

    /// Returns the keys of all documents, each once, in ascending order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.reader.index().documents().map(|(key, _)| key)
    }

    /// Returns the states that are stored for at least one document, in ascending order.
    pub fn states(&self) -> Vec<StateId> {
        self.reader.manifest().states().into_iter().collect()
    }

    /// Returns whether a state of a document is stored.
    pub fn contains(&self, key: &Key, state: StateId) -> bool {
        self.reader.locate(key, state).is_some()
    }

    /// Returns one row for each key, in the order of `keys`, as `f32 [keys, hidden]`, for a pooled state (`cls`, `mean`
    /// or `max`). A key may occur more than once.
    ///
    /// # Errors
    /// Returns [`Error::Miss`] if the state is not stored for one of the keys (the message names it) or has several
    /// rows per document ([`Cache::rows_of`] reads those), and [`Error::Damage`] if a file does not match the manifest.
    pub fn rows(&self, keys: &[Key], state: StateId) -> Result<Array2<f32>> {
        if !matches!(state.kind, StateKind::Pooled(_)) {
            return Err(self.miss(
                format!("one row of {state} for each document: it has one for each of its {}", state.kind.name()),
                "ask for a pooled state, such as mean-L06, or read one document at a time with Cache::rows_of".into(),
            ));
        }
        let places: Vec<Option<Location>> =
            keys.iter().map(|key| self.reader.locate(key, state)).collect();
        let located: Vec<Location> = places.iter().flatten().copied().collect();
        if let Some(first) = places.iter().position(Option::is_none) {
            let n_missing = keys.len() - located.len();
            let others = match n_missing {
                1 => String::new(),
                _ => format!(" ({} are missing)", part_of(n_missing, keys.len(), "key")),
            };
            return Err(self.lacks(keys[first], state, &format!("keys[{first}] = "), &others));
        }
        let dtype = self.reader.manifest().dtype;
        let mut rows = Array2::zeros((keys.len(), self.hidden()));
        self.reader.read_rows(state, &located, |place, bytes| {
            let mut row = rows.index_axis_mut(Axis(0), place);
            dtype.decode(bytes, row.as_slice_mut().expect("a row of a new array is contiguous"));
        })?;
        Ok(rows)
    }

    /// Returns all rows of one document, as `f32 [rows, hidden]`: one row of a pooled state, one per word of a `words`
    /// state, and one per token (including special tokens) of a `tokens` state. If the document was cut into windows,
    /// the tokens of the windows follow one another in order.
    ///
    /// # Errors
    /// Returns [`Error::Miss`] if the state is not stored for the key, and [`Error::Damage`] if a file does not match
    /// the manifest.
    pub fn rows_of(&self, key: &Key, state: StateId) -> Result<Array2<f32>> {
        let Some((shard, document)) = self.reader.locate(key, state) else {
            return Err(self.lacks(*key, state, "", ""));
        };
        let layout = self.reader.read_layout(shard)?;
        let range = rows_of(&layout, state.kind, document as usize);
        let dtype = self.reader.manifest().dtype;
        let mut rows = Array2::zeros((range.len(), self.hidden()));
        let file = self.reader.open_state(shard, state)?;
        for (number, mut row) in range.zip(rows.rows_mut()) {
            let row = row.as_slice_mut().expect("a row of a new array is contiguous");
            dtype.decode(file.row(number), row);
        }
        Ok(rows)
    }

    /// Returns the underlying reader, for everything else: the manifest, shards, and alignments of tokens.
    pub fn reader(&self) -> &CacheReader {
        &self.reader
    }

    /// Explains why a state of a key is missing: the key is unknown, or this state of it was not extracted.
    fn lacks(&self, key: Key, state: StateId, place: &str, others: &str) -> Error {
        let has_key = self.reader.index().locations(&key).next().is_some();
        let (lacks, hint) = if has_key {
            let states: Vec<String> = self.states().iter().map(StateId::to_string).collect();
            let states = name_list(states.iter().map(String::as_str));
            (
                format!("the state {state} of {place}{}{others}", key.to_hex()),
                format!(
                    "the cache holds {states}; ask for one of these, or add the layer and pooling to the pipeline and \
                     run `frostbert extract`"
                ),
            )
        } else {
            (
                format!("the document {place}{}{others}", key.to_hex()),
                "run `frostbert extract` with data that holds the text; a key depends on every character of it, \
                 and on whether it is a text, a pair or a list of words"
                    .into(),
            )
        };
        self.miss(lacks, hint)
    }

    fn miss(&self, lacks: String, hint: String) -> Error {
        Error::Miss { cache: self.folder().to_path_buf(), lacks, hint }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        fingerprint::{FORMAT_VERSION, FingerprintInputs, Mode, hash_bytes},
        manifest::{Manifest, Origin},
        shard::{ShardLayout, StateRows},
        staging::write_shard,
        states::{Alignment, Dtype, Pooling},
    };

    const MEAN: StateId = StateId { kind: StateKind::Pooled(Pooling::Mean), layer: 1 };
    const TOKENS: StateId = StateId { kind: StateKind::Tokens, layer: 1 };

    /// A text and its number of tokens.
    type TextOfTokens = (&'static str, u32);

    fn key(text: &str) -> Key {
        Key::of(Mode::Text, &[text])
    }

    /// Writes two shards of states of width 2: of `a` (2 tokens) and `b` (3 tokens), then of `c` (2 tokens) without
    /// `tokens` states.
    fn written() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let hash = hash_bytes(b"model");
        let inputs = FingerprintInputs {
            weights: hash,
            config: hash,
            tokenizer: hash,
            graph: "fused-1".into(),
            provider: "cpu".into(),
            precision: "f32".into(),
            dtype: "f16".into(),
            max_length: 128,
            overflow: "truncate".into(),
            stride: None,
            include_prompt: None,
            format_version: FORMAT_VERSION,
        };
        let mut manifest = Manifest::empty(&inputs, 2, 2, Dtype::F16);
        let shards: [(&str, &[TextOfTokens], &[StateId]); 2] = [
            ("shard-000000", &[("a", 2), ("b", 3)], &[MEAN, TOKENS]),
            ("shard-000001", &[("c", 2)], &[MEAN]),
        ];
        let mut next = 0.0;
        for (name, texts, states) in shards {
            let mut layout = ShardLayout::default();
            for (text, n_tokens) in texts {
                let of_window = Alignment {
                    token_ids: vec![7; *n_tokens as usize],
                    words: vec![0; *n_tokens as usize],
                    char_starts: vec![0; *n_tokens as usize],
                    char_ends: vec![1; *n_tokens as usize],
                    sequences: vec![0; *n_tokens as usize],
                };
                let alignments = states.contains(&TOKENS).then_some(&of_window);
                layout.push(key(text), false, &[*n_tokens], alignments.into_iter(), &[]);
            }
            let rows = states.iter().map(|state| {
                let n_values = 2 * layout.rows(state.kind);
                let values: Vec<f32> = (0..n_values).map(|value| next + value as f32).collect();
                next += n_values as f32;
                let mut bytes = Vec::new();
                Dtype::F16.encode(&values, &mut bytes).unwrap();
                Ok(StateRows { state: *state, bytes })
            });
            let rows: Vec<Result<StateRows>> = rows.collect();
            let origin = Origin {
                states: states.to_vec(),
                device: "cpu".into(),
                placement: None,
                onnxruntime: "1.31.1".into(),
                batch_tokens: 512,
                parity: Default::default(),
            };
            let (n_documents, n_tokens) = (layout.documents.len(), layout.documents.n_tokens());
            let origins = vec![origin];
            let entry =
                write_shard(folder.path(), &manifest, name, layout, rows.into_iter(), origins);
            manifest.shards.push(entry.unwrap());
            manifest.documents += n_documents as u64;
            manifest.tokens += n_tokens;
        }
        manifest.write(folder.path()).unwrap();
        folder
    }

    #[test]
    fn rows_come_in_the_order_of_the_keys_from_every_shard() {
        let folder = written();
        let cache = Cache::open(folder.path()).unwrap();
        assert_eq!((cache.hidden(), cache.n_documents()), (2, 3));
        assert_eq!(cache.states(), [MEAN, TOKENS]);
        let mut keys = ["a", "b", "c"].map(key);
        let rows = cache.rows(&["c", "a", "b", "a"].map(key), MEAN).unwrap();
        assert_eq!(rows, array![[14.0, 15.0], [0.0, 1.0], [2.0, 3.0], [0.0, 1.0]]);
        assert_eq!(cache.rows(&[], MEAN).unwrap().dim(), (0, 2));
        keys.sort_unstable();
        assert!(cache.keys().eq(keys));
    }

    #[test]
    fn a_document_has_a_row_for_each_of_its_tokens() {
        let folder = written();
        let cache = Cache::open(folder.path()).unwrap();
        let tokens = array![[8.0, 9.0], [10.0, 11.0], [12.0, 13.0]];
        assert_eq!(cache.rows_of(&key("b"), TOKENS).unwrap(), tokens);
        assert_eq!(cache.rows_of(&key("b"), MEAN).unwrap(), array![[2.0, 3.0]]);
        let error = cache.rows(&[key("b")], TOKENS).unwrap_err();
        assert!(error.to_string().ends_with("it has one for each of its tokens"), "{error}");
        assert!(error.hint().unwrap().contains("Cache::rows_of"));
    }

    #[test]
    fn a_key_or_a_state_that_is_not_there_is_named() {
        let folder = written();
        let cache = Cache::open(folder.path()).unwrap();
        assert!(cache.contains(&key("c"), MEAN) && !cache.contains(&key("c"), TOKENS));
        let error = cache.rows(&["a", "x", "y"].map(key), MEAN).unwrap_err();
        let hex = key("x").to_hex();
        let expected = format!("lacks the document keys[1] = {hex} (2 of 3 keys are missing)");
        assert!(error.to_string().ends_with(&expected), "{error}");
        let error = cache.rows_of(&key("c"), TOKENS).unwrap_err();
        let expected = format!("lacks the state tokens-L01 of {}", key("c").to_hex());
        assert!(error.to_string().ends_with(&expected), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("the cache holds `mean-L01`, `tokens-L01`;"), "{hint}");
        assert!(Cache::open(folder.path().join("shard-000000")).is_err());
    }
}
