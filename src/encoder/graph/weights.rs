//! The weights of a graph: read from the checkpoint by the names that the graph gives them, and added as initialisers.

use frostbert_cache::fingerprint;

use super::{GraphBuilder, GraphTarget, TensorValues};
use crate::error::Result;

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Adds `Wqkv [H, 3H]` and `bqkv [3H]`: the three projections side by side, transposed.
    pub(super) fn query_key_value(&mut self, layer: usize) -> Result<()> {
        let hidden = self.shape.hidden;
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let mut weight = vec![0.0f32; hidden * 3 * hidden];
        let mut bias = Vec::with_capacity(3 * hidden);
        for (part, name) in tensors.projections.into_iter().enumerate() {
            let name = at(name);
            let projection = self.stored(&format!("{name}.weight"), &[hidden, hidden])?;
            for (out, row) in projection.chunks_exact(hidden).enumerate() {
                for (input, value) in row.iter().enumerate() {
                    weight[input * 3 * hidden + part * hidden + out] = *value;
                }
            }
            bias.extend(self.stored(&format!("{name}.bias"), &[hidden])?);
        }
        self.initializer(&at("qkv.weight"), &[hidden, 3 * hidden], &weight)?;
        self.initializer(&at("qkv.bias"), &[3 * hidden], &bias)
    }

    /// Adds the weight of a linear layer as `[in, out]` (it is `[out, in]` in the checkpoint), and its bias if it has
    /// one.
    pub(super) fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<()> {
        self.linear_weight(name, inputs, outputs)?;
        if !self.shape.has_bias(name) {
            return Ok(());
        }
        self.weight(&format!("{name}.bias"), &[outputs])
    }

    /// Adds the weight of a linear layer as `[in, out]`; returns its name.
    pub(super) fn linear_weight(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<String> {
        let (weight, values) = (format!("{name}.weight"), self.transposed(name, inputs, outputs)?);
        self.initializer(&weight, &[inputs, outputs], &values)?;
        Ok(weight)
    }

    /// Returns the weight of a linear layer as `[in, out]`.
    pub(super) fn transposed(&self, name: &str, inputs: usize, outputs: usize) -> Result<Vec<f32>> {
        let stored = self.stored(&format!("{name}.weight"), &[outputs, inputs])?;
        let mut transposed = vec![0.0f32; stored.len()];
        for (out, row) in stored.chunks_exact(inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                transposed[input * outputs + out] = *value;
            }
        }
        Ok(transposed)
    }

    /// Adds the weight of a normalisation, and its bias if it has one; returns their names.
    pub(super) fn norm(&mut self, name: &str, width: usize) -> Result<Vec<String>> {
        let mut names = vec![format!("{name}.weight")];
        if self.shape.norm_bias {
            names.push(format!("{name}.bias"));
        }
        for name in &names {
            self.weight(name, &[width])?;
        }
        Ok(names)
    }

    /// Reads a tensor of the checkpoint, or the one in its place, by its name in the graph.
    pub(super) fn stored(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if let Some(values) = self.trained.and_then(|trained| trained.get(name)) {
            assert_eq!(values.len(), shape.iter().product::<usize>(), "the shape of `{name}`");
            return Ok(values.clone());
        }
        let stored = self.shape.stored(name);
        let mut whole = shape.to_vec();
        whole[0] *= stored.of;
        let mut values = self.source.weights.tensor(&stored.name, &whole)?;
        if stored.of > 1 {
            let size = values.len() / stored.of;
            values = values[stored.part * size..][..size].to_vec();
        }
        Ok(values)
    }

    /// Adds a tensor of the checkpoint unchanged.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let values = self.stored(name, shape)?;
        self.initializer(name, shape, &values)
    }

    pub(super) fn initializer(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<()> {
        let values = if self.half { TensorValues::Half(values) } else { TensorValues::F32(values) };
        self.add_once(name, shape, values)
    }

    /// Adds an initialiser; where layers share weights, one of the same content stands for it.
    pub(super) fn add_once(
        &mut self,
        name: &str,
        shape: &[usize],
        values: TensorValues<'_>,
    ) -> Result<()> {
        if self.shape.family.layer.shares_weights {
            let mut content = format!("{shape:?}").into_bytes();
            match values {
                TensorValues::F32(values) | TensorValues::Half(values) => {
                    content.push(b'f');
                    content.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                }
                TensorValues::I64(values) => {
                    content.push(b'l');
                    content.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                }
                TensorValues::I8(values) => {
                    content.push(b'i');
                    content.extend(values.iter().map(|value| value.cast_unsigned()));
                }
                TensorValues::U8(values) => {
                    content.push(b'u');
                    content.extend(values);
                }
            }
            let content = fingerprint::hash_bytes(&content);
            if let Some(first) = self.shared.get(&content) {
                self.aliases.insert(name.into(), first.clone());
                return Ok(());
            }
            self.shared.insert(content, name.into());
        }
        self.graph.add_tensor(name, shape, values)
    }
}
