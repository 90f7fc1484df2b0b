//! Tests the model on the requested device: whether it loads, whether its states are finite, and how fast it is.

use std::{
    iter,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use frostbert_cache::states::{Dtype, Placement, Pooling, StateId, StateKind};
use serde::Serialize;

use crate::{
    doctor::{DoctorRequest, Problem},
    encoder::{
        Encoder, EncoderSettings, Request,
        checkpoint::Checkpoint,
        device::{self, Device, Precision},
        runtime::Runtime,
        session::TokenBatch,
        tokenizer::TextTokenizer,
        windows::Overflow,
    },
    error::{Error, Result},
    extraction::lazy_encoder::why_auto_took,
};

/// The outcome of a `model.device` setting.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceFindings {
    /// The device that was requested.
    pub asked: Device,
    /// The precision that was requested.
    pub precision: Precision,
    /// The device in use; `None` if the requested one is unavailable.
    pub took: Option<String>,
    /// Why `auto` chose it.
    pub reason: Option<String>,
    /// Where the graph runs, if on a GPU.
    pub placement: Option<Placement>,
    /// Why the device is unavailable.
    pub problem: Option<Problem>,
}

/// What was found about a checkpoint.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModelFindings {
    /// The folder of the checkpoint.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub folder: PathBuf,
    /// The model family, such as `bert`.
    pub family: Option<String>,
    /// The number of layers.
    pub layers: Option<usize>,
    /// Width of a state.
    pub hidden: Option<usize>,
    /// The device that it was tested on: `cpu` if the requested one is unavailable.
    pub tried_on: Option<String>,
    /// Tokens per second, measured for about two seconds on full batches of texts of [`TEXT_TOKENS`] tokens, without
    /// writing anything.
    pub tokens_per_second: Option<f64>,
    /// Why it cannot be used.
    pub problem: Option<Problem>,
}

/// The number of tokens in each text of the test, if the model accepts that many.
pub const TEXT_TOKENS: usize = 32;

/// The duration of the test; it ends with the batch during which this time has passed.
const TRIAL: Duration = Duration::from_secs(2);

/// Opens the model on the requested device, or else on the CPU, and lets it compute.
pub(super) fn try_model(
    asked: &DoctorRequest,
    runtime: Option<&Runtime>,
    threads: usize,
) -> (Option<DeviceFindings>, ModelFindings) {
    let mut model = ModelFindings { folder: asked.model.clone(), ..ModelFindings::default() };
    let opened = Checkpoint::open(&asked.model).and_then(|checkpoint| {
        // The pipeline decides how long inputs are; check only that the tokenizer works.
        TextTokenizer::new(&checkpoint.tokenizer, usize::MAX, Overflow::Truncate)?;
        Ok(checkpoint)
    });
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            model.problem = Some(Problem::fatal(&error));
            return (None, model);
        }
    };
    let config = &checkpoint.config;
    model.family = Some(config.family.clone());
    model.layers = Some(config.layers);
    model.hidden = Some(config.hidden);
    let Some(runtime) = runtime else {
        return (None, model);
    };
    let settings = EncoderSettings {
        device: asked.device.clone(),
        precision: asked.precision,
        layers: vec![config.layers],
        threads,
    };
    let mut device = DeviceFindings {
        asked: asked.device.clone(),
        precision: asked.precision,
        took: None,
        reason: None,
        placement: None,
        problem: None,
    };
    let opened = device::check(&asked.device, asked.precision, &runtime.library)
        .and_then(|()| Encoder::open(runtime, &checkpoint, &settings));
    let opened = match opened {
        Ok(encoder) => {
            device.took = Some(encoder.devices.to_string());
            device.reason = (asked.device == Device::Auto).then(|| why_auto_took(&encoder));
            device.placement = encoder.placement.clone();
            Ok(encoder)
        }
        // A broken model is not a fault of the device.
        Err(error @ Error::Device { .. }) => {
            device.problem = Some(Problem::fatal(&error));
            let on_cpu =
                EncoderSettings { device: Device::Cpu, precision: Precision::F32, ..settings };
            Encoder::open(runtime, &checkpoint, &on_cpu)
        }
        Err(error) => Err(error),
    };
    let tried = opened.and_then(|mut encoder| {
        model.tried_on = Some(encoder.devices.to_string());
        tokens_per_second(&mut encoder, &checkpoint)
    });
    match tried {
        Ok(speed) => model.tokens_per_second = Some(speed),
        Err(error) => model.problem = Some(Problem::fatal(&error)),
    }
    (Some(device), model)
}

/// Lets all workers compute the mean of the last layer until the time is over; a state that is not finite is an error.
fn tokens_per_second(encoder: &mut Encoder, checkpoint: &Checkpoint) -> Result<f64> {
    let config = &checkpoint.config;
    let length = config.max_tokens.unwrap_or(TEXT_TOKENS).min(TEXT_TOKENS);
    let ids: Vec<u32> = (0..length as u32)
        .map(|position| (position * 37 + 11) % config.vocabulary as u32)
        .collect();
    let n_texts = (encoder.devices.default_batch_tokens() / length).max(1);
    let batch = TokenBatch::new(iter::repeat_n((&ids[..], &[][..]), n_texts));
    let states = [StateId { kind: StateKind::Pooled(Pooling::Mean), layer: config.layers }];
    let request = Request {
        states: &states,
        dtype: Dtype::F32,
        stored: Dtype::F32,
        words: &[],
        left_out: &[],
    };
    encoder.warm_up(&batch)?;
    let start = Instant::now();
    let n_batches = AtomicU64::new(0);
    encoder.run_batches(
        iter::from_fn(|| (start.elapsed() < TRIAL).then_some(Ok(&batch))),
        |batch| batch,
        |_, computed| {
            computed.finish(request, |_| "the test batch".into())?;
            n_batches.fetch_add(1, Ordering::Relaxed);
            Ok(())
        },
    )?;
    let n_batches = n_batches.into_inner();
    Ok((n_batches * batch.tokens()) as f64 / start.elapsed().as_secs_f64())
}
