//! Curves of probabilities: how far they can be trusted, and what a threshold on them does.

use crate::{
    metrics::probability_curves,
    page::{
        numbers::{decimal, grouped, percent},
        table::{Figure, TableView},
    },
    report::chart::{Axis, BLUE, Chart, Curve, GREY},
};

/// Bins of a reliability diagram, as of the expected calibration error.
const N_BINS: usize = 15;

/// Points of a curve at most.
const MOST_POINTS: usize = 200;

/// Rows of the table of a curve at most.
const MOST_LISTED: usize = 20;

/// A probability, and whether what it was of is so.
pub(super) type Judgement = (f64, bool);

/// Probabilities beside how often what they say is so, bin by bin; `None` without any.
pub(super) fn reliability(judged: &[Judgement], x_label: &str, y_label: &str) -> Option<Figure> {
    let mut bins = [(0usize, 0.0, 0usize); N_BINS];
    for (probability, is_so) in judged.iter().filter(|(probability, _)| probability.is_finite()) {
        let bin = (probability * N_BINS as f64).ceil() as usize;
        let (n, sum, so) = &mut bins[bin.saturating_sub(1).min(N_BINS - 1)];
        *n += 1;
        *sum += probability;
        *so += usize::from(*is_so);
    }
    let mut table = TableView::new(&["bin"], &["rows", x_label, y_label]);
    let mut points = Vec::new();
    for (bin, (n, sum, so)) in bins.into_iter().enumerate().filter(|(_, (n, ..))| *n > 0) {
        let (mean, share) = (sum / n as f64, so as f64 / n as f64);
        let ends = [bin, bin + 1].map(|end| end as f64 / N_BINS as f64);
        let name = format!("{:.2} to {:.2}", ends[0], ends[1]);
        table.push([name, grouped(n as u64), decimal(mean), decimal(share)]);
        points.push((mean, share));
    }
    if points.is_empty() {
        return None;
    }
    let exact = Curve { has_dots: false, ..Curve::new("", GREY, vec![(0.0, 0.0), (1.0, 1.0)]) };
    let chart = Chart {
        title: String::new(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        x: Axis::over(0.0..1.0),
        y: Some(0.0..1.0),
        mark: None,
        legend: None,
        curves: vec![exact, Curve::new("", BLUE, points)],
    };
    let description = format!(
        "The mean {x_label} of each of {N_BINS} bins, and the {y_label}: on the grey line they are the same, below it the head \
         is too sure."
    );
    Some(Figure::new("Reliability", description, chart, table))
}

/// Precision by recall, over all thresholds from the highest on; `None` where nothing is so, or all is.
pub(super) fn precision_recall(judged: &[Judgement], title: &str, of: &str) -> Option<Figure> {
    let mut sorted: Vec<Judgement> =
        judged.iter().copied().filter(|(probability, _)| probability.is_finite()).collect();
    sorted.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
    let n_so = sorted.iter().filter(|(_, is_so)| *is_so).count();
    if n_so == 0 || n_so == sorted.len() {
        return None;
    }
    let mut points: Vec<(f64, f64, f64)> = Vec::new();
    let mut found = 0;
    for (place, (probability, is_so)) in sorted.iter().enumerate() {
        found += usize::from(*is_so);
        // Equal probabilities are on one side of every threshold.
        let is_last = sorted.get(place + 1).is_none_or(|(next, _)| next < probability);
        if is_last {
            points.push((
                found as f64 / n_so as f64,
                found as f64 / (place + 1) as f64,
                *probability,
            ));
        }
        if found == n_so && is_last {
            break;
        }
    }
    let shown = thinned(&points, MOST_POINTS);
    let mut table = TableView::new(&[], &["threshold", "recall", "precision"]);
    for (recall, precision, threshold) in thinned(&points, MOST_LISTED) {
        table.push([decimal(threshold), decimal(recall), decimal(precision)]);
    }
    let share = n_so as f64 / sorted.len() as f64;
    let curve = shown.iter().map(|(recall, precision, _)| (*recall, *precision)).collect();
    let guessed = vec![(0.0, share), (1.0, share)];
    let chart = beside_guessing(["recall", "precision"], guessed, curve);
    let description = format!(
        "Precision by recall of {of}, at every threshold on its probability; the grey line is guessing, with a precision of {}.",
        percent(share)
    );
    Some(Figure::new(title, description, chart, table))
}

/// The share that is found by the share of the others that is taken for it, over all thresholds; `None` where nothing is so,
/// or all is.
pub(super) fn roc(judged: &[Judgement], of: &str) -> Option<Figure> {
    let known = judged.iter().filter(|(probability, _)| probability.is_finite());
    let decisions = known.map(|(probability, is_so)| (*probability as f32, *is_so));
    let curve = probability_curves::roc(decisions.collect())?;
    let [x_label, y_label] = ["false positives", "true positives"];
    let mut table = TableView::new(&[], &["threshold", x_label, y_label]);
    for point in thinned(&curve.points, MOST_LISTED) {
        let shares = [point.false_positives, point.true_positives].map(decimal);
        let [wrong, found] = shares;
        table.push([decimal(point.threshold.into()), wrong, found]);
    }
    let points = thinned(&curve.points, MOST_POINTS).into_iter();
    let points = points.map(|point| (point.false_positives, point.true_positives)).collect();
    let guessed = vec![(0.0, 0.0), (1.0, 1.0)];
    let chart = beside_guessing([x_label, y_label], guessed, points);
    let description = format!(
        "The share of {of} that is found by the share of the others that is taken for it, at every threshold on its \
         probability; the grey line is guessing. The area under the curve is {}.",
        decimal(curve.area)
    );
    Some(Figure::new("ROC curve", description, chart, table))
}

/// A curve of two shares, with what guessing gives in grey.
fn beside_guessing(labels: [&str; 2], guessed: Vec<(f64, f64)>, curve: Vec<(f64, f64)>) -> Chart {
    let [x_label, y_label] = labels.map(String::from);
    Chart {
        title: String::new(),
        x_label,
        y_label,
        x: Axis::over(0.0..1.0),
        y: Some(0.0..1.0),
        mark: None,
        legend: None,
        curves: vec![
            Curve { has_dots: false, ..Curve::new("", GREY, guessed) },
            Curve { has_dots: false, ..Curve::new("", BLUE, curve) },
        ],
    }
}

/// Points that are evenly spread over a curve, with its ends.
fn thinned<T: Copy>(points: &[T], most: usize) -> Vec<T> {
    if points.len() <= most {
        return points.to_vec();
    }
    (0..most).map(|place| points[place * (points.len() - 1) / (most - 1)]).collect()
}

/// What is left where less confident predictions are set aside, and how much of it is right.
pub(super) fn coverage(judged: &[Judgement]) -> TableView {
    let mut table = TableView::new(&["confidence of at least"], &["rows", "share of all", "right"]);
    for least in [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99] {
        let kept = judged.iter().filter(|(confidence, _)| *confidence >= least);
        let n = kept.clone().count();
        if n == 0 {
            break;
        }
        let right = kept.filter(|(_, is_right)| *is_right).count() as f64 / n as f64;
        let share = n as f64 / judged.len() as f64;
        table.push([format!("{least:.2}"), grouped(n as u64), percent(share), percent(right)]);
    }
    table.note = Some(
        "`frostbert predict --min-confidence P` leaves the label of less confident texts empty."
            .into(),
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUDGED: [Judgement; 4] = [(0.9, true), (0.8, false), (0.8, true), (0.1, false)];

    #[test]
    fn bins_hold_the_mean_probability_and_the_share_that_is_so() {
        let figure = reliability(&JUDGED, "confidence", "right").unwrap();
        let cells: Vec<&[String]> = figure.numbers.rows.iter().map(|row| &row.cells[..]).collect();
        assert_eq!(cells[0][1..], ["1", "0.100", "0.000"]);
        assert_eq!(cells[1], ["0.73 to 0.80", "2", "0.800", "0.500"]);
        assert_eq!(cells[2][1..], ["1", "0.900", "1.000"]);
        assert!(reliability(&[(f64::NAN, true)], "x", "y").is_none());
    }

    #[test]
    fn equal_probabilities_fall_together_and_the_curve_ends_where_all_is_found() {
        let figure = precision_recall(&JUDGED, "PR", "spam").unwrap();
        let cells: Vec<Vec<String>> =
            figure.numbers.rows.iter().map(|row| row.cells.clone()).collect();
        assert_eq!(cells, [["0.900", "0.500", "1.000"], ["0.800", "1.000", "0.667"]]);
        assert!(precision_recall(&[(0.5, true)], "PR", "spam").is_none());
    }

    #[test]
    fn a_roc_curve_goes_from_nothing_to_everything_and_tells_its_area() {
        let figure = roc(&JUDGED, "spam").unwrap();
        let cells: Vec<Vec<String>> =
            figure.numbers.rows.iter().map(|row| row.cells.clone()).collect();
        assert_eq!(cells[0], ["–", "0.000", "0.000"]);
        assert_eq!(cells[2], ["0.800", "0.500", "1.000"]);
        assert_eq!(cells[3], ["0.100", "1.000", "1.000"]);
        assert!(figure.description.ends_with("The area under the curve is 0.875."));
        assert!(roc(&[(0.5, true)], "spam").is_none());
    }

    #[test]
    fn coverage_falls_while_what_is_kept_gets_better() {
        let table = coverage(&JUDGED);
        assert_eq!(table.rows[0].cells, ["0.00", "4", "100.0 %", "50.0 %"]);
        assert_eq!(table.rows.last().unwrap().cells, ["0.90", "1", "25.0 %", "100.0 %"]);
    }
}
