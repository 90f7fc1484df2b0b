//! Cells that hold a list, as written by Python, NumPy or JSON.

use std::str::Chars;

/// Returns the items of a list as written by Python (`['a', "b"]`, `[1, 2]`, NumPy's `['a' 'b']`) or in JSON, or of a
/// set or tuple; `None` if the cell is not such a list.
pub(super) fn list_items(cell: &str) -> Option<Vec<String>> {
    let cell = cell.trim();
    let inner = ["[]", "()", "{}"].iter().find_map(|pair| {
        let (open, close) = pair.split_at(1);
        cell.strip_prefix(open)?.strip_suffix(close)
    })?;
    if let Ok(items) = serde_json::from_str::<Vec<String>>(cell) {
        return Some(items);
    }
    let mut items = Vec::new();
    let mut rest = inner.trim_start();
    while let Some(first) = rest.chars().next() {
        let (item, after) = match first {
            '\'' | '"' => quoted_item(rest, first)?,
            _ => {
                let end = rest.find(|c: char| c == ',' || c.is_whitespace());
                let (item, after) = rest.split_at(end.unwrap_or(rest.len()));
                // Without quotes, only numbers and booleans are items: `[very] good` is a label.
                let is_truth = ["True", "False", "true", "false"].contains(&item);
                if !is_truth && item.parse::<f64>().is_err() {
                    return None;
                }
                (item.to_owned(), after)
            }
        };
        items.push(item);
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
    Some(items)
}

/// Returns the item that starts with a quote, and the text after its closing quote.
fn quoted_item(text: &str, quote: char) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut characters = text[1..].chars();
    loop {
        match characters.next()? {
            '\\' => item.push(escaped(&mut characters)?),
            c if c == quote => return Some((item, characters.as_str())),
            other => item.push(other),
        }
    }
}

/// Returns the character that an escape sequence stands for; its backslash has been read.
fn escaped(characters: &mut Chars<'_>) -> Option<char> {
    let n_digits = match characters.next()? {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        other => return Some(other),
    };
    let digits: String = characters.by_ref().take(n_digits).collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use crate::data::Source;

    #[test]
    fn a_list_in_a_multi_label_cell_is_read_as_python_and_json_write_it() {
        let source = Source::new("a.csv");
        for (cell, labels) in [
            ("['a', 'b']", &["a", "b"][..]),
            (" [\"it's\", 'say \"so\"', 'it\\'s'] ", &["it's", "say \"so\"", "it's"]),
            ("['a' 'b']", &["a", "b"]),
            ("('a',)", &["a"]),
            ("{'a'}", &["a"]),
            ("[3, 27]", &["3", "27"]),
            ("[ 0  2]", &["0", "2"]),
            ("[]", &[]),
            ("[\"caf\\u00e9\", \"\\ud83d\\ude00\"]", &["caf\u{e9}", "\u{1f600}"]),
            ("['\\xe9\\r', 'a\\\\b']", &["\u{e9}", "a\\b"]),
            ("[True, False]", &["True", "False"]),
            // Labels that only look like lists.
            ("[very] good, bad", &["[very] good", "bad"]),
            ("[a, b]", &["[a", "b]"]),
            ("['a, b", &["['a", "b"]),
        ] {
            assert_eq!(source.split_labels(cell), labels, "{cell}");
        }
    }
}
