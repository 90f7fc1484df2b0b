//! Layer normalisation (Ba, Kiros and Hinton 2016), row by row: in hidden layers of heads and in layers of an encoder.

use multiversion::multiversion;

use crate::{
    real::Real,
    vector::{add_scaled, dot, sum},
};

/// `n = (x - mean(x)) / sqrt(var(x) + epsilon)` and `y = n g + b` for every row; the variance divides by the width, not
/// by the width minus 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub epsilon: f64,
    /// How rows are summed for their means.
    pub sums: RowSums,
}

/// How the values of a row are summed. It decides the last bits, so it must never change for saved heads to stay the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSums {
    /// From the first value to the last.
    InOrder,
    /// In 16 partial sums that are added at the end, which is faster.
    InParts,
}

impl RowSums {
    #[inline(always)]
    fn of<F: Real>(self, row: &[F]) -> F {
        match self {
            RowSums::InOrder => row.iter().fold(F::zero(), |sum, value| sum + *value),
            RowSums::InParts => sum(row),
        }
    }
}

impl LayerNorm {
    /// Normalises rows: `normalised` holds `x` on entry and `n` on return; `deviations` receives the square root of every
    /// row.
    ///
    /// # Panics
    /// Panics if lengths do not fit.
    pub fn forward<F: Real>(
        self,
        gain: &[F],
        bias: &[F],
        normalised: &mut [F],
        deviations: &mut [F],
        y: &mut [F],
    ) {
        let width = gain.len();
        assert!(y.len() == normalised.len() && deviations.len() * width == y.len());
        let rows = normalised.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
        for ((row, y), deviation) in rows.zip(deviations) {
            *deviation = forward_row(gain, bias, F::of(self.epsilon), self.sums, row, y);
        }
    }

    /// Turns `dL/dy` into `dL/dx`, in place, and adds to the gradients of gain and bias.
    ///
    /// With `e = g dL/dy`: `dL/dx = (e - mean(e) - n mean(e n)) / deviation`.
    ///
    /// # Panics
    /// Panics if lengths do not fit.
    pub fn backward<F: Real>(
        self,
        gain: &[F],
        normalised: &[F],
        deviations: &[F],
        gradient: &mut [F],
        d_gain: &mut [F],
        d_bias: &mut [F],
    ) {
        let width = gain.len();
        assert!(gradient.len() == normalised.len() && deviations.len() * width == gradient.len());
        let rows = normalised.chunks_exact(width).zip(gradient.chunks_exact_mut(width));
        for ((normalised, gradient), deviation) in rows.zip(deviations) {
            add_scaled(d_bias, F::one(), gradient);
            backward_row(gain, normalised, *deviation, self.sums, gradient, d_gain);
        }
    }
}

#[multiversion(targets = "simd")]
fn forward_row<F: Real>(
    gain: &[F],
    bias: &[F],
    epsilon: F,
    sums: RowSums,
    row: &mut [F],
    y: &mut [F],
) -> F {
    let n = F::of(row.len() as f64);
    let mean = sums.of(row) / n;
    row.iter_mut().for_each(|value| *value -= mean);
    let deviation = (dot(row, row) / n + epsilon).sqrt();
    let inverse = F::one() / deviation;
    for (((value, y), gain), bias) in row.iter_mut().zip(y).zip(gain).zip(bias) {
        *value *= inverse;
        *y = *value * *gain + *bias;
    }
    deviation
}

#[multiversion(targets = "simd")]
fn backward_row<F: Real>(
    gain: &[F],
    normalised: &[F],
    deviation: F,
    sums: RowSums,
    gradient: &mut [F],
    d_gain: &mut [F],
) {
    let n = F::of(gain.len() as f64);
    let values = gradient.iter_mut().zip(d_gain).zip(normalised).zip(gain);
    for (((value, d_gain), normalised), gain) in values {
        *d_gain += *value * *normalised;
        *value *= *gain;
    }
    let mean = sums.of(gradient) / n;
    let product = dot(gradient, normalised) / n;
    let inverse = F::one() / deviation;
    for (value, normalised) in gradient.iter_mut().zip(normalised) {
        *value = (*value - mean - *normalised * product) * inverse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither a multiple of 16 nor below it.
    const WIDTH: usize = 19;

    /// Saved heads, and heads that are trained again, depend on every bit.
    #[test]
    fn rows_are_summed_as_is_said_to_the_last_bit() {
        let x: Vec<f32> = (0..WIDTH).map(|i| 3.0 + (i as f32 * 0.7).sin()).collect();
        let parts: Vec<f32> = (0..16).map(|part| x.iter().skip(part).step_by(16).sum()).collect();
        let in_order: f32 = x.iter().sum();
        let in_parts: f32 = parts.iter().sum();
        assert_ne!(in_order.to_bits(), in_parts.to_bits());
        for (sums, sum) in [(RowSums::InOrder, in_order), (RowSums::InParts, in_parts)] {
            let norm = LayerNorm { epsilon: 1e-5, sums };
            let mean = sum / WIDTH as f32;
            let centred: Vec<f32> = x.iter().map(|value| value - mean).collect();
            let deviation = (dot(&centred, &centred) / WIDTH as f32 + 1e-5f32).sqrt();
            let inverse = 1.0 / deviation;
            let expected: Vec<f32> = centred.iter().map(|value| value * inverse).collect();
            let (mut normalised, mut deviations) = (x.clone(), [0.0; 1]);
            let (ones, zeros) = ([1.0; WIDTH], [0.0; WIDTH]);
            norm.forward(&ones, &zeros, &mut normalised, &mut deviations, &mut [0.0; WIDTH]);
            assert_eq!((&normalised, deviations[0]), (&expected, deviation));
        }
    }

    #[test]
    fn rows_have_mean_0_and_variance_1_before_gain_and_bias_however_they_are_summed() {
        let x: Vec<f64> = (0..2 * WIDTH).map(|i| 3.0 + (i as f64 * 0.7).sin()).collect();
        let gain: Vec<f64> = (0..WIDTH).map(|i| 1.0 + i as f64).collect();
        let bias: Vec<f64> = (0..WIDTH).map(|i| 0.5 * i as f64).collect();
        for sums in [RowSums::InOrder, RowSums::InParts] {
            let norm = LayerNorm { epsilon: 0.0, sums };
            let (mut normalised, mut deviations) = (x.clone(), [0.0; 2]);
            let mut y = vec![0.0; x.len()];
            norm.forward(&gain, &bias, &mut normalised, &mut deviations, &mut y);
            let rows = normalised.chunks_exact(WIDTH).zip(y.chunks_exact(WIDTH));
            for ((row, y), x) in rows.zip(x.chunks_exact(WIDTH)) {
                let mean = row.iter().sum::<f64>() / WIDTH as f64;
                let variance = row.iter().map(|value| value * value).sum::<f64>() / WIDTH as f64;
                assert!(mean.abs() < 1e-12 && (variance - 1.0).abs() < 1e-12, "{mean} {variance}");
                // The order of the values is that of the row.
                assert_eq!(row[0] < row[1], x[0] < x[1]);
                for unit in 0..WIDTH {
                    assert_eq!(y[unit], row[unit] * gain[unit] + bias[unit]);
                }
            }
            assert!(deviations.iter().all(|deviation| (0.5..1.0).contains(deviation)));
        }
    }
}
