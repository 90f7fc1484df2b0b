//! The names that values of the pipeline file have: tasks, states, kinds of head, losses.

use std::fmt;

use frostbert_cache::states::{Pooling, StateKind};
use serde::{Deserialize, Serialize};

use crate::data::DataTask;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident, $case:literal, $default:ident { $($(#[$item:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = $case)]
        pub enum $name { $($(#[$item])* $variant),+ }

        impl Default for $name {
            fn default() -> $name {
                $name::$default
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        }
    };
}

names! {
    /// What a head learns.
    Task, "lowercase", Classification { Classification, Multilabel, Regression, Tokens, Qa, Similarity }
}
impl Task {
    /// What its labels mean. A similarity is a number for each pair.
    pub fn of_data(self) -> DataTask {
        match self {
            Task::Classification => DataTask::Classification,
            Task::Multilabel => DataTask::Multilabel,
            Task::Regression | Task::Similarity => DataTask::Regression,
            Task::Tokens => DataTask::Tokens,
            Task::Qa => DataTask::Qa,
        }
    }
}

names! {
    /// How two texts are encoded: in one input, or in two.
    Pair, "lowercase", Separate { Joint, Separate }
}
names! {
    /// What happens to answers that do not stand where they say.
    Misplaced, "lowercase", Skip { Skip, Nearest }
}
names! {
    /// A state that a cache can hold.
    Store, "lowercase", Mean { Cls, Mean, Max, Tokens, Words }
}
names! {
    /// What happens to a text that is longer than `max_length`.
    Overflow, "lowercase", Truncate { Truncate, Windows }
}
names! {
    /// The kinds of head.
    HeadKind, "kebab-case", Linear { Linear, Mlp, Matching, Cosine, Crf, Ridge, Lda, Logistic, LinfaLogistic, LinfaSvm }
}
names! {
    /// The state that a head reads.
    HeadPooling, "lowercase", Mean { Cls, Mean, Max, Attention }
}
impl HeadPooling {
    /// What a head of a task reads of a layer: it pools texts, never the words and tokens that tags and answers are of.
    pub fn store(self, task: Task) -> Store {
        match (task, self) {
            (Task::Tokens, _) => Store::Words,
            (Task::Qa, _) | (_, HeadPooling::Attention) => Store::Tokens,
            (_, HeadPooling::Cls) => Store::Cls,
            (_, HeadPooling::Mean) => Store::Mean,
            (_, HeadPooling::Max) => Store::Max,
        }
    }
}

impl Store {
    /// The state that is stored.
    pub fn kind(self) -> StateKind {
        match self {
            Store::Cls => StateKind::Pooled(Pooling::Cls),
            Store::Mean => StateKind::Pooled(Pooling::Mean),
            Store::Max => StateKind::Pooled(Pooling::Max),
            Store::Tokens => StateKind::Tokens,
            Store::Words => StateKind::Words,
        }
    }
}

names! {
    /// The losses.
    Loss, "kebab-case", CrossEntropy { CrossEntropy, Focal, Bce, Mse }
}
