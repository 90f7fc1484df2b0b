//! Stage 1 compared with its upper bound: the complete extraction, and the bare session on exactly the same batches.
//!
//! ```text
//! cargo bench --bench extraction -- FILE.gz [TEXTS] [ROUNDS] [mean|words|tokens] [BATCH_TOKENS]
//! ```
//!
//! Both are run in turn, ROUNDS times, and the best of each is reported. `bare` runs the planned batches through the
//! same sessions without using the states, and `one session` does so with one session on all threads; `pipeline` is
//! everything from a file of texts to committed shards, including loading the model; `encoding` is the pipeline without
//! that load. `tokenizer` is the tokenizer alone on one core, without alignments and with them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use frostbert::{
    cache::{
        fingerprint::Key,
        index::DocumentIndex,
        manifest::Manifest,
        plan::{PlanDocument, PlanSettings, Planner},
        states::{Dtype, StateId, StateKind},
    },
    internals::{
        config::{file::PipelineFile, settings::Pipeline},
        data::document::Document,
        encoder::{
            Encoder, EncoderSettings,
            checkpoint::Checkpoint,
            device::{Device, Devices, Precision},
            fingerprint_inputs,
            plan::{padding_efficiency, plan_batches},
            provider::Provider,
            runtime::Runtime,
            session::{EncoderSession, SessionOptions, TokenBatch},
            tokenizer::TextTokenizer,
            windows::{Encoding, Overflow},
        },
        extraction::{
            extract::{ExtractReport, extract},
            machine::Machine,
        },
    },
};

const MAX_LENGTH: usize = 128;

fn main() {
    // Cargo passes --bench; the remaining arguments are our own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(corpus) = arguments.first() else {
        eprintln!(
            "skipped: name a gzip file of texts, one a line: cargo bench --bench extraction -- FILE.gz"
        );
        return;
    };
    let number = |place: usize, default| {
        arguments.get(place).map_or(default, |n| n.parse().expect("a number"))
    };
    let (n_texts, rounds, batch_tokens) =
        (number(1, 10_000), number(2, 3), number(4, Devices::Cpu.default_batch_tokens()));
    let kind: StateKind =
        arguments.get(3).map_or("mean", String::as_str).parse().expect("a kind of state");

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let library = PathBuf::from("runtime/libonnxruntime.so");
    let machine = Machine::new(&library, threads);
    let runtime = Runtime::load(&library).expect("`make setup` fetches ONNX Runtime");
    let checkpoint =
        Checkpoint::open(Path::new("models/minilm")).expect("`make setup` fetches the model");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = read_texts(Path::new(corpus), n_texts);
    let (batches, efficiency) = planned_batches(&checkpoint, &texts, kind, batch_tokens);
    let tokens: u64 = batches.iter().map(TokenBatch::tokens).sum();
    let tokenizer_speeds =
        [false, true].map(|aligned| tokenizer_speed(&checkpoint, &texts, aligned, rounds));

    let loading = Instant::now();
    let mut encoder = open_encoder(&runtime, &checkpoint, threads);
    let load_seconds = loading.elapsed().as_secs_f64();
    let mut one_session = open_one_session(&runtime, &checkpoint, threads);
    let plain = folder.path().join("texts.txt");
    std::fs::write(&plain, texts.join("\n")).expect("the temporary folder takes the texts");

    println!(
        "{} texts, {tokens} tokens, {} batches of at most {batch_tokens} tokens, {threads} threads, {} states",
        texts.len(),
        batches.len(),
        kind.name()
    );
    let mut best = [f64::INFINITY; 3];
    let mut last: Option<ExtractReport> = None;
    for round in 1..=rounds {
        let bare = seconds(|| run_bare(&mut encoder, &batches));
        let one = seconds(|| {
            batches.iter().for_each(|batch| one_session.run_bare(batch).expect("a run"))
        });
        let cache = folder.path().join(format!("cache-{round}"));
        let pipeline = pipeline_over(&plain, &cache, kind, batch_tokens);
        let report = extract(&pipeline, &machine, &()).expect("an extraction");
        assert_eq!(report.tokens, tokens, "both sides run the same tokens");
        assert!((report.padding_efficiency - efficiency).abs() < 1e-12, "in the same batches");
        println!(
            "round {round}: bare {bare:.2} s, one session {one:.2} s, pipeline {:.2} s",
            report.seconds
        );
        for (best, seconds) in best.iter_mut().zip([bare, one, report.seconds]) {
            *best = best.min(seconds);
        }
        last = Some(report);
    }
    let [bare, one, pipeline] = best;
    let report = last.expect("at least one round");
    println!("padding efficiency      {efficiency:.4}");
    println!("bare                    {:.0} tokens/s", tokens as f64 / bare);
    println!("one session             {:.0} tokens/s", tokens as f64 / one);
    println!("pipeline                {:.0} tokens/s", tokens as f64 / pipeline);
    println!("loading the model       {load_seconds:.2} s");
    println!("pipeline / bare         {:.3}", bare / pipeline);
    println!("encoding / bare         {:.3}", bare / (pipeline - load_seconds));
    let [alone, aligned] = tokenizer_speeds;
    println!("tokenizer               {alone:.0} tokens/s, {aligned:.0} with alignments");
    let shares = report.busy.iter().map(|(name, share)| format!("{name} {share:.3}"));
    println!("at work                 {}", shares.collect::<Vec<String>>().join(", "));
    println!("bytes written           {}", report.bytes_written);
}

fn read_texts(corpus: &Path, n_texts: usize) -> Vec<String> {
    let file = std::fs::File::open(corpus).expect("the corpus opens");
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines.take(n_texts).map(|line| line.expect("UTF-8")).collect()
}

/// Returns the batches that an extraction of these texts runs, in order.
fn planned_batches(
    checkpoint: &Checkpoint,
    texts: &[String],
    kind: StateKind,
    batch_tokens: usize,
) -> (Vec<TokenBatch>, f64) {
    let path = checkpoint.tokenizer.path.clone();
    let tokenizer =
        TextTokenizer::open(&path, MAX_LENGTH, Overflow::Truncate).expect("a tokenizer");
    let inputs: Vec<Document<'_>> = texts.iter().map(|text| Document::Text(text)).collect();
    let encodings = tokenizer.encode(&inputs, true).expect("token ids");
    let mut documents: Vec<(Key, Encoding)> =
        inputs.iter().map(|input| input.key()).zip(encodings).collect();
    documents.sort_by_key(|(key, _)| *key);
    documents.dedup_by_key(|(key, _)| *key);
    let inputs = fingerprint_inputs(
        checkpoint,
        "cpu",
        Precision::F32,
        Dtype::F16,
        MAX_LENGTH,
        Overflow::Truncate,
    );
    let (layers, hidden) = (checkpoint.config.layers, checkpoint.config.hidden);
    let wanted = [StateId { kind, layer: layers }];
    let manifest = Manifest::empty(&inputs, layers, hidden, Dtype::F16);
    let index = DocumentIndex::default();
    let planner = Planner::new(&wanted, &manifest, &index, hidden * Dtype::F16.size_bytes());
    let settings = PlanSettings { shard_tokens: 131_072, batch_tokens };
    let document = |number: usize| PlanDocument {
        key: documents[number].0,
        n_tokens: documents[number].1.n_tokens() as u32,
        n_words: documents[number].1.words.len() as u32,
    };
    let planned = planner.plan(documents.len(), document, settings);

    let mut batches = Vec::new();
    let (mut real, mut padded) = (0.0, 0.0);
    for members in &planned.members {
        let ids = |row: &u32| &documents[*row as usize].1.windows[0].ids[..];
        let lengths: Vec<u32> = members.iter().map(|row| ids(row).len() as u32).collect();
        let rows = plan_batches(&lengths, batch_tokens);
        let tokens: f64 = lengths.iter().map(|length| f64::from(*length)).sum();
        real += tokens;
        padded += tokens / padding_efficiency(&lengths, &rows);
        let batch = |rows: &Vec<u32>| {
            let members = rows.iter().map(|row| &members[*row as usize]);
            TokenBatch::new(members.map(|row| (ids(row), &[][..])))
        };
        batches.extend(rows.iter().map(batch));
    }
    (batches, real / padded)
}

/// Returns the tokens per second of the tokenizer on one core, the best of some rounds.
fn tokenizer_speed(checkpoint: &Checkpoint, texts: &[String], aligned: bool, rounds: usize) -> f64 {
    let path = checkpoint.tokenizer.path.clone();
    let tokenizer =
        TextTokenizer::open(&path, MAX_LENGTH, Overflow::Truncate).expect("a tokenizer");
    let inputs: Vec<Document<'_>> = texts.iter().map(|text| Document::Text(text)).collect();
    let one_core = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let speeds = (0..rounds.max(1)).map(|_| {
        let start = Instant::now();
        let encodings = one_core.install(|| tokenizer.encode(&inputs, aligned)).expect("ids");
        let seconds = start.elapsed().as_secs_f64();
        encodings.iter().map(Encoding::n_tokens).sum::<usize>() as f64 / seconds
    });
    speeds.fold(0.0, f64::max)
}

fn open_encoder(runtime: &Runtime, checkpoint: &Checkpoint, threads: usize) -> Encoder {
    let settings = EncoderSettings {
        device: Device::Cpu,
        precision: Precision::F32,
        layers: vec![checkpoint.config.layers],
        threads,
    };
    Encoder::open(runtime, checkpoint, &settings).expect("an encoder")
}

fn open_one_session(runtime: &Runtime, checkpoint: &Checkpoint, threads: usize) -> EncoderSession {
    let options = SessionOptions {
        provider: Provider::Cpu,
        precision: Precision::F32,
        layers: vec![checkpoint.config.layers],
        intra_threads: threads,
    };
    EncoderSession::open(runtime, checkpoint, &options).expect("a session")
}

fn run_bare(encoder: &mut Encoder, batches: &[TokenBatch]) {
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

fn pipeline_over(texts: &Path, cache: &Path, kind: StateKind, batch_tokens: usize) -> Pipeline {
    let text = format!(
        "[model]\npath = \"models/minilm\"\ndevice = \"cpu\"\nbatch_tokens = {batch_tokens}\n\
         [data]\ntrain = {{ path = {texts:?}, format = \"lines\" }}\n\
         [cache]\ndir = {cache:?}\nmax_length = {MAX_LENGTH}\nstore = [\"{}\"]\n",
        kind.name()
    );
    let file: PipelineFile = toml::from_str(&text).expect("a pipeline");
    Pipeline::check(Path::new("bench.toml"), file).expect("a checked pipeline")
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
