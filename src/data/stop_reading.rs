//! Input that can be given up while a thread waits for it: the next bytes of a pipe may never come.

use std::{
    convert::Infallible,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::read::CHUNK_BYTES;
use crate::error::{Error, Result};

/// Ends the reading of streams, such as standard input, when nobody needs their records any more. All clones do the same.
#[derive(Clone, Debug)]
pub struct StopReading {
    /// Dropped to stop: every receiver notices that.
    going_on: Arc<Mutex<Option<Sender<Infallible>>>>,
    stopped: Receiver<Infallible>,
}

impl Default for StopReading {
    fn default() -> StopReading {
        let (sender, stopped) = bounded(0);
        StopReading { going_on: Arc::new(Mutex::new(Some(sender))), stopped }
    }
}

impl StopReading {
    /// Lets every reader, from now on, fail rather than wait.
    pub fn stop(&self) {
        drop(self.going_on.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Reads `input` on a thread of its own, and returns a reader of the same bytes. The thread may be left waiting for
    /// `input`: it ends with the process.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn reader(&self, mut input: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>> {
        let (sender, blocks) = bounded(1);
        let read_on = move || {
            loop {
                let mut block = vec![0; CHUNK_BYTES];
                let read = match input.read(&mut block) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read.map(|n_bytes| {
                        block.truncate(n_bytes);
                        block
                    }),
                };
                let is_last = read.as_ref().map_or(true, Vec::is_empty);
                if sender.send(read).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("input".into()).spawn(read_on);
        thread.map_err(Error::io("start", "a thread"))?;
        let stopped = self.stopped.clone();
        Ok(Box::new(StoppableReader { blocks, stopped, block: Vec::new(), place: 0 }))
    }
}

/// Reads bytes as they arrive, until it is told to stop.
struct StoppableReader {
    blocks: Receiver<io::Result<Vec<u8>>>,
    stopped: Receiver<Infallible>,
    /// The last bytes that arrived.
    block: Vec<u8>,
    /// How many of them were read.
    place: usize,
}

impl Read for StoppableReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.place == self.block.len() {
            let next = select! {
                recv(self.blocks) -> next => next,
                recv(self.stopped) -> _ => return Err(io::Error::other("reading was stopped")),
            };
            // The thread has ended: everything was read.
            let Ok(next) = next else {
                return Ok(0);
            };
            (self.block, self.place) = (next?, 0);
        }
        let n_bytes = (&self.block[self.place..]).read(buffer)?;
        self.place += n_bytes;
        Ok(n_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn all_bytes_arrive_and_then_the_end() {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 7).map(|n| (n % 251) as u8).collect();
        let stop = StopReading::default();
        let mut reader = stop.reader(io::Cursor::new(bytes.clone())).unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "the end is still the end");
    }

    #[test]
    fn who_waits_for_bytes_is_told_to_stop() {
        let stop = StopReading::default();
        let (input, mut writer) = io::pipe().unwrap();
        writer.write_all(b"ab").unwrap();
        let mut reader = stop.reader(input).unwrap();
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"ab");
        let waiting =
            thread::spawn(move || reader.read(&mut [0; 2]).map_err(|error| error.to_string()));
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished(), "the pipe is open");
        stop.clone().stop();
        assert_eq!(waiting.join().unwrap(), Err("reading was stopped".into()));
        // Those that come later do not wait either.
        assert!(stop.reader(io::pipe().unwrap().0).is_ok());
        drop(writer);
    }
}
