//! The defaults of the sections.

use crate::{
    config::file::*,
    head::spec::{HeadSpec, Stopping},
};

impl Default for RunSection {
    fn default() -> RunSection {
        RunSection { dir: "runs".into() }
    }
}

impl Default for CleanSection {
    fn default() -> CleanSection {
        CleanSection {
            drop_empty: true,
            drop_duplicates: None,
            drop_unlabelled: false,
            skip_bad: false,
        }
    }
}

impl Default for CacheSection {
    fn default() -> CacheSection {
        CacheSection {
            dir: "cache".into(),
            store: None,
            layers: None,
            dtype: Dtype::F16,
            max_length: None,
            overflow: None,
            stride: None,
            shard_tokens: 131_072,
        }
    }
}

impl Default for HeadSection {
    fn default() -> HeadSection {
        HeadSection {
            kind: None,
            c: NumberKey::Named(NumberWord::Auto),
            lambda: NumberKey::Named(NumberWord::Auto),
            pca: None,
            max_answer_tokens: 30,
            pooling: HeadPooling::Auto,
            layers: LayersKey::Named(LayersWord::Auto),
            dropout: 0.1,
            hidden: Vec::new(),
            activation: Activation::Gelu,
            skip: false,
            layer_norm: false,
            standardize: true,
        }
    }
}

impl Default for EarlyStoppingTable {
    fn default() -> EarlyStoppingTable {
        EarlyStoppingTable { metric: None, patience: Stopping::PATIENCE }
    }
}

impl Default for TrainSection {
    fn default() -> TrainSection {
        TrainSection {
            optimizer: OptimizerKind::AdamW,
            lr: 1e-3,
            weight_decay: 0.01,
            momentum: 0.9,
            betas: [0.9, 0.999],
            epochs: HeadSpec::EPOCHS,
            batch_size: 32,
            schedule: Schedule::Constant,
            warmup: 0.0,
            clip: None,
            loss: None,
            label: None,
            gamma: 2.0,
            class_weights: None,
            label_smoothing: 0.0,
            early_stopping: EarlyStoppingKey(Some(EarlyStoppingTable::default())),
            memory_mb: 2048,
            unfreeze: None,
            layer_lr: None,
            layer_decay: None,
            lora: None,
        }
    }
}
