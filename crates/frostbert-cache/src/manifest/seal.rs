//! Adds the checksum to the JSON of a manifest while it is written, so that the text is never in memory as a whole.

use std::io::{self, Write};

use super::check::{AFTER_CHECKSUM, BEFORE_CHECKSUM};
use crate::fingerprint::Digest;

/// The number of bytes that are hashed and written at a time.
const PIECE: usize = 1 << 16;

/// The end of an indented object, whose place the checksum takes.
const END: &[u8] = b"\n}";

/// Passes an indented JSON object on, with a checksum as its last key.
pub(super) struct SealingWriter<W> {
    to: W,
    hasher: blake3::Hasher,
    /// What is not passed on yet. The last bytes so far always stay here, since they may be the end of the object.
    held: Vec<u8>,
}

impl<W: Write> SealingWriter<W> {
    pub(super) fn new(to: W) -> SealingWriter<W> {
        SealingWriter { to, hasher: blake3::Hasher::new(), held: Vec::new() }
    }

    /// Writes what is left of the object, and its checksum.
    ///
    /// # Errors
    /// Returns the errors of the writer that it is passed on to.
    pub(super) fn seal(mut self) -> io::Result<()> {
        let end = if self.held.ends_with(END) { END.len() } else { 0 };
        self.pass_on(self.held.len() - end)?;
        let checksum = Digest::from(self.hasher.finalize());
        write!(self.to, "{BEFORE_CHECKSUM}{checksum}{AFTER_CHECKSUM}")
    }

    fn pass_on(&mut self, n_bytes: usize) -> io::Result<()> {
        self.hasher.update(&self.held[..n_bytes]);
        self.to.write_all(&self.held[..n_bytes])?;
        self.held.drain(..n_bytes);
        Ok(())
    }
}

impl<W: Write> Write for SealingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.pass_on(self.held.len() - END.len())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::hash_bytes;

    #[test]
    fn the_checksum_is_that_of_the_whole_text_however_it_comes() {
        for length in [0, 1, PIECE - 4, PIECE - 3, PIECE - 2, PIECE - 1, PIECE, 3 * PIECE + 7] {
            let body = format!("{{{}", "x".repeat(length));
            let json = format!("{body}\n}}");
            let checksum = hash_bytes(body.as_bytes());
            let expected = format!("{body},\n  \"checksum\": \"{checksum}\"\n}}");
            for piece in [1, 3, PIECE, json.len()] {
                let mut sealed = Vec::new();
                let mut writer = SealingWriter::new(&mut sealed);
                for bytes in json.as_bytes().chunks(piece) {
                    writer.write_all(bytes).unwrap();
                }
                writer.seal().unwrap();
                assert!(sealed == expected.as_bytes(), "{length} bytes by {piece}");
            }
        }
    }

    #[test]
    fn a_disk_that_is_full_is_no_finished_manifest() {
        let mut room = vec![0u8; 2 * PIECE];
        let mut writer = SealingWriter::new(&mut room[..]);
        let piece = vec![b'x'; PIECE];
        let written = (0..3).try_for_each(|_| writer.write_all(&piece));
        assert_eq!(
            written.and_then(|()| writer.seal()).unwrap_err().kind(),
            io::ErrorKind::WriteZero
        );
    }
}
