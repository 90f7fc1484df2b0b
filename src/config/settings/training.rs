//! What only training needs: which heads, losses and numbers go together.

use crate::{
    config::{
        file::PipelineFile,
        names::{HeadKind, Loss, Pair, Task},
    },
    error::{Error, Result},
    metrics::metric::Metric,
};

/// Units of a hidden layer at most.
const MOST_UNITS: usize = 65_536;

/// The kinds of head that a task can train.
fn kinds(task: Task) -> &'static [HeadKind] {
    match task {
        Task::Classification => &[
            HeadKind::Linear,
            HeadKind::Mlp,
            HeadKind::Ridge,
            HeadKind::Lda,
            HeadKind::Logistic,
            HeadKind::LinfaLogistic,
            HeadKind::LinfaSvm,
        ],
        Task::Multilabel | Task::Regression => &[HeadKind::Linear, HeadKind::Mlp, HeadKind::Ridge],
        Task::Similarity => &[HeadKind::Linear, HeadKind::Mlp, HeadKind::Ridge, HeadKind::Cosine],
        Task::Tokens => &[HeadKind::Linear, HeadKind::Mlp, HeadKind::Crf],
        Task::Qa => &[HeadKind::Linear, HeadKind::Mlp, HeadKind::Matching],
    }
}

/// The losses that a task can be trained with, its default first.
pub(super) fn losses(task: Task) -> &'static [Loss] {
    match task {
        Task::Classification | Task::Tokens => &[Loss::CrossEntropy, Loss::Focal],
        Task::Multilabel => &[Loss::Bce, Loss::Focal],
        Task::Regression | Task::Similarity => &[Loss::Mse],
        Task::Qa => &[Loss::CrossEntropy],
    }
}

/// The validation metrics that early stopping can follow in a task, beside the loss.
fn metrics(task: Task) -> &'static [Metric] {
    use Metric::*;
    match task {
        Task::Classification => &Metric::OF_CLASSES,
        Task::Multilabel => &[Accuracy, MicroF1, MacroF1, WeightedF1, RocAuc, LogLoss, Brier, Ece],
        Task::Regression | Task::Similarity => &Metric::OF_NUMBERS,
        Task::Tokens => &[TokenAccuracy, EntityF1Strict, EntityF1Conlleval, MacroF1, WeightedF1],
        Task::Qa => &Metric::OF_ANSWERS,
    }
}

/// Checks the head's kind, what it reads, the loss, and the ranges of numbers.
pub(super) fn check(
    file: &PipelineFile,
    has_pairs: bool,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    check_kind(file, refuse)?;
    check_input(file, has_pairs, refuse)?;
    check_loss(file, refuse)?;
    check_numbers(file, refuse)
}

fn names<T: ToString>(items: &[T]) -> String {
    let names: Vec<String> = items.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn check_kind(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let (task, head) = (file.data.task, &file.head);
    if !kinds(task).contains(&head.kind) {
        return Err(refuse(
            format!("head.kind = \"{}\" is no head for the task `{task}`", head.kind),
            format!("set head.kind to one of {}", names(kinds(task))),
        ));
    }
    let flat = match head.kind {
        kind if kind == HeadKind::Linear || kind.is_full_batch() => Some("a linear head"),
        HeadKind::Cosine => Some("a cosine"),
        _ => None,
    };
    if let Some(name) = flat.filter(|_| !head.hidden.is_empty()) {
        return Err(refuse(
            format!("head.hidden names hidden layers, and {name} has none"),
            "set head.kind = \"mlp\", or leave head.hidden out".into(),
        ));
    }
    if let Some(width) = head.hidden.iter().find(|width| !(1..=MOST_UNITS).contains(*width)) {
        return Err(refuse(
            format!("head.hidden names a layer of {width} units"),
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
            "the task `similarity` compares two texts, and a source names one".into(),
            "name the column of the second text in every source, as in text_pair = \"sentence2\""
                .into(),
        ));
    }
    if task == Task::Qa && file.data.pair == Some(Pair::Separate) {
        return Err(refuse(
            "the task `qa` reads a question together with its context, and data.pair = \"separate\" parts them".into(),
            "leave data.pair out".into(),
        ));
    }
    let attention = file.pools_by_attention();
    let is_full_batch = head.kind.is_full_batch();
    let separate = has_pairs && file.data.pair != Some(Pair::Joint);
    let reason = if attention && separate {
        Some((
            "head.pooling = \"attention\" reads one input, and two texts are encoded in two",
            "set data.pair = \"joint\", or head.pooling to cls, mean or max",
        ))
    } else if head.kind == HeadKind::Cosine && !separate {
        Some((
            "a cosine compares two states, and data.pair = \"joint\" makes one of two texts",
            "set data.pair = \"separate\", or leave it out",
        ))
    } else if attention && (is_full_batch || head.kind == HeadKind::Cosine) {
        Some((
            "head.pooling = \"attention\" is learned step by step, and this kind of head is not",
            "set head.pooling to cls, mean or max",
        ))
    } else if head.layers.len() > 1 && (is_full_batch || head.kind == HeadKind::Cosine) {
        Some((
            "several head.layers are mixed by weights that are learned step by step, and this kind of head is not",
            "name one layer, as in head.layers = [-1]",
        ))
    } else if head.layers.len() > 1 && head.pca.is_some() {
        Some((
            "head.pca projects one state, and several head.layers are mixed",
            "name one layer, or leave head.pca out",
        ))
    } else if head.pca.is_some() && head.kind == HeadKind::Cosine {
        Some(("head.pca is fitted on training rows, and a cosine has none", "leave head.pca out"))
    } else {
        None
    };
    match reason {
        Some((problem, hint)) => Err(refuse(problem.into(), hint.into())),
        None => Ok(()),
    }
}

fn check_loss(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let (task, head, train) = (file.data.task, &file.head, &file.train);
    let known = losses(task);
    if let Some(loss) = train.loss.filter(|loss| !known.contains(loss)) {
        return Err(refuse(
            format!("train.loss = \"{loss}\" is no loss for the task `{task}`"),
            match known {
                [only] => format!("set train.loss to {only}, or leave it out"),
                _ => format!("set train.loss to one of {}, or leave it out", names(known)),
            },
        ));
    }
    let loss = train.loss.unwrap_or(known[0]);
    let is_unweighted =
        head.kind == HeadKind::Crf || head.kind.is_full_batch() && head.kind != HeadKind::Logistic;
    let weighable = matches!(task, Task::Classification | Task::Multilabel | Task::Tokens);
    if train.class_weights.is_some() && (!weighable || is_unweighted) {
        return Err(refuse(
            "train.class_weights weigh the classes of each row, which this head does not do".into(),
            "leave train.class_weights out".into(),
        ));
    }
    let smoothable = matches!(task, Task::Classification | Task::Tokens)
        && matches!(loss, Loss::CrossEntropy | Loss::Focal)
        && head.kind != HeadKind::Crf;
    if train.label_smoothing > 0.0 && !smoothable {
        return Err(refuse(
            format!(
                "train.label_smoothing spreads a class's probability, and the task `{task}` with this head has none"
            ),
            "leave train.label_smoothing out".into(),
        ));
    }
    if train.loss == Some(Loss::Focal) && head.kind == HeadKind::Crf {
        return Err(refuse(
            "a CRF is trained by the likelihood of whole sequences, not by a focal loss".into(),
            "leave train.loss out".into(),
        ));
    }
    let Some(stopping) = &train.early_stopping.0 else {
        return Ok(());
    };
    let followed = stopping.metric;
    if followed != Metric::Loss && !metrics(task).contains(&followed) {
        return Err(refuse(
            format!(
                "train.early_stopping follows `{followed}`, which the task `{task}` does not have"
            ),
            format!("follow loss, {}", names(metrics(task))),
        ));
    }
    Ok(())
}

fn check_numbers(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let (head, train) = (&file.head, &file.train);
    let checks = [
        (head.c > 0.0 && head.c.is_finite(), format!("head.C is {}", head.c), "above 0"),
        (
            head.lambda > 0.0 && head.lambda.is_finite(),
            format!("head.lambda is {}", head.lambda),
            "above 0",
        ),
        (head.pca != Some(0), "head.pca is 0".into(), "1 or more, at most the width of a state"),
        (head.max_answer_tokens > 0, "head.max_answer_tokens is 0".into(), "1 or more"),
        (
            (0.0..1.0).contains(&(head.dropout as f32)),
            format!("head.dropout is {}", head.dropout),
            "from 0 to below 1",
        ),
        (train.lr > 0.0 && train.lr.is_finite(), format!("train.lr is {}", train.lr), "above 0"),
        (
            train.weight_decay >= 0.0,
            format!("train.weight_decay is {}", train.weight_decay),
            "0 or more",
        ),
        (train.epochs > 0, "train.epochs is 0".into(), "1 or more"),
        (train.batch_size > 0, "train.batch_size is 0".into(), "1 or more"),
        (
            (0.0..=1.0).contains(&train.warmup),
            format!("train.warmup is {}", train.warmup),
            "from 0 to 1, a share of the steps",
        ),
        (
            (0.0..1.0).contains(&(train.label_smoothing as f32)),
            format!("train.label_smoothing is {}", train.label_smoothing),
            "from 0 to below 1",
        ),
        (
            train.gamma >= 0.0 && train.gamma.is_finite(),
            format!("train.gamma is {}", train.gamma),
            "0 or more",
        ),
        (
            train.clip.is_none_or(|clip| clip > 0.0),
            format!("train.clip is {:?}", train.clip.unwrap_or_default()),
            "above 0",
        ),
        (
            train.betas.iter().all(|beta| (0.0..1.0).contains(beta)),
            format!("train.betas is {:?}", train.betas),
            "two numbers from 0 to below 1",
        ),
        (
            (0.0..1.0).contains(&train.momentum),
            format!("train.momentum is {}", train.momentum),
            "from 0 to below 1",
        ),
        (train.memory_mb > 0, "train.memory_mb is 0".into(), "1 or more"),
    ];
    match checks.into_iter().find(|(fits, ..)| !fits) {
        Some((_, problem, range)) => {
            let key = problem.split(' ').next().unwrap_or_default().to_string();
            Err(refuse(problem, format!("set {key} to a value {range}")))
        }
        None => Ok(()),
    }
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
    fn hidden_layers_are_refused_where_a_head_has_none() {
        for kind in ["linear", "ridge", "lda", "logistic", "linfa-logistic", "linfa-svm"] {
            let refusal = refusal("", &format!("kind = \"{kind}\"\nhidden = [8]"));
            assert!(refusal.contains("a linear head has none"), "{refusal}");
        }
        let refusal = refusal("task = \"similarity\"", "kind = \"cosine\"\nhidden = [8]");
        assert!(refusal.contains("a cosine has none"), "{refusal}");
    }
}
