//! Multi-label classification: any number of labels for each text or pair.

mod kind;

use frostbert_cache::wording::quoted;
use ndarray::{Array2, ArrayView2};

pub(super) use self::kind::LabelSetKind;
use crate::{
    config::settings::Pipeline,
    data::{Part, Record, dataset::Dataset},
    error::Result,
    features::FeatureView,
    head::{bank::Evaluator, outputs::OutputHead, saved::Head, targets::TargetTable},
    metrics::{
        baseline,
        calibration::sigmoid_rows,
        metric::Metric,
        multilabel,
        outputs::{OutputRows, gathered},
        probability_curves::ProbabilityCurves,
    },
    report::tables::Table,
    tasks::{
        MeasuredRows, PredictionTask, RowSource, TaskMetrics, TaskResult, TaskRows, documents,
        measure::{Baseline, RunMetrics},
        prediction::Prediction,
        predictions::{Calibration, PredictionEvaluator, Predictions, labels_of},
        rows_of, selects_by_probabilities,
    },
};

/// The multi-label task: the names of all labels, by id.
pub(super) struct LabelSetTask {
    pub(super) labels: Vec<String>,
}

/// The predicted labels of every row.
struct LabelSetPredictions {
    /// `[rows, labels]`.
    probabilities: Array2<f32>,
    /// For each label, the lowest probability at which it is predicted.
    thresholds: Vec<f64>,
}

/// Returns the rows of a multi-label dataset.
pub(super) fn rows<'c>(source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
    let dataset = source.dataset;
    let mut labels = Array2::zeros((dataset.rows.len(), dataset.labels.len()));
    for (row, example) in dataset.rows.iter().enumerate() {
        for label in example.target.label_ids() {
            labels[[row, *label]] = 1.0;
        }
    }
    let task = LabelSetTask { labels: dataset.labels.names().to_vec() };
    let targets = TargetTable::Labels(labels);
    documents::rows(source, Box::new(task), targets, dataset.labels.len())
}

impl LabelSetTask {
    fn decode(&self, view: &FeatureView<'_>, head: &Head) -> Result<LabelSetPredictions> {
        let given = head.description.thresholds.clone();
        Ok(LabelSetPredictions {
            probabilities: sigmoid_rows(head.logits(view)?.view()),
            thresholds: given.unwrap_or_else(|| vec![0.5; self.labels.len()]),
        })
    }
}

impl LabelSetPredictions {
    /// Returns the labels of a row whose probability reaches their threshold.
    fn of_row<'l>(&self, row: usize, labels: &'l [String]) -> Vec<&'l str> {
        let all = self.probabilities.row(row).into_iter().zip(&self.thresholds).zip(labels);
        all.filter(|((probability, threshold), _)| f64::from(**probability) >= **threshold)
            .map(|(_, label)| label.as_str())
            .collect()
    }

    fn table(&self, dataset: &Dataset) -> Table {
        let mut table = documents::text_columns(dataset);
        let gold: Vec<String> =
            dataset.rows.iter().map(|row| names(dataset, row.target.label_ids())).collect();
        table.texts("labels", gold.iter().map(String::as_str));
        let names = dataset.labels.names();
        let predicted: Vec<Vec<&str>> =
            (0..dataset.rows.len()).map(|row| self.of_row(row, names)).collect();
        table.lists("predicted", predicted.into_iter());
        for (name, column) in names.iter().zip(self.probabilities.columns()) {
            table.floats(&format!("p_{name}"), column.iter().copied());
        }
        table
    }
}

/// Joins the names of some labels into one string.
fn names(dataset: &Dataset, ids: &[usize]) -> String {
    let names = ids.iter().filter_map(|id| dataset.labels.name(*id));
    names.collect::<Vec<_>>().join(", ")
}

impl PredictionTask for LabelSetTask {
    fn evaluator<'a>(
        &'a self,
        pipeline: &Pipeline,
        dataset: &'a Dataset,
        samples: &[u32],
        _: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a> {
        Box::new(LabelSetEvaluator {
            rows: samples.to_vec(),
            labels: labels_of(dataset, samples),
            needs_probabilities: selects_by_probabilities(pipeline),
        })
    }

    fn calibrate(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<Calibration> {
        documents::calibrate(self, rows, head)
    }

    fn measure(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<TaskResult> {
        let dataset = rows.dataset;
        let predicted = self.decode(&rows.rows.view, head)?;
        let parts = rows.parts(|samples, bootstrap| {
            let metrics = multilabel::evaluate(
                labels_of(dataset, samples).view(),
                rows_of(predicted.probabilities.view(), samples).view(),
                &predicted.thresholds,
                bootstrap,
            );
            TaskMetrics::Multilabel(metrics.with_names(&self.labels))
        });
        let majority = baseline::majority_labels(
            labels_of(dataset, rows.rows.part(Part::Train)).view(),
            labels_of(dataset, rows.rows.part(Part::Test)).view(),
        );
        let drawn = rows.drawn();
        let curves = ProbabilityCurves::of_label_sets(
            labels_of(dataset, &drawn).view(),
            rows_of(predicted.probabilities.view(), &drawn).view(),
        );
        Ok(TaskResult {
            metrics: RunMetrics::of_parts(
                parts,
                majority.map(|majority| {
                    let labels = names(dataset, &majority.labels);
                    Baseline::new(format!("always {}", quoted(&labels)), &majority)
                }),
            ),
            predictions: predicted.table(dataset),
            curves,
        })
    }

    fn predict(
        &self,
        records: &[Record],
        view: &FeatureView<'_>,
        head: &Head,
    ) -> Result<Vec<Prediction>> {
        let predicted = self.decode(view, head)?;
        let rows = records.iter().enumerate().map(|(row, record)| {
            let labels = predicted.of_row(row, &self.labels).into_iter();
            let probabilities = predicted.probabilities.row(row);
            Prediction::Labels {
                text: record.text.clone(),
                text_pair: record.text_pair.clone(),
                labels: labels.map(String::from).collect(),
                probabilities: self.labels.iter().cloned().zip(probabilities.to_vec()).collect(),
            }
        });
        Ok(rows.collect())
    }
}

/// The evaluator of label sets, at thresholds of one half.
struct LabelSetEvaluator {
    rows: Vec<u32>,
    labels: Array2<bool>,
    /// Whether the predictions are probabilities.
    needs_probabilities: bool,
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
            Metric::SamplesF1,
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

    /// Probabilities have no thresholds.
    fn is_tuned(&self) -> bool {
        !self.needs_probabilities
    }

    fn tuned(&self, logits: ArrayView2<'_, f32>, calibration: &Calibration) -> Option<Predictions> {
        let thresholds = calibration.thresholds.as_ref()?;
        let probabilities = sigmoid_rows(logits);
        let set = probabilities.rows().into_iter().map(|row| {
            let labels = (0..).zip(row).zip(thresholds);
            let labels = labels.filter(|((_, p), threshold)| f64::from(**p) >= **threshold);
            labels.map(|((label, _), _)| label).collect()
        });
        Some(Predictions::Labels(set.collect()))
    }

    fn is_calibrated(&self) -> bool {
        true
    }

    fn calibration(&self, logits: &dyn OutputRows) -> Result<Calibration> {
        let probabilities = sigmoid_rows(gathered(logits)?.view());
        let thresholds = multilabel::tune_thresholds(self.labels.view(), probabilities.view());
        Ok(Calibration { thresholds: Some(thresholds), ..Calibration::default() })
    }
}
