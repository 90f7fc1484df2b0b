//! The windows of a question and its context: the roles of their rows, and the positions of their tokens in the text.

use std::ops::Range;

use frostbert_cache::{
    shard::ShardLayout,
    states::SPECIAL,
    wording::{counted, shorten},
};

use crate::{data::example::Example, head::row_maps::WindowShape, tasks::characters::Characters};

/// A window of a question and a part of its context.
#[derive(Clone, Debug)]
pub(crate) struct QuestionWindow {
    /// Its rows, counted from the first row of its document.
    pub(crate) rows: Range<usize>,
    /// The roles of its rows.
    pub(crate) shape: WindowShape,
    /// The first character that belongs to each context token, and the one after the last.
    pub(crate) offsets: Vec<(usize, usize)>,
}

/// Returns the windows of a question's document, whose second text is `context`. `may_be_cut` says whether a document
/// that is too long loses its end.
pub(crate) fn windows_of(
    layout: &ShardLayout,
    document: usize,
    context: &str,
    may_be_cut: bool,
) -> Vec<QuestionWindow> {
    let first = layout.documents.tokens(document).start;
    let windows = layout.documents.windows(document);
    let mut windows: Vec<QuestionWindow> = windows
        .map(|window| {
            let tokens = layout.documents.window_tokens(window);
            let part = layout.alignment.part(tokens.clone());
            let places = |sequence: u8| {
                let first = part.sequences.iter().position(|own| *own == sequence);
                let n = part.sequences.iter().filter(|own| **own == sequence).count();
                first.map_or(0..0, |first| first..first + n)
            };
            debug_assert!(part.sequences.first().is_none_or(|own| *own == SPECIAL));
            let context = places(1);
            let offset = |place: u32| place as usize;
            QuestionWindow {
                rows: (tokens.start - first) as usize..(tokens.end - first) as usize,
                offsets: context
                    .clone()
                    .map(|token| (offset(part.char_starts[token]), offset(part.char_ends[token])))
                    .collect(),
                shape: WindowShape { question: places(0), context },
            }
        })
        .collect();
    let offsets = windows.iter().flat_map(|window| window.offsets.iter().copied());
    let is_cut = may_be_cut && layout.documents.truncated(document);
    let covered = Characters::new(context, offsets, is_cut);
    for offset in windows.iter_mut().flat_map(|window| &mut window.offsets) {
        *offset = covered.of(*offset);
    }
    windows
}

/// The position of an answer in the windows of its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerPlace {
    /// The first character of the first token that it touches, and the one after the end of the last token.
    tokens: (usize, usize),
    /// Whether the last of its tokens may have been cut off.
    is_cut: bool,
}

impl AnswerPlace {
    /// Finds the answer at these characters; `None` if it touches no token of any window.
    pub(crate) fn find(
        windows: &[QuestionWindow],
        start: usize,
        end: usize,
        is_cut: bool,
    ) -> Option<AnswerPlace> {
        let tokens = || windows.iter().flat_map(|window| &window.offsets);
        let touched = || tokens().filter(|(s, e)| *s < end && *e > start);
        let first = touched().map(|(s, _)| *s).min()?;
        let last = touched().map(|(_, e)| *e).max()?;
        let is_last = tokens().all(|(_, e)| *e <= last);
        Some(AnswerPlace { tokens: (first, last), is_cut: is_cut && is_last && last < end })
    }
}

impl QuestionWindow {
    /// Returns the candidate rows of an answer: the first and the last token that it touches; `None` if the window does
    /// not contain all of these tokens.
    pub(crate) fn span_of(&self, answer: AnswerPlace) -> Option<[u32; 2]> {
        let (start, end) = answer.tokens;
        let first = self.offsets.iter().position(|(s, e)| *s == start && *e > start)?;
        let last = self.offsets.iter().rposition(|(s, e)| *e == end && *s < end)?;
        // Row 0 stands for "no answer".
        (first <= last && !answer.is_cut).then(|| [first as u32 + 1, last as u32 + 1])
    }
}

/// Questions that nothing is learned from, because no window contains their whole answer.
#[derive(Default)]
pub(crate) struct Unseen {
    without_token: usize,
    in_no_window: usize,
    examples: Vec<String>,
}

impl Unseen {
    pub(crate) fn count(&mut self, row: &Example, touches_tokens: bool) {
        if touches_tokens {
            self.in_no_window += 1
        } else {
            self.without_token += 1
        }
        if self.examples.len() < 3 {
            let name = row.id.as_deref().unwrap_or(&row.text);
            self.examples.push(format!("`{}`", shorten(name, 40)));
        }
    }

    pub(crate) fn warning(&self) -> Option<String> {
        let reasons = [
            (self.without_token, "because the tokenizer drops all characters of the answer"),
            (
                self.in_no_window,
                "because no window of cache.max_length tokens holds the whole answer",
            ),
        ];
        let reasons = reasons.into_iter().filter(|(count, _)| *count > 0);
        let reasons: Vec<String> =
            reasons.map(|(count, reason)| format!("{count} {reason}")).collect();
        let n = self.without_token + self.in_no_window;
        let more = if n > self.examples.len() { " and more" } else { "" };
        (n > 0).then(|| {
            format!(
                "nothing is learned from {} of train, {}: {}{more}",
                counted(n, "question"),
                reasons.join(", "),
                self.examples.join(", "),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(offsets: &[(usize, usize)]) -> QuestionWindow {
        QuestionWindow {
            rows: 0..0,
            shape: WindowShape { question: 0..0, context: 0..offsets.len() },
            offsets: offsets.to_vec(),
        }
    }

    #[test]
    fn an_answer_is_the_tokens_that_it_touches_in_windows_that_hold_all_of_them() {
        let windows = [window(&[(0, 3), (4, 9), (10, 12)]), window(&[(10, 12), (15, 20)])];
        let spans = |start, end, is_cut| {
            let place = AnswerPlace::find(&windows, start, end, is_cut)?;
            Some([0, 1].map(|window: usize| windows[window].span_of(place)))
        };
        assert_eq!(spans(4, 9, false), Some([Some([2, 2]), None]));
        assert_eq!(spans(5, 12, false), Some([Some([2, 3]), None]));
        assert_eq!(spans(10, 12, false), Some([Some([3, 3]), Some([1, 1])]));
        assert_eq!(spans(4, 20, false), Some([None, None]), "longer than a window");
        // From a dropped character on its own to the token after it; and only such a character.
        assert_eq!(spans(13, 20, false), Some([None, Some([2, 2])]));
        assert_eq!(spans(13, 14, false), None);
        assert_eq!(spans(16, 25, true), Some([None, None]), "its end was cut off");
        assert_eq!(spans(16, 20, true), Some([None, Some([2, 2])]));
    }
}
