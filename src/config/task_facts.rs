//! What is true of each task, whatever its data and its model: one constant for each, which the checks of the pipeline file
//! and the defaults read.

use crate::{
    config::names::{HeadKind, HeadPooling, Loss, Pair, Store, Task},
    data::DataTask,
    metrics::metric::Metric,
};

/// What is true of a task.
pub(crate) struct TaskFacts {
    /// What the labels in the data mean.
    data: DataTask,
    /// What heads read of a document.
    input: TaskInput,
    /// Why heads cannot read one vector of another model for each row; `None` if they can.
    pub(in crate::config) unfit_for_vectors: Option<&'static str>,
    /// How a pair is encoded unless the file says so.
    pub(in crate::config) pair: Pair,
    /// The layers that heads read by default.
    pub(in crate::config) layers: DefaultLayers,
    /// The kinds of head that can be trained, the default first.
    pub(in crate::config) kinds: &'static [HeadKind],
    /// The losses that heads can be trained with, the default first.
    pub(in crate::config) losses: &'static [Loss],
    /// The metrics that heads are compared by: those that `sweep.select` can name, and that early stopping can follow
    /// besides the loss. The task's own metric comes first.
    pub(crate) metrics: &'static [Metric],
}

/// What heads of a task read of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskInput {
    /// One vector of a text or a pair.
    Pooled,
    /// A vector of each word.
    Words,
    /// A vector of each token.
    Tokens,
}

/// The layers that heads of a task read by default: docs/performance.md has the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DefaultLayers {
    /// The last one.
    Last,
    /// A mix of all; the last one where features are projected.
    Mixed,
    /// The one in the middle.
    Middle,
}

const CLASSIFICATION: TaskFacts = TaskFacts {
    data: DataTask::Classification,
    input: TaskInput::Pooled,
    unfit_for_vectors: None,
    pair: Pair::Separate,
    layers: DefaultLayers::Last,
    kinds: &[
        HeadKind::Linear,
        HeadKind::Mlp,
        HeadKind::Ridge,
        HeadKind::Lda,
        HeadKind::Logistic,
        HeadKind::LinfaLogistic,
        HeadKind::LinfaSvm,
    ],
    losses: &[Loss::CrossEntropy, Loss::Focal],
    metrics: &[
        Metric::MacroF1,
        Metric::Accuracy,
        Metric::MicroF1,
        Metric::WeightedF1,
        Metric::Mcc,
        Metric::RocAuc,
        Metric::LogLoss,
        Metric::Brier,
        Metric::Ece,
    ],
};

const MULTILABEL: TaskFacts = TaskFacts {
    data: DataTask::Multilabel,
    input: TaskInput::Pooled,
    unfit_for_vectors: None,
    pair: Pair::Separate,
    layers: DefaultLayers::Last,
    kinds: &[HeadKind::Linear, HeadKind::Mlp, HeadKind::Ridge],
    losses: &[Loss::Bce, Loss::Focal],
    metrics: &[
        Metric::MacroF1,
        Metric::MicroF1,
        Metric::WeightedF1,
        Metric::SamplesF1,
        Metric::Accuracy,
        Metric::RocAuc,
        Metric::LogLoss,
        Metric::Brier,
        Metric::Ece,
    ],
};

const REGRESSION: TaskFacts = TaskFacts {
    data: DataTask::Regression,
    input: TaskInput::Pooled,
    unfit_for_vectors: None,
    pair: Pair::Separate,
    layers: DefaultLayers::Last,
    kinds: &[HeadKind::Linear, HeadKind::Mlp, HeadKind::Ridge],
    losses: &[Loss::Mse],
    metrics: &Metric::OF_NUMBERS,
};

/// For similarity, the label of a pair is a number.
const SIMILARITY: TaskFacts = TaskFacts {
    unfit_for_vectors: Some("compares the states of two texts, and a row has one vector"),
    kinds: &[HeadKind::Cosine, HeadKind::Linear, HeadKind::Mlp, HeadKind::Ridge],
    ..REGRESSION
};

/// The tags of words are predicted from a mix of all layers, because lower layers do better for words.
const TOKENS: TaskFacts = TaskFacts {
    data: DataTask::Tokens,
    input: TaskInput::Words,
    unfit_for_vectors: Some("reads a state for each word, and a row has one vector"),
    pair: Pair::Separate,
    layers: DefaultLayers::Mixed,
    kinds: &[HeadKind::Linear, HeadKind::Mlp, HeadKind::Crf],
    losses: &[Loss::CrossEntropy, Loss::Focal],
    // Only those from the third on apply to tags that do not mark entities.
    metrics: &[
        Metric::EntityF1Strict,
        Metric::EntityF1Conlleval,
        Metric::TokenAccuracy,
        Metric::MacroF1,
        Metric::WeightedF1,
    ],
};

/// Questions are matched with their contexts in the middle of a model.
const QA: TaskFacts = TaskFacts {
    data: DataTask::Qa,
    input: TaskInput::Tokens,
    unfit_for_vectors: Some("reads a state for each token, and a row has one vector"),
    pair: Pair::Joint,
    layers: DefaultLayers::Middle,
    kinds: &[HeadKind::Matching, HeadKind::Linear, HeadKind::Mlp],
    losses: &[Loss::CrossEntropy],
    metrics: &[Metric::F1, Metric::ExactMatch],
};

impl Task {
    /// Returns what is true of the task.
    pub(crate) fn facts(self) -> &'static TaskFacts {
        match self {
            Task::Classification => &CLASSIFICATION,
            Task::Multilabel => &MULTILABEL,
            Task::Regression => &REGRESSION,
            Task::Tokens => &TOKENS,
            Task::Qa => &QA,
            Task::Similarity => &SIMILARITY,
        }
    }

    /// Whether heads of the task read one vector of a text, and not its words or tokens.
    pub(crate) fn reads_pooled(self) -> bool {
        self.facts().input == TaskInput::Pooled
    }

    /// Whether heads of the task read a vector of each word, so that a record may have words in place of a text.
    pub fn reads_words(self) -> bool {
        self.facts().input == TaskInput::Words
    }

    /// Whether the second text of a record is the context of a question, in which the answer is a span of tokens.
    pub fn reads_contexts(self) -> bool {
        self.facts().data == DataTask::Qa
    }

    /// Returns what the labels of the task mean.
    pub fn of_data(self) -> DataTask {
        self.facts().data
    }
}

impl HeadPooling {
    /// Returns the kinds of states that a head for a task reads of a layer. Pooling only applies to texts: tags are
    /// predicted from words, and answers from tokens. `sentence` are those that a sentence vector is made of.
    pub fn stores(self, task: Task, sentence: &[Store]) -> Vec<Store> {
        match (task.facts().input, self) {
            (TaskInput::Words, _) => vec![Store::Words],
            (TaskInput::Tokens, _) | (_, HeadPooling::Attention) => vec![Store::Tokens],
            (_, HeadPooling::Cls) => vec![Store::Cls],
            (_, HeadPooling::Max) => vec![Store::Max],
            (_, HeadPooling::Auto | HeadPooling::Mean) => vec![Store::Mean],
            (_, HeadPooling::Sentence) => sentence.to_vec(),
        }
    }
}
