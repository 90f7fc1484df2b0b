//! What each recall costs in precision, class by class.

use plotters::prelude::*;

use super::{class_name, share_axis};
use crate::{
    metrics::probability_curves::PrecisionRecall,
    report::chart::{Chart, ChartFrame, Curve},
};

/// The colours of classes, in their order.
const COLORS: [RGBColor; 10] = [
    RGBColor(0x1f, 0x5f, 0xa8),
    RGBColor(0xe0, 0x7b, 0x00),
    RGBColor(0x2a, 0x8c, 0x3c),
    RGBColor(0xc2, 0x2f, 0x2f),
    RGBColor(0x7b, 0x52, 0xab),
    RGBColor(0x7f, 0x55, 0x3d),
    RGBColor(0xd1, 0x5c, 0xa8),
    RGBColor(0x70, 0x70, 0x70),
    RGBColor(0x9a, 0x9a, 0x12),
    RGBColor(0x12, 0x9a, 0xa8),
];

/// A curve for each class with its average precision, or one for all decisions together; `what` says of which rows.
pub(crate) fn precision_recall(
    curves: &[PrecisionRecall],
    labels: &[String],
    what: &str,
) -> String {
    let curve = |(number, curve): (usize, &PrecisionRecall)| {
        let name = match curve.class {
            Some(class) => class_name(labels, class),
            None => format!("all {} classes together", labels.len()),
        };
        let name = format!("{name}, average precision {:.3}", curve.average_precision);
        let color = COLORS[curve.class.unwrap_or(number) % COLORS.len()];
        // A class of one row has one point.
        let has_dots = curve.points.len() == 1;
        Curve { has_dots, ..Curve::new(name, color, curve.points.clone()) }
    };
    let chart = Chart {
        title: format!("Precision and recall on {what}"),
        x_label: "recall".into(),
        y_label: "precision".into(),
        x: share_axis(),
        y: Some(0.0..1.02),
        mark: None,
        curves: curves.iter().enumerate().map(curve).collect(),
        legend: Some(SeriesLabelPosition::LowerLeft),
    };
    chart.draw(ChartFrame::FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::probability_curves::precision_recall as curves_of;

    #[test]
    fn classes_have_curves_of_their_own_and_names_are_escaped() {
        let labels = ["<b>".to_string(), "a & b".to_string()];
        let curves = curves_of((50, 2), |row, class| (row as f32 / 50.0, row % 2 == class));
        let svg = precision_recall(&curves, &labels, "test");
        assert!(svg.contains("&lt;b&gt;, average precision 0."), "{svg}");
        assert!(svg.contains("a &amp; b, average precision 0.") && !svg.contains("<b>"));
        let together = curves_of((50, 12), |row, class| (0.5, row % 12 == class));
        let labels: Vec<String> = (0..12).map(|class| class.to_string()).collect();
        let svg = precision_recall(&together, &labels, "test");
        assert!(svg.contains("all 12 classes together, average precision 0.083"), "{svg}");
    }
}
