//! Metrics for rows with any number of labels, each decided independently, and the thresholds for these decisions.

use ndarray::{ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

use super::{
    counts::{ClassCounts, defined_ratio, f1},
    decisions::{DecisionLosses, label_rankings},
    intervals::{self, Bootstrap},
    metric::Metric,
    probability::weighted_mean,
    ranking::{MAX_RANKING_STEPS, mean_auc},
    scores::Scores,
};

/// All metrics of a multi-label classifier on one split, in the order in which they are written as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MultilabelMetrics {
    /// The metrics of [`Metric::OF_LABEL_SETS`]; log loss, Brier score and ECE have no interval.
    #[serde(flatten)]
    pub scores: Scores,
    /// Number of rows.
    pub n: usize,
    /// One entry for each label of the label map, in label order.
    pub per_class: Vec<LabelScore>,
}

/// The scores of one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelScore {
    /// Index of the label in the label map.
    pub label: usize,
    /// Name of the label; empty if only the indices are known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A row gets the label if its probability is at least this.
    pub threshold: f64,
    /// Of the rows that got the label, the fraction that have it; 0 if there are none.
    pub precision: f64,
    /// Of the rows that have the label, the fraction that got it; 0 if there are none.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 if the label is in neither truth nor predictions.
    pub f1: f64,
    /// Number of rows that have the label.
    pub support: u64,
}

impl MultilabelMetrics {
    /// The same with the names of the labels, which are in label order.
    pub(crate) fn with_names(mut self, names: &[String]) -> MultilabelMetrics {
        for (score, name) in self.per_class.iter_mut().zip(names) {
            score.name.clone_from(name);
        }
        self
    }
}

/// The number of leading metrics that have intervals.
const N_RESAMPLED: usize = 6;

/// Scores probabilities `[n, C]` against the labels that the rows have, `[n, C]`; a row gets label c if its probability
/// is at least `thresholds[c]`.
///
/// Accuracy and the F1s are scikit-learn's `accuracy_score` and `f1_score(zero_division=0)` of label indicators. Over
/// the `n C` decisions, with `y` 1 if the row has the label and 0 if not:
///
/// - log loss: the mean of `-ln p` or `-ln (1 - p)`, clipped as in [`log_loss`](super::probability::log_loss);
/// - Brier score: the mean of `(p - y)^2`;
/// - ECE: `sum_b n_b/(n C) |mean y - mean p|` over 15 bins `((b-1)/15, b/15]` of `p`: how far the probability of a
///   label is from its frequency. If most labels are rare, most decisions lie in the lowest bin.
///
/// With `bootstrap`, accuracy, the F1s and ROC-AUC get intervals over rows, the last only up to [`MAX_RANKING_STEPS`]
/// rows x labels x resamples. Without rows or labels only `n` and `per_class` have content; if a probability is not
/// finite, accuracy and the F1s remain (NaN is below every threshold).
///
/// ```
/// use frostbert::internals::metrics::metric::Metric;
/// use frostbert::internals::metrics::multilabel::evaluate;
/// use ndarray::array;
///
/// let truth = array![[true, false], [true, true], [false, false]];
/// let probabilities = array![[0.75, 0.5], [0.25, 0.75], [0.25, 0.0]];
/// let metrics = evaluate(truth.view(), probabilities.view(), &[0.5, 0.6], None);
/// assert_eq!(metrics.scores.value(Metric::Accuracy), Some(2.0 / 3.0));
/// assert_eq!(metrics.scores.value(Metric::MicroF1), Some(0.8));
/// assert_eq!(metrics.scores.value(Metric::RocAuc), Some(0.875));
/// ```
///
/// # Panics
///
/// Panics if truth and probabilities differ in shape, there is not one threshold for each label, or there are more than
/// `u32::MAX` rows.
pub fn evaluate(
    truth: ArrayView2<bool>,
    probabilities: ArrayView2<f32>,
    thresholds: &[f64],
    bootstrap: Option<Bootstrap>,
) -> MultilabelMetrics {
    assert_eq!(truth.dim(), probabilities.dim(), "one probability for each decision");
    assert_eq!(truth.ncols(), thresholds.len(), "one threshold for each label");
    let n = truth.nrows();
    assert!(u32::try_from(n).is_ok(), "at most u32::MAX rows");
    let decided = RowDecisions::new(truth, probabilities, thresholds);
    let rankings = label_rankings(truth, probabilities);
    let once_each = vec![1; n];
    let [accuracy, macro_f1, micro_f1, weighted_f1, samples_f1, roc_auc] =
        decided.scores(&once_each, mean_auc(&rankings, &once_each));
    let mut all_intervals = [None; Metric::OF_LABEL_SETS.len()];
    if let Some(settings) = bootstrap {
        let n_steps = (n as u64)
            .saturating_mul(rankings.len() as u64)
            .saturating_mul(settings.resamples as u64);
        let ranked = if n_steps <= MAX_RANKING_STEPS { rankings.as_slice() } else { &[] };
        let resampled = intervals::bootstrap(n, settings, |weights| {
            decided.scores(weights, mean_auc(ranked, weights))
        });
        all_intervals[..N_RESAMPLED].copy_from_slice(&resampled);
    }
    let losses = DecisionLosses::new(truth, probabilities);
    let losses = losses.as_ref();
    let values = [
        accuracy,
        macro_f1,
        micro_f1,
        weighted_f1,
        samples_f1,
        roc_auc,
        losses.and_then(|losses| losses.log_loss(&once_each)),
        losses.and_then(|losses| losses.brier(&once_each)),
        losses.and_then(|losses| losses.ece(&once_each)),
    ];
    let per_class = decided.counts(&once_each).per_class();
    MultilabelMetrics {
        scores: Scores::new(Metric::OF_LABEL_SETS, values, all_intervals),
        n,
        per_class: per_class
            .into_iter()
            .zip(thresholds)
            .map(|(score, &threshold)| LabelScore {
                label: score.label,
                name: String::new(),
                threshold,
                precision: score.precision,
                recall: score.recall,
                f1: score.f1,
                support: score.support,
            })
            .collect(),
    }
}

/// The contribution of each row to the counts, so that a resample costs one step for each label that a row has or gets.
pub(super) struct RowDecisions {
    n_labels: usize,
    /// The labels that rows have or get, row by row.
    decisions: Vec<RowDecision>,
    /// The position in `decisions` at which each row ends.
    ends: Vec<usize>,
    /// 1 if all labels of the row are right, otherwise 0.
    is_right: Vec<f64>,
    row_f1: Vec<f64>,
}

struct RowDecision {
    label: u32,
    has: bool,
    gets: bool,
}

impl RowDecisions {
    fn new(truth: ArrayView2<bool>, probabilities: ArrayView2<f32>, thresholds: &[f64]) -> Self {
        let gets =
            |row: usize, label: usize| f64::from(probabilities[[row, label]]) >= thresholds[label];
        Self::from_decisions(truth, gets)
    }

    pub(super) fn from_decisions(
        truth: ArrayView2<bool>,
        gets: impl Fn(usize, usize) -> bool,
    ) -> Self {
        let mut decided = Self {
            n_labels: truth.ncols(),
            decisions: Vec::new(),
            ends: Vec::with_capacity(truth.nrows()),
            is_right: Vec::with_capacity(truth.nrows()),
            row_f1: Vec::with_capacity(truth.nrows()),
        };
        for (row, has) in truth.rows().into_iter().enumerate() {
            let start = decided.decisions.len();
            let decisions = has.iter().enumerate().map(|(label, &has)| RowDecision {
                label: label as u32,
                has,
                gets: gets(row, label),
            });
            decided.decisions.extend(decisions.filter(|decision| decision.has || decision.gets));
            let own = &decided.decisions[start..];
            let count = |wanted: fn(&RowDecision) -> bool| {
                own.iter().filter(|decision| wanted(decision)).count() as u64
            };
            let n_correct = count(|decision| decision.has && decision.gets);
            decided.row_f1.push(f1(
                n_correct,
                count(|decision| decision.gets),
                count(|decision| decision.has),
            ));
            let is_right = n_correct == own.len() as u64;
            decided.is_right.push(f64::from(u8::from(is_right)));
            decided.ends.push(decided.decisions.len());
        }
        decided
    }

    pub(super) fn n_rows(&self) -> usize {
        self.ends.len()
    }

    /// 1 if all labels of the row are right, otherwise 0.
    pub(super) fn is_right(&self) -> &[f64] {
        &self.is_right
    }

    /// The scores in the order of [`Metric::OF_LABEL_SETS`], where row `i` counts as `weights[i]` equal rows.
    pub(super) fn scores(
        &self,
        weights: &[u32],
        roc_auc: Option<f64>,
    ) -> [Option<f64>; N_RESAMPLED] {
        if self.n_labels == 0 || self.ends.is_empty() {
            return [None; N_RESAMPLED];
        }
        let counts = self.counts(weights);
        let summed_f1: f64 = (0..self.n_labels).map(|label| counts.f1(label)).sum();
        let micro_f1 = f1(
            counts.correct.iter().sum(),
            counts.predicted.iter().sum(),
            counts.actual.iter().sum(),
        );
        [
            weighted_mean(self.is_right.iter().copied(), weights),
            Some(summed_f1 / self.n_labels as f64),
            Some(micro_f1),
            // 0 if no row has a label, as in scikit-learn.
            Some(counts.weighted_f1().unwrap_or(0.0)),
            weighted_mean(self.row_f1.iter().copied(), weights),
            roc_auc,
        ]
    }

    fn counts(&self, weights: &[u32]) -> ClassCounts {
        let mut counts = ClassCounts {
            correct: vec![0; self.n_labels],
            predicted: vec![0; self.n_labels],
            actual: vec![0; self.n_labels],
        };
        let mut start = 0;
        for (&end, &weight) in self.ends.iter().zip(weights) {
            let weight = u64::from(weight);
            for &RowDecision { label, has, gets } in &self.decisions[start..end] {
                let label = label as usize;
                counts.actual[label] += weight * u64::from(has);
                counts.predicted[label] += weight * u64::from(gets);
                counts.correct[label] += weight * u64::from(has && gets);
            }
            start = end;
        }
        counts
    }
}

/// For each label, finds the threshold in (0, 1) that maximises its F1 on these rows; use validation rows to get
/// thresholds for [`evaluate`].
///
/// The candidates are the midpoints between neighbouring probabilities, and between 0 and the lowest one. Among equally
/// good ones the nearest to 0.5 wins, and the lower of two that are equally near. The threshold is 0.5 if no row has
/// the label, if there are no rows, or if all probabilities are 0. Rows whose probability is not finite never get the
/// label.
///
/// ```
/// use frostbert::internals::metrics::multilabel::tune_thresholds;
/// use ndarray::array;
///
/// let truth = array![[true, false], [true, false], [false, false]];
/// let probabilities = array![[0.25, 0.5], [0.75, 0.5], [0.125, 0.5]];
/// assert_eq!(tune_thresholds(truth.view(), probabilities.view()), [0.1875, 0.5]);
/// ```
///
/// # Panics
///
/// Panics if truth and probabilities differ in shape.
pub fn tune_thresholds(truth: ArrayView2<bool>, probabilities: ArrayView2<f32>) -> Vec<f64> {
    assert_eq!(truth.dim(), probabilities.dim(), "one probability for each decision");
    let labels = truth.columns().into_iter().zip(probabilities.columns());
    labels.map(|(has, scores)| best_threshold(has, scores)).collect()
}

fn best_threshold(has: ArrayView1<bool>, probabilities: ArrayView1<f32>) -> f64 {
    const DEFAULT: f64 = 0.5;
    let n_actual = has.iter().filter(|&&has| has).count() as u64;
    let mut falling: Vec<(f32, bool)> =
        probabilities.iter().copied().zip(has.iter().copied()).collect();
    falling.retain(|(probability, _)| probability.is_finite());
    falling.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let groups: Vec<_> = falling.chunk_by(|a, b| a.0 == b.0).collect();

    let mut best = (0.0, DEFAULT);
    let [mut n_correct, mut n_predicted] = [0, 0];
    for (index, group) in groups.iter().enumerate() {
        n_predicted += group.len() as u64;
        n_correct += group.iter().filter(|(_, has)| *has).count() as u64;
        let next = groups.get(index + 1).map_or(0.0, |next| next[0].0);
        let threshold = f64::midpoint(f64::from(group[0].0), f64::from(next));
        let f1 = defined_ratio(2 * n_correct, n_predicted + n_actual).unwrap_or(0.0);
        let is_nearer = (threshold - DEFAULT).abs() <= (best.1 - DEFAULT).abs();
        let is_possible = threshold > 0.0 && threshold < 1.0;
        if is_possible && (f1 > best.0 || (f1 == best.0 && f1 > 0.0 && is_nearer)) {
            best = (f1, threshold);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn a_split_without_rows_or_labels_has_no_metrics_and_does_not_panic() {
        for (shape, thresholds) in [((0, 2), vec![0.5; 2]), ((3, 0), vec![])] {
            let metrics = evaluate(
                Array2::from_elem(shape, true).view(),
                Array2::zeros(shape).view(),
                &thresholds,
                Some(Bootstrap::default()),
            );
            let json = serde_json::to_value(&metrics).unwrap();
            let names: Vec<&String> = json.as_object().unwrap().keys().collect();
            assert_eq!(names, ["n", "per_class"]);
        }
    }

    #[test]
    fn a_diverged_head_keeps_the_metrics_of_right_and_wrong_answers() {
        let metrics = evaluate(
            array![[true], [false], [true]].view(),
            array![[f32::NAN], [0.25], [0.75]].view(),
            &[0.5],
            None,
        );
        assert_eq!(metrics.scores.value(Metric::Accuracy), Some(2.0 / 3.0));
        let of_probabilities = metrics.scores.only(Metric::needs_probabilities);
        assert_eq!(of_probabilities, Scores::default());
    }

    #[test]
    fn json_reads_back_to_the_same_metrics() {
        let truth = array![[true, false], [true, true], [false, false], [false, true]];
        let probabilities = array![[0.75, 0.5], [0.25, 0.75], [0.25, 0.0], [0.75, 0.75]];
        let metrics =
            evaluate(truth.view(), probabilities.view(), &[0.5; 2], Some(Bootstrap::default()));
        for metric in [Metric::RocAuc, Metric::SamplesF1] {
            assert!(metrics.scores.interval(metric).is_some(), "{metric}");
        }
        let json = serde_json::to_string(&metrics).unwrap();
        assert!(json.starts_with(r#"{"accuracy":0.25,"accuracy_ci":[0.0,"#), "{json}");
        assert_eq!(serde_json::from_str::<MultilabelMetrics>(&json).unwrap(), metrics);
    }

    #[test]
    fn a_threshold_is_one_half_where_nothing_speaks_for_another() {
        let tuned = |truth: Vec<bool>, probabilities: Vec<f32>| {
            let n = truth.len();
            let truth = Array2::from_shape_vec((n, 1), truth).unwrap();
            let probabilities = Array2::from_shape_vec((n, 1), probabilities).unwrap();
            tune_thresholds(truth.view(), probabilities.view())
        };
        assert_eq!(tuned(vec![], vec![]), [0.5]);
        assert_eq!(tuned(vec![false, false], vec![0.25, 0.75]), [0.5]);
        assert_eq!(tuned(vec![true, true], vec![0.0, 0.0]), [0.5]);
        assert_eq!(tuned(vec![true], vec![f32::NAN]), [0.5]);
    }

    #[test]
    fn among_equally_good_thresholds_the_nearest_to_one_half_wins() {
        // F1 is 2/3 for the first row alone (0.875) and for all four (0.0625).
        let truth = array![[true], [false], [false], [true]];
        let probabilities = array![[1.0], [0.75], [0.5], [0.125]];
        assert_eq!(tune_thresholds(truth.view(), probabilities.view()), [0.875]);
        // F1 is 2/3 at 0.25 and at 0.75.
        let truth = array![[true], [false], [true], [false]];
        let probabilities = array![[1.0], [0.5], [0.5], [0.0]];
        assert_eq!(tune_thresholds(truth.view(), probabilities.view()), [0.25]);
    }

    #[test]
    #[should_panic(expected = "one threshold for each label")]
    fn a_missing_threshold_is_refused() {
        evaluate(array![[true]].view(), array![[0.5]].view(), &[], None);
    }
}
