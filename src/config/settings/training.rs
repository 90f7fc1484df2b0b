//! The checks that only training needs: which heads, losses and numbers are valid together.

use crate::{
    config::{
        file::{
            HeadSection, LayersKey, LayersWord, PipelineFile, TrainSection,
            unfreeze::{LoraTable, UnfreezeKey},
        },
        keys::{Elsewhere, KEYS, Key, STEPWISE, Section, UNFREEZE},
        names::{HeadKind, HeadPooling, Loss, Pair, Task},
        settings::HeadSettings,
    },
    error::{Error, Result},
    metrics::metric::Metric,
};

/// Maximum number of units of a hidden layer.
pub(crate) const MOST_UNITS: usize = 65_536;

impl PipelineFile {
    /// Returns the kind of its head: the one that it names, or the default of its task.
    pub(crate) fn head_kind(&self) -> HeadKind {
        self.head.kind.unwrap_or(self.data.task.facts().kinds[0])
    }

    /// Returns the layers of the encoder that are trained with the head, if there are any.
    pub(crate) fn unfreeze(&self) -> Option<UnfreezeKey> {
        let is_used = STEPWISE.contains(&self.head_kind());
        self.train.unfreeze.filter(|key| is_used && *key != UnfreezeKey::Last(0))
    }
}

/// Checks the kind of the head, what it reads, the loss, and the ranges of numbers.
pub(super) fn check(
    file: &PipelineFile,
    has_pairs: bool,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    check_kind(file, refuse)?;
    check_keys(file, refuse)?;
    check_input(file, has_pairs, refuse)?;
    check_unfreeze(file, refuse)?;
    check_loss(file, refuse)?;
    check_numbers(file, refuse)
}

fn names<T: ToString>(items: &[T]) -> String {
    let names: Vec<String> = items.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn check_kind(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let (task, head) = (file.data.task, &file.head);
    let (kind, kinds) = (file.head_kind(), task.facts().kinds);
    if !kinds.contains(&kind) {
        return Err(refuse(
            format!("head.kind = \"{kind}\" is not a head for the task `{task}`"),
            format!("set head.kind to one of {}", names(kinds)),
        ));
    }
    if let Some(width) = head.hidden.iter().find(|width| !(1..=MOST_UNITS).contains(*width)) {
        return Err(refuse(
            format!("head.hidden has a layer of {width} units"),
            "give every hidden layer a width, as in hidden = [128]".into(),
        ));
    }
    Ok(())
}

fn check_input(
    file: &PipelineFile,
    has_pairs: bool,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    let (task, head) = (file.data.task, &file.head);
    if task == Task::Similarity && !has_pairs {
        return Err(refuse(
            "the task `similarity` compares two texts, but a source has only one".into(),
            "name the column of the second text in every source, as in text_pair = \"sentence2\""
                .into(),
        ));
    }
    if task == Task::Qa && file.data.pair == Some(Pair::Separate) {
        return Err(refuse(
            "the task `qa` reads a question together with its context, but data.pair = \"separate\" encodes them apart".into(),
            "leave data.pair out".into(),
        ));
    }
    let settings = HeadSettings::new(file);
    let attention = settings.pools_by_attention(task);
    let is_stepwise = STEPWISE.contains(&file.head_kind());
    let separate = has_pairs && file.data.pair != Some(Pair::Joint);
    let reason = if attention && separate {
        Some((
            "head.pooling = \"attention\" reads one input, but the two texts are encoded separately",
            "set data.pair = \"joint\", or head.pooling to cls, mean or max",
        ))
    } else if file.head_kind() == HeadKind::Cosine && !separate {
        Some((
            "a cosine compares two states, but data.pair = \"joint\" encodes the two texts together",
            "set data.pair = \"separate\", or leave it out",
        ))
    } else if attention && !is_stepwise {
        Some((
            "head.pooling = \"attention\" is learned step by step, but this kind of head is not",
            "set head.pooling to cls, mean or max",
        ))
    } else if settings.layers.are_several() && !is_stepwise {
        Some((
            "several head.layers are mixed by weights that are learned step by step, but this kind of head is not",
            "name one layer, as in head.layers = [-1]; to compare layers, list them in [sweep]: layer = [0, 1, 2]",
        ))
    } else if settings.layers.are_several() && head.pca.is_some() {
        Some((
            "head.pca projects one state, but several head.layers are mixed",
            "name one layer, or leave head.pca out",
        ))
    } else {
        None
    };
    match reason {
        Some((problem, hint)) => Err(refuse(problem.into(), hint.into())),
        None => Ok(()),
    }
}

fn has_repeated<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().any(|(place, item)| items[..place].contains(item))
}

fn check_lora(lora: &LoraTable, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let is_positive = lora.alpha > 0.0 && lora.alpha.is_finite();
    let (problem, cure) = if !(1..=MOST_UNITS).contains(&lora.rank) {
        (format!("rank {}", lora.rank), format!("a rank from 1 to {MOST_UNITS}"))
    } else if !is_positive {
        (format!("alpha {}", lora.alpha), "an alpha above 0".to_string())
    } else if lora.targets.is_empty() {
        ("no targets".to_string(), "a target".to_string())
    } else if has_repeated(&lora.targets) {
        ("a target twice".to_string(), "each target once".to_string())
    } else {
        return Ok(());
    };
    Err(refuse(
        format!("train.lora has {problem}"),
        format!(
            "give it {cure}, as in {{ rank = 8, alpha = 16, targets = [\"query\", \"value\"] }}"
        ),
    ))
}

/// Refuses what does not go together with the training of the encoder's layers.
fn check_unfreeze(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let lora = file.train.lora.as_ref();
    if file.unfreeze().is_none() {
        let mut swept = file.sweep.iter().flat_map(|section| section.values(UNFREEZE));
        let is_swept = swept.next().is_some();
        return match lora {
            Some(_) if STEPWISE.contains(&file.head_kind()) && !is_swept => Err(refuse(
                "train.lora updates layers of the encoder, but train.unfreeze names none".into(),
                "set train.unfreeze to a number of layers or \"all\", or leave train.lora out"
                    .into(),
            )),
            _ => Ok(()),
        };
    }
    if let Some(lora) = lora {
        check_lora(lora, refuse)?;
    }
    let head = &file.head;
    let reads_sentence = head.pooling == HeadPooling::Sentence;
    let reason = if file.data.task.reads_pooled() && reads_sentence {
        Some(("head.pooling is none of these", "set head.pooling to mean, cls, max or attention"))
    } else if head.layers != LayersKey::Named(LayersWord::Auto) {
        Some(("head.layers names others", "leave head.layers out"))
    } else if head.pca.is_some() {
        Some(("head.pca projects the states", "leave head.pca out"))
    } else if file.data.has_given_states() {
        Some(("the rows bring vectors in place of texts", "leave train.unfreeze out"))
    } else {
        None
    };
    match reason {
        Some((problem, hint)) => Err(refuse(
            format!(
                "train.unfreeze trains the layers above stored tokens, with texts pooled by mean, cls, max or attention, but {problem}"
            ),
            hint.into(),
        )),
        None => Ok(()),
    }
}

fn check_loss(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let (task, train) = (file.data.task, &file.train);
    let known = task.facts().losses;
    if let Some(loss) = train.loss.filter(|loss| !known.contains(loss)) {
        return Err(refuse(
            format!("train.loss = \"{loss}\" is not a loss for the task `{task}`"),
            match known {
                [only] => format!("set train.loss to {only}, or leave it out"),
                _ => format!("set train.loss to one of {}, or leave it out", names(known)),
            },
        ));
    }
    if train.loss == Some(Loss::Focal) && file.head_kind() == HeadKind::Crf {
        return Err(refuse(
            "a CRF is trained by the likelihood of whole sequences, not by a focal loss".into(),
            "leave train.loss out".into(),
        ));
    }
    let Some(stopping) = &train.early_stopping.0 else {
        return Ok(());
    };
    let Some(followed) = stopping.metric else {
        return Ok(());
    };
    let metrics = task.facts().metrics;
    if followed != Metric::Loss && !metrics.contains(&followed) {
        return Err(refuse(
            format!(
                "train.early_stopping follows `{followed}`, which the task `{task}` does not have"
            ),
            format!("set its metric to one of loss, {}", names(metrics)),
        ));
    }
    Ok(())
}

/// Returns a function that looks up the value of a key of `[head]` or `[train]`, or its default.
fn values(head: &HeadSection, train: &TrainSection) -> impl Fn(&Key) -> serde_json::Value + use<> {
    let [head, train] = [serde_json::to_value(head), serde_json::to_value(train)];
    let (head, train) = (head.unwrap_or_default(), train.unwrap_or_default());
    move |key| match key.section {
        Section::Head => head[key.name].clone(),
        Section::Train => train[key.name].clone(),
    }
}

/// Refuses keys that the head of the task cannot use.
fn check_keys(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let (task, kind) = (file.data.task, file.head_kind());
    let set = values(&file.head, &file.train);
    let default = values(&HeadSection::default(), &TrainSection::default());
    for key in KEYS.iter().filter(|key| !key.applies_to(task, kind) && set(key) != default(key)) {
        let Elsewhere::Refused { effect, except } = key.elsewhere else { continue };
        if key.tasks.contains(&task) && except.contains(&kind) {
            continue;
        }
        let path = key.path();
        let others = task.facts().kinds.iter().copied();
        let others: Vec<HeadKind> = others.filter(|kind| key.applies_to(task, *kind)).collect();
        return Err(refuse(
            format!(
                "{path} {effect}, which a head of kind `{kind}` for the task `{task}` cannot use"
            ),
            match &others[..] {
                [] => format!("leave {path} out"),
                [other] => format!("leave {path} out, or set head.kind to {other}"),
                others => format!("leave {path} out, or set head.kind to one of {}", names(others)),
            },
        ));
    }
    Ok(())
}

fn check_numbers(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let values = values(&file.head, &file.train);
    for key in &KEYS {
        let value = values(key);
        let numbers = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
        let mut numbers = numbers.iter().filter_map(serde_json::Value::as_f64);
        if numbers.any(|number| !key.values.contains(number)) {
            let path = key.path();
            return Err(refuse(
                format!("{path} is {value}"),
                match key.default {
                    "none" => format!("set {path} to {}, or leave it out", key.values.range()),
                    default => {
                        format!("set {path} to {}; its default is {default}", key.values.range())
                    }
                },
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::settings::Pipeline;

    fn refusal(data: &str, head: &str) -> String {
        let text = format!(
            "[model]\npath = \"model\"\n[data]\n{data}\ntrain = {{ path = \"data.csv\", text_pair = \"other\" }}\n[head]\n{head}"
        );
        let file = toml::from_str(&text).unwrap();
        let pipeline = Pipeline::check("pipeline.toml".as_ref(), file).unwrap();
        pipeline.check_training().unwrap_err().to_string()
    }

    #[test]
    fn a_cosine_of_one_state_is_refused() {
        let refusal = refusal("task = \"similarity\"\npair = \"joint\"", "kind = \"cosine\"");
        assert!(refusal.contains("compares two states"), "{refusal}");
    }

    #[test]
    fn a_question_apart_from_its_context_is_refused() {
        let refusal = refusal("task = \"qa\"\npair = \"separate\"", "kind = \"matching\"");
        assert!(refusal.contains("together with its context"), "{refusal}");
    }

    #[test]
    fn what_is_not_computed_above_trained_layers_is_refused() {
        let refused = refusal("", "pooling = \"sentence\"\n[train]\nunfreeze = 1");
        assert!(refused.contains("head.pooling is none of these"), "{refused}");
        let refused =
            refusal("task = \"qa\"", "kind = \"matching\"\npca = 4\n[train]\nunfreeze = 1");
        assert!(refused.contains("head.pca projects the states"), "{refused}");
    }

    #[test]
    fn hidden_layers_are_refused_where_a_head_has_none() {
        for kind in ["linear", "ridge", "lda", "logistic", "linfa-logistic", "linfa-svm"] {
            let refusal = refusal("", &format!("kind = \"{kind}\"\nhidden = [8]"));
            let expected =
                format!("which a head of kind `{kind}` for the task `classification` cannot use");
            assert!(refusal.contains(&expected), "{refusal}");
        }
        let refusal = refusal("task = \"similarity\"", "kind = \"cosine\"\nhidden = [8]");
        assert!(
            refusal.contains("head.hidden adds hidden layers, which a head of kind `cosine`"),
            "{refusal}"
        );
    }
}
