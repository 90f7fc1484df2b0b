//! What the training loop uses: products, losses, optimisers, schedules, dropout, early stopping.
//!
//! Nothing here knows of texts, files or caches: numbers in, numbers out. The loop itself is in [`crate::head::bank`].

pub mod aligned;
pub mod dropout;
pub mod early_stopping;
pub mod eigen;
pub mod exp;
pub mod gemm;
pub mod loss;
pub mod optimizer;
pub mod panel;
pub mod real;
pub mod schedule;
pub mod vector;
