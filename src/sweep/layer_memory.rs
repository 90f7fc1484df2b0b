//! The memory of heads that train layers of the encoder. Most searches train these one after the other; successive
//! halving has all of them in training at the same time.

use frostbert_cache::{
    progress::Progress,
    wording::{counted, part_of},
};

use crate::{
    config::file::sweep::Search,
    error::Result,
    extraction::forecast::megabytes,
    head::network_learner::gradient_lanes,
    sweep::{Sweep, units::TrialGroup},
    training::{class_memory::BESIDE_BYTES, unfrozen::UnfrozenLayers},
};

/// Number of bytes for each parameter of a head in training, apart from the gradients of parts of a batch: weights and
/// their start, gradients and two moments, the best so far, and two copies of what is evaluated; 4 bytes each.
const BYTES_OF_PARAMETER: u64 = 32;

/// Checks that the heads of a halving sweep fit into memory, and says of other searches that such heads take long.
///
/// # Errors
/// Returns an error if they do not fit, or if layers cannot be read.
pub(super) fn check(
    sweep: &Sweep<'_>,
    groups: &[TrialGroup],
    progress: &dyn Progress,
) -> Result<()> {
    let groups: Vec<&TrialGroup> =
        groups.iter().filter(|group| group.key.trains_layers()).collect();
    let n_trials: usize = groups.iter().map(|group| group.trials.len()).sum();
    if n_trials == 0 {
        return Ok(());
    }
    if sweep.section.search != Search::Halving {
        progress.note(&format!(
            "{} train layers of the encoder: their heads are trained one after the other, and each takes as long as by \
             `frostbert train`",
            part_of(n_trials, sweep.trials.len(), "setting")
        ));
        return Ok(());
    }
    let heads_of_trial = sweep.section.seeds * sweep.splits.len();
    let mut needed = 0u64;
    for group in groups {
        let first = group.trials[0];
        let checkpoint = sweep.model(first).checkpoint;
        let layers = UnfrozenLayers::read(&sweep.trials[first].pipeline, checkpoint)?;
        let n_parameters = layers.map_or(0, |layers| layers.training.parameters.len());
        let n_heads = (group.trials.len() * heads_of_trial) as u64;
        needed = needed.saturating_add(n_heads.saturating_mul(head_bytes(n_parameters)));
    }
    let most = sweep.pipeline.memory_bytes.saturating_add(BESIDE_BYTES);
    if needed <= most {
        return Ok(());
    }
    let memory_mb = needed.saturating_sub(BESIDE_BYTES).div_ceil(1 << 20);
    Err(sweep.pipeline.refuse(
        format!(
            "search = \"halving\" trains all heads at the same time, and {} with layers of the encoder take about {} \
             of memory, but train.memory_mb plus 1 GiB is {}",
            counted(n_trials * heads_of_trial, "head"),
            megabytes(needed),
            megabytes(most),
        ),
        format!(
            "search without halving, which trains them one after the other, compare fewer heads, or set train.memory_mb \
             to {memory_mb} if the machine has that much"
        ),
    ))
}

/// The bytes of a head in training.
fn head_bytes(n_parameters: usize) -> u64 {
    let lanes = gradient_lanes(n_parameters) as u64;
    (BYTES_OF_PARAMETER + 4 * lanes).saturating_mul(n_parameters as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradients_of_the_parts_of_a_batch_are_bounded_but_for_two() {
        assert_eq!(head_bytes(1_000_000), (32 + 4 * 16) * 1_000_000);
        assert_eq!(head_bytes(100_000_000), (32 + 4 * 2) * 100_000_000);
        assert_eq!(head_bytes(0), 0);
    }
}
