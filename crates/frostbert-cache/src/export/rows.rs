//! Determines which documents are exported, and in which order.

use crate::{
    error::{Error, Result},
    fingerprint::Key,
    index::Location,
    progress::Progress,
    reader::CacheReader,
    states::StateId,
    wording::part_of,
};

/// A row of the documents table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentRow {
    /// The document's key.
    pub key: Key,
    /// Where the row is in the data; the default if the rows are the cache's own.
    pub place: SourceLine,
}

/// The position of a row in the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceLine {
    /// The number of the data file.
    pub source: u32,
    /// The line in the file, from 1; 0 if the format has no lines.
    pub line: u64,
    /// 0 for the first text of a pair that was encoded separately, 1 for the second.
    pub part: u8,
    /// The record's own id; empty if it has none.
    pub id: String,
}

/// The rows of an export. They are read twice: once to count them, and once to write them.
pub trait RowSource {
    /// Returns all rows, from the first.
    fn rows(&self) -> Box<dyn Iterator<Item = Result<DocumentRow>> + '_>;

    /// Returns the data files that [`SourceLine::source`] numbers; `None` if the rows are the cache's own.
    fn sources(&self) -> Option<Vec<String>>;
}

/// All documents that have the required states, each once, in the cache's order: shard by shard, and by key within
/// each.
pub struct CacheOrder<'a> {
    cache: &'a CacheReader,
    states: Vec<StateId>,
}

impl<'a> CacheOrder<'a> {
    /// Selects the documents that have all of `asked` or, if `asked` is empty, every document with all states that
    /// every document has. Warns about whatever is left out.
    ///
    /// # Errors
    /// Returns [`Error::Miss`] if nothing is left.
    pub fn new(
        cache: &'a CacheReader,
        asked: &[StateId],
        progress: &dyn Progress,
    ) -> Result<CacheOrder<'a>> {
        let miss = |lacks: String, hint: String| Error::Miss {
            cache: cache.folder().to_path_buf(),
            lacks,
            hint,
        };
        let held = cache.manifest().states();
        let held_names = || {
            let names: Vec<String> = held.iter().map(ToString::to_string).collect();
            format!("it holds {}", names.join(", "))
        };
        if let Some(unknown) = asked.iter().find(|state| !held.contains(state)) {
            return Err(miss(
                format!("the state {unknown}"),
                format!(
                    "{}; `frostbert extract` adds others by cache.store and cache.layers",
                    held_names()
                ),
            ));
        }
        let n_documents = cache.index().n_documents();
        let n_having = |states: &[StateId]| {
            let keys = cache.index().documents().map(|(key, _)| key);
            keys.filter(|key| has_all(cache, key, states)).count() as u64
        };
        if !asked.is_empty() {
            let mut states = asked.to_vec();
            states.sort_unstable();
            states.dedup();
            let n_having = n_having(&states);
            if n_having == 0 {
                return Err(miss(
                    "a document that has every requested state".into(),
                    "export them one by one, into folders of their own (--out)".into(),
                ));
            }
            if n_having < n_documents {
                progress.warn(&format!(
                    "{} lack a requested state: they are left out",
                    part_of(n_documents - n_having, n_documents, "document")
                ));
            }
            return Ok(CacheOrder { cache, states });
        }
        let mut states = Vec::new();
        for state in &held {
            match n_having(&[*state]) {
                all if all == n_documents => states.push(*state),
                some => progress.warn(&format!(
                    "only {} have {state}: it is left out (--state {state} exports these documents)",
                    part_of(some, n_documents, "document")
                )),
            }
        }
        if !states.is_empty() {
            return Ok(CacheOrder { cache, states });
        }
        Err(if n_documents == 0 {
            miss("any document".into(), "run `frostbert extract` to the end first".into())
        } else {
            miss(
                "a state that every document has".into(),
                format!("{}: name one with --state", held_names()),
            )
        })
    }

    /// Returns the exported states, sorted.
    pub fn states(&self) -> &[StateId] {
        &self.states
    }

    fn rows_of_shard(&self, shard: u32) -> Result<impl Iterator<Item = DocumentRow> + use<'_>> {
        let documents = self.cache.read_documents(shard)?;
        let places = (0..documents.len()).map(move |row| (row as u32, documents.key(row)));
        Ok(places.filter_map(move |(row, key)| {
            // A document may be in several shards; take it from the one that its first state is read from.
            let here: Location = (shard, row);
            let home = self.cache.locate(&key, self.states[0])?;
            let wanted = home == here && has_all(self.cache, &key, &self.states);
            wanted.then(|| DocumentRow { key, place: SourceLine::default() })
        }))
    }
}

impl RowSource for CacheOrder<'_> {
    fn rows(&self) -> Box<dyn Iterator<Item = Result<DocumentRow>> + '_> {
        let shards = 0..self.cache.manifest().shards.len() as u32;
        Box::new(shards.flat_map(|shard| {
            let (rows, error) = match self.rows_of_shard(shard) {
                Ok(rows) => (Some(rows), None),
                Err(error) => (None, Some(Err(error))),
            };
            error.into_iter().chain(rows.into_iter().flatten().map(Ok))
        }))
    }

    fn sources(&self) -> Option<Vec<String>> {
        None
    }
}

fn has_all(cache: &CacheReader, key: &Key, states: &[StateId]) -> bool {
    states.iter().all(|state| cache.locate(key, *state).is_some())
}
