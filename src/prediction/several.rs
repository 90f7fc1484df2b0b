//! Several runs that predict for the same records.

use std::path::Path;

use crate::{
    config::settings::Pipeline,
    data::Record,
    error::Result,
    prediction::{predictor::Predictor, saved_run::SavedRun},
    run_folder::number_of,
    tasks::prediction::Prediction,
};

/// A run that predicts, with the name by which its predictions are told from those of others.
pub struct NamedPredictor {
    /// The name of its runs; where several of them are meant, with more of the path of its folder.
    pub name: String,
    /// The run.
    pub predictor: Predictor,
}

/// A record, and what is predicted for it; nothing where it has no text.
pub(crate) type Row = (Record, Option<Prediction>);

/// The names of runs, in their order, all of them different but for runs that are named twice.
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

/// The name that runs of this kind have; of one of several tasks, or of a copy, that of its folder.
fn short_name(folder: &Path, pipeline: &Pipeline) -> String {
    match folder.file_name() {
        Some(name) if number_of(name).is_none() => name.to_string_lossy().into_owned(),
        _ => pipeline.name.clone(),
    }
}

/// Records that all of some runs predict for at a time.
pub fn records_at_a_time(predictors: &[NamedPredictor]) -> usize {
    let each = predictors.iter().map(|one| one.predictor.records_at_a_time());
    each.min().unwrap_or(1)
}

/// What each run predicts for some records, in their order.
///
/// # Errors
/// As [`Predictor::predict`].
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
