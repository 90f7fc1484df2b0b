//! Tests the property that makes resuming possible, on caches of which only the manifest is real.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    fingerprint::{FingerprintInputs, Mode, hash_bytes},
    manifest::{Origin, ShardEntry},
    states::{Dtype, Pooling, StateKind},
};

/// A cache without files: the documents in each shard, and a manifest of the states they have.
#[derive(Clone, Debug)]
struct Shelf {
    manifest: Manifest,
    members: Vec<Vec<Key>>,
}

impl Shelf {
    fn empty() -> Shelf {
        let manifest = Manifest::empty(&inputs(), 2, 32, Dtype::F16);
        Shelf { manifest, members: Vec::new() }
    }

    fn index(&self) -> DocumentIndex {
        let shards = self.members.iter().enumerate();
        DocumentIndex::with(shards.flat_map(|(shard, members)| {
            let rows = members.iter().enumerate();
            rows.map(move |(row, key)| (*key, (shard as u32, row as u32)))
        }))
    }

    /// Changes the manifest as a writer would.
    fn commit(&mut self, planned: &PlannedShard, members: Vec<Key>) {
        let origin = Origin {
            states: planned.states.clone(),
            device: "cpu".into(),
            placement: None,
            onnxruntime: String::new(),
            batch_tokens: 0,
            parity: Default::default(),
        };
        let shards = &mut self.manifest.shards;
        if planned.added {
            let number = shards.iter().position(|shard| shard.name == planned.name);
            let number = number.expect("states are added to a shard that is there");
            assert_eq!(self.members[number], members, "the shard's own documents");
            shards[number].origins.push(origin);
            return;
        }
        assert!(shards.iter().all(|shard| shard.name != planned.name));
        shards.push(ShardEntry {
            name: planned.name.clone(),
            documents: members.len() as u64,
            windows: 0,
            tokens: planned.tokens,
            origins: vec![origin],
            files: Vec::new(),
        });
        self.members.push(members);
    }

    /// Plans the wanted states that these texts lack.
    fn plan(&self, texts: &BTreeSet<u8>, wanted: &[StateId], shard_tokens: usize) -> Made {
        let index = self.index();
        let planner = Planner::new(wanted, &self.manifest, &index, ROW_BYTES);
        let documents = lacking(&planner, texts);
        let settings = PlanSettings { shard_tokens, batch_tokens: 64 };
        let keys = || documents.iter().map(|document| document.key);
        let key = |number: usize| documents[number].key;
        let cutter = planner.cutter(documents.len(), key, settings.clone());
        let planned = planner.plan(documents.len(), |number| documents[number], settings);
        Made {
            plan: planner.extraction_plan(keys(), &cutter),
            lacking: keys().map(|key| (key, planner.states_of(planner.lacking(&key)))).collect(),
            members: planned
                .members
                .iter()
                .map(|members| {
                    let keys = members.iter().map(|number| documents[*number as usize].key);
                    keys.collect()
                })
                .collect(),
            shards: planned.shards,
        }
    }

    /// Whether what these texts lack is what an unfinished plan left over.
    fn is_rest_of(&self, plan: &ExtractionPlan, texts: &BTreeSet<u8>, wanted: &[StateId]) -> bool {
        let index = self.index();
        let planner = Planner::new(wanted, &self.manifest, &index, ROW_BYTES);
        let documents = lacking(&planner, texts);
        planner.is_rest_of(plan, documents.iter().map(|document| document.key))
    }

    fn commit_first(&mut self, made: &Made, n: usize) {
        let shards = made.shards.iter().zip(&made.members).take(n);
        shards.for_each(|(planned, members)| self.commit(planned, members.clone()));
    }
}

/// Returns those of these texts that lack something, sorted by key.
fn lacking(planner: &Planner<'_>, texts: &BTreeSet<u8>) -> Vec<PlanDocument> {
    let mut documents: Vec<PlanDocument> = texts.iter().map(|text| document(*text)).collect();
    documents.retain(|document| planner.lacking(&document.key) != 0);
    documents.sort_unstable_by_key(|document| document.key);
    documents
}

/// A plan, its shards with the keys of their documents, and what each document lacked.
struct Made {
    plan: ExtractionPlan,
    shards: Vec<PlannedShard>,
    members: Vec<Vec<Key>>,
    lacking: BTreeMap<Key, Vec<StateId>>,
}

/// A text that no extraction has.
const NEVER_COMMITTED: u8 = 200;

/// A row so large that a shard holds only 50 of them.
const ROW_BYTES: usize = (SHARD_STATE_BYTES / 50) as usize;

fn inputs() -> FingerprintInputs {
    FingerprintInputs {
        weights: hash_bytes(b""),
        config: hash_bytes(b""),
        tokenizer: hash_bytes(b""),
        graph: String::new(),
        provider: "cpu".into(),
        precision: "f32".into(),
        dtype: "f16".into(),
        max_length: 128,
        overflow: "truncate".into(),
        stride: None,
        include_prompt: None,
        format_version: 0,
    }
}

fn document(text: u8) -> PlanDocument {
    PlanDocument {
        key: Key::of(Mode::Text, &[text.to_string()]),
        n_tokens: 3 + u32::from(text) % 7,
        n_words: 1 + u32::from(text) % 5,
    }
}

fn state(number: usize) -> StateId {
    let kinds = [
        StateKind::Pooled(Pooling::Mean),
        StateKind::Pooled(Pooling::Cls),
        StateKind::Words,
        StateKind::Tokens,
    ];
    StateId { kind: kinds[number % 4], layer: number / 4 }
}

/// Generates extractions: texts, states, `shard_tokens`, and the number of shards committed before a kill.
fn extractions() -> impl Strategy<Value = Vec<(BTreeSet<u8>, BTreeSet<usize>, usize, usize)>> {
    let texts = prop::collection::btree_set(0u8..40, 1..40);
    let states = prop::collection::btree_set(0usize..8, 1..6);
    prop::collection::vec((texts, states, 1usize..90, 0usize..12), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_lacking_is_planned_once_and_after_any_prefix_the_rest_is_planned(
        extractions in extractions(),
    ) {
        let mut shelf = Shelf::empty();
        for (texts, states, shard_tokens, n_committed) in extractions {
            let wanted: Vec<StateId> = states.into_iter().map(state).collect();
            let made = shelf.plan(&texts, &wanted, shard_tokens);

            let mut planned: BTreeMap<Key, Vec<StateId>> = BTreeMap::new();
            for (shard, members) in made.shards.iter().zip(&made.members) {
                prop_assert_eq!(shard.documents, members.len());
                for key in members {
                    planned.entry(*key).or_default().extend(&shard.states);
                }
            }
            planned.values_mut().for_each(|states| states.sort_unstable());
            let mut lacking = made.lacking.clone();
            lacking.values_mut().for_each(|states| states.sort_unstable());
            prop_assert_eq!(planned, lacking);

            for n in 0..=made.shards.len() {
                let mut killed = shelf.clone();
                killed.commit_first(&made, n);
                let again = killed.plan(&texts, &wanted, shard_tokens);
                prop_assert_eq!(&again.shards, &made.shards[n..], "after {} commits", n);
                prop_assert_eq!(&again.members, &made.members[n..]);
                prop_assert!(killed.is_rest_of(&made.plan, &texts, &wanted), "after {} commits", n);
                let mut others = texts.clone();
                others.insert(NEVER_COMMITTED);
                prop_assert!(!killed.is_rest_of(&made.plan, &others, &wanted));
                if let Some(more) = (0..8).map(state).find(|state| !wanted.contains(state)) {
                    let more = [&wanted[..], &[more]].concat();
                    prop_assert!(!killed.is_rest_of(&made.plan, &texts, &more));
                }
            }
            // The next extraction starts from what a killed one left.
            shelf.commit_first(&made, n_committed);
        }
    }
}

#[test]
fn a_shard_ends_before_it_has_too_many_tokens_or_bytes() {
    let texts: BTreeSet<u8> = (0..40).collect();
    let sizes = |wanted: &[StateId], shard_tokens| {
        let made = Shelf::empty().plan(&texts, wanted, shard_tokens);
        let shards = made.shards.iter();
        shards.map(|shard| (shard.documents, shard.tokens)).collect::<Vec<_>>()
    };
    let by_tokens = sizes(&[state(0)], 60);
    assert!(by_tokens.len() > 2);
    assert!(by_tokens.iter().all(|(_, tokens)| *tokens <= 60), "{by_tokens:?}");
    // The longest text has 9 tokens, so a shard ends only if the next text might not fit.
    let whole = &by_tokens[..by_tokens.len() - 1];
    assert!(whole.iter().all(|(_, tokens)| *tokens > 60 - 9), "{by_tokens:?}");

    // 50 rows fill a shard: 25 texts of two pooled states, or 50 tokens.
    let pooled: Vec<usize> =
        sizes(&[state(0), state(1)], 10_000).iter().map(|shard| shard.0).collect();
    assert_eq!(pooled, [25, 15]);
    let tokens = sizes(&[state(3)], 10_000);
    assert!(tokens.len() > 2 && tokens.iter().all(|(_, tokens)| *tokens <= 50), "{tokens:?}");

    // A text that is larger than any shard gets one of its own.
    assert_eq!(
        sizes(&[state(0)], 1),
        vec![1; 40]
            .into_iter()
            .zip(sizes(&[state(0)], 1).iter().map(|shard| shard.1))
            .collect::<Vec<_>>()
    );
}

#[test]
fn states_that_do_not_fit_together_are_added_one_after_the_other() {
    let texts: BTreeSet<u8> = (0..6).collect();
    let mut shelf = Shelf::empty();
    let made = shelf.plan(&texts, &[state(0)], 1000);
    shelf.commit_first(&made, 1);
    // 6 rows together with 33 of tokens fit into 50; another 33 do not.
    let made = shelf.plan(&texts, &[state(0), state(1), state(3), state(7)], 1000);
    let added: Vec<_> = made.shards.iter().map(|shard| (shard.added, &shard.states[..])).collect();
    assert_eq!(added, [(true, &[state(1), state(3)][..]), (true, &[state(7)])]);
}

#[test]
fn a_plan_is_read_back_and_a_damaged_one_is_none() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ExtractionPlan::read(folder.path()).unwrap(), None);
    let plan = Shelf::empty().plan(&(0..40).collect(), &[state(0), state(6)], 60).plan;
    plan.write(folder.path()).unwrap();
    assert_eq!(ExtractionPlan::read(folder.path()).unwrap(), Some(plan));
    assert!(!ExtractionPlan::is_unreadable(folder.path()).unwrap());
    for path in plan_paths(folder.path()).unwrap() {
        std::fs::write(path, "{").unwrap();
    }
    assert_eq!(ExtractionPlan::read(folder.path()).unwrap(), None);
    assert!(ExtractionPlan::is_unreadable(folder.path()).unwrap());
    ExtractionPlan::remove(folder.path()).unwrap();
    assert!(!ExtractionPlan::is_unreadable(folder.path()).unwrap());
    assert_eq!(plan_paths(folder.path()).unwrap(), Vec::<PathBuf>::new());
}
