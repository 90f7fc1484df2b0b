//! The texts of an extraction, tokenised and set aside on disk, so that memory does not grow with the corpus.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use crate::{
    data::{Example, Source, dataset::example_key},
    encoder::tokenizer::TextTokenizer,
    error::{Error, Result},
    fingerprint::Key,
};

/// Texts tokenised at a time.
const CHUNK_TEXTS: usize = 2048;

/// A document that waits to be encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpooledDocument {
    pub(super) key: Key,
    pub(super) n_tokens: u32,
    pub(super) truncated: bool,
    /// First token in the file.
    token_start: u64,
    /// Where it stands in the data, for messages.
    source: u32,
    line: u32,
}

/// A temporary file of token ids, and the documents in it, sorted by key.
pub(super) struct Spool {
    file: File,
    documents: Vec<SpooledDocument>,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReadCounts {
    /// Records.
    pub(super) documents: u64,
    /// Texts of nothing but white space that were left out.
    pub(super) empty: u64,
    /// Distinct texts.
    pub(super) unique: u64,
    /// Of these, cut off at `max_length`.
    pub(super) truncated: u64,
}

/// Which examples are encoded: each text once, and no empty ones from the first `n_thinned` sources.
pub(super) struct Admission {
    n_thinned: usize,
    seen: HashSet<Key>,
    pub(super) counts: ReadCounts,
}

impl Admission {
    pub(super) fn new(n_thinned: usize) -> Admission {
        Admission {
            n_thinned,
            seen: HashSet::new(),
            counts: ReadCounts::default(),
        }
    }

    /// Counts an example; its key where it is to be encoded.
    pub(super) fn admit(&mut self, example: &Example) -> Option<Key> {
        self.counts.documents += 1;
        if example.source < self.n_thinned && example.text.trim().is_empty() {
            self.counts.empty += 1;
            return None;
        }
        let key = example_key(example);
        let new = self.seen.insert(key);
        self.counts.unique += u64::from(new);
        new.then_some(key)
    }
}

impl Spool {
    /// Reads examples and tokenises those that are admitted and that `present` does not know (`Some(truncated)` for
    /// what it does). The temporary file lies in `folder` without a name, so that a kill leaves nothing behind.
    pub(super) fn fill(
        examples: impl Iterator<Item = Result<Example>>,
        mut admission: Admission,
        tokenizer: &TextTokenizer,
        folder: &Path,
        present: impl Fn(&Key) -> Option<bool>,
    ) -> Result<(Spool, ReadCounts)> {
        let file = tempfile::tempfile_in(folder)
            .map_err(Error::io("create a temporary file in", folder))?;
        let mut filling = Filling {
            tokenizer,
            folder,
            writer: BufWriter::new(file),
            documents: Vec::new(),
            n_tokens: 0,
            pending: Vec::with_capacity(CHUNK_TEXTS),
        };
        for example in examples {
            let example = example?;
            let Some(key) = admission.admit(&example) else {
                continue;
            };
            match present(&key) {
                Some(truncated) => admission.counts.truncated += u64::from(truncated),
                None => filling.add(key, example)?,
            }
        }
        let mut spool = filling.finish()?;
        let mut counts = admission.counts;
        let truncated = spool.documents.iter().filter(|document| document.truncated);
        counts.truncated += truncated.count() as u64;
        spool
            .documents
            .sort_unstable_by_key(|document| document.key);
        Ok((spool, counts))
    }

    /// The documents, sorted by key.
    pub(super) fn documents(&self) -> &[SpooledDocument] {
        &self.documents
    }

    /// The document of this key.
    pub(super) fn find(&self, key: &Key) -> Option<&SpooledDocument> {
        let place = self
            .documents
            .binary_search_by_key(key, |document| document.key)
            .ok()?;
        Some(&self.documents[place])
    }

    /// Reads the token ids of a document.
    pub(super) fn read_ids(&self, document: &SpooledDocument) -> Result<Vec<u32>> {
        let mut bytes = vec![0u8; document.n_tokens as usize * 4];
        self.file
            .read_exact_at(&mut bytes, document.token_start * 4)
            .map_err(Error::io("read", "the temporary file of token ids"))?;
        let four = bytes.chunks_exact(4);
        Ok(four
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect())
    }
}

impl SpooledDocument {
    /// Where the text stands, as `data/reviews.csv:12`.
    pub(super) fn place(&self, sources: &[Source]) -> String {
        let path = sources
            .get(self.source as usize)
            .map(|source| source.path.display().to_string());
        format!("the text at {}:{}", path.unwrap_or_default(), self.line)
    }
}

struct Filling<'a> {
    tokenizer: &'a TextTokenizer,
    folder: &'a Path,
    writer: BufWriter<File>,
    documents: Vec<SpooledDocument>,
    n_tokens: u64,
    pending: Vec<(Key, Example)>,
}

impl Filling<'_> {
    fn add(&mut self, key: Key, example: Example) -> Result<()> {
        self.pending.push((key, example));
        if self.pending.len() == CHUNK_TEXTS {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let texts: Vec<&str> = self
            .pending
            .iter()
            .map(|(_, example)| example.text.as_str())
            .collect();
        let encodings = self.tokenizer.encode(&texts)?;
        for ((key, example), encoding) in self.pending.iter().zip(encodings) {
            for id in &encoding.ids {
                self.writer
                    .write_all(&id.to_le_bytes())
                    .map_err(Error::io("write a temporary file in", self.folder))?;
            }
            self.documents.push(SpooledDocument {
                key: *key,
                n_tokens: encoding.ids.len() as u32,
                truncated: encoding.truncated,
                token_start: self.n_tokens,
                source: example.source as u32,
                line: example.line.unwrap_or(0) as u32,
            });
            self.n_tokens += encoding.ids.len() as u64;
        }
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Spool> {
        self.flush()?;
        let file = self.writer.into_inner().map_err(|error| {
            Error::io("write a temporary file in", self.folder)(error.into_error())
        })?;
        Ok(Spool {
            file,
            documents: self.documents,
        })
    }
}
