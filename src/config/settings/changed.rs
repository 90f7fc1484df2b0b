//! What a pipeline says, and what of it is not the default.

use std::path::Path;

use toml::{Table, Value};

use crate::{
    config::{
        file::{HeadSection, PipelineFile},
        settings::{Pipeline, variant::Settings},
    },
    error::{Error, Result},
};

/// Keys that say where something lies or what it is called, and those of the cache that follow from the head.
const PLACES: [&str; 7] = [
    "name",
    "run.dir",
    "model.path",
    "cache.dir",
    "cache.store",
    "cache.layers",
    "cache.shard_tokens",
];

/// Keys of data, which have no default.
const DATA: [&str; 4] = ["data.train", "data.validation", "data.test", "data.labels"];

/// All values of a checked pipeline file, each by its whole key; those that decide nothing are left out.
///
/// # Errors
/// When the file could not be a pipeline.
pub(crate) fn all_settings(file: &PipelineFile) -> Result<Settings> {
    Ok(flat(table_of(file)?, &PLACES))
}

/// The values of a checked pipeline file that are not the defaults of its task, each by its whole key; those that decide
/// nothing are left out.
///
/// # Errors
/// Returns an error if the file is not a valid pipeline.
pub(crate) fn changed_settings(file: &PipelineFile) -> Result<Settings> {
    let own = table_of(file)?;
    // What a pipeline cannot be without; all else is at its default.
    let kept = [("model", &["path"][..]), ("data", &["task", "train"])];
    let kept = kept.into_iter().filter_map(|(section, keys)| {
        let values = own.get(section)?.as_table().into_iter().flatten();
        let values = values.filter(|(key, _)| keys.contains(&key.as_str()));
        let values: Table = values.map(|(key, value)| (key.clone(), value.clone())).collect();
        Some((section.to_string(), Value::Table(values)))
    });
    let plain: PipelineFile = kept.collect::<Table>().try_into().map_err(|error| refuse(&error))?;
    let check = |plain: &PipelineFile| Pipeline::check(Path::new(DEFAULTS), plain.clone());
    // The folder of the model may ask for a pooling that is not computed, so that the file had to name one.
    let named = HeadSection { pooling: file.head.pooling, ..plain.head.clone() };
    let plain = check(&plain).or_else(|_| check(&PipelineFile { head: named, ..plain.clone() }))?;
    let left_out = [&PLACES[..], &DATA].concat();
    let defaults = flat(table_of(plain.file())?, &left_out);
    Ok(flat(own, &left_out).into_iter().filter(|setting| !defaults.contains(setting)).collect())
}

/// What stands for the path of a pipeline that says nothing.
const DEFAULTS: &str = "defaults";

fn table_of(file: &PipelineFile) -> Result<Table> {
    Table::try_from(file).map_err(|error| refuse(&error))
}

fn refuse(problem: &dyn std::fmt::Display) -> Error {
    Error::Pipeline {
        file: DEFAULTS.into(),
        line: None,
        column: None,
        problem: problem.to_string(),
        hint: "the lock was changed after the run".into(),
    }
}

/// All values of a table by their whole keys, without those of some keys. Of several sources each has its place in its
/// keys, as in `data.train[0].path`.
fn flat(table: Table, left_out: &[&str]) -> Settings {
    fn visit(table: Table, prefix: &str, left_out: &[&str], settings: &mut Settings) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                _ if left_out.contains(&key.as_str()) => {}
                Value::Table(table) => visit(table, &key, left_out, settings),
                Value::Array(sources) if DATA.contains(&key.as_str()) => {
                    let is_only = sources.len() == 1;
                    let mut others = Vec::new();
                    for (place, source) in sources.into_iter().enumerate() {
                        let key = if is_only { key.clone() } else { format!("{key}[{place}]") };
                        match source {
                            Value::Table(source) => visit(source, &key, left_out, settings),
                            other => others.push(other),
                        }
                    }
                    // Labels, which are names.
                    if !others.is_empty() {
                        settings.push((key, Value::Array(others)));
                    }
                }
                value => settings.push((key, value)),
            }
        }
    }
    let mut settings = Settings::new();
    visit(table, "", left_out, &mut settings);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_the_defaults_is_listed() {
        let text = "name = \"a\"\n[model]\npath = \"m\"\n[data]\ntask = \"multilabel\"\ntrain = { path = \"a.csv\" }\n\
                    [head]\nlayers = [3]\npooling = \"mean\"\n[train]\nlr = 0.01\nearly_stopping = false\n";
        let file = toml::from_str(text).unwrap();
        let pipeline = Pipeline::check("a.toml".as_ref(), file).unwrap();
        let settings = changed_settings(pipeline.file()).unwrap();
        let keys: Vec<&str> = settings.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["head.layers", "train.early_stopping", "train.lr"]);
        let all = all_settings(pipeline.file()).unwrap();
        assert!(settings.iter().all(|setting| all.contains(setting)), "{all:?}");
        let has = |wanted: &str| all.iter().any(|(key, _)| key == wanted);
        assert!(has("train.epochs") && has("data.train.path") && !has("model.path"), "{all:?}");
    }
    #[test]
    fn every_value_of_a_source_has_its_own_key() {
        let of = |train: &str| {
            let table = format!("[data]\nlabels = [\"x\", \"y\"]\ntrain = {train}\n");
            let settings = flat(toml::from_str(&table).unwrap(), &PLACES);
            settings.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        let labels = "data.labels=[\"x\", \"y\"]";
        assert_eq!(of("[{ path = \"a\" }]"), [labels, "data.train.path=\"a\""]);
        assert_eq!(
            of("[{ path = \"a\" }, { path = \"b\" }]"),
            [labels, "data.train[0].path=\"a\"", "data.train[1].path=\"b\""]
        );
    }
}
