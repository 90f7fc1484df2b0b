//! `frostbert cache`: what caches there are, and whether they are whole.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Subcommand;
use frostbert::{
    cache::{
        manifest::{MANIFEST, Manifest, caches_in},
        verify::damaged_files,
    },
    progress::Progress,
};
use indicatif::HumanCount;
use serde_json::json;

use super::{Context, export, output};

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// List the caches of a folder
    Ls {
        /// A cache.dir
        #[arg(value_name = "DIR", default_value = "cache")]
        folder: PathBuf,
    },
    /// Describe one cache: its manifest
    Info {
        /// A cache folder: <cache.dir>/<fingerprint>
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Read every file and compare checksums
    Verify {
        /// Cache folders, or cache.dirs and then every cache in them
        #[arg(value_name = "DIR", required = true)]
        folders: Vec<PathBuf>,
    },
    #[command(about = "Write the values as typed vectors for other tools", long_about = export::ABOUT, after_help = export::EXAMPLES)]
    Export(export::ExportArguments),
}

pub(super) fn run(command: &CacheCommand, context: &Context) -> Result<ExitCode> {
    match command {
        CacheCommand::Ls { folder } => list(folder, context),
        CacheCommand::Info { folder } => info(folder, context),
        CacheCommand::Verify { folders } => verify(folders, context),
        CacheCommand::Export(arguments) => export::run(arguments, context),
    }
}

fn list(folder: &Path, context: &Context) -> Result<ExitCode> {
    let mut caches = Vec::new();
    for (path, manifest) in caches_in(folder)? {
        match manifest {
            Ok(manifest) => caches.push((path, manifest)),
            Err(error) => context.progress.warn(&error.to_string()),
        }
    }
    if context.json {
        let caches = caches.iter().map(|(path, manifest)| {
            json!({
                "fingerprint": manifest.fingerprint,
                "path": path,
                "documents": manifest.documents,
                "tokens": manifest.tokens,
                "bytes": manifest.bytes(),
            })
        });
        output::print_json(&json!({ "caches": caches.collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if caches.is_empty() {
        output::print(&format!("no cache in {}\n", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = [
        "path",
        "documents",
        "tokens",
        "size",
        "states",
        "max_length",
        "dtype",
        "device",
    ];
    let mut lines = vec![header.map(String::from).to_vec()];
    for (path, manifest) in &caches {
        lines.push(vec![
            path.display().to_string(),
            HumanCount(manifest.documents).to_string(),
            HumanCount(manifest.tokens).to_string(),
            output::bytes(manifest.bytes()),
            states(manifest),
            manifest.inputs.max_length.to_string(),
            manifest.dtype.name().to_string(),
            manifest.inputs.provider.clone(),
        ]);
    }
    output::print(&output::align(&lines))?;
    Ok(ExitCode::SUCCESS)
}

fn info(folder: &Path, context: &Context) -> Result<ExitCode> {
    let manifest = open(folder)?;
    if context.json {
        output::print_json(&manifest)?;
        return Ok(ExitCode::SUCCESS);
    }
    let inputs = &manifest.inputs;
    let join = |set: BTreeSet<&str>| set.into_iter().collect::<Vec<_>>().join(", ");
    let lines = [
        ("fingerprint", manifest.fingerprint.clone()),
        ("documents", HumanCount(manifest.documents).to_string()),
        ("tokens", HumanCount(manifest.tokens).to_string()),
        ("truncated", HumanCount(manifest.truncated).to_string()),
        ("states", states(&manifest)),
        (
            "shape",
            format!("{} values of {}", manifest.hidden, manifest.dtype.name()),
        ),
        (
            "size",
            format!(
                "{} in {} shards",
                output::bytes(manifest.bytes()),
                manifest.shards.len()
            ),
        ),
        (
            "max_length",
            format!("{} tokens, then {}", inputs.max_length, inputs.overflow),
        ),
        ("precision", inputs.precision.clone()),
        ("device", join(manifest.devices())),
        ("ONNX Runtime", join(manifest.onnxruntime_versions())),
        ("weights", inputs.weights.clone()),
        ("tokenizer", inputs.tokenizer.clone()),
    ];
    let lines = lines.map(|(name, value)| vec![name.to_string(), value]);
    output::print(&output::align(&lines))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(folders: &[PathBuf], context: &Context) -> Result<ExitCode> {
    let mut n_shards = 0;
    let mut damaged = Vec::new();
    for folder in folders {
        let own = Manifest::read(folder)
            .transpose()
            .map(|manifest| (folder.clone(), manifest));
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
        for (path, manifest) in caches {
            let Ok(manifest) = manifest else {
                damaged.push(path.join(MANIFEST));
                continue;
            };
            n_shards += manifest.shards.len();
            let files = damaged_files(&path, &manifest);
            damaged.extend(files.into_iter().map(|file| path.join(file)));
        }
    }
    if context.json {
        output::print_json(&json!({ "shards": n_shards, "damaged": damaged }))?;
    } else {
        let lines = damaged
            .iter()
            .map(|path| format!("damaged: {}\n", path.display()));
        let mut text: String = lines.collect();
        text.push_str(&format!(
            "{n_shards} shards checked, {} files damaged\n",
            damaged.len()
        ));
        output::print(&text)?;
    }
    Ok(if damaged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn open(folder: &Path) -> Result<Manifest> {
    match Manifest::read(folder)? {
        Some(manifest) => Ok(manifest),
        None => bail!(
            "`{}` holds no manifest.json: name a cache folder, <cache.dir>/<fingerprint>, as `frostbert cache ls` \
             lists them",
            folder.display()
        ),
    }
}

fn states(manifest: &Manifest) -> String {
    let names: Vec<String> = manifest.states().iter().map(ToString::to_string).collect();
    names.join(" ")
}
