//! Layer normalisation (Ba, Kiros and Hinton 2016).

use crate::train::{
    real::Real,
    vector::{add_scaled, dot},
};

/// Added to the variance, as in PyTorch's LayerNorm.
pub(crate) const EPSILON: f64 = 1e-5;

/// `n = (x - mean(x)) / sqrt(var(x) + 1e-5)` and `y = n g + b`, row by row; the variance divides by `width`, not by
/// `width - 1`.
///
/// `normalised` holds `x` on entry and `n` on return; `deviations` receives the square root of every row.
///
/// # Panics
/// Panics if lengths do not fit.
pub(crate) fn forward<F: Real>(
    gain: &[F],
    bias: &[F],
    normalised: &mut [F],
    deviations: &mut [F],
    y: &mut [F],
) {
    let width = gain.len();
    let n = F::of(width as f64);
    assert!(y.len() == normalised.len() && deviations.len() * width == y.len());
    let rows = normalised.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
    for ((row, y), deviation) in rows.zip(deviations) {
        let mean = row.iter().fold(F::zero(), |sum, value| sum + *value) / n;
        row.iter_mut().for_each(|value| *value -= mean);
        *deviation = (dot(row, row) / n + F::of(EPSILON)).sqrt();
        let inverse = F::one() / *deviation;
        for (((value, y), gain), bias) in row.iter_mut().zip(y).zip(gain).zip(bias) {
            *value *= inverse;
            *y = *value * *gain + *bias;
        }
    }
}

/// Turns `dL/dy` into `dL/dx`, in place, and adds to the gradients of gain and bias.
///
/// With `e = g dL/dy`: `dL/dx = (e - mean(e) - n mean(e n)) / deviation`.
///
/// # Panics
/// Panics if lengths do not fit.
pub(crate) fn backward<F: Real>(
    gain: &[F],
    normalised: &[F],
    deviations: &[F],
    gradient: &mut [F],
    d_gain: &mut [F],
    d_bias: &mut [F],
) {
    let width = gain.len();
    let n = F::of(width as f64);
    assert!(gradient.len() == normalised.len() && deviations.len() * width == gradient.len());
    let rows = normalised.chunks_exact(width).zip(gradient.chunks_exact_mut(width));
    for ((normalised, gradient), deviation) in rows.zip(deviations) {
        add_scaled(d_bias, F::one(), gradient);
        let mut sum = F::zero();
        for unit in 0..width {
            d_gain[unit] += gradient[unit] * normalised[unit];
            gradient[unit] *= gain[unit];
            sum += gradient[unit];
        }
        let (mean, slope) = (sum / n, dot(gradient, normalised) / n);
        let inverse = F::one() / *deviation;
        for (gradient, normalised) in gradient.iter_mut().zip(normalised) {
            *gradient = (*gradient - mean - *normalised * slope) * inverse;
        }
    }
}
