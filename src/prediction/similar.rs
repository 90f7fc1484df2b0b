//! The similarity of texts according to their states alone: of two texts, or of a query and the texts of a corpus.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap, HashSet},
};

use frostbert_cache::{
    fingerprint::Key,
    progress::Progress,
    reader::CacheReader,
    states::{Pooling, StateId, StateKind},
};
use ndarray::Array2;
use serde::Serialize;

use crate::{
    config::{
        names::{HeadPooling, Pair},
        settings::{LayerChoice, Pipeline},
    },
    data::{dataset::read_all, document::Document},
    encoder::checkpoint::Checkpoint,
    error::Result,
    extraction::{embedder::TextEncoder, extract::extract_with, machine::Machine},
    features::FeatureView,
    tasks::cosine::cosine,
};

/// A text of a corpus and its similarity to a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Match {
    /// The text.
    pub text: String,
    /// The cosine similarity of its state and the query's.
    pub score: f64,
}

/// Returns the pooled state by which a pipeline compares texts: the pooling of its head, or the mean if the head pools
/// by attention, at the first of its layers.
fn state_of(pipeline: &Pipeline, model_layers: usize) -> Result<StateId> {
    let pooling = match pipeline.head.pooling {
        HeadPooling::Cls => Pooling::Cls,
        HeadPooling::Max => Pooling::Max,
        HeadPooling::Mean | HeadPooling::Attention => Pooling::Mean,
    };
    let states = pipeline.head_states(model_layers)?;
    Ok(StateId::pooled(pooling, states[0].layer))
}

/// Returns the cosine similarity of the states of two texts. Nothing is cached.
///
/// # Errors
/// Returns an error if the model cannot run or a text has no tokens.
pub fn compare(pipeline: &Pipeline, texts: [&str; 2], machine: &Machine) -> Result<f64> {
    let checkpoint = pipeline.extraction.checkpoint()?;
    let state = state_of(pipeline, checkpoint.config.layers)?;
    let states = encode(pipeline, &checkpoint, state, &texts, machine)?;
    Ok(cosine(states.row(0), states.row(1)))
}

fn encode(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    state: StateId,
    texts: &[&str],
    machine: &Machine,
) -> Result<Array2<f32>> {
    pipeline.check_length(checkpoint)?;
    let settings = pipeline.extraction.of_sources(Vec::new());
    let mut encoder = TextEncoder::open(checkpoint, &settings, &[state], machine)?;
    let inputs: Vec<Document<'_>> = texts.iter().map(|text| Document::Text(text)).collect();
    let encoded = encoder.encode(&inputs)?;
    let bytes = encoded.states.into_iter().flat_map(|rows| rows.bytes);
    let view = FeatureView::from_bytes(state, encoded.hidden, settings.dtype, bytes.collect());
    let all: Vec<u32> = (0..texts.len() as u32).collect();
    Ok(view.decode_all(&all))
}

/// Returns the `top` texts of the pipeline's files that are most similar to a query, best first; ties are ordered by
/// key. States that the cache lacks are extracted first.
///
/// # Errors
/// Returns the errors of [`crate::extraction::extract::extract`].
pub fn nearest(
    pipeline: &Pipeline,
    query: &str,
    top: usize,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Vec<Match>> {
    let checkpoint = pipeline.extraction.checkpoint()?;
    let state = state_of(pipeline, checkpoint.config.layers)?;
    let mut pipeline = pipeline.clone();
    pipeline.extraction.kinds = vec![state.kind];
    pipeline.extraction.layers = LayerChoice::of_numbers([state.layer]);
    // The texts of a pair are compared separately, because a query is a single text.
    pipeline.extraction.pairs.fill(Pair::Separate);
    let report = extract_with(&checkpoint, &pipeline, machine, progress)?;
    let query = encode(&pipeline, &checkpoint, state, &[query], machine)?;
    let cache = CacheReader::existing(&report.cache)?;
    let keys = keys_of(&pipeline)?;
    let view = FeatureView::read(&cache, state, &keys)?;
    debug_assert!(matches!(view.states[0].kind, StateKind::Pooled(_)));

    let mut best: BinaryHeap<Reverse<ScoredDocument>> = BinaryHeap::new();
    let all: Vec<u32> = (0..keys.len() as u32).collect();
    view.for_each_tile(&all, 4096, |samples, tile| {
        for (sample, row) in samples.iter().zip(tile.rows.rows()) {
            best.push(Reverse(ScoredDocument {
                score: cosine(query.row(0), row),
                key: keys[*sample as usize],
            }));
            if best.len() > top {
                best.pop();
            }
        }
    })?;
    let mut found: Vec<ScoredDocument> = best.into_iter().map(|Reverse(scored)| scored).collect();
    found.sort_by(|one, other| other.cmp(one));
    let mut texts = texts_of(&pipeline, found.iter().map(|scored| scored.key).collect())?;
    found
        .into_iter()
        .map(|scored| {
            let text = texts.remove(&scored.key).ok_or_else(|| frostbert_cache::Error::Miss {
                cache: report.cache.clone(),
                lacks: "a text that was just read".into(),
                hint: "the data changed meanwhile: run the same command again".into(),
            })?;
            Ok(Match { text, score: scored.score })
        })
        .collect()
}

#[derive(PartialEq)]
struct ScoredDocument {
    score: f64,
    key: Key,
}

impl Eq for ScoredDocument {}

impl Ord for ScoredDocument {
    fn cmp(&self, other: &ScoredDocument) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.key.cmp(&self.key))
    }
}

impl PartialOrd for ScoredDocument {
    fn partial_cmp(&self, other: &ScoredDocument) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Visits every text of the pipeline's files, in order.
fn each_text(pipeline: &Pipeline, mut visit: impl FnMut(Document<'_>)) -> Result<()> {
    for example in read_all(&pipeline.extraction.sources) {
        let example = example?;
        if !pipeline.extraction.leaves_out(&example) {
            example.documents(false).for_each(&mut visit);
        }
    }
    Ok(())
}

/// Returns the keys of all texts, without duplicates.
fn keys_of(pipeline: &Pipeline) -> Result<Vec<Key>> {
    let mut seen = HashSet::new();
    let mut keys = Vec::new();
    each_text(pipeline, |input| {
        let key = input.key();
        if seen.insert(key) {
            keys.push(key);
        }
    })?;
    Ok(keys)
}

fn texts_of(pipeline: &Pipeline, wanted: HashSet<Key>) -> Result<HashMap<Key, String>> {
    let mut texts = HashMap::new();
    each_text(pipeline, |input| {
        let key = input.key();
        if wanted.contains(&key) {
            texts.entry(key).or_insert_with(|| match input {
                Document::Text(text) | Document::Pair(text, _) => text.to_owned(),
                Document::Words(words) => words.join(" "),
            });
        }
    })?;
    Ok(texts)
}
