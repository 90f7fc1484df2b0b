//! `POST /predict`: predictions for records, as `frostbert predict --json` prints them.

use axum::{
    extract::{Request, State},
    response::Response,
};
use frostbert::internals::{config::names::Task, data::Record, tasks::prediction::Prediction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    body::empty,
    http_error::{ErrorForm, HttpError},
    service::{HttpService, Shared, answers_of, respond},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PredictBody {
    inputs: Value,
    run: Option<String>,
    top: Option<usize>,
    min_confidence: Option<f32>,
}

/// A record of a request; a text alone stands for a record without anything else.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputRecord {
    id: Option<Value>,
    text: Option<String>,
    text_pair: Option<String>,
    question: Option<String>,
    context: Option<String>,
    words: Option<Vec<String>>,
}

pub(super) async fn predict(State(service): State<Shared>, request: Request) -> Response {
    respond(ErrorForm::Frostbert, predictions(&service, request).await)
}

async fn predictions(service: &HttpService, request: Request) -> Result<String, HttpError> {
    let (body, _room) = service.limits.read::<PredictBody>(request).await?;
    let run = service.run(body.run.as_deref())?;
    let inputs = service.limits.listed(body.inputs, "inputs")?.into_iter().enumerate();
    let read = inputs.map(|(number, input)| {
        read(run.task, run.needs_pairs, input).map_err(|problem| match problem {
            Unfit::Empty => empty(format!("inputs[{number}] has no text")),
            Unfit::Other(problem) => HttpError::unfit(format!("inputs[{number}]: {problem}")),
        })
    });
    let read = read.collect::<Result<Vec<_>, HttpError>>()?;
    let (ids, records): (Vec<Option<Value>>, Vec<Record>) = read.into_iter().unzip();
    let predictions = answers_of(|on_done| service.engine.predict(run, records, on_done)).await?;
    let shown = ids.into_iter().zip(predictions).map(|(id, mut prediction)| {
        prediction.withhold_below(body.min_confidence.unwrap_or_default());
        if let Some(n) = body.top {
            prediction.keep_most_probable(n);
        }
        shown(id, &prediction)
    });
    let shown = shown.collect::<Result<Vec<String>, HttpError>>()?;
    Ok(format!("{{\"run\":{},\"predictions\":[{}]}}", json!(run.name), shown.join(",")))
}

/// Formats a prediction as `predict --json` does, with the id of its record first.
fn shown(id: Option<Value>, prediction: &Prediction) -> Result<String, HttpError> {
    let mut shown = serde_json::to_string(prediction).map_err(|_| HttpError::stopped())?;
    if let Some(id) = id {
        shown.insert_str(1, &format!("\"id\":{id},"));
    }
    Ok(shown)
}

/// Why an input is no record for a run.
#[derive(Debug, PartialEq)]
enum Unfit {
    Empty,
    Other(String),
}

/// Reads an input as a record for a run of a task, which may read two texts, with its id.
fn read(task: Task, needs_pairs: bool, input: Value) -> Result<(Option<Value>, Record), Unfit> {
    let unfit = |problem: &str| Err(Unfit::Other(problem.into()));
    let InputRecord { id, text, text_pair, question, context, words } = match input {
        Value::String(text) => InputRecord { text: Some(text), ..InputRecord::default() },
        object => serde_json::from_value(object)
            .map_err(|error| Unfit::Other(format!("neither a text nor a record: {error}")))?,
    };
    if (text.is_some() && question.is_some()) || (text_pair.is_some() && context.is_some()) {
        return unfit("`question` is another name of `text`, and `context` of `text_pair`");
    }
    let (text, text_pair) = (text.or(question), text_pair.or(context));
    let record = match (text, words) {
        (Some(_), Some(_)) => return unfit("has both `text` and `words`: give one of them"),
        (None, None) => return unfit("has no `text`"),
        (Some(text), None) => Record { text, text_pair, ..Record::default() },
        (None, Some(_)) if !task.reads_words() => {
            return unfit("has `words`, but the run does not label words: give `text`");
        }
        (None, Some(words)) if words.iter().any(|word| word.trim().is_empty()) => {
            return unfit("one of its `words` is empty");
        }
        (None, Some(words)) => {
            Record { text: words.join(" "), text_pair, words: Some(words), ..Record::default() }
        }
    };
    match (&record.text_pair, needs_pairs) {
        (None, true) if task.reads_contexts() => {
            unfit("has no `context`: the run answers questions on a context")
        }
        (None, true) => unfit("has no `text_pair`: the run reads two texts"),
        (Some(_), false) => unfit("has a `text_pair`, but the run reads one text"),
        _ if record.is_empty() => Err(Unfit::Empty),
        _ => Ok((id, record)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(input: Value) -> Result<(Option<Value>, Record), Unfit> {
        read(Task::Classification, false, input)
    }

    #[test]
    fn an_input_is_a_text_or_the_fields_of_a_record() {
        let record = |text: &str| Record { text: text.into(), ..Record::default() };
        assert_eq!(one(json!("a b")), Ok((None, record("a b"))));
        assert_eq!(one(json!({ "id": 7, "text": "a b" })), Ok((Some(json!(7)), record("a b"))));
        let pair = Record { text_pair: Some("b".into()), ..record("a") };
        for input in
            [json!({ "text": "a", "text_pair": "b" }), json!({ "question": "a", "context": "b" })]
        {
            assert_eq!(read(Task::Qa, true, input), Ok((None, pair.clone())));
        }
        let words = Record { words: Some(vec!["a".into(), "b".into()]), ..record("a b") };
        let input = json!({ "words": ["a", "b"] });
        assert_eq!(read(Task::Tokens, false, input.clone()), Ok((None, words)));
        assert!(one(input).is_err(), "only a tagger reads words");
    }

    #[test]
    fn an_input_that_does_not_fit_the_run_is_refused() {
        for blank in [json!(""), json!(" \n"), json!({ "text": "" })] {
            assert_eq!(one(blank), Err(Unfit::Empty));
        }
        for wrong in [
            json!(null),
            json!(3),
            json!(["a"]),
            json!({}),
            json!({ "text": 3 }),
            json!({ "text": "a", "label": "b" }),
            json!({ "text": "a", "text_pair": "b" }),
            json!({ "text": "a", "question": "a" }),
        ] {
            assert!(matches!(one(wrong.clone()), Err(Unfit::Other(_))), "{wrong}");
        }
        for wrong in [json!("a"), json!({ "text": "a", "text_pair": "b", "context": "b" })] {
            assert!(matches!(read(Task::Qa, true, wrong.clone()), Err(Unfit::Other(_))), "{wrong}");
        }
        let pair = json!({ "text": "a", "text_pair": " " });
        assert_eq!(read(Task::Regression, true, pair), Err(Unfit::Empty));
        for words in [json!({ "words": [] }), json!({ "words": ["a", ""] })] {
            assert!(read(Task::Tokens, false, words.clone()).is_err(), "{words}");
        }
    }

    #[test]
    fn an_id_stands_first_and_the_rest_is_as_predict_prints_it() {
        let value = Prediction::Value { text: "a \"b\"".into(), text_pair: None, value: 0.5 };
        let plain = r#"{"text":"a \"b\"","value":0.5}"#;
        assert_eq!(shown(None, &value), Ok(plain.to_string()));
        let with_id = r#"{"id":"x\"7","text":"a \"b\"","value":0.5}"#;
        assert_eq!(shown(Some(json!("x\"7")), &value), Ok(with_id.to_string()));
    }
}
