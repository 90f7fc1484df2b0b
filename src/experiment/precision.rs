//! What another precision of the encoder costs and gains: states, speed, and the pipeline's own head, beside f32.

mod heads;
mod states;

use std::path::PathBuf;

use frostbert_cache::{progress::Progress, reader::CacheReader};
use serde::Serialize;
pub use states::LayerError;

use crate::{
    config::settings::Pipeline,
    encoder::{
        checkpoint::Checkpoint,
        device::{self, Precision},
    },
    error::{Error, Result},
    experiment::precision::{
        heads::{ComparedHead, evaluator},
        states::{Measured, Sample, measure},
    },
    extraction::{extract::extract_with, machine::Machine},
    metrics::metric::Metric,
    sweep::checked_dataset,
};

/// Every precision that there is, f32 first: the others are compared with it.
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

/// Each precision of the encoder beside f32.
#[derive(Clone, Debug, Serialize)]
pub struct PrecisionReport {
    /// Texts whose states were compared.
    pub documents: usize,
    /// Their real tokens.
    pub tokens: u64,
    /// Rows that heads predicted without having learned from them; none where there is no head to train.
    pub rows: Option<usize>,
    /// f32, f16, int8.
    pub precisions: Vec<PrecisionRow>,
}

/// One precision. What a machine cannot run has a reason and no numbers.
#[derive(Clone, Debug, Serialize)]
pub struct PrecisionRow {
    /// `f32`, `f16` or `int8`.
    pub precision: &'static str,
    /// Where it ran.
    pub device: Option<String>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How far the states of each layer are from those of f32; empty for f32.
    pub layers: Vec<LayerError>,
    /// Real tokens of the sample in a second, all layers computed, by one session: on a CPU on one thread.
    pub tokens_per_second: Option<f64>,
    /// What the head is measured by.
    pub metric: Option<Metric>,
    /// The metric on rows that the head did not learn from.
    pub value: Option<f64>,
    /// How much it differs from that of f32.
    pub difference: Option<f64>,
    /// The interval of the difference, from paired draws of the rows.
    pub difference_ci: Option<[f64; 2]>,
    /// Where the states for the head are.
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

/// Runs the encoder in every precision that this machine can, on a sample of the pipeline's texts and then on all of them,
/// and trains the pipeline's head on the states of each.
///
/// The sample is `documents` texts, chosen by the pipeline's seed. Heads are trained on 5 folds of train and validation, and
/// measured by `sweep.select` or the task's own metric. Warns where a head is worse than that of f32 by more than luck.
///
/// # Errors
/// As [`Experiment::run`](crate::Experiment::run); where model.onnx is run, which has one precision.
pub fn report(
    pipeline: &Pipeline,
    documents: usize,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<PrecisionReport> {
    let dataset = checked_dataset(pipeline, progress)?;
    let checkpoint = Checkpoint::open(&pipeline.extraction.model)?;
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
