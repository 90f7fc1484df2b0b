//! The building blocks of the training loop: products, losses, optimisers, schedules, dropout, early stopping.
//!
//! Nothing here knows about texts, files or caches: numbers in, numbers out. The loop itself is in frostbert's
//! `head::bank`.
//!
//! This is a crate of its own so that a build for tests can optimise it in full and the rest a little. Only code that is
//! compiled here gains by that: a function for one number type, and not a generic one, which is compiled where it is used.

pub mod aligned;
pub mod dropout;
pub mod early_stopping;
pub mod eigen;
pub mod encoder_layer;
pub mod error;
pub mod exp;
pub mod gemm;
pub mod layer_norm;
pub mod loss;
pub mod optimizer;
pub mod panel;
pub mod real;
pub mod schedule;
pub mod vector;

pub use error::{Error, Result};
