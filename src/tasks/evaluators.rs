//! The evaluators of documents: metrics and predictions of outputs on the validation rows.

use ndarray::{Array2, ArrayView2};

use crate::{
    error::Result,
    head::{bank::Evaluator, outputs::OutputHead},
    metrics::{
        ClassificationMetrics,
        calibration::{sigmoid_rows, softmax_rows},
        counts::ClassCounts,
        metric::Metric,
        multilabel,
        outputs::{OutputRows, gathered},
        probability::predictions,
        regression,
        scorer::ClassScorer,
        scores::Scores,
    },
    tasks::{
        measure::fit_temperature,
        predictions::{Calibration, PredictionEvaluator, Predictions},
    },
};

/// Evaluates classes: the validation rows and their classes, how many there are, and the metrics that early stopping follows.
pub(super) struct ClassEvaluator {
    pub(super) rows: Vec<u32>,
    pub(super) labels: Vec<usize>,
    pub(super) n_classes: usize,
    pub(super) followed: Vec<Metric>,
    /// Whether the predictions are probabilities.
    pub(super) needs_probabilities: bool,
}

impl ClassEvaluator {
    /// The most probable class of each row.
    fn predicted(&self, logits: &dyn OutputRows) -> Result<Vec<usize>> {
        let mut predicted = vec![0; self.rows.len()];
        logits.show(&mut |places, logits| {
            for (place, class) in places.iter().zip(predictions(logits)) {
                predicted[*place] = class;
            }
        })?;
        Ok(predicted)
    }

    /// All metrics of probabilities at temperature 1.
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

    fn predictions_of(&self, logits: &dyn OutputRows, _: &OutputHead) -> Result<Predictions> {
        if self.needs_probabilities {
            let logits = gathered(logits)?;
            let probabilities = softmax_rows(logits.view(), 1.0);
            return Ok(Predictions::Probabilities(probabilities.into_raw_vec_and_offset().0));
        }
        let classes = self.predicted(logits)?.into_iter();
        Ok(Predictions::Classes(classes.map(|class| class as u32).collect()))
    }

    fn calibration(&self, logits: &dyn OutputRows) -> Result<Calibration> {
        Ok(Calibration {
            temperature: Some(fit_temperature(&self.labels, logits)?),
            ..Calibration::default()
        })
    }
}

/// Evaluates labels that are set or not, at thresholds of one half.
pub(super) struct LabelSetEvaluator {
    pub(super) rows: Vec<u32>,
    pub(super) labels: Array2<bool>,
    /// Whether the predictions are probabilities.
    pub(super) needs_probabilities: bool,
}

impl Evaluator for LabelSetEvaluator {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(Metric, f64)> {
        let thresholds = vec![0.5; logits.ncols()];
        let probabilities = sigmoid_rows(logits);
        let metrics =
            multilabel::evaluate(self.labels.view(), probabilities.view(), &thresholds, None);
        metrics.scores.values(&[
            Metric::MicroF1,
            Metric::MacroF1,
            Metric::Accuracy,
            Metric::WeightedF1,
            Metric::RocAuc,
            Metric::LogLoss,
            Metric::Brier,
            Metric::Ece,
        ])
    }
}

impl PredictionEvaluator for LabelSetEvaluator {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn predictions(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Predictions {
        if self.needs_probabilities {
            return Predictions::Probabilities(sigmoid_rows(logits).into_raw_vec_and_offset().0);
        }
        let set = logits.rows().into_iter().map(|row| {
            let labels = (0..).zip(row).filter(|(_, logit)| **logit >= 0.0);
            labels.map(|(label, _)| label).collect()
        });
        Predictions::Labels(set.collect())
    }

    fn calibration(&self, logits: &dyn OutputRows) -> Result<Calibration> {
        let probabilities = sigmoid_rows(gathered(logits)?.view());
        let thresholds = multilabel::tune_thresholds(self.labels.view(), probabilities.view());
        Ok(Calibration { thresholds: Some(thresholds), ..Calibration::default() })
    }
}

/// Evaluates numbers, scaled back by mean and deviation.
pub(super) struct ValueEvaluator {
    pub(super) rows: Vec<u32>,
    pub(super) values: Vec<f64>,
    pub(super) scale: [f64; 2],
}

impl ValueEvaluator {
    fn predicted(&self, logits: ArrayView2<'_, f32>) -> Vec<f64> {
        let [mean, deviation] = self.scale;
        let scaled = |value: &f32| f64::from(*value) * deviation + mean;
        logits.column(0).iter().map(scaled).collect()
    }
}

impl PredictionEvaluator for ValueEvaluator {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn predictions(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Predictions {
        Predictions::Values(self.predicted(logits))
    }
}

impl Evaluator for ValueEvaluator {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(Metric, f64)> {
        let metrics = regression::evaluate(&self.values, &self.predicted(logits), None);
        metrics.scores.values(&Metric::OF_NUMBERS)
    }
}

#[cfg(test)]
mod tests {
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
