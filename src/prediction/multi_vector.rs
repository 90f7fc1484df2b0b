//! The similarity of texts in a multi-vector model, by the vectors of their tokens (MaxSim): of two texts, or of a
//! query and the texts of a corpus.

use frostbert_cache::{
    fingerprint::Key,
    index::Location,
    progress::Progress,
    reader::{CacheReader, by_shard, rows_of},
    states::StateKind,
    wording::shorten,
};
use ndarray::Array2;
use rayon::prelude::*;

use crate::{
    config::settings::Pipeline,
    data::document::Document,
    encoder::checkpoint::Checkpoint,
    error::Result,
    extraction::{machine::Machine, multi_vector::MultiVectors},
    features::pieces::require_rows,
    prediction::similar::{BestDocuments, Corpus, Match, warn_of_cut},
};

/// Returns the similarity of a query and a document. The query has the prompt of queries of the pipeline's model,
/// unless another one is given, and the document has that of the pipeline. Nothing is cached.
///
/// # Errors
/// Returns an error if the model makes no vectors of tokens, cannot run or does not have the prompt, or if a text has
/// no tokens.
pub fn compare_multi_vectors(
    pipeline: &Pipeline,
    [query, document]: [&str; 2],
    prompt: Option<&str>,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<f64> {
    let checkpoint = pipeline.extraction.checkpoint()?;
    let model = model_of(&checkpoint, progress)?;
    pipeline.check_length(&checkpoint)?;
    let query = encode_query(pipeline, &checkpoint, &model, query, prompt, machine, progress)?;
    let prompt = pipeline.query_prompt(None)?;
    let document = Document::of_text(Some(&prompt), document);
    let settings = pipeline.extraction.of_sources(Vec::new());
    let documents = model.encode_documents(&checkpoint, &settings, &[document], machine)?;
    let (document, is_cut) = &documents[0];
    if *is_cut {
        warn_of_cut("the second text", pipeline, progress);
    }
    Ok(model.similarity(&query, document))
}

/// Returns the `top` texts of the pipeline's files that are most similar to a query, best first; ties are ordered by
/// key. States of tokens that the cache lacks are extracted first. The texts have the prompts of the pipeline; the
/// query has the prompt of queries of its model, unless another one is given.
///
/// # Errors
/// Returns the errors of [`compare_multi_vectors`] and of [`crate::extraction::extract::extract`].
pub fn nearest_multi_vectors(
    pipeline: &Pipeline,
    query: &str,
    prompt: Option<&str>,
    top: usize,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Vec<Match>> {
    let checkpoint = pipeline.extraction.checkpoint()?;
    let model = model_of(&checkpoint, progress)?;
    // What is wrong with the query is said before the texts are encoded.
    let query = encode_query(pipeline, &checkpoint, &model, query, prompt, machine, progress)?;
    let corpus = Corpus::extract(pipeline, &checkpoint, &[model.state()], machine, progress)?;
    let mut best = BestDocuments::new(top);
    for (key, score) in scores(&corpus.cache, &model, &query, &corpus.keys)? {
        best.add(score, key);
    }
    best.matches(&corpus)
}

fn model_of(checkpoint: &Checkpoint, progress: &dyn Progress) -> Result<MultiVectors> {
    let model = MultiVectors::required(checkpoint)?;
    let (steps, similarity) = (model.describe(), model.similarity_name());
    progress.note(&format!(
        "texts are compared by the vectors of their tokens ({steps}): {similarity}"
    ));
    Ok(model)
}

fn encode_query(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    model: &MultiVectors,
    query: &str,
    prompt: Option<&str>,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Array2<f32>> {
    let named = prompt.is_none();
    let prompt = pipeline.multi_vector_query_prompt(prompt)?;
    if named && !prompt.is_empty() {
        progress.note(&format!(
            "the model's prompt of queries (\"{}\") is put before the query; --prompt \"\" leaves it out",
            shorten(&prompt, 60)
        ));
    }
    let query = Document::of_text(Some(&prompt), query);
    model.encode_query(checkpoint, &pipeline.extraction, query, machine, progress)
}

/// Returns the similarity of a query to each document of a cache, shard by shard, so that memory does not grow with the
/// cache.
fn scores(
    cache: &CacheReader,
    model: &MultiVectors,
    query: &Array2<f32>,
    keys: &[Key],
) -> Result<Vec<(Key, f64)>> {
    let state = model.state();
    require_rows(cache, &[state], keys)?;
    let locations: Vec<Location> = keys.iter().filter_map(|key| cache.locate(key, state)).collect();
    let (hidden, dtype) = (cache.manifest().hidden, cache.manifest().dtype);
    let mut scores = Vec::with_capacity(keys.len());
    for (shard, places) in by_shard(&locations) {
        let layout = cache.read_layout(shard)?;
        let file = cache.open_state(shard, state)?;
        let of_document = |place: &usize| {
            let rows = rows_of(&layout, StateKind::Tokens, locations[*place].1 as usize);
            let ids = &layout.alignment.token_ids[rows.clone()];
            let bytes: Vec<u8> = file.rows(rows).flatten().copied().collect();
            let mut states = vec![0.0; ids.len() * hidden];
            dtype.decode(&bytes, &mut states);
            let document = model.of_document(ids, &states);
            (keys[*place], model.similarity(query, &document))
        };
        scores.par_extend(places.par_iter().map(of_document));
    }
    Ok(scores)
}
