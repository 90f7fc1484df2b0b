//! Which layers of a model the heads read, and which are stored.

use toml::Value;

use crate::{
    config::{
        file::{LayersKey, LayersWord, PipelineFile},
        settings::unfreezing::layer_below,
        task_facts::DefaultLayers,
    },
    error::{Error, Result},
};

/// A choice of layers, independent of how many the model has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LayerChoice {
    /// These layers; negative numbers count from the last.
    Listed(Vec<i64>),
    /// All layers, from the output of the embedding layer to the last.
    All,
    /// The layer in the middle (the sixth of 12), and these.
    Middle(Vec<i64>),
}

impl LayerChoice {
    /// Returns the choice of exactly these layers.
    pub(crate) fn of_numbers(numbers: impl IntoIterator<Item = usize>) -> LayerChoice {
        LayerChoice::Listed(numbers.into_iter().map(|number| number as i64).collect())
    }

    /// Returns the layers that the head of a file reads.
    pub(super) fn of_head(file: &PipelineFile) -> LayerChoice {
        let swept = file.sweep.as_ref();
        let projects = file.head.pca.is_some()
            || swept.is_some_and(|section| section.values("pca").next().is_some());
        if let Some(trained) = file.unfreeze() {
            return LayerChoice::Listed(vec![layer_below(trained)]);
        }
        match &file.head.layers {
            LayersKey::Listed(layers) => LayerChoice::Listed(layers.clone()),
            LayersKey::Named(LayersWord::All) => LayerChoice::All,
            LayersKey::Named(LayersWord::Auto) => match file.data.task.facts().layers {
                DefaultLayers::Mixed if !projects => LayerChoice::All,
                DefaultLayers::Middle => LayerChoice::Middle(Vec::new()),
                DefaultLayers::Mixed | DefaultLayers::Last => LayerChoice::Listed(vec![-1]),
            },
        }
    }

    /// Returns the layers that the values of a sweep's key `layers` name; `None` if they name none.
    pub(super) fn of_values<'v>(values: impl Iterator<Item = &'v Value>) -> Option<LayerChoice> {
        let mut all: Option<LayerChoice> = None;
        for value in values {
            let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let own = match value.as_str() {
                Some("all") => LayerChoice::All,
                // A value that is not a layer is refused when the trials are made.
                _ => LayerChoice::Listed(several.iter().filter_map(Value::as_integer).collect()),
            };
            match &mut all {
                None => all = Some(own),
                Some(all) => all.merge(&own),
            }
        }
        all.filter(|all| *all != LayerChoice::Listed(Vec::new()))
    }

    /// Returns the choice as a value for the file; `None` if it depends on the depth of the model.
    pub(super) fn key(&self) -> Option<LayersKey> {
        match self {
            LayerChoice::Listed(layers) => Some(LayersKey::Listed(layers.clone())),
            LayerChoice::All => Some(LayersKey::Named(LayersWord::All)),
            LayerChoice::Middle(_) => None,
        }
    }

    /// Whether a head with this choice reads more than one layer.
    pub(crate) fn are_several(&self) -> bool {
        match self {
            LayerChoice::Listed(layers) => layers.len() > 1,
            LayerChoice::All => true,
            LayerChoice::Middle(others) => !others.is_empty(),
        }
    }

    /// Adds the layers of another choice.
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

    /// Returns the numbers of the layers in a model of `model_layers` layers, in the order of the choice. Errors name
    /// `key`.
    ///
    /// # Errors
    /// Returns an error if the model does not have one of the layers.
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

/// Converts a layer's number to its number from the bottom, in a model of `model_layers` layers: 0 is the embedding
/// output, and -1 the last layer. Returns `None` if there is no such layer.
pub(crate) fn layer_from_bottom(layer: i64, model_layers: usize) -> Option<usize> {
    let absolute = match usize::try_from(layer) {
        Ok(layer) => Some(layer),
        Err(_) => usize::try_from(layer.unsigned_abs())
            .ok()
            .and_then(|from_top| (model_layers + 1).checked_sub(from_top)),
    };
    absolute.filter(|absolute| *absolute <= model_layers)
}
