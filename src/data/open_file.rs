//! Opens and decompresses data files: only regular files, checked not to change after they were hashed.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use frostbert_cache::fingerprint::{Digest, Stamp};

use super::{
    read::{CHUNK_BYTES, Text, decode_file},
    source::Source,
};
use crate::error::{Error, Result};

/// The first two bytes of gzip data; no text in a supported encoding starts with them.
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

/// A data file that is opened once, so that the bytes that are hashed are those that are read, even if another file
/// takes its name in the meantime.
pub(super) struct OpenFile {
    path: PathBuf,
    file: File,
    opened: Stamp,
}

impl OpenFile {
    /// Opens a regular file. Anything else is an error, because it can only be read once, or not at all.
    pub(super) fn open(path: &Path) -> Result<OpenFile> {
        let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
        // Checked before opening, because opening a named pipe waits for its writer.
        if let Some(kind) = irregular_kind(&metadata) {
            return Err(Error::Record {
                path: path.to_path_buf(),
                line: None,
                expected: "a regular file, because data files are read more than once".to_owned(),
                got: kind.to_owned(),
                hint: "write its contents to a file first, and name that file".to_owned(),
            });
        }
        let file = File::open(path).map_err(Error::io("read", path))?;
        let opened = file.metadata().map_err(Error::io("read", path))?;
        Ok(OpenFile { path: path.to_path_buf(), file, opened: Stamp::of_metadata(&opened) })
    }

    /// Computes the BLAKE3 hash of its bytes.
    pub(super) fn blake3(&mut self) -> Result<Digest> {
        let failed = || Error::io("read", &self.path);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&self.file).map_err(failed())?;
        self.file.rewind().map_err(failed())?;
        Ok(hasher.finalize().into())
    }

    /// Returns the file itself, to be read from its start.
    pub(super) fn try_clone(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io("read", &self.path))
    }

    /// Returns an error if the file has been written to since it was opened.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(Error::io("read", &self.path))?;
        if Stamp::of_metadata(&now) == self.opened {
            return Ok(());
        }
        Err(Error::Record {
            path: self.path.clone(),
            line: None,
            expected: "a file that does not change while it is read".to_owned(),
            got: "one that has changed meanwhile".to_owned(),
            hint: "run the command again when whatever writes the file has finished".to_owned(),
        })
    }

    /// Returns its text, decompressed if needed.
    pub(super) fn text(&self, source: &Source) -> Result<Text> {
        let file = self.try_clone()?;
        if source.is_gzip() && !self.is_gzip()? {
            return Err(source.malformed(
                None,
                "gzip data, as the name ends in .gz",
                if file.metadata().is_ok_and(|file| file.len() == 0) {
                    "an empty file".to_owned()
                } else {
                    "data that is not compressed".to_owned()
                },
                "take .gz off the file's name, or compress it with gzip",
            ));
        }
        text_of(file, source)
    }

    fn is_gzip(&self) -> Result<bool> {
        let failed = || Error::io("read", &self.path);
        let mut file = self.try_clone()?;
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).map_err(failed())?;
        file.rewind().map_err(failed())?;
        Ok(magic == GZIP_MAGIC)
    }
}

/// Names the kind of a file that is neither a regular one nor a folder.
fn irregular_kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match kind {
        _ if kind.is_file() || kind.is_dir() => None,
        _ if kind.is_fifo() => Some("a pipe"),
        _ if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

/// Whether a path is that of a pipe or a device, which can only be read once.
pub(super) fn is_stream(path: &Path) -> bool {
    let kind = std::fs::metadata(path).ok().and_then(|metadata| irregular_kind(&metadata));
    kind.is_some_and(|kind| kind != "a socket")
}

/// Returns the text of any input, decompressed if it starts like gzip data. The first bytes are read immediately.
pub(super) fn text_of(input: impl Read + Send + 'static, source: &Source) -> Result<Text> {
    let (first, input) = with_first_bytes(input);
    if !first.starts_with(&GZIP_MAGIC) {
        decode_file(input, source)
    } else {
        let buffered = io::BufReader::with_capacity(CHUNK_BYTES, input);
        let (_, input) = with_first_bytes(MultiGzDecoder::new(buffered));
        decode_file(input, source)
    }
}

/// Returns the first bytes of an input, and a reader of the whole input.
fn with_first_bytes(mut input: impl Read + Send + 'static) -> (Vec<u8>, Box<dyn Read + Send>) {
    let mut first = Vec::new();
    // An error is reported again when the reader reaches it, after the bytes before it.
    let failure = (&mut input).take(CHUNK_BYTES as u64).read_to_end(&mut first).err();
    let rest: Box<dyn Read + Send> = match failure {
        Some(error) => Box::new(Failing(Some(error))),
        None => Box::new(input),
    };
    let all = io::Cursor::new(first.clone()).chain(rest);
    (first, Box::new(all))
}

/// A reader that returns one error.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::data::read::failure;

    fn open(source: &Source) -> Result<Text> {
        OpenFile::open(&source.path)?.text(source)
    }

    #[test]
    fn a_carriage_return_ends_a_line_where_no_line_feed_does() {
        let folder = tempfile::tempdir().unwrap();
        let text = |bytes: &[u8]| {
            let source = Source::new(folder.path().join("a.txt"));
            std::fs::write(&source.path, bytes).unwrap();
            io::read_to_string(open(&source).unwrap()).unwrap()
        };
        assert_eq!(text(b"a,b\rc,d\r"), "a,b\nc,d\n");
        assert_eq!(text(b"a\rb\nc\r\n"), "a\rb\nc\r\n");
        assert_eq!(text(b"\xFF\xFEa\0\r\0b\0"), "a\nb");
        assert_eq!(text(b"one line\r"), "one line\r");
        let long = "0123456789\r".repeat(20_000);
        assert_eq!(text(long.as_bytes()), long.replace('\r', "\n"));
    }

    #[test]
    fn only_a_regular_file_that_stays_as_it_is_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "one").unwrap();
        let mut file = OpenFile::open(&path).unwrap();
        assert_eq!(file.blake3().unwrap(), frostbert_cache::fingerprint::hash_bytes(b"one"));
        let aside = folder.path().join("b");
        std::fs::write(&aside, "two").unwrap();
        std::fs::rename(&aside, &path).unwrap();
        let text = io::read_to_string(file.text(&Source::new(&path)).unwrap()).unwrap();
        assert_eq!(text, "one", "what was hashed, not what took its name");
        file.require_unchanged().unwrap();

        let file = OpenFile::open(&path).unwrap();
        std::fs::write(&path, "two and more").unwrap();
        let error = file.require_unchanged().unwrap_err();
        assert!(error.to_string().contains("changed meanwhile"), "{error}");
        let error = OpenFile::open(Path::new("/dev/null")).err().unwrap();
        assert!(error.to_string().contains("expected a regular file"), "{error}");
    }

    #[test]
    fn gzip_is_known_by_its_bytes_and_a_name_that_promises_it_in_vain_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let plain = Source::new(folder.path().join("a.csv.gz"));
        std::fs::write(&plain.path, "text,label\n").unwrap();
        let error = open(&plain).err().unwrap();
        assert!(
            error.to_string().ends_with(
                "a.csv.gz: expected gzip data, as the name ends in .gz, got data that is not compressed"
            ),
            "{error}"
        );
        let unnamed = Source::new(folder.path().join("a.csv"));
        let file = std::fs::File::create(&unnamed.path).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(b"text").unwrap();
        encoder.finish().unwrap();
        assert_eq!(io::read_to_string(open(&unnamed).unwrap()).unwrap(), "text");
    }

    #[test]
    fn gzip_files_of_several_members_are_read_whole_and_damaged_ones_fail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt.gz");
        let mut bytes = Vec::new();
        for part in ["one\n", "two\n"] {
            let mut encoder =
                flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.finish().unwrap();
        }
        std::fs::write(&path, &bytes).unwrap();
        let source = Source::new(&path);
        assert_eq!(io::read_to_string(open(&source).unwrap()).unwrap(), "one\ntwo\n");

        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let error = failure(&source, io::read_to_string(open(&source).unwrap()).unwrap_err());
        assert!(
            matches!(&error, Error::Io(refused) if refused.action == "read" && refused.path == path),
            "{error}"
        );
    }
}
