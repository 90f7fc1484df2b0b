//! The trials of a pipeline's `[sweep]`: each a pipeline of its own, with other values of `[head]` and `[train]`.

use std::collections::HashSet;

use toml::{Table, Value};

use crate::{
    config::{
        file::{
            PipelineFile,
            sweep::{Search, SweepSection},
        },
        keys::{Key, Section},
        names::{HeadKind, Task},
        settings::Pipeline,
    },
    error::{Error, Result},
    selection::{
        show,
        trials::{MOST_TRIALS, Settings, trials as settings_of},
    },
    train::optimizer::OptimizerKind,
};

/// One setting of a sweep.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// What varies, where it says anything in this trial.
    pub(super) settings: Settings,
    /// The pipeline with these values, and without a sweep.
    pub(super) pipeline: Pipeline,
}

/// The trials of a sweep.
pub(super) struct Trials {
    /// Each once.
    pub(super) all: Vec<Trial>,
    /// What is not as the section reads.
    pub(super) warnings: Vec<String>,
}

/// So many times as many settings as asked for are drawn at most, where some of them are the same trial.
const MOST_DRAWN: usize = 16;

/// Draws in a row that come to no new trial before no more are made.
const DRAWN_IN_VAIN: usize = 200;

/// Combinations that are tried at most to see whether a value can be.
const MOST_TRIED: usize = 1000;

/// The trials of a pipeline, each once: a value that says nothing of a kind of head (`C` of a linear one) is left out, and
/// so are combinations of values that cannot be, where each of the values can.
///
/// # Errors
/// When a value is none that a trial can have.
pub(super) fn trials(base: &Pipeline, section: &SweepSection) -> Result<Trials> {
    let refuse = |[problem, hint]: [String; 2]| base.refuse(problem, hint);
    if section.keys.contains_key("layer") && section.keys.contains_key("layers") {
        return Err(refuse([
            "[sweep] has both `layer` and `layers`, which are the same key".into(),
            "leave one of them out".into(),
        ]));
    }
    let mut found = SettingScores::default();
    let mut asked = section.clone();
    let mut n_read = 0;
    loop {
        let settings = settings_of(&asked, base.file.seed).map_err(refuse)?;
        let (n_settings, n_before) = (settings.len(), found.all.len());
        for settings in settings.into_iter().skip(n_read) {
            if section.trials == Some(found.all.len()) {
                break;
            }
            found.add(base, settings)?;
        }
        let (Some(wanted), Some(n_drawn)) = (section.trials, asked.trials) else {
            return found.finish(base, section);
        };
        let is_in_vain = found.all.len() == n_before && n_settings >= n_read + DRAWN_IN_VAIN;
        n_read = n_drawn;
        let is_all = n_settings < n_drawn || n_drawn >= MOST_TRIALS.min(MOST_DRAWN * wanted);
        let is_enough = found.all.len() == wanted;
        if is_enough || is_all || is_in_vain {
            let mut trials = found.finish(base, section)?;
            if !is_enough {
                trials.warnings.push(format!(
                    "sweep.trials is {wanted}, and {} settings were found that differ in what they say of their heads",
                    trials.all.len()
                ));
            }
            return Ok(trials);
        }
        asked.trials = Some((2 * n_drawn).min(MOST_TRIALS));
    }
}

/// What settings came to so far.
#[derive(Default)]
struct SettingScores {
    all: Vec<Trial>,
    refused: Vec<(Settings, Error)>,
    seen: HashSet<String>,
}

impl SettingScores {
    fn add(&mut self, base: &Pipeline, settings: Settings) -> Result<()> {
        let (file, predictions) = read(base, settings)?;
        if !self.seen.insert(format!("{predictions:?}")) {
            return Ok(());
        }
        match check(base, file, &predictions) {
            Ok(pipeline) => self.all.push(Trial { settings: predictions, pipeline }),
            Err(error) => self.refused.push((predictions, error)),
        }
        Ok(())
    }

    /// The trials, where what was refused is a matter of combinations alone.
    fn finish(self, base: &Pipeline, section: &SweepSection) -> Result<Trials> {
        let mut warnings = unused(section, &self.all);
        let n_refused = self.refused.len();
        let mut first = None;
        // Listed values that can be, as far as that was asked.
        let mut possible = Settings::new();
        for (predictions, error) in self.refused {
            let is_listed = |(key, _): &&(String, Value)| !section.keys[key].is_table();
            let listed: Settings = predictions.iter().filter(is_listed).cloned().collect();
            let is_drawn_value = listed.len() < predictions.len() && {
                let (file, predictions) = read(base, listed.clone())?;
                check(base, file, &predictions).is_ok()
            };
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
            // Whatever each value can do elsewhere, none of these trials can be.
            Some(error) if self.all.is_empty() => return Err(error),
            Some(Error::Pipeline { problem, .. }) => {
                let combinations = match n_refused {
                    1 => "one combination of values that cannot be is left out".to_string(),
                    n => {
                        format!("{n} combinations of values that cannot be are left out; the first")
                    }
                };
                warnings.push(format!("{combinations}: {problem}"));
            }
            _ => {}
        }
        Ok(Trials { all: self.all, warnings })
    }
}

/// Whether a value stands in any combination of the listed values that can be, drawn or not.
fn can_be(base: &Pipeline, section: &SweepSection, setting: &(String, Value)) -> Result<bool> {
    let (key, value) = setting;
    let mut grid = SweepSection { search: Search::Grid, trials: None, ..section.clone() };
    grid.keys.retain(|_, value| !value.is_table());
    grid.keys.insert(key.clone(), Value::Array(vec![value.clone()]));
    let Ok(combinations) = settings_of(&grid, base.file.seed) else {
        // Too many to be gone through.
        return Ok(false);
    };
    for settings in combinations.into_iter().take(MOST_TRIED) {
        let (file, predictions) = read(base, settings)?;
        if predictions.contains(setting) && check(base, file, &predictions).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Of keys that say nothing of any trial.
fn unused(section: &SweepSection, trials: &[Trial]) -> Vec<String> {
    let says = |key: &String| {
        let mut settings = trials.iter().flat_map(|trial| &trial.settings);
        settings.any(|(predictions, _)| predictions == key)
    };
    let unused = section.keys.keys().filter(|key| !says(key));
    let mut kinds: Vec<String> = Vec::new();
    for trial in trials {
        let kind = trial.pipeline.file.head.kind.to_string();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let kinds = kinds.join(", ");
    unused
        .map(|key| format!("sweep.{key} changes nothing of heads of kind {kinds}, and is left out"))
        .collect()
}

/// What settings come to in the pipeline file, and those of them that say something there.
fn read(base: &Pipeline, settings: Settings) -> Result<(PipelineFile, Settings)> {
    let mut file = base.file.clone();
    file.sweep = None;
    // What a value says depends on the kind of head, then on the optimiser and the loss.
    let stage = |key: &str| match key {
        "kind" => 0,
        "optimizer" | "loss" => 1,
        _ => 2,
    };
    let with = |file: PipelineFile, settings: &Settings| {
        let told = |problem: String| {
            base.refuse(
                format!("[sweep], {}: {problem}", described(settings)),
                "name values that the key can have".into(),
            )
        };
        set(file, settings).map_err(|error| told(error.message().trim().replace('\n', ", ")))
    };
    for number in 0..=2 {
        let own = settings.iter().filter(|(key, _)| stage(key) == number);
        let own = own.filter(|(key, _)| says_something(key, &file));
        let own: Settings = own.cloned().collect();
        file = with(file, &own)?;
        if number == 0 && !own.is_empty() {
            leave_out(&mut file);
        }
    }
    file.head.hidden = file.hidden_layers();
    let predictions =
        settings.into_iter().filter(|(key, _)| says_something(key, &file)).map(|(key, value)| {
            match key.as_str() {
                "hidden" => {
                    let widths = file.head.hidden.iter();
                    (key, Value::Array(widths.map(|width| Value::Integer(*width as i64)).collect()))
                }
                _ => (key, value),
            }
        });
    let predictions = predictions.collect();
    Ok((file, predictions))
}

/// Leaves out of a file the settings of another kind of head than the one that it has now.
fn leave_out(file: &mut PipelineFile) {
    if !says_something("hidden", file) {
        file.head.hidden.clear();
    }
    if !says_something("pca", file) {
        file.head.pca = None;
    }
    if !says_something("class_weights", file) {
        file.train.class_weights = None;
    }
    if !says_something("label_smoothing", file) {
        file.train.label_smoothing = 0.0;
    }
}

/// The pipeline of a trial.
fn check(base: &Pipeline, file: PipelineFile, predictions: &Settings) -> Result<Pipeline> {
    let in_trial = |error: Error| match error {
        Error::Pipeline { file, line, column, problem, hint } => Error::Pipeline {
            file,
            line,
            column,
            problem: if predictions.is_empty() {
                problem
            } else {
                format!("[sweep], {}: {problem}", described(predictions))
            },
            hint,
        },
        other => other,
    };
    let pipeline = Pipeline::check(&base.path, file).map_err(in_trial)?;
    pipeline.check_training().map_err(in_trial)?;
    Ok(pipeline)
}

/// Settings as people read them.
pub(super) fn described(settings: &Settings) -> String {
    let pairs = settings.iter().map(|(key, value)| format!("{key} = {}", show(value)));
    pairs.collect::<Vec<String>>().join(", ")
}

fn set(
    file: PipelineFile,
    settings: &Settings,
) -> std::result::Result<PipelineFile, toml::de::Error> {
    if settings.is_empty() {
        return Ok(file);
    }
    let mut table = Table::try_from(&file).expect("a pipeline that was read can be written");
    for (key, value) in settings {
        let (section, key, value) = match key.as_str() {
            "layer" | "layers" => {
                let layers = match value {
                    Value::Array(_) => value.clone(),
                    one => Value::Array(vec![one.clone()]),
                };
                ("head", "layers", layers)
            }
            key if Key::find(key).is_some_and(|key| key.section == Section::Head) => {
                ("head", key, value.clone())
            }
            key => ("train", key, value.clone()),
        };
        let section = table.get_mut(section).and_then(Value::as_table_mut);
        let section = section.expect("every section is written");
        section.insert(key.into(), value);
    }
    table.try_into()
}

/// Whether a key has a meaning for the file's task, kind of head, optimiser and loss.
fn says_something(key: &str, file: &PipelineFile) -> bool {
    use HeadKind::*;
    let (task, kind) = (file.data.task, file.head.kind);
    let learns = kind != Cosine;
    let has_epochs = kind.has_epochs();
    let has_layers = matches!(kind, Mlp | Matching | Crf);
    match key {
        "kind" | "layer" | "layers" => true,
        // Tags and answers are of words and tokens, which are not pooled.
        "pooling" => !matches!(task, Task::Tokens | Task::Qa),
        "max_answer_tokens" => task == Task::Qa,
        "pca" | "standardize" | "label" => learns,
        "C" => matches!(kind, Logistic | LinfaLogistic | LinfaSvm),
        "lambda" => matches!(kind, Ridge | Lda),
        "hidden" | "activation" | "skip" | "layer_norm" => has_layers,
        "class_weights" => has_epochs && kind != Crf || kind == Logistic,
        "label_smoothing" => has_epochs && kind != Crf,
        "momentum" => has_epochs && file.train.optimizer == OptimizerKind::Sgd,
        "betas" => has_epochs && file.train.optimizer != OptimizerKind::Sgd,
        "gamma" => has_epochs && file.train.loss == Some(crate::config::names::Loss::Focal),
        _ => has_epochs,
    }
}

#[cfg(test)]
mod tests;
