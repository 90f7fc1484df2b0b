//! Where the operators and weights of a graph go: into a session of this process, or into a file.

use crate::error::Result;

/// The domain of ONNX Runtime's own operators.
pub(crate) const CONTRIB_DOMAIN: &str = "com.microsoft";

/// An attribute of an operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeAttribute {
    pub(crate) name: &'static str,
    pub(crate) value: AttributeValue,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttributeValue {
    Number(i64),
    Float(f32),
    Numbers(Vec<i64>),
}

impl From<i64> for AttributeValue {
    fn from(value: i64) -> AttributeValue {
        AttributeValue::Number(value)
    }
}

impl From<f32> for AttributeValue {
    fn from(value: f32) -> AttributeValue {
        AttributeValue::Float(value)
    }
}

impl From<Vec<i64>> for AttributeValue {
    fn from(values: Vec<i64>) -> AttributeValue {
        AttributeValue::Numbers(values)
    }
}

/// Names the value of an attribute.
pub(crate) fn attribute(name: &'static str, value: impl Into<AttributeValue>) -> NodeAttribute {
    NodeAttribute { name, value: value.into() }
}

/// The values of an initialiser.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TensorValues<'a> {
    F32(&'a [f32]),
    /// Values that are stored as f16.
    Half(&'a [f32]),
    I64(&'a [i64]),
    I8(&'a [i8]),
    U8(&'a [u8]),
}

impl<'a> From<&'a [f32]> for TensorValues<'a> {
    fn from(values: &'a [f32]) -> TensorValues<'a> {
        TensorValues::F32(values)
    }
}

impl<'a> From<&'a [i64]> for TensorValues<'a> {
    fn from(values: &'a [i64]) -> TensorValues<'a> {
        TensorValues::I64(values)
    }
}

impl<'a> From<&'a [i8]> for TensorValues<'a> {
    fn from(values: &'a [i8]) -> TensorValues<'a> {
        TensorValues::I8(values)
    }
}

impl<'a> From<&'a [u8]> for TensorValues<'a> {
    fn from(values: &'a [u8]) -> TensorValues<'a> {
        TensorValues::U8(values)
    }
}

/// Takes operators and weights one by one.
pub(crate) trait GraphTarget {
    /// Adds an operator, named after its first output, which must be unique in the graph.
    ///
    /// # Errors
    /// Returns an error if it is rejected.
    fn add_node(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[NodeAttribute],
    ) -> Result<()>;

    /// Adds an initialiser.
    ///
    /// # Errors
    /// Returns an error if it is rejected or cannot be written.
    fn add_tensor(&mut self, name: &str, shape: &[usize], values: TensorValues<'_>) -> Result<()>;
}
