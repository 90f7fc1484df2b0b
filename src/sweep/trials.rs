//! The trials of a pipeline's `[sweep]`: each is a pipeline of its own, with other values in `[head]` and `[train]`.

use std::collections::HashSet;

use toml::Value;

use crate::{
    config::{
        file::sweep::{GivenSettings, Search, SweepSection},
        keys::{Condition, Key},
        settings::{Pipeline, Settings},
    },
    error::{Error, Result},
    selection::trials::{MOST_TRIALS, trials as settings_of},
};

/// One setting of a sweep.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// The values of the varied keys that have an effect on its head.
    pub(super) settings: Settings,
    /// The pipeline with these values, and without a sweep.
    pub(super) pipeline: Pipeline,
}

/// The trials of a sweep.
pub(super) struct Trials {
    /// All trials, without duplicates.
    pub(super) all: Vec<Trial>,
    /// Warnings about trials that differ from what the section says.
    pub(super) warnings: Vec<String>,
}

/// Maximum number of draws, as a multiple of the number of trials asked for, if some draws make the same trial.
const MOST_DRAWN: usize = 16;

/// Number of draws in a row without a new trial after which no more are made.
const DRAWN_IN_VAIN: usize = 200;

/// Maximum number of combinations that are tried to find out whether a value is possible.
const MOST_TRIED: usize = 1000;

/// Returns the trials of a pipeline, without duplicates. A value that has no effect on a kind of head (`C` on a linear
/// one) is ignored, and an impossible combination of values is left out if each of its values is possible otherwise.
///
/// # Errors
/// Returns an error if a value is not possible in any trial.
pub(super) fn trials(base: &Pipeline, section: &SweepSection) -> Result<Trials> {
    let refuse = |[problem, hint]: [String; 2]| base.refuse(problem, hint);
    if section.keys.contains_key("layer") && section.keys.contains_key("layers") {
        return Err(refuse([
            "[sweep] has both `layer` and `layers`, which are the same key".into(),
            "leave one of them out".into(),
        ]));
    }
    if !section.searches() && (section.trials.is_some() || section.search == Search::Random) {
        return Err(refuse([
            "sweep.settings are used as they are, but sweep.trials and search = \"random\" draw from the values of \
             keys".into(),
            "leave trials and search out, or name keys with their values".into(),
        ]));
    }
    let has_both =
        |given: &GivenSettings| ["layer", "layers"].iter().all(|key| given.0.contains_key(*key));
    if section.settings.iter().any(has_both) {
        return Err(refuse([
            "a table of sweep.settings has both `layer` and `layers`, which are the same key"
                .into(),
            "leave one of them out".into(),
        ]));
    }
    let mut found = FoundTrials::default();
    let mut too_few = None;
    if section.searches() {
        too_few = found.search(base, section)?;
    }
    let mut without_effect = Vec::new();
    for (place, given) in section.settings.iter().enumerate() {
        without_effect.extend(found.add_given(base, place, given)?);
    }
    let mut trials = found.finish(base, section)?;
    trials.warnings.extend(all_layers_mixed(section));
    trials.warnings.extend(too_few.into_iter().chain(without_effect));
    Ok(trials)
}

/// The trials of the settings so far.
#[derive(Default)]
struct FoundTrials {
    all: Vec<Trial>,
    refused: Vec<(Settings, Error)>,
    seen: HashSet<String>,
}

impl FoundTrials {
    /// Adds the trials of the section's keys; returns a warning if there are fewer than it asks for.
    fn search(&mut self, base: &Pipeline, section: &SweepSection) -> Result<Option<String>> {
        let refuse = |[problem, hint]: [String; 2]| base.refuse(problem, hint);
        let mut asked = section.clone();
        let mut n_read = 0;
        loop {
            let settings = settings_of(&asked, base.seed).map_err(refuse)?;
            let (n_settings, n_before) = (settings.len(), self.all.len());
            for settings in settings.into_iter().skip(n_read) {
                if section.trials == Some(self.all.len()) {
                    break;
                }
                self.add(base, settings)?;
            }
            let (Some(wanted), Some(n_drawn)) = (section.trials, asked.trials) else {
                return Ok(None);
            };
            let is_in_vain = self.all.len() == n_before && n_settings >= n_read + DRAWN_IN_VAIN;
            n_read = n_drawn;
            let is_all = n_settings < n_drawn || n_drawn >= MOST_TRIALS.min(MOST_DRAWN * wanted);
            let n_found = self.all.len();
            if n_found == wanted {
                return Ok(None);
            }
            if is_all || is_in_vain {
                return Ok(Some(format!(
                    "sweep.trials is {wanted}, but only {n_found} settings were found that make different heads"
                )));
            }
            asked.trials = Some((2 * n_drawn).min(MOST_TRIALS));
        }
    }

    /// Adds the setting that is listed at `place`; returns a warning if some of its keys have no effect.
    fn add_given(
        &mut self,
        base: &Pipeline,
        place: usize,
        given: &GivenSettings,
    ) -> Result<Option<String>> {
        let settings: Settings =
            given.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let variant = base.variant(settings.clone())?;
        // A value that is impossible is an error here, because no other takes its place.
        let pipeline = variant.check()?;
        let idle = |(key, _): &&(String, Value)| {
            !variant.settings.iter().any(|(effective, _)| effective == key)
        };
        let idle = settings.iter().filter(idle).map(|(key, _)| key.as_str());
        let (of_layers, others): (Vec<&str>, Vec<&str>) =
            idle.partition(|key| lacks_layers(key, &pipeline));
        let mut said = Vec::new();
        if !others.is_empty() {
            let kind = pipeline.head.kind.name();
            said.push(format!("{} does not affect a head of kind {kind}", others.join(", ")));
        }
        if !of_layers.is_empty() {
            said.push(format!("{} has an effect only with unfreeze", of_layers.join(", ")));
        }
        let warning = (!said.is_empty())
            .then(|| format!("sweep.settings, number {}: {}", place + 1, said.join("; ")));
        self.add(base, settings)?;
        Ok(warning)
    }

    fn add(&mut self, base: &Pipeline, settings: Settings) -> Result<()> {
        let variant = base.variant(settings)?;
        if !self.seen.insert(format!("{:?}", variant.settings)) {
            return Ok(());
        }
        match variant.check() {
            Ok(pipeline) => self.all.push(Trial { settings: variant.settings, pipeline }),
            Err(error) => self.refused.push((variant.settings, error)),
        }
        Ok(())
    }

    /// Returns the trials, or the error of a setting that was refused for more than its combination of values.
    fn finish(self, base: &Pipeline, section: &SweepSection) -> Result<Trials> {
        let mut warnings = unused(section, &self.all);
        let n_refused = self.refused.len();
        let mut first = None;
        // Listed values that are known to be possible.
        let mut possible = Settings::new();
        for (settings, error) in self.refused {
            let is_listed = |(key, _): &&(String, Value)| !section.keys[key].is_table();
            let listed: Settings = settings.iter().filter(is_listed).cloned().collect();
            let is_drawn_value =
                listed.len() < settings.len() && base.variant(listed.clone())?.check().is_ok();
            if listed.is_empty() || is_drawn_value {
                return Err(error);
            }
            for setting in listed {
                if possible.contains(&setting) {
                    continue;
                }
                let stands = |trial: &Trial| trial.settings.contains(&setting);
                if !self.all.iter().any(stands) && !can_be(base, section, &setting)? {
                    return Err(error);
                }
                possible.push(setting);
            }
            first.get_or_insert(error);
        }
        match first {
            // Each value may be possible elsewhere, but none of these trials is.
            Some(error) if self.all.is_empty() => return Err(error),
            Some(Error::Pipeline { problem, .. }) => {
                let combinations = match n_refused {
                    1 => "one impossible combination of values is left out".to_string(),
                    n => {
                        format!("{n} impossible combinations of values are left out; the first")
                    }
                };
                warnings.push(format!("{combinations}: {problem}"));
            }
            _ => {}
        }
        Ok(Trials { all: self.all, warnings })
    }
}

/// Whether a value occurs in a possible combination of the listed values, drawn or not.
fn can_be(base: &Pipeline, section: &SweepSection, setting: &(String, Value)) -> Result<bool> {
    let (key, value) = setting;
    let mut grid = SweepSection { search: Search::Grid, trials: None, ..section.clone() };
    grid.keys.retain(|_, value| !value.is_table());
    grid.keys.insert(key.clone(), Value::Array(vec![value.clone()]));
    let Ok(combinations) = settings_of(&grid, base.seed) else {
        // Too many to try.
        return Ok(false);
    };
    for settings in combinations.into_iter().take(MOST_TRIED) {
        let variant = base.variant(settings)?;
        if variant.settings.contains(setting) && variant.check().is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns a warning if `"all"` stands for the layers, which is a mix of them where a comparison may be meant.
fn all_layers_mixed(section: &SweepSection) -> Option<String> {
    let named = ["layer", "layers"].into_iter().find(|key| {
        section.keys.get(*key).and_then(Value::as_str).is_some_and(|layers| layers == "all")
    });
    named.map(|key| {
        format!(
            "sweep.{key} = \"all\" is one value, a head on a mix of all layers: to compare the layers, list them, as in \
             {key} = [0, 1, 2]"
        )
    })
}

/// Returns warnings about keys that have no effect on any trial.
fn unused(section: &SweepSection, trials: &[Trial]) -> Vec<String> {
    let is_used = |key: &String| {
        let mut settings = trials.iter().flat_map(|trial| &trial.settings);
        settings.any(|(name, _)| name == key)
    };
    let unused = section.keys.keys().filter(|key| !is_used(key));
    let mut kinds: Vec<String> = Vec::new();
    for trial in trials {
        let kind = trial.pipeline.head.kind.name().to_string();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let kinds = kinds.join(", ");
    let reason = |key: &String| {
        if trials.iter().any(|trial| lacks_layers(key, &trial.pipeline)) {
            "has an effect only with unfreeze".to_string()
        } else {
            format!("does not affect heads of kind {kinds}")
        }
    };
    unused.map(|key| format!("sweep.{key} {}, and is left out", reason(key))).collect()
}

/// Whether a key would have an effect on a head if layers of the encoder were trained with it, and none are.
fn lacks_layers(key: &str, pipeline: &Pipeline) -> bool {
    let (task, file) = (pipeline.data.task, pipeline.file());
    let applies =
        |key: &Key| key.needs == Condition::Unfreeze && key.applies_to(task, file.head_kind());
    file.unfreeze().is_none() && Key::find(key).is_some_and(applies)
}

#[cfg(test)]
mod tests;
