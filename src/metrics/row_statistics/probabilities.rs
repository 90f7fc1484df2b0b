//! The row statistics for metrics that need probabilities.

use ndarray::ArrayView2;

use crate::metrics::{
    decisions::{DecisionLosses, label_rankings},
    metric::Metric,
    probability::RowLosses,
    ranking::{ClassRanking, class_rankings, mean_auc},
};

/// The probabilities of rows, reduced to what one of these metrics needs.
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
    pub(super) fn of_classes(metric: Metric, gold: &[u32], probabilities: ArrayView2<f32>) -> Self {
        let labels: Vec<usize> = gold.iter().map(|&class| class as usize).collect();
        let needs = match metric {
            Metric::RocAuc => Needs::Order(class_rankings(&labels, &probabilities).collect()),
            _ => RowLosses::new(&labels, probabilities).map_or(Needs::Nothing, Needs::Classes),
        };
        Self { n_rows: labels.len(), needs }
    }

    pub(super) fn of_labels(
        metric: Metric,
        gold: ArrayView2<bool>,
        probabilities: ArrayView2<f32>,
    ) -> Self {
        let needs = match metric {
            Metric::RocAuc => Needs::Order(label_rankings(gold, probabilities)),
            _ => DecisionLosses::new(gold, probabilities).map_or(Needs::Nothing, Needs::Labels),
        };
        Self { n_rows: gold.nrows(), needs }
    }

    pub(super) fn metrics(&self) -> Vec<Metric> {
        match &self.needs {
            Needs::Order(_) => vec![Metric::RocAuc],
            Needs::Classes(_) | Needs::Labels(_) => {
                vec![Metric::LogLoss, Metric::Brier, Metric::Ece]
            }
            Needs::Nothing => Vec::new(),
        }
    }

    pub(super) fn score(&self, metric: Metric, weights: &[u32]) -> Option<f64> {
        match (&self.needs, metric) {
            (Needs::Order(rankings), Metric::RocAuc) => mean_auc(rankings, weights),
            (Needs::Classes(losses), Metric::LogLoss) => losses.log_loss(weights),
            (Needs::Classes(losses), Metric::Brier) => losses.brier(weights),
            (Needs::Classes(losses), Metric::Ece) => losses.ece(weights),
            (Needs::Labels(losses), Metric::LogLoss) => losses.log_loss(weights),
            (Needs::Labels(losses), Metric::Brier) => losses.brier(weights),
            (Needs::Labels(losses), Metric::Ece) => losses.ece(weights),
            _ => None,
        }
    }
}
