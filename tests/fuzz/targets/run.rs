//! Run folders: what a head is, its weights, and the lock.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use frostbert::internals::{
    data::{Format, Record},
    extraction::machine::Machine,
    head::saved::{DESCRIPTION_FILE, Head, WEIGHTS_FILE, read_description},
    prediction::{predictor::Predictor, saved_run::SavedRun},
    run_folder::lock::{LOCK_FILE, Lock},
};
use ndarray::Array2;

use super::Execute;
use crate::base;

/// A file of every run of the base.
pub(super) fn files(name: &str) -> Vec<PathBuf> {
    base::RUNS.iter().map(|run| base::run_of(run).join(name)).collect()
}

/// A copy of a run, with the bytes of its files as they were.
struct Patient {
    folder: PathBuf,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Patient {
    fn all(scratch: &Path) -> Vec<Patient> {
        let copy = |name: &&str| {
            let folder = scratch.join(name);
            base::copy(&base::run_of(name), &folder);
            let names = [DESCRIPTION_FILE, WEIGHTS_FILE, LOCK_FILE];
            let files = names.map(|name| (name, fs::read(folder.join(name)).unwrap()));
            Patient { folder, files: files.into() }
        };
        base::RUNS.iter().map(copy).collect()
    }

    /// Puts a file back as it was.
    fn heal(&self, name: &str) {
        fs::write(self.folder.join(name), &self.files[name]).unwrap();
    }
}

pub(super) fn head_json(scratch: &Path) -> Execute {
    damaged_head(scratch, DESCRIPTION_FILE)
}

pub(super) fn head_weights(scratch: &Path) -> Execute {
    damaged_head(scratch, WEIGHTS_FILE)
}

fn damaged_head(scratch: &Path, name: &'static str) -> Execute {
    let patients = Patient::all(scratch);
    Box::new(move |bytes, thorough| {
        let mut accepted = false;
        for patient in &patients {
            let folder = &patient.folder;
            fs::write(folder.join(name), bytes).unwrap();
            let read = |name: &str| fs::read(folder.join(name)).unwrap();
            let described = read_description(Path::new(DESCRIPTION_FILE), &read(DESCRIPTION_FILE));
            let head = described.and_then(|description| {
                Head::from_bytes(Path::new(WEIGHTS_FILE), &read(WEIGHTS_FILE), description)
            });
            if let Ok(head) = &head {
                accepted = true;
                let width = head.transform.scaler.mean.len();
                let _ = head.outputs(Array2::zeros((3, width)), &[0, 1, 3]);
            }
            if thorough && bytes != patient.files[name] {
                let opened = SavedRun::open(folder);
                assert!(opened.is_err(), "{name} is not the one of the lock, and is used");
            }
            if thorough && head.is_ok() {
                // A stranger's run has a lock that fits.
                let lock = Lock::read(&folder.join(LOCK_FILE)).unwrap();
                lock.write(folder).unwrap();
                predict(folder);
                patient.heal(LOCK_FILE);
            }
            patient.heal(name);
        }
        accepted
    })
}

/// Predicts with a run, where it opens.
fn predict(folder: &Path) {
    let Ok(run) = SavedRun::open(folder) else {
        return;
    };
    let library = base::repository().join("runtime/libonnxruntime.so");
    let Ok(mut predictor) = Predictor::open(run, &Machine::new(library, 1)) else {
        return;
    };
    let needs_pairs = predictor.needs_pairs();
    let example = |text: &str| Record {
        text: text.into(),
        text_pair: needs_pairs.then(|| "the film is not very good".into()),
        ..Record::default()
    };
    let examples = [example("the cold snow"), example("bad")];
    if let Ok(predictions) = predictor.predict(&examples) {
        assert_eq!(predictions.len(), examples.len(), "a prediction for each record");
    }
}

pub(super) fn lock(scratch: &Path) -> Execute {
    let patient = Patient::all(scratch).remove(0);
    let path = patient.folder.join(LOCK_FILE);
    let own: Lock = serde_json::from_slice(&patient.files[LOCK_FILE]).unwrap();
    Box::new(move |bytes, thorough| {
        fs::write(&path, bytes).unwrap();
        let Ok(lock) = Lock::read(&path) else {
            assert!(SavedRun::open(&patient.folder).is_err(), "a run without a lock is used");
            return false;
        };
        let written = serde_json::to_string(&lock).expect("an accepted lock is written again");
        let again: Lock = serde_json::from_str(&written).expect("what was written is read again");
        assert_eq!(lock, again, "accepted, but another once written");
        assert_eq!(lock.differences(&lock), Vec::<String>::new(), "a lock differs from itself");
        let (_, _) = (lock.differences(&own), own.differences(&lock));
        let _ = lock.changed_inputs();
        if let Ok(run) = SavedRun::open(&patient.folder) {
            let _ = run.source(Path::new("train.csv"), None);
            let _ = run.source(Path::new("other.json"), Some(Format::Jsonl));
            if thorough {
                predict(&patient.folder);
            }
        }
        true
    })
}
