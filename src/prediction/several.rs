//! Predicts for the same records with several runs.

use std::path::Path;

use crate::{
    config::settings::Pipeline,
    data::Record,
    error::Result,
    prediction::{predictor::Predictor, saved_run::SavedRun},
    run_folder::number_of,
    tasks::prediction::Prediction,
};

/// A predictor, with the name that distinguishes its predictions from those of other runs.
pub struct NamedPredictor {
    /// The name of its runs, or the path of its folder if several of the runs have the same name.
    pub name: String,
    /// The predictor.
    pub predictor: Predictor,
}

/// A record and its prediction; `None` if it has no text.
pub(crate) type Row = (Record, Option<Prediction>);

/// Returns the names of runs, in order. All names differ, unless a run is given twice.
pub fn names_of(runs: &[SavedRun]) -> Vec<String> {
    let own = |run: &SavedRun| short_name(&run.folder, &run.pipeline);
    let is_shared = |name: &str| runs.iter().filter(|run| own(run) == name).count() > 1;
    runs.iter()
        .map(|run| {
            let name = own(run);
            if is_shared(&name) { run.folder.display().to_string() } else { name }
        })
        .collect()
}

/// Returns the pipeline's name if the folder is numbered. Otherwise the folder is that of one of several tasks or a
/// copy, and its own name is returned.
fn short_name(folder: &Path, pipeline: &Pipeline) -> String {
    match folder.file_name() {
        Some(name) if number_of(name).is_none() => name.to_string_lossy().into_owned(),
        _ => pipeline.name.clone(),
    }
}

/// Returns the number of records that all predictors can predict for at a time.
pub fn records_at_a_time(predictors: &[NamedPredictor]) -> usize {
    let each = predictors.iter().map(|one| one.predictor.records_at_a_time());
    each.min().unwrap_or(1)
}

/// Returns the predictions of each run for the same records, in order.
///
/// # Errors
/// Returns the errors of [`Predictor::predict`].
pub fn predict_with_all(
    predictors: &mut [NamedPredictor],
    records: Vec<Record>,
) -> Result<Vec<Vec<Row>>> {
    let Some((last, others)) = predictors.split_last_mut() else {
        return Ok(Vec::new());
    };
    let mut rows = Vec::with_capacity(others.len() + 1);
    for one in others {
        rows.push(one.predictor.predict_where_there_is_text(records.clone())?);
    }
    rows.push(last.predictor.predict_where_there_is_text(records)?);
    Ok(rows)
}
