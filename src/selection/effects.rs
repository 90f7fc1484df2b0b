//! The effect of each setting on the score, marginalised over the others.

use serde::Serialize;
use toml::Value;

use crate::{
    config::settings::show,
    selection::{
        leaderboard::Leaderboard,
        setting::{distinct, number},
    },
};

/// Maximum number of bins for the values of a distribution.
pub(crate) const MOST_BINS: usize = 5;

/// The effect of a setting, value by value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The setting.
    pub key: String,
    /// Numbers in ascending order, other values in the order of the trials' ranks.
    pub values: Vec<ValueEffect>,
}

impl Effect {
    /// The difference between the highest and the lowest mean of the values.
    pub fn range(&self) -> f64 {
        let means = self.values.iter().filter_map(|value| value.mean);
        let highest = means.clone().fold(f64::NEG_INFINITY, f64::max);
        (highest - means.fold(f64::INFINITY, f64::min)).max(0.0)
    }
}

/// The heads that have one value of a setting, or a value in one bin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueEffect {
    /// The value, or the lowest and the highest one of the bin as in `0.0003 to 0.0012`, to three digits.
    pub value: String,
    /// Number of these heads, without those that diverged.
    pub heads: usize,
    /// Number of heads that diverged, with some seed or on some fold; their scores say nothing about the value.
    pub diverged: usize,
    /// Mean score of the others; `None` if there are none.
    pub mean: Option<f64>,
    /// Median of these scores.
    pub median: Option<f64>,
    /// The best of these scores.
    pub best: Option<f64>,
}

/// A head's value of a setting, and its score; `None` if it diverged.
type ScoredValue<'a> = (&'a Value, Option<f64>);

/// The marginal table of every setting that has several values: the heads with a score, grouped by the value. Heads
/// that diverged are counted but not averaged.
///
/// Settings named in `continuous` are divided into up to [`MOST_BINS`] bins with numbers of heads as equal as ties
/// between values allow. The table is fair if every value is combined with the same values of the other settings, as in
/// a grid; in a random search this holds on average, and with halving most of the bad heads were trained for fewer
/// epochs.
pub(crate) fn effects(leaderboard: &Leaderboard, continuous: &[String]) -> Vec<Effect> {
    let varied = leaderboard.varied().into_iter();
    let effect = |key: &str| {
        let scored: Vec<ScoredValue<'_>> = leaderboard
            .rows
            .iter()
            .filter_map(|row| {
                let value = row.setting(key)?;
                match row.diverged {
                    0 => Some((value, Some(row.score?))),
                    _ => Some((value, None)),
                }
            })
            .collect();
        let is_continuous = continuous.iter().any(|name| name == key)
            && scored.iter().all(|(value, _)| number(value).is_some());
        let groups = if is_continuous { bins(&scored) } else { by_value(&scored) };
        Effect {
            key: key.to_string(),
            values: groups
                .into_iter()
                .map(|(value, scores)| summarise(leaderboard, value, scores))
                .collect(),
        }
    };
    varied.map(effect).collect()
}

fn by_value(scored: &[ScoredValue<'_>]) -> Vec<(String, Vec<Option<f64>>)> {
    let values = distinct(scored.iter().map(|(value, _)| *value));
    let scores_of = |value: &Value| {
        let own = scored.iter().filter(|(other, _)| *other == value);
        own.map(|(_, score)| *score).collect()
    };
    values.into_iter().map(|value| (show(value), scores_of(value))).collect()
}

/// Divides the values at their quantiles, but never between equal values.
fn bins(scored: &[ScoredValue<'_>]) -> Vec<(String, Vec<Option<f64>>)> {
    let mut sorted: Vec<(f64, Option<f64>)> =
        scored.iter().filter_map(|(value, score)| Some((number(value)?, *score))).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut bins = Vec::new();
    let mut start = 0;
    for bin in 1..=MOST_BINS {
        let mut end = (sorted.len() * bin).div_ceil(MOST_BINS).max(start);
        while end > start && end < sorted.len() && sorted[end].0 == sorted[end - 1].0 {
            end += 1;
        }
        let own = &sorted[start..end];
        if let ([(low, _), ..], [.., (high, _)]) = (own, own) {
            let label = if low == high {
                three_digits(*low)
            } else {
                format!("{} to {}", three_digits(*low), three_digits(*high))
            };
            bins.push((label, own.iter().map(|(_, score)| *score).collect()));
        }
        start = end;
    }
    bins
}

/// Formats a number with three significant digits, without trailing zeros.
fn three_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    rounded.to_string()
}

fn summarise(leaderboard: &Leaderboard, value: String, all: Vec<Option<f64>>) -> ValueEffect {
    let mut scores: Vec<f64> = all.iter().copied().flatten().collect();
    scores.sort_by(f64::total_cmp);
    let heads = scores.len();
    let is_there = heads > 0;
    ValueEffect {
        value,
        heads,
        diverged: all.len() - heads,
        mean: is_there.then(|| scores.iter().sum::<f64>() / heads as f64),
        median: is_there.then(|| scores[(heads - 1) / 2].midpoint(scores[heads / 2])),
        best: leaderboard.best(scores.into_iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::leaderboard::tests::board;

    #[test]
    fn a_setting_is_summarised_value_by_value_whatever_the_others_are() {
        let board = board(
            &["lr", "pooling"],
            &[
                (&[0.1.into(), "mean".into()], 0.5),
                (&[0.1.into(), "cls".into()], 0.25),
                (&[0.01.into(), "mean".into()], 1.0),
                (&[0.01.into(), "cls".into()], 0.5),
                (&[0.1.into(), "max".into()], 0.75),
            ],
        );
        let effects = effects(&board, &[]);
        let [lr, pooling] = &effects[..] else {
            panic!("{effects:?}");
        };
        let row = |value: &str, heads, mean, median, best| ValueEffect {
            value: value.into(),
            heads,
            diverged: 0,
            mean: Some(mean),
            median: Some(median),
            best: Some(best),
        };
        assert_eq!(lr.values, [row("0.01", 2, 0.75, 0.75, 1.0), row("0.1", 3, 0.5, 0.5, 0.75)]);
        assert_eq!(lr.range(), 0.25);
        assert_eq!(pooling.values[0], row("mean", 2, 0.75, 0.75, 1.0));
        assert_eq!(pooling.values.len(), 3);
    }

    #[test]
    fn where_less_is_better_the_best_is_the_least() {
        let mut board =
            board(&["lr"], &[(&[1.into()], 0.5), (&[1.into()], 0.25), (&[2.into()], 1.0)]);
        board.metric = crate::metrics::metric::Metric::Mse;
        assert_eq!(effects(&board, &[])[0].values[0].best, Some(0.25));
    }

    #[test]
    fn heads_that_diverged_are_counted_and_not_averaged() {
        let mut board = board(
            &["lr"],
            &[
                (&[0.1.into()], 0.75),
                (&[0.1.into()], 0.25),
                (&[0.1.into()], 0.5),
                (&[9.0.into()], 0.125),
            ],
        );
        for row in &mut board.rows {
            row.diverged = usize::from(row.score < Some(0.5));
        }
        let effects = effects(&board, &[]);
        let [low, high] = &effects[0].values[..] else {
            panic!("{effects:?}");
        };
        assert_eq!((low.heads, low.diverged), (2, 1));
        assert_eq!([low.mean, low.best], [Some(0.625), Some(0.75)]);
        assert_eq!((high.heads, high.diverged, high.mean), (0, 1, None));
        assert_eq!(effects[0].range(), 0.0);
    }

    #[test]
    fn a_setting_with_one_value_has_no_effect() {
        let board = board(&["lr"], &[(&[0.1.into()], 0.5), (&[0.1.into()], 0.6)]);
        assert_eq!(effects(&board, &[]), []);
    }

    #[test]
    fn values_of_a_distribution_are_cut_into_bins_of_equal_size() {
        let settings: Vec<[Value; 1]> = (0..12).map(|i| [(f64::from(i) / 7.0).into()]).collect();
        let trials: Vec<(&[Value], f64)> = settings
            .iter()
            .zip([5.0; 12])
            .map(|(settings, score)| (&settings[..], score))
            .collect();
        let effects = effects(&board(&["dropout"], &trials), &["dropout".into()]);
        let bins: Vec<(&str, usize)> =
            effects[0].values.iter().map(|bin| (bin.value.as_str(), bin.heads)).collect();
        let expected = [
            ("0 to 0.286", 3),
            ("0.429 to 0.571", 2),
            ("0.714 to 1", 3),
            ("1.14 to 1.29", 2),
            ("1.43 to 1.57", 2),
        ];
        assert_eq!(bins, expected);
    }

    #[test]
    fn equal_values_share_a_bin() {
        let settings: Vec<[Value; 1]> = [1, 1, 1, 1, 1, 2, 3, 3].map(|i| [i.into()]).to_vec();
        let trials: Vec<(&[Value], f64)> =
            settings.iter().map(|settings| (&settings[..], 0.5)).collect();
        let effects = effects(&board(&["hidden"], &trials), &["hidden".into()]);
        let bins: Vec<(&str, usize)> =
            effects[0].values.iter().map(|bin| (bin.value.as_str(), bin.heads)).collect();
        assert_eq!(bins, [("1", 5), ("2 to 3", 3)]);
    }
}
