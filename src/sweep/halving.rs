//! Successive halving (Jamieson and Talwalkar 2016): all heads learn for a few epochs, the better ones for more, and only
//! the best for all of them.

/// The rungs: after one in so many of the epochs, one in so many trials goes on.
const RUNGS: [(usize, usize); 2] = [(16, 3), (4, 4)];

/// The epochs after which trials are given up, and how many go on: `(epochs, trials)`, ascending.
///
/// There are two rungs, at whole epochs: a third of the trials passes the sixteenth of the epochs, a quarter of these a quarter of them. So
/// all three stages cost the same, a sixteenth of all epochs of all trials, together less than a fifth.
///
/// ```
/// use frostbert::sweep::halving::rungs;
/// assert_eq!(rungs(60, 16), [(1, 20), (4, 5)]);
/// assert_eq!(rungs(3, 16), [(1, 1)]);
/// assert!(rungs(1, 16).is_empty());
/// ```
pub fn rungs(n_trials: usize, epochs: usize) -> Vec<(usize, usize)> {
    let mut rungs = Vec::new();
    let mut left = n_trials;
    for (share, reduction) in RUNGS {
        let after = ((epochs + share / 2) / share).max(1);
        let go_on = left.div_ceil(reduction);
        let is_later = rungs.last().is_none_or(|(last, _)| *last < after);
        if after < epochs && go_on < left && is_later {
            rungs.push((after, go_on));
            left = go_on;
        }
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What halving costs, as a share of all epochs of all trials.
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
        assert!((cost(60, 16) - 3.0 / 16.0).abs() < 1e-12);
        for epochs in [16, 20, 32, 64] {
            assert!(cost(100, epochs) < 0.2, "{epochs}: {}", cost(100, epochs));
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
