//! An encoder without a model, for tests of what is around it.

use crate::{
    encoder::{
        Encoder,
        attention_positions::HeldScores,
        device::{Devices, Precision},
        layer_states::{LayerStates, LayerValues},
        session::{TokenBatch, padded_rows},
        worker::{PackedSession, Worker, WorkerSession},
    },
    error::Result,
};

/// What a test does for each batch.
type StubWork = Box<dyn FnMut(&TokenBatch) -> Result<()> + Send>;

/// Stands in for a session on a GPU: the states of its layer are zeros.
struct StubSession {
    layer: usize,
    hidden: usize,
    work: StubWork,
}

impl PackedSession for StubSession {
    fn compute(&mut self, batch: &TokenBatch) -> Result<Vec<LayerStates>> {
        (self.work)(batch)?;
        let zeros = vec![0.0; batch.windows() * batch.width * self.hidden];
        Ok(vec![LayerStates {
            layer: self.layer,
            hidden: self.hidden,
            values: LayerValues::Joined(zeros),
            rows: padded_rows(batch),
        }])
    }
}

impl Encoder {
    /// Returns an encoder that stands in for one on a GPU: it has one worker, which does `work` for each batch, and a
    /// reference worker, which does nothing.
    pub(crate) fn stub(
        layer: usize,
        hidden: usize,
        work: impl FnMut(&TokenBatch) -> Result<()> + Send + 'static,
    ) -> Encoder {
        let worker = |work: StubWork| Worker {
            session: WorkerSession::Packed(Box::new(StubSession { layer, hidden, work })),
            precision: Precision::F32,
        };
        Encoder {
            devices: Devices::Cuda(vec![0]),
            auto_reason: None,
            placement: None,
            workers: vec![worker(Box::new(work))],
            reference: Some(worker(Box::new(|_| Ok(())))),
            scores: HeldScores::default(),
        }
    }
}
