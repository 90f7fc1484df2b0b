//! A shard between its first batch and its commit.

use std::sync::Arc;

use frostbert_cache::{batch_log::BatchLog, plan::PlannedShard, shard::OpenShard};

/// A shard that is being filled, and its parity sample.
pub(crate) struct FillingShard {
    pub(super) planned: Arc<PlannedShard>,
    pub(super) shard: OpenShard,
    pub(super) sample: OpenShard,
    /// The documents of the sample, as rows of the shard.
    pub(super) sampled: Vec<usize>,
    /// The log that keeps its batches until it is complete; on a CPU only.
    pub(super) log: Option<BatchLog>,
}

impl FillingShard {
    pub(super) fn is_complete(&self) -> bool {
        self.shard.is_complete() && self.sample.is_complete()
    }
}
