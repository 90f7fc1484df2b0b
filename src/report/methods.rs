//! Ways to train on one cache, compared on the same rows: what each scores, and what it takes.

use std::path::PathBuf;

use frostbert_cache::wording::counted;
use serde::Serialize;

use crate::metrics::metric::Metric;

/// Methods side by side.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MethodComparison {
    /// The name of the task.
    pub task: String,
    /// The folder of the model.
    pub model: String,
    /// What is compared.
    pub metric: Metric,
    /// Number of heads of each method that depends on a seed.
    pub seeds: usize,
    /// Number of rows that heads are trained on.
    pub train: usize,
    /// Number of rows that choose the epoch.
    pub validation: usize,
    /// Number of rows that heads are measured on.
    pub test: usize,
    /// Number of texts that were encoded; the others were in the cache.
    pub encoded: u64,
    /// Wall time of that, once for all methods.
    pub encoding_seconds: f64,
    /// The methods, in the order in which they were asked for.
    #[serde(rename = "rows")]
    pub methods: Vec<ComparedMethod>,
    /// What training everything would need.
    pub fine_tuning: FineTuningCost,
    /// The page that shows it.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub report: PathBuf,
}

/// What a method scores, and what it takes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ComparedMethod {
    /// Its name, as it is asked for.
    pub method: String,
    /// Its name in words.
    #[serde(skip)]
    pub title: String,
    /// The kind of its heads.
    pub kind: String,
    /// Number of the encoder's layers that are trained.
    pub unfreeze: usize,
    /// What its value is of.
    pub metric: Metric,
    /// The metric on the test rows, as the mean over its heads; none if one diverged, or if it is undefined.
    pub value: Option<f64>,
    /// The 95 % bootstrap interval of that mean over the test rows.
    #[serde(rename = "ci")]
    pub interval: Option<[f64; 2]>,
    /// The metric of each head.
    pub values: Vec<Option<f64>>,
    /// Their standard deviation (ddof 1).
    pub std: Option<f64>,
    /// Number of heads whose training diverged.
    pub diverged: usize,
    /// Number of epochs, as a mean over its heads; 0 for a fit in full batch.
    pub epochs: f64,
    /// Wall time of the training of a head with the validation after each epoch, as a mean over its heads.
    pub seconds: f64,
    /// The most resident memory that training and measuring the heads took beyond what the program held before; none
    /// where the system does not measure it. What an earlier method freed and the allocator kept can be used again, and
    /// is not counted then.
    pub peak_bytes: Option<u64>,
    /// Number of trained parameters.
    pub trainable: u64,
    /// Memory of these parameters with Adam, computed: see [`crate::head::size::training_bytes`].
    pub training_bytes: u64,
}

/// What full fine-tuning would need, computed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct FineTuningCost {
    /// Number of parameters of the encoder and a linear head.
    pub trainable: u64,
    /// Memory of these parameters with Adam; activations come on top.
    pub training_bytes: u64,
    /// A lower bound of the seconds: those of all layers above the embeddings, if these were trained.
    pub least_seconds: Option<f64>,
}

impl MethodComparison {
    /// What the figures are of, and the methods that stand out, in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let metric = self.metric.in_words();
        let mut sentences = vec![format!(
            "The {metric} of each method on {}, as the mean of {} (a fit in full batch is one), with its 95 % interval \
             over these rows.",
            counted(self.test, "test row"),
            counted(self.seeds, "head"),
        )];
        let scored = || {
            let scored = self.methods.iter().filter_map(|method| Some((method, method.value?)));
            scored.filter(|(_, value)| value.is_finite())
        };
        let better = |one: &(&ComparedMethod, f64), other: &(&ComparedMethod, f64)| {
            self.metric.is_better(other.1, one.1)
        };
        let best = scored().reduce(|best, next| if better(&best, &next) { next } else { best });
        let Some((best, value)) = best else {
            return sentences;
        };
        sentences.push(format!("The best is {}: {value:.3}.", best.title));
        let reaches = |method: &ComparedMethod| {
            let interval = method.interval;
            interval.is_some_and(|[low, high]| {
                if self.metric.higher_is_better() { high >= value } else { low <= value }
            })
        };
        let reaching = scored().map(|(method, _)| method).filter(|method| reaches(method));
        let fastest = reaching.min_by(|one, other| one.seconds.total_cmp(&other.seconds));
        if let Some(fastest) = fastest.filter(|fastest| fastest.method != best.method) {
            sentences.push(format!(
                "The fastest whose interval reaches that is {}, in {} of the time.",
                fastest.title,
                share(fastest.seconds, best.seconds)
            ));
        }
        sentences
    }
}

/// What the memory of the methods counts, for people.
pub const PEAK_COUNTS: &str = "the most that the heads of a method took beyond what the program held before, while \
                               their states were read and they were trained and measured; memory that an earlier \
                               method freed and the program kept is used again without being counted";

/// One number as a share of another.
fn share(part: f64, whole: f64) -> String {
    let percent = 100.0 * part / whole.max(f64::MIN_POSITIVE);
    if percent < 1.0 { "less than 1 %".into() } else { format!("{percent:.0} %") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn method(name: &str, value: Option<f64>, seconds: f64) -> ComparedMethod {
        ComparedMethod {
            method: name.into(),
            title: name.into(),
            kind: "linear".into(),
            unfreeze: 0,
            metric: Metric::Accuracy,
            value,
            interval: value.map(|value| [value - 0.02, value + 0.02]),
            values: vec![value],
            std: None,
            diverged: 0,
            epochs: 4.0,
            seconds,
            peak_bytes: Some(200_000_000),
            trainable: 99,
            training_bytes: 1584,
        }
    }

    pub(crate) fn comparison(metric: Metric, methods: Vec<ComparedMethod>) -> MethodComparison {
        MethodComparison {
            task: "classification".into(),
            model: "models/<b>".into(),
            metric,
            seeds: 3,
            train: 80,
            validation: 20,
            test: 20,
            encoded: 120,
            encoding_seconds: 0.5,
            methods,
            fine_tuning: FineTuningCost {
                trainable: 20_000,
                training_bytes: 320_000,
                least_seconds: Some(9.0),
            },
            report: "methods.html".into(),
        }
    }

    #[test]
    fn the_best_and_the_fastest_that_may_be_as_good_are_named() {
        let methods = || {
            vec![
                method("a", Some(0.80), 0.1),
                method("b", Some(0.83), 2.0),
                method("c", Some(0.84), 10.0),
                method("d", None, 0.01),
            ]
        };
        let said = comparison(Metric::Accuracy, methods()).sentences().join(" ");
        assert!(said.contains("The best is c: 0.840."), "{said}");
        assert!(said.contains("interval reaches that is b, in 20 % of the time"), "{said}");
        // Of an error, less is better.
        let said = comparison(Metric::Mse, methods()).sentences().join(" ");
        assert!(said.contains("The best is a: 0.800."), "{said}");
        assert!(!said.contains("The fastest"), "{said}");
        assert_eq!(comparison(Metric::Mse, vec![method("d", None, 1.0)]).sentences().len(), 1);
    }
}
