use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use frostbert_cache::states::{BatchStates, Dtype, Pooling, StateId, StateKind, StateValues};

use super::*;
use crate::encoder::{
    checkpoint::{Checkpoint, Model},
    layer_states::Floats,
    runtime,
    worker::{Request, Worker, WorkerSession},
};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn open_checkpoint(folder: &str) -> Checkpoint {
    Checkpoint::open(&repository("tests/fixtures").join(folder)).unwrap()
}

fn options(checkpoint: &Checkpoint, precision: Precision) -> SessionOptions {
    SessionOptions {
        provider: Provider::Cpu,
        precision,
        layers: (0..=checkpoint.config.layers).collect(),
        intra_threads: 1,
    }
}

/// The session that CUDA would run, but on the CPU and in its memory, with attention written out.
fn packed_worker(checkpoint: &Checkpoint, precision: Precision) -> Worker {
    let runtime = runtime::for_tests();
    let Model::Fused(source) = &checkpoint.model else {
        panic!("the fused graph runs {}", checkpoint.folder.display());
    };
    let options = options(checkpoint, precision);
    let half = precision == Precision::F16;
    let model = packed::tests_oracle::build(source, &options.layers, half).unwrap();
    let builder = session_builder(runtime, 1).unwrap();
    let session = model.into_session(&builder).unwrap();
    let memory =
        MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput);
    let session =
        CudaSession::new(session, source, &options.layers, memory.unwrap(), Provider::Cpu);
    Worker { session: WorkerSession::Packed(Box::new(session.unwrap())), precision }
}

fn padded_worker(checkpoint: &Checkpoint) -> Worker {
    Worker::open(runtime::for_tests(), checkpoint, &options(checkpoint, Precision::F32)).unwrap()
}

/// Returns windows of these lengths, the second half of each with the other token type; batches of different seeds
/// differ.
fn batch(checkpoint: &Checkpoint, lengths: &[usize], seed: usize) -> TokenBatch {
    let vocabulary = checkpoint.config.vocabulary;
    let windows: Vec<(Vec<u32>, Vec<u8>)> = lengths
        .iter()
        .enumerate()
        .map(|(window, length)| {
            let ids =
                (0..*length).map(|place| (seed * 7919 + window * 31 + place * 37 + 5) % vocabulary);
            let types = (0..*length).map(|place| u8::from(2 * place > *length));
            (ids.map(|id| id as u32).collect(), types.collect())
        })
        .collect();
    TokenBatch::new(windows.iter().map(|(ids, types)| (&ids[..], &types[..])))
}

/// Returns the largest difference between any states of real tokens, and the largest value.
fn largest_difference(got: &[LayerStates], expected: &[LayerStates]) -> (f32, f32) {
    assert_eq!(got.len(), expected.len());
    let (mut difference, mut value) = (0.0f32, 0.0f32);
    for (a, b) in got.iter().zip(expected) {
        assert_eq!((a.layer, a.rows.len()), (b.layer, b.rows.len()));
        for window in 0..a.rows.len() {
            let (a, b) = (a.row(window).to_f32(), b.row(window).to_f32());
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b.iter()) {
                assert!(a.is_finite() && b.is_finite());
                difference = difference.max((a - b).abs());
                value = value.max(b.abs());
            }
        }
    }
    (difference, value)
}

/// Window lengths from one token to the maximum input length of the small checkpoints.
const LENGTHS: [&[usize]; 4] = [&[1], &[64, 1, 17, 33, 2], &[5, 5, 5], &[9, 64, 64]];

#[test]
fn the_packed_graph_equals_the_padded_one_on_every_real_token() {
    for folder in [
        "../../models/minilm",
        "tiny_bert",
        "families/bert_sharded",
        "families/roberta",
        "families/xlm_roberta_f16",
        "families/camembert_bf16",
        "families/distilbert",
        "families/electra",
        "families/electra_one_width",
        "families/mpnet",
    ] {
        let checkpoint = open_checkpoint(folder);
        let mut packed = packed_worker(&checkpoint, Precision::F32);
        let mut padded = padded_worker(&checkpoint);
        let mut of_folder = LENGTHS.to_vec();
        if folder.ends_with("mpnet") {
            // Distances beyond 128 tokens have the same bias.
            of_folder.push(&[3, 200, 131]);
        }
        for (seed, lengths) in of_folder.into_iter().enumerate() {
            let batch = batch(&checkpoint, lengths, seed);
            let got = packed.compute(&batch).unwrap().layers;
            let expected = padded.compute(&batch).unwrap().layers;
            assert_eq!(got.len(), checkpoint.config.layers + 1);
            let (difference, value) = largest_difference(&got, &expected);
            println!("{folder}, {lengths:?}: {difference:e}, largest value {value}");
            // The small checkpoints have large random weights and correspondingly large values.
            let allowed = 1e-5 * if folder.ends_with("minilm") { 1.0 } else { value.max(1.0) };
            assert!(difference <= allowed, "{folder}, {lengths:?}: {difference}");
        }
    }
}

#[test]
fn the_packed_f16_graph_points_the_same_way_as_the_padded_f32_one() {
    for folder in ["tiny_bert", "families/roberta", "families/electra", "families/mpnet"] {
        let checkpoint = open_checkpoint(folder);
        let hidden = checkpoint.config.hidden;
        let batch = batch(&checkpoint, LENGTHS[1], 1);
        let got = packed_worker(&checkpoint, Precision::F16).compute(&batch);
        let expected = padded_worker(&checkpoint).compute(&batch).unwrap();
        for (got, expected) in got.unwrap().layers.iter().zip(&expected.layers) {
            for window in 0..batch.windows() {
                assert!(matches!(got.row(window), Floats::Half(_)), "f16 comes back");
                let (got, expected) = (got.row(window).to_f32(), expected.row(window).to_f32());
                let least = crate::encoder::proof::least_cosine(&expected, &got, hidden);
                assert!(least >= 0.9999, "{folder}: {least}");
            }
        }
    }
}

#[test]
fn states_of_one_batch_are_not_touched_by_the_next() {
    let checkpoint = open_checkpoint("tiny_bert");
    let mut packed = packed_worker(&checkpoint, Precision::F32);
    // Use equal shapes, so that a buffer could be reused.
    let batches: Vec<TokenBatch> = (0..6).map(|seed| batch(&checkpoint, &[7, 30], seed)).collect();
    let held: Vec<_> = batches.iter().map(|batch| packed.compute(batch).unwrap()).collect();
    let mut padded = padded_worker(&checkpoint);
    for (batch, held) in batches.iter().zip(&held) {
        let alone = packed.compute(batch).unwrap();
        assert_eq!(largest_difference(&held.layers, &alone.layers).0, 0.0);
        let expected = padded.compute(batch).unwrap();
        assert!(largest_difference(&held.layers, &expected.layers).0 <= 1e-5);
    }
}

/// Returns every kind of state for the embeddings and the last layer.
fn every_state(checkpoint: &Checkpoint) -> Vec<StateId> {
    let layers = [0, checkpoint.config.layers];
    let kinds = StateKind::ALL.into_iter();
    kinds.flat_map(|kind| layers.map(|layer| StateId { kind, layer })).collect()
}

#[test]
fn a_ring_of_batches_gives_what_each_gives_alone() {
    let checkpoint = open_checkpoint("tiny_bert");
    let states = every_state(&checkpoint);
    let batches: Vec<TokenBatch> =
        (0..24).map(|seed| batch(&checkpoint, LENGTHS[seed % LENGTHS.len()], seed)).collect();
    let words: Vec<Vec<Vec<u16>>> = batches
        .iter()
        .map(|batch| batch.lengths.iter().map(|length| (0..*length as u16 / 2).collect()).collect())
        .collect();
    let request = |number: usize| Request {
        states: &states,
        dtype: Dtype::F16,
        stored: Dtype::F16,
        words: &words[number],
        left_out: &[],
    };
    for precision in [Precision::F32, Precision::F16] {
        let mut worker = packed_worker(&checkpoint, precision);
        let alone: Vec<Vec<BatchStates>> = (0..batches.len())
            .map(|number| {
                worker
                    .compute(&batches[number])
                    .unwrap()
                    .finish(request(number), |_| String::new())
                    .unwrap()
            })
            .collect();
        let finished = Mutex::new(vec![None; batches.len()]);
        worker.run_all(
            batches.iter().enumerate(),
            |(_, batch)| batch,
            |(number, _), computed| {
                let made = computed.unwrap().finish(request(number), |_| String::new());
                let before = finished.lock().unwrap()[number].replace(made.unwrap());
                assert!(before.is_none(), "batch {number} is finished once");
                true
            },
        );
        for (alone, together) in alone.iter().zip(finished.into_inner().unwrap()) {
            let together = together.expect("every batch is finished");
            assert_eq!(alone.len(), states.len());
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!((alone.state, &alone.values), (together.state, &together.values));
            }
        }
    }
}

#[test]
fn a_ring_stops_when_it_is_told_to() {
    let checkpoint = open_checkpoint("tiny_bert");
    let mut worker = packed_worker(&checkpoint, Precision::F32);
    let one = batch(&checkpoint, &[5], 0);
    let begun = std::cell::Cell::new(0);
    let jobs = (0..1000).map(|_| {
        begun.set(begun.get() + 1);
        &one
    });
    worker.run_all(jobs, |batch| batch, |_, _| false);
    assert!(begun.get() < 10, "{} batches were begun", begun.get());
}

#[test]
fn pooled_states_of_the_packed_graph_are_those_of_the_padded_one() {
    let checkpoint = open_checkpoint("families/roberta");
    let states = Pooling::ALL.map(|pooling| StateId::pooled(pooling, checkpoint.config.layers));
    let batch = batch(&checkpoint, LENGTHS[1], 3);
    let request = Request {
        states: &states,
        dtype: Dtype::F32,
        stored: Dtype::F32,
        words: &[],
        left_out: &[],
    };
    let run = |mut worker: Worker| {
        worker.compute(&batch).unwrap().finish(request, |_| String::new()).unwrap()
    };
    let packed = run(packed_worker(&checkpoint, Precision::F32));
    for (packed, padded) in packed.iter().zip(run(padded_worker(&checkpoint))) {
        let (StateValues::Pooled(packed), StateValues::Pooled(padded)) =
            (&packed.values, &padded.values)
        else {
            panic!("{} is pooled", padded.state);
        };
        assert_eq!(packed.len(), batch.windows() * checkpoint.config.hidden);
        for (a, b) in packed.iter().zip(padded) {
            assert!((a - b).abs() <= 1e-5, "{a} and {b}");
        }
    }
}

#[test]
fn a_batch_is_packed_as_the_operator_wants_it() {
    // The example from the operator's documentation: windows of 1, 2 and 4 tokens in a padded batch of 3 x 4.
    let windows: [(&[u32], &[u8]); 3] =
        [(&[10], &[0]), (&[20, 21], &[0, 1]), (&[30, 31, 32, 33], &[0, 0, 1, 1])];
    let batch = TokenBatch::new(windows.into_iter());
    let of =
        |one_type, longest| PackedBatch::of(&batch, one_type, TokenPositions::FROM_ZERO, longest);
    let packed = of(false, 4);
    assert_eq!(packed.ids, [10, 20, 21, 30, 31, 32, 33]);
    assert_eq!(packed.type_ids, [0, 0, 1, 0, 0, 1, 1]);
    assert_eq!(packed.positions, [0, 0, 1, 0, 1, 2, 3]);
    assert_eq!(packed.token_offset, [0, 4, 5, 8, 9, 10, 11, 1, 2, 3, 6, 7]);
    assert_eq!(packed.cu_seqlens, [0, 1, 3, 7]);
    assert_eq!(of(true, 4).type_ids, [0; 7]);

    let wider = of(false, 6);
    assert_eq!((&wider.ids, &wider.type_ids), (&packed.ids, &packed.type_ids));
    assert_eq!((&wider.positions, &wider.cu_seqlens), (&packed.positions, &packed.cu_seqlens));
    let offsets = [0, 6, 7, 12, 13, 14, 15, 1, 2, 3, 4, 5, 8, 9, 10, 11, 16, 17];
    assert_eq!(wider.token_offset, offsets);
}

#[test]
fn memory_that_runs_out_is_known_by_what_is_said() {
    // The messages of ONNX Runtime's arena, CUDA, cuBLAS and cuDNN.
    for reason in [
        "/onnxruntime/core/framework/bfc_arena.cc:359 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) \
         Failed to allocate memory for requested buffer of size 50331648",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h ; expr=cublasCreate(&cublas_handle_);",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h",
    ] {
        assert!(is_out_of_memory(reason), "{reason}");
    }
    assert!(!is_out_of_memory("CUDA failure 700: an illegal memory access was encountered"));
}

#[test]
fn a_full_device_names_a_budget_that_fits() {
    let checkpoint = open_checkpoint("tiny_bert");
    let batch = batch(&checkpoint, &[64; 40], 0);
    let mut tried = Vec::new();
    let error = out_of_memory("cuda:0".into(), &batch, |smaller| {
        tried.push((smaller.windows(), smaller.tokens()));
        smaller.tokens() <= 700
    });
    assert_eq!(tried, [(20, 1280), (10, 640)]);
    assert_eq!(
        error.to_string(),
        "cannot run on device `cuda:0`: its memory is full: a batch of 2560 tokens does not fit"
    );
    assert!(error.hint().unwrap().starts_with("set model.batch_tokens = 640, which fits"));

    let error = out_of_memory("cuda:0".into(), &batch, |_| false);
    assert!(error.hint().unwrap().starts_with("not even one text of 64 tokens fits"));
}
