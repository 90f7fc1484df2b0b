//! One record of a data file, whatever its format.

use super::split::Part;

/// One record of a data file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The record's own name, where the source has an `id` column; for conllu the sentence's `sent_id`, for squad the
    /// question's id.
    pub id: Option<String>,
    /// The text, exactly as it stands in the file; for conll and conllu all [`Record::words`] with one space between
    /// them, for squad the question.
    pub text: String,
    /// The second text, where [`WantedFields::text_pair`] asked for it; for squad always, the context.
    pub text_pair: Option<String>,
    /// The label cell without the white space around it, where [`WantedFields::label`] asked for it.
    /// For multi-label data it holds all labels: see [`Source::split_labels`](super::Source::split_labels).
    pub label: Option<String>,
    /// The labels, where the file has a list of them in place of a cell; then there is no [`Record::label`].
    pub labels: Option<Vec<String>>,
    /// The cells of [`Source::label_columns`](super::Source::label_columns), in their order, without the white space around
    /// them; what is null or not there is empty.
    pub label_cells: Vec<String>,
    /// The words as the file gives them, for conll and conllu; at least one.
    pub words: Option<Vec<String>>,
    /// One tag for each of the words, where [`WantedFields::label`] asked for it. IOB1 has become IOB2.
    pub tags: Option<Vec<String>>,
    /// The question's right answers, for squad, where [`WantedFields::label`] asked for them. None of them, though asked for,
    /// means that the context does not answer the question: see [`Record::is_impossible`].
    pub answers: Option<Vec<Answer>>,
    /// How many of these were moved to where they stand: `data.misplaced`.
    pub moved_answers: usize,
    /// What a split must not tear apart, for formats that know it: records of one source with the same name here belong
    /// together. For squad it stands for the context, for conll and conllu for the document.
    pub group: Option<String>,
    /// The part that the file says it is for: in the source's `split_column`, or by the list that it stands in.
    pub part: Option<Part>,
    /// The line (from 1) on which the record starts; for Parquet, the row (from 1); for squad, none.
    pub line: Option<u64>,
    /// Where a quoted field of a tsv file holds tabs and line ends, as if its quote were one of the text and had swallowed
    /// the lines after it: the last of these lines.
    pub swallowed_to: Option<u64>,
    /// The number of its source among those that are read together; 0 where it is read alone.
    pub source: usize,
}

/// An answer as it stands in its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its text, with any white space around it.
    pub text: String,
    /// Where it starts in the context, in characters (Unicode code points) from 0.
    pub start: usize,
}

/// Which columns a task needs, beside the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantedFields {
    /// Without it the label column (for conll and conllu the tags, for squad the answers) is not looked for.
    pub label: bool,
    /// Without it the `text_pair` column is not looked for.
    pub text_pair: bool,
}

impl Record {
    /// Whether there is nothing to encode: the text is nothing but white space, or the second text is. Half a pair is
    /// no pair, be it a question without context or a sentence without one to compare it to.
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

    /// A sentence, whose text is its words with one space between them.
    pub(super) fn of_words(words: Vec<String>, tags: Option<Vec<String>>) -> Self {
        Record { text: words.join(" "), words: Some(words), tags, ..Record::default() }
    }
}

impl Answer {
    /// Whether the answer stands in `context` where it says. No answer of no characters does.
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
        // One of two, three and four bytes in UTF-8, the last of two units in UTF-16; and one of two code points.
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
