//! All metrics of a classifier from probabilities that arrive a few rows at a time, for any number of classes.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{
    ClassificationMetrics,
    auc::AucCounts,
    confusion::confusion_of,
    counts::ClassCounts,
    intervals::{Bootstrap, bootstrap},
    metric::Metric,
    probability::{RowLosses, RowScore},
    ranking::{MAX_RANKING_STEPS, class_rankings, mean_auc, n_ranked},
    scores::Scores,
};

const N_SCORES: usize = Metric::OF_CLASSES.len();

/// Scores rows in two passes, the second one for their ranks. It holds about 70 bytes per row.
///
/// ```
/// use frostbert::internals::metrics::classification::evaluate;
/// use frostbert::internals::metrics::scorer::ClassScorer;
/// use ndarray::{array, s};
///
/// let labels = [0, 2, 1, 2];
/// let rows = array![[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.5, 0.2, 0.3]];
/// let mut scorer = ClassScorer::new(labels.to_vec(), 3, None);
/// scorer.add(&[2, 3], rows.slice(s![2.., ..]));
/// scorer.add(&[0, 1], rows.slice(s![..2, ..]));
/// if scorer.wants_ranks() {
///     scorer.rank(rows.view());
/// }
/// assert_eq!(scorer.finish(), evaluate(&labels, rows.view(), 3, None));
/// ```
pub struct ClassScorer {
    labels: Vec<usize>,
    n_classes: usize,
    rows: Vec<RowScore>,
    counts: Option<AucCounts>,
    bootstrap: Option<Bootstrap>,
    /// All probabilities, if they are few enough for ROC-AUC to get an interval.
    kept: Option<Array2<f32>>,
}

impl ClassScorer {
    /// Creates a scorer for rows with these labels, all below `n_classes`. With `bootstrap`, metrics get intervals.
    pub fn new(labels: Vec<usize>, n_classes: usize, bootstrap: Option<Bootstrap>) -> Self {
        Self::with_most(labels, n_classes, bootstrap, MAX_RANKING_STEPS)
    }

    /// Like [`ClassScorer::new`]; ROC-AUC gets no interval if it would take more than `max_ranking_steps`.
    fn with_most(
        labels: Vec<usize>,
        n_classes: usize,
        bootstrap: Option<Bootstrap>,
        max_ranking_steps: u64,
    ) -> Self {
        let n_steps = bootstrap.map(|settings| {
            (labels.len() as u64)
                .saturating_mul(n_ranked(n_classes) as u64)
                .saturating_mul(settings.resamples as u64)
        });
        let is_kept = n_steps.is_some_and(|n_steps| n_steps <= max_ranking_steps);
        Self {
            rows: vec![RowScore::default(); labels.len()],
            counts: None,
            kept: is_kept.then(|| Array2::zeros((labels.len(), n_classes))),
            labels,
            n_classes,
            bootstrap,
        }
    }

    /// Adds the probabilities `[places.len(), n_classes]` of the rows at these positions in the labels.
    ///
    /// # Panics
    ///
    /// Panics if the numbers of rows or classes differ, or a label is not below `n_classes`.
    pub fn add(&mut self, places: &[usize], probabilities: ArrayView2<f32>) {
        assert_eq!(
            probabilities.dim(),
            (places.len(), self.n_classes),
            "one row for each label, one column for each class"
        );
        let labels = &self.labels;
        let scores: Vec<RowScore> = (0..places.len())
            .into_par_iter()
            .map(|row| RowScore::new(labels[places[row]], probabilities.row(row)))
            .collect();
        for (place, score) in places.iter().zip(scores) {
            self.rows[*place] = score;
        }
        if let Some(kept) = &mut self.kept {
            for (place, row) in places.iter().zip(probabilities.rows()) {
                kept.row_mut(*place).assign(&row);
            }
        }
    }

    /// Ends the first pass, and returns whether all rows must now be passed to [`ClassScorer::rank`].
    ///
    /// # Panics
    ///
    /// Panics if there are more than `u32::MAX` rows.
    pub fn wants_ranks(&mut self) -> bool {
        assert!(u32::try_from(self.labels.len()).is_ok(), "at most u32::MAX rows");
        if self.rows.iter().all(|row| row.is_finite) {
            let own = self.rows.iter().map(|row| row.own);
            self.counts = Some(AucCounts::new(&self.labels, own, self.n_classes));
        }
        self.counts.is_some()
    }

    /// Takes the probabilities of some rows for the second time, in any order.
    ///
    /// # Panics
    ///
    /// Panics if ranks are not wanted.
    pub fn rank(&mut self, probabilities: ArrayView2<f32>) {
        let counts = self.counts.as_mut().expect("ranks are wanted");
        counts.count(probabilities);
    }

    /// Computes the metrics of all rows.
    pub fn finish(self) -> ClassificationMetrics {
        let predictions = self.rows.iter().map(|row| row.prediction as usize);
        let predictions: Vec<usize> = predictions.collect();
        let roc_auc = self.counts.as_ref().and_then(AucCounts::mean);
        let losses = RowLosses::of(&self.rows);
        let scored = ScoredRows { scorer: &self, predictions, losses };
        let once_each = vec![1; self.labels.len()];
        let scores = scored.scores(&once_each, roc_auc);
        let intervals =
            self.bootstrap.map_or([None; N_SCORES], |settings| scored.intervals(settings));
        let pairs = self.labels.iter().copied();
        let (confusion, confusion_cells) =
            confusion_of(pairs.zip(scored.predictions.iter().copied()), self.n_classes);
        ClassificationMetrics {
            scores: Scores::new(Metric::OF_CLASSES, scores, intervals),
            n: self.labels.len(),
            per_class: scored.counts(&once_each).per_class(),
            confusion,
            confusion_cells,
        }
    }
}

struct ScoredRows<'a> {
    scorer: &'a ClassScorer,
    predictions: Vec<usize>,
    /// `None` if a probability is not finite.
    losses: Option<RowLosses>,
}

impl ScoredRows<'_> {
    fn intervals(&self, settings: Bootstrap) -> [Option<[f64; 2]>; N_SCORES] {
        let labels = &self.scorer.labels;
        let kept = self.scorer.kept.as_ref();
        let rankings: Vec<_> =
            kept.map_or_else(Vec::new, |kept| class_rankings(labels, &kept.view()).collect());
        bootstrap(labels.len(), settings, |weights| {
            self.scores(weights, mean_auc(&rankings, weights))
        })
    }

    /// The scores in the order of [`Metric::OF_CLASSES`], where row `i` counts as `weights[i]` equal rows.
    fn scores(&self, weights: &[u32], roc_auc: Option<f64>) -> [Option<f64>; N_SCORES] {
        let counts = self.counts(weights);
        let losses = self.losses.as_ref();
        [
            counts.accuracy(),
            counts.macro_f1(),
            counts.micro_f1(),
            counts.weighted_f1(),
            counts.mcc(),
            roc_auc,
            losses.and_then(|losses| losses.log_loss(weights)),
            losses.and_then(|losses| losses.brier(weights)),
            losses.and_then(|losses| losses.ece(weights)),
        ]
    }

    fn counts(&self, weights: &[u32]) -> ClassCounts {
        let ClassScorer { labels, n_classes, .. } = self.scorer;
        ClassCounts::weighted(labels, &self.predictions, *n_classes, weights)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn too_many_ranking_steps_cost_roc_auc_its_interval_only() {
        let probabilities = array![[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]];
        let settings = Bootstrap { resamples: 100, seed: 1 };
        let evaluate = |most| {
            let mut scorer = ClassScorer::with_most(vec![0, 1, 1, 0], 2, Some(settings), most);
            scorer.add(&[0, 1, 2, 3], probabilities.view());
            assert!(scorer.wants_ranks());
            scorer.rank(probabilities.view());
            scorer.finish()
        };
        let (all, few) = (evaluate(400), evaluate(399));
        for metric in Metric::OF_CLASSES {
            assert!(all.scores.interval(metric).is_some(), "{metric}");
            assert_eq!(few.scores.value(metric), all.scores.value(metric), "{metric}");
            let expected = all.scores.interval(metric).filter(|_| metric != Metric::RocAuc);
            assert_eq!(few.scores.interval(metric), expected, "{metric}");
        }
    }

    #[test]
    fn rows_that_come_a_few_at_a_time_in_any_order_give_the_bits_of_all_together() {
        let (n_rows, n_classes) = (90, 1_100);
        let labels: Vec<usize> = (0..n_rows).map(|row| row * 37 % n_classes).collect();
        let all = Array2::from_shape_fn((n_rows, n_classes), |(row, class)| {
            let near = if labels[row] == class { 0.3 } else { 0.0 };
            (((row * 7 + class * 3) as f32).sin().abs() + near) / n_classes as f32
        });
        let settings = Some(Bootstrap { resamples: 20, seed: 1 });
        let whole =
            crate::metrics::classification::evaluate(&labels, all.view(), n_classes, settings);
        let mut scorer = ClassScorer::new(labels.clone(), n_classes, settings);
        let parts: Vec<Vec<usize>> =
            (0..7).map(|part| (part..n_rows).step_by(7).collect()).collect();
        let rows_of = |places: &[usize]| all.select(ndarray::Axis(0), places);
        for places in parts.iter().rev() {
            scorer.add(places, rows_of(places).view());
        }
        assert!(scorer.wants_ranks());
        for places in &parts {
            scorer.rank(rows_of(places).view());
        }
        let in_parts = scorer.finish();
        assert_eq!(in_parts, whole);
        assert!(whole.scores.value(Metric::RocAuc).is_some_and(|auc| auc > 0.5));
        assert_eq!(whole.confusion.len(), 0);
        let n_in_cells: u64 = whole.confusion_cells.iter().map(|cell| cell.rows).sum();
        assert_eq!(n_in_cells, n_rows as u64);
    }
}
