//! The size limit of a record. Everything that is read into memory is subject to it: a gzip file of some megabytes can
//! hold a line of many gigabytes.

use std::{
    cell::Cell,
    io::{self, Read},
};

use super::source::Source;
use crate::error::Error;

/// Maximum size of a record in bytes, decompressed and decoded: many times the longest text of any corpus, but little
/// memory.
pub(super) const MAX_RECORD_BYTES: usize = 64 << 20;

/// Number of bytes that a field, a word or another small part of a record counts in addition to its own, for its
/// overhead in memory.
pub(super) const PART_BYTES: usize = 64;

/// The error for a record above the limit. `unit` says what is too long, and `hint` what to do.
pub(super) fn too_long(source: &Source, line: Option<u64>, unit: &str, hint: &str) -> Error {
    source.malformed(
        line,
        format!("{unit} of at most {} MiB", MAX_RECORD_BYTES >> 20),
        "a longer one",
        hint,
    )
}

/// Whether reading failed because [`Limited`] reached its limit.
pub(super) fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLong>())
}

#[derive(Debug, thiserror::Error)]
#[error("a record longer than it may be")]
struct TooLong;

/// The number of bytes that may still be read of a record, and the current line.
#[derive(Debug)]
pub(super) struct Allowance {
    left: Cell<usize>,
    line: Cell<u64>,
}

impl Allowance {
    pub(super) fn new() -> Allowance {
        Allowance { left: Cell::new(MAX_RECORD_BYTES), line: Cell::new(1) }
    }

    /// Starts another record.
    pub(super) fn renew(&self) {
        self.left.set(MAX_RECORD_BYTES);
    }

    /// Returns the current line, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line.get()
    }
}

/// A reader that fails if more is read than the allowance has left.
pub(super) struct Limited<R, A> {
    input: R,
    allowance: A,
    /// A byte that occurs once for each part of a record; see [`PART_BYTES`].
    delimiter: Option<u8>,
}

impl<R, A> Limited<R, A> {
    pub(super) fn new(input: R, allowance: A, delimiter: Option<u8>) -> Self {
        Limited { input, allowance, delimiter }
    }

    pub(super) fn allowance(&self) -> &A {
        &self.allowance
    }
}

impl<R: Read, A: std::borrow::Borrow<Allowance>> Read for Limited<R, A> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Allowance { left, line } = self.allowance.borrow();
        if left.get() == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, TooLong));
        }
        let n_allowed = buffer.len().min(left.get());
        let n_read = self.input.read(&mut buffer[..n_allowed])?;
        let read = &buffer[..n_read];
        let count = |byte: u8| read.iter().filter(|&&other| other == byte).count();
        line.set(line.get() + count(b'\n') as u64);
        let n_parts = self.delimiter.map_or(0, count);
        left.set(left.get().saturating_sub(n_read + n_parts * PART_BYTES));
        Ok(n_read)
    }
}

#[cfg(test)]
mod tests;
