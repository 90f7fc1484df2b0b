//! The documents of an extraction, spooled to disk in the order in which they are read, so that memory does not grow
//! with the corpus.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use frostbert_cache::fingerprint::Key;

use crate::{
    config::settings::ExtractionSettings,
    data::{Record, Source, document::Document},
    error::{Error, Result},
};

/// A document that is waiting to be tokenised and encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpooledDocument {
    pub(crate) key: Key,
    /// The position of its record in the file.
    at: u64,
    /// The length of its record.
    pub(crate) n_bytes: u64,
    /// Its line in the data file `source`, for messages; 0 if it has none.
    line: u32,
    source: u16,
}

/// A temporary file of texts, and the documents in it, sorted by key.
pub(crate) struct Spool {
    file: File,
    documents: Vec<SpooledDocument>,
}

/// The counts of what was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadCounts {
    /// Number of records.
    pub(crate) documents: u64,
    /// Number of records of only white space that were left out.
    pub(crate) empty: u64,
    /// Number of distinct documents.
    pub(crate) unique: u64,
    /// Number of these that were cut off at `max_length`, as far as is known.
    pub(crate) truncated: u64,
}

/// Decides which documents are encoded: each once, and none that the settings leave out.
pub(crate) struct Admission<'a> {
    settings: &'a ExtractionSettings,
    /// Half a key is enough to tell documents apart, at half the memory.
    seen: HashSet<u128>,
    pub(crate) counts: ReadCounts,
}

impl<'a> Admission<'a> {
    pub(crate) fn new(settings: &'a ExtractionSettings) -> Admission<'a> {
        Admission { settings, seen: HashSet::new(), counts: ReadCounts::default() }
    }

    /// Counts an example, and returns whether its documents are considered.
    pub(crate) fn admit(&mut self, example: &Record) -> bool {
        self.counts.documents += 1;
        let empty = self.settings.leaves_out(example);
        self.counts.empty += u64::from(empty);
        !empty
    }

    /// Returns whether a document is the first with its key, and counts it if so.
    pub(crate) fn is_new(&mut self, key: &Key) -> bool {
        let mut half = [0; 16];
        half.copy_from_slice(&key.0[..16]);
        let new = self.seen.insert(u128::from_le_bytes(half));
        self.counts.unique += u64::from(new);
        new
    }
}

impl Spool {
    /// Reads examples and spools the admitted documents that `present` does not know, to a file without a name in a
    /// folder, so that a kill leaves nothing behind. For a document that it knows, `present` returns `Some(truncated)`.
    pub(crate) fn fill(
        folder: &Path,
        examples: impl Iterator<Item = Result<Record>>,
        mut admission: Admission<'_>,
        present: impl Fn(&Key) -> Option<bool>,
    ) -> Result<(Spool, ReadCounts)> {
        let file = tempfile::tempfile_in(folder)
            .map_err(Error::io("create a temporary file in", folder))?;
        let mut writer = BufWriter::new(file);
        let mut documents = Vec::new();
        let mut record = Vec::new();
        let mut at = 0;
        for example in examples {
            let example = example?;
            if !admission.admit(&example) {
                continue;
            }
            let settings = admission.settings;
            for document in settings.documents(&example) {
                let key = document.key();
                if !admission.is_new(&key) {
                    continue;
                }
                if let Some(truncated) = present(&key) {
                    admission.counts.truncated += u64::from(truncated);
                    continue;
                }
                record.clear();
                write_record(document, &mut record);
                let written = writer.write_all(&record);
                written.map_err(Error::io("write a temporary file in", folder))?;
                let n_bytes = record.len() as u64;
                documents.push(SpooledDocument {
                    key,
                    at,
                    n_bytes,
                    source: example.source as u16,
                    line: example.line.unwrap_or(0) as u32,
                });
                at += n_bytes;
            }
        }
        let file = writer
            .into_inner()
            .map_err(|error| Error::io("write a temporary file in", folder)(error.into_error()))?;
        documents.sort_unstable_by_key(|document| document.key);
        Ok((Spool { file, documents }, admission.counts))
    }

    /// Writes documents, given by their numbers, to a file that [`Spool::open`] reads on any machine.
    pub(crate) fn write(&self, numbers: &[u32], out: &mut impl Write) -> io::Result<()> {
        let mut record = Vec::new();
        for number in numbers {
            let document = self.document(*number);
            record.resize(document.n_bytes as usize, 0);
            self.file.read_exact_at(&mut record, document.at)?;
            out.write_all(&document.n_bytes.to_le_bytes())?;
            out.write_all(&document.line.to_le_bytes())?;
            out.write_all(&document.source.to_le_bytes())?;
            out.write_all(&record)?;
        }
        Ok(())
    }

    /// Opens a file that [`Spool::write`] wrote, with its documents in the order in which they were written.
    pub(crate) fn open(path: &Path) -> Result<Spool> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let documents = written_documents(&file).map_err(Error::io("read", path))?;
        Ok(Spool { file, documents })
    }

    /// Returns the documents, sorted by key.
    pub(crate) fn documents(&self) -> &[SpooledDocument] {
        &self.documents
    }

    /// Returns the keys of the documents, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.documents.iter().map(|document| document.key)
    }

    /// Returns the document of a number, counted from 0 in the order of keys.
    pub(crate) fn document(&self, number: u32) -> &SpooledDocument {
        &self.documents[number as usize]
    }

    /// Reads a document back.
    pub(crate) fn read(&self, document: &SpooledDocument) -> Result<SpooledTexts> {
        let mut bytes = vec![0u8; document.n_bytes as usize];
        let read = self.file.read_exact_at(&mut bytes, document.at);
        read.and_then(|()| read_record(&bytes))
            .map_err(Error::io("read", "the temporary file of texts"))
    }
}

impl SpooledDocument {
    /// Returns the place of the text in the data, as in `the text at data/reviews.csv:12`.
    pub(crate) fn place(&self, sources: &[Source]) -> String {
        let path = self.source(sources).map(|source| source.path.display().to_string());
        format!("the text at {}:{}", path.unwrap_or_default(), self.line)
    }

    /// Builds the error for a document of which the tokenizer makes no token.
    pub(crate) fn without_tokens(&self, sources: &[Source]) -> Error {
        Error::Record {
            path: self.source(sources).map(|source| source.path.clone()).unwrap_or_default(),
            line: Some(u64::from(self.line)).filter(|line| *line > 0),
            expected: "a text of at least one token".into(),
            got: "one without tokens (this tokenizer adds no special tokens either)".into(),
            hint: "remove the record, or leave data.clean.drop_empty on, which drops it from train"
                .into(),
        }
    }

    fn source<'s>(&self, sources: &'s [Source]) -> Option<&'s Source> {
        sources.get(usize::from(self.source))
    }
}

/// The texts of a document that was read back.
pub(crate) struct SpooledTexts {
    kind: u8,
    parts: Vec<String>,
}

const TEXT: u8 = 0;
const PAIR: u8 = 1;
const WORDS: u8 = 2;
const PROMPTED: u8 = 3;

impl SpooledTexts {
    pub(crate) fn document(&self) -> Document<'_> {
        match (self.kind, &self.parts[..]) {
            (TEXT, [text]) => Document::Text(text),
            (PAIR, [first, second]) => Document::Pair(first, second),
            (PROMPTED, [prompt, text]) => Document::Prompted { prompt, text },
            (_, words) => Document::Words(words),
        }
    }
}

/// Writes the kind of a document, and each of its parts with its length before it.
fn write_record(document: Document<'_>, out: &mut Vec<u8>) {
    match document {
        Document::Text(text) => put(out, TEXT, [text].into_iter()),
        Document::Pair(first, second) => put(out, PAIR, [first, second].into_iter()),
        Document::Words(words) => put(out, WORDS, words.iter().map(String::as_str)),
        Document::Prompted { prompt, text } => put(out, PROMPTED, [prompt, text].into_iter()),
    }
}

fn put<'t>(out: &mut Vec<u8>, kind: u8, parts: impl Iterator<Item = &'t str>) {
    out.push(kind);
    for part in parts {
        out.extend((part.len() as u64).to_le_bytes());
        out.extend(part.as_bytes());
    }
}

/// Finds the documents in a file that [`Spool::write`] wrote.
fn written_documents(file: &File) -> io::Result<Vec<SpooledDocument>> {
    let mut reader = BufReader::new(file);
    let (mut n_bytes, mut line, mut source) = ([0; 8], [0; 4], [0; 2]);
    let mut record = Vec::new();
    let mut documents = Vec::new();
    let mut at = 0;
    while !reader.fill_buf()?.is_empty() {
        reader.read_exact(&mut n_bytes)?;
        reader.read_exact(&mut line)?;
        reader.read_exact(&mut source)?;
        at += (n_bytes.len() + line.len() + source.len()) as u64;
        let n_bytes = u64::from_le_bytes(n_bytes);
        record.resize(n_bytes as usize, 0);
        reader.read_exact(&mut record)?;
        documents.push(SpooledDocument {
            key: read_record(&record)?.document().key(),
            at,
            n_bytes,
            line: u32::from_le_bytes(line),
            source: u16::from_le_bytes(source),
        });
        at += n_bytes;
    }
    Ok(documents)
}

/// Reads what [`write_record`] wrote.
fn read_record(record: &[u8]) -> io::Result<SpooledTexts> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let (kind, mut rest) = record.split_first().ok_or_else(damaged)?;
    let mut parts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u64::from_le_bytes(*length) as usize;
        let (part, after) = after.split_at_checked(length).ok_or_else(damaged)?;
        parts.push(String::from_utf8(part.to_vec()).map_err(|_| damaged())?);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(damaged());
    }
    Ok(SpooledTexts { kind: *kind, parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_document_is_read_back() {
        let words = ["a ".to_string(), String::new(), "\u{1f600}".to_string()];
        for document in [
            Document::Text(""),
            Document::Text("one text\n"),
            Document::Pair("one", ""),
            Document::Words(&words),
            Document::Words(&words[..1]),
            Document::Words(&words[..2]),
            Document::Prompted { prompt: "query: ", text: "caf\u{e9}" },
        ] {
            let mut record = Vec::new();
            write_record(document, &mut record);
            assert_eq!(read_record(&record).unwrap().document(), document);
            assert!(read_record(&record[..record.len() - 1]).is_err());
        }
    }

    #[test]
    fn documents_that_are_written_are_opened_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let words = ["a ".to_string(), String::new()];
        let written = [
            Document::Text("one"),
            Document::Pair("one", "two"),
            Document::Words(&words),
            Document::Prompted { prompt: "query: ", text: "caf\u{e9}" },
        ];
        let (mut bytes, mut documents) = (Vec::new(), Vec::new());
        for (number, document) in written.into_iter().enumerate() {
            let at = bytes.len() as u64;
            write_record(document, &mut bytes);
            let n_bytes = bytes.len() as u64 - at;
            let (line, source) = (number as u32 + 2, 7);
            documents.push(SpooledDocument { key: document.key(), at, n_bytes, line, source });
        }
        let path = folder.path().join("whole");
        std::fs::write(&path, &bytes).unwrap();
        let spool = Spool { file: File::open(path).unwrap(), documents };

        // Any of them, in any order.
        let numbers = [3, 0, 2];
        let mut part = Vec::new();
        spool.write(&numbers, &mut part).unwrap();
        let path = folder.path().join("part");
        std::fs::write(&path, &part).unwrap();
        let opened = Spool::open(&path).unwrap();
        assert_eq!(opened.documents().len(), numbers.len());
        for (document, number) in opened.documents().iter().zip(numbers) {
            let texts = opened.read(document).unwrap();
            assert_eq!(texts.document(), written[number as usize]);
            assert_eq!(document.key, spool.document(number).key);
            assert_eq!((document.line, document.source), (number + 2, 7));
        }
        // A file that ends too early is not taken for a shorter one.
        std::fs::write(&path, &part[..part.len() - 1]).unwrap();
        assert!(Spool::open(&path).is_err());
    }
}
