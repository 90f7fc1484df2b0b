//! 8-bit weights of linear layers, and what goes with 8-bit inputs that have a zero point for each row.
//!
//! A weight matrix `W [N, K]` (`[out, in]`, as it lies in a checkpoint) is quantised per output, symmetrically:
//!
//! ```text
//! scale_n = max_k |W_nk| / 127        Q_nk = round(W_nk / scale_n)        |W_nk - scale_n Q_nk| <= scale_n / 2
//! ```
//!
//! An input row `x [K]` is quantised when it comes, by the range of this row alone, 0 included, so that it does not depend on
//! the rows beside it:
//!
//! ```text
//! s = (max(x, 0) - min(x, 0)) / 255        z = round(-min(x, 0) / s)        q_k = round(x_k / s) + z,  0 <= q_k <= 255
//! ```
//!
//! Then `(W x)_n` is about `scale_n s sum_k Q_nk (q_k - z) = scale_n s (sum_k Q_nk q_k - z sum_k Q_nk)`. ONNX Runtime's integer
//! matrix product takes one zero point for the whole batch, not one for each row. So each row of inputs gets J further
//! columns, all of them `z`, and the weights J further rows that add up to `-sum_k Q_nk` ([`Quantized::corrections`]): the
//! product of integers is then exactly the sum above, for one or two rows in a hundred more.
//!
//! Some channels of a normalised state are many times as large as the others, and would take the range of their row for
//! themselves. Before it is quantised, each channel of such a state is divided by a factor, and its weights are multiplied
//! with it ([`smoothing`]). The factors come from the checkpoint alone, never from texts.
//!
//! Symmetric weights per output and asymmetric inputs per token are the usual choice where all is 8-bit integers: Jacob et
//! al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018 (section 2.3 is
//! the sum above).

/// The largest magnitude of a quantised weight.
pub(crate) const LARGEST: i8 = 127;

/// Numbers that processors multiply at a time: the number of corrections is a multiple of it.
const CORRECTIONS_MULTIPLE: usize = 4;

/// `[K]`: what the channels of `LayerNorm(x) = gamma normed(x) + beta` are divided by before they are quantised, and the
/// weights `[N, K]` that read them multiplied with:
///
/// ```text
/// c_k = sqrt(m_k / max_n |W_nk|)        m_k = sqrt(gamma_k^2 + beta_k^2)
/// ```
///
/// `m_k` is the root mean square of a channel whose normed values have mean 0 and variance 1. Xiao et al., "SmoothQuant:
/// Accurate and Efficient Post-Training Quantization for Large Language Models", 2023, with alpha 1/2 and `m` from the
/// normalisation where they take maxima over a corpus. 1 for a channel that has no such factor.
///
/// ```
/// use frostbert::internals::encoder::quantize::smoothing;
///
/// let factors = smoothing(&[3.0, 1.0, 0.0], &[4.0, 0.0, 0.0], &[0.2, -0.25, 1.0, 0.1, 0.1, 1.0]);
/// // sqrt(5 / 0.2), sqrt(1 / 0.25), and a channel of zeros.
/// assert_eq!(factors, [5.0, 2.0, 1.0]);
/// ```
pub fn smoothing(gamma: &[f32], beta: &[f32], weight: &[f32]) -> Vec<f32> {
    let n_channels = gamma.len();
    let channels = gamma.iter().zip(beta).enumerate();
    channels
        .map(|(channel, (gamma, beta))| {
            let weights = weight.iter().skip(channel).step_by(n_channels);
            let largest = weights.fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            let factor = ((gamma * gamma + beta * beta).sqrt() / largest).sqrt();
            if factor.is_normal() { factor } else { 1.0 }
        })
        .collect()
}

/// A weight matrix in 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// K.
    pub n_inputs: usize,
    /// `[K, N]`, transposed: the N weights of the first input come first. From -127 to 127.
    pub values: Vec<i8>,
    /// `[N]`: what a value of each output is multiplied with.
    pub scales: Vec<f32>,
}

impl Quantized {
    /// Quantises `weight [N, K]`, row by row.
    ///
    /// The scale of a row that is not finite is not finite either, so that its states are refused and not made up.
    ///
    /// ```
    /// use frostbert::internals::encoder::quantize::Quantized;
    ///
    /// let quantized = Quantized::new(&[1.0, -0.25, 0.5, 254.0, 127.0, 0.0], 3);
    /// assert_eq!(quantized.scales, [1.0 / 127.0, 2.0]);
    /// // 127 / 4 = 31.75 and 127 / 2 = 63.5, away from 0.
    /// assert_eq!(quantized.values, [127, 127, -32, 64, 64, 0]);
    /// ```
    ///
    /// # Panics
    /// When `weight` is not a whole number of rows.
    pub fn new(weight: &[f32], n_inputs: usize) -> Quantized {
        assert_eq!(weight.len() % n_inputs, 0, "rows of {n_inputs} weights");
        let n_outputs = weight.len() / n_inputs;
        let mut quantized = Quantized {
            n_inputs,
            values: vec![0; weight.len()],
            scales: Vec::with_capacity(n_outputs),
        };
        for (output, row) in weight.chunks_exact(n_inputs).enumerate() {
            let largest = row.iter().fold(0.0f32, |largest, value| {
                if largest.is_nan() || value.abs() <= largest { largest } else { value.abs() }
            });
            let scale = largest / f32::from(LARGEST);
            for (input, value) in row.iter().enumerate() {
                // A row of zeros has a scale of 0, and 0 / 0 becomes 0.
                quantized.values[input * n_outputs + output] = (value / scale).round() as i8;
            }
            quantized.scales.push(scale);
        }
        quantized
    }

    /// N.
    pub fn n_outputs(&self) -> usize {
        self.scales.len()
    }

    /// The fewest corrections that make up for the zero points of inputs: a multiple of 4.
    pub fn n_corrections(&self) -> usize {
        let sums = self.sums();
        let largest = sums.iter().map(|sum| sum.unsigned_abs()).max().unwrap_or(0);
        let fewest = largest.div_ceil(LARGEST as u32) as usize;
        fewest.next_multiple_of(CORRECTIONS_MULTIPLE)
    }

    /// `[J, N]`: J further weights for each output that add up to the negative of the sum of its own.
    ///
    /// ```
    /// use frostbert::internals::encoder::quantize::Quantized;
    ///
    /// let quantized = Quantized::new(&[1.0, 1.0, 1.0, -1.0], 2);
    /// assert_eq!(quantized.n_corrections(), 4);
    /// assert_eq!(quantized.corrections(4), [-127, 0, -127, 0, 0, 0, 0, 0]);
    /// ```
    ///
    /// # Panics
    /// When they are fewer than [`Quantized::n_corrections`].
    pub fn corrections(&self, n_corrections: usize) -> Vec<i8> {
        let mut left: Vec<i32> = self.sums().iter().map(|sum| -sum).collect();
        let mut corrections = Vec::with_capacity(n_corrections * left.len());
        for _ in 0..n_corrections {
            for left in &mut left {
                let largest = i32::from(LARGEST);
                let part = (*left).clamp(-largest, largest);
                *left -= part;
                corrections.push(part as i8);
            }
        }
        assert!(left.iter().all(|left| *left == 0), "enough corrections");
        corrections
    }

    /// `[N]`: the sum of the values of each output.
    fn sums(&self) -> Vec<i32> {
        let mut sums = vec![0i32; self.n_outputs()];
        for row in self.values.chunks_exact(self.n_outputs()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix that a linear congruential generator fills with numbers from -1 to 1, each row of another size.
    fn matrix(n_outputs: usize, n_inputs: usize) -> Vec<f32> {
        let mut state = 7u32;
        let numbers = (0..n_outputs * n_inputs).map(|place| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = state as f32 / u32::MAX as f32 * 2.0 - 1.0;
            number * 1.5f32.powi((place / n_inputs) as i32 - 8)
        });
        numbers.collect()
    }

    #[test]
    fn every_weight_is_within_half_a_step_of_what_its_value_stands_for() {
        let (n_outputs, n_inputs) = (24, 100);
        let weight = matrix(n_outputs, n_inputs);
        let quantized = Quantized::new(&weight, n_inputs);
        assert_eq!(quantized.n_outputs(), n_outputs);
        for output in 0..n_outputs {
            let scale = quantized.scales[output];
            let mut largest = 0;
            for input in 0..n_inputs {
                let value = quantized.values[input * n_outputs + output];
                let error = (weight[output * n_inputs + input] - f32::from(value) * scale).abs();
                assert!(error <= scale * 0.500_01, "{error} of {scale}");
                largest = largest.max(value.unsigned_abs());
            }
            assert_eq!(largest, 127, "the whole range of output {output}");
        }
    }

    #[test]
    fn corrections_take_a_zero_point_off_exactly() {
        // All weights of one sign need the most corrections, those of both few.
        let both = matrix(6, 64);
        let positive: Vec<f32> = both.iter().map(|value| value.abs()).collect();
        for weight in [both, positive] {
            let quantized = Quantized::new(&weight, 64);
            let n_corrections = quantized.n_corrections();
            for n_corrections in [n_corrections, n_corrections + 4] {
                let corrections = quantized.corrections(n_corrections);
                let inputs: Vec<i32> = (0..64).map(|place| place * 37 % 256).collect();
                let zero = 93;
                for output in 0..6 {
                    let value = |input: usize| {
                        i32::from(quantized.values[input * quantized.n_outputs() + output])
                    };
                    let wanted: i32 =
                        (0..64).map(|input| value(input) * (inputs[input] - zero)).sum();
                    let product: i32 = (0..64).map(|input| value(input) * inputs[input]).sum();
                    let own = corrections.iter().skip(output).step_by(6);
                    let taken: i32 = own.map(|value| i32::from(*value) * zero).sum();
                    assert_eq!(product + taken, wanted);
                }
            }
        }
    }

    #[test]
    fn weights_that_are_no_numbers_stay_none() {
        let quantized = Quantized::new(&[0.0, 0.0, f32::NAN, 1.0, f32::INFINITY, 1.0], 2);
        assert_eq!(quantized.scales[0], 0.0);
        assert_eq!([quantized.values[0], quantized.values[3]], [0, 0]);
        assert!(quantized.scales[1].is_nan() && quantized.scales[2].is_infinite());
    }
}
