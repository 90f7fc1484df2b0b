//! Which layers of a model a head reads, and which of them are stored.

use toml::Value;

use crate::{
    config::{
        file::{LayersKey, LayersWord, PipelineFile},
        names::Task,
    },
    error::{Error, Result},
};

/// Layers of a model that is not open yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LayerChoice {
    /// These, negative from the last.
    Listed(Vec<i64>),
    /// From the output of the embedding layer to the last.
    All,
    /// The one in the middle, of 12 layers the sixth, and these.
    Middle(Vec<i64>),
}

impl LayerChoice {
    /// Layers of these numbers.
    pub(crate) fn of_numbers(numbers: impl IntoIterator<Item = usize>) -> LayerChoice {
        LayerChoice::Listed(numbers.into_iter().map(|number| number as i64).collect())
    }

    /// The layers that the head of a file reads.
    ///
    /// By default, that is the last one. Lower layers do better for words, whose tags are read from a mix of all layers, and
    /// for questions, which are matched with their contexts in the middle: docs/performance.md has the figures.
    pub(super) fn of_head(file: &PipelineFile) -> LayerChoice {
        let swept = file.sweep.as_ref();
        let projects = file.head.pca.is_some()
            || swept.is_some_and(|section| section.values("pca").next().is_some());
        match &file.head.layers {
            LayersKey::Listed(layers) => LayerChoice::Listed(layers.clone()),
            LayersKey::Named(LayersWord::All) => LayerChoice::All,
            LayersKey::Named(LayersWord::Auto) => match file.data.task {
                Task::Tokens if !projects => LayerChoice::All,
                Task::Qa => LayerChoice::Middle(Vec::new()),
                _ => LayerChoice::Listed(vec![-1]),
            },
        }
    }

    /// The layers that values of a sweep's key `layers` name; none where they name none.
    pub(super) fn of_values<'v>(values: impl Iterator<Item = &'v Value>) -> Option<LayerChoice> {
        let mut all: Option<LayerChoice> = None;
        for value in values {
            let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let own = match value.as_str() {
                Some("all") => LayerChoice::All,
                // What is no layer is refused where the trials are made.
                _ => LayerChoice::Listed(several.iter().filter_map(Value::as_integer).collect()),
            };
            match &mut all {
                None => all = Some(own),
                Some(all) => all.merge(&own),
            }
        }
        all.filter(|all| *all != LayerChoice::Listed(Vec::new()))
    }

    /// As a file says it; nothing where the model's depth decides.
    pub(super) fn key(&self) -> Option<LayersKey> {
        match self {
            LayerChoice::Listed(layers) => Some(LayersKey::Listed(layers.clone())),
            LayerChoice::All => Some(LayersKey::Named(LayersWord::All)),
            LayerChoice::Middle(_) => None,
        }
    }

    /// Whether a head reads more than one of them.
    pub(crate) fn are_several(&self) -> bool {
        match self {
            LayerChoice::Listed(layers) => layers.len() > 1,
            LayerChoice::All => true,
            LayerChoice::Middle(others) => !others.is_empty(),
        }
    }

    /// Takes other layers into these.
    pub(super) fn merge(&mut self, other: &LayerChoice) {
        let is_middle = |choice: &LayerChoice| matches!(choice, LayerChoice::Middle(_));
        let has_middle = is_middle(self) || is_middle(other);
        *self = match (&*self, other) {
            (LayerChoice::All, _) | (_, LayerChoice::All) => LayerChoice::All,
            (
                LayerChoice::Listed(own) | LayerChoice::Middle(own),
                LayerChoice::Listed(other) | LayerChoice::Middle(other),
            ) => {
                let mut all = own.clone();
                all.extend(other.iter().filter(|layer| !own.contains(layer)));
                if has_middle { LayerChoice::Middle(all) } else { LayerChoice::Listed(all) }
            }
        };
    }

    /// Their numbers in a model of so many layers, in their order; `key` names them in errors.
    ///
    /// # Errors
    /// When there is no such layer.
    pub(super) fn numbers(
        &self,
        model_layers: usize,
        key: &str,
        refuse: &impl Fn(String, String) -> Error,
    ) -> Result<Vec<usize>> {
        let (middle, layers) = match self {
            LayerChoice::All => return Ok((0..=model_layers).collect()),
            LayerChoice::Listed(layers) => (None, layers),
            LayerChoice::Middle(layers) => (Some(model_layers / 2), layers),
        };
        let number = |layer: &i64| {
            layer_from_bottom(*layer, model_layers).ok_or_else(|| {
                refuse(
                    format!("{key} names layer {layer}, but the model has {model_layers}"),
                    format!(
                        "use 0 (embeddings) to {model_layers}, or -1 (last) to -{}",
                        model_layers + 1
                    ),
                )
            })
        };
        middle.map(Ok).into_iter().chain(layers.iter().map(number)).collect()
    }
}

/// The layer that a number means in a model of so many layers: from 0 for the embeddings, or from -1 for the last; none
/// where there is no such layer.
pub(crate) fn layer_from_bottom(layer: i64, model_layers: usize) -> Option<usize> {
    let absolute = match usize::try_from(layer) {
        Ok(layer) => Some(layer),
        Err(_) => usize::try_from(layer.unsigned_abs())
            .ok()
            .and_then(|from_top| (model_layers + 1).checked_sub(from_top)),
    };
    absolute.filter(|absolute| *absolute <= model_layers)
}
