//! The paths of the server, and what is checked before each of them.

use std::time::Instant;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use super::{
    embed::{embed, embeddings},
    http_error::{ErrorForm, HttpError},
    predict::predict,
    service::{Shared, respond},
};

/// All paths. Others are counted together.
const PATHS: [&str; 7] =
    ["/predict", "/embed", "/v1/embeddings", "/health", "/metrics", "/docs", "/openapi.json"];

/// The path that needs no key, so that a supervisor can ask whether the server is well.
const OPEN_PATH: &str = "/health";

/// Pages load nothing, and are not put into frames.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'";

/// Returns the server's paths.
pub(super) fn router(service: &Shared) -> Router {
    Router::new()
        .route("/predict", post(predict))
        .route("/embed", post(embed))
        .route("/v1/embeddings", post(embeddings))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/docs", get(docs))
        .route("/openapi.json", get(openapi))
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .layer(from_fn_with_state(Shared::clone(service), checked))
        .with_state(Shared::clone(service))
}

/// Checks who asks, answers, and counts the answer.
async fn checked(State(service): State<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _being_answered = service.begin_to_answer();
    let asked = request.uri().path();
    let path = PATHS.into_iter().find(|path| *path == asked).unwrap_or("other");
    let access = &service.access;
    let allowed = access
        .check_host(&request)
        .and_then(|()| if path == OPEN_PATH { Ok(()) } else { access.check_key(&request) });
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => error.answer(ErrorForm::of_path(path)),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if service.is_stopping() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    service.counts.add(path, response.status().as_u16(), begun.elapsed());
    response
}

async fn health(State(service): State<Shared>) -> Response {
    if service.is_stopping() || !service.engine.is_alive() {
        return HttpError::stopped().answer(ErrorForm::Frostbert);
    }
    respond(ErrorForm::Frostbert, Ok(json!({ "status": "ok" }).to_string()))
}

async fn metrics(State(service): State<Shared>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], service.counts.text(&service.engine)).into_response()
}

async fn docs(State(service): State<Shared>) -> Response {
    Html(service.docs.html.clone()).into_response()
}

async fn openapi(State(service): State<Shared>) -> Response {
    respond(ErrorForm::Frostbert, Ok(service.docs.openapi.clone()))
}

async fn unknown() -> Response {
    HttpError::new(StatusCode::NOT_FOUND, "there is no such path")
        .hint("GET /docs lists the paths")
        .answer(ErrorForm::Frostbert)
}

async fn other_method(request: Request) -> Response {
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "the path does not answer this method")
        .hint("GET /docs lists the paths with their methods")
        .answer(ErrorForm::of_path(request.uri().path()))
}
