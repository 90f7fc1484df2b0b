//! What probabilities of each row say of the metrics that depend on them.

use ndarray::ArrayView2;

use crate::metrics::{
    decisions::{DecisionLosses, label_rankings},
    probability::RowLosses,
    ranking::{ClassRanking, class_rankings, mean_auc},
};

/// The metrics that depend on probabilities, not on what was predicted alone.
pub const OF_PROBABILITIES: [&str; 4] = ["roc_auc", "log_loss", "brier", "ece"];

/// Probabilities of rows, as what one of these metrics needs of them.
pub(super) struct ProbabilityStatistics {
    pub(super) n_rows: usize,
    needs: Needs,
}

enum Needs {
    Classes(RowLosses),
    Labels(DecisionLosses),
    Order(Vec<ClassRanking>),
    /// A probability is not finite.
    Nothing,
}

impl ProbabilityStatistics {
    pub(super) fn of_classes(metric: &str, gold: &[u32], probabilities: ArrayView2<f32>) -> Self {
        let labels: Vec<usize> = gold.iter().map(|&class| class as usize).collect();
        let needs = match metric {
            "roc_auc" => Needs::Order(class_rankings(&labels, &probabilities).collect()),
            _ => RowLosses::new(&labels, probabilities).map_or(Needs::Nothing, Needs::Classes),
        };
        Self { n_rows: labels.len(), needs }
    }

    pub(super) fn of_labels(
        metric: &str,
        gold: ArrayView2<bool>,
        probabilities: ArrayView2<f32>,
    ) -> Self {
        let needs = match metric {
            "roc_auc" => Needs::Order(label_rankings(gold, probabilities)),
            _ => DecisionLosses::new(gold, probabilities).map_or(Needs::Nothing, Needs::Labels),
        };
        Self { n_rows: gold.nrows(), needs }
    }

    pub(super) fn metrics(&self) -> Vec<&'static str> {
        match &self.needs {
            Needs::Order(_) => vec!["roc_auc"],
            Needs::Classes(_) | Needs::Labels(_) => vec!["log_loss", "brier", "ece"],
            Needs::Nothing => Vec::new(),
        }
    }

    pub(super) fn score(&self, metric: &str, weights: &[u32]) -> Option<f64> {
        match (&self.needs, metric) {
            (Needs::Order(rankings), "roc_auc") => mean_auc(rankings, weights),
            (Needs::Classes(losses), "log_loss") => losses.log_loss(weights),
            (Needs::Classes(losses), "brier") => losses.brier(weights),
            (Needs::Classes(losses), "ece") => losses.ece(weights),
            (Needs::Labels(losses), "log_loss") => losses.log_loss(weights),
            (Needs::Labels(losses), "brier") => losses.brier(weights),
            (Needs::Labels(losses), "ece") => losses.ece(weights),
            _ => None,
        }
    }
}
