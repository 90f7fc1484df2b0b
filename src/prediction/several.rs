//! Predicts for the same records with several runs.

use std::{borrow::Cow, iter, path::Path};

use frostbert_cache::states::Dtype;

use crate::{
    config::settings::Pipeline,
    data::{Record, StopReading, document::Document},
    error::Result,
    extraction::{embedder::EncodedTexts, text_stream::ChunkOfTexts},
    prediction::{
        cached_states::RunCache,
        predictor::Predictor,
        record_chunk::{DocumentForm, PredictionsByRun, RecordChunk, apply_head},
        run_encoder::RunEncoder,
        saved_run::SavedRun,
    },
    run_folder::number_of,
    tasks::prediction::Prediction,
};

/// A predictor, with the name that distinguishes its predictions from those of other runs.
pub struct NamedPredictor {
    /// The name of its runs, or the path of its folder if several of the runs have the same name.
    pub name: String,
    /// The predictor.
    pub predictor: Predictor,
}

/// Records in the order of their file, and what the runs predict for them.
pub struct PredictedRecords {
    /// The records.
    pub records: Vec<Record>,
    /// For each run, the prediction for each record; `None` if it has no text.
    pub predictions: Vec<Vec<Option<Prediction>>>,
}

/// Returns the names of runs, in order. All names differ, unless a run is given twice.
pub fn names_of(runs: &[SavedRun]) -> Vec<String> {
    let own = |run: &SavedRun| short_name(&run.folder, &run.pipeline);
    let is_shared = |name: &str| runs.iter().filter(|run| own(run) == name).count() > 1;
    runs.iter()
        .map(|run| {
            let name = own(run);
            if is_shared(&name) { run.folder.display().to_string() } else { name }
        })
        .collect()
}

/// Returns the pipeline's name if the folder is numbered. Otherwise the folder is that of one of several tasks or a
/// copy, and its own name is returned.
fn short_name(folder: &Path, pipeline: &Pipeline) -> String {
    match folder.file_name() {
        Some(name) if number_of(name).is_none() => name.to_string_lossy().into_owned(),
        _ => pipeline.name.clone(),
    }
}

/// Returns the number of records that all predictors can predict for at a time.
pub fn records_at_a_time(predictors: &[NamedPredictor]) -> usize {
    let each = predictors.iter().map(|one| one.predictor.records_at_a_time());
    each.min().unwrap_or(1)
}

/// How many records are predicted for together.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSize {
    /// The most of them.
    pub records: usize,
    /// The number of records after which a new chunk begins in any case; for a folder of parts, that of a part.
    pub part: usize,
}

/// Predicts for a stream of records with each of the runs. Runs that read states of the same encoder share one pass of it.
/// If all of them do, reading, encoding and `take`, which gets the predictions in order on this thread, go on side by
/// side. Only a few chunks of records are in memory. The stream ends when `take` returns `false`; then, and after an error,
/// `stop` ends the wait for further records.
///
/// # Errors
/// Returns the errors of the records, those of [`Predictor::predict`] and those of `take`.
pub fn predict_all(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = Result<Record>> + Send,
    stop: &StopReading,
    size: ChunkSize,
    mut take: impl FnMut(PredictedRecords) -> Result<bool>,
) -> Result<()> {
    let mut chunks = chunks_of(records, size);
    let mut groups = groups_of(predictors);
    let [EncoderGroup { runs, caches, encoder: Some(encoder), form, .. }] = &mut groups[..] else {
        for records in chunks {
            if !take(predict_with_groups(&mut groups, records?)?)? {
                break;
            }
        }
        return Ok(());
    };
    let mut chunks = iter::from_fn(move || {
        let records = chunks.next()?;
        Some(records.and_then(|records| StreamedChunk::new(records, form, caches)))
    });
    let dtype = encoder.dtype();
    let mut finish = |chunk: StreamedChunk, encoded| take(chunk.predict(runs, encoded, dtype)?);
    // The encoder is loaded only for a text that is in no cache.
    loop {
        let Some(chunk) = chunks.next().transpose()? else {
            return Ok(());
        };
        if chunk.records.needs_encoder() {
            let chunks = iter::once(Ok(chunk)).chain(chunks);
            return encoder.load()?.encode_chunks(chunks, stop, finish);
        }
        if !finish(chunk, EncodedTexts::default())? {
            return Ok(());
        }
    }
}

/// Returns the predictions of each run for the same records.
///
/// # Errors
/// Returns the errors of [`Predictor::predict`].
pub fn predict_with_all(
    predictors: &mut [NamedPredictor],
    records: Vec<Record>,
) -> Result<PredictedRecords> {
    predict_with_groups(&mut groups_of(predictors), records)
}

/// Runs that read states of the same encoder.
struct EncoderGroup<'p> {
    /// Their places among all runs.
    places: Vec<usize>,
    runs: Vec<&'p SavedRun>,
    caches: Vec<&'p mut RunCache>,
    /// The encoder of the first of them, for the states of all; `None` for a single run that reads vectors of another
    /// model.
    encoder: Option<&'p mut RunEncoder>,
    form: DocumentForm,
}

fn groups_of(predictors: &mut [NamedPredictor]) -> Vec<EncoderGroup<'_>> {
    let mut groups: Vec<EncoderGroup<'_>> = Vec::new();
    for (place, NamedPredictor { predictor, .. }) in predictors.iter_mut().enumerate() {
        let Predictor { run, encoder, cache } = predictor;
        let form = DocumentForm::of(run);
        let known = groups.iter_mut().find_map(|group| {
            let (shared, own) = (group.encoder.as_deref_mut()?, encoder.as_ref()?);
            if group.form != form || !shared.is_same(own) {
                return None;
            }
            shared.add_states(own);
            Some((&mut group.places, &mut group.runs, &mut group.caches))
        });
        match known {
            Some((places, runs, caches)) => {
                places.push(place);
                runs.push(run);
                caches.push(cache);
            }
            None => {
                let (places, runs, caches) = (vec![place], vec![&*run], vec![cache]);
                groups.push(EncoderGroup { places, runs, caches, encoder: encoder.as_mut(), form });
            }
        }
    }
    groups
}

fn predict_with_groups(
    groups: &mut [EncoderGroup<'_>],
    records: Vec<Record>,
) -> Result<PredictedRecords> {
    let (records, without_text) = split_off_empty(records);
    let n_runs = groups.iter().map(|group| group.runs.len()).sum();
    let mut predictions: PredictionsByRun = (0..n_runs).map(|_| Vec::new()).collect();
    if !records.is_empty() {
        for group in groups {
            let caches = group.caches.iter_mut().map(|cache| &mut **cache);
            let chunk = RecordChunk::new(Cow::Borrowed(&records), group.form.clone(), caches)?;
            let (_, own) =
                chunk.encode_and_read(&group.runs, group.encoder.as_deref_mut(), apply_head)?;
            for (place, own) in group.places.iter().zip(own) {
                predictions[*place] = own;
            }
        }
    }
    Ok(put_together(records, without_text, predictions))
}

/// A chunk of a stream of records.
struct StreamedChunk {
    records: RecordChunk<'static>,
    /// The records that have no text, with their places among all.
    without_text: Vec<(usize, Record)>,
}

impl StreamedChunk {
    fn new(
        records: Vec<Record>,
        form: &DocumentForm,
        caches: &mut [&mut RunCache],
    ) -> Result<StreamedChunk> {
        let (records, without_text) = split_off_empty(records);
        let caches = caches.iter_mut().map(|cache| &mut **cache);
        let records = RecordChunk::new(Cow::Owned(records), form.clone(), caches)?;
        Ok(StreamedChunk { records, without_text })
    }

    fn predict(
        self,
        runs: &[&SavedRun],
        encoded: EncodedTexts,
        dtype: Dtype,
    ) -> Result<PredictedRecords> {
        let (records, predictions) = self.records.predict(runs, encoded, dtype)?;
        Ok(put_together(records.into_owned(), self.without_text, predictions))
    }
}

impl ChunkOfTexts for StreamedChunk {
    fn documents(&self) -> Vec<Document<'_>> {
        self.records.documents()
    }
}

/// Collects records into chunks. The last one ends before an error.
fn chunks_of(
    records: impl Iterator<Item = Result<Record>> + Send,
    size: ChunkSize,
) -> impl Iterator<Item = Result<Vec<Record>>> + Send {
    let mut records = records.fuse();
    let mut left_in_part = size.part;
    iter::from_fn(move || {
        let most = size.records.min(left_in_part).max(1);
        let chunk: Result<Vec<Record>> = records.by_ref().take(most).collect();
        if let Ok(chunk) = &chunk {
            left_in_part -= chunk.len().min(left_in_part);
            if left_in_part == 0 {
                left_in_part = size.part;
            }
            if chunk.is_empty() {
                return None;
            }
        }
        Some(chunk)
    })
}

/// Splits off the records that have no text, with their places.
fn split_off_empty(records: Vec<Record>) -> (Vec<Record>, Vec<(usize, Record)>) {
    let (without, with): (Vec<_>, Vec<_>) =
        records.into_iter().enumerate().partition(|(_, record)| record.is_empty());
    (with.into_iter().map(|(_, record)| record).collect(), without)
}

/// Puts the records without a text back where they were.
fn put_together(
    records: Vec<Record>,
    without_text: Vec<(usize, Record)>,
    predictions: PredictionsByRun,
) -> PredictedRecords {
    let places: Vec<usize> = without_text.iter().map(|(place, _)| *place).collect();
    let n_records = records.len() + places.len();
    let mut with_text = records.into_iter();
    let mut without_text = without_text.into_iter();
    let is_empty = |place: &usize| places.binary_search(place).is_ok();
    let records = (0..n_records).filter_map(|place| {
        if is_empty(&place) {
            without_text.next().map(|(_, record)| record)
        } else {
            with_text.next()
        }
    });
    let records = records.collect();
    let predictions = predictions.into_iter().map(|own| {
        let mut own = own.into_iter();
        (0..n_records).map(|place| if is_empty(&place) { None } else { own.next() }).collect()
    });
    PredictedRecords { predictions: predictions.collect(), records }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record { text: text.into(), ..Record::default() }
    }

    #[test]
    fn a_chunk_never_reaches_beyond_its_part() {
        let sizes = |n_records: usize, records: usize, part: usize| -> Vec<usize> {
            let stream = (0..n_records).map(|_| Ok(record("a")));
            let chunks = chunks_of(stream, ChunkSize { records, part });
            chunks.map(|chunk| chunk.unwrap().len()).collect()
        };
        assert_eq!(sizes(11, 4, 5), [4, 1, 4, 1, 1]);
        assert_eq!(sizes(8, 4, 8), [4, 4]);
        assert_eq!(sizes(9, 4, usize::MAX), [4, 4, 1]);
        assert!(sizes(0, 4, 5).is_empty());
    }

    #[test]
    fn records_without_a_text_stay_where_they_were() {
        let texts = [" ", "a", "", "b", "c", "\n"];
        let (with, without) = split_off_empty(texts.map(record).to_vec());
        assert_eq!(with.len(), 3);
        let of = |record: &Record, run: f64| {
            let (text, text_pair) = (record.text.clone(), None);
            Prediction::Value { text, text_pair, value: run }
        };
        let predictions =
            [1.0, 2.0].map(|run| with.iter().map(|record| of(record, run)).collect::<Vec<_>>());
        let together = put_together(with, without, predictions.to_vec());
        let read: Vec<&str> = together.records.iter().map(|record| record.text.as_str()).collect();
        assert_eq!(read, texts);
        for (own, run) in together.predictions.iter().zip([1.0, 2.0]) {
            for (text, prediction) in texts.iter().zip(own) {
                let expected = (!text.trim().is_empty()).then(|| of(&record(text), run));
                assert_eq!(*prediction, expected);
            }
        }
    }
}
