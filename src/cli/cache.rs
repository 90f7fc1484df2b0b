//! `frostbert cache`: lists, describes, checks and cleans caches.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Subcommand;
use frostbert::{
    cache::{
        self,
        diff::Difference,
        manifest::{MANIFEST, Manifest, Parity, caches_in},
        progress::Progress,
        states::StateId,
        verify::{self, damaged_files},
        wording::{counted, grouped, part_of},
    },
    internals::{config::settings::Pipeline, error::Error, extraction::gc::NeededDocuments},
};
use indicatif::HumanCount;
use serde_json::json;

use super::{Context, OverrideArguments, cache_list, cache_pull, examples, export, output, screen};

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// List the caches in a folder
    #[command(after_help = examples::CACHE_LS)]
    Ls {
        /// A folder of caches (cache.dir)
        #[arg(value_name = "DIR", default_value = "cache")]
        folder: PathBuf,
    },
    /// Describe one cache: its manifest
    #[command(after_help = examples::CACHE_INFO)]
    Info {
        /// A cache folder: <cache.dir>/<fingerprint>
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Read every file and compare checksums
    #[command(after_help = examples::CACHE_VERIFY)]
    Verify {
        /// Cache folders, or folders of caches (then every cache in them)
        #[arg(value_name = "DIR", required = true)]
        folders: Vec<PathBuf>,
        /// Drop the shards with damaged files, so that the next extraction computes them again
        #[arg(long)]
        repair: bool,
    },
    /// Show how two caches differ: the inputs of their fingerprints, their states, their documents
    #[command(after_help = examples::CACHE_DIFF)]
    Diff {
        /// The first cache folder
        #[arg(value_name = "DIR")]
        a: PathBuf,
        /// The second cache folder
        #[arg(value_name = "DIR")]
        b: PathBuf,
    },
    /// Drop documents that no given pipeline needs, and merge small shards
    ///
    /// Without --pipeline, nothing is dropped. With it, a document is kept if one of the pipelines reads its text under
    /// the fingerprint of that cache; caches that none of them uses are removed entirely. It asks before it drops
    /// anything, unless --yes is given.
    #[command(after_help = examples::CACHE_GC)]
    Gc {
        /// Cache folders, or folders of caches (then every cache in them)
        #[arg(value_name = "DIR", required = true)]
        folders: Vec<PathBuf>,
        /// A pipeline whose documents are needed; may be repeated
        #[arg(long = "pipeline", value_name = "PIPELINE.toml")]
        pipelines: Vec<PathBuf>,
        #[command(flatten)]
        overrides: OverrideArguments,
    },
    /// Remove caches that have not been used for long, or that take too much space
    ///
    /// With --older-than, every cache that has not been used for that long is removed. With --max-size, the least
    /// recently used caches are removed until the rest is small enough. A cache is used when something is encoded into
    /// it, or when it is read for a training, a prediction or an export. A cache that another process is using is kept.
    /// What is removed can be computed again.
    #[command(after_help = examples::CACHE_PRUNE)]
    Prune(cache_list::PruneArguments),
    /// Fetch the caches that several machines made, and check them
    ///
    /// Every file is checked by its hash. A pull that was interrupted goes on with what is missing, and a cache that is
    /// in DIR already is left as it is.
    #[command(after_help = examples::CACHE_PULL)]
    Pull(cache_pull::CachePullArguments),
    #[command(about = "Write the values as typed vectors for other tools", long_about = export::ABOUT, after_help = export::EXAMPLES)]
    Export(export::ExportArguments),
}

pub(super) fn run(command: &CacheCommand, context: &Context) -> Result<ExitCode> {
    match command {
        CacheCommand::Ls { folder } => cache_list::list(folder, context),
        CacheCommand::Info { folder } => info(folder, context),
        CacheCommand::Verify { folders, repair } => verify(folders, *repair, context),
        CacheCommand::Diff { a, b } => diff(a, b, context),
        CacheCommand::Gc { folders, pipelines, overrides } => {
            gc(folders, pipelines, overrides, context)
        }
        CacheCommand::Prune(arguments) => cache_list::run_prune(arguments, context),
        CacheCommand::Pull(arguments) => cache_pull::run(arguments, context),
        CacheCommand::Export(arguments) => export::run(arguments, context),
    }
}

fn info(folder: &Path, context: &Context) -> Result<ExitCode> {
    let manifest = Manifest::open(folder)?;
    if context.json {
        output::write(&format!("{}\n", manifest.to_json()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let inputs = &manifest.inputs;
    let join = |set: BTreeSet<&str>| set.into_iter().collect::<Vec<_>>().join(", ");
    let lines = [
        ("fingerprint", manifest.fingerprint.clone()),
        ("documents", HumanCount(manifest.documents).to_string()),
        ("tokens", HumanCount(manifest.tokens).to_string()),
        ("truncated", HumanCount(manifest.truncated).to_string()),
        ("states", cache_list::states(&manifest)),
        ("shape", format!("{} values of {}", manifest.hidden, manifest.dtype.name())),
        (
            "size",
            format!(
                "{} in {}",
                output::bytes(manifest.bytes()),
                counted(manifest.shards.len(), "shard")
            ),
        ),
        ("max_length", format!("{} tokens, then {}", inputs.max_length, inputs.overflow)),
        ("precision", inputs.precision.clone()),
        ("device", join(manifest.devices())),
        ("ONNX Runtime", join(manifest.onnxruntime_versions())),
        ("parity", parity(&manifest)),
        ("weights", inputs.weights.to_string()),
        ("tokenizer", inputs.tokenizer.to_string()),
    ];
    output::print(&screen::facts(&lines))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(folders: &[PathBuf], repair: bool, context: &Context) -> Result<ExitCode> {
    let (mut n_shards, mut damaged, mut beyond_repair) = (0, Vec::new(), false);
    let mut dropped: Vec<PathBuf> = Vec::new();
    let mut rewritten = 0;
    for (path, manifest) in find(folders)? {
        let files = match &manifest {
            Ok(manifest) => damaged_files(&path, manifest),
            Err(_) => vec![PathBuf::from(MANIFEST)],
        };
        let is_damaged = !files.is_empty();
        damaged.extend(files.into_iter().map(|file| path.join(file)));
        let mut repaired = None;
        if repair && is_damaged {
            match (verify::repair(&path, &context.progress), &manifest) {
                (Ok(done), _) => repaired = Some(done),
                // The manifest is unreadable and cannot be restored; go on with the other caches.
                (Err(cache::Error::Damage { .. }), Err(_)) => {}
                (Err(error), _) => return Err(error.into()),
            }
        }
        if let Some(repaired) = &repaired {
            dropped.extend(repaired.dropped.iter().map(|shard| path.join(shard)));
            rewritten += usize::from(repaired.manifest && repaired.dropped.is_empty());
        }
        match manifest {
            Ok(manifest) => n_shards += manifest.shards.len(),
            Err(_) if repaired.is_some() => {
                n_shards += Manifest::open(&path)?.shards.len();
            }
            Err(error) => {
                let cure = error.hint().unwrap_or_default();
                context.progress.warn(&format!("{error}; {cure}"));
                beyond_repair = true;
            }
        }
    }
    if context.json {
        let mut report = json!({ "shards": n_shards, "damaged": output::shown(&damaged) });
        if repair {
            report["dropped"] = json!(output::shown(&dropped));
        }
        output::print_json(&report)?;
    } else {
        let mut lines: Vec<String> =
            damaged.iter().map(|path| format!("damaged: {}", path.display())).collect();
        lines.push(format!(
            "{} checked, {} damaged",
            counted(n_shards, "shard"),
            counted(damaged.len(), "file")
        ));
        if damaged.len() > usize::from(beyond_repair) && !repair {
            lines.push("--repair drops the shards with damaged files; `frostbert extract` computes them again".into());
        }
        if rewritten > 0 {
            lines.push(format!(
                "{} rewritten from what the shards hold",
                counted(rewritten, "manifest")
            ));
        }
        if !dropped.is_empty() {
            lines.push(format!(
                "{} dropped: `frostbert extract` computes the documents again",
                counted(dropped.len(), "shard")
            ));
        }
        output::print(&format!("{}\n", lines.join("\n")))?;
    }
    let whole = damaged.is_empty() || repair && !beyond_repair;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn diff(a: &Path, b: &Path, context: &Context) -> Result<ExitCode> {
    let difference = Difference::between(a, b)?;
    if context.json {
        output::print_json(&difference)?;
        return Ok(ExitCode::SUCCESS);
    }
    let inputs = match &difference.differences[..] {
        [] => "none: both are caches of the same fingerprint".into(),
        differences => differences.join("\n"),
    };
    let join = |states: &[StateId]| match states {
        [] => "none".into(),
        states => states.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    let mut lines = Vec::new();
    for (number, line) in inputs.lines().enumerate() {
        let name = if number == 0 { "inputs" } else { "" };
        lines.push((name, line.into()));
    }
    for (name, value) in [
        ("states only in the first", join(&difference.states_only_a)),
        ("states only in the second", join(&difference.states_only_b)),
        ("documents in both", HumanCount(difference.documents_common).to_string()),
        ("documents only in the first", HumanCount(difference.documents_only_a).to_string()),
        ("documents only in the second", HumanCount(difference.documents_only_b).to_string()),
    ] {
        lines.push((name, value));
    }
    output::print(&screen::facts(&lines))?;
    Ok(ExitCode::SUCCESS)
}

fn gc(
    folders: &[PathBuf],
    pipelines: &[PathBuf],
    overrides: &OverrideArguments,
    context: &Context,
) -> Result<ExitCode> {
    let mut needing = Vec::new();
    for path in pipelines {
        let tasks = Pipeline::read_tasks(path, &overrides.set)?.into_iter();
        needing.extend(tasks.map(|task| task.pipeline));
    }
    let needed = NeededDocuments::by(&needing, &context.progress)?;
    let caches = find(folders)?
        .into_iter()
        .map(|(path, manifest)| Ok((path, manifest?)))
        .collect::<Result<Vec<_>>>()?;
    let mut to_drop = Vec::new();
    for (path, manifest) in &caches {
        let count = needed.count(path, manifest)?;
        if count.dropped > 0 {
            to_drop.push(format!(
                "{} of {}",
                part_of(count.dropped, count.documents, "document"),
                path.display()
            ));
        }
    }
    if !to_drop.is_empty() {
        let what = format!("this drops {}", to_drop.join(", "));
        if !context.machine.go_on && !context.progress.ask(&format!("{what}. Continue?")) {
            return Err(Error::Consent { what }.into());
        }
    }
    let collected = needed.collect(&caches, &context.progress)?;
    if context.json {
        let caches = caches.iter().zip(&collected).map(|((path, _), collected)| {
            let mut cache = json!(collected);
            cache["path"] = json!(path.to_string_lossy());
            cache
        });
        output::print_json(&json!({ "caches": caches.collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for ((path, _), collected) in caches.iter().zip(&collected) {
        text.push_str(&format!(
            "{}: {} dropped; {} -> {}, {} -> {}\n",
            path.display(),
            part_of(collected.dropped, collected.documents, "document"),
            grouped(collected.shards_before),
            counted(collected.shards_after, "shard"),
            output::bytes(collected.bytes_before),
            output::bytes(collected.bytes_after)
        ));
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the caches that these folders are or contain.
fn find(folders: &[PathBuf]) -> Result<Vec<(PathBuf, frostbert::cache::Result<Manifest>)>> {
    let mut found = Vec::new();
    for folder in folders {
        let own = Manifest::read(folder).transpose().map(|manifest| (folder.clone(), manifest));
        let caches = match own {
            Some(cache) => vec![cache],
            None => caches_in(folder)?,
        };
        if caches.is_empty() {
            bail!(
                "no cache in `{}`: name a cache folder, <cache.dir>/<fingerprint>, or a cache.dir",
                folder.display()
            );
        }
        found.extend(caches);
    }
    Ok(found)
}

/// Describes the largest differences, over all samples, between stored values and those of the same text alone in f32.
fn parity(manifest: &Manifest) -> String {
    let worst = |of: fn(&Parity) -> f64| {
        let values = manifest.origins().map(|origin| of(&origin.parity));
        values.fold(0.0, f64::max)
    };
    format!(
        "stored values differ from the same text alone in f32 by at most {:.1e}, median {:.1e}; rounding to {} alone: \
         {:.1e}, {:.1e}",
        worst(|parity| parity.max_error),
        worst(|parity| parity.median_error),
        manifest.dtype.name(),
        worst(|parity| parity.max_rounding),
        worst(|parity| parity.median_rounding)
    )
}
