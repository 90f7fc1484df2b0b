//! Logs of encoded batches for shards that are not complete yet, so that a kill costs a batch instead of a shard.
//!
//! A batch is appended as soon as its states are computed, and the log is removed when its shard is committed. Nothing
//! is synced: data that a process wrote outlives the process, and after a crash of the machine the checksum of each
//! record shows how much of the log is intact. A log is named by everything that determines the batches of its shard
//! and their states, so it is never mistaken for that of another shard.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    durable::{free_bytes, remove_file, through_no_link},
    error::Result,
    fingerprint,
    names::BATCH_LOG_PREFIX,
    plan::{PlanSettings, PlannedShard, SHARD_STATE_BYTES},
    states::{BatchStates, StateId, StateValues},
};

/// The size of a record's checksum in bytes.
const CHECKSUM_BYTES: usize = 32;

/// The maximum size of a log in bytes: more than the states of a shard in f32.
const MOST_LOG_BYTES: u64 = 4 * SHARD_STATE_BYTES;

/// The free disk space in bytes below which no logs are written: twice that of the shards in progress at a time.
const LEAST_FREE_BYTES: u64 = 8 * SHARD_STATE_BYTES;

/// The logs of an extraction.
pub struct BatchLogs {
    folder: PathBuf,
    /// What determines the states besides the plan: the type of their values and what computes them.
    context: String,
}

impl BatchLogs {
    /// Returns the logs of an extraction in a cache folder; `context` is what determines the states besides the cache
    /// and the plan.
    pub fn new(folder: &Path, context: String) -> BatchLogs {
        BatchLogs { folder: folder.to_path_buf(), context }
    }

    fn path(&self, settings: &PlanSettings, planned: &PlannedShard) -> PathBuf {
        let decided = serde_json::to_vec(&(settings, planned, &self.context));
        let decided = decided.expect("plain fields become JSON");
        let name = fingerprint::hash_bytes(&decided).short();
        self.folder.join(format!("{BATCH_LOG_PREFIX}{name}"))
    }

    /// Returns the batches of a shard that an earlier process encoded, by number.
    pub fn read(
        &self,
        settings: &PlanSettings,
        planned: &PlannedShard,
    ) -> BTreeMap<u32, Vec<BatchStates>> {
        let path = self.path(settings, planned);
        // Do not follow links, because the end of the file may be cut off.
        let is_own = fs::symlink_metadata(&path)
            .is_ok_and(|file| file.is_file() && file.len() <= MOST_LOG_BYTES);
        let Some(bytes) = is_own.then(|| fs::read(&path).ok()).flatten() else {
            return BTreeMap::new();
        };
        let mut batches = BTreeMap::new();
        let mut rest = &bytes[..];
        while let Some((number, states)) = take_record(&mut rest) {
            batches.insert(number, states);
        }
        let n_whole = (bytes.len() - rest.len()) as u64;
        // Cut off anything after the last complete record, so that appended records can be read.
        let cut = OpenOptions::new().write(true).open(&path);
        if cut.and_then(|file| file.set_len(n_whole)).is_err() {
            return BTreeMap::new();
        }
        batches
    }

    /// Opens the log of a shard for appending; returns `None` if it cannot be written, because logs are only an aid.
    pub fn append_to(&self, settings: &PlanSettings, planned: &PlannedShard) -> Option<BatchLog> {
        let path = self.path(settings, planned);
        // If space is short, the shards need it.
        if free_bytes(&self.folder)? < LEAST_FREE_BYTES {
            return None;
        }
        let mut options = OpenOptions::new();
        let file = through_no_link(options.append(true).create(true)).open(&path);
        file.ok().map(|file| BatchLog { file, path })
    }

    /// Removes the log of a committed shard.
    ///
    /// # Errors
    /// Returns an error if the file cannot be removed.
    pub fn remove(&self, settings: &PlanSettings, planned: &PlannedShard) -> Result<()> {
        remove_file(&self.path(settings, planned))
    }
}

/// The log of one shard.
pub struct BatchLog {
    file: File,
    path: PathBuf,
}

impl BatchLog {
    /// Appends a batch and returns whether the log still exists: on a full disk it is removed to make room.
    pub fn append(&mut self, number: u32, states: &[BatchStates]) -> bool {
        let is_written = self.file.write_all(&record(number, states)).is_ok();
        if !is_written {
            // If it cannot be removed now, it is removed when the extraction is done.
            let _ = fs::remove_file(&self.path);
        }
        is_written
    }
}

/// Encodes a record: its length and number, the states with their names, and a checksum over all of it.
fn record(number: u32, states: &[BatchStates]) -> Vec<u8> {
    let mut record = vec![0; 8];
    record.extend(number.to_le_bytes());
    for BatchStates { state, values } in states {
        let name = state.to_string();
        record.push(name.len() as u8);
        record.extend(name.as_bytes());
        let (kind, n_bytes) = match values {
            StateValues::Pooled(values) => (0, values.len() * 4),
            StateValues::Rows(bytes) => (1, bytes.len()),
        };
        record.push(kind);
        record.extend((n_bytes as u64).to_le_bytes());
        match values {
            StateValues::Pooled(values) => {
                record.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            StateValues::Rows(bytes) => record.extend(bytes),
        }
    }
    let length = (record.len() + CHECKSUM_BYTES) as u64;
    record[..8].copy_from_slice(&length.to_le_bytes());
    let checksum = *blake3::hash(&record).as_bytes();
    record.extend(checksum);
    record
}

/// Takes the next record; returns `None` if there is no complete one.
fn take_record(bytes: &mut &[u8]) -> Option<(u32, Vec<BatchStates>)> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let record = bytes.get(..usize::try_from(length).ok()?)?;
    let (content, checksum) = record.split_at_checked(record.len().checked_sub(CHECKSUM_BYTES)?)?;
    if blake3::hash(content).as_bytes() != checksum {
        return None;
    }
    let number = u32::from_le_bytes(content.get(8..12)?.try_into().ok()?);
    let mut rest = content.get(12..)?;
    let mut states = Vec::new();
    while !rest.is_empty() {
        states.push(take_states(&mut rest)?);
    }
    *bytes = &bytes[record.len()..];
    Some((number, states))
}

fn take_states(rest: &mut &[u8]) -> Option<BatchStates> {
    let (length, after) = rest.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(*length))?;
    let state: StateId = std::str::from_utf8(name).ok()?.parse().ok()?;
    let (kind, after) = after.split_first()?;
    let (length, after) = after.split_at_checked(8)?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (values, after) = after.split_at_checked(length)?;
    *rest = after;
    let values = match kind {
        0 => StateValues::Pooled(
            values
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect(),
        ),
        _ => StateValues::Rows(values.to_vec()),
    };
    Some(BatchStates { state, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::states::{Pooling, StateKind};

    fn planned() -> (PlanSettings, PlannedShard) {
        let settings = PlanSettings { shard_tokens: 8, batch_tokens: 4 };
        let shard = PlannedShard {
            name: "shard-000000".into(),
            added: false,
            states: Vec::new(),
            documents: 2,
            tokens: 5,
            keys: fingerprint::hash_bytes(b"keys"),
        };
        (settings, shard)
    }

    fn batch(value: f32) -> Vec<BatchStates> {
        let pooled = BatchStates {
            state: StateId::pooled(Pooling::Mean, 6),
            values: StateValues::Pooled(vec![value, -value, f32::MIN_POSITIVE]),
        };
        let tokens = BatchStates {
            state: StateId { kind: StateKind::Tokens, layer: 12 },
            values: StateValues::Rows(vec![1, 2, value as u8]),
        };
        vec![pooled, tokens]
    }

    #[test]
    fn what_was_appended_is_read_up_to_the_first_damage_and_appended_to_again() {
        let folder = tempfile::tempdir().unwrap();
        let logs = BatchLogs::new(folder.path(), "f16 on cpu".into());
        let (settings, shard) = planned();
        assert!(logs.read(&settings, &shard).is_empty());
        let mut log = logs.append_to(&settings, &shard).unwrap();
        assert!((0..3).all(|number| log.append(number, &batch(number as f32))));
        let path = logs.path(&settings, &shard);
        let whole = fs::read(&path).unwrap();
        // If the log is cut off or a byte is changed anywhere, the batches before that point are still read.
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let read = logs.read(&settings, &shard);
            assert_eq!(read.len(), length / (whole.len() / 3), "{length}");
            for (number, states) in read {
                assert_eq!(states, batch(number as f32));
            }
            let mut changed = whole.clone();
            changed[length] ^= 0x40;
            fs::write(&path, &changed).unwrap();
            assert_eq!(logs.read(&settings, &shard).len(), length / (whole.len() / 3));
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(logs.read(&settings, &shard).len(), 2);
        assert!(logs.append_to(&settings, &shard).unwrap().append(7, &batch(7.0)));
        let numbers: Vec<u32> = logs.read(&settings, &shard).into_keys().collect();
        assert_eq!(numbers, [0, 1, 7]);
    }

    #[test]
    fn a_log_is_of_one_plan_and_one_device_and_goes_with_its_shard() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, shard) = planned();
        let logs = BatchLogs::new(folder.path(), "f16 on cpu".into());
        assert!(logs.append_to(&settings, &shard).unwrap().append(0, &batch(1.0)));
        let others = BatchLogs::new(folder.path(), "f16 by another version".into());
        assert!(others.read(&settings, &shard).is_empty());
        let mut other_settings = settings.clone();
        other_settings.batch_tokens = 8;
        assert!(logs.read(&other_settings, &shard).is_empty());
        assert_eq!(logs.read(&settings, &shard).len(), 1);
        logs.remove(&settings, &shard).unwrap();
        assert!(logs.read(&settings, &shard).is_empty());
        logs.append_to(&settings, &shard).unwrap();
        fs::write(folder.path().join("tmp-batches-notes"), "mine").unwrap();
        crate::leftovers::remove_batch_logs(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
