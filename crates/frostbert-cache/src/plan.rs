//! The plan of an extraction: written before the work starts, followed to the end, and removed when it is done.
//!
//! Because the boundaries between shards are fixed before the first state is computed, an extraction that is killed and
//! resumed commits the same shards as one that runs without interruption.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    durable::write_file,
    error::{Error, Result},
    fingerprint::{self, Digest, Key},
    index::DocumentIndex,
    leftovers,
    manifest::{Manifest, ShardEntry, shard_name},
    names::is_plan,
    states::{StateId, StateKind},
};

/// The maximum size of the states of one shard in bytes, whatever `shard_tokens` is.
pub(crate) const SHARD_STATE_BYTES: u64 = 256 * 1024 * 1024;

/// The maximum number of states in one extraction; each takes one bit.
pub const MAX_STATES: usize = 128;

/// The shards of an extraction, in the order in which they are committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractionPlan {
    /// The settings that it was made with.
    pub settings: PlanSettings,
    /// The shards to commit, in order.
    pub shards: Vec<PlannedShard>,
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

/// A plan, with the document numbers of each planned shard.
pub struct Planned {
    /// The plan.
    pub plan: ExtractionPlan,
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

    /// Plans `n` documents, `document(0..n)` sorted by key, each of which lacks some state.
    ///
    /// If all documents of a shard are among them and lack the same states, these are added to that shard. The other
    /// documents go to new shards, grouped by what they lack, each with at most `shard_tokens` tokens and 256 MB of
    /// states.
    pub fn plan(
        &self,
        n: usize,
        document: impl Fn(usize) -> PlanDocument,
        settings: PlanSettings,
    ) -> Planned {
        let mut planned =
            Planned { plan: ExtractionPlan { settings, shards: Vec::new() }, members: Vec::new() };
        let whole = self.whole_shards(n, &document);
        let mut added: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut new: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
        for number in 0..n {
            let key = document(number).key;
            match self.home(&key).filter(|shard| whole[*shard as usize]) {
                Some(shard) => added.entry(shard).or_default().push(number as u32),
                None => new.entry(self.lacking(&key)).or_default().push(number as u32),
            }
        }
        for (shard, members) in added {
            let name = self.manifest.shards[shard as usize].name.clone();
            let states = self.states_of(self.shard_lacks(shard));
            for states in self.states_that_fit(states, &members, &document) {
                planned.push(name.clone(), true, states, members.clone(), &document);
            }
        }
        let mut next = self.manifest.next_shard();
        for (lacking, numbers) in new {
            let states = self.states_of(lacking);
            for members in self.cut(&states, numbers, &document, &planned.plan.settings) {
                planned.push(shard_name(next), false, states.clone(), members, &document);
                next += 1;
            }
        }
        planned
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
    fn whole_shards(&self, n: usize, document: &impl Fn(usize) -> PlanDocument) -> Vec<bool> {
        let mut counts = vec![0u64; self.manifest.shards.len()];
        for number in 0..n {
            if let Some(shard) = self.home(&document(number).key) {
                counts[shard as usize] += 1;
            }
        }
        let shards = self.manifest.shards.iter().zip(counts);
        shards.map(|(entry, count)| entry.documents == count).collect()
    }

    fn bytes(&self, states: &[StateId], document: PlanDocument) -> u64 {
        let rows = |state: &StateId| match state.kind {
            StateKind::Pooled(_) => 1,
            StateKind::Words => u64::from(document.n_words),
            StateKind::Tokens => u64::from(document.n_tokens),
        };
        states.iter().map(rows).sum::<u64>() * self.row_bytes as u64
    }

    /// Splits documents, in order, into shards that are not too large.
    fn cut(
        &self,
        states: &[StateId],
        numbers: Vec<u32>,
        document: &impl Fn(usize) -> PlanDocument,
        settings: &PlanSettings,
    ) -> Vec<Vec<u32>> {
        let mut shards: Vec<Vec<u32>> = Vec::new();
        let (mut tokens, mut bytes) = (0, 0);
        for number in numbers {
            let document = document(number as usize);
            tokens += u64::from(document.n_tokens);
            bytes += self.bytes(states, document);
            match shards.last_mut() {
                Some(shard)
                    if tokens <= settings.shard_tokens as u64 && bytes <= SHARD_STATE_BYTES =>
                {
                    shard.push(number);
                }
                _ => {
                    shards.push(vec![number]);
                    (tokens, bytes) = (u64::from(document.n_tokens), self.bytes(states, document));
                }
            }
        }
        shards
    }

    /// Groups states so that each group's rows of these documents fit into memory, with at least one state per group.
    fn states_that_fit(
        &self,
        states: Vec<StateId>,
        members: &[u32],
        document: &impl Fn(usize) -> PlanDocument,
    ) -> Vec<Vec<StateId>> {
        let mut groups: Vec<Vec<StateId>> = Vec::new();
        let mut bytes = 0;
        for state in states {
            let own: u64 =
                members.iter().map(|number| self.bytes(&[state], document(*number as usize))).sum();
            bytes += own;
            match groups.last_mut() {
                Some(group) if bytes <= SHARD_STATE_BYTES => group.push(state),
                _ => {
                    groups.push(vec![state]);
                    bytes = own;
                }
            }
        }
        groups
    }
}

impl Planned {
    fn push(
        &mut self,
        name: String,
        added: bool,
        states: Vec<StateId>,
        members: Vec<u32>,
        document: &impl Fn(usize) -> PlanDocument,
    ) {
        let mut keys = blake3::Hasher::new();
        let mut tokens = 0;
        for number in &members {
            let document = document(*number as usize);
            keys.update(&document.key.0);
            tokens += u64::from(document.n_tokens);
        }
        self.plan.shards.push(PlannedShard {
            name,
            added,
            states,
            documents: members.len(),
            tokens,
            keys: keys.finalize().into(),
        });
        self.members.push(members);
    }
}

impl ExtractionPlan {
    /// Returns the shards that are still to be committed.
    pub fn remaining<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = &'a PlannedShard> {
        self.shards.iter().filter(|planned| {
            let entry = manifest.shards.iter().find(|entry| entry.name == planned.name);
            !entry.is_some_and(|entry| planned.states.iter().all(|state| entry.holds(*state)))
        })
    }

    /// Returns every state of the plan, sorted.
    pub fn states(&self) -> Vec<StateId> {
        let mut states: Vec<StateId> =
            self.shards.iter().flat_map(|shard| shard.states.iter().copied()).collect();
        states.sort_unstable();
        states.dedup();
        states
    }

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
