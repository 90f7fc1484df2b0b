//! The metrics of a trained head on every part, beside those of a trivial baseline.

use std::path::Path;

use frostbert_cache::{durable::write_file, wording::counted};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned, ser::SerializeMap};
use serde_json::{Map, Value, json};

use crate::{
    config::names::Task,
    data::{Part, example::part_name},
    error::Result,
    metrics::{
        calibration::{TEMPERATURES, temperature_of},
        metric::Metric,
        outputs::OutputRows,
        scores::Scores,
    },
    tasks::{TaskMetrics, task_kind},
};

/// The name of the file with a run's metrics.
pub(crate) const METRICS_FILE: &str = "metrics.json";

/// The key of the scores of never answering, in a baseline of questions that may have no answer.
pub(crate) const ALWAYS_NO_ANSWER: &str = "always_no_answer";

/// What such a baseline does.
pub(crate) const NEVER_ANSWERING: &str = "never answering";

/// The metrics of a run, as written to metrics.json.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct RunMetrics {
    /// On the rows that the head was trained on; without intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TaskMetrics>,
    /// On the rows that the epoch was chosen and the head calibrated on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<TaskMetrics>,
    /// On rows that played no part in training or selection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<TaskMetrics>,
    /// A trivial baseline, scored on test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// The probability metrics on test at temperature 1, for classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_calibration: Option<Scores>,
    /// The temperature that logits are divided by, for classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The margin of "no answer" over the best span above which it is predicted, for questions that may have no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer_threshold: Option<f64>,
    /// The share of each layer in the mix, by layer, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_profile: Option<Vec<LayerShare>>,
    /// What folds over the training rows chose, where the pipeline leaves `head.C` or `head.lambda` to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<ChosenNumber>,
    /// The epoch whose weights were kept.
    pub best_epoch: usize,
    /// Number of epochs that were trained.
    pub epochs: usize,
}

impl RunMetrics {
    /// Creates the metrics of a run from those of train, validation and test, as far as they have rows, and a baseline.
    pub(crate) fn of_parts(
        [train, validation, test]: [Option<TaskMetrics>; 3],
        baseline: Option<Baseline>,
    ) -> RunMetrics {
        RunMetrics { train, validation, test, baseline, ..RunMetrics::default() }
    }

    /// Returns whether the head is no better on test than a trivial answer, by any metric that both have. A head that
    /// is the cosine itself is not on the scale of the labels, so that its errors say nothing.
    pub fn is_no_better_than_trivial(&self, is_cosine: bool) -> bool {
        use Metric::{Accuracy, EntityF1Strict, F1, MacroF1, MicroF1, Mse, TokenAccuracy};
        let (Some(test), Some(baseline)) = (&self.test, &self.baseline) else {
            return false;
        };
        let is_better = |metric: Metric| {
            let (_, trivial) = baseline.best(metric)?;
            Some(metric.is_better(test.scores().value(metric)?, trivial))
        };
        let known = [F1, EntityF1Strict, MicroF1, MacroF1, Accuracy, TokenAccuracy, Mse];
        let known = known.into_iter().filter(|metric| !is_cosine || *metric != Mse);
        let mut known = known.filter_map(is_better).peekable();
        known.peek().is_some() && !known.any(|is_better| is_better)
    }
}

/// A number of a head that folds over its training rows chose.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenNumber {
    /// Its key in `[head]`: `C` or `lambda`.
    pub key: &'static str,
    /// The number.
    pub value: f64,
    /// How many folds there were.
    pub folds: usize,
    /// What it is best by, of the numbers that were tried: the metric of the rows of all folds, each predicted by a head
    /// that did not learn from it.
    pub metric: Metric,
    /// The value of the metric.
    pub score: f64,
    /// Every number that was tried, the strongest regularisation first.
    pub tried: Vec<TriedNumber>,
}

/// A number that folds tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TriedNumber {
    /// The number.
    pub value: f64,
    /// Its value of the metric, where it has one.
    pub score: Option<f64>,
    /// The log loss of the same predictions, where they are probabilities: it decides between equal scores.
    pub loss: Option<f64>,
}

impl ChosenNumber {
    /// Which numbers may do better than all that were tried, `larger` or `smaller` ones: where the best is the last in
    /// that direction, and the one next to it is worse.
    pub fn beyond(&self) -> Option<&'static str> {
        let place = self.tried.iter().position(|tried| tried.value == self.value)?;
        let next = match place {
            0 => 1,
            last if last + 1 == self.tried.len() => last - 1,
            _ => return None,
        };
        let next = self.tried.get(next)?;
        let is_worse = next.score.is_none_or(|score| self.metric.is_better(self.score, score));
        is_worse.then_some(if self.value < next.value { "smaller" } else { "larger" })
    }

    /// The same, with errors in units of the data, where heads learned targets divided by `deviation`.
    pub(crate) fn in_units_of_data(mut self, deviation: f64) -> ChosenNumber {
        let factor = match self.metric {
            Metric::Mse => deviation * deviation,
            Metric::Mae => deviation,
            _ => return self,
        };
        self.score *= factor;
        for tried in &mut self.tried {
            tried.score = tried.score.map(|score| score * factor);
        }
        self
    }

    /// The number as it stands in metrics.json; `None` where that is something else.
    fn read(json: &Map<String, Value>) -> Option<ChosenNumber> {
        let number = |one: &Value, name: &str| one.get(name).and_then(Value::as_f64);
        let key = ["C", "lambda"].into_iter().find(|key| json.contains_key(*key))?;
        let metric = Metric::named(json.get("metric")?.as_str()?)?;
        let tried = json.get("tried")?.as_array()?.iter().map(|one| {
            Some(TriedNumber {
                value: number(one, key)?,
                score: number(one, metric.name()),
                loss: number(one, Metric::LogLoss.name()),
            })
        });
        let (folds, _) = json.get("by")?.as_str()?.split_once(' ')?;
        Some(ChosenNumber {
            key,
            value: json.get(key)?.as_f64()?,
            folds: folds.parse().ok()?,
            metric,
            score: json.get("score")?.as_f64()?,
            tried: tried.collect::<Option<_>>()?,
        })
    }
}

/// As it stands in metrics.json: the number under its key, and what chose it.
impl Serialize for ChosenNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let tried = self.tried.iter().map(|tried| {
            let mut one = json!({ self.key: tried.value, self.metric.name(): tried.score });
            if let Some(loss) = tried.loss {
                one[Metric::LogLoss.name()] = loss.into();
            }
            one
        });
        let tried: Vec<Value> = tried.collect();
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry(self.key, &self.value)?;
        map.serialize_entry("by", &counted(self.folds, "fold"))?;
        map.serialize_entry("metric", &self.metric)?;
        map.serialize_entry("score", &self.score)?;
        map.serialize_entry("tried", &tried)?;
        map.end()
    }
}

/// How much a layer takes part in a learned mix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerShare {
    /// The absolute number of the layer.
    pub layer: usize,
    /// Its share; all shares add up to 1.
    pub share: f64,
}

/// A trivial baseline and its scores on test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What the baseline predicts.
    pub description: String,
    /// Its metrics, by name.
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
}

impl Baseline {
    /// Creates a baseline from a description and metrics that serialise to a JSON object.
    pub(crate) fn new(description: String, metrics: &impl Serialize) -> Baseline {
        let metrics = match serde_json::to_value(metrics) {
            Ok(Value::Object(metrics)) => metrics,
            _ => Map::new(),
        };
        Baseline { description, metrics }
    }

    /// What a trivial answer is, and its value of a metric. Where questions may have no answer, it is the better of a
    /// random span and never answering.
    pub fn best(&self, metric: Metric) -> Option<(&str, f64)> {
        let own = self.metrics.get(metric.name()).and_then(Value::as_f64);
        match (own, self.never_answering(metric)) {
            (Some(own), Some(never)) if metric.is_better(never, own) => {
                Some((NEVER_ANSWERING, never))
            }
            (Some(own), _) => Some((self.description.as_str(), own)),
            (None, never) => Some((NEVER_ANSWERING, never?)),
        }
    }

    /// The value of a metric if no question is answered, where questions may have no answer.
    pub fn never_answering(&self, metric: Metric) -> Option<f64> {
        self.metrics.get(ALWAYS_NO_ANSWER)?.get(metric.name())?.as_f64()
    }
}

/// Fits the temperature to the validation rows.
///
/// Returns 1 if there are none, or if they do not determine a temperature: if all of them are right (or wrong), the
/// likelihood only grows towards the end of the range, and a head would claim a certainty that a few easy rows cannot
/// justify.
///
/// # Errors
/// Returns an error if the data that the logits are computed from cannot be read.
pub(crate) fn fit_temperature(labels: &[usize], logits: &dyn OutputRows) -> Result<f64> {
    let fitted = temperature_of(logits, labels)?;
    let [lowest, highest] = TEMPERATURES;
    let inside = fitted > lowest * 1.001 && fitted < highest / 1.001;
    Ok(if inside { fitted } else { 1.0 })
}

/// Writes metrics.json.
pub(crate) fn write_metrics(run: &Path, metrics: &RunMetrics) -> Result<()> {
    let path = run.join(METRICS_FILE);
    let mut json = serde_json::to_string_pretty(metrics).expect("numbers and names become JSON");
    json.push('\n');
    Ok(write_file(&path, json.as_bytes())?)
}

/// The metrics of a run of a task, from the bytes of its metrics.json.
///
/// # Errors
/// When they are none of the task.
pub(crate) fn read_metrics(task: Task, bytes: &[u8]) -> serde_json::Result<RunMetrics> {
    task_kind(task).read_metrics(bytes)
}

/// [`RunMetrics`] with the metrics of one task.
#[derive(Deserialize)]
struct MetricsOfTask<T> {
    train: Option<T>,
    validation: Option<T>,
    test: Option<T>,
    baseline: Option<Baseline>,
    before_calibration: Option<Scores>,
    temperature: Option<f64>,
    no_answer_threshold: Option<f64>,
    layer_profile: Option<Vec<LayerShare>>,
    chosen: Option<Map<String, Value>>,
    best_epoch: usize,
    epochs: usize,
}

/// Reads the metrics of a run whose parts have metrics of one kind.
pub(super) fn read_as<T: DeserializeOwned>(
    bytes: &[u8],
    of_task: fn(T) -> TaskMetrics,
) -> serde_json::Result<RunMetrics> {
    let read: MetricsOfTask<T> = serde_json::from_slice(bytes)?;
    Ok(RunMetrics {
        train: read.train.map(of_task),
        validation: read.validation.map(of_task),
        test: read.test.map(of_task),
        baseline: read.baseline,
        before_calibration: read.before_calibration,
        temperature: read.temperature,
        no_answer_threshold: read.no_answer_threshold,
        layer_profile: read.layer_profile,
        chosen: read.chosen.as_ref().and_then(ChosenNumber::read),
        best_epoch: read.best_epoch,
        epochs: read.epochs,
    })
}

/// Returns the parts of a run that have metrics, with their names.
pub fn measured_parts(metrics: &RunMetrics) -> impl Iterator<Item = (&'static str, &TaskMetrics)> {
    let parts = [
        (Part::Train, &metrics.train),
        (Part::Validation, &metrics.validation),
        (Part::Test, &metrics.test),
    ];
    parts.into_iter().filter_map(|(part, metrics)| Some((part_name(part), metrics.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(value: f64, score: f64, tried: &[(f64, Option<f64>)]) -> ChosenNumber {
        let tried = tried.iter().map(|(value, score)| {
            let (value, score) = (*value, *score);
            TriedNumber { value, score, loss: score.map(|score| 1.0 - score) }
        });
        let (key, metric, tried) = ("C", Metric::MacroF1, tried.collect());
        ChosenNumber { key, value, folds: 5, metric, score, tried }
    }

    #[test]
    fn a_number_at_the_edge_of_those_that_were_tried_is_told_where_its_neighbour_is_worse() {
        let beyond = |value: f64, scores: [f64; 3]| {
            let tried: Vec<(f64, Option<f64>)> =
                [0.1, 1.0, 10.0].into_iter().zip(scores.map(Some)).collect();
            let score = scores.into_iter().fold(0.0, f64::max);
            chosen(value, score, &tried).beyond()
        };
        assert_eq!(beyond(10.0, [0.1, 0.2, 0.3]), Some("larger"));
        assert_eq!(beyond(0.1, [0.3, 0.2, 0.1]), Some("smaller"));
        assert_eq!(beyond(1.0, [0.1, 0.3, 0.2]), None);
        assert_eq!(beyond(0.1, [0.3, 0.3, 0.3]), None, "all are as good");
        // Of lambda the strongest is the largest.
        let tried = [(10.0, Some(0.5)), (1.0, None)];
        assert_eq!(chosen(10.0, 0.5, &tried).beyond(), Some("larger"));
        assert_eq!(chosen(10.0, 0.5, &tried[..1]).beyond(), None);
    }

    #[test]
    fn errors_that_chose_a_number_are_told_in_units_of_the_data() {
        let told = |metric: Metric| {
            let tried = [(1.0, Some(0.5)), (10.0, Some(0.25)), (100.0, None)];
            let chosen = ChosenNumber { metric, ..chosen(10.0, 0.25, &tried) };
            let told = chosen.in_units_of_data(4.0);
            (told.value, told.score, told.tried.iter().map(|tried| tried.score).collect::<Vec<_>>())
        };
        assert_eq!(told(Metric::Mse), (10.0, 4.0, vec![Some(8.0), Some(4.0), None]));
        assert_eq!(told(Metric::Mae), (10.0, 1.0, vec![Some(2.0), Some(1.0), None]));
        assert_eq!(told(Metric::Spearman), (10.0, 0.25, vec![Some(0.5), Some(0.25), None]));
    }

    #[test]
    fn a_chosen_number_stands_in_json_under_its_key() {
        let chosen = chosen(10.0, 0.75, &[(1.0, None), (10.0, Some(0.75))]);
        let expected = json!({
            "C": 10.0,
            "by": "5 folds",
            "metric": "macro_f1",
            "score": 0.75,
            "tried": [
                { "C": 1.0, "macro_f1": null },
                { "C": 10.0, "macro_f1": 0.75, "log_loss": 0.25 },
            ],
        });
        assert_eq!(serde_json::to_value(&chosen).unwrap(), expected);
        assert_eq!(ChosenNumber::read(expected.as_object().unwrap()), Some(chosen));
        let metrics = json!({ "chosen": expected, "best_epoch": 0, "epochs": 0 }).to_string();
        let read = read_metrics(Task::Classification, metrics.as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(read.chosen).unwrap(), expected);
        assert_eq!(ChosenNumber::read(&Map::new()), None);
    }

    #[test]
    fn the_better_of_two_trivial_answers_to_questions_is_what_a_head_is_held_against() {
        let metrics = |f1: f64, never: f64| {
            let json = json!({
                "test": { "exact_match": f1, "f1": f1, "n": 10 },
                "baseline": {
                    "description": "a random span", "exact_match": 0.0, "f1": 0.25,
                    "always_no_answer": { "exact_match": never, "f1": never },
                },
                "best_epoch": 1,
                "epochs": 1,
            });
            read_metrics(Task::Qa, json.to_string().as_bytes()).unwrap()
        };
        let best = |never: f64| {
            let baseline = metrics(0.5, never).baseline.unwrap();
            let (what, f1) = baseline.best(Metric::F1).unwrap();
            (what.to_string(), f1)
        };
        assert_eq!(best(0.5), (NEVER_ANSWERING.to_string(), 0.5));
        assert_eq!(best(0.125), ("a random span".to_string(), 0.25));
        assert!(metrics(0.5, 0.5).is_no_better_than_trivial(false));
        assert!(!metrics(0.5, 0.375).is_no_better_than_trivial(false));
        assert!(metrics(0.25, 0.125).is_no_better_than_trivial(false));
        let none = RunMetrics { baseline: None, ..metrics(0.25, 0.5) };
        assert!(!none.is_no_better_than_trivial(false));
        assert_eq!(metrics(0.5, 0.5).baseline.unwrap().best(Metric::Accuracy), None);
    }

    #[test]
    fn a_cosine_is_not_judged_by_errors_on_the_scale_of_the_labels() {
        let json = r#"{"test":{"spearman":0.9,"mse":5.0,"n":12},
            "baseline":{"description":"always 2.000, train's mean","mse":1.5},"best_epoch":0,"epochs":0}"#;
        let metrics = read_metrics(Task::Similarity, json.as_bytes()).unwrap();
        assert!(!metrics.is_no_better_than_trivial(true));
        assert!(metrics.is_no_better_than_trivial(false));
    }

    #[test]
    fn metrics_are_read_back_by_their_task() {
        let json = r#"{"test":{"spearman":0.5,"spearman_ci":[0.25,0.75],"n":12},
            "baseline":{"description":"always 2.000, train's mean","value":2.0,"mse":1.5},
            "best_epoch":3,"epochs":5}"#;
        let metrics = read_metrics(Task::Similarity, json.as_bytes()).unwrap();
        let again = serde_json::to_string(&metrics).unwrap();
        let read = read_metrics(Task::Regression, again.as_bytes()).unwrap();
        let test = read.test.unwrap();
        assert!(matches!(test, TaskMetrics::Regression(_)));
        assert_eq!(test.scores().interval(Metric::Spearman), Some([0.25, 0.75]));
        let baseline = read.baseline.unwrap();
        assert_eq!(baseline.metrics["mse"], 1.5);
        assert_eq!((read.train, read.best_epoch, read.epochs), (None, 3, 5));
    }
}
