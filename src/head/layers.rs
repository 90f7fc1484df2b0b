//! The layers of a network, one file each: plain functions on slices and views, forward and backward.
//!
//! Row-major matrices of as many columns as their layer is wide are passed as slices. Gradients of parameters are added
//! to what is there; gradients of inputs are written.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod mix;
pub(crate) mod norm;
