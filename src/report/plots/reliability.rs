//! How far a head's confidence can be believed: a reliability diagram, over how many rows have which confidence.

use plotters::prelude::*;

use super::share_axis;
use crate::{
    metrics::probability_curves::ReliabilityBin,
    report::chart::{BLUE, Chart, ChartFrame, Curve, GREY, draw},
};

/// Width, and the heights of the diagram and of the counts below it.
const SIZE: (u32, [u32; 2]) = (640, [480, 260]);

/// The share of right decisions against their probability, bin by bin, with the expected calibration error where that
/// is known; `what` says of which rows.
pub(crate) fn reliability(bins: &[ReliabilityBin], ece: Option<f64>, what: &str) -> String {
    let ece = ece.map(|ece| format!(", expected calibration error {ece:.3}"));
    let points = bins.iter().map(|bin| (bin.predicted, bin.observed)).collect();
    let ideal = Curve::new("perfectly calibrated", GREY, vec![(0.0, 0.0), (1.0, 1.0)]);
    let diagram = Chart {
        title: format!("Reliability on {what}"),
        x_label: "mean probability".into(),
        y_label: "observed frequency".into(),
        x: share_axis(),
        y: Some(0.0..1.02),
        mark: None,
        curves: vec![
            Curve { has_dots: false, ..ideal },
            Curve::new(format!("head{}", ece.unwrap_or_default()), BLUE, points),
        ],
        legend: Some(SeriesLabelPosition::UpperLeft),
    };
    let corners = |bin: &ReliabilityBin| {
        let ([low, high], count) = (bin.range, bin.count as f64);
        [(low, 0.0), (low, count), (high, count), (high, 0.0)]
    };
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    let outline: Vec<(f64, f64)> = bins.iter().flat_map(corners).collect();
    let counts = Curve {
        band: outline.iter().map(|(x, y)| (*x, [0.0, *y])).collect(),
        has_dots: false,
        ..Curve::new("", BLUE, outline)
    };
    let histogram = Chart {
        title: "How many there are of each".into(),
        x_label: "probability".into(),
        y_label: "number".into(),
        x: share_axis(),
        y: Some(0.0..(1.1 * most as f64).max(11.0)),
        mark: None,
        curves: vec![counts],
        legend: None,
    };
    let (width, [upper, lower]) = SIZE;
    draw((width, upper + lower), |area| {
        let (top, bottom) = area.split_vertically(upper);
        diagram.paint(&top, ChartFrame::FILE)?;
        histogram.paint(&bottom, ChartFrame::FILE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::probability_curves::reliability as bins_of;

    #[test]
    fn a_reliability_diagram_shows_bins_and_calibration_error() {
        let decisions = (0..200).map(|row| (row as f32 / 200.0, row % 3 == 0));
        let svg = reliability(&bins_of(decisions), Some(0.25), "test");
        assert!(svg.contains("Reliability on test") && svg.contains("calibration error 0.250"));
        assert_eq!(svg.matches("<circle").count(), 15);
        let one = reliability(&bins_of([(1.0, true)].into_iter()), None, "validation");
        assert!(one.ends_with("</svg>\n") && !one.contains("NaN"), "{one}");
    }
}
