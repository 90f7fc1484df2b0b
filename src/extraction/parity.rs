//! The parity sample: a few documents of every shard are computed once more, alone and in f32, and compared with what
//! is stored.

use frostbert_cache::{manifest::Parity, reader::rows_of, shard::OpenShard, states::Dtype};

/// Number of tokens in a sample, if the shard has enough of them.
const SAMPLE_TOKENS: u64 = 256;

/// A sample takes at most 1 in this many of its shard's tokens, beyond its first document.
const SHARE: u64 = 16;

/// Number of documents, in key order, from which the sample is taken, shortest first.
const CANDIDATES: usize = 16;

/// Chooses the documents of a shard's sample, given the number of tokens of each document of the shard in key order.
pub(crate) fn choose(n_tokens: &[u32]) -> Vec<usize> {
    let n_documents = n_tokens.len();
    let n_tokens = |document: usize| u64::from(n_tokens[document]);
    let total: u64 = (0..n_documents).map(n_tokens).sum();
    let budget = SAMPLE_TOKENS.min(total / SHARE);
    let mut candidates: Vec<usize> = (0..n_documents.min(CANDIDATES)).collect();
    candidates.sort_by_key(|document| n_tokens(*document));
    let mut taken = 0;
    candidates.retain(|document| {
        let take = taken == 0 || taken + n_tokens(*document) <= budget;
        taken += if take { n_tokens(*document) } else { 0 };
        take
    });
    candidates.sort_unstable();
    candidates
}

/// Compares the rows of the sample's documents in a shard with the same documents computed alone.
///
/// # Panics
/// Panics if `alone` does not hold the shard's states of `documents`: a bug of the caller.
pub(crate) fn compare(
    shard: &OpenShard,
    dtype: Dtype,
    hidden: usize,
    documents: &[usize],
    alone: &OpenShard,
) -> Parity {
    let (mut errors, mut roundings) = (Vec::new(), Vec::new());
    for (stored, exact) in shard.states().iter().zip(alone.states()) {
        for (number, document) in documents.iter().enumerate() {
            let rows = rows_of(shard.layout(), stored.state.kind, *document);
            let own = rows_of(alone.layout(), stored.state.kind, number);
            let row_bytes = hidden * dtype.size_bytes();
            let decode = |dtype: Dtype, bytes: &[u8]| {
                let mut values = vec![0.0; rows.len() * hidden];
                dtype.decode(bytes, &mut values);
                values
            };
            let stored = decode(dtype, &stored.bytes[rows.start * row_bytes..rows.end * row_bytes]);
            let exact_bytes = hidden * Dtype::F32.size_bytes();
            let exact =
                decode(Dtype::F32, &exact.bytes[own.start * exact_bytes..own.end * exact_bytes]);
            let mut rounded = Vec::new();
            dtype.put(&exact, &mut rounded);
            let rounded = decode(dtype, &rounded);
            errors.extend(differences(&stored, &exact));
            roundings.extend(differences(&rounded, &exact));
        }
    }
    let tokens = alone.layout().documents.n_tokens();
    let (max_error, median_error) = max_and_median(errors);
    let (max_rounding, median_rounding) = max_and_median(roundings);
    Parity {
        documents: documents.len() as u64,
        tokens,
        max_error,
        median_error,
        max_rounding,
        median_rounding,
    }
}

fn differences(a: &[f32], b: &[f32]) -> impl Iterator<Item = f32> {
    a.iter().zip(b).map(|(a, b)| (a - b).abs())
}

fn max_and_median(mut values: Vec<f32>) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let largest = values.iter().copied().fold(0.0, f32::max);
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    (f64::from(largest), f64::from(*median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_small_and_never_empty() {
        assert_eq!(choose(&[9]), [0]);
        // 1/16 of 320 tokens is 20: the two shortest of the first sixteen.
        assert_eq!(choose(&[&[30, 9, 30, 8, 30][..], &[9; 24]].concat()), [1, 3]);
        let long = choose(&[100; 1000]);
        assert_eq!(long, [0, 1]);
    }
}
