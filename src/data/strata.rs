//! How the rows of each task are assigned to splits: distributed by class, by rarest label or by value, or kept
//! together in groups.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    split::{Part, SplitFractions, normalised, stratified_split},
    target::Target,
};

/// Number of quantiles of the values of a regression, each of which is distributed over all splits.
const N_QUANTILES: usize = 10;

/// Assigns each row to a split, by its target and its group.
///
/// - Rows with a class are distributed by class; rows with several labels by the rarest of these, counted over all
///   rows, and rows without labels as a class of their own; rows with a value by tenths of the sorted values: see
///   [`stratified_split`].
/// - Sentences and questions stay with their group: see [`grouped_split`]. A row without a group is one of its own.
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

/// Assigns rows to splits without separating the rows of a group. `groups` holds the group of each row, and the result
/// its split, in the same order.
///
/// The method: up to ten groups are placed as close to the shares as possible (by the sum of squares of the splits'
/// differences from them); if several placements are equally good, one is drawn by ChaCha8, seeded with `seed`. More
/// groups are shuffled, and placed from the largest to the smallest. If a group fits into some splits (those that lack
/// at least as many rows to their share of all rows), it goes into one of these, drawn by what they lack, so that large
/// groups are distributed according to `fractions`. A group that fits nowhere goes into the split that lacks most (the
/// first on a tie), and so does every group if all have the same size. Then a group is moved to another split, or two
/// of different splits are exchanged, whichever reduces the sum of squares most, until nothing reduces it. If there are
/// at least as many groups as splits with a share above 0, each of these gets a group; otherwise the first ones do.
///
/// The same groups, fractions and seed give the same split on every machine; it does not depend on the numbers that
/// identify the groups.
///
/// ```
/// use frostbert::internals::data::{Part, SplitFractions, grouped_split};
///
/// let contexts: Vec<u64> = (0..100).map(|question| question / 5).collect();
/// let parts = grouped_split(&contexts, SplitFractions::default(), 42);
/// let count = |part| parts.iter().filter(|other| **other == part).count();
/// assert_eq!([count(Part::Train), count(Part::Validation), count(Part::Test)], [70, 15, 15]);
/// assert!(parts.chunks(5).all(|context| context.iter().all(|part| *part == context[0])));
///
/// // One document of 38 sentences and two of one.
/// let documents: Vec<u64> = (0..40_u64).map(|sentence| sentence.saturating_sub(37)).collect();
/// let parts = grouped_split(&documents, SplitFractions::default(), 42);
/// assert_eq!(parts.iter().filter(|part| **part == Part::Train).count(), 38);
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
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.shuffle(&mut random);
    // Stable, so that groups of the same size stay in the order that was drawn.
    order.sort_by_key(|group| Reverse(sizes[*group]));
    let mut placed = PlacedGroups {
        lacking: shares.map(|share| share * groups.len() as f64),
        part_of: vec![0; sizes.len()],
        n_groups: [0; 3],
    };
    if sizes.len() <= MOST_TRIED {
        let parts = nearest(&sizes, placed.lacking, shares, &mut random);
        return numbers.into_iter().map(|number| Part::ALL[parts[number]]).collect();
    }
    let is_even = sizes.iter().all(|size| *size == sizes[0]);
    for (n_placed, group) in order.iter().enumerate() {
        let n_left = sizes.len() - n_placed;
        let is_empty = |part: &usize| shares[*part] > 0.0 && placed.n_groups[*part] == 0;
        let n_empty = (0..3).filter(is_empty).count();
        let open: Vec<usize> = (0..3)
            .filter(|part| shares[*part] > 0.0 && (n_left > n_empty || is_empty(part)))
            .collect();
        let part = if is_even {
            placed.most_lacking(&open)
        } else {
            placed.choose(&open, sizes[*group], &mut random)
        };
        placed.put(*group, part, sizes[*group]);
    }
    while let Some(change) = placed.best_change(&order, &sizes, shares) {
        for (group, part) in change {
            placed.take(group, sizes[group]);
            placed.put(group, part, sizes[group]);
        }
    }
    let part = |number: usize| Part::ALL[placed.part_of[number]];
    numbers.into_iter().map(part).collect()
}

/// Maximum number of groups for which every placement is tried.
const MOST_TRIED: usize = 10;

/// Returns the split of each of a few groups, as close as possible to the rows that the splits lack.
fn nearest(
    sizes: &[usize],
    lacking: [f64; 3],
    shares: [f64; 3],
    random: &mut ChaCha8Rng,
) -> Vec<usize> {
    let open: Vec<usize> = (0..3).filter(|part| shares[*part] > 0.0).collect();
    let n_filled = sizes.len().min(open.len());
    let mut best: Vec<Vec<usize>> = Vec::new();
    let mut least = f64::INFINITY;
    for way in 0..open.len().pow(sizes.len() as u32) {
        let places = (0..sizes.len()).map(|group| way / open.len().pow(group as u32) % open.len());
        let parts: Vec<usize> = places.map(|place| open[place]).collect();
        let mut left = lacking;
        for (part, size) in parts.iter().zip(sizes) {
            left[*part] -= *size as f64;
        }
        let error: f64 = left.iter().map(|rows| rows * rows).sum();
        if error > least + 1e-6 || !open[..n_filled].iter().all(|part| parts.contains(part)) {
            continue;
        }
        if error < least - 1e-6 {
            best.clear();
        }
        least = error.min(least);
        best.push(parts);
    }
    let chosen = random.gen_range(0..best.len().max(1));
    best.into_iter().nth(chosen).unwrap_or_default()
}

/// The placement of groups in splits.
struct PlacedGroups {
    /// Number of rows that each split lacks to its share; below 0 if it has more.
    lacking: [f64; 3],
    /// The split of each group.
    part_of: Vec<usize>,
    /// Number of groups in each split.
    n_groups: [usize; 3],
}

impl PlacedGroups {
    fn put(&mut self, group: usize, part: usize, size: usize) {
        self.part_of[group] = part;
        self.n_groups[part] += 1;
        self.lacking[part] -= size as f64;
    }

    fn take(&mut self, group: usize, size: usize) {
        let part = self.part_of[group];
        self.n_groups[part] -= 1;
        self.lacking[part] += size as f64;
    }

    /// Chooses the split of `open` for a group of this size.
    fn choose(&self, open: &[usize], size: usize, random: &mut ChaCha8Rng) -> usize {
        let fits = |part: &usize| self.lacking[*part] >= size as f64;
        let fitting: Vec<usize> = open.iter().copied().filter(fits).collect();
        if let [only] = fitting[..] {
            return only;
        }
        if !fitting.is_empty() {
            let total: f64 = fitting.iter().map(|part| self.lacking[*part]).sum();
            let mut drawn = random.r#gen::<f64>() * total;
            for part in &fitting {
                drawn -= self.lacking[*part];
                if drawn < 0.0 {
                    return *part;
                }
            }
            return fitting[fitting.len() - 1];
        }
        self.most_lacking(open)
    }

    /// Returns the split of `open` that lacks most rows; the first on a tie.
    fn most_lacking(&self, open: &[usize]) -> usize {
        // Reversed, because `max_by` returns the last of equal elements.
        let most = open
            .iter()
            .rev()
            .max_by(|one, other| self.lacking[**one].total_cmp(&self.lacking[**other]));
        most.copied().unwrap_or(0)
    }

    /// Returns the move of a group, or the exchange of two, that brings the splits closest to their shares; `None` if
    /// none brings them closer. No split loses its last group.
    fn best_change(
        &self,
        order: &[usize],
        sizes: &[usize],
        shares: [f64; 3],
    ) -> Option<Vec<(usize, usize)>> {
        // One group of each size in each split: others of the same size would have the same effect.
        let mut of_size: [BTreeMap<usize, usize>; 3] = Default::default();
        for group in order {
            of_size[self.part_of[*group]].entry(sizes[*group]).or_insert(*group);
        }
        let mut best = None;
        let mut most_gained = 1e-6;
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            if shares[to] == 0.0 {
                continue;
            }
            let error = |moved: f64| {
                let lacking = [self.lacking[from] + moved, self.lacking[to] - moved];
                lacking[0].powi(2) + lacking[1].powi(2)
            };
            let before = error(0.0);
            for (size, group) in &of_size[from] {
                let back = of_size[to].iter().map(|(size, group)| (*size, Some(*group)));
                let may_move = self.n_groups[from] > 1;
                for (size_back, back) in back.chain(may_move.then_some((0, None))) {
                    let gained = before - error(*size as f64 - size_back as f64);
                    if gained > most_gained {
                        most_gained = gained;
                        let back = back.map(|group| (group, from));
                        best = Some([(*group, to)].into_iter().chain(back).collect());
                    }
                }
            }
        }
        best
    }
}

/// Returns the groups, with a new one for each row that has none.
fn own_groups(groups: &[Option<u64>]) -> Vec<u64> {
    let first_free = groups.iter().flatten().max().map_or(0, |largest| largest + 1);
    let numbered = groups.iter().zip(first_free..);
    numbered.map(|(group, own)| group.unwrap_or(own)).collect()
}

/// Returns for each row the label of its own that fewest rows have (the first on a tie); for a row without labels, one
/// more than the largest label.
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

/// Returns for each value the tenth of the sorted values in which it first occurs; equal values are in the same tenth.
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
