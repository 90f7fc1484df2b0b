//! Exports a cache in the order of a pipeline's data files, so that rows line up with the user's own table.

use std::{
    cell::{Cell, RefCell},
    iter,
};

use frostbert_cache::{
    export::{DocumentRow, ExportOptions, ExportReport, RowSource, SourceLine, export_rows},
    progress::Progress,
    reader::CacheReader,
    wording::counted,
};

use crate::{
    config::settings::{ExtractionSettings, Pipeline},
    data::{SwallowedLines, dataset::read_all, require_texts},
    error::Result,
    extraction::extract::{inputs_for, warn_of_swallowed},
};

/// Writes a row for every record of a pipeline's data files, in order; a text that occurs twice has two rows. The
/// states are those asked for, or by default those that the pipeline stores.
///
/// # Errors
/// Returns [`frostbert_cache::Error::Miss`] if the cache lacks records (it says how many) or is not the one that the
/// pipeline makes, an error if a data file does not match the pipeline, and the errors of [`export_rows`].
pub fn export_records(
    pipeline: &Pipeline,
    cache: &CacheReader,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    let pipeline = &for_model_of(pipeline, cache);
    require_own(pipeline, cache, progress)?;
    let mut states = if options.states.is_empty() && options.derived.is_none() {
        pipeline.stored_states(cache.manifest().model_layers)?
    } else {
        options.states.clone()
    };
    states.sort_unstable();
    states.dedup();
    let records = RecordDocuments {
        settings: &pipeline.extraction,
        empty: Cell::new(0),
        swallowed: RefCell::default(),
    };
    let options = ExportOptions { states, ..options.clone() };
    let report = export_rows(cache, &records, &options, progress)?;
    warn_of_swallowed(&pipeline.extraction.sources, &records.swallowed.borrow(), progress);
    if records.empty.get() > 0 {
        progress.warn(&format!(
            "{} with nothing but white space {} no row, because such texts are not encoded: set data.clean.drop_empty \
             = false and extract again to get a row for each",
            counted(records.empty.get(), "record"),
            if records.empty.get() == 1 { "has" } else { "have" }
        ));
    }
    Ok(report)
}

/// The pipeline as stage 1 does it for the model that made a cache: of the models that its sweep compares, each has its own.
fn for_model_of(pipeline: &Pipeline, cache: &CacheReader) -> Pipeline {
    let theirs = &cache.manifest().inputs;
    let has_made = |own: &Pipeline| {
        let checkpoint = own.extraction.checkpoint();
        checkpoint.is_ok_and(|model| inputs_for(own, &model, &theirs.provider) == *theirs)
    };
    let mut models = pipeline.by_model();
    let place = if models.len() > 1 { models.iter().position(has_made) } else { None };
    models.swap_remove(place.unwrap_or(0))
}

/// Fails where the cache is not the one that the pipeline makes. Without the model nobody can tell, and a note says so.
fn require_own(pipeline: &Pipeline, cache: &CacheReader, progress: &dyn Progress) -> Result<()> {
    let theirs = &cache.manifest().inputs;
    let checkpoint = match pipeline.extraction.checkpoint() {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            progress.note(&format!(
                "it was not checked whether this cache is the pipeline's own: {error}"
            ));
            return Ok(());
        }
    };
    // The user named this cache, so it may have been computed on any device.
    let ours = inputs_for(pipeline, &checkpoint, &theirs.provider);
    let differences = theirs.differences(&ours);
    if differences.is_empty() {
        return Ok(());
    }
    Err(frostbert_cache::Error::Miss {
        cache: cache.folder().to_path_buf(),
        lacks: format!("what this pipeline stores, which differs in {}", differences.join(", ")),
        hint: format!(
            "name the pipeline's own cache, {}, or set its values to those of this one with --set",
            pipeline.extraction.cache_dir.join(ours.fingerprint()).display()
        ),
    }
    .into())
}

/// The records of some data files, each with one document, or with two if pairs were encoded separately.
struct RecordDocuments<'a> {
    settings: &'a ExtractionSettings,
    /// Number of records without a text, in the current reading.
    empty: Cell<u64>,
    /// The lines that quotes swallowed, source by source, in the same reading.
    swallowed: RefCell<Vec<SwallowedLines>>,
}

impl RecordDocuments<'_> {
    /// Checks what a complete reading found.
    fn check(&self, n_records: &[usize]) -> Result<()> {
        let n_empty = self.empty.get();
        let n_all: usize = n_records.iter().sum();
        let sources = &self.settings.sources;
        require_texts(sources, n_records, n_all - n_empty as usize, n_empty)
    }
}

impl RowSource for RecordDocuments<'_> {
    fn rows(&self) -> Box<dyn Iterator<Item = frostbert_cache::Result<DocumentRow>> + '_> {
        self.empty.set(0);
        let settings = self.settings;
        self.swallowed.replace(vec![SwallowedLines::default(); settings.sources.len()]);
        let mut n_records = vec![0; settings.sources.len()];
        let mut examples = read_all(&settings.sources);
        let mut waiting: Vec<DocumentRow> = Vec::new();
        let mut is_done = false;
        let rows = iter::from_fn(move || {
            loop {
                if is_done {
                    return None;
                }
                if let Some(row) = waiting.pop() {
                    return Some(Ok(row));
                }
                let example = match examples.next() {
                    Some(Ok(example)) => example,
                    Some(Err(error)) => {
                        is_done = true;
                        return Some(Err(error));
                    }
                    None => {
                        is_done = true;
                        return self.check(&n_records).err().map(Err);
                    }
                };
                n_records[example.source] += 1;
                self.swallowed.borrow_mut()[example.source].count(&example);
                if settings.leaves_out(&example) {
                    self.empty.set(self.empty.get() + 1);
                    continue;
                }
                let parts = settings.documents(&example).enumerate();
                waiting = parts
                    .map(|(part, input)| DocumentRow {
                        key: input.key(),
                        place: SourceLine {
                            source: example.source as u32,
                            line: example.line.unwrap_or(0),
                            part: part as u8,
                            id: example.id.clone().unwrap_or_default(),
                        },
                    })
                    .collect();
                waiting.reverse();
            }
        });
        Box::new(rows.map(|row| row.map_err(|error| frostbert_cache::Error::Rows(Box::new(error)))))
    }

    fn sources(&self) -> Option<Vec<String>> {
        let paths = self.settings.sources.iter();
        Some(paths.map(|source| source.path.display().to_string()).collect())
    }
}
