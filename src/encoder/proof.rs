//! Checks that a GPU computes what the CPU does, by comparing the states of a small batch.

use crate::{
    encoder::{
        checkpoint::Checkpoint, device::Precision, layer_states::LayerStates, provider::Provider,
        session::TokenBatch, worker::Worker,
    },
    error::{Error, Result},
};

/// A small batch and the states that the CPU computes for it.
pub(super) struct Proof {
    batch: TokenBatch,
    expected: Vec<f32>,
    hidden: usize,
    precision: Precision,
}

impl Proof {
    /// Computes the expected states on the CPU.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails.
    pub(super) fn of(
        cpu: &mut Worker,
        checkpoint: &Checkpoint,
        precision: Precision,
    ) -> Result<Proof> {
        let batch = small_batch(checkpoint.config.vocabulary as u32);
        Ok(Proof {
            expected: real_states(cpu, &batch)?,
            batch,
            hidden: checkpoint.config.hidden,
            precision,
        })
    }

    /// Compares a GPU's states with the CPU's.
    ///
    /// # Errors
    /// Returns [`Error::Device`] with the cosine if the states differ, or an error if ONNX Runtime fails.
    pub(super) fn check(&self, worker: &mut Worker, provider: Provider) -> Result<()> {
        let got = real_states(worker, &self.batch)?;
        check_states(&self.expected, &got, self.hidden, self.precision, provider)
    }
}

fn real_states(worker: &mut Worker, batch: &TokenBatch) -> Result<Vec<f32>> {
    let layers = worker.compute(batch)?.layers;
    Ok(layers.iter().flat_map(LayerStates::real).collect())
}

/// Three texts of different lengths.
fn small_batch(vocabulary: u32) -> TokenBatch {
    let ids = |length: u32| -> Vec<u32> {
        (0..length).map(|position| (position * 37 + 11) % vocabulary).collect()
    };
    let documents = [5, 12, 9].map(ids);
    TokenBatch::new(documents.iter().map(|ids| (&ids[..], &[][..])))
}

fn check_states(
    expected: &[f32],
    got: &[f32],
    hidden: usize,
    precision: Precision,
    provider: Provider,
) -> Result<()> {
    let least = match precision {
        Precision::F16 => 0.999,
        _ => 0.999_99,
    };
    let cosine = least_cosine(expected, got, hidden);
    // NaN fails the comparison too.
    let proven = cosine >= least && expected.len() == got.len();
    if proven {
        return Ok(());
    }
    Err(Error::Device {
        device: provider.to_string(),
        reason: format!(
            "its states differ from the CPU's on a test batch (least cosine {cosine:.5}, needed {least})"
        ),
        hint: "this ONNX Runtime or its CUDA libraries give wrong results on this GPU: use others, or the CPU"
            .into(),
    })
}

/// Returns the smallest cosine of two lists of states, row by row; NaN if any of them is NaN, as for a state of zeros.
pub(super) fn least_cosine(a: &[f32], b: &[f32], hidden: usize) -> f64 {
    let rows = a.chunks_exact(hidden).zip(b.chunks_exact(hidden));
    rows.map(|(a, b)| cosine(a, b)).fold(f64::INFINITY, |least, next| {
        if least.is_nan() || next >= least { least } else { next }
    })
}

/// Returns the cosine of two states; NaN if one of them is all zeros.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_whose_states_differ_is_refused_with_the_cosine() {
        let cpu = [1.0, 2.0, 3.0, 4.0];
        let check =
            |got: &[f32], precision| check_states(&cpu, got, 2, precision, Provider::Cuda(1));
        assert!(check(&cpu, Precision::F32).is_ok());
        let near = [1.0, 2.03, 3.0, 4.0];
        assert!(check(&near, Precision::F16).is_ok());
        let Err(Error::Device { device, reason, .. }) = check(&near, Precision::F32) else {
            panic!("a cosine of 0.99996 is not that of f32");
        };
        assert_eq!(device, "cuda:1");
        assert!(reason.contains("least cosine 0.9999"), "{reason}");
        // If a worker returns too few states, the ones that it does return do not count.
        assert!(check(&cpu[..2], Precision::F16).is_err());
        assert!(check(&[f32::NAN, 2.0, 3.0, 4.0], Precision::F16).is_err());
    }

    #[test]
    fn zeros_and_nan_are_never_near() {
        let good = [1.0, 2.0, 3.0, 4.0];
        assert!((least_cosine(&good, &good, 2) - 1.0).abs() < 1e-12);
        for bad in [[0.0, 0.0, 3.0, 4.0], [f32::NAN, 2.0, 3.0, 4.0], [1.0, 2.0, 0.0, 0.0]] {
            assert!(least_cosine(&good, &bad, 2).is_nan(), "{bad:?}");
        }
    }
}
