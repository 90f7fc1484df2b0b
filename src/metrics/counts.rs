//! Metrics that depend only on right and wrong answers, as scikit-learn 1.9 defines them.
//!
//! linfa's `ConfusionMatrix` is not suitable for them: it counts in f32 (which stops at 2^24 and loses the differences
//! of large products that MCC consists of), keeps its cells private, has predictions in its rows, takes C^3 steps for
//! MCC, and its F1 is the harmonic mean of two averages, NaN if a class is never predicted. A test below compares the
//! two where linfa is exact.

use super::ClassScore;

/// For each class, the three numbers that all metrics of this module are computed from.
///
/// With `correct` t_c, `predicted` p_c, `actual` a_c and n rows:
///
/// ```
/// use frostbert::internals::metrics::counts::ClassCounts;
///
/// let counts = ClassCounts::new(&[0, 1, 2, 0, 1, 2], &[0, 2, 1, 0, 0, 1], 3);
/// assert_eq!(counts.correct, [2, 0, 0]);
/// assert_eq!(counts.predicted, [3, 2, 1]);
/// assert!((counts.accuracy().unwrap() - 2.0 / 6.0).abs() < 1e-12);
/// assert!((counts.macro_f1().unwrap() - 0.8 / 3.0).abs() < 1e-12);
/// assert!((counts.mcc().unwrap() - 0.0).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCounts {
    /// Rows of the class that were predicted as such.
    pub correct: Vec<u64>,
    /// Rows predicted as the class.
    pub predicted: Vec<u64>,
    /// Rows of the class.
    pub actual: Vec<u64>,
}

impl ClassCounts {
    /// Counts n labels against n predictions, all below `n_classes`.
    ///
    /// # Panics
    ///
    /// Panics if the slices differ in length or hold a class that is not below `n_classes`.
    pub fn new(labels: &[usize], predictions: &[usize], n_classes: usize) -> Self {
        Self::weighted(labels, predictions, n_classes, &vec![1; labels.len()])
    }

    /// Like [`ClassCounts::new`], where row `i` counts as `weights[i]` equal rows.
    pub(super) fn weighted(
        labels: &[usize],
        predictions: &[usize],
        n_classes: usize,
        weights: &[u32],
    ) -> Self {
        assert_eq!(labels.len(), predictions.len(), "one prediction for each label");
        assert_eq!(labels.len(), weights.len(), "one weight for each label");
        let pairs = labels.iter().copied().zip(predictions.iter().copied());
        Self::of_pairs(pairs.zip(weights.iter().copied()), n_classes)
    }

    /// Counts labels with their predictions, each pair as many times as its weight.
    pub(super) fn of_pairs(
        weighted: impl Iterator<Item = ((usize, usize), u32)>,
        n_classes: usize,
    ) -> Self {
        let mut counts = Self {
            correct: vec![0; n_classes],
            predicted: vec![0; n_classes],
            actual: vec![0; n_classes],
        };
        for ((label, prediction), weight) in weighted {
            assert!(
                label < n_classes && prediction < n_classes,
                "label {label} and prediction {prediction} are below {n_classes}"
            );
            let weight = u64::from(weight);
            counts.actual[label] += weight;
            counts.predicted[prediction] += weight;
            if label == prediction {
                counts.correct[label] += weight;
            }
        }
        counts
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.actual.iter().sum()
    }

    /// `sum_c t_c / n`; `None` without rows.
    pub fn accuracy(&self) -> Option<f64> {
        defined_ratio(self.correct.iter().sum(), self.n_rows())
    }

    /// Mean of `f1_c` over the classes that occur in truth or predictions; `None` without rows.
    ///
    /// This is scikit-learn's `f1_score(average="macro", zero_division=0)` without `labels=`: a class of the label map
    /// that occurs in neither does not lower the mean.
    pub fn macro_f1(&self) -> Option<f64> {
        let occurring =
            (0..self.actual.len()).filter(|&class| self.actual[class] + self.predicted[class] > 0);
        let (sum, n_occurring) =
            occurring.fold((0.0, 0u64), |(sum, n), class| (sum + self.f1(class), n + 1));
        (n_occurring > 0).then(|| sum / n_occurring as f64)
    }

    /// F1 of the counts summed over classes, `2 sum t / (sum p + sum a)`; `None` without rows.
    ///
    /// Every row has one label and one prediction, so this equals the accuracy.
    pub fn micro_f1(&self) -> Option<f64> {
        let n = self.n_rows();
        (n > 0).then(|| f1(self.correct.iter().sum(), self.predicted.iter().sum(), n))
    }

    /// Mean of `f1_c` weighted by `a_c`; `None` without rows.
    pub fn weighted_f1(&self) -> Option<f64> {
        let n = self.n_rows();
        let sum: f64 =
            (0..self.actual.len()).map(|class| self.actual[class] as f64 * self.f1(class)).sum();
        (n > 0).then(|| sum / n as f64)
    }

    /// Matthews correlation coefficient for any number of classes; `None` without rows.
    ///
    /// `(n sum_c t_c - sum_c p_c a_c) / sqrt((n^2 - sum_c p_c^2) (n^2 - sum_c a_c^2))`, and 0 if the truth or the
    /// predictions are all of one class. Gorodkin, "Comparing two K-category assignments by a K-category correlation
    /// coefficient", 2004. The differences are between integers, so there is no cancellation.
    pub fn mcc(&self) -> Option<f64> {
        let n = i128::from(self.n_rows());
        if n == 0 {
            return None;
        }
        let dot = |left: &[u64], right: &[u64]| -> i128 {
            left.iter().zip(right).map(|(&l, &r)| i128::from(l) * i128::from(r)).sum()
        };
        let n_correct: i128 = self.correct.iter().copied().map(i128::from).sum();
        let covariance = n * n_correct - dot(&self.predicted, &self.actual);
        let variance_of_predictions = n * n - dot(&self.predicted, &self.predicted);
        let variance_of_truth = n * n - dot(&self.actual, &self.actual);
        if variance_of_predictions == 0 || variance_of_truth == 0 {
            return Some(0.0);
        }
        Some(covariance as f64 / (variance_of_predictions as f64 * variance_of_truth as f64).sqrt())
    }

    /// Precision `t_c / p_c`, recall `t_c / a_c`, F1 and support of every class; a ratio without a denominator is 0.
    pub fn per_class(&self) -> Vec<ClassScore> {
        (0..self.actual.len())
            .map(|class| ClassScore {
                label: class,
                name: String::new(),
                precision: defined_ratio(self.correct[class], self.predicted[class]).unwrap_or(0.0),
                recall: defined_ratio(self.correct[class], self.actual[class]).unwrap_or(0.0),
                f1: self.f1(class),
                support: self.actual[class],
            })
            .collect()
    }

    /// `2 t_c / (p_c + a_c)`; 0 if the class occurs in neither truth nor predictions.
    pub(super) fn f1(&self, class: usize) -> f64 {
        f1(self.correct[class], self.predicted[class], self.actual[class])
    }
}

/// The confusion matrix `[C][C]`: rows are the truth, columns the predictions, as in scikit-learn.
///
/// ```
/// use frostbert::internals::metrics::counts::confusion;
///
/// assert_eq!(confusion(&[0, 0, 1], &[0, 1, 1], 2), [[1, 1], [0, 1]]);
/// ```
///
/// # Panics
///
/// Panics if the slices differ in length or hold a class that is not below `n_classes`.
pub fn confusion(labels: &[usize], predictions: &[usize], n_classes: usize) -> Vec<Vec<u64>> {
    assert_eq!(labels.len(), predictions.len(), "one prediction for each label");
    let mut matrix = vec![vec![0; n_classes]; n_classes];
    for (&label, &prediction) in labels.iter().zip(predictions) {
        assert!(
            label < n_classes && prediction < n_classes,
            "label {label} and prediction {prediction} are below {n_classes}"
        );
        matrix[label][prediction] += 1;
    }
    matrix
}

/// `2 correct / (predicted + actual)`, the harmonic mean of precision and recall; 0 if both are undefined.
pub(super) fn f1(correct: u64, predicted: u64, actual: u64) -> f64 {
    defined_ratio(2 * correct, predicted + actual).unwrap_or(0.0)
}

pub(super) fn defined_ratio(numerator: u64, denominator: u64) -> Option<f64> {
    (denominator > 0).then(|| numerator as f64 / denominator as f64)
}

#[cfg(test)]
mod tests {
    use linfa::prelude::ToConfusionMatrix;
    use ndarray::Array1;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random_case(n_rows: usize, n_classes: usize) -> (Vec<usize>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        (0..n_rows)
            .map(|_| {
                let label = rng.gen_range(0..n_classes);
                (label, if rng.gen_bool(0.6) { label } else { rng.gen_range(0..n_classes) })
            })
            .unzip()
    }

    #[test]
    fn linfa_agrees_on_accuracy_and_mcc_for_several_classes() {
        let (labels, predictions) = random_case(200, 5);
        let counts = ClassCounts::new(&labels, &predictions, 5);
        let linfa = Array1::from(predictions).confusion_matrix(&Array1::from(labels)).unwrap();
        assert!((counts.accuracy().unwrap() - f64::from(linfa.accuracy())).abs() < 1e-6);
        assert!((counts.mcc().unwrap() - f64::from(linfa.mcc())).abs() < 1e-5);
    }

    #[test]
    fn linfa_agrees_on_f1_of_the_positive_class() {
        let (labels, predictions) = random_case(150, 2);
        let counts = ClassCounts::new(&labels, &predictions, 2);
        let linfa = Array1::from(predictions).confusion_matrix(&Array1::from(labels)).unwrap();
        assert!((counts.per_class()[1].f1 - f64::from(linfa.f1_score())).abs() < 1e-6);
    }

    #[test]
    fn weighted_counts_equal_the_counts_of_repeated_rows() {
        let weighted = ClassCounts::weighted(&[0, 1, 1], &[0, 0, 1], 2, &[2, 0, 3]);
        let repeated = ClassCounts::new(&[0, 0, 1, 1, 1], &[0, 0, 1, 1, 1], 2);
        assert_eq!(weighted, repeated);
    }

    #[test]
    fn without_rows_every_metric_is_undefined() {
        let counts = ClassCounts::new(&[], &[], 3);
        let all = [
            counts.accuracy(),
            counts.macro_f1(),
            counts.micro_f1(),
            counts.weighted_f1(),
            counts.mcc(),
        ];
        assert_eq!(all, [None; 5]);
        assert_eq!(counts.per_class().len(), 3);
    }

    #[test]
    fn mcc_of_a_large_perfect_split_is_exactly_one() {
        let counts = ClassCounts {
            correct: vec![3_000_000_001, 1],
            predicted: vec![3_000_000_001, 1],
            actual: vec![3_000_000_001, 1],
        };
        assert_eq!(counts.mcc(), Some(1.0));
    }

    #[test]
    #[should_panic(expected = "label 2 and prediction 0 are below 2")]
    fn a_label_outside_the_label_map_is_refused() {
        ClassCounts::new(&[2], &[0], 2);
    }
}
