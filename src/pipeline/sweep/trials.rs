//! The trials of a pipeline's `[sweep]`: each a pipeline of its own, with other values of `[head]` and `[train]`.

use std::collections::HashSet;

use toml::{Table, Value};

use crate::{
    error::{Error, Result},
    head::size::MLP_WIDTH,
    pipeline::{
        file::{HeadKind, PipelineFile, Task},
        settings::Pipeline,
    },
    sweep::{
        section::{HEAD_KEYS, SweepSection},
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
    let mut asked = section.clone();
    loop {
        let settings = settings_of(&asked, base.file.seed).map_err(refuse)?;
        let n_settings = settings.len();
        let mut trials = distinct(base, section, settings)?;
        let (Some(wanted), Some(n_drawn)) = (section.trials, asked.trials) else {
            return Ok(trials);
        };
        if trials.all.len() >= wanted {
            trials.all.truncate(wanted);
            return Ok(trials);
        }
        let n_next = 2 * n_drawn;
        if n_settings < n_drawn || n_next > MOST_TRIALS || n_next > MOST_DRAWN * wanted {
            trials.warnings.push(format!(
                "sweep.trials is {wanted}, and {} settings were found that differ in what they say of their heads",
                trials.all.len()
            ));
            return Ok(trials);
        }
        asked.trials = Some(n_next);
    }
}

/// The trials that some settings come to.
fn distinct(base: &Pipeline, section: &SweepSection, settings: Vec<Settings>) -> Result<Trials> {
    let mut seen = HashSet::new();
    let mut all: Vec<Trial> = Vec::new();
    let mut refused: Vec<(Settings, Error)> = Vec::new();
    for settings in settings {
        let (file, said) = read(base, settings)?;
        if !seen.insert(format!("{said:?}")) {
            continue;
        }
        match check(base, file, &said) {
            Ok(pipeline) => all.push(Trial {
                settings: said,
                pipeline,
            }),
            Err(error) => refused.push((said, error)),
        }
    }
    let shown = |(key, value): &(String, Value)| format!("{key} = {value:?}");
    let possible: HashSet<String> = all
        .iter()
        .flat_map(|t| t.settings.iter().map(shown))
        .collect();
    let n_refused = refused.len();
    let mut why = None;
    for (said, error) in refused {
        let (drawn, listed): (Settings, Settings) = said
            .into_iter()
            .partition(|(key, _)| section.keys.get(key).is_some_and(Value::is_table));
        let is_drawn_value = !drawn.is_empty() && {
            let (file, said) = read(base, listed.clone())?;
            check(base, file, &said).is_ok()
        };
        if is_drawn_value
            || !listed
                .iter()
                .all(|setting| possible.contains(&shown(setting)))
        {
            return Err(error);
        }
        why.get_or_insert(error);
    }
    let mut warnings = unused(section, &all);
    if let Some(Error::Pipeline { problem, .. }) = why {
        let combinations = match n_refused {
            1 => "one combination of values that cannot be is left out".to_string(),
            n => format!("{n} combinations of values that cannot be are left out; the first"),
        };
        warnings.push(format!("{combinations}: {problem}"));
    }
    Ok(Trials { all, warnings })
}

/// Of keys that say nothing of any trial.
fn unused(section: &SweepSection, trials: &[Trial]) -> Vec<String> {
    let says = |key: &String| {
        let mut settings = trials.iter().flat_map(|trial| &trial.settings);
        settings.any(|(said, _)| said == key)
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
    if first.iter().any(|(key, _)| key == "kind") {
        leave_out(&mut file);
    }
    let others: Settings = others
        .into_iter()
        .filter(|(key, _)| says_something(key, &file))
        .collect();
    file = with(file, &others)?;
    if file.head.kind == HeadKind::Mlp && file.head.hidden.is_empty() {
        file.head.hidden = vec![MLP_WIDTH];
    }
    let said = settings
        .into_iter()
        .filter(|(key, _)| says_something(key, &file))
        .map(|(key, value)| match key.as_str() {
            "hidden" => {
                let widths = file.head.hidden.iter();
                (
                    key,
                    Value::Array(widths.map(|width| Value::Integer(*width as i64)).collect()),
                )
            }
            _ => (key, value),
        });
    let said = said.collect();
    Ok((file, said))
}

/// Leaves out of a file what was said of another kind of head than the one that it has now.
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
fn check(base: &Pipeline, file: PipelineFile, said: &Settings) -> Result<Pipeline> {
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
                false => format!("[sweep], {}: {problem}", described(said)),
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
        "gamma" => has_epochs && file.train.loss == Some(crate::pipeline::file::Loss::Focal),
        _ => has_epochs,
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

    fn all_of(base: &Pipeline) -> Result<Trials> {
        trials(base, &base.file.sweep.clone().unwrap())
    }

    fn of(sweep: &str) -> Result<Vec<Trial>> {
        all_of(&base(sweep)).map(|trials| trials.all)
    }

    fn warnings(sweep: &str) -> Vec<String> {
        all_of(&base(sweep)).unwrap().warnings
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
    fn hidden_layers_are_those_that_an_mlp_has() {
        let all = of("kind = [\"linear\", \"mlp\"]\nhidden = [[], [256], [8]]").unwrap();
        let described: Vec<String> = all.iter().map(|trial| described(&trial.settings)).collect();
        let expected = [
            "kind = linear",
            "hidden = [256], kind = mlp",
            "hidden = [8], kind = mlp",
        ];
        assert_eq!(described.len(), expected.len(), "{described:?}");
        for (trial, described) in all.iter().zip(&described) {
            assert!(expected.contains(&described.as_str()), "{described}");
            assert_eq!(
                trial.pipeline.file.head.hidden.is_empty(),
                described == "kind = linear"
            );
        }
    }

    #[test]
    fn combinations_that_cannot_be_are_left_out_where_each_value_can() {
        let sweep = "kind = [\"linear\", \"ridge\"]\npooling = [\"mean\", \"attention\"]";
        assert_eq!(of(sweep).unwrap().len(), 3);
        let [warning] = &warnings(sweep)[..] else {
            panic!("a warning")
        };
        let expected = "one combination of values that cannot be is left out: [sweep], kind = ridge, pooling = attention: ";
        assert!(warning.starts_with(expected), "{warning}");
        let error = of("kind = [\"ridge\"]\npooling = [\"attention\"]").unwrap_err();
        assert!(error.to_string().contains("pooling = attention"), "{error}");
        // Whatever else is drawn.
        let drawn = format!("{sweep}\nlr = {{ min = 1e-4, max = 1e-2 }}\ntrials = 12");
        assert!(of(&drawn).unwrap().len() > 3);
        let error = of("lr = [0.1]\ndropout = { min = 0.5, max = 3.0 }\ntrials = 9").unwrap_err();
        assert!(error.to_string().contains("head.dropout is"), "{error}");
    }

    #[test]
    fn a_key_that_changes_nothing_is_warned_of() {
        let [warning] = &warnings("C = [0.1, 1.0]\nlr = [0.1]")[..] else {
            panic!("a warning")
        };
        let expected = "sweep.C changes nothing of heads of kind linear, and is left out";
        assert_eq!(warning, expected);
        assert!(warnings("kind = [\"linear\", \"logistic\"]\nC = [0.1, 1.0]").is_empty());
    }

    #[test]
    fn as_many_trials_are_drawn_as_were_asked_for() {
        let lists = "kind = [\"linear\", \"ridge\"]\nlambda = [0.1, 1.0]";
        let drawn = format!("{lists}\nlr = {{ min = 1e-4, max = 1e-2, log = true }}\ntrials = 30");
        assert_eq!(of(&drawn).unwrap().len(), 30);
        assert!(warnings(&drawn).is_empty());
        let few = format!("{lists}\nsearch = \"random\"\ntrials = 30");
        assert_eq!(of(&few).unwrap().len(), 3);
        let expected = "sweep.trials is 30, and 3 settings were found that differ in what they say of their heads";
        assert_eq!(warnings(&few), [expected]);
    }

    #[test]
    fn what_is_said_of_another_kind_of_head_is_left_out() {
        let mut base = base("kind = [\"mlp\", \"ridge\"]");
        base.file.head.kind = HeadKind::Mlp;
        base.file.head.hidden = vec![8];
        base.file.train.label_smoothing = 0.1;
        let all = all_of(&base).unwrap().all;
        let hidden: Vec<&[usize]> = all
            .iter()
            .map(|t| &t.pipeline.file.head.hidden[..])
            .collect();
        assert_eq!(hidden, [&[8][..], &[]]);
        assert_eq!(all[1].pipeline.file.train.label_smoothing, 0.0);
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
