//! Compares the states of a sample of texts in several precisions, and the speed of computing them.

use std::{collections::BTreeMap, time::Instant};

use frostbert_cache::progress::Progress;
use serde::Serialize;

use crate::{
    config::settings::Pipeline,
    data::dataset::read_all,
    encoder::{
        Encoder, EncoderSettings, Worker, checkpoint::Checkpoint, device::Devices,
        layer_states::LayerStates, plan::plan_batches, proof::cosine, runtime::Runtime,
        session::TokenBatch,
    },
    error::Result,
    extraction::machine::Machine,
};

/// The number of timed passes over the sample, alternating between precisions; the fastest of each is reported.
const ROUNDS: usize = 3;

/// The error of the states of a layer relative to f32, over the tokens of a sample without padding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerError {
    /// The absolute layer; 0 is the embedding output.
    pub layer: usize,
    /// The mean over tokens of the cosine similarity of a token's two states.
    pub mean_cosine: f64,
    /// The lowest of these similarities.
    pub least_cosine: f64,
    /// The largest absolute difference between two values.
    pub max_error: f64,
}

/// A sample of a pipeline's texts as the model reads them.
pub(super) struct Sample {
    pub(super) documents: usize,
    /// The token ids and token types of each window.
    windows: Vec<(Vec<u32>, Vec<u8>)>,
}

impl Sample {
    /// Chooses the documents whose keys have the lowest hashes with the pipeline's seed. The choice does not depend on
    /// the order of the documents in the files.
    pub(super) fn of(pipeline: &Pipeline, checkpoint: &Checkpoint, most: usize) -> Result<Sample> {
        let settings = &pipeline.extraction;
        let tokenizer = settings.tokenizer(checkpoint)?;
        let mut chosen = BTreeMap::new();
        for example in read_all(&settings.sources) {
            let example = example?;
            if settings.leaves_out(&example) {
                continue;
            }
            for (part, input) in settings.documents(&example).enumerate() {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&pipeline.seed.to_le_bytes());
                hasher.update(&input.key().0);
                chosen.insert(*hasher.finalize().as_bytes(), (example.clone(), part));
            }
            while chosen.len() > most {
                chosen.pop_last();
            }
        }
        let mut windows = Vec::new();
        for (example, part) in chosen.values() {
            let inputs = settings.documents(example).skip(*part);
            let inputs: Vec<_> = inputs.take(1).collect();
            for encoding in tokenizer.encode(&inputs, false)? {
                let own = encoding.windows.into_iter();
                windows.extend(own.map(|window| (window.ids, window.type_ids)));
            }
        }
        Ok(Sample { documents: chosen.len(), windows })
    }

    /// Returns the number of tokens, without padding.
    pub(super) fn tokens(&self) -> u64 {
        self.windows.iter().map(|(ids, _)| ids.len() as u64).sum()
    }

    fn batches(&self, budget_tokens: usize) -> Vec<TokenBatch> {
        let lengths: Vec<u32> = self.windows.iter().map(|(ids, _)| ids.len() as u32).collect();
        let batches = plan_batches(&lengths, budget_tokens).into_iter();
        batches
            .map(|rows| {
                TokenBatch::new(rows.iter().map(|row| {
                    let (ids, type_ids) = &self.windows[*row as usize];
                    (&ids[..], &type_ids[..])
                }))
            })
            .collect()
    }
}

/// The measurements for one precision.
pub(super) struct Measured {
    pub(super) device: String,
    /// Empty for the first precision.
    pub(super) layers: Vec<LayerError>,
    pub(super) tokens_per_second: f64,
}

/// Opens the encoder of a pipeline with every layer and a single thread.
///
/// # Errors
/// Returns the errors of [`Encoder::open`].
pub(super) fn open(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    machine: &Machine,
) -> Result<Encoder> {
    let settings = EncoderSettings {
        device: pipeline.extraction.device.clone(),
        precision: pipeline.extraction.precision,
        layers: (0..=checkpoint.config.layers).collect(),
        threads: 1,
    };
    Encoder::open(&Runtime::load(&machine.onnxruntime)?, checkpoint, &settings)
}

/// Runs a sample through each encoder, and compares the states with those of the first.
pub(super) fn measure(
    mut encoders: Vec<Encoder>,
    batch_tokens: Option<usize>,
    checkpoint: &Checkpoint,
    sample: &Sample,
    progress: &dyn Progress,
) -> Result<Vec<Measured>> {
    progress.start("comparing precisions", None, "");
    let budgets: Vec<usize> = encoders
        .iter()
        .map(|encoder| batch_tokens.unwrap_or(encoder.devices.default_batch_tokens()))
        .collect();
    let devices: Vec<String> = encoders.iter().map(|encoder| encoder.devices.to_string()).collect();
    let mut workers: Vec<&mut Worker> =
        encoders.iter_mut().map(|encoder| &mut encoder.workers().0[0]).collect();

    let mut errors = vec![vec![Errors::default(); checkpoint.config.layers + 1]; workers.len()];
    let hidden = checkpoint.config.hidden;
    if let Some((first, others)) = workers.split_first_mut() {
        // All layers of a batch are in memory, so the batches are as small as those for a CPU.
        for batch in sample.batches(Devices::Cpu.default_batch_tokens()) {
            let expected = real_states(first, &batch)?;
            for (worker, errors) in others.iter_mut().zip(&mut errors[1..]) {
                let got = real_states(worker, &batch)?;
                for ((errors, expected), got) in errors.iter_mut().zip(&expected).zip(&got) {
                    errors.add(expected, got, hidden);
                }
            }
        }
    }
    let mut seconds = vec![f64::INFINITY; workers.len()];
    for _ in 0..ROUNDS {
        for (number, worker) in workers.iter_mut().enumerate() {
            let batches = sample.batches(budgets[number]);
            let start = Instant::now();
            for batch in &batches {
                worker.compute(batch)?;
            }
            seconds[number] = seconds[number].min(start.elapsed().as_secs_f64());
        }
    }
    progress.finish();
    let measured = devices.into_iter().zip(errors).zip(seconds).enumerate();
    Ok(measured
        .map(|(number, ((device, errors), seconds))| Measured {
            device,
            layers: match number {
                0 => Vec::new(),
                _ => errors
                    .iter()
                    .enumerate()
                    .map(|(layer, errors)| errors.of_layer(layer))
                    .collect(),
            },
            tokens_per_second: sample.tokens() as f64 / seconds,
        })
        .collect())
}

/// Returns the states of every layer, without padding.
fn real_states(worker: &mut Worker, batch: &TokenBatch) -> Result<Vec<Vec<f32>>> {
    let computed = worker.compute(batch)?;
    Ok(computed.layers.iter().map(LayerStates::real).collect())
}

/// The sums over the tokens of a layer.
#[derive(Clone)]
struct Errors {
    n_tokens: usize,
    cosines: f64,
    least_cosine: f64,
    largest: f64,
}

impl Default for Errors {
    fn default() -> Errors {
        Errors { n_tokens: 0, cosines: 0.0, least_cosine: 1.0, largest: 0.0 }
    }
}

impl Errors {
    fn add(&mut self, expected: &[f32], got: &[f32], hidden: usize) {
        for (expected, got) in expected.chunks_exact(hidden).zip(got.chunks_exact(hidden)) {
            let cosine = cosine(expected, got);
            // Rounding alone can make it exceed 1. NaN stays NaN.
            let cosine = if cosine > 1.0 { 1.0 } else { cosine };
            self.n_tokens += 1;
            self.cosines += cosine;
            // NaN compares as neither lower nor higher, and must not be missed.
            if cosine.is_nan() || cosine < self.least_cosine {
                self.least_cosine = cosine;
            }
            for (expected, got) in expected.iter().zip(got) {
                let error = f64::from((expected - got).abs());
                if error.is_nan() || error > self.largest {
                    self.largest = error;
                }
            }
        }
    }

    fn of_layer(&self, layer: usize) -> LayerError {
        LayerError {
            layer,
            mean_cosine: self.cosines / self.n_tokens as f64,
            least_cosine: self.least_cosine,
            max_error: self.largest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_a_layer_are_those_of_its_tokens() {
        let mut errors = Errors::default();
        errors.add(&[1.0, 0.0, 3.0, 4.0], &[1.0, 0.0, 4.0, 3.0], 2);
        errors.add(&[0.0, 2.0], &[0.0, 2.5], 2);
        let layer = errors.of_layer(5);
        // 24 / 25 for one token, and 1 for the others.
        assert!((layer.mean_cosine - (0.96 + 2.0) / 3.0).abs() < 1e-12);
        assert!((layer.least_cosine - 0.96).abs() < 1e-12);
        assert_eq!((layer.layer, layer.max_error), (5, 1.0));
    }
}
