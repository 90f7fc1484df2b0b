//! The data files of a pipeline as they are read: with what the whole section says of each, and what they tell
//! themselves.

use crate::{
    config::file::{DataSection, PipelineFile, Sources},
    data::{ColumnName, Source, inspect::SureText},
};

/// The sources of train, and those of validation and test where these are given.
pub(super) struct FilesAsRead {
    pub(super) train: Vec<Source>,
    pub(super) validation: Option<Vec<Source>>,
    pub(super) test: Option<Vec<Source>>,
}

impl FilesAsRead {
    pub(super) fn of(data: &DataSection) -> FilesAsRead {
        let as_read =
            |source: &Source| Source { skip_bad: Some(data.clean.skip_bad), ..source.clone() };
        let all = |sources: &Sources| sources.0.iter().map(as_read).collect();
        FilesAsRead {
            train: all(&data.train),
            validation: data.validation.as_ref().map(all),
            test: data.test.as_ref().map(all),
        }
    }
}

/// Names the column of texts in sources that name none, where it is another one than `text` for certain. Returns what was
/// found, in words.
pub(super) fn find_texts(file: &mut PipelineFile) -> Vec<String> {
    let others = label_columns(file);
    let mut notes = Vec::new();
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
