//! Removes lines of a csv file that open a quote which is never closed, before it swallows the lines after them.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
};

use crate::data::{
    bad_rows::FailedRows, read::Text, record_limit::MAX_RECORD_BYTES, source::Source,
};

/// Passes the lines of a file through unchanged, but replaces a line with an empty one if it opens a quote that
/// - is not closed before the end of the file or the size limit of a record; or
/// - is closed by a quote on a later line that is followed by more than a delimiter, and so most likely opened a field
///   of its own.
pub(super) struct WithoutOpenQuotes {
    input: Text,
    source: Source,
    delimiter: u8,
    failed: FailedRows,
    /// Lines that were read ahead and are yet to be processed.
    waiting: VecDeque<Vec<u8>>,
    /// The lines that are being returned, of which `n_out` bytes have been.
    out: Vec<u8>,
    n_out: usize,
    /// The number of the next line.
    line: u64,
}

impl WithoutOpenQuotes {
    pub(super) fn new(input: Text, delimiter: u8, source: &Source, failed: FailedRows) -> Self {
        WithoutOpenQuotes {
            input,
            source: source.clone(),
            delimiter,
            failed,
            waiting: VecDeque::new(),
            out: Vec::new(),
            n_out: 0,
            line: 1,
        }
    }

    /// Reads the next line with its end; it is empty after the last one.
    fn next_line(&mut self) -> io::Result<Vec<u8>> {
        if let Some(line) = self.waiting.pop_front() {
            return Ok(line);
        }
        let mut line = Vec::new();
        (&mut self.input).take(MAX_RECORD_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        Ok(line)
    }

    /// Fills `out` with the lines of the next record, or with an empty line.
    fn fill(&mut self) -> io::Result<()> {
        self.n_out = 0;
        self.out = self.next_line()?;
        let mut quotes =
            Quotes { delimiter: self.delimiter, state: QuoteState::Start, is_stray: false };
        quotes.read(&self.out);
        if quotes.state != QuoteState::Quoted {
            self.line += 1;
            return Ok(());
        }
        let mut lines = VecDeque::new();
        let mut n_bytes = self.out.len();
        while quotes.state == QuoteState::Quoted && n_bytes <= MAX_RECORD_BYTES {
            let line = self.next_line()?;
            if line.is_empty() {
                break;
            }
            quotes.read(&line);
            n_bytes += line.len();
            lines.push_back(line);
        }
        let is_header = self.line == 1 && self.source.header;
        if !is_header && (quotes.state == QuoteState::Quoted || quotes.is_stray) {
            self.take_out()?;
            lines.append(&mut self.waiting);
            self.waiting = lines;
            self.line += 1;
        } else {
            self.line += 1 + lines.len() as u64;
            self.out = lines.into_iter().fold(std::mem::take(&mut self.out), |mut all, line| {
                all.extend_from_slice(&line);
                all
            });
        }
        Ok(())
    }

    /// Reports the line in `out` and replaces it with an empty one, so that the lines after it keep their numbers.
    fn take_out(&mut self) -> io::Result<()> {
        let error = self.source.malformed(
            Some(self.line),
            "a record whose quotes are closed",
            "an open quote",
            "close the quote",
        );
        self.out = b"\n".to_vec();
        self.failed.settle(None, error).map_err(io::Error::other)
    }
}

impl Read for WithoutOpenQuotes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.n_out == self.out.len() {
            self.fill()?;
        }
        let n_read = buffer.len().min(self.out.len() - self.n_out);
        buffer[..n_read].copy_from_slice(&self.out[self.n_out..self.n_out + n_read]);
        self.n_out += n_read;
        Ok(n_read)
    }
}

/// The state of the quotes in a record.
struct Quotes {
    delimiter: u8,
    state: QuoteState,
    /// Whether a closing quote was followed by anything other than the end of its field.
    is_stray: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuoteState {
    /// At the start of a field.
    Start,
    /// In an unquoted field.
    Plain,
    /// Inside quotes.
    Quoted,
    /// After a quote that closes the field or is the first of two.
    AfterQuote,
}

impl Quotes {
    /// Processes a line. If it ends outside quotes, so does the record.
    fn read(&mut self, line: &[u8]) {
        for byte in line {
            self.state = match (self.state, *byte) {
                (QuoteState::Quoted, b'"') => QuoteState::AfterQuote,
                (QuoteState::Quoted, _) | (QuoteState::Start | QuoteState::AfterQuote, b'"') => {
                    QuoteState::Quoted
                }
                (_, byte) if byte == self.delimiter => QuoteState::Start,
                (QuoteState::AfterQuote, b'\r' | b'\n') => QuoteState::AfterQuote,
                (QuoteState::AfterQuote, _) => {
                    self.is_stray = true;
                    QuoteState::Plain
                }
                (QuoteState::Start | QuoteState::Plain, _) => QuoteState::Plain,
            };
        }
    }
}
