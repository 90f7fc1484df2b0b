//! From the tokens of one or two sequences to what the model reads: special tokens added, longer documents truncated or
//! cut into overlapping windows.

use std::ops::Range;

use frostbert_cache::states::{Alignment, SPECIAL, WordPlace};

/// What happens to a document that is longer than `max_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Its end is cut off; of a pair, the longer text's end first.
    Truncate,
    /// It becomes several windows, of which neighbours share `stride` tokens; of a pair the second text is cut, and
    /// every window holds the first.
    Windows {
        /// Tokens that two windows share.
        stride: usize,
    },
}

/// The tokens of one sequence, special ones left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// Rows of the word embedding.
    pub ids: Vec<u32>,
    /// First character of each token and the one after its last; empty where nobody asked for an alignment.
    pub offsets: Vec<(u32, u32)>,
    /// The word of each token, -1 for none; empty where nobody asked for an alignment.
    pub words: Vec<i32>,
}

/// One piece of an input: a special token, or the tokens of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A special token.
    Special {
        /// Its id.
        id: u32,
        /// Its token type.
        type_id: u8,
    },
    /// The tokens of sequence 0 or 1.
    Sequence {
        /// 0 or 1.
        number: usize,
        /// Their token type.
        type_id: u8,
    },
}

/// How special tokens are set around one sequence, and around two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// As `[CLS] A [SEP]`.
    pub single: Vec<Piece>,
    /// As `[CLS] A [SEP] B [SEP]`.
    pub pair: Vec<Piece>,
}

/// One input of the model: at most `max_length` tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows of the word embedding, special tokens included.
    pub ids: Vec<u32>,
    /// Token types.
    pub type_ids: Vec<u8>,
    /// Where its tokens stand; empty where nobody asked.
    pub alignment: Alignment,
}

/// A document as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// One window, or several where the document is longer than one; in their order.
    pub windows: Vec<Window>,
    /// Its words, by sequence and number, each once; empty where nobody asked for an alignment.
    pub words: Vec<WordPlace>,
    /// Whether some of its tokens stand in no window.
    pub truncated: bool,
}

impl Encoding {
    /// Tokens of all windows; a token that two windows share counts twice.
    pub fn n_tokens(&self) -> usize {
        self.windows.iter().map(|window| window.ids.len()).sum()
    }

    /// Tokens of each window.
    pub fn lengths(&self) -> impl Iterator<Item = u32> + '_ {
        self.windows.iter().map(|window| window.ids.len() as u32)
    }

    /// Whether a window has no token: the text gives none, and the tokenizer adds none.
    pub fn has_empty_window(&self) -> bool {
        self.windows.iter().any(|window| window.ids.is_empty())
    }
}

/// The tokens of each sequence that one window holds.
type Ranges = [Range<usize>; 2];

/// Cuts a document (one sequence, or two) into windows of at most `max_length` tokens.
///
/// With [`Overflow::Windows`] each window begins `room - stride` tokens after the one before, where `room` is what
/// special tokens and the first text of a pair leave; the last one ends with the document. The first text of a pair may
/// take at most half of what the stride leaves (as 126 of 384 tokens at a stride of 128), so that windows get on; more
/// only where the second text is so short that one window holds it whole.
///
/// # Panics
/// When `max_length` has no room for the special tokens, a token of each sequence and the stride: [`least_length`] is
/// for the caller to check.
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
            // A short second text leaves the first one more: then there is one window.
            let most = ((room - stride) / 2).max(room.saturating_sub(n[1]));
            let kept = n[0].min(most);
            let spans = spans(n[1], room - kept, stride).into_iter();
            (spans.map(|span| [0..kept, span]).collect(), kept < n[0])
        }
    };
    let sequences = [Some(first), second];
    let windows = ranges.iter().map(|ranges| assemble(sequences, ranges, pieces)).collect();
    Encoding { windows, words: place_words(sequences, &ranges, pieces), truncated }
}

/// The least `max_length` for which [`cut`] can work: room for special tokens and a token of a single text; in windows
/// for those of a pair, the stride, and a token of each text.
pub(crate) fn least_length(template: &Template, overflow: Overflow) -> usize {
    match overflow {
        // Of a pair that is cut to nothing, the special tokens still stand.
        Overflow::Truncate => (n_special(&template.single) + 1).max(n_special(&template.pair)),
        Overflow::Windows { stride } => n_special(&template.pair) + stride + 2,
    }
}

/// Tokens of an input that are left for sequences.
pub(super) fn room(pieces: &[Piece], max_length: usize) -> usize {
    max_length - n_special(pieces)
}

fn n_special(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| matches!(piece, Piece::Special { .. })).count()
}

/// How many tokens of each sequence fit into `room`, the longer one losing first: the rule `longest_first` of Hugging
/// Face tokenizers.
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

/// `0..room`, `step..step + room`, ... until one reaches `n`; `step = room - stride`.
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

/// Each word once, in the window in which its first sub-word stands furthest from both ends; the first of equals.
fn place_words(
    sequences: [Option<&Sequence>; 2],
    windows: &[Ranges],
    pieces: &[Piece],
) -> Vec<WordPlace> {
    let mut places = Vec::new();
    for (number, sequence) in sequences.into_iter().enumerate() {
        let Some(sequence) = sequence else { continue };
        // Where a sequence ends, nothing was cut off behind it: the last window's end.
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
            // `max_by_key` takes the last of equals, so the windows are walked backwards.
            let holding: Vec<usize> = (reached..reached + holding.count()).collect();
            let best = holding.into_iter().rev().max_by_key(|window| context(&windows[*window]));
            let Some(window) = best else { continue };
            let ranges = &windows[window];
            let position = tokens_before(number, ranges, pieces) + token - ranges[number].start;
            // All of the word counts, also what was cut off: only its first token must be there.
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

/// Tokens of a window that stand before those of a sequence.
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

    /// Tokens `first..first + n`, two to a word, three characters each.
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
        // The word of tokens 24 and 25 starts at the end of the first window, and second in the second one.
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
        // Expected: tokenizers 0.23, TruncationStrategy::LongestFirst.
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
