//! Applies a trained head to new texts.

use std::path::Path;

use frostbert_cache::{fingerprint::Key, states::StateKind};

use crate::{
    config::{
        names::{Pair, Task},
        settings::KindSettings,
    },
    data::{Prompts, Record, document::Document},
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    extraction::{
        embedder::{EncodedTexts, TextEncoder},
        machine::Machine,
    },
    prediction::{cached_states::CachedStates, saved_run::SavedRun},
    tasks::{encoded::EncodedRecords, prediction::Prediction, read_encoded, similarity},
};

/// The most records predicted at a time where the head reads the states of every token or word.
const CHUNK_RECORDS: usize = 512;

/// The most records predicted at a time where the head reads pooled states, which take little memory. At the end of each
/// chunk some workers have nothing to do, so larger chunks are faster.
const POOLED_CHUNK_RECORDS: usize = 2048;

/// About how many probabilities are computed at a time.
const CHUNK_PROBABILITIES: usize = CHUNK_RECORDS * 1000;

/// A trained head with its encoder, which predicts for new texts.
pub struct Predictor {
    run: SavedRun,
    checkpoint: Checkpoint,
    machine: Machine,
    /// Loaded when the first document needs it.
    encoder: Option<TextEncoder>,
    /// States that need not be computed.
    cached: Option<CachedStates>,
    /// Why the run's cache is not used, if it is damaged.
    cache_problem: Option<String>,
}

impl Predictor {
    /// Creates a predictor and loads the run's encoder on the device of its pipeline.
    ///
    /// # Errors
    /// Returns an error if the model is not the one that the head was trained on, or if it cannot run.
    pub fn open(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let mut predictor = Predictor::without_encoder(run, machine)?;
        predictor.encoder()?;
        Ok(predictor)
    }

    /// Creates a predictor for many documents: states that are in the run's cache are not computed again, and the
    /// encoder is loaded only when a document needs it.
    ///
    /// # Errors
    /// Returns an error if the model is not the one that the head was trained on.
    #[doc(hidden)]
    pub fn open_with_cache(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let mut predictor = Predictor::without_encoder(run, machine)?;
        let inputs = predictor.run.inputs(&predictor.checkpoint);
        match CachedStates::open(&predictor.run, &inputs) {
            Ok(cached) => predictor.cached = cached,
            Err(error) => predictor.give_up_cache(&error),
        }
        Ok(predictor)
    }

    /// Creates a predictor without an encoder: for states that are computed elsewhere, or read from a cache.
    ///
    /// # Errors
    /// Returns an error if the model is not the one that the head was trained on.
    pub(crate) fn without_encoder(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let checkpoint = run.checkpoint()?;
        Ok(Predictor {
            run,
            checkpoint,
            machine: machine.clone(),
            encoder: None,
            cached: None,
            cache_problem: None,
        })
    }

    /// Returns the encoder, which is loaded on the first call.
    fn encoder(&mut self) -> Result<&mut TextEncoder> {
        if self.encoder.is_none() {
            let settings = self.run.pipeline.extraction.of_sources(Vec::new());
            let states = &self.run.description.states;
            let encoder = TextEncoder::open(&self.checkpoint, &settings, states, &self.machine)?;
            self.encoder = Some(encoder);
        }
        Ok(self.encoder.as_mut().expect("just opened"))
    }

    /// Stops using the cache and remembers why. Predictions do not need it: all texts are encoded instead.
    fn give_up_cache(&mut self, error: &Error) {
        self.cache_problem = Some(format!("{error}: texts are encoded again"));
        self.cached = None;
    }

    /// Why the run's cache is not used, if it is damaged.
    #[doc(hidden)]
    pub fn cache_problem(&self) -> Option<&str> {
        self.cache_problem.as_deref()
    }

    /// Returns the number of documents so far whose states were read from the run's cache.
    #[doc(hidden)]
    pub fn reused(&self) -> u64 {
        self.cached.as_ref().map_or(0, |cached| cached.reused)
    }

    /// Returns the states of documents, in order.
    fn states_of(&mut self, inputs: &[Document<'_>]) -> Result<EncodedTexts> {
        let Some(cached) = &self.cached else {
            return self.encoder()?.encode(inputs);
        };
        let keys: Vec<Key> = inputs.iter().map(|input| input.key()).collect();
        let places: Vec<Option<_>> = keys.iter().map(|key| cached.locate(key)).collect();
        let lacking = inputs.iter().zip(&places).filter(|(_, places)| places.is_none());
        let lacking: Vec<Document<'_>> = lacking.map(|(input, _)| *input).collect();
        let encoded = if lacking.is_empty() {
            EncodedTexts::default()
        } else {
            self.encoder()?.encode(&lacking)?
        };
        if lacking.len() == inputs.len() {
            return Ok(encoded);
        }
        let joined = self.cached.as_mut().map(|cached| cached.join(&keys, &places, &encoded));
        match joined {
            Some(Ok(joined)) => Ok(joined),
            Some(Err(error)) => {
                self.give_up_cache(&error);
                self.encoder()?.encode(inputs)
            }
            None => Ok(encoded),
        }
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
    /// Returns [`Error::Run`] if there is no finished run, one of its files is damaged, or the model is not the one
    /// that the head was trained on, and [`Error::Runtime`] or [`Error::Device`] if the model cannot run.
    pub fn open_run(run: impl AsRef<Path>, machine: &Machine) -> Result<Predictor> {
        Predictor::open(SavedRun::open(run.as_ref())?, machine)
    }

    /// Predicts for texts and returns one prediction for each, in order. A tagger splits a text into words itself.
    ///
    /// # Errors
    /// Returns [`Error::Argument`] if the head reads two texts (use [`Predictor::predict_pairs`] for it), and
    /// [`Error::Encoder`] if a text has no tokens or ONNX Runtime fails.
    pub fn predict_texts<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<Prediction>> {
        let record = |text: &T| Record { text: text.as_ref().into(), ..Record::default() };
        self.predict(&texts.iter().map(record).collect::<Vec<Record>>())
    }

    /// Predicts for pairs of texts and returns one prediction for each, in order. For question answering, a pair is a
    /// question and its context.
    ///
    /// # Errors
    /// Returns [`Error::Argument`] if the head reads a single text, and otherwise the errors of
    /// [`Predictor::predict_texts`].
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

    /// Returns the number of texts so far that were truncated.
    pub fn truncated(&self) -> u64 {
        let encoded = self.encoder.as_ref().map_or(0, |encoder| encoder.truncated);
        encoded + self.cached.as_ref().map_or(0, |cached| cached.truncated)
    }

    /// Returns the labels of the head, by id; empty for numbers and answers.
    pub(crate) fn labels(&self) -> &[String] {
        &self.run.description.labels
    }

    /// Returns the task of the head.
    pub(crate) fn task(&self) -> Task {
        self.run.pipeline.data.task
    }

    /// Returns how many records to predict at a time: fewer if a record needs much memory, because each of its tokens has a
    /// state or because there are many labels, each with a probability.
    pub fn records_at_a_time(&self) -> usize {
        let mut states = self.run.description.states.iter();
        let is_pooled = states.all(|state| matches!(state.kind, StateKind::Pooled(_)));
        let most = if is_pooled { POOLED_CHUNK_RECORDS } else { CHUNK_RECORDS };
        (CHUNK_PROBABILITIES / self.labels().len().max(1)).clamp(1, most)
    }

    /// Predicts for records like [`Predictor::predict`], but returns `None` for a record without a text.
    ///
    /// # Errors
    /// Returns the errors of [`Predictor::predict`].
    pub fn predict_where_there_is_text(
        &mut self,
        records: Vec<Record>,
    ) -> Result<Vec<(Record, Option<Prediction>)>> {
        let with_text: Vec<Record> =
            records.iter().filter(|record| !record.is_empty()).cloned().collect();
        let predictions = if with_text.is_empty() { Vec::new() } else { self.predict(&with_text)? };
        let mut predictions = predictions.into_iter();
        let rows = records.into_iter().map(|record| {
            let prediction = if record.is_empty() { None } else { predictions.next() };
            (record, prediction)
        });
        Ok(rows.collect())
    }

    /// Returns whether the head reads two texts: a pair, or a question and its context.
    pub fn needs_pairs(&self) -> bool {
        self.run.pipeline.reads_pairs()
    }

    /// Predicts for records and returns one prediction for each, in order. A tagger uses the words of the record if it
    /// has any, and otherwise splits its text into words. Texts have the prompts of the run, and not those of the
    /// records.
    ///
    /// # Errors
    /// Returns an error if a record lacks its second text or has one too many, if the encoder fails, or if a state is
    /// not finite.
    pub fn predict(&mut self, records: &[Record]) -> Result<Vec<Prediction>> {
        if let Some(record) =
            records.iter().find(|record| self.needs_pairs() && record.text_pair.is_none())
        {
            return Err(Error::Argument {
                action: "predict",
                expected: "two texts for each prediction, as the head was trained on".into(),
                got: format!("`{}` alone", frostbert_cache::wording::shorten(&record.text, 40)),
                hint: "give the second text with --text-pair, or a file with the columns of the train source"
                    .into(),
            });
        }
        if let Some(record) =
            records.iter().find(|record| !self.needs_pairs() && record.text_pair.is_some())
        {
            return Err(Error::Argument {
                action: "predict",
                expected: "one text for each prediction, as the head was trained on".into(),
                got: format!(
                    "a second one, `{}`",
                    frostbert_cache::wording::shorten(
                        record.text_pair.as_deref().unwrap_or_default(),
                        40
                    )
                ),
                hint: "leave --text-pair out".into(),
            });
        }
        // Of several runs that predict for the same records, each has its own prompts.
        let prompts = self.run.prompts();
        let inputs = self.documents(records, &prompts);
        let encoded = self.states_of(&inputs)?;
        self.predict_encoded(records, encoded)
    }

    /// Returns the run.
    pub(crate) fn run(&self) -> &SavedRun {
        &self.run
    }

    /// Returns the model that the head was trained on.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Returns the documents of records that the head reads, with the prompts of the run.
    pub(crate) fn documents<'r>(
        &self,
        records: &'r [Record],
        prompts: &'r Prompts,
    ) -> Vec<Document<'r>> {
        let joint_pairs = self.run.pipeline.data.pair == Pair::Joint;
        records.iter().flat_map(|record| record.documents_with(prompts, joint_pairs)).collect()
    }

    /// Predicts for records from the states of their [`documents`](Predictor::documents).
    ///
    /// # Errors
    /// Returns an error if the run has no trained head.
    pub(crate) fn predict_encoded(
        &self,
        records: &[Record],
        encoded: EncodedTexts,
    ) -> Result<Vec<Prediction>> {
        let description = &self.run.description;
        let encoded =
            EncodedRecords { pipeline: &self.run.pipeline, description, records, encoded };
        let (task, view) = read_encoded(encoded)?;
        match &self.run.head {
            Some(head) => task.predict(records, &view, head),
            None if matches!(self.run.pipeline.head.kind, KindSettings::Cosine) => {
                similarity::predict(records, &view)
            }
            None => Err(Error::Run {
                path: self.run.folder.clone(),
                expected: "a trained head".into(),
                got: format!("head.kind = \"{}\"", description.kind),
                hint: "name a run of a trained head".into(),
            }),
        }
    }
}
