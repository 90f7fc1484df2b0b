//! JSON numbers of more digits than a float holds, as the record spells them.

use std::collections::HashMap;

use serde_json::{Map, Value, value::RawValue};

/// A number or a boolean of an object, as the record spells it where it has more digits than a float holds.
pub(super) fn spelled(object: &Map<String, Value>, key: &str, json: &str) -> String {
    let value = &object[key];
    let written = is_large(value).then(|| raw::<&RawValue>(json, key)).flatten();
    written.map_or_else(|| value.to_string(), |written| written.get().to_owned())
}

/// A number by itself, as `written` spells it where it has more digits than a float holds.
pub(super) fn as_spelled(number: &Value, written: &str) -> String {
    if is_large(number) { written.to_owned() } else { number.to_string() }
}

/// Whether a number was read as a float for its size: it was written as an integer that no integer of 64 bits holds.
pub(super) fn is_large(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| value.is_f64() && number.abs() >= 9.2e18)
}

/// What stands under a key, read from the record once more.
pub(super) fn raw<'j, T: serde::Deserialize<'j>>(json: &'j str, key: &str) -> Option<T> {
    let fields: HashMap<String, &'j RawValue> = serde_json::from_str(json).ok()?;
    serde_json::from_str(fields.get(key)?.get()).ok()
}
