//! Metrics and predictions of classes, from the outputs on the validation rows.

use ndarray::ArrayView2;

use crate::{
    error::Result,
    head::{bank::Evaluator, outputs::OutputHead},
    metrics::{
        ClassificationMetrics,
        calibration::softmax_rows,
        counts::ClassCounts,
        metric::Metric,
        outputs::{OutputRows, gathered},
        probability::predictions,
        scorer::ClassScorer,
        scores::Scores,
    },
    tasks::{
        measure::fit_temperature,
        predictions::{Calibration, PredictionEvaluator, Predictions},
    },
};

/// The evaluator of classes: the validation rows and their classes, the number of classes, and the metrics that early
/// stopping follows.
pub(super) struct ClassEvaluator {
    pub(super) rows: Vec<u32>,
    pub(super) labels: Vec<usize>,
    pub(super) n_classes: usize,
    pub(super) followed: Vec<Metric>,
    /// Whether the predictions are probabilities.
    pub(super) needs_probabilities: bool,
}

impl ClassEvaluator {
    /// Returns the most probable class of each row.
    fn predicted(&self, logits: &dyn OutputRows) -> Result<Vec<usize>> {
        let mut predicted = vec![0; self.rows.len()];
        logits.show(&mut |places, logits| {
            for (place, class) in places.iter().zip(predictions(logits)) {
                predicted[*place] = class;
            }
        })?;
        Ok(predicted)
    }

    /// Returns all metrics, with probabilities at temperature 1.
    fn measured(&self, logits: &dyn OutputRows) -> Result<ClassificationMetrics> {
        let mut scorer = ClassScorer::new(self.labels.clone(), self.n_classes, None);
        logits.show(&mut |places, logits| scorer.add(places, softmax_rows(logits, 1.0).view()))?;
        if self.followed.contains(&Metric::RocAuc) && scorer.wants_ranks() {
            logits.show(&mut |_, logits| scorer.rank(softmax_rows(logits, 1.0).view()))?;
        }
        Ok(scorer.finish())
    }
}

impl Evaluator for ClassEvaluator {
    fn scores(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Vec<(Metric, f64)> {
        let scores = self.scores_of(&logits, head);
        scores.expect("outputs in memory are shown without an error")
    }

    fn scores_of(&self, logits: &dyn OutputRows, _: &OutputHead) -> Result<Vec<(Metric, f64)>> {
        let counts = ClassCounts::new(&self.labels, &self.predicted(logits)?, self.n_classes);
        let known = [Metric::Accuracy, Metric::MacroF1];
        let mut scores =
            Scores::new(known, [counts.accuracy(), counts.macro_f1()], [None; 2]).values(&known);
        let others = self.followed.iter().copied();
        let others: Vec<Metric> =
            others.filter(|metric| *metric != Metric::Loss && !known.contains(metric)).collect();
        if !others.is_empty() {
            scores.extend(self.measured(logits)?.scores.values(&others));
        }
        Ok(scores)
    }
}

impl PredictionEvaluator for ClassEvaluator {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn predictions(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Predictions {
        let predictions = self.predictions_of(&logits, head);
        predictions.expect("outputs in memory are shown without an error")
    }

    fn predictions_of(&self, logits: &dyn OutputRows, head: &OutputHead) -> Result<Predictions> {
        self.tuned_predictions(logits, head, &Calibration::default())
    }

    fn is_tuned(&self) -> bool {
        self.needs_probabilities
    }

    fn tuned_predictions(
        &self,
        logits: &dyn OutputRows,
        _: &OutputHead,
        calibration: &Calibration,
    ) -> Result<Predictions> {
        if self.needs_probabilities {
            let logits = gathered(logits)?;
            let temperature = calibration.temperature.unwrap_or(1.0);
            let probabilities = softmax_rows(logits.view(), temperature);
            return Ok(Predictions::Probabilities(probabilities.into_raw_vec_and_offset().0));
        }
        let classes = self.predicted(logits)?.into_iter();
        Ok(Predictions::Classes(classes.map(|class| class as u32).collect()))
    }

    fn is_calibrated(&self) -> bool {
        true
    }

    fn calibration(&self, logits: &dyn OutputRows) -> Result<Calibration> {
        Ok(Calibration {
            temperature: Some(fit_temperature(&self.labels, logits)?),
            ..Calibration::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{
        head::network::{Network, NetworkSpec},
        metrics::outputs::Chained,
    };

    #[test]
    fn classes_are_judged_alike_by_outputs_in_memory_and_by_those_that_come_a_few_at_a_time() {
        let (n_rows, n_classes) = (60, 7);
        let followed = vec![Metric::RocAuc, Metric::LogLoss, Metric::Mcc];
        let evaluator = ClassEvaluator {
            rows: (0..n_rows as u32).collect(),
            labels: (0..n_rows).map(|row| row * 5 % n_classes).collect(),
            n_classes,
            followed,
            needs_probabilities: false,
        };
        let head = OutputHead {
            number: 0,
            network: Network::new(NetworkSpec::linear(1, n_classes)),
            parameters: vec![0.0; 2 * n_classes],
        };
        let logit = |(row, class): (usize, usize)| ((row * 3 + class * 11) as f32).sin();
        let logits = Array2::from_shape_fn((n_rows, n_classes), logit);
        let (first, rest) = logits.view().split_at(ndarray::Axis(0), 23);
        let parts = Chained(vec![first, rest]);
        let scores = evaluator.scores_of(&parts, &head).unwrap();
        assert_eq!(scores, evaluator.scores(logits.view(), &head));
        let names: Vec<&str> = scores.iter().map(|(metric, _)| metric.name()).collect();
        assert_eq!(names, ["accuracy", "macro_f1", "roc_auc", "log_loss", "mcc"]);
        let predictions = evaluator.predictions_of(&parts, &head).unwrap();
        assert_eq!(predictions, evaluator.predictions(logits.view(), &head));
        assert_eq!(
            evaluator.calibration(&parts).unwrap(),
            evaluator.calibration(&logits.view()).unwrap()
        );
    }
}
