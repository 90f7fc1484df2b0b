//! The metrics of two runs, and whether they are apart by more than chance.

use frostbert_cache::progress::Progress;
use serde::Serialize;

use super::SameRows;
use crate::{
    metrics::{
        intervals::Bootstrap,
        metric::Metric,
        paired::{PairedDifference, paired_difference},
        permutation::Permutations,
    },
    prediction::run_record::RunRecord,
    tasks::saved_predictions::Outcomes,
};

/// Rows x labels x draws at most, for which the order of probabilities is looked at: some ten seconds of a core.
const MOST_RANKING_STEPS: u64 = 20_000_000_000;

/// A metric of two runs.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MetricDiff {
    /// The metric.
    pub name: &'static str,
    /// Its value for the first.
    pub a: Option<f64>,
    /// Its value for the second.
    pub b: Option<f64>,
    /// The second value minus the first one, on the same rows.
    pub difference: Option<f64>,
    /// The 95 % interval of the difference.
    pub ci: Option<[f64; 2]>,
    /// The probability of such a difference between equally good heads.
    pub p_value: Option<f64>,
    /// Why the difference has no interval and no p-value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Every metric that one of two runs has.
pub(super) fn compare(
    a: &RunRecord,
    b: &RunRecord,
    rows: &Result<SameRows, String>,
    progress: &dyn Progress,
) -> Vec<MetricDiff> {
    let part = match rows {
        Ok(rows) => Some(rows.part),
        Err(_) => shown_part(a, b),
    };
    let measured = |run: &RunRecord| part.map(|part| run.scores(part)).unwrap_or_default();
    let [first, second] = [a, b].map(measured);
    let all = Metric::ALL.iter().copied();
    let known: Vec<Metric> =
        all.filter(|metric| [&first, &second].iter().any(|s| s.get(*metric).is_some())).collect();
    let groups = rows.as_ref().map(|rows| rows.a.groups()).unwrap_or_default();
    progress.start("comparing", Some(known.len() as u64), "metrics");
    let diffs = known.into_iter().map(|metric| {
        let [a, b] = [&first, &second].map(|scores| scores.value(metric));
        let mut diff = MetricDiff {
            name: metric.name(),
            a,
            b,
            difference: None,
            ci: None,
            p_value: None,
            reason: None,
        };
        match (a.zip(b), rows) {
            (Some((a, b)), Ok(rows)) => {
                diff.difference = Some(b - a);
                match difference(rows, &groups, metric) {
                    Ok(paired) => {
                        diff.ci = paired.interval;
                        diff.p_value = paired.p_value;
                    }
                    Err(reason) => diff.reason = Some(reason),
                }
            }
            (None, Ok(_)) => diff.reason = Some("only one of them has a value".into()),
            (_, Err(reason)) => diff.reason = Some(reason.clone()),
        }
        progress.advance(1, 0);
        diff
    });
    let diffs = diffs.collect();
    progress.finish();
    diffs
}

/// The part whose values stand beside each other where the rows are not the same: test if both have it, validation if both
/// have that, else the first that one of them has.
fn shown_part(a: &RunRecord, b: &RunRecord) -> Option<&'static str> {
    let parts = ["test", "validation"];
    let has = |run: &RunRecord, part: &str| run.metrics[part].is_object();
    let of_both = parts.into_iter().find(|part| has(a, part) && has(b, part));
    of_both.or_else(|| parts.into_iter().find(|part| has(a, part) || has(b, part)))
}

/// The difference of a metric on the same rows; else why it cannot be told.
fn difference(rows: &SameRows, groups: &[u32], metric: Metric) -> Result<PairedDifference, String> {
    let (bootstrap, permutations) = (Bootstrap::default(), Permutations::default());
    let averages_over_labels =
        matches!(rows.a.outcomes, Outcomes::LabelSets { .. } | Outcomes::Tags { .. });
    if !rows.has_same_labels && (averages_over_labels || metric.needs_probabilities()) {
        return Err("they know other labels".into());
    }
    if metric == Metric::RocAuc {
        // Each draw scores both runs, on the rows of both.
        let n_rows = 2 * groups.len() as u64 * rows.labels.len() as u64;
        let n_draws = 2 * (bootstrap.resamples + permutations.draws) as u64;
        if n_rows.saturating_mul(n_draws) > MOST_RANKING_STEPS {
            return Err("too many rows and labels to test".into());
        }
    }
    let stacked = rows.a.outcomes.stacked(&rows.b.outcomes, metric, &rows.labels);
    let stacked = stacked.ok_or("of many classes only the most probable ones are kept")?;
    paired_difference(&stacked, metric, groups, bootstrap, permutations)
        .ok_or_else(|| "it has no value on these rows".into())
}
