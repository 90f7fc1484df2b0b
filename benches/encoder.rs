//! The encoder alone on any device: texts are tokenised and planned in advance, and nothing is pooled, converted or
//! written.
//!
//! ```text
//! cargo bench --bench encoder -- LIBRARY MODEL DEVICE PRECISION TEXTS MAX_LENGTH [ROUNDS]
//! ```
//!
//! `scripts/gpu-check --bench` runs the built binary. The states are copied back from the device, but not processed
//! further. Every worker runs the batches that an extraction would have, once as a warm-up and then ROUNDS times, of
//! which the best is reported. Prints one JSON object.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use frostbert::internals::{
    data::document::Document,
    encoder::{
        Encoder, EncoderSettings, checkpoint::Checkpoint, device::Precision, plan::plan_batches,
        runtime::Runtime, session::TokenBatch, tokenizer::TextTokenizer, windows::Overflow,
    },
};

/// The number of tokens that are planned together, as in a shard.
const SHARD_TOKENS: usize = 131_072;

fn main() {
    // Cargo passes --bench; the remaining arguments are our own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [library, model, device, precision, texts, max_length, rest @ ..] = &arguments[..] else {
        eprintln!(
            "skipped: cargo bench --bench encoder -- LIBRARY MODEL DEVICE PRECISION TEXTS MAX_LENGTH [ROUNDS]"
        );
        return;
    };
    let rounds: usize =
        rest.first().map_or(3, |rounds| rounds.parse().expect("a number of rounds"));
    let checkpoint = Checkpoint::open(Path::new(model)).expect("a checkpoint");
    let settings = EncoderSettings {
        device: device.parse().expect("a device"),
        precision: match precision.as_str() {
            "f32" => Precision::F32,
            "f16" => Precision::F16,
            "int8" => Precision::Int8,
            other => panic!("`{other}` is no precision"),
        },
        layers: vec![checkpoint.config.layers],
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let runtime = Runtime::load(Path::new(library)).expect("ONNX Runtime");
    let mut encoder = Encoder::open(&runtime, &checkpoint, &settings).expect("an encoder");
    let budget = encoder.devices.default_batch_tokens();
    let max_length = max_length.parse().expect("a length");
    let batches = batches_of(&checkpoint, Path::new(texts), max_length, budget);
    let tokens: u64 = batches.iter().map(TokenBatch::tokens).sum();
    run(&mut encoder, &batches);
    let best = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            run(&mut encoder, &batches);
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    println!(
        "{{\"device\": \"{}\", \"tokens\": {tokens}, \"seconds\": {best}, \"tokens_per_second\": {}}}",
        encoder.devices.name(),
        tokens as f64 / best
    );
}

fn batches_of(
    checkpoint: &Checkpoint,
    texts: &Path,
    max_length: usize,
    budget: usize,
) -> Vec<TokenBatch> {
    let texts = std::fs::read_to_string(texts).expect("a file of texts");
    let path = checkpoint.tokenizer.path.clone();
    let tokenizer =
        TextTokenizer::open(&path, max_length, Overflow::Truncate).expect("a tokenizer");
    let inputs: Vec<Document<'_>> = texts.lines().map(Document::Text).collect();
    let encodings = tokenizer.encode(&inputs, false).expect("token ids");
    let ids: Vec<&[u32]> = encodings.iter().map(|encoding| &encoding.windows[0].ids[..]).collect();
    let mut batches = Vec::new();
    let mut rest = &ids[..];
    while !rest.is_empty() {
        let mut tokens = 0;
        let taken = rest.iter().take_while(|ids| {
            tokens += ids.len();
            tokens <= SHARD_TOKENS
        });
        let (shard, others) = rest.split_at(taken.count().max(1));
        let lengths: Vec<u32> = shard.iter().map(|ids| ids.len() as u32).collect();
        for rows in plan_batches(&lengths, budget) {
            let rows = rows.iter().map(|row| (shard[*row as usize], &[][..]));
            batches.push(TokenBatch::new(rows));
        }
        rest = others;
    }
    batches
}

fn run(encoder: &mut Encoder, batches: &[TokenBatch]) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in encoder.workers().0 {
            let next = &next;
            scope.spawn(move || {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    worker.compute(batch).expect("a run");
                }
            });
        }
    });
}
