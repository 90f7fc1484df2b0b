//! YAML as the hub reads it: blocks, with every text in quotes.

use serde_json::Value;

/// A value in block style, indented by so many spaces; texts are quoted as in JSON, which YAML reads alike. Keys must
/// need no quotes.
pub(super) fn lines(value: &Value, indent: usize) -> String {
    let space = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            let entries = map.iter().map(|(key, value)| {
                if is_scalar(value) {
                    format!("{space}{key}: {}\n", scalar(value))
                } else {
                    format!("{space}{key}:\n{}", lines(value, indent + 2))
                }
            });
            entries.collect()
        }
        Value::Array(items) if !items.is_empty() => {
            let items = items.iter().map(|item| {
                // The first line of an item stands behind its dash.
                let item = lines(item, indent + 2);
                format!("{space}- {}", item.trim_start_matches(' '))
            });
            items.collect()
        }
        alone => format!("{space}{}\n", scalar(alone)),
    }
}

/// Whether a value stands on the line of its key.
fn is_scalar(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        // YAML 1.1 reads `1e-7` as a text.
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or("null".into(), |number| number.to_string())
        }
        other => other.to_string(),
    }
}

/// A text in double quotes. Characters that YAML takes for none are escaped, which JSON need not do.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let mut quoted = String::new();
    for character in json.chars() {
        match character {
            '\u{7F}'..='\u{9F}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{FEFF}'
            | '\u{FFFE}'
            | '\u{FFFF}' => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(character)));
            }
            other => quoted.push(other),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_and_lists_are_blocks_and_texts_are_quoted() {
        let value = json!({
            "name": "a: \"b\"\u{85}\n",
            "datasets": [],
            "metrics": ["f1", 3],
            "results": [{ "task": { "type": "t" }, "value": 1e-7 }, { "value": 1.0 }],
        });
        let expected = "name: \"a: \\\"b\\\"\\u0085\\n\"\ndatasets: []\nmetrics:\n  - \"f1\"\n  - 3\nresults:\n  - task:\n\
            \x20     type: \"t\"\n    value: 0.0000001\n  - value: 1\n";
        assert_eq!(lines(&value, 0), expected);
    }
}
