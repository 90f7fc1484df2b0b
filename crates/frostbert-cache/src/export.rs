//! Exports the values of a cache as typed vectors for other tools: NumPy arrays, safetensors, Arrow, or Parquet with
//! list columns.
//!
//! Rows are read twice, once to count them and once to write them, so that a format can declare its sizes first and
//! memory use stays flat: only one batch of rows and the cache's index of documents are held in memory.

mod arrow_file;
mod derived;
mod folder;
mod gather;
mod npy;
mod of_tokens;
mod parquet_list;
mod quantized;
mod rows;
mod safetensors_file;
mod table;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use derived::{DerivedReport, DerivedState};
pub use folder::{EXPORT, ExportFile};
pub use npy::header as npy_header;
pub use quantized::Quantization;
pub use rows::{CacheOrder, DocumentRow, RowSource, SourceLine};
pub use safetensors_file::header as safetensors_header;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    fingerprint::FingerprintInputs,
    progress::Progress,
    reader::CacheReader,
    states::{Dtype, StateId, StateKind},
    wording::{counted, part_of},
};
use derived::table_of_derived;
use folder::StagedExport;
use gather::{Gatherer, MOST_OPEN, OpenShards};
use quantized::Quantizer;
use table::{DOCUMENTS, ExportTable, TableWriter, table_of};

/// The number of bytes of states that are copied at a time.
const BATCH_BYTES: usize = 32 * 1024 * 1024;

/// The number of documents that are copied at a time.
const BATCH_DOCUMENTS: usize = 65_536;

/// Ranges of fewer vectors than this are said to be of few, as sentence-transformers does.
const FEW_VECTORS: u64 = 100;

/// The file format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One `.npy` file per column.
    Npy,
    /// One `.safetensors` file per table, with a tensor per column.
    Safetensors,
    /// One Arrow IPC file per table.
    Arrow,
    /// One Parquet file per table, with states as list columns.
    ParquetList,
}

impl ExportFormat {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ExportFormat::Npy => "npy",
            ExportFormat::Safetensors => "safetensors",
            ExportFormat::Arrow => "arrow",
            ExportFormat::ParquetList => "parquet-list",
        }
    }

    /// Returns whether the files are self-contained tables. Otherwise, columns are separate arrays, and tokens refer to
    /// their document by `doc`.
    fn is_tables(self) -> bool {
        matches!(self, ExportFormat::Arrow | ExportFormat::ParquetList)
    }

    fn create(self, folder: &Path, table: &ExportTable) -> Result<Box<dyn TableWriter>> {
        Ok(match self {
            ExportFormat::Npy => Box::new(npy::NpyWriter::create(folder, table)?),
            ExportFormat::Safetensors => {
                Box::new(safetensors_file::SafetensorsWriter::create(folder, table)?)
            }
            ExportFormat::Arrow => Box::new(arrow_file::ArrowWriter::create(folder, table)?),
            ExportFormat::ParquetList => {
                Box::new(parquet_list::ParquetListWriter::create(folder, table)?)
            }
        })
    }
}

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The file format.
    pub format: ExportFormat,
    /// The states to export; if there are none and nothing is derived, the default ones.
    pub states: Vec<StateId>,
    /// A vector to export that is computed from states, which need not be exported themselves. It is written as f32,
    /// unless values are quantised.
    pub derived: Option<Arc<dyn DerivedState>>,
    /// Whether to write values as f32 whatever the cache's type is; otherwise they are written as stored.
    pub as_f32: bool,
    /// How to write values as small integers instead, if that is wanted.
    pub quantize: Option<Quantization>,
    /// The target folder, which must be missing, empty, or an earlier export.
    pub folder: PathBuf,
}

impl ExportOptions {
    /// Returns the states that every exported document must have, sorted and without duplicates.
    fn needed(&self) -> Vec<StateId> {
        let derived = self.derived.iter().flat_map(|derived| derived.states());
        let needed: BTreeSet<StateId> = self.states.iter().chain(derived).copied().collect();
        needed.into_iter().collect()
    }

    /// Checks that no state of all tokens stands in the table of a vector that only some tokens have.
    fn check_tokens(&self) -> Result<()> {
        let Some(derived) = self.derived.as_deref() else {
            return Ok(());
        };
        let table = table_of_derived(derived);
        let other = self.states.iter().find(|state| table_of(state.kind) == table);
        match other.filter(|_| table != DOCUMENTS) {
            None => Ok(()),
            Some(other) => Err(Error::Export {
                folder: self.folder.clone(),
                problem: format!(
                    "{other} has a row for every token, and {} for those that the model counts",
                    derived.name()
                ),
                hint: "export them one by one, into folders of their own (--out)".into(),
            }),
        }
    }

    /// Returns the names and widths of the exported vectors.
    fn vectors(&self, hidden: usize) -> Vec<(String, usize)> {
        let stored = self.states.iter().map(|state| (state.to_string(), hidden));
        let derived = self.derived.iter().map(|derived| (derived.name().into(), derived.width()));
        stored.chain(derived).collect()
    }
}

/// The description of an export, as written to `export.json`.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// The folder of the export.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The name of the format.
    pub format: &'static str,
    /// The cache's fingerprint.
    pub fingerprint: String,
    /// The fingerprint's inputs, which determine the states.
    pub inputs: FingerprintInputs,
    /// The exported states.
    pub states: Vec<StateId>,
    /// The vector that was computed from states, if any; its values are f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derived: Option<DerivedReport>,
    /// Width of a state.
    pub hidden: usize,
    /// The type of a written value; if the values were quantised, the type that they were quantised from.
    pub dtype: Dtype,
    /// How the values were quantised, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantization>,
    /// The number of document rows or, for a pipeline, of records.
    pub rows: u64,
    /// The number of token rows, if a `tokens` state is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The number of word rows, if a `words` state is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
    /// The data files that the numbers in `source` refer to, if rows are records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    /// All files except `export.json` itself.
    pub files: Vec<ExportFile>,
}

impl ExportReport {
    /// Returns the total size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Exports every document of a cache that has all of the requested states. If none are requested, exports every
/// document with all states that every document has. Warns about whatever is left out.
///
/// # Errors
/// Returns [`Error::Miss`] if nothing is left to export, and otherwise the errors of [`export_rows`].
pub fn export_cache(
    cache: &CacheReader,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    let order = CacheOrder::new(cache, &options.needed(), progress)?;
    let mut states = match &options.derived {
        None => order.states().to_vec(),
        Some(_) => options.states.clone(),
    };
    states.sort_unstable();
    states.dedup();
    let options = ExportOptions { states, ..options.clone() };
    export_rows(cache, &order, &options, progress)
}

/// Exports the rows of `source` with their states.
///
/// # Errors
/// Returns [`Error::Miss`] if a row lacks a state (it says how many do), [`Error::Export`] if the folder is taken or a
/// single vector is to be quantised by its range, or another error if the cache is damaged or the files cannot be
/// written. No folder is left behind then.
///
/// # Panics
/// Panics if no state is given and nothing is derived, or if a state is given twice.
pub fn export_rows(
    cache: &CacheReader,
    source: &dyn RowSource,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    let distinct: BTreeSet<StateId> = options.states.iter().copied().collect();
    assert!(
        (!distinct.is_empty() || options.derived.is_some())
            && distinct.len() == options.states.len(),
        "an export is of distinct states"
    );
    options.check_tokens()?;
    let staged = StagedExport::new(&options.folder)?;
    // Records come in any order, so shards would be closed and reopened for every batch.
    let most_open = match source.sources() {
        None => MOST_OPEN,
        Some(_) => usize::MAX,
    };
    let mut shards = OpenShards::new(cache, most_open);
    let needed = options.needed();
    let derived = options.derived.as_deref();
    let counts = count(cache, &mut shards, source, (&needed[..], derived), progress)?;
    let manifest = cache.manifest();
    let mut gatherer = Gatherer {
        shards,
        format: options.format,
        sources: source.sources(),
        counts,
        hidden: manifest.hidden,
        derived: options.derived.clone(),
        // Values are quantised from f32.
        dtype: if options.as_f32 || options.quantize.is_some() {
            Dtype::F32
        } else {
            manifest.dtype
        },
        quantizer: options
            .quantize
            .map(|kind| Quantizer::new(kind, options.vectors(manifest.hidden))),
    };
    let tables = gatherer.tables(&options.states)?;
    if options.quantize.is_some_and(Quantization::has_ranges) {
        measure_ranges(&mut gatherer, source, options, &tables, progress)?;
    }
    if let Some(quantizer) = &gatherer.quantizer {
        quantizer.write_ranges(staged.path())?;
    }
    let writers = tables.iter().map(|table| options.format.create(staged.path(), table));
    let mut writers: Vec<Box<dyn TableWriter>> = writers.collect::<Result<_>>()?;
    progress.start("exporting", Some(gatherer.counts.rows), "rows");
    write_rows(&mut gatherer, source, (options, &needed[..]), &tables, &mut writers, progress)?;
    writers.into_iter().try_for_each(|writer| writer.finish())?;
    progress.finish();

    let rows_of = |kind: StateKind| {
        let table = tables.iter().find(|table| table.name == table_of(kind));
        table.map(|table| table.n_rows)
    };
    let report = ExportReport {
        folder: options.folder.clone(),
        format: options.format.name(),
        fingerprint: manifest.fingerprint.clone(),
        inputs: manifest.inputs.clone(),
        states: options.states.clone(),
        derived: options.derived.as_ref().map(|derived| DerivedReport::of(&**derived)),
        hidden: gatherer.hidden,
        dtype: gatherer.dtype,
        quantize: options.quantize,
        rows: gatherer.counts.rows,
        tokens: rows_of(StateKind::Tokens),
        words: rows_of(StateKind::Words),
        sources: gatherer.sources,
        files: staged.files()?,
    };
    staged.commit(&report)?;
    Ok(report)
}

/// The counts from the first pass over the rows.
#[derive(Default)]
struct ExportCounts {
    rows: u64,
    tokens: u64,
    words: u64,
    id_chars: usize,
    id_bytes: u64,
    has_parts: bool,
}

fn count(
    cache: &CacheReader,
    shards: &mut OpenShards<'_>,
    source: &dyn RowSource,
    (states, derived): (&[StateId], Option<&dyn DerivedState>),
    progress: &dyn Progress,
) -> Result<ExportCounts> {
    let of_tokens =
        derived.filter(|derived| table_of_derived(*derived) == table_of(StateKind::Tokens));
    let mut counts = ExportCounts::default();
    let mut lacking = vec![0u64; states.len()];
    let first_of = |kind: StateKind| states.iter().find(move |state| state.kind == kind);
    let (tokens, words) = (first_of(StateKind::Tokens), first_of(StateKind::Words));
    progress.start("counting", None, "rows");
    for row in source.rows() {
        let row = row?;
        counts.rows += 1;
        counts.id_chars = counts.id_chars.max(row.place.id.chars().count());
        counts.id_bytes += row.place.id.len() as u64;
        counts.has_parts |= row.place.part > 0;
        let mut complete = true;
        for (state, lacking) in states.iter().zip(&mut lacking) {
            let lacks = cache.locate(&row.key, *state).is_none();
            *lacking += u64::from(lacks);
            complete &= !lacks;
        }
        if complete {
            for (state, rows) in [(tokens, &mut counts.tokens), (words, &mut counts.words)] {
                *rows += match (state, of_tokens) {
                    (None, _) => 0,
                    (Some(state), Some(derived)) if state.kind == StateKind::Tokens => {
                        shards.n_kept(&row, *state, derived)?
                    }
                    (Some(state), _) => shards.n_rows(&row.key, *state)? as u64,
                };
            }
        }
        progress.advance(1, 0);
    }
    progress.finish();
    let worst = states.iter().zip(lacking).max_by_key(|(_, lacking)| *lacking);
    match worst {
        Some((state, lacking)) if lacking > 0 => Err(Error::Miss {
            cache: cache.folder().to_path_buf(),
            lacks: format!("the {state} state of {}", part_of(lacking, counts.rows, "text")),
            hint: format!(
                "run `frostbert extract` first, with a pipeline that stores {state} of these texts"
            ),
        }),
        _ => Ok(counts),
    }
}

/// Reads all values once to find the least and the greatest of each dimension, by which they are quantised.
fn measure_ranges(
    gatherer: &mut Gatherer<'_>,
    source: &dyn RowSource,
    options: &ExportOptions,
    tables: &[ExportTable],
    progress: &dyn Progress,
) -> Result<()> {
    let has_vectors = |table: &&ExportTable| {
        let derived = options.derived.as_deref();
        !table.states.is_empty() || derived.is_some_and(|own| table_of_derived(own) == table.name)
    };
    for table in tables.iter().filter(has_vectors) {
        let vectors = || counted(table.n_rows, "vector");
        if table.n_rows == 1 {
            return Err(Error::Export {
                folder: options.folder.clone(),
                problem: format!("{} of {} has no range to be quantised by", vectors(), table.name),
                hint: "export more texts together, or use --quantize binary, which needs no range"
                    .into(),
            });
        }
        if table.n_rows < FEW_VECTORS {
            progress.warn(&format!(
                "the values of {} are quantised by the range of only {}: those of other texts may lie outside",
                table.name,
                vectors()
            ));
        }
    }
    progress.start("measuring", Some(gatherer.counts.rows), "rows");
    in_batches(gatherer, source, &options.needed(), |gatherer, rows| {
        gatherer.widen_ranges(&options.states, rows)?;
        progress.advance(rows.len() as u64, 0);
        Ok(())
    })?;
    progress.finish();
    Ok(())
}

/// Reads the rows in batches of a bounded size, and passes each batch to `visit`.
fn in_batches(
    gatherer: &mut Gatherer<'_>,
    source: &dyn RowSource,
    states: &[StateId],
    mut visit: impl FnMut(&mut Gatherer<'_>, &[DocumentRow]) -> Result<()>,
) -> Result<()> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for row in source.rows() {
        let row = row?;
        bytes += gatherer.n_bytes(&row, states)?;
        rows.push(row);
        if bytes >= BATCH_BYTES || rows.len() == BATCH_DOCUMENTS {
            visit(gatherer, &rows)?;
            rows.clear();
            bytes = 0;
        }
    }
    if rows.is_empty() { Ok(()) } else { visit(gatherer, &rows) }
}

fn write_rows(
    gatherer: &mut Gatherer<'_>,
    source: &dyn RowSource,
    (options, needed): (&ExportOptions, &[StateId]),
    tables: &[ExportTable],
    writers: &mut [Box<dyn TableWriter>],
    progress: &dyn Progress,
) -> Result<()> {
    let mut written = vec![0; tables.len()];
    let changed = || Error::Export {
        folder: options.folder.clone(),
        problem: "the data changed while it was exported".into(),
        hint: "export it again".into(),
    };
    in_batches(gatherer, source, needed, |gatherer, rows| {
        let first = written[0];
        for (number, table) in tables.iter().enumerate() {
            let batch = gatherer.gather(table, rows, first)?;
            written[number] += batch.num_rows() as u64;
            // Rows beyond the declared sizes would overwrite something else.
            if written[number] > table.n_rows {
                return Err(changed());
            }
            writers[number].write(&batch)?;
        }
        progress.advance(rows.len() as u64, 0);
        Ok(())
    })?;
    let whole = tables.iter().zip(&written).all(|(table, written)| table.n_rows == *written);
    if whole { Ok(()) } else { Err(changed()) }
}
