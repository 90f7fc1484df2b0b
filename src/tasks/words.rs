//! Sentences of words with a tag each: names, parts of speech, chunks.

use frostbert_cache::{reader::CacheReader, shard::ShardLayout, states::StateId, wording::counted};
use ndarray::{Array2, ArrayView2, s};

use crate::{
    config::settings::{KindSettings, Pipeline},
    data::{Part, dataset::Dataset, example::Example},
    error::Result,
    features::{FeatureView, pieces},
    head::{
        bank::Evaluator,
        crf::{self, CrfScores},
        decode::{AllowedTags, decode},
        outputs::OutputHead,
        saved::Head,
        spec::Objective,
        targets::TargetTable,
    },
    metrics::{
        baseline,
        metric::Metric,
        tag_scheme::TagScheme,
        tagging::{self, TaggedSentence},
    },
    tasks::{
        TaskExtras, TaskMetrics, TaskResult, TaskRows,
        measure::{Baseline, RunMetrics},
        measured,
        predictions::{PredictionEvaluator, Predictions},
        row_columns, weights,
    },
};

/// What a task of words knows beside what a head needs.
pub(crate) struct Sentences {
    /// The number of each word of a sentence that has a state: the others were cut off, or have no token.
    pub(crate) words: Vec<Vec<u32>>,
}

/// The numbers of the words of a document that have a state, in the order of their rows.
pub(crate) fn words_with_states(layout: &ShardLayout, document: usize) -> Vec<u32> {
    let words = &layout.words[layout.words_of(document)];
    words.iter().map(|place| place.word as u32).collect()
}

/// A sample for each sentence, a row for each of its words that has a state.
pub(super) fn rows<'c>(
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &'c CacheReader,
    states: &[StateId],
) -> Result<TaskRows<'c>> {
    let keys = dataset.keys();
    let mut words = vec![Vec::new(); keys.len()];
    let mut without_token = WithoutToken::default();
    let pieces = pieces::locate(cache, states, &keys, |place, layout, document| {
        words[place] = words_with_states(layout, document);
        // What was cut off is counted elsewhere.
        if !layout.documents.truncated(document) {
            without_token.count(&dataset.rows[place], &words[place]);
        }
    })?;
    let sample_start = (0..=keys.len() as u32).collect();
    let memory_bytes = pipeline.memory_bytes;
    let view = FeatureView::new(cache, states, pieces, sample_start, memory_bytes)?;
    let tags = dataset.rows.iter().zip(&words).flat_map(|(row, words)| {
        let tags = row.target.label_ids();
        words.iter().map(|word| tags[*word as usize] as u32)
    });
    let targets = TargetTable::Tags(tags.collect());
    let train = with_words(&view, &dataset.part(Part::Train));
    let objective = objective(pipeline, dataset, &train)?;
    Ok(TaskRows {
        view,
        targets,
        parts: [train, dataset.part(Part::Validation), dataset.part(Part::Test)],
        objective,
        n_outputs: dataset.labels.len(),
        keys,
        own: TaskExtras::Words(Sentences { words }),
        warnings: without_token.warning().into_iter().collect(),
    })
}

/// Words of whose characters the tokenizer drops all.
#[derive(Default)]
struct WithoutToken {
    count: usize,
    examples: Vec<String>,
}

impl WithoutToken {
    /// Looks at the words of a sentence, of which those of these numbers have a token.
    fn count(&mut self, row: &Example, with_token: &[u32]) {
        let words = row.words.iter().flatten().zip(0_u32..);
        for (word, _) in words.filter(|(_, number)| with_token.binary_search(number).is_err()) {
            self.count += 1;
            if self.examples.len() < 3 {
                let codes: Vec<String> =
                    word.chars().take(8).map(|c| format!("U+{:04X}", c as u32)).collect();
                self.examples.push(codes.join(" "));
            }
        }
    }

    fn warning(&self) -> Option<String> {
        let more = if self.count > self.examples.len() { " and more" } else { "" };
        (self.count > 0).then(|| {
            format!(
                "the tokenizer drops all characters of {} ({}{more}): nothing is learned from {}, and what is predicted there \
                 counts as `O`",
                counted(self.count, "word"),
                self.examples.join(", "),
                if self.count == 1 { "it" } else { "them" },
            )
        })
    }
}

/// The sentences of which a word has a state: others teach nothing.
pub(super) fn with_words(view: &FeatureView<'_>, samples: &[u32]) -> Vec<u32> {
    let has_words = |sample: &u32| !view.rows_of(*sample).is_empty();
    samples.iter().copied().filter(has_words).collect()
}

/// What the pipeline's head is trained to, on these rows.
pub(super) fn objective(
    pipeline: &Pipeline,
    dataset: &Dataset,
    train: &[u32],
) -> Result<Objective> {
    Ok(match pipeline.head.kind {
        KindSettings::Crf(..) => Objective::Crf,
        _ => Objective::Rows(weights::loss(pipeline, dataset, train)?),
    })
}

/// How outputs become tags: only valid sequences of IOB2 where the labels are of that scheme.
pub(crate) struct Tagger {
    transitions: Array2<bool>,
    starts: Vec<bool>,
    /// The tag of words that have no state.
    outside: Option<u32>,
}

impl Tagger {
    pub(crate) fn new(labels: &[String]) -> Tagger {
        let n = labels.len();
        let outside = labels.iter().position(|label| label == "O");
        let outside = outside.map(|label| label as u32);
        match TagScheme::new(labels) {
            None => Tagger {
                transitions: Array2::from_elem((n, n), true),
                starts: vec![true; n],
                outside,
            },
            Some(scheme) => Tagger {
                transitions: Array2::from_shape_fn((n, n), |(from, to)| {
                    scheme.can_follow(Some(from), to)
                }),
                starts: (0..n).map(|tag| scheme.can_follow(None, tag)).collect(),
                outside,
            },
        }
    }

    /// The tag of each word of a sentence of `n_words`; `None` where it has no state. `emissions` are those of the words
    /// that have one.
    pub(crate) fn tags(
        &self,
        crf: Option<&CrfScores<'_, f32>>,
        emissions: ArrayView2<'_, f32>,
        words: &[u32],
        n_words: usize,
    ) -> Vec<Option<usize>> {
        let mut tags = vec![None; n_words];
        if words.len() == n_words || self.outside.is_none() {
            for (word, tag) in words.iter().zip(self.best(crf, emissions, None)) {
                tags[*word as usize] = Some(tag as usize);
            }
            return tags;
        }
        // A word without a state counts as outside, also for its neighbours.
        let mut all = Array2::zeros((n_words, emissions.ncols()));
        let mut forced = vec![self.outside; n_words];
        for (place, word) in words.iter().enumerate() {
            all.row_mut(*word as usize).assign(&emissions.row(place));
            forced[*word as usize] = None;
        }
        let best = self.best(crf, all.view(), Some(&forced));
        for word in words {
            tags[*word as usize] = Some(best[*word as usize] as usize);
        }
        tags
    }

    fn best(
        &self,
        crf: Option<&CrfScores<'_, f32>>,
        emissions: ArrayView2<'_, f32>,
        forced: Option<&[Option<u32>]>,
    ) -> Vec<u32> {
        let allowed = AllowedTags { transitions: self.transitions.view(), starts: &self.starts };
        let offsets = [0, emissions.nrows()];
        let best = match crf {
            Some(scores) => crf::decode(emissions, &offsets, scores, Some(&allowed), forced),
            None => decode(emissions, &offsets, &allowed, forced),
        };
        best.expect("a sequence of `O`, or of any tag that may begin one, is always allowed")
    }
}

/// The scores of a head's CRF, where it has one.
pub(crate) fn crf_scores(head: &Head) -> Option<CrfScores<'_, f32>> {
    let (network, parameters) = head.network();
    network.spec().crf.then(|| network.crf_scores(parameters))
}

impl Sentences {
    pub(super) fn evaluator(&self, dataset: &Dataset, validation: &[u32]) -> WordEvaluator {
        let sentences = validation.iter().map(|sample| {
            let truth = dataset.rows[*sample as usize].target.label_ids().to_vec();
            (truth, self.words[*sample as usize].clone())
        });
        WordEvaluator {
            rows: validation.to_vec(),
            sentences: sentences.collect(),
            labels: dataset.labels.names().to_vec(),
            tagger: Tagger::new(dataset.labels.names()),
        }
    }

    pub(super) fn finish(
        &self,
        rows: &TaskRows<'_>,
        pipeline: &Pipeline,
        dataset: &Dataset,
        head: &mut Head,
    ) -> Result<TaskResult> {
        let predicted = self.predict(&rows.view, dataset, head)?;
        let labels = dataset.labels.names();
        let [train, validation, test] = measured(pipeline, dataset, |rows, bootstrap| {
            let sentences: Vec<TaggedSentence<'_>> = rows
                .iter()
                .map(|sample| TaggedSentence {
                    truth: dataset.rows[*sample as usize].target.label_ids(),
                    predicted: &predicted[*sample as usize],
                })
                .collect();
            TaskMetrics::Tokens(tagging::evaluate(&sentences, labels, bootstrap))
        });
        Ok(TaskResult {
            metrics: RunMetrics {
                train,
                validation,
                test,
                baseline: most_frequent_tag(dataset),
                ..RunMetrics::default()
            },
            predictions: table(dataset, &predicted),
        })
    }

    fn predict(
        &self,
        view: &FeatureView<'_>,
        dataset: &Dataset,
        head: &Head,
    ) -> Result<Vec<Vec<Option<usize>>>> {
        let tagger = Tagger::new(dataset.labels.names());
        let crf = crf_scores(head);
        let mut predicted = vec![Vec::new(); dataset.rows.len()];
        let all: Vec<u32> = (0..dataset.rows.len() as u32).collect();
        head.for_each_output(view, &all, |samples, starts, emissions| {
            for (number, sample) in samples.iter().enumerate() {
                let own = emissions.slice(s![starts[number]..starts[number + 1], ..]);
                let sample = *sample as usize;
                let n_words = dataset.rows[sample].target.label_ids().len();
                predicted[sample] = tagger.tags(crf.as_ref(), own, &self.words[sample], n_words);
            }
        })?;
        Ok(predicted)
    }
}

fn most_frequent_tag(dataset: &Dataset) -> Option<Baseline> {
    let mut counts = vec![0usize; dataset.labels.len()];
    for row in dataset.part(Part::Train) {
        for tag in dataset.rows[row as usize].target.label_ids() {
            counts[*tag] += 1;
        }
    }
    let tag = (0..counts.len()).rev().max_by_key(|tag| counts[*tag])?;
    let test: Vec<&[usize]> = dataset
        .part(Part::Test)
        .into_iter()
        .map(|row| dataset.rows[row as usize].target.label_ids())
        .collect();
    let name = dataset.labels.name(tag)?;
    (!test.is_empty()).then(|| {
        let metrics = baseline::most_frequent_tag(tag, &test, dataset.labels.names());
        Baseline::new(format!("every word `{name}`"), &metrics)
    })
}

fn table(dataset: &Dataset, predicted: &[Vec<Option<usize>>]) -> crate::report::tables::Table {
    let name = |tag: usize| dataset.labels.name(tag).unwrap_or_default();
    let outside = dataset.labels.id("O").map_or("", name);
    let mut table = row_columns(dataset);
    let rows = || dataset.rows.iter();
    table
        .lists("words", rows().map(|row| row.words.iter().flatten().map(String::as_str).collect()));
    table.lists(
        "labels",
        rows().map(|row| row.target.label_ids().iter().map(|tag| name(*tag)).collect()),
    );
    table.lists(
        "predicted",
        predicted.iter().map(|tags| tags.iter().map(|tag| tag.map_or(outside, name)).collect()),
    );
    table
}

/// Scores tags on the validation sentences.
pub(super) struct WordEvaluator {
    rows: Vec<u32>,
    sentences: Vec<(Vec<usize>, Vec<u32>)>,
    labels: Vec<String>,
    tagger: Tagger,
}

impl WordEvaluator {
    /// The tags of every sentence.
    fn predicted(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Vec<Vec<Option<usize>>> {
        let network = &head.network;
        let has_crf = network.spec().crf;
        let scores = has_crf.then(|| network.crf_scores(&head.parameters));
        let mut first = 0;
        let mut predicted = Vec::with_capacity(self.sentences.len());
        for (truth, words) in &self.sentences {
            let own = logits.slice(s![first..first + words.len(), ..]);
            first += words.len();
            predicted.push(self.tagger.tags(scores.as_ref(), own, words, truth.len()));
        }
        predicted
    }
}

impl PredictionEvaluator for WordEvaluator {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn predictions(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Predictions {
        let small = |tag: Option<usize>| tag.map(|tag| tag as u32);
        let tags = self.predicted(logits, head).into_iter();
        Predictions::Tags(tags.map(|tags| tags.into_iter().map(small).collect()).collect())
    }
}

impl Evaluator for WordEvaluator {
    fn scores(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Vec<(Metric, f64)> {
        let predicted = self.predicted(logits, head);
        let sentences: Vec<TaggedSentence<'_>> = self
            .sentences
            .iter()
            .zip(&predicted)
            .map(|((truth, _), predicted)| TaggedSentence { truth, predicted })
            .collect();
        tagging::evaluate(&sentences, &self.labels, None).scores.values(&[
            Metric::EntityF1Strict,
            Metric::TokenAccuracy,
            Metric::EntityF1Conlleval,
            Metric::MacroF1,
            Metric::WeightedF1,
        ])
    }
}
