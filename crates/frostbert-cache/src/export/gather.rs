//! Builds record batches from keys: copies the rows of documents together from the shards that hold them.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array,
        Float32Array, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array,
    },
    buffer::{Buffer, MutableBuffer},
    datatypes::{Field, Schema, UInt32Type},
};

use super::{
    ExportCounts, ExportFormat,
    derived::{DerivedState, compute_all, table_of_derived},
    quantized::Quantizer,
    rows::DocumentRow,
    table::{DOCUMENTS, ExportTable, METADATA, SOURCE, table_of},
};
use crate::{
    error::{Error, Result},
    file::{NamedColumns, damage},
    fingerprint::Key,
    index::Location,
    names::state_file_name,
    reader::{CacheReader, by_shard, rows_of},
    shard::ShardLayout,
    state_file::StateFile,
    states::{Dtype, StateId, StateKind},
    tables::{token_columns, word_columns},
};

/// The number of shards kept open while documents come in the cache's own order. If the states of a document are in
/// several shards, those shards also follow one another.
pub(super) const MOST_OPEN: usize = 4;

/// The shards of a cache that are being read; each file is checked once, when it is opened.
///
/// An open file is memory-mapped, which costs no memory that the system could not reclaim; an open alignment costs
/// about 20 bytes per token.
pub(super) struct OpenShards<'a> {
    cache: &'a CacheReader,
    most: usize,
    open: HashMap<u32, ReadShard>,
    clock: u64,
}

#[derive(Default)]
struct ReadShard {
    used: u64,
    layout: Option<ShardLayout>,
    files: HashMap<StateId, StateFile>,
}

impl<'a> OpenShards<'a> {
    pub(super) fn new(cache: &'a CacheReader, most: usize) -> OpenShards<'a> {
        OpenShards { cache, most, open: HashMap::new(), clock: 0 }
    }

    /// Returns the location of a document's state.
    ///
    /// # Errors
    /// Returns [`Error::Miss`] if the cache has no such state.
    pub(super) fn locate(&self, key: &Key, state: StateId) -> Result<Location> {
        let place = self.cache.locate(key, state);
        place.ok_or_else(|| Error::Miss {
            cache: self.cache.folder().to_path_buf(),
            lacks: format!("the {state} state of the document {}", key.to_hex()),
            hint: "the data changed while it was exported: export it again".into(),
        })
    }

    /// Returns the number of rows of a document's state.
    ///
    /// # Errors
    /// Returns an error if the cache has no such state or is damaged.
    pub(super) fn n_rows(&mut self, key: &Key, state: StateId) -> Result<usize> {
        if matches!(state.kind, StateKind::Pooled(_)) {
            return Ok(1);
        }
        let location = self.locate(key, state)?;
        self.rows_at(location, state.kind)
    }

    /// Returns the number of rows that a document has for states of a kind, in the shard at its location.
    fn rows_at(&mut self, (shard, row): Location, kind: StateKind) -> Result<usize> {
        if matches!(kind, StateKind::Pooled(_)) {
            return Ok(1);
        }
        let layout = self.layout(shard, kind)?;
        Ok(rows_of(layout, kind, row as usize).len())
    }

    /// Returns the alignment of a shard that holds states of this kind.
    pub(super) fn layout(&mut self, shard: u32, kind: StateKind) -> Result<&ShardLayout> {
        let cache = self.cache;
        let open = self.shard(shard);
        if open.layout.is_none() {
            open.layout = Some(cache.read_layout(shard)?);
        }
        let layout = open.layout.as_ref().expect("just read");
        let (expected, got) = match kind {
            StateKind::Tokens => (layout.documents.n_tokens() as usize, layout.alignment.len()),
            StateKind::Words => (layout.documents.len() + 1, layout.word_start.len()),
            StateKind::Pooled(_) => (0, 0),
        };
        if expected == got {
            Ok(layout)
        } else {
            let path = cache.folder().join(&cache.shard(shard).name);
            let expected = format!("the {} of all its documents", kind.name());
            Err(damage(&path, &expected, "different ones".into()))
        }
    }

    /// Returns the rows of a state in a shard.
    fn file(&mut self, shard: u32, state: StateId) -> Result<&StateFile> {
        let cache = self.cache;
        let expected = match state.kind {
            StateKind::Pooled(_) => cache.shard(shard).documents as usize,
            kind => self.layout(shard, kind)?.rows(kind),
        };
        match self.shard(shard).files.entry(state) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let file = cache.open_state(shard, state)?;
                if file.n_rows() != expected {
                    let path = cache.folder().join(&cache.shard(shard).name);
                    return Err(damage(
                        &path.join(state_file_name(state)),
                        &format!("{expected} rows"),
                        file.n_rows().to_string(),
                    ));
                }
                Ok(place.insert(file))
            }
        }
    }

    fn shard(&mut self, shard: u32) -> &mut ReadShard {
        self.clock += 1;
        if self.open.len() >= self.most && !self.open.contains_key(&shard) {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.used);
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                self.open.remove(&oldest);
            }
        }
        let open = self.open.entry(shard).or_default();
        open.used = self.clock;
        open
    }
}

/// The rows of one state for several documents: their locations in the cache, and their places in the batch.
pub(super) struct PlacedRows {
    pub(super) locations: Vec<Location>,
    /// The first row of each document in the batch, followed by the number of rows.
    start: Vec<usize>,
}

impl PlacedRows {
    fn n_rows(&self) -> usize {
        self.start.last().copied().unwrap_or(0)
    }
}

/// Named columns.
pub(super) type ExportColumns = Vec<(String, ArrayRef)>;

/// Builds the record batches of an export.
pub(super) struct Gatherer<'a> {
    pub(super) shards: OpenShards<'a>,
    pub(super) format: ExportFormat,
    pub(super) sources: Option<Vec<String>>,
    pub(super) counts: ExportCounts,
    pub(super) hidden: usize,
    pub(super) derived: Option<Arc<dyn DerivedState>>,
    /// The type of the written values; f32 if they are quantised.
    pub(super) dtype: Dtype,
    /// Turns values into integers, if that is wanted.
    pub(super) quantizer: Option<Quantizer>,
}

impl Gatherer<'_> {
    /// Returns the tables that the given states make up: documents, plus tokens and words if there are states of them.
    ///
    /// # Errors
    /// Does not fail in practice, because nothing is read.
    pub(super) fn tables(&mut self, states: &[StateId]) -> Result<Vec<ExportTable>> {
        let counts = &self.counts;
        let all = [("documents", counts.rows), ("tokens", counts.tokens), ("words", counts.words)];
        let mut tables = Vec::new();
        for (name, n_rows) in all {
            let states = states.iter().copied().filter(|state| table_of(state.kind) == name);
            let states: Vec<StateId> = states.collect();
            let has_derived =
                self.derived.as_ref().is_some_and(|derived| table_of_derived(&**derived) == name);
            if states.is_empty() && name != DOCUMENTS && !has_derived {
                continue;
            }
            let columns = self.columns(name, &states, &[], 0)?;
            let fields = columns
                .iter()
                .map(|(name, values)| Field::new(name, values.data_type().clone(), false));
            let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), self.metadata());
            tables.push(ExportTable {
                name,
                states,
                schema: Arc::new(schema),
                hidden: self.hidden,
                n_rows,
                id_chars: self.counts.id_chars,
                id_bytes: self.counts.id_bytes,
            });
        }
        Ok(tables)
    }

    fn metadata(&self) -> HashMap<String, String> {
        let fingerprint = self.shards.cache.manifest().fingerprint.clone();
        let kind = self.quantizer.as_ref().map(|quantizer| quantizer.kind.name());
        let dtype = kind.unwrap_or_else(|| self.dtype.name());
        let values = [fingerprint, dtype.into(), self.hidden.to_string()];
        let pairs = METADATA.iter().map(|name| name.to_string()).zip(values);
        let mut metadata: HashMap<String, String> = pairs.collect();
        // Tables contain the file name of each row; arrays contain its number.
        if let Some(sources) = self.sources.as_ref().filter(|_| !self.format.is_tables()) {
            let sources = serde_json::to_string(sources).expect("strings become JSON");
            metadata.insert("frostbert.sources".into(), sources);
        }
        metadata
    }

    /// Returns the size in bytes of the given states of a document.
    ///
    /// # Errors
    /// Returns an error if the cache lacks one of them or is damaged.
    pub(super) fn n_bytes(&mut self, row: &DocumentRow, states: &[StateId]) -> Result<usize> {
        let mut n_rows = 0;
        for state in states {
            n_rows += self.shards.n_rows(&row.key, *state)?;
        }
        Ok(n_rows * self.hidden * self.dtype.size_bytes())
    }

    /// Collects the rows of a table that belong to the given documents; `first` is the row of the first document.
    ///
    /// # Errors
    /// Returns an error if the cache lacks one of them or is damaged.
    pub(super) fn gather(
        &mut self,
        table: &ExportTable,
        rows: &[DocumentRow],
        first: u64,
    ) -> Result<RecordBatch> {
        let columns = self.columns(table.name, &table.states, rows, first)?;
        let columns = columns.into_iter().map(|(_, values)| values).collect();
        Ok(RecordBatch::try_new(table.schema.clone(), columns)
            .expect("the schema is that of these columns"))
    }

    fn columns(
        &mut self,
        table: &str,
        states: &[StateId],
        rows: &[DocumentRow],
        first: u64,
    ) -> Result<ExportColumns> {
        let derived = self.derived.clone().filter(|derived| table_of_derived(&**derived) == table);
        if let (Some(derived), true) = (&derived, table != DOCUMENTS) {
            return self.columns_of_tokens(&**derived, rows, first);
        }
        let placed = states.iter().map(|state| self.place(rows, *state));
        let placed: Vec<PlacedRows> = placed.collect::<Result<_>>()?;
        if let Some(other) = placed.iter().find(|other| other.start != placed[0].start) {
            let shard = other.locations.first().map_or(0, |location| location.0);
            return Err(damage(
                &self.shards.cache.folder().join(&self.shards.cache.shard(shard).name),
                &format!("the same number of {} as in the other shards", table_of(states[0].kind)),
                "a different number for the same documents".into(),
            ));
        }
        let kind = states.first().map(|state| state.kind);
        let mut columns = match kind {
            Some(kind @ (StateKind::Tokens | StateKind::Words)) => {
                self.alignment(kind, rows, &placed[0], first)?
            }
            _ => self.of_documents(rows),
        };
        for (state, placed) in states.iter().zip(&placed) {
            let (name, values) = (state.to_string(), self.values(*state, placed, self.dtype)?);
            let written = self.written(&name, self.hidden, values, self.dtype);
            columns.push((name, written));
        }
        if let Some(derived) = derived {
            let values = self.derived(&*derived, rows)?;
            let written = self.written(derived.name(), derived.width(), values, Dtype::F32);
            columns.push((derived.name().into(), written));
        }
        Ok(columns)
    }

    pub(super) fn place(&mut self, rows: &[DocumentRow], state: StateId) -> Result<PlacedRows> {
        let mut placed = PlacedRows { locations: Vec::with_capacity(rows.len()), start: vec![0] };
        for row in rows {
            let location = self.shards.locate(&row.key, state)?;
            placed.locations.push(location);
            placed.start.push(placed.n_rows() + self.shards.rows_at(location, state.kind)?);
        }
        Ok(placed)
    }

    /// Builds the columns of documents that are not states.
    fn of_documents(&self, rows: &[DocumentRow]) -> ExportColumns {
        let places = || rows.iter().map(|row| &row.place);
        let mut columns: NamedColumns = vec![("key", keys(rows.iter().map(|row| row.key)))];
        if let Some(sources) = &self.sources {
            let source: ArrayRef = if self.format.is_tables() {
                let names = places().map(|place| &sources[place.source as usize]);
                Arc::new(StringArray::from_iter_values(names))
            } else {
                Arc::new(UInt32Array::from_iter_values(places().map(|place| place.source)))
            };
            let lines = places().map(|place| place.line as i64);
            columns.push((SOURCE, source));
            columns.push(("line", Arc::new(Int64Array::from_iter_values(lines))));
        }
        if self.counts.has_parts {
            let parts = UInt8Array::from_iter_values(places().map(|place| place.part));
            columns.push(("part", Arc::new(parts)));
        }
        if self.counts.id_chars > 0 {
            let ids = StringArray::from_iter_values(places().map(|place| &place.id));
            columns.push(("id", Arc::new(ids)));
        }
        named(columns)
    }

    /// Builds the columns that locate tokens or words in their documents.
    pub(super) fn alignment(
        &mut self,
        kind: StateKind,
        rows: &[DocumentRow],
        placed: &PlacedRows,
        first: u64,
    ) -> Result<ExportColumns> {
        // Treat these documents as a shard, whose first column is then the row of each document in it.
        let mut layout = ShardLayout::default();
        for (shard, row) in &placed.locations {
            layout.push_from(self.shards.layout(*shard, kind)?, *row as usize);
        }
        let mut columns =
            if kind == StateKind::Words { word_columns(&layout) } else { token_columns(&layout) };
        let documents = columns[0].1.as_primitive::<UInt32Type>();
        let key = keys(documents.values().iter().map(|document| rows[*document as usize].key));
        let numbers: Int64Array = documents.unary(|document| first as i64 + i64::from(document));
        columns[0].1 = Arc::new(numbers);
        if self.format.is_tables() {
            columns.insert(0, ("key", key));
        }
        Ok(named(columns))
    }

    /// Computes a vector of each document from its pooled states.
    fn derived(&mut self, derived: &dyn DerivedState, rows: &[DocumentRow]) -> Result<Buffer> {
        let mut pooled = Vec::new();
        for state in derived.states() {
            let placed = self.place(rows, *state)?;
            pooled.push(self.values(*state, &placed, Dtype::F32)?);
        }
        Ok(Buffer::from_vec(compute_all(derived, &pooled, self.hidden, rows.len())))
    }

    /// Takes the values of the given documents into the ranges by which they are quantised.
    ///
    /// # Errors
    /// Returns an error if the cache lacks a state or is damaged.
    pub(super) fn widen_ranges(&mut self, states: &[StateId], rows: &[DocumentRow]) -> Result<()> {
        for state in states {
            let placed = self.place(rows, *state)?;
            let values = self.values(*state, &placed, Dtype::F32)?;
            self.widen(&state.to_string(), &values);
        }
        if let Some(derived) = self.derived.clone() {
            let values = if table_of_derived(&*derived) == DOCUMENTS {
                self.derived(&*derived, rows)?
            } else {
                self.of_tokens(&*derived, rows)?.values
            };
            self.widen(derived.name(), &values);
        }
        Ok(())
    }

    fn widen(&mut self, name: &str, values: &Buffer) {
        if let Some(quantizer) = &mut self.quantizer {
            quantizer.widen(name, values.typed_data());
        }
    }

    /// Returns the values of a vector of this name and width as they are written, one vector for each row.
    pub(super) fn written(
        &self,
        name: &str,
        width: usize,
        values: Buffer,
        dtype: Dtype,
    ) -> ArrayRef {
        let (values, width): (ArrayRef, usize) = match (&self.quantizer, dtype) {
            (Some(quantizer), _) => {
                (quantizer.apply(name, values.typed_data()), quantizer.kind.width(width))
            }
            (None, Dtype::F16) => (Arc::new(Float16Array::new(values.into(), None)), width),
            (None, Dtype::F32) => (Arc::new(Float32Array::new(values.into(), None)), width),
        };
        let element = Arc::new(Field::new("element", values.data_type().clone(), false));
        Arc::new(FixedSizeListArray::new(element, width as i32, values, None))
    }

    /// Collects the values of a state, in this type if it is not the stored one, which only f32 can be.
    pub(super) fn values(
        &mut self,
        state: StateId,
        placed: &PlacedRows,
        dtype: Dtype,
    ) -> Result<Buffer> {
        let stored = self.shards.cache.manifest().dtype;
        let width = dtype.size_bytes();
        let mut out = MutableBuffer::from_len_zeroed(placed.n_rows() * self.hidden * width);
        for (shard, places) in by_shard(&placed.locations) {
            let documents = places.iter().map(|place| placed.locations[*place].1 as usize);
            let ranges: Vec<Range<usize>> = match state.kind {
                StateKind::Pooled(_) => documents.map(|row| row..row + 1).collect(),
                kind => {
                    let layout = self.shards.layout(shard, kind)?;
                    documents.map(|row| rows_of(layout, kind, row)).collect()
                }
            };
            let file = self.shards.file(shard, state)?;
            for (place, range) in places.into_iter().zip(ranges) {
                let mut at = placed.start[place] * self.hidden;
                for bytes in file.rows(range) {
                    let end = at + bytes.len() / stored.size_bytes();
                    if stored == dtype {
                        out[at * width..end * width].copy_from_slice(bytes);
                    } else {
                        stored.decode(bytes, &mut out.typed_data_mut()[at..end]);
                    }
                    at = end;
                }
            }
        }
        Ok(Buffer::from(out))
    }
}

fn keys(keys: impl Iterator<Item = Key>) -> ArrayRef {
    let bytes: Vec<u8> = keys.flat_map(|key| key.0).collect();
    Arc::new(FixedSizeBinaryArray::new(32, Buffer::from_vec(bytes), None))
}

fn named(columns: NamedColumns) -> ExportColumns {
    columns.into_iter().map(|(name, values)| (name.to_string(), values)).collect()
}
