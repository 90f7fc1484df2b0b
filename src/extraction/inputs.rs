//! From an example to the documents that the encoder reads.

use crate::{config::names::Pair, data::Record, encoder::tokenizer::Document};

/// The documents of an example: its words, its text, or its two texts in one input or in two.
pub(crate) fn inputs_of(example: &Record, pair: Pair) -> impl Iterator<Item = Document<'_>> {
    let text = Document::Text(&example.text);
    let (first, second) = match (&example.words, &example.text_pair, pair) {
        (Some(words), ..) => (Document::Words(words), None),
        (None, Some(second), Pair::Joint) => (Document::Pair(&example.text, second), None),
        (None, Some(second), Pair::Separate) => (text, Some(Document::Text(second))),
        (None, None, _) => (text, None),
    };
    std::iter::once(first).chain(second)
}

#[cfg(test)]
mod tests {
    use frostbert_cache::fingerprint::Key;

    use super::*;
    use crate::data::dataset::example_keys;

    #[test]
    fn rows_are_looked_up_by_the_keys_of_what_is_encoded() {
        let text = Record { text: "one text".into(), ..Record::default() };
        let pair = Record { text_pair: Some("another".into()), ..text.clone() };
        let words = Record { words: Some(vec!["one".into(), "text".into()]), ..text.clone() };
        for (example, n_keys) in [(&text, [1, 1]), (&pair, [1, 2]), (&words, [1, 1])] {
            for (kind, n_keys) in [Pair::Joint, Pair::Separate].into_iter().zip(n_keys) {
                let encoded: Vec<Key> = inputs_of(example, kind).map(Document::key).collect();
                assert_eq!(example_keys(example, kind == Pair::Joint), encoded);
                assert_eq!(encoded.len(), n_keys);
            }
        }
    }
}
