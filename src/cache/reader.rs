//! Readers of a cache: they take no lock, see only what the manifest names, and check every file that they open.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::UInt32Type;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{
    manifest::{Manifest, ShardEntry},
    schema,
    shard::DocumentRow,
};
use crate::{
    error::{Error, Result},
    fingerprint::{self, Key},
    states::StateId,
};

/// A cache that is open for reading.
pub struct CacheReader {
    folder: PathBuf,
    manifest: Manifest,
    documents: HashMap<Key, CachedDocument>,
}

/// Where a document lies; more than once where states were added later.
struct CachedDocument {
    first: Location,
    others: Vec<Location>,
    truncated: bool,
}

/// Where a row lies: the number of its shard in the manifest, and the row in it.
pub type Location = (u32, u32);

impl CacheReader {
    /// Opens a cache folder and reads which documents it holds; `None` where there is no cache.
    ///
    /// # Errors
    /// When the manifest or a table of documents is damaged.
    pub fn open(folder: &Path) -> Result<Option<CacheReader>> {
        let Some(manifest) = Manifest::read(folder)? else {
            return Ok(None);
        };
        let mut documents: HashMap<Key, CachedDocument> = HashMap::new();
        for (number, entry) in manifest.shards.iter().enumerate() {
            for (row, document) in read_documents(folder, entry)?.into_iter().enumerate() {
                let location = (number as u32, row as u32);
                let truncated = document.truncated;
                documents
                    .entry(document.key)
                    .and_modify(|known| known.others.push(location))
                    .or_insert(CachedDocument {
                        first: location,
                        others: Vec::new(),
                        truncated,
                    });
            }
        }
        Ok(Some(CacheReader {
            folder: folder.to_path_buf(),
            manifest,
            documents,
        }))
    }

    /// The cache folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the cache is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where this state of a document lies, if the cache has it.
    pub fn locate(&self, key: &Key, state: StateId) -> Option<Location> {
        let document = self.documents.get(key)?;
        let mut locations = std::iter::once(&document.first).chain(&document.others);
        let holds = |location: &&Location| {
            self.manifest.shards[location.0 as usize]
                .states
                .contains(&state)
        };
        locations.find(holds).copied()
    }

    /// Whether the end of a document was cut off; `None` where the cache does not have it.
    pub fn truncated(&self, key: &Key) -> Option<bool> {
        self.documents.get(key).map(|document| document.truncated)
    }

    /// Reads rows of one state and shows each to `visit` with its place in `locations`, shard by shard.
    ///
    /// A shard's file is mapped, checked against its checksum, and read once.
    ///
    /// # Errors
    /// [`Error::CacheDamage`] when a file is not what the manifest says.
    pub fn read_rows(
        &self,
        state: StateId,
        locations: &[Location],
        mut visit: impl FnMut(usize, &[u8]),
    ) -> Result<()> {
        let mut order: Vec<usize> = (0..locations.len()).collect();
        order.sort_by_key(|place| locations[*place]);
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let shard = locations[*first].0;
            let same = rest.partition_point(|place| locations[*place].0 == shard);
            let (in_shard, others) = rest.split_at(same);
            self.read_shard_rows(state, shard, in_shard, locations, &mut visit)?;
            rest = others;
        }
        Ok(())
    }

    fn read_shard_rows(
        &self,
        state: StateId,
        shard: u32,
        places: &[usize],
        locations: &[Location],
        visit: &mut impl FnMut(usize, &[u8]),
    ) -> Result<()> {
        let entry = &self.manifest.shards[shard as usize];
        let name = schema::state_file(state);
        let mut places = places.iter().peekable();
        let mut first_row = 0u32;
        for batch in read_file(&self.folder, entry, &name)? {
            let batch = batch?;
            let states = state_column(&batch).ok_or_else(|| {
                damage(
                    &self.folder.join(&entry.name).join(&name),
                    "a column `state`",
                    "another".into(),
                )
            })?;
            let end = first_row + states.len() as u32;
            while let Some(place) = places.next_if(|place| locations[**place].1 < end) {
                visit(
                    *place,
                    states.value((locations[*place].1 - first_row) as usize),
                );
            }
            first_row = end;
        }
        if places.next().is_some() {
            let path = self.folder.join(&entry.name).join(&name);
            return Err(damage(
                &path,
                &format!("{} rows", entry.documents),
                format!("{first_row}"),
            ));
        }
        Ok(())
    }
}

/// Reads the table of documents of a shard.
pub(super) fn read_documents(folder: &Path, entry: &ShardEntry) -> Result<Vec<DocumentRow>> {
    let path = folder.join(&entry.name).join(schema::DOCUMENTS);
    let mut documents = Vec::with_capacity(entry.documents as usize);
    for batch in read_file(folder, entry, schema::DOCUMENTS)? {
        let batch = batch?;
        let rows = documents_of(&batch).ok_or_else(|| {
            damage(
                &path,
                "the columns key, n_tokens and truncated",
                "others".into(),
            )
        })?;
        documents.extend(rows);
    }
    if documents.len() as u64 != entry.documents {
        return Err(damage(
            &path,
            &format!("{} rows", entry.documents),
            format!("{}", documents.len()),
        ));
    }
    Ok(documents)
}

fn documents_of(batch: &RecordBatch) -> Option<Vec<DocumentRow>> {
    let keys = batch
        .column_by_name("key")?
        .as_any()
        .downcast_ref::<FixedSizeBinaryArray>()?;
    let n_tokens = batch
        .column_by_name("n_tokens")?
        .as_primitive_opt::<UInt32Type>()?;
    let truncated = batch.column_by_name("truncated")?.as_boolean_opt()?;
    (0..batch.num_rows())
        .map(|row| {
            Some(DocumentRow {
                key: Key(keys.value(row).try_into().ok()?),
                n_tokens: n_tokens.value(row),
                truncated: truncated.value(row),
            })
        })
        .collect()
}

fn state_column(batch: &RecordBatch) -> Option<&FixedSizeBinaryArray> {
    batch.column_by_name("state")?.as_any().downcast_ref()
}

/// Maps a file of a shard, checks it, and reads it as record batches.
fn read_file(
    folder: &Path,
    entry: &ShardEntry,
    name: &str,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let path = folder.join(&entry.name).join(name);
    let bytes = checked_bytes(&path, entry, name)?;
    let failed = |error: &dyn std::fmt::Display| damage(&path, "a Parquet file", error.to_string());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .map_err(|error| failed(&error))?
        .with_batch_size(READ_ROWS)
        .build()
        .map_err(|error| failed(&error))?;
    let path = path.clone();
    Ok(reader.map(move |batch| {
        batch.map_err(|error| damage(&path, "a readable Parquet file", error.to_string()))
    }))
}

/// Rows decoded at a time.
const READ_ROWS: usize = 8192;

fn checked_bytes(path: &Path, entry: &ShardEntry, name: &str) -> Result<Bytes> {
    let Some(file) = entry.files.iter().find(|file| file.name == name) else {
        return Err(damage(
            path,
            &format!("`{name}` in the manifest's {}", entry.name),
            "none".into(),
        ));
    };
    let (bytes, hash) = match fingerprint::map_and_hash(path) {
        Ok(mapped) => mapped,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(damage(
                path,
                &format!("{} bytes", file.bytes),
                "no such file".into(),
            ));
        }
        Err(other) => return Err(other),
    };
    if bytes.len() as u64 != file.bytes {
        return Err(damage(
            path,
            &format!("{} bytes", file.bytes),
            format!("{} bytes", bytes.len()),
        ));
    }
    if hash != file.blake3 {
        return Err(damage(
            path,
            &format!("blake3 {}", &file.blake3[..16]),
            hash[..16].to_string(),
        ));
    }
    Ok(bytes)
}

/// Checks every file of a cache and returns the names of those that are damaged or missing, as `shard/file`.
pub fn damaged_files(folder: &Path, manifest: &Manifest) -> Vec<String> {
    let files = manifest
        .shards
        .iter()
        .flat_map(|entry| entry.files.iter().map(move |file| (entry, file)));
    files
        .filter(|(entry, file)| {
            checked_bytes(
                &folder.join(&entry.name).join(&file.name),
                entry,
                &file.name,
            )
            .is_err()
        })
        .map(|(entry, file)| format!("{}/{}", entry.name, file.name))
        .collect()
}

fn damage(path: &Path, expected: &str, got: String) -> Error {
    Error::CacheDamage {
        path: path.to_path_buf(),
        expected: expected.into(),
        got,
        hint: "delete this cache folder and run `frostbert extract` again: other caches are not touched".into(),
    }
}
