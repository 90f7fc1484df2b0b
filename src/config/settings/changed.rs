//! What a pipeline says other than the defaults.

use std::path::Path;

use toml::{Table, Value};

use crate::{
    config::{
        file::PipelineFile,
        settings::{Pipeline, variant::Settings},
    },
    error::{Error, Result},
};

/// Keys that say where something lies or what it is called, and those of the cache that follow from the head.
const PLACES: [&str; 11] = [
    "name",
    "run.dir",
    "model.path",
    "data.train",
    "data.validation",
    "data.test",
    "data.labels",
    "cache.dir",
    "cache.store",
    "cache.layers",
    "cache.shard_tokens",
];

/// The values of a checked pipeline file that are not the defaults of its task, each by its whole key; those that decide
/// nothing are left out.
///
/// # Errors
/// When the file could not be a pipeline.
pub(crate) fn changed_settings(file: &PipelineFile) -> Result<Settings> {
    let place = Path::new("defaults");
    let refuse = |problem: &dyn std::fmt::Display| Error::Pipeline {
        file: place.to_path_buf(),
        line: None,
        column: None,
        problem: problem.to_string(),
        hint: "the lock was changed after the run".into(),
    };
    let own = Table::try_from(file).map_err(|error| refuse(&error))?;
    // What a pipeline cannot be without; all else is at its default.
    let kept = [("model", &["path"][..]), ("data", &["task", "train"])];
    let kept = kept.into_iter().map(|(section, keys)| {
        let values = own[section].as_table().into_iter().flatten();
        let values = values.filter(|(key, _)| keys.contains(&key.as_str()));
        let values: Table = values.map(|(key, value)| (key.clone(), value.clone())).collect();
        (section.to_string(), Value::Table(values))
    });
    let plain: PipelineFile = kept.collect::<Table>().try_into().map_err(|error| refuse(&error))?;
    let plain = Pipeline::check(place, plain)?;
    let defaults = Table::try_from(plain.file()).map_err(|error| refuse(&error))?;
    let defaults = flat(defaults);
    Ok(flat(own).into_iter().filter(|setting| !defaults.contains(setting)).collect())
}

/// All values of a table by their whole keys.
fn flat(table: Table) -> Settings {
    fn visit(table: Table, prefix: &str, settings: &mut Settings) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                _ if PLACES.contains(&key.as_str()) => {}
                Value::Table(table) => visit(table, &key, settings),
                value => settings.push((key, value)),
            }
        }
    }
    let mut settings = Settings::new();
    visit(table, "", &mut settings);
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
    }
}
