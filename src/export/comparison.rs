//! Compares what an exported file computes with what `predict` gives, row by row.

use ndarray::Array2;

use crate::{
    export::request::{ExportCheck, NEAR_BOUNDARY, ROUNDED_TOLERANCE, TOLERANCE},
    head::saved::HeadDescription,
};

/// How rows are compared.
pub(super) struct Comparison<'a> {
    /// The probability from which each label is predicted, where a row has any number of labels.
    thresholds: Option<&'a [f64]>,
    /// Whether both sides compute in f32, so that differences are those of f32.
    is_exact: bool,
    /// Whether the labels of what follows were judged before, so that only its differences count.
    is_repeated: bool,
    judged: usize,
    largest_difference: f64,
    other_labels: usize,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(description: &'a HeadDescription, is_exact: bool) -> Comparison<'a> {
        Comparison {
            thresholds: description.thresholds.as_deref(),
            is_exact,
            is_repeated: false,
            judged: 0,
            largest_difference: 0.0,
            other_labels: 0,
        }
    }

    /// Notes that the labels of the rows that follow were judged before: only their differences count from here on.
    pub(super) fn repeat(&mut self) {
        self.is_repeated = true;
    }

    /// Compares numbers: their difference, relative to them if they are above 1.
    pub(super) fn numbers(&mut self, ours: &[f64], theirs: &[f32]) {
        self.require_same_length(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            let difference = (ours - f64::from(*theirs)).abs() / ours.abs().max(1.0);
            self.see(difference);
            self.judge(difference > ROUNDED_TOLERANCE);
        }
    }

    /// Compares logits of exclusive classes by their probabilities, which do not depend on the size of the logits.
    pub(super) fn scores(&mut self, ours: &[f32], theirs: &[f32]) {
        self.classes(&softmax(ours), &softmax(theirs));
    }

    /// Compares the probabilities of exclusive classes, and the most probable class.
    pub(super) fn classes(&mut self, ours: &[f32], theirs: &[f32]) {
        self.probabilities(ours, theirs);
        // A boundary lies where two labels are equally probable, half of their difference away.
        let (mine, other) = (best(ours), best(theirs));
        let is_other = mine != other && f64::from(ours[mine] - ours[other]) / 2.0 > NEAR_BOUNDARY;
        self.judge(is_other);
    }

    /// Compares rows of probabilities as [`Comparison::classes`] does.
    pub(super) fn rows_of_classes(&mut self, ours: &Array2<f32>, theirs: &Array2<f32>) {
        for (ours, theirs) in ours.rows().into_iter().zip(theirs.rows()) {
            self.classes(&ours.to_vec(), &theirs.to_vec());
        }
    }

    /// Compares the probabilities of labels of which a row has any number, and which of them reach their threshold.
    pub(super) fn labels(&mut self, ours: &[f32], theirs: &[f32]) {
        self.probabilities(ours, theirs);
        let of_label = |label: usize| self.thresholds.map_or(0.5, |all| all[label]);
        let is_other = ours.iter().zip(theirs).enumerate().any(|(label, (ours, theirs))| {
            let margin = f64::from(*ours) - of_label(label);
            (margin >= 0.0) != (f64::from(*theirs) >= of_label(label))
                && margin.abs() > NEAR_BOUNDARY
        });
        self.judge(is_other);
    }

    /// Compares probabilities whose labels are judged elsewhere.
    pub(super) fn probabilities(&mut self, ours: &[f32], theirs: &[f32]) {
        self.require_same_length(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            self.see((f64::from(*ours) - f64::from(*theirs)).abs());
        }
    }

    /// Notes outputs of another shape, which cannot be compared.
    pub(super) fn fail(&mut self) {
        self.see(f64::INFINITY);
    }

    /// Counts a label, and whether it is another one.
    fn judge(&mut self, is_other: bool) {
        if !self.is_repeated {
            self.judged += 1;
            self.other_labels += usize::from(is_other);
        }
    }

    fn require_same_length(&mut self, ours: usize, theirs: usize) {
        if ours != theirs {
            self.fail();
        }
    }

    /// Notes a difference; one that is no number counts as infinite.
    fn see(&mut self, difference: f64) {
        let difference = if difference.is_finite() { difference } else { f64::INFINITY };
        self.largest_difference = self.largest_difference.max(difference);
    }

    /// Returns the result; `compared` is what was compared. Where the encoder is quantised, a twentieth of the labels may
    /// be other ones.
    pub(super) fn finish(
        self,
        compared: &'static str,
        part: &'static str,
        rows: usize,
        is_quantized: bool,
    ) -> ExportCheck {
        ExportCheck {
            part,
            rows,
            compared,
            largest_difference: self.largest_difference,
            tolerance: TOLERANCE,
            by_label: !self.is_exact,
            quantized: is_quantized,
            judged: self.judged,
            other_labels: self.other_labels,
            most_other_labels: if is_quantized { self.judged.div_ceil(20) } else { 0 },
        }
    }
}

fn best(values: &[f32]) -> usize {
    let mut best = 0;
    for (place, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = place;
        }
    }
    best
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits.iter().map(|logit| f64::from(*logit - highest).exp());
    let powers: Vec<f64> = powers.collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / total) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(thresholds: Option<&[f64]>) -> Comparison<'_> {
        Comparison {
            thresholds,
            is_exact: false,
            is_repeated: false,
            judged: 0,
            largest_difference: 0.0,
            other_labels: 0,
        }
    }

    #[test]
    fn another_label_counts_unless_its_probability_is_near_the_boundary() {
        let classes = |ours: &[f32], theirs: &[f32]| {
            let mut comparison = comparison(None);
            comparison.classes(ours, theirs);
            comparison.other_labels
        };
        assert_eq!(classes(&[0.6, 0.4], &[0.55, 0.45]), 0);
        assert_eq!(classes(&[0.6, 0.4], &[0.4, 0.6]), 1);
        assert_eq!(classes(&[0.501, 0.499], &[0.499, 0.501]), 0);
        assert_eq!(classes(&[0.2, 0.45, 0.35], &[0.5, 0.3, 0.2]), 1);
        assert_eq!(classes(&[0.2, 0.45, 0.35], &[0.3, 0.4, 0.3]), 0);
        let thresholds = [0.3, 0.5];
        let labels = |ours: &[f32], theirs: &[f32]| {
            let mut comparison = comparison(Some(&thresholds));
            comparison.labels(ours, theirs);
            comparison.other_labels
        };
        assert_eq!(labels(&[0.4, 0.4], &[0.35, 0.45]), 0);
        assert_eq!(labels(&[0.4, 0.4], &[0.2, 0.45]), 1);
        assert_eq!(labels(&[0.301, 0.4], &[0.299, 0.45]), 0);
    }

    #[test]
    fn what_is_no_number_or_missing_is_infinitely_far_away() {
        for theirs in [&[0.5, f32::NAN][..], &[0.5]] {
            let mut comparison = comparison(None);
            comparison.classes(&[0.5, 0.5], theirs);
            assert!(comparison.largest_difference.is_infinite());
            assert!(!comparison.finish("probabilities", "test", 1, false).passed());
        }
    }

    #[test]
    fn labels_are_judged_once_and_a_twentieth_of_them_may_differ_under_int8() {
        let mut comparison = comparison(None);
        for _ in 0..40 {
            comparison.classes(&[0.9, 0.1], &[0.9, 0.1]);
        }
        comparison.classes(&[0.9, 0.1], &[0.2, 0.8]);
        comparison.repeat();
        comparison.classes(&[0.9, 0.1], &[0.1, 0.9]);
        let check = comparison.finish("probabilities", "test", 7, true);
        assert_eq!((check.judged, check.other_labels, check.most_other_labels), (41, 1, 3));
        assert_eq!(check.rows, 7);
        // What is run again counts for the difference.
        assert!((check.largest_difference - 0.8).abs() < 1e-6, "{check:?}");
        assert!(check.passed());
    }
}
