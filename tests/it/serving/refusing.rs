//! Requests that are not answered: each gets a status, JSON in the form of the interface, and harms no other.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    client::{Connection, Server, posting, request},
    trained,
};
use crate::{
    cases::PIPELINE,
    support::{Workshop, texts},
};

/// A method, a path, headers, a body, and the status that answers them.
type RefusedRequest<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);

#[test]
fn what_cannot_be_answered_is_refused_as_json_and_harms_nobody() {
    let workshop = trained();
    let arguments = ["tiny", "--max-inputs", "4", "--max-body", "2kB"];
    let server = Server::start(&workshop, &arguments);
    let large = format!("{{\"inputs\": \"{}\"}}", "snow ".repeat(600));
    let deep = format!("{{\"inputs\": {}", "[".repeat(300));
    let json_type = ("Content-Type", "application/json");
    let cases: [RefusedRequest<'_>; 24] = [
        ("POST", "/predict", &[json_type], "", 400),
        ("POST", "/predict", &[json_type], "{\"inputs\": [\"a\"", 400),
        ("POST", "/predict", &[json_type], "\u{0}\u{1}", 400),
        ("POST", "/predict", &[json_type], &deep, 400),
        ("POST", "/predict", &[json_type], "[]", 422),
        ("POST", "/predict", &[json_type], "{}", 422),
        ("POST", "/predict", &[json_type], "{\"inputs\": []}", 400),
        ("POST", "/predict", &[json_type], "{\"inputs\": \" \"}", 400),
        ("POST", "/predict", &[json_type], "{\"inputs\": [7]}", 422),
        ("POST", "/predict", &[json_type], "{\"inputs\": \"a\", \"texts\": \"b\"}", 422),
        (
            "POST",
            "/predict",
            &[json_type],
            "{\"inputs\": [{\"text\": \"a\", \"text_pair\": \"b\"}]}",
            422,
        ),
        ("POST", "/predict", &[json_type], "{\"inputs\": [{\"words\": [\"a\"]}]}", 422),
        (
            "POST",
            "/predict",
            &[json_type],
            "{\"inputs\": [\"1\", \"2\", \"3\", \"4\", \"5\"]}",
            413,
        ),
        ("POST", "/predict", &[json_type], &large, 413),
        ("POST", "/predict", &[("Content-Type", "text/plain")], "{\"inputs\": \"a\"}", 415),
        ("POST", "/predict", &[], "{\"inputs\": \"a\"}", 415),
        ("POST", "/predict", &[json_type, ("Content-Encoding", "gzip")], "{}", 415),
        ("POST", "/embed", &[json_type], "{\"inputs\": {}}", 422),
        ("POST", "/v1/embeddings", &[json_type], "{\"inputs\": \"a\"}", 422),
        ("GET", "/predict", &[], "", 405),
        ("OPTIONS", "/predict", &[("Origin", "http://evil.example")], "", 405),
        ("DELETE", "/v1/embeddings", &[], "", 405),
        ("GET", "/", &[], "", 404),
        ("GET", "/../etc/passwd", &[], "", 404),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = server.ask(&request(method, path, headers, body));
        let shown: String = body.chars().take(60).collect();
        assert_eq!(answer.status, status, "{method} {path} {shown}: {answer:?}");
        assert!(answer.is_json(), "{method} {path} {shown}: {answer:?}");
        assert!(!answer.headers.keys().any(|name| name.starts_with("access-control")));
    }
    // What is no HTTP gets an error or no answer.
    for garbage in ["hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}"] {
        let mut connection = Connection::open(server.port).unwrap();
        connection.send(garbage.as_bytes()).unwrap();
        connection.send(b"\r\n\r\n").unwrap();
        if let Ok(Some(answer)) = connection.receive() {
            assert!((400..506).contains(&answer.status), "{garbage:?}: {answer:?}");
        }
    }
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    let good = server.predicted("tiny", &[json!("the cold snow")]);
    assert_eq!(good[0]["text"], "the cold snow");
}

#[test]
fn a_host_that_is_not_the_server_s_and_a_wrong_key_are_refused() {
    let workshop = trained();
    let mut command = workshop.command(&[
        "serve",
        "tiny",
        "--port",
        "0",
        "--json",
        "--allow-host",
        "tagger.internal",
    ]);
    command.env("FROSTBERT_API_KEY", "s3cret");
    let server = Server::of(&workshop, command);
    assert_eq!(server.ready["needs_key"], true);
    let body = json!({ "inputs": "the cold snow" }).to_string();
    let status = |host: &str, key: &str| {
        let headers =
            [("Host", host), ("Authorization", key), ("Content-Type", "application/json")];
        let answer = server.ask(&request("POST", "/predict", &headers, &body));
        assert!(answer.is_json(), "{answer:?}");
        answer.status
    };
    assert_eq!(status("127.0.0.1:8080", "Bearer s3cret"), 200);
    assert_eq!(status("tagger.internal", "Bearer s3cret"), 200);
    assert_eq!(status("evil.example", "Bearer s3cret"), 421);
    assert_eq!(status("localhost", "Bearer secret"), 401);
    assert_eq!(status("localhost", "Basic s3cret"), 401);
    for path in ["/metrics", "/docs", "/openapi.json", "/nowhere"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    assert_eq!(server.get("/health").status, 200, "a supervisor has no key");
    let misdirected = server.ask(&request("GET", "/health", &[("Host", "evil.example")], ""));
    assert_eq!(misdirected.status, 421);

    workshop.write("empty.key", "\n");
    for (arguments, problem) in [
        (&["--host", "0.0.0.0"][..], "can be reached from other machines, and there is no key"),
        (&["--api-key-file", "empty.key"], "empty.key holds no key"),
        (&["--max-inputs", "2000"], "is more than --max-queue"),
        (&["tiny/001"], "is named twice"),
    ] {
        let ran = workshop.run(&[&["serve", "tiny", "--port", "0"], arguments].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(problem), "{}", ran.stderr);
    }
    let taken = server.port.to_string();
    let ran = workshop.run(&["serve", "tiny", "--port", &taken]);
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
}

#[test]
fn what_does_not_fit_into_the_queue_is_to_be_asked_again() {
    let workshop = trained();
    let limits = ["--max-batch", "1", "--max-inputs", "800", "--max-queue", "800"];
    let server = Server::start(&workshop, &[&["tiny"][..], &limits].concat());
    let many = posting("/predict", &json!({ "inputs": texts(800) }));
    let mut connections: Vec<Connection> =
        (0..2).map(|_| Connection::open(server.port).unwrap()).collect();
    for connection in &mut connections {
        connection.send(&many).unwrap();
    }
    let answers = connections.iter_mut().map(|connection| connection.receive().unwrap().unwrap());
    let mut answers: Vec<_> = answers.collect();
    answers.sort_by_key(|answer| answer.status);
    assert_eq!([answers[0].status, answers[1].status], [200, 429]);
    assert_eq!(answers[0].json()["predictions"].as_array().unwrap().len(), 800);
    assert_eq!(answers[1].headers["retry-after"], "1");
    assert_eq!(answers[1].json()["error"]["kind"], "busy");
    assert_eq!(server.ask(&many).status, 200, "there is room again");
}

#[test]
fn a_text_of_too_many_windows_is_refused_and_others_are_answered() {
    let workshop = Workshop::tiny();
    let windows = ["cache.max_length=16", "cache.overflow=windows", "cache.stride=4"];
    let settings = windows.iter().flat_map(|setting| ["--set", setting]);
    workshop.succeed(&["run", PIPELINE].into_iter().chain(settings).collect::<Vec<_>>());
    let server = Server::start(&workshop, &["tiny", "--max-windows", "3"]);
    // The first window has 14 tokens of the text, and each of the others 10 more.
    let cold = |n: usize| "cold ".repeat(n);
    for path in ["/predict", "/embed"] {
        let status = |inputs: &[String]| server.post(path, &json!({ "inputs": inputs })).status;
        assert_eq!(status(&[cold(34), cold(1)]), 200, "{path}");
        assert_eq!(status(&[cold(1), cold(35)]), 413, "{path}");
        assert_eq!(status(&[cold(9000)]), 413, "{path}");
    }
    let error = server.post("/predict", &json!({ "inputs": [cold(1), cold(35)] })).json();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("inputs[1]: `cold cold"), "{message}");
    assert!(message.ends_with("takes more than 3 windows"), "{message}");
    assert!(error["error"]["hint"].as_str().unwrap().contains("--max-windows"), "{error}");
}

#[test]
fn the_bodies_of_all_requests_have_room_for_64_mib_together() {
    let workshop = trained();
    let server = Server::start(&workshop, &["tiny", "--max-body", "60MB"]);
    let large = "x".repeat(50_000_000);
    let large = request("POST", "/predict", &[("Content-Type", "application/json")], &large);
    // The end of the first does not come.
    let mut first = Connection::open(server.port).unwrap();
    first.send(&large[..large.len() - 1]).unwrap();
    let refused = server.ask(&large);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.json()["error"]["kind"], "busy");
    assert_eq!(server.predicted("tiny", &[json!("the cold snow")]).len(), 1, "a small one fits");
    drop(first);
    // Once the server has noticed that its client has gone, there is room again.
    let start = Instant::now();
    while server.ask(&large).status == 429 {
        assert!(start.elapsed() < Duration::from_secs(30), "the room is never given back");
    }
    assert_eq!(server.ask(&large).status, 400, "read, but no JSON");
}
