use std::ops::RangeInclusive;

use ndarray::Array2;
use proptest::prelude::*;

use super::*;

/// Rules, logits and forced tags of one sentence; the logits are multiples of 1/8, so that sums are exact and ties
/// occur.
#[derive(Clone, Debug)]
struct Sentence {
    transitions: Array2<bool>,
    starts: Vec<bool>,
    logits: Array2<f32>,
    forced: Vec<Option<u32>>,
}

fn sentence(
    n_words: RangeInclusive<usize>,
    n_tags: RangeInclusive<usize>,
) -> impl Strategy<Value = Sentence> {
    (n_words, n_tags).prop_flat_map(|(n_words, n_tags)| {
        let rarely = prop::option::weighted(0.2, 0..n_tags as u32);
        (
            prop::collection::vec(prop::bool::weighted(0.6), n_tags * n_tags),
            prop::collection::vec(prop::bool::weighted(0.6), n_tags),
            prop::collection::vec(-8i8..8, n_words * n_tags),
            prop::collection::vec(rarely, n_words),
        )
            .prop_map(move |(transitions, starts, logits, forced)| Sentence {
                transitions: Array2::from_shape_vec((n_tags, n_tags), transitions).unwrap(),
                starts,
                logits: Array2::from_shape_vec((n_words, n_tags), logits)
                    .unwrap()
                    .mapv(|eighths| f32::from(eighths) / 8.0),
                forced,
            })
    })
}

impl Sentence {
    fn decode(&self) -> Option<Vec<u32>> {
        let allowed = AllowedTags { transitions: self.transitions.view(), starts: &self.starts };
        let offsets = [0, self.logits.nrows()];
        decode(self.logits.view(), &offsets, &allowed, Some(&self.forced))
    }

    fn is_valid(&self, tags: &[u32]) -> bool {
        self.starts[tags[0] as usize]
            && tags.windows(2).all(|pair| self.transitions[[pair[0] as usize, pair[1] as usize]])
            && tags
                .iter()
                .zip(&self.forced)
                .all(|(tag, forced)| forced.is_none_or(|forced| forced == *tag))
    }

    /// Sum of log-probabilities over the words that are not forced.
    fn log_probability(&self, tags: &[u32]) -> f64 {
        let mut sum = 0.0;
        for ((row, tag), forced) in self.logits.rows().into_iter().zip(tags).zip(&self.forced) {
            if forced.is_none() {
                let total: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                sum += f64::from(row[*tag as usize]) - total.ln();
            }
        }
        sum
    }

    /// All sequences of tags, in lexicographic order.
    fn all_sequences(&self) -> Vec<Vec<u32>> {
        let (n_words, n_tags) = self.logits.dim();
        (0..n_tags.pow(n_words as u32))
            .map(|number| {
                (0..n_words)
                    .rev()
                    .map(|word| (number / n_tags.pow(word as u32) % n_tags) as u32)
                    .collect()
            })
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_decoded_sequence_is_the_first_of_the_best_of_all_valid_ones(sentence in sentence(1..=5, 1..=4)) {
        let mut best: Option<(Vec<u32>, f64)> = None;
        for tags in sentence.all_sequences() {
            let score = sentence.log_probability(&tags);
            // Once the log-probabilities are taken, equal sums of logits differ by rounding, and different sums by at
            // least 1/8.
            if sentence.is_valid(&tags) && best.as_ref().is_none_or(|(_, best)| score > best + 1e-9) {
                best = Some((tags, score));
            }
        }
        prop_assert_eq!(sentence.decode(), best.map(|(tags, _)| tags));
    }

    #[test]
    fn a_long_decoded_sequence_is_valid(sentence in sentence(1..=60, 1..=9)) {
        if let Some(tags) = sentence.decode() {
            prop_assert!(sentence.is_valid(&tags));
        }
    }

    #[test]
    fn sentences_are_decoded_as_if_each_were_alone(
        first in sentence(1..=4, 3..=3),
        words in prop::collection::vec(prop::array::uniform3(-8i8..8), 4),
    ) {
        let second = Array2::from_shape_fn((4, 3), |(word, tag)| f32::from(words[word][tag]) / 8.0);
        let allowed = AllowedTags { transitions: first.transitions.view(), starts: &first.starts };
        let one = decode(first.logits.view(), &[0, first.logits.nrows()], &allowed, None);
        let other = decode(second.view(), &[0, 4], &allowed, None);
        let both = ndarray::concatenate![ndarray::Axis(0), first.logits, second];
        let cut = first.logits.nrows();
        let joined = decode(both.view(), &[0, 0, cut, cut, cut + 4], &allowed, None);
        prop_assert_eq!(joined, one.zip(other).map(|(one, other)| [one, other].concat()));
    }
}

#[test]
fn logits_that_are_no_numbers_still_give_a_valid_sequence() {
    let sentence = Sentence {
        transitions: ndarray::array![[true, false], [true, true]],
        starts: vec![true, true],
        logits: ndarray::array![
            [f32::NAN, f32::NEG_INFINITY],
            [f32::NEG_INFINITY, f32::NAN],
            [f32::INFINITY, f32::NAN]
        ],
        forced: vec![None; 3],
    };
    assert!(sentence.is_valid(&sentence.decode().unwrap()));
}

#[test]
fn a_forced_tag_that_no_rule_allows_gives_no_sequence() {
    let sentence = Sentence {
        transitions: ndarray::array![[true, false], [true, true]],
        starts: vec![true, false],
        logits: Array2::zeros((2, 2)),
        forced: vec![None, Some(1)],
    };
    assert_eq!(sentence.decode(), None);
}
