//! The types that a program starts with, which the crate shows at its root: texts to an array, an array to a head. Pipeline
//! files are read by [`Experiment`](crate::Experiment), saved runs by [`Predictor`](crate::Predictor), caches by
//! [`Cache`](crate::Cache).

mod embedder;

pub use embedder::{Embedder, EmbedderOptions};
