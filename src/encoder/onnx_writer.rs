//! An ONNX file as it is written: operators in memory, weights in a temporary file until the size of the model is
//! known.
//!
//! The messages are those of `onnx.proto3` (IR version 8, opset 17), of which only the fields that a graph needs are
//! written. A model of more than two gigabytes, which protocol buffers cannot hold, keeps its weights in a second file.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use frostbert_cache::durable::write_file_with;
use half::f16;

use super::{
    graph_target::{AttributeValue, CONTRIB_DOMAIN, GraphTarget, NodeAttribute, TensorValues},
    protobuf::ProtoMessage,
};
use crate::error::{Error, Result};

const IR_VERSION: u64 = 8;
const OPSET: u64 = 17;

/// A message of protocol buffers has at most 2^31 - 1 bytes; some are left for what is not weights.
const MOST_BYTES: u64 = (1 << 31) - (1 << 26);

/// Of a large model, smaller tensors stay in the graph: shapes are inferred from them when it is loaded.
const SMALL_TENSOR_BYTES: u64 = 1024;

/// A type of values, by its number in ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnnxType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    I64 = 7,
    F16 = 10,
}

/// A dimension of an input or an output: a number, or a name for one that varies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dimension<'a> {
    Fixed(usize),
    Named(&'a str),
}

/// A graph that becomes a file.
pub(crate) struct OnnxGraph {
    /// Encoded operators, inputs and outputs: fields 1, 11 and 12 of a GraphProto.
    nodes: ProtoMessage,
    inputs: ProtoMessage,
    outputs: ProtoMessage,
    tensors: Vec<TensorHeader>,
    /// The bytes of all tensors, one after the other.
    data: BufWriter<File>,
    n_bytes: u64,
    has_contrib: bool,
    n_made: usize,
}

/// A tensor, whose bytes are in the temporary file.
struct TensorHeader {
    /// The fields before the data: sizes, type and name.
    message: ProtoMessage,
    n_bytes: u64,
}

impl OnnxGraph {
    /// Creates an empty graph. The weights are kept in an unnamed file in `folder` until it is written.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    pub(crate) fn new(folder: &Path) -> Result<OnnxGraph> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io("write to", folder))?;
        Ok(OnnxGraph {
            nodes: ProtoMessage::default(),
            inputs: ProtoMessage::default(),
            outputs: ProtoMessage::default(),
            tensors: Vec::new(),
            data: BufWriter::new(file),
            n_bytes: 0,
            has_contrib: false,
            n_made: 0,
        })
    }

    /// Adds an operator of ONNX itself and returns the name of its output, which is made up.
    pub(crate) fn apply(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[NodeAttribute],
    ) -> Result<String> {
        let output = self.new_name(operator);
        self.add_node(operator, "", inputs, &[&output], attributes)?;
        Ok(output)
    }

    /// Adds an initialiser and returns its name, which is made up.
    pub(crate) fn constant<'v>(
        &mut self,
        shape: &[usize],
        values: impl Into<TensorValues<'v>>,
    ) -> Result<String> {
        let name = self.new_name("constant");
        self.add_tensor(&name, shape, values.into())?;
        Ok(name)
    }

    fn new_name(&mut self, operator: &str) -> String {
        self.n_made += 1;
        format!("head.{operator}.{}", self.n_made)
    }

    /// Declares an input of the file.
    pub(crate) fn input(&mut self, name: &str, ty: OnnxType, shape: &[Dimension<'_>]) {
        self.inputs.message(11, &value_info(name, ty, shape));
    }

    /// Declares an output of the file, and that it is the value named `value`.
    pub(crate) fn output(
        &mut self,
        name: &str,
        value: &str,
        ty: OnnxType,
        shape: &[Dimension<'_>],
    ) -> Result<()> {
        self.add_node("Identity", "", &[value], &[name], &[])?;
        self.outputs.message(12, &value_info(name, ty, shape));
        Ok(())
    }

    /// Writes the file, and beside it `<name>.data` with the weights if they are too large for one file.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(crate) fn write(self, path: &Path) -> Result<()> {
        self.write_at_most(path, MOST_BYTES)
    }

    /// Writes the file with all weights in it, unless they have more than `most_bytes`.
    fn write_at_most(self, path: &Path, most_bytes: u64) -> Result<()> {
        let data_name = format!("{}.data", path.file_name().unwrap_or_default().to_string_lossy());
        let is_large = self.n_bytes > most_bytes;
        let mut file = self.data.into_inner().map_err(|error| {
            Error::io("write to", path)(io::Error::new(error.error().kind(), error.to_string()))
        })?;
        let is_outside = |n_bytes: u64| is_large && n_bytes > SMALL_TENSOR_BYTES;
        let mut tensors = Vec::with_capacity(self.tensors.len());
        let mut offset = 0;
        for TensorHeader { mut message, n_bytes } in self.tensors {
            if is_outside(n_bytes) {
                for (key, value) in [
                    ("location", data_name.clone()),
                    ("offset", offset.to_string()),
                    ("length", n_bytes.to_string()),
                ] {
                    let mut entry = ProtoMessage::default();
                    entry.text(1, key);
                    entry.text(2, &value);
                    message.message(13, &entry);
                }
                message.number(14, 1);
                offset += n_bytes;
            } else {
                message.key_of_bytes(9, n_bytes);
            }
            tensors.push((message, n_bytes));
        }
        if is_large {
            file.seek(SeekFrom::Start(0)).map_err(Error::io("read", path))?;
            let mut data = BufReader::new(&file);
            write_file_with(&path.with_file_name(&data_name), |out| {
                tensors.iter().try_for_each(|(_, n_bytes)| {
                    if is_outside(*n_bytes) {
                        copy(&mut data, *n_bytes, out)
                    } else {
                        copy(&mut data, *n_bytes, &mut io::sink())
                    }
                })
            })?;
        }
        let inside = |n_bytes: u64| if is_outside(n_bytes) { 0 } else { n_bytes };
        let mut name = ProtoMessage::default();
        name.text(2, "frostbert");
        let n_tensor_bytes: u64 = tensors
            .iter()
            .map(|(message, n_bytes)| {
                let length = message.bytes().len() as u64 + inside(*n_bytes);
                let mut key = ProtoMessage::default();
                key.key_of_bytes(5, length);
                key.bytes().len() as u64 + length
            })
            .sum();
        let parts = [&self.nodes, &name, &self.inputs, &self.outputs];
        let n_others: u64 = parts.iter().map(|part| part.bytes().len() as u64).sum();
        let model = model_header(self.has_contrib, n_others + n_tensor_bytes);
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read", path))?;
        let mut data = BufReader::new(&file);
        write_file_with(path, |out| {
            out.write_all(model.bytes())?;
            for part in parts {
                out.write_all(part.bytes())?;
            }
            for (message, n_bytes) in &tensors {
                let mut key = ProtoMessage::default();
                key.key_of_bytes(5, message.bytes().len() as u64 + inside(*n_bytes));
                out.write_all(key.bytes())?;
                out.write_all(message.bytes())?;
                if is_outside(*n_bytes) {
                    copy(&mut data, *n_bytes, &mut io::sink())?;
                } else {
                    copy(&mut data, *n_bytes, out)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Everything of a model before its graph, which has so many bytes.
fn model_header(has_contrib: bool, n_graph_bytes: u64) -> ProtoMessage {
    let mut model = ProtoMessage::default();
    model.number(1, IR_VERSION);
    model.text(2, "frostbert");
    model.text(3, env!("CARGO_PKG_VERSION"));
    let mut opsets = vec![("", OPSET)];
    if has_contrib {
        opsets.push((CONTRIB_DOMAIN, 1));
    }
    for (domain, version) in opsets {
        let mut opset = ProtoMessage::default();
        opset.text(1, domain);
        opset.number(2, version);
        model.message(8, &opset);
    }
    model.key_of_bytes(7, n_graph_bytes);
    model
}

/// Copies so many bytes.
fn copy(from: &mut impl Read, n_bytes: u64, to: &mut impl Write) -> io::Result<()> {
    if io::copy(&mut from.by_ref().take(n_bytes), to)? == n_bytes {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

impl GraphTarget for OnnxGraph {
    fn add_node(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[NodeAttribute],
    ) -> Result<()> {
        let mut node = ProtoMessage::default();
        for input in inputs {
            node.text(1, input);
        }
        for output in outputs {
            node.text(2, output);
        }
        node.text(3, outputs[0]);
        node.text(4, operator);
        for NodeAttribute { name, value } in attributes {
            let mut attribute = ProtoMessage::default();
            attribute.text(1, name);
            match value {
                AttributeValue::Float(value) => {
                    attribute.float(2, *value);
                    attribute.number(20, 1);
                }
                AttributeValue::Number(value) => {
                    attribute.number(3, *value as u64);
                    attribute.number(20, 2);
                }
                AttributeValue::Numbers(values) => {
                    for value in values {
                        attribute.number(8, *value as u64);
                    }
                    attribute.number(20, 7);
                }
            }
            node.message(5, &attribute);
        }
        if !domain.is_empty() {
            node.text(7, domain);
            self.has_contrib = true;
        }
        self.nodes.message(1, &node);
        Ok(())
    }

    fn add_tensor(&mut self, name: &str, shape: &[usize], values: TensorValues<'_>) -> Result<()> {
        let (ty, n_bytes) = match values {
            TensorValues::F32(values) => (OnnxType::F32, size_of_val(values)),
            TensorValues::Half(values) => (OnnxType::F16, 2 * values.len()),
            TensorValues::I64(values) => (OnnxType::I64, size_of_val(values)),
            TensorValues::I8(values) => (OnnxType::I8, values.len()),
            TensorValues::U8(values) => (OnnxType::U8, values.len()),
        };
        let out = &mut self.data;
        let written = match values {
            TensorValues::F32(values) => {
                values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
            }
            TensorValues::Half(values) => values
                .iter()
                .try_for_each(|value| out.write_all(&f16::from_f32(*value).to_le_bytes())),
            TensorValues::I64(values) => {
                values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
            }
            TensorValues::I8(values) => {
                values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
            }
            TensorValues::U8(values) => out.write_all(values),
        };
        written.map_err(Error::io("write the weights of", name))?;
        let mut message = ProtoMessage::default();
        for size in shape {
            message.number(1, *size as u64);
        }
        message.number(2, ty as u64);
        message.text(8, name);
        self.tensors.push(TensorHeader { message, n_bytes: n_bytes as u64 });
        self.n_bytes += n_bytes as u64;
        Ok(())
    }
}

fn value_info(name: &str, ty: OnnxType, shape: &[Dimension<'_>]) -> ProtoMessage {
    let mut dimensions = ProtoMessage::default();
    for dimension in shape {
        let mut one = ProtoMessage::default();
        match dimension {
            Dimension::Fixed(size) => one.number(1, *size as u64),
            Dimension::Named(name) => one.text(2, name),
        }
        dimensions.message(1, &one);
    }
    let mut tensor = ProtoMessage::default();
    tensor.number(1, ty as u64);
    tensor.message(2, &dimensions);
    let mut type_of = ProtoMessage::default();
    type_of.message(1, &tensor);
    let mut info = ProtoMessage::default();
    info.text(1, name);
    info.message(2, &type_of);
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::onnx_run::{ExportedSession, InputValues};

    #[test]
    fn a_graph_computes_the_same_with_its_weights_in_the_file_and_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = repository.join("runtime/libonnxruntime.so");
        let weights: Vec<f32> = (0..400).map(|number| (number % 7) as f32 - 3.0).collect();
        let row: Vec<f32> = (0..20).map(|number| number as f32 / 4.0).collect();
        let ran = [("inside.onnx", MOST_BYTES), ("beside.onnx", 1000)].map(|(name, most)| {
            let mut graph = OnnxGraph::new(folder.path()).unwrap();
            let shape = [Dimension::Named("rows"), Dimension::Fixed(20)];
            graph.input("x", OnnxType::F32, &shape);
            let bias = graph.constant(&[20], &row[..]).unwrap();
            let weight = graph.constant(&[20, 20], &weights[..]).unwrap();
            let product = graph.apply("MatMul", &["x", &weight], &[]).unwrap();
            let sum = graph.apply("Add", &[&product, &bias], &[]).unwrap();
            graph.output("y", &sum, OnnxType::F32, &shape).unwrap();
            let path = folder.path().join(name);
            graph.write_at_most(&path, most).unwrap();
            let mut session = ExportedSession::open(&library, &path, 1).unwrap();
            let inputs = vec![("x".to_owned(), vec![1, 20], InputValues::F32(row.clone()))];
            session.run(inputs, &["y"]).unwrap().swap_remove(0)
        });
        let column = |output: usize| -> f32 {
            let products = row.iter().enumerate();
            products.map(|(input, value)| value * weights[input * 20 + output]).sum()
        };
        for (output, value) in ran[0].iter().enumerate() {
            assert!((value - column(output) - row[output]).abs() < 1e-4, "{output}: {value}");
        }
        assert_eq!(ran[0], ran[1]);
        let beside = std::fs::metadata(folder.path().join("beside.onnx.data")).unwrap();
        assert_eq!(beside.len(), 1600);
        assert!(!folder.path().join("inside.onnx.data").exists());
    }
}
