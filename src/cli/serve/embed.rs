//! `POST /embed`, as text-embeddings-inference has it, and `POST /v1/embeddings`, as OpenAI has it.

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use frostbert::internals::server::{embedding::EmbeddedText, engine::ServedRun};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    http_error::{ErrorForm, HttpError},
    service::{HttpService, Shared, answers_of, respond},
};

/// The fields that text-embeddings-inference knows, and the run whose model is asked. Others are ignored, as there.
#[derive(Deserialize)]
struct EmbedBody {
    inputs: Value,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<String>,
    #[serde(default)]
    normalize: Option<bool>,
    #[serde(default)]
    prompt_name: Option<String>,
    #[serde(default)]
    dimensions: Option<u64>,
    #[serde(default)]
    run: Option<String>,
}

/// The fields that OpenAI knows. Others are ignored.
#[derive(Deserialize)]
struct EmbeddingsBody {
    input: Value,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<u64>,
}

pub(super) async fn embed(State(service): State<Shared>, request: Request) -> Response {
    respond(ErrorForm::Tei, vectors(&service, request).await)
}

pub(super) async fn embeddings(State(service): State<Shared>, request: Request) -> Response {
    respond(ErrorForm::OpenAi, openai_vectors(&service, request).await)
}

async fn vectors(service: &HttpService, request: Request) -> Result<String, HttpError> {
    let (body, _room) = service.limits.read::<EmbedBody>(request).await?;
    require_whole(body.dimensions)?;
    if body.truncation_direction.is_some_and(|side| !side.eq_ignore_ascii_case("right")) {
        return Err(HttpError::unfit(
            "only the end of a text is cut off: `truncation_direction` is right",
        ));
    }
    let run = model(service, body.run.as_deref())?;
    let texts = service.limits.texts(body.inputs, "inputs")?;
    let prompt = body.prompt_name.as_deref();
    let mut embedded = embedded(service, run, texts, prompt).await?;
    if !body.truncate.unwrap_or(false) {
        require_untruncated(&embedded, run.max_length, "inputs", "`truncate` to true")?;
    }
    if body.normalize.unwrap_or(true) {
        embedded.iter_mut().for_each(|text| normalize(&mut text.values));
    }
    let vectors: Vec<&[f32]> = embedded.iter().map(|text| &text.values[..]).collect();
    json_of(&vectors)
}

async fn openai_vectors(service: &HttpService, request: Request) -> Result<String, HttpError> {
    let (body, _room) = service.limits.read::<EmbeddingsBody>(request).await?;
    require_whole(body.dimensions)?;
    let is_base64 = match body.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(HttpError::unfit("`encoding_format` is `float` or `base64`")),
    };
    let run = model(service, body.model.as_deref().filter(|name| !name.is_empty()))?;
    let texts = service.limits.texts(body.input, "input")?;
    let mut embedded = embedded(service, run, texts, None).await?;
    require_untruncated(&embedded, run.max_length, "input", "shorter texts, or split them")?;
    let mut vectors = Vec::with_capacity(embedded.len());
    for (index, text) in embedded.iter_mut().enumerate() {
        normalize(&mut text.values);
        let values =
            if is_base64 { json_of(&base64_of(&text.values))? } else { json_of(&text.values)? };
        vectors
            .push(format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":{values}}}"));
    }
    let tokens: u64 = embedded.iter().map(|text| text.tokens).sum();
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    Ok(format!(
        "{{\"object\":\"list\",\"data\":[{}],\"model\":{},\"usage\":{usage}}}",
        vectors.join(","),
        json!(run.name)
    ))
}

/// Which run's model is asked for vectors.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// That of the run with this number.
    Run(usize),
    /// The name is that of several models.
    Ambiguous,
    /// The name is that of no run and of no model, or one is needed and there is none.
    Unknown,
}

/// Looks for a run by its name, and then by the name of its model. If all runs share a model, no name is needed. `runs`
/// are their names, the names of their models, and the numbers of these.
fn asked(runs: &[(&str, &str, usize)], name: Option<&str>) -> Asked {
    let Some(name) = name else {
        let shares_model = are_one(runs.iter().map(|run| run.2));
        return if shares_model { Asked::Run(0) } else { Asked::Unknown };
    };
    if let Some(number) = runs.iter().position(|run| run.0 == name) {
        return Asked::Run(number);
    }
    match runs.iter().position(|run| run.1 == name) {
        None => Asked::Unknown,
        Some(number) if are_one(runs.iter().filter(|run| run.1 == name).map(|run| run.2)) => {
            Asked::Run(number)
        }
        Some(_) => Asked::Ambiguous,
    }
}

/// Whether all numbers are the same.
fn are_one(mut numbers: impl Iterator<Item = usize>) -> bool {
    let first = numbers.next();
    numbers.all(|number| Some(number) == first)
}

/// Returns a run whose model is asked for vectors.
fn model<'s>(service: &'s HttpService, name: Option<&str>) -> Result<&'s ServedRun, HttpError> {
    let runs = service.engine.runs();
    let named: Vec<(&str, &str, usize)> =
        runs.iter().map(|run| (run.name.as_str(), run.model.as_str(), run.model_number)).collect();
    let found = match asked(&named, name) {
        Asked::Run(number) => Ok(&runs[number]),
        Asked::Unknown => service.run(name),
        Asked::Ambiguous => {
            let names: Vec<&str> = named.iter().map(|run| run.0).collect();
            return Err(HttpError::new(
                StatusCode::BAD_REQUEST,
                "the name is ambiguous: several models are called so",
            )
            .hint(format!("name a run instead: {}", names.join(", ")))
            .code("model_ambiguous"));
        }
    };
    let run = found.map_err(|error| error.code("model_not_found"))?;
    if service.engine.embeds(run) {
        return Ok(run);
    }
    Err(HttpError::new(StatusCode::NOT_FOUND, "this server does not embed texts")
        .hint("start it without --no-embed, with a model whose vectors can be computed"))
}

/// Returns the vectors of texts.
async fn embedded(
    service: &HttpService,
    run: &ServedRun,
    texts: Vec<String>,
    prompt: Option<&str>,
) -> Result<Vec<EmbeddedText>, HttpError> {
    let engine = &service.engine;
    let prompt = engine.prompt(run, prompt);
    let prompt = prompt.map_err(|problem| HttpError::unfit(format!("`prompt_name` {problem}")))?;
    answers_of(|on_done| engine.embed(run, &prompt, texts, on_done)).await
}

fn require_whole(dimensions: Option<u64>) -> Result<(), HttpError> {
    match dimensions {
        None => Ok(()),
        Some(_) => Err(HttpError::unfit("vectors are not cut: leave `dimensions` out")),
    }
}

fn require_untruncated(
    texts: &[EmbeddedText],
    most: usize,
    key: &str,
    cure: &str,
) -> Result<(), HttpError> {
    let Some(number) = texts.iter().position(|text| text.is_truncated) else {
        return Ok(());
    };
    let message = format!("`{key}` must have at most {most} tokens, and {key}[{number}] has more");
    let cure = if cure.starts_with('`') { format!("set {cure}") } else { format!("send {cure}") };
    Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, message).hint(cure))
}

/// Divides a vector by its length, unless that is 0.
fn normalize(values: &mut [f32]) {
    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    let length = squares.sqrt();
    if length > 0.0 {
        values.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

/// The values as little-endian f32 in base64, as OpenAI's clients read them.
fn base64_of(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

fn json_of(value: &impl serde::Serialize) -> Result<String, HttpError> {
    serde_json::to_string(value).map_err(|_| HttpError::stopped())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_1_unless_they_have_none() {
        let mut values = [3.0, -4.0];
        normalize(&mut values);
        assert_eq!(values, [0.6, -0.8]);
        let mut zero = [0.0, 0.0];
        normalize(&mut zero);
        assert_eq!(zero, [0.0, 0.0]);
    }

    #[test]
    fn a_model_is_asked_by_the_name_of_a_run_first_and_never_by_one_of_two_models() {
        // The second run is called like the model of the first.
        let runs = [("a", "minilm", 0), ("minilm", "bert", 1), ("c", "bert", 1), ("d", "base", 2)];
        assert_eq!(asked(&runs, Some("minilm")), Asked::Run(1));
        assert_eq!(asked(&runs, Some("c")), Asked::Run(2));
        assert_eq!(asked(&runs, Some("bert")), Asked::Run(1), "two runs share the model");
        assert_eq!(asked(&runs, Some("other")), Asked::Unknown);
        assert_eq!(asked(&runs, None), Asked::Unknown);
        assert_eq!(asked(&runs[1..3], None), Asked::Run(0));
        // Two other models may have folders of the same name, or another precision.
        let alike = [("a", "minilm", 0), ("b", "minilm", 1)];
        assert_eq!(asked(&alike, Some("minilm")), Asked::Ambiguous);
        assert_eq!(asked(&alike, Some("b")), Asked::Run(1));
    }

    #[test]
    fn base64_is_of_the_bytes_of_the_values() {
        // numpy: base64.b64encode(numpy.array([1, -2.5], "<f4").tobytes())
        assert_eq!(base64_of(&[1.0, -2.5]), "AACAPwAAIMA=");
    }

    #[test]
    fn texts_that_were_cut_are_refused_by_number() {
        let text = |is_truncated| EmbeddedText { values: vec![1.0], tokens: 3, is_truncated };
        let check =
            |texts: &[EmbeddedText]| require_untruncated(texts, 9, "inputs", "shorter texts");
        assert_eq!(check(&[text(false), text(false)]), Ok(()));
        let refused = HttpError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "`inputs` must have at most 9 tokens, and inputs[1] has more",
        );
        assert_eq!(check(&[text(false), text(true)]), Err(refused.hint("send shorter texts")));
    }
}
