//! The vocabularies that tokenizers are built from, as the `model` of a tokenizer.json.

use std::{collections::HashMap, path::Path};

use serde_json::{Map, Value, json};

/// A vocabulary.
pub(super) struct Vocabulary {
    /// The `model` of tokenizer.json.
    pub(super) model: Value,
}

impl Vocabulary {
    /// Reads vocab.txt: a piece per line, with the number of its line.
    ///
    /// # Errors
    /// Describes what is wrong with the file.
    pub(super) fn word_pieces(path: &Path, unknown: &str) -> Result<Vocabulary, String> {
        let text = read_text(path)?;
        let lines = text.lines().map(|line| line.trim_end().to_string());
        let pieces: Map<String, Value> =
            lines.zip(0u64..).map(|(piece, id)| (piece, id.into())).collect();
        if !pieces.contains_key(unknown) {
            return Err(format!("{} pieces, and no `{unknown}`", pieces.len()));
        }
        Ok(Vocabulary::of_model(json!({
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": pieces,
        })))
    }

    /// Reads vocab.json and merges.txt: pieces of bytes with their ids, and the pairs that are joined, in order.
    ///
    /// # Errors
    /// Describes what is wrong with one of the files.
    pub(super) fn byte_pairs(path: &Path) -> Result<Vocabulary, String> {
        let pieces: Map<String, Value> = serde_json::from_str(&read_text(path)?)
            .map_err(|error| format!("a file that cannot be parsed: {error}"))?;
        if let Some((piece, id)) = pieces.iter().find(|(_, id)| !id.is_u64()) {
            return Err(format!("`{id}` as the id of `{piece}`"));
        }
        let text = read_text(&path.with_file_name("merges.txt"))?;
        let mut merges = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with("#version") {
                continue;
            }
            let pair = line.split_once(' ').filter(|(_, second)| !second.contains(' '));
            let Some((first, second)) = pair else {
                return Err(format!("no pair of pieces in line {number} of merges.txt"));
            };
            let joined = [first, second].concat();
            let missing =
                [first, second, &joined].into_iter().find(|piece| !pieces.contains_key(*piece));
            if let Some(missing) = missing {
                return Err(format!("no `{missing}`, which line {number} of merges.txt needs"));
            }
            merges.push(Value::from(line));
        }
        Ok(Vocabulary::of_model(json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": pieces,
            "merges": merges,
        })))
    }

    fn of_model(model: Value) -> Vocabulary {
        Vocabulary { model }
    }

    /// Returns the pieces with their ids.
    pub(super) fn ids(&self) -> HashMap<&str, usize> {
        match &self.model["vocab"] {
            Value::Object(pieces) => {
                let id = |id: &Value| id.as_u64().unwrap_or_default() as usize;
                pieces.iter().map(|(piece, number)| (piece.as_str(), id(number))).collect()
            }
            _ => HashMap::new(),
        }
    }

    /// Returns the number of pieces.
    pub(super) fn len(&self) -> usize {
        match &self.model["vocab"] {
            Value::Object(pieces) => pieces.len(),
            _ => 0,
        }
    }

    /// Returns the number of pieces with a capital letter, not counting special tokens such as `[CLS]` and `<s>`.
    pub(super) fn n_capitals(&self) -> usize {
        // Some capitals, such as mathematical ones, have no lower case.
        let is_capital = |c: char| c.is_uppercase() && c.to_lowercase().next() != Some(c);
        let ids = self.ids();
        let pieces = ids.keys().filter(|piece| !piece.starts_with(['[', '<']));
        pieces.filter(|piece| piece.chars().any(is_capital)).count()
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "a file that is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_are_those_that_lower_casing_would_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        let capitals = |pieces: &str| {
            std::fs::write(&path, pieces).unwrap();
            Vocabulary::word_pieces(&path, "[UNK]").unwrap().n_capitals()
        };
        assert_eq!(capitals("[UNK]\n[CLS]\n<S>\nthe\n##ing\n\u{211d}\n"), 0);
        assert_eq!(capitals("[UNK]\nThe\n##A\n\u{c4}rger\nthe\n"), 3);
    }

    #[test]
    fn a_vocabulary_that_is_damaged_is_described() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let path = write("vocab.txt", "a\nb\n");
        let problem = Vocabulary::word_pieces(&path, "[UNK]").err().unwrap();
        assert_eq!(problem, "2 pieces, and no `[UNK]`");
        let path = write("vocab.json", r#"{"a": 0, "b": 1, "ab": 2, "c": 3}"#);
        for (merges, expected) in [
            ("#version: 0.2\na b\n", None),
            ("a b\nab\n", Some("no pair of pieces in line 2 of merges.txt")),
            ("#version\na b c\n", Some("no pair of pieces in line 2 of merges.txt")),
            ("a b\nab d\n", Some("no `d`, which line 2 of merges.txt needs")),
            ("b c\n", Some("no `bc`, which line 1 of merges.txt needs")),
        ] {
            write("merges.txt", merges);
            assert_eq!(Vocabulary::byte_pairs(&path).err().as_deref(), expected);
        }
        write("vocab.json", r#"{"a": "0"}"#);
        assert!(Vocabulary::byte_pairs(&path).err().unwrap().contains("as the id of `a`"));
    }
}
