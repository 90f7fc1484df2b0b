//! Some records that are predicted for at a time, on their way to the heads of one or more runs.

use std::{borrow::Cow, iter, mem};

use frostbert_cache::{
    shard::{ShardLayout, StateRows},
    states::Dtype,
    wording::shorten,
};

use crate::{
    config::names::Pair,
    data::{Prompts, Record, document::Document},
    error::{Error, Result},
    extraction::{embedder::EncodedTexts, text_stream::ChunkOfTexts},
    features::FeatureView,
    head::saved::Head,
    prediction::{
        cached_states::{CachedPart, RunCache},
        run_encoder::RunEncoder,
        saved_run::SavedRun,
    },
    tasks::{
        PredictionTask, encoded::EncodedRecords, prediction::Prediction, read_encoded, similarity,
    },
};

/// How a run makes documents of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocumentForm {
    prompts: Prompts,
    joint_pairs: bool,
    /// Whether it reads two texts.
    pub(crate) reads_pairs: bool,
    /// Whether it reads vectors of another model, which records bring with them, in place of texts.
    pub(crate) reads_vectors: bool,
}

impl DocumentForm {
    /// Returns that of a run. New texts have the prompts of the run, and not those of the records.
    pub(crate) fn of(run: &SavedRun) -> DocumentForm {
        DocumentForm {
            prompts: run.prompts(),
            joint_pairs: run.pipeline.data.pair == Pair::Joint,
            reads_pairs: run.pipeline.reads_pairs(),
            reads_vectors: !run.has_encoder(),
        }
    }

    fn documents<'a>(&'a self, records: &'a [Record]) -> Vec<Document<'a>> {
        let documents = records
            .iter()
            .flat_map(|record| record.documents_with(&self.prompts, self.joint_pairs));
        documents.collect()
    }

    /// Returns an error for a record that lacks its second text or has one too many, or that has a text where a vector is
    /// read.
    pub(crate) fn check(&self, records: &[Record]) -> Result<()> {
        self.check_vectors(records)?;
        let misfit = records.iter().find(|record| self.reads_pairs != record.text_pair.is_some());
        let Some(record) = misfit else { return Ok(()) };
        Err(if self.reads_pairs {
            Error::Argument {
                action: "predict",
                expected: "two texts for each prediction, as the head was trained on".into(),
                got: format!("`{}` alone", shorten(&record.text, 40)),
                hint: "give the second text with --text-pair, or a file with the columns of the train source"
                    .into(),
            }
        } else {
            Error::Argument {
                action: "predict",
                expected: "one text for each prediction, as the head was trained on".into(),
                got: format!(
                    "a second one, `{}`",
                    shorten(record.text_pair.as_deref().unwrap_or_default(), 40)
                ),
                hint: "leave --text-pair out".into(),
            }
        })
    }

    fn check_vectors(&self, records: &[Record]) -> Result<()> {
        let misfit = records.iter().find(|record| self.reads_vectors != record.vector.is_some());
        let Some(record) = misfit else { return Ok(()) };
        Err(if self.reads_vectors {
            Error::Argument {
                action: "predict",
                expected: "a vector for each prediction, as the head was trained on".into(),
                got: format!("the text `{}`", shorten(&record.text, 40)),
                hint: "name a file of vectors, with the column of the train source: `frostbert predict RUN FILE`"
                    .into(),
            }
        } else {
            Error::Argument {
                action: "predict",
                expected: "texts, as the head was trained on, whose model encodes them".into(),
                got: "vectors of another model".into(),
                hint: "name runs that all read such vectors, or a file of texts".into(),
            }
        })
    }
}

/// For each run, its predictions for some records.
pub(crate) type PredictionsByRun = Vec<Vec<Prediction>>;

/// Records that all have a text, and what the caches of some runs have of them.
pub(crate) struct RecordChunk<'r> {
    records: Cow<'r, [Record]>,
    form: DocumentForm,
    /// What the cache of each run has.
    cached: Vec<CachedPart>,
    /// Which of the documents are encoded: those that one of the caches lacks.
    is_encoded: Vec<bool>,
}

impl<'r> RecordChunk<'r> {
    /// Reads the states of records from the caches of the runs that predict for them.
    ///
    /// # Errors
    /// Returns an error if a record lacks its second text or has one too many.
    pub(crate) fn new<'c>(
        records: Cow<'r, [Record]>,
        form: DocumentForm,
        caches: impl IntoIterator<Item = &'c mut RunCache>,
    ) -> Result<RecordChunk<'r>> {
        form.check(&records)?;
        let documents = form.documents(&records);
        let cached: Vec<CachedPart> =
            caches.into_iter().map(|cache| cache.read(&documents)).collect();
        let is_encoded = (0..documents.len())
            .map(|document| cached.iter().any(|cached| !cached.has(document)))
            .collect();
        drop(documents);
        Ok(RecordChunk { records, form, cached, is_encoded })
    }

    /// Whether a document has to be encoded.
    pub(crate) fn needs_encoder(&self) -> bool {
        self.is_encoded.contains(&true)
    }

    /// Encodes the documents that have to be encoded; if there are none, the encoder is not loaded.
    ///
    /// # Errors
    /// Returns an error if the model cannot run, a text has no token, or a state is not finite.
    pub(crate) fn encode(&self, encoder: &mut RunEncoder) -> Result<EncodedTexts> {
        if self.needs_encoder() {
            encoder.load()?.encode(&self.documents())
        } else {
            Ok(EncodedTexts::default())
        }
    }

    /// Returns the vectors that the records bring with them, in order, as the states of a run.
    fn given_states(&self, run: &SavedRun) -> Result<EncodedTexts> {
        let state = run.description.states[0];
        let mut layout = ShardLayout::default();
        let mut rows = StateRows { state, bytes: Vec::new() };
        let mut hidden = 0;
        for record in self.records.iter() {
            let Some(vector) = &record.vector else { continue };
            hidden = run.head.as_ref().map_or(vector.width(), Head::width);
            if vector.width() != hidden {
                return Err(Error::Argument {
                    action: "predict",
                    expected: format!("vectors of {hidden} values, as the head was trained on"),
                    got: format!("one of {} ({})", vector.width(), record.text),
                    hint: "compute the vectors with the model that made those of the training data"
                        .into(),
                });
            }
            layout.push(vector.key, false, &[0], iter::empty(), &[]);
            rows.bytes.extend_from_slice(&vector.bytes);
        }
        Ok(EncodedTexts { layout, states: vec![rows], hidden })
    }

    /// Computes the states of the documents, or takes the vectors of the records where the runs have no encoder. Returns
    /// the records, with what `read` returns for the states of each run.
    ///
    /// # Errors
    /// Returns the errors of [`RecordChunk::encode`] and of `read`, or an error if a vector is wider or narrower than those
    /// that the head was trained on.
    pub(crate) fn encode_and_read<T>(
        self,
        runs: &[&SavedRun],
        encoder: Option<&mut RunEncoder>,
        read: impl FnMut(&SavedRun, &[Record], EncodedTexts) -> Result<T>,
    ) -> Result<(Cow<'r, [Record]>, Vec<T>)> {
        match encoder {
            Some(encoder) => {
                let encoded = self.encode(encoder)?;
                self.read(runs, encoded, encoder.dtype(), read)
            }
            None => {
                let given = self.given_states(runs[0])?;
                self.read(runs, given, Dtype::F32, read)
            }
        }
    }

    /// Applies the heads of the runs, in the order of their caches; `encoded` has what [`RecordChunk::encode`] returns.
    /// Returns the records, with the predictions of each run.
    ///
    /// # Errors
    /// Returns an error if a state is not finite, or a run has no trained head.
    pub(crate) fn predict(
        self,
        runs: &[&SavedRun],
        encoded: EncodedTexts,
        dtype: Dtype,
    ) -> Result<(Cow<'r, [Record]>, PredictionsByRun)> {
        if self.records.is_empty() {
            return Ok((self.records, runs.iter().map(|_| Vec::new()).collect()));
        }
        self.read(runs, encoded, dtype, apply_head)
    }

    /// Returns the records, with what `read` returns for the states of each run.
    fn read<T>(
        self,
        runs: &[&SavedRun],
        mut encoded: EncodedTexts,
        dtype: Dtype,
        mut read: impl FnMut(&SavedRun, &[Record], EncodedTexts) -> Result<T>,
    ) -> Result<(Cow<'r, [Record]>, Vec<T>)> {
        let RecordChunk { records, cached, is_encoded, .. } = self;
        let mut results = Vec::with_capacity(runs.len());
        for (number, (run, cached)) in runs.iter().zip(cached).enumerate() {
            let states = &run.description.states;
            let is_last = number + 1 == runs.len();
            // What was encoded for this run alone need not be copied.
            let is_own = cached.is_empty()
                && !is_encoded.contains(&false)
                && encoded.states.iter().map(|rows| &rows.state).eq(states);
            let own = if is_own && is_last {
                mem::take(&mut encoded)
            } else {
                cached.join(states, &encoded, &is_encoded, dtype)
            };
            results.push(read(run, &records, own)?);
        }
        Ok((records, results))
    }
}

impl ChunkOfTexts for RecordChunk<'_> {
    fn documents(&self) -> Vec<Document<'_>> {
        let documents = self.form.documents(&self.records).into_iter().zip(&self.is_encoded);
        documents.filter(|(_, is_encoded)| **is_encoded).map(|(document, _)| document).collect()
    }
}

/// Returns the predictions of a run's head for records with these states.
///
/// # Errors
/// Returns an error if a state is not finite, or the run has no trained head.
pub(crate) fn apply_head(
    run: &SavedRun,
    records: &[Record],
    encoded: EncodedTexts,
) -> Result<Vec<Prediction>> {
    let (task, view) = head_input(run, records, encoded)?;
    match &run.head {
        Some(head) => task.predict(records, &view, head),
        None if run.pipeline.head.kind.is_cosine() => similarity::predict(records, &view),
        None => Err(Error::Run {
            path: run.folder.clone(),
            expected: "a trained head".into(),
            got: format!("head.kind = \"{}\"", run.description.kind),
            hint: "name a run of a trained head".into(),
        }),
    }
}

/// Returns the task of records and the features that a run's head reads of them.
///
/// # Errors
/// Returns an error if a state is not finite.
pub(crate) fn head_input(
    run: &SavedRun,
    records: &[Record],
    encoded: EncodedTexts,
) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
    let (pipeline, description) = (&run.pipeline, &run.description);
    read_encoded(EncodedRecords { pipeline, description, records, encoded })
}
