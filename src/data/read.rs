//! Decodes text by encoding and byte order mark, reports the line of a byte that does not decode, and reads lines with
//! any kind of line end.

use std::io::{self, BufRead, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::{
    bad_rows::BadBytes,
    record_limit::{MAX_RECORD_BYTES, too_long},
    source::Source,
};
use crate::error::{Error, Result};

/// Number of bytes that are read, and of bytes of text that are decoded, at a time.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Number of consumed bytes that are kept, so that an invalid sequence across two chunks can be shown: the longest
/// sequence of any encoding, and the bytes that a decoder reads past it.
const TAIL_BYTES: usize = 16;

/// Decoded text: always UTF-8, without a byte order mark.
pub(super) type Text = Transcoder<Box<dyn Read + Send>>;

/// Decodes `input` by the encoding of `source`, as its bytes arrive.
pub(super) fn decode(input: Box<dyn Read + Send>, source: &Source) -> Result<Text> {
    Ok(Transcoder::new(input, encoding_of(source)?))
}

/// Decodes a file whose first bytes are available at once: if they contain carriage returns but no line feed, a
/// carriage return ends a line.
pub(super) fn decode_file(input: Box<dyn Read + Send>, source: &Source) -> Result<Text> {
    let mut text = decode(input, source)?;
    text.line_ends = LineEnds::Unknown;
    Ok(text)
}

fn encoding_of(source: &Source) -> Result<&'static Encoding> {
    Encoding::for_label_no_replacement(source.encoding.as_bytes()).ok_or_else(|| {
        source.malformed(
            None,
            "an encoding of the WHATWG standard",
            format!("`{}`", source.encoding),
            "set `encoding` of this source to utf-8, latin1, utf-16, shift_jis, gb18030 or another encoding of this \
             standard",
        )
    })
}

/// Converts an I/O error of a [`Text`] to an error of this crate.
pub(super) fn failure(source: &Source, error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Malformed>()) {
        None => Error::io("read", &source.path)(error),
        Some(malformed) => source.malformed(
            Some(malformed.line),
            format!("{} text", malformed.encoding),
            malformed.shown_bytes(),
            format!(
                "set `encoding` of this source to the one the file was written in, such as latin1{}",
                source.skip_hint()
            ),
        ),
    }
}

/// Converts any encoding to strict UTF-8. A byte that does not decode is an error, which is reported only after all
/// text before it has been returned; it only becomes a replacement character after [`Transcoder::replace_bad_bytes`].
pub(super) struct Transcoder<R> {
    input: R,
    decoder: Decoder,
    raw: Box<[u8]>,
    raw_start: usize,
    raw_end: usize,
    raw_is_last: bool,
    tail: Vec<u8>,
    text: Box<[u8]>,
    text_start: usize,
    text_end: usize,
    n_line_feeds: u64,
    line_ends: LineEnds,
    finished: bool,
    malformed: Option<Malformed>,
    /// What becomes of bytes that do not decode.
    bad_bytes: OnBadBytes,
}

/// What becomes of bytes that do not decode.
#[derive(Clone)]
enum OnBadBytes {
    /// They are an error.
    Fail,
    /// They are replaced with U+FFFD.
    Replace,
    /// They are replaced, and listed.
    List(BadBytes),
}

/// The bytes that end a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnds {
    /// Detected from the first decoded text.
    Unknown,
    /// A line feed, or a carriage return and a line feed.
    LineFeed,
    /// A carriage return alone, which is returned as a line feed.
    CarriageReturn,
}

/// The line and the bytes at which decoding failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("line {line} is not {encoding} text: {}", self.shown_bytes())]
struct Malformed {
    line: u64,
    encoding: &'static str,
    bytes: Vec<u8>,
}

impl<R: Read> Transcoder<R> {
    fn new(input: R, encoding: &'static Encoding) -> Self {
        Transcoder {
            input,
            // UTF-8 and UTF-16 may have a byte order mark, which selects between them; other encodings have none.
            decoder: if [UTF_8, UTF_16LE, UTF_16BE].contains(&encoding) {
                encoding.new_decoder()
            } else {
                encoding.new_decoder_without_bom_handling()
            },
            raw: vec![0; CHUNK_BYTES].into_boxed_slice(),
            raw_start: 0,
            raw_end: 0,
            raw_is_last: false,
            tail: Vec::new(),
            text: vec![0; CHUNK_BYTES].into_boxed_slice(),
            text_start: 0,
            text_end: 0,
            n_line_feeds: 0,
            line_ends: LineEnds::LineFeed,
            finished: false,
            malformed: None,
            bad_bytes: OnBadBytes::Fail,
        }
    }

    /// Fills `raw`, which must be used up.
    fn read_more(&mut self) -> io::Result<()> {
        let n_read = loop {
            match self.input.read(&mut self.raw) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => break result?,
            }
        };
        self.raw_start = 0;
        self.raw_end = n_read;
        self.raw_is_last = n_read == 0;
        Ok(())
    }

    /// Decodes some of `raw` into `text`, which must be used up.
    fn decode_more(&mut self) {
        let raw = &self.raw[self.raw_start..self.raw_end];
        let (result, n_read, n_written) =
            self.decoder.decode_to_utf8_without_replacement(raw, &mut self.text, self.raw_is_last);
        self.tail.extend_from_slice(&raw[n_read.saturating_sub(TAIL_BYTES)..n_read]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        self.raw_start += n_read;
        self.text_start = 0;
        self.text_end = n_written;
        self.mark_line_ends();
        self.n_line_feeds += count_line_feeds(&self.text[..n_written]);
        match result {
            DecoderResult::InputEmpty => self.finished = self.raw_is_last,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(n_bad, n_after) => {
                let end = self.tail.len().saturating_sub(usize::from(n_after));
                let start = end.saturating_sub(usize::from(n_bad));
                self.malformed = Some(Malformed {
                    line: self.n_line_feeds + 1,
                    encoding: self.decoder.encoding().name(),
                    bytes: self.tail[start..end].to_vec(),
                });
            }
        }
    }
}

impl<R> Transcoder<R> {
    /// From here on, replaces bytes that do not decode with U+FFFD.
    pub(super) fn replace_bad_bytes(&mut self) {
        self.bad_bytes = OnBadBytes::Replace;
    }

    /// From here on, replaces bytes that do not decode with U+FFFD, and lists them in `bytes`.
    pub(super) fn list_bad_bytes(&mut self, bytes: &BadBytes) {
        self.bad_bytes = OnBadBytes::List(bytes.clone());
    }

    /// Skips bytes that have been peeked at.
    pub(super) fn skip(&mut self, n_bytes: usize) {
        self.text_start = (self.text_start + n_bytes).min(self.text_end);
    }

    /// Converts carriage returns that end lines to line feeds.
    fn mark_line_ends(&mut self) {
        let text = &mut self.text[..self.text_end];
        if self.line_ends == LineEnds::Unknown && !text.is_empty() {
            // A carriage return at the end may be the first half of a line end.
            let inner = &text[..text.len() - 1];
            self.line_ends = if inner.contains(&b'\r') && !text.contains(&b'\n') {
                LineEnds::CarriageReturn
            } else {
                LineEnds::LineFeed
            };
        }
        if self.line_ends == LineEnds::CarriageReturn {
            text.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
    }
}

impl<R: Read> BufRead for Transcoder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.text_start == self.text_end && !self.finished {
            match (&self.malformed, &self.bad_bytes) {
                (None, _) => {}
                (Some(malformed), OnBadBytes::Fail) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, malformed.clone()));
                }
                (Some(malformed), replaced) => {
                    if let OnBadBytes::List(bytes) = replaced {
                        bytes.note(malformed.line, malformed.in_words());
                    }
                    self.malformed = None;
                    let replacement = "\u{fffd}".as_bytes();
                    self.text[..replacement.len()].copy_from_slice(replacement);
                    (self.text_start, self.text_end) = (0, replacement.len());
                    break;
                }
            }
            if self.raw_start == self.raw_end && !self.raw_is_last {
                self.read_more()?;
            }
            self.decode_more();
        }
        Ok(&self.text[self.text_start..self.text_end])
    }

    fn consume(&mut self, n_bytes: usize) {
        self.skip(n_bytes);
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.fill_buf()?.read(buffer)?;
        self.consume(n_read);
        Ok(n_read)
    }
}

impl Malformed {
    fn in_words(&self) -> String {
        format!("expected {} text, got {}", self.encoding, self.shown_bytes())
    }

    fn shown_bytes(&self) -> String {
        let bytes: Vec<String> = self.bytes.iter().map(|byte| format!("0x{byte:02X}")).collect();
        match bytes.len() {
            1 => format!("the byte {}", bytes[0]),
            _ => format!("the bytes {}", bytes.join(" ")),
        }
    }
}

pub(super) fn count_line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Reads the next line without its end (`\n` or `\r\n`), or returns `None` after the last one. `number` is the line
/// number for messages.
pub(super) fn next_line(
    input: &mut impl BufRead,
    source: &Source,
    number: u64,
) -> Result<Option<String>> {
    let mut line = Vec::new();
    // One byte more than the longest line and its end.
    let mut input = input.take(MAX_RECORD_BYTES as u64 + 3);
    input.read_until(b'\n', &mut line).map_err(|error| failure(source, error))?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    if line.len() > MAX_RECORD_BYTES {
        return Err(too_long(
            source,
            Some(number),
            "a line",
            "check that the file has line ends; or set `format` of this source to what it is",
        ));
    }
    // Does not fail: a whole line of decoded text is UTF-8.
    let line = String::from_utf8(line)
        .map_err(|error| failure(source, io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns at most `n` bytes per read.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn decoded(bytes: &[u8], encoding: &str, n_at_once: usize) -> Result<String, (String, String)> {
        let encoding = Encoding::for_label_no_replacement(encoding.as_bytes()).unwrap();
        let mut transcoder = Transcoder::new(Drip(bytes, n_at_once), encoding);
        let mut text = Vec::new();
        let mut buffer = [0; 3];
        let utf8 = |text| String::from_utf8(text).unwrap();
        loop {
            match transcoder.read(&mut buffer) {
                Ok(0) => return Ok(utf8(text)),
                Ok(n) => text.extend_from_slice(&buffer[..n]),
                Err(error) => {
                    return Err((utf8(text), failure(&Source::new("a.txt"), error).to_string()));
                }
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_dropped_and_only_at_the_start() {
        for n_at_once in [1, 2, 100] {
            assert_eq!(decoded(b"\xEF\xBB\xBFone", "utf-8", n_at_once).unwrap(), "one");
            for encoding in ["utf-8", "utf-16", "utf-16le", "utf-16be"] {
                assert_eq!(decoded(b"\xFF\xFEo\0n\0", encoding, n_at_once).unwrap(), "on");
                assert_eq!(decoded(b"\xFE\xFF\0o\0n", encoding, n_at_once).unwrap(), "on");
            }
            assert_eq!(decoded(b"\xFF\xFEo", "latin1", n_at_once).unwrap(), "\u{ff}\u{fe}o");
            assert_eq!(decoded(b"a\xEF\xBB\xBF", "utf-8", n_at_once).unwrap().len(), 1 + 2 * 3 - 3);
        }
    }

    #[test]
    fn bad_bytes_are_errors_with_line_and_byte_after_all_text_before_them() {
        for n_at_once in [1, 2, 3, 100] {
            for (bytes, encoding, before, message) in [
                (
                    &b"one\nt\xF0wo\n"[..],
                    "utf-8",
                    "one\nt",
                    "a.txt:2: expected UTF-8 text, got the byte 0xF0",
                ),
                (b"\xFFone", "utf8", "", "a.txt:1: expected UTF-8 text, got the byte 0xFF"),
                (
                    b"a\n\n\xE2\x82",
                    "utf-8",
                    "a\n\n",
                    "a.txt:3: expected UTF-8 text, got the bytes 0xE2 0x82",
                ),
                (
                    b"a\n\x81\xFF",
                    "shift_jis",
                    "a\n",
                    "a.txt:2: expected Shift_JIS text, got the bytes 0x81 0xFF",
                ),
            ] {
                let (text, error) = decoded(bytes, encoding, n_at_once).unwrap_err();
                assert_eq!((text.as_str(), error.as_str()), (before, message));
            }
        }
    }

    #[test]
    fn a_bad_byte_far_into_a_file_is_found_on_its_line() {
        let mut bytes = "0123456789é\n".repeat(20_000).into_bytes();
        bytes.extend_from_slice(b"caf\xE9\nmore\n");
        let (text, error) = decoded(&bytes, "utf-8", 4096).unwrap_err();
        assert_eq!(text.len(), 20_000 * 13 + 3);
        assert_eq!(error, "a.txt:20001: expected UTF-8 text, got the byte 0xE9");
    }

    #[test]
    fn an_unknown_encoding_is_refused() {
        let source = Source { encoding: "utf-9".to_owned(), ..Source::new("a.txt") };
        let error = decode(Box::new(io::empty()), &source).err().unwrap();
        assert_eq!(
            error.to_string(),
            "a.txt: expected an encoding of the WHATWG standard, got `utf-9`"
        );
    }

    #[test]
    fn lines_lose_their_ends_whether_lf_or_crlf_or_none() {
        let mut input = &b"one\r\n\ntwo\rstill two\nlast"[..];
        let source = Source::new("a.txt");
        let lines: Vec<String> =
            std::iter::from_fn(|| next_line(&mut input, &source, 1).unwrap()).collect();
        assert_eq!(lines, ["one", "", "two\rstill two", "last"]);
    }
}
