//! Logistic regression for every C and every fold, as `scripts/bench-logistic` compares it with scikit-learn's.
//!
//! ```text
//! cargo bench --bench logistic -- FOLDER TOLERANCE ROUNDS [--standardize] C...
//! ```
//!
//! FOLDER contains `rows.f32` (row-major), `labels.u32` and `folds.u32`, with one number for each row, in native byte
//! order. Fold `k` is trained on the rows of the other folds. Prints one JSON object: the seconds of the best of ROUNDS
//! (from the rows in memory to the heads), and the statistics of the fit for every C and fold. Writes the heads to
//! `heads.f32`, one after another, by C and then by fold: `[classes, features]`, then the biases.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::{fs, path::Path, time::Instant};

use frostbert::{
    cache::states::{Dtype, Pooling, StateId},
    internals::{
        features::FeatureView,
        head::{
            logistic::{self, ClassRows, LogisticFit, LogisticSettings, LogisticSpec},
            transform::Transform,
        },
    },
};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo passes --bench.
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.retain(|argument| argument != "--bench");
    let standardize = arguments.iter().any(|argument| argument == "--standardize");
    arguments.retain(|argument| argument != "--standardize");
    let [folder, tolerance, rounds, c @ ..] = &arguments[..] else {
        println!("skipped: name a folder of rows, a tolerance, a number of rounds and values of C");
        return Ok(());
    };
    let folder = Path::new(folder);
    let labels = numbers(&folder.join("labels.u32"))?;
    let folds = numbers(&folder.join("folds.u32"))?;
    let bytes = fs::read(folder.join("rows.f32"))?;
    let n_features = bytes.len() / 4 / labels.len();
    let view =
        FeatureView::from_bytes(StateId::pooled(Pooling::Mean, 1), n_features, Dtype::F32, bytes);
    let n_folds = folds.iter().max().map_or(0, |last| last + 1);
    let row_sets: Vec<Vec<u32>> = (0..n_folds)
        .map(|fold| {
            let rows = 0..labels.len() as u32;
            rows.filter(|row| folds[*row as usize] != fold).collect()
        })
        .collect();
    let row_sets: Vec<&[u32]> = row_sets.iter().map(Vec::as_slice).collect();
    let mut specs = Vec::new();
    for c in c {
        let c: f64 = c.parse()?;
        specs.extend((0..row_sets.len()).map(|rows| LogisticSpec { c, class_weights: None, rows }));
    }
    let settings =
        LogisticSettings { tolerance: tolerance.parse()?, ..LogisticSettings::default() };
    let mut seconds = f64::INFINITY;
    let mut fits: Vec<LogisticFit> = Vec::new();
    for _ in 0..rounds.parse()? {
        let start = Instant::now();
        let transform = if standardize {
            Transform::standardize(&view, &(0..labels.len() as u32).collect::<Vec<_>>())?
        } else {
            Transform::identity(n_features)
        };
        let data = ClassRows {
            view: &view,
            transform: &transform,
            labels: &labels,
            n_classes: labels.iter().max().map_or(0, |last| *last as usize + 1),
        };
        fits = logistic::fit(&data, &row_sets, &specs, settings, &())?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    let heads: Vec<u8> = fits
        .iter()
        .flat_map(|fit| &fit.head.parameters)
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    fs::write(folder.join("heads.f32"), heads)?;
    let fits = specs.iter().zip(&fits).map(|(spec, fit)| {
        json!({
            "c": spec.c,
            "fold": spec.rows,
            "iterations": fit.iterations,
            "evaluations": fit.evaluations,
            "gradient_norm": fit.gradient_norm,
            "loss": fit.loss,
        })
    });
    println!("{}", json!({ "seconds": seconds, "fits": fits.collect::<Vec<_>>() }));
    Ok(())
}

fn numbers(path: &Path) -> Result<Vec<u32>, std::io::Error> {
    let bytes = fs::read(path)?;
    let words = bytes.chunks_exact(4);
    Ok(words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect())
}
