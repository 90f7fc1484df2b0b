//! The split into train, validation and test: stratified by class, seeded, the same on every machine.

use std::collections::BTreeMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Maximum difference between the sum of the fractions and 1.
const SUM_TOLERANCE: f64 = 1e-6;

/// One of the splits of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Heads are trained on it.
    Train,
    /// Settings are chosen and training is stopped by it.
    Validation,
    /// Only used once, at the end.
    Test,
}

impl Part {
    /// All splits, in order.
    pub const ALL: [Part; 3] = [Part::Train, Part::Validation, Part::Test];
}

/// The share of each split: `data.split` of a pipeline. Deserialisation checks that no share is below 0 and that they
/// add up to 1 (within 1e-6).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SplitFractions {
    /// The share of [`Part::Train`].
    pub train: f64,
    /// The share of [`Part::Validation`].
    pub validation: f64,
    /// The share of [`Part::Test`].
    pub test: f64,
}

/// The fractions of a pipeline file before they are checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Unchecked {
    train: f64,
    validation: f64,
    test: f64,
}

impl SplitFractions {
    /// Returns a description of the problem if the fractions are not valid.
    pub fn check(&self) -> Result<(), String> {
        let SplitFractions { train, validation, test } = *self;
        let given = format!("train {train}, validation {validation} and test {test}");
        let sum: f64 = self.shares().iter().sum();
        if !self.shares().iter().all(|share| *share >= 0.0) {
            return Err(format!("expected fractions from 0 to 1, got {given}"));
        }
        if (sum - 1.0).abs() <= SUM_TOLERANCE {
            return Ok(());
        }
        Err(format!(
            "expected fractions that add up to 1, got {given}, which add up to {sum:.6}: give all three"
        ))
    }

    pub(super) fn shares(&self) -> [f64; 3] {
        [self.train, self.validation, self.test]
    }
}

impl Default for SplitFractions {
    fn default() -> Self {
        SplitFractions { train: 0.70, validation: 0.15, test: 0.15 }
    }
}

impl Default for Unchecked {
    fn default() -> Self {
        let SplitFractions { train, validation, test } = SplitFractions::default();
        Unchecked { train, validation, test }
    }
}

impl TryFrom<Unchecked> for SplitFractions {
    type Error = String;

    fn try_from(fractions: Unchecked) -> Result<Self, String> {
        let fractions = SplitFractions {
            train: fractions.train,
            validation: fractions.validation,
            test: fractions.test,
        };
        fractions.check().map(|()| fractions)
    }
}

/// Returns how to split the rows of train if other sources provide some of the splits: a given split gets 0, and the
/// others share the rest in their original proportion. If there is nothing to share, everything goes to train.
///
/// ```
/// use frostbert::internals::data::{SplitFractions, split_plan};
///
/// let plan = split_plan(false, true, SplitFractions { train: 0.6, validation: 0.2, test: 0.2 });
/// assert_eq!((plan.validation, plan.test), (0.25, 0.0));
/// ```
pub fn split_plan(
    given_validation: bool,
    given_test: bool,
    fractions: SplitFractions,
) -> SplitFractions {
    let validation = if given_validation { 0.0 } else { fractions.validation };
    let test = if given_test { 0.0 } else { fractions.test };
    let [train, validation, test] = normalised([fractions.train, validation, test]);
    SplitFractions { train, validation, test }
}

/// Assigns each row to a split, so that every class is distributed according to `fractions`. `labels` holds the class
/// of each row, and the result its split, in the same order.
///
/// The method: the rows of each class are shuffled by ChaCha8, seeded with `seed` and with the class as its stream, and
/// divided into train, validation and test. The number of rows of a class in each split is its share, rounded by
/// largest remainder (on a tie, first train, then validation), with
/// - at least one row in each split with a share above 0, for a class with at least as many rows as there are such
///   splits; a smaller class has at least one in train;
/// - then, rows are moved one per class at a time, starting with the classes that this takes least far from their
///   shares, until the totals of the splits are those of all rows rounded by largest remainder, or until no class can
///   spare a row.
///
/// The same labels, fractions and seed give the same split on every machine. Fractions that do not add up to 1 are
/// scaled so that they do; see [`SplitFractions::check`].
///
/// ```
/// use frostbert::internals::data::{Part, SplitFractions, stratified_split};
///
/// let labels: Vec<usize> = (0..100).map(|row| usize::from(row % 10 == 0)).collect();
/// let parts = stratified_split(&labels, SplitFractions::default(), 42);
/// let count = |part, class| labels.iter().zip(&parts).filter(|row| *row == (&class, &part)).count();
/// assert_eq!([count(Part::Train, 1), count(Part::Validation, 1), count(Part::Test, 1)], [7, 2, 1]);
/// assert_eq!([count(Part::Train, 0), count(Part::Validation, 0), count(Part::Test, 0)], [63, 13, 14]);
/// ```
pub fn stratified_split(labels: &[usize], fractions: SplitFractions, seed: u64) -> Vec<Part> {
    let mut rows_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        rows_of.entry(*label).or_default().push(row);
    }
    let sizes: Vec<usize> = rows_of.values().map(Vec::len).collect();
    let counts = counts_by_class(&sizes, normalised(fractions.shares()));

    let mut parts = vec![Part::Train; labels.len()];
    for ((class, mut rows), counts) in rows_of.into_iter().zip(counts) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(class as u64);
        rows.shuffle(&mut random);
        let targets = Part::ALL
            .into_iter()
            .zip(counts)
            .flat_map(|(part, count)| std::iter::repeat_n(part, count));
        for (row, part) in rows.into_iter().zip(targets) {
            parts[row] = part;
        }
    }
    parts
}

/// Returns the number of rows of each class in each split.
fn counts_by_class(sizes: &[usize], shares: [f64; 3]) -> Vec<[usize; 3]> {
    let mut counts: Vec<[usize; 3]> =
        sizes.iter().map(|&size| counts_of_class(size, shares)).collect();
    let totals = largest_remainder(sizes.iter().sum(), shares);
    // Each move takes a row from a split with too many to one with too few, so the loop ends.
    while let Some(moves) = next_moves(&counts, sizes, totals, shares) {
        for (class, from, to) in moves {
            counts[class][from] -= 1;
            counts[class][to] += 1;
        }
    }
    counts
}

/// Returns moves of one row each, in different classes, that bring a split with too many rows and one with too few
/// closer to their totals; `None` if there are none.
fn next_moves(
    counts: &[[usize; 3]],
    sizes: &[usize],
    totals: [usize; 3],
    shares: [f64; 3],
) -> Option<Vec<(usize, usize, usize)>> {
    let sums: [usize; 3] =
        std::array::from_fn(|part| counts.iter().map(|counts| counts[part]).sum());
    let pairs = (0..9).map(|pair| (pair / 3, pair % 3));
    for (from, to) in pairs.filter(|&(from, to)| {
        sums[from] > totals[from] && sums[to] < totals[to] && shares[to] > 0.0
    }) {
        let deviation = |class: usize, part: usize| {
            counts[class][part] as f64 - sizes[class] as f64 * shares[part]
        };
        let mut movable: Vec<usize> = (0..sizes.len())
            .filter(|&class| counts[class][from] > minimum_of_class(sizes[class], shares)[from])
            .collect();
        let gain = |class: &usize| deviation(*class, from) - deviation(*class, to);
        movable.sort_by(|one, other| gain(other).total_cmp(&gain(one)).then(one.cmp(other)));
        movable.truncate((sums[from] - totals[from]).min(totals[to] - sums[to]));
        if !movable.is_empty() {
            return Some(movable.into_iter().map(|class| (class, from, to)).collect());
        }
    }
    None
}

/// Returns the counts of a class on its own: by largest remainder, then with the minimum.
fn counts_of_class(size: usize, shares: [f64; 3]) -> [usize; 3] {
    let mut counts = largest_remainder(size, shares);
    let minimum = minimum_of_class(size, shares);
    for part in 0..3 {
        while counts[part] < minimum[part] {
            // The minima add up to at most `size`, so some split has more than its minimum.
            let donor = (0..3)
                .rev()
                .max_by_key(|&donor| counts[donor].saturating_sub(minimum[donor]))
                .unwrap_or(part);
            counts[donor] -= 1;
            counts[part] += 1;
        }
    }
    counts
}

/// Returns the minimum number of rows of a class of this size in each split.
fn minimum_of_class(size: usize, shares: [f64; 3]) -> [usize; 3] {
    let n_wanted = shares.iter().filter(|share| **share > 0.0).count();
    if size >= n_wanted {
        shares.map(|share| usize::from(share > 0.0))
    } else {
        [usize::from(size > 0 && shares[0] > 0.0), 0, 0]
    }
}

/// Divides `n` rows by `shares`, rounded without changing their sum: down, then up where the remainder is largest.
fn largest_remainder(n: usize, shares: [f64; 3]) -> [usize; 3] {
    let quotas = shares.map(|share| share * n as f64);
    let mut counts = quotas.map(|quota| quota as usize);
    let mut order = [0, 1, 2];
    order.sort_by(|&one, &other| quotas[other].fract().total_cmp(&quotas[one].fract()));
    let n_left = n.saturating_sub(counts.iter().sum());
    for &part in order.iter().filter(|&&part| shares[part] > 0.0).cycle().take(n_left) {
        counts[part] += 1;
    }
    counts
}

/// Divides the shares by their sum; if they are all 0, everything goes to the first.
pub(super) fn normalised(shares: [f64; 3]) -> [f64; 3] {
    let shares = shares.map(|share| share.max(0.0));
    let sum: f64 = shares.iter().sum();
    if sum > 0.0 && sum.is_finite() { shares.map(|share| share / sum) } else { [1.0, 0.0, 0.0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fractions(train: f64, validation: f64, test: f64) -> SplitFractions {
        SplitFractions { train, validation, test }
    }

    fn table(labels: &[usize], parts: &[Part]) -> BTreeMap<usize, [usize; 3]> {
        let mut table: BTreeMap<usize, [usize; 3]> = BTreeMap::new();
        for (label, part) in labels.iter().zip(parts) {
            table.entry(*label).or_default()[*part as usize] += 1;
        }
        table
    }

    fn split_sizes(sizes: &[usize], fractions: SplitFractions) -> Vec<[usize; 3]> {
        let labels: Vec<usize> = sizes
            .iter()
            .enumerate()
            .flat_map(|(class, &size)| std::iter::repeat_n(class, size))
            .collect();
        table(&labels, &stratified_split(&labels, fractions, 7)).into_values().collect()
    }

    fn totals(counts: &[[usize; 3]]) -> [usize; 3] {
        std::array::from_fn(|part| counts.iter().map(|counts| counts[part]).sum())
    }

    #[test]
    fn the_same_seed_gives_the_same_parts_today_and_next_year() {
        let labels: Vec<usize> = (0..20).map(|row| row % 2).collect();
        let parts = stratified_split(&labels, SplitFractions::default(), 42);
        let letters: String = parts.iter().map(|part| ["t", "v", "x"][*part as usize]).collect();
        assert_eq!(letters, "ttvtxttttttxxvtttttv");
        assert_eq!(stratified_split(&labels, SplitFractions::default(), 42), parts);
        assert_ne!(stratified_split(&labels, SplitFractions::default(), 43), parts);
    }

    #[test]
    fn a_class_is_split_the_same_whatever_the_order_of_the_others() {
        let labels: Vec<usize> = [vec![0; 100], vec![5; 100]].concat();
        let swapped: Vec<usize> = [vec![5; 100], vec![0; 100]].concat();
        let parts = stratified_split(&labels, SplitFractions::default(), 1);
        let swapped = stratified_split(&swapped, SplitFractions::default(), 1);
        assert_eq!((&parts[..100], &parts[100..]), (&swapped[100..], &swapped[..100]));
        assert_ne!(parts[..100], parts[100..], "classes are shuffled apart");
    }

    #[test]
    fn totals_fit_though_every_class_is_rounded() {
        let counts = split_sizes(&[10; 77], SplitFractions::default());
        assert_eq!(totals(&counts), [539, 116, 115]);
        assert!(counts.iter().all(|counts| counts[0] == 7 && counts[1] >= 1 && counts[2] >= 1));
    }

    #[test]
    fn no_class_is_further_than_one_row_from_its_share_where_classes_are_large() {
        let sizes: Vec<usize> = (0..77).map(|class| 35 + class * 2).collect();
        let counts = split_sizes(&sizes, SplitFractions::default());
        assert_eq!(totals(&counts), largest_remainder(sizes.iter().sum(), [0.7, 0.15, 0.15]));
        for (counts, size) in counts.iter().zip(&sizes) {
            for (count, share) in counts.iter().zip([0.7, 0.15, 0.15]) {
                assert!(
                    (*count as f64 - share * *size as f64).abs() <= 1.0,
                    "{counts:?} of {size}"
                );
            }
        }
    }

    #[test]
    fn a_class_with_enough_rows_is_in_every_part() {
        for n_classes in [1, 2, 77] {
            for size in 3..12 {
                let counts = split_sizes(&vec![size; n_classes], SplitFractions::default());
                assert!(
                    counts.iter().flatten().all(|count| *count >= 1),
                    "{n_classes} classes of {size}: {counts:?}"
                );
            }
        }
        assert_eq!(
            split_sizes(&[2, 2, 96], fractions(0.9, 0.0, 0.1)),
            [[1, 0, 1], [1, 0, 1], [88, 0, 8]]
        );
    }

    #[test]
    fn a_class_too_small_for_all_parts_is_in_train() {
        let counts = split_sizes(&[1, 2, 1, 2, 94], SplitFractions::default());
        assert_eq!(totals(&counts), [70, 15, 15]);
        assert!(counts.iter().all(|counts| counts[0] >= 1), "{counts:?}");
        assert_eq!(split_sizes(&[1], fractions(0.2, 0.8, 0.0)), [[1, 0, 0]]);
    }

    #[test]
    fn a_part_with_no_share_stays_empty() {
        for fractions in
            [fractions(0.8, 0.2, 0.0), fractions(1.0, 0.0, 0.0), fractions(0.0, 0.0, 1.0)]
        {
            for sizes in [vec![1], vec![3, 50, 7], vec![2; 30]] {
                let sums = totals(&split_sizes(&sizes, fractions));
                assert_eq!(sums.iter().sum::<usize>(), sizes.iter().sum::<usize>());
                assert!(
                    sums.iter()
                        .zip(fractions.shares())
                        .all(|(sum, share)| share > 0.0 || *sum == 0),
                    "{sums:?}"
                );
            }
        }
        assert!(stratified_split(&[], SplitFractions::default(), 1).is_empty());
    }

    #[test]
    fn a_given_part_leaves_its_share_to_the_others() {
        let plan = split_plan(true, false, SplitFractions::default());
        assert!((plan.train - 0.7 / 0.85).abs() < 1e-12 && plan.validation == 0.0);
        assert!(plan.check().is_ok());
        assert_eq!(split_plan(true, true, SplitFractions::default()), fractions(1.0, 0.0, 0.0));
        assert_eq!(split_plan(true, true, fractions(0.0, 0.5, 0.5)), fractions(1.0, 0.0, 0.0));
        assert_eq!(
            split_plan(false, false, fractions(0.5, 0.25, 0.25)),
            fractions(0.5, 0.25, 0.25)
        );
    }

    #[test]
    fn fractions_are_checked_as_they_are_read() {
        assert_eq!(
            serde_json::from_str::<SplitFractions>("{}").unwrap(),
            SplitFractions::default()
        );
        let json = r#"{"train": 0.8, "validation": 0.1, "test": 0.1}"#;
        assert_eq!(serde_json::from_str::<SplitFractions>(json).unwrap(), fractions(0.8, 0.1, 0.1));
        for (json, problem) in [
            (
                r#"{"train": 0.8}"#,
                "expected fractions that add up to 1, got train 0.8, validation 0.15 and test 0.15, which add up to \
                 1.100000: give all three",
            ),
            (
                r#"{"train": 1.2, "validation": -0.2, "test": 0}"#,
                "expected fractions from 0 to 1, got train 1.2, validation -0.2 and test 0",
            ),
            (r#"{"trian": 1.0}"#, "unknown field `trian`"),
        ] {
            let error = serde_json::from_str::<SplitFractions>(json).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
        assert!(fractions(f64::NAN, 0.5, 0.5).check().is_err());
    }
}
