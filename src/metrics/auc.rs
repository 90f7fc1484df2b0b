//! The area under the ROC curve of every class, from probabilities that arrive a few rows at a time.

use ndarray::ArrayView2;
use rayon::prelude::*;

/// Number of classes that one thread counts at a time.
const PART_CLASSES: usize = 512;

/// For each row's probability of its own class, the numbers of rows that give this class a lower and a higher
/// probability: all that the AUC of each class against the rest depends on. Takes 16 bytes per row, for any number of
/// classes.
pub(super) struct AucCounts {
    classes: Vec<OneClass>,
    n_rows: u64,
}

/// The rows of one class.
#[derive(Clone, Default)]
struct OneClass {
    /// Their probabilities of the class, ascending.
    own: Vec<f32>,
    /// Number of rows, among all, with at least `own[i]` and less than the next.
    not_below: Vec<u32>,
    /// Number of rows, among all, with more than `own[i]` and at most the next.
    above: Vec<u32>,
}

impl AucCounts {
    /// Starts the counts for rows with these labels; `own[i]` is the probability that row `i` gives its own class. With
    /// two classes only the second is ranked.
    ///
    /// # Panics
    ///
    /// Panics if a label is not below `n_classes`.
    pub(super) fn new(labels: &[usize], own: impl Iterator<Item = f32>, n_classes: usize) -> Self {
        let mut classes = vec![OneClass::default(); n_classes];
        for (&label, own) in labels.iter().zip(own) {
            assert!(label < n_classes, "label {label} is below {n_classes}");
            if n_classes != 2 || label == 1 {
                classes[label].own.push(own);
            }
        }
        for class in &mut classes {
            // -0 and 0 compare as equal in the counts, whatever their order here.
            class.own.sort_unstable_by(f32::total_cmp);
            class.not_below = vec![0; class.own.len()];
            class.above = vec![0; class.own.len()];
        }
        Self { classes, n_rows: labels.len() as u64 }
    }

    /// Counts some rows `[rows, n_classes]` of finite probabilities; every row must be counted once, in any order.
    pub(super) fn count(&mut self, rows: ArrayView2<f32>) {
        let parts = self.classes.par_chunks_mut(PART_CLASSES).enumerate();
        parts.for_each(|(part, classes)| {
            let first = part * PART_CLASSES;
            for row in rows.rows() {
                for (class, p) in classes.iter_mut().zip(row.iter().skip(first)) {
                    class.count(*p);
                }
            }
        });
    }

    /// The mean AUC over the classes that some but not all rows have.
    pub(super) fn mean(&self) -> Option<f64> {
        let mut sum = 0.0;
        let mut n = 0u64;
        for auc in self.classes.iter().filter_map(|class| class.auc(self.n_rows)) {
            sum += auc;
            n += 1;
        }
        (n > 0).then(|| sum / n as f64)
    }
}

impl OneClass {
    fn count(&mut self, p: f32) {
        // For most rows and classes, the probability is below that of every row of the class.
        if self.own.first().is_none_or(|lowest| p < *lowest) {
            return;
        }
        let reached = self.own.partition_point(|own| *own <= p);
        self.not_below[reached - 1] += 1;
        let passed = self.own.partition_point(|own| *own < p);
        if passed > 0 {
            self.above[passed - 1] += 1;
        }
    }

    /// For each row of the class, twice the number of won pairs against *all* rows is the number of rows below it plus
    /// the number of rows not above it. That includes the pairs within the class, which always contribute the square of
    /// its size.
    fn auc(&self, n_rows: u64) -> Option<f64> {
        let n_own = self.own.len() as u64;
        let n_pairs = n_own * (n_rows - n_own);
        let (mut not_below, mut above, mut twice_won) = (0, 0, 0);
        for (n_reached, n_passed) in self.not_below.iter().zip(&self.above).rev() {
            not_below += u64::from(*n_reached);
            above += u64::from(*n_passed);
            twice_won += 2 * n_rows - not_below - above;
        }
        (n_pairs > 0).then(|| (twice_won - n_own * n_own) as f64 / (2.0 * n_pairs as f64))
    }
}
