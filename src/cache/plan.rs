//! The plan of an extraction: written before work, followed to its end, gone when it is done.
//!
//! Because the cuts between shards are on disk before the first state is, an extraction that is killed and resumed
//! commits the same shards as one that was not.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::write_aside;
use crate::{
    error::{Error, Result},
    fingerprint::{self, Key},
    states::StateId,
};

/// States of one shard never exceed this, whatever `shard_tokens` says.
const SHARD_STATE_BYTES: u64 = 256 * 1024 * 1024;

/// The shards of an extraction, in the order in which they are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtractionPlan {
    /// What cut it.
    pub settings: PlanSettings,
    /// Number of the first shard.
    pub first_shard: usize,
    /// The keys of each shard, in document order.
    pub shards: Vec<Vec<Key>>,
}

/// The settings that decide a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSettings {
    /// States to compute and store.
    pub states: Vec<StateId>,
    /// Tokens between two commits.
    pub shard_tokens: usize,
    /// Padded tokens of one batch.
    pub batch_tokens: usize,
}

#[derive(Serialize, Deserialize)]
struct PlanFile {
    settings: PlanSettings,
    first_shard: usize,
    /// The keys of each shard, 64 hexadecimal digits each, one after the other.
    shards: Vec<String>,
}

impl ExtractionPlan {
    /// Cuts documents, in their order, into shards of at most `shard_tokens` tokens and 256 MB of states.
    ///
    /// `row_bytes` is the size of all states of one document.
    pub fn cut(
        documents: impl Iterator<Item = (Key, u32)>,
        settings: PlanSettings,
        row_bytes: usize,
        first_shard: usize,
    ) -> ExtractionPlan {
        let mut shards: Vec<Vec<Key>> = Vec::new();
        let (mut tokens, mut bytes) = (u64::MAX, 0);
        for (key, n_tokens) in documents {
            tokens = tokens.saturating_add(u64::from(n_tokens));
            bytes += row_bytes as u64;
            if tokens > settings.shard_tokens as u64 || bytes > SHARD_STATE_BYTES {
                shards.push(Vec::new());
                (tokens, bytes) = (u64::from(n_tokens), row_bytes as u64);
            }
            shards
                .last_mut()
                .expect("the first document opens a shard")
                .push(key);
        }
        ExtractionPlan {
            settings,
            first_shard,
            shards,
        }
    }

    /// The shards that are still to do when the cache holds `committed` shards; `None` where that fits no moment of
    /// this plan.
    pub fn remaining(&self, committed: usize) -> Option<&[Vec<Key>]> {
        self.shards.get(committed.checked_sub(self.first_shard)?..)
    }

    /// Writes the plan into the cache folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = PlanFile {
            settings: self.settings.clone(),
            first_shard: self.first_shard,
            shards: self
                .shards
                .iter()
                .map(|keys| keys.iter().map(|key| key.to_hex()).collect())
                .collect(),
        };
        let json = serde_json::to_vec(&file).expect("plain fields become JSON");
        let name = format!("plan-{}.json", &fingerprint::hash_bytes(&json)[..16]);
        write_aside(folder, &name, &json)
    }

    /// The unfinished plan of a cache folder, if there is one that can be read.
    ///
    /// # Errors
    /// When the folder cannot be listed. A plan that is damaged is taken for none: it can be made again.
    pub fn read(folder: &Path) -> Result<Option<ExtractionPlan>> {
        for path in plan_paths(folder)? {
            let plan = std::fs::read(&path).ok().and_then(|bytes| parse(&bytes));
            if plan.is_some() {
                return Ok(plan);
            }
        }
        Ok(None)
    }

    /// Removes every plan from the cache folder.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(folder: &Path) -> Result<()> {
        for path in plan_paths(folder)? {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Option<ExtractionPlan> {
    let file: PlanFile = serde_json::from_slice(bytes).ok()?;
    let shards = file
        .shards
        .iter()
        .map(|hex| parse_keys(hex))
        .collect::<Option<Vec<_>>>()?;
    Some(ExtractionPlan {
        settings: file.settings,
        first_shard: file.first_shard,
        shards,
    })
}

fn parse_keys(hex: &str) -> Option<Vec<Key>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(64) {
        return None;
    }
    (0..hex.len() / 64)
        .map(|index| Key::from_hex(&hex[index * 64..(index + 1) * 64]))
        .collect()
}

fn plan_paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("plan-") && name.ends_with(".json") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fingerprint::Mode, states::Pooling};

    fn settings(shard_tokens: usize) -> PlanSettings {
        let states = vec![StateId {
            pooling: Pooling::Mean,
            layer: 6,
        }];
        PlanSettings {
            states,
            shard_tokens,
            batch_tokens: 512,
        }
    }

    fn documents(lengths: &[u32]) -> Vec<(Key, u32)> {
        let key = |index: usize| Key::of(Mode::Text, &[&index.to_string()]);
        lengths
            .iter()
            .enumerate()
            .map(|(index, length)| (key(index), *length))
            .collect()
    }

    #[test]
    fn a_shard_ends_before_it_holds_too_many_tokens() {
        let plan =
            ExtractionPlan::cut(documents(&[4, 4, 4, 30, 1]).into_iter(), settings(10), 8, 0);
        let sizes: Vec<usize> = plan.shards.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert!(
            ExtractionPlan::cut(std::iter::empty(), settings(10), 8, 0)
                .shards
                .is_empty()
        );
    }

    #[test]
    fn a_shard_ends_before_its_states_grow_too_large() {
        let row_bytes = 100 * 1024 * 1024;
        let plan =
            ExtractionPlan::cut(documents(&[1; 5]).into_iter(), settings(1000), row_bytes, 0);
        let sizes: Vec<usize> = plan.shards.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[test]
    fn a_plan_is_read_back_and_knows_what_remains() {
        let folder = tempfile::tempdir().unwrap();
        let plan =
            ExtractionPlan::cut(documents(&[4, 4, 4, 30, 1]).into_iter(), settings(10), 8, 3);
        plan.write(folder.path()).unwrap();
        assert_eq!(
            ExtractionPlan::read(folder.path()).unwrap(),
            Some(plan.clone())
        );
        assert_eq!(plan.remaining(5).unwrap(), &plan.shards[2..]);
        assert_eq!(plan.remaining(2), None);
        ExtractionPlan::remove(folder.path()).unwrap();
        assert_eq!(ExtractionPlan::read(folder.path()).unwrap(), None);
    }
}
