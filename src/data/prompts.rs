//! What is put before the texts of a record when they are encoded.

use std::sync::Arc;

/// The prompts of the two texts of a record. Neither is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// What is put before its text.
    pub text: Option<Arc<str>>,
    /// What is put before its second text.
    pub text_pair: Option<Arc<str>>,
}

impl Prompts {
    /// Returns the prompts of the first and the second text; an empty one is none.
    pub fn new(text: Option<&str>, text_pair: Option<&str>) -> Prompts {
        let given =
            |prompt: Option<&str>| prompt.filter(|prompt| !prompt.is_empty()).map(Arc::<str>::from);
        Prompts { text: given(text), text_pair: given(text_pair) }
    }
}
