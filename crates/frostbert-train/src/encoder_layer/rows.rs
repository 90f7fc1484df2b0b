//! The element-wise parts of a layer: GELU, the softmax of scores, and their gradients.

use multiversion::multiversion;

use crate::{
    real::Real,
    vector::{dot, sum},
};

/// `out += values`.
#[multiversion(targets = "simd")]
pub(super) fn add<F: Real>(out: &mut [F], values: &[F]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += *value;
    }
}

/// `x Phi(x) = x (1 + erf(x / sqrt 2)) / 2`.
///
/// Hidden layers of heads have the same function with another `erf`, which is less accurate far below 0: changing it
/// would change the bytes of such heads.
#[multiversion(targets = "simd")]
pub(super) fn gelu<F: Real>(units: &[F], active: &mut [F]) {
    for (unit, active) in units.iter().zip(active) {
        *active = *unit * unit.normal_cdf_and_density().0;
    }
}

/// Multiplies gradients by the derivative of [`gelu`], `Phi(x) + x e^(-x^2 / 2) / sqrt(2 pi)`.
#[multiversion(targets = "simd")]
pub(super) fn gelu_backward<F: Real>(units: &[F], gradient: &mut [F]) {
    for (unit, gradient) in units.iter().zip(gradient) {
        let (cdf, density) = unit.normal_cdf_and_density();
        *gradient *= cdf + *unit * density;
    }
}

/// Turns scores into shares that sum to 1.
///
/// The softmax of heads adds up in order and divides by the sum. This is faster, but would change the last bits of theirs.
#[multiversion(targets = "simd")]
pub(super) fn softmax<F: Real>(scores: &mut [F]) {
    let maximum = scores.iter().fold(F::neg_infinity(), |max, score| max.max(*score));
    for score in &mut *scores {
        *score = (*score - maximum).fast_exp();
    }
    let inverse = F::one() / sum(scores);
    for score in scores {
        *score *= inverse;
    }
}

/// Turns `dL/dshares` into `dL/dscores` times `scale`: `a (g - sum_j a_j g_j)`.
#[multiversion(targets = "simd")]
pub(super) fn softmax_backward<F: Real>(shares: &[F], scale: F, gradient: &mut [F]) {
    let mean = dot(shares, gradient);
    for (gradient, share) in gradient.iter_mut().zip(shares) {
        *gradient = *share * (*gradient - mean) * scale;
    }
}
