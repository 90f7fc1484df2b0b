//! The predictions of a head for each row of a split, as compact as the metrics allow, so that any metric can be
//! recomputed on a resample of the rows for hundreds of heads.

mod probabilities;

use std::sync::Arc;

use ndarray::ArrayView2;

use self::probabilities::ProbabilityStatistics;
use super::{
    counts::{ClassCounts, defined_ratio, f1},
    metric::Metric,
    multilabel::RowDecisions,
    probability::weighted_mean,
    regression::OrderedRows,
    span::{AnsweredQuestion, best_over_gold},
    tag_scheme::TagScheme,
    tagging::{CountedSentences, TaggedSentence, no_counts},
};

/// The predictions of one head for n rows, with the truth. A row is a text, a tagged sentence, or a question.
///
/// Created by the constructor for the task; read by [`RowStatistics::score`].
pub struct RowStatistics {
    kind: Statistics,
}

enum Statistics {
    Classes {
        gold: Arc<Vec<u32>>,
        predicted: Vec<u32>,
        n_classes: usize,
    },
    Labels(RowDecisions),
    /// `None` if a number is not finite.
    Values(Option<OrderedRows>, usize),
    Sentences {
        counts: Vec<SentenceSums>,
        has_entities: bool,
    },
    Tags(TagCounts),
    Means {
        n_rows: usize,
        metrics: Vec<(Metric, Vec<f64>)>,
    },
    Probabilities(ProbabilityStatistics),
}

/// Right words and all words; correct, predicted and actual entities, in the strict reading and in that of conlleval.
struct SentenceSums {
    words: [u32; 2],
    strict: [u32; 3],
    conlleval: [u32; 3],
}

/// Correct, predicted and actual words of each tag that occurs in a sentence.
struct TagCounts {
    n_labels: usize,
    counts: Vec<(u32, [u32; 3])>,
    /// The position in `counts` at which each sentence ends.
    ends: Vec<usize>,
}

impl RowStatistics {
    /// Statistics of one class for each row: `accuracy`, `macro_f1`, `micro_f1`, `weighted_f1`, `mcc`, as defined in
    /// [`counts`](super::counts). The true classes can be shared by all heads. Takes 4 bytes per row.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use frostbert::internals::metrics::metric::Metric;
    /// use frostbert::internals::metrics::row_statistics::RowStatistics;
    ///
    /// let gold = Arc::new(vec![0, 0, 1, 1]);
    /// let statistics = RowStatistics::classes(gold, vec![0, 1, 1, 1], 2);
    /// assert_eq!(statistics.score(Metric::Accuracy, None), Some(0.75));
    /// assert_eq!(statistics.score(Metric::Accuracy, Some(&[1, 3, 0, 0])), Some(0.25));
    /// assert_eq!(statistics.score(Metric::Spearman, None), None);
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if there is not one prediction for each row, or a class is not below `n_classes`.
    pub fn classes(gold: Arc<Vec<u32>>, predicted: Vec<u32>, n_classes: usize) -> Self {
        assert_eq!(gold.len(), predicted.len(), "one prediction for each row");
        let highest = gold.iter().chain(&predicted).max();
        assert!(
            highest.is_none_or(|&class| (class as usize) < n_classes),
            "class {highest:?} is below {n_classes}"
        );
        Self { kind: Statistics::Classes { gold, predicted, n_classes } }
    }

    /// Statistics of label sets, both `[n, n_labels]`: `accuracy`, `macro_f1`, `micro_f1`, `weighted_f1`, `samples_f1`,
    /// as defined in [`multilabel`](super::multilabel). Takes 24 bytes per row, and 8 for each label that the row has
    /// or gets.
    ///
    /// # Panics
    ///
    /// Panics if the two differ in shape.
    pub fn labels(gold: ArrayView2<bool>, predicted: ArrayView2<bool>) -> Self {
        assert_eq!(gold.dim(), predicted.dim(), "one decision for each label");
        Self {
            kind: Statistics::Labels(RowDecisions::from_decisions(gold, |row, label| {
                predicted[[row, label]]
            })),
        }
    }

    /// Statistics of numbers: `spearman`, `pearson`, `mse`, `mae`, as defined in [`regression`](super::regression); all
    /// are undefined if a number is not finite. Takes up to 32 bytes per row.
    ///
    /// # Panics
    ///
    /// Panics if there is not one prediction for each row, or there are more than `u32::MAX` rows.
    pub fn values(gold: &[f64], predicted: &[f64]) -> Self {
        assert_eq!(gold.len(), predicted.len(), "one prediction for each row");
        assert!(u32::try_from(gold.len()).is_ok(), "at most u32::MAX rows");
        let is_finite = gold.iter().chain(predicted).all(|value| value.is_finite());
        Self {
            kind: Statistics::Values(
                is_finite.then(|| OrderedRows::new(gold, predicted)),
                gold.len(),
            ),
        }
    }

    /// Statistics of tagged sentences, one row each: `token_accuracy`, `entity_f1_strict` with its precision and recall,
    /// `entity_f1_conlleval`, as defined in [`tagging`](super::tagging). Takes 32 bytes per sentence. For the F1 of tags
    /// see [`RowStatistics::tags`].
    ///
    /// # Panics
    ///
    /// Panics if [`tagging::evaluate`](super::tagging::evaluate) would.
    pub fn sentences(sentences: &[TaggedSentence], labels: &[String]) -> Self {
        let scheme = TagScheme::new(labels);
        let split = CountedSentences::new(sentences, labels, scheme.as_ref(), |_, _, _| ());
        let small = |counts: [u64; 3]| counts.map(|count| count as u32);
        let counts = split.sentences.iter().map(|sentence| {
            let right = sentence.tags.iter().map(|(_, [correct, ..])| correct);
            let actual = sentence.tags.iter().map(|(_, [.., actual])| actual);
            let [strict, conlleval] = [&sentence.strict, &sentence.conlleval];
            SentenceSums {
                words: [right.sum::<u64>() as u32, actual.sum::<u64>() as u32],
                strict: small([strict.correct, strict.predicted, strict.actual]),
                conlleval: small([conlleval.correct, conlleval.predicted, conlleval.actual]),
            }
        });
        Self {
            kind: Statistics::Sentences {
                counts: counts.collect(),
                has_entities: scheme.is_some(),
            },
        }
    }

    /// Statistics of tagged sentences, one row each: `token_accuracy`, and `macro_f1` and `weighted_f1` over tags, in
    /// words. Takes 8 bytes per sentence, and 16 for each different tag that the sentence has or gets.
    ///
    /// # Panics
    ///
    /// Panics if [`tagging::evaluate`](super::tagging::evaluate) would.
    pub fn tags(sentences: &[TaggedSentence], labels: &[String]) -> Self {
        let split = CountedSentences::new(sentences, labels, None, |_, _, _| ());
        let mut tags = TagCounts {
            n_labels: labels.len(),
            counts: Vec::new(),
            ends: Vec::with_capacity(sentences.len()),
        };
        for sentence in &split.sentences {
            let small =
                |&(tag, counts): &(usize, [u64; 3])| (tag as u32, counts.map(|count| count as u32));
            tags.counts.extend(sentence.tags.iter().map(small));
            tags.ends.push(tags.counts.len());
        }
        Self { kind: Statistics::Tags(tags) }
    }

    /// Statistics of answers to questions, one row each: `exact_match` and `f1`, as defined in [`span`](super::span).
    /// Takes 16 bytes per question.
    pub fn answers(questions: &[AnsweredQuestion]) -> Self {
        let (exact, f1) = questions.iter().map(best_over_gold).unzip();
        Self::means(vec![(Metric::ExactMatch, exact), (Metric::F1, f1)])
    }

    /// Statistics of class probabilities `[n, C]`: `log_loss`, `brier` and `ece` as defined in
    /// [`probability`](super::probability), in 25 bytes per row; or, if `metric` is `roc_auc`, only that metric as
    /// defined in [`ranking`](super::ranking), in a little more than 4 bytes for each row and class.
    ///
    /// ```
    /// use frostbert::internals::metrics::metric::Metric;
    /// use frostbert::internals::metrics::row_statistics::RowStatistics;
    /// use ndarray::array;
    ///
    /// let probabilities = array![[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]];
    /// let statistics = RowStatistics::class_probabilities(Metric::RocAuc, &[0, 0, 1, 1], probabilities.view());
    /// assert_eq!(statistics.score(Metric::RocAuc, None), Some(0.75));
    /// assert_eq!(statistics.score(Metric::RocAuc, Some(&[3, 0, 0, 1])), Some(1.0));
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if there is not one row for each class of `gold`, or if one of these is not below C.
    pub fn class_probabilities(
        metric: Metric,
        gold: &[u32],
        probabilities: ArrayView2<f32>,
    ) -> Self {
        Self {
            kind: Statistics::Probabilities(ProbabilityStatistics::of_classes(
                metric,
                gold,
                probabilities,
            )),
        }
    }

    /// Statistics of the probabilities of label sets, both `[n, n_labels]`: like
    /// [`RowStatistics::class_probabilities`], but with the definitions of [`multilabel`](super::multilabel). Takes 17
    /// bytes per decision.
    ///
    /// # Panics
    ///
    /// Panics if the two differ in shape.
    pub fn label_probabilities(
        metric: Metric,
        gold: ArrayView2<bool>,
        probabilities: ArrayView2<f32>,
    ) -> Self {
        assert_eq!(gold.dim(), probabilities.dim(), "a probability of each");
        Self {
            kind: Statistics::Probabilities(ProbabilityStatistics::of_labels(
                metric,
                gold,
                probabilities,
            )),
        }
    }

    /// Statistics of metrics that are means of one number per row, such as the log loss.
    ///
    /// # Panics
    ///
    /// Panics if they differ in the number of rows.
    pub fn means(metrics: Vec<(Metric, Vec<f64>)>) -> Self {
        let n_rows = metrics.first().map_or(0, |(_, values)| values.len());
        assert!(
            metrics.iter().all(|(_, values)| values.len() == n_rows),
            "one number of each metric for each row"
        );
        Self { kind: Statistics::Means { n_rows, metrics } }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        match &self.kind {
            Statistics::Classes { gold, .. } => gold.len(),
            Statistics::Labels(decided) => decided.n_rows(),
            Statistics::Values(_, n_rows) | Statistics::Means { n_rows, .. } => *n_rows,
            Statistics::Sentences { counts, .. } => counts.len(),
            Statistics::Tags(tags) => tags.ends.len(),
            Statistics::Probabilities(probable) => probable.n_rows,
        }
    }

    /// The metrics that can be computed from these statistics.
    pub fn metrics(&self) -> Vec<Metric> {
        let of_predictions = |metrics: &[Metric]| {
            metrics.iter().copied().filter(|metric| !metric.needs_probabilities()).collect()
        };
        match &self.kind {
            Statistics::Classes { .. } => of_predictions(&Metric::OF_CLASSES),
            Statistics::Labels(_) => of_predictions(&Metric::OF_LABEL_SETS),
            Statistics::Values(..) => Metric::OF_NUMBERS.to_vec(),
            Statistics::Sentences { has_entities, .. } => {
                let all = [
                    Metric::TokenAccuracy,
                    Metric::EntityF1Strict,
                    Metric::EntityPrecisionStrict,
                    Metric::EntityRecallStrict,
                    Metric::EntityF1Conlleval,
                ];
                all[..if *has_entities { 5 } else { 1 }].to_vec()
            }
            Statistics::Tags(_) => vec![Metric::TokenAccuracy, Metric::MacroF1, Metric::WeightedF1],
            Statistics::Means { metrics, .. } => {
                metrics.iter().map(|(metric, _)| *metric).collect()
            }
            Statistics::Probabilities(probable) => probable.metrics(),
        }
    }

    /// A metric where row `i` counts as `weights[i]` equal rows, or once if `weights` is `None`, which gives the same
    /// as the task's `evaluate`. `None` if it is undefined, or if it is not one of [`RowStatistics::metrics`].
    ///
    /// Takes one to a few nanoseconds per row.
    ///
    /// # Panics
    ///
    /// Panics if there is not one weight for each row.
    pub fn score(&self, metric: Metric, weights: Option<&[u32]>) -> Option<f64> {
        let once_each;
        let weights = match weights {
            Some(weights) => weights,
            None => {
                once_each = vec![1; self.n_rows()];
                &once_each
            }
        };
        assert_eq!(weights.len(), self.n_rows(), "one weight for each row");
        match &self.kind {
            Statistics::Classes { gold, predicted, n_classes } => {
                score_classes(metric, gold, predicted, *n_classes, weights)
            }
            Statistics::Labels(decided) => {
                let scores = Metric::OF_LABEL_SETS.into_iter().zip(decided.scores(weights, None));
                let mut scores = scores.filter(|(other, _)| *other == metric);
                scores.next().and_then(|(_, score)| score)
            }
            Statistics::Values(rows, _) => {
                let rows = rows.as_ref()?;
                match metric {
                    Metric::Spearman => rows.spearman(weights),
                    Metric::Pearson => rows.pearson(weights),
                    Metric::Mse => rows.mse(weights),
                    Metric::Mae => rows.mae(weights),
                    _ => None,
                }
            }
            Statistics::Sentences { counts, has_entities } => {
                score_sentences(metric, counts, *has_entities, weights)
            }
            Statistics::Tags(tags) => {
                let counts = tags.sum(weights);
                match metric {
                    Metric::TokenAccuracy => counts.accuracy(),
                    Metric::MacroF1 => counts.macro_f1(),
                    Metric::WeightedF1 => counts.weighted_f1(),
                    _ => None,
                }
            }
            Statistics::Means { metrics, .. } => {
                let (_, values) = metrics.iter().find(|(other, _)| *other == metric)?;
                weighted_mean(values.iter().copied(), weights)
            }
            Statistics::Probabilities(probable) => probable.score(metric, weights),
        }
    }

    /// Which rows are right, if the metric is the share of right rows: the `accuracy` of classes (or their `micro_f1`,
    /// which is the same) and of label sets, and `exact_match`.
    pub fn right(&self, metric: Metric) -> Option<Vec<bool>> {
        match (&self.kind, metric) {
            (Statistics::Classes { gold, predicted, .. }, Metric::Accuracy | Metric::MicroF1) => {
                let pairs = gold.iter().zip(predicted);
                Some(pairs.map(|(gold, predicted)| gold == predicted).collect())
            }
            (Statistics::Labels(decided), Metric::Accuracy) => {
                Some(decided.is_right().iter().map(|&right| right > 0.5).collect())
            }
            (Statistics::Means { metrics, .. }, Metric::ExactMatch) => {
                let (_, values) = metrics.iter().find(|(other, _)| *other == metric)?;
                Some(values.iter().map(|&right| right > 0.5).collect())
            }
            _ => None,
        }
    }
}

fn score_classes(
    metric: Metric,
    gold: &[u32],
    predicted: &[u32],
    n_classes: usize,
    weights: &[u32],
) -> Option<f64> {
    let rows = gold.iter().zip(predicted).zip(weights);
    if matches!(metric, Metric::Accuracy | Metric::MicroF1) {
        let [mut n_right, mut n] = [0u64; 2];
        for ((gold, predicted), &weight) in rows {
            n_right += u64::from(weight) * u64::from(gold == predicted);
            n += u64::from(weight);
        }
        return defined_ratio(n_right, n);
    }
    let pairs =
        rows.map(|((&gold, &predicted), &weight)| ((gold as usize, predicted as usize), weight));
    let counts = ClassCounts::of_pairs(pairs, n_classes);
    match metric {
        Metric::MacroF1 => counts.macro_f1(),
        Metric::WeightedF1 => counts.weighted_f1(),
        Metric::Mcc => counts.mcc(),
        _ => None,
    }
}

fn score_sentences(
    metric: Metric,
    sentences: &[SentenceSums],
    has_entities: bool,
    weights: &[u32],
) -> Option<f64> {
    let sum = |of: fn(&SentenceSums) -> u32| -> u64 {
        let weighted = sentences.iter().zip(weights);
        weighted.map(|(sentence, &weight)| u64::from(of(sentence)) * u64::from(weight)).sum()
    };
    let n_words = sum(|sentence| sentence.words[1]);
    let entity_f1 = |counts: [u64; 3]| {
        let [correct, predicted, actual] = counts;
        (has_entities && n_words > 0).then(|| f1(correct, predicted, actual))
    };
    let share = |correct: u64, of: u64| {
        (has_entities && n_words > 0).then(|| defined_ratio(correct, of).unwrap_or(0.0))
    };
    match metric {
        Metric::TokenAccuracy => defined_ratio(sum(|sentence| sentence.words[0]), n_words),
        Metric::EntityPrecisionStrict => {
            share(sum(|sentence| sentence.strict[0]), sum(|sentence| sentence.strict[1]))
        }
        Metric::EntityRecallStrict => {
            share(sum(|sentence| sentence.strict[0]), sum(|sentence| sentence.strict[2]))
        }
        Metric::EntityF1Strict => entity_f1([
            sum(|sentence| sentence.strict[0]),
            sum(|sentence| sentence.strict[1]),
            sum(|sentence| sentence.strict[2]),
        ]),
        Metric::EntityF1Conlleval => entity_f1([
            sum(|sentence| sentence.conlleval[0]),
            sum(|sentence| sentence.conlleval[1]),
            sum(|sentence| sentence.conlleval[2]),
        ]),
        _ => None,
    }
}

impl TagCounts {
    fn sum(&self, weights: &[u32]) -> ClassCounts {
        let mut totals = no_counts(self.n_labels);
        let mut start = 0;
        for (&end, &weight) in self.ends.iter().zip(weights) {
            for &(tag, counts) in &self.counts[start..end] {
                let [correct, predicted, actual] =
                    counts.map(|count| u64::from(count) * u64::from(weight));
                totals.correct[tag as usize] += correct;
                totals.predicted[tag as usize] += predicted;
                totals.actual[tag as usize] += actual;
            }
            start = end;
        }
        totals
    }
}

#[cfg(test)]
mod tests;
