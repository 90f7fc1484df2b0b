//! Trains a linear head with the library's own loop. After `make setup`, `cargo run --release --example train_head` reads
//! pipelines/sentiment.toml and prints how many test rows are right.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::Path;

use frostbert::{
    cache::{reader::CacheReader, states::StateId},
    internals::{
        config::settings::Pipeline,
        data::Part,
        error::Result,
        extraction::{extract, machine::Machine},
        features::FeatureView,
        head::{
            bank, network::NetworkSpec, saved::Head, spec::HeadSpec, targets::TargetTable,
            transform::Transform,
        },
        metrics::probability::predictions,
        training::train::load_dataset,
    },
};

fn main() -> Result<()> {
    let pipeline = Pipeline::read(Path::new("pipelines/sentiment.toml"), &[])?;
    let (right, n_rows) = train(&pipeline, "mean-L05".parse().expect("a state"))?;
    println!("{right} of {n_rows} test rows are right");
    Ok(())
}

pub(crate) fn train(pipeline: &Pipeline, state: StateId) -> Result<(usize, usize)> {
    let machine = Machine::new("runtime/libonnxruntime.so", 2);
    let extracted = extract::extract(pipeline, &machine, &())?;
    let cache = CacheReader::existing(&extracted.cache)?;
    let dataset = load_dataset(pipeline)?;
    let view = FeatureView::read(&cache, state, &dataset.keys())?; // [documents, hidden]

    let [train, validation, test] = Part::ALL.map(|part| dataset.part(part));
    let transform = Transform::standardize(&view, &train)?;
    let all: Vec<u32> = (0..view.n_samples() as u32).collect();
    let classes = dataset.labels_of(&all);
    let samples = bank::SampleSet {
        targets: &TargetTable::Classes(classes.clone()),
        train: &train,
        validation: &validation,
        evaluator: &(), // no metrics: every epoch is trained
    };
    let data = bank::BankData { view: &view, transform: &transform, sets: &[samples] };
    let network = NetworkSpec::linear(view.n_features(), dataset.labels.len());
    let spec = HeadSpec { epochs: 20, stopping: None, ..HeadSpec::new(network.clone()) };
    let mut heads = bank::train(&[spec], &data, bank::BankSettings::default(), &())?;
    let head = Head::of(network, heads.remove(0), transform); // on states as they are stored
    let predicted = predictions(head.logits(&view)?.view());
    let is_right = |row: &&u32| predicted[**row as usize] == classes[**row as usize] as usize;
    Ok((test.iter().filter(is_right).count(), test.len()))
}
