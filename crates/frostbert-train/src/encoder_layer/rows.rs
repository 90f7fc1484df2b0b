//! The element-wise parts of a layer: normalisation, GELU, the softmax of scores, and their gradients.

use multiversion::multiversion;

use crate::{
    real::Real,
    vector::{add_scaled, dot},
};

/// `out += values`.
#[multiversion(targets = "simd")]
pub(super) fn add<F: Real>(out: &mut [F], values: &[F]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += *value;
    }
}

/// `n = (x - mean(x)) / sqrt(var(x) + epsilon)` and `y = n g + b`, row by row. `normalised` holds `x` on entry and `n`
/// on return; `deviations` receives the square root of every row.
pub(super) fn normalise<F: Real>(
    gain: &[F],
    shift: &[F],
    epsilon: f32,
    normalised: &mut [F],
    deviations: &mut [F],
    y: &mut [F],
) {
    let width = gain.len();
    let rows = normalised.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
    for ((row, y), deviation) in rows.zip(deviations) {
        *deviation = normalise_row(gain, shift, F::of(f64::from(epsilon)), row, y);
    }
}

#[multiversion(targets = "simd")]
fn normalise_row<F: Real>(gain: &[F], shift: &[F], epsilon: F, row: &mut [F], y: &mut [F]) -> F {
    let n = F::of(row.len() as f64);
    let mean = sum(row) / n;
    row.iter_mut().for_each(|value| *value -= mean);
    let deviation = (dot(row, row) / n + epsilon).sqrt();
    let inverse = F::one() / deviation;
    for (((value, y), gain), shift) in row.iter_mut().zip(y).zip(gain).zip(shift) {
        *value *= inverse;
        *y = *value * *gain + *shift;
    }
    deviation
}

/// Turns `dL/dy` into `dL/dx`, in place, and adds to the gradients of gain and shift: with `e = g dL/dy`,
/// `dL/dx = (e - mean(e) - n mean(e n)) / deviation`.
pub(super) fn normalise_backward<F: Real>(
    gain: &[F],
    normalised: &[F],
    deviations: &[F],
    gradient: &mut [F],
    d_gain: &mut [F],
    d_shift: &mut [F],
) {
    let width = gain.len();
    let rows = normalised.chunks_exact(width).zip(gradient.chunks_exact_mut(width));
    for ((normalised, gradient), deviation) in rows.zip(deviations) {
        add_scaled(d_shift, F::one(), gradient);
        normalise_row_backward(gain, normalised, *deviation, gradient, d_gain);
    }
}

#[multiversion(targets = "simd")]
fn normalise_row_backward<F: Real>(
    gain: &[F],
    normalised: &[F],
    deviation: F,
    gradient: &mut [F],
    d_gain: &mut [F],
) {
    let n = F::of(gain.len() as f64);
    let values = gradient.iter_mut().zip(d_gain).zip(normalised).zip(gain);
    for (((value, d_gain), normalised), gain) in values {
        *d_gain += *value * *normalised;
        *value *= *gain;
    }
    let mean = sum(gradient) / n;
    let product = dot(gradient, normalised) / n;
    let inverse = F::one() / deviation;
    for (value, normalised) in gradient.iter_mut().zip(normalised) {
        *value = (*value - mean - *normalised * product) * inverse;
    }
}

/// `x Phi(x) = x (1 + erf(x / sqrt 2)) / 2`.
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

/// The sum of values, in 16 partial sums that are added at the end.
#[inline(always)]
fn sum<F: Real>(values: &[F]) -> F {
    let mut sums = [F::zero(); 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += *value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += *value;
    }
    sums.into_iter().fold(F::zero(), |total, sum| total + sum)
}
