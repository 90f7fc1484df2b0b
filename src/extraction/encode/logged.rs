//! Batches that an earlier process encoded and that need not be encoded again.

use std::path::Path;

use frostbert_cache::{
    batch_log::BatchLogs,
    states::{BatchStates, Dtype, StateKind, StateValues},
};

use crate::{
    encoder::device::Devices,
    extraction::encode::{ComputedBy, EncodedBatch, ExtractionJob, PlannedBatch},
};

impl ExtractionJob<'_> {
    /// Returns the logs of encoded batches, on a CPU only: it may take minutes for a shard, a GPU takes seconds.
    pub(super) fn logs(
        &self,
        devices: &Devices,
        folder: &Path,
        computer: &ComputedBy,
    ) -> Option<BatchLogs> {
        let context = format!(
            "{} values of {}, by ONNX Runtime {} and frostbert {}",
            self.hidden,
            self.dtype.name(),
            computer.onnxruntime,
            env!("CARGO_PKG_VERSION")
        );
        match devices {
            Devices::Cpu => Some(BatchLogs::new(folder, context)),
            Devices::Cuda(_) => None,
        }
    }

    /// Whether logged states match a batch, with a row for each of its windows, words or tokens.
    pub(super) fn fits(&self, batch: &PlannedBatch, states: &[BatchStates]) -> bool {
        let dtype = if batch.in_sample { Dtype::F32 } else { self.dtype };
        let row_bytes = self.hidden * dtype.size_bytes();
        let n_words = batch.words.iter().map(Vec::len).sum::<usize>();
        let wanted = &batch.planned.states;
        wanted.len() == states.len()
            && wanted.iter().all(|state| {
                let mut own = states.iter().filter(|own| own.state == *state);
                own.next().is_some_and(|own| match (state.kind, &own.values) {
                    (StateKind::Pooled(_), StateValues::Pooled(values)) => {
                        values.len() == batch.places.len() * self.hidden
                    }
                    (StateKind::Words, StateValues::Rows(bytes)) => {
                        bytes.len() == n_words * row_bytes
                    }
                    (StateKind::Tokens, StateValues::Rows(bytes)) => {
                        bytes.len() as u64 == batch.batch.tokens() * row_bytes as u64
                    }
                    _ => false,
                })
            })
    }
}

impl PlannedBatch {
    pub(super) fn encoded(self, states: Vec<BatchStates>, is_logged: bool) -> EncodedBatch {
        EncodedBatch {
            shard: self.shard,
            number: self.number,
            is_logged,
            in_sample: self.in_sample,
            tokens: self.batch.tokens(),
            padded_tokens: (self.batch.windows() * self.batch.width) as u64,
            places: self.places,
            states,
        }
    }
}
