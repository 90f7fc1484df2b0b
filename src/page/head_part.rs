//! The head: what it was set to, how it was trained, which layers it reads, and what it cost.

use frostbert_cache::wording::counted;
use serde::Serialize;

use super::{
    csv_table::CsvTable,
    numbers::{decimal, grouped, percent, short, size, with_interval},
    run_files::RunFiles,
    table::{Bar, Figure, TableView, bars},
};
use crate::{
    config::settings::{changed_settings, show},
    encoder::checkpoint::Checkpoint,
    error::Result,
    head::{network::Network, size::training_bytes},
    metrics::metric::Metric,
    report::chart::{Axis, BLUE, Chart, Curve, GREY},
    tasks::{measure::ChosenNumber, own_metric},
};

/// The third part of a page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct HeadView {
    /// What it is, in words.
    pub(super) facts: Vec<(&'static str, String)>,
    /// The values that are not the defaults.
    pub(super) settings: Option<TableView>,
    /// The values of C or lambda that folds tried.
    pub(super) tried: Option<TableView>,
    pub(super) curves: Vec<Figure>,
    /// The share of each layer in the mix.
    pub(super) layers: Vec<Bar>,
    pub(super) cost: TableView,
}

impl HeadView {
    /// # Errors
    /// When the lock holds no pipeline.
    pub(super) fn of(run: &RunFiles) -> Result<HeadView> {
        Ok(HeadView {
            facts: facts(run),
            settings: settings(run)?,
            tried: run.metrics.chosen.as_ref().and_then(tried),
            curves: curves(run),
            layers: layers(run),
            cost: cost(run),
        })
    }
}

fn facts(run: &RunFiles) -> Vec<(&'static str, String)> {
    let head = &run.head;
    let metrics = &run.metrics;
    let states: Vec<String> = head.states.iter().map(ToString::to_string).collect();
    let outputs = match run.labels().len() {
        0 => None,
        n => Some(counted(n, "class")),
    };
    let mut facts = vec![
        ("kind", head.kind.clone()),
        ("reads", format!("{} ({})", head.pooling, states.join(", "))),
        ("model", run.lock.base_model().to_string()),
    ];
    facts.extend(outputs.map(|outputs| ("predicts", outputs)));
    facts.push((
        "epochs",
        match metrics.epochs {
            0 => "none: it was fitted in one go".into(),
            epochs => format!("{} of {epochs} kept", metrics.best_epoch),
        },
    ));
    let temperature = metrics.temperature.filter(|temperature| *temperature != 1.0);
    facts.extend(temperature.map(|t| ("temperature", format!("{t:.2}, fitted on validation"))));
    let chosen = metrics.chosen.as_ref();
    facts.extend(chosen.map(|own| {
        (own.key, format!("{}, chosen by {}", short(own.value), counted(own.folds, "fold")))
    }));
    let threshold = metrics.no_answer_threshold;
    facts.extend(
        threshold
            .map(|t| ("no answer", format!("where its score is {t:.2} above the best span's"))),
    );
    facts.extend(
        head.label_column.clone().map(|column| ("learned from", format!("column {column}"))),
    );
    facts
}

fn settings(run: &RunFiles) -> Result<Option<TableView>> {
    let mut table = TableView::new(&["key", "value"], &[]);
    for (key, value) in changed_settings(run.file())? {
        table.push([key, show(&value)]);
    }
    Ok(table.if_any())
}

/// The numbers that folds tried, with what each scored; the one that they chose stands out.
fn tried(chosen: &ChosenNumber) -> Option<TableView> {
    let metric = chosen.metric.in_words();
    let loss = Metric::LogLoss.in_words();
    let has_losses =
        chosen.metric != Metric::LogLoss && chosen.tried.iter().any(|one| one.loss.is_some());
    let numbers: Vec<&str> = [Some(metric.as_str()), has_losses.then_some(loss.as_str())]
        .into_iter()
        .flatten()
        .collect();
    let mut table = TableView::new(&[chosen.key], &numbers);
    for one in &chosen.tried {
        let mut cells = vec![short(one.value), with_interval(one.score, None)];
        cells.extend(has_losses.then(|| with_interval(one.loss, None)));
        table.push_row(cells, one.value == chosen.value);
    }
    let beyond = chosen.beyond().map_or(String::new(), |which| {
        format!(" The one that was chosen is the last: {which} ones may do better.")
    });
    table.note = Some(format!(
        "On the rows that the head learned from, each predicted by a head of {} that did not see it.{beyond}",
        counted(chosen.folds, "fold")
    ));
    table.if_any()
}

fn curves(run: &RunFiles) -> Vec<Figure> {
    let Some(history) = &run.history else {
        return Vec::new();
    };
    let epochs = history.numbers("epoch").unwrap_or_default();
    let points = |name: &str| -> Vec<(f64, f64)> {
        let values = history.numbers(name).unwrap_or_default();
        epochs.iter().zip(values).filter_map(|(epoch, value)| Some(((*epoch)?, value?))).collect()
    };
    if epochs.len() < 2 {
        return Vec::new();
    }
    let kept = run.metrics.best_epoch as f64;
    let axis = Axis::over(1.0..epochs.len() as f64);
    let chart = |y_label: &str, curves: Vec<Curve>| Chart {
        title: String::new(),
        x_label: "epoch".into(),
        y_label: y_label.into(),
        x: axis.clone(),
        y: None,
        mark: Some(kept),
        legend: None,
        curves,
    };
    let has_dots = epochs.len() <= 30;
    let curve = |name: &str, color, points: Vec<(f64, f64)>| {
        (!points.is_empty()).then(|| Curve { has_dots, ..Curve::new(name, color, points) })
    };
    let losses = [
        curve("train", GREY, points("train_loss")),
        curve("validation", BLUE, points("validation_loss")),
    ];
    let mut figures = vec![Figure::new(
        "Loss by epoch",
        format!(
            "The loss after each of {}; the line marks epoch {kept}, which was kept.",
            counted(epochs.len(), "epoch")
        ),
        chart("loss", losses.into_iter().flatten().collect()),
        by_epoch(history, &["train_loss", "validation_loss"]),
    )];
    let followed = history.names.iter().filter_map(|name| {
        let metric = Metric::named(name.strip_prefix("validation_")?)?;
        (metric != Metric::Loss).then_some((name, metric))
    });
    let own = own_metric(run.task(), run.labels());
    let followed: Vec<_> = followed.collect();
    let shown = followed.iter().find(|(_, metric)| *metric == own).or(followed.first());
    if let Some((name, metric)) = shown {
        let values = points(name);
        if values.len() > 1 {
            let words = metric.in_words();
            figures.push(Figure::new(
                format!("Validation {words} by epoch"),
                format!("{words} on the validation rows after each epoch; the line marks epoch {kept}, which was kept."),
                chart(&words, curve("", BLUE, values).into_iter().collect()),
                by_epoch(history, &[name.as_str()]),
            ));
        }
    }
    figures
}

fn by_epoch(history: &CsvTable, names: &[&str]) -> TableView {
    let shown: Vec<String> = names.iter().map(|name| name.replace('_', " ")).collect();
    let titles: Vec<&str> =
        std::iter::once("epoch").chain(shown.iter().map(String::as_str)).collect();
    let mut table = TableView::new(&[], &titles);
    let columns: Vec<Vec<Option<f64>>> =
        names.iter().map(|name| history.numbers(name).unwrap_or_default()).collect();
    for (row, epoch) in history.column("epoch").unwrap_or_default().into_iter().enumerate() {
        let cells = columns
            .iter()
            .map(|column| decimal(column.get(row).copied().flatten().unwrap_or(f64::NAN)));
        table.push_row(std::iter::once(epoch.to_string()).chain(cells).collect(), false);
    }
    table
}

fn layers(run: &RunFiles) -> Vec<Bar> {
    let shares = run.metrics.layer_profile.iter().flatten();
    let shares = shares.map(|layer| (layer.layer.to_string(), percent(layer.share), layer.share));
    bars(shares)
}

/// What was trained, beside all of the encoder.
fn cost(run: &RunFiles) -> TableView {
    let mut table = TableView::new(&["what is trained"], &["parameters", "memory to train"]);
    let trained =
        run.head.network.clone().map_or(0, |spec| Network::new(spec).n_parameters() as u64);
    let mut push = |name: String, parameters: u64| {
        table.push([name, grouped(parameters), size(training_bytes(parameters))]);
    };
    push(format!("this head ({})", run.head.kind), trained);
    match encoder_parameters(run) {
        Some(encoder) => {
            push("all of the encoder and the head".into(), encoder + trained);
            let times = (encoder + trained) as f64 / trained.max(1) as f64;
            if trained > 0 {
                table.note = Some(format!(
                    "Fine-tuning would train {} times the parameters. Memory: weights, gradients and Adam's two moments in \
                     f32, 16 bytes a parameter; activations come on top.",
                    grouped(times.round() as u64)
                ));
            }
        }
        None if run.lock.model.is_none() => {
            table.note =
                Some("The vectors come from another model, whose size is not known here.".into());
        }
        None => {
            table.note = Some(
                "The model is not where the run found it: its own size is not known here.".into(),
            );
        }
    }
    table
}

/// Parameters of the run's model, where it is still there.
fn encoder_parameters(run: &RunFiles) -> Option<u64> {
    run.lock.model.as_ref()?;
    let places = run.places().of_model(&run.file().model.path);
    let folder = places.into_iter().find(|place| place.is_dir())?;
    let lowercase = run.lock.pipeline.model.lowercase;
    let checkpoint = Checkpoint::open_with_lowercase(&folder, lowercase).ok()?;
    if run.lock.model.as_ref() != Some(&checkpoint.hashes) {
        return None;
    }
    checkpoint.parameters().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::measure::TriedNumber;

    #[test]
    fn the_number_that_folds_chose_stands_out_among_those_they_tried() {
        let one = |value, score, loss| TriedNumber { value, score, loss };
        let mut chosen = ChosenNumber {
            key: "C",
            value: 10.0,
            folds: 5,
            metric: Metric::MacroF1,
            score: 0.75,
            tried: vec![one(1.0, Some(0.5), Some(0.25)), one(10.0, Some(0.75), None)],
        };
        let table = tried(&chosen).unwrap();
        assert_eq!(table.rows[0].cells, ["1", "0.500", "0.250"]);
        assert!(table.rows[1].is_marked && !table.rows[0].is_marked);
        assert!(table.note.unwrap().ends_with("is the last: larger ones may do better."));
        chosen.tried[0].loss = None;
        assert_eq!(tried(&chosen).unwrap().columns.len(), 2);
        chosen.tried.clear();
        assert!(tried(&chosen).is_none());
    }
}
