//! Sends requests to the hub and explains its refusals.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::Path,
    time::Duration,
};

use frostbert_cache::{
    durable::{remove_file, through_no_link},
    progress::Progress,
};
use ureq::{
    Agent, Body, Proxy,
    http::{HeaderMap, Response, StatusCode, Uri, uri::InvalidUri},
};

use crate::{
    encoder::{
        hub::{
            Hub, is_whole,
            listing::{Listing, RemoteFile},
            redirect::{WebOrigin, resolve},
        },
        hub_model::HubModel,
    },
    error::{Error, Result},
};

/// A server that sends nothing for this long is considered down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest file listing that is read, in bytes: about 200,000 files.
const MOST_LISTED: u64 = 64 << 20;

/// The maximum number of redirects followed in a row.
const MOST_REDIRECTS: usize = 10;

/// A connection to the hub for one model.
pub(super) struct Client<'a> {
    agent: Agent,
    hub: &'a Hub,
    model: &'a HubModel,
}

impl<'a> Client<'a> {
    pub(super) fn new(hub: &'a Hub, model: &'a HubModel) -> Result<Client<'a>> {
        let proxy = hub.proxy.as_deref().map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| {
            let expected = "a proxy as http://host:port".into();
            model.refuse(expected, error.to_string(), "correct HTTPS_PROXY, or unset it")
        })?;
        // Set the proxy even if there is none: by default, ureq would read it from the environment.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, because the token must not be sent along with all of them.
            .max_redirects(0)
            .user_agent(concat!("frostbert/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .build();
        Ok(Client { agent: config.into(), hub, model })
    }

    /// Requests the commit of the revision and its files, with sizes and hashes.
    pub(super) fn list(&self) -> Result<Listing> {
        let revision = self.model.revision.as_deref().unwrap_or("main");
        let path = format!(
            "api/models/{}/revision/{}?blobs=true",
            self.model.repository,
            encode(revision)
        );
        let what = match &self.model.revision {
            None => "a list of the repository's files".to_string(),
            Some(revision) => format!("a list of the repository's files at `{revision}`"),
        };
        let mut response = self.get(&path, 0)?;
        if response.status() != 200 {
            return Err(self.refused(&what, &response));
        }
        let body = response.body_mut().with_config().limit(MOST_LISTED);
        let json = body.read_to_vec();
        let json = json.map_err(|error| self.unreachable(&error))?;
        Listing::parse(self.model, &json)
    }

    /// Fetches a file into the folder, under its own name or as a `.part`, and checks it; returns the number of bytes
    /// received.
    pub(super) fn fetch(
        &self,
        commit: &str,
        file: &RemoteFile,
        folder: &Path,
        progress: &dyn Progress,
    ) -> Result<u64> {
        let path = folder.join(file.part_name());
        if is_whole(&folder.join(&file.name), file)? {
            remove_file(&path)?;
            return Ok(0);
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut part =
            through_no_link(&mut options).open(&path).map_err(Error::io("open", &path))?;
        let mut start = part.metadata().map_err(Error::io("read", &path))?.len();
        if start > file.size {
            part.set_len(0).map_err(Error::io("write", &path))?;
            start = 0;
        }
        let mut fetched = 0;
        if start < file.size {
            fetched = self.fetch_rest(commit, file, &mut part, &path, start, progress)?;
        }
        part.sync_all().map_err(Error::io("write", &path))?;
        self.check(file, &path)?;
        Ok(fetched)
    }

    fn fetch_rest(
        &self,
        commit: &str,
        file: &RemoteFile,
        part: &mut File,
        path: &Path,
        mut start: u64,
        progress: &dyn Progress,
    ) -> Result<u64> {
        let names: Vec<String> = file.path.split('/').map(encode).collect();
        let url = format!("{}/resolve/{commit}/{}", self.model.repository, names.join("/"));
        let mut response = self.get(&url, start)?;
        let goes_on = response.status() == 206 && first_byte(response.headers()) == Some(start);
        if start > 0 && !goes_on {
            // A server without range support sends everything; one that answers with another range is asked again.
            part.set_len(0).map_err(Error::io("write", path))?;
            start = 0;
            if response.status() != 200 {
                response = self.get(&url, 0)?;
            }
        }
        if response.status() != 200 && !goes_on {
            return Err(self.refused(&format!("`{}`", file.path), &response));
        }
        let wanted = file.size - start;
        // Read one byte more, which shows whether the file is longer than announced.
        let mut body = response.into_body().into_reader().take(wanted + 1);
        let mut buffer = vec![0; 1 << 16];
        let mut fetched = 0;
        let ended = loop {
            match body.read(&mut buffer) {
                Ok(0) => break "the connection was closed".to_string(),
                Ok(n_bytes) => {
                    part.write_all(&buffer[..n_bytes]).map_err(Error::io("write", path))?;
                    fetched += n_bytes as u64;
                    progress.advance(n_bytes as u64, 0);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break error.to_string(),
            }
        };
        if fetched < wanted {
            return Err(self.model.refuse(
                format!("{} bytes of `{}`", file.size, file.path),
                format!("{} before the transfer ended: {ended}", start + fetched),
                "run the same command again: it resumes from there",
            ));
        }
        Ok(fetched)
    }

    /// Compares a complete part with the announced size and hash, and removes it if they differ.
    fn check(&self, file: &RemoteFile, path: &Path) -> Result<()> {
        let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
        let (expected, got) = if size != file.size {
            (format!("{} bytes", file.size), "more".to_string())
        } else {
            let digits = file.sum.of_file(path)?;
            if digits == file.sum.digits() {
                return Ok(());
            }
            (format!("{} {}", file.sum.kind(), file.sum.digits()), digits)
        };
        fs::remove_file(path).map_err(Error::io("remove", path))?;
        Err(self.model.refuse(
            format!("`{}` with {expected}", file.path),
            got,
            "the damaged file was removed: run the same command again; if it happens twice, something between this \
             machine and the hub changes files",
        ))
    }

    fn get(&self, path: &str, start: u64) -> Result<Response<Body>> {
        let endpoint = self.hub.endpoint.trim_end_matches('/');
        let mut uri: Uri = format!("{endpoint}/{path}").parse().map_err(|error: InvalidUri| {
            self.unreachable(&ureq::http::Error::from(error).into())
        })?;
        let hub = WebOrigin::of(&uri);
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(uri.clone());
            let token = self.hub.token.as_ref();
            if let Some(token) = token.filter(|_| hub.is_some() && WebOrigin::of(&uri) == hub) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|error| self.unreachable(&error))?;
            if !leads_on(response.status()) {
                return Ok(response);
            }
            let location = response.headers().get("location");
            let location = location.and_then(|location| location.to_str().ok());
            uri = location
                .and_then(|location| resolve(&uri, location))
                .ok_or_else(|| self.astray("a redirect without a valid address".into()))?;
        }
        let got = format!("more than {MOST_REDIRECTS} redirects in a row");
        Err(self.astray(got))
    }

    fn astray(&self, got: String) -> Error {
        self.model.refuse(
            format!("an answer from {}", self.hub.endpoint),
            got,
            "check HF_ENDPOINT and HTTPS_PROXY if they are set; otherwise the hub has a problem: run the same command \
             again later",
        )
    }

    fn unreachable(&self, error: &ureq::Error) -> Error {
        let reason = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        self.model.refuse(
            format!("an answer from {}", self.hub.endpoint),
            reason,
            "check the network, and HF_ENDPOINT and HTTPS_PROXY if they are set; without a network, copy a checkpoint \
             folder from elsewhere and set model.path to it",
        )
    }

    fn refused(&self, what: &str, response: &Response<Body>) -> Error {
        let status = response.status();
        let said = ["x-error-message", "x-error-code"]
            .iter()
            .find_map(|name| response.headers().get(*name)?.to_str().ok());
        let got = match said {
            Some(said) => format!("{status} ({said})"),
            None => status.to_string(),
        };
        let hint = match status.as_u16() {
            401 | 403 if self.hub.token.is_some() => {
                "the token from HF_TOKEN or the token file has no access to it: accept the model's conditions on its \
                 page on the hub, or set HF_TOKEN to a token that has access"
            }
            401 | 403 => {
                "the repository is private or gated, or there is none with this name: check the name, and set \
                 HF_TOKEN to an access token that may read it"
            }
            404 if what.starts_with('`') => {
                "the repository is incomplete: pin another revision with hf:owner/name@REVISION, or try again later"
            }
            404 => "check the spelling of owner, name and revision (a branch, a tag or a commit)",
            429 => "the hub asks to slow down: wait a few minutes and run the same command again",
            _ => {
                "the hub has a problem: run the same command again later; what was fetched is kept"
            }
        };
        self.model.refuse(what.into(), got, hint)
    }
}

/// Returns whether a status is a redirect.
fn leads_on(status: StatusCode) -> bool {
    [301, 302, 303, 307, 308].contains(&status.as_u16())
}

/// Returns the number after `bytes ` in Content-Range.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Percent-encodes everything but unreserved characters (RFC 3986), including slashes.
fn encode(segment: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    segment.bytes().map(byte).collect()
}
