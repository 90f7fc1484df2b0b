//! The paired permutation test: whether two heads that predict the same rows differ by more than chance.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Differences within this share of the observed one are as far from 0 as it is: sums in another order round differently.
const TIE: f64 = 1e-9;

/// The settings of the permutation test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutations {
    /// Number of draws.
    pub draws: usize,
    /// Determines every draw, for any number of threads.
    pub seed: u64,
}

impl Default for Permutations {
    /// 10,000 draws, seed 42.
    fn default() -> Self {
        Self { draws: 10_000, seed: 42 }
    }
}

/// The two-sided p-value of a difference between two heads, if it does not matter which of them made which prediction.
///
/// Each draw tosses a coin for every group of rows, and swaps the predictions of the two heads for the rows of those
/// groups that come up heads; `difference` returns the difference of the metric after that, given which groups are
/// swapped. With `k` of `n` draws at least as far from 0 as `observed`, the p-value is `(k + 1) / (n + 1)`, which is
/// never 0. Fisher, "The Design of Experiments", 1935, section 21; Phipson and Smyth, "Permutation P-values should never
/// be zero", 2010; `scipy.stats.permutation_test` with `permutation_type="samples"`.
///
/// Draws on which the difference is undefined are left out. `None` if they are more than half.
///
/// Draw `d` comes from stream `d` of a ChaCha8 generator, and the draws are spread over rayon's current threads, so the
/// result does not depend on their number.
///
/// ```
/// use frostbert::internals::metrics::permutation::{Permutations, permutation_test};
///
/// // One head is right on all of four rows and the other on none: only 2 of the 16 ways to swap are as extreme.
/// let mean = |swapped: &[bool]| {
///     let differences = swapped.iter().map(|swapped| if *swapped { -1.0 } else { 1.0 });
///     Some(differences.sum::<f64>() / 4.0)
/// };
/// let p = permutation_test(1.0, 4, Permutations::default(), mean).unwrap();
/// assert!((p - 0.125).abs() < 0.02, "{p}");
/// assert_eq!(permutation_test(0.0, 4, Permutations::default(), mean), Some(1.0));
/// ```
pub fn permutation_test(
    observed: f64,
    n_groups: usize,
    settings: Permutations,
    difference: impl Fn(&[bool]) -> Option<f64> + Sync,
) -> Option<f64> {
    let far = observed.abs() * (1.0 - TIE);
    let draws: Vec<Option<bool>> = (0..settings.draws)
        .into_par_iter()
        .map_init(
            || vec![false; n_groups],
            |swapped, draw| {
                toss(swapped, settings.seed, draw as u64);
                let value = difference(swapped).filter(|value| value.is_finite());
                value.map(|value| value.abs() >= far)
            },
        )
        .collect();
    let n_defined = draws.iter().flatten().count();
    let n_far = draws.iter().flatten().filter(|is_far| **is_far).count();
    (2 * n_defined >= draws.len()).then(|| (n_far + 1) as f64 / (n_defined + 1) as f64)
}

/// Tosses a coin for each group.
fn toss(swapped: &mut [bool], seed: u64, draw: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(draw);
    for groups in swapped.chunks_mut(u64::BITS as usize) {
        let mut bits = rng.next_u64();
        for group in groups {
            *group = bits & 1 == 1;
            bits >>= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Permutations = Permutations { draws: 400, seed: 1 };

    /// The mean difference of rows that differ by so much.
    fn mean_of(differences: &[f64]) -> impl Fn(&[bool]) -> Option<f64> + Sync + '_ {
        move |swapped| {
            let signed = differences.iter().zip(swapped);
            let sum: f64 = signed.map(|(own, swapped)| if *swapped { -own } else { *own }).sum();
            Some(sum / differences.len() as f64)
        }
    }

    #[test]
    fn about_half_of_the_groups_are_swapped_and_others_in_the_next_draw() {
        let [mut first, mut second] = [vec![false; 1_000], vec![false; 1_000]];
        toss(&mut first, 3, 0);
        toss(&mut second, 3, 1);
        for swapped in [&first, &second] {
            let n_swapped = swapped.iter().filter(|swapped| **swapped).count();
            assert!((400..600).contains(&n_swapped), "{n_swapped}");
        }
        assert_ne!(first, second);
    }

    #[test]
    fn heads_that_predict_the_same_do_not_differ() {
        assert_eq!(permutation_test(0.0, 5, FEW, mean_of(&[0.0; 5])), Some(1.0));
        assert_eq!(permutation_test(0.0, 0, FEW, |_| Some(0.0)), Some(1.0));
    }

    #[test]
    fn a_difference_that_no_draw_reaches_has_the_smallest_p_value() {
        let p = permutation_test(1.0, 60, FEW, mean_of(&[1.0; 60]));
        assert_eq!(p, Some(1.0 / 401.0));
    }

    #[test]
    fn what_is_mostly_undefined_has_no_p_value() {
        let first_only = |swapped: &[bool]| (swapped[0] && swapped[1]).then_some(1.0);
        assert_eq!(permutation_test(1.0, 8, FEW, first_only), None);
        assert_eq!(permutation_test(1.0, 8, FEW, |_| Some(f64::NAN)), None);
        let mostly = |swapped: &[bool]| (swapped[0] || swapped[1]).then_some(1.0);
        assert_eq!(permutation_test(1.0, 8, FEW, mostly), Some(1.0));
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let differences: Vec<f64> = (0..40).map(|row| f64::from(row % 7) - 2.5).collect();
        let observed = mean_of(&differences)(&[false; 40]).unwrap();
        let on = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| permutation_test(observed, 40, FEW, mean_of(&differences)))
        };
        assert_eq!(on(1), on(3));
    }
}
