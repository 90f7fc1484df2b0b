//! Checks whether a cache is intact, and repairs it if it is not.

use std::path::{Path, PathBuf};

use crate::{
    error::Result,
    file::checked_bytes,
    in_use::{Reading, Replacing},
    index::DocumentIndex,
    leftovers::remove_leftovers,
    manifest::{MANIFEST, Manifest, ShardEntry},
    names,
    progress::Progress,
    state_file::{self, StateFile},
    states::StateKind,
    tables::{self, DocumentCounts},
    writer::take_lock,
};

/// Checks every file of a cache, and the manifest's counts against the tables of documents. Returns the names of
/// damaged or missing files, as `shard/file`, and `manifest.json` if its counts differ.
pub fn damaged_files(folder: &Path, manifest: &Manifest) -> Vec<PathBuf> {
    let _reading = Reading::begin(folder);
    // A collection may have replaced shards since the manifest was read.
    let now = Manifest::read(folder);
    let manifest = match &now {
        Ok(Some(now)) => now,
        // A collection removed the cache.
        Ok(None) => return Vec::new(),
        Err(_) => manifest,
    };
    let shards = 0..manifest.shards.len();
    let mut damaged: Vec<PathBuf> = shards
        .flat_map(|shard| {
            let shard_folder = Path::new(&manifest.shards[shard].name);
            let files = damaged_in(folder, manifest, shard).into_iter();
            files.map(|name| shard_folder.join(name))
        })
        .collect();
    if damaged.is_empty() && !counts_hold(folder, manifest) {
        damaged.push(PathBuf::from(MANIFEST));
    }
    damaged
}

/// Returns the files of a shard that do not match the manifest or one another. Each file is read once.
fn damaged_in<'m>(folder: &Path, manifest: &'m Manifest, shard: usize) -> Vec<&'m str> {
    let entry = &manifest.shards[shard];
    let documents = tables::read_documents(folder, entry).ok();
    let has_words = entry.files.iter().any(|file| file.name == names::WORDS_FILE);
    let words = documents
        .as_ref()
        .filter(|_| has_words)
        .and_then(|documents| tables::read_words(folder, entry, documents).ok());
    let is_whole = |name: &str| match (name, &documents) {
        (names::DOCUMENTS_FILE, documents) => documents.is_some(),
        (names::TOKENS_FILE, Some(documents)) => {
            tables::read_tokens(folder, entry, documents).is_ok()
        }
        (names::WORDS_FILE, Some(_)) => words.is_some(),
        (name, Some(_)) => {
            let mut states = entry.states();
            let state = states.find(|state| names::state_file_name(*state) == name);
            let file = state.and_then(|state| StateFile::open(folder, manifest, entry, state).ok());
            let is_of_words = state.is_some_and(|state| state.kind == StateKind::Words);
            let n_words = words.as_ref().map(|(words, _)| words.len());
            file.is_some_and(|file| !is_of_words || n_words.is_none_or(|n| n == file.n_rows()))
        }
        (name, None) => checked_bytes(folder, entry, name).is_ok(),
    };
    let names = entry.files.iter().map(|file| file.name.as_str());
    names.filter(|name| !is_whole(name)).collect()
}

fn counts_hold(folder: &Path, manifest: &Manifest) -> bool {
    let mut counted = manifest.clone();
    recount(folder, &mut counted).is_ok() && counted == *manifest
}

/// The result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The shards that were dropped, by name.
    pub dropped: Vec<String>,
    /// Whether the manifest was rewritten with other counts, or with a checksum that it lacked.
    pub manifest: bool,
}

/// Drops every shard with a file that does not match the manifest, so that the next extraction computes its documents
/// again, and recounts the rest. A manifest whose checksum does not match is rewritten from the content of the files.
///
/// # Errors
/// When another process writes to the cache, its manifest cannot be read at all, or the disk refuses.
pub fn repair(folder: &Path, progress: &dyn Progress) -> Result<Repaired> {
    let _lock = take_lock(folder, progress)?;
    // A writer may have come before the lock: only what is damaged still counts.
    let (mut manifest, is_sealed) = match Manifest::read(folder) {
        Ok(Some(manifest)) => (manifest, true),
        Ok(None) => return Ok(Repaired::default()),
        Err(error) => match Manifest::salvage(folder) {
            Ok(Some(manifest)) => (manifest, false),
            _ => return Err(error),
        },
    };
    let before = manifest.clone();
    take_from_files(folder, &mut manifest);
    let whole: Vec<bool> = (0..manifest.shards.len())
        .map(|shard| damaged_in(folder, &manifest, shard).is_empty())
        .collect();
    let mut whole = whole.iter();
    manifest.shards.retain(|_| whole.next() == Some(&true));
    recount(folder, &mut manifest)?;
    let stays = |entry: &ShardEntry| manifest.shards.iter().any(|kept| kept.name == entry.name);
    let dropped = before.shards.iter().filter(|entry| !stays(entry));
    let repaired = Repaired {
        dropped: dropped.map(|entry| entry.name.clone()).collect(),
        manifest: !is_sealed || manifest != before,
    };
    if repaired.manifest {
        let _replacing = Replacing::begin(folder, progress)?;
        manifest.require_sound(folder)?;
        manifest.write(folder)?;
        remove_leftovers(folder, &manifest)?;
    }
    Ok(repaired)
}

/// Replaces what a manifest says about its shards by what their files say, which have checksums of their own: the width
/// of a state, and the counts of each table of documents. Shards that cannot be read are left unchanged. The number of
/// layers is known only from the model, so the next writer sets it.
fn take_from_files(folder: &Path, manifest: &mut Manifest) {
    let mut widths = manifest.shards.iter().filter_map(|entry| {
        let state = entry.states().next()?;
        state_file::hidden_of(folder, entry, state).ok()
    });
    if let Some(hidden) = widths.next() {
        manifest.hidden = hidden;
    }
    for entry in &mut manifest.shards {
        if let Ok(table) = tables::read_documents_uncounted(folder, entry) {
            let DocumentCounts { documents, windows, tokens } = DocumentCounts::of_table(&table);
            (entry.documents, entry.windows, entry.tokens) = (documents, windows, tokens);
        }
    }
    let layers = manifest.states().into_iter().map(|state| state.layer);
    let highest = layers.max().unwrap_or(0);
    if manifest.model_layers < highest || !manifest.has_sound_layers() {
        manifest.model_layers = highest;
    }
}

/// Counts the documents, tokens and truncated documents of the shards in a manifest, each document once.
///
/// # Errors
/// Returns an error if a table of documents is damaged.
fn recount(folder: &Path, manifest: &mut Manifest) -> Result<()> {
    let index = DocumentIndex::read_uncounted(folder, manifest)?;
    let (mut documents, mut tokens, mut truncated) = (0, 0, 0);
    let mut places: Vec<_> = index.documents().map(|(_, place)| place).collect();
    places.sort_unstable();
    for same in places.chunk_by(|a, b| a.0 == b.0) {
        let entry = &manifest.shards[same[0].0 as usize];
        let table = tables::read_documents(folder, entry)?;
        for (_, row) in same {
            documents += 1;
            tokens += table.n_tokens_of(*row as usize);
            truncated += u64::from(table.truncated(*row as usize));
        }
    }
    (manifest.documents, manifest.tokens, manifest.truncated) = (documents, tokens, truncated);
    Ok(())
}
