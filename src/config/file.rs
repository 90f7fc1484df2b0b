//! The pipeline file as written: every key that it can have, with its default.

mod auto;
mod defaults;
pub(crate) mod sweep;
pub(crate) mod unfreeze;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use frostbert_cache::states::Dtype;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    config::{
        file::{
            sweep::SweepSection,
            unfreeze::{LoraTable, UnfreezeKey},
        },
        names::{HeadKind, HeadPooling, Loss, Misplaced, Overflow, Pair, Store, Task},
    },
    data::{ColumnName, Source, SplitFractions},
    encoder::device::{Device, Precision},
    head::layers::activation::Activation,
    metrics::metric::Metric,
    train::{optimizer::OptimizerKind, schedule::Schedule},
};

/// One pipeline file. Keys whose default depends on others (the task, the kind of head) are `None` if the file leaves
/// them out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineFile {
    /// Name of the run folder; the file's stem if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Determines the split, the initial weights, the order of rows and every resample.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// `[run]`
    #[serde(default)]
    pub run: RunSection,
    /// `[model]`; absent if the rows bring their states with them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub model: ModelSection,
    /// `[data]`
    pub data: DataSection,
    /// `[cache]`
    #[serde(default, skip_serializing_if = "is_default")]
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

/// A pipeline file of several tasks that share one model and one cache.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TasksFile {
    /// As in [`PipelineFile`], like the fields below.
    #[serde(default)]
    pub name: Option<String>,
    /// Shared by all tasks.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Shared by all tasks.
    #[serde(default)]
    pub run: RunSection,
    /// Shared by all tasks.
    #[serde(default)]
    pub model: ModelSection,
    /// Shared by all tasks.
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
    /// Run folders are written to `<dir>/<name>/<number>`.
    pub dir: PathBuf,
}

/// `[model]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// The checkpoint folder.
    pub path: PathBuf,
    /// The device that the encoder runs on.
    #[serde(default)]
    pub device: Device,
    /// The precision that the encoder computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Maximum number of padded tokens in a batch; the device's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Whether the tokenizer converts texts to lower case; as its files say if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowercase: Option<bool>,
    /// What is put before every text: a text, or the name of one of the model's prompts; if absent, the model's default
    /// prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The task.
    #[serde(default)]
    pub task: Task,
    /// The training data.
    pub train: Sources,
    /// The validation data, which early stopping follows; split from train if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Sources>,
    /// The test data, on which the result is measured; split from train if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Sources>,
    /// The labels in id order, or a file of them; collected from train if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// The shares into which train is split.
    #[serde(default)]
    pub split: SplitFractions,
    /// Which examples are dropped.
    #[serde(default)]
    pub clean: CleanSection,
    /// How the two texts of a pair are encoded; by task if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// How to handle answers that are not in their context at the stated position.
    #[serde(default, skip_serializing_if = "is_default")]
    pub misplaced: Misplaced,
}

impl DataSection {
    /// Iterates over the sources of train, validation and test.
    pub(crate) fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let given = [self.validation.as_mut(), self.test.as_mut()].into_iter().flatten();
        std::iter::once(&mut self.train).chain(given).flat_map(|sources| &mut sources.0)
    }
}

/// `data.clean`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanSection {
    /// Drop training examples without a text.
    pub drop_empty: bool,
    /// Drop training examples that repeat an earlier one; if absent, true for all tasks but tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_duplicates: Option<bool>,
    /// Drop examples without a label.
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
    /// Caches are written to `<dir>/<fingerprint>`.
    pub dir: PathBuf,
    /// The states to store; if absent or `"auto"`, those that the heads read.
    #[serde(deserialize_with = "auto::store", skip_serializing_if = "Option::is_none")]
    pub store: Option<Vec<Store>>,
    /// The layers to store; if absent, those that the heads read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersKey>,
    /// The type of a stored value.
    pub dtype: Dtype,
    /// Maximum length of an input in tokens; if absent or `"auto"`, what a sentence-transformers folder says, else 128,
    /// or 384 for qa.
    #[serde(deserialize_with = "auto::number", skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// How to handle longer documents; if absent, truncation, or windows for qa.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// Number of tokens that two neighbouring windows share; if absent, a quarter of `max_length`, or 128 for qa.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Number of tokens between two commits.
    pub shard_tokens: usize,
}

/// `[head]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadSection {
    /// The kind of head; by task if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<HeadKind>,
    /// Inverse regularisation strength of `logistic`, `linfa-logistic` and `linfa-svm`.
    #[serde(rename = "C")]
    pub c: NumberKey,
    /// Regularisation of ridge and lda.
    pub lambda: NumberKey,
    /// Components kept before the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<usize>,
    /// Maximum length of an answer in tokens, for qa.
    pub max_answer_tokens: usize,
    /// The embedding of a text that the head reads; `auto` is what a sentence-transformers folder says, else the mean.
    pub pooling: HeadPooling,
    /// The layers that the head reads.
    pub layers: LayersKey,
    /// Probability that an input or a hidden unit is dropped in training.
    pub dropout: f64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// The activation of every hidden layer.
    pub activation: Activation,
    /// Whether hidden layers have skip connections.
    pub skip: bool,
    /// Whether every hidden layer is normalised before its activation.
    pub layer_norm: bool,
    /// Whether features are scaled to mean 0 and variance 1.
    pub standardize: bool,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// The optimiser.
    pub optimizer: OptimizerKind,
    /// The learning rate before the schedule.
    pub lr: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// The momentum of sgd.
    pub momentum: f64,
    /// The betas of adam and adamw.
    pub betas: [f64; 2],
    /// Maximum number of passes over the training rows.
    pub epochs: usize,
    /// Number of samples in a step.
    pub batch_size: usize,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// Fraction of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Maximum norm of the gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// The loss; by task if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// The column of labels that the head learns from, in place of the source's own; it is always evaluated on the
    /// source's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<ColumnName>,
    /// Gamma of the focal loss.
    pub gamma: f64,
    /// Weights of the classes in the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Probability mass that is spread evenly over all classes.
    pub label_smoothing: f64,
    /// When training stops.
    pub early_stopping: EarlyStoppingKey,
    /// States of up to this many mebibytes stay in memory; more are streamed from disk in every epoch.
    pub memory_mb: u64,
    /// Number of the encoder's last layers that are trained with the head; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfreeze: Option<UnfreezeKey>,
    /// The learning rate of the encoder's last layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_lr: Option<f64>,
    /// The factor of the learning rate from each of the encoder's layers to the one below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_decay: Option<f64>,
    /// Low-rank updates that are trained in place of the layers themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraTable>,
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

/// Layers that are named by a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayersWord {
    /// The default of the task; for the cache, the layers that the heads read.
    Auto,
    /// All layers.
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

/// The labels in id order, or a file with one name per line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of label names, or the path of a file with one name per line"
)]
pub enum Labels {
    /// The names.
    Names(Vec<String>),
    /// The path of a file of names.
    File(PathBuf),
}

/// `"balanced"`, or a weight for each label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"balanced\", or a table of label = weight")]
pub enum ClassWeights {
    /// A word; only `balanced` is known.
    Named(Balanced),
    /// A weight for each label; 1 for labels that are left out.
    Table(BTreeMap<String, f64>),
}

/// The word `balanced`: weights `n / (C n_c)`, as in scikit-learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balanced {
    /// The word itself.
    Balanced,
}

/// The value of `train.early_stopping`: `false`, or a metric and a patience.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyStoppingKey(pub Option<EarlyStoppingTable>);

/// The table of `train.early_stopping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStoppingTable {
    /// The validation metric to follow: `loss` or a metric of the task; the task's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Number of epochs without a better value after which training stops.
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
