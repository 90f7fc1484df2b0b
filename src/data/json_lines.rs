//! jsonl: one JSON object per line, whose keys are the columns; and json: the same objects in an array.

use std::iter;

use frostbert_cache::wording::{counted, name_list};
use serde_json::{Map, Value, value::RawValue};

use super::{
    bad_rows::FailedRows,
    json_array::Items,
    json_digits::{as_spelled, is_large, raw, spelled},
    kept_columns::kept_values,
    read::{Text, next_line},
    record::{Record, WantedFields},
    source::{ColumnName, Source},
};
use crate::error::{Error, Result};

/// Streams the objects of a file. Lines of white space are skipped.
///
/// A text is a string, or null if it is empty. A label or an id is a string, a number or a boolean (formatted as in
/// JSON), or null if there is none. A label may also be a list.
pub(super) fn read(
    input: Text,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let keys = WantedKeys::of(source, want)?;
    let source = source.clone();
    let mut input = input;
    let mut line = 0;
    Ok(iter::from_fn(move || {
        loop {
            line += 1;
            match next_line(&mut input, &source, line).transpose()? {
                Ok(object) if object.trim().is_empty() => {}
                Ok(object) => {
                    let position = RecordPosition { line, is_item: false, source: &source };
                    let record = position.example(&object, &keys);
                    if let Some(record) = failed.keep(line..=line, record) {
                        return Some(record);
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }))
}

/// Streams the objects of an array.
pub(super) fn read_array(
    input: Text,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let keys = WantedKeys::of(source, want)?;
    let mut items = Items::new(input, source.clone());
    let source = source.clone();
    Ok(iter::from_fn(move || {
        loop {
            let (line, object) = match items.next_item().transpose()? {
                Ok(item) => item,
                Err(error) => return Some(Err(error)),
            };
            let position = RecordPosition { line, is_item: true, source: &source };
            let record = position.example(&object, &keys);
            let part = items.part();
            let record = record.map(|record| Record { part, ..record });
            // Bad bytes of these lines may be those of other items; no line is line 0.
            let has_bad_bytes = object.contains(char::REPLACEMENT_CHARACTER);
            let lines = if has_bad_bytes { line..=items.line() } else { 0..=0 };
            if let Some(record) = failed.keep_of(part, lines, record) {
                return Some(record);
            }
        }
    }))
}

/// The keys of the requested values.
struct WantedKeys {
    text: String,
    text_pair: Option<String>,
    label: Option<String>,
    id: Option<String>,
    label_columns: Vec<String>,
    kept: Vec<String>,
}

impl WantedKeys {
    fn of(source: &Source, want: WantedFields) -> Result<Self> {
        let name = |key: &str, column: &ColumnName| match column {
            ColumnName::Name(name) => Ok(name.clone()),
            ColumnName::Number(number) => Err(source.malformed(
                None,
                format!("a name for `{key}`, as the keys of JSON objects have no order"),
                format!("the number {number}"),
                format!("set `{key}` of this source to the key's name"),
            )),
        };
        Ok(WantedKeys {
            text: name(source.key("text"), &source.text_column())?,
            text_pair: source
                .wanted_pair(want)?
                .map(|column| name(source.key("text_pair"), column))
                .transpose()?,
            label: want
                .label
                .then(|| name(source.key("label"), &source.label_column()))
                .transpose()?,
            id: source.id.as_ref().map(|column| name("id", column)).transpose()?,
            label_columns: source.find_label_columns(name)?,
            kept: source.find_kept_columns(name)?,
        })
    }
}

/// The position of a record.
struct RecordPosition<'a> {
    line: u64,
    /// Whether it is an item of an array rather than a line.
    is_item: bool,
    source: &'a Source,
}

impl RecordPosition<'_> {
    fn example(&self, json: &str, keys: &WantedKeys) -> Result<Record> {
        let mut object = match serde_json::from_str(json) {
            Ok(Value::Object(object)) => object,
            Ok(Value::Array(items)) if self.is_item => return self.pair(items, keys, json),
            Ok(other) => {
                let hint = if self.is_item {
                    "write objects as the items of the array"
                } else {
                    "write one object per line"
                };
                return Err(self.error("one JSON object", kind(&other), hint));
            }
            Err(error) => return Err(self.unreadable(json, &error)),
        };
        let id = keys.id.as_deref().map(|key| self.id(&object, key, json)).transpose()?.flatten();
        let (label, labels) = match keys.label.as_deref() {
            None => (None, None),
            Some(key) => match object.get(key) {
                Some(Value::Array(items)) => (None, Some(self.labels(items, key, json)?)),
                // A null label is a missing one, and is counted as such.
                Some(Value::Null) => (None, None),
                None if self.source.drops_unlabelled => (None, None),
                _ => (Some(self.label(&object, key, json)?), None),
            },
        };
        let label_cells = keys
            .label_columns
            .iter()
            .map(|key| match object.get(key) {
                // A data set that labels only some of the texts may leave out the key for the others.
                None | Some(Value::Null) => Ok(String::new()),
                Some(_) => self.label(&object, key, json).map(|cell| cell.trim().to_owned()),
            })
            .collect::<Result<_>>()?;
        let kept = kept_values(&object, &keys.kept, json);
        let text_pair = keys
            .text_pair
            .as_deref()
            .map(|key| self.text(&mut object, self.source.key("text_pair"), key))
            .transpose()?;
        let text = self.text(&mut object, self.source.key("text"), &keys.text)?;
        Ok(Record {
            id,
            text,
            text_pair,
            label,
            labels,
            label_cells,
            kept,
            line: Some(self.line),
            ..Record::default()
        })
    }

    /// Reads a text with its label, or with the list of its labels.
    fn pair(&self, items: Vec<Value>, keys: &WantedKeys, json: &str) -> Result<Record> {
        let hint = "write each record as [text, label], or as an object";
        let n_items = items.len();
        let [text, label] = <[Value; 2]>::try_from(items).map_err(|_| {
            let got = format!("a list of {}", counted(n_items, "item"));
            self.error("a text and its label", got, hint)
        })?;
        let needs_id = keys.id.is_some() && !self.source.may_lack_id;
        let has_more = !keys.label_columns.is_empty() || !keys.kept.is_empty();
        if keys.text_pair.is_some() || needs_id || has_more {
            return Err(self.error(
                "an object, because columns other than text and label are named",
                "a text and its label",
                "leave `text_pair`, `id` and `split_column` of this source out, as well as train.label and sweep.label",
            ));
        }
        let text = match text {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => return Err(self.error("a text as the first item", kind(&other), hint)),
        };
        let mut record = Record { text, line: Some(self.line), ..Record::default() };
        if keys.label.is_some() {
            match &label {
                Value::Null => {}
                Value::String(label) => record.label = Some(label.trim().to_owned()),
                Value::Number(_) | Value::Bool(_) => {
                    let written: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
                    let written = written.get(1).map_or("", |label| label.get());
                    record.label = Some(as_spelled(&label, written));
                }
                Value::Array(items) => record.labels = Some(self.labels(items, "1", json)?),
                Value::Object(_) => {
                    return Err(self.error("a label as the second item", "an object", hint));
                }
            }
        }
        Ok(record)
    }

    fn text(&self, object: &mut Map<String, Value>, role: &str, key: &str) -> Result<String> {
        match object.get_mut(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Null) => Ok(String::new()),
            Some(other) => Err(self.error(
                format!("a string under `{key}`"),
                kind(other),
                format!(
                    "set `{role}` of this source to a key that holds texts, or write it as a string"
                ),
            )),
            None => Err(self.missing(object, role, key)),
        }
    }

    fn label(&self, object: &Map<String, Value>, key: &str, json: &str) -> Result<String> {
        match object.get(key) {
            Some(Value::String(label)) => Ok(self.source.label_of(label)),
            Some(Value::Number(_) | Value::Bool(_)) => Ok(spelled(object, key, json)),
            Some(other) => Err(self.error(
                format!("a string, a number or a boolean under `{key}`"),
                kind(other),
                "give the record a label or leave it out",
            )),
            None => Err(self.missing(object, self.source.key("label"), key)),
        }
    }

    /// Reads a list of labels.
    fn labels(&self, items: &[Value], key: &str, json: &str) -> Result<Vec<String>> {
        let has_large = items.iter().any(is_large);
        let written: Vec<String> = if has_large {
            raw(json, key).map_or_else(Vec::new, |list: Vec<&RawValue>| {
                list.iter().map(|item| item.get().to_owned()).collect()
            })
        } else {
            Vec::new()
        };
        let label = |(place, item): (usize, &Value)| match item {
            Value::String(label) => Ok(label.trim().to_owned()),
            Value::Number(_) if is_large(item) && place < written.len() => {
                Ok(written[place].clone())
            }
            Value::Number(_) | Value::Bool(_) => Ok(item.to_string()),
            other => Err(self.error(
                format!("strings, numbers or booleans in the list under `{key}`"),
                kind(other),
                "give the record labels, an empty list where it has none, or leave it out",
            )),
        };
        items.iter().enumerate().map(label).collect()
    }

    fn id(&self, object: &Map<String, Value>, key: &str, json: &str) -> Result<Option<String>> {
        match object.get(key) {
            Some(Value::String(id)) => Ok(Some(id.clone())),
            Some(Value::Number(_) | Value::Bool(_)) => Ok(Some(spelled(object, key, json))),
            Some(Value::Null) => Ok(None),
            _ if self.source.may_lack_id => Ok(None),
            Some(other) => Err(self.error(
                format!("a string or a number under `{key}`"),
                kind(other),
                "set `id` of this source to a key that holds names, or leave `id` out",
            )),
            None => Err(self.missing(object, "id", key)),
        }
    }

    /// The error for a record that is not valid JSON.
    fn unreadable(&self, json: &str, error: &serde_json::Error) -> Error {
        let reason = reason(error);
        // An item of an array may span several lines.
        let line = json.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        // The column is that of the byte at which serde_json gave up: in NaN the second, in -Infinity the one after the
        // sign.
        let before = line.get(..error.column().saturating_sub(1)).unwrap_or(line);
        let start = before.rfind([':', ',', '[', ' ']).map_or(0, |place| place + 1);
        let rest = line[start..].trim_start();
        let is_no_number = ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"]
            .into_iter()
            .find(|word| rest.starts_with(word));
        let (got, hint) = match is_no_number {
            Some(word) => (
                format!("{word} (column {}), which is not JSON", error.column()),
                "write null in its place, or leave the record out (Python: json.dumps(..., allow_nan=False) finds them)",
            ),
            None if reason.contains("surrogate") || reason.contains("hex escape") => (
                format!("half of a surrogate pair (column {})", error.column()),
                "a \\ud8xx and a \\udcxx make one character, and the text was cut between them: correct the text or \
                 leave the record out",
            ),
            None => (
                format!("{reason} (column {})", error.column()),
                if self.is_item {
                    "correct the file: every item of its array is one object"
                } else {
                    "write each object on one line, and nothing else"
                },
            ),
        };
        let line = self.line + error.line().saturating_sub(1) as u64;
        self.source.malformed(Some(line), "one JSON object", got, hint)
    }

    fn missing(&self, object: &Map<String, Value>, role: &str, key: &str) -> Error {
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        self.error(
            format!("the key `{key}` for `{role}`"),
            format!("the keys {}", name_list(keys.into_iter())),
            format!("set `{role}` of this source to one of these, or give the record that key"),
        )
    }

    fn error(
        &self,
        expected: impl Into<String>,
        got: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        self.source.malformed(Some(self.line), expected, got, hint)
    }
}

/// Names the kind of a value, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Returns the reason for a serde_json error, without its position.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => message,
    }
}

#[cfg(test)]
mod tests;
