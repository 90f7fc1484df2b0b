//! Streams the paragraphs of a SQuAD file: its single JSON object is parsed on a thread, which waits for the consumer.

use std::{
    fmt::{self, Formatter},
    io,
    rc::Rc,
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
};

use frostbert_cache::wording::shorten;
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use serde_json::value::RawValue;

use super::{Paragraph, PlacedParagraph};
use crate::{
    data::{
        bad_rows::FailedRows,
        json_lines,
        read::{self, Text},
        record_limit::{Allowance, Limited, MAX_RECORD_BYTES, PART_BYTES, is_too_long, too_long},
        source::Source,
    },
    error::{Error, Result},
};

/// Number of paragraphs that may wait for the consumer.
const N_WAITING: usize = 16;

/// Starts to read; an error is the last thing that comes.
pub(super) fn paragraphs(input: Text, source: &Source, failed: FailedRows) -> Result<Paragraphs> {
    let (sender, receiver) = mpsc::sync_channel(N_WAITING);
    let reading = source.clone();
    let thread = thread::Builder::new()
        .name("squad".to_owned())
        .spawn(move || {
            if let Err(error) = send_all(input, &reading, &failed, &sender) {
                // Whoever went away does not want it.
                let _ = sender.send(Err(error));
            }
        })
        .map_err(Error::io("read", &source.path))?;
    Ok(Paragraphs { receiver, thread: Some(thread) })
}

/// The paragraphs of a file that is being read.
pub(super) struct Paragraphs {
    receiver: Receiver<Result<PlacedParagraph>>,
    thread: Option<JoinHandle<()>>,
}

impl Iterator for Paragraphs {
    type Item = Result<PlacedParagraph>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(paragraph) = self.receiver.recv() {
            return Some(paragraph);
        }
        // A panic of the thread must not be mistaken for the end of the file.
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

fn send_all(
    input: Text,
    source: &Source,
    failed: &FailedRows,
    sender: &SyncSender<Result<PlacedParagraph>>,
) -> Result<()> {
    let allowance = Rc::new(Allowance::new());
    // An object takes more memory than the `{}` in the file.
    let input = Limited::new(input, Rc::clone(&allowance), Some(b'{'));
    let mut json = serde_json::Deserializer::from_reader(input);
    let feed = Feed { sender, allowance: &allowance, failed };
    let read = json.deserialize_map(File(&feed)).and_then(|()| json.end());
    read.map_err(|error| unreadable(source, error, allowance.line()))
}

/// The destination of the paragraphs.
struct Feed<'a> {
    sender: &'a SyncSender<Result<PlacedParagraph>>,
    allowance: &'a Allowance,
    failed: &'a FailedRows,
}

/// The object that makes up a file.
struct File<'a>(&'a Feed<'a>);

impl<'de> Visitor<'de> for File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_data = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "data" if has_data => return Err(de::Error::duplicate_field("data")),
                "data" => {
                    map.next_value_seed(Articles(self.0))?;
                    has_data = true;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if has_data { Ok(()) } else { Err(de::Error::missing_field("data")) }
    }
}

/// The list under `data`.
struct Articles<'a>(&'a Feed<'a>);

impl<'de> DeserializeSeed<'de> for Articles<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Articles<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut articles: A) -> Result<(), A::Error> {
        let mut number = 1;
        let article = |number| Article { feed: self.0, number };
        while articles.next_element_seed(article(number))?.is_some() {
            number += 1;
        }
        Ok(())
    }
}

struct Article<'a> {
    feed: &'a Feed<'a>,
    number: usize,
}

impl<'de> DeserializeSeed<'de> for Article<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Article<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut name = format!("article {}", self.number);
        let mut has_paragraphs = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "title" => {
                    if let Some(title) = map.next_value::<Option<String>>()? {
                        name.push_str(&format!(" `{}`", shorten(&title, 40)));
                    }
                }
                "paragraphs" if has_paragraphs => {
                    return Err(de::Error::duplicate_field("paragraphs"));
                }
                "paragraphs" => {
                    map.next_value_seed(ParagraphList { feed: self.feed, article: &name })?;
                    has_paragraphs = true;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if has_paragraphs { Ok(()) } else { Err(de::Error::missing_field("paragraphs")) }
    }
}

/// The paragraphs of an article.
struct ParagraphList<'a> {
    feed: &'a Feed<'a>,
    article: &'a str,
}

impl<'de> DeserializeSeed<'de> for ParagraphList<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ParagraphList<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut paragraphs: A) -> Result<(), A::Error> {
        let mut number = 1;
        self.feed.allowance.renew();
        let mut first_line = self.feed.allowance.line();
        while let Some(paragraph) = paragraphs.next_element::<Paragraph>()? {
            let last_line = self.feed.allowance.line();
            let placed = PlacedParagraph {
                paragraph,
                place: format!("paragraph {number} of {}", self.article),
                bad_byte: self.feed.failed.bad_byte(first_line..=last_line),
            };
            first_line = last_line;
            if self.feed.sender.send(Ok(placed)).is_err() {
                return Err(de::Error::custom("nobody takes the paragraphs"));
            }
            self.feed.allowance.renew();
            number += 1;
        }
        Ok(())
    }
}

/// Maximum number of questions of a paragraph. The limit of a record charges objects for their overhead in memory, but
/// a list may hold other values, of which each has two bytes in the file.
const MOST_QUESTIONS: usize = MAX_RECORD_BYTES / PART_BYTES;

/// Reads the list of the questions of a paragraph.
pub(super) fn questions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Box<RawValue>>, D::Error> {
    deserializer.deserialize_seq(Questions)
}

struct Questions;

impl<'de> Visitor<'de> for Questions {
    type Value = Vec<Box<RawValue>>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut questions = Vec::new();
        while let Some(question) = items.next_element()? {
            if questions.len() == MOST_QUESTIONS {
                return Err(de::Error::custom(format_args!(
                    "more than {MOST_QUESTIONS} questions about one context"
                )));
            }
            questions.push(question);
        }
        Ok(questions)
    }
}

/// The error for a file that is not JSON, is not of this structure, or could not be read; `line` is the current line.
fn unreadable(source: &Source, error: serde_json::Error, line: u64) -> Error {
    if error.is_io() {
        let error = io::Error::from(error);
        return if is_too_long(&error) {
            too_long(
                source,
                Some(line),
                "a paragraph (with what separates it from the next)",
                "shorten the paragraph, or check that this is the right file",
            )
        } else {
            read::failure(source, error)
        };
    }
    source.malformed(
        Some(error.line() as u64),
        "one JSON object as in SQuAD: `data` with `paragraphs`, each a `context` with `qas`",
        format!("{} (column {})", json_lines::reason(&error), error.column()),
        "correct the file; or set `format` of this source to jsonl, if each of its lines is an object",
    )
}
