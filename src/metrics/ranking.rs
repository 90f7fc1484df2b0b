//! Area under the ROC curve: how well the probability of a class ranks its rows above the others.

use ndarray::{ArrayView1, ArrayView2};

use super::auc::AucCounts;

/// Above this number of rows x ranked classes x resamples, ROC-AUC gets no interval, which alone would take more than a
/// few seconds. 3,000 rows of 77 classes, 1,000 times, are 0.23e9; two classes count as one ranked class.
pub(crate) const MAX_RANKING_STEPS: u64 = 4_000_000_000;

/// Area under the ROC curve of probabilities `[n, C]`, from 0 to 1, with 0.5 for chance.
///
/// For one class against the rest this is the Mann-Whitney statistic: the fraction of pairs (row of the class, other
/// row) in which the first has the higher probability, with ties counted as one half. It equals the trapezoid area of
/// scikit-learn's `roc_auc_score`.
///
/// - Two classes: the AUC of the probability of class 1.
/// - More: the unweighted mean of the one-vs-rest AUCs over the classes that some but not all rows have. scikit-learn's
///   `multi_class="ovr", average="macro"` is the same if every class has rows, and raises an error if one has none.
///
/// `None` if there is no such class (a single class, no rows) or if a probability is not finite.
///
/// ```
/// use frostbert::internals::metrics::ranking::roc_auc;
/// use ndarray::array;
///
/// let probabilities = array![[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]];
/// assert_eq!(roc_auc(&[0, 0, 1, 1], probabilities.view()), Some(0.75));
/// ```
///
/// # Panics
///
/// Panics if there is not one row for each label, a label is not below C, or there are more than `u32::MAX` rows.
pub fn roc_auc(labels: &[usize], probabilities: ArrayView2<f32>) -> Option<f64> {
    assert_eq!(labels.len(), probabilities.nrows(), "one row of probabilities for each label");
    assert!(u32::try_from(labels.len()).is_ok(), "at most u32::MAX rows");
    if probabilities.iter().any(|p| !p.is_finite()) {
        return None;
    }
    let own = labels.iter().zip(probabilities.rows());
    let own = own.map(|(&label, row)| row.get(label).copied().unwrap_or(f32::NAN));
    let mut counts = AucCounts::new(labels, own, probabilities.ncols());
    counts.count(probabilities);
    counts.mean()
}

/// The rankings whose mean AUC is [`roc_auc`], created one at a time: each takes `4 n` bytes and more.
pub(super) fn class_rankings<'a>(
    labels: &'a [usize],
    probabilities: &'a ArrayView2<'_, f32>,
) -> impl Iterator<Item = ClassRanking> + 'a {
    assert_eq!(labels.len(), probabilities.nrows(), "one row of probabilities for each label");
    assert!(u32::try_from(labels.len()).is_ok(), "at most u32::MAX rows");
    let classes = match probabilities.ncols() {
        _ if probabilities.iter().any(|p| !p.is_finite()) => 0..0,
        2 => 1..2,
        n_classes => 0..n_classes,
    };
    let mut n_rows_of = vec![0; probabilities.ncols()];
    for &label in labels {
        assert!(label < n_rows_of.len(), "label {label} is below {}", n_rows_of.len());
        n_rows_of[label] += 1;
    }
    classes.filter(move |&class| n_rows_of[class] > 0 && n_rows_of[class] < labels.len()).map(
        move |class| ClassRanking::new(probabilities.column(class), |row| labels[row] == class),
    )
}

/// Maximum number of columns that [`class_rankings`] ranks.
pub(super) fn n_ranked(n_classes: usize) -> usize {
    if n_classes == 2 { 1 } else { n_classes }
}

/// Mean AUC of the rankings, where row `i` counts as `weights[i]` equal rows; undefined ones are ignored.
pub(super) fn mean_auc(rankings: &[ClassRanking], weights: &[u32]) -> Option<f64> {
    let mut scratch = vec![];
    mean(rankings.iter().map(|ranking| ranking.auc(weights, &mut scratch)))
}

/// The rows in order of one class's probability, which is all that AUC needs.
pub(super) struct ClassRanking {
    /// Rows by ascending probability.
    order: Vec<u32>,
    positives: Vec<Positive>,
}

/// A row of the class, and the range in `order` of the rows with the same probability.
struct Positive {
    row: u32,
    tie_start: u32,
    tie_end: u32,
}

impl ClassRanking {
    /// Ranks finite scores, at most `u32::MAX` of them.
    pub(super) fn new(scores: ArrayView1<f32>, is_positive: impl Fn(usize) -> bool) -> Self {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        let score = |row: &u32| scores[*row as usize];
        order.sort_unstable_by(|a, b| score(a).total_cmp(&score(b)));
        let mut positives = vec![];
        let mut tie_start = 0;
        for tied in order.chunk_by(|a, b| score(a) == score(b)) {
            let tie_end = tie_start + tied.len() as u32;
            let tied_positives = tied.iter().filter(|row| is_positive(**row as usize));
            positives.extend(tied_positives.map(|&row| Positive { row, tie_start, tie_end }));
            tie_start = tie_end;
        }
        Self { order, positives }
    }

    /// AUC where row `i` counts as `weights[i]` equal rows; the weights sum to at most `u32::MAX`.
    ///
    /// Twice the number of won pairs of each positive against *all* rows is the weight below its tie plus the weight up
    /// to the end of its tie. That includes the pairs of two positives, which always contribute the square of their
    /// number.
    fn auc(&self, weights: &[u32], weight_below: &mut Vec<u32>) -> Option<f64> {
        weight_below.clear();
        weight_below.push(0);
        let mut sum = 0;
        weight_below.extend(self.order.iter().map(|&row| {
            sum += weights[row as usize];
            sum
        }));
        let mut n_positive = 0;
        let mut twice_won = 0;
        for positive in &self.positives {
            let weight = u64::from(weights[positive.row as usize]);
            let below = weight_below[positive.tie_start as usize];
            let below_or_tied = weight_below[positive.tie_end as usize];
            n_positive += weight;
            twice_won += weight * (u64::from(below) + u64::from(below_or_tied));
        }
        let n_pairs = n_positive * (u64::from(sum) - n_positive);
        (n_pairs > 0).then(|| (twice_won - n_positive * n_positive) as f64 / (2.0 * n_pairs as f64))
    }
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, n) = values.flatten().fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn all_scores_equal_is_chance() {
        assert_eq!(roc_auc(&[0, 1, 1], Array2::from_elem((3, 2), 0.5).view()), Some(0.5));
    }

    #[test]
    fn auc_is_undefined_where_the_truth_has_one_class_or_none() {
        assert_eq!(roc_auc(&[1, 1], array![[0.2, 0.8], [0.5, 0.5]].view()), None);
        assert_eq!(roc_auc(&[0, 0], array![[1.0], [1.0]].view()), None);
        assert_eq!(roc_auc(&[], Array2::zeros((0, 2)).view()), None);
        assert_eq!(roc_auc(&[0, 1], array![[0.2, f32::NAN], [0.5, 0.5]].view()), None);
    }

    #[test]
    fn weighted_auc_equals_the_auc_of_repeated_rows() {
        let labels = [0, 1, 1, 0];
        let scores = array![[0.7, 0.3], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]];
        let rankings: Vec<_> = class_rankings(&labels, &scores.view()).collect();
        let repeated = array![[0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.2, 0.8]];
        assert_eq!(mean_auc(&rankings, &[2, 2, 1, 0]), roc_auc(&[0, 0, 1, 1, 1], repeated.view()));
    }

    #[test]
    fn counting_gives_the_bits_that_ranking_gives() {
        let n_rows = 400;
        for n_classes in [2, 3, 40] {
            let labels: Vec<usize> = (0..n_rows).map(|row| row * row % 41 % n_classes).collect();
            // Many ties, and both signs of zero.
            let probability = |row: usize, class: usize| {
                ((row * 31 + class * 17) as f32).sin().mul_add(4.0, 0.0).round() / 8.0
            };
            let all = Array2::from_shape_fn((n_rows, n_classes), |(r, c)| probability(r, c));
            let rankings: Vec<_> = class_rankings(&labels, &all.view()).collect();
            let ranked = mean_auc(&rankings, &vec![1; n_rows]);
            assert!(ranked.is_some());
            assert_eq!(roc_auc(&labels, all.view()), ranked);
        }
    }

    #[test]
    fn positive_and_negative_zero_are_tied() {
        assert_eq!(roc_auc(&[0, 1], array![[1.0, 0.0], [1.0, -0.0]].view()), Some(0.5));
    }
}
