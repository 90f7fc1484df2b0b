//! A session that several workers run side by side, so that its weights are in memory once.

use std::{mem::ManuallyDrop, ptr, sync::Arc};

use ort::{
    session::{Session, SessionOutputs},
    value::DynValue,
};

/// A worker's handle of a session on a CPU. All handles of a session run the same graph over the same weights.
pub(super) struct SharedSession {
    /// A bitwise copy of the session, which is never dropped and never changed.
    handle: ManuallyDrop<Session>,
    session: Arc<Session>,
}

impl SharedSession {
    pub(super) fn new(session: Session) -> SharedSession {
        SharedSession::of(Arc::new(session))
    }

    /// Returns another handle of the same session, for another thread. The session must run a graph of our own on a
    /// CPU: nothing is known about two runs at a time of other graphs, and other providers do not allow them.
    pub(super) fn share(&self) -> SharedSession {
        SharedSession::of(Arc::clone(&self.session))
    }

    /// Runs the session. Nothing else can be done with it, so no caller can replace or drop the copy.
    pub(super) fn run(&mut self, inputs: Vec<(&str, DynValue)>) -> ort::Result<SessionOutputs<'_>> {
        self.handle.run(inputs)
    }

    fn of(session: Arc<Session>) -> SharedSession {
        // SAFETY: `Session` is a counted pointer to ONNX Runtime's session, and two lists that describe its inputs and
        // outputs. Its copy is never dropped, so nothing is freed twice; the original, which frees what both point to,
        // lives in `session` at least as long as the copy; and neither is changed, because `run` only reads the lists
        // and passes the pointer on (what it returns counts a pointer of its own).
        //
        // ONNX Runtime documents that several threads may call `Run` of one session at a time. ort disagrees
        // (session/run.rs of 2.0.0-rc.15): "ONNX Runtime's own `Run` is **not thread safe**", because of "certain EP
        // allocators or statistics trackers", and earlier versions of ort "that allowed concurrent inference often saw
        // crashes and memory corruption". So this rests on less than a guarantee, and is limited to what was looked at:
        // the provider for CPUs and the graphs that `graph` builds, in f32 and int8. There a run keeps its
        // intermediate results in a frame of its own, the arena that it takes them from is locked, and kernels do not
        // change. The test below compares the bits, and passes with ONNX Runtime 1.31.1. A model.onnx may hold any
        // kernel, so its sessions are not shared.
        let handle = ManuallyDrop::new(unsafe { ptr::read(&*session) });
        SharedSession { handle, session }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, thread};

    use crate::encoder::{
        checkpoint::Checkpoint,
        device::Precision,
        provider::Provider,
        runtime,
        session::{EncoderSession, SessionOptions, TokenBatch},
    };

    #[test]
    #[should_panic(expected = "only sessions of our own graphs on a CPU are shared")]
    fn a_session_of_a_model_onnx_is_not_shared() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/albert_onnx");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let options = SessionOptions {
            provider: Provider::Cpu,
            precision: Precision::F32,
            layers: vec![checkpoint.config.layers],
            intra_threads: 1,
        };
        let session = EncoderSession::open(runtime::for_tests(), &checkpoint, &options).unwrap();
        let _ = session.share();
    }

    #[test]
    fn threads_that_share_a_session_compute_the_bits_of_one_alone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_bert");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for precision in [Precision::F32, Precision::Int8] {
            let options = SessionOptions {
                provider: Provider::Cpu,
                precision,
                layers: vec![0, checkpoint.config.layers],
                intra_threads: 1,
            };
            let open =
                || EncoderSession::open(runtime::for_tests(), &checkpoint, &options).unwrap();
            let batches: Vec<TokenBatch> = (1..40u32)
                .map(|n| {
                    let windows: Vec<Vec<u32>> =
                        (0..n % 5 + 1).map(|row| (row..row + n % 20 + 2).collect()).collect();
                    TokenBatch::new(windows.iter().map(|ids| (&ids[..], &[][..])))
                })
                .collect();
            let bits = &|session: &mut EncoderSession| -> Vec<Vec<u32>> {
                let run = |batch: &TokenBatch| {
                    let mut bits = Vec::new();
                    let run = session.run(batch, |_, states| {
                        bits.extend(states.iter().map(|value| value.to_bits()));
                        Ok(())
                    });
                    run.unwrap();
                    bits
                };
                batches.iter().map(run).collect()
            };
            let alone = bits(&mut open());
            let first = open();
            let mut handles: Vec<EncoderSession> = (0..3).map(|_| first.share()).collect();
            // The handles outlive the one that they were made of.
            drop(first);
            thread::scope(|scope| {
                let threads: Vec<_> = handles
                    .iter_mut()
                    .map(|session| {
                        scope.spawn(move || (0..5).map(|_| bits(session)).collect::<Vec<_>>())
                    })
                    .collect();
                for thread in threads {
                    assert!(thread.join().unwrap().iter().all(|round| *round == alone));
                }
            });
        }
    }
}
