//! JSON numbers with more digits than a float can hold, as written in the record.

use std::collections::HashMap;

use serde_json::{Map, Value, value::RawValue};

/// Formats a number or a boolean of an object; a number with more digits than a float can hold, as written in the
/// record.
pub(super) fn spelled(object: &Map<String, Value>, key: &str, json: &str) -> String {
    let value = &object[key];
    let written = is_large(value).then(|| raw::<&RawValue>(json, key)).flatten();
    written.map_or_else(|| value.to_string(), |written| written.get().to_owned())
}

/// Formats a number; returns `written` if it has more digits than a float can hold.
pub(super) fn as_spelled(number: &Value, written: &str) -> String {
    if is_large(number) { written.to_owned() } else { number.to_string() }
}

/// Whether a number was parsed as a float because of its size: an integer that does not fit into 64 bits.
pub(super) fn is_large(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| value.is_f64() && number.abs() >= 9.2e18)
}

/// Parses the value of a key from the record once more.
pub(super) fn raw<'j, T: serde::Deserialize<'j>>(json: &'j str, key: &str) -> Option<T> {
    let fields: HashMap<String, &'j RawValue> = serde_json::from_str(json).ok()?;
    serde_json::from_str(fields.get(key)?.get()).ok()
}
