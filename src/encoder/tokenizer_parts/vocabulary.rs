//! The vocabularies that tokenizers are built from, as the `model` of a tokenizer.json.

use std::{collections::HashMap, path::Path};

use serde_json::{Map, Value, json};

use super::{
    sentencepiece::{self, PieceKind, SentencePieceModel},
    settings::{SpecialTokens, TokenizerSettings, described},
};

/// A vocabulary with what its own file says about texts.
pub(super) struct Vocabulary {
    /// The `model` of tokenizer.json.
    pub(super) model: Value,
    /// A SentencePiece table of replacements, in base64.
    pub(super) charsmap: Option<String>,
    /// The tokens that the vocabulary marks as never to be split.
    pub(super) marked: Vec<Value>,
}

/// The order of the pieces of a SentencePiece model in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceOrder {
    /// As in the model.
    OfModel,
    /// fairseq's dictionary: its own special tokens in place of the first three pieces, and a token for masks at the
    /// end.
    XlmRoberta,
    /// Likewise with another dictionary, in place of the first piece.
    Camembert,
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

    /// Reads a SentencePiece model.
    ///
    /// # Errors
    /// Describes what is wrong with the file.
    pub(super) fn sentence_pieces(
        path: &Path,
        order: PieceOrder,
        settings: &TokenizerSettings,
        defaults: &SpecialTokens,
    ) -> Result<Vocabulary, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let SentencePieceModel { pieces, charsmap } = sentencepiece::read(&bytes)?;
        let special = |key: &str| {
            let default = defaults.text(key);
            (settings.special(key, default).unwrap_or(default), 0.0)
        };
        let (first, n_replaced, last) = match order {
            PieceOrder::OfModel => (Vec::new(), 0, None),
            PieceOrder::XlmRoberta => {
                let first = ["bos_token", "pad_token", "eos_token", "unk_token"].map(special);
                (first.to_vec(), 3, Some(special("mask_token")))
            }
            PieceOrder::Camembert => {
                let (pad, unknown) = (special("pad_token"), special("unk_token"));
                let [start, end] = [("<s>NOTUSED", 0.0), ("</s>NOTUSED", 0.0)];
                let first = vec![start, pad, end, unknown, ("<unk>NOTUSED", -100.0)];
                (first, 1, Some(special("mask_token")))
            }
        };
        if pieces.len() <= n_replaced {
            return Err(format!("a SentencePiece model of {} pieces", pieces.len()));
        }
        let unknown = match order {
            PieceOrder::OfModel => {
                pieces.iter().position(|piece| piece.kind == PieceKind::Unknown).unwrap_or_default()
            }
            PieceOrder::XlmRoberta | PieceOrder::Camembert => 3,
        };
        let marked = pieces
            .iter()
            .filter(|piece| matches!(piece.kind, PieceKind::Control | PieceKind::UserDefined));
        let marked = marked.map(|piece| {
            let given = json!({ "normalized": false });
            described(&piece.text, &given, piece.kind == PieceKind::Control)
        });
        let marked = marked.collect();
        let own = pieces[n_replaced..].iter().map(|piece| (piece.text.as_str(), piece.score));
        let all = first.into_iter().chain(own).chain(last);
        let vocab: Vec<Value> =
            all.map(|(piece, score)| json!([piece, f64::from(score)])).collect();
        let model =
            json!({ "type": "Unigram", "unk_id": unknown, "byte_fallback": false, "vocab": vocab });
        let charsmap = (!charsmap.is_empty()).then(|| base64(&charsmap));
        Ok(Vocabulary { charsmap, marked, ..Vocabulary::of_model(model) })
    }

    fn of_model(model: Value) -> Vocabulary {
        Vocabulary { model, charsmap: None, marked: Vec::new() }
    }

    /// Returns the pieces with their ids.
    pub(super) fn ids(&self) -> HashMap<&str, usize> {
        match &self.model["vocab"] {
            Value::Object(pieces) => {
                let id = |id: &Value| id.as_u64().unwrap_or_default() as usize;
                pieces.iter().map(|(piece, number)| (piece.as_str(), id(number))).collect()
            }
            Value::Array(pieces) => {
                pieces.iter().zip(0..).map(|(piece, id)| (text_of(piece), id)).collect()
            }
            _ => HashMap::new(),
        }
    }

    /// Returns the number of pieces.
    pub(super) fn len(&self) -> usize {
        match &self.model["vocab"] {
            Value::Object(pieces) => pieces.len(),
            Value::Array(pieces) => pieces.len(),
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

/// Returns the text of a piece with its score.
fn text_of(piece: &Value) -> &str {
    piece[0].as_str().unwrap_or_default()
}

fn read_text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "a file that is not UTF-8".into())
}

/// Encodes bytes in base64.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            // One byte makes two digits, two make three.
            text.push(if place <= three.len() {
                char::from(DIGITS[((bits >> (18 - 6 * place)) & 63) as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

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
