//! Any algorithm of the linfa project over cached states: a support vector machine with a Gaussian kernel, which is no
//! head of a pipeline.
//!
//! ```text
//! make setup
//! cargo run --release --example linfa_svm
//! ```
//!
//! learns which reviews of data/reviews.csv are about a product or a film, and prints how many test rows are right.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{error::Error, path::Path};

use frostbert::{
    cache::{reader::CacheReader, states::StateId},
    internals::{
        config::settings::Pipeline,
        data::Part,
        extraction::{extract, machine::Machine},
        features::{FeatureView, linfa::dataset, scaler::Scaler},
        training::train::load_dataset,
    },
};
use linfa::prelude::*;
use linfa_svm::Svm;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let overrides = ["data.train.label=topic".to_string()];
    let pipeline = Pipeline::read(Path::new("pipelines/sentiment.toml"), &overrides)?;
    let (right, n_rows) = classify(&pipeline, "mean-L05".parse()?)?;
    println!("{right} of {n_rows} test rows are right");
    Ok(())
}

pub(crate) fn classify(pipeline: &Pipeline, state: StateId) -> Result<(usize, usize)> {
    let machine = Machine::new("runtime/libonnxruntime.so", 2);
    let extracted = extract::extract(pipeline, &machine, &())?;
    let cache = CacheReader::existing(&extracted.cache)?;
    let data = load_dataset(pipeline)?;
    let view = FeatureView::read(&cache, state, &data.keys())?; // [documents, hidden]
    let [train, _, test] = Part::ALL.map(|part| data.part(part));
    let scaler = Scaler::fit(&view, &train)?;

    // linfa datasets: records [rows, features], and whether a row is of class 0.
    let train = dataset(&view, &scaler, &train, &data.labels_of(&train))?.map_targets(|c| *c == 0);
    let test = dataset(&view, &scaler, &test, &data.labels_of(&test))?.map_targets(|c| *c == 0);
    // exp(-|x - y|^2 / width); two scaled rows of D features are some sqrt(2 D) apart.
    let width = 2.0 * view.n_features() as f64;
    let parameters = Svm::<f64, bool>::params().gaussian_kernel(width);
    let predicted = parameters.fit(&train)?.predict(test.records());
    let pairs = predicted.iter().zip(test.targets());
    let right = pairs.filter(|(one, other)| one == other).count();
    Ok((right, test.nsamples()))
}
