//! Ways to train on one cache, compared on the same rows: what each scores, and what it takes.

use std::path::PathBuf;

use frostbert_cache::wording::counted;
use serde::Serialize;

use crate::{
    metrics::{
        comparison::{holm, paired_bootstrap},
        intervals::interval,
        metric::Metric,
    },
    selection::leaderboard::SIGNIFICANCE,
};

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
    /// Its value minus that of the best method; none for the best itself, or without a value.
    pub difference: Option<f64>,
    /// The 95 % bootstrap interval of the difference, with both methods on the same draws of the test rows.
    #[serde(rename = "difference_ci")]
    pub difference_interval: Option<[f64; 2]>,
    /// The probability of a difference at least as far from 0 between equally good methods: the paired bootstrap test.
    pub p_value: Option<f64>,
    /// The p-value adjusted by Holm's method, over all methods but the best.
    pub p_adjusted: Option<f64>,
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
    /// The peak of the program's resident memory while the states were read and the heads were trained and measured;
    /// none where the system does not measure it. It begins anew with each method, at what the program holds then:
    /// what an earlier method freed and the allocator kept is part of it.
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
        let Some((place, value)) = best_of(&self.methods, self.metric) else {
            return sentences;
        };
        let best = &self.methods[place];
        sentences.push(format!("The best is {}: {value:.3}.", best.title));
        let is_as_good =
            |method: &&ComparedMethod| method.p_adjusted.is_some_and(|p| p > SIGNIFICANCE);
        let others = self.methods.iter().filter(is_as_good);
        let fastest = others.min_by(|one, other| one.seconds.total_cmp(&other.seconds));
        if let Some(fastest) = fastest.filter(|fastest| fastest.seconds < best.seconds) {
            sentences.push(format!(
                "The fastest that is not significantly worse (paired bootstrap on the same rows, p above \
                 {SIGNIFICANCE} after Holm's method) is {}, in {} of the time.",
                fastest.title,
                share(fastest.seconds, best.seconds)
            ));
        }
        sentences
    }
}

/// Compares each method with the best one. `drawn` holds the values of each on the draws of a bootstrap, which are the
/// same for all.
pub(crate) fn compare_with_best(
    methods: &mut [ComparedMethod],
    metric: Metric,
    drawn: &[Vec<Option<f64>>],
) {
    let Some((best, of_best)) = best_of(methods, metric) else {
        return;
    };
    for (place, method) in methods.iter_mut().enumerate() {
        let Some(value) = method.value.filter(|_| place != best) else {
            continue;
        };
        let draws = || {
            let pairs = drawn[place].iter().zip(&drawn[best]);
            pairs.map(|(own, of_best)| Some((*own)? - (*of_best)?))
        };
        method.difference = Some(value - of_best);
        method.difference_interval = interval(draws());
        method.p_value = paired_bootstrap(value - of_best, draws());
    }
    let known: Vec<f64> = methods.iter().filter_map(|method| method.p_value).collect();
    let mut adjusted = holm(&known).into_iter();
    for method in methods {
        method.p_adjusted = method.p_value.and_then(|_| adjusted.next());
    }
}

/// The place of the best method and its value; the first of several.
fn best_of(methods: &[ComparedMethod], metric: Metric) -> Option<(usize, f64)> {
    let values = methods.iter().enumerate();
    let values = values.filter_map(|(place, method)| Some((place, method.value?)));
    let finite = values.filter(|(_, value)| value.is_finite());
    finite.reduce(|best, next| if metric.is_better(next.1, best.1) { next } else { best })
}

/// What the memory of the methods counts, for people.
pub const PEAK_COUNTS: &str = "the peak memory of the program while the states of a method were read and its heads \
                               trained and measured, with all that the program holds besides; what an earlier method \
                               freed and the system did not get back is counted too";

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
            difference: None,
            difference_interval: None,
            p_value: None,
            p_adjusted: None,
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
        // What all methods share cancels; what is left makes b one that may be as good as c, and a none.
        let draws = |value: f64, noise: f64| -> Vec<Option<f64>> {
            let own = |draw: i32| noise * f64::from(draw % 3 - 1);
            let shared = |draw: i32| 0.1 * f64::from(draw / 3 % 3 - 1);
            (0..30).map(|draw| Some(value + shared(draw) + own(draw))).collect()
        };
        let drawn = [draws(0.80, 0.005), draws(0.83, 0.02), draws(0.84, 0.0), vec![None; 30]];
        let mut compared = methods();
        compare_with_best(&mut compared, Metric::Accuracy, &drawn);
        let [a, b, c, d] = &compared[..] else { panic!("four methods") };
        assert!((b.difference.unwrap() + 0.01).abs() < 1e-12);
        let [low, high] = b.difference_interval.unwrap();
        assert!((low + 0.03).abs() < 1e-12 && (high - 0.01).abs() < 1e-12, "{low} {high}");
        // 0.01 is 0.602 standard deviations.
        let [of_a, of_b] = [a, b].map(|method| method.p_value.unwrap());
        assert!((of_b - 0.547).abs() < 1e-3 && of_a < 1e-9, "{of_a} {of_b}");
        assert_eq!([a, b].map(|method| method.p_adjusted), [Some(2.0 * of_a), Some(of_b)]);
        for method in [c, d] {
            assert_eq!((method.difference, method.p_value, method.p_adjusted), (None, None, None));
        }
        let said = comparison(Metric::Accuracy, compared).sentences().join(" ");
        assert!(said.contains("The best is c: 0.840."), "{said}");
        assert!(said.contains("Holm's method) is b, in 20 % of the time"), "{said}");
        assert!(!comparison(Metric::Accuracy, methods()).sentences().join(" ").contains("fastest"));
        // Of an error, less is better: the best is the fastest too.
        let mut errors = methods();
        compare_with_best(&mut errors, Metric::Mse, &drawn);
        let said = comparison(Metric::Mse, errors).sentences().join(" ");
        assert!(said.contains("The best is a: 0.800."), "{said}");
        assert!(!said.contains("The fastest"), "{said}");
        assert_eq!(comparison(Metric::Mse, vec![method("d", None, 1.0)]).sentences().len(), 1);
    }
}
