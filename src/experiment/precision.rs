//! Compares the precisions of the encoder with f32: the states, the speed, and the metric of the pipeline's own head.

mod heads;
mod states;

use std::path::PathBuf;

use frostbert_cache::{progress::Progress, reader::CacheReader};
use serde::Serialize;
pub use states::LayerError;

use crate::{
    config::settings::Pipeline,
    encoder::device::{self, Precision},
    error::{Error, Result},
    experiment::precision::{
        heads::{ComparedHead, evaluator},
        states::{Measured, Sample, measure},
    },
    extraction::{extract::extract_with, machine::Machine},
    metrics::metric::Metric,
    sweep::checked_dataset,
};

/// All precisions. The others are compared with f32, which is first.
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

/// A comparison of the encoder's precisions.
#[derive(Clone, Debug, Serialize)]
pub struct PrecisionReport {
    /// The number of texts whose states were compared.
    pub documents: usize,
    /// The number of their tokens, without padding.
    pub tokens: u64,
    /// The number of rows that heads predicted without being trained on them; `None` if there is no head to train.
    pub rows: Option<usize>,
    /// The precisions f32, f16 and int8.
    pub precisions: Vec<PrecisionRow>,
}

/// The results for one precision. If the machine cannot run it, there is a reason and there are no results.
#[derive(Clone, Debug, Serialize)]
pub struct PrecisionRow {
    /// `f32`, `f16` or `int8`.
    pub precision: &'static str,
    /// The device that it ran on.
    pub device: Option<String>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The error of the states of each layer relative to f32; empty for f32.
    pub layers: Vec<LayerError>,
    /// Tokens per second on the sample, without padding, with all layers computed by a single session, which has one
    /// thread on a CPU.
    pub tokens_per_second: Option<f64>,
    /// The metric of the head.
    pub metric: Option<Metric>,
    /// The value of the metric on rows that the head was not trained on.
    pub value: Option<f64>,
    /// The difference from the value for f32.
    pub difference: Option<f64>,
    /// The confidence interval of the difference, from a paired bootstrap over the rows.
    pub difference_ci: Option<[f64; 2]>,
    /// The cache with the states for the head.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown_if_any")]
    pub cache: Option<PathBuf>,
}

impl PrecisionRow {
    fn new(precision: Precision) -> PrecisionRow {
        PrecisionRow {
            precision: precision.name(),
            device: None,
            reason: None,
            layers: Vec::new(),
            tokens_per_second: None,
            metric: None,
            value: None,
            difference: None,
            difference_ci: None,
            cache: None,
        }
    }
}

/// Runs the encoder in every precision that this machine supports, first on a sample of the pipeline's texts and then
/// on all of them, and trains the pipeline's head on the states of each precision.
///
/// The sample has `documents` texts, chosen by the pipeline's seed. Heads are trained in 5 folds of the training and
/// validation rows, and evaluated by `sweep.select` or by the task's own metric. Warns if a head is significantly worse
/// than that of f32.
///
/// # Errors
/// Returns the errors of [`Experiment::run`](crate::Experiment::run), and an error for a model.onnx, which has only one
/// precision.
pub fn report(
    pipeline: &Pipeline,
    documents: usize,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<PrecisionReport> {
    let dataset = checked_dataset(pipeline, progress)?;
    let checkpoint = pipeline.extraction.checkpoint()?;
    pipeline.check_length(&checkpoint)?;
    let mut rows: Vec<PrecisionRow> = PRECISIONS.map(PrecisionRow::new).to_vec();
    let mut runnable: Vec<(usize, Pipeline)> = Vec::new();
    let mut encoders = Vec::new();
    progress.start("loading the model", None, "");
    for precision in PRECISIONS {
        checkpoint.check_precision(precision)?;
    }
    for (number, precision) in PRECISIONS.into_iter().enumerate() {
        let own = pipeline.with_precision(precision)?;
        let checked = device::check(&own.extraction.device, precision, &machine.onnxruntime);
        match checked.and_then(|()| states::open(&own, &checkpoint, machine)) {
            Ok(encoder) => {
                encoders.push(encoder);
                runnable.push((number, own));
            }
            Err(Error::Device { reason, .. }) if precision != Precision::F32 => {
                rows[number].reason = Some(reason);
            }
            Err(error) => return Err(error),
        }
    }

    progress.finish();
    let sample = Sample::of(pipeline, &checkpoint, documents)?;
    let pipelines: Vec<&Pipeline> = runnable.iter().map(|(_, own)| own).collect();
    let batch_tokens = pipeline.extraction.batch_tokens;
    let measured = measure(encoders, batch_tokens, &checkpoint, &sample, progress)?;
    for ((number, _), measured) in runnable.iter().zip(measured) {
        let Measured { device, layers, tokens_per_second } = measured;
        let row = &mut rows[*number];
        row.device = Some(device);
        row.layers = layers;
        row.tokens_per_second = Some(tokens_per_second);
    }

    let mut n_rows = None;
    if pipeline.head.kind.is_cosine() {
        progress.note("a cosine is not trained: only states and speed are compared");
    } else {
        let mut caches = Vec::new();
        for (number, own) in &runnable {
            let extracted = extract_with(&checkpoint, own, machine, progress)?;
            rows[*number].cache = Some(extracted.cache.clone());
            caches.push(CacheReader::existing(&extracted.cache)?);
        }
        let heads = evaluator(&checkpoint, &pipelines, &dataset, &caches, progress)?;
        n_rows = Some(heads.n_rows);
        for ((number, _), judged) in runnable.iter().zip(heads.judged) {
            let ComparedHead { value, difference, interval, is_worse } = judged;
            let row = &mut rows[*number];
            row.metric = Some(heads.metric);
            row.value = value;
            row.difference = difference;
            row.difference_ci = interval;
            if let (true, Some(difference)) = (is_worse, difference) {
                progress.warn(&format!(
                    "{} changes the head's {} by {difference:+.4}, which is unlikely to be chance: the whole interval \
                     is on that side",
                    row.precision,
                    heads.metric.in_words(),
                ));
            }
        }
    }
    Ok(PrecisionReport {
        documents: sample.documents,
        tokens: sample.tokens(),
        rows: n_rows,
        precisions: rows,
    })
}
