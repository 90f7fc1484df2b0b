//! What methods score, by what they take.

use super::KIND_COLORS;
use crate::{
    metrics::metric::Metric,
    report::{
        chart::{Axis, Chart, Curve, one_two_five},
        methods::ComparedMethod,
    },
};

/// More numbers than this along the axis would stand in each other's way.
const MOST_COST_TICKS: usize = 7;

/// The least cost that is drawn: the axis is logarithmic.
const LEAST_COST: f64 = 1e-4;

/// The score of each method with its interval, over what it takes on a logarithmic axis; `None` if no method has both.
/// `name` gives the name of a method as it is shown.
pub(crate) fn score_by_cost(
    methods: &[ComparedMethod],
    metric: Metric,
    (label, cost): (&str, impl Fn(&ComparedMethod) -> Option<f64>),
    name: impl Fn(&ComparedMethod) -> String,
) -> Option<Chart> {
    let mut curves = Vec::new();
    let mut costs = Vec::new();
    for (method, color) in methods.iter().zip(KIND_COLORS.into_iter().cycle()) {
        let (Some(score), Some(cost)) = (method.value, cost(method)) else { continue };
        let cost = cost.max(LEAST_COST);
        let bars = method.interval.map(|ends| (cost, ends));
        costs.push(cost);
        curves.push(Curve {
            bars: bars.into_iter().collect(),
            ..Curve::new(name(method), color, vec![(cost, score)])
        });
    }
    let lowest = costs.iter().copied().reduce(f64::min)?;
    let highest = costs.iter().copied().fold(lowest, f64::max);
    let range = lowest / 1.5..highest * 1.5;
    let mut ticks = one_two_five(&range);
    if ticks.len() > MOST_COST_TICKS {
        ticks.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-6);
    }
    Some(Chart {
        title: format!("{} by {label}", metric.in_words()),
        x_label: label.into(),
        y_label: format!("test {metric}"),
        x: Axis { range, is_logarithmic: true, ticks },
        y: None,
        mark: None,
        curves,
        legend: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{chart::ChartFrame, methods::tests::method};

    #[test]
    fn methods_with_a_score_and_a_cost_are_drawn_and_others_are_not() {
        let methods = [
            method("<one>", Some(0.7), 0.0),
            method("two", Some(0.8), 90.0),
            method("three", None, 1.0),
        ];
        let seconds = |method: &ComparedMethod| Some(method.seconds);
        let named = |method: &ComparedMethod| method.title.clone();
        let chart = score_by_cost(&methods, Metric::Accuracy, ("seconds", seconds), named).unwrap();
        assert_eq!(chart.curves.len(), 2);
        assert!(chart.x.ticks.len() <= MOST_COST_TICKS, "{:?}", chart.x.ticks);
        let svg = chart.draw(ChartFrame::PAGE);
        assert!(svg.contains("&lt;one&gt;") && !svg.contains("three"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let nothing = |_: &ComparedMethod| None;
        assert!(score_by_cost(&methods, Metric::Accuracy, ("x", nothing), named).is_none());
    }
}
