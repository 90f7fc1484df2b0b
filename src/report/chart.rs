//! Charts of curves, as SVG: equal numbers give equal bytes. Every shape has one of the colours below, by which a page that
//! takes a chart in can give it others.

use std::ops::Range;

use plotters::{
    coord::{
        Shift,
        ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
        types::RangedCoordf64,
    },
    prelude::*,
};

pub(super) const FONT: &str = "sans-serif";

pub(crate) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(super) const FAINT: RGBColor = RGBColor(0xe3, 0xe3, 0xe3);
pub(crate) const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
pub(super) const PALE: RGBColor = RGBColor(0xea, 0xf1, 0xf8);
pub(crate) const ORANGE: RGBColor = RGBColor(0xff, 0x9d, 0x2e);
pub(crate) const GREY: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

/// Colours of curves that are compared, in this order.
pub(crate) const SERIES: [RGBColor; 6] = [
    BLUE,
    ORANGE,
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0x8e, 0x44, 0xad),
    RGBColor(0xc0, 0x39, 0x2b),
    GREY,
];

/// Numbers along an axis that has no steps of its own, about.
const USUAL_TICKS: f64 = 6.0;

/// A line of a chart, and what is known of the luck of its points.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// What the legend says; nothing where the axis says it.
    pub(crate) name: String,
    pub(crate) color: RGBColor,
    pub(crate) points: Vec<(f64, f64)>,
    /// From low to high at each point, under the line; none where there is no interval.
    pub(crate) band: Vec<(f64, [f64; 2])>,
    /// From low to high at each point, as bars.
    pub(crate) bars: Vec<(f64, [f64; 2])>,
    pub(crate) has_line: bool,
    pub(crate) has_dots: bool,
}

impl Curve {
    pub(crate) fn new(name: impl Into<String>, color: RGBColor, points: Vec<(f64, f64)>) -> Curve {
        Curve {
            name: name.into(),
            color,
            points,
            band: Vec::new(),
            bars: Vec::new(),
            has_line: true,
            has_dots: true,
        }
    }
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What stands above it; nothing where a page says it.
    pub(crate) title: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) x: Axis,
    /// From the bottom to the top; what is drawn with a little air, where it is not given.
    pub(crate) y: Option<Range<f64>>,
    /// A place along the bottom that a line marks.
    pub(crate) mark: Option<f64>,
    pub(crate) curves: Vec<Curve>,
    /// Where the legend stands; where it hides little, if that is not given.
    pub(crate) legend: Option<SeriesLabelPosition>,
}

/// The sizes of a chart, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChartFrame {
    /// Width and height.
    pub(crate) size: (u32, u32),
    title_size: i32,
    text_size: i32,
    /// Around the chart, and to its right.
    margins: [i32; 2],
    /// For the numbers and the label of each axis.
    label_areas: [i32; 2],
    dot_radius: i32,
    y_ticks: usize,
    /// The share of the height that is added for a legend.
    legend: f64,
    /// Whether numbers along the side all have three digits behind the point.
    has_full_digits: bool,
}

impl ChartFrame {
    /// Of a file of its own.
    pub(crate) const FILE: ChartFrame = ChartFrame {
        size: (760, 460),
        title_size: 22,
        text_size: 17,
        margins: [16, 28],
        label_areas: [54, 80],
        dot_radius: 4,
        y_ticks: 8,
        legend: 0.2,
        has_full_digits: true,
    };

    /// Of a figure on a page, which may be as narrow as a phone.
    pub(crate) const PAGE: ChartFrame = ChartFrame {
        size: (480, 320),
        title_size: 18,
        text_size: 16,
        margins: [6, 18],
        label_areas: [46, 66],
        dot_radius: 3,
        y_ticks: 6,
        legend: 0.3,
        has_full_digits: false,
    };
}

/// The axis along the bottom.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) range: Range<f64>,
    pub(crate) is_logarithmic: bool,
    /// Where numbers are written.
    pub(crate) ticks: Vec<f64>,
}

impl Axis {
    /// From one number to another, with round numbers along it.
    pub(crate) fn over(range: Range<f64>) -> Axis {
        let step = (range.end - range.start).abs() / USUAL_TICKS;
        let power = 10f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|s| *s >= step);
        let step = step.unwrap_or(power);
        let first = (range.start / step - 1e-6).ceil() as i64;
        let last = (range.end / step + 1e-6).floor() as i64;
        let ticks = (first..=last).map(|tick| tick as f64 * step).collect();
        Axis { range, is_logarithmic: false, ticks }
    }
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

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A picture of this size.
pub(super) fn draw(size: (u32, u32), paint: impl Fn(&Area<'_>) -> Drawn) -> String {
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

impl Chart {
    /// The chart as a whole SVG file.
    pub(crate) fn draw(&self, frame: ChartFrame) -> String {
        draw(frame.size, |area| self.paint(area, frame))
    }

    /// The chart on all of an area, which may be a part of a picture.
    pub(super) fn paint(&self, area: &Area<'_>, frame: ChartFrame) -> Drawn {
        let y = self.y.clone().unwrap_or_else(|| y_range_with_legend(&self.curves, frame));
        let [margin, margin_right] = frame.margins;
        let [x_area, y_area] = frame.label_areas;
        let mut builder = ChartBuilder::on(area);
        if !self.title.is_empty() {
            let font = (FONT, frame.title_size).into_font().color(&INK);
            builder.caption(&self.title, font);
        }
        builder
            .margin(margin)
            .margin_right(margin_right)
            .x_label_area_size(x_area)
            .y_label_area_size(y_area);
        self.fill(&mut builder.build_cartesian_2d(self.x.clone(), y.clone())?, frame, y)
    }

    fn fill<'a, 'b: 'a>(
        &self,
        canvas: &mut Canvas<'a, 'b>,
        frame: ChartFrame,
        y: Range<f64>,
    ) -> Drawn {
        let text = (FONT, frame.text_size).into_font().color(&INK);
        let x_label = |x: &f64| ((x * 1e6).round() / 1e6).to_string();
        // Numbers of rows have no decimals.
        let decimals = if y.end - y.start > 10.0 { 0 } else { 3 };
        let y_label = |y: &f64| {
            if frame.has_full_digits {
                return format!("{y:.decimals$}");
            }
            let label = format!("{y:.3}");
            match label.trim_end_matches('0').trim_end_matches('.') {
                "-0" => "0".into(),
                label => label.into(),
            }
        };
        canvas
            .configure_mesh()
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .x_labels(self.x.ticks.len())
            .y_labels(frame.y_ticks)
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .label_style(text.clone())
            .axis_desc_style(text.clone())
            .axis_style(GREY)
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .draw()?;
        if let Some(x) = self.mark {
            let line = PathElement::new([(x, y.start), (x, y.end)], INK.stroke_width(1));
            canvas.draw_series([line])?;
        }
        for curve in &self.curves {
            fill_curve(canvas, curve, frame)?;
        }
        if !has_legend(&self.curves) {
            return Ok(());
        }
        canvas
            .configure_series_labels()
            .position(self.legend.clone().unwrap_or_else(|| self.legend_position()))
            .margin(12)
            .label_font(text)
            .background_style(WHITE.mix(0.85))
            .border_style(FAINT)
            .draw()?;
        Ok(())
    }

    fn legend_position(&self) -> SeriesLabelPosition {
        legend_position(&self.curves, self.y.clone().unwrap_or_else(|| y_range(&self.curves)))
    }
}

type Canvas<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, RangedCoordf64>>;

fn fill_curve<'a, 'b: 'a>(canvas: &mut Canvas<'a, 'b>, curve: &Curve, frame: ChartFrame) -> Drawn {
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
    if curve.has_line {
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
        let series = canvas.draw_series(line)?;
        if !curve.name.is_empty() {
            series.label(&curve.name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
            });
        }
    }
    if curve.has_dots {
        let (radius, opacity) = match curve.points.len() {
            _ if curve.has_line => (frame.dot_radius, 1.0),
            0..=300 => (frame.dot_radius, 0.7),
            _ => (2, 0.5),
        };
        let dots = curve.points.iter();
        let style = color.mix(opacity).filled();
        canvas.draw_series(dots.map(|point| Circle::new(*point, radius, style)))?;
    }
    Ok(())
}

/// As [`y_range`], with room for the legend where there is one.
pub(super) fn y_range_with_legend(curves: &[Curve], frame: ChartFrame) -> Range<f64> {
    let y = y_range(curves);
    let names = curves.iter().filter(|curve| in_legend(curve));
    let legend = (0.08 * names.count() as f64).max(frame.legend) * (y.end - y.start);
    match (has_legend(curves), ends_low(curves, &y)) {
        (false, _) => y,
        (true, true) => y.start..y.end + legend,
        (true, false) => y.start - legend..y.end,
    }
}

/// Everything that is drawn, with a little air.
pub(super) fn y_range(curves: &[Curve]) -> Range<f64> {
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

fn has_legend(curves: &[Curve]) -> bool {
    curves.iter().any(in_legend)
}

fn in_legend(curve: &Curve) -> bool {
    curve.has_line && !curve.name.is_empty()
}

/// Where a legend hides little of curves in this range.
pub(super) fn legend_position(curves: &[Curve], y: Range<f64>) -> SeriesLabelPosition {
    if ends_low(curves, &y) {
        SeriesLabelPosition::UpperRight
    } else {
        SeriesLabelPosition::LowerRight
    }
}

/// Whether the last curve ends in the lower half, where a legend would hide it.
fn ends_low(curves: &[Curve], y: &Range<f64>) -> bool {
    let last = curves.last().and_then(|curve| curve.points.last());
    last.is_some_and(|(_, end)| *end < f64::midpoint(y.start, y.end))
}

/// Whole numbers from 0 up to an end, ten steps at most of 1, 2 or 5 times a power of ten.
pub(super) fn even_ticks(end: f64) -> Vec<f64> {
    let power = 10f64.powi((end / 10.0).log10().floor() as i32).max(1.0);
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| end / step <= 10.0).unwrap_or(10.0 * power);
    (0..=(end / step) as usize).map(|tick| tick as f64 * step).collect()
}

/// 1, 2 and 5 times the powers of ten within a range.
pub(super) fn one_two_five(range: &Range<f64>) -> Vec<f64> {
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

    #[test]
    fn an_axis_has_round_numbers_within_its_range() {
        let ticks = |range| Axis::over(range).ticks;
        assert_eq!(ticks(0.0..5.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(1.0..13.0), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        let shares = ticks(0.0..1.0);
        assert_eq!(shares.len(), 6);
        assert!((shares[1] - 0.2).abs() < 1e-12);
    }

    #[test]
    fn whatever_a_name_holds_is_text_in_a_chart() {
        let curve = Curve::new("</svg><script>", BLUE, vec![(0.0, 0.0), (1.0, 1.0)]);
        let chart = Chart {
            title: String::new(),
            x_label: "\"x\" & y".into(),
            y_label: String::new(),
            x: Axis::over(0.0..1.0),
            y: None,
            mark: Some(0.5),
            curves: vec![curve],
            legend: None,
        };
        let svg = chart.draw(ChartFrame::PAGE);
        assert!(svg.contains("&lt;/svg&gt;&lt;script&gt;") && svg.contains("&amp; y"), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
    }
}
