//! Compares what an exported file computes with what `predict` gives, row by row.

use ndarray::Array2;

use crate::{
    export::request::{ExportCheck, NEAR_BOUNDARY, TOLERANCE},
    head::saved::HeadDescription,
};

/// The largest difference of a number, relative to it if it is above 1, where states were rounded.
pub(super) const ROUNDED_NUMBER: f64 = 0.05;

/// How rows are compared.
pub(super) struct Comparison<'a> {
    /// The probability from which each label is predicted, where a row has any number of labels.
    thresholds: Option<&'a [f64]>,
    /// Whether both sides compute in f32, so that differences are those of f32.
    is_exact: bool,
    rows: usize,
    largest_difference: f64,
    other_labels: usize,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(description: &'a HeadDescription, is_exact: bool) -> Comparison<'a> {
        Comparison {
            thresholds: description.thresholds.as_deref(),
            is_exact,
            rows: 0,
            largest_difference: 0.0,
            other_labels: 0,
        }
    }

    /// Counts a row, whose numbers, scores or probabilities follow.
    pub(super) fn begin_row(&mut self) {
        self.rows += 1;
    }

    /// Compares numbers: their difference, relative to them if they are above 1.
    pub(super) fn numbers(&mut self, ours: &[f64], theirs: &[f32]) {
        self.require_same_length(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            let difference = (ours - f64::from(*theirs)).abs() / ours.abs().max(1.0);
            self.see(difference);
            if difference > ROUNDED_NUMBER {
                self.other_labels += 1;
            }
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
        self.other_labels += usize::from(is_other);
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
        self.other_labels += usize::from(is_other);
    }

    fn probabilities(&mut self, ours: &[f32], theirs: &[f32]) {
        self.require_same_length(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            self.see((f64::from(*ours) - f64::from(*theirs)).abs());
        }
    }

    /// Notes outputs of another shape, which cannot be compared.
    pub(super) fn fail(&mut self) {
        self.see(f64::INFINITY);
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

    /// Returns the result; `compared` is what was compared. Where the encoder is quantised, a twentieth of the rows may
    /// have another label.
    pub(super) fn finish(
        self,
        compared: &'static str,
        part: &'static str,
        is_quantized: bool,
    ) -> ExportCheck {
        ExportCheck {
            part,
            rows: self.rows,
            compared,
            largest_difference: self.largest_difference,
            tolerance: TOLERANCE,
            by_label: !self.is_exact,
            other_labels: self.other_labels,
            most_other_labels: if is_quantized { self.rows.div_ceil(20) } else { 0 },
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
            rows: 1,
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
            assert!(!comparison.finish("probabilities", "test", false).passed());
        }
    }
}
