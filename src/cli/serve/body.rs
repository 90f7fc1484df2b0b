//! Reads the JSON of a request, within limits of size and time.

use std::time::Duration;

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

/// The most that a request may contain.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    /// Number of bytes of its body.
    pub(super) bytes: usize,
    /// Number of texts.
    pub(super) inputs: usize,
}

impl RequestLimits {
    /// Reads the body of a request.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, HttpError> {
        require_json(request.headers())?;
        let read = tokio::time::timeout(BODY_TIME, read_bytes(request.into_body(), self.bytes));
        let bytes = read.await.map_err(|_| {
            HttpError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
        })??;
        serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
            Category::Data => HttpError::unfit(format!("the body is not as expected: {error}"))
                .hint("GET /docs shows what it may contain"),
            Category::Io | Category::Syntax | Category::Eof => {
                HttpError::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
            }
        })
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

async fn read_bytes(mut body: Body, most: usize) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            HttpError::new(StatusCode::BAD_REQUEST, "the body ended before it was complete")
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        size += data.len();
        if size <= most {
            bytes.extend_from_slice(data);
        } else if size > most.saturating_mul(DISCARDED_SIZES) {
            break;
        }
    }
    if size <= most {
        return Ok(bytes);
    }
    Err(HttpError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body has more than {most} bytes"),
    )
    .hint("send several requests, or start the server with a larger --max-body"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: RequestLimits = RequestLimits { bytes: 20, inputs: 2 };

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
        let texts = |inputs: Value| LIMITS.texts(inputs, "inputs");
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let read = |body: &'static str| {
            let request = axum::http::Request::builder().header("content-type", "application/json");
            let request = request.body(Body::from(body)).unwrap();
            let read = runtime.block_on(LIMITS.read::<Vec<u8>>(request));
            read.map_err(|error| error.answer(super::super::http_error::ErrorForm::Tei).status())
        };
        assert_eq!(read("[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(read("[1, 2"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(read("[1, -2]"), Err(StatusCode::UNPROCESSABLE_ENTITY));
        assert_eq!(read("[1, 2, 3, 4, 5, 6, 7]"), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
