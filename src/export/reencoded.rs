//! What the encoder of an exported folder computes for the checked rows, in this program.

use frostbert_cache::states::{Dtype, StateId, StateKind};
use ndarray::{Array2, Axis};

use crate::{
    config::{names::Pair, settings::Pipeline},
    data::document::Document,
    encoder::{checkpoint::Checkpoint, device::Precision},
    error::Result,
    export::Exporting,
    extraction::embedder::{EncodedTexts, TextEncoder},
    features::{FeatureView, pieces::Pieces},
    prediction::predictor::HeadRows,
    tasks::{encoded::EncodedRecords, read_encoded},
};

/// Returns what a head reads of the checked rows where the exported folder is the model, in f32 throughout.
///
/// # Errors
/// Returns an error if the folder cannot be run, or if a state is not finite.
pub(super) fn head_rows(exporting: &Exporting<'_>, exported: &Checkpoint) -> Result<HeadRows> {
    let description = &exporting.predictor.run().description;
    let pipeline = in_f32(exporting);
    let encoded = encode(exporting, &pipeline, exported, &description.states)?;
    let records = &exporting.rows.records;
    let encoded = EncodedRecords { pipeline: &pipeline, description, records, encoded };
    let (_, view) = read_encoded(encoded)?;
    HeadRows::of(&view, None)
}

/// Returns what a head reads of the checked rows above layers that were trained with it, where the exported folder is
/// the model and `state` the state of its last layer: pooled documents, or the tokens that have outputs.
///
/// # Errors
/// Returns an error if the folder cannot be run, or if a state is not finite.
pub(super) fn trained_rows(
    exporting: &Exporting<'_>,
    exported: &Checkpoint,
    state: StateId,
) -> Result<Array2<f32>> {
    let rows = states_of_documents(exporting, exported, &[state])?;
    if state.kind != StateKind::Tokens {
        return Ok(rows);
    }
    let roles = exporting.rows.head.roles.iter().enumerate();
    let outputs = roles.filter(|(_, role)| role.is_output).map(|(row, _)| row);
    Ok(rows.select(Axis(0), &outputs.collect::<Vec<usize>>()))
}

/// Returns states of the documents of the checked rows, of one kind or pooled: the rows of each document, in order, in
/// which the states are side by side.
///
/// # Errors
/// Returns an error if the folder cannot be run, or if a state is not finite.
pub(super) fn states_of_documents(
    exporting: &Exporting<'_>,
    exported: &Checkpoint,
    states: &[StateId],
) -> Result<Array2<f32>> {
    let pipeline = in_f32(exporting);
    let encoded = encode(exporting, &pipeline, exported, states)?;
    let EncodedTexts { layout, states: rows, hidden } = encoded;
    let pieces = Pieces::of_layout(&layout, states[0].kind, states.len());
    let sample_start = (0..=pieces.len() as u32).collect();
    let view = FeatureView::from_shard(&layout, rows, hidden, Dtype::F32, pieces, sample_start)?;
    Ok(HeadRows::of(&view, None)?.states)
}

/// The run's pipeline, with nothing rounded.
fn in_f32(exporting: &Exporting<'_>) -> Pipeline {
    let mut pipeline = exporting.predictor.run().pipeline.clone();
    pipeline.extraction.dtype = Dtype::F32;
    pipeline.extraction.precision = Precision::F32;
    pipeline
}

fn encode(
    exporting: &Exporting<'_>,
    pipeline: &Pipeline,
    exported: &Checkpoint,
    states: &[StateId],
) -> Result<EncodedTexts> {
    let settings = pipeline.extraction.of_sources(Vec::new());
    let mut encoder = TextEncoder::open(exported, &settings, states, exporting.machine)?;
    let prompts = exporting.predictor.run().prompts();
    let joint_pairs = pipeline.data.pair == Pair::Joint;
    let records = exporting.rows.records.iter();
    let inputs = records.flat_map(|record| record.documents_with(&prompts, joint_pairs));
    let inputs: Vec<Document<'_>> = inputs.collect();
    encoder.encode(&inputs)
}
