//! Applies a trained head to new texts.

use std::{borrow::Cow, iter, path::Path};

use frostbert_cache::states::StateKind;
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use crate::{
    config::names::{Pair, Task},
    data::{Prompts, Record, document::Document},
    encoder::checkpoint::Checkpoint,
    error::Result,
    extraction::{embedder::EncodedTexts, machine::Machine},
    features::{FeatureView, TokenRole, output_starts},
    head::saved::Head,
    prediction::{
        cached_states::RunCache,
        record_chunk::{DocumentForm, RecordChunk, apply_head, head_input},
        run_encoder::RunEncoder,
        saved_run::SavedRun,
    },
    tasks::prediction::Prediction,
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
    pub(super) run: SavedRun,
    /// Loaded when the first document needs it; `None` where records bring their vectors with them.
    pub(super) encoder: Option<RunEncoder>,
    /// States that need not be computed.
    pub(super) cache: RunCache,
}

impl Predictor {
    /// Creates a predictor and loads the run's encoder on the device of its pipeline.
    ///
    /// # Errors
    /// Returns an error if the model is not the one that the head was trained on, or if it cannot run.
    pub fn open(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let mut predictor = Predictor::without_encoder(run, machine)?;
        predictor.load()?;
        Ok(predictor)
    }

    /// Creates a predictor whose encoder is loaded only when a document needs it: of several runs that read states of the
    /// same encoder, only one loads it, and states may be computed elsewhere.
    ///
    /// # Errors
    /// Returns an error if the model is not the one that the head was trained on.
    #[doc(hidden)]
    pub fn without_encoder(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let encoder = run.has_encoder().then(|| RunEncoder::new(&run, machine)).transpose()?;
        Ok(Predictor { run, encoder, cache: RunCache::default() })
    }

    /// Creates a predictor for many documents: states that are in the run's cache are not computed again, and the
    /// encoder is loaded only when a document needs it.
    ///
    /// # Errors
    /// Returns an error if the model is not the one that the head was trained on.
    #[doc(hidden)]
    pub fn open_with_cache(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let mut predictor = Predictor::without_encoder(run, machine)?;
        if let Some(encoder) = &predictor.encoder {
            predictor.cache = RunCache::open(&predictor.run, encoder.inputs());
        }
        Ok(predictor)
    }

    /// Loads the encoder, if there is one and that has not been done.
    ///
    /// # Errors
    /// Returns an error if it cannot run.
    #[doc(hidden)]
    pub fn load(&mut self) -> Result<()> {
        match &mut self.encoder {
            Some(encoder) => encoder.load().map(drop),
            None => Ok(()),
        }
    }

    /// Limits the number of texts, or windows of them, that go through the encoder together. With 1, the states of a
    /// text depend on no other text, to the last bit.
    #[must_use]
    pub fn with_batches_of(mut self, most_texts: usize) -> Predictor {
        if let Some(encoder) = &mut self.encoder {
            encoder.limit_batches(most_texts);
        }
        self
    }

    /// Why the run's cache is not used, if it is damaged.
    #[doc(hidden)]
    pub fn cache_problem(&self) -> Option<&str> {
        self.cache.problem()
    }

    /// Returns the number of documents so far whose states were read from the run's cache.
    #[doc(hidden)]
    pub fn reused(&self) -> u64 {
        self.cache.reused()
    }

    /// Returns the number of documents so far that its encoder read. Of several runs that share one, it is that of the first.
    pub(crate) fn encoded(&self) -> u64 {
        self.encoder.as_ref().map_or(0, RunEncoder::encoded)
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
    /// Returns [`Error::Run`](crate::Error::Run) if there is no finished run, one of its files is damaged, or the model is
    /// not the one that the head was trained on, and [`Error::Runtime`](crate::Error::Runtime) or
    /// [`Error::Device`](crate::Error::Device) if the model cannot run.
    pub fn open_run(run: impl AsRef<Path>, machine: &Machine) -> Result<Predictor> {
        Predictor::open(SavedRun::open(run.as_ref())?, machine)
    }

    /// Predicts for texts and returns one prediction for each, in order. A tagger splits a text into words itself.
    ///
    /// # Errors
    /// Returns [`Error::Argument`](crate::Error::Argument) if the head reads two texts (use
    /// [`Predictor::predict_pairs`] for it), and [`Error::Encoder`](crate::Error::Encoder) if a text has no tokens or
    /// ONNX Runtime fails.
    pub fn predict_texts<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<Prediction>> {
        let record = |text: &T| Record { text: text.as_ref().into(), ..Record::default() };
        self.predict(&texts.iter().map(record).collect::<Vec<Record>>())
    }

    /// Predicts for pairs of texts and returns one prediction for each, in order. For question answering, a pair is a
    /// question and its context.
    ///
    /// # Errors
    /// Returns [`Error::Argument`](crate::Error::Argument) if the head reads a single text, and otherwise the errors of
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
        self.encoder.as_ref().map_or(0, RunEncoder::truncated) + self.cache.truncated()
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
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let mut predictions = self.read(records, apply_head)?;
        Ok(predictions.pop().unwrap_or_default())
    }

    /// Returns what `read` returns for the states of records, once.
    fn read<T>(
        &mut self,
        records: &[Record],
        read: impl FnMut(&SavedRun, &[Record], EncodedTexts) -> Result<T>,
    ) -> Result<Vec<T>> {
        let form = DocumentForm::of(&self.run);
        let chunk = RecordChunk::new(Cow::Borrowed(records), form, iter::once(&mut self.cache))?;
        let (_, read) = chunk.encode_and_read(&[&self.run], self.encoder.as_mut(), read)?;
        Ok(read)
    }

    /// Returns the run.
    pub(crate) fn run(&self) -> &SavedRun {
        &self.run
    }

    /// Returns the model whose states the head was trained on.
    ///
    /// # Errors
    /// Returns an error if these are vectors of another model.
    pub(crate) fn checkpoint(&self) -> Result<&Checkpoint> {
        self.run.require_encoder("encode texts")?;
        Ok(self.encoder.as_ref().expect("a run with an encoder").checkpoint())
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
        apply_head(&self.run, records, encoded)
    }

    /// Returns what the head reads for records that [`Predictor::predict`] accepts, and what it returns.
    ///
    /// # Errors
    /// Returns an error if the encoder fails, or if a state or an output is not finite.
    pub(crate) fn head_rows(&mut self, records: &[Record]) -> Result<HeadRows> {
        let mut read = self.read(records, |run, records, encoded| {
            let (_, view) = head_input(run, records, encoded)?;
            HeadRows::of(&view, run.head.as_ref())
        })?;
        Ok(read.pop().expect("one run"))
    }
}

/// What a head reads for some records, and what it returns.
pub(crate) struct HeadRows {
    /// The rows of all samples, as the head reads them before its transform.
    pub(crate) states: Array2<f32>,
    /// The first row of each sample, followed by the number of rows.
    pub(crate) starts: Vec<usize>,
    /// What each row is for, if layers of the encoder read them.
    pub(crate) roles: Vec<TokenRole>,
    /// The first row of outputs of each sample, followed by the number of rows of outputs.
    pub(crate) output_starts: Vec<usize>,
    /// A row of outputs for each row of states or for each token that has one, or for each sample if the head pools
    /// them; `None` for a cosine.
    pub(crate) outputs: Option<Array2<f32>>,
}

impl HeadRows {
    /// Reads all rows of a view, and computes what a head returns for them if there is one.
    ///
    /// # Errors
    /// Returns an error if a file of a cache does not match the manifest.
    pub(crate) fn of(view: &FeatureView<'_>, head: Option<&Head>) -> Result<HeadRows> {
        let all: Vec<u32> = (0..view.n_samples() as u32).collect();
        let mut samples: Vec<Array2<f32>> = vec![Array2::zeros((0, 0)); all.len()];
        let mut roles: Vec<Vec<TokenRole>> = vec![Vec::new(); all.len()];
        view.for_each_tile(&all, POOLED_CHUNK_RECORDS, |part, tile| {
            for (sample, range) in part.iter().zip(tile.starts.windows(2)) {
                let (sample, rows) = (*sample as usize, range[0]..range[1]);
                samples[sample] = tile.rows.slice(s![rows.clone(), ..]).to_owned();
                roles[sample] = tile.roles.get(rows).unwrap_or_default().to_vec();
            }
        })?;
        let roles = roles.concat();
        let mut starts = vec![0];
        for sample in &samples {
            starts.push(starts[starts.len() - 1] + sample.nrows());
        }
        let views: Vec<ArrayView2<'_, f32>> = samples.iter().map(Array2::view).collect();
        let states = concatenate(Axis(0), &views).expect("rows of equal width");
        let pools = head.is_some_and(|head| head.network().0.spec().pools());
        let output_starts = if pools {
            (0..=all.len()).collect()
        } else {
            output_starts(&starts, &roles).into_owned()
        };
        let outputs = head.map(|head| head.outputs_of_tokens(states.clone(), &starts, &roles));
        Ok(HeadRows { states, starts, roles, output_starts, outputs })
    }
}
