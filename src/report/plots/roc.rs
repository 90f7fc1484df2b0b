//! How many rows of one class are found, and how many of the other are taken for it.

use plotters::prelude::SeriesLabelPosition;

use super::{class_name, share_axis};
use crate::{
    metrics::probability_curves::{RocCurve, RocPoint},
    report::chart::{BLUE, Chart, ChartFrame, Curve, GREY},
};

/// The ROC curve of the second of two classes; `what` says of which rows.
pub(crate) fn roc(curve: &RocCurve, labels: &[String], what: &str) -> String {
    let guessing = Curve::new("guessing", GREY, vec![(0.0, 0.0), (1.0, 1.0)]);
    let name = format!("{}, area {:.3}", class_name(labels, 1), curve.area);
    let place = |point: &RocPoint| (point.false_positives, point.true_positives);
    let points = curve.points.iter().map(place).collect();
    let chart = Chart {
        title: format!("ROC on {what}"),
        x_label: "share of the others that are taken for it".into(),
        y_label: "share that is found".into(),
        x: share_axis(),
        y: Some(0.0..1.02),
        mark: None,
        curves: vec![
            Curve { has_dots: false, ..guessing },
            Curve { has_dots: false, ..Curve::new(name, BLUE, points) },
        ],
        legend: Some(SeriesLabelPosition::LowerRight),
    };
    chart.draw(ChartFrame::FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::probability_curves::roc as curve_of;

    #[test]
    fn a_roc_curve_is_named_after_its_class_with_its_area() {
        let labels = ["ham".to_string(), "<b>".to_string()];
        let curve = curve_of(vec![(0.75, true), (0.5, false), (0.25, true)]).unwrap();
        let svg = roc(&curve, &labels, "test");
        assert!(svg.contains("&lt;b&gt;, area 0.500") && svg.contains("ROC on test"), "{svg}");
        assert!(svg.contains("guessing") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
