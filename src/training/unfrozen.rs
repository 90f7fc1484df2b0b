//! The last layers of the encoder that are trained with a head.

use crate::{
    config::{
        names::{HeadKind, HeadPooling},
        settings::Pipeline,
    },
    encoder::{checkpoint::Checkpoint, top_layers::TopLayers},
    error::Result,
    head::{
        network::{DistanceBiasSpec, EncoderLayersSpec, TokenPooling},
        spec::{LayerTraining, LoraSpec},
    },
};

/// Layers as a network has them, with their start and their learning rates.
pub(crate) struct UnfrozenLayers {
    pub(crate) spec: EncoderLayersSpec,
    pub(crate) training: LayerTraining,
}

impl UnfrozenLayers {
    /// Reads the layers that a pipeline trains; `None` if it trains the head alone.
    ///
    /// # Errors
    /// Returns an error if the model has fewer layers, or is of a family whose layers are not trained.
    pub(crate) fn read(
        pipeline: &Pipeline,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Option<UnfrozenLayers>> {
        let (Some(steps), Some(checkpoint)) = (pipeline.head.kind.steps(), checkpoint) else {
            return Ok(None);
        };
        let n_layers = pipeline.unfrozen_layers(checkpoint.config.layers)?;
        if n_layers == 0 {
            return Ok(None);
        }
        let pooling = match pipeline.head.pooling {
            _ if pipeline.head.kind.name() == HeadKind::Matching => TokenPooling::Matching,
            // Words and the tokens of contexts have outputs of their own.
            _ if !pipeline.data.task.reads_pooled() => TokenPooling::Outputs,
            HeadPooling::Cls => TokenPooling::Cls,
            HeadPooling::Max => TokenPooling::Max,
            // Attention pools by its own weights.
            _ => TokenPooling::Mean,
        };
        if pipeline.extraction.has_prompts() && !checkpoint.include_prompt {
            return Err(pipeline.refuse(
                format!(
                    "the layers that train.unfreeze trains read all tokens of a text, but the model in `{}` leaves \
                     those of prompts out (include_prompt is false)",
                    checkpoint.folder.display()
                ),
                "leave the prompts out, or train.unfreeze".into(),
            ));
        }
        let layers = TopLayers::read(checkpoint, n_layers)?;
        let rates = [steps.layer_lr, steps.layer_decay];
        let mut unfrozen = UnfrozenLayers::of(layers, pooling, rates);
        unfrozen.spec.pair = pipeline.has_separate_pairs();
        unfrozen.training.lora = steps.lora.clone().map(|lora| LoraSpec {
            rank: lora.rank,
            alpha: lora.alpha,
            targets: lora.targets,
        });
        Ok(Some(unfrozen))
    }

    /// The layers as they are in a checkpoint, with the learning rate of the last and its factor from each to the one
    /// below.
    fn of(layers: TopLayers, pooling: TokenPooling, [lr, decay]: [f64; 2]) -> UnfrozenLayers {
        let spec = EncoderLayersSpec {
            attention_heads: layers.attention_heads,
            intermediate: layers.intermediate,
            epsilon: layers.epsilon,
            dropout: layers.dropout,
            attention_output_dropout: layers.attention_output_dropout,
            attention_dropout: layers.attention_dropout,
            pooling,
            pair: false,
            distance_bias: layers
                .distance_bias
                .map(|(tensor, first_distances)| DistanceBiasSpec { tensor, first_distances }),
            tensors: layers.names,
        };
        let training = LayerTraining { parameters: layers.values.into(), lr, decay, lora: None };
        UnfrozenLayers { spec, training }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_tasks;
