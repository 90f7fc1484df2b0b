//! A pipeline with other values of `[head]` and `[train]`, or another model, as the trials of a sweep have them.

use serde::de;
use toml::{Table, Value};

use crate::{
    config::{
        file::{
            PipelineFile,
            sweep::{GivenSettings, SweepSection},
        },
        keys::{Choice, Elsewhere, KEYS, Key, LORA_RANK, MODEL_PATH, Section, UNFREEZE},
        settings::{Pipeline, head::hidden_widths},
    },
    error::{Error, Result},
};

/// Values of keys of `[head]` and `[train]` by their last names, and of `model.path`, in the order of the keys.
pub(crate) type Settings = Vec<(String, Value)>;

/// A pipeline with other values and without its sweep, not yet checked.
#[derive(Clone, Debug)]
pub(crate) struct Variant<'a> {
    base: &'a Pipeline,
    file: PipelineFile,
    /// Those of the values that have an effect on its kind of head.
    pub(crate) settings: Settings,
}

impl Pipeline {
    /// Returns the pipeline with other values. Values that have no effect on its kind of head are left out, and so are
    /// settings of the pipeline file that this kind refuses.
    ///
    /// # Errors
    /// Returns an error if a value does not have the type of its key.
    pub(crate) fn variant(&self, settings: Settings) -> Result<Variant<'_>> {
        let mut file = self.file.clone();
        file.sweep = None;
        let named = settings.iter().find(|(key, _)| key == MODEL_PATH);
        if let Some(folder) = named.and_then(|(_, name)| self.folder_of_model(name)) {
            file.model.path = folder;
        }
        // What has an effect depends on the kind of head, then on the optimiser, the loss and the layers that are
        // trained.
        let stage = |key: &str| match key {
            "kind" => 0,
            "optimizer" | "loss" | UNFREEZE => 1,
            _ => 2,
        };
        for number in 0..=2 {
            let now = settings.iter().filter(|(key, _)| stage(key) == number);
            let now: Settings = now.filter(|(key, _)| has_effect(key, &file)).cloned().collect();
            if now.is_empty() {
                continue;
            }
            let changed = set(file, &now);
            let changed = if number == 0 { changed.and_then(leave_out) } else { changed };
            file = changed.map_err(|error| {
                let problem = error.message().trim().replace('\n', ", ");
                self.refuse(
                    format!("[sweep], {}: {problem}", described(&now)),
                    "list only values that the key can have".into(),
                )
            })?;
        }
        let mut swept = self.file.sweep.iter().flat_map(|section| section.values(UNFREEZE));
        let varies = swept.next().is_some() || settings.iter().any(|(key, _)| key == UNFREEZE);
        if varies && file.unfreeze().is_none() {
            // There are no layers to update.
            file.train.lora = None;
        }
        file.head.hidden = hidden_widths(&file);
        let widths = file.head.hidden.iter().map(|width| Value::Integer(*width as i64)).collect();
        let hidden = Value::Array(widths);
        let has_effect = |key: &str| key == MODEL_PATH || has_effect(key, &file);
        let effective = settings.into_iter().filter(|(key, _)| has_effect(key));
        let settings = effective.map(|(key, value)| match key.as_str() {
            "hidden" => (key, hidden.clone()),
            _ => (key, value),
        });
        let settings = settings.collect();
        Ok(Variant { base: self, file, settings })
    }
}

impl Pipeline {
    /// Returns the pipeline with a sweep over these settings in place of its own, whose cache stores what any of them
    /// reads. They begin with heads alone, without what only some of them can have: trained layers and principal
    /// components, and the model's default prompt if any of them trains layers.
    ///
    /// # Errors
    /// Returns an error if what is left of the file is invalid.
    pub(crate) fn comparing(&self, all: &[Settings]) -> Result<Pipeline> {
        let mut file = self.file.clone();
        file.head.pca = None;
        file.train.unfreeze = None;
        file.train.lora = None;
        file.cache.store = None;
        file.cache.layers = None;
        if self.leaves_out_prompt(all) {
            file.model.prompt = None;
        }
        let given = all.iter().map(|settings| GivenSettings(settings.iter().cloned().collect()));
        file.sweep = Some(SweepSection { settings: given.collect(), ..SweepSection::default() });
        Pipeline::check(&self.path, file)
    }

    /// Whether texts are read without the model's default prompt because some of these settings train layers, which
    /// read no prompts.
    pub(crate) fn leaves_out_prompt(&self, all: &[Settings]) -> bool {
        self.prompt_is_default && all.iter().flatten().any(|(key, _)| key == UNFREEZE)
    }

    /// Returns the checked pipeline with other values and without its sweep, as if its file had them.
    ///
    /// # Errors
    /// Returns an error if they do not fit together.
    pub(crate) fn with_settings(&self, settings: &Settings) -> Result<Pipeline> {
        let Variant { file, .. } = self.variant(settings.clone())?;
        let pipeline = Pipeline::check(&self.path, file)?;
        pipeline.check_training()?;
        Ok(pipeline)
    }
}

impl Variant<'_> {
    /// Checks the pipeline.
    ///
    /// # Errors
    /// Returns an error that names the values if they do not fit together.
    pub(crate) fn check(&self) -> Result<Pipeline> {
        let checked = Pipeline::check(&self.base.path, self.file.clone());
        let checked = checked.and_then(|pipeline| pipeline.check_training().map(|()| pipeline));
        let selected_by = self.base.selected_by.clone();
        let checked = checked.map(|pipeline| Pipeline { selected_by, ..pipeline });
        checked.map_err(|error| match error {
            Error::Pipeline { file, line, column, problem, hint } if !self.settings.is_empty() => {
                let problem = format!("[sweep], {}: {problem}", described(&self.settings));
                Error::Pipeline { file, line, column, problem, hint }
            }
            other => other,
        })
    }
}

/// Formats a value for people: strings without quotes, everything else as in TOML.
///
/// ```
/// use frostbert::internals::config::settings::show;
///
/// assert_eq!(show(&"mean".into()), "mean");
/// assert_eq!(show(&3e-4.into()), "0.0003");
/// assert_eq!(show(&vec![3, 6].into()), "[3, 6]");
/// ```
pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Formats settings for people.
pub(crate) fn described(settings: &Settings) -> String {
    let pairs = settings.iter().map(|(key, value)| format!("{key} = {}", show(value)));
    pairs.collect::<Vec<String>>().join(", ")
}

/// Removes the keys of a file that its current kind of head refuses.
fn leave_out(file: PipelineFile) -> std::result::Result<PipelineFile, toml::de::Error> {
    let refused = KEYS.iter().filter(|key| key.elsewhere != Elsewhere::Ignored);
    let refused: Vec<&Key> = refused.filter(|key| !has_effect(key.name, &file)).collect();
    edit(file, |section, table| {
        for key in refused.iter().filter(|key| key.section == section) {
            table.remove(key.name);
        }
    })
}

fn set(
    file: PipelineFile,
    settings: &Settings,
) -> std::result::Result<PipelineFile, toml::de::Error> {
    edit(file, |section, table| {
        for (name, value) in settings {
            if Key::find(name).is_none_or(|key| key.section != section) {
                continue;
            }
            let (name, value) = match (name.as_str(), value) {
                (LORA_RANK, Value::Integer(0)) => {
                    table.remove("lora");
                    continue;
                }
                (LORA_RANK, rank) => {
                    let own = table.get("lora").and_then(Value::as_table).cloned();
                    let mut own = own.unwrap_or_default();
                    own.insert("rank".into(), rank.clone());
                    ("lora", Value::Table(own))
                }
                ("layer" | "layers", Value::Array(_) | Value::String(_)) => {
                    ("layers", value.clone())
                }
                ("layer" | "layers", one) => ("layers", Value::Array(vec![one.clone()])),
                (name, value) => (name, value.clone()),
            };
            table.insert(name.into(), value);
        }
    })
}

/// Parses `[head]` and `[train]` again after a change of their keys.
fn edit(
    mut file: PipelineFile,
    change: impl Fn(Section, &mut Table),
) -> std::result::Result<PipelineFile, toml::de::Error> {
    use de::Error as _;
    let mut head = Table::try_from(&file.head).map_err(toml::de::Error::custom)?;
    let mut train = Table::try_from(&file.train).map_err(toml::de::Error::custom)?;
    change(Section::Head, &mut head);
    change(Section::Train, &mut train);
    file.head = head.try_into()?;
    file.train = train.try_into()?;
    Ok(file)
}

/// Whether a key has an effect on the head that a file describes.
fn has_effect(key: &str, file: &PipelineFile) -> bool {
    let choice = Choice {
        task: file.data.task,
        kind: file.head_kind(),
        optimizer: file.train.optimizer,
        loss: file.train.loss,
        unfreezes: file.unfreeze().is_some(),
    };
    Key::find(key).is_some_and(|key| key.has_effect(choice))
}
