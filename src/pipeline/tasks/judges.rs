//! What outputs of documents on the validation rows are worth, epoch by epoch.

use ndarray::{Array2, ArrayView2};

use super::said::{Listener, Said, Tuned};
use crate::{
    head::{bank::Judge, outputs::OutputHead, spec::StoppingMetric},
    metrics::{
        calibration::{sigmoid_rows, softmax_rows},
        classification,
        counts::ClassCounts,
        multilabel,
        probability::predictions,
        regression,
    },
    pipeline::measure::fit_temperature,
};

/// Judges classes: the validation rows and their classes, how many there are, and the metrics that early stopping follows.
pub(super) struct ClassJudge {
    pub(super) rows: Vec<u32>,
    pub(super) labels: Vec<usize>,
    pub(super) n_classes: usize,
    pub(super) followed: Vec<StoppingMetric>,
    /// Whether what heads say is their probabilities.
    pub(super) hears_probabilities: bool,
}

impl Judge for ClassJudge {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(&'static str, f64)> {
        let counts = ClassCounts::new(&self.labels, &predictions(logits), self.n_classes);
        let mut scores = vec![
            ("accuracy", counts.accuracy()),
            ("macro_f1", counts.macro_f1()),
        ];
        let known = [
            StoppingMetric::Loss,
            StoppingMetric::Accuracy,
            StoppingMetric::MacroF1,
        ];
        let others = self
            .followed
            .iter()
            .filter(|metric| !known.contains(metric));
        for followed in others {
            let probabilities = softmax_rows(logits, 1.0);
            let all =
                classification::evaluate(&self.labels, probabilities.view(), self.n_classes, None);
            let value = match followed {
                StoppingMetric::MicroF1 => all.micro_f1,
                StoppingMetric::WeightedF1 => all.weighted_f1,
                StoppingMetric::Mcc => all.mcc,
                StoppingMetric::RocAuc => all.roc_auc,
                StoppingMetric::LogLoss => all.log_loss,
                StoppingMetric::Brier => all.brier,
                _ => all.ece,
            };
            scores.push((followed.name(), value));
        }
        defined(scores)
    }
}

impl Listener for ClassJudge {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn said(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Said {
        if self.hears_probabilities {
            return Said::Probabilities(softmax_rows(logits, 1.0).into_raw_vec_and_offset().0);
        }
        let classes = predictions(logits).into_iter();
        Said::Classes(classes.map(|class| class as u32).collect())
    }

    fn tuned(&self, logits: ArrayView2<'_, f32>) -> Tuned {
        Tuned {
            temperature: Some(fit_temperature(&self.labels, logits)),
            ..Tuned::default()
        }
    }
}

/// Judges labels that are set or not, at thresholds of one half.
pub(super) struct LabelJudge {
    pub(super) rows: Vec<u32>,
    pub(super) labels: Array2<bool>,
    /// Whether what heads say is their probabilities.
    pub(super) hears_probabilities: bool,
}

impl Judge for LabelJudge {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(&'static str, f64)> {
        let thresholds = vec![0.5; logits.ncols()];
        let probabilities = sigmoid_rows(logits);
        let metrics =
            multilabel::evaluate(self.labels.view(), probabilities.view(), &thresholds, None);
        defined(vec![
            ("micro_f1", metrics.micro_f1),
            ("macro_f1", metrics.macro_f1),
            ("accuracy", metrics.accuracy),
            ("weighted_f1", metrics.weighted_f1),
            ("roc_auc", metrics.roc_auc),
            ("log_loss", metrics.log_loss),
            ("brier", metrics.brier),
            ("ece", metrics.ece),
        ])
    }
}

impl Listener for LabelJudge {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn said(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Said {
        if self.hears_probabilities {
            return Said::Probabilities(sigmoid_rows(logits).into_raw_vec_and_offset().0);
        }
        let set = logits.rows().into_iter().map(|row| {
            let labels = (0..).zip(row).filter(|(_, logit)| **logit >= 0.0);
            labels.map(|(label, _)| label).collect()
        });
        Said::Labels(set.collect())
    }

    fn tuned(&self, logits: ArrayView2<'_, f32>) -> Tuned {
        let probabilities = sigmoid_rows(logits);
        let thresholds = multilabel::tune_thresholds(self.labels.view(), probabilities.view());
        Tuned {
            thresholds: Some(thresholds),
            ..Tuned::default()
        }
    }
}

/// Judges numbers, scaled back by mean and deviation.
pub(super) struct ValueJudge {
    pub(super) rows: Vec<u32>,
    pub(super) values: Vec<f64>,
    pub(super) scale: [f64; 2],
}

impl ValueJudge {
    fn predicted(&self, logits: ArrayView2<'_, f32>) -> Vec<f64> {
        let [mean, deviation] = self.scale;
        let scaled = |value: &f32| f64::from(*value) * deviation + mean;
        logits.column(0).iter().map(scaled).collect()
    }
}

impl Listener for ValueJudge {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn said(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Said {
        Said::Values(self.predicted(logits))
    }
}

impl Judge for ValueJudge {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(&'static str, f64)> {
        let metrics = regression::evaluate(&self.values, &self.predicted(logits), None);
        defined(vec![
            ("spearman", metrics.spearman),
            ("pearson", metrics.pearson),
            ("mse", metrics.mse),
            ("mae", metrics.mae),
        ])
    }
}

/// The scores that have a value.
pub(super) fn defined(scores: Vec<(&'static str, Option<f64>)>) -> Vec<(&'static str, f64)> {
    let defined = scores.into_iter();
    defined
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}
