//! A map of the rows: their pooled states in two principal components.

use frostbert_cache::states::StateId;
use ndarray::{Array2, Axis, s};
use serde::Serialize;

use super::{
    numbers::{evenly, grouped, percent},
    run_files::RunFiles,
    shown_task::shown_task,
    states::RunStates,
    texts::TextGate,
};
use crate::{
    data::{Part, example::part_name},
    train::eigen::symmetric_eigen,
};

/// Points at most.
const MOST_POINTS: usize = 2_000;

/// Classes at most that have a colour and a line in the legend; more share a wheel of hues.
const NAMED_CLASSES: usize = 8;

/// Characters of a text that a point shows.
const MOST_CHARACTERS: usize = 120;

/// Width and height.
const SIZE: [f64; 2] = [720.0, 480.0];

/// Space around the points.
const MARGIN: f64 = 12.0;

/// The sixth part of a page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MapView {
    pub(super) sentence: String,
    pub(super) size: [f64; 2],
    pub(super) points: Vec<MapPoint>,
    pub(super) legend: Vec<LegendEntry>,
    /// The labels of the points, for a filter; none where they are numbers.
    pub(super) classes: Vec<String>,
}

/// A class in the legend of a map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LegendEntry {
    pub(super) name: String,
    pub(super) color: usize,
}

/// A row on a map.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MapPoint {
    pub(super) x: String,
    pub(super) y: String,
    /// The number of its colour, where classes are few.
    pub(super) color: Option<usize>,
    /// Its hue in degrees, where they are many, or numbers.
    pub(super) hue: Option<u32>,
    pub(super) is_wrong: bool,
    /// Whether the head has learned from it.
    pub(super) is_learned: bool,
    pub(super) label: String,
    /// What is said of it.
    pub(super) title: String,
}

impl MapView {
    /// `None` where the cache holds no pooled state of the rows.
    pub(super) fn of(run: &RunFiles, states: &RunStates, gate: &TextGate) -> Option<MapView> {
        let rows = chosen(run);
        if rows.len() < 3 {
            return None;
        }
        let (state, rows_of_states) = states.pooled(&rows)?;
        let Projected { places, shares } = project(rows_of_states)?;
        let task = shown_task(run.task());
        let judged = task.judge(run, &rows)?;
        let labels = run.labels();
        let is_named = !labels.is_empty() && labels.len() <= NAMED_CLASSES;
        let color_of = |label: &str| labels.iter().position(|own| own == label);
        let hues = task.hues(run, &judged);
        let texts = ["text", "question"].into_iter().find_map(|name| run.rows.texts(name));
        let points = rows.iter().zip(&judged).enumerate().map(|(place, (row, own))| {
            let text = texts.as_ref().and_then(|texts| texts[*row]);
            let text = text.and_then(|text| gate.text(text, MOST_CHARACTERS));
            let verdict =
                if own.is_wrong { format!(", predicted {}", own.predicted) } else { String::new() };
            let part = part_name(run.parts[*row]);
            let said = format!("{}{verdict} ({part})", own.label);
            MapPoint {
                x: format!("{:.1}", places[[place, 0]]),
                y: format!("{:.1}", places[[place, 1]]),
                color: if is_named { color_of(&own.label) } else { None },
                hue: if is_named { None } else { hues[place] },
                is_wrong: own.is_wrong,
                is_learned: run.parts[*row] == Part::Train,
                label: own.label.clone(),
                title: text.map_or(said.clone(), |text| format!("{said}: {text}")),
            }
        });
        let mut points: Vec<MapPoint> = points.collect();
        // What is wrong lies on top.
        points.sort_by_key(|point| (!point.is_learned, point.is_wrong));
        let legend = labels.iter().take(if is_named { labels.len() } else { 0 });
        let legend =
            legend.enumerate().map(|(color, name)| LegendEntry { name: name.clone(), color });
        let has_point = |label: &&String| points.iter().any(|point| point.label == **label);
        Some(MapView {
            classes: labels.iter().filter(has_point).cloned().collect(),
            sentence: sentence(run, state, rows.len(), shares),
            size: SIZE,
            points,
            legend: legend.collect(),
        })
    }
}

fn sentence(run: &RunFiles, state: StateId, n_points: usize, shares: [f64; 2]) -> String {
    let of = if run.head.pair { "how far the two texts' states are apart," } else { "their state" };
    format!(
        "{} of {} rows by {of} {state}, along the two directions in which they differ most ({} and {} of their variance). \
         Rows that the head learned from are faint; a ring marks those that it gets wrong.",
        grouped(n_points as u64),
        grouped(run.rows.len() as u64),
        percent(shares[0]),
        percent(shares[1]),
    )
}

/// The rows on the map: those that stand for the run first, and as many others as there is room for.
fn chosen(run: &RunFiles) -> Vec<usize> {
    let judged = run.judged_rows();
    let mut chosen: Vec<usize> =
        evenly(judged.len(), MOST_POINTS).into_iter().map(|place| judged[place]).collect();
    let part = run.judged().map(|(part, _)| part);
    let others: Vec<usize> =
        (0..run.parts.len()).filter(|row| Some(run.parts[*row]) != part).collect();
    let room = MOST_POINTS - chosen.len();
    chosen.extend(evenly(others.len(), room).into_iter().map(|place| others[place]));
    chosen.sort_unstable();
    chosen
}

/// Rows in the plane.
struct Projected {
    /// `[rows, 2]`, in pixels.
    places: Array2<f64>,
    /// Of the variance.
    shares: [f64; 2],
}

/// The two principal components of some rows, scaled to the map; `None` where all rows are the same.
fn project(rows: Array2<f32>) -> Option<Projected> {
    let mut rows = rows.mapv(f64::from);
    let mean = rows.mean_axis(Axis(0))?;
    rows -= &mean;
    let (n, width) = rows.dim();
    // The smaller of the two products has the same eigenvalues.
    let (values, vectors) = if n < width {
        let (values, vectors) = symmetric_eigen(&rows.dot(&rows.t())).ok()?;
        (values, rows.t().dot(&vectors.slice(s![.., n - 2..])))
    } else {
        let (values, vectors) = symmetric_eigen(&rows.t().dot(&rows)).ok()?;
        (values, vectors.slice(s![.., width - 2..]).to_owned())
    };
    let total: f64 = values.iter().map(|value| value.max(0.0)).sum();
    if total <= 0.0 {
        return None;
    }
    let last = values.len() - 1;
    let mut places = Array2::zeros((n, 2));
    for (place, component) in [(0, 1), (1, 0)] {
        let mut direction = vectors.column(component).to_owned();
        let length = direction.dot(&direction).sqrt();
        let largest = direction
            .iter()
            .copied()
            .fold(0.0, |most: f64, v| if v.abs() > most.abs() { v } else { most });
        // The sign of a component is arbitrary: the same data look the same.
        direction /= length.max(f64::MIN_POSITIVE) * largest.signum();
        places.column_mut(place).assign(&rows.dot(&direction));
    }
    for (mut column, size) in places.columns_mut().into_iter().zip(SIZE) {
        let low = column.iter().copied().fold(f64::INFINITY, f64::min);
        let high = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scale = (size - 2.0 * MARGIN) / (high - low).max(f64::MIN_POSITIVE);
        column.mapv_inplace(|value| MARGIN + (value - low) * scale);
    }
    let share = |place: usize| values[place].max(0.0) / total;
    Some(Projected { places, shares: [share(last), share(last - 1)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_lies_along_the_directions_of_most_variance_whichever_product_is_smaller() {
        let along = |n: usize, width: usize| {
            Array2::from_shape_fn((n, width), |(row, column)| match column {
                1 => 10.0 * row as f32,
                3 => (row % 2) as f32,
                _ => 0.0,
            })
        };
        for (n, width) in [(6, 4), (6, 20)] {
            let Projected { places, shares } = project(along(n, width)).unwrap();
            assert!(shares[0] > 0.99 && shares[0] + shares[1] > 1.0 - 1e-9, "{shares:?}");
            let x: Vec<f64> = places.column(0).to_vec();
            assert!(x.windows(2).all(|two| two[0] < two[1]), "{x:?}");
            assert!((x[0] - MARGIN).abs() < 1e-6 && (x[5] - (SIZE[0] - MARGIN)).abs() < 1e-6);
        }
        assert!(project(Array2::ones((5, 3))).is_none());
    }
}
