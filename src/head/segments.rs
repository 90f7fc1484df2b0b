//! Rows that belong together (the words of a sentence, the tokens of a window), as offsets into one matrix.

use std::ops::Range;

/// The ranges `offsets[i]..offsets[i + 1]` of `n_rows` rows; a range may be empty.
///
/// # Panics
/// Panics unless the offsets run from 0 to `n_rows` and never decrease.
pub(super) fn segments(offsets: &[usize], n_rows: usize) -> impl Iterator<Item = Range<usize>> {
    assert_eq!(offsets.first(), Some(&0), "the first offset");
    assert_eq!(offsets.last(), Some(&n_rows), "the last offset");
    assert!(offsets.is_sorted(), "offsets that never fall");
    offsets.windows(2).map(|pair| pair[0]..pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_cut_rows_into_segments_of_which_some_are_empty() {
        assert!(segments(&[0, 2, 2, 5], 5).eq([0..2, 2..2, 2..5]));
    }
}
