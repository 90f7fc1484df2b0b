//! `frostbert cache ls` and `frostbert cache prune`: lists caches, and removes those that have not been used for long.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use frostbert::cache::{
    about::{About, last_use},
    manifest::{Manifest, caches_in},
    progress::Progress,
    prune::{PruneLimits, Pruned, prune},
    wording::counted,
};
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::{Context, output, quantities, screen};

/// If a cache has more states than this, they are counted instead of listed.
const LISTED_STATES: usize = 4;

/// The number of digits of a commit that are shown.
const SHORT_REVISION: usize = 7;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("limits").required(true).multiple(true).args(["max_size", "older_than"]))]
pub(super) struct PruneArguments {
    /// A folder of caches (cache.dir)
    #[arg(value_name = "DIR", default_value = "cache")]
    folder: PathBuf,
    /// Remove caches until the rest is at most this large, such as 20GB or 1.5GiB
    #[arg(long, value_name = "SIZE", value_parser = quantities::size)]
    max_size: Option<u64>,
    /// Remove every cache that has not been used for this long, such as 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = quantities::duration)]
    older_than: Option<Duration>,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// A cache with what is listed about it.
struct ListedCache {
    folder: PathBuf,
    manifest: Manifest,
    about: About,
    last_use: Option<SystemTime>,
}

impl ListedCache {
    /// Returns every cache of a folder that can be read, and warns about the others.
    fn all(folder: &Path, context: &Context) -> Result<Vec<ListedCache>> {
        let mut caches = Vec::new();
        for (folder, manifest) in caches_in(folder)? {
            match manifest {
                Ok(manifest) => caches.push(ListedCache {
                    about: About::read(&folder),
                    last_use: last_use(&folder),
                    folder,
                    manifest,
                }),
                Err(error) => context.progress.warn(&error.to_string()),
            }
        }
        Ok(caches)
    }

    fn json(&self) -> Value {
        let states: Vec<String> = self.manifest.states().iter().map(ToString::to_string).collect();
        let last_used = self.last_use.map(|time| utc(time).to_rfc3339_opts(SECONDS, true));
        json!({
            "fingerprint": self.manifest.fingerprint,
            "path": self.folder.to_string_lossy(),
            "model": self.about.model,
            "revision": self.about.revision,
            "documents": self.manifest.documents,
            "tokens": self.manifest.tokens,
            "bytes": self.manifest.bytes(),
            "states": states,
            "max_length": self.manifest.inputs.max_length,
            "dtype": self.manifest.dtype.name(),
            "device": self.manifest.inputs.provider,
            "last_used": last_used,
        })
    }

    /// Returns the model's name without its owner, and the first digits of its commit.
    fn model(&self) -> String {
        let Some(model) = &self.about.model else { return "unknown".into() };
        let name = model.rsplit('/').next().unwrap_or(model);
        let revision = self.about.revision.as_ref();
        let digits = revision.map(|revision| revision.chars().take(SHORT_REVISION));
        digits.map_or(name.into(), |digits| format!("{name}@{}", digits.collect::<String>()))
    }

    fn used(&self) -> String {
        self.last_use.map_or("-".into(), |time| utc(time).date_naive().to_string())
    }
}

const SECONDS: chrono::SecondsFormat = chrono::SecondsFormat::Secs;

fn utc(time: SystemTime) -> chrono::DateTime<chrono::Utc> {
    time.into()
}

pub(super) fn list(folder: &Path, context: &Context) -> Result<ExitCode> {
    let caches = ListedCache::all(folder, context)?;
    if context.json {
        let caches: Vec<Value> = caches.iter().map(ListedCache::json).collect();
        output::print_json(&json!({ "caches": caches }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if caches.is_empty() {
        output::print(&format!("no cache in {}\n", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["path", "model", "documents", "tokens", "size", "last used"];
    let mut lines = vec![header.map(String::from).to_vec()];
    for cache in &caches {
        let manifest = &cache.manifest;
        lines.push(vec![
            cache.folder.display().to_string(),
            cache.model(),
            HumanCount(manifest.documents).to_string(),
            HumanCount(manifest.tokens).to_string(),
            output::bytes(manifest.bytes()),
            cache.used(),
        ]);
        let n_states = manifest.states().len();
        let states = match n_states {
            0 => "no states".into(),
            1..=LISTED_STATES => states(manifest),
            _ => counted(n_states, "state"),
        };
        let inputs = &manifest.inputs;
        let length = format!("at most {} tokens", inputs.max_length);
        let what = [&states, &length, manifest.dtype.name(), &inputs.provider].join(", ");
        lines.push(vec![String::new(), what]);
    }
    output::print(&screen::align(&lines))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the names of all states of a cache.
pub(super) fn states(manifest: &Manifest) -> String {
    let names: Vec<String> = manifest.states().iter().map(ToString::to_string).collect();
    names.join(" ")
}

pub(super) fn run_prune(arguments: &PruneArguments, context: &Context) -> Result<ExitCode> {
    let caches = ListedCache::all(&arguments.folder, context)?;
    let limits = PruneLimits { max_bytes: arguments.max_size, older_than: arguments.older_than };
    let folders: Vec<(PathBuf, Manifest)> =
        caches.iter().map(|cache| (cache.folder.clone(), cache.manifest.clone())).collect();
    let pruned = prune(&folders, limits, arguments.dry_run)?;
    let freed = bytes_of(&caches, &pruned.removed);
    let all = caches.iter().map(|cache| cache.manifest.bytes()).sum::<u64>();
    if context.json {
        let listed = |places: &[usize]| -> Vec<Value> {
            places.iter().map(|place| caches[*place].json()).collect()
        };
        output::print_json(&json!({
            "removed": listed(&pruned.removed),
            "in_use": listed(&pruned.in_use),
            "freed_bytes": freed,
            "bytes": all - freed,
            "dry_run": arguments.dry_run,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&describe(&caches, &pruned, arguments.dry_run))?;
    Ok(ExitCode::SUCCESS)
}

fn bytes_of(caches: &[ListedCache], places: &[usize]) -> u64 {
    places.iter().map(|place| caches[*place].manifest.bytes()).sum()
}

/// Describes what was removed, or would be, and how much space that frees.
fn describe(caches: &[ListedCache], pruned: &Pruned, dry_run: bool) -> String {
    let Pruned { removed, in_use } = pruned;
    let mut text = String::new();
    if !removed.is_empty() {
        let title = if dry_run { "would be removed" } else { "removed" };
        let header = [title, "model", "documents", "size", "last used"];
        let mut lines = vec![header.map(String::from).to_vec()];
        lines.extend(removed.iter().map(|place| {
            let cache = &caches[*place];
            vec![
                cache.folder.display().to_string(),
                cache.model(),
                HumanCount(cache.manifest.documents).to_string(),
                output::bytes(cache.manifest.bytes()),
                cache.used(),
            ]
        }));
        text.push_str(&screen::align(&lines));
    }
    for place in in_use {
        text.push_str(&format!("in use, and kept: {}\n", caches[*place].folder.display()));
    }
    let freed = bytes_of(caches, removed);
    let left: Vec<usize> = (0..caches.len()).filter(|place| !removed.contains(place)).collect();
    let verb = if dry_run { "would be freed" } else { "freed" };
    let stay = if dry_run { "would stay" } else { "left" };
    text.push_str(&format!(
        "{}, {} {verb}; {}, {} {stay}\n",
        counted(removed.len(), "cache"),
        output::bytes(freed),
        counted(left.len(), "cache"),
        output::bytes(bytes_of(caches, &left)),
    ));
    text
}
