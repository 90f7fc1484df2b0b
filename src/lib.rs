//! **frostbert** runs a frozen BERT once over a corpus, keeps what it said in Parquet, and trains light heads over that.
//!
//! The folders read as the program's sentence:
//!
//! ```text
//! data -> encoder -> cache -> features -> head bank -> metrics -> report
//! ```
//!
//! A pipeline file ([`config::settings::Pipeline`]) names texts, a model and a head. Stage 1
//! ([`extraction`]) reads examples ([`data`]), tokenises them, runs the checkpoint through ONNX Runtime
//! ([`encoder`]), keeps each document's hidden states (pooled, per word, or per token), and commits them shard by shard to
//! a content-addressed [`cache`] that knows no labels. Stage 2 ([`training`]) reads rows of states back, from memory
//! or shard by shard ([`features`]), joins them with what they are to be ([`tasks`]: labels of texts and pairs,
//! numbers, tags of words, answers to questions), trains a bank of heads ([`head`], with the losses and optimisers of
//! [`train`]), measures ([`metrics`]), holds many heads against each other ([`sweep`], [`selection`]) and writes a run folder
//! ([`report`]) that can be replayed bit by bit ([`run_folder::lock`]). [`prediction::predictor`] applies its head to new
//! texts, [`prediction::similar`] compares texts by their states alone.
//!
//! The cache is a crate of its own, `frostbert-cache`, for programs that need neither ONNX Runtime nor a tokenizer; it
//! stands here as [`cache`]. A file imports only from modules that stand below its own in the list here; `encoder` does
//! not know the cache, nor the cache it; the heads see numbers, never texts or files. The library never prints, never exits and never reads the
//! environment: what it has to say while it works goes to a [`progress::Progress`].
//!
//! ```no_run
//! use frostbert::{experiment::Experiment, extraction::machine::Machine};
//!
//! let experiment = Experiment::read("pipelines/sentiment.toml", &[])?;
//! let machine = Machine::new("runtime/libonnxruntime.so", 2);
//! let report = experiment.run(&machine, &())?;
//! println!("{}", report.folder().display());
//! # Ok::<(), frostbert::error::Error>(())
//! ```
//!
//! Two features, both on by default: `cli` is the program with what only it needs (clap, indicatif, anyhow), `hub` fetches
//! models from the Hugging Face hub. A library that needs neither sets `default-features = false`.
//!
//! Each module works alone: `examples/` trains a head step by step, hands cached states to `linfa`, and predicts with a
//! saved run. What heads compute is written down in docs/heads.md, how they are trained in docs/training.md.

mod api;

pub mod experiment;

pub mod sweep;

pub mod training;

pub mod prediction;

pub mod doctor;

pub mod run_folder;

pub mod tasks;

pub mod extraction;

pub mod report;

pub mod selection;

pub mod config;

pub mod head;

pub mod train;

pub mod metrics;

pub mod features;

pub mod encoder;

pub mod data;

pub mod error;

#[doc(inline)]
pub use frostbert_cache as cache;
#[doc(inline)]
pub use frostbert_cache::{fence, fingerprint, progress, states, wording};

pub use ndarray;

// Texts to arrays.
pub use api::{Embedder, EmbedderOptions};
#[doc(inline)]
pub use encoder::{
    device::{Device, Precision},
    windows::Overflow,
};
#[doc(inline)]
pub use extraction::machine::Machine;

// Arrays to heads.
pub use api::{Classifier, FitHead, FitOptions, NetworkOptions, fit, fit_with};

// Saved runs.
#[doc(inline)]
pub use data::Record;
#[doc(inline)]
pub use prediction::{
    predictor::{EntitySpan, Prediction, Predictor},
    saved_run::SavedRun,
};

// Caches.
#[doc(inline)]
pub use frostbert_cache::{Cache, Dtype, Key, Mode, Pooling, StateId, StateKind};

// Experiments.
#[doc(inline)]
pub use config::settings::Pipeline;
#[doc(inline)]
pub use experiment::{Experiment, HeadsReport, RunReport, TaskReport};
#[doc(inline)]
pub use extraction::extract::ExtractReport;
#[doc(inline)]
pub use metrics::{
    metric::Metric,
    scores::{Score, Scores},
};
#[doc(inline)]
pub use sweep::SweepReport;
#[doc(inline)]
pub use tasks::{TaskMetrics, measure::RunMetrics};
#[doc(inline)]
pub use training::train::TrainReport;

// What goes wrong, and how it is getting on.
#[doc(inline)]
pub use error::{Error, Result};
#[doc(inline)]
pub use frostbert_cache::{IoError, progress::Progress};
