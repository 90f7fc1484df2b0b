//! The data files of a pipeline as they are read: with what the whole section says of each, and what they tell
//! themselves.

use crate::{
    config::{
        file::{DataSection, PipelineFile, Sources},
        names::{Misplaced, Task},
    },
    data::{
        ColumnName, Format, Source,
        inspect::{SureText, holds_json_records},
    },
    error::{Error, Result},
};

/// The sources of train, and those of validation and test where these are given.
pub(super) struct FilesAsRead {
    pub(super) train: Vec<Source>,
    pub(super) validation: Option<Vec<Source>>,
    pub(super) test: Option<Vec<Source>>,
}

impl FilesAsRead {
    pub(super) fn of(data: &DataSection) -> FilesAsRead {
        let as_read = |source: &Source| {
            let source = if data.task == Task::Qa { source.as_questions() } else { source.clone() };
            Source {
                skip_bad: Some(data.clean.skip_bad),
                moves_answers: data.misplaced == Misplaced::Nearest,
                ..source
            }
        };
        let all = |sources: &Sources| sources.0.iter().map(as_read).collect();
        FilesAsRead {
            train: all(&data.train),
            validation: data.validation.as_ref().map(all),
            test: data.test.as_ref().map(all),
        }
    }
}

/// Fails where a source names columns of questions and the task has none.
pub(super) fn refuse_columns_of_questions(
    data: &mut DataSection,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    let task = data.task;
    let named = data.sources_mut().find_map(|source| {
        let columns = [
            (&source.question, "question"),
            (&source.context, "context"),
            (&source.answer, "answer"),
            (&source.answer_start, "answer_start"),
        ];
        columns.into_iter().find_map(|(column, key)| column.as_ref().map(|_| key))
    });
    match named {
        Some(key) if task != Task::Qa => Err(refuse(
            format!("a source names `{key}`, and the task is `{task}`"),
            "name the columns of texts with `text` and `text_pair`, or set data.task to `qa`"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// Says of sources named `.json` that they hold records where they do, so that what depends on the format is decided alike
/// everywhere.
pub(super) fn tell_json(file: &mut PipelineFile) {
    for source in file.data.sources_mut() {
        if holds_json_records(source) {
            source.format = Some(Format::Json);
        }
    }
}

/// Names the column of texts in sources that name none, where it is another one than `text` for certain. Returns what was
/// found, in words.
pub(super) fn find_texts(file: &mut PipelineFile) -> Vec<String> {
    let others = label_columns(file);
    let mut notes = Vec::new();
    if file.data.task == Task::Qa {
        return notes;
    }
    for source in file.data.sources_mut().filter(|source| source.text.is_none()) {
        // A file that cannot be read is an error once it is read.
        let Some(SureText { column, reason }) = SureText::of(source, &others) else { continue };
        let path = source.path.display();
        notes.push(format!(
            "{path} has no column `text`: texts are read from `{column}`, {reason} (`text` of the source can name another)"
        ));
        source.text = Some(ColumnName::Name(column));
    }
    notes.dedup();
    notes
}

/// The columns of labels that heads learn from in place of the source's own: see
/// [`Pipeline::label_columns`](super::Pipeline::label_columns).
pub(super) fn label_columns(file: &PipelineFile) -> Vec<ColumnName> {
    let swept = file.sweep.iter().flat_map(|section| section.values("label"));
    // What is no column is refused with the trials.
    let swept = swept.filter_map(|value| value.clone().try_into().ok());
    let mut columns: Vec<ColumnName> = Vec::new();
    for column in file.train.label.iter().cloned().chain(swept) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    columns
}
