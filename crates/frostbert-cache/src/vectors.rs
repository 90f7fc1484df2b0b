//! Vectors that were given instead of computed, laid out like the shards of a cache, so that whatever reads states reads
//! them too. Their folder belongs to one run: it has no manifest and no lock, and is no cache for anybody else.

use std::path::{Path, PathBuf};

use crate::{
    error::Result,
    fingerprint::{Digest, FORMAT_VERSION, FingerprintInputs, Key},
    manifest::{Manifest, Origin, Parity, shard_name},
    reader::CacheReader,
    shard::{ShardLayout, StateRows},
    staging::write_shard,
    states::{Dtype, StateId},
};

/// The size of a shard, and so of what is in memory while vectors are written.
const SHARD_BYTES: usize = 64 << 20;

/// Writes given vectors, and then reads them.
pub struct VectorWriter {
    folder: PathBuf,
    state: StateId,
    manifest: Manifest,
    layout: ShardLayout,
    bytes: Vec<u8>,
}

impl VectorWriter {
    /// Starts writing vectors of `width` values to an empty folder, which must stay as long as they are read.
    pub fn new(folder: &Path, state: StateId, width: usize) -> VectorWriter {
        VectorWriter {
            folder: folder.to_path_buf(),
            state,
            manifest: Manifest::empty(&no_encoder(), 0, width, Dtype::F32),
            layout: ShardLayout::default(),
            bytes: Vec::new(),
        }
    }

    /// Adds the vector of a document, as little-endian f32; each key once.
    ///
    /// # Errors
    /// Returns an error if a full shard cannot be written.
    ///
    /// # Panics
    /// Panics if the vector has another width.
    pub fn push(&mut self, key: Key, vector: &[u8]) -> Result<()> {
        assert_eq!(vector.len(), self.manifest.hidden * 4, "vectors of one width");
        // One window without tokens, because there was no text.
        self.layout.push(key, false, &[0], std::iter::empty(), &[]);
        self.bytes.extend_from_slice(vector);
        if self.bytes.len() >= SHARD_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let layout = std::mem::take(&mut self.layout);
        let rows = StateRows { state: self.state, bytes: std::mem::take(&mut self.bytes) };
        let name = shard_name(self.manifest.shards.len());
        let origin = Origin {
            states: vec![self.state],
            device: String::new(),
            placement: None,
            onnxruntime: String::new(),
            batch_tokens: 0,
            parity: Parity::default(),
        };
        self.manifest.documents += layout.documents.len() as u64;
        let states = std::iter::once(Ok(rows));
        let entry = write_shard(&self.folder, &self.manifest, &name, layout, states, vec![origin])?;
        self.manifest.shards.push(entry);
        Ok(())
    }

    /// Writes what is left and returns the reader of all vectors.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or read.
    pub fn finish(mut self) -> Result<CacheReader> {
        if !self.bytes.is_empty() {
            self.write()?;
        }
        CacheReader::unshared(&self.folder, self.manifest)
    }
}

/// What stands in a manifest for the encoder where there was none.
fn no_encoder() -> FingerprintInputs {
    let none = Digest::from_bytes([0; 32]);
    FingerprintInputs {
        weights: none,
        config: none,
        tokenizer: none,
        graph: String::new(),
        provider: String::new(),
        precision: String::new(),
        dtype: Dtype::F32.name().into(),
        max_length: 0,
        overflow: String::new(),
        stride: None,
        include_prompt: None,
        format_version: FORMAT_VERSION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_by_key_from_several_shards() {
        const WIDTH: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let state = StateId::given("a/b");
        let vectors: Vec<Vec<u8>> =
            (0..17u32).map(|n| (n as f32).to_le_bytes().repeat(WIDTH)).collect();
        let mut writer = VectorWriter::new(folder.path(), state, WIDTH);
        for vector in &vectors {
            writer.push(Key::of_vector(vector), vector).unwrap();
        }
        let reader = writer.finish().unwrap();
        assert_eq!((reader.manifest().shards.len(), reader.index().n_documents()), (2, 17));
        for vector in &vectors {
            let (shard, row) = reader.locate(&Key::of_vector(vector), state).unwrap();
            let file = reader.open_state(shard, state).unwrap();
            assert_eq!(file.row(row as usize), &vector[..]);
        }
        assert!(reader.locate(&Key::of_vector(&[0; 4]), state).is_none());
    }
}
