//! The types that a program starts with, re-exported at the root of the crate: from texts to an array, and from an
//! array to a head. Pipeline files are read by [`Experiment`](crate::Experiment), saved runs by
//! [`Predictor`](crate::Predictor), and caches by [`Cache`](crate::Cache).

mod classifier;
mod embedder;
mod fit;
mod fit_options;

pub use classifier::Classifier;
pub use embedder::{Embedder, EmbedderOptions};
pub use fit::{fit, fit_with};
pub use fit_options::{FitHead, FitOptions, NetworkOptions};
