//! How rows of each task are sent to parts: spread by class, by rarest label or by value, or kept together in groups.

use std::collections::HashMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    split::{Part, SplitFractions, normalised, stratified_split},
    target::Target,
};

/// Equal shares of the values of a regression, each spread over all parts.
const N_QUANTILES: usize = 10;

/// Sends each row to a part, by what it is to be learned as and by what it belongs to.
///
/// - Rows with a class are spread by class; rows with several by the rarest of them, counted over all rows, and rows with
///   none as a class of their own; rows with a value by tenths of the sorted values: see [`stratified_split`].
/// - Rows of words and of questions stay with their group: see [`grouped_split`]. A row of no group is one of its own.
pub(super) fn split_rows(
    targets: &[&Target],
    groups: &[Option<u64>],
    fractions: SplitFractions,
    seed: u64,
) -> Vec<Part> {
    let strata: Vec<usize> = match targets.first() {
        None => Vec::new(),
        Some(Target::Class(_)) => targets.iter().filter_map(|target| target.class()).collect(),
        Some(Target::Classes(_)) => rarest_labels(targets),
        Some(Target::Value(_)) => quantiles(targets),
        Some(Target::Tags(_) | Target::Answers(_)) => {
            return grouped_split(&own_groups(groups), fractions, seed);
        }
    };
    stratified_split(&strata, fractions, seed)
}

/// Sends rows to parts so that no group is torn apart. `groups` holds the group of each row, the result its part, in the
/// same order.
///
/// The method: groups, in the order of their first rows, are shuffled by ChaCha8, seeded with `seed`; each in turn goes
/// to the part that lacks most rows to its share of all rows (on a tie, the first), so that no part ends up further above
/// its share than the rows of the largest group. Where there are as many groups as parts of a share above 0, each of
/// these gets one: once as few groups are left as parts are empty, they go there.
///
/// The same groups, fractions and seed give the same parts on every machine; what numbers the groups have does not
/// matter.
///
/// ```
/// use frostbert::data::{Part, SplitFractions, grouped_split};
///
/// let contexts: Vec<u64> = (0..100).map(|question| question / 5).collect();
/// let parts = grouped_split(&contexts, SplitFractions::default(), 42);
/// let count = |part| parts.iter().filter(|other| **other == part).count();
/// assert_eq!([count(Part::Train), count(Part::Validation), count(Part::Test)], [70, 15, 15]);
/// assert!(parts.chunks(5).all(|context| context.iter().all(|part| *part == context[0])));
/// ```
pub fn grouped_split(groups: &[u64], fractions: SplitFractions, seed: u64) -> Vec<Part> {
    let mut number_of: HashMap<u64, usize> = HashMap::new();
    let mut sizes: Vec<usize> = Vec::new();
    let numbers: Vec<usize> = groups
        .iter()
        .map(|group| {
            let number = *number_of.entry(*group).or_insert(sizes.len());
            sizes.resize(sizes.len().max(number + 1), 0);
            sizes[number] += 1;
            number
        })
        .collect();
    let shares = normalised(fractions.shares());
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));

    let mut lacking = shares.map(|share| share * groups.len() as f64);
    let mut is_empty = shares.map(|share| share > 0.0);
    let mut part_of = vec![Part::Train; sizes.len()];
    for (n_placed, group) in order.into_iter().enumerate() {
        let n_left = sizes.len() - n_placed;
        let n_empty = is_empty.iter().filter(|empty| **empty).count();
        let open = |part: &usize| shares[*part] > 0.0 && (n_left > n_empty || is_empty[*part]);
        let best = (0..3)
            .filter(open)
            // The last of equal ones is taken.
            .rev()
            .max_by(|one, other| lacking[*one].total_cmp(&lacking[*other]))
            .unwrap_or(0);
        part_of[group] = Part::ALL[best];
        lacking[best] -= sizes[group] as f64;
        is_empty[best] = false;
    }
    numbers.into_iter().map(|number| part_of[number]).collect()
}

/// The groups, and a new one for each row that has none.
fn own_groups(groups: &[Option<u64>]) -> Vec<u64> {
    let first_free = groups
        .iter()
        .flatten()
        .max()
        .map_or(0, |largest| largest + 1);
    let numbered = groups.iter().zip(first_free..);
    numbered.map(|(group, own)| group.unwrap_or(own)).collect()
}

/// The label of each row that fewest rows have (of equal ones, the first); one more than the largest for a row of none.
fn rarest_labels(targets: &[&Target]) -> Vec<usize> {
    let mut n_rows: Vec<usize> = Vec::new();
    for id in targets.iter().flat_map(|target| target.label_ids()) {
        n_rows.resize(n_rows.len().max(id + 1), 0);
        n_rows[*id] += 1;
    }
    let rarest = |target: &&Target| {
        let ids = target.label_ids().iter().copied();
        ids.min_by_key(|id| n_rows[*id]).unwrap_or(n_rows.len())
    };
    targets.iter().map(rarest).collect()
}

/// The tenth of the sorted values in which each value first stands; equal values are in one tenth.
fn quantiles(targets: &[&Target]) -> Vec<usize> {
    let values: Vec<f64> = targets.iter().filter_map(|target| target.value()).collect();
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let rank = |value: &f64| sorted.partition_point(|other| other < value);
    let quantile = |value| rank(value) * N_QUANTILES / values.len();
    values.iter().map(quantile).collect()
}

#[cfg(test)]
mod tests;
