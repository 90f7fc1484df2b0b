//! Which rows a head is trained on and which it is evaluated on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// The properties of a row that decide its fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stratum {
    /// Its class, if there are classes; folds have shares of each class that are as equal as possible.
    pub class: Option<usize>,
    /// Its group, if it has one: rows of one group share a fold.
    pub group: Option<u64>,
}

/// Cuts rows into [`folds`]: for each fold, the rows outside it and those in it, in the order of the rows.
///
/// `strata` belong to `rows`.
pub(crate) fn parted(
    rows: &[u32],
    strata: &[Stratum],
    n_folds: usize,
    seed: u64,
) -> Vec<[Vec<u32>; 2]> {
    let of = folds(strata, n_folds, seed);
    let within = |fold: usize, inside: bool| {
        let own = rows.iter().zip(&of);
        let own = own.filter(|(_, of)| (**of == fold) == inside);
        own.map(|(row, _)| *row).collect()
    };
    (0..n_folds).map(|fold| [within(fold, false), within(fold, true)]).collect()
}

/// Assigns a fold to each row, from 0 to `n_folds - 1`.
///
/// Rows without a group are shuffled within their class and dealt out, class after class, so folds differ by at most
/// one row of a class and one row in total (as in scikit-learn's `StratifiedKFold`, except for the shuffle). Groups are
/// shuffled, and assigned from the largest to the smallest to whichever fold has the fewest rows.
///
/// ```
/// use frostbert::internals::selection::folds::{Stratum, folds};
/// let rows: Vec<Stratum> = (0..6).map(|row| Stratum { class: Some(row % 2), group: None }).collect();
/// let of = folds(&rows, 3, 42);
/// for fold in 0..3 {
///     let classes: Vec<_> = (0..6).filter(|row| of[*row] == fold).map(|row| rows[row].class).collect();
///     assert_eq!(classes.len(), 2);
///     assert_ne!(classes[0], classes[1]);
/// }
/// ```
///
/// # Panics
/// Panics if `n_folds` is 0.
pub fn folds(rows: &[Stratum], n_folds: usize, seed: u64) -> Vec<usize> {
    assert!(n_folds > 0, "folds to deal rows to");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut fold_of = vec![0; rows.len()];
    let mut classes: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut place_of: HashMap<u64, usize> = HashMap::new();
    for (row, stratum) in rows.iter().enumerate() {
        let Some(group) = stratum.group else {
            classes.entry(stratum.class).or_default().push(row);
            continue;
        };
        let place = *place_of.entry(group).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(row);
    }
    let mut sizes = vec![0usize; n_folds];
    let mut next = 0;
    for rows in classes.values_mut() {
        rows.shuffle(&mut random);
        for row in rows {
            fold_of[*row] = next;
            sizes[next] += 1;
            next = (next + 1) % n_folds;
        }
    }
    groups.shuffle(&mut random);
    // The sort is stable, so that groups of the same size keep their random order.
    groups.sort_by_key(|rows| Reverse(rows.len()));
    for rows in groups {
        let smallest = (0..n_folds).min_by_key(|fold| sizes[*fold]).unwrap_or(0);
        sizes[smallest] += rows.len();
        for row in rows {
            fold_of[row] = smallest;
        }
    }
    fold_of
}

/// Selects a share of the rows, for a learning curve. A smaller share is a subset of a larger one, classes keep their
/// proportions, and every class keeps at least one row.
///
/// `strata` belong to `rows`. The result keeps the order of the rows.
pub(crate) fn share(rows: &[u32], strata: &[Stratum], fraction: f64, seed: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut classes: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (place, stratum) in strata.iter().enumerate() {
        classes.entry(stratum.class).or_default().push(place);
    }
    let mut kept: Vec<usize> = Vec::new();
    for places in classes.values_mut() {
        places.shuffle(&mut random);
        let n_kept = ((places.len() as f64 * fraction).round() as usize).max(1);
        kept.extend(&places[..n_kept.min(places.len())]);
    }
    kept.sort_unstable();
    kept.into_iter().map(|place| rows[place]).collect()
}

/// Draws as many rows as there are, with replacement, to simulate another sample from the same source.
pub(crate) fn resampled(rows: &[u32], seed: u64, number: u64) -> Vec<u32> {
    use rand::Rng;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    let mut drawn: Vec<u32> = rows.iter().map(|_| rows[random.gen_range(0..rows.len())]).collect();
    drawn.sort_unstable();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strata(n: usize, n_classes: usize) -> Vec<Stratum> {
        (0..n).map(|row| Stratum { class: Some(row * row % n_classes), group: None }).collect()
    }

    #[test]
    fn folds_share_rows_and_classes_equally_and_follow_the_seed() {
        let rows = strata(103, 4);
        let of = folds(&rows, 5, 42);
        assert_eq!(of, folds(&rows, 5, 42));
        assert_ne!(of, folds(&rows, 5, 43));
        let count = |fold: usize, class: Option<usize>| {
            let own = (0..103).filter(|row| of[*row] == fold);
            own.filter(|row| class.is_none() || rows[*row].class == class).count()
        };
        for class in [None, Some(0), Some(1)] {
            let counts: Vec<usize> = (0..5).map(|fold| count(fold, class)).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{class:?}: {counts:?}");
        }
    }

    #[test]
    fn rows_of_a_group_share_a_fold() {
        let rows: Vec<Stratum> =
            (0..60).map(|row| Stratum { class: None, group: Some(row / 4) }).collect();
        let of = folds(&rows, 5, 1);
        assert!((0..60).all(|row| of[row] == of[row / 4 * 4]));
        for fold in 0..5 {
            assert_eq!(of.iter().filter(|of| **of == fold).count(), 12);
        }
    }

    #[test]
    fn a_large_group_leaves_the_small_ones_to_the_other_folds() {
        let sizes = [10, 10, 10, 100, 10, 10];
        let groups = sizes.iter().zip(0..).flat_map(|(size, group)| vec![group; *size]);
        let rows: Vec<Stratum> =
            groups.map(|group| Stratum { class: None, group: Some(group) }).collect();
        for seed in 0..10 {
            let of = folds(&rows, 3, seed);
            let mut counts = [0, 1, 2].map(|fold| of.iter().filter(|of| **of == fold).count());
            counts.sort_unstable();
            assert_eq!(counts, [20, 30, 100], "seed {seed}");
        }
    }

    #[test]
    fn rows_are_parted_into_those_outside_and_those_in_each_fold() {
        let rows: Vec<u32> = (10..31).collect();
        let strata = strata(21, 2);
        let parts = parted(&rows, &strata, 4, 3);
        let mut inside: Vec<u32> = parts.iter().flat_map(|[_, inside]| inside.clone()).collect();
        inside.sort_unstable();
        assert_eq!(inside, rows, "each row is in one fold");
        for [outside, inside] in &parts {
            assert_eq!(outside.len() + inside.len(), 21);
            assert!(outside.is_sorted() && inside.iter().all(|row| !outside.contains(row)));
        }
    }

    #[test]
    fn a_smaller_share_is_a_part_of_a_larger_one_and_no_class_is_lost() {
        let rows: Vec<u32> = (100..200).collect();
        let mut of = strata(100, 3);
        of[7].class = Some(9);
        let small = share(&rows, &of, 0.1, 5);
        let large = share(&rows, &of, 0.5, 5);
        assert!(small.iter().all(|row| large.contains(row)));
        assert!(small.contains(&107), "the only row of its class");
        assert!((9..=12).contains(&small.len()) && (49..=52).contains(&large.len()));
        assert_eq!(share(&rows, &of, 1.0, 5), rows);
    }

    #[test]
    fn a_resample_has_as_many_rows_of_which_some_repeat() {
        let rows: Vec<u32> = (0..500).collect();
        let drawn = resampled(&rows, 1, 0);
        assert_eq!(drawn.len(), 500);
        assert_ne!(drawn, resampled(&rows, 1, 1));
        let mut distinct = drawn.clone();
        distinct.dedup();
        assert!((280..350).contains(&distinct.len()), "1 - 1/e of them: {}", distinct.len());
    }
}
