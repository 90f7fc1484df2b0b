//! The speed at which the bank trains heads, compared with a large matrix product on the same machine in the same run.
//!
//!     cargo bench --bench bank [-- ROUNDS] [--only NAME]
//!
//! The data are random f16 rows of 384 features, decoded and standardised in every epoch; AdamW, batches of 256, no
//! validation. Two cases use the rows in their order, the others shuffle them in every epoch. For each case (or only
//! for the named one), the best of several rounds, which alternate between cases, is printed: seconds, head-samples per
//! second, and the rate of the products that it needs (forward and gradients of the weights, 4 operations for each
//! feature and output). With `--json`, one JSON object per line.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use frostbert::{
    cache::states::{Dtype, Pooling, StateId},
    internals::{
        features::FeatureView,
        head::{
            bank::{self, BankData, BankSettings, SampleSet},
            network::NetworkSpec,
            spec::{HeadSpec, Objective},
            targets::TargetTable,
            transform::Transform,
        },
        train::{gemm::multiply, loss::Loss, optimizer::Optimizer},
    },
};
use ndarray::Array2;
use rayon::prelude::*;

const N_FEATURES: usize = 384;
const EPOCHS: usize = 3;
const BATCH_SIZE: usize = 256;

/// The number of rows and columns of the matrices that measure the machine's rate.
const LARGE: usize = 2048;

struct Case {
    name: &'static str,
    n_rows: usize,
    n_heads: usize,
    network: NetworkSpec,
    extras: Extras,
}

/// The work apart from products, loss and optimiser.
#[derive(Clone, Copy, PartialEq)]
enum Extras {
    /// None: batches are contiguous.
    None,
    /// Samples are shuffled.
    Shuffled,
    /// Samples are shuffled, inputs dropped out, and classes weighted.
    All,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok());
    let is_json = arguments.iter().any(|argument| argument == "--json");
    let binary = NetworkSpec::linear(N_FEATURES, 2);
    let mlp = NetworkSpec { hidden: vec![128], ..binary.clone() };
    let wide = NetworkSpec::linear(N_FEATURES, 77);
    let case = |name, n_rows, n_heads, network: &NetworkSpec, extras| Case {
        name,
        n_rows,
        n_heads,
        network: network.clone(),
        extras,
    };
    let many = |name, n_heads, extras| case(name, 67_349, n_heads, &binary, extras);
    let cases = [
        many("64 binary", 64, Extras::None),
        many("256 binary", 256, Extras::None),
        many("64 binary, shuffled", 64, Extras::Shuffled),
        many("256 binary, shuffled", 256, Extras::Shuffled),
        many("64 binary, shuffled, dropout and class weights", 64, Extras::All),
        many("256 binary, shuffled, dropout and class weights", 256, Extras::All),
        case("16 of 77 classes", 10_003, 16, &wide, Extras::Shuffled),
        case("32 mlp, hidden 128", 10_003, 32, &mlp, Extras::Shuffled),
    ];
    let only = arguments.iter().skip_while(|argument| *argument != "--only").nth(1);
    let cases: Vec<Case> =
        cases.into_iter().filter(|case| only.is_none_or(|name| case.name == name)).collect();
    let bytes = random_states(67_349);
    let mut best = vec![f64::INFINITY; cases.len()];
    let mut sgemm = 0.0f64;
    for _ in 0..rounds.unwrap_or(5) {
        sgemm = sgemm.max(large_product_rate());
        for (case, best) in cases.iter().zip(&mut best) {
            *best = best.min(seconds(case, &bytes));
        }
    }
    let threads = rayon::current_num_threads();
    if !is_json {
        println!("{threads} threads; a product of {LARGE}^3 on each: {sgemm:.0} GFLOP/s in all\n");
        println!(
            "| heads | seconds | M head-samples/s | GFLOP/s | of the large product |\n|---|---|---|---|---|"
        );
    }
    for (case, seconds) in cases.iter().zip(best) {
        let samples = (case.n_heads * case.n_rows * EPOCHS) as f64 / seconds;
        let rate = samples * operations(case) / 1e9;
        let share = rate / sgemm;
        if is_json {
            println!(
                "{{\"heads\": \"{}\", \"seconds\": {seconds}, \"head_samples_per_second\": {samples}, \"gflops\": {rate}, \"of_sgemm\": {share}}}",
                case.name
            );
        } else {
            println!(
                "| {} | {seconds:.3} | {:.1} | {rate:.0} | {:.0} % |",
                case.name,
                samples / 1e6,
                100.0 * share
            );
        }
    }
}

/// Returns the number of floating-point operations in the products for one sample and one head.
fn operations(case: &Case) -> f64 {
    let columns = match &case.network.hidden[..] {
        // A binary head has one column of logits.
        [] if case.network.n_outputs == 2 => 1,
        [] => case.network.n_outputs,
        hidden => hidden[0],
    };
    (4 * N_FEATURES * columns) as f64
}

fn random_states(n_rows: usize) -> Vec<u8> {
    // A generator with a full period is random enough for states.
    let mut state = 1u32;
    let values: Vec<f32> = (0..n_rows * N_FEATURES)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect();
    let mut bytes = Vec::with_capacity(2 * values.len());
    let encoded = Dtype::F16.encode(&values, &mut bytes);
    encoded.expect("values that fit f16");
    bytes
}

fn seconds(case: &Case, bytes: &[u8]) -> f64 {
    let state = StateId::pooled(Pooling::Mean, 1);
    let own = bytes[..case.n_rows * N_FEATURES * 2].to_vec();
    let view = FeatureView::from_bytes(state, N_FEATURES, Dtype::F16, own);
    let samples: Vec<u32> = (0..case.n_rows as u32).collect();
    let n_outputs = case.network.n_outputs;
    let class = |row: u32| row.wrapping_mul(2_654_435_761) % n_outputs as u32;
    let targets = TargetTable::Classes(samples.iter().map(|row| class(*row)).collect());
    let specs: Vec<HeadSpec> = (0..case.n_heads)
        .map(|head| HeadSpec {
            objective: Objective::Rows(Loss::CrossEntropy {
                class_weights: (case.extras == Extras::All).then(|| {
                    (0..n_outputs).map(|c| 1.0 + c as f32 + head as f32 / 100.0).collect()
                }),
                label_smoothing: 0.0,
            }),
            dropout: if case.extras == Extras::All { 0.1 } else { 0.0 },
            optimizer: Optimizer { lr: 1e-3 * (1.0 + head as f64 / 50.0), ..Optimizer::default() },
            stopping: None,
            epochs: EPOCHS,
            batch_size: BATCH_SIZE,
            ..HeadSpec::new(case.network.clone())
        })
        .collect();
    let transform = Transform::standardize(&view, &samples).expect("rows in memory");
    let data = BankData {
        view: &view,
        transform: &transform,
        sets: &[SampleSet { targets: &targets, train: &samples, validation: &[], evaluator: &() }],
    };
    let settings =
        BankSettings { shuffles: case.extras != Extras::None, ..BankSettings::default() };
    let start = Instant::now();
    let heads = bank::train(&specs, &data, settings, &());
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(heads.expect("heads that converge").len(), case.n_heads);
    seconds
}

/// Measures the GFLOP/s of a product of two large matrices on all threads.
fn large_product_rate() -> f64 {
    let threads = rayon::current_num_threads();
    let matrix = || Array2::from_shape_fn((LARGE, LARGE), |(i, j)| (i * 7 + j * 3) as f32 % 5.0);
    let mut all: Vec<[Array2<f32>; 3]> =
        (0..threads).map(|_| [matrix(), matrix(), matrix()]).collect();
    let start = Instant::now();
    all.par_iter_mut().for_each(|[left, right, out]| {
        multiply(left.view(), right.view(), out.view_mut());
    });
    let operations = threads as f64 * 2.0 * (LARGE as f64).powi(3);
    operations / start.elapsed().as_secs_f64() / 1e9
}
