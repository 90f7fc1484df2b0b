//! The pipeline after its checks: what the two stages work with.

mod extraction;

use std::path::{Path, PathBuf};

pub use extraction::ExtractionSettings;

use super::{
    file::{self, HeadKind, HeadPooling, PipelineFile, Task},
    parse,
};
use crate::{
    cache::plan::MAX_STATES,
    data::{CleanOptions, Source, SplitFractions},
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    states::{Pooling, StateId},
};

/// A checked pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The file that it was read from.
    pub path: PathBuf,
    /// Names its runs.
    pub name: String,
    /// The file after defaults and overrides: what the lock file holds.
    pub file: PipelineFile,
    /// Stage 1.
    pub extraction: ExtractionSettings,
}

/// Where labelled rows come from.
#[derive(Clone, Debug)]
pub struct DataSettings<'a> {
    /// Rows to learn from (and to split, for what is not given).
    pub train: &'a [Source],
    /// Validation rows, where they are given.
    pub validation: Option<&'a [Source]>,
    /// Test rows, where they are given.
    pub test: Option<&'a [Source]>,
    /// How train is split.
    pub split: SplitFractions,
    /// What is left out.
    pub clean: CleanOptions,
    /// Decides the split.
    pub seed: u64,
}

impl Pipeline {
    /// Reads and checks a pipeline file, with overrides such as `train.lr=1e-3`.
    ///
    /// # Errors
    /// When a key or a value is not known, or asks for what this version cannot do: with the cure.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Pipeline> {
        Pipeline::check(path, parse::read(path, overrides)?)
    }

    /// Checks what a file says; `path` stands in messages and names the runs.
    ///
    /// # Errors
    /// As [`Pipeline::read`].
    pub fn check(path: &Path, mut file: PipelineFile) -> Result<Pipeline> {
        let refuse = refusal(path);
        let stem = || {
            path.file_stem().map_or("pipeline".into(), |stem| {
                stem.to_string_lossy().into_owned()
            })
        };
        let name = file.name.get_or_insert_with(stem).clone();
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(refuse(
                format!("`name` is `{name}`, which is no folder name"),
                "use letters, digits, - and _".into(),
            ));
        }
        let sources = [
            Some(&file.data.train),
            file.data.validation.as_ref(),
            file.data.test.as_ref(),
        ];
        let sources: Vec<Source> = sources
            .into_iter()
            .flatten()
            .flat_map(|sources| sources.0.clone())
            .collect();
        let extraction = extraction::check(&mut file, sources, &refuse)?;
        Ok(Pipeline {
            path: path.to_path_buf(),
            name,
            file,
            extraction,
        })
    }

    /// Where labelled rows come from.
    pub fn data(&self) -> DataSettings<'_> {
        let data = &self.file.data;
        DataSettings {
            train: &data.train.0,
            validation: data.validation.as_ref().map(|sources| &sources.0[..]),
            test: data.test.as_ref().map(|sources| &sources.0[..]),
            split: data.split,
            clean: data.clean,
            seed: self.file.seed,
        }
    }

    /// The state that the head reads, for a checkpoint of so many layers.
    ///
    /// # Errors
    /// When the head asks for more than one layer, for attention, or for a layer that there is not.
    pub fn head_state(&self, model_layers: usize) -> Result<StateId> {
        let refuse = refusal(&self.path);
        let head = &self.file.head;
        let pooling = match head.pooling {
            HeadPooling::Cls => Pooling::Cls,
            HeadPooling::Mean => Pooling::Mean,
            HeadPooling::Max => Pooling::Max,
            HeadPooling::Attention => return Err(refuse_attention(&refuse)),
        };
        let &[layer] = &head.layers[..] else {
            return Err(refuse(
                format!(
                    "head.layers names {} layers, and this version mixes none yet",
                    head.layers.len()
                ),
                "name one layer, as in head.layers = [-1]".into(),
            ));
        };
        let layer = absolute_layer(layer, model_layers, "head.layers", &refuse)?;
        Ok(StateId::pooled(pooling, layer))
    }

    /// The states that stage 1 stores, for a checkpoint of so many layers; sorted, each once.
    ///
    /// # Errors
    /// When a layer is asked for that there is not.
    pub fn stored_states(&self, model_layers: usize) -> Result<Vec<StateId>> {
        let refuse = refusal(&self.path);
        let mut states = Vec::new();
        for layer in &self.extraction.layers {
            let layer = absolute_layer(*layer, model_layers, "cache.layers", &refuse)?;
            let kinds = self.extraction.kinds.iter();
            states.extend(kinds.map(|kind| StateId { kind: *kind, layer }));
        }
        states.sort_unstable();
        states.dedup();
        if states.len() > MAX_STATES {
            return Err(refuse(
                format!(
                    "cache.store and cache.layers ask for {} states at once",
                    states.len()
                ),
                format!("ask for at most {MAX_STATES}; others can be added by another extraction"),
            ));
        }
        Ok(states)
    }

    /// Checks that `max_length` fits the checkpoint.
    ///
    /// # Errors
    /// When it is longer than the model's positions.
    pub fn check_length(&self, checkpoint: &Checkpoint) -> Result<()> {
        let asked = self.extraction.max_length;
        if let Some(most) = checkpoint.config.max_tokens.filter(|most| asked > *most) {
            return Err(refusal(&self.path)(
                format!("cache.max_length is {asked}, but the model has {most} positions"),
                format!("set cache.max_length to {most} or less"),
            ));
        }
        Ok(())
    }

    /// Checks what only training needs: the head's kind, the loss, the ranges of numbers.
    ///
    /// # Errors
    /// When the pipeline asks for what this version does not train, or a number is out of its range.
    pub fn check_training(&self) -> Result<()> {
        let refuse = refusal(&self.path);
        let (head, train) = (&self.file.head, &self.file.train);
        for (name, section) in [("sweep", &self.file.sweep), ("tasks", &self.file.tasks)] {
            if section.is_some() {
                return Err(refuse(
                    format!("this version does not run [{name}] yet"),
                    format!(
                        "remove the section [{name}]: the head of [head] and [train] is trained"
                    ),
                ));
            }
        }
        if self.file.data.task != Task::Classification {
            return Err(refuse(
                format!(
                    "this version does not train `{}` heads yet",
                    self.file.data.task
                ),
                "leave data.task out, for classification".into(),
            ));
        }
        if let Some(source) = self
            .extraction
            .sources
            .iter()
            .find(|source| source.text_pair.is_some())
        {
            return Err(refuse(
                format!(
                    "this version does not train on pairs yet (text_pair of `{}`)",
                    source.path.display()
                ),
                "leave text_pair out; `frostbert extract` encodes pairs".into(),
            ));
        }
        let unbuilt = [
            (
                !matches!(head.kind, HeadKind::Linear | HeadKind::LinfaLogistic),
                format!("head.kind = \"{}\"", head.kind),
            ),
            (!head.hidden.is_empty(), "head.hidden".into()),
            (head.skip, "head.skip".into()),
            (head.pca.is_some(), "head.pca".into()),
        ];
        if let Some((_, key)) = unbuilt.into_iter().find(|(asked, _)| *asked) {
            return Err(refuse(
                format!("this version trains linear heads only, and has no {key} yet"),
                "set head.kind to linear or linfa-logistic, and leave hidden, skip and pca out"
                    .into(),
            ));
        }
        if let Some(loss) = train.loss.filter(|loss| *loss != file::Loss::CrossEntropy) {
            return Err(refuse(
                format!("this version trains with cross-entropy only, not with `{loss}`"),
                "leave train.loss out".into(),
            ));
        }
        let checks = [
            (
                head.c > 0.0 && head.c.is_finite(),
                format!("head.C is {}", head.c),
                "above 0",
            ),
            (
                (0.0..1.0).contains(&head.dropout),
                format!("head.dropout is {}", head.dropout),
                "from 0 to below 1",
            ),
            (
                train.lr > 0.0 && train.lr.is_finite(),
                format!("train.lr is {}", train.lr),
                "above 0",
            ),
            (
                train.weight_decay >= 0.0,
                format!("train.weight_decay is {}", train.weight_decay),
                "0 or more",
            ),
            (train.epochs > 0, "train.epochs is 0".into(), "1 or more"),
            (
                train.batch_size > 0,
                "train.batch_size is 0".into(),
                "1 or more",
            ),
            (
                (0.0..=1.0).contains(&train.warmup),
                format!("train.warmup is {}", train.warmup),
                "from 0 to 1, a share of the steps",
            ),
            (
                (0.0..1.0).contains(&train.label_smoothing),
                format!("train.label_smoothing is {}", train.label_smoothing),
                "from 0 to below 1",
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
        ];
        match checks.into_iter().find(|(fits, ..)| !fits) {
            Some((_, problem, range)) => {
                let key = problem.split(' ').next().unwrap_or_default().to_string();
                Err(refuse(problem, format!("set {key} to a value {range}")))
            }
            None => Ok(()),
        }
    }
}

fn refuse_attention(refuse: &impl Fn(String, String) -> Error) -> Error {
    refuse(
        "this version does not train head.pooling = \"attention\" yet".into(),
        "set head.pooling to cls, mean or max".into(),
    )
}

fn absolute_layer(
    layer: i64,
    model_layers: usize,
    key: &str,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<usize> {
    let absolute = if layer < 0 {
        layer + model_layers as i64 + 1
    } else {
        layer
    };
    usize::try_from(absolute)
        .ok()
        .filter(|absolute| *absolute <= model_layers)
        .ok_or_else(|| {
            refuse(
                format!("{key} names layer {layer}, but the model has {model_layers}"),
                format!(
                    "use 0 (embeddings) to {model_layers}, or -1 (last) to -{}",
                    model_layers + 1
                ),
            )
        })
}

fn refusal(path: &Path) -> impl Fn(String, String) -> Error + use<> {
    let file = path.to_path_buf();
    move |problem, hint| Error::Pipeline {
        file: file.clone(),
        line: None,
        column: None,
        problem,
        hint,
    }
}
