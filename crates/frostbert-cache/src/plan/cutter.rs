//! Cuts documents into shards as their sizes become known.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
};

use super::{PlanDocument, PlanSettings, PlannedShard, SHARD_STATE_BYTES};
use crate::{
    manifest::shard_name,
    states::{StateId, StateKind},
};

/// Documents that lack the same states and go to shards together.
#[derive(Clone, Debug)]
pub struct PlanGroup {
    /// The name of the existing shard to which the states are added; `None` if they go to new shards.
    pub added_to: Option<String>,
    /// The states to compute.
    pub states: Vec<StateId>,
    /// The numbers of the documents, sorted by key.
    pub members: Vec<u32>,
}

/// Documents that have just become shards: one, or several commits to an existing one if the states do not fit into
/// memory together.
#[derive(Clone, Debug)]
pub struct CutShard {
    /// The shards to commit, in order, all of the same documents.
    pub shards: Vec<PlannedShard>,
    /// The numbers of the documents.
    pub members: Vec<u32>,
}

/// Cuts groups of documents into shards. The documents are pushed in the order of [`ShardCutter::upcoming`].
pub struct ShardCutter {
    settings: PlanSettings,
    row_bytes: usize,
    next_shard: usize,
    /// The groups that are not cut yet; some documents of the first have been pushed.
    groups: VecDeque<PlanGroup>,
    pushed: usize,
    /// The last documents that were pushed, which are not in a shard yet.
    open: Vec<PlanDocument>,
    tokens: u64,
    bytes: u64,
}

impl ShardCutter {
    pub(super) fn new(
        groups: VecDeque<PlanGroup>,
        settings: PlanSettings,
        row_bytes: usize,
        next_shard: usize,
    ) -> ShardCutter {
        ShardCutter {
            settings,
            row_bytes,
            next_shard,
            groups,
            pushed: 0,
            open: Vec::new(),
            tokens: 0,
            bytes: 0,
        }
    }

    /// Returns the settings.
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }

    /// Returns the numbers of the documents to push next, in order: the rest of a group. It is empty when all documents
    /// were pushed.
    pub fn upcoming(&self) -> &[u32] {
        self.groups.front().map_or(&[], |group| &group.members[self.pushed..])
    }

    /// Returns the groups of which documents are not in a shard yet, with the number of these documents.
    pub fn remaining(&self) -> impl Iterator<Item = (&PlanGroup, usize)> {
        let groups = self.groups.iter().enumerate();
        groups.map(move |(number, group)| {
            let n_cut = if number == 0 { self.pushed - self.open.len() } else { 0 };
            (group, group.members.len() - n_cut)
        })
    }

    /// Returns every state of the documents that are not in a shard yet, sorted.
    pub fn states(&self) -> Vec<StateId> {
        let states: BTreeSet<StateId> =
            self.groups.iter().flat_map(|group| group.states.iter().copied()).collect();
        states.into_iter().collect()
    }

    /// Takes the next document, and returns the shards that end with it or before it.
    ///
    /// # Panics
    /// Panics if no document is left.
    pub fn push(&mut self, document: PlanDocument) -> Vec<CutShard> {
        let group = self.groups.front().expect("a document is left");
        let is_last = self.pushed + 1 == group.members.len();
        let is_new = group.added_to.is_none();
        let bytes = self.bytes_of(&group.states, &document);
        let mut cut = Vec::new();
        self.tokens += u64::from(document.n_tokens);
        self.bytes += bytes;
        let is_full =
            self.tokens > self.settings.shard_tokens as u64 || self.bytes > SHARD_STATE_BYTES;
        if is_new && is_full && !self.open.is_empty() {
            cut.push(self.cut());
            (self.tokens, self.bytes) = (u64::from(document.n_tokens), bytes);
        }
        self.open.push(document);
        self.pushed += 1;
        if is_last {
            cut.push(self.cut());
            self.groups.pop_front();
            (self.pushed, self.tokens, self.bytes) = (0, 0, 0);
        }
        cut
    }

    /// Makes a shard of the open documents.
    fn cut(&mut self) -> CutShard {
        let documents = mem::take(&mut self.open);
        let group = self.groups.front().expect("the open documents are of a group");
        let members = group.members[self.pushed - documents.len()..self.pushed].to_vec();
        let shard = |name: String, added: bool, states: Vec<StateId>| {
            let mut keys = blake3::Hasher::new();
            for document in &documents {
                keys.update(&document.key.0);
            }
            let tokens = documents.iter().map(|document| u64::from(document.n_tokens));
            PlannedShard {
                name,
                added,
                states,
                documents: documents.len(),
                tokens: tokens.sum(),
                keys: keys.finalize().into(),
            }
        };
        let shards = match &group.added_to {
            Some(name) => {
                let states = self.states_that_fit(&group.states, &documents).into_iter();
                states.map(|states| shard(name.clone(), true, states)).collect()
            }
            None => {
                let made = shard(shard_name(self.next_shard), false, group.states.clone());
                self.next_shard += 1;
                vec![made]
            }
        };
        CutShard { shards, members }
    }

    fn bytes_of(&self, states: &[StateId], document: &PlanDocument) -> u64 {
        let rows = |state: &StateId| match state.kind {
            StateKind::Pooled(_) => 1,
            StateKind::Words => u64::from(document.n_words),
            StateKind::Tokens => u64::from(document.n_tokens),
        };
        states.iter().map(rows).sum::<u64>() * self.row_bytes as u64
    }

    /// Groups states so that each group's rows of these documents fit into memory, with at least one state per group.
    fn states_that_fit(&self, states: &[StateId], documents: &[PlanDocument]) -> Vec<Vec<StateId>> {
        let mut groups: Vec<Vec<StateId>> = Vec::new();
        let mut bytes = 0;
        for state in states {
            let own: u64 =
                documents.iter().map(|document| self.bytes_of(&[*state], document)).sum();
            bytes += own;
            match groups.last_mut() {
                Some(group) if bytes <= SHARD_STATE_BYTES => group.push(*state),
                _ => {
                    groups.push(vec![*state]);
                    bytes = own;
                }
            }
        }
        groups
    }
}
