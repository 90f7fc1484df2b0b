//! Evaluates a saved run on another labelled file.

use std::path::Path;

use frostbert_cache::{
    progress::Progress,
    reader::CacheReader,
    states::{StateId, StateKind},
};

use crate::{
    config::{
        names::Pair,
        settings::{LayerChoice, Pipeline},
    },
    data::{Format, LabelMap, Part, dataset::Dataset},
    error::{Error, Result},
    extraction::{extract::extract_with, given::GivenVectors, machine::Machine},
    prediction::{known_rows, saved_run::SavedRun},
    tasks::{CalibrationRows, TaskMetrics, TaskRows, similarity},
};

/// Returns the metrics of a run's head on a labelled file, which is read with the settings of [`SavedRun::source`].
/// States are read from the cache, after those that it lacks were added. Warns about rows that the run was trained on.
///
/// # Errors
/// Returns an error if the file does not match the settings of the source, contains a label that the head does not
/// know, or if stage 1 fails.
pub fn evaluate(
    run: &SavedRun,
    data: &Path,
    format: Option<Format>,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<TaskMetrics> {
    let checkpoint = run.has_encoder().then(|| run.checkpoint()).transpose()?;
    let sources = vec![run.source(data, format)];
    let (data_settings, description) = (&run.pipeline.data, &run.description);
    let labels = if description.labels.is_empty() {
        LabelMap::default()
    } else {
        LabelMap::from_list(description.labels.clone(), &run.folder)?
    };
    let is_joint = data_settings.pair == Pair::Joint;
    let task = data_settings.task.of_data();
    let dataset = Dataset::of_part(
        task,
        is_joint,
        &sources,
        labels,
        description.first_label_id,
        Part::Test,
        data_settings.clean.drop_unlabelled,
    )
    .map_err(|error| run.explain_format(data, format, error))?;
    let known = known_rows::warnings(run, data, &dataset)?;
    for warning in dataset.warnings.iter().chain(&known) {
        progress.warn(warning);
    }

    let Some(checkpoint) = checkpoint else {
        let states = run.pipeline.head_states(0)?;
        let vectors = GivenVectors::read(&sources, states[0], &dataset.document_keys())?;
        run.require_width(vectors.cache().manifest().hidden, data)?;
        return measured(run, &run.pipeline, &dataset, vectors.cache(), &states);
    };
    let states = &description.states;
    let mut pipeline = run.pipeline.clone();
    pipeline.extraction = pipeline.extraction.of_sources(sources);
    let mut kinds: Vec<StateKind> = states.iter().map(|state| state.kind).collect();
    kinds.dedup();
    pipeline.extraction.kinds = kinds;
    pipeline.extraction.layers = LayerChoice::of_numbers(states.iter().map(|state| state.layer));
    let report = extract_with(&checkpoint, &pipeline, machine, progress)?;
    let cache = CacheReader::existing(&report.cache)?;
    measured(run, &pipeline, &dataset, &cache, states)
}

/// Returns the metrics of a run's head on the rows of a dataset, all of them of test.
fn measured(
    run: &SavedRun,
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &CacheReader,
    states: &[StateId],
) -> Result<TaskMetrics> {
    let rows = TaskRows::new(pipeline, dataset, cache, states)?;
    let outcome = match &run.head {
        Some(head) => rows.finish(pipeline, dataset, &mut head.clone(), CalibrationRows::Saved)?,
        None => similarity::measure(&rows, pipeline, dataset)?,
    };
    outcome.metrics.test.ok_or_else(|| Error::Record {
        path: dataset.files.first().map(|file| file.path.clone()).unwrap_or_default(),
        line: None,
        expected: "rows to measure on".into(),
        got: "none".into(),
        hint: "check that the path is right".into(),
    })
}
