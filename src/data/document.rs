//! The documents of a record, which the encoder reads: a text, a pair of texts, or words.

use frostbert_cache::{
    fingerprint::{Key, Mode},
    wording::shorten,
};

use crate::data::record::Record;

/// A document as passed to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document<'a> {
    /// One text.
    Text(&'a str),
    /// Two texts in one input.
    Pair(&'a str, &'a str),
    /// Words that are separated in the data file; offsets refer to the words joined by single spaces.
    Words(&'a [String]),
}

impl Document<'_> {
    /// Returns the key of this document.
    pub fn key(self) -> Key {
        match self {
            Document::Text(text) => Key::of(Mode::Text, &[text]),
            Document::Pair(first, second) => Key::of(Mode::Pair, &[first, second]),
            Document::Words(words) => Key::of(Mode::Words, words),
        }
    }

    /// Returns its first characters, for messages.
    pub(crate) fn beginning(self) -> String {
        let text = match self {
            Document::Text(text) | Document::Pair(_, text) => text,
            Document::Words(words) => words.first().map_or("", String::as_str),
        };
        shorten(text, 40)
    }
}

impl Record {
    /// Iterates over the documents of a record: its words, its text, or its two texts, as one document if `joint_pairs`
    /// is set.
    pub(crate) fn documents(&self, joint_pairs: bool) -> impl Iterator<Item = Document<'_>> {
        let text = Document::Text(&self.text);
        let (first, second) = match (&self.words, &self.text_pair) {
            (Some(words), _) => (Document::Words(words), None),
            (None, Some(second)) if joint_pairs => (Document::Pair(&self.text, second), None),
            (None, Some(second)) => (text, Some(Document::Text(second))),
            (None, None) => (text, None),
        };
        std::iter::once(first).chain(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_document_or_the_two_of_a_pair() {
        let text = Record { text: "one text".into(), ..Record::default() };
        let pair = Record { text_pair: Some("another".into()), ..text.clone() };
        let words = Record { words: Some(vec!["one".into(), "text".into()]), ..text.clone() };
        let documents = |record: &Record, joint| -> Vec<String> {
            record.documents(joint).map(|document| format!("{document:?}")).collect()
        };
        for joint in [false, true] {
            assert_eq!(documents(&text, joint), ["Text(\"one text\")"]);
            assert_eq!(documents(&words, joint), ["Words([\"one\", \"text\"])"]);
        }
        assert_eq!(documents(&pair, true), ["Pair(\"one text\", \"another\")"]);
        assert_eq!(documents(&pair, false), ["Text(\"one text\")", "Text(\"another\")"]);
    }

    #[test]
    fn the_same_characters_have_another_key_as_a_text_a_pair_and_words() {
        let words = ["one".to_string(), "text".to_string()];
        let keys = [
            Document::Text("one text").key(),
            Document::Pair("one", "text").key(),
            Document::Words(&words).key(),
        ];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    }
}
