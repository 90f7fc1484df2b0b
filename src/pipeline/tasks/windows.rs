//! The windows of a question and its context: which of their rows are what, and where its tokens stand.

use std::ops::Range;

use crate::{cache::shard::ShardLayout, head::row_maps::WindowShape, states::SPECIAL};

/// A window of a question and a part of its context.
#[derive(Clone, Debug)]
pub(crate) struct QuestionWindow {
    /// Its rows among those of its document.
    pub(crate) rows: Range<usize>,
    /// Which of its rows are what.
    pub(crate) shape: WindowShape,
    /// First character of each context token, and the one after its last.
    pub(crate) offsets: Vec<(u32, u32)>,
}

/// The windows of a question's document.
pub(crate) fn windows_of(layout: &ShardLayout, document: usize) -> Vec<QuestionWindow> {
    let first = layout.documents.tokens(document).start;
    let windows = layout.documents.windows(document);
    windows
        .map(|window| {
            let tokens = layout.documents.window_tokens(window);
            let part = layout.alignment.part(tokens.clone());
            let places = |sequence: u8| {
                let first = part.sequences.iter().position(|own| *own == sequence);
                let n = part
                    .sequences
                    .iter()
                    .filter(|own| **own == sequence)
                    .count();
                first.map_or(0..0, |first| first..first + n)
            };
            debug_assert!(part.sequences.first().is_none_or(|own| *own == SPECIAL));
            let context = places(1);
            QuestionWindow {
                rows: (tokens.start - first) as usize..(tokens.end - first) as usize,
                offsets: context
                    .clone()
                    .map(|token| (part.char_starts[token], part.char_ends[token]))
                    .collect(),
                shape: WindowShape {
                    question: places(0),
                    context,
                },
            }
        })
        .collect()
}

impl QuestionWindow {
    /// The candidate rows of an answer at these characters; `None` where the window does not hold all of it.
    pub(crate) fn span_of(&self, start: usize, end: usize) -> Option<[u32; 2]> {
        let first = self.offsets.iter().position(|(_, e)| *e as usize > start)?;
        let last = self
            .offsets
            .iter()
            .rposition(|(s, _)| (*s as usize) < end)?;
        let holds_start = self.offsets[first].0 as usize <= start;
        let holds_end = self.offsets[last].1 as usize >= end;
        // Row 0 is no answer.
        (first <= last && holds_start && holds_end).then(|| [first as u32 + 1, last as u32 + 1])
    }
}
