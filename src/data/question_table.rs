//! Questions in a table, with columns `question`, `context`, `answer` and `answer_start`; and answers that are moved to
//! where they occur.

use frostbert_cache::wording::shorten;

use super::{
    Records,
    bad_rows::{BadBytes, BadRows, FailedRows},
    record::{Answer, Record, WantedFields},
    source::Source,
    until_error,
};
use crate::error::Result;

/// Reads the records of a source; those of a table of questions have the answer that their row gives, or none where its
/// cell is empty. `read` reads what it is given. Rows whose answer cannot be read are listed in `log` where bad ones are left
/// out.
pub(super) fn with_answers(
    source: &Source,
    want: WantedFields,
    log: &BadRows,
    read: impl FnOnce(&Source) -> Result<Records>,
) -> Result<Records> {
    if !(source.holds_questions && want.label) {
        return read(source);
    }
    let mut asked = source.clone();
    asked.label_columns.push(source.answer_start_column());
    let records = read(&asked)?;
    let failed = FailedRows::new(source, log, BadBytes::default());
    let source = source.clone();
    Ok(until_error(records.filter_map(move |record| {
        let record = match record {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let part = record.part;
        match with_answer(record, &source) {
            Ok(record) => Some(Ok(record)),
            Err(error) => failed.settle(part, error).err().map(Err),
        }
    })))
}

/// The record of a row, with the answer that is its label yet.
fn with_answer(mut record: Record, source: &Source) -> Result<Record> {
    let start = record.label_cells.pop().unwrap_or_default();
    if record.labels.is_some() {
        return Err(source.malformed(
            record.line,
            "one answer, or none",
            "a list of answers",
            "write the file in the format of SQuAD, where a question may have several answers",
        ));
    }
    let cell = record.label.take().unwrap_or_default();
    record.answers = Some(if cell.trim().is_empty() {
        Vec::new()
    } else {
        let start = start_of(&start, &record, source)?;
        vec![answer_of(&cell, start, record.text_pair.as_deref().unwrap_or_default())]
    });
    Ok(record)
}

/// The answer of a cell, without the blanks around it: behind the leading ones where the context has these too at `start`,
/// as a SQuAD file's answer would, and else where it says.
fn answer_of(cell: &str, start: usize, context: &str) -> Answer {
    let n_blanks = cell.chars().take_while(|c| c.is_whitespace()).count();
    let with_blanks = Answer { text: cell.trim_end().to_owned(), start };
    let n_before = if with_blanks.matches(context) { n_blanks } else { 0 };
    Answer { text: cell.trim().to_owned(), start: start.saturating_add(n_before) }
}

/// A number of characters. What counts them in Python may write it as a float.
fn start_of(cell: &str, record: &Record, source: &Source) -> Result<usize> {
    let number = cell.strip_suffix(".0").unwrap_or(cell);
    number.parse().map_err(|_| {
        source.malformed(
            record.line,
            format!(
                "the number of characters before the answer in the column {}",
                source.answer_start_column()
            ),
            match cell {
                "" => "an empty cell".to_owned(),
                cell => format!("`{}`", shorten(cell, 40)),
            },
            "correct the row; a question that its context does not answer has an empty answer",
        )
    })
}

/// Moves misplaced answers to the nearest place where they occur in their context, and counts them: see
/// [`Record::moved_answers`].
pub(super) fn with_moved_answers(records: Records) -> Records {
    Box::new(records.map(|record| {
        let mut record = record?;
        let context = record.text_pair.as_deref().unwrap_or_default();
        for answer in record.answers.iter_mut().flatten() {
            if !answer.matches(context)
                && let Some(start) = nearest(answer, context)
            {
                answer.start = start;
                record.moved_answers += 1;
            }
        }
        Ok(record)
    }))
}

/// Returns the position of an answer in a context, in characters: the one nearest to its start, or the first of two
/// that are equally near.
fn nearest(answer: &Answer, context: &str) -> Option<usize> {
    if answer.text.is_empty() {
        return None;
    }
    let text = answer.text.as_str();
    let from = context.char_indices().nth(answer.start).map_or(context.len(), |(byte, _)| byte);
    // The last that starts before `from` may end behind it: occurrences may overlap.
    let end = context.floor_char_boundary(from + text.len() - 1);
    let before = context[..end].rfind(text);
    let after = context[from..].find(text).map(|byte| from + byte);
    let places = [before, after].into_iter().flatten().map(|byte| context[..byte].chars().count());
    places.min_by_key(|place| place.abs_diff(answer.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read;

    fn source(name: &str) -> Source {
        Source::new(name).as_questions()
    }

    fn read_str(content: &str, source: Source) -> Result<Vec<Record>> {
        let folder = tempfile::tempdir().unwrap();
        let source = Source { path: folder.path().join(&source.path), ..source };
        std::fs::write(&source.path, content).unwrap();
        read(&source, WantedFields { label: true, text_pair: true })?.collect()
    }

    fn answer(text: &str, start: usize) -> Answer {
        Answer { text: text.to_owned(), start }
    }

    #[test]
    fn a_row_is_a_question_with_its_answer_or_none() {
        let csv = "question,context,answer,answer_start\nWho?,\"It was Ann, not Bo.\",Ann,7.0\nWhy?,It was.,,\n";
        let lines = "{\"question\": \"Who?\", \"context\": \"It was Ann, not Bo.\", \"answer\": \"Ann\", \"answer_start\": 7}\n\
                     {\"question\": \"Why?\", \"context\": \"It was.\", \"answer\": null, \"answer_start\": null}\n";
        for (name, content) in [("a.csv", csv), ("a.jsonl", lines)] {
            let records = read_str(content, source(name)).unwrap();
            assert_eq!((records[0].text.as_str(), records[1].text.as_str()), ("Who?", "Why?"));
            assert_eq!(records[0].answers, Some(vec![answer("Ann", 7)]), "{name}");
            assert!(records[1].is_impossible());
        }
        let bad = csv.replace("7.0", "x");
        let error = read_str(&bad, source("a.csv")).unwrap_err().to_string();
        assert!(error.contains("a.csv:2: expected the number of characters"), "{error}");
        let error = read_str("question,text\n", source("a.csv")).unwrap_err();
        assert!(error.to_string().contains("a column `context` for `context`"), "{error}");
        assert!(error.hint().unwrap().contains("set `context`"), "{error}");
    }

    #[test]
    fn blanks_around_an_answer_count_or_do_not() {
        let csv = "question,context,answer,answer_start\nWho?,It was Ann.,\" Ann \",6\nWho?,It was Ann.,\" Ann \",7\n\
                   Who?,It was Ann.,\" Ann\",2\nWhy?,It was.,  ,\n";
        let lines = csv.lines().skip(1).map(|row| {
            let cells: Vec<&str> = row.split(',').map(|cell| cell.trim_matches('"')).collect();
            format!(
                "{{\"question\": \"{}\", \"context\": \"{}\", \"answer\": \"{}\", \"answer_start\": \" {} \"}}\n",
                cells[0], cells[1], cells[2], cells[3]
            )
        });
        for (name, content) in [("a.csv", csv.to_owned()), ("a.jsonl", lines.collect())] {
            let records = read_str(&content, source(name)).unwrap();
            let answers: Vec<_> =
                records.into_iter().map(|record| record.answers.unwrap()).collect();
            let found = |start| vec![answer("Ann", start)];
            assert_eq!(answers, [found(7), found(7), found(2), Vec::new()], "{name}");
        }
    }

    #[test]
    fn a_correct_start_stays_where_the_answer_also_stands_behind_it() {
        assert_eq!(answer_of(" 1", 7, "It was 11 then."), answer("1", 7));
        assert_eq!(answer_of(" 1 ", 6, "It was 11 then."), answer("1", 7));
        assert_eq!(answer_of("1", 8, "It was 11 then."), answer("1", 8));
    }

    #[test]
    fn an_answer_is_moved_to_the_nearest_place() {
        let moved = |text: &str, start: usize, context: &str| {
            let record = Record {
                text_pair: Some(context.to_owned()),
                answers: Some(vec![answer(text, start)]),
                ..Record::default()
            };
            let records: Records = Box::new(std::iter::once(Ok(record)));
            let record = with_moved_answers(records).next().unwrap().unwrap();
            (record.answers.unwrap()[0].start, record.moved_answers)
        };
        let context = "\u{e9} Ann and Ann met Ann.";
        assert_eq!(moved("Ann", 2, context), (2, 0), "it stands there");
        assert_eq!(moved("Ann", 3, context), (2, 1));
        assert_eq!(moved("Ann", 6, context), (2, 1), "of two as near the first");
        assert_eq!(moved("Ann", 9, context), (10, 1));
        assert_eq!(moved("Ann", 900, context), (18, 1));
        assert_eq!(moved("Bo", 3, context), (3, 0), "it stands nowhere");
        assert_eq!(moved("ana", 4, "bananas"), (3, 1), "two that overlap");
        assert_eq!(moved("ana", 2, "bananas"), (1, 1), "two that overlap, as near");
        assert_eq!(moved("\u{e9}\u{e9}", 9, "a\u{e9}\u{e9}\u{e9}"), (2, 1), "behind the end");
        assert_eq!(moved("ab", 2, "\u{e9}ba\u{e9}ab"), (4, 1), "none before");
    }
}
