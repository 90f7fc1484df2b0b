//! Texts of the data on a page: whether they are shown at all, how many there are, and how they do no harm.

use std::{borrow::Cow, cell::Cell};

use frostbert_cache::wording::{printable, shorten};

/// Lets texts of the data through to a page, or holds them back, and counts those that got through.
#[derive(Debug)]
pub(super) struct TextGate {
    is_open: bool,
    shown: Cell<usize>,
}

impl TextGate {
    pub(super) fn new(is_open: bool) -> TextGate {
        TextGate { is_open, shown: Cell::new(0) }
    }

    /// At most so many characters of a text; `None` where a page shows no texts.
    pub(super) fn text(&self, text: &str, most: usize) -> Option<String> {
        self.is_open.then(|| {
            self.count_one();
            shorten(text, most)
        })
    }

    /// Counts a text that is shown in pieces.
    pub(super) fn count_one(&self) {
        self.shown.set(self.shown.get() + 1);
    }

    /// Whether texts are shown.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// How many texts were shown.
    pub(super) fn shown(&self) -> usize {
        self.shown.get()
    }
}

/// A text that changes nothing but its own place: control characters, and marks that turn the direction of what stands
/// around them, are shown as escapes.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    let text = printable(text);
    if !text.contains(turns_direction) {
        return text;
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if turns_direction(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Marks, embeddings, overrides and isolates of the bidirectional algorithm.
fn turns_direction(character: char) -> bool {
    matches!(
        character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_turn_the_direction_are_shown_and_scripts_stay_as_they_are() {
        assert_eq!(harmless("a\u{202e}cod.exe"), "a\\u{202e}cod.exe");
        assert_eq!(harmless("\u{1b}[31m\u{2066}"), "\\u{1b}[31m\\u{2066}");
        assert_eq!(harmless("שלום, مرحبا 👩‍💻"), "שלום, مرحبا 👩‍💻");
    }

    #[test]
    fn a_closed_gate_lets_nothing_through() {
        let [open, closed] = [true, false].map(TextGate::new);
        assert_eq!(open.text("a long text", 6), Some("a long...".into()));
        assert_eq!((closed.text("a", 6), open.shown(), closed.shown()), (None, 1, 0));
    }
}
