//! Carries the requests of `object_store` by ureq, which the program has for the hub anyway.

use std::{
    io::{self, Read},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use object_store::{
    ClientOptions,
    client::{
        ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
        HttpResponse, HttpResponseBody, HttpService,
    },
};
use ureq::{
    Agent, BodyReader, Proxy, Timeout,
    http::{Request, StatusCode},
};

/// A server that does not answer for this long is considered down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const IO_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of bytes that are read at a time.
const PIECE: usize = 1 << 17;

/// The most bytes of an error's body that are read.
const MOST_OF_AN_ERROR: u64 = 1 << 16;

/// What is said of a request that the server does not know; there is no use in asking again.
pub(super) const UNSUPPORTED: &str = "the store does not support this request";

/// Makes clients.
#[derive(Debug)]
pub(super) struct Transport;

impl HttpConnector for Transport {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let option = |key| options.get_config_value(&key);
        let proxy = option(ClientConfigKey::ProxyUrl).map(|proxy| Proxy::new(&proxy)).transpose();
        let proxy = proxy.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        let allow_http = option(ClientConfigKey::AllowHttp).is_some_and(|value| is_true(&value));
        // Where the role of a machine is asked for, it is a second, because most machines are in no such cloud.
        let seconds = option(ClientConfigKey::ConnectTimeout);
        let seconds = seconds.and_then(|value| value.strip_suffix('s')?.parse().ok());
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!allow_http)
            // The signature is for one address, so redirects are left to the caller, who refuses them.
            .max_redirects(0)
            .user_agent(concat!("frostbert/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy)
            .timeout_connect(Some(seconds.map_or(CONNECT_TIMEOUT, Duration::from_secs)))
            .timeout_recv_response(Some(IO_TIMEOUT))
            .timeout_per_read(Some(IO_TIMEOUT))
            .timeout_per_write(Some(IO_TIMEOUT))
            .build();
        Ok(HttpClient::new(BlockingClient { agent: config.into() }))
    }
}

/// Reads a switch as `object_store` does.
pub(super) fn is_true(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str())
}

/// A client that blocks its thread until the head of the answer is there.
#[derive(Debug)]
struct BlockingClient {
    agent: Agent,
}

#[async_trait]
impl HttpService for BlockingClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let has_body = ["PUT", "POST"].contains(&parts.method.as_str());
        let sent = if has_body {
            self.agent.run(Request::from_parts(parts, &body[..]))
        } else {
            self.agent.run(Request::from_parts(parts, ()))
        };
        let (parts, body) = sent.map_err(failed)?.into_parts();
        if parts.status == StatusCode::NOT_IMPLEMENTED {
            return Err(HttpError::new(HttpErrorKind::Unknown, io::Error::other(UNSUPPORTED)));
        }
        let mut reader = body.into_reader();
        let retried = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        if parts.status.is_client_error() && !retried.contains(&parts.status) {
            // An answer that breaks off is none: `object_store` would not ask again once it has the status. After these
            // two, and after errors of the server, it does so by the status alone, whatever the method.
            let mut text = Vec::new();
            let read = reader.by_ref().take(MOST_OF_AN_ERROR).read_to_end(&mut text);
            read.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            return Ok(HttpResponse::from_parts(parts, Bytes::from(text).into()));
        }
        let reader = Mutex::new(reader);
        let body = HttpResponseBody::new(AnswerBody { reader, has_ended: false });
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// The body of an answer, which blocks while it is read.
struct AnswerBody {
    reader: Mutex<BodyReader<'static>>,
    has_ended: bool,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; PIECE];
        let reader = self.reader.get_mut().unwrap_or_else(PoisonError::into_inner);
        let frame = match reader.read(&mut piece) {
            Ok(0) => None,
            Ok(n_read) => {
                piece.truncate(n_read);
                Some(Ok(Frame::data(Bytes::from(piece))))
            }
            Err(error) => Some(Err(HttpError::new(HttpErrorKind::Interrupted, error))),
        };
        self.has_ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }
}

/// Tells the kinds of failures apart by which it is decided whether a request is sent again.
fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => HttpErrorKind::Connect,
            _ => HttpErrorKind::Interrupted,
        },
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
