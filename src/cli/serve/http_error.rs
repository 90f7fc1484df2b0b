//! Errors as HTTP answers, each in the form of the interface that was called.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use frostbert::internals::{
    error::ErrorKind,
    server::{answers::AnswerError, queue::Refusal},
};
use serde_json::{Value, json};

/// The form of an error in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorForm {
    /// That of `frostbert --json`.
    Frostbert,
    /// That of text-embeddings-inference.
    Tei,
    /// That of OpenAI.
    OpenAi,
}

impl ErrorForm {
    pub(super) fn of_path(path: &str) -> ErrorForm {
        match path {
            "/embed" => ErrorForm::Tei,
            "/v1/embeddings" => ErrorForm::OpenAi,
            _ => ErrorForm::Frostbert,
        }
    }
}

/// Why a request is not answered, and how to ask again.
#[derive(Debug, PartialEq)]
pub(super) struct HttpError {
    status: StatusCode,
    message: String,
    hint: Option<String>,
    /// What OpenAI calls the error, where a program may want to know.
    code: Option<&'static str>,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> HttpError {
        HttpError { status, message: message.into(), hint: None, code: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> HttpError {
        HttpError { hint: Some(hint.into()), ..self }
    }

    pub(super) fn code(self, code: &'static str) -> HttpError {
        HttpError { code: Some(code), ..self }
    }

    /// A request that is well-formed JSON but cannot be answered.
    pub(super) fn unfit(message: impl Into<String>) -> HttpError {
        HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    pub(super) fn stopped() -> HttpError {
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "the server has stopped answering")
            .hint("ask another server, or start it again")
    }

    /// The bodies of other requests take all room that there is for bodies.
    pub(super) fn no_room() -> HttpError {
        HttpError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "there is no room for the body beside those of other requests",
        )
        .hint("ask again in a second")
    }

    pub(super) fn refused(refusal: Refusal) -> HttpError {
        match refusal {
            Refusal::Full => HttpError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many texts are waiting for the model",
            )
            .hint("ask again in a second"),
            Refusal::Closed => HttpError::stopped(),
        }
    }

    /// Why the text with this number has no answer.
    pub(super) fn of_answer(number: usize, error: AnswerError) -> HttpError {
        match error {
            AnswerError::Input(problem) => HttpError::unfit(format!("inputs[{number}]: {problem}")),
            AnswerError::TooLong(problem) => HttpError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("inputs[{number}]: {problem}"),
            )
            .hint("split the text, or start the server with a larger --max-windows"),
            AnswerError::Model(problem) => HttpError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("inputs[{number}]: {problem}"),
            ),
            AnswerError::Stopped => HttpError::stopped(),
        }
    }

    /// Whether the server is at fault.
    pub(super) fn is_internal(&self) -> bool {
        self.status == StatusCode::INTERNAL_SERVER_ERROR
    }

    pub(super) fn answer(&self, form: ErrorForm) -> Response {
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut response = (self.status, [json], self.body(form).to_string()).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }

    fn body(&self, form: ErrorForm) -> Value {
        let with_hint = match &self.hint {
            Some(hint) => format!("{}: {hint}", self.message),
            None => self.message.clone(),
        };
        match form {
            ErrorForm::Frostbert => json!({ "error": {
                "kind": self.kind().name(),
                "message": self.message,
                "hint": self.hint,
            } }),
            ErrorForm::Tei => json!({ "error": with_hint, "error_type": self.tei_type() }),
            ErrorForm::OpenAi => json!({ "error": {
                "message": with_hint,
                "type": self.openai_type(),
                "param": null,
                "code": self.code,
            } }),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self.status {
            StatusCode::UNPROCESSABLE_ENTITY => ErrorKind::Data,
            StatusCode::NOT_FOUND => ErrorKind::Missing,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Busy,
            status if status.is_server_error() => ErrorKind::Failed,
            _ => ErrorKind::Usage,
        }
    }

    fn tei_type(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "Overloaded",
            StatusCode::SERVICE_UNAVAILABLE => "Unhealthy",
            StatusCode::UNPROCESSABLE_ENTITY => "Tokenizer",
            StatusCode::BAD_REQUEST if self.code == Some(EMPTY) => "Empty",
            status if status.is_server_error() => "Backend",
            _ => "Validation",
        }
    }

    fn openai_type(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// The code of a request without a text.
pub(super) const EMPTY: &str = "empty";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_form_of_the_interface() {
        let unknown = HttpError::new(StatusCode::NOT_FOUND, "no run is called `x`")
            .hint("the runs are: tiny")
            .code("model_not_found");
        assert_eq!(
            unknown.body(ErrorForm::of_path("/predict")),
            json!({ "error": {
                "kind": "missing", "message": "no run is called `x`", "hint": "the runs are: tiny",
            } })
        );
        let message = "no run is called `x`: the runs are: tiny";
        assert_eq!(
            unknown.body(ErrorForm::of_path("/embed")),
            json!({ "error": message, "error_type": "Validation" })
        );
        assert_eq!(
            unknown.body(ErrorForm::of_path("/v1/embeddings")),
            json!({ "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": null,
                "code": "model_not_found",
            } })
        );
    }

    #[test]
    fn what_may_be_asked_again_says_when() {
        let full = HttpError::refused(Refusal::Full).answer(ErrorForm::Tei);
        assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(full.headers()[header::RETRY_AFTER], "1");
        assert_eq!(HttpError::refused(Refusal::Full).tei_type(), "Overloaded");
        assert_eq!(
            HttpError::no_room().answer(ErrorForm::OpenAi).headers()[header::RETRY_AFTER],
            "1"
        );
        assert_eq!(HttpError::refused(Refusal::Closed), HttpError::stopped());
        let long = HttpError::of_answer(1, AnswerError::TooLong("`a` takes more".into()));
        assert_eq!(long.answer(ErrorForm::Tei).status(), StatusCode::PAYLOAD_TOO_LARGE);
        let failed = HttpError::of_answer(3, AnswerError::Model("out of memory".into()));
        assert!(failed.is_internal() && failed.message.starts_with("inputs[3]: "));
        assert!(!failed.answer(ErrorForm::Tei).headers().contains_key(header::RETRY_AFTER));
    }
}
