//! The rows of words: of their own states, or of the tokens on which layers of the encoder are trained.

use std::ops::Range;

use frostbert_cache::shard::ShardLayout;

use crate::{config::settings::Pipeline, encoder::windows::Overflow, features::TokenRole};

/// Where a head finds the words of a document.
#[derive(Clone, Copy)]
pub(super) enum WordRows {
    /// In a row of states for each.
    States,
    /// Among the rows of the document's tokens; neighbouring windows share so many.
    Tokens { stride: usize },
}

/// A word that has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WordSpot {
    /// The number of the word.
    pub(super) word: u32,
    /// Its first character in the text, and the one after its last.
    pub(super) characters: (usize, usize),
    /// Its row among those of the document.
    row: usize,
}

/// The words of a document, in the order of their rows.
pub(super) struct DocumentWords {
    pub(super) spots: Vec<WordSpot>,
    /// What each row of the document is for, if they are tokens.
    pub(super) roles: Vec<TokenRole>,
}

impl WordRows {
    /// Where the head of a pipeline finds words.
    pub(super) fn of(pipeline: &Pipeline) -> WordRows {
        match (pipeline.file().unfreeze(), pipeline.extraction.overflow) {
            (None, _) => WordRows::States,
            (Some(_), Overflow::Truncate) => WordRows::Tokens { stride: 0 },
            (Some(_), Overflow::Windows { stride }) => WordRows::Tokens { stride },
        }
    }

    /// Finds the words of a document.
    pub(super) fn find(self, layout: &ShardLayout, document: usize) -> DocumentWords {
        match self {
            WordRows::States => {
                let places = layout.words[layout.words_of(document)].iter().enumerate();
                let spots = places.map(|(row, place)| WordSpot {
                    word: place.word as u32,
                    characters: (place.char_start as usize, place.char_end as usize),
                    row,
                });
                DocumentWords { spots: spots.collect(), roles: Vec::new() }
            }
            WordRows::Tokens { stride } => among_tokens(layout, document, stride),
        }
    }
}

/// The tokens of a text that a window holds.
struct TextWindow {
    /// Their numbers in the text.
    tokens: Range<usize>,
    /// The row of the first of them among those of the document.
    row: usize,
}

/// Finds the first token of each word, in the window in which it is furthest from both ends, like the encoder for
/// states of words.
fn among_tokens(layout: &ShardLayout, document: usize, stride: usize) -> DocumentWords {
    let mut roles = Vec::new();
    let mut windows: Vec<TextWindow> = Vec::new();
    // The word and the characters of each token of the text.
    let mut tokens: Vec<(i32, [u32; 2])> = Vec::new();
    for window in layout.documents.windows(document) {
        let rows = layout.documents.window_tokens(window);
        let alignment = layout.alignment.part(rows);
        let first = alignment.sequences.iter().position(|sequence| *sequence == 0).unwrap_or(0);
        let n_tokens = alignment.sequences.iter().filter(|sequence| **sequence == 0).count();
        // Each window begins so many tokens after the one before.
        let step = windows.first().map_or(0, |window| window.tokens.len().saturating_sub(stride));
        let start = windows.len() * step;
        for token in first + (tokens.len().max(start) - start)..first + n_tokens {
            let characters = [alignment.char_starts[token], alignment.char_ends[token]];
            tokens.push((alignment.words[token], characters));
        }
        windows.push(TextWindow { tokens: start..start + n_tokens, row: roles.len() + first });
        TokenRole::push_window(&mut roles, alignment.len());
    }
    let mut spots: Vec<WordSpot> = Vec::new();
    for (token, (word, characters)) in tokens.iter().enumerate() {
        if *word < 0 || token > 0 && tokens[token - 1].0 == *word {
            continue;
        }
        let context =
            |window: &&TextWindow| (token - window.tokens.start).min(window.tokens.end - 1 - token);
        let holding = windows.iter().filter(|window| window.tokens.contains(&token));
        // Of equal ones the last is returned, so that this is the first window.
        let Some(window) = holding.rev().max_by_key(context) else { continue };
        let same = tokens[token..].iter().take_while(|(other, _)| other == word);
        let end = same.map(|(_, [_, end])| *end).max().unwrap_or(characters[1]);
        let row = window.row + token - window.tokens.start;
        roles[row].is_output = true;
        spots.push(WordSpot {
            word: *word as u32,
            characters: (characters[0] as usize, end as usize),
            row,
        });
    }
    debug_assert!(spots.is_sorted_by_key(|spot| spot.row), "words in the order of their rows");
    DocumentWords { spots, roles }
}

#[cfg(test)]
mod tests {
    use frostbert_cache::fingerprint::{Key, Mode};

    use super::*;
    use crate::encoder::windows::{Piece, Sequence, Template, cut};

    /// A text of words of one to three tokens, after some of which comes a token of none.
    fn text(n_words: u32) -> Sequence {
        let mut text = Sequence::default();
        for word in 0..n_words {
            for part in 0..1 + word * 7 % 3 {
                text.words.push(word as i32);
                text.offsets.push((10 * word + 2 * part, 10 * word + 2 * part + 2));
            }
            if word % 5 == 4 {
                text.words.push(-1);
                text.offsets.push((10 * word + 8, 10 * word + 9));
            }
        }
        text.ids = (0..text.words.len() as u32).collect();
        text
    }

    #[test]
    fn words_stand_at_the_tokens_whose_states_are_stored_for_words() {
        let special = Piece::Special { id: 1, type_id: 0 };
        let template = Template {
            single: vec![special, Piece::Sequence { number: 0, type_id: 0 }, special],
            pair: Vec::new(),
        };
        for (n_words, max_length, stride) in
            [(0, 12, 3), (1, 12, 3), (40, 12, 3), (40, 12, 7), (41, 13, 0), (60, 200, 4)]
        {
            let text = text(n_words);
            let encoding = cut(&text, None, &template, max_length, Overflow::Windows { stride });
            let lengths: Vec<u32> = encoding.lengths().collect();
            let alignments = encoding.windows.iter().map(|window| &window.alignment);
            // The second document of a shard.
            let other = cut(&self::text(1), None, &template, 3, Overflow::Truncate);
            let mut shard = ShardLayout::default();
            let others = other.windows.iter().map(|window| &window.alignment);
            shard.push(Key::of(Mode::Text, &["other"]), false, &[3], others, &[]);
            shard.push(Key::of(Mode::Text, &["text"]), false, &lengths, alignments, &[]);

            let found = WordRows::Tokens { stride }.find(&shard, 1);
            assert_eq!(found.roles.len(), lengths.iter().sum::<u32>() as usize);
            let starts: Vec<usize> = lengths
                .iter()
                .scan(0, |end, length| {
                    *end += *length as usize;
                    Some(*end - *length as usize)
                })
                .collect();
            let begins = (0..found.roles.len()).filter(|row| found.roles[*row].begins_window);
            assert!(begins.eq(starts.iter().copied()));
            let expected: Vec<WordSpot> = encoding
                .words
                .iter()
                .map(|place| WordSpot {
                    word: place.word as u32,
                    characters: (place.char_start as usize, place.char_end as usize),
                    row: starts[usize::from(place.window)] + usize::from(place.position),
                })
                .collect();
            assert_eq!(found.spots, expected, "{n_words} words in windows of {max_length}");
            let outputs = (0..found.roles.len()).filter(|row| found.roles[*row].is_output);
            assert!(outputs.eq(expected.iter().map(|spot| spot.row)));
        }
    }
}
