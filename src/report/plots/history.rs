//! The course of a training: losses and the metric that it followed, epoch by epoch.

use super::MOST_TICKS;
use crate::{
    head::trained_head::EpochRecord,
    metrics::metric::Metric,
    report::chart::{
        Axis, BLUE, Chart, ChartFrame, Curve, GREY, ORANGE, draw, legend_position, y_range,
        y_range_with_legend,
    },
};

/// Width, and height of each of the two charts.
const SIZE: (u32, u32) = (760, 400);

/// More epochs than this are lines without dots.
const MOST_DOTS: usize = 40;

/// The losses of every epoch, and below them `followed` on validation where that is known; the epoch that was `kept` is
/// marked.
pub(crate) fn history(history: &[EpochRecord], kept: usize, followed: Metric) -> String {
    let points = |value: &dyn Fn(&EpochRecord) -> Option<f64>| -> Vec<(f64, f64)> {
        let epochs = history.iter().filter_map(|epoch| Some((epoch.epoch as f64, value(epoch)?)));
        epochs.filter(|(_, value)| value.is_finite()).collect()
    };
    let train = Curve::new("train", GREY, points(&|epoch| Some(epoch.train_loss)));
    let validation = Curve::new("validation", BLUE, points(&|epoch| epoch.validation_loss));
    let metric = match followed {
        Metric::Loss => Vec::new(),
        _ => points(&|epoch| epoch.score(followed)),
    };
    let losses = [train, validation].into_iter().filter(|curve| !curve.points.is_empty());
    let metric_label = format!("validation {followed}");
    let mut charts = vec![chart("Loss", "mean loss", losses.collect(), history, kept)];
    if !metric.is_empty() {
        let curve = Curve::new(metric_label.clone(), BLUE, metric);
        charts.push(chart("Metric", &metric_label, vec![curve], history, kept));
    }
    draw((SIZE.0, SIZE.1 * charts.len() as u32), |area| {
        let panels = area.split_evenly((charts.len(), 1));
        panels
            .iter()
            .zip(&charts)
            .try_for_each(|(panel, chart)| chart.paint(panel, ChartFrame::FILE))
    })
}

/// Curves over epochs, with a line at the one that was kept.
fn chart(
    title: &str,
    y_label: &str,
    mut curves: Vec<Curve>,
    history: &[EpochRecord],
    kept: usize,
) -> Chart {
    for curve in &mut curves {
        curve.has_dots = history.len() <= MOST_DOTS;
    }
    let y = y_range_with_legend(&curves, ChartFrame::FILE);
    let legend = Some(legend_position(&curves, y_range(&curves)));
    if history.iter().any(|epoch| epoch.epoch == kept) {
        let line = [y.start, y.end].map(|end| (kept as f64, end)).to_vec();
        let marker = Curve::new(format!("epoch {kept}, kept"), ORANGE, line);
        curves.push(Curve { has_dots: false, ..marker });
    }
    let epochs = || history.iter().map(|epoch| epoch.epoch as f64);
    let first = epochs().fold(f64::INFINITY, f64::min);
    let last = epochs().fold(f64::NEG_INFINITY, f64::max);
    Chart {
        title: title.into(),
        x_label: "epoch".into(),
        y_label: y_label.into(),
        x: Axis {
            range: first - 0.5..last + 0.5,
            is_logarithmic: false,
            ticks: epochs().step_by(history.len().div_ceil(MOST_TICKS)).collect(),
        },
        y: Some(y),
        mark: None,
        curves,
        legend,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(n: usize) -> Vec<EpochRecord> {
        let epoch = |epoch: usize| EpochRecord {
            epoch,
            lr: 1e-3,
            train_loss: 1.0 / epoch as f64,
            validation_loss: Some(0.5),
            scores: vec![(Metric::MacroF1, 0.5 + 0.01 * epoch as f64)],
        };
        (1..=n).map(epoch).collect()
    }

    #[test]
    fn losses_and_the_metric_are_drawn_with_the_kept_epoch() {
        let svg = history(&epochs(12), 7, Metric::MacroF1);
        for text in ["Loss", "train", "validation macro_f1", "epoch 7, kept"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg, history(&epochs(12), 7, Metric::MacroF1));
        // Early stopping that follows the loss has nothing else to show.
        let svg = history(&epochs(12), 7, Metric::Loss);
        assert!(svg.contains("epoch 7, kept") && !svg.contains("macro_f1"));
    }

    #[test]
    fn one_epoch_and_many_without_validation_are_drawn() {
        assert!(history(&epochs(1), 1, Metric::MacroF1).ends_with("</svg>\n"));
        let mut long = epochs(400);
        for epoch in &mut long {
            epoch.validation_loss = None;
            epoch.scores.clear();
        }
        let svg = history(&long, 400, Metric::MacroF1);
        assert!(!svg.contains("validation") && !svg.contains("<circle"));
    }
}
