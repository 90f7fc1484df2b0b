//! The pipeline file as it is written: every key of the contract, with its default.

mod defaults;
pub(crate) mod sweep;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use frostbert_cache::states::Dtype;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    config::{
        file::sweep::SweepSection,
        names::{HeadKind, HeadPooling, Loss, Misplaced, Overflow, Pair, Store, Task},
    },
    data::{ColumnName, Source, SplitFractions},
    encoder::device::{Device, Precision},
    head::layers::activation::Activation,
    metrics::metric::Metric,
    train::{optimizer::OptimizerKind, schedule::Schedule},
};

/// One pipeline file. Keys that depend on others (a task, a head) are `None` where the file leaves them out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineFile {
    /// Names the run folder; the file's stem where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Decides the split, the initial weights, the order of rows and every resample.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// `[run]`
    #[serde(default)]
    pub run: RunSection,
    /// `[model]`
    pub model: ModelSection,
    /// `[data]`
    pub data: DataSection,
    /// `[cache]`
    #[serde(default)]
    pub cache: CacheSection,
    /// `[head]`
    #[serde(default)]
    pub head: HeadSection,
    /// `[train]`
    #[serde(default)]
    pub train: TrainSection,
    /// `[sweep]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepSection>,
}

/// A pipeline file of several tasks over one model and one cache.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TasksFile {
    /// As in [`PipelineFile`], as all below.
    #[serde(default)]
    pub name: Option<String>,
    /// Of all tasks.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Of all tasks.
    #[serde(default)]
    pub run: RunSection,
    /// Of all tasks.
    pub model: ModelSection,
    /// Of all tasks.
    #[serde(default)]
    pub cache: CacheSection,
    /// `[tasks.NAME]`
    pub tasks: BTreeMap<String, TaskSection>,
}

/// `[tasks.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskSection {
    /// `[tasks.NAME.data]`
    pub data: DataSection,
    /// `[tasks.NAME.head]`
    #[serde(default)]
    pub head: HeadSection,
    /// `[tasks.NAME.train]`
    #[serde(default)]
    pub train: TrainSection,
    /// `[tasks.NAME.sweep]`
    #[serde(default)]
    pub sweep: Option<SweepSection>,
}

/// `[run]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSection {
    /// Run folders go to `<dir>/<name>/<id>`.
    pub dir: PathBuf,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// The checkpoint folder.
    pub path: PathBuf,
    /// Where the encoder runs.
    #[serde(default)]
    pub device: Device,
    /// What it computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Padded tokens of one batch; by the device where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// What is learned.
    #[serde(default)]
    pub task: Task,
    /// What it is learned from.
    pub train: Sources,
    /// What early stopping looks at; split from train where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Sources>,
    /// What the result is measured on; split from train where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Sources>,
    /// The labels in id order, or a file of them; found in train where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// How train is split.
    #[serde(default)]
    pub split: SplitFractions,
    /// What is left out.
    #[serde(default)]
    pub clean: CleanSection,
    /// How two texts are encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// What happens to answers that do not stand where they say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub misplaced: Misplaced,
}

impl DataSection {
    /// The sources of all parts.
    pub(crate) fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let given = [self.validation.as_mut(), self.test.as_mut()].into_iter().flatten();
        std::iter::once(&mut self.train).chain(given).flat_map(|sources| &mut sources.0)
    }
}

/// `data.clean`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanSection {
    /// Drop records without a text.
    pub drop_empty: bool,
    /// Drop records that repeat an earlier one; where nothing is said, of all tasks but tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_duplicates: Option<bool>,
    /// Drop records without a label.
    #[serde(skip_serializing_if = "is_default")]
    pub drop_unlabelled: bool,
    /// Leave records out that cannot be read, and list them.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_bad: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSection {
    /// Caches go to `<dir>/<fingerprint>`.
    pub dir: PathBuf,
    /// States to store; what the head needs where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Vec<Store>>,
    /// Layers to store; those that the head reads where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersKey>,
    /// Type of a stored value.
    pub dtype: Dtype,
    /// Longest input in tokens; 128, for qa 384.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// What happens to longer ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// Tokens that two windows share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Tokens between two commits.
    pub shard_tokens: usize,
}

/// `[head]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadSection {
    /// The kind of head; by task where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<HeadKind>,
    /// Inverse regularisation of logistic heads.
    #[serde(rename = "C")]
    pub c: NumberKey,
    /// Regularisation of ridge and lda.
    pub lambda: NumberKey,
    /// Components kept before the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<usize>,
    /// Longest answer, for qa.
    pub max_answer_tokens: usize,
    /// The state that it reads.
    pub pooling: HeadPooling,
    /// The layers that it reads.
    pub layers: LayersKey,
    /// Probability that an input is dropped in training.
    pub dropout: f64,
    /// Widths of hidden layers.
    pub hidden: Vec<usize>,
    /// Between hidden layers.
    pub activation: Activation,
    /// Skip connections over hidden layers.
    pub skip: bool,
    /// Layer normalisation of every hidden layer, before its activation.
    pub layer_norm: bool,
    /// Features to mean 0 and variance 1.
    pub standardize: bool,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// The optimiser.
    pub optimizer: OptimizerKind,
    /// Its learning rate.
    pub lr: f64,
    /// Its weight decay.
    pub weight_decay: f64,
    /// Of sgd.
    pub momentum: f64,
    /// Of adam and adamw.
    pub betas: [f64; 2],
    /// Most passes over the training rows.
    pub epochs: usize,
    /// Documents in a step.
    pub batch_size: usize,
    /// The learning rate's course.
    pub schedule: Schedule,
    /// Share of the steps in which it rises.
    pub warmup: f64,
    /// Largest norm of the gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// The loss; by task where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// The column of labels that is learned from, where that is not the source's own; what is judged is its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<ColumnName>,
    /// Of the focal loss.
    pub gamma: f64,
    /// Weights of the classes in the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Probability mass spread over all classes.
    pub label_smoothing: f64,
    /// When to stop.
    pub early_stopping: EarlyStoppingKey,
    /// States of more megabytes than this are streamed from disk in every epoch, those of fewer stay in memory.
    pub memory_mb: u64,
}

/// How strongly a head is regularised: a number, or a word.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or \"auto\"")]
pub enum NumberKey {
    /// The number.
    Given(f64),
    /// A word.
    Named(NumberWord),
}

/// A number by a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberWord {
    /// By folds over the training rows.
    Auto,
}

impl NumberKey {
    /// The number, where there is one.
    pub(crate) fn given(self) -> Option<f64> {
        match self {
            NumberKey::Given(number) => Some(number),
            NumberKey::Named(NumberWord::Auto) => None,
        }
    }
}

/// Layers of a model: a list of them, negative from the last, or a word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"all\", \"auto\", or a list of layers such as [-1]")]
pub enum LayersKey {
    /// A word.
    Named(LayersWord),
    /// The layers.
    Listed(Vec<i64>),
}

/// Layers by a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayersWord {
    /// By task; of the cache, as the head reads them.
    Auto,
    /// All of them.
    All,
}

/// One source table, or an array of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Sources(pub Vec<Source>);

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourcesVisitor;
        impl<'de> Visitor<'de> for SourcesVisitor {
            type Value = Sources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source table such as { path = \"data.csv\" }, or an array of them")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Sources, A::Error> {
                Ok(Sources(vec![Source::deserialize(MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Sources, A::Error> {
                let mut sources = Vec::new();
                while let Some(source) = sequence.next_element()? {
                    sources.push(source);
                }
                if sources.is_empty() {
                    return Err(de::Error::custom("expected at least one source table"));
                }
                Ok(Sources(sources))
            }
        }
        deserializer.deserialize_any(SourcesVisitor)
    }
}

/// The labels in id order, or a file that names one a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of label names, or the path of a file with one name per line"
)]
pub enum Labels {
    /// The names.
    Names(Vec<String>),
    /// A file of names.
    File(PathBuf),
}

/// `"balanced"`, or a weight per label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"balanced\", or a table of label = weight")]
pub enum ClassWeights {
    /// A word; only `balanced` is known.
    Named(Balanced),
    /// A weight per label; 1 for those that are left out.
    Table(BTreeMap<String, f64>),
}

/// The word `balanced`: weights `n / (C n_c)`, as scikit-learn's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balanced {
    /// The word itself.
    Balanced,
}

/// `false`, or a metric and a patience.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyStoppingKey(pub Option<EarlyStoppingTable>);

/// The table of `train.early_stopping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStoppingTable {
    /// The validation metric that is followed: `loss`, or a metric of the task; the task's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Epochs without a better value before training stops.
    pub patience: usize,
}

impl Serialize for EarlyStoppingKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(stopping) => stopping.serialize(serializer),
            None => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStoppingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FalseOrTable;
        impl<'de> Visitor<'de> for FalseOrTable {
            type Value = EarlyStoppingKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("false, or a table such as { metric = \"loss\", patience = 5 }")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<EarlyStoppingKey, E> {
                Ok(EarlyStoppingKey(on.then(EarlyStoppingTable::default)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EarlyStoppingKey, A::Error> {
                let table = EarlyStoppingTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(EarlyStoppingKey(Some(table)))
            }
        }
        deserializer.deserialize_any(FalseOrTable)
    }
}

fn default_seed() -> u64 {
    42
}
