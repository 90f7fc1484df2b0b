//! The encoder as a part of an ONNX file: the graph of this folder behind inputs of i64, from which it computes what a
//! session of this process is fed with.

use std::collections::HashMap;

use ort::editor::ONNX_DOMAIN;

use super::{
    GraphBuilder, GraphTarget, POSITION_IDS, attention_bias,
    attention_parts::PLACES,
    attribute, first_table_row, highest,
    int8::{self, WeightForm},
    output_name,
};
use crate::{
    encoder::{
        checkpoint::{Checkpoint, FusedModel, Model},
        device::Precision,
        onnx_model::Role,
        onnx_writer::OnnxGraph,
    },
    error::{Error, Result},
};

/// How the encoder is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncoderForm {
    /// In operators of ONNX itself.
    Ordinary,
    /// In fused operators of ONNX Runtime.
    Fused,
    /// As [`EncoderForm::Fused`], with linear layers in 8 bits.
    Int8,
}

/// The names of the encoder's inputs in the graph, each i64 `[batch, sequence]`.
pub(crate) struct EncoderInputs<'a> {
    pub(crate) ids: &'a str,
    /// The token types; `None` if the model has at most one.
    pub(crate) types: Option<&'a str>,
    pub(crate) mask: &'a str,
}

/// What is put before the names of the inner inputs, because the file's own inputs have these names.
const PREFIX: &str = "encoder.";

/// The numbers of types in ONNX.
const INT32: i64 = 6;
const INT64: i64 = 7;

impl Checkpoint {
    /// Returns whether states depend on token types.
    pub(crate) fn has_token_types(&self) -> bool {
        match &self.model {
            Model::Fused(model) => model.shape.token_types > 1,
            Model::Onnx(model) => !model.one_token_type,
        }
    }

    /// Adds the encoder to a graph, up to the highest of `layers`, and returns the names of their states, each
    /// `[batch, sequence, hidden]`. `trained` are tensors in place of the checkpoint's, by their names there.
    ///
    /// # Errors
    /// Returns an error if the checkpoint is a model.onnx, which is a graph of its own, or if a tensor is missing.
    pub(crate) fn add_encoder(
        &self,
        graph: OnnxGraph,
        inputs: &EncoderInputs<'_>,
        layers: &[usize],
        form: EncoderForm,
        trained: &HashMap<String, Vec<f32>>,
    ) -> Result<(OnnxGraph, Vec<String>)> {
        let source = match &self.model {
            Model::Fused(source) => source,
            Model::Onnx(model) => {
                return Err(Error::Checkpoint {
                    path: model.path.clone(),
                    expected: "weights (model.safetensors), from which a graph with the head is built".into(),
                    got: "a model.onnx, which is a finished graph".into(),
                    hint: "export the head alone with --to onnx-head, and feed it with that model's states".into(),
                });
            }
        };
        let is_ordinary = form == EncoderForm::Ordinary;
        if form == EncoderForm::Int8 {
            self.check_precision(Precision::Int8)?;
        }
        let mut builder = GraphBuilder::of(source, graph, false);
        builder.is_ordinary = is_ordinary;
        builder.prefix = PREFIX;
        builder.trained = Some(trained);
        builder.inner_inputs(inputs)?;
        let builder = match form {
            EncoderForm::Int8 => int8::add_layers(builder, layers, WeightForm::Unsigned)?,
            EncoderForm::Ordinary | EncoderForm::Fused => add_layers(builder, source, layers)?,
        };
        let names = layers.iter().map(|layer| output_name(*layer)).collect();
        Ok((builder.graph, names))
    }
}

fn add_layers<'a>(
    mut builder: GraphBuilder<'a, OnnxGraph>,
    source: &FusedModel,
    layers: &[usize],
) -> Result<GraphBuilder<'a, OnnxGraph>> {
    builder.embeddings()?;
    builder.attention_constants()?;
    if builder.is_ordinary {
        builder.ordinary_score_bias()?;
    }
    for layer in 0..highest(source, layers) {
        builder.layer(layer)?;
    }
    Ok(builder)
}

impl GraphBuilder<'_, OnnxGraph> {
    /// Adds the inputs that a session of this process is fed with.
    fn inner_inputs(&mut self, inputs: &EncoderInputs<'_>) -> Result<()> {
        let own = |name: &str| format!("{PREFIX}{name}");
        self.narrowed(inputs.ids, &own("input_ids"))?;
        self.narrowed(inputs.mask, &own("attention_mask"))?;
        match inputs.types {
            Some(types) => self.narrowed(types, &own("token_type_ids"))?,
            None if self.is_ordinary => {}
            None => {
                let ids = own("input_ids");
                self.add("Sub", &[&ids, &ids], &own("token_type_ids"))?;
            }
        }
        self.add("Shape", &[inputs.ids], &own("shape"))?;
        self.graph.add_tensor(&own("zero"), &[], [0i64][..].into())?;
        self.graph.add_tensor(&own("one"), &[], [1i64][..].into())?;
        self.add("Gather", &[&own("shape"), &own("one")], &own("length"))?;
        let range = [&own("zero")[..], &own("length"), &own("one")];
        self.add("Range", &range, &own(PLACES))?;
        self.position_ids(inputs.ids)?;
        self.distances()
    }

    /// Adds the rows of the position table. Where a padding token is not counted, it takes the table's first row.
    fn position_ids(&mut self, ids: &str) -> Result<()> {
        let own = |name: &str| format!("{PREFIX}{name}");
        let Some(padding) = self.shape.padding_token else {
            if self.is_ordinary {
                self.add("Identity", &[&own(PLACES)], POSITION_IDS)?;
            }
            return Ok(());
        };
        debug_assert_eq!(first_table_row(self.shape), padding);
        self.graph.add_tensor(&own("padding"), &[], [padding as i64][..].into())?;
        self.add("Equal", &[ids, &own("padding")], &own("is_padding"))?;
        self.add("Not", &[&own("is_padding")], &own("is_counted"))?;
        self.cast(&own("is_counted"), INT64, &own("counted"))?;
        self.add("CumSum", &[&own("counted"), &own("one")], &own("count"))?;
        self.add("Mul", &[&own("count"), &own("counted")], &own("positions"))?;
        self.narrowed(&own("positions"), POSITION_IDS)
    }

    /// Adds what attention reads by distance, if the family has it.
    fn distances(&mut self) -> Result<()> {
        let own = |name: &str| format!("{PREFIX}{name}");
        let Some(role) = attention_bias::role(self.shape) else {
            return Ok(());
        };
        let most = match role {
            Role::Distances(bias) => *bias.distances().end(),
            _ => self.shape.positions as i32 - 1,
        };
        for (name, value) in [("nearest", -i64::from(most)), ("farthest", i64::from(most))] {
            self.graph.add_tensor(&own(name), &[], [value][..].into())?;
        }
        self.graph.add_tensor(&own("column_axis"), &[1], [1i64][..].into())?;
        let queries = own("queries");
        self.add("Unsqueeze", &[&own(PLACES), &own("column_axis")], &queries)?;
        self.add("Sub", &[&own(PLACES), &queries], &own("distances"))?;
        let bounds = [&own("distances")[..], &own("nearest"), &own("farthest")];
        self.add("Clip", &bounds, &own("near_distances"))?;
        let inputs = [&own("near_distances")[..], &own("farthest")];
        match role {
            Role::Buckets(disentangled) => {
                self.add("Add", &inputs, &own("distance_numbers"))?;
                let rows = disentangled.rows(self.shape.positions);
                let rows: Vec<i64> = rows.into_iter().map(i64::from).collect();
                self.graph.add_tensor(&own("rows"), &[rows.len()], rows[..].into())?;
                let inputs = [&own("rows")[..], &own("distance_numbers")];
                self.add("Gather", &inputs, attention_bias::DISTANCES)
            }
            Role::Window(window) => {
                self.graph.add_tensor(&own("window"), &[], [window as i64][..].into())?;
                self.add("Abs", &[&own("near_distances")], &own("lengths"))?;
                self.add("Greater", &[&own("lengths"), &own("window")], &own("is_outside"))?;
                self.cast(&own("is_outside"), INT64, attention_bias::DISTANCES)
            }
            Role::Lengths => self.add("Abs", &inputs[..1], attention_bias::DISTANCES),
            _ => self.add("Add", &inputs, attention_bias::DISTANCES),
        }
    }

    /// Adds an i64 input as the graph reads it: as i32, which the fused operators take.
    fn narrowed(&mut self, input: &str, output: &str) -> Result<()> {
        if self.is_ordinary {
            self.add("Identity", &[input], output)
        } else {
            self.cast(input, INT32, output)
        }
    }

    fn cast(&mut self, input: &str, to: i64, output: &str) -> Result<()> {
        self.node("Cast", ONNX_DOMAIN, &[input], &[output], vec![attribute("to", to)])
    }

    fn add(&mut self, operator: &str, inputs: &[&str], output: &str) -> Result<()> {
        self.node(operator, ONNX_DOMAIN, inputs, &[output], vec![])
    }
}
