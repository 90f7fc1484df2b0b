//! Turns the tokens of one or two sequences into model inputs: adds special tokens, and truncates longer documents or
//! cuts them into overlapping windows.

use std::ops::Range;

use frostbert_cache::states::{Alignment, SPECIAL, WordPlace};

/// What happens to a document that is longer than `max_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Its end is cut off; for a pair, tokens are removed from the end of the longer text first.
    Truncate,
    /// It is cut into several windows, and neighbouring windows share `stride` tokens. Of a pair, the second text is
    /// cut, and every window contains the first.
    Windows {
        /// Tokens that two windows share.
        stride: usize,
    },
}

/// The tokens of one sequence, without special tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// Rows of the word embedding table.
    pub ids: Vec<u32>,
    /// The first character of each token and the one after its last; empty unless an alignment was requested.
    pub offsets: Vec<(u32, u32)>,
    /// The word of each token, -1 for none; empty unless an alignment was requested.
    pub words: Vec<i32>,
}

/// One piece of an input: a special token, or the tokens of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A special token.
    Special {
        /// Its id in the vocabulary.
        id: u32,
        /// Its token type.
        type_id: u8,
    },
    /// The tokens of sequence 0 or 1.
    Sequence {
        /// 0 or 1.
        number: usize,
        /// The token type of all its tokens.
        type_id: u8,
    },
}

/// How special tokens are placed around one sequence and around two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// The pieces for one sequence, such as `[CLS] A [SEP]`.
    pub single: Vec<Piece>,
    /// The pieces for a pair, such as `[CLS] A [SEP] B [SEP]`.
    pub pair: Vec<Piece>,
}

/// An input of the model, of at most `max_length` tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows of the word embedding table, including those of special tokens.
    pub ids: Vec<u32>,
    /// Token types.
    pub type_ids: Vec<u8>,
    /// Where its tokens are in the text; empty unless requested.
    pub alignment: Alignment,
}

/// A document as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// A single window, or several in order if the document is too long for one.
    pub windows: Vec<Window>,
    /// The words of the document, sorted by sequence and number and each listed once; empty unless an alignment was
    /// requested.
    pub words: Vec<WordPlace>,
    /// Whether some of its tokens are in no window.
    pub truncated: bool,
    /// Number of tokens at the beginning of each window that pooling leaves out, because they are of a prompt; less
    /// than the window has.
    pub left_out: u32,
}

impl Encoding {
    /// Returns the number of tokens in all windows; a token shared by two windows counts twice.
    pub fn n_tokens(&self) -> usize {
        self.windows.iter().map(|window| window.ids.len()).sum()
    }

    /// Returns the number of tokens in each window.
    pub fn lengths(&self) -> impl Iterator<Item = u32> + '_ {
        self.windows.iter().map(|window| window.ids.len() as u32)
    }

    /// Returns whether a window has no tokens, because the text gives none and the tokenizer adds none.
    pub fn has_empty_window(&self) -> bool {
        self.windows.iter().any(|window| window.ids.is_empty())
    }
}

/// The token range of each sequence that one window holds.
type Ranges = [Range<usize>; 2];

/// Cuts a document (one sequence, or two) into windows of at most `max_length` tokens.
///
/// With [`Overflow::Windows`], each window begins `room - stride` tokens after the previous one, where `room` is what
/// the special tokens and the first text of a pair leave; the last window ends with the document. The first text of a
/// pair may take at most half of what the stride leaves (for example 126 of 384 tokens with a stride of 128), so that
/// windows advance; it may take more only if the second text is short enough to fit into one window.
///
/// # Panics
/// Panics if `max_length` has no room for the special tokens, a token of each sequence and the stride; the caller must
/// check [`least_length`].
pub(crate) fn cut(
    first: &Sequence,
    second: Option<&Sequence>,
    template: &Template,
    max_length: usize,
    overflow: Overflow,
) -> Encoding {
    let pieces = match second {
        None => &template.single,
        Some(_) => &template.pair,
    };
    let n = [first.ids.len(), second.map_or(0, |second| second.ids.len())];
    let room = room(pieces, max_length);
    let (ranges, truncated) = match (overflow, second) {
        (Overflow::Truncate, _) => {
            let kept = longest_first(n, room);
            (vec![[0..kept[0], 0..kept[1]]], kept != n)
        }
        (Overflow::Windows { stride }, None) => {
            let spans = spans(n[0], room, stride);
            (spans.into_iter().map(|span| [span, 0..0]).collect(), false)
        }
        (Overflow::Windows { stride }, Some(_)) => {
            // A short second text leaves more room for the first; then there is only one window.
            let most = ((room - stride) / 2).max(room.saturating_sub(n[1]));
            let kept = n[0].min(most);
            let spans = spans(n[1], room - kept, stride).into_iter();
            (spans.map(|span| [0..kept, span]).collect(), kept < n[0])
        }
    };
    let sequences = [Some(first), second];
    let windows = ranges.iter().map(|ranges| assemble(sequences, ranges, pieces)).collect();
    let words = place_words(sequences, &ranges, pieces);
    Encoding { windows, words, truncated, left_out: 0 }
}

/// Returns the smallest `max_length` for which [`cut`] works: room for the special tokens and one token of a single
/// text or, with windows, for the special tokens of a pair, the stride and one token of each text.
pub(crate) fn least_length(template: &Template, overflow: Overflow) -> usize {
    match overflow {
        // A pair keeps its special tokens even if nothing else is left of it.
        Overflow::Truncate => (n_special(&template.single) + 1).max(n_special(&template.pair)),
        Overflow::Windows { stride } => n_special(&template.pair) + stride + 2,
    }
}

/// Returns the number of tokens of an input that are left for sequences.
pub(super) fn room(pieces: &[Piece], max_length: usize) -> usize {
    max_length - n_special(pieces)
}

fn n_special(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| matches!(piece, Piece::Special { .. })).count()
}

/// Returns how many tokens of each sequence fit into `room`, shortening the longer one first: the `longest_first` rule
/// of Hugging Face tokenizers.
fn longest_first(n: [usize; 2], room: usize) -> [usize; 2] {
    if n[0] + n[1] <= room {
        return n;
    }
    let shorter = usize::from(n[0] > n[1]);
    let mut kept = n;
    if n[shorter] > room / 2 {
        kept[shorter] = room / 2;
    }
    kept[1 - shorter] = room - kept[shorter];
    kept
}

/// Returns `0..room`, `step..step + room`, ... until one reaches `n`, where `step = room - stride`.
fn spans(n: usize, room: usize, stride: usize) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    loop {
        let end = n.min(start + room);
        spans.push(start..end);
        if end == n {
            return spans;
        }
        start += room - stride;
    }
}

fn assemble(sequences: [Option<&Sequence>; 2], ranges: &Ranges, pieces: &[Piece]) -> Window {
    let mut window =
        Window { ids: Vec::new(), type_ids: Vec::new(), alignment: Alignment::default() };
    let mut given = sequences.iter().flatten();
    let aligned = given.all(|sequence| sequence.words.len() == sequence.ids.len());
    for piece in pieces {
        match *piece {
            Piece::Special { id, type_id } => {
                window.ids.push(id);
                window.type_ids.push(type_id);
                if aligned {
                    let alignment = &mut window.alignment;
                    alignment.words.push(-1);
                    alignment.char_starts.push(0);
                    alignment.char_ends.push(0);
                    alignment.sequences.push(SPECIAL);
                }
            }
            Piece::Sequence { number, type_id } => {
                let (Some(sequence), range) = (sequences[number], ranges[number].clone()) else {
                    continue;
                };
                window.ids.extend(&sequence.ids[range.clone()]);
                window.type_ids.resize(window.ids.len(), type_id);
                if aligned {
                    let alignment = &mut window.alignment;
                    let offsets = &sequence.offsets[range.clone()];
                    alignment.words.extend(&sequence.words[range]);
                    alignment.char_starts.extend(offsets.iter().map(|offset| offset.0));
                    alignment.char_ends.extend(offsets.iter().map(|offset| offset.1));
                    alignment.sequences.resize(window.ids.len(), number as u8);
                }
            }
        }
    }
    if aligned {
        window.alignment.token_ids = window.ids.clone();
    }
    window
}

/// Places each word once, in the window in which its first sub-word is furthest from both ends; ties go to the first
/// window.
fn place_words(
    sequences: [Option<&Sequence>; 2],
    windows: &[Ranges],
    pieces: &[Piece],
) -> Vec<WordPlace> {
    let mut places = Vec::new();
    for (number, sequence) in sequences.into_iter().enumerate() {
        let Some(sequence) = sequence else { continue };
        // Tokens after the end of the last window were cut off.
        let n_kept = windows.last().map_or(0, |ranges| ranges[number].end);
        let words = &sequence.words;
        for (token, word) in words.iter().enumerate().take(n_kept) {
            if *word < 0 || token > 0 && words[token - 1] == *word {
                continue;
            }
            let reached = windows.partition_point(|ranges| ranges[number].end <= token);
            let holding =
                windows[reached..].iter().take_while(|ranges| ranges[number].start <= token);
            let context = |ranges: &Ranges| {
                let range = &ranges[number];
                (token - range.start).min(range.end - 1 - token)
            };
            // `max_by_key` returns the last of equal elements, so iterate over the windows backwards.
            let holding: Vec<usize> = (reached..reached + holding.count()).collect();
            let best = holding.into_iter().rev().max_by_key(|window| context(&windows[*window]));
            let Some(window) = best else { continue };
            let ranges = &windows[window];
            let position = tokens_before(number, ranges, pieces) + token - ranges[number].start;
            // The whole word counts, including any part that was cut off; only its first token must be present.
            let same = words[token..].iter().take_while(|other| *other == word);
            let ends = sequence.offsets[token..token + same.count()].iter().map(|offset| offset.1);
            places.push(WordPlace {
                sequence: number as u8,
                word: *word,
                char_start: sequence.offsets[token].0,
                char_end: ends.max().unwrap_or(sequence.offsets[token].1),
                window: window as u16,
                position: position as u16,
            });
        }
    }
    places
}

/// Returns the number of a window's tokens that precede those of a sequence.
fn tokens_before(number: usize, ranges: &Ranges, pieces: &[Piece]) -> usize {
    pieces
        .iter()
        .take_while(|piece| !matches!(piece, Piece::Sequence { number: n, .. } if *n == number))
        .map(|piece| match piece {
            Piece::Special { .. } => 1,
            Piece::Sequence { number, .. } => ranges[*number].len(),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLS: Piece = Piece::Special { id: 1, type_id: 0 };
    const SEP: Piece = Piece::Special { id: 2, type_id: 0 };

    fn template() -> Template {
        let a = Piece::Sequence { number: 0, type_id: 0 };
        let b = Piece::Sequence { number: 1, type_id: 1 };
        let last = Piece::Special { id: 2, type_id: 1 };
        Template { single: vec![CLS, a, SEP], pair: vec![CLS, a, SEP, b, last] }
    }

    /// Returns the tokens `first..first + n`, two per word and three characters each.
    fn sequence(first: u32, n: usize) -> Sequence {
        Sequence {
            ids: (first..first + n as u32).collect(),
            offsets: (0..n as u32).map(|i| (3 * i, 3 * i + 3)).collect(),
            words: (0..n as i32).map(|i| i / 2).collect(),
        }
    }

    #[test]
    fn a_short_document_is_one_window() {
        let encoding = cut(&sequence(10, 3), None, &template(), 8, Overflow::Windows { stride: 2 });
        assert_eq!(encoding.windows[0].ids, [1, 10, 11, 12, 2]);
        assert_eq!(encoding.windows[0].alignment.words, [-1, 0, 0, 1, -1]);
        assert_eq!(encoding.windows[0].alignment.sequences, [255, 0, 0, 0, 255]);
        assert_eq!(encoding.windows.len(), 1);
        assert!(!encoding.truncated);
    }

    #[test]
    fn windows_share_their_stride_and_repeat_the_question() {
        let overflow = Overflow::Windows { stride: 2 };
        let encoding = cut(&sequence(10, 2), Some(&sequence(20, 8)), &template(), 10, overflow);
        let ids: Vec<&[u32]> = encoding.windows.iter().map(|w| &w.ids[..]).collect();
        assert_eq!(
            ids,
            [&[1, 10, 11, 2, 20, 21, 22, 23, 24, 2][..], &[1, 10, 11, 2, 23, 24, 25, 26, 27, 2]]
        );
        assert_eq!(encoding.windows[1].type_ids, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
        let words: Vec<(u8, i32, u16, u16)> = encoding
            .words
            .iter()
            .map(|place| (place.sequence, place.word, place.window, place.position))
            .collect();
        // The word of tokens 24 and 25 starts at the end of the first window and is second in the second one.
        assert_eq!(words, [(0, 0, 0, 1), (1, 0, 0, 4), (1, 1, 0, 6), (1, 2, 1, 5), (1, 3, 1, 7)]);
        let third = &encoding.words[3];
        assert_eq!((third.char_start, third.char_end), (12, 18));
    }

    #[test]
    fn a_question_that_leaves_no_room_is_cut() {
        let overflow = Overflow::Windows { stride: 3 };
        let encoding = cut(&sequence(10, 30), Some(&sequence(50, 9)), &template(), 14, overflow);
        assert!(encoding.truncated);
        assert_eq!(encoding.windows[0].ids[..6], [1, 10, 11, 12, 13, 2]);
        assert!(encoding.windows.iter().all(|window| window.ids.len() <= 14));
    }

    #[test]
    fn the_longer_text_of_a_pair_loses_first() {
        // Expected values from tokenizers 0.23, TruncationStrategy::LongestFirst.
        for (n, room, kept) in [
            ([3, 10], 8, [3, 5]),
            ([10, 3], 8, [5, 3]),
            ([10, 10], 9, [4, 5]),
            ([10, 9], 9, [5, 4]),
            ([4, 4], 8, [4, 4]),
        ] {
            assert_eq!(longest_first(n, room), kept, "{n:?} in {room}");
        }
    }

    proptest! {
        #[test]
        fn every_token_stands_in_a_window_and_every_word_where_it_says(
            n in 0usize..200, question in 0usize..20, room in 1usize..40, stride in 0usize..20,
        ) {
            let overflow = Overflow::Windows { stride };
            let max_length = least_length(&template(), overflow) + room;
            let (first, second) = (sequence(1000, question), sequence(2000, n));
            for pair in [false, true] {
                let encoding = if pair { cut(&first, Some(&second), &template(), max_length, overflow) } else { cut(&second, None, &template(), max_length, overflow) };
                for id in &second.ids {
                    prop_assert!(encoding.windows.iter().any(|window| window.ids.contains(id)));
                }
                for window in &encoding.windows {
                    prop_assert!(window.ids.len() <= max_length);
                    prop_assert_eq!(window.ids.len(), window.alignment.len());
                }
                let of_context = encoding.words.iter().filter(|place| place.sequence == u8::from(pair));
                prop_assert_eq!(of_context.clone().count(), n.div_ceil(2));
                for place in of_context {
                    let window = &encoding.windows[usize::from(place.window)];
                    prop_assert_eq!(window.ids[usize::from(place.position)], 2000 + 2 * place.word as u32);
                }
            }
        }
    }
}
