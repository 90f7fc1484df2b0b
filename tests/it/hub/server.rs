//! A small hub: HTTP/1.1 on 127.0.0.1, with the two routes that a pull uses, and with every kind of failure that a test
//! needs.
//!
//! As on the real hub, small files are served directly, and large ones (here: weights) by a redirect to a second
//! server.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::support::fixture;

/// The commit that `main` refers to.
pub(super) const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Another commit.
pub(super) const OLD_COMMIT: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

type Files = BTreeMap<String, Vec<u8>>;

/// Returns the files of the tiny BERT, and one more that belongs to a tokenizer.
pub(super) fn tiny_bert() -> Files {
    let names = ["config.json", "tokenizer.json", "model.safetensors"];
    let read = |name: &str| std::fs::read(fixture("tiny_bert").join(name)).unwrap();
    let mut files: Files = names.map(|name| (name.to_string(), read(name))).into();
    files.insert("tokenizer_config.json".into(), b"{}\n".to_vec());
    files
}

/// A request that the hub has received.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    /// Whether it was sent to the hub itself, and not to the server that it redirects to.
    pub(super) own: bool,
    pub(super) range: Option<String>,
    pub(super) authorization: Option<String>,
}

#[derive(Default)]
struct State {
    repository: String,
    /// The commit and its files, by the name of the revision.
    revisions: BTreeMap<String, (String, Files)>,
    asked: Vec<Request>,
    storage: String,
    token: Option<String>,
    status: Option<u16>,
    lost: Option<String>,
    corrupt: Option<String>,
    longer: Option<String>,
    /// A file, and the number of bytes after which the connection is closed, once.
    breaks: Option<(String, usize)>,
    no_ranges: bool,
    /// A file, and the size that is listed for it.
    announced: Option<(String, u64)>,
    /// The response that is sent instead of a list of files.
    list: Option<Value>,
}

pub(super) struct Hub {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// Creates a hub with these files as `acme/tiny` on `main`.
    pub(super) fn of(files: Files) -> Hub {
        let state = Arc::new(Mutex::new(State::default()));
        let storage = serve(Arc::clone(&state), false);
        let port = serve(Arc::clone(&state), true);
        let hub = Hub { port, state };
        hub.with(|state| {
            state.storage = format!("http://localhost:{storage}");
            state.repository = "acme/tiny".into();
        });
        hub.add("main", COMMIT, files.clone());
        hub.add(COMMIT, COMMIT, files);
        hub
    }

    /// Returns a hub that is down: its port is a reserved one, which no other test can be given.
    pub(super) fn down() -> Hub {
        Hub { port: 1, state: Arc::default() }
    }

    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub(super) fn add(&self, revision: &str, commit: &str, files: Files) {
        self.with(|state| state.revisions.insert(revision.into(), (commit.into(), files)));
    }

    pub(super) fn rename(&self, repository: &str) {
        self.with(|state| state.repository = repository.into());
    }

    pub(super) fn asked(&self) -> Vec<Request> {
        self.with(|state| state.asked.clone())
    }

    pub(super) fn forget(&self) {
        self.with(|state| state.asked.clear());
    }

    pub(super) fn require_token(&self, token: &str) {
        self.with(|state| state.token = Some(token.into()));
    }

    pub(super) fn answer_always(&self, status: u16) {
        self.with(|state| state.status = Some(status));
    }

    /// Closes the connection after this many bytes of the next response with this file.
    pub(super) fn break_off(&self, file: &str, after: usize) {
        self.with(|state| state.breaks = Some((file.into(), after)));
    }

    /// Serves large files from another port on the hub's own host.
    pub(super) fn store_beside(&self) {
        self.with(|state| state.storage = state.storage.replace("localhost", "127.0.0.1"));
    }

    /// Lists this large file with a wrong size.
    pub(super) fn announce(&self, file: &str, size: u64) {
        self.with(|state| state.announced = Some((file.into(), size)));
    }

    /// Responds to every request for a list of files with this.
    pub(super) fn list_always(&self, list: Value) {
        self.with(|state| state.list = Some(list));
    }

    pub(super) fn without_ranges(&self) {
        self.with(|state| state.no_ranges = true);
    }

    /// Serves this file with one wrong bit.
    pub(super) fn corrupt(&self, file: &str) {
        self.with(|state| state.corrupt = Some(file.into()));
    }

    pub(super) fn heal(&self) {
        self.with(|state| state.corrupt = None);
    }

    /// Serves this file with one byte more than it is listed with.
    pub(super) fn lengthen(&self, file: &str) {
        self.with(|state| state.longer = Some(file.into()));
    }

    /// Lists this file, but does not serve it.
    pub(super) fn lose(&self, file: &str) {
        self.with(|state| state.lost = Some(file.into()));
    }

    /// Returns the hash that a file is listed with, and the hash of what is served.
    pub(super) fn hashes(&self, file: &str) -> (String, String) {
        self.with(|state| {
            let listed = &state.revisions["main"].1[file];
            (sum(file, listed), sum(file, &state.content(file, listed)))
        })
    }
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.contains(".onnx")
}

fn sum(file: &str, bytes: &[u8]) -> String {
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if is_large(file) {
        return hex(&Sha256::digest(bytes));
    }
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(&Sha1::digest(blob))
}

/// Listens until the test process ends, and returns the port.
fn serve(state: Arc<Mutex<State>>, own: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let state = Arc::clone(&state);
            // Ignore a client that hangs up.
            thread::spawn(move || drop(answer(&state, own, stream.unwrap())));
        }
    });
    port
}

fn answer(state: &Mutex<State>, own: bool, mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut request = Request {
        path: first.split(' ').nth(1).unwrap_or_default().to_string(),
        own,
        range: None,
        authorization: None,
    };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.into()),
            "authorization" => request.authorization = Some(value.into()),
            _ => {}
        }
    }
    let answer = {
        let mut state = state.lock().unwrap();
        state.asked.push(request.clone());
        state.answer(&request)
    };
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body[..answer.sent.unwrap_or(answer.body.len())])
}

/// A response, of which possibly only the first bytes are sent.
struct Answer {
    status: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: Option<usize>,
}

impl Answer {
    fn new(status: &str, headers: Vec<(&'static str, String)>, body: Vec<u8>) -> Answer {
        Answer { status: status.into(), headers, body, sent: None }
    }

    fn refuse(status: &str, code: &str) -> Answer {
        Answer::new(status, vec![("X-Error-Code", code.into())], Vec::new())
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        if let Some(status) = self.status {
            return Answer::new(&format!("{status} Trouble"), Vec::new(), Vec::new());
        }
        if !request.own {
            let (commit, file) = request.path[1..].split_once('/').unwrap();
            return self.file(commit, file, request);
        }
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if bearer.is_some() && request.authorization != bearer {
            return Answer::refuse("401 Unauthorized", "RepoNotFound");
        }
        let path = &request.path[1..];
        if let Some(revision) =
            path.strip_prefix(&format!("api/models/{}/revision/", self.repository))
        {
            if let Some(list) = &self.list {
                return Answer::new("200 OK", Vec::new(), list.to_string().into_bytes());
            }
            return self.list(revision);
        }
        if path.starts_with("api/") {
            return Answer::refuse("404 Not Found", "RepoNotFound");
        }
        let place = path.strip_prefix(&format!("{}/resolve/", self.repository));
        let (commit, file) = place.unwrap().split_once('/').unwrap();
        if is_large(file) {
            let headers = vec![
                ("Location", format!("{}/{commit}/{file}", self.storage)),
                ("X-Repo-Commit", commit.into()),
            ];
            return Answer::new("302 Found", headers, Vec::new());
        }
        self.file(commit, file, request)
    }

    fn list(&self, revision: &str) -> Answer {
        let name = revision.strip_suffix("?blobs=true").unwrap().replace("%2F", "/");
        let Some((commit, files)) = self.revisions.get(&name) else {
            return Answer::refuse("404 Not Found", "RevisionNotFound");
        };
        let listed = files.iter().map(|(name, bytes)| {
            let mut file =
                json!({ "rfilename": name, "size": bytes.len(), "blobId": sum("pointer", bytes) });
            if is_large(name) {
                let announced = self.announced.as_ref().filter(|(of, _)| of == name);
                let size = announced.map_or(bytes.len() as u64, |(_, size)| *size);
                file["lfs"] =
                    json!({ "sha256": sum(name, bytes), "size": size, "pointerSize": 134 });
            }
            file
        });
        let listed = json!({ "id": self.repository, "sha": commit, "siblings": listed.collect::<Vec<Value>>() });
        Answer::new("200 OK", Vec::new(), listed.to_string().into_bytes())
    }

    fn content(&self, file: &str, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if self.corrupt.as_deref() == Some(file) {
            bytes[10] ^= 1;
        }
        if self.longer.as_deref() == Some(file) {
            bytes.push(b'\n');
        }
        bytes
    }

    fn file(&mut self, commit: &str, file: &str, request: &Request) -> Answer {
        let (_, (_, files)) = self.revisions.iter().find(|(_, (of, _))| of == commit).unwrap();
        let Some(bytes) = files.get(file).filter(|_| self.lost.as_deref() != Some(file)) else {
            return Answer::refuse("404 Not Found", "EntryNotFound");
        };
        let bytes = self.content(file, bytes);
        let start = request.range.as_deref().filter(|_| !self.no_ranges);
        let start = start.map(|range| {
            let range = range.strip_prefix("bytes=").unwrap();
            range.strip_suffix('-').unwrap().parse::<usize>().unwrap()
        });
        let mut answer = match start {
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                let headers = vec![("Content-Range", range)];
                Answer::new("206 Partial Content", headers, bytes[start..].to_vec())
            }
            None => Answer::new("200 OK", Vec::new(), bytes),
        };
        if self.breaks.as_ref().is_some_and(|(of, _)| of == file) {
            answer.sent = self.breaks.take().map(|(_, after)| after);
        }
        answer
    }
}
