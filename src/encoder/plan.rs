//! Decides which texts go through the encoder together: sorts them by length and fills batches to a token budget.

/// The documents of one batch, as indices into the planned list.
pub(crate) type BatchRows = Vec<u32>;

/// The number of tokens up to which a text takes as much of a budget as it has tokens. Attention compares all pairs of
/// tokens, so a text of twice as many takes four times as much of the budget: the memory of a batch's attention is at
/// most that of a batch of texts of this length, or that of one text.
const PLAIN_TOKENS: usize = 512;

/// About how many tokens a CPU computes in the time that a batch takes besides its tokens.
const BATCH_TOKENS: usize = 8;

/// The numbers of batches for each worker that are tried for few documents, in quarters: from one batch to ten.
const QUARTERS_OF_BATCHES: std::ops::RangeInclusive<usize> = 4..=40;

/// Cuts documents into batches of at most `budget_tokens` padded tokens (a longer document makes a batch of its own);
/// texts of more than 512 tokens take more of the budget, as their attention does.
///
/// Documents are sorted by decreasing length and equal lengths by position, so a batch holds documents of nearly equal
/// length. The batch that takes the most of the budget comes first: the device memory that it needs is enough for all
/// others. The plan is a pure function of its arguments and depends on neither a thread count nor a clock.
///
/// ```
/// use frostbert::internals::encoder::plan::plan_batches;
/// assert_eq!(plan_batches(&[3, 9, 4, 8], 18), vec![vec![1, 3], vec![2, 0]]);
/// ```
pub fn plan_batches(lengths: &[u32], budget_tokens: usize) -> Vec<BatchRows> {
    plan_small_batches(lengths, budget_tokens, usize::MAX)
}

/// Like [`plan_batches`], with at most `most_rows` documents in a batch.
pub(crate) fn plan_small_batches(
    lengths: &[u32],
    budget_tokens: usize,
    most_rows: usize,
) -> Vec<BatchRows> {
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.sort_by_key(|row| (std::cmp::Reverse(lengths[*row as usize]), *row));

    let mut batches: Vec<BatchRows> = Vec::new();
    for row in order {
        match batches.last_mut() {
            // The first document of a batch is its longest.
            Some(batch)
                if batch.len() < most_rows
                    && cost(lengths[batch[0] as usize], batch.len() + 1) <= budget_tokens =>
            {
                batch.push(row);
            }
            _ => batches.push(vec![row]),
        }
    }
    let whole = |batch: &BatchRows| cost(lengths[batch[0] as usize], batch.len());
    batches.sort_by_key(|batch| std::cmp::Reverse(whole(batch)));
    batches
}

/// Returns the budget, of at most `most_tokens`, with which the workers of a CPU compute few documents soonest. With large
/// batches of different lengths, much is padding and some workers have nothing to do at the end; each batch takes some
/// time of its own.
pub(crate) fn budget_of_few(lengths: &[u32], most_tokens: usize, n_workers: usize) -> usize {
    let tokens: usize = lengths.iter().map(|length| *length as usize).sum();
    let budgets = QUARTERS_OF_BATCHES
        .map(|quarters| most_tokens.min(4 * tokens / (quarters * n_workers.max(1)) + 1));
    let soonest = budgets.min_by_key(|budget| {
        tokens_until_done(lengths, &plan_batches(lengths, *budget), n_workers)
    });
    soonest.unwrap_or(most_tokens)
}

/// Returns about how long batches take, as the number of tokens that a worker computes meanwhile. Each worker takes the
/// next batch when it is free.
fn tokens_until_done(lengths: &[u32], batches: &[BatchRows], n_workers: usize) -> usize {
    let mut busy = vec![0; n_workers.max(1)];
    for batch in batches {
        let padded = lengths[batch[0] as usize] as usize * batch.len();
        if let Some(first_free) = busy.iter_mut().min() {
            *first_free += padded + BATCH_TOKENS;
        }
    }
    busy.into_iter().max().unwrap_or(0)
}

/// Returns what a batch of so many rows takes of the budget.
fn cost(longest: u32, rows: usize) -> usize {
    let longest = longest as usize;
    longest * rows * longest.max(PLAIN_TOKENS) / PLAIN_TOKENS
}

/// Returns the ratio of real tokens to padded tokens in a plan: 1 if nothing is padded.
pub fn padding_efficiency(lengths: &[u32], batches: &[BatchRows]) -> f64 {
    let real: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
    let padded: u64 = batches
        .iter()
        .map(|batch| u64::from(lengths[batch[0] as usize]) * batch.len() as u64)
        .sum();
    if padded == 0 { 1.0 } else { real as f64 / padded as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_document_stands_in_exactly_one_batch_within_the_budget(
            lengths in prop::collection::vec(1u32..200, 0..300),
            budget in 1usize..2000,
        ) {
            let batches = plan_batches(&lengths, budget);
            let mut seen: Vec<u32> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>());
            for batch in &batches {
                let longest = batch.iter().map(|row| lengths[*row as usize]).max().unwrap() as usize;
                prop_assert!(batch.len() == 1 || longest * batch.len() <= budget);
                let of_first = lengths[batches[0][0] as usize] as usize * batches[0].len();
                prop_assert!(longest * batch.len() <= of_first);
            }
        }
    }

    #[test]
    fn attention_of_long_texts_bounds_their_batches() {
        let sizes = |length: u32| -> Vec<usize> {
            plan_batches(&[length; 8], 4_096).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(512), [8]);
        assert_eq!(sizes(1_024), [2; 4]);
        assert_eq!(sizes(8_192), [1; 8]);
        // The text with the most attention comes first.
        assert_eq!(plan_batches(&[500, 500, 500, 1_000], 1_500), vec![vec![3], vec![0, 1, 2]]);
    }

    #[test]
    fn equal_lengths_pad_nothing() {
        let lengths = [7; 100];
        assert_eq!(padding_efficiency(&lengths, &plan_batches(&lengths, 70)), 1.0);
    }

    #[test]
    fn few_documents_are_cut_so_that_all_workers_are_done_soon() {
        let lengths: Vec<u32> = (0..32).map(|number| 6 + number * 7 % 32).collect();
        let tokens: usize = lengths.iter().map(|length| *length as usize).sum();
        let done = |budget, n_workers| {
            tokens_until_done(&lengths, &plan_batches(&lengths, budget), n_workers)
        };
        for n_workers in [2, 4] {
            let share = tokens.div_ceil(n_workers);
            let soonest = done(budget_of_few(&lengths, 4_096, n_workers), n_workers);
            // A batch for each worker leaves some documents over, for which all others wait.
            assert!(soonest * 5 < done(share, n_workers) * 4, "{n_workers}: {soonest}");
        }
        assert!(budget_of_few(&lengths, 50, 2) <= 50);
        // Texts of one length need no padding: a batch for each worker is best.
        let of_one_length = plan_batches(&[20; 8], budget_of_few(&[20; 8], 4_096, 2));
        assert_eq!(of_one_length, vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
        assert_eq!(plan_batches(&[9], budget_of_few(&[9], 4_096, 2)), vec![vec![0]]);
    }

    #[test]
    fn a_batch_has_no_more_rows_than_it_may() {
        let sizes = |most| -> Vec<usize> {
            plan_small_batches(&[7; 10], 1_000, most).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(4), [4, 4, 2]);
        assert_eq!(sizes(1), [1; 10]);
        assert_eq!(sizes(usize::MAX), [10]);
    }
}
