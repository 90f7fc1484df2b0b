//! The settings of a sweep as parallel coordinates: a line for each, from value to value to its score.

use serde::Serialize;

use super::{
    board::{Board, setting},
    numbers::{decimal, evenly, short},
};

/// Lines at most.
const MOST_LINES: usize = 300;

/// Values of a setting at most that each have a place of their own; of more, numbers lie on a scale.
const MOST_VALUES: usize = 12;

/// Height between the lowest and the highest value, and what stands above.
const HEIGHT: f64 = 260.0;
const TOP: f64 = 44.0;

/// Between two settings.
const STEP: f64 = 130.0;

/// To the left and the right.
const SIDE: f64 = 66.0;

/// The picture.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ParallelView {
    pub(super) size: [f64; 2],
    /// The top and the bottom of the axes.
    pub(super) ends: [f64; 2],
    pub(super) axes: Vec<ParallelAxis>,
    pub(super) lines: Vec<ParallelLine>,
}

/// A setting, or the score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ParallelAxis {
    pub(super) name: String,
    pub(super) x: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

/// One setting of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ParallelLine {
    pub(super) points: String,
    /// From 0, the worst, to 1.
    pub(super) goodness: f64,
    pub(super) is_best: bool,
    pub(super) title: String,
}

/// Where the values of a column lie.
struct Scale {
    /// For each row; none where it has no value.
    places: Vec<Option<f64>>,
    ticks: Vec<(f64, String)>,
}

/// `None` where there are too few settings or rows to see anything.
pub(super) fn parallel(board: &Board) -> Option<ParallelView> {
    let scored: Vec<usize> =
        (0..board.scores.len()).filter(|row| board.scores[*row].is_some()).collect();
    if board.settings.len() < 2 || scored.len() < 3 {
        return None;
    }
    let names = &board.table.names;
    let mut scales = Vec::new();
    for column in &board.settings {
        let cells: Vec<&str> = board.table.rows.iter().map(|row| row[*column].as_str()).collect();
        scales.push((names[*column].clone(), scale_of(&cells)));
    }
    let score_scale = numeric(&board.scores, false);
    let goodness: Vec<Option<f64>> = score_scale
        .places
        .iter()
        .map(|place| place.map(|p| if board.metric.higher_is_better() { p } else { 1.0 - p }))
        .collect();
    scales.push((board.metric.in_words(), score_scale));
    let x = |number: usize| SIDE + STEP * number as f64;
    let y = |place: f64| TOP + HEIGHT * (1.0 - place);
    let shown = evenly(scored.len(), MOST_LINES).into_iter().map(|place| scored[place]);
    let mut lines: Vec<ParallelLine> = shown
        .map(|row| {
            let points: Vec<String> = scales
                .iter()
                .enumerate()
                .filter_map(|(number, (_, scale))| {
                    Some(format!("{:.0},{:.1}", x(number), y(scale.places[row]?)))
                })
                .collect();
            let settings: Vec<String> = board
                .settings
                .iter()
                .map(|column| format!("{} {}", names[*column], board.table.rows[row][*column]))
                .collect();
            let score = decimal(board.scores[row].unwrap_or(f64::NAN));
            ParallelLine {
                points: points.join(" "),
                goodness: goodness[row].unwrap_or(0.0),
                is_best: board.are_best[row],
                title: format!("{score}: {}", settings.join(", ")),
            }
        })
        .collect();
    // The best are drawn last, and lie on top.
    lines.sort_by(|one, other| one.goodness.total_cmp(&other.goodness));
    let width = x(scales.len() - 1) + SIDE;
    let axes = scales.into_iter().enumerate().map(|(number, (name, scale))| ParallelAxis {
        name,
        x: x(number),
        ticks: scale.ticks.into_iter().map(|(place, label)| (y(place), label)).collect(),
    });
    Some(ParallelView {
        size: [width, TOP + HEIGHT + 16.0],
        ends: [TOP, TOP + HEIGHT],
        axes: axes.collect(),
        lines,
    })
}

fn scale_of(cells: &[&str]) -> Scale {
    let mut distinct: Vec<&str> = Vec::new();
    for cell in cells.iter().filter(|cell| !cell.is_empty()) {
        if !distinct.contains(cell) {
            distinct.push(cell);
        }
    }
    let numbers: Vec<Option<f64>> = cells.iter().map(|cell| cell.parse().ok()).collect();
    let all_numbers = distinct.iter().all(|cell| cell.parse::<f64>().is_ok());
    if all_numbers && distinct.len() > MOST_VALUES {
        return numeric(&numbers, true);
    }
    if all_numbers {
        distinct.sort_by(|one, other| {
            let [one, other] = [one, other].map(|cell| cell.parse().unwrap_or(f64::NAN));
            f64::total_cmp(&one, &other)
        });
    }
    let last = (distinct.len().max(2) - 1) as f64;
    let place = |cell: &&str| Some(distinct.iter().position(|own| own == cell)? as f64 / last);
    let step = distinct.len().div_ceil(MOST_VALUES);
    let ticks = distinct.iter().enumerate().step_by(step);
    Scale {
        places: cells.iter().map(place).collect(),
        ticks: ticks.map(|(n, cell)| (n as f64 / last, setting(cell))).collect(),
    }
}

/// Numbers from the least to the greatest, by their logarithms where they are of many sizes.
fn numeric(numbers: &[Option<f64>], may_be_logarithmic: bool) -> Scale {
    let known = numbers.iter().flatten().copied();
    let low = known.clone().fold(f64::INFINITY, f64::min);
    let high = known.fold(f64::NEG_INFINITY, f64::max);
    let is_logarithmic = may_be_logarithmic && low > 0.0 && high / low > 20.0;
    let along = |x: f64| if is_logarithmic { x.ln() } else { x };
    let (start, end) = (along(low), along(high));
    let width = if end > start { end - start } else { 1.0 };
    let place = |x: f64| (along(x) - start) / width;
    let at = |share: f64| {
        let x = start + share * width;
        if is_logarithmic { x.exp() } else { x }
    };
    let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, short(at(share))));
    Scale { places: numbers.iter().map(|x| x.map(place)).collect(), ticks: ticks.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_few_numbers_have_a_place_each_and_numbers_are_in_order() {
        let scale = scale_of(&["10", "2", "", "10", "30"]);
        assert_eq!(scale.places, [Some(0.5), Some(0.0), None, Some(0.5), Some(1.0)]);
        let labels: Vec<&str> = scale.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["2", "10", "30"]);
        assert_eq!(scale_of(&["mlp", "linear"]).places, [Some(0.0), Some(1.0)]);
    }

    #[test]
    fn numbers_of_many_sizes_lie_along_their_logarithms() {
        let numbers: Vec<Option<f64>> = [1e-4, 1e-2, 1.0].map(Some).to_vec();
        let scale = numeric(&numbers, true);
        assert!((scale.places[1].unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(scale.ticks[2].1, "0.01");
        assert!(numeric(&numbers, false).places[1].unwrap() < 0.02);
    }
}
