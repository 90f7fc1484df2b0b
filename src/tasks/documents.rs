//! Texts and pairs of texts as samples: the code shared by the tasks with one row of outputs for each.

use frostbert_cache::{reader::CacheReader, states::StateId};

use crate::{
    config::settings::Pipeline,
    data::{Part, dataset::Dataset},
    error::Result,
    extraction::sentence::SentenceState,
    features::{FeatureView, TokenRole, pieces},
    head::{
        applied::Applied, row_maps::PairRows, saved::Head, spec::Objective, targets::TargetTable,
    },
    report::tables::Table,
    tasks::{
        MeasuredRows, PredictionTask, RowSource, TaskRows, encoded::EncodedRecords,
        predictions::Calibration, row_columns, weights,
    },
};

/// Returns the rows of a task with a sample for each row of the dataset: its document, or its pair of documents.
pub(super) fn rows<'c>(
    source: RowSource<'_, 'c>,
    task: Box<dyn PredictionTask>,
    targets: TargetTable,
    n_outputs: usize,
) -> Result<TaskRows<'c>> {
    let RowSource { pipeline, dataset, cache, states } = source;
    let parts = Part::ALL.map(|part| dataset.part(part));
    Ok(TaskRows {
        view: view(pipeline, dataset, cache, states)?,
        targets,
        objective: Objective::Rows(weights::loss(pipeline, dataset, &parts[0])?),
        n_outputs,
        parts,
        keys: dataset.document_keys(),
        task,
        warnings: Vec::new(),
    })
}

/// Returns a view with a sample for each row of a dataset, of what the head reads: the states of its document or pair
/// of documents, the sentence vectors that are made of them, or tokens with their roles.
fn view<'c>(
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &'c CacheReader,
    states: &[StateId],
) -> Result<FeatureView<'c>> {
    if pipeline.file().unfreeze().is_none() {
        let view = stored_view(pipeline, dataset, cache, states)?;
        return as_read(view, pipeline, states, cache.manifest().hidden);
    }
    let keys = dataset.document_keys();
    let mut windows: Vec<Vec<u32>> = vec![Vec::new(); keys.len()];
    let pieces = pieces::locate(cache, states, &keys, |place, layout, document| {
        windows[place] = layout.documents.lengths(document).collect();
    })?;
    let sample_start = first_documents(dataset);
    let view = FeatureView::new(cache, states, pieces, sample_start, pipeline.memory_bytes)?;
    let windows = windows.into_iter().map(Vec::into_iter);
    Ok(view.with_roles(TokenRole::of_documents(windows)))
}

/// Returns a view with a sample for each row of a dataset: the states of its document, or of its pair of documents.
pub(crate) fn stored_view<'c>(
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &'c CacheReader,
    states: &[StateId],
) -> Result<FeatureView<'c>> {
    let pieces = pieces::locate(cache, states, &dataset.document_keys(), |_, _, _| {})?;
    FeatureView::new(cache, states, pieces, first_documents(dataset), pipeline.memory_bytes)
}

/// The first document of each row of a dataset, followed by the number of documents.
fn first_documents(dataset: &Dataset) -> Vec<u32> {
    let mut first = vec![0];
    let mut total = 0;
    for row in &dataset.rows {
        total += row.keys.len() as u32;
        first.push(total);
    }
    first
}

/// Maps the states of a view to sentence vectors if the head reads those, and merges those of a pair.
fn as_read<'c>(
    view: FeatureView<'c>,
    pipeline: &Pipeline,
    states: &[StateId],
    hidden: usize,
) -> Result<FeatureView<'c>> {
    if !pipeline.reads_sentence() {
        return Ok(paired(view, pipeline));
    }
    let sentence = SentenceState::of_pipeline(pipeline, hidden, states)?;
    Ok(paired(view.mapped_to_one(Box::new(sentence)), pipeline))
}

/// Merges the two rows of each pair into one if the pipeline encodes pairs separately; otherwise returns the view as it
/// is.
pub(crate) fn paired<'c>(view: FeatureView<'c>, pipeline: &Pipeline) -> FeatureView<'c> {
    let n_layers = view.n_layers();
    if pipeline.has_separate_pairs() { view.mapped(Box::new(PairRows { n_layers })) } else { view }
}

/// Returns a view with a sample for each record that was just encoded.
pub(super) fn view_of_encoded(encoded: EncodedRecords<'_>) -> Result<FeatureView<'static>> {
    let pipeline = encoded.pipeline;
    let states: Vec<StateId> = encoded.encoded.states.iter().map(|rows| rows.state).collect();
    let hidden = encoded.encoded.hidden;
    let documents_of_record = if pipeline.has_separate_pairs() { 2 } else { 1 };
    let n_records = encoded.records.len() as u32;
    let sample_start = (0..=n_records).map(|record| record * documents_of_record).collect();
    let pieces = encoded.pieces();
    if pipeline.file().unfreeze().is_some() {
        let documents = &encoded.layout().documents;
        let windows = (0..documents.len()).map(|document| documents.lengths(document));
        let roles = TokenRole::of_documents(windows);
        return Ok(encoded.view(pieces, sample_start)?.with_roles(roles));
    }
    as_read(encoded.view(pieces, sample_start)?, pipeline, &states, hidden)
}

/// Calibrates a head on its outputs on the validation rows.
pub(super) fn calibrate(
    task: &dyn PredictionTask,
    rows: &MeasuredRows<'_>,
    head: &Head,
) -> Result<Calibration> {
    let validation = rows.rows.part(Part::Validation);
    let evaluator = task.evaluator(rows.pipeline, rows.dataset, validation, &[]);
    evaluator.calibration(&Applied::new(head, &rows.rows.view, validation)?)
}

/// Returns the columns of [`row_columns`] and those of the texts.
pub(super) fn text_columns(dataset: &Dataset) -> Table {
    let mut table = row_columns(dataset);
    table.texts("text", dataset.rows.iter().map(|row| row.text.as_str()));
    if dataset.rows.iter().any(|row| row.text_pair.is_some()) {
        let second = dataset.rows.iter().map(|row| row.text_pair.as_deref());
        table.optional_texts("text_pair", second);
    }
    table
}
