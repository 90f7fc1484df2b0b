//! What is drawn of probabilities: how they compare with frequencies, what each recall costs in precision, and of two
//! classes how many of one are taken for the other.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::probability::{N_BINS, bin_of};

/// More classes than this have one curve for all decisions together, because so many could not be told apart.
const MOST_CURVES: usize = 10;

/// Decisions that are sorted for curves at most.
const MOST_DECISIONS: usize = 10_000_000;

/// How far a point lies from the one before it, to the right or upwards, to be kept: about a pixel of a picture.
const RESOLUTION: f64 = 0.002;

/// What is drawn of the probabilities on some rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ProbabilityCurves {
    /// The bins that are not empty, from low to high.
    pub(crate) reliability: Vec<ReliabilityBin>,
    /// A curve for each class; for many classes one for all decisions together.
    pub(crate) precision_recall: Vec<PrecisionRecall>,
    /// Of the second of two classes.
    pub(crate) roc: Option<RocCurve>,
}

/// Decisions of about the same probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ReliabilityBin {
    /// The probabilities that fall into it: above the first, at most the second.
    pub(crate) range: [f64; 2],
    /// Number of decisions.
    pub(crate) count: u64,
    /// Their mean probability.
    pub(crate) predicted: f64,
    /// The share of them that are right.
    pub(crate) observed: f64,
}

/// Precision and recall at every threshold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PrecisionRecall {
    /// The class; `None` for all decisions together.
    pub(crate) class: Option<usize>,
    /// `sum_n (R_n - R_(n-1)) P_n` over the thresholds, as in scikit-learn's `average_precision_score`.
    pub(crate) average_precision: f64,
    /// Recall and precision, from the highest threshold to the one that finds everything.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Which shares of the true and of the false decisions lie above every threshold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RocCurve {
    /// The area under the curve, as of scikit-learn's `roc_auc_score`.
    pub(crate) area: f64,
    /// From nothing to everything, as of scikit-learn's `roc_curve`.
    pub(crate) points: Vec<RocPoint>,
}

/// What lies at or above a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RocPoint {
    /// The threshold; infinite for the first point.
    pub(crate) threshold: f32,
    /// The share of the false decisions.
    pub(crate) false_positives: f64,
    /// The share of the true ones.
    pub(crate) true_positives: f64,
}

impl ProbabilityCurves {
    /// Of independent labels: which of them the rows have, `[n, C]`, and their probabilities.
    pub(crate) fn of_label_sets(
        truth: ArrayView2<bool>,
        probabilities: ArrayView2<f32>,
    ) -> ProbabilityCurves {
        let decisions = probabilities.iter().copied().zip(truth.iter().copied());
        ProbabilityCurves {
            reliability: reliability(decisions),
            precision_recall: precision_recall(truth.dim(), |row, label| {
                (probabilities[[row, label]], truth[[row, label]])
            }),
            roc: None,
        }
    }
}

/// Compares probabilities with how often they come true, in the bins of the expected calibration error. Empty if a
/// probability is not finite.
pub(crate) fn reliability(decisions: impl Iterator<Item = (f32, bool)>) -> Vec<ReliabilityBin> {
    let mut bins = [(0_u64, 0.0, 0_u64); N_BINS];
    for (probability, is_right) in decisions {
        if !probability.is_finite() {
            return Vec::new();
        }
        let probability = f64::from(probability);
        let (count, sum, n_right) = &mut bins[usize::from(bin_of(probability))];
        *count += 1;
        *sum += probability;
        *n_right += u64::from(is_right);
    }
    let bins = bins.into_iter().enumerate().filter(|(_, (count, ..))| *count > 0);
    bins.map(|(bin, (count, sum, n_right))| ReliabilityBin {
        range: [bin, bin + 1].map(|edge| edge as f64 / N_BINS as f64),
        count,
        predicted: sum / count as f64,
        observed: n_right as f64 / count as f64,
    })
    .collect()
}

/// Precision and recall of the decisions `(probability, is_true)` on rows and classes of this `shape`. A class that no
/// row has has no curve; none has one if a probability is not finite, or if there are more decisions than can be
/// sorted in passing.
pub(crate) fn precision_recall(
    (n_rows, n_classes): (usize, usize),
    decision: impl Fn(usize, usize) -> (f32, bool) + Sync,
) -> Vec<PrecisionRecall> {
    if n_rows.saturating_mul(n_classes) > MOST_DECISIONS {
        return Vec::new();
    }
    let of_class = |class: usize| -> Vec<(f32, bool)> {
        (0..n_rows).map(|row| decision(row, class)).collect()
    };
    if n_classes <= MOST_CURVES {
        let classes = (0..n_classes).into_par_iter();
        return classes.filter_map(|class| curve(Some(class), of_class(class))).collect();
    }
    let all: Vec<Vec<(f32, bool)>> = (0..n_classes).map(of_class).collect();
    curve(None, all.concat()).into_iter().collect()
}

fn curve(class: Option<usize>, mut decisions: Vec<(f32, bool)>) -> Option<PrecisionRecall> {
    let n_true = decisions.iter().filter(|(_, is_true)| *is_true).count();
    if n_true == 0 || decisions.iter().any(|(probability, _)| !probability.is_finite()) {
        return None;
    }
    decisions.par_sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
    let (mut n_seen, mut n_found) = (0, 0);
    let (mut average_precision, mut last_recall) = (0.0, 0.0);
    let mut points: Vec<(f64, f64)> = Vec::new();
    for equal in decisions.chunk_by(|one, other| one.0 == other.0) {
        n_seen += equal.len();
        n_found += equal.iter().filter(|(_, is_true)| *is_true).count();
        let recall = n_found as f64 / n_true as f64;
        let precision = n_found as f64 / n_seen as f64;
        average_precision += (recall - last_recall) * precision;
        last_recall = recall;
        let is_new = points.last().is_none_or(|last| {
            (recall - last.0).abs() >= RESOLUTION || (precision - last.1).abs() >= RESOLUTION
        });
        if is_new || n_found == n_true {
            points.push((recall, precision));
        }
        if n_found == n_true {
            break;
        }
    }
    Some(PrecisionRecall { class, average_precision, points })
}

/// The ROC curve of the decisions `(probability, is_true)`. `None` where all are true or none, if a probability is not
/// finite, or if there are more than can be sorted in passing.
pub(crate) fn roc(mut decisions: Vec<(f32, bool)>) -> Option<RocCurve> {
    let n_true = decisions.iter().filter(|(_, is_true)| *is_true).count();
    let n_false = decisions.len() - n_true;
    let is_finite = decisions.iter().all(|(probability, _)| probability.is_finite());
    if n_true == 0 || n_false == 0 || !is_finite || decisions.len() > MOST_DECISIONS {
        return None;
    }
    decisions.par_sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
    let start = RocPoint { threshold: f32::INFINITY, false_positives: 0.0, true_positives: 0.0 };
    let (mut points, mut last) = (vec![start], start);
    let (mut n_found, mut n_wrong, mut area) = (0, 0, 0.0);
    for equal in decisions.chunk_by(|one, other| one.0 == other.0) {
        let n_own = equal.iter().filter(|(_, is_true)| *is_true).count();
        n_found += n_own;
        n_wrong += equal.len() - n_own;
        let point = RocPoint {
            threshold: equal[0].0,
            false_positives: n_wrong as f64 / n_false as f64,
            true_positives: n_found as f64 / n_true as f64,
        };
        // Decisions of one probability are in no order: half of their pairs are won.
        area += (point.false_positives - last.false_positives)
            * (point.true_positives + last.true_positives)
            / 2.0;
        last = point;
        let is_new = points.last().is_none_or(|kept| {
            point.false_positives - kept.false_positives >= RESOLUTION
                || point.true_positives - kept.true_positives >= RESOLUTION
        });
        if is_new || n_found + n_wrong == decisions.len() {
            points.push(point);
        }
    }
    Some(RocCurve { area, points })
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use serde::Deserialize;

    use super::*;

    /// See scripts/fixtures/roc.py.
    #[derive(Deserialize)]
    struct RocFixture {
        unit: f64,
        cases: Vec<RocCase>,
    }

    #[derive(Deserialize)]
    struct RocCase {
        name: String,
        labels: Vec<u8>,
        units: Vec<f64>,
        area: f64,
        thresholds: Vec<f64>,
        false_positives: Vec<f64>,
        true_positives: Vec<f64>,
    }

    #[test]
    fn a_roc_curve_and_its_area_are_those_of_scikit_learn() {
        let fixture = include_str!("../../tests/fixtures/roc.json");
        let RocFixture { unit, cases } = serde_json::from_str(fixture).unwrap();
        assert!(cases.len() > 4);
        for case in cases {
            let probabilities = case.units.iter().map(|units| (units / unit) as f32);
            let decisions = probabilities.zip(case.labels.iter().map(|label| *label == 1));
            let curve = roc(decisions.collect()).unwrap();
            assert!((curve.area - case.area).abs() < 1e-12, "{}: {}", case.name, curve.area);
            let near = |got: Vec<f64>, expected: &[f64]| {
                let mut pairs = got.iter().zip(expected);
                assert_eq!(got.len(), expected.len(), "{}", case.name);
                assert!(pairs.all(|(got, expected)| (got - expected).abs() < 1e-12), "{got:?}");
            };
            let of =
                |coordinate: fn(&RocPoint) -> f64| curve.points.iter().map(coordinate).collect();
            near(of(|point| point.false_positives), &case.false_positives);
            near(of(|point| point.true_positives), &case.true_positives);
            assert_eq!(curve.points[0].threshold, f32::INFINITY);
            let thresholds = curve.points[1..].iter().map(|point| point.threshold);
            let expected = case.thresholds.iter().map(|units| (units / unit) as f32);
            assert!(thresholds.eq(expected), "{}", case.name);
        }
    }

    #[test]
    fn a_roc_curve_needs_both_kinds_of_decisions_and_is_thinned() {
        assert_eq!(roc(Vec::new()), None);
        assert_eq!(roc(vec![(0.5, true), (0.25, true)]), None);
        assert_eq!(roc(vec![(0.5, true), (f32::NAN, false)]), None);
        let many = (0..50_000).map(|row: u32| (row as f32, row.is_multiple_of(3)));
        let curve = roc(many.collect()).unwrap();
        assert!(curve.points.len() < 2_000, "{}", curve.points.len());
        let last = curve.points[curve.points.len() - 1];
        assert_eq!((last.false_positives, last.true_positives), (1.0, 1.0));
        assert!((curve.area - 0.5).abs() < 1e-3, "{}", curve.area);
    }

    #[test]
    fn average_precision_is_that_of_scikit_learn() {
        // The example of `average_precision_score`, which gives 0.8333.
        let decisions = [(0.1, false), (0.4, false), (0.35, true), (0.8, true)];
        let curves = precision_recall((4, 1), |row, _| decisions[row]);
        let [PrecisionRecall { class: Some(0), average_precision, points }] = &curves[..] else {
            panic!("{curves:?}")
        };
        assert!((average_precision - 5.0 / 6.0).abs() < 1e-12, "{average_precision}");
        assert_eq!(*points, [(0.5, 1.0), (0.5, 0.5), (1.0, 2.0 / 3.0)]);
    }

    #[test]
    fn equal_probabilities_are_one_threshold() {
        let curves = precision_recall((4, 1), |row, _| (0.5, row == 0));
        assert_eq!(curves[0].points, [(1.0, 0.25)]);
        assert_eq!(curves[0].average_precision, 0.25);
    }

    #[test]
    fn many_classes_have_one_curve_and_one_that_no_row_has_has_none() {
        let decision = |row: usize, class: usize| (0.25, row == class);
        let curves = precision_recall((3, 4), decision);
        let classes: Vec<Option<usize>> = curves.iter().map(|curve| curve.class).collect();
        assert_eq!(classes, [Some(0), Some(1), Some(2)]);
        let curves = precision_recall((3, MOST_CURVES + 1), decision);
        assert_eq!(curves.len(), 1);
        assert_eq!((curves[0].class, curves[0].average_precision), (None, 1.0 / 11.0));
    }

    #[test]
    fn long_curves_are_thinned_to_what_can_be_seen() {
        let n_rows = 50_000;
        let decision = |row: usize, _: usize| (row as f32 / n_rows as f32, row.is_multiple_of(3));
        let curves = precision_recall((n_rows, 1), decision);
        let [curve] = &curves[..] else { panic!("{} curves", curves.len()) };
        assert!(curve.points.len() < 2_000, "{}", curve.points.len());
        assert_eq!(curve.points.last().map(|last| last.0), Some(1.0));
        assert!((curve.average_precision - 1.0 / 3.0).abs() < 1e-2);
    }

    #[test]
    fn bins_hold_mean_probability_and_frequency_and_their_gaps_are_the_calibration_error() {
        let decisions = [(0.95, true), (0.95, false), (0.6, true), (0.05, false)];
        let bins = reliability(decisions.into_iter());
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(bins[2].observed, 0.5);
        assert!((bins[2].predicted - 0.95).abs() < 1e-6);
        assert_eq!(bins[0].range, [0.0, 1.0 / 15.0]);
        let rows = array![[0.95_f32, 0.05], [0.95, 0.05], [0.4, 0.6], [0.05, 0.95]];
        let labels = [0, 1, 1, 1];
        let confident = rows.rows().into_iter().zip(labels).map(|(row, label)| {
            let predicted = usize::from(row[1] > row[0]);
            (row[predicted], predicted == label)
        });
        let gaps = reliability(confident)
            .iter()
            .map(|bin| bin.count as f64 / 4.0 * (bin.observed - bin.predicted).abs())
            .sum::<f64>();
        let ece = crate::metrics::probability::ece(&labels, rows.view()).unwrap();
        assert!((gaps - ece).abs() < 1e-9, "{gaps}, {ece}");
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let truth = array![[true], [false]];
        let curves =
            ProbabilityCurves::of_label_sets(truth.view(), array![[f32::NAN], [0.5]].view());
        assert_eq!(curves, ProbabilityCurves::default());
    }
}
