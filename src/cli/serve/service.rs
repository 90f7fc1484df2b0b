//! What all requests share, and what each of them does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use frostbert::internals::server::{
    answers::{Answers, Ticket},
    engine::{Engine, ServedRun},
    queue::Refusal,
};
use tokio::sync::oneshot;

use super::{
    super::output::say,
    access::Access,
    body::RequestLimits,
    counts::RequestCounts,
    docs::DocsPages,
    http_error::{ErrorForm, HttpError},
};

/// What all requests share.
pub(super) struct HttpService {
    pub(super) engine: Engine,
    pub(super) access: Access,
    pub(super) limits: RequestLimits,
    pub(super) counts: RequestCounts,
    pub(super) docs: DocsPages,
    is_stopping: AtomicBool,
    n_answering: AtomicUsize,
}

/// A request that is being answered, until it is dropped.
pub(super) struct BeingAnswered<'s>(&'s AtomicUsize);

impl Drop for BeingAnswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state of the handlers.
pub(super) type Shared = Arc<HttpService>;

impl HttpService {
    pub(super) fn new(engine: Engine, access: Access, limits: RequestLimits) -> HttpService {
        HttpService {
            engine,
            access,
            limits,
            counts: RequestCounts::default(),
            docs: DocsPages::new(),
            is_stopping: AtomicBool::new(false),
            n_answering: AtomicUsize::new(0),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Lets every answer from now on close its connection.
    pub(super) fn begin_to_stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Counts a request among those that are being answered.
    pub(super) fn begin_to_answer(&self) -> BeingAnswered<'_> {
        self.n_answering.fetch_add(1, Ordering::Relaxed);
        BeingAnswered(&self.n_answering)
    }

    /// Whether a request is being answered: its body is read, or its texts wait for a model.
    pub(super) fn is_answering(&self) -> bool {
        self.n_answering.load(Ordering::Relaxed) > 0
    }

    /// Returns the run with a name, or the only one.
    pub(super) fn run(&self, name: Option<&str>) -> Result<&ServedRun, HttpError> {
        let runs = self.engine.runs();
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        let names = names.join(", ");
        match (name, runs) {
            (None, [only]) => Ok(only),
            (None, _) => Err(HttpError::new(StatusCode::BAD_REQUEST, "several runs are served")
                .hint(format!("name one of them as `run`: {names}"))),
            (Some(name), _) => runs.iter().find(|run| run.name == name).ok_or_else(|| {
                HttpError::new(StatusCode::NOT_FOUND, "no run of this name is served")
                    .hint(format!("the runs are: {names}"))
            }),
        }
    }
}

/// Waits for the answers to the texts of a request. If the client breaks off, they are not worked out.
pub(super) async fn answers_of<T: Send + 'static>(
    submit: impl FnOnce(Box<dyn FnOnce(Answers<T>) + Send>) -> Result<Ticket, Refusal>,
) -> Result<Vec<T>, HttpError> {
    let (sender, receiver) = oneshot::channel();
    // Nobody receives them any more if the client has broken off.
    let on_done = Box::new(move |answers: Answers<T>| drop(sender.send(answers)));
    let ticket = submit(on_done).map_err(HttpError::refused)?;
    let answers = receiver.await.map_err(|_| HttpError::stopped())?;
    drop(ticket);
    let answers = answers.into_iter().enumerate();
    answers.map(|(n, answer)| answer.map_err(|e| HttpError::of_answer(n, e))).collect()
}

/// Makes an answer of JSON, or of an error in the form of the interface.
pub(super) fn respond(form: ErrorForm, answer: Result<String, HttpError>) -> Response {
    match answer {
        Ok(json) => {
            let kind = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, kind)], json).into_response()
        }
        Err(error) => {
            if error.is_internal() {
                // The message may hold a text, and texts are not logged.
                say("warning: the model failed on a text; the client was told how");
            }
            error.answer(form)
        }
    }
}
