//! Reads the JSON of a request, within limits of size and time.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, error::Category};

use super::http_error::{EMPTY, HttpError};

/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How many times the size that is allowed is read and thrown away, so that a client that sends too much gets to read
/// why it is refused.
const DISCARDED_SIZES: usize = 8;

/// How many bytes the bodies of all requests may take together, unless a single one may be larger.
const ALL_BODIES_BYTES: usize = 64 << 20;

/// The most that requests may contain.
#[derive(Debug)]
pub(super) struct RequestLimits {
    /// Number of bytes of a body.
    bytes: usize,
    /// Number of texts of a request.
    inputs: usize,
    /// Number of bytes for which there is room beside the bodies of requests that are read or answered.
    room: AtomicUsize,
}

/// The room that the body of a request takes until its request is answered, which is when the answer is ready to be
/// sent. The answer itself takes none of it.
#[derive(Debug)]
pub(super) struct BodyRoom<'l> {
    free: &'l AtomicUsize,
    taken: usize,
}

impl BodyRoom<'_> {
    /// Takes room for further bytes, if there is any.
    fn take(&mut self, n_bytes: usize) -> bool {
        let (order, less) = (Ordering::Relaxed, |free: usize| free.checked_sub(n_bytes));
        let is_taken = self.free.fetch_update(order, order, less).is_ok();
        self.taken += if is_taken { n_bytes } else { 0 };
        is_taken
    }

    fn give_back(&mut self) {
        self.free.fetch_add(std::mem::take(&mut self.taken), Ordering::Relaxed);
    }
}

impl Drop for BodyRoom<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl RequestLimits {
    /// `bytes` is the size of the largest body, and `inputs` the number of texts in a request.
    pub(super) fn new(bytes: usize, inputs: usize) -> RequestLimits {
        RequestLimits { bytes, inputs, room: AtomicUsize::new(bytes.max(ALL_BODIES_BYTES)) }
    }

    /// Reads the body of a request. The room that it takes is to be kept until the answer is ready to be sent.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<(T, BodyRoom<'_>), HttpError> {
        require_json(request.headers())?;
        let read = tokio::time::timeout(BODY_TIME, self.read_bytes(request.into_body()));
        let (bytes, room) = read.await.map_err(|_| {
            HttpError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
        })??;
        let body = serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
            Category::Data => HttpError::unfit(format!("the body is not as expected: {error}"))
                .hint("GET /docs shows what it may contain"),
            Category::Io | Category::Syntax | Category::Eof => {
                HttpError::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
            }
        })?;
        Ok((body, room))
    }

    async fn read_bytes(&self, mut body: Body) -> Result<(Vec<u8>, BodyRoom<'_>), HttpError> {
        let mut room = BodyRoom { free: &self.room, taken: 0 };
        let mut bytes = Vec::new();
        let mut size = 0;
        let mut is_kept = true;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                HttpError::new(StatusCode::BAD_REQUEST, "the body ended before it was complete")
            })?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            size += data.len();
            is_kept = is_kept && size <= self.bytes && room.take(data.len());
            if is_kept {
                bytes.extend_from_slice(data);
                continue;
            }
            bytes = Vec::new();
            room.give_back();
            if size > self.bytes.saturating_mul(DISCARDED_SIZES) {
                break;
            }
        }
        if is_kept {
            return Ok((bytes, room));
        }
        if size <= self.bytes {
            return Err(HttpError::no_room());
        }
        let most = self.bytes;
        Err(HttpError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {most} bytes"),
        )
        .hint("send several requests, or start the server with a larger --max-body"))
    }

    /// Returns the texts of a request: a list of them, or a single one.
    pub(super) fn listed(&self, inputs: Value, key: &str) -> Result<Vec<Value>, HttpError> {
        let inputs = match inputs {
            Value::Array(inputs) => inputs,
            Value::Null => Vec::new(),
            single => vec![single],
        };
        if inputs.is_empty() {
            return Err(empty(format!("`{key}` cannot be empty")));
        }
        if inputs.len() > self.inputs {
            let (n, most) = (inputs.len(), self.inputs);
            return Err(HttpError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("batch size {n} > maximum allowed batch size {most}"),
            )
            .hint("send several requests, or start the server with a larger --max-inputs"));
        }
        Ok(inputs)
    }

    /// Returns the texts of a request that contains nothing but texts.
    pub(super) fn texts(&self, inputs: Value, key: &str) -> Result<Vec<String>, HttpError> {
        let inputs = self.listed(inputs, key)?.into_iter().enumerate();
        let text = |(number, input)| match input {
            Value::String(text) if text.trim().is_empty() => {
                Err(empty(format!("`{key}` cannot be empty: {key}[{number}] has no text")))
            }
            Value::String(text) => Ok(text),
            _ => Err(HttpError::unfit(format!("{key}[{number}] is not a text"))),
        };
        inputs.map(text).collect()
    }
}

/// The error about a request without a text.
pub(super) fn empty(message: String) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, message).code(EMPTY)
}

/// Pages of other origins cannot send this type without asking first, and are not allowed to.
fn require_json(headers: &HeaderMap) -> Result<(), HttpError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    let is_plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if kind.trim().eq_ignore_ascii_case("application/json") && is_plain {
        return Ok(());
    }
    Err(HttpError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body must be JSON, not compressed, with the header `Content-Type: application/json`",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits() -> RequestLimits {
        RequestLimits { bytes: 20, inputs: 2, room: AtomicUsize::new(30) }
    }

    fn posted(body: impl Into<Body>) -> Request {
        let request = axum::http::Request::builder().header("content-type", "application/json");
        request.body(body.into()).unwrap()
    }

    fn status(error: HttpError) -> StatusCode {
        error.answer(super::super::http_error::ErrorForm::Tei).status()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn only_uncompressed_json_is_read() {
        let check = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), value.parse().unwrap())
            });
            require_json(&headers.collect()).is_ok()
        };
        assert!(check(&[("content-type", "application/json")]));
        assert!(check(&[("content-type", "Application/JSON; charset=utf-8")]));
        for wrong in ["text/plain", "", "application/jsonx", "application/x-www-form-urlencoded"] {
            assert!(!check(&[("content-type", wrong)]), "{wrong}");
        }
        assert!(!check(&[]));
        assert!(!check(&[("content-type", "application/json"), ("content-encoding", "gzip")]));
    }

    #[test]
    fn a_request_has_one_text_or_a_list_of_as_many_as_allowed() {
        let texts = |inputs: Value| limits().texts(inputs, "inputs");
        assert_eq!(texts(json!("one")), Ok(vec!["one".to_string()]));
        assert_eq!(texts(json!(["one", "two"])), Ok(vec!["one".to_string(), "two".to_string()]));
        for wrong in [
            json!(null),
            json!([]),
            json!(["one", " "]),
            json!(["one", 2]),
            json!({ "text": "one" }),
            json!(["1", "2", "3"]),
        ] {
            assert!(texts(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_body_has_a_size_and_a_meaning() {
        let (runtime, limits) = (runtime(), limits());
        let read = |body: &'static str| {
            let read = runtime.block_on(limits.read::<Vec<u8>>(posted(body)));
            read.map(|(numbers, _)| numbers).map_err(status)
        };
        assert_eq!(read("[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(read("[1, 2"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(read("[1, -2]"), Err(StatusCode::UNPROCESSABLE_ENTITY));
        assert_eq!(read("[1, 2, 3, 4, 5, 6, 7]"), Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(limits.room.load(Ordering::Relaxed), 30, "all room was given back");
    }

    #[test]
    fn bodies_take_room_until_their_requests_are_answered() {
        let (runtime, limits) = (runtime(), limits());
        let read = |body: &'static str| runtime.block_on(limits.read::<Vec<u8>>(posted(body)));
        let (_, first) = read("[1, 2, 3, 4, 5, 6]").unwrap();
        let (_, second) = read("[1, 2, 3, 4]").unwrap();
        assert_eq!(read("[1]").unwrap_err(), HttpError::no_room());
        drop(second);
        assert!(read("[1, 2, 3, 4]").is_ok());
        drop(first);
        assert_eq!(limits.room.load(Ordering::Relaxed), 30);
        // What is larger than all of them together is let in alone.
        let large = RequestLimits::new(ALL_BODIES_BYTES + 1, 2);
        assert_eq!(large.room.load(Ordering::Relaxed), ALL_BODIES_BYTES + 1);
    }
}
