//! Cross-validation of the pipeline's own head, without a sweep: its predictions for rows that it was not trained on.

use std::sync::atomic::AtomicBool;

use frostbert_cache::{
    progress::{Progress, WithinStage},
    reader::CacheReader,
    wording::counted,
};

use crate::{
    config::{file::sweep::SweepSection, settings::Pipeline},
    data::{Part, dataset::Dataset},
    encoder::checkpoint::Checkpoint,
    error::Result,
    metrics::{metric::Metric, row_statistics::RowStatistics},
    sweep::{
        Sweep,
        candidates::{check_metric, metric},
        outcome::{SearchOutcome, pooled},
        splits::splits,
        trials::trials,
        units::train_unit,
    },
    training::inputs::ModelCache,
};

/// The predictions of a pipeline's head for rows that it was not trained on.
pub(crate) struct OutOfFold {
    /// The metric of the rows: `sweep.select` of the pipeline, or the task's own metric.
    pub(crate) metric: Metric,
    /// The statistics of the rows of train and validation, fold by fold; equal datasets have them in the same order.
    pub(crate) statistics: RowStatistics,
}

/// Trains the head of a pipeline once without each of `n_folds` parts of train and validation, and predicts that part
/// with it.
///
/// # Errors
/// Returns an error if there are fewer rows than folds, the cache lacks rows or is damaged, or a training diverges.
pub(crate) fn out_of_fold(
    checkpoint: &Checkpoint,
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &CacheReader,
    n_folds: usize,
    progress: &dyn Progress,
) -> Result<OutOfFold> {
    let own = pipeline.sweep.as_ref();
    let n_rows = dataset.part(Part::Train).len() + dataset.part(Part::Validation).len();
    if n_rows < n_folds {
        return Err(pipeline.refuse(
            format!(
                "the head is evaluated on {n_folds} folds, but train and validation have {}",
                counted(n_rows, "row")
            ),
            "name data with more labelled rows".into(),
        ));
    }
    let section = SweepSection {
        folds: Some(n_folds),
        select: own.and_then(|section| section.select.clone()),
        ..SweepSection::default()
    };
    let metric = metric(pipeline, &section, dataset)?;
    let (trials, splits) = (trials(pipeline, &section)?.all, splits(pipeline, &section, dataset)?);
    check_metric(metric, pipeline, &trials)?;
    let sweep = Sweep {
        pipeline,
        section: &section,
        dataset,
        models: &[ModelCache { checkpoint: Some(checkpoint), cache }],
        trials: &trials,
        splits: &splits,
        says_unchosen: &AtomicBool::new(false),
    };
    let mut done = SearchOutcome::new(&sweep);
    // The caller counts the heads.
    let quiet = WithinStage::uncounted(progress);
    done.add(train_unit(&sweep, &sweep.shared(0)?, &[0], &quiet)?);
    let folds: Vec<usize> = (0..splits.len()).collect();
    let predictions: Vec<_> =
        folds.iter().map(|fold| &done.result(0, 0, *fold).predictions).collect();
    Ok(OutOfFold { metric, statistics: pooled(&folds, &predictions, &done, &sweep, metric) })
}
