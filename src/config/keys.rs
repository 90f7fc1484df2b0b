//! The keys of `[head]` and `[train]`: which heads each one applies to, which values it takes, and what it means.
//!
//! The checks of a pipeline, the keys of `[sweep]`, the tables in docs/pipeline.md and the help of `frostbert train`
//! all come from [`KEYS`].

use crate::{
    config::names::{HeadKind, Loss, Task},
    train::optimizer::OptimizerKind,
};

/// A key of `[head]` or `[train]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// The section that it belongs to.
    pub section: Section,
    /// Its name in the section.
    pub name: &'static str,
    /// Its default, as TOML or in words.
    pub default: &'static str,
    /// The values that it takes.
    pub values: Values,
    /// What it does, in Markdown, as in docs/pipeline.md; a test compares the two.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the page of the pipeline file is prose of its own")
    )]
    pub meaning: &'static str,
    /// The kinds of head that it applies to.
    pub kinds: &'static [HeadKind],
    /// The tasks that it applies to.
    pub tasks: &'static [Task],
    /// What else has to be set for it to have an effect.
    pub needs: Condition,
    /// What happens if it is set where it does not apply.
    pub elsewhere: Elsewhere,
}

/// The sections whose keys depend on the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// `[head]`
    Head,
    /// `[train]`
    Train,
}

impl Section {
    /// Its name in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Section::Head => "head",
            Section::Train => "train",
        }
    }
}

/// The values that a key takes, in addition to the constraints of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Any value of its type: a name, a flag, a list or a table.
    Any,
    /// Layers: integers, of which the negative ones count from the last.
    Layers,
    /// A whole number of 1 or more.
    Count,
    /// Numbers above 0.
    Positive,
    /// Numbers of at least 0.
    NotNegative,
    /// Numbers from 0 to below 1.
    BelowOne,
    /// A probability from 0 to below 1, also after conversion to the f32 that heads compute with.
    Probability,
    /// Two numbers from 0 to below 1.
    TwoBelowOne,
    /// Numbers from 0 to 1.
    UpToOne,
}

impl Values {
    /// The range in words.
    pub(crate) fn range(self) -> &'static str {
        match self {
            Values::Any => "any value",
            Values::Layers => "layers",
            Values::Count => "1 or more",
            Values::Positive => "a value above 0",
            Values::NotNegative => "0 or more",
            Values::BelowOne | Values::Probability => "a value from 0 to below 1",
            Values::TwoBelowOne => "two numbers from 0 to below 1",
            Values::UpToOne => "a value from 0 to 1",
        }
    }

    /// Whether a number is in the range.
    pub(crate) fn contains(self, number: f64) -> bool {
        match self {
            Values::Any | Values::Layers => true,
            Values::Count => number >= 1.0,
            Values::Positive => number > 0.0,
            Values::NotNegative => number >= 0.0,
            Values::BelowOne | Values::TwoBelowOne => (0.0..1.0).contains(&number),
            Values::Probability => (0.0..1.0).contains(&(number as f32)),
            Values::UpToOne => (0.0..=1.0).contains(&number),
        }
    }
}

/// What a key depends on besides the kind of head and the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing else.
    Nothing,
    /// `train.optimizer = "sgd"`
    Sgd,
    /// `train.optimizer` of `adam` or `adamw`.
    Adam,
    /// `train.loss = "focal"`
    Focal,
    /// `train.unfreeze`
    Unfreeze,
}

/// What happens to a key that is set where it does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// It has no effect.
    Ignored,
    /// Setting it is an error.
    Refused {
        /// What the key would do, for the error message.
        effect: &'static str,
        /// Kinds of head for which it has no effect nevertheless.
        except: &'static [HeadKind],
    },
}

use Elsewhere::{Ignored, Refused};
use HeadKind::*;
use Section::{Head, Train};
use Task::{Classification, Multilabel, Qa, Regression, Similarity, Tokens};

const ALL_KINDS: &[HeadKind] =
    &[Linear, Mlp, Matching, Crf, Ridge, Lda, Logistic, LinfaLogistic, LinfaSvm, Cosine];

/// The kinds that have parameters.
const LEARNED: &[HeadKind] =
    &[Linear, Mlp, Matching, Crf, Ridge, Lda, Logistic, LinfaLogistic, LinfaSvm];

/// The kinds that are trained in steps.
pub(crate) const STEPWISE: &[HeadKind] = &[Linear, Mlp, Matching, Crf];

/// The kinds that can have hidden layers.
const LAYERED: &[HeadKind] = &[Mlp, Matching, Crf];

const ALL_TASKS: &[Task] = &[Classification, Multilabel, Regression, Similarity, Tokens, Qa];

const fn head(name: &'static str, default: &'static str, values: Values) -> Key {
    Key {
        section: Head,
        name,
        default,
        values,
        meaning: "",
        kinds: ALL_KINDS,
        tasks: ALL_TASKS,
        needs: Condition::Nothing,
        elsewhere: Ignored,
    }
}

const fn refused(effect: &'static str) -> Elsewhere {
    Refused { effect, except: &[] }
}

const fn train(name: &'static str, default: &'static str, values: Values) -> Key {
    Key { section: Train, kinds: STEPWISE, ..head(name, default, values) }
}

/// Every key of `[head]` and `[train]`, in the order of the file.
pub(crate) static KEYS: [Key; 34] = [
    Key {
        meaning: "`linear`, `mlp`, `matching`, `cosine`, `crf`, `ridge`, `lda`, `logistic`, `linfa-logistic`, `linfa-svm`; by task, see above",
        ..head("kind", "by task", Values::Any)
    },
    Key {
        meaning: "inverse regularisation, scikit-learn's C; or `\"auto\"`: for `logistic` [chosen by folds](#c-and-lambda-by-folds), for the others 1.0",
        kinds: &[Logistic, LinfaLogistic, LinfaSvm],
        ..head("C", "\"auto\"", Values::Positive)
    },
    Key {
        meaning: "regularisation, counted in rows: `ridge` adds `lambda \\|W\\|^2` to the sum of squared errors; `lda` shrinks the covariance towards a sphere as `lambda` additional rows would, a shrinkage of `lambda / (n + lambda)`; or `\"auto\"`: [chosen by folds](#c-and-lambda-by-folds)",
        kinds: &[Ridge, Lda],
        ..head("lambda", "\"auto\"", Values::Positive)
    },
    Key {
        meaning: "number of principal components kept before the head; at most the number of features and the number of rows. Only with one layer",
        kinds: LEARNED,
        elsewhere: refused("projects features onto components that are fitted on training rows"),
        ..head("pca", "none", Values::Count)
    },
    Key {
        meaning: "longest answer in tokens",
        tasks: &[Qa],
        ..head("max_answer_tokens", "30", Values::Count)
    },
    Key {
        meaning: "the embedding that the head reads: `cls`, `mean` (over all real tokens, `[CLS]` and `[SEP]` included), `max`, `attention` (a learned weight for each token; refused for pairs in two inputs and for kinds that are not trained in steps), `sentence` ([the vector of sentence-transformers](models.md#sentence-transformers-folders)); or `\"auto\"`: what such a folder says, else `mean`",
        tasks: &[Classification, Multilabel, Regression, Similarity],
        ..head("pooling", "\"auto\"", Values::Any)
    },
    Key {
        meaning: "the layers that the head reads: a list, `\"all\"`, or `\"auto\"`: the last; for `tokens` all, for `qa` the one in the middle. Several are mixed by learned weights, which only kinds that are trained in steps can do",
        ..head("layers", "\"auto\"", Values::Layers)
    },
    Key {
        meaning: "probability of dropping an input feature or a hidden unit in a training step",
        kinds: STEPWISE,
        ..head("dropout", "0.1", Values::Probability)
    },
    Key {
        meaning: "widths of the hidden layers; the first one reads the features",
        kinds: LAYERED,
        elsewhere: refused("adds hidden layers"),
        ..head("hidden", "`[]`; for `mlp` `[256]`", Values::Any)
    },
    Key {
        meaning: "activation of every hidden layer: `relu`, `gelu`, `tanh`",
        kinds: LAYERED,
        ..head("activation", "\"gelu\"", Values::Any)
    },
    Key {
        meaning: "add a hidden layer's input to its output: unchanged if both have the same width, else through a learned matrix",
        kinds: LAYERED,
        ..head("skip", "false", Values::Any)
    },
    Key {
        meaning: "layer normalisation of every hidden layer, before its activation",
        kinds: LAYERED,
        ..head("layer_norm", "false", Values::Any)
    },
    Key {
        meaning: "scale features to mean 0 and variance 1; for `regression` and `similarity`, the targets too",
        kinds: LEARNED,
        ..head("standardize", "true", Values::Any)
    },
    Key { meaning: "`sgd`, `adam`, `adamw`", ..train("optimizer", "\"adamw\"", Values::Any) },
    Key { meaning: "learning rate before the schedule", ..train("lr", "0.001", Values::Positive) },
    Key {
        meaning: "decoupled for adamw, added to the gradient for adam and sgd; applies to weights and biases alike",
        ..train("weight_decay", "0.01", Values::NotNegative)
    },
    Key {
        meaning: "momentum of sgd",
        needs: Condition::Sgd,
        ..train("momentum", "0.9", Values::BelowOne)
    },
    Key {
        meaning: "betas of adam and adamw",
        needs: Condition::Adam,
        ..train("betas", "[0.9, 0.999]", Values::TwoBelowOne)
    },
    Key {
        meaning: "largest number of passes over the training examples; early stopping ends most trainings long before",
        ..train("epochs", "100", Values::Count)
    },
    Key {
        meaning: "samples per step: texts, pairs, sentences, or windows of a question; the last batch of an epoch may be smaller",
        ..train("batch_size", "32", Values::Count)
    },
    Key {
        meaning: "`constant`, `linear`, `cosine`; always laid out over all `epochs`, even if training stops early",
        ..train("schedule", "\"constant\"", Values::Any)
    },
    Key {
        meaning: "share of the steps during which the learning rate rises",
        ..train("warmup", "0.0", Values::UpToOne)
    },
    Key {
        meaning: "largest norm of the gradient over all parameters of the head",
        ..train("clip", "none", Values::Positive)
    },
    Key {
        meaning: "`cross-entropy`, `focal`, `bce`, `mse`; by task, see above. `focal` is refused for `crf`",
        ..train("loss", "by task", Values::Any)
    },
    Key {
        meaning: "a column of labels, by name or number, that the head is trained on; it is evaluated on the source's own: see [Columns of labels](#columns-of-labels). Only from files with columns",
        kinds: LEARNED,
        tasks: &[Classification],
        elsewhere: refused("names a column with one label per row"),
        ..train("label", "the source's own `label`", Values::Any)
    },
    Key {
        meaning: "gamma of the focal loss",
        needs: Condition::Focal,
        ..train("gamma", "2.0", Values::NotNegative)
    },
    Key {
        meaning: "`\"balanced\"`, or a table of `label = weight`, each above 0; labels that are left out have weight 1",
        kinds: &[Linear, Mlp, Matching, Logistic],
        tasks: &[Classification, Multilabel, Tokens],
        elsewhere: refused("weighs the classes of each row"),
        ..train("class_weights", "none", Values::Any)
    },
    Key {
        meaning: "probability mass spread over all classes",
        kinds: &[Linear, Mlp, Matching],
        tasks: &[Classification, Tokens],
        elsewhere: Refused {
            effect: "spreads the probability of each row's class",
            except: &[Ridge, Lda, Logistic, LinfaLogistic, LinfaSvm],
        },
        ..train("label_smoothing", "0.0", Values::Probability)
    },
    Key {
        meaning: "stop after `patience` epochs without a better value of `metric` on validation, and restore the best weights; `metric` is `loss` or a metric of the task, and the task's own where it is left out. `false` trains every epoch and keeps the last weights",
        ..train("early_stopping", "{ patience = 10 }", Values::Any)
    },
    Key {
        meaning: "states of up to this many megabytes (2^20 bytes) are read once and stay in memory; more are streamed from the cache in every epoch",
        kinds: ALL_KINDS,
        ..train("memory_mb", "2048", Values::Count)
    },
    Key {
        meaning: "number of the encoder's last layers that are trained with the head, from cached token states of the layer below them; or `\"all\"`: see [Training the last layers](training.md#the-last-layers-of-the-encoder)",
        elsewhere: refused("trains layers of the encoder"),
        ..train("unfreeze", "none", Values::NotNegative)
    },
    Key {
        meaning: "learning rate of the last layer before the schedule; `train.lr` stays that of the head",
        needs: Condition::Unfreeze,
        ..train("layer_lr", "5e-5, with `unfreeze`", Values::Positive)
    },
    Key {
        meaning: "factor of the learning rate from each layer to the one below it",
        needs: Condition::Unfreeze,
        ..train("layer_decay", "0.95, with `unfreeze`", Values::UpToOne)
    },
    Key {
        meaning: "low-rank updates of some weights, which are trained in place of the layers themselves, as in `{ rank = 8, alpha = 16, targets = [\"query\", \"value\"] }`; these values are the defaults of its keys, and other targets are `key`, `dense`, `intermediate` and `output`. In a sweep `lora_rank`: the rank alone, 0 for none",
        needs: Condition::Unfreeze,
        ..train("lora", "none", Values::Any)
    },
];

/// The key of the models that a sweep compares. It is none of `[head]` and `[train]`, so it goes by its whole name.
pub(crate) const MODEL_PATH: &str = "model.path";

/// The key of the number of layers that are trained.
pub(crate) const UNFREEZE: &str = "unfreeze";

/// The key of a sweep that stands for the rank of `train.lora`.
pub(crate) const LORA_RANK: &str = "lora_rank";

/// Other names that keys have in a sweep: `layer` is one layer, or a list of layers to mix.
static SYNONYMS: [(&str, &str); 2] = [("layer", "layers"), (LORA_RANK, "lora")];

/// What decides which keys have a meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// `data.task`
    pub task: Task,
    /// `head.kind`
    pub kind: HeadKind,
    /// `train.optimizer`
    pub optimizer: OptimizerKind,
    /// `train.loss`, if the file sets it.
    pub loss: Option<Loss>,
    /// Whether layers of the encoder are trained: `train.unfreeze`.
    pub unfreezes: bool,
}

impl Key {
    /// Finds the key of this name, or of a name that it has in a sweep.
    pub(crate) fn find(name: &str) -> Option<&'static Key> {
        let synonym = SYNONYMS.iter().find(|(other, _)| *other == name);
        let name = synonym.map_or(name, |(_, name)| *name);
        KEYS.iter().find(|key| key.name == name)
    }

    /// Whether numbers that a sweep draws for the key of this name are whole.
    pub(crate) fn is_drawn_whole(name: &str) -> bool {
        let counts = |key: &Key| matches!(key.values, Values::Count | Values::Layers);
        [UNFREEZE, LORA_RANK].contains(&name) || Key::find(name).is_some_and(counts)
    }

    /// Returns the key with its section, as in `head.kind`.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section.name(), self.name)
    }

    /// Like [`Key::path`], with the condition that the key depends on: `head.max_answer_tokens (qa)`.
    fn path_with_condition(&self) -> String {
        let condition = match (self.needs, self.tasks.len()) {
            (Condition::Sgd, _) => "sgd".into(),
            (Condition::Adam, _) => "adam, adamw".into(),
            (Condition::Focal, _) => "focal".into(),
            (Condition::Unfreeze, _) => UNFREEZE.into(),
            (Condition::Nothing, n) if n < ALL_TASKS.len() => names(self.tasks),
            (Condition::Nothing, _) => return self.path(),
        };
        format!("{} ({condition})", self.path())
    }

    /// Whether a head of this kind for this task can use the key.
    pub(crate) fn applies_to(&self, task: Task, kind: HeadKind) -> bool {
        self.tasks.contains(&task) && self.kinds.contains(&kind)
    }

    /// Whether another value makes a different head, or an error; a sweep leaves out values that change nothing.
    pub(crate) fn has_effect(&self, choice: Choice) -> bool {
        let needs = match self.needs {
            Condition::Nothing => true,
            Condition::Sgd => choice.optimizer == OptimizerKind::Sgd,
            Condition::Adam => choice.optimizer != OptimizerKind::Sgd,
            Condition::Focal => choice.loss == Some(Loss::Focal),
            Condition::Unfreeze => choice.unfreezes,
        };
        let is_for_task = self.tasks.contains(&choice.task) || self.elsewhere != Ignored;
        needs && is_for_task && self.kinds.contains(&choice.kind)
    }

    /// Whether a sweep can vary it by its own name: what a head reads and how it is trained, but not how much memory
    /// that takes, and of low-rank updates their rank alone.
    pub(crate) fn is_swept(&self) -> bool {
        !["memory_mb", "lora"].contains(&self.name)
    }
}

/// The names of the keys in `[sweep]`.
pub(crate) fn swept_names() -> impl Iterator<Item = &'static str> {
    let names = KEYS.iter().flat_map(|key| {
        let synonyms = SYNONYMS.iter().filter(move |(_, name)| *name == key.name);
        synonyms.map(|(other, _)| *other).chain(key.is_swept().then_some(key.name))
    });
    std::iter::once(MODEL_PATH).chain(names)
}

/// Describes the kinds of head in words.
fn kinds_in_words(kinds: &[HeadKind]) -> String {
    match kinds {
        ALL_KINDS => "all kinds".into(),
        LEARNED => format!("all but {Cosine}"),
        kinds => names(kinds),
    }
}

fn names<T: ToString>(items: &[T]) -> String {
    let names: Vec<String> = items.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Groups the keys by the kinds of head that they apply to. Returns for each group the kinds in words, and the paths of
/// the keys, with the tasks, optimisers or losses that a key is limited to.
///
/// ```
/// use frostbert::internals::config::keys::by_kinds;
///
/// let of_lda = by_kinds().into_iter().find(|(kinds, _)| kinds == "ridge, lda");
/// assert_eq!(of_lda.unwrap().1, ["head.lambda"]);
/// ```
pub fn by_kinds() -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for key in &KEYS {
        let kinds = kinds_in_words(key.kinds);
        match groups.iter_mut().find(|(other, _)| *other == kinds) {
            Some((_, paths)) => paths.push(key.path_with_condition()),
            None => groups.push((kinds, vec![key.path_with_condition()])),
        }
    }
    groups
}

#[cfg(test)]
mod tests;
