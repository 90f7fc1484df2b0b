//! From keys to columns: the rows of some documents, copied together from the shards in which they lie.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
};

use super::{
    rows::DocumentRow,
    table::{Batch, Column, ExportLayout, TableOf, Values},
};
use crate::{
    error::{Error, Result},
    file::damage,
    fingerprint::Key,
    index::Location,
    reader::{CacheReader, by_shard, rows_of},
    shard::ShardLayout,
    state_file::{StateFile, name_of},
    states::{Dtype, StateId, StateKind},
};

/// Shards that stay open while documents come in the cache's own order: where states of a document lie in several
/// shards, these follow each other too.
pub(super) const MOST_OPEN: usize = 4;

/// The shards of a cache that are being read, each file of them checked once when it is opened.
///
/// An open file is mapped, which costs no memory that the system could not take back; an open alignment costs some 20
/// bytes a token.
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

    /// Where a state of a document lies.
    ///
    /// # Errors
    /// [`Error::Miss`] when the cache has no such state.
    fn locate(&self, key: &Key, state: StateId) -> Result<Location> {
        let place = self.cache.locate(key, state);
        place.ok_or_else(|| Error::Miss {
            cache: self.cache.folder().to_path_buf(),
            lacks: format!("the {state} state of the document {}", key.to_hex()),
            hint: "the data changed while it was exported: export it again".into(),
        })
    }

    /// Rows of a state of a document.
    ///
    /// # Errors
    /// When the cache has no such state, or is damaged.
    pub(super) fn n_rows(&mut self, key: &Key, state: StateId) -> Result<usize> {
        if matches!(state.kind, StateKind::Pooled(_)) {
            return Ok(1);
        }
        let (shard, row) = self.locate(key, state)?;
        let layout = self.layout(shard, state.kind)?;
        Ok(rows_of(layout, state.kind, row as usize).len())
    }

    /// The alignment of a shard, which holds states of this kind.
    fn layout(&mut self, shard: u32, kind: StateKind) -> Result<&ShardLayout> {
        let cache = self.cache;
        let path = cache.folder().join(&cache.shard(shard).name);
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
            Err(damage(
                &path,
                &format!("the {} of all its documents", kind.name()),
                "others".into(),
            ))
        }
    }

    /// The rows of a state in a shard.
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
                        &path.join(name_of(state)),
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

/// The rows of one state of some documents: where they lie in the cache, and where they go in the batch.
struct PlacedRows {
    locations: Vec<Location>,
    /// First row of each document in the batch, and the number of rows.
    start: Vec<usize>,
}

impl PlacedRows {
    fn n_rows(&self) -> usize {
        self.start.last().copied().unwrap_or(0)
    }

    fn rows(&self, place: usize) -> Range<usize> {
        self.start[place]..self.start[place + 1]
    }
}

/// Makes batches of an export.
pub(super) struct Gatherer<'a> {
    shards: OpenShards<'a>,
    layout: &'a ExportLayout,
    stored: Dtype,
    /// Documents so far.
    n_documents: u64,
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(shards: OpenShards<'a>, layout: &'a ExportLayout) -> Gatherer<'a> {
        Gatherer { stored: shards.cache.manifest().dtype, shards, layout, n_documents: 0 }
    }

    /// Bytes of some states of a document.
    ///
    /// # Errors
    /// When the cache lacks one of them, or is damaged.
    pub(super) fn n_bytes(&mut self, row: &DocumentRow, states: &[StateId]) -> Result<usize> {
        let mut n_rows = 0;
        for state in states {
            n_rows += self.shards.n_rows(&row.key, *state)?;
        }
        Ok(n_rows * self.layout.hidden * self.layout.dtype.size_bytes())
    }

    /// A batch of every table, of the documents that come next.
    ///
    /// # Errors
    /// When the cache lacks one of them, or is damaged.
    pub(super) fn gather(&mut self, rows: &[DocumentRow]) -> Result<Vec<Batch>> {
        let layout = self.layout;
        let mut batches = Vec::new();
        for table in &layout.tables {
            let states = table.columns.iter().filter_map(|column| match column {
                Column::State(state) => Some(*state),
                _ => None,
            });
            let states: Vec<StateId> = states.collect();
            // Documents have a row each even where no pooled state is exported.
            let placed: Vec<PlacedRows> =
                states.iter().map(|state| self.place(rows, *state)).collect::<Result<_>>()?;
            let n_rows = placed.first().map_or(rows.len(), PlacedRows::n_rows);
            if let Some(other) = placed.iter().find(|other| other.start != placed[0].start) {
                let shard = other.locations.first().map_or(0, |location| location.0);
                return Err(damage(
                    &self.shards.cache.folder().join(&self.shards.cache.shard(shard).name),
                    &format!("as many {} as in other shards", table.of.name()),
                    "another number for the same documents".into(),
                ));
            }
            let mut columns = Vec::new();
            for column in &table.columns {
                columns.push(match column {
                    Column::State(state) => {
                        let number = states.iter().position(|other| other == state);
                        let placed = &placed[number.expect("collected above")];
                        Values::Fixed(self.states(*state, placed)?)
                    }
                    column if table.of == TableOf::Documents => of_document(*column, rows),
                    column => {
                        Values::Fixed(self.alignment(*column, states[0].kind, rows, &placed[0])?)
                    }
                });
            }
            batches.push(Batch { n_rows, columns });
        }
        self.n_documents += rows.len() as u64;
        Ok(batches)
    }

    fn place(&mut self, rows: &[DocumentRow], state: StateId) -> Result<PlacedRows> {
        let locations = rows.iter().map(|row| self.shards.locate(&row.key, state));
        let locations: Vec<Location> = locations.collect::<Result<_>>()?;
        let mut n_rows = vec![1; rows.len()];
        if !matches!(state.kind, StateKind::Pooled(_)) {
            for (shard, places) in by_shard(&locations) {
                let layout = self.shards.layout(shard, state.kind)?;
                for place in places {
                    let document = locations[place].1 as usize;
                    n_rows[place] = rows_of(layout, state.kind, document).len();
                }
            }
        }
        let mut start = Vec::with_capacity(rows.len() + 1);
        start.push(0);
        let mut total = 0;
        start.extend(n_rows.into_iter().map(|n_rows| {
            total += n_rows;
            total
        }));
        Ok(PlacedRows { locations, start })
    }

    /// The values of a state, in the type that is written.
    fn states(&mut self, state: StateId, placed: &PlacedRows) -> Result<Vec<u8>> {
        let row_bytes = self.layout.hidden * self.stored.size_bytes();
        let mut out = vec![0; placed.n_rows() * row_bytes];
        for (shard, places) in by_shard(&placed.locations) {
            let ranges: Vec<Range<usize>> = match state.kind {
                StateKind::Pooled(_) => places
                    .iter()
                    .map(|place| placed.locations[*place].1 as usize)
                    .map(|row| row..row + 1)
                    .collect(),
                kind => {
                    let layout = self.shards.layout(shard, kind)?;
                    let rows = places.iter().map(|place| placed.locations[*place].1 as usize);
                    rows.map(|row| rows_of(layout, kind, row)).collect()
                }
            };
            let file = self.shards.file(shard, state)?;
            for (place, range) in places.into_iter().zip(ranges) {
                let mut at = placed.start[place] * row_bytes;
                for bytes in file.rows(range) {
                    out[at..at + bytes.len()].copy_from_slice(bytes);
                    at += bytes.len();
                }
            }
        }
        Ok(if self.layout.dtype == self.stored { out } else { widen(&out, self.stored) })
    }

    /// The values of a column that says where tokens or words stand.
    fn alignment(
        &mut self,
        column: Column,
        kind: StateKind,
        rows: &[DocumentRow],
        placed: &PlacedRows,
    ) -> Result<Vec<u8>> {
        let width = self.layout.width(column.kind());
        let mut out = vec![0; placed.n_rows() * width];
        let (first, n_documents) = (self.n_documents, rows.len());
        for (shard, places) in by_shard(&placed.locations) {
            let layout = self.shards.layout(shard, kind)?;
            for place in places {
                debug_assert!(place < n_documents, "a place for each row");
                let values = placed.rows(place);
                let target = &mut out[values.start * width..values.end * width];
                match column {
                    Column::Key => repeat(&rows[place].key.0, target),
                    Column::Document => {
                        repeat(&((first + place as u64) as i64).to_le_bytes(), target);
                    }
                    column => {
                        of_rows(column, kind, layout, placed.locations[place].1 as usize, target)
                    }
                }
            }
        }
        Ok(out)
    }
}

/// The values of a column of the table of documents that is no state.
fn of_document(column: Column, rows: &[DocumentRow]) -> Values {
    let bytes = match column {
        Column::Key => rows.iter().flat_map(|row| row.key.0).collect(),
        Column::Source => rows.iter().flat_map(|row| row.place.source.to_le_bytes()).collect(),
        Column::Line => rows.iter().flat_map(|row| (row.place.line as i64).to_le_bytes()).collect(),
        Column::Part => rows.iter().map(|row| row.place.part).collect(),
        Column::Id => return Values::Text(rows.iter().map(|row| row.place.id.clone()).collect()),
        other => unreachable!("{other:?} is no column of documents"),
    };
    Values::Fixed(bytes)
}

/// The values of a column for the tokens or words of one document.
fn of_rows(
    column: Column,
    kind: StateKind,
    layout: &ShardLayout,
    document: usize,
    target: &mut [u8],
) {
    let range = rows_of(layout, kind, document);
    if kind == StateKind::Words {
        let words = layout.words[range].iter();
        match column {
            Column::Window => put(words.map(|word| word.window.to_le_bytes()), target),
            Column::Position => put(words.map(|word| word.position.to_le_bytes()), target),
            Column::Word => put(words.map(|word| word.word.to_le_bytes()), target),
            Column::CharStart => put(words.map(|word| word.char_start.to_le_bytes()), target),
            Column::CharEnd => put(words.map(|word| word.char_end.to_le_bytes()), target),
            Column::Sequence => put(words.map(|word| [word.sequence]), target),
            other => unreachable!("{other:?} is no column of words"),
        }
        return;
    }
    let windows = layout.documents.windows(document);
    let first = windows.start;
    let places = windows.flat_map(|window| {
        let tokens = layout.documents.window_tokens(window);
        (0..tokens.end - tokens.start).map(move |position| (window - first, position))
    });
    let alignment = &layout.alignment;
    match column {
        Column::Window => put(places.map(|(window, _)| (window as u16).to_le_bytes()), target),
        Column::Position => {
            put(places.map(|(_, position)| (position as u16).to_le_bytes()), target)
        }
        Column::TokenId => put(le32(&alignment.token_ids[range]), target),
        Column::Word => put(alignment.words[range].iter().map(|word| word.to_le_bytes()), target),
        Column::CharStart => put(le32(&alignment.char_starts[range]), target),
        Column::CharEnd => put(le32(&alignment.char_ends[range]), target),
        Column::Sequence => target.copy_from_slice(&alignment.sequences[range]),
        other => unreachable!("{other:?} is no column of tokens"),
    }
}

fn le32(values: &[u32]) -> impl Iterator<Item = [u8; 4]> + '_ {
    values.iter().map(|value| value.to_le_bytes())
}

fn put<const N: usize>(values: impl Iterator<Item = [u8; N]>, target: &mut [u8]) {
    for (place, value) in target.chunks_exact_mut(N).zip(values) {
        place.copy_from_slice(&value);
    }
}

fn repeat(value: &[u8], target: &mut [u8]) {
    for place in target.chunks_exact_mut(value.len()) {
        place.copy_from_slice(value);
    }
}

/// Stored values as f32.
fn widen(bytes: &[u8], stored: Dtype) -> Vec<u8> {
    const BLOCK: usize = 1024;
    let width = stored.size_bytes();
    let mut out = Vec::with_capacity(bytes.len() / width * 4);
    let mut values = [0f32; BLOCK];
    for block in bytes.chunks(BLOCK * width) {
        let values = &mut values[..block.len() / width];
        stored.decode(block, values);
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    out
}
