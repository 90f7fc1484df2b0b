//! Garbage collection: drops documents that are no longer needed and merges small shards.

use std::{collections::HashMap, path::Path};

use crate::{
    error::Result,
    fingerprint::Key,
    in_use::{Reading, Replacing},
    index::DocumentIndex,
    leftovers::{remove_cache, remove_leftovers},
    manifest::{Manifest, Origin, Parity, ShardEntry, shard_name},
    plan::{ExtractionPlan, SHARD_STATE_BYTES},
    progress::Progress,
    reader::{CacheReader, rows_of},
    shard::{ShardLayout, StateRows},
    staging::write_shard,
    state_file::StateFile,
    states::StateId,
    tables,
    writer::take_lock,
};

/// The effect of a collection on a cache, or the effect that it would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// The number of distinct documents before.
    pub documents: u64,
    /// The number of documents dropped.
    pub dropped: u64,
    /// The number of shards before.
    pub shards_before: usize,
    /// The number of shards after.
    pub shards_after: usize,
    /// The size in bytes before.
    pub bytes_before: u64,
    /// The size in bytes after.
    pub bytes_after: u64,
}

/// Counts the documents of a cache, and those that `keep` rejects.
///
/// # Errors
/// Returns an error if the cache is damaged.
pub fn count(folder: &Path, keep: impl Fn(&Key) -> bool) -> Result<Collected> {
    let _reading = Reading::begin(folder);
    let Some(manifest) = Manifest::read(folder)? else {
        return Ok(Collected::default());
    };
    let index = DocumentIndex::read(folder, &manifest)?;
    Ok(count_dropped(&manifest, &index, &keep))
}

fn count_dropped(
    manifest: &Manifest,
    index: &DocumentIndex,
    keep: &impl Fn(&Key) -> bool,
) -> Collected {
    Collected {
        documents: index.n_documents(),
        dropped: index.documents().filter(|(key, _)| !keep(key)).count() as u64,
        shards_before: manifest.shards.len(),
        bytes_before: manifest.bytes(),
        ..Collected::default()
    }
}

/// Drops the documents that `keep` rejects and merges shards of less than half of `shard_tokens`.
///
/// Each new shard is written and listed in the manifest before the shards that it replaces are removed, so a kill loses
/// nothing. A cache without any documents left is removed.
///
/// # Errors
/// Returns an error if another process writes to the cache or keeps reading it for more than a few seconds, if one of
/// its files is damaged, or if writing or removing a file fails.
pub fn collect(
    folder: &Path,
    keep: impl Fn(&Key) -> bool,
    shard_tokens: usize,
    progress: &dyn Progress,
) -> Result<Collected> {
    let _lock = take_lock(folder, progress)?;
    let Some(mut manifest) = Manifest::read(folder)? else {
        return Ok(Collected::default());
    };
    let index = DocumentIndex::read(folder, &manifest)?;
    let mut collected = count_dropped(&manifest, &index, &keep);
    remove_leftovers(folder, &manifest)?;
    if collected.dropped > 0 && collected.dropped == collected.documents {
        let _replacing = Replacing::begin(folder, progress)?;
        remove_whole(folder, manifest)?;
        return Ok(collected);
    }
    let mut copies = dropped_copies(&index, &keep);
    drop(index);
    progress.start("collecting", Some(manifest.shards.len() as u64), "shards");
    let mut from = 0;
    while let Some(merge) = next_merge(folder, &manifest, from, &keep, shard_tokens)? {
        if from == 0 {
            // Whoever reads for long is found before anything is copied.
            drop(Replacing::begin(folder, progress)?);
            // What an unfinished extraction planned was planned for these shards.
            ExtractionPlan::clear(folder)?;
        }
        from = merge.first + usize::from(!merge.kept.is_empty());
        progress.advance(merge.shards.len() as u64, 0);
        uncount(&mut manifest, &merge.dropped, &mut copies);
        replace(folder, &mut manifest, merge, progress)?;
    }
    progress.finish();
    collected.shards_after = manifest.shards.len();
    collected.bytes_after = manifest.bytes();
    Ok(collected)
}

/// Removes a cache, for which it waits for nobody.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy) or [`Error::InUse`](crate::Error::InUse) when another process writes to the cache or reads it; when the manifest is damaged, or
/// the disk refuses.
pub fn remove(folder: &Path) -> Result<()> {
    let _lock = take_lock(folder, &())?;
    let Some(manifest) = Manifest::read(folder)? else {
        return Ok(());
    };
    let _replacing = Replacing::at_once(folder)?;
    remove_leftovers(folder, &manifest)?;
    remove_whole(folder, manifest)
}

/// Removes a cache to which nobody writes, and that nobody reads.
fn remove_whole(folder: &Path, mut manifest: Manifest) -> Result<()> {
    ExtractionPlan::clear(folder)?;
    // An empty cache first: wherever a kill stops the removal, what is left is one that can be written to.
    manifest.shards.clear();
    (manifest.documents, manifest.tokens, manifest.truncated) = (0, 0, 0);
    manifest.write(folder)?;
    remove_leftovers(folder, &manifest)?;
    remove_cache(folder)
}

/// In how many shards each dropped document lies, where that is more than one.
fn dropped_copies(index: &DocumentIndex, keep: &impl Fn(&Key) -> bool) -> HashMap<Key, usize> {
    let dropped = index.documents().filter(|(key, _)| !keep(key));
    let copies = dropped.map(|(key, _)| (key, index.locations(&key).count()));
    copies.filter(|(_, copies)| *copies > 1).collect()
}

/// Subtracts dropped documents from the manifest's counts, each with the last shard that contains it.
fn uncount(manifest: &mut Manifest, dropped: &[DroppedDocument], copies: &mut HashMap<Key, usize>) {
    for document in dropped {
        if let Some(copies) = copies.get_mut(&document.key) {
            *copies -= 1;
            if *copies > 0 {
                continue;
            }
        }
        let less = |count: u64, by: u64| count.saturating_sub(by);
        manifest.documents = less(manifest.documents, 1);
        manifest.tokens = less(manifest.tokens, document.tokens);
        manifest.truncated = less(manifest.truncated, u64::from(document.truncated));
    }
}

/// A document to be dropped.
struct DroppedDocument {
    key: Key,
    tokens: u64,
    truncated: bool,
}

/// Shards that are merged into one, and the documents that are kept.
struct Merge {
    /// The index in the manifest of the first of them.
    first: usize,
    /// The indices in the manifest of all of them.
    shards: Vec<usize>,
    /// The kept documents, sorted by key, each with the index of its shard and its row there.
    kept: Vec<(Key, usize, usize)>,
    dropped: Vec<DroppedDocument>,
}

/// Returns the next shards, starting at `from`, that have documents to drop or are small enough to be merged.
fn next_merge(
    folder: &Path,
    manifest: &Manifest,
    from: usize,
    keep: &impl Fn(&Key) -> bool,
    shard_tokens: usize,
) -> Result<Option<Merge>> {
    for first in from..manifest.shards.len() {
        let entry = &manifest.shards[first];
        let parted = part(folder, entry, first, keep)?;
        let is_small = |parted: &PartitionedShard| parted.tokens < shard_tokens as u64 / 2;
        let (small, mut tokens, mut bytes) = (is_small(&parted), parted.tokens, entry.bytes());
        let mut merge =
            Merge { first, shards: vec![first], kept: parted.kept, dropped: parted.dropped };
        if small {
            for other in first + 1..manifest.shards.len() {
                let entry = &manifest.shards[other];
                if !same_origin(entry, &manifest.shards[first]) {
                    continue;
                }
                let parted = part(folder, entry, other, keep)?;
                tokens += parted.tokens;
                bytes += entry.bytes();
                if !is_small(&parted) || tokens > shard_tokens as u64 || bytes > SHARD_STATE_BYTES {
                    break;
                }
                merge.shards.push(other);
                merge.kept.extend(parted.kept);
                merge.dropped.extend(parted.dropped);
            }
        }
        if !merge.dropped.is_empty() || merge.shards.len() > 1 {
            merge.kept.sort_unstable();
            return Ok(Some(merge));
        }
    }
    Ok(None)
}

/// The documents of a shard, divided into those to keep and those to drop.
struct PartitionedShard {
    kept: Vec<(Key, usize, usize)>,
    /// The number of tokens of the kept documents.
    tokens: u64,
    dropped: Vec<DroppedDocument>,
}

fn part(
    folder: &Path,
    entry: &ShardEntry,
    shard: usize,
    keep: &impl Fn(&Key) -> bool,
) -> Result<PartitionedShard> {
    let table = tables::read_documents(folder, entry)?;
    let mut parted = PartitionedShard { kept: Vec::new(), tokens: 0, dropped: Vec::new() };
    for row in 0..table.len() {
        let (key, tokens) = (table.key(row), table.n_tokens_of(row));
        if keep(&key) {
            parted.tokens += tokens;
            parted.kept.push((key, shard, row));
        } else {
            parted.dropped.push(DroppedDocument { key, tokens, truncated: table.truncated(row) });
        }
    }
    Ok(parted)
}

/// Returns whether two shards hold the same states from the same source, in the same order.
fn same_origin(a: &ShardEntry, b: &ShardEntry) -> bool {
    let without_parity = |entry: &ShardEntry| -> Vec<Origin> {
        let origins = entry.origins.iter().cloned();
        origins.map(|origin| Origin { parity: Parity::default(), ..origin }).collect()
    };
    without_parity(a) == without_parity(b)
}

/// Writes the shard that a merge makes, names it in the manifest in place of the others, and removes those.
fn replace(
    folder: &Path,
    manifest: &mut Manifest,
    merge: Merge,
    progress: &dyn Progress,
) -> Result<()> {
    let mut entries: Vec<ShardEntry> = Vec::new();
    if !merge.kept.is_empty() {
        let sources = MergeShards::open(folder, manifest, &merge)?;
        let name = shard_name(manifest.next_shard());
        let origins = join_origins(manifest, &merge);
        let states: Vec<StateId> = manifest.shards[merge.first].states().collect();
        let states = states.into_iter().map(|state| sources.gather(state));
        let layout = sources.layout();
        entries.push(write_shard(folder, manifest, &name, layout, states, origins)?);
    }
    let shards = std::mem::take(&mut manifest.shards);
    for (place, entry) in shards.into_iter().enumerate() {
        if place == merge.first {
            manifest.shards.append(&mut entries);
        }
        if !merge.shards.contains(&place) {
            manifest.shards.push(entry);
        }
    }
    let _replacing = Replacing::begin(folder, progress)?;
    manifest.write(folder)?;
    remove_leftovers(folder, manifest)
}

/// Combines the errors of two samples by taking the larger of each; exact medians cannot be combined.
fn join_parity(a: Parity, b: Parity) -> Parity {
    Parity {
        documents: a.documents + b.documents,
        tokens: a.tokens + b.tokens,
        max_error: a.max_error.max(b.max_error),
        median_error: a.median_error.max(b.median_error),
        max_rounding: a.max_rounding.max(b.max_rounding),
        median_rounding: a.median_rounding.max(b.median_rounding),
    }
}

/// Combines the origins of the merged shards, which differ only in their samples.
fn join_origins(manifest: &Manifest, merge: &Merge) -> Vec<Origin> {
    let mut origins = manifest.shards[merge.first].origins.clone();
    for (number, origin) in origins.iter_mut().enumerate() {
        let shards = merge.shards.iter().map(|place| &manifest.shards[*place]);
        let parities = shards.filter_map(|shard| Some(shard.origins.get(number)?.parity));
        origin.parity = parities.reduce(join_parity).unwrap_or_default();
    }
    origins
}

/// The shards to be merged, open for reading.
struct MergeShards<'a> {
    reader: CacheReader,
    merge: &'a Merge,
    layouts: HashMap<usize, ShardLayout>,
}

impl<'a> MergeShards<'a> {
    fn open(folder: &Path, manifest: &Manifest, merge: &'a Merge) -> Result<MergeShards<'a>> {
        let reader = CacheReader::of(folder, manifest);
        let layouts = merge.shards.iter();
        let layouts = layouts.map(|place| Ok((*place, reader.read_layout(*place as u32)?)));
        Ok(MergeShards { layouts: layouts.collect::<Result<_>>()?, reader, merge })
    }

    /// Returns the layout of the kept documents.
    fn layout(&self) -> ShardLayout {
        let mut layout = ShardLayout::default();
        for (_, shard, row) in &self.merge.kept {
            layout.push_from(&self.layouts[shard], *row);
        }
        layout
    }

    /// Collects the rows of one state for the kept documents.
    fn gather(&self, state: StateId) -> Result<StateRows> {
        let open = |place: &usize| Ok((*place, self.reader.open_state(*place as u32, state)?));
        let files = self.merge.shards.iter().map(open);
        let files = files.collect::<Result<HashMap<usize, StateFile>>>()?;
        let mut bytes = Vec::new();
        for (_, shard, row) in &self.merge.kept {
            for piece in files[shard].rows(rows_of(&self.layouts[shard], state.kind, *row)) {
                bytes.extend_from_slice(piece);
            }
        }
        Ok(StateRows { state, bytes })
    }
}
