//! What a hub says of a repository.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use frostbert::internals::encoder::{
    checkpoint::Checkpoint,
    hub::{Hub, pull},
    hub_model::HubModel,
};

use super::Execute;
use crate::base;

/// A pull from a hub that lists what the input says, and sends the files of the tiny BERT.
pub(super) fn listing(scratch: &Path) -> Execute {
    let listing: Arc<Mutex<Vec<u8>>> = Arc::default();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = Hub {
        endpoint: format!("http://{}", server.local_addr().unwrap()),
        token: None,
        proxy: None,
    };
    let said = Arc::clone(&listing);
    thread::spawn(move || {
        for stream in server.incoming().flatten() {
            // Who hangs up early has seen enough.
            let _ = answer(&stream, &said.lock().unwrap());
        }
    });
    let model = HubModel::parse("hf:acme/tiny").unwrap();
    let parent = scratch.to_path_buf();
    Box::new(move |bytes, _| {
        *listing.lock().unwrap() = bytes.to_vec();
        let folder = parent.join("inside/model");
        let pulled = pull(&hub, &model, &folder, true, &());
        let accepted = pulled.is_ok();
        if accepted {
            assert!(Checkpoint::open(&folder).is_ok(), "pulled, but it does not open");
        }
        let outside = fs::read_dir(&parent).unwrap().count();
        assert!(outside <= 1, "a pull wrote out of its folder");
        if outside == 1 {
            let inside = fs::read_dir(parent.join("inside")).unwrap().count();
            assert!(inside <= 1, "a pull wrote beside its folder");
            fs::remove_dir_all(parent.join("inside")).unwrap();
        }
        accepted
    })
}

fn answer(mut stream: &TcpStream, listing: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (status, body) = if path.starts_with("/api/") {
        ("200 OK", listing.to_vec())
    } else {
        let name = path.rsplit('/').next().unwrap_or_default();
        match fs::read(base::fixture("tiny_bert").join(name)) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        }
    };
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}
