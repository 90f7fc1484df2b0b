//! `frostbert cache pull`: fetches the caches that several machines made. `frostbert train` and `frostbert sweep` do so
//! too if `cache.dir` is the address of a bucket.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::{progress::Progress, wording::counted},
    internals::{
        distributed::pull::{PullReport, pull, pull_scratch, pull_to_read},
        experiment::{Experiment, caches_to_read, open_to_read},
    },
};

use super::{
    Context, DryRunArgument, OverrideArguments, distributed::open, output, quantities, wrong_usage,
};

/// The environment variables that say to which folder of this machine caches are fetched that a pipeline names by an
/// address, and how large that folder may become.
const FOLDER: &str = "FROSTBERT_PULL_DIR";
const MAX_SIZE: &str = "FROSTBERT_PULL_MAX_SIZE";

#[derive(Debug, Args)]
pub(super) struct CachePullArguments {
    /// The folder that the machines share, or s3://BUCKET/PREFIX
    #[arg(value_name = "SHARED")]
    shared: PathBuf,
    /// The folder of caches (cache.dir) to fetch to
    #[arg(value_name = "DIR", default_value = "cache")]
    folder: PathBuf,
    /// Remove the least recently used of the other caches in DIR first, until all together are at most this large, such
    /// as 20GB or 1.5GiB
    #[arg(long, value_name = "SIZE", value_parser = quantities::size)]
    max_size: Option<u64>,
}

pub(super) fn run(arguments: &CachePullArguments, context: &Context) -> Result<ExitCode> {
    let CachePullArguments { shared, folder, max_size } = arguments;
    let shared = open(shared, pull_scratch(folder))?;
    let report = pull(&shared, folder, *max_size, &context.progress)?;
    if context.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a pipeline whose cache is only read. If `cache.dir` is an address, the cache is fetched from there to a folder
/// of this machine, which takes its place; or the caches, where a sweep compares models.
pub(super) fn open_and_fetch(
    pipeline: &Path,
    overrides: &OverrideArguments,
    dry: &DryRunArgument,
    context: &Context,
) -> Result<Experiment> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let folder = PathBuf::from(variable(FOLDER).unwrap_or("cache".into()));
    let (experiment, address) = open_to_read(pipeline, &overrides.set, &folder)?;
    let Some(address) = address else {
        return Ok(experiment);
    };
    let shared = open(&address, pull_scratch(&folder))?;
    let max_size = variable(MAX_SIZE).map(|size| quantities::size(&size)).transpose();
    let max_size = max_size.map_err(|expected| wrong_usage(format!("{MAX_SIZE}: {expected}")))?;
    let (address, here) = (address.display(), folder.display());
    let note = |text: String| context.progress.note(&text);
    if dry.dry_run {
        note(format!("nothing is fetched from {address}: this is what {here} has"));
        return Ok(experiment);
    }
    let wanted = caches_to_read(&experiment)?;
    if wanted.is_empty() {
        return Ok(experiment);
    }
    let report = pull_to_read(&shared, &wanted, &folder, max_size, &context.progress)?;
    for path in &report.removed {
        note(format!("removed {} to make room", path.display()));
    }
    let fetched = report.caches.iter().map(|cache| cache.fetched).sum();
    note(format!("fetched {} from {address} to {here}", output::bytes(fetched)));
    Ok(experiment)
}

fn describe(report: &PullReport) -> String {
    let removed = report.removed.iter().map(|path| format!("removed     {}\n", path.display()));
    let caches = report.caches.iter().map(|cache| {
        format!(
            "cache       {}{}\n            {} in {}, {}; {} fetched\n",
            cache.cache.display(),
            if cache.existed { ", which was there already" } else { "" },
            counted(cache.documents, "text"),
            counted(cache.shards, "shard"),
            output::bytes(cache.bytes),
            output::bytes(cache.fetched),
        )
    });
    removed.chain(caches).collect()
}
