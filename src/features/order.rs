//! The order of the samples in an epoch: a full shuffle in memory, or shard by shard with a shuffle window from disk.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// The requested samples of a shard, in the order in which they are stored there.
pub(crate) struct ShardSamples {
    /// The samples.
    pub samples: Vec<u32>,
}

/// Shuffles samples into an order that depends only on the seed and the epoch.
pub(crate) fn shuffled(samples: &[u32], seed: u64, epoch: usize) -> Vec<u32> {
    let mut order = samples.to_vec();
    order.shuffle(&mut generator(seed, epoch));
    order
}

/// Orders samples shard by shard: the shards are sorted by a hash of (seed, epoch, first sample), and samples are then
/// shuffled within windows of `window` samples. Shards that are neighbours in the file are not neighbours in an epoch,
/// and a window reads few shards.
pub(crate) fn by_shard(
    shards: &[ShardSamples],
    window: usize,
    seed: u64,
    epoch: usize,
) -> Vec<u32> {
    let mut order: Vec<(blake3::Hash, &ShardSamples)> = shards
        .iter()
        .filter_map(|shard| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes());
            hasher.update(&(epoch as u64).to_le_bytes());
            hasher.update(&shard.samples.iter().min()?.to_le_bytes());
            Some((hasher.finalize(), shard))
        })
        .collect();
    order.sort_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
    let mut samples: Vec<u32> =
        order.into_iter().flat_map(|(_, shard)| shard.samples.iter().copied()).collect();
    let mut random = generator(seed, epoch);
    for window in samples.chunks_mut(window.max(1)) {
        window.shuffle(&mut random);
    }
    samples
}

fn generator(seed: u64, epoch: usize) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_holds_every_sample_once_and_another_epoch_orders_them_otherwise() {
        let shards: Vec<ShardSamples> = (0..6)
            .map(|shard| ShardSamples { samples: (shard * 10..shard * 10 + 10).collect() })
            .collect();
        let first = by_shard(&shards, 20, 7, 1);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..60).collect::<Vec<u32>>());
        assert_eq!(first, by_shard(&shards, 20, 7, 1));
        assert_ne!(first, by_shard(&shards, 20, 7, 2));
        assert_ne!(first, by_shard(&shards, 20, 8, 1));
        for window in first.chunks(20) {
            let shards: std::collections::HashSet<u32> =
                window.iter().map(|sample| sample / 10).collect();
            assert_eq!(shards.len(), 2, "a window of two shards' size reads two");
        }
    }
}
