//! The documents of a record, which the encoder reads: a text, with a prompt or without, a pair of texts, or words.

use frostbert_cache::{
    fingerprint::{Key, Mode},
    wording::shorten,
};

use crate::data::{prompts::Prompts, record::Record};

/// A document as passed to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document<'a> {
    /// One text.
    Text(&'a str),
    /// Two texts in one input.
    Pair(&'a str, &'a str),
    /// Words that are separated in the data file; offsets refer to the words joined by single spaces.
    Words(&'a [String]),
    /// A text that is encoded with a prompt before it.
    Prompted {
        /// The prompt, with what separates it from the text.
        prompt: &'a str,
        /// The text.
        text: &'a str,
    },
}

impl<'a> Document<'a> {
    /// Returns a text, with a prompt before it if there is one.
    pub fn of_text(prompt: Option<&'a str>, text: &'a str) -> Document<'a> {
        match prompt {
            Some(prompt) if !prompt.is_empty() => Document::Prompted { prompt, text },
            _ => Document::Text(text),
        }
    }

    /// Returns the key of this document.
    pub fn key(self) -> Key {
        match self {
            Document::Text(text) => Key::of(Mode::Text, &[text]),
            Document::Pair(first, second) => Key::of(Mode::Pair, &[first, second]),
            Document::Words(words) => Key::of(Mode::Words, words),
            Document::Prompted { prompt, text } => Key::of(Mode::Prompted, &[prompt, text]),
        }
    }

    /// Returns its first characters, for messages.
    pub(crate) fn beginning(self) -> String {
        let text = match self {
            Document::Text(text) | Document::Pair(_, text) | Document::Prompted { text, .. } => {
                text
            }
            Document::Words(words) => words.first().map_or("", String::as_str),
        };
        shorten(text, 40)
    }
}

impl Record {
    /// Iterates over the documents of a record: its words, its text, or its two texts, as one document if `joint_pairs`
    /// is set. Prompts are put before texts that are documents of their own.
    pub(crate) fn documents(&self, joint_pairs: bool) -> impl Iterator<Item = Document<'_>> {
        self.documents_with(&self.prompts, joint_pairs)
    }

    /// The keys of a record's documents; a vector is a document of its own.
    pub(crate) fn keys(&self, joint_pairs: bool) -> Vec<Key> {
        match &self.vector {
            Some(vector) => vec![vector.key],
            None => self.documents(joint_pairs).map(Document::key).collect(),
        }
    }

    /// Like [`Record::documents`], with these prompts in place of its own.
    pub(crate) fn documents_with<'a>(
        &'a self,
        prompts: &'a Prompts,
        joint_pairs: bool,
    ) -> impl Iterator<Item = Document<'a>> + use<'a> {
        let text = Document::of_text(prompts.text.as_deref(), &self.text);
        let (first, second) = match (&self.words, &self.text_pair) {
            (Some(words), _) => (Document::Words(words), None),
            (None, Some(second)) if joint_pairs => (Document::Pair(&self.text, second), None),
            (None, Some(second)) => {
                (text, Some(Document::of_text(prompts.text_pair.as_deref(), second)))
            }
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
    fn each_text_of_a_pair_has_its_own_prompt_and_words_and_joint_pairs_have_none() {
        let pair = Record {
            text: "one".into(),
            text_pair: Some("two".into()),
            prompts: Prompts::new(Some("query: "), Some("passage: ")),
            ..Record::default()
        };
        let documents = |record: &Record, joint| {
            record.documents(joint).map(Document::key).collect::<Vec<Key>>()
        };
        let prompted = |prompt: &str, text: &str| Key::of(Mode::Prompted, &[prompt, text]);
        assert_eq!(
            documents(&pair, false),
            [prompted("query: ", "one"), prompted("passage: ", "two")]
        );
        assert_eq!(documents(&pair, true), [Key::of(Mode::Pair, &["one", "two"])]);
        let first = Record { prompts: Prompts::new(Some("query: "), Some("")), ..pair.clone() };
        assert_eq!(
            documents(&first, false),
            [prompted("query: ", "one"), Key::of(Mode::Text, &["two"])]
        );
        let words = Record { words: Some(vec!["one".into()]), ..pair };
        assert_eq!(documents(&words, false), [Key::of(Mode::Words, &["one"])]);
    }

    #[test]
    fn the_same_characters_have_another_key_as_a_text_a_pair_words_and_with_a_prompt() {
        let words = ["one ".to_string(), "text".to_string()];
        let keys = [
            Document::Text("one text").key(),
            Document::Pair("one ", "text").key(),
            Document::Words(&words).key(),
            Document::Prompted { prompt: "one ", text: "text" }.key(),
        ];
        for (number, key) in keys.iter().enumerate() {
            assert!(!keys[..number].contains(key), "{number}");
        }
    }
}
