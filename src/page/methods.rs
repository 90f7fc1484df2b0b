//! Ways to train on one cache, side by side: what they score, and what they take.

use serde::Serialize;

use super::{
    numbers::{NONE, decimal, grouped, short, size, with_interval},
    table::{Figure, TableView},
    texts::harmless,
};
use crate::report::{
    methods::{ComparedMethod, MethodComparison, PEAK_COUNTS},
    plots::methods::score_by_cost,
};

/// Bytes of a megabyte, as the axis counts them.
const MEGABYTE: f64 = 1e6;

/// The page of a comparison.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MethodsView {
    pub(super) title: String,
    pub(super) task: String,
    pub(super) model: String,
    pub(super) rows: String,
    pub(super) sentences: Vec<String>,
    pub(super) methods: TableView,
    pub(super) figures: Vec<Figure>,
}

impl MethodsView {
    pub(super) fn of(comparison: &MethodComparison) -> MethodsView {
        let MethodComparison { train, validation, test, encoded, encoding_seconds, .. } =
            comparison;
        let [train, validation, test] = [train, validation, test].map(|n| grouped(*n as u64));
        MethodsView {
            title: "Ways to train".into(),
            task: comparison.task.clone(),
            model: comparison.model.clone(),
            rows: format!(
                "{train} rows to train on, {validation} that choose the epoch, {test} to measure on. Encoding {} texts \
                 took {} s, once for all methods.",
                grouped(*encoded),
                short(*encoding_seconds)
            ),
            sentences: comparison.sentences(),
            methods: table(comparison),
            figures: figures(comparison),
        }
    }
}

fn table(comparison: &MethodComparison) -> TableView {
    let metric = comparison.metric.in_words();
    let numbers = [
        metric.as_str(),
        "difference to the best",
        "adjusted p",
        "std over seeds",
        "epochs",
        "seconds",
        "peak memory",
        "trained parameters",
        "training memory",
    ];
    let mut table = TableView::new(&["method"], &numbers);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.into());
    for method in &comparison.methods {
        table.push([
            method.title.clone(),
            with_interval(method.value, method.interval),
            with_interval(method.difference, method.difference_interval),
            or_none(method.p_adjusted.map(decimal)),
            or_none(method.std.map(decimal)),
            short(method.epochs),
            short(method.seconds),
            or_none(method.peak_bytes.map(size)),
            grouped(method.trainable),
            size(method.training_bytes),
        ]);
    }
    let everything = &comparison.fine_tuning;
    let least = everything.least_seconds.map(|seconds| format!("over {}", short(seconds)));
    table.push([
        "full fine-tuning, computed".into(),
        NONE.into(),
        NONE.into(),
        NONE.into(),
        NONE.into(),
        NONE.into(),
        or_none(least),
        NONE.into(),
        grouped(everything.trainable),
        size(everything.training_bytes),
    ]);
    table.note = Some(format!(
        "The difference to the best is on the same draws of the test rows, with its 95 % interval; p is that of the \
         paired bootstrap, adjusted by Holm's method; it does not cover another training with other seeds. Seconds are \
         those of training one head, with validation after each epoch. Memory: {PEAK_COUNTS}. \
         Training memory is computed: f32 weights, gradients and Adam's two moments, 16 bytes for each parameter; \
         activations come on top. Full fine-tuning trains the embeddings too."
    ));
    table
}

/// The score by the seconds, and by the memory.
fn figures(comparison: &MethodComparison) -> Vec<Figure> {
    type Cost = fn(&ComparedMethod) -> Option<f64>;
    let costs: [(&str, Cost); 2] = [
        ("seconds", |method| Some(method.seconds)),
        ("peak memory in MB", |method| Some(method.peak_bytes? as f64 / MEGABYTE)),
    ];
    let metric = comparison.metric.in_words();
    let figure = |(label, cost): (&str, Cost)| {
        let named = |method: &ComparedMethod| harmless(&method.title).into_owned();
        let chart = score_by_cost(&comparison.methods, comparison.metric, (label, cost), named)?;
        let mut numbers = TableView::new(&["method"], &[label, &metric]);
        for method in &comparison.methods {
            let cost = cost(method).map_or(NONE.into(), short);
            let score = with_interval(method.value, method.interval);
            numbers.push([method.title.clone(), cost, score]);
        }
        let description = format!(
            "The {metric} of each method on the test rows, with its 95 % interval, by {label}, on a logarithmic axis."
        );
        Some(Figure::new(format!("{metric} by {label}"), description, chart, numbers))
    };
    costs.into_iter().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::metric::Metric,
        page::render::render,
        report::methods::tests::{comparison, method},
    };

    #[test]
    fn methods_are_a_page_with_a_table_and_two_figures() {
        let methods = vec![
            method("one", Some(0.7), 0.5),
            method("two", Some(0.8), 90.0),
            method("three", None, 1.0),
        ];
        let view = MethodsView::of(&comparison(Metric::Accuracy, methods));
        assert_eq!((view.methods.rows.len(), view.figures.len()), (4, 2));
        let last = &view.methods.rows[3].cells;
        assert_eq!((last[0].as_str(), last[6].as_str()), ("full fine-tuning, computed", "over 9"));
        let html = render("methods.html", &view).unwrap();
        assert!(
            html.contains("0.800 [0.780, 0.820]") && html.contains("models&#x2f;&lt;b&gt;"),
            "{html}"
        );
        assert_eq!(html.matches("<svg").count(), 2);
    }

    #[test]
    fn memory_and_the_difference_to_the_best_are_listed() {
        let worse = ComparedMethod {
            difference: Some(-0.1),
            difference_interval: Some([-0.12, -0.08]),
            p_adjusted: Some(0.03),
            peak_bytes: Some(30_000_000),
            ..method("worse", Some(0.7), 0.5)
        };
        let methods = vec![worse, method("best", Some(0.8), 0.5)];
        let view = MethodsView::of(&comparison(Metric::Accuracy, methods));
        let [worse, best] = [0, 1].map(|row: usize| view.methods.rows[row].cells.clone());
        assert_eq!(worse[2], "-0.100 [-0.120, -0.080]");
        assert_eq!(worse[3], "0.030");
        assert_eq!(worse[7], size(30_000_000));
        assert_eq!([&best[2], &best[3]], [NONE, NONE]);
        assert!(view.methods.note.unwrap().contains("Memory: the peak memory of the program"));
    }

    #[test]
    fn without_measured_memory_there_is_no_figure_of_it() {
        let one = ComparedMethod { peak_bytes: None, ..method("one", Some(0.7), 0.5) };
        let view = MethodsView::of(&comparison(Metric::Accuracy, vec![one]));
        assert_eq!(view.figures.len(), 1);
        assert_eq!(view.methods.rows[0].cells[7], NONE);
    }
}
