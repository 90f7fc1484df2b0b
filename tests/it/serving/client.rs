//! A server in a workshop, and a client that speaks plain HTTP over a socket.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::Workshop;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer of a server.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl HttpAnswer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(super) fn is_json(&self) -> bool {
        self.headers.get("content-type").is_some_and(|kind| kind == "application/json")
            && serde_json::from_str::<Value>(&self.body).is_ok()
    }
}

/// A connection to a server, over which several requests are sent.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads an answer; `None` if the connection was closed instead.
    pub(super) fn receive(&mut self) -> io::Result<Option<HttpAnswer>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_string());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        let body = String::from_utf8(body).map_err(io::Error::other)?;
        Ok(Some(HttpAnswer { status, headers, body }))
    }

    pub(super) fn ask(&mut self, request: &[u8]) -> io::Result<Option<HttpAnswer>> {
        self.send(request)?;
        self.receive()
    }
}

/// Formats a request with a Host header, unless `headers` has one.
pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

/// Formats a request that posts JSON.
pub(super) fn posting(path: &str, body: &Value) -> Vec<u8> {
    request("POST", path, &[("Content-Type", "application/json")], &body.to_string())
}

/// A server that is stopped when it is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
    /// What it printed when it was ready.
    pub(super) ready: Value,
}

impl Server {
    /// Starts a server on a free port, and waits until it is ready. Its stderr goes to `serve.err`.
    pub(super) fn start(workshop: &Workshop, arguments: &[&str]) -> Server {
        let arguments = [&["serve"][..], arguments, &["--port", "0", "--json", "--threads", "2"]];
        Server::of(workshop, workshop.command(&arguments.concat()))
    }

    pub(super) fn of(workshop: &Workshop, mut command: Command) -> Server {
        let stderr = File::create(workshop.path("serve.err")).unwrap();
        command.stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        let ready: Value = loop {
            let Some(line) = lines.next() else {
                let said = std::fs::read_to_string(workshop.path("serve.err")).unwrap();
                panic!("the server has ended: {text}{said}");
            };
            text.push_str(&line.unwrap());
            if let Ok(ready) = serde_json::from_str(&text) {
                break ready;
            }
        };
        let port = ready["port"].as_u64().unwrap().try_into().unwrap();
        Server { child, port, ready }
    }

    /// Sends a request on a connection of its own.
    pub(super) fn ask(&self, request: &[u8]) -> HttpAnswer {
        let mut connection = Connection::open(self.port).unwrap();
        connection.ask(request).unwrap().expect("an answer")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> HttpAnswer {
        self.ask(&posting(path, body))
    }

    pub(super) fn get(&self, path: &str) -> HttpAnswer {
        self.ask(&request("GET", path, &[], ""))
    }

    /// Posts JSON, which must be answered.
    pub(super) fn posted(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        answer.json()
    }

    /// Returns the predictions for some inputs.
    pub(super) fn predicted(&self, run: &str, inputs: &[Value]) -> Vec<Value> {
        let answer = self.posted("/predict", &serde_json::json!({ "inputs": inputs, "run": run }));
        assert_eq!(answer["run"], run);
        answer["predictions"].as_array().unwrap().clone()
    }

    /// Sends a signal such as `TERM`.
    pub(super) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until the server has ended.
    pub(super) fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
