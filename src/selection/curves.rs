//! The score as a function of the layer, of the number of labels, and of the number of trials.

use serde::Serialize;
use toml::Value;

use crate::selection::{
    leaderboard::{Leaderboard, LeaderboardRow, Spread},
    setting::number,
};

/// The setting for the share of the training rows that a head is trained on.
pub(crate) const FRACTION: &str = "fraction";

/// The best head of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerScore {
    /// The layer.
    pub layer: i64,
    /// The best score.
    pub best: f64,
    /// Its interval.
    pub interval: Option<[f64; 2]>,
    /// The mean score of all heads of the layer.
    pub mean: f64,
    /// Number of heads of the layer.
    pub heads: usize,
}

/// The best head of a kind for a share of the training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LearningPoint {
    /// The kind.
    pub kind: String,
    /// The share.
    pub fraction: f64,
    /// Number of rows that the head is trained on; the mean over the folds, rounded.
    pub train_rows: usize,
    /// The best score.
    pub score: f64,
    /// Its interval.
    pub interval: Option<[f64; 2]>,
    /// The spread of that head's scores over seeds.
    pub seed_spread: Option<Spread>,
    /// The spread of that head's scores over folds.
    pub fold_spread: Option<Spread>,
    /// Number of heads of that kind for that share.
    pub heads: usize,
}

/// The setting for the layer that a head reads, `layer` or `layers`, if it has several values.
pub(crate) fn layer_key(leaderboard: &Leaderboard) -> Option<&'static str> {
    let varied = leaderboard.varied();
    ["layer", "layers"].into_iter().find(|key| varied.contains(key))
}

/// The best head of each layer, by layer; empty unless layers were varied. Heads that mix several layers are ignored.
pub(crate) fn layer_profile(leaderboard: &Leaderboard) -> Vec<LayerScore> {
    let Some(key) = layer_key(leaderboard) else {
        return Vec::new();
    };
    let layer = |value: &Value| match value {
        Value::Integer(layer) => Some(*layer),
        Value::Array(layers) => match &layers[..] {
            [Value::Integer(layer)] => Some(*layer),
            _ => None,
        },
        _ => None,
    };
    let groups = groups(leaderboard, |row| layer(row.setting(key)?));
    let profile = groups.into_iter().map(|(layer, heads)| {
        let best = best_head(leaderboard, &heads);
        LayerScore {
            layer,
            best: best.1,
            interval: best.0.interval,
            mean: heads.iter().map(|(_, score)| score).sum::<f64>() / heads.len() as f64,
            heads: heads.len(),
        }
    });
    profile.collect()
}

/// The best head of each kind for each share of the training rows, by share, one kind after the other; empty unless
/// `fraction` was varied.
///
/// Each share has its own best settings: the score that could be reached with that many labels, given the same
/// validation rows.
pub(crate) fn learning_curve(leaderboard: &Leaderboard) -> Vec<LearningPoint> {
    if !leaderboard.varied().contains(&FRACTION) {
        return Vec::new();
    }
    // In the order of the trials: that of the ranks would depend on who won.
    let mut trials: Vec<&LeaderboardRow> = leaderboard.rows.iter().collect();
    trials.sort_by_key(|row| row.trial);
    let mut kinds: Vec<&str> = Vec::new();
    for row in trials {
        if !kinds.contains(&row.kind.as_str()) {
            kinds.push(&row.kind);
        }
    }
    // Positive floats are ordered like their bits.
    let place = |row: &LeaderboardRow| {
        let share = number(row.setting(FRACTION)?)?;
        Some((kinds.iter().position(|kind| *kind == row.kind)?, share.to_bits()))
    };
    let points = groups(leaderboard, place).into_iter().map(|((kind, bits), heads)| {
        let (row, score) = best_head(leaderboard, &heads);
        LearningPoint {
            kind: kinds[kind].to_string(),
            fraction: f64::from_bits(bits),
            train_rows: row.train_rows,
            score,
            interval: row.interval,
            seed_spread: row.seed_spread,
            fold_spread: row.fold_spread,
            heads: heads.len(),
        }
    });
    points.collect()
}

/// The points of a learning curve, kind by kind.
pub(crate) fn by_kind(points: &[LearningPoint]) -> Vec<&[LearningPoint]> {
    points.chunk_by(|one, other| one.kind == other.kind).collect()
}

/// The scores of the trials that are comparable: all that have a score, for the largest share of the training rows if
/// `fraction` was varied.
pub(crate) fn trials(leaderboard: &Leaderboard) -> Vec<f64> {
    let share = |row: &LeaderboardRow| number(row.setting(FRACTION)?);
    let largest = leaderboard.rows.iter().filter_map(share).reduce(f64::max);
    let rows = leaderboard.rows.iter();
    rows.filter(|row| share(row) == largest).filter_map(|row| row.score).collect()
}

/// The expected best score of n = 1, 2, ..., K trials, drawn with replacement from the K that were run.
///
/// With scores sorted from worst to best, `v_(1), ..., v_(K)`: `sum_i v_(i) ((i / K)^n - ((i - 1) / K)^n)`. Dodge,
/// Gururangan, Card, Schwartz and Smith, "Show Your Work: Improved Reporting of Experimental Results", 2019. At n = K
/// it is below the best score seen, which a second sweep may not find again.
///
/// ```
/// use frostbert::internals::selection::curves::expected_best;
///
/// assert_eq!(expected_best(&[0.5, 0.75], true), [0.625, 0.6875]);
/// assert_eq!(expected_best(&[0.5, 0.75], false), [0.625, 0.5625]);
/// ```
pub fn expected_best(scores: &[f64], higher_is_better: bool) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    if !higher_is_better {
        sorted.reverse();
    }
    let n_scores = sorted.len() as f64;
    let expected = |n: usize| -> f64 {
        let mut below = 0.0;
        let terms = sorted.iter().enumerate().map(|(index, score)| {
            let up_to = ((index + 1) as f64 / n_scores).powi(n as i32);
            let chance = up_to - below;
            below = up_to;
            score * chance
        });
        terms.sum()
    };
    (1..=scores.len()).map(expected).collect()
}

/// Heads with their scores.
type ScoredHeads<'a> = Vec<(&'a LeaderboardRow, f64)>;

/// The rows that have a score, grouped by `value`.
fn groups<V: Ord>(
    leaderboard: &Leaderboard,
    value: impl Fn(&LeaderboardRow) -> Option<V>,
) -> std::collections::BTreeMap<V, ScoredHeads<'_>> {
    let mut groups: std::collections::BTreeMap<V, ScoredHeads<'_>> = Default::default();
    for row in &leaderboard.rows {
        if let (Some(value), Some(score)) = (value(row), row.score) {
            groups.entry(value).or_default().push((row, score));
        }
    }
    groups
}

/// The best of some heads (at least one); the first of equal ones.
fn best_head<'a>(
    leaderboard: &Leaderboard,
    heads: &[(&'a LeaderboardRow, f64)],
) -> (&'a LeaderboardRow, f64) {
    heads[1..].iter().fold(heads[0], |best, head| {
        if leaderboard.metric.is_better(head.1, best.1) { *head } else { best }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::leaderboard::tests::board;

    #[test]
    fn the_layer_profile_has_the_best_and_the_mean_of_every_single_layer() {
        let one = |layer: i64| Value::Array(vec![layer.into()]);
        let board = board(
            &["layers"],
            &[
                (&[one(10)], 0.5),
                (&[one(2)], 0.25),
                (&[one(10)], 0.75),
                (&[Value::Array(vec![2.into(), 10.into()])], 1.0),
            ],
        );
        let profile: Vec<_> = layer_profile(&board)
            .iter()
            .map(|layer| (layer.layer, layer.best, layer.mean, layer.heads))
            .collect();
        assert_eq!(profile, [(2, 0.25, 0.25, 1), (10, 0.75, 0.625, 2)]);
    }

    #[test]
    fn the_learning_curve_has_the_best_head_of_each_share_and_trials_are_those_of_the_largest() {
        let mut board = board(
            &["fraction", "lr"],
            &[
                (&[1.0.into(), 0.1.into()], 0.5),
                (&[0.1.into(), 0.1.into()], 0.25),
                (&[1.0.into(), 0.2.into()], 0.625),
                (&[0.1.into(), 0.2.into()], 0.375),
            ],
        );
        let curve = |board: &Leaderboard| -> Vec<(f64, f64)> {
            let points = learning_curve(board).into_iter();
            points.map(|point| (point.fraction, point.score)).collect()
        };
        assert_eq!(curve(&board), [(0.1, 0.375), (1.0, 0.625)]);
        assert_eq!(trials(&board), [0.625, 0.5]);
        board.metric = crate::metrics::metric::Metric::Mse;
        assert_eq!(curve(&board), [(0.1, 0.25), (1.0, 0.5)]);
    }

    #[test]
    fn every_kind_has_a_learning_curve_of_its_own_in_the_order_of_the_trials() {
        let board = board(
            &["fraction", "kind", "lr"],
            &[
                (&[1.0.into(), "ridge".into(), 1.into()], 0.5),
                (&[0.1.into(), "ridge".into(), 1.into()], 0.25),
                (&[1.0.into(), "mlp".into(), 1.into()], 0.625),
                (&[0.1.into(), "mlp".into(), 1.into()], 0.125),
                (&[0.1.into(), "mlp".into(), 2.into()], 0.375),
            ],
        );
        let curve = learning_curve(&board);
        let points = curve.iter().map(|point| {
            (point.kind.as_str(), point.fraction, point.train_rows, point.score, point.heads)
        });
        let expected = [
            ("ridge", 0.1, 100, 0.25, 1),
            ("ridge", 1.0, 1000, 0.5, 1),
            ("mlp", 0.1, 100, 0.375, 2),
            ("mlp", 1.0, 1000, 0.625, 1),
        ];
        assert_eq!(points.collect::<Vec<_>>(), expected);
        let kinds: Vec<usize> = by_kind(&curve).iter().map(|points| points.len()).collect();
        assert_eq!(kinds, [2, 2]);
        assert!(by_kind(&[]).is_empty());
    }

    #[test]
    fn what_was_not_varied_has_no_curve() {
        let board = board(&["lr"], &[(&[0.1.into()], 0.5), (&[0.2.into()], 0.6)]);
        assert_eq!(layer_profile(&board), []);
        assert_eq!(learning_curve(&board), []);
        assert_eq!(trials(&board).len(), 2);
        assert!(expected_best(&[], true).is_empty());
    }
}
