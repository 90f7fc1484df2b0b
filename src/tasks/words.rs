//! Tagging: sentences of words with a tag each, such as names, parts of speech or chunks.

mod evaluator;
mod kind;
mod tagger;
mod word_rows;

use frostbert_cache::wording::{counted, quoted};
use ndarray::s;

pub(super) use self::kind::TaggingKind;
use crate::{
    config::settings::{KindSettings, Pipeline},
    data::{Part, Record, dataset::Dataset, example::Example},
    error::Result,
    features::{FeatureView, TokenRole, pieces},
    head::{crf::CrfScores, saved::Head, spec::Objective, targets::TargetTable},
    metrics::{
        baseline,
        metric::Metric,
        probability_curves::ProbabilityCurves,
        tag_scheme::{TagScheme, entities_strict},
        tagging::{self, TaggedSentence},
        with_names,
    },
    report::tables::Table,
    tasks::{
        MeasuredRows, PredictionTask, RowSource, SamplePurpose, TaskMetrics, TaskResult, TaskRows,
        characters::Characters,
        encoded::EncodedRecords,
        measure::{Baseline, RunMetrics},
        prediction::{EntitySpan, Prediction},
        predictions::PredictionEvaluator,
        row_columns, weights,
        words::{
            evaluator::WordEvaluator,
            tagger::Tagger,
            word_rows::{DocumentWords, WordRows},
        },
    },
};

/// The tagging task: the names of the tags, by id, and the sentences.
struct TaggingTask {
    labels: Vec<String>,
    sentences: Vec<Sentence>,
}

/// The words of a sentence.
struct Sentence {
    n_words: usize,
    /// The numbers of the words that have a state, in the order of their rows; the others were cut off or have no
    /// token.
    with_state: Vec<u32>,
    /// If the tokenizer found the words in a text: the first character of each, and the one after its last.
    found_at: Vec<(usize, usize)>,
    /// What its rows are for, until the view has them; none if they are states of words.
    roles: Vec<TokenRole>,
}

impl Sentence {
    /// Creates a sentence of given words.
    fn of_words(words: &[String], found: DocumentWords) -> Sentence {
        let DocumentWords { spots, roles } = found;
        Sentence {
            n_words: words.len(),
            with_state: spots.iter().map(|spot| spot.word).collect(),
            found_at: Vec::new(),
            roles,
        }
    }

    /// Creates a sentence of the words that the tokenizer found in a text.
    fn of_text(text: &str, found: DocumentWords, is_cut: bool) -> Sentence {
        let DocumentWords { spots, roles } = found;
        let offsets = spots.iter().map(|spot| spot.characters);
        let covered = Characters::new(text, offsets.clone(), is_cut);
        Sentence {
            n_words: spots.len(),
            with_state: (0..spots.len() as u32).collect(),
            found_at: offsets.map(|offset| covered.of(offset)).collect(),
            roles,
        }
    }
}

/// Returns the view of sentences; if their rows are tokens, with their roles.
fn with_roles<'c>(view: FeatureView<'c>, sentences: &mut [Sentence]) -> FeatureView<'c> {
    let roles = sentences.iter_mut().flat_map(|sentence| std::mem::take(&mut sentence.roles));
    let roles: Vec<TokenRole> = roles.collect();
    if roles.is_empty() { view } else { view.with_roles(roles) }
}

/// Returns the rows of a tagging dataset: a sample for each sentence, with an output for each of its words that has a
/// state.
pub(super) fn rows<'c>(source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
    let RowSource { pipeline, dataset, cache, states } = source;
    let keys = dataset.keys();
    let mut sentences: Vec<Option<Sentence>> = keys.iter().map(|_| None).collect();
    let mut without_token = WithoutToken::default();
    let word_rows = WordRows::of(pipeline);
    let pieces = pieces::locate(cache, states, &keys, |place, layout, document| {
        let words = dataset.rows[place].words.as_deref().unwrap_or_default();
        let sentence = Sentence::of_words(words, word_rows.find(layout, document));
        // Words that were cut off are counted elsewhere.
        if !layout.documents.truncated(document) {
            without_token.count(&dataset.rows[place], &sentence.with_state);
        }
        sentences[place] = Some(sentence);
    })?;
    let mut sentences: Vec<Sentence> = sentences.into_iter().flatten().collect();
    let sample_start = (0..=keys.len() as u32).collect();
    let memory_bytes = pipeline.memory_bytes;
    let view = FeatureView::new(cache, states, pieces, sample_start, memory_bytes)?;
    let view = with_roles(view, &mut sentences);
    let tags = dataset.rows.iter().zip(&sentences).flat_map(|(row, sentence)| {
        let tags = row.target.label_ids();
        sentence.with_state.iter().map(|word| tags[*word as usize] as u32)
    });
    let targets = TargetTable::Tags(tags.collect());
    let train = with_words(&view, &dataset.part(Part::Train));
    let task = TaggingTask { labels: dataset.labels.names().to_vec(), sentences };
    Ok(TaskRows {
        view,
        targets,
        objective: task.objective(pipeline, dataset, &train)?,
        parts: [train, dataset.part(Part::Validation), dataset.part(Part::Test)],
        n_outputs: dataset.labels.len(),
        keys,
        task: Box::new(task),
        warnings: without_token.warning().into_iter().collect(),
    })
}

/// Words all of whose characters the tokenizer drops.
#[derive(Default)]
struct WithoutToken {
    count: usize,
    examples: Vec<String>,
}

impl WithoutToken {
    /// Counts the words of a sentence that have no token, given the numbers of those that have one.
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

/// Returns the sentences in which a word has a state; nothing can be learned from the others.
fn with_words(view: &FeatureView<'_>, samples: &[u32]) -> Vec<u32> {
    let has_words = |sample: &u32| !view.outputs_of(*sample).is_empty();
    samples.iter().copied().filter(has_words).collect()
}

/// Returns the sentences of records that were just encoded, from given words or from those that the tokenizer found in
/// a text.
pub(super) fn read_encoded(
    encoded: EncodedRecords<'_>,
) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
    let (layout, word_rows) = (encoded.layout(), WordRows::of(encoded.pipeline));
    let records = encoded.records.iter().enumerate();
    let sentences = records.map(|(document, record)| {
        let found = word_rows.find(layout, document);
        match &record.words {
            Some(words) => Sentence::of_words(words, found),
            None => Sentence::of_text(&record.text, found, encoded.is_cut(document)),
        }
    });
    let mut sentences: Vec<Sentence> = sentences.collect();
    let labels = encoded.description.labels.clone();
    let sample_start = (0..=encoded.records.len() as u32).collect();
    let pieces = encoded.pieces();
    let view = with_roles(encoded.view(pieces, sample_start)?, &mut sentences);
    Ok((Box::new(TaggingTask { sentences, labels }), view))
}

/// Returns the scores of a head's CRF, if it has one.
fn crf_scores(head: &Head) -> Option<CrfScores<'_, f32>> {
    let (network, parameters) = head.network();
    network.spec().crf.then(|| network.crf_scores(parameters))
}

impl TaggingTask {
    /// Returns the tag of each word of each sentence; `None` for words without a state.
    fn decode(&self, view: &FeatureView<'_>, head: &Head) -> Result<Vec<Vec<Option<usize>>>> {
        let tagger = Tagger::new(&self.labels);
        let crf = crf_scores(head);
        let mut predicted = vec![Vec::new(); self.sentences.len()];
        let all: Vec<u32> = (0..self.sentences.len() as u32).collect();
        head.for_each_output(view, &all, |samples, starts, emissions| {
            for (number, sample) in samples.iter().enumerate() {
                let own = emissions.slice(s![starts[number]..starts[number + 1], ..]);
                let sample = *sample as usize;
                predicted[sample] = tagger.tags(crf.as_ref(), own, &self.sentences[sample]);
            }
        })?;
        Ok(predicted)
    }

    /// Returns the tags of a record and the entities that they mark.
    fn prediction(
        &self,
        record: &Record,
        sentence: &Sentence,
        tags: Vec<Option<usize>>,
        scheme: Option<&TagScheme>,
    ) -> Prediction {
        let outside = self.labels.iter().position(|label| label == "O");
        let characters: Vec<char> = record.text.chars().collect();
        let text_of =
            |start: usize, end: usize| -> String { characters[start..end].iter().collect() };
        let (words, offsets) = match &record.words {
            Some(words) => (words.clone(), offsets_of(words)),
            None => {
                let words = sentence.found_at.iter().map(|(start, end)| text_of(*start, *end));
                (words.collect(), sentence.found_at.clone())
            }
        };
        let tags: Vec<Option<usize>> = tags.into_iter().map(|tag| tag.or(outside)).collect();
        let known: Option<Vec<usize>> = tags.iter().copied().collect();
        let entities = match (scheme, known) {
            (Some(scheme), Some(known)) => entities_strict(scheme, &known[..])
                .into_iter()
                .map(|entity| {
                    let start = offsets[entity.start].0;
                    let end = offsets[entity.end - 1].1;
                    let label = scheme.types[entity.kind].clone();
                    EntitySpan { label, start, end, text: text_of(start, end) }
                })
                .collect(),
            _ => Vec::new(),
        };
        let name = |tag: Option<usize>| tag.map_or(String::new(), |tag| self.labels[tag].clone());
        Prediction::Tags {
            text: record.text.clone(),
            words,
            labels: tags.into_iter().map(name).collect(),
            entities,
        }
    }
}

impl PredictionTask for TaggingTask {
    fn evaluator<'a>(
        &'a self,
        _: &Pipeline,
        dataset: &'a Dataset,
        samples: &[u32],
        _: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a> {
        let sentences = samples.iter().map(|sample| {
            let sample = *sample as usize;
            (dataset.rows[sample].target.label_ids(), &self.sentences[sample])
        });
        Box::new(WordEvaluator {
            rows: samples.to_vec(),
            sentences: sentences.collect(),
            labels: &self.labels,
            tagger: Tagger::new(&self.labels),
        })
    }

    fn has_one_output_row(&self) -> bool {
        false
    }

    fn samples_of(
        &self,
        view: &FeatureView<'_>,
        _: &Dataset,
        rows: &[u32],
        purpose: SamplePurpose,
    ) -> Vec<u32> {
        if purpose == SamplePurpose::Training { with_words(view, rows) } else { rows.to_vec() }
    }

    fn objective(
        &self,
        pipeline: &Pipeline,
        dataset: &Dataset,
        train: &[u32],
    ) -> Result<Objective> {
        Ok(match pipeline.head.kind {
            KindSettings::Crf(..) => Objective::Crf,
            _ => Objective::Rows(weights::loss(pipeline, dataset, train)?),
        })
    }

    fn measure(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<TaskResult> {
        let dataset = rows.dataset;
        let predicted = self.decode(&rows.rows.view, head)?;
        let parts = rows.parts(|rows, bootstrap| {
            let sentences: Vec<TaggedSentence<'_>> = rows
                .iter()
                .map(|sample| TaggedSentence {
                    truth: dataset.rows[*sample as usize].target.label_ids(),
                    predicted: &predicted[*sample as usize],
                })
                .collect();
            let mut metrics = tagging::evaluate(&sentences, &self.labels, bootstrap);
            metrics.per_class = with_names(metrics.per_class, &self.labels);
            TaskMetrics::Tokens(metrics)
        });
        Ok(TaskResult {
            metrics: RunMetrics::of_parts(parts, most_frequent_tag(dataset)),
            predictions: table(dataset, &predicted),
            curves: ProbabilityCurves::default(),
        })
    }

    fn predict(
        &self,
        records: &[Record],
        view: &FeatureView<'_>,
        head: &Head,
    ) -> Result<Vec<Prediction>> {
        let tags = self.decode(view, head)?;
        let scheme = TagScheme::new(&self.labels);
        let sentences = records.iter().zip(&self.sentences).zip(tags);
        Ok(sentences
            .map(|((record, sentence), tags)| {
                self.prediction(record, sentence, tags, scheme.as_ref())
            })
            .collect())
    }
}

/// Returns the first character of each word and the one after its last, for words joined by single spaces.
fn offsets_of(words: &[String]) -> Vec<(usize, usize)> {
    let mut start = 0;
    words
        .iter()
        .map(|word| {
            let end = start + word.chars().count();
            let offsets = (start, end);
            start = end + 1;
            offsets
        })
        .collect()
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
        Baseline::new(format!("every word {}", quoted(name)), &metrics)
    })
}

fn table(dataset: &Dataset, predicted: &[Vec<Option<usize>>]) -> Table {
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
