//! What outputs of documents on the validation rows are worth, epoch by epoch.

use ndarray::{Array2, ArrayView2};

use crate::{
    head::{bank::Judge, spec::StoppingMetric},
    metrics::{
        calibration::{sigmoid_rows, softmax_rows},
        classification,
        counts::ClassCounts,
        multilabel,
        probability::predictions,
        regression,
    },
};

/// Judges classes: those of the validation rows, how many there are, and the metric that early stopping follows.
pub(super) struct ClassJudge {
    pub(super) labels: Vec<usize>,
    pub(super) n_classes: usize,
    pub(super) followed: StoppingMetric,
}

impl Judge for ClassJudge {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &[f32]) -> Vec<(&'static str, f64)> {
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
        if !known.contains(&self.followed) {
            let probabilities = softmax_rows(logits, 1.0);
            let all =
                classification::evaluate(&self.labels, probabilities.view(), self.n_classes, None);
            let value = match self.followed {
                StoppingMetric::MicroF1 => all.micro_f1,
                StoppingMetric::WeightedF1 => all.weighted_f1,
                StoppingMetric::Mcc => all.mcc,
                StoppingMetric::RocAuc => all.roc_auc,
                StoppingMetric::LogLoss => all.log_loss,
                StoppingMetric::Brier => all.brier,
                _ => all.ece,
            };
            scores.push((self.followed.name(), value));
        }
        defined(scores)
    }
}

/// Judges labels that are set or not, at thresholds of one half.
pub(super) struct LabelJudge {
    pub(super) labels: Array2<bool>,
}

impl Judge for LabelJudge {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &[f32]) -> Vec<(&'static str, f64)> {
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

/// Judges numbers, scaled back by mean and deviation.
pub(super) struct ValueJudge {
    pub(super) values: Vec<f64>,
    pub(super) scale: [f64; 2],
}

impl Judge for ValueJudge {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &[f32]) -> Vec<(&'static str, f64)> {
        let [mean, deviation] = self.scale;
        let predicted = logits
            .column(0)
            .mapv(|value| f64::from(value) * deviation + mean);
        let metrics = regression::evaluate(&self.values, &predicted.to_vec(), None);
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
