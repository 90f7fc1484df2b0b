//! Pictures of a run and of a sweep, as SVG: equal numbers give equal bytes.

pub(crate) mod confusion;
pub(crate) mod heat_map;
pub(crate) mod history;
pub(crate) mod precision_recall;
pub(crate) mod reliability;

use std::ops::Range;

use frostbert_cache::wording::shorten;
use plotters::{
    coord::{
        Shift,
        ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
        types::RangedCoordf64,
    },
    prelude::*,
};

use crate::{
    metrics::metric::Metric,
    selection::curves::{LayerScore, LearningPoint, by_kind},
};

const FONT: &str = "sans-serif";
const TITLE_SIZE: i32 = 22;
const TEXT_SIZE: i32 = 17;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xe3, 0xe3, 0xe3);
const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const PALE: RGBColor = RGBColor(0xea, 0xf1, 0xf8);
const ORANGE: RGBColor = RGBColor(0xff, 0x9d, 0x2e);
const GREY: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

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

/// Width and height of a chart.
const CHART: (u32, u32) = (760, 460);

/// Characters of a class's name at most.
const MOST_CHARACTERS: usize = 24;

/// Numbers that find room along an axis.
const MOST_TICKS: usize = 26;

/// A line of a chart, with the uncertainty of its points.
struct Curve {
    /// What the legend says; nothing where the axis says it.
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
    /// The interval of each point, as a band under the line; empty if there are no intervals.
    band: Vec<(f64, [f64; 2])>,
    /// The interval of each point, as bars.
    bars: Vec<(f64, [f64; 2])>,
    has_dots: bool,
}

impl Curve {
    fn new(name: impl Into<String>, color: RGBColor, points: Vec<(f64, f64)>) -> Curve {
        let (band, bars) = (Vec::new(), Vec::new());
        Curve { name: name.into(), color, points, band, bars, has_dots: true }
    }
}

struct Chart<'a> {
    title: &'a str,
    x_label: &'a str,
    y_label: &'a str,
    x: Axis,
    /// From the bottom to the top; what is drawn, with a little air, where that is not given.
    y: Option<Range<f64>>,
    curves: Vec<Curve>,
    /// Where the legend stands; where it hides little, if that is not given.
    legend: Option<SeriesLabelPosition>,
}

/// The horizontal axis.
#[derive(Clone)]
struct Axis {
    range: Range<f64>,
    is_logarithmic: bool,
    /// The positions of the tick labels.
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type ValueType = f64;
    type FormatOption = DefaultFormatting;

    fn map(&self, value: &f64, (left, right): (i32, i32)) -> i32 {
        let along = |x: f64| if self.is_logarithmic { x.ln() } else { x };
        let [start, end, value] = [self.range.start, self.range.end, *value].map(along);
        left + ((value - start) / (end - start) * f64::from(right - left)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Plots the best and the mean score of each layer, with an interval for the best one.
pub(crate) fn layer_profile(layers: &[LayerScore], metric: Metric) -> String {
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
    draw_chart(&Chart {
        title: "Layer profile",
        x_label: "layer",
        y_label: &format!("validation {metric}"),
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
        curves: if has_means { vec![mean, best] } else { vec![best] },
        legend: None,
    })
}

/// Plots the expected best score by the number of trials.
pub(crate) fn expected_best(expected: &[f64], metric: Metric) -> String {
    let points = expected.iter().enumerate();
    let points = points.map(|(index, score)| ((index + 1) as f64, *score));
    let curve = Curve { has_dots: expected.len() <= 30, ..Curve::new("", BLUE, points.collect()) };
    let range = 1.0..expected.len() as f64;
    let is_wide = expected.len() > 20;
    draw_chart(&Chart {
        title: "Expected best score",
        x_label: "trials",
        y_label: &format!("validation {metric}"),
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
        curves: vec![curve],
        legend: None,
    })
}

/// The best score by the share of the training rows, its interval as a band, and the spread over seeds, or else over folds, as
/// bars of one standard deviation to either side. Several kinds of head have a curve each, by the number of training
/// rows.
pub(crate) fn learning_curve(points: &[LearningPoint], metric: Metric) -> String {
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
    draw_chart(&Chart {
        title: "Learning curve",
        x_label: "share of the training rows",
        y_label: &format!("validation {metric}"),
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
        curves: vec![Curve { bars, ..curve }],
        legend: None,
    })
}

/// The best score of each kind of head by the number of training rows, its interval as a band.
fn learning_curves_of_kinds(kinds: &[&[LearningPoint]], metric: Metric) -> String {
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
    draw_chart(&Chart {
        title: "Learning curves: best head of each kind, 95 % interval",
        x_label: "training rows",
        y_label: &format!("validation {metric}"),
        x: Axis {
            is_logarithmic: is_wide,
            ticks: if is_wide { one_two_five(&range) } else { even_ticks(highest) },
            range,
        },
        y: None,
        curves: curves.collect(),
        legend: None,
    })
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

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(size: (u32, u32), paint: impl Fn(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(Into::into);
        drawn
            .and_then(|()| paint(&area))
            .and_then(|()| Ok(area.present()?))
            .expect("a string takes every picture");
    }
    svg
}

fn draw_chart(chart: &Chart<'_>) -> String {
    draw(CHART, |area| paint_chart(area, chart))
}

fn paint_chart(area: &Area<'_>, chart: &Chart<'_>) -> Drawn {
    let y = chart.y.clone().unwrap_or_else(|| y_range_with_legend(&chart.curves));
    // Numbers of rows have no decimals.
    let decimals = if y.end - y.start > 10.0 { 0 } else { 3 };
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(chart.title, (FONT, TITLE_SIZE).into_font().color(&INK))
        .margin(16)
        .margin_right(28)
        .x_label_area_size(54)
        .y_label_area_size(80);
    fill(&mut builder.build_cartesian_2d(chart.x.clone(), y)?, chart, decimals)
}

/// As [`y_range`], with room for the legend where there is one.
fn y_range_with_legend(curves: &[Curve]) -> Range<f64> {
    let y = y_range(curves);
    let names = curves.iter().filter(|curve| !curve.name.is_empty());
    let legend = (0.08 * names.count() as f64).max(0.2) * (y.end - y.start);
    match (has_legend(curves), ends_low(curves)) {
        (false, _) => y,
        (true, true) => y.start..y.end + legend,
        (true, false) => y.start - legend..y.end,
    }
}

/// Returns the range of everything that is drawn, with a margin.
fn y_range(curves: &[Curve]) -> Range<f64> {
    let ends = curves.iter().flat_map(|curve| {
        let intervals = curve.band.iter().chain(&curve.bars);
        let intervals = intervals.flat_map(|(_, ends)| *ends);
        curve.points.iter().map(|(_, y)| *y).chain(intervals)
    });
    let low = ends.clone().fold(f64::INFINITY, f64::min);
    let high = ends.fold(f64::NEG_INFINITY, f64::max);
    let air = if high > low { 0.08 * (high - low) } else { 0.05 * high.abs().max(0.1) };
    low - air..high + air
}

type Canvas<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, RangedCoordf64>>;

fn fill<'a, 'b: 'a>(canvas: &mut Canvas<'a, 'b>, chart: &Chart<'_>, decimals: usize) -> Drawn {
    let text = (FONT, TEXT_SIZE).into_font().color(&INK);
    let x_label = |x: &f64| ((x * 1e6).round() / 1e6).to_string();
    canvas
        .configure_mesh()
        .x_desc(chart.x_label)
        .y_desc(chart.y_label)
        .x_labels(chart.x.ticks.len())
        .y_labels(8)
        .x_label_formatter(&x_label)
        .y_label_formatter(&|y| format!("{y:.decimals$}"))
        .label_style(text.clone())
        .axis_desc_style(text.clone())
        .axis_style(GREY)
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .draw()?;
    for curve in &chart.curves {
        let color = curve.color;
        let band = curve.band.iter().map(|(x, [low, _])| (*x, *low));
        let back = curve.band.iter().rev().map(|(x, [_, high])| (*x, *high));
        let outline: Vec<(f64, f64)> = band.chain(back).collect();
        if !outline.is_empty() {
            canvas.draw_series([Polygon::new(outline, color.mix(0.15))])?;
        }
        for (x, [low, high]) in &curve.bars {
            let bar = PathElement::new([(*x, *low), (*x, *high)], color.mix(0.6).stroke_width(2));
            canvas.draw_series([bar])?;
        }
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
        let series = canvas.draw_series(line)?;
        if !curve.name.is_empty() {
            series.label(curve.name.clone()).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
            });
        }
        if curve.has_dots {
            let dots = curve.points.iter();
            canvas.draw_series(dots.map(|point| Circle::new(*point, 4, color.filled())))?;
        }
    }
    if !has_legend(&chart.curves) {
        return Ok(());
    }
    let legend = chart.legend.clone();
    canvas
        .configure_series_labels()
        .position(legend.unwrap_or_else(|| legend_position(&chart.curves)))
        .margin(12)
        .label_font(text)
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .draw()?;
    Ok(())
}

fn has_legend(curves: &[Curve]) -> bool {
    curves.iter().any(|curve| !curve.name.is_empty())
}

fn legend_position(curves: &[Curve]) -> SeriesLabelPosition {
    if ends_low(curves) { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::LowerRight }
}

/// Whether the last curve ends in the lower half, where a legend would hide it.
fn ends_low(curves: &[Curve]) -> bool {
    let range = y_range(curves);
    let last = curves.last().and_then(|curve| curve.points.last());
    last.is_some_and(|(_, y)| *y < f64::midpoint(range.start, range.end))
}

/// Whole numbers from 0 up to an end, ten steps at most of 1, 2 or 5 times a power of ten.
fn even_ticks(end: f64) -> Vec<f64> {
    let power = 10f64.powi((end / 10.0).log10().floor() as i32).max(1.0);
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| end / step <= 10.0).unwrap_or(10.0 * power);
    (0..=(end / step) as usize).map(|tick| tick as f64 * step).collect()
}

/// 1, 2 and 5 times the powers of ten within a range.
fn one_two_five(range: &Range<f64>) -> Vec<f64> {
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let steps = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)));
    let is_inside = |x: &f64| range.start * 0.999 <= *x && *x <= range.end * 1.001;
    steps.filter(is_inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_whole_numbers_and_ten_steps_at_most() {
        assert_eq!(even_ticks(2.0), [0.0, 1.0, 2.0]);
        assert_eq!(even_ticks(68.0), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(even_ticks(1000.0).last(), Some(&1000.0));
        for end in 1..3000 {
            let ticks = even_ticks(f64::from(end));
            assert!((2..=11).contains(&ticks.len()), "{end}: {ticks:?}");
        }
    }
}
