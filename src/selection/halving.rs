//! Successive halving (Jamieson and Talwalkar 2016): all heads are trained for a few epochs, the better ones for more,
//! and only the best for all of them.

/// The rungs: after this fraction `1 / n` of the epochs, this share of the trials continues.
const RUNGS: [(usize, Share); 3] = [(32, Share(1, 2)), (8, Share(1, 2)), (4, Share(2, 5))];

/// A fraction: numerator and denominator.
#[derive(Clone, Copy)]
struct Share(usize, usize);

/// The epochs after which trials are dropped, and how many continue: `(epochs, trials)`, ascending.
///
/// There are three rungs, at whole epochs: half of the trials continue after 1/32 of the epochs, half of these after
/// 1/8, and two fifths of these after 1/4. In total that costs a fifth of all epochs of all trials if there are 16
/// epochs or more, and more if there are few trials, because the number that continue is rounded up. The first rungs
/// drop relatively few, because small learning rates look bad for a long time. Rungs at the same epoch are merged.
///
/// ```
/// use frostbert::internals::selection::halving::rungs;
/// assert_eq!(rungs(100, 32), [(1, 50), (4, 25), (8, 10)]);
/// assert_eq!(rungs(100, 10), [(1, 25), (3, 10)]);
/// assert_eq!(rungs(3, 16), [(1, 2), (2, 1)]);
/// assert!(rungs(1, 16).is_empty());
/// ```
pub fn rungs(n_trials: usize, epochs: usize) -> Vec<(usize, usize)> {
    let mut rungs: Vec<(usize, usize)> = Vec::new();
    let mut left = n_trials;
    for (part, Share(go_on, of)) in RUNGS {
        let after = ((epochs + part / 2) / part).max(1);
        let go_on = (left * go_on).div_ceil(of);
        if after >= epochs || go_on >= left {
            continue;
        }
        rungs.pop_if(|(last, _)| *last == after);
        rungs.push((after, go_on));
        left = go_on;
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cost of halving, as a share of all epochs of all trials.
    fn cost(n_trials: usize, epochs: usize) -> f64 {
        let (mut done, mut left, mut spent) = (0, n_trials, 0);
        for (after, go_on) in rungs(n_trials, epochs) {
            spent += left * (after - done);
            (done, left) = (after, go_on);
        }
        spent += left * (epochs - done);
        spent as f64 / (n_trials * epochs) as f64
    }

    #[test]
    fn halving_costs_a_fifth_at_most_where_there_are_enough_epochs() {
        assert!((cost(100, 16) - 0.2).abs() < 1e-12);
        for epochs in [16, 20, 32, 64, 100] {
            let cost = cost(100, epochs);
            assert!(cost < 0.2 + 1e-12, "{epochs}: {cost}");
        }
        assert_eq!(cost(1, 10), 1.0);
    }

    #[test]
    fn every_rung_is_later_and_narrower_than_the_last() {
        for n_trials in 1..40 {
            for epochs in 1..40 {
                let mut last = (0, n_trials);
                for (after, go_on) in rungs(n_trials, epochs) {
                    assert!(after > last.0 && go_on < last.1 && go_on > 0 && after < epochs);
                    last = (after, go_on);
                }
            }
        }
    }
}
