//! The pictures of a run: the course of its training, what is taken for what, and what its probabilities are worth.

use std::path::Path;

use frostbert_cache::durable::write_file;

use crate::{
    config::settings::Pipeline,
    data::dataset::Dataset,
    error::Result,
    head::trained_head::EpochRecord,
    metrics::{metric::Metric, probability_curves::ProbabilityCurves},
    report::plots::{
        confusion::{CellCount, confusion},
        history::history,
        precision_recall::precision_recall,
        reliability::reliability,
        roc::roc,
    },
    tasks::{
        TaskMetrics,
        measure::{RunMetrics, measured_parts},
        own_metric,
    },
};

/// Losses and the followed metric by epoch.
const HISTORY_PLOT: &str = "history.svg";

/// The confusion matrix, or the commonest confusions.
const CONFUSION_PLOT: &str = "confusion.svg";

/// Frequencies against probabilities.
const RELIABILITY_PLOT: &str = "reliability.svg";

/// Precision against recall.
const PRECISION_RECALL_PLOT: &str = "precision_recall.svg";

/// True against false positives, of two classes.
const ROC_PLOT: &str = "roc.svg";

/// What is drawn of a run.
pub(super) struct Pictures<'a> {
    pub(super) history: &'a [EpochRecord],
    /// See [`followed`].
    pub(super) followed: Metric,
    pub(super) metrics: &'a RunMetrics,
    pub(super) curves: &'a ProbabilityCurves,
    /// The labels, by id.
    pub(super) labels: &'a [String],
}

/// The metric that early stopping follows; the task's own where it follows the loss, or there is none.
pub(super) fn followed(pipeline: &Pipeline, dataset: &Dataset) -> Metric {
    let own = own_metric(pipeline.data.task, dataset.labels.names());
    let stopping = pipeline.head.kind.steps().and_then(|steps| steps.stopping(own));
    let metric = stopping.map(|stopping| stopping.metric);
    metric.filter(|metric| *metric != Metric::Loss).unwrap_or(own)
}

/// The part that is drawn and told of: test, or validation where there is no test.
pub(super) fn told_part(metrics: &RunMetrics) -> Option<(&'static str, &TaskMetrics)> {
    measured_parts(metrics).filter(|(part, _)| *part != "train").last()
}

impl Pictures<'_> {
    /// Writes a picture of everything that a run of its task has.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write(&self, run: &Path) -> Result<()> {
        let write = |name: &str, svg: &str| -> Result<()> {
            Ok(write_file(&run.join(name), svg.as_bytes())?)
        };
        // A head that is fitted in full batch has no epochs to tell of.
        if !self.history.is_empty() {
            let svg = history(self.history, self.metrics.best_epoch, self.followed);
            write(HISTORY_PLOT, &svg)?;
        }
        let Some((part, metrics)) = told_part(self.metrics) else {
            return Ok(());
        };
        let (cells, unit) = cells(metrics);
        if let Some(svg) = confusion(self.labels, &cells, part, unit) {
            write(CONFUSION_PLOT, &svg)?;
        }
        let ProbabilityCurves { reliability: bins, precision_recall: curves, roc: of_two } =
            self.curves;
        if !bins.is_empty() {
            let ece = metrics.scores().value(Metric::Ece);
            write(RELIABILITY_PLOT, &reliability(bins, ece, part))?;
        }
        if !curves.is_empty() {
            write(PRECISION_RECALL_PLOT, &precision_recall(curves, self.labels, part))?;
        }
        if let Some(curve) = of_two {
            write(ROC_PLOT, &roc(curve, self.labels, part))?;
        }
        Ok(())
    }
}

/// The cells of a part's confusion matrix that are not 0, and what they count.
fn cells(metrics: &TaskMetrics) -> (Vec<CellCount>, &'static str) {
    let (matrix, cells, unit) = match metrics {
        TaskMetrics::Classification(metrics) => {
            (&metrics.confusion, &metrics.confusion_cells, "rows")
        }
        TaskMetrics::Tokens(metrics) => (&metrics.confusion, &metrics.confusion_cells, "words"),
        _ => return (Vec::new(), "rows"),
    };
    let of_matrix = matrix.iter().enumerate().flat_map(|(truth, row)| {
        row.iter().enumerate().map(move |(predicted, count)| (truth, predicted, *count))
    });
    let of_cells = cells.iter().map(|cell| (cell.truth, cell.predicted, cell.rows));
    (of_matrix.chain(of_cells).filter(|(.., count)| *count > 0).collect(), unit)
}
