//! Quantises the weights of linear layers to 8 bits, and corrects for 8-bit inputs with a zero point per row.
//!
//! A weight matrix `W [N, K]` (`[out, in]`, as stored in a checkpoint) is quantised per output, symmetrically:
//!
//! ```text
//! scale_n = max_k |W_nk| / 127        Q_nk = round(W_nk / scale_n)        |W_nk - scale_n Q_nk| <= scale_n / 2
//! ```
//!
//! An input row `x [K]` is quantised at run time, by its own range extended to include 0, so that it does not depend on
//! the other rows:
//!
//! ```text
//! s = (max(x, 0) - min(x, 0)) / 255        z = round(-min(x, 0) / s)        q_k = round(x_k / s) + z,  0 <= q_k <= 255
//! ```
//!
//! Then `(W x)_n` is about `scale_n s sum_k Q_nk (q_k - z) = scale_n s (sum_k Q_nk q_k - z sum_k Q_nk)`. ONNX Runtime's
//! integer matrix product takes one zero point for the whole batch, not one per row. Each row of inputs therefore gets
//! J further columns, all equal to `z`, and the weights get J further rows that sum to `-sum_k Q_nk`
//! ([`Quantized::corrections`]). The integer product is then exactly the sum above, at the cost of one or two more rows
//! per hundred.
//!
//! Some channels of a normalised state are many times as large as the others and would use up the range of their row.
//! Before quantisation, each channel of such a state is divided by a factor, and its weights are multiplied by the same
//! factor ([`smoothing`]). The factors come from the checkpoint alone, never from texts.
//!
//! Symmetric weights per output and asymmetric inputs per token are the usual choice for 8-bit integer arithmetic:
//! Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018
//! (the sum above is in section 2.3).

/// The largest magnitude of a quantised weight.
pub(crate) const LARGEST: i8 = 127;

/// How many numbers a processor multiplies at a time; the number of corrections is a multiple of it.
const CORRECTIONS_MULTIPLE: usize = 4;

/// Returns the smoothing factors, `[K]`: the channels of `LayerNorm(x) = gamma normed(x) + beta` are divided by them
/// before quantisation, and the weights `[N, K]` for those channels are multiplied by them:
///
/// ```text
/// c_k = sqrt(m_k / max_n |W_nk|)        m_k = sqrt(gamma_k^2 + beta_k^2)
/// ```
///
/// `m_k` is the root mean square of a channel whose normed values have mean 0 and variance 1. See Xiao et al.,
/// "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2023, with alpha 1/2;
/// they take maxima over a corpus, whereas `m` here comes from the normalisation. The factor is 1 for a channel for
/// which the formula gives none.
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

/// A weight matrix quantised to 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The number of inputs, K.
    pub n_inputs: usize,
    /// `[K, N]`, transposed: the N weights of the first input come first. Values range from -127 to 127.
    pub values: Vec<i8>,
    /// `[N]`: the scale by which the values of each output are multiplied.
    pub scales: Vec<f32>,
}

impl Quantized {
    /// Quantises `weight [N, K]`, row by row.
    ///
    /// The scale of a row with non-finite weights is itself not finite, so that its states are rejected instead of made
    /// up.
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
    /// Panics if `weight` is not a whole number of rows.
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
                // A row of zeros has a scale of 0, and 0 / 0 is cast to 0.
                quantized.values[input * n_outputs + output] = (value / scale).round() as i8;
            }
            quantized.scales.push(scale);
        }
        quantized
    }

    /// Returns the number of outputs, N.
    pub fn n_outputs(&self) -> usize {
        self.scales.len()
    }

    /// Returns the smallest number of corrections that can compensate for the inputs' zero points; a multiple of 4.
    pub fn n_corrections(&self) -> usize {
        let sums = self.sums();
        let largest = sums.iter().map(|sum| sum.unsigned_abs()).max().unwrap_or(0);
        let fewest = largest.div_ceil(LARGEST as u32) as usize;
        fewest.next_multiple_of(CORRECTIONS_MULTIPLE)
    }

    /// Returns `[J, N]`: J further weights per output that sum to the negative of the sum of the output's own.
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
    /// Panics if `n_corrections` is less than [`Quantized::n_corrections`].
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

    /// Returns `[N]`: the sum of the values of each output.
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

    /// Fills a matrix with values between -1 and 1 from a linear congruential generator; each row has a different
    /// scale.
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
        // Weights of one sign need the most corrections, weights of both signs few.
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
