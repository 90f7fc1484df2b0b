//! `frostbert model pull`: fetches a model. The address of the hub, the token and the proxy are read from the
//! environment here, because the library does not read it.

use std::{
    env,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::wording::counted,
    internals::encoder::{
        hub::{Hub, pull},
        hub_model::HubModel,
    },
};
use serde_json::json;

use super::{Context, output};

/// The default hub, unless HF_ENDPOINT is set.
const PUBLIC_HUB: &str = "https://huggingface.co";

/// The maximum number of bytes read from a token file.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct PullArguments {
    /// hf:owner/name, or hf:owner/name@revision (a branch, a tag or a commit)
    #[arg(value_name = "MODEL", value_parser = hub_model)]
    model: HubModel,
    /// The folder to put it in [default: models/<name>]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

fn hub_model(text: &str) -> Result<HubModel, String> {
    let expected =
        "expected hf:owner/name or hf:owner/name@revision, as in hf:google-bert/bert-base-uncased";
    HubModel::parse(text).ok_or_else(|| expected.into())
}

pub(super) fn pull_model(arguments: &PullArguments, context: &Context) -> Result<ExitCode> {
    let PullArguments { model, to } = arguments;
    let folder = to.clone().unwrap_or_else(|| Path::new("models").join(model.name()));
    let go_on = context.machine.go_on;
    let hub = hub_of_environment();
    let pulled = pull(&hub, model, &folder, go_on, &context.progress)?;
    if context.json {
        output::print_json(&json!({
            "path": folder.to_string_lossy(),
            "repository": model.repository,
            "revision": pulled.commit,
            "files": pulled.files,
            "bytes_fetched": pulled.bytes_fetched,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let what = match pulled.bytes_fetched {
        0 => "nothing fetched: every file was there, and every hash matches".into(),
        fetched => format!("{} fetched, every hash matches", output::bytes(fetched)),
    };
    output::print(&format!(
        "{}: {} at {}, {}, {what}\n",
        folder.display(),
        model.repository,
        pulled.commit,
        counted(pulled.files, "file"),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the hub of HF_ENDPOINT, with the token of HF_TOKEN or of the token file, and the proxy that is set.
fn hub_of_environment() -> Hub {
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_HUB.into());
    let proxies: &[&str] = if endpoint.starts_with("https:") {
        &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    };
    Hub {
        endpoint,
        token: variable("HF_TOKEN").or_else(token_of_file),
        proxy: proxies.iter().find_map(|name| variable(name)),
    }
}

/// Returns the token that the hub's own command-line tool has saved.
fn token_of_file() -> Option<String> {
    let path = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| {
        let home = variable("HF_HOME").map(PathBuf::from);
        let cache = || variable("XDG_CACHE_HOME").map(PathBuf::from);
        let default = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let home = home.or_else(|| Some(cache().or_else(default)?.join("huggingface")));
        Some(home?.join("token"))
    })?;
    // A token is one line: ignore anything that is not a regular file, and read only its beginning.
    if !fs::metadata(&path).ok()?.is_file() {
        return None;
    }
    let mut token = String::new();
    let file = File::open(path).ok()?;
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut token).ok()?;
    trimmed(token)
}

fn variable(name: &str) -> Option<String> {
    trimmed(env::var(name).ok()?)
}

fn trimmed(text: String) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}
