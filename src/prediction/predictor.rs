//! What a trained head says of new texts.

use std::path::Path;

use ndarray::s;
use serde::{Serialize, Serializer};

use crate::{
    config::names::{Pair, Task},
    data::{Record, document::Document},
    encoder::windows::Overflow,
    error::{Error, Result},
    extraction::{
        embedder::{EncodedTexts, TextEncoder},
        machine::Machine,
    },
    features::{FeatureView, pieces::Pieces},
    head::saved::Head,
    metrics::{
        calibration::{sigmoid_rows, softmax_rows},
        probability::predictions,
        tag_scheme::{TagScheme, entities_strict},
    },
    prediction::saved_run::SavedRun,
    tasks::{
        characters::{Characters, characters},
        documents::{chosen, paired},
        questions::Questions,
        similarity,
        windows::windows_of,
        words::{Tagger, crf_scores, words_with_states},
    },
};

/// The prediction of a head for one text, one pair, one sentence or one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// A class.
    Class {
        /// The text.
        text: String,
        /// The second text, of a pair.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_pair: Option<String>,
        /// The most probable label.
        label: String,
        /// Its probability.
        confidence: f32,
        /// The probability of each label, in label order; a JSON object.
        #[serde(serialize_with = "as_object")]
        probabilities: Vec<(String, f32)>,
    },
    /// Any number of labels.
    Labels {
        /// The text.
        text: String,
        /// The second text, of a pair.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_pair: Option<String>,
        /// The labels whose probability reaches their threshold.
        labels: Vec<String>,
        /// The probability of each label, in label order; a JSON object.
        #[serde(serialize_with = "as_object")]
        probabilities: Vec<(String, f32)>,
    },
    /// A number.
    Value {
        /// The text.
        text: String,
        /// The second text, of a pair.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_pair: Option<String>,
        /// The number.
        value: f64,
    },
    /// Tags of words.
    Tags {
        /// The text.
        text: String,
        /// Its words.
        words: Vec<String>,
        /// The tag of each.
        labels: Vec<String>,
        /// The entities that the tags name; none where they are of another scheme than IOB2.
        entities: Vec<EntitySpan>,
    },
    /// An answer.
    Answer {
        /// The question.
        question: String,
        /// The answer; none where the context does not answer the question.
        answer: Option<String>,
        /// Its first character in the context.
        start: Option<usize>,
        /// The character after its last.
        end: Option<usize>,
        /// The score of what is answered: start logit plus end logit.
        score: f64,
    },
}

/// An entity in a text, by characters (Unicode code points).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntitySpan {
    /// Its type.
    pub label: String,
    /// Its first character.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
    /// Its characters.
    pub text: String,
}

/// First character of each word of a sentence and the one after its last, and the numbers of the words that have a state.
type WordPlaces = (Vec<(usize, usize)>, Vec<u32>);

/// A head with its encoder, ready for new texts.
pub struct Predictor {
    run: SavedRun,
    encoder: TextEncoder,
}

impl Predictor {
    /// Loads a run's encoder, on the device of its pipeline.
    ///
    /// # Errors
    /// When the model is not the one that the head was trained on, or cannot run.
    pub fn open(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let checkpoint = run.checkpoint()?;
        let settings = run.pipeline.extraction.of_sources(Vec::new());
        let states = &run.description.states;
        let encoder = TextEncoder::open(&checkpoint, &settings, states, machine)?;
        Ok(Predictor { run, encoder })
    }

    /// Opens a run folder, or the newest run in a folder of runs, and loads its model on the device of its pipeline.
    ///
    /// ```no_run
    /// use frostbert::{Machine, Prediction, Predictor};
    ///
    /// let mut predictor = Predictor::open_run("runs/sentiment", &Machine::default())?;
    /// for prediction in predictor.predict_texts(&["I would buy it again."])? {
    ///     if let Prediction::Class { text, label, confidence, .. } = prediction {
    ///         println!("{text}: {label} ({confidence:.2})");
    ///     }
    /// }
    /// # Ok::<(), frostbert::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Run`] if there is no finished run, one of its files is damaged, or the model is not the one that the head
    /// was trained on, [`Error::Runtime`] or [`Error::Device`] if the
    /// model cannot run.
    pub fn open_run(run: impl AsRef<Path>, machine: &Machine) -> Result<Predictor> {
        Predictor::open(SavedRun::open(run.as_ref())?, machine)
    }

    /// The predictions of the head for some texts, in their order. A tagger finds the words of a text itself.
    ///
    /// # Errors
    /// [`Error::Run`] if the head reads two texts ([`Predictor::predict_pairs`] takes those), [`Error::Encoder`] if a text
    /// has no token or ONNX Runtime fails.
    pub fn predict_texts<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<Prediction>> {
        let record = |text: &T| Record { text: text.as_ref().into(), ..Record::default() };
        self.predict(&texts.iter().map(record).collect::<Vec<Record>>())
    }

    /// The predictions of the head for some pairs of texts, in their order; for question answering each is a question and
    /// its context.
    ///
    /// # Errors
    /// As [`Predictor::predict_texts`], if the head reads one text.
    pub fn predict_pairs<A: AsRef<str>, B: AsRef<str>>(
        &mut self,
        pairs: &[(A, B)],
    ) -> Result<Vec<Prediction>> {
        let record = |(first, second): &(A, B)| Record {
            text: first.as_ref().into(),
            text_pair: Some(second.as_ref().into()),
            ..Record::default()
        };
        self.predict(&pairs.iter().map(record).collect::<Vec<Record>>())
    }

    /// Texts so far of which the end was cut off.
    pub fn truncated(&self) -> u64 {
        self.encoder.truncated
    }

    /// Number of labels that the head tells apart; 0 for numbers and answers.
    pub fn n_labels(&self) -> usize {
        self.run.description.labels.len()
    }

    /// Whether the head reads two texts: a pair, or a question and its context.
    pub fn needs_pairs(&self) -> bool {
        self.run.pipeline.reads_pairs()
    }

    /// The predictions of the head for some records, in their order; of words it reads those of the record, or finds them in its
    /// text.
    ///
    /// # Errors
    /// When a record lacks its second text, the encoder fails, or a state is no number.
    pub fn predict(&mut self, examples: &[Record]) -> Result<Vec<Prediction>> {
        if let Some(example) =
            examples.iter().find(|example| self.needs_pairs() && example.text_pair.is_none())
        {
            return Err(Error::Run {
                path: self.run.folder.clone(),
                expected: "two texts for each prediction, as the head was trained on".into(),
                got: format!("`{}` alone", frostbert_cache::wording::shorten(&example.text, 40)),
                hint: "give the second text with --text-pair, or a file with the columns of the train source"
                    .into(),
            });
        }
        if let Some(example) =
            examples.iter().find(|example| !self.needs_pairs() && example.text_pair.is_some())
        {
            return Err(Error::Run {
                path: self.run.folder.clone(),
                expected: "one text for each prediction, as the head was trained on".into(),
                got: format!(
                    "a second one, `{}`",
                    frostbert_cache::wording::shorten(
                        example.text_pair.as_deref().unwrap_or_default(),
                        40
                    )
                ),
                hint: "leave --text-pair out".into(),
            });
        }
        let joint_pairs = self.run.pipeline.data.pair == Pair::Joint;
        let inputs: Vec<Document<'_>> =
            examples.iter().flat_map(|example| example.documents(joint_pairs)).collect();
        let encoded = self.encoder.encode(&inputs)?;
        match self.run.pipeline.data.task {
            Task::Tokens => self.tags(examples, encoded),
            Task::Qa => self.answers(examples, encoded),
            _ => self.documents(examples, encoded),
        }
    }

    /// Whether a document that is too long loses its end.
    fn may_be_cut(&self) -> bool {
        self.run.pipeline.extraction.overflow == Overflow::Truncate
    }

    fn head(&self) -> Result<&Head> {
        self.run.head.as_ref().ok_or_else(|| Error::Run {
            path: self.run.folder.clone(),
            expected: "a trained head".into(),
            got: format!("head.kind = \"{}\"", self.run.description.kind),
            hint: "name a run of a trained head".into(),
        })
    }

    fn documents(&self, examples: &[Record], encoded: EncodedTexts) -> Result<Vec<Prediction>> {
        let n_layers = encoded.states.len();
        let documents_of_example = if self.run.pipeline.has_separate_pairs() { 2 } else { 1 };
        let sample_start =
            (0..=examples.len() as u32).map(|example| example * documents_of_example).collect();
        let view = paired(self.view(encoded, sample_start)?, &self.run.pipeline, n_layers);
        let texts =
            examples.iter().map(|example| (example.text.clone(), example.text_pair.clone()));
        let description = &self.run.description;
        let labels = &description.labels;
        let named = |row: ndarray::ArrayView1<'_, f32>| -> Vec<(String, f32)> {
            labels.iter().cloned().zip(row.iter().copied()).collect()
        };
        if self.run.head.is_none() {
            let values = similarity::cosines(&view)?;
            let values = texts.zip(values);
            return Ok(values
                .map(|((text, text_pair), value)| Prediction::Value { text, text_pair, value })
                .collect());
        }
        let logits = self.head()?.logits(&view)?;
        Ok(match self.run.pipeline.data.task {
            Task::Classification => {
                let probabilities = softmax_rows(logits.view(), description.temperature);
                let best = predictions(probabilities.view());
                let rows = texts.zip(probabilities.rows()).zip(best);
                rows.map(|(((text, text_pair), row), best)| Prediction::Class {
                    text,
                    text_pair,
                    label: labels[best].clone(),
                    confidence: row[best],
                    probabilities: named(row),
                })
                .collect()
            }
            Task::Multilabel => {
                let probabilities = sigmoid_rows(logits.view());
                let half = vec![0.5; labels.len()];
                let thresholds = description.thresholds.as_ref().unwrap_or(&half);
                let rows = texts.zip(probabilities.rows());
                rows.map(|((text, text_pair), row)| Prediction::Labels {
                    text,
                    text_pair,
                    labels: chosen(row.iter().copied(), thresholds, labels)
                        .into_iter()
                        .map(String::from)
                        .collect(),
                    probabilities: named(row),
                })
                .collect()
            }
            _ => texts
                .zip(description.numbers(logits.column(0)))
                .map(|((text, text_pair), value)| Prediction::Value { text, text_pair, value })
                .collect(),
        })
    }

    fn view(&self, encoded: EncodedTexts, sample_start: Vec<u32>) -> Result<FeatureView<'static>> {
        let kind = encoded.states[0].state.kind;
        let pieces = Pieces::of_layout(&encoded.layout, kind, encoded.states.len());
        self.view_of(encoded, pieces, sample_start)
    }

    fn view_of(
        &self,
        encoded: EncodedTexts,
        pieces: Pieces,
        sample_start: Vec<u32>,
    ) -> Result<FeatureView<'static>> {
        FeatureView::from_shard(
            &encoded.layout,
            encoded.states,
            encoded.hidden,
            self.run.pipeline.extraction.dtype,
            pieces,
            sample_start,
        )
    }

    fn tags(&self, examples: &[Record], encoded: EncodedTexts) -> Result<Vec<Prediction>> {
        let head = self.head()?;
        let labels = &self.run.description.labels;
        let (tagger, scheme, crf) = (Tagger::new(labels), TagScheme::new(labels), crf_scores(head));
        // Where words were given they are those of the record; else those that the tokenizer found in the text.
        let sentences: Vec<WordPlaces> = examples
            .iter()
            .enumerate()
            .map(|(document, example)| match &example.words {
                Some(words) => (offsets_of(words), words_with_states(&encoded.layout, document)),
                None => {
                    let places = &encoded.layout.words[encoded.layout.words_of(document)];
                    let offsets = places
                        .iter()
                        .map(|place| (place.char_start as usize, place.char_end as usize));
                    let is_cut = self.may_be_cut() && encoded.layout.documents.truncated(document);
                    let covered = Characters::new(&example.text, offsets.clone(), is_cut);
                    let offsets = offsets.map(|offset| covered.of(offset));
                    (offsets.collect(), (0..places.len() as u32).collect())
                }
            })
            .collect();
        let view = self.view(encoded, (0..=examples.len() as u32).collect())?;
        let all: Vec<u32> = (0..examples.len() as u32).collect();
        let mut tags: Vec<Vec<Option<usize>>> = vec![Vec::new(); examples.len()];
        head.for_each_output(&view, &all, |samples, starts, emissions| {
            for (number, sample) in samples.iter().enumerate() {
                let own = emissions.slice(s![starts[number]..starts[number + 1], ..]);
                let (offsets, words) = &sentences[*sample as usize];
                tags[*sample as usize] = tagger.tags(crf.as_ref(), own, words, offsets.len());
            }
        })?;
        let outside = labels.iter().position(|label| label == "O");
        let predictions = examples.iter().zip(&sentences).zip(tags);
        Ok(predictions
            .map(|((example, (offsets, _)), tags)| {
                let characters: Vec<char> = example.text.chars().collect();
                let text_of = |start: usize, end: usize| -> String {
                    characters[start..end].iter().collect()
                };
                let tags: Vec<Option<usize>> =
                    tags.into_iter().map(|tag| tag.or(outside)).collect();
                let known: Option<Vec<usize>> = tags.iter().copied().collect();
                let entities = match (&scheme, known) {
                    (Some(scheme), Some(known)) => entities_strict(scheme, &known[..])
                        .into_iter()
                        .map(|entity| {
                            let start = offsets[entity.start].0;
                            let end = offsets[entity.end - 1].1;
                            EntitySpan {
                                label: scheme.types[entity.kind].clone(),
                                start,
                                end,
                                text: text_of(start, end),
                            }
                        })
                        .collect(),
                    _ => Vec::new(),
                };
                Prediction::Tags {
                    text: example.text.clone(),
                    words: match &example.words {
                        Some(words) => words.clone(),
                        None => offsets.iter().map(|(s, e)| text_of(*s, *e)).collect(),
                    },
                    labels: tags
                        .iter()
                        .map(|tag| tag.map_or(String::new(), |tag| labels[tag].clone()))
                        .collect(),
                    entities,
                }
            })
            .collect())
    }

    fn answers(&self, examples: &[Record], encoded: EncodedTexts) -> Result<Vec<Prediction>> {
        let head = self.head()?;
        let n_layers = encoded.states.len();
        let windows = (0..examples.len())
            .map(|document| {
                let context = examples[document].text_pair.as_deref().unwrap_or_default();
                windows_of(&encoded.layout, document, context, self.may_be_cut())
            })
            .collect();
        let questions = Questions::new(&self.run.pipeline, windows, false);
        let kind = encoded.states[0].state.kind;
        let documents = Pieces::of_layout(&encoded.layout, kind, n_layers);
        let view =
            questions.view(&self.run.pipeline, n_layers, &documents, |pieces, sample_start| {
                self.view_of(encoded, pieces, sample_start)
            })?;
        let found = questions.find(&view, head)?;
        let threshold = self.run.description.no_answer_threshold;
        let predictions = examples.iter().zip(found);
        Ok(predictions
            .map(|(example, found)| {
                let span = found.answer(threshold);
                let context = example.text_pair.as_deref().unwrap_or_default();
                Prediction::Answer {
                    question: example.text.clone(),
                    answer: span.map(|(start, end, _)| characters(context, start, end)),
                    start: span.map(|span| span.0),
                    end: span.map(|span| span.1),
                    score: span.map_or(found.null_score, |span| span.2),
                }
            })
            .collect())
    }
}

/// First character of each word and the one after its last, where they are joined by one space.
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

fn as_object<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(label, probability)| (label, probability)))
}
