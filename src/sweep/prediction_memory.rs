//! The memory that the predictions of all heads take: they are kept until the heads are ranked.

use frostbert_cache::wording::counted;

use crate::{
    config::{
        file::sweep::{Search, SweepSection, TestedHeads},
        settings::Pipeline,
    },
    data::{Part, dataset::Dataset},
    error::Result,
    extraction::forecast::megabytes,
    metrics::metric::Metric,
    sweep::{halving::n_trained_to_the_end, splits::Split, trials::Trial},
    tasks::task_kind,
    training::class_memory::BESIDE_BYTES,
};

/// Checks that the predictions of all heads fit into memory, where they are probabilities, or those for test rows too: each
/// trial has a head for every seed and split, and those that halving drops predict no test rows.
///
/// # Errors
/// When they take more than `train.memory_mb` and what stage 2 may use beside it.
pub(super) fn check(
    pipeline: &Pipeline,
    section: &SweepSection,
    dataset: &Dataset,
    metric: Metric,
    trials: &[Trial],
    splits: &[Split],
) -> Result<()> {
    let tests_all = section.test == TestedHeads::All;
    if !tests_all && !metric.needs_probabilities() {
        return Ok(());
    }
    let kind = task_kind(pipeline.data.task);
    let bytes = |rows: &[u32]| -> u64 {
        rows.iter().map(|row| kind.prediction_bytes(dataset, *row, metric)).sum()
    };
    let judged: u64 = splits.iter().map(|split| bytes(&split.validation)).sum();
    let n_tests =
        if tests_all { splits.iter().filter(|split| split.is_ranked()).count() } else { 0 };
    let tested = bytes(&dataset.part(Part::Test)).saturating_mul(n_tests as u64);
    let n_ended = match section.search {
        Search::Halving => n_trained_to_the_end(trials),
        Search::Grid | Search::Random => trials.len(),
    };
    let n_each = trials.len().saturating_mul(section.seeds);
    let n_each_ended = n_ended.saturating_mul(section.seeds);
    let judged = judged.saturating_mul(n_each as u64);
    let needed = judged.saturating_add(tested.saturating_mul(n_each_ended as u64));
    let most = pipeline.memory_bytes.saturating_add(BESIDE_BYTES);
    if needed <= most {
        return Ok(());
    }
    let mut cures = Vec::new();
    if tests_all {
        cures.push("leave sweep.test out");
    }
    if metric.needs_probabilities() {
        cures.push("set sweep.select to \"accuracy\" or another metric of right and wrong answers");
    }
    let memory_mb = needed.saturating_sub(BESIDE_BYTES).div_ceil(1 << 20);
    Err(pipeline.refuse(
        format!(
            "the predictions of {} for the rows that they are evaluated on take about {} of memory, but \
             train.memory_mb plus 1 GiB is {}",
            counted(n_each.saturating_mul(splits.len()), "head"),
            megabytes(needed),
            megabytes(most),
        ),
        format!(
            "{}, compare fewer heads, or set train.memory_mb to {memory_mb} if the machine has that much",
            cures.join(", ")
        ),
    ))
}
