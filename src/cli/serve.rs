//! `frostbert serve`: an HTTP server for the heads of runs and the vectors of their models.

mod access;
mod body;
mod counts;
mod docs;
mod embed;
mod http_error;
mod listen;
mod predict;
mod routes;
mod service;
mod timed_stream;

use std::{
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use access::Access;
use anyhow::Result;
use body::RequestLimits;
use clap::Args;
use frostbert::{
    cache::{
        progress::Progress,
        wording::{counted, printable},
    },
    internals::{
        error::Error,
        prediction::saved_run::SavedRun,
        server::engine::{EngineOptions, ServedRun, UnloadedEngine},
    },
};
use serde_json::{Value, json};
use service::HttpService;

use super::{Context, DryRunArgument, moved::MovedArguments, output, quantities, screen};

/// The environment variable that holds the key.
const KEY_VARIABLE: &str = "FROSTBERT_API_KEY";

/// The longest key in bytes.
const LONGEST_KEY: usize = 4096;

/// Number of threads that read requests and write answers. The models have threads of their own.
const HTTP_THREADS: usize = 2;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Runs to serve: folders, names or folders of runs (the newest is used), or tags. Runs on the same model share it
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The address to listen on. One that other machines can reach needs a key
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// A file with the key that requests have to send [default: the variable FROSTBERT_API_KEY, if it is set]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A name by which clients reach this server, besides localhost and its addresses; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// The most texts that are encoded together; with 1, answers do not depend on what else is asked at the time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_batch: u16,
    /// The most texts in a request
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_inputs: u32,
    /// The most texts that wait for a model; further requests are answered with status 429
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_queue: u32,
    /// The most windows of a text, for runs that cut long texts into windows; longer texts are answered with status 413
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    max_windows: u16,
    /// The largest body of a request
    #[arg(long, value_name = "SIZE", default_value = "2MB", value_parser = quantities::size)]
    max_body: u64,
    /// Leave out /embed and /v1/embeddings; where no head reads the last layer, the model then stops earlier
    #[arg(long)]
    no_embed: bool,
    #[command(flatten)]
    dry: DryRunArgument,
    #[command(flatten)]
    moved: MovedArguments,
}

pub(super) const ABOUT: &str = "\
Answer requests over HTTP: predictions of runs, and embeddings of their models

POST /predict takes {\"inputs\": [...], \"run\": \"NAME\"} and answers what `predict --json` prints for each input. \
POST /embed is that of text-embeddings-inference, POST /v1/embeddings that of OpenAI. GET /docs describes all of them, \
GET /health and GET /metrics are for supervisors. Texts that wait at the same time are encoded together. SIGTERM and \
Ctrl-C stop the server after the requests that have arrived are answered.";

pub(super) const EXAMPLES: &str = "\
Examples:
  frostbert serve runs/sentiment --dry-run
  frostbert serve runs/sentiment --port 0 --max-batch 1 --dry-run";

pub(super) fn run(arguments: &ServeArguments, context: &Context) -> Result<ExitCode> {
    if arguments.max_inputs > arguments.max_queue {
        return Err(super::wrong_usage(format!(
            "--max-inputs {} is more than --max-queue {}: such a request would never be taken on",
            arguments.max_inputs, arguments.max_queue
        )));
    }
    let key = key(arguments)?;
    let address = address(arguments)?;
    if !address.ip().is_loopback() && key.is_none() {
        return Err(super::wrong_usage(format!(
            "--host {} can be reached from other machines, and there is no key: set {KEY_VARIABLE}, or give a file \
             with --api-key-file",
            arguments.host
        )));
    }
    let relocation = arguments.moved.relocation();
    let runs = arguments.runs.iter().map(|run| super::open_run(run, &relocation, context));
    let runs: Vec<SavedRun> = runs.collect::<Result<_>>()?;
    // The runs that predict are named even with --quiet.
    for run in &runs {
        output::say(&format!("note: {}", printable(&run.summary())));
    }
    let unloaded = UnloadedEngine::check(runs, &context.machine)?;
    require_different(unloaded.runs())?;
    if arguments.dry.dry_run {
        show(None, key.is_some(), arguments, unloaded.runs(), context)?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = address.to_string();
    let listener = TcpListener::bind(address).map_err(Error::io("listen on", &place))?;
    let address = listener.local_addr().map_err(Error::io("listen on", &place))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()?;
    let loading = listen::end_on_signal(&runtime)?;
    let options = EngineOptions {
        max_batch: arguments.max_batch.into(),
        max_queue: arguments.max_queue as usize,
        max_windows: arguments.max_windows.into(),
        embeds: !arguments.no_embed,
    };
    let engine = unloaded.load(&options, &context.machine, &context.progress)?;
    let most_bytes = usize::try_from(arguments.max_body).unwrap_or(usize::MAX);
    let limits = RequestLimits::new(most_bytes, arguments.max_inputs as usize);
    let mut hosts = arguments.allow_host.clone();
    hosts.push(arguments.host.clone());
    let access = Access::new(key.as_deref(), &hosts);
    let service = Arc::new(HttpService::new(engine, access, limits));
    let is_finished = runtime.block_on(listen::listen(
        listener,
        routes::router(&service),
        || {
            loading.abort();
            let has_key = service.access.has_key();
            show(Some(address), has_key, arguments, service.engine.runs(), context)
        },
        || service.begin_to_stop(),
        || service.is_answering(),
    ))?;
    service.engine.stop();
    let answered = counted(service.counts.total(), "request");
    if is_finished {
        context.progress.note(&format!("stopped: {answered} answered"));
    } else {
        context
            .progress
            .warn(&format!("stopped before all answers were read: {answered} answered"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the key that requests have to send, if there is one.
fn key(arguments: &ServeArguments) -> Result<Option<String>> {
    let (key, origin) = match &arguments.api_key_file {
        Some(file) => {
            let key = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
            (key, file.display().to_string())
        }
        None => match std::env::var(KEY_VARIABLE) {
            Ok(key) if !key.is_empty() => (key, KEY_VARIABLE.to_string()),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(super::wrong_usage(format!("{KEY_VARIABLE} is no text")));
            }
            _ => return Ok(None),
        },
    };
    let key = key.trim();
    if key.is_empty() || key.len() > LONGEST_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(super::wrong_usage(format!(
            "{origin} holds no key: expected one word of at most {LONGEST_KEY} printable ASCII characters"
        )));
    }
    Ok(Some(key.to_string()))
}

/// Returns the address to listen on.
fn address(arguments: &ServeArguments) -> Result<SocketAddr> {
    let host = arguments.host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, arguments.port).to_socket_addrs();
    let mut found = found.map_err(Error::io("look up", Path::new(host)))?;
    found.next().ok_or_else(|| super::wrong_usage(format!("--host {host} has no address")))
}

fn require_different(runs: &[ServedRun]) -> Result<()> {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    match (1..names.len()).find(|place| names[..*place].contains(&names[*place])) {
        None => Ok(()),
        Some(twice) => Err(super::wrong_usage(format!(
            "the run {} is named twice",
            runs[twice].folder.display()
        ))),
    }
}

/// Shows what is served, and at which address; without one, what would be served.
fn show(
    address: Option<SocketAddr>,
    has_key: bool,
    arguments: &ServeArguments,
    runs: &[ServedRun],
    context: &Context,
) -> Result<()> {
    if context.json {
        return output::print_json(&as_json(address, has_key, arguments, runs));
    }
    let mut facts = match address {
        Some(address) => vec![("serving", format!("http://{address}"))],
        None => vec![("dry run", "everything was checked, and nothing was started".to_string())],
    };
    for run in runs {
        let labels = match run.labels.len() {
            0 => String::new(),
            n => format!(" of {}", counted(n, "label")),
        };
        let (name, task, folder) = (&run.name, run.task, run.folder.display());
        facts.push(("run", printable(&format!("{name}: {task}{labels}, {folder}")).into_owned()));
    }
    if let Some(address) = address {
        facts.push(("docs", format!("http://{address}/docs")));
    }
    output::print(&screen::facts(&facts))
}

fn as_json(
    address: Option<SocketAddr>,
    has_key: bool,
    arguments: &ServeArguments,
    runs: &[ServedRun],
) -> Value {
    let described = runs.iter().map(|run| {
        json!({
            "name": run.name,
            "run": run.folder.to_string_lossy(),
            "task": run.task.to_string(),
            "labels": run.labels.len(),
            "model": run.model,
            "model_number": run.model_number,
        })
    });
    let described: Vec<Value> = described.collect();
    let mut shown = match address {
        Some(address) => json!({
            "url": format!("http://{address}"),
            "host": address.ip().to_string(),
            "port": address.port(),
        }),
        None => json!({ "dry_run": true }),
    };
    shown["runs"] = described.into();
    shown["embeds"] = (!arguments.no_embed).into();
    shown["needs_key"] = has_key.into();
    shown
}
