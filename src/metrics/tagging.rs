//! All metrics of a tagger on one split: how many words and how many entities it gets right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ClassScore,
    confusion::{ConfusionCell, confusion_of},
    counts::{ClassCounts, defined_ratio, f1},
    intervals::{self, Bootstrap},
    metric::Metric,
    scores::Scores,
    tag_scheme::{Entity, Orphan, Tag, TagScheme, entities},
};

/// All metrics of a tagger on one split, in the order in which they are written as JSON.
///
/// Intervals are over sentences. The metrics of entities are present if the labels are a [`TagScheme`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaggingMetrics {
    /// The metrics of [`Metric::OF_TAGS`]; entity precision and recall and the weighted F1 have no interval.
    #[serde(flatten)]
    pub scores: Scores,
    /// Number of sentences.
    pub n: usize,
    /// Number of words.
    pub n_words: usize,
    /// One entry for each entity type, in the strict reading, in the order of [`TagScheme::types`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub per_type: Vec<TypeScore>,
    /// One entry for each tag of the label map, in label order; `support` counts words.
    pub per_class: Vec<ClassScore>,
    /// `confusion[truth][prediction]`: number of words. Empty above [`MANY_CLASSES`](super::MANY_CLASSES).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
    /// Above [`MANY_CLASSES`](super::MANY_CLASSES), the non-zero cells of the confusion matrix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion_cells: Vec<ConfusionCell>,
}

/// The scores of the entities of one type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeScore {
    /// Name of the type; `type` in JSON.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of the entities predicted with this type, the fraction that is correct; 0 if there are none.
    pub precision: f64,
    /// Of the true entities of this type, the fraction that is predicted; 0 if there are none.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 if the type occurs in neither truth nor predictions.
    pub f1: f64,
    /// Number of true entities of this type.
    pub support: u64,
}

/// The tags of one sentence: one label id per word.
#[derive(Debug, Clone, Copy)]
pub struct TaggedSentence<'a> {
    /// The true tags.
    pub truth: &'a [usize],
    /// The predicted tags; `None` for a word that the tagger never saw.
    pub predicted: &'a [Option<usize>],
}

/// Scores the tags of `sentences`, which are ids into `labels`.
///
/// A word without a prediction counts as predicted `O`; if there is no label `O`, it is wrong, and appears in no column
/// of the confusion matrix.
///
/// An entity is right if its type and both of its ends are. Precision, recall and F1 pool the entities of all types
/// (micro average) and are 0 if neither truth nor predictions contain any, as in seqeval: see
/// [`entities_strict`](super::tag_scheme::entities_strict) for `mode="strict", scheme=IOB2`, and
/// [`entities_conlleval`](super::tag_scheme::entities_conlleval) for its default.
///
/// With `bootstrap`, sentences are resampled, since the words of a sentence are not independent. Without words, only
/// the counts are set.
///
/// ```
/// use frostbert::internals::metrics::metric::Metric;
/// use frostbert::internals::metrics::tagging::{TaggedSentence, evaluate};
///
/// let labels = ["O", "B-PER", "I-PER"].map(String::from);
/// let sentence = TaggedSentence {
///     truth: &[1, 2, 0, 1],
///     predicted: &[Some(1), Some(2), None, Some(2)],
/// };
/// let scores = evaluate(&[sentence], &labels, None).scores;
/// assert_eq!(scores.value(Metric::TokenAccuracy), Some(0.75));
/// assert_eq!(scores.value(Metric::EntityPrecisionStrict), Some(1.0));
/// assert_eq!(scores.value(Metric::EntityRecallStrict), Some(0.5));
/// assert_eq!(scores.value(Metric::EntityF1Conlleval), Some(1.0));
/// ```
///
/// # Panics
///
/// Panics if a sentence does not have one prediction for each word, or a tag is not below the number of labels.
pub fn evaluate(
    sentences: &[TaggedSentence],
    labels: &[String],
    bootstrap: Option<Bootstrap>,
) -> TaggingMetrics {
    let scheme = TagScheme::new(labels);
    let n_types = scheme.as_ref().map_or(0, |scheme| scheme.types.len());
    let mut pairs = Vec::new();
    let mut by_type = no_counts(n_types);
    let split =
        CountedSentences::new(sentences, labels, scheme.as_ref(), |sentence, predicted, strict| {
            for (&truth, &predicted) in sentence.truth.iter().zip(predicted) {
                if let Some(predicted) = predicted {
                    pairs.push((truth, predicted));
                }
            }
            add_by_type(&mut by_type, strict);
        });
    let (confusion, confusion_cells) = confusion_of(pairs.into_iter(), labels.len());
    let once_each = vec![1; sentences.len()];
    let [token_accuracy, entity_f1_strict, entity_f1_conlleval, macro_f1] =
        split.scores(&once_each);
    let [token_accuracy_ci, entity_f1_strict_ci, entity_f1_conlleval_ci, macro_f1_ci] = bootstrap
        .map_or([None; 4], |settings| {
            intervals::bootstrap(sentences.len(), settings, |weights| split.scores(weights))
        });
    let totals = split.totals(&once_each);
    let found = entity_f1_strict.map(|_| totals.strict);
    TaggingMetrics {
        scores: Scores::new(
            Metric::OF_TAGS,
            [
                token_accuracy,
                entity_f1_strict,
                found.map(Pooled::precision),
                found.map(Pooled::recall),
                entity_f1_conlleval,
                macro_f1,
                totals.tags.weighted_f1(),
            ],
            [
                token_accuracy_ci,
                entity_f1_strict_ci,
                None,
                None,
                entity_f1_conlleval_ci,
                macro_f1_ci,
                None,
            ],
        ),
        n: sentences.len(),
        n_words: sentences.iter().map(|sentence| sentence.truth.len()).sum(),
        per_type: scheme.map_or_else(Vec::new, |scheme| type_scores(scheme, &by_type)),
        per_class: totals.tags.per_class(),
        confusion,
        confusion_cells,
    }
}

fn type_scores(scheme: TagScheme, by_type: &ClassCounts) -> Vec<TypeScore> {
    let scores = scheme.types.into_iter().zip(by_type.per_class());
    scores
        .map(|(kind, score)| TypeScore {
            kind,
            precision: score.precision,
            recall: score.recall,
            f1: score.f1,
            support: score.support,
        })
        .collect()
}

pub(super) fn no_counts(n_classes: usize) -> ClassCounts {
    ClassCounts {
        correct: vec![0; n_classes],
        predicted: vec![0; n_classes],
        actual: vec![0; n_classes],
    }
}

fn add_by_type(counts: &mut ClassCounts, [truth, predicted]: &[Vec<Entity>; 2]) {
    for entity in truth {
        counts.actual[entity.kind] += 1;
        counts.correct[entity.kind] += u64::from(is_among(predicted, entity));
    }
    for entity in predicted {
        counts.predicted[entity.kind] += 1;
    }
}

/// Whether the entity is one of `sorted`, which are sorted by their starts and do not overlap.
fn is_among(sorted: &[Entity], entity: &Entity) -> bool {
    sorted
        .binary_search_by_key(&entity.start, |other| other.start)
        .is_ok_and(|index| sorted[index] == *entity)
}

/// The contribution of one sentence to the metrics, so that a resample costs a few sums per sentence.
pub(super) struct SentenceCounts {
    /// Correct, predicted and actual words of each tag that occurs in the sentence.
    pub(super) tags: Vec<(usize, [u64; 3])>,
    pub(super) strict: Pooled,
    pub(super) conlleval: Pooled,
}

fn counts_of_tags(truth: &[usize], predicted: &[Option<usize>]) -> Vec<(usize, [u64; 3])> {
    let mut tags: BTreeMap<usize, [u64; 3]> = BTreeMap::new();
    for (&truth, &predicted) in truth.iter().zip(predicted) {
        let counts = tags.entry(truth).or_default();
        counts[0] += u64::from(predicted == Some(truth));
        counts[2] += 1;
        if let Some(predicted) = predicted {
            tags.entry(predicted).or_default()[1] += 1;
        }
    }
    tags.into_iter().collect()
}

/// Numbers of entities, over all types.
#[derive(Default, Clone, Copy)]
pub(super) struct Pooled {
    pub(super) correct: u64,
    pub(super) predicted: u64,
    pub(super) actual: u64,
}

impl Pooled {
    fn new([truth, predicted]: &[Vec<Entity>; 2]) -> Self {
        let correct = truth.iter().filter(|entity| is_among(predicted, entity));
        Self {
            correct: correct.count() as u64,
            predicted: predicted.len() as u64,
            actual: truth.len() as u64,
        }
    }

    fn add(&mut self, other: Self, weight: u64) {
        self.correct += weight * other.correct;
        self.predicted += weight * other.predicted;
        self.actual += weight * other.actual;
    }

    fn precision(self) -> f64 {
        defined_ratio(self.correct, self.predicted).unwrap_or(0.0)
    }

    fn recall(self) -> f64 {
        defined_ratio(self.correct, self.actual).unwrap_or(0.0)
    }

    fn f1(self) -> f64 {
        f1(self.correct, self.predicted, self.actual)
    }
}

/// All sentences of a split, counted.
pub(super) struct CountedSentences {
    pub(super) sentences: Vec<SentenceCounts>,
    n_labels: usize,
    has_entities: bool,
}

struct TagTotals {
    tags: ClassCounts,
    strict: Pooled,
    conlleval: Pooled,
}

impl CountedSentences {
    /// Counts every sentence, and calls `see` with it, its predicted tags, and its true and predicted entities in the
    /// strict reading.
    ///
    /// # Panics
    ///
    /// Panics if [`evaluate`] would.
    pub(super) fn new(
        sentences: &[TaggedSentence],
        labels: &[String],
        scheme: Option<&TagScheme>,
        mut see: impl FnMut(&TaggedSentence, &[Option<usize>], &[Vec<Entity>; 2]),
    ) -> Self {
        let outside = labels.iter().position(|label| label == "O");
        let mut counted = Vec::with_capacity(sentences.len());
        for sentence in sentences {
            assert_eq!(
                sentence.truth.len(),
                sentence.predicted.len(),
                "one prediction for each word"
            );
            let predicted = sentence.predicted.iter().map(|tag| tag.or(outside));
            let predicted: Vec<Option<usize>> = predicted.collect();
            for (&truth, &predicted) in sentence.truth.iter().zip(&predicted) {
                assert!(
                    truth < labels.len() && predicted.is_none_or(|tag| tag < labels.len()),
                    "tag {truth} and prediction {predicted:?} are below {}",
                    labels.len()
                );
            }
            let entities_of = |orphan| {
                let read = |tags: &mut dyn Iterator<Item = Option<usize>>| {
                    let Some(scheme) = scheme else {
                        return Vec::new();
                    };
                    let tag = |tag: Option<usize>| tag.map_or(Tag::Outside, |tag| scheme.tags[tag]);
                    entities(tags.map(tag), orphan)
                };
                [
                    read(&mut sentence.truth.iter().copied().map(Some)),
                    read(&mut predicted.iter().copied()),
                ]
            };
            let strict = entities_of(Orphan::Dropped);
            see(sentence, &predicted, &strict);
            counted.push(SentenceCounts {
                tags: counts_of_tags(sentence.truth, &predicted),
                strict: Pooled::new(&strict),
                conlleval: Pooled::new(&entities_of(Orphan::StartsEntity)),
            });
        }
        Self { sentences: counted, n_labels: labels.len(), has_entities: scheme.is_some() }
    }

    /// Token accuracy, both entity F1s and macro F1, where sentence `i` counts as `weights[i]` equal sentences.
    fn scores(&self, weights: &[u32]) -> [Option<f64>; 4] {
        let totals = self.totals(weights);
        let has_entities = self.has_entities && totals.tags.n_rows() > 0;
        [
            totals.tags.accuracy(),
            has_entities.then(|| totals.strict.f1()),
            has_entities.then(|| totals.conlleval.f1()),
            totals.tags.macro_f1(),
        ]
    }

    fn totals(&self, weights: &[u32]) -> TagTotals {
        let mut totals = TagTotals {
            tags: no_counts(self.n_labels),
            strict: Pooled::default(),
            conlleval: Pooled::default(),
        };
        for (sentence, &weight) in self.sentences.iter().zip(weights) {
            let weight = u64::from(weight);
            for &(tag, [correct, predicted, actual]) in &sentence.tags {
                totals.tags.correct[tag] += weight * correct;
                totals.tags.predicted[tag] += weight * predicted;
                totals.tags.actual[tag] += weight * actual;
            }
            totals.strict.add(sentence.strict, weight);
            totals.conlleval.add(sentence.conlleval, weight);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    const SENTENCE: TaggedSentence =
        TaggedSentence { truth: &[0, 1, 1], predicted: &[Some(0), None, Some(1)] };

    #[test]
    fn a_word_without_prediction_is_wrong_and_in_no_column_where_there_is_no_o() {
        let metrics = evaluate(&[SENTENCE], &labels(&["NOUN", "VERB"]), None);
        assert_eq!(metrics.scores.value(Metric::TokenAccuracy), Some(2.0 / 3.0));
        assert_eq!(metrics.confusion, [[1, 0], [0, 1]]);
        assert_eq!(metrics.per_class[1].recall, 0.5);
        assert_eq!(metrics.per_class[1].support, 2);
    }

    #[test]
    fn a_word_without_prediction_is_an_o_where_there_is_one() {
        let metrics = evaluate(&[SENTENCE], &labels(&["B-x", "O"]), None);
        assert_eq!(metrics.scores.value(Metric::TokenAccuracy), Some(1.0));
        assert_eq!(metrics.confusion, [[1, 0], [0, 2]]);
    }

    #[test]
    fn json_of_other_tags_has_no_entity_fields() {
        let metrics = evaluate(&[SENTENCE], &labels(&["NOUN", "VERB"]), None);
        let json = serde_json::to_value(&metrics).unwrap();
        let names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let expected =
            ["token_accuracy", "macro_f1", "weighted_f1", "n", "n_words", "per_class", "confusion"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_split_without_words_has_no_metrics_and_does_not_panic() {
        let empty = TaggedSentence { truth: &[], predicted: &[] };
        for sentences in [&[] as &[_], &[empty]] {
            let metrics = evaluate(sentences, &labels(&["O", "B-x"]), Some(Bootstrap::default()));
            let expected = TaggingMetrics {
                n: sentences.len(),
                per_type: metrics.per_type.clone(),
                per_class: metrics.per_class.clone(),
                confusion: vec![vec![0; 2]; 2],
                confusion_cells: Vec::new(),
                ..TaggingMetrics::default()
            };
            assert_eq!(metrics, expected);
        }
    }

    #[test]
    fn json_reads_back_to_the_same_metrics() {
        let sentences = [SENTENCE; 4];
        let metrics = evaluate(&sentences, &labels(&["B-x", "O"]), Some(Bootstrap::default()));
        assert!(metrics.scores.interval(Metric::EntityF1Strict).is_some());
        let json = serde_json::to_string(&metrics).unwrap();
        assert!(json.contains(r#""per_type":[{"type":"x","precision":1.0"#), "{json}");
        assert_eq!(serde_json::from_str::<TaggingMetrics>(&json).unwrap(), metrics);
    }

    #[test]
    #[should_panic(expected = "one prediction for each word")]
    fn a_missing_prediction_is_refused() {
        let sentence = TaggedSentence { truth: &[0], predicted: &[] };
        evaluate(&[sentence], &labels(&["O", "B-x"]), None);
    }
}
