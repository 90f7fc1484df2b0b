//! From an example to the documents that the encoder reads.

use super::file::Pair;
use crate::{data::Example, encoder::tokenizer::Input};

/// The documents of an example: its words, its text, or its two texts in one input or in two.
pub(super) fn inputs_of(example: &Example, pair: Pair) -> impl Iterator<Item = Input<'_>> {
    let text = Input::Text(&example.text);
    let (first, second) = match (&example.words, &example.text_pair, pair) {
        (Some(words), ..) => (Input::Words(words), None),
        (None, Some(second), Pair::Joint) => (Input::Pair(&example.text, second), None),
        (None, Some(second), Pair::Separate) => (text, Some(Input::Text(second))),
        (None, None, _) => (text, None),
    };
    std::iter::once(first).chain(second)
}
