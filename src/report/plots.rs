//! Pictures of a run and of a sweep, as SVG: equal numbers give equal bytes.

pub(crate) mod confusion;
pub(crate) mod heat_map;
pub(crate) mod history;
pub(crate) mod methods;
pub(crate) mod precision_recall;
pub(crate) mod reliability;
pub(crate) mod roc;

use frostbert_cache::wording::shorten;
use plotters::style::RGBColor;

use super::chart::{Axis, BLUE, Chart, Curve, GREY, ORANGE, even_ticks, one_two_five};
use crate::{
    metrics::metric::Metric,
    selection::curves::{LayerScore, LearningPoint, by_kind},
};

const TITLE_SIZE: i32 = 22;
const TEXT_SIZE: i32 = 17;

/// The colors of kinds of head, in turn.
const KIND_COLORS: [RGBColor; 8] = [
    BLUE,
    ORANGE,
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0xc0, 0x39, 0x2b),
    RGBColor(0x7d, 0x4f, 0xa1),
    RGBColor(0x17, 0xa2, 0xb8),
    RGBColor(0x8c, 0x5a, 0x2b),
    GREY,
];

/// Characters of a class's name at most.
const MOST_CHARACTERS: usize = 24;

/// Numbers that find room along an axis.
const MOST_TICKS: usize = 26;

/// Plots the best and the mean score of each layer, with an interval for the best one.
pub(crate) fn layer_profile(layers: &[LayerScore], metric: Metric) -> Chart {
    let points = |score: fn(&LayerScore) -> f64| {
        let layers = layers.iter();
        layers.map(|layer| (layer.layer as f64, score(layer))).collect()
    };
    let interval = |layer: &LayerScore| Some((layer.layer as f64, layer.interval?));
    let best = Curve {
        bars: layers.iter().filter_map(interval).collect(),
        ..Curve::new("best head, 95 % interval", BLUE, points(|layer| layer.best))
    };
    let mean = Curve::new("mean of all heads", GREY, points(|layer| layer.mean));
    let ends = layers.iter().map(|layer| layer.layer as f64);
    let lowest = ends.clone().fold(f64::INFINITY, f64::min);
    let highest = ends.fold(f64::NEG_INFINITY, f64::max);
    // If no layer has more than one head, the line of the means would hide that of the best.
    let has_means = layers.iter().any(|layer| layer.heads > 1);
    Chart {
        title: "Layer profile".into(),
        x_label: "layer".into(),
        y_label: format!("validation {metric}"),
        x: Axis {
            range: lowest - 0.5..highest + 0.5,
            is_logarithmic: false,
            ticks: layers
                .iter()
                .step_by(layers.len().div_ceil(MOST_TICKS))
                .map(|layer| layer.layer as f64)
                .collect(),
        },
        y: None,
        mark: None,
        curves: if has_means { vec![mean, best] } else { vec![best] },
        legend: None,
    }
}

/// Plots the expected best score by the number of trials.
pub(crate) fn expected_best(expected: &[f64], metric: Metric) -> Chart {
    let points = expected.iter().enumerate();
    let points = points.map(|(index, score)| ((index + 1) as f64, *score));
    let curve = Curve { has_dots: expected.len() <= 30, ..Curve::new("", BLUE, points.collect()) };
    let range = 1.0..expected.len() as f64;
    let is_wide = expected.len() > 20;
    Chart {
        title: "Expected best score".into(),
        x_label: "trials".into(),
        y_label: format!("validation {metric}"),
        x: Axis {
            is_logarithmic: is_wide,
            ticks: if is_wide {
                one_two_five(&range)
            } else {
                (1..=expected.len()).map(|n| n as f64).collect()
            },
            range,
        },
        y: None,
        mark: None,
        curves: vec![curve],
        legend: None,
    }
}

/// The best score by the share of the training rows, its interval as a band, and the spread over seeds, or else over folds, as
/// bars of one standard deviation to either side. Several kinds of head have a curve each, by the number of training
/// rows.
pub(crate) fn learning_curve(points: &[LearningPoint], metric: Metric) -> Chart {
    let kinds = by_kind(points);
    if kinds.len() > 1 {
        return learning_curves_of_kinds(&kinds, metric);
    }
    let by_seed = points.iter().any(|point| point.seed_spread.is_some());
    let bar = |point: &LearningPoint| {
        let spread = if by_seed { point.seed_spread? } else { point.fold_spread? };
        let ends = [point.score - spread.std, point.score + spread.std];
        Some((point.fraction, ends))
    };
    let bars: Vec<_> = points.iter().filter_map(bar).collect();
    let curve = Curve {
        band: points.iter().filter_map(|point| Some((point.fraction, point.interval?))).collect(),
        ..Curve::new(
            match (bars.is_empty(), by_seed) {
                (true, _) => "best head, 95 % interval",
                (false, true) => "best head, 95 % interval, std over seeds",
                (false, false) => "best head, 95 % interval, std over folds",
            },
            BLUE,
            points.iter().map(|point| (point.fraction, point.score)).collect(),
        )
    };
    let lowest = points.iter().map(|point| point.fraction);
    let lowest = lowest.fold(1.0, f64::min);
    let is_wide = lowest < 0.05;
    let range = if is_wide { lowest..1.0 } else { 0.0..1.0 };
    Chart {
        title: "Learning curve".into(),
        x_label: "share of the training rows".into(),
        y_label: format!("validation {metric}"),
        x: Axis {
            is_logarithmic: is_wide,
            ticks: if is_wide {
                one_two_five(&range)
            } else {
                (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect()
            },
            range,
        },
        y: None,
        mark: None,
        curves: vec![Curve { bars, ..curve }],
        legend: None,
    }
}

/// The best score of each kind of head by the number of training rows, its interval as a band.
fn learning_curves_of_kinds(kinds: &[&[LearningPoint]], metric: Metric) -> Chart {
    let x = |point: &LearningPoint| point.train_rows as f64;
    let curves = kinds.iter().zip(KIND_COLORS.into_iter().cycle()).map(|(points, color)| {
        let scores = points.iter().map(|point| (x(point), point.score)).collect();
        Curve {
            band: points.iter().filter_map(|point| Some((x(point), point.interval?))).collect(),
            ..Curve::new(&points[0].kind, color, scores)
        }
    });
    let rows = kinds.iter().flat_map(|points| points.iter().map(x));
    let lowest = rows.clone().fold(f64::INFINITY, f64::min);
    let highest = rows.fold(0.0, f64::max);
    let is_wide = highest > 10.0 * lowest;
    let range = if is_wide { lowest..highest } else { 0.0..highest };
    Chart {
        title: "Learning curves: best head of each kind, 95 % interval".into(),
        x_label: "training rows".into(),
        y_label: format!("validation {metric}"),
        x: Axis {
            is_logarithmic: is_wide,
            ticks: if is_wide { one_two_five(&range) } else { even_ticks(highest) },
            range,
        },
        y: None,
        mark: None,
        curves: curves.collect(),
        legend: None,
    }
}

/// The name of a class as it finds room, without what XML cannot hold.
fn class_name(labels: &[String], class: usize) -> String {
    let name = labels.get(class).map_or("", String::as_str);
    shorten(name, MOST_CHARACTERS).replace(['\u{FFFE}', '\u{FFFF}'], "\u{FFFD}")
}

/// The axis of shares, from 0 to 1.
fn share_axis() -> Axis {
    let tenths = (0..=10).map(|tenth| f64::from(tenth) / 10.0);
    Axis { range: 0.0..1.0, is_logarithmic: false, ticks: tenths.collect() }
}

/// `share` of the way from one color to another.
fn blend(from: RGBColor, to: RGBColor, share: f64) -> RGBColor {
    let mix = |from: u8, to: u8| {
        let [from, to] = [from, to].map(f64::from);
        (from + share * (to - from)).round() as u8
    };
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}
