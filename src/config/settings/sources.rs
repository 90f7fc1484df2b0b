//! The data files of a pipeline, completed with the settings of the whole section and with what is inferred from the
//! files themselves.

use crate::{
    config::{
        file::{DataSection, PipelineFile, Sources},
        names::{Misplaced, Task},
        settings::prompts::with_prompts,
    },
    data::{
        ColumnName, Format, Source,
        inspect::{SureText, holds_json_records},
    },
    error::{Error, Result},
};

/// The sources of train, and those of validation and test if given.
pub(super) struct FilesAsRead {
    pub(super) train: Vec<Source>,
    pub(super) validation: Option<Vec<Source>>,
    pub(super) test: Option<Vec<Source>>,
}

impl FilesAsRead {
    pub(super) fn of(file: &PipelineFile) -> FilesAsRead {
        let data = &file.data;
        let as_read = |source: &Source| {
            let source = if data.task == Task::Qa { source.as_questions() } else { source.clone() };
            let source = with_prompts(source, file);
            Source {
                skip_bad: Some(data.clean.skip_bad),
                // A question without the key of its answer would pass for one that has none.
                drops_unlabelled: data.clean.drop_unlabelled && data.task != Task::Qa,
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

/// Fails where the file speaks of answers and the task has none, or a source names columns of questions and its format has
/// no columns.
pub(super) fn refuse_keys_of_questions(
    data: &mut DataSection,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    let (task, misplaced) = (data.task, data.misplaced);
    if task != Task::Qa && misplaced != Misplaced::default() {
        return Err(refuse(
            format!("data.misplaced is `{misplaced}`, but the task is `{task}`"),
            "leave it out, because only questions have answers; or set data.task to `qa`".into(),
        ));
    }
    for source in data.sources_mut() {
        let columns = [
            (&source.question, "question"),
            (&source.context, "context"),
            (&source.answer, "answer"),
            (&source.answer_start, "answer_start"),
        ];
        let named = columns.into_iter().find_map(|(column, key)| column.as_ref().map(|_| key));
        let Some(key) = named else { continue };
        if task != Task::Qa {
            return Err(refuse(
                format!("a source sets `{key}`, but the task is `{task}`"),
                "name the columns of texts with `text` and `text_pair`, or set data.task to `qa`"
                    .into(),
            ));
        }
        // A name that tells no format is an error once the file is read.
        if let Some(format) = source.resolve_format().ok().filter(|format| !format.has_columns()) {
            return Err(refuse(
                format!("a source sets `{key}`, but a {format} file has no columns"),
                format!(
                    "leave `{key}` out, or set `format` of the source to csv, tsv, jsonl, json or parquet, if that is \
                     what the file holds"
                ),
            ));
        }
    }
    Ok(())
}

/// Sets the format of sources named `.json` to json if they hold records, so that everything that depends on the format
/// makes the same decision.
pub(super) fn tell_json(file: &mut PipelineFile) {
    for source in file.data.sources_mut() {
        if holds_json_records(source) {
            source.format = Some(Format::Json);
        }
    }
}

/// Sets the column of texts of sources that name none, if it can only be one other than `text`. Returns a note for
/// each.
pub(super) fn find_texts(file: &mut PipelineFile) -> Vec<String> {
    let others = label_columns(file);
    let mut notes = Vec::new();
    if file.data.task == Task::Qa {
        return notes;
    }
    let without = |source: &&mut Source| source.text.is_none() && !source.has_vectors();
    for source in file.data.sources_mut().filter(without) {
        // A file that cannot be read is reported when the data are read.
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

/// Returns the columns of labels that heads learn from in place of the source's own: see
/// [`Pipeline::label_columns`](super::Pipeline::label_columns).
pub(super) fn label_columns(file: &PipelineFile) -> Vec<ColumnName> {
    let swept = file.sweep.iter().flat_map(|section| section.values("label"));
    // A value that is not a column is refused when the trials are made.
    let swept = swept.filter_map(|value| value.clone().try_into().ok());
    let mut columns: Vec<ColumnName> = Vec::new();
    for column in file.train.label.iter().cloned().chain(swept) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::settings::{Pipeline, refusal};

    #[test]
    fn keys_of_questions_are_refused_where_there_are_none() {
        let check = |task: &str, source: &str, more: &str| {
            let toml = format!(
                "[model]\npath = \"m\"\n[data]\ntask = \"{task}\"\ntrain = {{ {source} }}\n{more}"
            );
            let mut file: PipelineFile = toml::from_str(&toml).unwrap();
            let path = Path::new("p.toml");
            // A lock of an earlier release may have such keys.
            assert!(Pipeline::check(path, file.clone()).is_ok(), "{source} {more}");
            refuse_keys_of_questions(&mut file.data, &refusal(path))
                .map_err(|error| error.to_string())
        };
        let (csv, nearest) = ("path = \"a.csv\"", "misplaced = \"nearest\"");
        let with_column = "path = \"a.csv\", answer_start = \"start\"";
        for (source, more) in [(csv, ""), (csv, nearest), (with_column, "")] {
            assert!(check("qa", source, more).is_ok(), "{source} {more}");
        }
        assert!(check("qa", "path = \"a.json\"", nearest).is_ok());
        for (task, source, more, problem) in [
            (
                "classification",
                csv,
                nearest,
                "data.misplaced is `nearest`, but the task is `classification`",
            ),
            (
                "tokens",
                "path = \"a.conll\", context = 1",
                "",
                "a source sets `context`, but the task is `tokens`",
            ),
            (
                "qa",
                "path = \"a.json\", question = \"q\"",
                "",
                "a source sets `question`, but a squad file has no columns",
            ),
        ] {
            let error = check(task, source, more).unwrap_err();
            assert_eq!(error, format!("p.toml: {problem}"));
        }
    }
}
