//! **frostbert** runs a frozen BERT once over a corpus with ONNX Runtime, stores its hidden states (embeddings) in a cache
//! of Parquet files, and trains lightweight heads on them: classifiers, taggers, span predictors.
//!
//! ```no_run
//! use frostbert::{Embedder, EmbedderOptions, FitOptions, Pooling, fit};
//!
//! let mut embedder = Embedder::open("models/minilm", &EmbedderOptions::default())?;
//! let texts = ["I would buy it again.", "It broke after a week.", "Works well.", "Never again."];
//! let states = embedder.embed(&texts, Pooling::Mean)?; // [texts, hidden]
//! let head = fit(states.view(), &["good", "bad", "good", "bad"], &FitOptions::default())?;
//! let new = embedder.embed(&["It works."], Pooling::Mean)?;
//! let probabilities = head.predict_proba(new.view())?; // [1, classes], columns as head.labels()
//! # Ok::<(), frostbert::Error>(())
//! ```
//!
//! There are five entry points, each with a short example in `examples/`:
//!
//! | to | use | example |
//! |---|---|---|
//! | embed texts into an array | [`Embedder::open`], [`Embedder::embed`] | `embed.rs` |
//! | train a head on an array | [`fit`], [`Classifier::predict_proba`] | `fit.rs` |
//! | predict with a saved run | [`Predictor::open_run`], [`Predictor::predict_texts`] | `predict.rs` |
//! | read rows from a cache | [`Cache::open`], [`Cache::rows`], [`Key::of`] | `cache_rows.rs` |
//! | run a pipeline file | [`Experiment::open`], [`Experiment::run`] | `experiment.rs` |
//!
//! The first two keep everything in memory. For a large corpus, or to try several heads on one, write a pipeline file
//! and run it as an [`Experiment`]: its cache stores every text once, is extended when data, layers or poolings are
//! added, and survives being killed. Training streams the states from disk if they do not fit in memory.
//!
//! ONNX Runtime is a shared library that is loaded together with a model; a [`Machine`] holds its path. Arrays are
//! those of the crate [`ndarray`], which is re-exported here. Every failure is an [`Error`] (or, for a cache, a
//! [`cache::Error`], which converts to it) whose message names the file and what was expected of it; [`Error::hint`]
//! says what to do about it. The library never prints, never exits and never reads environment variables; long
//! operations report to a [`Progress`].
//!
//! Three features are enabled by default: `cli` is the program and its dependencies (clap, indicatif, anyhow), `hub`
//! fetches models from the Hugging Face hub, and `serve` is the program's HTTP server. A library that needs none of them
//! sets `default-features = false`. A fourth, `remote`, lets several machines share an extraction in a bucket of an object
//! store.
//!
//! # Architecture
//!
//! The types above are a thin layer over these modules:
//!
//! ```text
//! data -> encoder -> cache -> features -> head bank -> metrics -> report
//! ```
//!
//! A pipeline file names texts, a model and a head. Stage 1 ([`extraction`]) reads examples ([`data`]), tokenises them,
//! runs the checkpoint through ONNX Runtime ([`encoder`]), and commits each document's hidden states (pooled, per word,
//! or per token) shard by shard to a content-addressed [`cache`] that does not depend on labels. Stage 2 ([`training`])
//! reads rows of states back, from memory or shard by shard ([`features`]), joins them with their targets ([`tasks`]:
//! labels of texts and pairs, numbers, tags of words, answers to questions), trains a bank of heads ([`head`], with the
//! losses and optimisers of [`train`]), evaluates them ([`metrics`]), compares many of them ([`sweep`], [`selection`])
//! and writes a run folder ([`report`]) that can be replayed bit by bit ([`run_folder::lock`]). [`prediction`] applies
//! saved runs to new texts and compares texts by their states; [`server`] does so for many requests at a time.
//!
//! The cache is a separate crate, `frostbert-cache`, for programs that need neither ONNX Runtime nor a tokenizer, and
//! [`train`] is `frostbert-train`, so that even a build for tests optimises it in full. A file imports only from modules
//! below its own in the list of docs/architecture.md. docs/heads.md documents what heads compute, and docs/training.md
//! how they are trained.

mod api;
mod config;
mod data;
mod distributed;
mod doctor;
mod encoder;
mod error;
mod experiment;
mod export;
mod extraction;
mod features;
mod head;
mod metrics;
mod page;
mod prediction;
mod report;
mod run_folder;
mod selection;
mod server;
mod sweep;
mod tasks;
mod training;

#[doc(hidden)]
pub mod internals;

// A crate for the sake of its profile: see docs/architecture.md.
use frostbert_train as train;

pub use api::{Classifier, FitHead, FitOptions, NetworkOptions, fit, fit_with};
pub use api::{Embedder, EmbedderOptions};
#[doc(inline)]
pub use data::{Prompts, Record};
#[doc(inline)]
pub use encoder::{
    device::{Device, Precision},
    windows::Overflow,
};
#[doc(inline)]
pub use error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use experiment::{Experiment, HeadsReport, RunReport, TaskReport, TasksReport};
#[doc(inline)]
pub use extraction::extract::ExtractReport;
#[doc(inline)]
pub use extraction::machine::Machine;
#[doc(inline)]
pub use frostbert_cache as cache;
#[doc(inline)]
pub use frostbert_cache::{Cache, Dtype, Key, Mode, Pooling, StateId, StateKind};
#[doc(inline)]
pub use frostbert_cache::{IoError, progress::Progress};
#[doc(inline)]
pub use metrics::{
    metric::Metric,
    scores::{Score, Scores},
};
pub use ndarray;
#[doc(inline)]
pub use prediction::{predictor::Predictor, saved_run::SavedRun};
#[doc(inline)]
pub use sweep::{Best, SweepReport};
#[doc(inline)]
pub use tasks::{
    TaskMetrics,
    measure::RunMetrics,
    prediction::{EntitySpan, Prediction},
};
#[doc(inline)]
pub use training::train::TrainReport;
