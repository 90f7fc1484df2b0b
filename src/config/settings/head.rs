//! The checked settings of a head: what it reads, what it computes, and how it is fitted.

use crate::{
    config::{
        file::{
            ClassWeights, EarlyStoppingTable, PipelineFile,
            unfreeze::{LoraTable, UnfreezeKey},
        },
        names::{HeadKind, HeadPooling, Loss, Task},
        settings::LayerChoice,
    },
    data::ColumnName,
    head::{layers::activation::Activation, size::MLP_WIDTH, spec::Stopping},
    metrics::metric::Metric,
    train::{optimizer::Optimizer, schedule::Schedule},
};

/// `head.C` and `head.lambda` where neither the file nor folds say more.
pub(crate) const UNCHOSEN: f64 = 1.0;

/// `train.layer_lr` where the file says nothing.
const LAYER_LR: f64 = 5e-5;

/// `train.layer_decay` where the file says nothing.
const LAYER_DECAY: f64 = 0.95;

/// A head, as `[head]` and `[train]` describe it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeadSettings {
    /// Its kind, with the settings that only this kind has.
    pub kind: KindSettings,
    /// The embedding of a text that it reads; tags and answers are predicted from words and tokens instead.
    pub pooling: HeadPooling,
    /// The layers that it reads.
    pub layers: LayerChoice,
    /// Number of principal components of the features that are kept.
    pub pca: Option<usize>,
    /// Whether features are scaled to mean 0 and variance 1.
    pub standardize: bool,
    /// Maximum length of an answer in tokens.
    pub max_answer_tokens: usize,
    /// The column of labels that it learns from, in place of the source's own.
    pub label: Option<ColumnName>,
    /// The loss that it minimises.
    pub loss: LossSettings,
}

/// The kinds of head, with their settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KindSettings {
    /// One matrix and its biases.
    Linear(StepSettings),
    /// Hidden layers and a linear layer.
    Mlp(HiddenLayers, StepSettings),
    /// An MLP over each token of a context together with its match in the question.
    Matching(HiddenLayers, StepSettings),
    /// A linear-chain CRF over an MLP, or over a linear layer if there are no hidden layers.
    Crf(HiddenLayers, StepSettings),
    /// Ridge regression.
    Ridge {
        /// Regularisation, counted in rows; where there is none, folds choose it.
        lambda: Option<f64>,
    },
    /// Linear discriminant analysis.
    Lda {
        /// Rows by which the covariance is shrunk; where there is none, folds choose them.
        lambda: Option<f64>,
    },
    /// Logistic regression, fitted by L-BFGS.
    Logistic {
        /// Inverse regularisation; where there is none, folds choose it.
        c: Option<f64>,
    },
    /// The logistic regression of `linfa`.
    LinfaLogistic {
        /// Inverse regularisation strength.
        c: f64,
    },
    /// The support vector machine of `linfa`.
    LinfaSvm {
        /// Inverse regularisation strength.
        c: f64,
    },
    /// The cosine of two states; nothing is learned.
    Cosine,
}

/// The hidden layers of a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HiddenLayers {
    /// Their widths.
    pub widths: Vec<usize>,
    /// The activation of each of them.
    pub activation: Activation,
    /// Whether a layer's input is added to its output.
    pub skip: bool,
    /// Whether each layer is normalised before its activation.
    pub layer_norm: bool,
}

/// The training settings of a head that learns in steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepSettings {
    /// Probability that an input or a hidden unit is dropped.
    pub dropout: f32,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// Fraction of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Maximum norm of the gradient.
    pub clip: Option<f64>,
    /// When training stops early; `None` trains every epoch.
    pub stopping: Option<EarlyStoppingTable>,
    /// Maximum number of passes over the training rows.
    pub epochs: usize,
    /// Number of samples in a step.
    pub batch_size: usize,
    /// The encoder's layers that are trained too.
    pub unfreeze: Option<UnfreezeKey>,
    /// The learning rate of the last of them.
    pub layer_lr: f64,
    /// The factor of the learning rate from each of them to the one below it.
    pub layer_decay: f64,
    /// The low-rank updates that are trained in place of them.
    pub lora: Option<LoraTable>,
}

/// The loss and its settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LossSettings {
    /// The name of the loss.
    pub name: Loss,
    /// Gamma of the focal loss.
    pub gamma: f32,
    /// Probability mass that is spread evenly over all classes.
    pub label_smoothing: f32,
    /// Weights of the classes.
    pub class_weights: Option<ClassWeights>,
}

impl HeadSettings {
    /// Collects the settings of a file that apply to its kind of head; those for other kinds are left out.
    pub(super) fn new(file: &PipelineFile) -> HeadSettings {
        let (head, train) = (&file.head, &file.train);
        let steps = || StepSettings {
            dropout: head.dropout as f32,
            optimizer: Optimizer {
                kind: train.optimizer,
                lr: train.lr,
                weight_decay: train.weight_decay,
                momentum: train.momentum,
                betas: train.betas,
            },
            schedule: train.schedule,
            warmup: train.warmup,
            clip: train.clip,
            stopping: train.early_stopping.0,
            epochs: train.epochs,
            batch_size: train.batch_size,
            unfreeze: file.unfreeze(),
            layer_lr: train.layer_lr.unwrap_or(LAYER_LR),
            layer_decay: train.layer_decay.unwrap_or(LAYER_DECAY),
            lora: train.lora.clone(),
        };
        let layers = || HiddenLayers {
            widths: hidden_widths(file),
            activation: head.activation,
            skip: head.skip,
            layer_norm: head.layer_norm,
        };
        HeadSettings {
            kind: match file.head_kind() {
                HeadKind::Linear => KindSettings::Linear(steps()),
                HeadKind::Mlp => KindSettings::Mlp(layers(), steps()),
                HeadKind::Matching => KindSettings::Matching(layers(), steps()),
                HeadKind::Crf => KindSettings::Crf(layers(), steps()),
                HeadKind::Ridge => KindSettings::Ridge { lambda: head.lambda.given() },
                HeadKind::Lda => KindSettings::Lda { lambda: head.lambda.given() },
                HeadKind::Logistic => KindSettings::Logistic { c: head.c.given() },
                HeadKind::LinfaLogistic => {
                    KindSettings::LinfaLogistic { c: head.c.given().unwrap_or(UNCHOSEN) }
                }
                HeadKind::LinfaSvm => {
                    KindSettings::LinfaSvm { c: head.c.given().unwrap_or(UNCHOSEN) }
                }
                HeadKind::Cosine => KindSettings::Cosine,
            },
            pooling: head.pooling,
            layers: LayerChoice::of_head(file),
            pca: head.pca,
            standardize: head.standardize,
            max_answer_tokens: head.max_answer_tokens,
            label: train.label.clone(),
            loss: LossSettings {
                name: train.loss.unwrap_or(file.data.task.facts().losses[0]),
                gamma: train.gamma as f32,
                label_smoothing: train.label_smoothing as f32,
                class_weights: train.class_weights.clone(),
            },
        }
    }
}

impl HeadSettings {
    /// Whether the head itself pools the tokens of a text.
    pub(crate) fn pools_by_attention(&self, task: Task) -> bool {
        let has_texts = task.reads_pooled();
        has_texts && self.pooling == HeadPooling::Attention
    }
}

impl StepSettings {
    /// Returns when training stops early, for a task whose own metric is `own_metric`.
    pub(crate) fn stopping(&self, own_metric: Metric) -> Option<Stopping> {
        let EarlyStoppingTable { metric, patience } = self.stopping?;
        Some(Stopping { metric: metric.unwrap_or(own_metric), patience })
    }
}

impl KindSettings {
    /// Returns the name of the kind.
    pub(crate) fn name(&self) -> HeadKind {
        match self {
            KindSettings::Linear(_) => HeadKind::Linear,
            KindSettings::Mlp(..) => HeadKind::Mlp,
            KindSettings::Matching(..) => HeadKind::Matching,
            KindSettings::Crf(..) => HeadKind::Crf,
            KindSettings::Ridge { .. } => HeadKind::Ridge,
            KindSettings::Lda { .. } => HeadKind::Lda,
            KindSettings::Logistic { .. } => HeadKind::Logistic,
            KindSettings::LinfaLogistic { .. } => HeadKind::LinfaLogistic,
            KindSettings::LinfaSvm { .. } => HeadKind::LinfaSvm,
            KindSettings::Cosine => HeadKind::Cosine,
        }
    }

    /// Returns the training settings of a kind that learns in steps.
    pub(crate) fn steps(&self) -> Option<&StepSettings> {
        match self {
            KindSettings::Linear(steps)
            | KindSettings::Mlp(_, steps)
            | KindSettings::Matching(_, steps)
            | KindSettings::Crf(_, steps) => Some(steps),
            _ => None,
        }
    }

    /// Returns the hidden layers of a kind that can have some.
    pub(crate) fn hidden(&self) -> Option<&HiddenLayers> {
        match self {
            KindSettings::Mlp(layers, _)
            | KindSettings::Matching(layers, _)
            | KindSettings::Crf(layers, _) => Some(layers),
            _ => None,
        }
    }

    /// Whether the head is fitted to all rows at once, without steps and epochs.
    pub(crate) fn is_full_batch(&self) -> bool {
        self.steps().is_none() && !self.is_cosine()
    }

    /// Whether folds over the training rows choose how strongly it is regularised.
    pub(crate) fn is_chosen_by_folds(&self) -> bool {
        matches!(
            self,
            KindSettings::Ridge { lambda: None }
                | KindSettings::Lda { lambda: None }
                | KindSettings::Logistic { c: None }
        )
    }

    /// Whether it compares two states and learns nothing.
    pub(crate) fn is_cosine(&self) -> bool {
        matches!(self, KindSettings::Cosine)
    }
}

/// Returns the widths of a head's hidden layers; an MLP has one layer if the file names none.
pub(super) fn hidden_widths(file: &PipelineFile) -> Vec<usize> {
    match (file.head_kind(), &file.head.hidden[..]) {
        (HeadKind::Mlp, []) => vec![MLP_WIDTH],
        (_, widths) => widths.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{file::HeadSection, settings::Pipeline};

    #[test]
    fn a_number_is_given_or_left_to_folds_and_the_heads_of_linfa_take_1() {
        let kind = |head: &str| {
            let text = format!(
                "[model]\npath = \"m\"\n[data]\ntrain = {{ path = \"a.csv\" }}\n[head]\n{head}"
            );
            let file = toml::from_str(&text).unwrap();
            Pipeline::check("pipeline.toml".as_ref(), file).unwrap().head.kind
        };
        for (head, expected) in [
            ("kind = \"logistic\"", KindSettings::Logistic { c: None }),
            ("kind = \"logistic\"\nC = \"auto\"", KindSettings::Logistic { c: None }),
            ("kind = \"logistic\"\nC = 2", KindSettings::Logistic { c: Some(2.0) }),
            ("kind = \"ridge\"\nlambda = 0.5", KindSettings::Ridge { lambda: Some(0.5) }),
            ("kind = \"ridge\"\nC = 0.5", KindSettings::Ridge { lambda: None }),
            ("kind = \"lda\"", KindSettings::Lda { lambda: None }),
            ("kind = \"linfa-svm\"", KindSettings::LinfaSvm { c: 1.0 }),
            ("kind = \"linfa-logistic\"\nC = 0.1", KindSettings::LinfaLogistic { c: 0.1 }),
        ] {
            assert_eq!(kind(head), expected, "{head}");
        }
        // As the lock has it.
        let section = HeadSection::default();
        let json = serde_json::to_value(&section).unwrap();
        assert_eq!((&json["C"], &json["lambda"]), (&"auto".into(), &"auto".into()));
        assert_eq!(serde_json::from_value::<HeadSection>(json).unwrap(), section);
        let given: HeadSection = serde_json::from_str(r#"{ "C": 1.0, "lambda": 3 }"#).unwrap();
        assert_eq!((given.c.given(), given.lambda.given()), (Some(1.0), Some(3.0)));
    }
}
