//! Parses the text of a pipeline file, with overrides of its values, to a [`PipelineFile`] for each of its tasks.
//! Errors have line and column.

use std::path::Path;

use frostbert_cache::wording::nearest;
use serde::de::DeserializeOwned;

use crate::{
    config::{
        file::{PipelineFile, TasksFile},
        keys::KEYS,
        text_file,
    },
    error::{Error, Result},
};

/// Maximum size of a pipeline file in MiB: room for a list of about 100,000 labels.
const MAX_MIB: u64 = 8;

/// Reads a pipeline file and applies overrides such as `train.lr=1e-3`. Returns one pipeline without a name, or one for
/// each `[tasks.NAME]`.
///
/// # Errors
/// Returns an error if the file cannot be read or is not TOML, or if a key or a value is unknown: with line and column,
/// or with the override.
pub(crate) fn read(
    path: &Path,
    overrides: &[String],
) -> Result<Vec<(Option<String>, PipelineFile)>> {
    let text = text_file::read(path, MAX_MIB)?;
    let table = toml::from_str::<toml::Table>(&text);
    if !table.is_ok_and(|table| table.contains_key("tasks")) {
        return Ok(vec![(None, read_as(path, &text, overrides)?)]);
    }
    let file: TasksFile = read_as(path, &text, overrides)?;
    if file.tasks.is_empty() {
        return Err(Error::Pipeline {
            file: path.to_path_buf(),
            line: None,
            column: None,
            problem: "[tasks] has no task".into(),
            hint: "give each task its sections, as in [tasks.sentiment.data]".into(),
        });
    }
    let tasks = file.tasks.into_iter().map(|(name, task)| {
        let pipeline = PipelineFile {
            name: file.name.clone(),
            seed: file.seed,
            run: file.run.clone(),
            model: file.model.clone(),
            data: task.data,
            cache: file.cache.clone(),
            head: task.head,
            train: task.train,
            sweep: task.sweep,
        };
        (Some(name), pipeline)
    });
    Ok(tasks.collect())
}

fn read_as<T: DeserializeOwned>(path: &Path, text: &str, overrides: &[String]) -> Result<T> {
    let plain = || toml::from_str::<T>(text).map_err(|error| located(path, text, &error));
    if overrides.is_empty() {
        return plain();
    }
    let original: toml::Table =
        toml::from_str(text).map_err(|error| located(path, text, &error))?;
    let with = |settings: &[String]| {
        let mut table = original.clone();
        for setting in settings {
            apply_override(&mut table, setting)?;
        }
        Ok::<_, Error>(table.try_into::<T>())
    };
    let error = match with(overrides)? {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    // If the file is wrong even without overrides, its own error gives the line.
    plain()?;
    let fails_alike = |other: &toml::de::Error| other.message() == error.message();
    let mut culprit = overrides;
    for n in 1..=overrides.len() {
        if with(&overrides[..n])?.is_err_and(|other| fails_alike(&other)) {
            culprit = &overrides[n - 1..n];
            break;
        }
    }
    let message = error.message().trim().replace('\n', ", ");
    let error = override_error(format!("`{}`: {message}", culprit.join(" ")));
    Err(match (meant(&message), error) {
        (Some(meant), Error::Pipeline { file, line, column, problem, hint }) => {
            let hint = format!("did you mean `{meant}`? {hint}");
            Error::Pipeline { file, line, column, problem, hint }
        }
        (_, error) => error,
    })
}

/// Suggests what was probably meant if a message says that a key or a value is unknown: one of the known ones that the
/// message lists, or a key of that name in another section.
fn meant(message: &str) -> Option<String> {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let typed = quoted.next()?;
    let in_another_section = || {
        let key = KEYS.iter().find(|key| key.name == typed)?;
        Some(format!("{}.{typed}", key.section.name()))
    };
    nearest(typed, quoted).map(String::from).or_else(in_another_section)
}

pub(crate) fn apply_override(table: &mut toml::Table, setting: &str) -> Result<()> {
    let (key, value) = setting
        .split_once('=')
        .ok_or_else(|| override_error(format!("expected key=value, got `{setting}`")))?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let value = match parsed.and_then(|mut parsed| parsed.remove("value")) {
        Some(parsed) => parsed,
        None if value.trim_start().starts_with(['[', '{']) => {
            return Err(override_error(format!(
                "`{value}` is not a list or table: put the texts in it in quotes, and close every bracket, as in \
                 '{key}=[\"a\", \"b\"]'"
            )));
        }
        // A bare word is a string.
        None => toml::Value::String(value.to_string()),
    };
    let mut parts = key.trim().split('.').peekable();
    let mut table = table;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            table.insert(part.to_string(), value);
            return Ok(());
        }
        let inner = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = inner.as_table_mut().ok_or_else(|| {
            override_error(format!("`{part}` in `{key}` is a value, not a table"))
        })?;
    }
    Ok(())
}

fn override_error(problem: String) -> Error {
    Error::Pipeline {
        file: "--set".into(),
        line: None,
        column: None,
        problem,
        hint: "write --set section.key=value, as in --set train.lr=1e-3".into(),
    }
}

fn located(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().map(|span| &text[..span.start.min(text.len())]);
    let line = before.map(|before| before.matches('\n').count() as u64 + 1);
    let problem = error.message().trim().replace('\n', ", ");
    let where_all_stand = "every key and its default are in docs/pipeline.md";
    let hint = match meant(&problem) {
        Some(meant) => format!("did you mean `{meant}`? {where_all_stand}"),
        None => where_all_stand.into(),
    };
    let column =
        before.map(|before| before.rsplit('\n').next().unwrap_or("").chars().count() as u64 + 1);
    Error::Pipeline { file: path.to_path_buf(), line, column, problem, hint }
}
