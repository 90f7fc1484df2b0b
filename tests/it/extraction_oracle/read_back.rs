//! Reads a cache as other tools do: the files of its shards, with the `parquet` crate alone.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

use frostbert::cache::{fingerprint::Key, states::Dtype};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use serde_json::{Value, json};

/// Decodes stored bytes.
pub(super) fn decode(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / dtype.size_bytes()];
    dtype.decode(bytes, &mut values);
    values
}

/// Returns the rows of a Parquet file, with the columns in the order of the file, and bytes in hexadecimal.
pub(super) fn rows(path: &Path) -> Vec<Value> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let value = |field: &Field| match field {
        Field::Bool(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::UByte(value) => json!(value),
        Field::UShort(value) => json!(value),
        Field::UInt(value) => json!(value),
        Field::ULong(value) => json!(value),
        Field::Bytes(bytes) => json!(Key(bytes.data().try_into().unwrap()).to_hex()),
        other => panic!("a field of another type: {other:?}"),
    };
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_column_iter().map(|(_, field)| value(field)).collect())
        .collect()
}

/// Returns the rows of a state's file.
pub(super) fn states(path: &Path, dtype: Dtype) -> Vec<Vec<f32>> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| match row.unwrap().get_column_iter().next() {
        Some((_, Field::Bytes(bytes))) => decode(bytes.data(), dtype),
        other => panic!("no state: {other:?}"),
    })
    .collect()
}

/// Returns the folders of a cache's shards, in order.
pub(super) fn shards(cache: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache).unwrap();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Returns the names of a shard's files.
pub(super) fn files(shard: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(shard).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
