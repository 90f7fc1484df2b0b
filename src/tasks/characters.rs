//! Assigns the characters of a text to its tokens or words.
//!
//! A tokenizer drops characters without a trace: an uncased one drops the combining marks of a word (Devanagari vowel
//! signs, decomposed accents, variation selectors), and most drop zero-width and control characters. The offsets of the
//! token before or after then end too early or start too late. The dropped characters belong to the token next to them.

/// The characters of each token or word of a text.
pub(crate) struct Characters {
    is_blank: Vec<bool>,
    /// The first characters of all tokens, sorted, and the characters after their last ones, sorted.
    starts: Vec<usize>,
    ends: Vec<usize>,
    /// Whether tokens after the last one are missing: the text that follows it may belong to them.
    is_cut: bool,
}

impl Characters {
    /// Creates the characters of a text from the offsets of all its tokens (or words), in characters; an offset may be
    /// given more than once.
    pub(crate) fn new(
        text: &str,
        offsets: impl Iterator<Item = (usize, usize)>,
        is_cut: bool,
    ) -> Characters {
        let (mut starts, mut ends): (Vec<usize>, Vec<usize>) = offsets.unzip();
        starts.sort_unstable();
        ends.sort_unstable();
        Characters {
            is_blank: text.chars().map(char::is_whitespace).collect(),
            starts,
            ends,
            is_cut,
        }
    }

    /// Returns the characters that belong to the token at these offsets: its own without white space at the ends, those
    /// after it up to white space or the next token, and those before it back to white space, unless they directly
    /// follow another token.
    pub(crate) fn of(&self, (start, end): (usize, usize)) -> (usize, usize) {
        let end = end.min(self.is_blank.len());
        let is_blank = |place: usize| self.is_blank[place];
        let mut first = start;
        while first < end && is_blank(first) {
            first += 1;
        }
        if first >= end {
            return (start, end);
        }
        let mut last = end;
        while is_blank(last - 1) {
            last -= 1;
        }
        if last == end {
            let next = self.starts.get(self.starts.partition_point(|start| *start < end));
            let limit = match next {
                Some(next) => *next,
                None if self.is_cut => end,
                None => self.is_blank.len(),
            };
            while last < limit && !is_blank(last) {
                last += 1;
            }
        }
        if first == start {
            let n_before = self.ends.partition_point(|end| *end <= start);
            let limit = n_before.checked_sub(1).map(|place| self.ends[place]);
            let limit_place = limit.unwrap_or(0);
            let mut before = start;
            while before > limit_place && !is_blank(before - 1) {
                before -= 1;
            }
            // Without white space in between, they belong to the token before.
            if limit.is_none() || before > limit_place {
                first = before;
            }
        }
        (first, last)
    }
}

/// Returns the characters `start..end` of a text.
pub(crate) fn characters(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text of each token; tokens are the parts between `|`, and the characters in `<>` are dropped.
    fn covered(marked: &str, is_cut: bool) -> Vec<String> {
        let (mut text, mut offsets, mut open, mut dropped) =
            (String::new(), Vec::new(), None, false);
        let mut n = 0;
        for character in marked.chars() {
            match character {
                '|' => {
                    open = match open {
                        None => Some(n),
                        Some(start) => {
                            offsets.push((start, n));
                            None
                        }
                    }
                }
                '<' => dropped = true,
                '>' => dropped = false,
                other => {
                    assert!(
                        open.is_none() || !dropped,
                        "dropped characters stand outside of tokens"
                    );
                    text.push(other);
                    n += 1;
                }
            }
        }
        let all = Characters::new(&text, offsets.iter().copied(), is_cut);
        let of = |offset: &(usize, usize)| {
            let (start, end) = all.of(*offset);
            characters(&text, start, end)
        };
        offsets.iter().map(of).collect()
    }

    #[test]
    fn dropped_characters_belong_to_the_token_that_they_stand_next_to() {
        for (marked, expected) in [
            ("|one| |two|", &["one", "two"][..]),
            // A vowel sign at the end of a word, a variation selector at the end of the text.
            ("|मुंबई|<ि> |में|", &["मुंबईि", "में"]),
            ("a |❤|<\u{fe0f}>", &["❤\u{fe0f}"]),
            // Before a word, after white space or at the start of the text; and alone between white space.
            ("|a| <\u{200b}>|b|", &["a", "\u{200b}b"]),
            ("<\u{feff}>|a|", &["\u{feff}a"]),
            ("|a| <\u{200b}> |b|", &["a", "b"]),
            // Inside a word: it belongs to the token before.
            ("|so|<\u{ad}>|ft|", &["so\u{ad}", "ft"]),
            ("(|(|)", &["(()"]),
            // White space at the ends of a token's offsets does not belong to it.
            ("| a||, ||\u{3000}b|", &["a", ",", "b"]),
            ("|  |", &["  "]),
        ] {
            assert_eq!(covered(marked, false), expected, "{marked}");
        }
        assert_eq!(
            covered("|one| |tw|o", true),
            ["one", "tw"],
            "what was cut off is another token"
        );
    }
}
