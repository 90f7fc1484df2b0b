//! squad: the JSON of the Stanford Question Answering Dataset, versions 1.1 and 2.0.

mod stream;

use std::iter;

use frostbert_cache::{fingerprint, wording::shorten};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    bad_rows::FailedRows,
    json_digits::as_spelled,
    json_lines,
    read::Text,
    record::{Answer, Record, WantedFields},
    source::Source,
};
use crate::error::{Error, Result};

/// Number of hexadecimal digits of a context's hash that identify its group.
const N_GROUP_DIGITS: usize = 32;

/// Streams the questions of a file.
///
/// Its paragraphs are parsed one after the other on a separate thread, each under the size limit of a record, so that
/// the file is never held in memory as a whole. Texts are unchanged, including surrounding white space, because offsets
/// count it. All questions about the same context have the same group, whichever article it is in. Keys that are not
/// needed, such as `plausible_answers`, are skipped.
///
/// Where `want` asks for labels every question has answers, or `is_impossible: true` and none. An answer that is not
/// where it says stays: see [`Answer::matches`].
///
/// A question that is not so is an error of its own, and a paragraph without a context one for each of its questions.
pub(super) fn read(
    input: Text,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let mut paragraphs = stream::paragraphs(input, source, failed.clone())?;
    // A file that is nothing like SQuAD is refused before anything is made of it.
    let first = paragraphs.next().transpose()?;
    let source = source.clone();
    let all = first.into_iter().map(Ok).chain(paragraphs);
    Ok(all.flat_map(move |paragraph| match paragraph {
        Ok(placed) => QuestionList::Of(examples(placed, source.clone(), want, failed.clone())),
        Err(error) => QuestionList::None(Box::new(iter::once(Err(error)))),
    }))
}

/// A paragraph, and its place in words.
struct PlacedParagraph {
    paragraph: Paragraph,
    place: String,
    /// The first byte on its lines that does not decode, with its line.
    bad_byte: Option<(u64, String)>,
}

/// A paragraph. Its questions are read one by one, so that each can fail by itself.
#[derive(Deserialize)]
struct Paragraph {
    context: Option<String>,
    #[serde(deserialize_with = "stream::questions")]
    qas: Vec<Box<RawValue>>,
}

/// A question. Missing fields are checked by hand, so that the message can name the question.
#[derive(Deserialize)]
struct Question {
    id: Option<Box<RawValue>>,
    question: Option<String>,
    answers: Option<Vec<GivenAnswer>>,
    is_impossible: Option<bool>,
}

#[derive(Deserialize)]
struct GivenAnswer {
    text: Option<String>,
    answer_start: Option<i64>,
}

/// The questions of a paragraph, or the error in its place.
enum QuestionList<Q> {
    Of(Q),
    None(Box<iter::Once<Result<Record>>>),
}

impl<Q: Iterator<Item = Result<Record>>> Iterator for QuestionList<Q> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        match self {
            QuestionList::Of(questions) => questions.next(),
            QuestionList::None(error) => error.next(),
        }
    }
}

/// The questions of a paragraph, each made when its turn comes, as each has a copy of the context. Bad ones may be left
/// out.
fn examples(
    paragraph: PlacedParagraph,
    source: Source,
    want: WantedFields,
    failed: FailedRows,
) -> impl Iterator<Item = Result<Record>> + Send {
    let PlacedParagraph { paragraph, place, bad_byte } = paragraph;
    let Paragraph { context, qas } = paragraph;
    // Without a context all its questions are lost.
    let n_lost = if context.is_some() { 0 } else { qas.len().max(1) };
    let lacks_context = (0..n_lost).find_map(|_| {
        let error = source.malformed(
            None,
            format!("a `context` in {place}"),
            "none",
            "give the paragraph its text under `context`",
        );
        failed.settle(None, error).err()
    });
    let questions = if context.is_some() { qas } else { Vec::new() };
    let context = context.unwrap_or_default();
    let group =
        fingerprint::hash_bytes(context.as_bytes()).to_string()[..N_GROUP_DIGITS].to_owned();
    let questions = questions.into_iter().zip(1..);
    let examples = questions.filter_map(move |(json, n)| {
        let mut position =
            QuestionPosition { place: format!("question {n} of {place}"), source: &source };
        let question = position.question(&json, &place);
        // Bytes of other questions may stand on these lines.
        let is_damaged =
            [context.as_str(), json.get()].iter().any(|text| text.contains('\u{fffd}'));
        if let Some((line, reason)) = bad_byte.as_ref().filter(|_| is_damaged) {
            failed.leave_out_at(*line, format!("{reason}, in {}", position.place));
            return None;
        }
        let record = question.and_then(|question| position.record(question, want));
        match record {
            Err(error) => failed.settle(None, error).err().map(Err),
            Ok(record) => Some(Ok(Record {
                text_pair: Some(context.clone()),
                group: Some(group.clone()),
                ..record
            })),
        }
    });
    lacks_context.map(Err).into_iter().chain(examples)
}

/// The place of a question.
struct QuestionPosition<'a> {
    place: String,
    source: &'a Source,
}

impl QuestionPosition<'_> {
    /// The question that is written so, in the paragraph at `place`. From here on its name says where it stands.
    fn question(&mut self, json: &RawValue, place: &str) -> Result<Question> {
        let question: Question = serde_json::from_str(json.get()).map_err(|error| {
            self.error(
                "an object with `question`, `answers` and `id`, as in SQuAD",
                json_lines::reason(&error),
                "write `question` as a string, and `answers` as a list of objects with `text` and `answer_start`",
            )
        })?;
        let id = question.id.as_deref().map(RawValue::get).unwrap_or("null");
        if let Ok(id) = serde_json::from_str::<String>(id) {
            self.place = format!("question `{}`, in {place}", shorten(&id, 40));
        }
        Ok(question)
    }

    /// The record of a question, but for its context.
    fn record(&self, question: Question, want: WantedFields) -> Result<Record> {
        let id = question.id.as_deref().map(RawValue::get).unwrap_or("null");
        Ok(Record {
            id: self.id(id)?,
            answers: if want.label {
                Some(self.answers(question.answers, question.is_impossible)?)
            } else {
                None
            },
            text: self.text(question.question)?,
            ..Record::default()
        })
    }

    fn text(&self, question: Option<String>) -> Result<String> {
        question.ok_or_else(|| {
            self.error("a `question`", "none", "give the record its text under `question`")
        })
    }

    /// An id, of its JSON: an integer keeps its digits, however many.
    fn id(&self, json: &str) -> Result<Option<String>> {
        match serde_json::from_str(json) {
            Ok(Value::Null) => Ok(None),
            Ok(Value::String(id)) => Ok(Some(id)),
            Ok(number @ Value::Number(_)) => Ok(Some(as_spelled(&number, json))),
            other => Err(self.error(
                "a string or a number as `id`",
                json_lines::kind(&other.unwrap_or_default()),
                "write the id as a string, or leave it out",
            )),
        }
    }

    fn answers(
        &self,
        answers: Option<Vec<GivenAnswer>>,
        is_impossible: Option<bool>,
    ) -> Result<Vec<Answer>> {
        let is_impossible = is_impossible.unwrap_or(false);
        let answers = answers.unwrap_or_default();
        // A file whose answers are withheld must not be mistaken for one of unanswerable questions.
        match (is_impossible, answers.is_empty()) {
            (false, true) => Err(self.error(
                "an answer, or `is_impossible: true`",
                "neither",
                "give the question an answer, or say that it is impossible; a file without answers can only be \
                 extracted or predicted",
            )),
            (true, false) => Err(self.error(
                "no answer, as `is_impossible` is true",
                format!("{} under `answers`", answers.len()),
                "move what only looks like an answer to `plausible_answers`, or set `is_impossible` to false",
            )),
            _ => answers
                .into_iter()
                .map(|answer| self.answer(answer))
                .collect(),
        }
    }

    fn answer(&self, answer: GivenAnswer) -> Result<Answer> {
        let hint = "give every answer its `text` and, as `answer_start`, the number of characters before it in the \
                    context";
        let text = answer.text.ok_or_else(|| {
            self.error("the `text` of every answer", "an answer without it", hint)
        })?;
        let start = answer.answer_start.ok_or_else(|| {
            self.error("the `answer_start` of every answer", "an answer without it", hint)
        })?;
        let start = usize::try_from(start)
            .map_err(|_| self.error("an `answer_start` of 0 or more", format!("{start}"), hint))?;
        Ok(Answer { text, start })
    }

    fn error(&self, expected: &str, got: impl Into<String>, hint: &str) -> Error {
        self.source.malformed(None, format!("{expected} for {}", self.place), got, hint)
    }
}

#[cfg(test)]
mod tests;
