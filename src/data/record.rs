//! A record of a data file, in any format.

use super::{prompts::Prompts, split::Part, vector::Vector};

/// One record of a data file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Its id, if the source has an `id` column; for conllu the sentence's `sent_id`, for squad the question's id, for
    /// folders the path in the folder.
    pub id: Option<String>,
    /// Its text, exactly as in the file; for conll and conllu all [`Record::words`] joined by single spaces, for squad
    /// the question.
    pub text: String,
    /// Its second text, if [`WantedFields::text_pair`] is set; for squad always the context.
    pub text_pair: Option<String>,
    /// The label cell without surrounding white space, if [`WantedFields::label`] is set. For multi-label data it holds
    /// all labels: see [`Source::split_labels`](super::Source::split_labels).
    pub label: Option<String>,
    /// The labels, if the file has a list of them instead of a cell; [`Record::label`] is then `None`.
    pub labels: Option<Vec<String>>,
    /// The cells of [`Source::label_columns`](super::Source::label_columns), in their order, without surrounding white
    /// space; a null or missing cell is empty.
    pub label_cells: Vec<String>,
    /// The values of [`Source::kept_columns`](super::Source::kept_columns), in their order, as the file spells them; `None`
    /// for a null or missing one.
    pub kept: Vec<Option<String>>,
    /// Its vector, where the source has these in place of texts; [`Record::text`] is then its id, or `row 17`.
    pub vector: Option<Vector>,
    /// The words of the file, for conll and conllu; at least one.
    pub words: Option<Vec<String>>,
    /// One tag for each word, if [`WantedFields::label`] is set. IOB1 is converted to IOB2.
    pub tags: Option<Vec<String>>,
    /// The correct answers to the question, for qa, if [`WantedFields::label`] is set. An empty list means that the
    /// context does not answer the question: see [`Record::is_impossible`].
    pub answers: Option<Vec<Answer>>,
    /// Number of answers that were moved to a place where they occur: `data.misplaced`.
    pub moved_answers: usize,
    /// The group that a split must not separate, for formats that have one: records of one source with the same value
    /// belong together. For squad it stands for the context, for conll and conllu for the document.
    pub group: Option<String>,
    /// The split that the file assigns the record to, by the source's `split_column` or by the list that holds it.
    pub part: Option<Part>,
    /// The line (from 1) on which the record starts; for Parquet, the row (from 1); for squad and folders, `None`.
    pub line: Option<u64>,
    /// The last line of a quoted field of a tsv file that contains tabs and line ends, as if its quote were part of the
    /// text and the following lines had been swallowed.
    pub swallowed_to: Option<u64>,
    /// The index of its source among those that are read together; 0 if it is read alone.
    pub source: usize,
    /// What is put before its texts when they are encoded: the prompts of its source, if it is read with others.
    pub prompts: Prompts,
}

/// An answer and its position in the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its text, including any surrounding white space.
    pub text: String,
    /// Its start in the context, in characters (Unicode code points) from 0.
    pub start: usize,
}

/// The columns that a task needs in addition to the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantedFields {
    /// Whether the label column (for conll and conllu the tags, for squad the answers) is read; if not, it may be
    /// missing.
    pub label: bool,
    /// Whether the `text_pair` column is read; if not, it may be missing.
    pub text_pair: bool,
}

impl Record {
    /// Whether there is nothing to encode: the text or the second text consists of white space. Half a pair does not
    /// count, be it a question without a context or a sentence without one to compare it to.
    ///
    /// ```
    /// use frostbert::internals::data::Record;
    ///
    /// let question = Record { text: "Who?".into(), text_pair: Some(" \n".into()), ..Record::default() };
    /// assert!(question.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        let parts = [Some(&self.text), self.text_pair.as_ref()];
        parts.into_iter().flatten().any(|part| part.trim().is_empty())
    }

    /// Whether this is a question that its context is known not to answer.
    pub fn is_impossible(&self) -> bool {
        self.answers.as_ref().is_some_and(Vec::is_empty)
    }

    /// Creates a sentence whose text is its words joined by single spaces.
    pub(super) fn of_words(words: Vec<String>, tags: Option<Vec<String>>) -> Self {
        Record { text: words.join(" "), words: Some(words), tags, ..Record::default() }
    }
}

impl Answer {
    /// Whether the answer occurs in `context` at its position. An empty answer never does.
    ///
    /// ```
    /// use frostbert::internals::data::Answer;
    ///
    /// let answer = Answer { text: "caf\u{e9}".into(), start: 7 };
    /// assert!(answer.matches("le pr\u{e9}-caf\u{e9}") && !answer.matches("caf\u{e9}"));
    /// ```
    pub fn matches(&self, context: &str) -> bool {
        let mut starts = context.char_indices().map(|(byte, _)| byte);
        let found = starts.nth(self.start).map(|byte| &context[byte..]);
        !self.text.is_empty() && found.is_some_and(|rest| rest.starts_with(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(text: &str, text_pair: Option<&str>) -> Record {
        Record {
            text: text.to_owned(),
            text_pair: text_pair.map(str::to_owned),
            ..Record::default()
        }
    }

    #[test]
    fn an_example_is_empty_where_a_text_of_it_is_white_space() {
        for (text, text_pair, empty) in [
            ("", None, true),
            ("\u{a0}\t\r\n", None, true),
            ("a", None, false),
            ("a", Some("b"), false),
            ("a", Some(""), true),
            (" ", Some("b"), true),
            ("", Some(""), true),
        ] {
            assert_eq!(example(text, text_pair).is_empty(), empty, "{text:?} {text_pair:?}");
        }
    }

    #[test]
    fn answers_that_were_not_asked_for_are_not_impossible() {
        let with = |answers| Record { answers, ..example("q", Some("c")) };
        assert!(!with(None).is_impossible());
        assert!(with(Some(Vec::new())).is_impossible());
        let answer = Answer { text: "c".to_owned(), start: 0 };
        assert!(!with(Some(vec![answer])).is_impossible());
    }

    #[test]
    fn an_answers_start_counts_code_points() {
        // Characters of two, three and four bytes in UTF-8 (the last of two units in UTF-16), and one of two code
        // points.
        let context = "\u{e9}\u{20ac}\u{1f600}e\u{301}x y";
        for (text, start, matches) in [
            ("x", 5, true),
            (" y", 6, true),
            ("y", 7, true),
            ("y ", 7, false),
            ("y", 8, false),
            ("", 0, false),
            ("\u{e9}", 0, true),
            ("x", 4, false),
        ] {
            let answer = Answer { text: text.to_owned(), start };
            assert_eq!(answer.matches(context), matches, "{text:?} at {start}");
        }
    }
}
