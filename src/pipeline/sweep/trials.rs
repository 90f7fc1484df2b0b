//! The trials of a pipeline's `[sweep]`: each a pipeline of its own, with other values of `[head]` and `[train]`.

use std::collections::HashSet;

use toml::{Table, Value};

use crate::{
    error::{Error, Result},
    pipeline::{
        file::{HeadKind, PipelineFile},
        settings::Pipeline,
    },
    sweep::{
        section::{HEAD_KEYS, SweepSection},
        show,
        trials::{Settings, trials as settings_of},
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

/// The trials of a pipeline, each once: a value that says nothing of a kind of head (`C` of a linear one) is left out.
///
/// # Errors
/// When a trial is no pipeline that can be trained.
pub(super) fn trials(base: &Pipeline, section: &SweepSection) -> Result<Vec<Trial>> {
    let refuse = |[problem, hint]: [String; 2]| base.refuse(problem, hint);
    if section.keys.contains_key("layer") && section.keys.contains_key("layers") {
        return Err(refuse([
            "[sweep] has both `layer` and `layers`, which are the same key".into(),
            "leave one of them out".into(),
        ]));
    }
    let mut seen = HashSet::new();
    let mut all: Vec<Trial> = Vec::new();
    for settings in settings_of(section, base.file.seed).map_err(refuse)? {
        let trial = trial(base, settings)?;
        if seen.insert(format!("{:?}", trial.settings)) {
            all.push(trial);
        }
    }
    Ok(all)
}

fn trial(base: &Pipeline, settings: Settings) -> Result<Trial> {
    let mut file = base.file.clone();
    file.sweep = None;
    // What a value says depends on the kind of head, the optimiser and the loss, so these go first.
    let (first, others): (Settings, Settings) = settings
        .iter()
        .cloned()
        .partition(|(key, _)| ["kind", "optimizer", "loss"].contains(&key.as_str()));
    let with = |file: PipelineFile, settings: &Settings| {
        let told = |problem: String| {
            base.refuse(
                format!("[sweep], {}: {problem}", described(settings)),
                "name values that the key can have".into(),
            )
        };
        set(file, settings).map_err(|error| told(error.message().trim().replace('\n', ", ")))
    };
    file = with(file, &first)?;
    let others: Settings = others
        .into_iter()
        .filter(|(key, _)| says_something(key, &file))
        .collect();
    file = with(file, &others)?;
    let said: Settings = settings
        .into_iter()
        .filter(|(key, _)| says_something(key, &file))
        .collect();
    let in_trial = |error: Error| match error {
        Error::Pipeline {
            file,
            line,
            column,
            problem,
            hint,
        } => Error::Pipeline {
            file,
            line,
            column,
            problem: match said.is_empty() {
                true => problem,
                false => format!("[sweep], {}: {problem}", described(&said)),
            },
            hint,
        },
        other => other,
    };
    let pipeline = Pipeline::check(&base.path, file).map_err(in_trial)?;
    pipeline.check_training().map_err(in_trial)?;
    if pipeline.file.head.kind == HeadKind::Cosine {
        return Err(base.refuse(
            "a cosine learns nothing, so there is nothing to sweep".into(),
            "remove the section [sweep], or set head.kind".into(),
        ));
    }
    Ok(Trial {
        settings: said,
        pipeline,
    })
}

/// Settings as people read them.
pub(super) fn described(settings: &Settings) -> String {
    let pairs = settings
        .iter()
        .map(|(key, value)| format!("{key} = {}", show(value)));
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
            key if HEAD_KEYS.contains(&key) => ("head", key, value.clone()),
            key => ("train", key, value.clone()),
        };
        let section = table.get_mut(section).and_then(Value::as_table_mut);
        let section = section.expect("every section is written");
        section.insert(key.into(), value);
    }
    table.try_into()
}

/// Whether a key has a meaning for the file's kind of head, optimiser and loss.
fn says_something(key: &str, file: &PipelineFile) -> bool {
    use HeadKind::*;
    let kind = file.head.kind;
    let in_full_batch = kind.is_full_batch();
    let has_layers = matches!(kind, Mlp | Matching | Crf);
    match key {
        "kind" | "pca" | "pooling" | "layer" | "layers" | "standardize" | "max_answer_tokens"
        | "label" => true,
        "C" => matches!(kind, Logistic | LinfaLogistic | LinfaSvm),
        "lambda" => matches!(kind, Ridge | Lda),
        "hidden" | "activation" | "skip" | "layer_norm" => has_layers,
        "class_weights" => !(in_full_batch || kind == Crf) || kind == Logistic,
        "label_smoothing" => !(in_full_batch || kind == Crf),
        "momentum" => !in_full_batch && file.train.optimizer == OptimizerKind::Sgd,
        "betas" => !in_full_batch && file.train.optimizer != OptimizerKind::Sgd,
        "gamma" => !in_full_batch && file.train.loss == Some(crate::pipeline::file::Loss::Focal),
        _ => !in_full_batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(sweep: &str) -> Pipeline {
        let text = format!(
            "[model]\npath = \"model\"\n[data]\ntrain = {{ path = \"data.csv\" }}\n[sweep]\n{sweep}"
        );
        Pipeline::check("pipeline.toml".as_ref(), toml::from_str(&text).unwrap()).unwrap()
    }

    fn of(sweep: &str) -> Result<Vec<Trial>> {
        let base = base(sweep);
        let section = base.file.sweep.clone().unwrap();
        trials(&base, &section)
    }

    #[test]
    fn a_value_that_says_nothing_of_a_head_makes_no_second_trial_of_it() {
        let all = of("kind = [\"linear\", \"ridge\", \"mlp\"]\nlr = [1e-3, 1e-2]\nlambda = [0.1, 1.0, 10.0]\nhidden = [[8], [16]]").unwrap();
        let described: Vec<String> = all.iter().map(|trial| described(&trial.settings)).collect();
        assert_eq!(described.len(), 2 + 3 + 4, "{described:#?}");
        assert!(
            described.contains(&"kind = ridge, lambda = 0.1".to_string()),
            "{described:#?}"
        );
        assert!(
            described.contains(&"kind = linear, lr = 0.01".to_string()),
            "{described:#?}"
        );
        assert!(
            described.contains(&"hidden = [16], kind = mlp, lr = 0.001".to_string()),
            "{described:#?}"
        );
    }

    #[test]
    fn values_reach_the_pipeline_of_their_trial() {
        let all = of("layer = [-1, 3]\npooling = [\"cls\"]\nbatch_size = [64]").unwrap();
        assert_eq!(all.len(), 2);
        let file = &all[1].pipeline.file;
        assert_eq!(file.head.layers, [3]);
        assert_eq!(file.train.batch_size, 64);
        assert_eq!(file.sweep, None);
        let mixed = of("layers = [[1, 2], [3]]").unwrap();
        assert_eq!(mixed[0].pipeline.file.head.layers, [1, 2]);
    }

    #[test]
    fn a_sweep_stores_every_state_that_a_trial_reads() {
        let base = base("layer = [-1, 3]\npooling = [\"cls\", \"attention\"]");
        assert_eq!(base.extraction.layers, [-1, 3]);
        let kinds: Vec<&str> = base
            .extraction
            .kinds
            .iter()
            .map(|kind| kind.name())
            .collect();
        assert_eq!(kinds, ["cls", "tokens"]);
    }

    #[test]
    fn what_cannot_be_swept_is_said_with_the_setting() {
        for (text, problem) in [
            ("lr = [\"fast\"]", "lr = fast"),
            ("kind = [\"linear\", \"crf\"]", "kind = crf"),
            ("dropout = [0.1, 1.5]", "dropout = 1.5"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
