//! The layers of a network, one file each: plain functions on slices and views, forward and backward.
//!
//! Matrices are passed as row-major slices with as many columns as the layer is wide. Gradients of parameters are added
//! to the existing values; gradients of inputs are overwritten.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod mix;
pub(crate) mod norm;
