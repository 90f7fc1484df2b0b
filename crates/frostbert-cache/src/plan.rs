//! The plan of an extraction: which documents lack which states, and which shards they come to.
//!
//! Shards are cut greedily in the order of the documents' keys, as soon as the documents' numbers of tokens are known.
//! The cuts depend on the documents and the settings alone, so an extraction that is killed and resumed commits the
//! same shards as one that runs without interruption.

mod cutter;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::cutter::{CutShard, PlanGroup, ShardCutter};
use crate::{
    durable::write_file,
    error::{Error, Result},
    fingerprint::{self, Digest, Key},
    index::DocumentIndex,
    leftovers,
    manifest::{Manifest, ShardEntry, shard_number},
    names::is_plan,
    states::StateId,
};

/// The maximum size of the states of one shard in bytes, whatever `shard_tokens` is.
pub(crate) const SHARD_STATE_BYTES: u64 = 256 * 1024 * 1024;

/// The maximum number of states in one extraction; each takes one bit.
pub const MAX_STATES: usize = 128;

/// What an extraction is to do: written before the first state is computed, and removed when it is done.
///
/// It does not list the shards: with the documents and the settings it says all that decides them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractionPlan {
    /// The settings that it was made with.
    pub settings: PlanSettings,
    /// The states that every document should have.
    pub states: Vec<StateId>,
    /// The number of the first new shard.
    pub first_shard: usize,
    /// The names of the existing shards to which states are added.
    pub added: Vec<String>,
    /// The number of documents that lack a state.
    pub documents: u64,
    /// The blake3 of their keys, in order.
    pub keys: Digest,
}

/// The settings that determine a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSettings {
    /// The number of tokens between two commits.
    pub shard_tokens: usize,
    /// The number of padded tokens in one batch.
    pub batch_tokens: usize,
}

/// A planned commit: a new shard, or states added to an existing one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedShard {
    /// The name of the shard's folder.
    pub name: String,
    /// Whether the shard exists and the states are added to it.
    pub added: bool,
    /// The states to compute.
    pub states: Vec<StateId>,
    /// The number of documents.
    pub documents: usize,
    /// The number of tokens in all their windows.
    pub tokens: u64,
    /// The blake3 of their keys, in order.
    pub keys: Digest,
}

/// What planning needs to know about a document that lacks some state.
#[derive(Clone, Copy, Debug)]
pub struct PlanDocument {
    /// The document's key.
    pub key: Key,
    /// The number of tokens in all its windows.
    pub n_tokens: u32,
    /// The number of words, if word states are requested.
    pub n_words: u32,
}

/// Every shard of an extraction, in the order in which they are committed, with the numbers of its documents.
#[derive(Default)]
pub struct Planned {
    /// The shards.
    pub shards: Vec<PlannedShard>,
    /// The numbers of the documents of each shard, sorted by key.
    pub members: Vec<Vec<u32>>,
}

/// Plans an extraction against the present content of a cache.
pub struct Planner<'a> {
    wanted: &'a [StateId],
    manifest: &'a Manifest,
    index: &'a DocumentIndex,
    row_bytes: usize,
    /// The wanted states that each shard lacks, one bit per state.
    shards_lack: Vec<u128>,
}

impl<'a> Planner<'a> {
    /// Creates a planner for documents that should all have the `wanted` states, in a cache whose documents are at the
    /// locations in `index`; `row_bytes` is the size of one row of a state.
    ///
    /// # Panics
    /// Panics if more than [`MAX_STATES`] are wanted; the caller must check that.
    pub fn new(
        wanted: &'a [StateId],
        manifest: &'a Manifest,
        index: &'a DocumentIndex,
        row_bytes: usize,
    ) -> Planner<'a> {
        assert!(wanted.len() <= MAX_STATES, "a bit for each state");
        let lacks = |entry: &ShardEntry| {
            let wanted = wanted.iter().enumerate();
            wanted
                .filter(|(_, state)| !entry.holds(**state))
                .fold(0, |bits, (bit, _)| bits | 1 << bit)
        };
        Planner {
            wanted,
            manifest,
            index,
            row_bytes,
            shards_lack: manifest.shards.iter().map(lacks).collect(),
        }
    }

    /// Returns the states that every document should have.
    pub fn wanted(&self) -> &[StateId] {
        self.wanted
    }

    /// Returns the wanted states that a document lacks, one bit per state.
    pub fn lacking(&self, key: &Key) -> u128 {
        let held = self.index.locations(key).map(|(shard, _)| !self.shard_lacks(shard));
        held.fold(self.all(), |lacking, held| lacking & !held)
    }

    /// Plans `n` documents whose sizes are known, `document(0..n)` sorted by key; see [`Planner::cutter`].
    pub fn plan(
        &self,
        n: usize,
        document: impl Fn(usize) -> PlanDocument,
        settings: PlanSettings,
    ) -> Planned {
        let mut cutter = self.cutter(n, |number| document(number).key, settings);
        let mut planned = Planned::default();
        while let Some(number) = cutter.upcoming().first() {
            let document = document(*number as usize);
            for CutShard { shards, members } in cutter.push(document) {
                planned.members.extend(vec![members; shards.len()]);
                planned.shards.extend(shards);
            }
        }
        planned
    }

    /// Puts `n` documents, with the keys `key(0..n)` in order, into the order in which they are to be measured and cut
    /// into shards. Each of them lacks some state.
    ///
    /// If all documents of a shard are among them and lack the same states, these are added to that shard. The other
    /// documents go to new shards, grouped by what they lack, each with at most `shard_tokens` tokens and 256 MB of
    /// states.
    pub fn cutter(
        &self,
        n: usize,
        key: impl Fn(usize) -> Key,
        settings: PlanSettings,
    ) -> ShardCutter {
        let whole = self.whole_shards(n, &key);
        let mut added: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut new: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
        for number in 0..n {
            let key = key(number);
            match self.home(&key).filter(|shard| whole[*shard as usize]) {
                Some(shard) => added.entry(shard).or_default().push(number as u32),
                None => new.entry(self.lacking(&key)).or_default().push(number as u32),
            }
        }
        let added = added.into_iter().map(|(shard, members)| PlanGroup {
            added_to: Some(self.manifest.shards[shard as usize].name.clone()),
            states: self.states_of(self.shard_lacks(shard)),
            members,
        });
        let new = new.into_iter().map(|(lacking, members)| PlanGroup {
            added_to: None,
            states: self.states_of(lacking),
            members,
        });
        let groups: VecDeque<PlanGroup> = added.chain(new).collect();
        ShardCutter::new(groups, settings, self.row_bytes, self.manifest.next_shard())
    }

    /// Returns the plan of an extraction whose documents have these keys, in order, and are cut by this cutter, of
    /// which nothing is cut yet.
    pub fn extraction_plan(
        &self,
        keys: impl Iterator<Item = Key>,
        cutter: &ShardCutter,
    ) -> ExtractionPlan {
        let added = cutter.remaining().filter_map(|(group, _)| group.added_to.clone());
        let (documents, keys) = digest_of(keys);
        ExtractionPlan {
            settings: cutter.settings().clone(),
            states: self.wanted.to_vec(),
            first_shard: self.manifest.next_shard(),
            added: added.collect(),
            documents,
            keys,
        }
    }

    /// Returns whether the documents that lack some state, with these keys in order, are what an unfinished extraction
    /// left over.
    pub fn is_rest_of(&self, unfinished: &ExtractionPlan, keys: impl Iterator<Item = Key>) -> bool {
        let shards = self.manifest.shards.iter();
        let of_plan: Vec<bool> = shards
            .map(|entry| {
                let number = shard_number(&entry.name);
                unfinished.added.contains(&entry.name)
                    || number.is_some_and(|number| number >= unfinished.first_shard)
            })
            .collect();
        let done = self.index.documents().map(|(key, _)| key).filter(|key| {
            let mut shards = self.index.locations(key).map(|(shard, _)| shard);
            shards.any(|shard| of_plan[shard as usize]) && self.lacking(key) == 0
        });
        let mut keys: Vec<Key> = keys.chain(done).collect();
        keys.sort_unstable();
        self.wanted == unfinished.states
            && digest_of(keys.into_iter()) == (unfinished.documents, unfinished.keys)
    }

    fn all(&self) -> u128 {
        (0..self.wanted.len()).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn shard_lacks(&self, shard: u32) -> u128 {
        self.shards_lack[shard as usize]
    }

    fn states_of(&self, bits: u128) -> Vec<StateId> {
        let wanted = self.wanted.iter().enumerate();
        wanted.filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, state)| *state).collect()
    }

    /// Returns the first shard of a document that lacks exactly the states that the document lacks.
    fn home(&self, key: &Key) -> Option<u32> {
        let lacking = self.lacking(key);
        let mut shards = self.index.locations(key).map(|(shard, _)| shard);
        shards.find(|shard| self.shard_lacks(*shard) == lacking)
    }

    /// Returns for each shard whether all its documents are among these and have it as their [`Planner::home`].
    fn whole_shards(&self, n: usize, key: &impl Fn(usize) -> Key) -> Vec<bool> {
        let mut counts = vec![0u64; self.manifest.shards.len()];
        for number in 0..n {
            if let Some(shard) = self.home(&key(number)) {
                counts[shard as usize] += 1;
            }
        }
        let shards = self.manifest.shards.iter().zip(counts);
        shards.map(|(entry, count)| entry.documents == count).collect()
    }
}

/// Returns the number of keys and their blake3.
fn digest_of(keys: impl Iterator<Item = Key>) -> (u64, Digest) {
    let mut hasher = blake3::Hasher::new();
    let mut n = 0;
    for key in keys {
        hasher.update(&key.0);
        n += 1;
    }
    (n, hasher.finalize().into())
}

impl ExtractionPlan {
    /// Writes the plan into the cache folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).expect("plain fields become JSON");
        let name = format!("plan-{}.json", fingerprint::hash_bytes(&json).short());
        write_file(&folder.join(name), &json)
    }

    /// Reads the unfinished plan of a cache folder, if there is a readable one.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be listed. A damaged plan counts as none, because it can be made again.
    pub fn read(folder: &Path) -> Result<Option<ExtractionPlan>> {
        for path in plan_paths(folder)? {
            let plan =
                std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if plan.is_some() {
                return Ok(plan);
            }
        }
        Ok(None)
    }

    /// Returns whether a cache folder has a plan, but none that can be read.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be listed.
    pub fn is_unreadable(folder: &Path) -> Result<bool> {
        Ok(ExtractionPlan::read(folder)?.is_none() && !plan_paths(folder)?.is_empty())
    }

    /// Removes every plan from the cache folder, and the batch logs that belong to them.
    ///
    /// # Errors
    /// Returns an error if a file cannot be removed.
    pub fn clear(folder: &Path) -> Result<()> {
        leftovers::remove_batch_logs(folder)?;
        ExtractionPlan::remove(folder)
    }

    /// Removes every plan from the cache folder.
    ///
    /// # Errors
    /// Returns an error if a file cannot be removed.
    pub fn remove(folder: &Path) -> Result<()> {
        for path in plan_paths(folder)? {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }
}

fn plan_paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let name = entry.file_name();
        let is_file = entry.file_type().is_ok_and(|kind| !kind.is_dir());
        if is_file && is_plan(&name.to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
