//! The names that pipeline files use for tasks, states, kinds of head and losses.

use std::fmt;

use frostbert_cache::states::{Pooling, StateKind};
use serde::{Deserialize, Serialize};

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
    /// The task that a head learns.
    Task, "lowercase", Classification {
        /// One label for a text or a pair.
        Classification,
        /// Any number of labels for a text or a pair.
        Multilabel,
        /// A number for a text or a pair.
        Regression,
        /// A label for each word.
        Tokens,
        /// The span of a context that answers a question.
        Qa,
        /// A number for a pair that says how similar its texts are.
        Similarity,
    }
}
names! {
    /// Whether the two texts of a pair are encoded in one input or in two.
    Pair, "lowercase", Separate { Joint, Separate }
}
names! {
    /// How to handle answers that are not in their context at the stated position.
    Misplaced, "lowercase", Skip { Skip, Nearest }
}
names! {
    /// A kind of state that a cache can hold.
    Store, "lowercase", Mean { Cls, Mean, Max, Tokens, Words }
}
names! {
    /// How to handle a text that is longer than `max_length`.
    Overflow, "lowercase", Truncate { Truncate, Windows }
}
names! {
    /// The kind of a head.
    HeadKind, "kebab-case", Linear { Linear, Mlp, Matching, Cosine, Crf, Ridge, Lda, Logistic, LinfaLogistic, LinfaSvm }
}
names! {
    /// The embedding of a text that a head reads.
    HeadPooling, "lowercase", Auto { Auto, Cls, Mean, Max, Attention, Sentence }
}

impl Store {
    /// Returns the kind of this pooled state.
    pub(crate) fn of_pooling(pooling: Pooling) -> Store {
        match pooling {
            Pooling::Cls => Store::Cls,
            // Given vectors describe no model.
            Pooling::Mean | Pooling::Given(_) => Store::Mean,
            Pooling::Max => Store::Max,
        }
    }

    /// Returns the kind of state that is stored.
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
    /// The loss that a head minimises.
    Loss, "kebab-case", CrossEntropy { CrossEntropy, Focal, Bce, Mse }
}
