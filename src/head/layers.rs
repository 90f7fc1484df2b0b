//! The layers of a network, one file each: plain functions on slices and views, forward and backward.
//!
//! Row-major matrices of as many columns as their layer is wide are passed as slices. Gradients of parameters are added
//! to what is there; gradients of inputs are written.

pub mod activation;
pub mod attention;
pub mod dense;
pub mod mix;
pub mod norm;
