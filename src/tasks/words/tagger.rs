//! Decodes outputs to tags.

use ndarray::{Array2, ArrayView2};

use crate::{
    head::{
        crf::{self, CrfScores},
        decode::{AllowedTags, decode},
    },
    metrics::tag_scheme::TagScheme,
    tasks::words::Sentence,
};

/// Decodes outputs to tags; if the labels follow the IOB2 scheme, only to valid sequences.
pub(super) struct Tagger {
    transitions: Array2<bool>,
    starts: Vec<bool>,
    /// The tag of words without a state.
    outside: Option<u32>,
}

impl Tagger {
    pub(super) fn new(labels: &[String]) -> Tagger {
        let n = labels.len();
        let outside = labels.iter().position(|label| label == "O");
        let outside = outside.map(|label| label as u32);
        match TagScheme::new(labels) {
            None => Tagger {
                transitions: Array2::from_elem((n, n), true),
                starts: vec![true; n],
                outside,
            },
            Some(scheme) => Tagger {
                transitions: Array2::from_shape_fn((n, n), |(from, to)| {
                    scheme.can_follow(Some(from), to)
                }),
                starts: (0..n).map(|tag| scheme.can_follow(None, tag)).collect(),
                outside,
            },
        }
    }

    /// Returns the tag of each word of a sentence; `None` for words without a state. `emissions` has a row for each
    /// word with a state.
    pub(super) fn tags(
        &self,
        crf: Option<&CrfScores<'_, f32>>,
        emissions: ArrayView2<'_, f32>,
        sentence: &Sentence,
    ) -> Vec<Option<usize>> {
        let (words, n_words) = (&sentence.with_state, sentence.n_words);
        let mut tags = vec![None; n_words];
        if words.len() == n_words || self.outside.is_none() {
            for (word, tag) in words.iter().zip(self.best(crf, emissions, None)) {
                tags[*word as usize] = Some(tag as usize);
            }
            return tags;
        }
        // A word without a state counts as outside, for its neighbours too.
        let mut all = Array2::zeros((n_words, emissions.ncols()));
        let mut forced = vec![self.outside; n_words];
        for (place, word) in words.iter().enumerate() {
            all.row_mut(*word as usize).assign(&emissions.row(place));
            forced[*word as usize] = None;
        }
        let best = self.best(crf, all.view(), Some(&forced));
        for word in words {
            tags[*word as usize] = Some(best[*word as usize] as usize);
        }
        tags
    }

    fn best(
        &self,
        crf: Option<&CrfScores<'_, f32>>,
        emissions: ArrayView2<'_, f32>,
        forced: Option<&[Option<u32>]>,
    ) -> Vec<u32> {
        let allowed = AllowedTags { transitions: self.transitions.view(), starts: &self.starts };
        let offsets = [0, emissions.nrows()];
        let best = match crf {
            Some(scores) => crf::decode(emissions, &offsets, scores, Some(&allowed), forced),
            None => decode(emissions, &offsets, &allowed, forced),
        };
        best.expect("a sequence of `O`, or of any tag that may begin one, is always allowed")
    }
}
