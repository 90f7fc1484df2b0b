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

/// The least megabytes that are drawn: the kernel counts pages in batches, so less may be counted as nothing, which a
/// logarithmic axis does not have.
const LEAST_MEGABYTES: f64 = 0.1;

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
        "std over seeds",
        "epochs",
        "seconds",
        "added memory",
        "trained parameters",
        "training memory",
    ];
    let mut table = TableView::new(&["method"], &numbers);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.into());
    for method in &comparison.methods {
        table.push([
            method.title.clone(),
            with_interval(method.value, method.interval),
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
        or_none(least),
        NONE.into(),
        grouped(everything.trainable),
        size(everything.training_bytes),
    ]);
    table.note = Some(format!(
        "Seconds are those of training one head, with validation after each epoch. Added memory is {PEAK_COUNTS}. \
         Training memory is computed: f32 weights, gradients and Adam's two moments, 16 bytes for each parameter; \
         activations come on top. Full fine-tuning trains the embeddings too."
    ));
    table
}

/// The score by the seconds, and by the memory.
fn figures(comparison: &MethodComparison) -> Vec<Figure> {
    type Cost = fn(&ComparedMethod) -> Option<f64>;
    let costs: [(&str, f64, Cost); 2] = [
        ("seconds", 0.0, |method| Some(method.seconds)),
        ("added memory in MB", LEAST_MEGABYTES, |method| {
            Some(method.peak_bytes? as f64 / MEGABYTE)
        }),
    ];
    let metric = comparison.metric.in_words();
    let figure = |(label, least, cost): (&str, f64, Cost)| {
        let drawn = |method: &ComparedMethod| cost(method).map(|cost| cost.max(least));
        let named = |method: &ComparedMethod| harmless(&method.title).into_owned();
        let chart = score_by_cost(&comparison.methods, comparison.metric, (label, drawn), named)?;
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
        assert_eq!((last[0].as_str(), last[4].as_str()), ("full fine-tuning, computed", "over 9"));
        let html = render("methods.html", &view).unwrap();
        assert!(
            html.contains("0.800 [0.780, 0.820]") && html.contains("models&#x2f;&lt;b&gt;"),
            "{html}"
        );
        assert_eq!(html.matches("<svg").count(), 2);
    }

    #[test]
    fn a_method_that_took_no_more_memory_is_drawn_and_listed_with_none() {
        let methods = [0_u64, 30_000_000].map(|bytes| ComparedMethod {
            peak_bytes: Some(bytes),
            ..method(&bytes.to_string(), Some(0.7), 0.5)
        });
        let view = MethodsView::of(&comparison(Metric::Accuracy, methods.to_vec()));
        assert_eq!(view.figures.len(), 2);
        let listed = MethodsView::of(&comparison(Metric::Accuracy, methods[..1].to_vec()));
        assert_eq!(listed.methods.rows[0].cells[5], size(0));
        assert!(view.methods.note.unwrap().contains("Added memory is the most that"));
    }

    #[test]
    fn without_measured_memory_there_is_no_figure_of_it() {
        let one = ComparedMethod { peak_bytes: None, ..method("one", Some(0.7), 0.5) };
        let view = MethodsView::of(&comparison(Metric::Accuracy, vec![one]));
        assert_eq!(view.figures.len(), 1);
        assert_eq!(view.methods.rows[0].cells[5], NONE);
    }
}
