//! A graph in memory, from which a session of this process is made.

use half::f16;
use ort::{
    editor::{Graph, Node},
    memory::Allocator,
    operator::Attribute,
    value::{PrimitiveTensorElementType, Tensor},
};

use crate::{
    encoder::{
        graph_target::{AttributeValue, GraphTarget, NodeAttribute, TensorValues},
        ort_error::encoder_error,
    },
    error::Result,
};

/// ONNX Runtime shares larger tensors and requires smaller ones to be copied into the model.
const SMALL_TENSOR_BYTES: usize = 127;

/// ONNX Runtime's own graph.
pub(super) struct SessionGraph(pub(super) Graph);

impl SessionGraph {
    pub(super) fn new() -> Result<SessionGraph> {
        Ok(SessionGraph(Graph::new().map_err(encoder_error("create a graph"))?))
    }

    fn add<T>(&mut self, name: &str, shape: &[usize], fill: impl FnOnce(&mut [T])) -> Result<()>
    where
        T: PrimitiveTensorElementType + Copy + std::fmt::Debug + 'static,
    {
        let action = "hold the weights";
        let n_values: usize = shape.iter().product();
        let external = n_values * size_of::<T>() > SMALL_TENSOR_BYTES;
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        let mut tensor =
            Tensor::<T>::new(&Allocator::default(), shape).map_err(encoder_error(action))?;
        fill(tensor.extract_tensor_mut().1);
        self.0.add_initializer(name, tensor, external).map_err(encoder_error(action))
    }
}

impl GraphTarget for SessionGraph {
    fn add_node(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[NodeAttribute],
    ) -> Result<()> {
        let attributes = attributes.iter().map(|NodeAttribute { name, value }| {
            let attribute = match value {
                AttributeValue::Number(value) => Attribute::new(*name, *value),
                AttributeValue::Float(value) => Attribute::new(*name, *value),
                AttributeValue::Numbers(values) => Attribute::new(*name, values.clone()),
            };
            attribute.map_err(encoder_error("set an attribute"))
        });
        let attributes = attributes.collect::<Result<Vec<Attribute>>>()?;
        let node = Node::new(operator, domain, outputs[0], inputs, outputs, attributes)
            .map_err(encoder_error("create an operator"))?;
        self.0.add_node(node).map_err(encoder_error("add an operator"))
    }

    fn add_tensor(&mut self, name: &str, shape: &[usize], values: TensorValues<'_>) -> Result<()> {
        match values {
            TensorValues::F32(values) => {
                self.add(name, shape, |out: &mut [f32]| out.copy_from_slice(values))
            }
            TensorValues::Half(values) => self.add(name, shape, |out: &mut [f16]| {
                for (target, value) in out.iter_mut().zip(values) {
                    *target = f16::from_f32(*value);
                }
            }),
            TensorValues::I64(values) => {
                self.add(name, shape, |out: &mut [i64]| out.copy_from_slice(values))
            }
            TensorValues::I8(values) => {
                self.add(name, shape, |out: &mut [i8]| out.copy_from_slice(values))
            }
            TensorValues::U8(values) => {
                self.add(name, shape, |out: &mut [u8]| out.copy_from_slice(values))
            }
        }
    }
}
