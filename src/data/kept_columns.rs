//! Columns whose values are read unchanged, to be copied to an output: `predict --keep-columns`.

use serde_json::{Map, Value};

use super::{
    json_digits::spelled,
    source::{ColumnName, Format, Source},
};
use crate::error::{Error, Result};

impl Source {
    /// Finds each of the [`Source::kept_columns`], with the function `find` of the format.
    pub(super) fn find_kept_columns<T>(
        &self,
        find: impl Fn(&str, &ColumnName) -> Result<T>,
    ) -> Result<Vec<T>> {
        let found = self.kept_columns.iter().map(|column| {
            find("--keep-columns", column).map_err(|mut error| {
                if let Error::Record { hint, .. } = &mut error {
                    *hint =
                        "name columns of strings, numbers or booleans that the file has".to_owned();
                }
                error
            })
        });
        found.collect()
    }

    /// Returns an error if columns are to be kept of a format that has none.
    pub(super) fn check_kept_columns(&self, format: Format) -> Result<()> {
        if self.kept_columns.is_empty() || format.has_columns() {
            return Ok(());
        }
        Err(self.malformed(
            None,
            "a format with columns for --keep-columns: csv, tsv, jsonl, json or parquet",
            format.to_string(),
            "leave --keep-columns out, or name the format of the file with --format",
        ))
    }
}

/// Returns the values of some keys of a JSON object, strings without their quotes; `None` for a null or missing one.
pub(super) fn kept_values(
    object: &Map<String, Value>,
    keys: &[String],
    json: &str,
) -> Vec<Option<String>> {
    let value = |key: &String| match object.get(key)? {
        Value::Null => None,
        Value::String(value) => Some(value.clone()),
        _ => Some(spelled(object, key, json)),
    };
    keys.iter().map(value).collect()
}
