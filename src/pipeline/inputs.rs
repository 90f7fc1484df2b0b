//! From an example to the documents that the encoder reads.

use super::file::Pair;
use crate::{data::Example, encoder::tokenizer::Input};

/// The documents of an example: its words, its text, or its two texts in one input or in two.
pub(super) fn inputs_of(example: &Example, pair: Pair) -> impl Iterator<Item = Input<'_>> {
    let (first, second) = match (&example.text_pair, pair) {
        (Some(second), Pair::Joint) => (Input::Pair(&example.text, second), None),
        (Some(second), Pair::Separate) => (Input::Text(&example.text), Some(Input::Text(second))),
        (None, _) => (Input::Text(&example.text), None),
    };
    std::iter::once(first).chain(second)
}
