//! A number for each text: predicted beside true.

use super::WorthView;
use crate::{
    page::{
        numbers::{decimal, evenly, grouped},
        run_files::RunFiles,
        table::{Figure, TableView},
    },
    report::chart::{Axis, BLUE, Chart, Curve, GREY},
};

/// Points of the scatter plot at most.
const MOST_POINTS: usize = 2_000;

/// Groups of rows by their true number.
const N_GROUPS: usize = 10;

pub(super) fn add(run: &RunFiles, view: &mut WorthView) {
    let truth = run.rows.numbers("value").unwrap_or_default();
    let predicted = run.rows.numbers("predicted").unwrap_or_default();
    let pair = |row: usize| Some((*truth.get(row)?, *predicted.get(row)?));
    let finite = |(truth, predicted): &(f64, f64)| truth.is_finite() && predicted.is_finite();
    let pairs: Vec<(f64, f64)> =
        run.judged_rows().into_iter().filter_map(pair).filter(finite).collect();
    view.figures.extend(scatter(&pairs));
}

fn scatter(pairs: &[(f64, f64)]) -> Option<Figure> {
    let low = pairs.iter().map(|(truth, _)| *truth).fold(f64::INFINITY, f64::min);
    let high = pairs.iter().map(|(truth, _)| *truth).fold(f64::NEG_INFINITY, f64::max);
    if pairs.len() < 2 || low >= high {
        return None;
    }
    let points = evenly(pairs.len(), MOST_POINTS).into_iter().map(|place| pairs[place]);
    let air = 0.02 * (high - low);
    let exact = Curve { has_dots: false, ..Curve::new("", GREY, vec![(low, low), (high, high)]) };
    let dots = Curve { has_line: false, ..Curve::new("", BLUE, points.collect()) };
    let chart = Chart {
        title: String::new(),
        x_label: "true".into(),
        y_label: "predicted".into(),
        x: Axis::over(low - air..high + air),
        y: None,
        mark: None,
        legend: None,
        curves: vec![exact, dots],
    };
    let description = format!(
        "A dot for each of {} rows: to the right by its true number, upwards by the predicted one; on the grey line they are \
         the same.",
        grouped(pairs.len().min(MOST_POINTS) as u64)
    );
    Some(Figure::new("Predicted beside true", description, chart, groups(pairs)))
}

/// Rows in groups of equal size, from the least true numbers to the greatest.
fn groups(pairs: &[(f64, f64)]) -> TableView {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    let n_groups = N_GROUPS.min(sorted.len());
    let titles = ["rows", "mean true", "mean predicted", "mean error"];
    let mut table = TableView::new(&["true numbers"], &titles);
    for group in 0..n_groups {
        let ends = [group, group + 1].map(|end| end * sorted.len() / n_groups);
        let own = &sorted[ends[0]..ends[1]];
        let mean = |of: fn(&(f64, f64)) -> f64| own.iter().map(of).sum::<f64>() / own.len() as f64;
        let range = format!("{} to {}", decimal(own[0].0), decimal(own[own.len() - 1].0));
        let error = mean(|(truth, predicted)| (predicted - truth).abs());
        let means = [mean(|pair| pair.0), mean(|pair| pair.1), error].map(decimal);
        let [truth, predicted, error] = means;
        table.push([range, grouped(own.len() as u64), truth, predicted, error]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_from_the_least_to_the_greatest_and_hold_every_row() {
        let pairs: Vec<(f64, f64)> =
            (0..25).rev().map(|n| (f64::from(n), f64::from(n) + 0.5)).collect();
        let table = groups(&pairs);
        assert_eq!(table.rows.len(), 10);
        assert_eq!(table.rows[0].cells, ["0.000 to 1.000", "2", "0.500", "1.000", "0.500"]);
        let total: usize =
            table.rows.iter().map(|row| row.cells[1].parse::<usize>().unwrap()).sum();
        assert_eq!(total, 25);
        assert!(scatter(&[(1.0, 1.0), (1.0, 2.0)]).is_none());
    }
}
