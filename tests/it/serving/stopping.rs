//! The end of a server: by a signal, after all requests that have arrived, with nothing in its log that was asked.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{
    client::{Connection, Server, posting, request},
    trained,
};
use crate::support::texts;

#[test]
fn a_signal_stops_the_server_and_loses_no_request() {
    let workshop = trained();
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&workshop, &["tiny"]);
        let (port, is_over) = (server.port, AtomicBool::new(false));
        let texts = texts(8);
        let load = |client: usize| {
            let mut n_answered = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Once it has stopped listening, nothing more is asked.
                let Ok(mut connection) = Connection::open(port) else {
                    break;
                };
                loop {
                    let inputs = json!({ "inputs": texts[(client + n_answered) % texts.len()] });
                    let answer = connection.ask(&posting("/predict", &inputs));
                    let answer = answer.expect("no reset").expect("an answer to every request");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    n_answered += 1;
                    if answer.headers.get("connection").is_some_and(|value| value == "close") {
                        break;
                    }
                }
            }
            n_answered
        };
        let (n_answered, status) = thread::scope(|scope| {
            let load = &load;
            let clients: Vec<_> = (0..8).map(|client| scope.spawn(move || load(client))).collect();
            thread::sleep(Duration::from_millis(300));
            server.signal(signal);
            let status = server.wait();
            is_over.store(true, Ordering::Relaxed);
            let answered = clients.into_iter().map(|client| client.join().unwrap());
            (answered.sum::<usize>(), status)
        });
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(n_answered > 20, "only {n_answered} requests were answered");
        let said = fs::read_to_string(workshop.path("serve.err")).unwrap();
        assert!(said.contains("note: stopped: "), "{said}");
    }
}

#[test]
fn texts_are_neither_logged_nor_shown() {
    let workshop = trained();
    let mut server = Server::start(&workshop, &["tiny", "-v", "--log", "serve.log"]);
    server.predicted("tiny", &[json!("snow frost")]);
    for wrong in [json!({ "inputs": ["snow frost", ""] }), json!({ "snow frost": 1 })] {
        assert!(server.post("/predict", &wrong).status >= 400);
    }
    server.ask(&request("GET", "/snow%20frost?q=snow+frost", &[], ""));
    let metrics = server.get("/metrics").body;
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let log = fs::read_to_string(workshop.path("serve.log")).unwrap();
    assert!(log.contains("stopped: 5 requests answered"), "{log}");
    let shown = fs::read_to_string(workshop.path("serve.err")).unwrap();
    for text in [metrics, log, shown] {
        assert!(!text.contains("snow"), "{text}");
    }
}
