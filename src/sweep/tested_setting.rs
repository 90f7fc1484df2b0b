//! One setting with several seeds, each head trained by itself and measured on the test rows: for a comparison of what
//! settings take.

use std::{sync::atomic::AtomicBool, time::Instant};

use frostbert_cache::progress::{Progress, WithinStage};

use crate::{
    config::{
        file::sweep::{SweepSection, TestedHeads},
        settings::Pipeline,
    },
    data::{Part, dataset::Dataset},
    error::Result,
    head::bank::Bank,
    metrics::{
        comparison::standard_deviation,
        intervals::{Bootstrap, interval, resample},
        metric::Metric,
        row_statistics::RowStatistics,
    },
    sweep::{
        Sweep,
        heads::{HeadPlan, best_loss},
        splits::splits,
        test_scores::{self, mean},
        trials::trials,
    },
    tasks::predictions::Gold,
    training::{class_memory::ClassMemory, inputs::ModelCache},
};

/// What the heads of a setting score on the test rows, and what they take.
pub(crate) struct TestedSetting {
    /// The metric of each head; `None` where it diverged, or where the metric is undefined.
    pub(crate) values: Vec<Option<f64>>,
    /// Their mean, if all have one, and its bootstrap interval over the rows.
    pub(crate) value: Option<f64>,
    pub(crate) interval: Option<[f64; 2]>,
    /// Their mean on each draw of the bootstrap. The draws of all settings are the same.
    pub(crate) drawn: Vec<Option<f64>>,
    /// Their standard deviation (ddof 1).
    pub(crate) std: Option<f64>,
    pub(crate) diverged: usize,
    /// The epochs that were trained, and the wall time of the training, as means over the heads.
    pub(crate) epochs: f64,
    pub(crate) seconds: f64,
    /// Number of trained parameters of a head.
    pub(crate) trained: usize,
    /// Number of parameters of a linear head on what it reads: of a pair, both states and how they compare.
    pub(crate) linear_head: usize,
}

/// Trains the head of a pipeline, which has no sweep, with several seeds on the training rows; validation rows choose
/// its epoch. A head that is fitted in full batch depends on no seed, so there is one.
///
/// # Errors
/// Returns an error if there are no validation rows, or the cache lacks rows or is damaged.
pub(crate) fn test_setting(
    pipeline: &Pipeline,
    dataset: &Dataset,
    model: ModelCache<'_>,
    (seeds, metric): (usize, Metric),
    progress: &dyn Progress,
) -> Result<TestedSetting> {
    if let Some(memory) = ClassMemory::of(pipeline, dataset, [model.layers(), model.hidden()])? {
        memory.settle(pipeline, progress)?;
    }
    let section = SweepSection { test: TestedHeads::All, ..SweepSection::default() };
    let (trials, splits) = (trials(pipeline, &section)?.all, splits(pipeline, &section, dataset)?);
    let sweep = Sweep {
        pipeline,
        section: &section,
        dataset,
        models: &[model],
        trials: &trials,
        splits: &splits,
        says_unchosen: &AtomicBool::new(false),
    };
    let shared = sweep.shared(0)?;
    let evaluators = shared.evaluators(&sweep);
    let is_full_batch = trials[0].pipeline.head.kind.is_full_batch();
    let n_heads = if is_full_batch { 1 } else { seeds.max(1) };
    let mut on_epoch = |bank: &Bank<'_>| {
        let loss = best_loss(bank.active().iter().map(|head| bank.last(*head)));
        let loss = loss.map_or(String::new(), |loss| format!(", validation loss {loss:.4}"));
        progress.detail(&format!("epoch {}{loss}", bank.epochs_done()));
    };
    // The caller counts the methods.
    let quiet = WithinStage::uncounted(progress);
    let test = dataset.part(Part::Test);
    let gold = Gold::new(dataset, test.clone());
    let mut statistics: Vec<Option<RowStatistics>> = Vec::with_capacity(n_heads);
    let (mut seconds, mut epochs, mut diverged) = (0.0, 0, 0);
    let (mut trained, mut linear_head) = (0, 0);
    for seed in 0..n_heads as u64 {
        let plans = [HeadPlan { trial: 0, seed, split: 0 }];
        let start = Instant::now();
        let fits = shared.fit(&plans, &sweep, &mut on_epoch, &quiet)?;
        seconds += start.elapsed().as_secs_f64();
        let mut results = shared.results(&plans, &fits, &evaluators)?;
        test_scores::add_predictions(&sweep, &shared, &plans, &fits, &mut results)?;
        let predictions = results[0].test.as_ref();
        statistics.push(predictions.map(|own| own.statistics(dataset, &gold, metric)));
        epochs += fits[0].epochs;
        diverged += usize::from(fits[0].diverged);
        let network = &fits[0].network;
        trained = fits[0].n_trained();
        linear_head = (network.n_read() + 1) * network.n_outputs;
    }
    let score = |head: &Option<RowStatistics>| head.as_ref()?.score(metric, None);
    let values: Vec<Option<f64>> = statistics.iter().map(score).collect();
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    let all: Option<Vec<RowStatistics>> = statistics.into_iter().collect();
    let value = mean(&all, metric, None);
    let bootstrap = Bootstrap { seed: pipeline.seed, ..Bootstrap::default() };
    let drawn = resample(test.len(), bootstrap, |weights| mean(&all, metric, Some(weights)));
    Ok(TestedSetting {
        values,
        value,
        interval: value.and_then(|_| interval(drawn.iter().copied())),
        drawn,
        std: standard_deviation(&known),
        diverged,
        epochs: epochs as f64 / n_heads as f64,
        seconds: seconds / n_heads as f64,
        trained,
        linear_head,
    })
}
