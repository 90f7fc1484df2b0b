//! Accepts connections until a signal stops the server, and lets those that are there finish.

use std::{io, pin::pin, process, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use super::{super::output::say, timed_stream::TimedStream};

/// The most connections at a time; others wait to be accepted.
const MOST_CONNECTIONS: usize = 512;

/// How long a client may take to send the head of a request, and how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// The most bytes of the head of a request, which is also how much of a body is read at a time.
const HEAD_BYTES: usize = 64 << 10;

/// How long connections that are there when a server stops are waited for.
#[derive(Clone, Copy, Debug)]
struct StopTimes {
    /// How long a connection that is idle may still send a request.
    idle: Duration,
    /// How long clients may take to read the last answers, once all of them are found.
    unread: Duration,
}

const STOP_TIMES: StopTimes =
    StopTimes { idle: Duration::from_millis(500), unread: Duration::from_secs(30) };

/// How long to wait where a connection cannot be accepted, as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections may fail to be accepted when the server stops, before the rest is given up.
const MOST_FAILED_ACCEPTS: usize = 20;

/// The signals that stop a server: the first lets it finish, the second does not.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets a signal end the process until the task is aborted. While the models are loaded nobody waits for an answer, and
/// without a handler the first process of a container would ignore the signal.
pub(super) fn end_on_signal(runtime: &Runtime) -> io::Result<JoinHandle<()>> {
    let _inside = runtime.enter();
    let mut signals = StopSignals::new()?;
    Ok(runtime.spawn(async move {
        signals.next().await;
        say("note: stopped before it was ready");
        process::exit(0);
    }))
}

/// The connections of a server.
struct Connections {
    service: TowerToHyperService<Router>,
    places: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// Whether idle connections are to be closed.
    closing: watch::Sender<bool>,
}

impl Connections {
    fn spawn(&mut self, stream: TcpStream, place: Option<OwnedSemaphorePermit>) {
        let (service, closing) = (self.service.clone(), self.closing.subscribe());
        self.tasks.spawn(async move {
            answer(stream, service, closing).await;
            drop(place);
        });
        while self.tasks.try_join_next().is_some() {}
    }

    /// Takes over a connection that was accepted without the runtime.
    fn adopt(&mut self, stream: std::net::TcpStream) {
        let is_ready = stream.set_nonblocking(true);
        // One that is broken by now has nobody who waits for an answer.
        if let Ok(stream) = is_ready.and_then(|()| TcpStream::from_std(stream)) {
            self.spawn(stream, None);
        }
    }

    /// Waits until all connections are closed.
    async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Waits until all connections are closed, and returns whether they are. Those that are left are given up when for
    /// [`StopTimes::unread`] no request was being answered any more.
    async fn finish_answers(&mut self, times: StopTimes, is_answering: impl Fn() -> bool) -> bool {
        let mut last_seen = Instant::now();
        while timeout(times.idle, self.finish()).await.is_err() {
            if is_answering() {
                last_seen = Instant::now();
            } else if last_seen.elapsed() >= times.unread {
                return false;
            }
        }
        true
    }
}

/// Answers connections with `router` until a signal arrives, then calls `on_stop`, and lets all requests that have
/// arrived be answered, however long that takes. `on_ready` is called once signals are awaited, and `is_answering` says
/// whether a request is being read or waits for a model. Returns whether everything was answered.
pub(super) async fn listen(
    listener: std::net::TcpListener,
    router: Router,
    on_ready: impl FnOnce() -> anyhow::Result<()>,
    on_stop: impl FnOnce(),
    is_answering: impl Fn() -> bool,
) -> anyhow::Result<bool> {
    let mut signals = StopSignals::new()?;
    let next_signal = async || signals.next().await;
    listen_until(listener, router, next_signal, STOP_TIMES, on_ready, on_stop, is_answering).await
}

/// Like [`listen`], with other signals and times.
async fn listen_until(
    listener: std::net::TcpListener,
    router: Router,
    mut next_signal: impl AsyncFnMut(),
    times: StopTimes,
    on_ready: impl FnOnce() -> anyhow::Result<()>,
    on_stop: impl FnOnce(),
    is_answering: impl Fn() -> bool,
) -> anyhow::Result<bool> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    on_ready()?;
    let mut connections = Connections {
        service: TowerToHyperService::new(router),
        places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        tasks: JoinSet::new(),
        closing: watch::channel(false).0,
    };
    loop {
        let places = Arc::clone(&connections.places);
        tokio::select! {
            () = next_signal() => break,
            accepted = accept(&listener, places) => match accepted {
                Ok((stream, place)) => connections.spawn(stream, place),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    // Connections that the system has already accepted are served too.
    let listener = listener.into_std()?;
    let mut n_failed = 0;
    while n_failed < MOST_FAILED_ACCEPTS {
        match listener.accept() {
            Ok((stream, _)) => connections.adopt(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // As when its client has gone, or too many files are open.
            Err(_) => {
                n_failed += 1;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    on_stop();
    // From now on every answer closes its connection; who is about to send a request may still do so.
    if timeout(times.idle, connections.finish()).await.is_ok() {
        return Ok(true);
    }
    connections.closing.send_replace(true);
    tokio::select! {
        () = next_signal() => {}
        is_finished = connections.finish_answers(times, is_answering) => {
            if is_finished {
                return Ok(true);
            }
        }
    }
    connections.tasks.shutdown().await;
    Ok(false)
}

/// Accepts a connection when there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: Arc<Semaphore>,
) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
    // The semaphore is never closed.
    let place = places.acquire_owned().await.ok();
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Answers the requests of a connection until it is closed.
async fn answer(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    mut closing: watch::Receiver<bool>,
) {
    // Without it, answers are only slower.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(TimedStream::new(stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // A client that breaks off is no error of ours.
        _ = connection.as_mut() => return,
        () = closed(&mut closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Waits until idle connections are to be closed.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _ = closing.wait_for(|is_closing| *is_closing).await.map(drop);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net,
        sync::{
            atomic::{AtomicBool, Ordering},
            mpsc::channel,
        },
        thread,
    };

    use axum::routing::get;
    use tokio::sync::mpsc;

    use super::*;

    /// As in a server that stops, but shorter.
    const TIMES: StopTimes =
        StopTimes { idle: Duration::from_millis(20), unread: Duration::from_millis(300) };

    /// What a stop under a request came to.
    struct Stopped {
        /// Whether everything was answered.
        is_finished: bool,
        /// How long the stop took.
        took: Duration,
        /// What the client has read.
        read: String,
    }

    /// Stops a server while it works for `work` on an answer of `n_bytes`, which the client reads unless it is lazy.
    fn stopped(work: Duration, n_bytes: usize, is_lazy: bool) -> Stopped {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (signal, mut signals) = mpsc::channel::<()>(1);
        let is_answering = Arc::new(AtomicBool::new(false));
        let answering = Arc::clone(&is_answering);
        let handler = move || {
            let (signal, answering) = (signal.clone(), Arc::clone(&answering));
            async move {
                answering.store(true, Ordering::Relaxed);
                signal.send(()).await.unwrap();
                sleep(work).await;
                answering.store(false, Ordering::Relaxed);
                "a".repeat(n_bytes)
            }
        };
        let (is_over, over) = channel::<()>();
        let client = thread::spawn(move || {
            let mut stream = net::TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut read = String::new();
            if is_lazy {
                over.recv().unwrap();
            } else {
                stream.read_to_string(&mut read).unwrap();
            }
            read
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = Instant::now();
        let is_finished = runtime.block_on(listen_until(
            listener,
            Router::new().route("/", get(handler)),
            async || {
                signals.recv().await;
            },
            TIMES,
            || Ok(()),
            || (),
            || is_answering.load(Ordering::Relaxed),
        ));
        let took = start.elapsed();
        // Only a lazy client waits for this.
        let _ = is_over.send(());
        Stopped { is_finished: is_finished.unwrap(), took, read: client.join().unwrap() }
    }

    #[test]
    fn an_answer_that_takes_longer_than_clients_may_take_is_waited_for() {
        let Stopped { is_finished, took, read } = stopped(TIMES.unread * 4, 3, false);
        assert!(is_finished && took >= TIMES.unread * 4, "{took:?}");
        assert!(read.starts_with("HTTP/1.1 200 ") && read.ends_with("\r\n\r\naaa"), "{read}");
    }

    #[test]
    fn a_client_that_does_not_read_its_answer_is_given_up() {
        let Stopped { is_finished, took, .. } = stopped(Duration::ZERO, 64 << 20, true);
        assert!(!is_finished, "the answer does not fit into the buffers of the system");
        assert!((TIMES.unread..TIMES.unread * 20).contains(&took), "{took:?}");
    }
}
