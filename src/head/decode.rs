//! The best sequence of tags under transition rules: Viterbi's algorithm, with and without learned transitions.

use ndarray::{Array2, ArrayView2, s};

use super::segments::segments;

/// Which sequences of tags are valid, such as IOB2's "I-X only after B-X or I-X".
#[derive(Clone, Copy, Debug)]
pub struct AllowedTags<'a> {
    /// `[from, to]`: whether tag `to` may follow tag `from`.
    pub transitions: ArrayView2<'a, bool>,
    /// Whether a sentence may start with each tag.
    pub starts: &'a [bool],
}

/// Returns the valid sequence of tags with the highest sum of log-probabilities for each sentence of
/// `logits [words, tags]`.
///
/// The log-probabilities are the `log softmax` of the rows. That shifts the scores of all sequences of a sentence
/// equally, so the logits themselves are added up. `offsets[i]..offsets[i + 1]` are the words of sentence `i`. A forced
/// word has its tag whatever its row says; a word without a state is forced to be `O`. Among equally good sequences,
/// the one with the lower tag at the first word where they differ wins. Takes `words * tags^2` steps, and adds up in
/// f64.
///
/// Returns `None` if a sentence has no valid sequence. Without forced words this cannot happen as long as every tag may
/// be followed by some tag and some tag may start a sentence. Logits that are NaN give some valid sequence.
///
/// ```
/// use frostbert::internals::head::decode::{AllowedTags, decode};
/// use ndarray::array;
/// // O, B, I: I follows B or I only
/// let transitions = array![[true, true, false], [true, true, true], [true, true, true]];
/// let allowed = AllowedTags { transitions: transitions.view(), starts: &[true, true, false] };
/// let logits = array![[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]];
/// assert_eq!(decode(logits.view(), &[0, 2], &allowed, None), Some(vec![1, 2]));
/// assert_eq!(decode(logits.view(), &[0, 2], &allowed, Some(&[Some(0), None])), Some(vec![0, 0]));
/// ```
///
/// # Panics
/// Panics if shapes differ or a forced tag is out of range.
pub fn decode(
    logits: ArrayView2<'_, f32>,
    offsets: &[usize],
    allowed: &AllowedTags<'_>,
    forced: Option<&[Option<u32>]>,
) -> Option<Vec<u32>> {
    let zero_if = |allowed: &bool| allowed.then_some(0.0);
    let steps = Steps {
        start: allowed.starts.iter().map(zero_if).collect(),
        transitions: allowed.transitions.map(zero_if),
        end: vec![0.0; allowed.starts.len()],
    };
    best_sequences(logits, offsets, &steps, forced)
}

/// Scores that do not depend on the words; `None` is forbidden.
pub(super) struct Steps {
    pub(super) start: Vec<Option<f64>>,
    /// `[from, to]`.
    pub(super) transitions: Array2<Option<f64>>,
    pub(super) end: Vec<f64>,
}

/// Returns the best sequence of each sentence, concatenated; `None` if a sentence has no valid one.
pub(super) fn best_sequences(
    emissions: ArrayView2<'_, f32>,
    offsets: &[usize],
    steps: &Steps,
    forced: Option<&[Option<u32>]>,
) -> Option<Vec<u32>> {
    let (n_words, n_tags) = emissions.dim();
    assert_eq!(steps.start.len(), n_tags, "one start per tag");
    assert_eq!(steps.end.len(), n_tags, "one end per tag");
    assert_eq!(steps.transitions.dim(), (n_tags, n_tags), "one transition per pair of tags");
    if let Some(forced) = forced {
        assert_eq!(forced.len(), n_words, "one entry per word");
        let known = |tag: &Option<u32>| tag.is_none_or(|tag| (tag as usize) < n_tags);
        assert!(forced.iter().all(known), "forced tags are below {n_tags}");
    }
    let mut tags = vec![0; n_words];
    let mut scratch = Scratch::default();
    for words in segments(offsets, n_words) {
        if words.is_empty() {
            continue;
        }
        best_sequence(
            emissions.slice(s![words.clone(), ..]),
            steps,
            forced.map(|forced| &forced[words.clone()]),
            &mut scratch,
            &mut tags[words],
        )?;
    }
    Some(tags)
}

#[derive(Default)]
struct Scratch {
    /// For each tag, the score of the best continuation of the sentence that starts with it, including its own word.
    best: Vec<Option<f64>>,
    best_after: Vec<Option<f64>>,
    /// `[words, tags]`: the next tag in that best continuation.
    followers: Vec<u32>,
}

/// Runs from the last word to the first, so that the tags are read off in reading order and ties are broken in that
/// order.
fn best_sequence(
    emissions: ArrayView2<'_, f32>,
    steps: &Steps,
    forced: Option<&[Option<u32>]>,
    scratch: &mut Scratch,
    tags: &mut [u32],
) -> Option<()> {
    let (n_words, n_tags) = emissions.dim();
    let emission = |word: usize, tag: usize| match forced.and_then(|forced| forced[word]) {
        Some(only) => (only as usize == tag).then_some(0.0),
        None => Some(f64::from(emissions[[word, tag]])),
    };
    let Scratch { best, best_after, followers } = scratch;
    followers.resize(n_words * n_tags, 0);
    best.clear();
    best.extend((0..n_tags).map(|tag| Some(emission(n_words - 1, tag)? + steps.end[tag])));
    for word in (0..n_words - 1).rev() {
        std::mem::swap(best, best_after);
        best.clear();
        best.extend((0..n_tags).map(|tag| {
            let own = emission(word, tag)?;
            let (follower, rest) = highest(steps.transitions.row(tag), best_after)?;
            followers[word * n_tags + tag] = follower;
            Some(own + rest)
        }));
    }
    (tags[0], _) = highest(&steps.start, best)?;
    for word in 1..n_words {
        tags[word] = followers[(word - 1) * n_tags + tags[word - 1] as usize];
    }
    Some(())
}

/// Returns the first tag with the highest `step + rest`, and that sum.
fn highest<'a>(
    steps: impl IntoIterator<Item = &'a Option<f64>>,
    rests: &[Option<f64>],
) -> Option<(u32, f64)> {
    let mut best: Option<(u32, f64)> = None;
    for (tag, (step, rest)) in (0..).zip(steps.into_iter().zip(rests)) {
        if let (Some(step), Some(rest)) = (step, rest)
            && best.is_none_or(|(_, score)| step + rest > score)
        {
            best = Some((tag, step + rest));
        }
    }
    best
}

#[cfg(test)]
mod tests;
