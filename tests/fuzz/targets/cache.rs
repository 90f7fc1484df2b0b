//! Caches: the manifest, the tables and states of a shard, the plan of an extraction that was broken off.

use std::{
    collections::BTreeSet,
    fs, iter,
    path::{Path, PathBuf},
};

use frostbert::{
    cache::{
        diff::Difference,
        export::{ExportFormat, ExportOptions, export_cache},
        fingerprint::{self, Key},
        gc,
        index::DocumentIndex,
        manifest::{MANIFEST, Manifest},
        plan::{ExtractionPlan, Planner},
        reader::{CacheReader, rows_of},
        verify,
    },
    internals::{
        config::settings::Pipeline,
        extraction::{extract::extract, machine::Machine},
        features::FeatureView,
    },
};
use serde_json::{Value, json};

use super::Execute;
use crate::base;

/// The pipeline of the base whose cache holds states of every kind.
const PIPELINE: &str = "attention";

/// The shard whose files are damaged.
const SHARD: &str = "shard-000000";

/// Files of this name in all shards of the cache.
pub(super) fn files(name: &str) -> Vec<PathBuf> {
    let mut shards: Vec<PathBuf> = entries(&base::cache_of(PIPELINE));
    shards.retain(|shard| shard.join(name).is_file());
    shards.iter().map(|shard| shard.join(name)).collect()
}

/// The manifests of all caches of the base.
pub(super) fn manifests() -> Vec<PathBuf> {
    let caches = base::RUNS.iter().map(|run| base::cache_of(run).join(MANIFEST));
    let mut paths: Vec<PathBuf> = caches.collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Plans of which one fits the cache, as far as its names go.
pub(super) fn plans() -> Vec<Vec<u8>> {
    let plan = |states: &[&str], first_shard: usize, added: &[&str]| {
        let plan = json!({
            "settings": { "shard_tokens": 300, "batch_tokens": 256 },
            "states": states,
            "first_shard": first_shard,
            "added": added,
            "documents": 8,
            "keys": "00".repeat(32),
        });
        let bytes = plan.to_string().into_bytes();
        let parsed = serde_json::from_slice::<ExtractionPlan>(&bytes);
        assert!(parsed.is_ok(), "a seed is no plan: {parsed:?}");
        bytes
    };
    vec![
        plan(&["mean-L01"], 9, &[SHARD]),
        plan(&["cls-L02", "mean-L02", "words-L02", "tokens-L02"], 9, &[]),
        plan(&[], 0, &[]),
    ]
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A copy of the cache, and what to do with it.
struct Patient {
    /// The `cache.dir`.
    dir: PathBuf,
    /// The cache folder.
    folder: PathBuf,
    /// The manifest's bytes, as they were.
    manifest: Vec<u8>,
    /// A pipeline whose states the cache holds.
    pipeline: Pipeline,
}

impl Patient {
    fn new(scratch: &Path) -> Patient {
        let original = base::cache_of(PIPELINE);
        let dir = scratch.join("cache");
        let folder = dir.join(original.file_name().unwrap());
        base::copy(&original, &folder);
        let pipeline = base::corpus("pipeline").join(PIPELINE).with_extension("toml");
        let set = format!("cache.dir=\"{}\"", dir.display());
        Patient {
            manifest: fs::read(folder.join(MANIFEST)).unwrap(),
            pipeline: Pipeline::read(&pipeline, &[set]).unwrap(),
            dir,
            folder,
        }
    }

    /// Puts back the manifest.
    fn heal(&self) {
        fs::write(self.folder.join(MANIFEST), &self.manifest).unwrap();
    }

    /// What commands do that look after caches and that read them; `dir` is that of a copy.
    fn look_after(&self) {
        // Nothing may be computed: there is no such library.
        let machine = Machine::new("no such library", 1);
        let _ = extract(&self.pipeline, &machine, &());
        let out = self.dir.join("../export");
        if let Ok(Some(reader)) = CacheReader::open(&self.folder) {
            let options = ExportOptions {
                format: ExportFormat::Npy,
                states: Vec::new(),
                derived: None,
                as_f32: true,
                quantize: None,
                folder: out.clone(),
            };
            let _ = export_cache(&reader, &options, &());
        }
        let aside = self.dir.join("../aside");
        for step in [repair as fn(&Path), collect_half, collect_all] {
            base::copy(&self.folder, &aside);
            step(&aside);
            fs::remove_dir_all(&aside).unwrap();
        }
        if out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        // Extraction, repair and collection clear away what they take for their own.
        base::copy(&base::cache_of(PIPELINE), &self.folder);
    }
}

fn repair(folder: &Path) {
    let Ok(Some(manifest)) = Manifest::read(folder) else {
        return;
    };
    let damaged = verify::damaged_files(folder, &manifest);
    if verify::repair(folder, &()).is_ok() && !damaged.is_empty() {
        require_counts(&CacheReader::existing(folder).expect("a cache that was repaired"));
    }
}

fn collect_half(folder: &Path) {
    let keep = |key: &Key| key.0[0] < 128;
    if gc::collect(folder, keep, 300, &()).is_ok() {
        require_counts(&CacheReader::existing(folder).expect("a cache that was collected"));
    }
}

fn collect_all(folder: &Path) {
    if gc::collect(folder, |_| true, 300, &()).is_ok() {
        require_counts(
            &CacheReader::existing(folder).expect("a cache from which nothing was dropped"),
        );
    }
}

/// Reads everything in a cache as a training does; whether all could be read.
fn use_cache(folder: &Path) -> bool {
    // What lists and describes caches asks no more than this.
    if let Ok(Some(manifest)) = Manifest::read(folder) {
        let (_, _) = (manifest.bytes(), manifest.next_shard());
        let (_, _) = (manifest.devices(), manifest.states());
        let names: BTreeSet<&str> =
            manifest.shards.iter().map(|shard| shard.name.as_str()).collect();
        assert_eq!(names.len(), manifest.shards.len(), "accepted, but a shard stands in it twice");
    }
    let Ok(Some(reader)) = CacheReader::open(folder) else {
        return false;
    };
    let manifest = reader.manifest();
    let keys: Vec<Key> = reader.index().documents().map(|(key, _)| key).collect();
    let mut is_whole = true;
    for state in manifest.states() {
        match FeatureView::read(&reader, state, &keys) {
            Ok(view) => {
                let all: Vec<u32> = (0..view.n_samples() as u32).collect();
                is_whole &= view.for_each_tile(&all, 16, |_, _| {}).is_ok();
            }
            Err(_) => is_whole = false,
        }
    }
    let _ = gc::count(folder, |key| key.0[0] < 128);
    let _ = Difference::between(folder, folder);
    for (number, entry) in manifest.shards.iter().enumerate() {
        require_plain(json!(entry));
        let Ok(layout) = reader.read_layout(number as u32) else {
            is_whole = false;
            continue;
        };
        for state in entry.states() {
            let Ok(file) = reader.open_state(number as u32, state) else {
                is_whole = false;
                continue;
            };
            assert_eq!(
                file.n_rows(),
                layout.rows(state.kind),
                "accepted, but rows of {state} are missing"
            );
            for document in 0..layout.documents.len() {
                let _ = file.rows(rows_of(&layout, state.kind, document)).count();
            }
        }
    }
    if is_whole {
        require_counts(&reader);
    }
    is_whole
}

/// No name in a manifest leads out of the cache.
fn require_plain(entry: Value) {
    let files = entry["files"].as_array().into_iter().flatten();
    for name in files.map(|file| &file["name"]).chain([&entry["name"]]) {
        let name = name.as_str().unwrap_or_default();
        let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        assert!(is_plain, "accepted, but {name:?} is no plain name");
    }
}

/// A manifest counts what its tables hold.
fn require_counts(reader: &CacheReader) {
    let manifest = reader.manifest();
    let n_documents = reader.index().n_documents();
    assert_eq!(
        manifest.documents, n_documents,
        "accepted, but the manifest counts other documents"
    );
}

pub(super) fn manifest(scratch: &Path) -> Execute {
    let patient = Patient::new(scratch);
    Box::new(move |bytes, thorough| {
        let folder = &patient.folder;
        fs::write(folder.join(MANIFEST), bytes).unwrap();
        let mut accepted = use_cache(folder);
        if thorough && accepted {
            patient.look_after();
        }
        // The same with every check of the manifest's own bytes passed.
        let Ok(mut parsed) = serde_json::from_slice::<Manifest>(bytes) else {
            return accepted;
        };
        parsed.fingerprint = parsed.inputs.fingerprint();
        parsed.write(folder).unwrap();
        if let Ok(read) = Manifest::read(folder) {
            assert_eq!(read.as_ref(), Some(&parsed), "accepted, but another than was written");
            accepted |= use_cache(folder);
            if thorough {
                patient.look_after();
            }
        }
        accepted
    })
}

/// A file of a shard.
pub(super) fn table(scratch: &Path, name: &'static str) -> Execute {
    let patient = Patient::new(scratch);
    let path = patient.folder.join(SHARD).join(name);
    let original = fs::read(&path).unwrap();
    let relative = Path::new(SHARD).join(name);
    Box::new(move |bytes, thorough| {
        let folder = &patient.folder;
        fs::write(&path, bytes).unwrap();
        if thorough && bytes != original {
            let manifest = Manifest::open(folder).unwrap();
            let damaged = verify::damaged_files(folder, &manifest);
            assert!(damaged.contains(&relative), "accepted, but its checksum is another");
            assert!(!use_cache(folder), "read, but its checksum is another");
        }
        // A stranger's cache has checksums that fit.
        let mut manifest: Value = serde_json::from_slice(&patient.manifest).unwrap();
        let shard = &mut manifest["shards"][0];
        assert_eq!(shard["name"], SHARD);
        let files = shard["files"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["name"] == name).unwrap();
        file["bytes"] = bytes.len().into();
        file["blake3"] = fingerprint::hash_bytes(bytes).to_string().into();
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        manifest.write(folder).unwrap();
        let accepted = use_cache(folder);
        if thorough {
            patient.look_after();
        }
        patient.heal();
        accepted
    })
}

pub(super) fn plan(scratch: &Path) -> Execute {
    let patient = Patient::new(scratch);
    let path = patient.folder.join("plan-0123456789abcdef.json");
    Box::new(move |bytes, thorough| {
        fs::write(&path, bytes).unwrap();
        let manifest = Manifest::open(&patient.folder).unwrap();
        let Ok(Some(plan)) = ExtractionPlan::read(&patient.folder) else {
            return false;
        };
        let index = DocumentIndex::read(&patient.folder, &manifest).unwrap();
        Planner::new(&[], &manifest, &index, 1).is_rest_of(&plan, iter::empty());
        if thorough {
            patient.look_after();
        }
        true
    })
}
