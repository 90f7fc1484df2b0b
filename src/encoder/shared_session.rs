//! A session that several workers run side by side, so that its weights are in memory once.

use std::{mem::ManuallyDrop, ptr, sync::Arc};

use ort::session::Session;

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

    /// Returns another handle of the same session, for another thread. The session must run on a CPU: other providers
    /// of ONNX Runtime do not allow two runs of a session at a time.
    pub(super) fn share(&self) -> SharedSession {
        SharedSession::of(Arc::clone(&self.session))
    }

    /// Returns the session to run it; only one thread can do so with this handle.
    pub(super) fn get(&mut self) -> &mut Session {
        &mut self.handle
    }

    fn of(session: Arc<Session>) -> SharedSession {
        // SAFETY: `Session` is a counted pointer to ONNX Runtime's session, and two lists that describe its inputs and
        // outputs. Its copy is never dropped, so nothing is freed twice; the original, which frees what both point to,
        // lives in `session` at least as long as the copy; and neither is changed, because `run` only reads the lists
        // and passes the pointer on (what it returns counts a pointer of its own). That several threads may call `Run`
        // of one session at a time is what ONNX Runtime documents, and holds on a CPU: a run keeps its intermediate
        // results in a frame of its own, the arena that it takes them from is locked, and kernels do not change.
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
