//! A small object store: HTTP/1.1 on 127.0.0.1, with the requests of S3 that the program makes, and with the failures
//! of stores and networks that a test needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use sha2::{Digest, Sha256};

/// The number of objects in an answer to a request for a list: few, so that there are several answers.
const LISTED: usize = 7;

/// The access key that requests must be signed with.
pub(super) const ACCESS_KEY: &str = "tester";

/// A failure of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another request for the same name is said to be under way; nothing is stored.
    Conflict,
    /// The connection is closed, and nothing is stored.
    LostRequest,
    /// The object is stored, and the connection is closed without an answer.
    LostAnswer,
    /// The store is too busy.
    SlowDown,
    /// The connection is closed after half of the object.
    HalfBody,
}

/// How a store treats `If-None-Match: *`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Conditions {
    #[default]
    Kept,
    Ignored,
    Unknown,
}

/// Failures of requests of a method for the names that begin like this: of the first requests for each name, in order.
struct Faults {
    method: &'static str,
    prefix: String,
    faults: Vec<Fault>,
    met: BTreeMap<String, usize>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    conditions: Conditions,
    faults: Vec<Faults>,
    /// The number of requests that met a fault.
    n_faults: usize,
}

/// A store with the bucket `bucket`.
pub(super) struct Store {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Store {
    pub(super) fn new(conditions: Conditions) -> Store {
        let state = Arc::new(Mutex::new(State { conditions, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Store { port, state: Arc::clone(&state) };
        // It listens until the test process ends.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                // Ignore a client that hangs up.
                thread::spawn(move || drop(answer(&state, stream.unwrap())));
            }
        });
        store
    }

    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Fails the first requests for each object whose name begins like this.
    pub(super) fn fail(&self, method: &'static str, prefix: &str, faults: &[Fault]) {
        let (prefix, faults) = (prefix.into(), faults.to_vec());
        let faults = Faults { method, prefix, faults, met: BTreeMap::new() };
        self.with(|state| state.faults.push(faults));
    }

    pub(super) fn n_faults(&self) -> usize {
        self.with(|state| state.n_faults)
    }

    /// The names of the objects that begin like this.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let begins = |name: &&String| name.starts_with(prefix);
        self.with(|state| state.objects.keys().filter(begins).cloned().collect())
    }

    pub(super) fn object(&self, name: &str) -> Vec<u8> {
        self.with(|state| state.objects[name].clone())
    }

    pub(super) fn put(&self, name: &str, content: &[u8]) {
        self.with(|state| state.objects.insert(name.into(), content.into()));
    }
}

struct Request {
    method: String,
    bucket: String,
    /// The name of the object, or empty for the bucket itself.
    name: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> std::io::Result<Request> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = query.map(|(name, value)| (name.into(), decoded(value))).collect();
        let path = path.trim_start_matches('/');
        let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
        let (method, bucket, name) = (method.into(), bucket.into(), decoded(name));
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Request { method, bucket, name, query, headers, body })
    }

    /// Whether it is signed with the right key, and its signature is of this body.
    fn is_signed(&self) -> bool {
        let of = |name: &str| self.headers.get(name).map(String::as_str).unwrap_or_default();
        let key = format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/");
        let sum = Sha256::digest(&self.body);
        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        of("authorization").starts_with(&key) && of("x-amz-content-sha256") == sum
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap().to_string();
            decoded.push(u8::from_str_radix(&digits, 16).unwrap());
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).unwrap()
}

/// A response, of which possibly only the first bytes are sent.
struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Answer {
    fn new(status: &'static str, headers: Vec<(&'static str, String)>, body: Vec<u8>) -> Answer {
        Answer { status, headers, sent: body.len(), body }
    }

    fn refuse(status: &'static str, code: &str) -> Answer {
        Answer::new(status, Vec::new(), format!("<Error><Code>{code}</Code></Error>").into())
    }
}

fn answer(state: &Mutex<State>, mut stream: TcpStream) -> std::io::Result<()> {
    let request = Request::read(&stream)?;
    let Some(answer) = state.lock().unwrap().answer(&request) else {
        return Ok(());
    };
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    stream.write_all(head.as_bytes())?;
    let sent = if request.method == "HEAD" { 0 } else { answer.sent };
    stream.write_all(&answer.body[..sent])
}

impl State {
    /// The next failure of the requests that this one belongs to.
    fn fault(&mut self, request: &Request) -> Option<Fault> {
        let is_of = |faults: &&mut Faults| {
            faults.method == request.method && request.name.starts_with(&faults.prefix)
        };
        let faults = self.faults.iter_mut().find(is_of)?;
        let met = faults.met.entry(request.name.clone()).or_default();
        let fault = faults.faults.get(*met).copied()?;
        *met += 1;
        self.n_faults += 1;
        Some(fault)
    }

    /// The response; `None` if there is none.
    fn answer(&mut self, request: &Request) -> Option<Answer> {
        if !request.is_signed() {
            return Some(Answer::refuse("403 Forbidden", "SignatureDoesNotMatch"));
        }
        if request.bucket != "bucket" {
            return Some(Answer::refuse("404 Not Found", "NoSuchBucket"));
        }
        let fault = self.fault(request);
        match fault {
            Some(Fault::LostRequest) => return None,
            Some(Fault::Conflict) => {
                return Some(Answer::refuse("409 Conflict", "ConditionalRequestConflict"));
            }
            Some(Fault::SlowDown) => {
                return Some(Answer::refuse("503 Slow Down", "SlowDown"));
            }
            Some(Fault::LostAnswer | Fault::HalfBody) | None => {}
        }
        let mut answer = match (request.method.as_str(), request.name.as_str()) {
            ("GET", "") => self.list(&request.query),
            ("GET" | "HEAD", name) => self.get(name, request.headers.get("range")),
            ("PUT", name) => self.put(name, request),
            ("DELETE", name) => {
                self.objects.remove(name);
                Answer::new("204 No Content", Vec::new(), Vec::new())
            }
            _ => Answer::refuse("405 Method Not Allowed", "MethodNotAllowed"),
        };
        match fault {
            Some(Fault::LostAnswer) => return None,
            Some(Fault::HalfBody) => answer.sent /= 2,
            _ => {}
        }
        Some(answer)
    }

    fn put(&mut self, name: &str, request: &Request) -> Answer {
        if request.headers.get("if-none-match").is_some_and(|value| value == "*") {
            match self.conditions {
                Conditions::Unknown => {
                    return Answer::refuse("501 Not Implemented", "NotImplemented");
                }
                Conditions::Kept if self.objects.contains_key(name) => {
                    return Answer::refuse("412 Precondition Failed", "PreconditionFailed");
                }
                _ => {}
            }
        }
        self.objects.insert(name.into(), request.body.clone());
        Answer::new("200 OK", vec![("ETag", etag(&request.body))], Vec::new())
    }

    fn get(&self, name: &str, range: Option<&String>) -> Answer {
        let Some(bytes) = self.objects.get(name) else {
            return Answer::refuse("404 Not Found", "NoSuchKey");
        };
        let mut headers =
            vec![("ETag", etag(bytes)), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT".into())];
        let Some(range) = range else {
            return Answer::new("200 OK", headers, bytes.clone());
        };
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        headers.push(("Content-Range", format!("bytes {first}-{last}/{}", bytes.len())));
        Answer::new("206 Partial Content", headers, bytes[first..=last].to_vec())
    }

    /// Lists objects, and with a delimiter the folders among them, a few at a time.
    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let (prefix, after) = (of("prefix"), of("continuation-token"));
        let names = self.objects.keys().filter(|name| name.starts_with(prefix));
        let mut entries: BTreeSet<(&str, bool)> = BTreeSet::new();
        for name in names {
            let rest = &name[prefix.len()..];
            let end = rest.find('/').filter(|_| of("delimiter") == "/");
            match end {
                Some(end) => entries.insert((&name[..prefix.len() + end + 1], true)),
                None => entries.insert((name, false)),
            };
        }
        let left: Vec<_> = entries.into_iter().filter(|(name, _)| *name > after).collect();
        let shown = &left[..left.len().min(LISTED)];
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
        if let Some((last, _)) = shown.last().filter(|_| left.len() > LISTED) {
            xml.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
        }
        for (name, is_folder) in shown {
            if *is_folder {
                xml.push_str(&format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"));
            } else {
                let (size, etag) = (self.objects[*name].len(), etag(&self.objects[*name]));
                xml.push_str(&format!(
                    "<Contents><Key>{name}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
                     <ETag>{etag}</ETag><Size>{size}</Size></Contents>"
                ));
            }
        }
        xml.push_str("</ListBucketResult>");
        Answer::new("200 OK", vec![("Content-Type", "application/xml".into())], xml.into())
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32])
}
