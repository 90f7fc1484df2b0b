//! The vectors of a text's tokens in a multi-vector model: as a state that no cache holds and that is computed from
//! token states when they are read, and of a query.

use std::{iter, path::Path, sync::Arc};

use frostbert_cache::{
    export::DerivedState,
    progress::Progress,
    reader::CacheReader,
    states::{StateId, StateValues},
};
use ndarray::{Array2, ArrayView2, Axis};

use crate::{
    config::settings::{ExtractionSettings, Pipeline},
    data::document::Document,
    encoder::{
        Request,
        checkpoint::Checkpoint,
        device::{Device, Precision},
        sentence_folder::{SentenceFolder, TextRole, TokenFilter, TokenVectors},
        session::TokenBatch,
        tokenizer::TextTokenizer,
        windows::Overflow,
    },
    error::{Error, Result},
    extraction::{
        embedder::{EncodedTexts, TOKENISE, TextEncoder},
        machine::Machine,
        sentence::model_of_cache,
    },
};

/// The name of the state.
pub(crate) const MULTI_VECTOR: &str = "multi-vector";

/// The longest input of a tokenizer that only looks up ids.
const ANY_LENGTH: usize = 512;

/// How a model makes the vectors of tokens, with the ids of those that have one.
#[derive(Clone, Debug)]
pub(crate) struct MultiVectors {
    vectors: TokenVectors,
    /// The states of the tokens.
    states: [StateId; 1],
    hidden: usize,
    of_documents: TokenFilter,
    of_queries: TokenFilter,
    /// The id of the token that short queries are filled up with.
    filler: Option<u32>,
}

impl MultiVectors {
    /// Reads how a model makes the vectors of tokens; `None` if its folder makes none.
    ///
    /// # Errors
    /// Returns an error that names what in the folder this program does not compute.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Result<Option<MultiVectors>> {
        match SentenceFolder::read(&checkpoint.folder)? {
            Some(folder) if folder.has_token_vectors()? => {
                MultiVectors::read(&folder, checkpoint).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Like [`MultiVectors::of`], for a model that must make such vectors.
    ///
    /// # Errors
    /// Returns an error too if its folder makes none.
    pub(crate) fn required(checkpoint: &Checkpoint) -> Result<MultiVectors> {
        let folder = SentenceFolder::read(&checkpoint.folder)?;
        let folder = folder.ok_or_else(|| Error::Checkpoint {
            path: checkpoint.folder.clone(),
            expected: "the folder of a multi-vector model, whose modules.json says what the vectors are".into(),
            got: "a folder without modules.json".into(),
            hint: "name a folder that MultiVectorEncoder of sentence-transformers 6 saved; it also loads checkpoints \
                   of ColBERT and PyLate, and save_pretrained writes them as such a folder"
                .into(),
        })?;
        MultiVectors::read(&folder, checkpoint)
    }

    fn read(folder: &SentenceFolder, checkpoint: &Checkpoint) -> Result<MultiVectors> {
        let vectors = folder.token_vectors(checkpoint.config.hidden, checkpoint.lowercase)?;
        let tokenizer = if vectors.needs_ids() {
            Some(TextTokenizer::new(&checkpoint.tokenizer, ANY_LENGTH, Overflow::Truncate)?)
        } else {
            None
        };
        let id_of = |token: &str| tokenizer.as_ref().and_then(|tokenizer| tokenizer.id_of(token));
        let filler = vectors.expansion.as_ref().map(|expansion| {
            id_of(&expansion.token).ok_or_else(|| Error::Checkpoint {
                path: checkpoint.tokenizer.path.clone(),
                expected: format!(
                    "the token `{}`, with which query_expansion fills up",
                    expansion.token
                ),
                got: "a vocabulary without it".into(),
                hint: "write a token of the vocabulary into `token` of query_expansion".into(),
            })
        });
        Ok(MultiVectors {
            states: [vectors.state(checkpoint.config.layers)],
            hidden: checkpoint.config.hidden,
            of_documents: vectors.filter(TextRole::Document, id_of),
            of_queries: vectors.filter(TextRole::Query, id_of),
            filler: filler.transpose()?,
            vectors,
        })
    }

    /// The states of tokens that the vectors are computed from.
    pub(crate) fn state(&self) -> StateId {
        self.states[0]
    }

    /// How they are computed, in words.
    pub(crate) fn describe(&self) -> String {
        self.vectors.describe()
    }

    /// The name of the similarity of a query and a document.
    pub(crate) fn similarity_name(&self) -> &'static str {
        self.vectors.similarity_name()
    }

    /// The similarity of a query and a document by their vectors.
    pub(crate) fn similarity(&self, query: &Array2<f32>, document: &Array2<f32>) -> f64 {
        self.vectors.similarity(query, document)
    }

    /// Returns the vectors of a document, given the ids of its tokens and their states one after the other.
    ///
    /// # Panics
    /// Panics if there is not a state for each token.
    pub(crate) fn of_document(&self, ids: &[u32], states: &[f32]) -> Array2<f32> {
        self.of_kept(&self.of_documents, ids, states)
    }

    fn of_kept(&self, filter: &TokenFilter, ids: &[u32], states: &[f32]) -> Array2<f32> {
        let states = ArrayView2::from_shape((ids.len(), self.hidden), states);
        let states = states.expect("a state for each token");
        let kept: Vec<usize> = (0..ids.len()).filter(|token| filter.keeps(ids[*token])).collect();
        self.vectors.of_states(states.select(Axis(0), &kept).view())
    }

    /// Encodes documents in memory and returns the vectors of each, with whether its end was cut off.
    ///
    /// # Errors
    /// Returns an error if the model cannot run, or a text has no tokens.
    pub(crate) fn encode_documents(
        &self,
        checkpoint: &Checkpoint,
        settings: &ExtractionSettings,
        documents: &[Document<'_>],
        machine: &Machine,
    ) -> Result<Vec<(Array2<f32>, bool)>> {
        let mut encoder = TextEncoder::open(checkpoint, settings, &self.states, machine)?;
        let EncodedTexts { layout, states, hidden } = encoder.encode(documents)?;
        let vectors = (0..documents.len()).map(|document| {
            let tokens = layout.documents.tokens(document);
            let tokens = tokens.start as usize..tokens.end as usize;
            let bytes = hidden * settings.dtype.size_bytes();
            let mut values = vec![0.0; tokens.len() * hidden];
            settings
                .dtype
                .decode(&states[0].bytes[tokens.start * bytes..tokens.end * bytes], &mut values);
            let vectors = self.of_document(&layout.alignment.token_ids[tokens], &values);
            (vectors, layout.documents.truncated(document))
        });
        Ok(vectors.collect())
    }

    /// Encodes a query, as long as the folder says and filled up with the tokens that it adds, and returns its vectors.
    ///
    /// # Errors
    /// Returns an error if the model cannot run, or the query has no tokens.
    pub(crate) fn encode_query(
        &self,
        checkpoint: &Checkpoint,
        settings: &ExtractionSettings,
        query: Document<'_>,
        machine: &Machine,
        progress: &dyn Progress,
    ) -> Result<Array2<f32>> {
        let settings = self.settings_of_queries(checkpoint, settings, progress)?;
        let mut encoder = TextEncoder::open(checkpoint, &settings, &self.states, machine)?;
        let encoding = encoder.tokenizer.encode(&[query], false)?.remove(0);
        if encoding.has_empty_window() {
            let reason = format!("`{}` has no token", query.beginning());
            return Err(Error::Encoder { action: TOKENISE, reason });
        }
        if encoding.truncated {
            progress.warn(&format!(
                "the query is longer than {} tokens, the longest that the model takes: its end is cut off",
                settings.max_length
            ));
        }
        let mut window = encoding.windows.into_iter().next().expect("a document has a window");
        let length = self.vectors.expansion.as_ref().map_or(0, |expansion| expansion.length);
        let n_added = length.saturating_sub(window.ids.len());
        window.ids.extend(iter::repeat_n(self.filler.unwrap_or_default(), n_added));
        window.type_ids.resize(window.ids.len(), 0);
        let mut batch = TokenBatch::new(iter::once((&window.ids[..], &window.type_ids[..])));
        if self.leaves_unattended() && n_added > 0 {
            batch = batch.with_last_unattended(n_added);
        }
        let (workers, _) = encoder.encoder.workers();
        let worker = workers.first_mut().expect("an encoder has a worker");
        let dtype = settings.dtype;
        let request =
            Request { states: &self.states, dtype, stored: dtype, words: &[], left_out: &[] };
        let name = |_| format!("the query `{}`", query.beginning());
        let states = worker.compute(&batch)?.finish(request, name)?;
        let mut values = vec![0.0; window.ids.len() * self.hidden];
        match states.first().map(|state| &state.values) {
            Some(StateValues::Rows(bytes)) => dtype.decode(bytes, &mut values),
            _ => unreachable!("the states of tokens were asked for"),
        }
        Ok(self.of_kept(&self.of_queries, &window.ids, &values))
    }

    /// Whether queries have tokens that nothing attends to.
    fn leaves_unattended(&self) -> bool {
        self.vectors.expansion.as_ref().is_some_and(|expansion| !expansion.attend)
    }

    /// The settings with which queries are encoded: their own length and, for tokens that nothing attends to, the graph
    /// with padding, which computes the states of such tokens.
    fn settings_of_queries(
        &self,
        checkpoint: &Checkpoint,
        settings: &ExtractionSettings,
        progress: &dyn Progress,
    ) -> Result<ExtractionSettings> {
        let mut settings = settings.of_sources(Vec::new());
        settings.max_length = self.vectors.query_length(settings.max_length);
        settings.overflow = Overflow::Truncate;
        if let Some(expansion) =
            self.vectors.expansion.as_ref().filter(|_| self.leaves_unattended())
        {
            checkpoint.check_unattended(expansion.length)?;
            if settings.device != Device::Cpu {
                progress.note(
                    "the query is encoded on the CPU, because it has tokens that nothing attends to, and the graph \
                     for a GPU leaves such tokens out",
                );
                settings.device = Device::Cpu;
            }
            // Half precision is for GPUs alone.
            if settings.precision == Precision::F16 {
                settings.precision = Precision::F32;
            }
        }
        Ok(settings)
    }
}

impl DerivedState for MultiVectors {
    fn name(&self) -> &str {
        MULTI_VECTOR
    }

    fn states(&self) -> &[StateId] {
        &self.states
    }

    fn width(&self) -> usize {
        self.vectors.n_values()
    }

    fn compute(&self, states: &[f32], out: &mut [f32]) {
        self.compute_rows(states, out);
    }

    fn compute_rows(&self, states: &[f32], out: &mut [f32]) {
        let rows = ArrayView2::from_shape((states.len() / self.hidden, self.hidden), states);
        let vectors = self.vectors.of_states(rows.expect("whole rows"));
        for (value, out) in vectors.iter().zip(out) {
            *out = *value;
        }
    }

    fn keeps(&self, token_id: u32) -> bool {
        self.of_documents.keeps(token_id)
    }
}

/// Returns how the model that made a cache computes the vectors of tokens: the model in `folder`, or if that is `None`,
/// in a folder that the pipeline or the cache itself names.
///
/// # Errors
/// Returns an error if no folder is known, or none holds the model that made the cache, or that makes no such vectors.
pub fn multi_vectors_of_cache(
    cache: &CacheReader,
    folder: Option<&Path>,
    pipeline: Option<&Pipeline>,
) -> Result<Arc<dyn DerivedState>> {
    let checkpoint = model_of_cache(cache, folder, pipeline)?;
    Ok(Arc::new(MultiVectors::required(&checkpoint)?))
}
