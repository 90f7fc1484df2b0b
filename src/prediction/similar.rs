//! The similarity of texts according to their states alone: of two texts, or of a query and the texts of a corpus.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap, HashSet},
};

use frostbert_cache::{
    fingerprint::Key,
    progress::Progress,
    reader::CacheReader,
    states::{Pooling, StateId},
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
    extraction::{
        embedder::{EncodedTexts, TextEncoder},
        extract::extract_with,
        machine::Machine,
        sentence::SentenceState,
    },
    features::{FeatureView, pieces::Pieces},
    tasks::cosine::cosine,
};

/// A text of a corpus and its similarity to a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Match {
    /// The text.
    pub text: String,
    /// Its similarity: the cosine of its state and the query's, or what a multi-vector model makes of the vectors of
    /// both.
    pub score: f64,
}

/// What texts are compared by.
struct Compared {
    /// Pooled states of one layer.
    states: Vec<StateId>,
    /// The vector that is made of them, if they are not compared as they are.
    sentence: Option<SentenceState>,
}

impl Compared {
    /// By the sentence vector if the head reads it, or the file leaves the pooling to a sentence-transformers folder;
    /// else by the pooling of the head, or the mean if the head pools by attention, at the first of its layers.
    fn of(
        pipeline: &Pipeline,
        checkpoint: &Checkpoint,
        progress: &dyn Progress,
    ) -> Result<Compared> {
        let sentence = if pipeline.reads_sentence() {
            Some(SentenceState::required(checkpoint)?)
        } else if pipeline.pooling_is_auto {
            SentenceState::of(checkpoint)?
        } else {
            None
        };
        if let Some(sentence) = sentence {
            let steps = sentence.describe();
            let pooling = pipeline.head.pooling;
            // The folder's pooling was noted as that of heads.
            let heads = (pooling != HeadPooling::Sentence)
                .then(|| format!("; head.pooling = {pooling} is for heads alone"));
            progress.note(&format!(
                "texts are compared by sentence vectors: {steps}{}",
                heads.unwrap_or_default()
            ));
            return Ok(Compared { states: sentence.states().to_vec(), sentence: Some(sentence) });
        }
        let pooling = match pipeline.head.pooling {
            HeadPooling::Cls => Pooling::Cls,
            HeadPooling::Max => Pooling::Max,
            HeadPooling::Auto
            | HeadPooling::Mean
            | HeadPooling::Attention
            | HeadPooling::Sentence => Pooling::Mean,
        };
        let states = pipeline.head_states(checkpoint.config.layers)?;
        Ok(Compared { states: vec![StateId::pooled(pooling, states[0].layer)], sentence: None })
    }

    /// Makes of a view what texts are compared by.
    fn view<'c>(&self, view: FeatureView<'c>) -> FeatureView<'c> {
        match &self.sentence {
            Some(sentence) => view.mapped_to_one(Box::new(sentence.clone())),
            None => view,
        }
    }
}

/// Returns the cosine similarity of the states of two texts, with a prompt before each: that of the pipeline's model,
/// unless another one is given. Nothing is cached.
///
/// # Errors
/// Returns an error if the model cannot run or does not have the prompt, or if a text has no tokens.
pub fn compare(
    pipeline: &Pipeline,
    texts: [&str; 2],
    prompt: Option<&str>,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<f64> {
    let prompt = pipeline.query_prompt(prompt)?;
    let checkpoint = pipeline.extraction.checkpoint()?;
    let compared = Compared::of(pipeline, &checkpoint, progress)?;
    let texts = texts.map(|text| Document::of_text(Some(&prompt), text));
    let names = ["the first text", "the second text"];
    let states = encode(pipeline, &checkpoint, &compared, (&texts, &names), machine, progress)?;
    Ok(cosine(states.row(0), states.row(1)))
}

/// Returns the states of some texts, and warns of those whose end is cut off by their names.
fn encode(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    compared: &Compared,
    (inputs, names): (&[Document<'_>], &[&str]),
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Array2<f32>> {
    pipeline.check_length(checkpoint)?;
    let settings = pipeline.extraction.of_sources(Vec::new());
    let mut encoder = TextEncoder::open(checkpoint, &settings, &compared.states, machine)?;
    let EncodedTexts { layout, states, hidden } = encoder.encode(inputs)?;
    for (number, name) in names.iter().enumerate() {
        if layout.documents.truncated(number) {
            warn_of_cut(name, pipeline, progress);
        }
    }
    let pieces = Pieces::of_layout(&layout, compared.states[0].kind, states.len());
    let starts = (0..=inputs.len() as u32).collect();
    let view = FeatureView::from_shard(&layout, states, hidden, settings.dtype, pieces, starts)?;
    let all: Vec<u32> = (0..inputs.len() as u32).collect();
    Ok(compared.view(view).decode_all(&all))
}

/// Warns of a text whose end was cut off.
pub(super) fn warn_of_cut(name: &str, pipeline: &Pipeline, progress: &dyn Progress) {
    let most = pipeline.extraction.max_length;
    progress.warn(&format!(
        "{name} is longer than {most} tokens and truncated (raise cache.max_length)"
    ));
}

/// Returns the `top` texts of the pipeline's files that are most similar to a query, best first; ties are ordered by
/// key. States that the cache lacks are extracted first. The texts have the prompts of the pipeline; the query has that
/// of its model, unless another one is given.
///
/// # Errors
/// Returns the errors of [`crate::extraction::extract::extract`], and an error if the model does not have the prompt.
pub fn nearest(
    pipeline: &Pipeline,
    query: &str,
    prompt: Option<&str>,
    top: usize,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Vec<Match>> {
    let prompt = pipeline.query_prompt(prompt)?;
    let query = Document::of_text(Some(&prompt), query);
    let checkpoint = pipeline.extraction.checkpoint()?;
    let compared = Compared::of(pipeline, &checkpoint, progress)?;
    // What is wrong with the query is said before the texts are encoded.
    let inputs = (&[query][..], &["the query"][..]);
    let query = encode(pipeline, &checkpoint, &compared, inputs, machine, progress)?;
    let corpus = Corpus::extract(pipeline, &checkpoint, &compared.states, machine, progress)?;
    let view = FeatureView::read_all(&corpus.cache, &compared.states, &corpus.keys)?;
    let view = compared.view(view);

    let mut best = BestDocuments::new(top);
    let all: Vec<u32> = (0..corpus.keys.len() as u32).collect();
    view.for_each_tile(&all, 4096, |samples, tile| {
        for (sample, row) in samples.iter().zip(tile.rows.rows()) {
            best.add(cosine(query.row(0), row), corpus.keys[*sample as usize]);
        }
    })?;
    best.matches(&corpus)
}

/// The texts of a pipeline's files, with their states in a cache, which a query is compared with.
pub(super) struct Corpus {
    pipeline: Pipeline,
    pub(super) cache: CacheReader,
    /// The keys of the texts, without duplicates.
    pub(super) keys: Vec<Key>,
}

impl Corpus {
    /// Extracts what the cache lacks of some states, all of the same layer.
    pub(super) fn extract(
        pipeline: &Pipeline,
        checkpoint: &Checkpoint,
        states: &[StateId],
        machine: &Machine,
        progress: &dyn Progress,
    ) -> Result<Corpus> {
        let mut pipeline = pipeline.clone();
        pipeline.extraction.kinds = states.iter().map(|state| state.kind).collect();
        pipeline.extraction.layers = LayerChoice::of_numbers([states[0].layer]);
        // The texts of a pair are compared separately, because a query is a single text.
        pipeline.extraction.pairs.fill(Pair::Separate);
        let report = extract_with(checkpoint, &pipeline, machine, progress)?;
        let cache = CacheReader::existing(&report.cache)?;
        let keys = keys_of(&pipeline)?;
        Ok(Corpus { pipeline, cache, keys })
    }
}

/// The documents with the highest scores.
pub(super) struct BestDocuments {
    top: usize,
    best: BinaryHeap<Reverse<ScoredDocument>>,
}

impl BestDocuments {
    pub(super) fn new(top: usize) -> BestDocuments {
        BestDocuments { top, best: BinaryHeap::new() }
    }

    pub(super) fn add(&mut self, score: f64, key: Key) {
        self.best.push(Reverse(ScoredDocument { score, key }));
        if self.best.len() > self.top {
            self.best.pop();
        }
    }

    /// Returns their texts, best first; ties are ordered by key.
    pub(super) fn matches(self, corpus: &Corpus) -> Result<Vec<Match>> {
        let mut found: Vec<ScoredDocument> =
            self.best.into_iter().map(|Reverse(scored)| scored).collect();
        found.sort_by(|one, other| other.cmp(one));
        let mut texts =
            texts_of(&corpus.pipeline, found.iter().map(|scored| scored.key).collect())?;
        found
            .into_iter()
            .map(|scored| {
                let text =
                    texts.remove(&scored.key).ok_or_else(|| frostbert_cache::Error::Miss {
                        cache: corpus.cache.folder().to_path_buf(),
                        lacks: "a text that was just read".into(),
                        hint: "the data changed meanwhile: run the same command again".into(),
                    })?;
                Ok(Match { text, score: scored.score })
            })
            .collect()
    }
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
                Document::Text(text)
                | Document::Pair(text, _)
                | Document::Prompted { text, .. } => text.to_owned(),
                Document::Words(words) => words.join(" "),
            });
        }
    })?;
    Ok(texts)
}
