//! `frostbert cache pull`: fetches the caches that several machines made.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::wording::counted,
    internals::distributed::pull::{PullReport, pull, pull_scratch},
};

use super::{Context, distributed::open, output, quantities};

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
