//! Locates the rows of documents, or of parts of them, in a cache.

use std::ops::Range;

use frostbert_cache::{
    fingerprint::Key,
    index::Location,
    reader::{CacheReader, by_shard, rows_of},
    shard::ShardLayout,
    states::{StateId, StateKind},
    wording::part_of,
};

use crate::error::{Error, Result};

/// Runs of contiguous rows, each of a document or of one of its windows. Each run is in every state exactly once.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    n_states: usize,
    n_rows: Vec<u32>,
    /// For each piece and then each state, the shard and the first row in the state's file.
    places: Vec<Location>,
}

impl Pieces {
    /// Creates `n` consecutive pieces of one row each, for one state of one shard.
    pub fn rows_of_one_shard(n: usize) -> Pieces {
        Pieces {
            n_states: 1,
            n_rows: vec![1; n],
            places: (0..n as u32).map(|row| (0, row)).collect(),
        }
    }

    /// Creates pieces for the rows of every document of a layout, in order, for in-memory states of one kind.
    pub fn of_layout(layout: &ShardLayout, kind: StateKind, n_states: usize) -> Pieces {
        let mut pieces = Pieces { n_states, ..Pieces::default() };
        for document in 0..layout.documents.len() {
            let rows = rows_of(layout, kind, document);
            pieces.push(rows.len() as u32, (0..n_states).map(|_| (0, rows.start as u32)));
        }
        pieces
    }

    /// Returns the number of pieces.
    pub fn len(&self) -> usize {
        self.n_rows.len()
    }

    /// Returns whether there are no pieces.
    pub fn is_empty(&self) -> bool {
        self.n_rows.is_empty()
    }

    /// Returns the number of rows of a piece.
    pub fn n_rows(&self, piece: usize) -> usize {
        self.n_rows[piece] as usize
    }

    /// Returns the shard and the first row of a piece in the file of a state.
    pub fn place(&self, piece: usize, state: usize) -> Location {
        self.places[piece * self.n_states + state]
    }

    /// Returns the given row ranges of pieces as pieces of their own.
    ///
    /// # Panics
    /// Panics if a piece does not have these rows.
    pub fn parts(&self, parts: impl Iterator<Item = (usize, Range<usize>)>) -> Pieces {
        let mut cut = Pieces { n_states: self.n_states, ..Pieces::default() };
        for (piece, rows) in parts {
            assert!(rows.end <= self.n_rows(piece), "rows of the piece");
            let places = (0..self.n_states).map(|state| {
                let (shard, first) = self.place(piece, state);
                (shard, first + rows.start as u32)
            });
            cut.push(rows.len() as u32, places);
        }
        cut
    }

    fn push(&mut self, n_rows: u32, places: impl Iterator<Item = Location>) {
        self.n_rows.push(n_rows);
        self.places.extend(places);
    }
}

/// Locates the rows of documents in a cache and returns a piece for each key, in order. The states must be of one kind,
/// or pooled.
///
/// If the states are of words or tokens, `visit` is called once for each key, shard by shard, with the key's index, the
/// layout of its shard, and the document's row there.
///
/// # Errors
/// Returns [`frostbert_cache::Error::Miss`] if the cache lacks rows (it says how many), and
/// [`frostbert_cache::Error::Damage`] if a table is damaged.
pub(crate) fn locate(
    cache: &CacheReader,
    states: &[StateId],
    keys: &[Key],
    mut visit: impl FnMut(usize, &ShardLayout, usize),
) -> Result<Pieces> {
    let kind = states.first().map(|state| state.kind);
    let is_pooled = |state: &StateId| matches!(state.kind, StateKind::Pooled(_));
    let are_alike = states.iter().all(|state| Some(state.kind) == kind);
    debug_assert!(are_alike || states.iter().all(is_pooled));
    let mut pieces = Pieces {
        n_states: states.len(),
        n_rows: vec![1; keys.len()],
        places: vec![(0, 0); keys.len() * states.len()],
    };
    for (number, state) in states.iter().enumerate() {
        let locations = locations(cache, *state, keys)?;
        if is_pooled(state) {
            for (piece, location) in locations.into_iter().enumerate() {
                pieces.places[piece * states.len() + number] = location;
            }
            continue;
        }
        for (shard, places) in by_shard(&locations) {
            let layout = cache.read_layout(shard)?;
            for place in places {
                let document = locations[place].1 as usize;
                let rows = rows_of(&layout, state.kind, document);
                pieces.places[place * states.len() + number] = (shard, rows.start as u32);
                pieces.n_rows[place] = rows.len() as u32;
                if number == 0 {
                    visit(place, &layout, document);
                }
            }
        }
    }
    Ok(pieces)
}

/// Checks that a cache has these states of all documents.
///
/// # Errors
/// Returns [`frostbert_cache::Error::Miss`] if it lacks rows.
pub(crate) fn require_rows(cache: &CacheReader, states: &[StateId], keys: &[Key]) -> Result<()> {
    states.iter().try_for_each(|state| locations(cache, *state, keys).map(drop))
}

/// Returns the location of a state for each document.
fn locations(cache: &CacheReader, state: StateId, keys: &[Key]) -> Result<Vec<Location>> {
    let locations: Vec<Location> = keys.iter().filter_map(|key| cache.locate(key, state)).collect();
    if locations.len() < keys.len() {
        return Err(missing(cache, state, keys.len() - locations.len(), keys.len()));
    }
    Ok(locations)
}

fn missing(cache: &CacheReader, state: StateId, n_missing: usize, n: usize) -> Error {
    frostbert_cache::Error::Miss {
        cache: cache.folder().to_path_buf(),
        lacks: format!("the {state} state of {}", part_of(n_missing, n, "text")),
        hint:
            "run `frostbert extract` with this pipeline (or `run`, which extracts what is missing)"
                .into(),
    }
    .into()
}
