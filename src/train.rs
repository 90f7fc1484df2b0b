//! The building blocks of the training loop: products, losses, optimisers, schedules, dropout, early stopping.
//!
//! Nothing here knows about texts, files or caches: numbers in, numbers out. The loop itself is in
//! [`crate::head::bank`].

pub(crate) mod aligned;
pub(crate) mod dropout;
pub(crate) mod early_stopping;
pub(crate) mod eigen;
pub(crate) mod exp;
pub(crate) mod gemm;
pub(crate) mod loss;
pub(crate) mod optimizer;
pub(crate) mod panel;
pub(crate) mod real;
pub(crate) mod schedule;
pub(crate) mod vector;
