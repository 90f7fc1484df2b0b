//! Where the hub is and who asks, as the environment says: the library reads none of it.

use std::{
    env,
    fs::{self, File},
    io::Read,
    path::PathBuf,
};

use frostbert::encoder::hub::Hub;

/// The hub where HF_ENDPOINT names no other.
const PUBLIC_HUB: &str = "https://huggingface.co";

/// Bytes of a file that are looked at for a token.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// The hub that HF_ENDPOINT names, the token of HF_TOKEN or of the token file, and the proxy that is set.
pub(super) fn hub_of_environment() -> Hub {
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

/// The token that the hub's own command-line tool has saved.
fn token_of_file() -> Option<String> {
    let path = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| {
        let home = variable("HF_HOME").map(PathBuf::from);
        let cache = || variable("XDG_CACHE_HOME").map(PathBuf::from);
        let default = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let home = home.or_else(|| Some(cache().or_else(default)?.join("huggingface")));
        Some(home?.join("token"))
    })?;
    // A token is a line: what is no file, or has no end, is none.
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
