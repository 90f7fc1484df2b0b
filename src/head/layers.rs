//! The layers of a network, one file each: plain functions on slices and views, forward and backward.
//!
//! Matrices are passed as row-major slices with as many columns as the layer is wide. Gradients of parameters are added
//! to the existing values; gradients of inputs are overwritten.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod mix;

use crate::train::layer_norm::{LayerNorm, RowSums};

/// The layer normalisation of hidden layers; the number is that of PyTorch's LayerNorm.
pub(crate) const LAYER_NORM: LayerNorm = LayerNorm { epsilon: 1e-5, sums: RowSums::InOrder };
