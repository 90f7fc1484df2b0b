//! The values of metrics on some rows.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::metric::Metric;

/// The suffix that turns the name of a metric into that of its interval.
const INTERVAL_SUFFIX: &str = "_ci";

/// The value of a metric on some rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The metric.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
    /// The 95 % interval `[low, high]` of the value; see [`intervals`](super::intervals).
    pub interval: Option<[f64; 2]>,
}

/// The values of the metrics that are defined on some rows, in the order in which they are written.
///
/// In JSON this is an object: each value under the name of its metric, followed by the interval `<name>_ci` if it has
/// one.
///
/// ```
/// use frostbert::internals::metrics::metric::Metric;
/// use frostbert::internals::metrics::scores::Scores;
///
/// let scores = Scores::new(
///     [Metric::Mse, Metric::Pearson, Metric::Mae],
///     [Some(0.5), None, Some(0.25)],
///     [Some([0.25, 1.0]), None, None],
/// );
/// assert_eq!(scores.value(Metric::Mae), Some(0.25));
/// let json = serde_json::to_string(&scores)?;
/// assert_eq!(json, r#"{"mse":0.5,"mse_ci":[0.25,1.0],"mae":0.25}"#);
/// assert_eq!(serde_json::from_str::<Scores>(&json)?, scores);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores(Vec<Score>);

impl Scores {
    /// The values and intervals of some metrics, in order; a metric without a value is omitted.
    pub fn new<const N: usize>(
        metrics: [Metric; N],
        values: [Option<f64>; N],
        intervals: [Option<[f64; 2]>; N],
    ) -> Scores {
        let scores = metrics.into_iter().zip(values).zip(intervals);
        let score = |((metric, value), interval): ((Metric, Option<f64>), _)| {
            Some(Score { metric, value: value?, interval })
        };
        Scores(scores.filter_map(score).collect())
    }

    /// The score of a metric, if it is defined.
    pub fn get(&self, metric: Metric) -> Option<&Score> {
        self.0.iter().find(|score| score.metric == metric)
    }

    /// All of them, in the order in which they are written.
    pub fn iter(&self) -> impl Iterator<Item = &Score> {
        self.0.iter()
    }

    /// The value of a metric, if it is defined.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.get(metric).map(|score| score.value)
    }

    /// The interval of a metric, if it has one.
    pub fn interval(&self, metric: Metric) -> Option<[f64; 2]> {
        self.get(metric)?.interval
    }

    /// The values of those `metrics` that are defined, in the given order.
    pub fn values(&self, metrics: &[Metric]) -> Vec<(Metric, f64)> {
        metrics.iter().filter_map(|metric| Some((*metric, self.value(*metric)?))).collect()
    }

    /// The scores of the metrics for which `keeps` is true.
    pub fn only(mut self, keeps: impl Fn(Metric) -> bool) -> Scores {
        self.0.retain(|score| keeps(score.metric));
        self
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for Score { metric, value, interval } in &self.0 {
            map.serialize_entry(metric.name(), value)?;
            if let Some(interval) = interval {
                map.serialize_entry(&format!("{metric}{INTERVAL_SUFFIX}"), interval)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Scores {
    /// Skips keys that are neither a metric nor an interval; they belong to the details next to the scores.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scores, D::Error> {
        deserializer.deserialize_map(ScoresVisitor)
    }
}

struct ScoresVisitor;

impl<'de> Visitor<'de> for ScoresVisitor {
    type Value = Scores;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metrics by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
        let mut scores = Scores::default();
        let mut intervals: Vec<(Metric, [f64; 2])> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let of_interval = key.strip_suffix(INTERVAL_SUFFIX).and_then(Metric::named);
            if let Some(metric) = of_interval {
                intervals.push((metric, map.next_value()?));
            } else if let Some(metric) = Metric::named(&key) {
                let value: Option<f64> = map.next_value()?;
                scores.0.extend(value.map(|value| Score { metric, value, interval: None }));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        for score in &mut scores.0 {
            let mut own = intervals.iter().filter(|(metric, _)| *metric == score.metric);
            score.interval = own.next().map(|(_, interval)| *interval);
        }
        Ok(scores)
    }
}
