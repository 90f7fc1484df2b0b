//! The documents of an extraction, tokenised and spooled to disk, so that memory does not grow with the corpus.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use frostbert_cache::{
    fingerprint::Key,
    states::{Alignment, WordPlace},
};

use crate::{
    config::settings::ExtractionSettings,
    data::{Record, Source},
    encoder::{
        tokenizer::TextTokenizer,
        windows::{Encoding, Window},
    },
    error::{Error, Result},
};

/// Number of examples that are tokenised at a time.
const CHUNK_EXAMPLES: usize = 2048;

/// Number of bytes of text that are tokenised at a time, so that progress is seen on long texts too.
const CHUNK_BYTES: usize = 1 << 20;

/// A document that is waiting to be encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpooledDocument {
    pub(crate) key: Key,
    /// The position of its record in the file; `n_bytes` is the length.
    at: u64,
    n_bytes: u32,
    /// Number of tokens in all its windows.
    pub(crate) n_tokens: u32,
    pub(crate) n_words: u32,
    /// Its line in the data file `source`, for messages.
    line: u32,
    source: u16,
    pub(crate) truncated: bool,
}

/// A temporary file of encodings, and the documents in it, sorted by key.
pub(crate) struct Spool {
    file: File,
    aligned: bool,
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
    /// Number of these that were cut off at `max_length`.
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

/// How documents are spooled.
pub(crate) struct Spooling<'a> {
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) settings: &'a ExtractionSettings,
    /// Whether tokens or words are stored, so that their positions are needed.
    pub(crate) aligned: bool,
    /// The data files, for messages.
    pub(crate) sources: &'a [Source],
    /// The folder of the temporary file, which has no name, so that a kill leaves nothing behind.
    pub(crate) folder: &'a Path,
}

impl Spooling<'_> {
    /// Reads examples and tokenises the admitted documents that `present` does not know. For a document that it knows,
    /// `present` returns `Some(truncated)`.
    pub(crate) fn fill(
        &self,
        examples: impl Iterator<Item = Result<Record>>,
        mut admission: Admission<'_>,
        present: impl Fn(&Key) -> Option<bool>,
    ) -> Result<(Spool, ReadCounts)> {
        let file = tempfile::tempfile_in(self.folder)
            .map_err(Error::io("create a temporary file in", self.folder))?;
        let mut filling = Filling {
            spooling: self,
            writer: BufWriter::new(file),
            documents: Vec::new(),
            at: 0,
            pending: Vec::with_capacity(CHUNK_EXAMPLES),
            pending_bytes: 0,
        };
        for example in examples {
            let example = example?;
            if !admission.admit(&example) {
                continue;
            }
            let mut wanted = Vec::new();
            for (part, input) in self.settings.documents(&example).enumerate() {
                let key = input.key();
                if !admission.is_new(&key) {
                    continue;
                }
                match present(&key) {
                    Some(truncated) => admission.counts.truncated += u64::from(truncated),
                    None => wanted.push((part, key)),
                }
            }
            if !wanted.is_empty() {
                filling.add(wanted, example)?;
            }
        }
        let mut spool = filling.finish()?;
        let mut counts = admission.counts;
        let truncated = spool.documents.iter().filter(|document| document.truncated);
        counts.truncated += truncated.count() as u64;
        spool.documents.sort_unstable_by_key(|document| document.key);
        Ok((spool, counts))
    }
}

impl Spooling<'_> {
    fn without_tokens(&self, example: &Record) -> Error {
        let source = self.sources.get(example.source);
        Error::Record {
            path: source.map(|source| source.path.clone()).unwrap_or_default(),
            line: example.line,
            expected: "a text of at least one token".into(),
            got: "one without tokens (this tokenizer adds no special tokens either)".into(),
            hint: "remove the record, or leave data.clean.drop_empty on, which drops it from train"
                .into(),
        }
    }
}

impl Spool {
    /// Returns the documents, sorted by key.
    pub(crate) fn documents(&self) -> &[SpooledDocument] {
        &self.documents
    }

    /// Reads the encoding of a document back.
    pub(crate) fn read(&self, document: &SpooledDocument) -> Result<Encoding> {
        let mut bytes = vec![0u8; document.n_bytes as usize];
        self.file
            .read_exact_at(&mut bytes, document.at)
            .map_err(Error::io("read", "the temporary file of token ids"))?;
        let mut record = RecordBytes(&bytes);
        let left_out = record.u32();
        let lengths = (0..record.u32()).map(|_| record.u32()).collect::<Vec<u32>>();
        let windows = lengths
            .into_iter()
            .map(|length| record.window(length as usize, self.aligned))
            .collect();
        let words = (0..document.n_words).map(|_| record.word()).collect();
        Ok(Encoding { windows, words, truncated: document.truncated, left_out })
    }
}

impl SpooledDocument {
    /// Returns the place of the text in the data, as in `the text at data/reviews.csv:12`.
    pub(crate) fn place(&self, sources: &[Source]) -> String {
        let path =
            sources.get(usize::from(self.source)).map(|source| source.path.display().to_string());
        format!("the text at {}:{}", path.unwrap_or_default(), self.line)
    }
}

/// An example, and which of its documents to tokenise.
type Pending = (Vec<(usize, Key)>, Record);

struct Filling<'a> {
    spooling: &'a Spooling<'a>,
    writer: BufWriter<File>,
    documents: Vec<SpooledDocument>,
    at: u64,
    pending: Vec<Pending>,
    pending_bytes: usize,
}

impl Filling<'_> {
    fn add(&mut self, wanted: Vec<(usize, Key)>, example: Record) -> Result<()> {
        let second = example.text_pair.as_ref().map_or(0, String::len);
        self.pending_bytes += example.text.len() + second;
        self.pending.push((wanted, example));
        if self.pending.len() == CHUNK_EXAMPLES || self.pending_bytes >= CHUNK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let Spooling { tokenizer, settings, aligned, folder, .. } = self.spooling;
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let wanted = pending.iter().flat_map(|(wanted, example)| {
            let inputs: Vec<_> = settings.documents(example).collect();
            wanted.iter().map(move |(part, key)| (*key, inputs[*part], example))
        });
        let wanted: Vec<_> = wanted.collect();
        let inputs: Vec<_> = wanted.iter().map(|(_, input, _)| *input).collect();
        let encodings = tokenizer.encode(&inputs, *aligned)?;
        let mut record = Vec::new();
        for ((key, _, example), encoding) in wanted.into_iter().zip(encodings) {
            if encoding.has_empty_window() {
                return Err(self.spooling.without_tokens(example));
            }
            record.clear();
            write_record(&encoding, *aligned, &mut record);
            self.writer
                .write_all(&record)
                .map_err(Error::io("write a temporary file in", *folder))?;
            self.documents.push(SpooledDocument {
                key,
                at: self.at,
                n_bytes: record.len() as u32,
                n_tokens: encoding.n_tokens() as u32,
                n_words: if *aligned { encoding.words.len() as u32 } else { 0 },
                truncated: encoding.truncated,
                source: example.source as u16,
                line: example.line.unwrap_or(0) as u32,
            });
            self.at += record.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Spool> {
        self.flush()?;
        let Spooling { folder, aligned, .. } = self.spooling;
        let file = self
            .writer
            .into_inner()
            .map_err(|error| Error::io("write a temporary file in", *folder)(error.into_error()))?;
        Ok(Spool { file, aligned: *aligned, documents: self.documents })
    }
}

fn write_record(encoding: &Encoding, aligned: bool, out: &mut Vec<u8>) {
    let mut put = |number: u32| out.extend(number.to_le_bytes());
    put(encoding.left_out);
    put(encoding.windows.len() as u32);
    encoding.lengths().for_each(&mut put);
    for window in &encoding.windows {
        out.extend(window.ids.iter().flat_map(|id| id.to_le_bytes()));
        out.extend(&window.type_ids);
        if aligned {
            let alignment = &window.alignment;
            out.extend(alignment.words.iter().flat_map(|word| word.to_le_bytes()));
            for characters in [&alignment.char_starts, &alignment.char_ends] {
                out.extend(characters.iter().flat_map(|place| place.to_le_bytes()));
            }
            out.extend(&alignment.sequences);
        }
    }
    if aligned {
        for word in &encoding.words {
            out.push(word.sequence);
            out.extend(word.word.to_le_bytes());
            out.extend(word.char_start.to_le_bytes());
            out.extend(word.char_end.to_le_bytes());
            out.extend(word.window.to_le_bytes());
            out.extend(word.position.to_le_bytes());
        }
    }
}

/// The rest of a record: values are taken from its front in the order in which [`write_record`] put them.
struct RecordBytes<'a>(&'a [u8]);

impl RecordBytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N);
        self.0 = rest;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        array
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u32s(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.u32()).collect()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken.to_vec()
    }

    fn window(&mut self, length: usize, aligned: bool) -> Window {
        let ids = self.u32s(length);
        let type_ids = self.bytes(length);
        let mut alignment = Alignment::default();
        if aligned {
            alignment = Alignment {
                token_ids: ids.clone(),
                words: self.u32s(length).into_iter().map(|word| word as i32).collect(),
                char_starts: self.u32s(length),
                char_ends: self.u32s(length),
                sequences: self.bytes(length),
            };
        }
        Window { ids, type_ids, alignment }
    }

    fn word(&mut self) -> WordPlace {
        let [sequence] = self.take();
        WordPlace {
            sequence,
            word: self.u32() as i32,
            char_start: self.u32(),
            char_end: self.u32(),
            window: u16::from_le_bytes(self.take()),
            position: u16::from_le_bytes(self.take()),
        }
    }
}
