//! Inspects a model.onnx without ONNX Runtime: its inputs, outputs, and the files that hold its weights.
//!
//! An ONNX file is a protocol buffer. Only the few fields that are needed are followed; `onnx.proto` defines their
//! numbers, which never change.

use std::{collections::BTreeSet, path::Path};

use frostbert_cache::mmap;

use super::protobuf::{Content, fields, varint};
use crate::error::{Error, Result};

/// What a model.onnx declares.
#[derive(Debug, Default)]
pub(super) struct OnnxFile {
    /// Inputs that must be fed.
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// Files with tensors, by path relative to the model's folder; sorted and without duplicates.
    pub(super) external: Vec<String>,
    /// The number of values in all weights.
    pub(super) parameters: u64,
    /// Whether an operator derives the scale of its 8-bit values from its whole input, including the rest of the batch.
    pub(super) dynamically_quantised: bool,
    /// Whether graphs are nested more than [`DEEPEST`] deep; anything deeper was not inspected.
    too_deep: bool,
}

/// How deep graphs may be nested, as the bodies of loops and branches. ONNX Runtime's own reader follows messages to a
/// depth of 100, which is about 30 graphs, and unlimited nesting would overflow the stack.
const DEEPEST: usize = 40;

/// An input or output.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) element: Element,
    /// One size per dimension, `None` if it may vary; the shape is `None` if the file does not declare one.
    pub(super) shape: Option<Vec<Option<usize>>>,
}

/// The element type of a tensor, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    I32,
    I64,
    #[default]
    Other,
}

impl Port {
    /// Describes the port, as in `input_ids i64 [?, ?]`.
    pub(super) fn describe(&self) -> String {
        let element = match self.element {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::I32 => "i32",
            Element::I64 => "i64",
            Element::Other => "of another type",
        };
        let sizes = self.shape.iter().flatten();
        let sizes: Vec<String> =
            sizes.map(|size| size.map_or("?".into(), |size| size.to_string())).collect();
        format!("`{}` {element} [{}]", self.name, sizes.join(", "))
    }
}

/// Reads the declarations of a model.onnx; of its weights, only where they are stored and how many values they have.
///
/// # Errors
/// Returns an error if the file cannot be read or is not an ONNX model.
pub(super) fn read(path: &Path) -> Result<OnnxFile> {
    let bytes = mmap::map(path)?;
    let mut file = OnnxFile::default();
    let mut external = BTreeSet::new();
    let whole = read_model(&bytes, &mut file, &mut external);
    if file.too_deep {
        return Err(Error::Checkpoint {
            path: path.to_path_buf(),
            expected: format!("an ONNX model with graphs nested at most {DEEPEST} deep"),
            got: "deeper nesting".into(),
            hint: "export the model again, or fetch it from a source that you trust".into(),
        });
    }
    if whole.is_none() || file.outputs.is_empty() {
        return Err(Error::Checkpoint {
            path: path.to_path_buf(),
            expected: "a complete ONNX model".into(),
            got: format!("{} bytes that are not one", bytes.len()),
            hint: "the file is incomplete, a pointer to the real one, or not an ONNX model: fetch it again".into(),
        });
    }
    file.external = external.into_iter().collect();
    Ok(file)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads a ModelProto: its graph and the bodies of its functions.
fn read_model(bytes: &[u8], file: &mut OnnxFile, external: &mut BTreeSet<String>) -> Option<()> {
    fields(bytes, |number, content| match (number, content) {
        (7, Content::Bytes(graph)) => {
            let mut ports = (Vec::new(), Vec::new());
            let weights = read_graph(graph, file, external, Some(&mut ports), 0)?;
            // Old files list their weights among the inputs.
            ports.0.retain(|port| !weights.contains(&port.name));
            (file.inputs, file.outputs) = ports;
            Some(())
        }
        (25, Content::Bytes(function)) => {
            fields(function, |number, content| match (number, content) {
                (7, Content::Bytes(node)) => read_node(node, file, external, 0),
                _ => Some(()),
            })
        }
        _ => Some(()),
    })
}

/// Reads a GraphProto and returns the names of its weights. The ports of an inner graph are not the model's.
fn read_graph(
    bytes: &[u8],
    file: &mut OnnxFile,
    external: &mut BTreeSet<String>,
    mut ports: Option<&mut (Vec<Port>, Vec<Port>)>,
    depth: usize,
) -> Option<BTreeSet<String>> {
    if depth > DEEPEST {
        file.too_deep = true;
        return None;
    }
    let mut weights = BTreeSet::new();
    fields(bytes, |number, content| {
        match (number, content) {
            (1, Content::Bytes(node)) => read_node(node, file, external, depth)?,
            (5, Content::Bytes(tensor)) => {
                weights.insert(read_tensor(tensor, file, external)?);
            }
            (15, Content::Bytes(sparse)) => read_sparse(sparse, file, external)?,
            (11, Content::Bytes(value)) => {
                if let Some(ports) = ports.as_mut() {
                    ports.0.push(read_port(value)?);
                }
            }
            (12, Content::Bytes(value)) => {
                if let Some(ports) = ports.as_mut() {
                    ports.1.push(read_port(value)?);
                }
            }
            _ => {}
        }
        Some(())
    })?;
    Some(weights)
}

/// Reads a NodeProto: its operator, and the graphs and tensors in its attributes.
fn read_node(
    bytes: &[u8],
    file: &mut OnnxFile,
    external: &mut BTreeSet<String>,
    depth: usize,
) -> Option<()> {
    fields(bytes, |number, content| match (number, content) {
        (4, Content::Bytes(operator)) => {
            file.dynamically_quantised |= operator.starts_with(b"DynamicQuantize");
            Some(())
        }
        (5, Content::Bytes(attribute)) => {
            fields(attribute, |number, content| match (number, content) {
                (5 | 10, Content::Bytes(tensor)) => read_tensor(tensor, file, external).map(|_| ()),
                (22 | 23, Content::Bytes(sparse)) => read_sparse(sparse, file, external),
                (6 | 11, Content::Bytes(graph)) => {
                    read_graph(graph, file, external, None, depth + 1).map(|_| ())
                }
                _ => Some(()),
            })
        }
        _ => Some(()),
    })
}

/// Reads a SparseTensorProto: a tensor of values and one of their indices.
fn read_sparse(bytes: &[u8], file: &mut OnnxFile, external: &mut BTreeSet<String>) -> Option<()> {
    fields(bytes, |number, content| match (number, content) {
        (1 | 2, Content::Bytes(tensor)) => read_tensor(tensor, file, external).map(|_| ()),
        _ => Some(()),
    })
}

/// Reads a TensorProto and returns its name.
fn read_tensor(
    bytes: &[u8],
    file: &mut OnnxFile,
    external: &mut BTreeSet<String>,
) -> Option<String> {
    let (mut name, mut element, mut numbers) = (String::new(), 0, 1u64);
    let mut times = |size: u64| {
        numbers = numbers.saturating_mul(size);
    };
    fields(bytes, |number, content| {
        match (number, content) {
            (1, Content::Number(size)) => times(size),
            // Repeated numbers may be packed into one run of bytes.
            (1, Content::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    times(varint(&mut packed)?);
                }
            }
            (2, Content::Number(of)) => element = of,
            (8, Content::Bytes(bytes)) => name = text(bytes),
            (13, Content::Bytes(entry)) => external.extend(location(entry)?),
            _ => {}
        }
        Some(())
    })?;
    // f32, u8, i8, f16, f64, bf16: the types of weights. Other types hold shapes and indices.
    if [1, 2, 3, 10, 11, 16].contains(&element) {
        file.parameters = file.parameters.saturating_add(numbers);
    }
    Some(name)
}

/// Returns the path in an entry of a tensor's `external_data`, if this is the entry that holds it.
fn location(entry: &[u8]) -> Option<Option<String>> {
    let (mut key, mut value) = (String::new(), String::new());
    fields(entry, |number, content| {
        match (number, content) {
            (1, Content::Bytes(bytes)) => key = text(bytes),
            (2, Content::Bytes(bytes)) => value = text(bytes),
            _ => {}
        }
        Some(())
    })?;
    Some((key == "location").then_some(value))
}

/// Reads the nested ValueInfoProto, TypeProto, TypeProto.Tensor, TensorShapeProto and Dimension.
fn read_port(bytes: &[u8]) -> Option<Port> {
    let mut port = Port::default();
    fields(bytes, |number, content| match (number, content) {
        (1, Content::Bytes(name)) => {
            port.name = text(name);
            Some(())
        }
        (2, Content::Bytes(of)) => fields(of, |number, content| match (number, content) {
            (1, Content::Bytes(tensor)) => read_tensor_type(tensor, &mut port),
            _ => Some(()),
        }),
        _ => Some(()),
    })?;
    Some(port)
}

fn read_tensor_type(bytes: &[u8], port: &mut Port) -> Option<()> {
    fields(bytes, |number, content| {
        match (number, content) {
            (1, Content::Number(of)) => {
                port.element = match of {
                    1 => Element::F32,
                    10 => Element::F16,
                    6 => Element::I32,
                    7 => Element::I64,
                    _ => Element::Other,
                }
            }
            (2, Content::Bytes(shape)) => {
                let mut sizes = Vec::new();
                fields(shape, |number, content| {
                    if let (1, Content::Bytes(dimension)) = (number, content) {
                        let mut size = None;
                        fields(dimension, |number, content| {
                            if let (1, Content::Number(value)) = (number, content) {
                                // Some exporters write -1 for a size that may vary.
                                size = u32::try_from(value).ok().map(|size| size as usize);
                            }
                            Some(())
                        })?;
                        sizes.push(size);
                    }
                    Some(())
                })?;
                port.shape = Some(sizes);
            }
            _ => {}
        }
        Some(())
    })
}

/// Builds the error for an ONNX file that cannot be used.
pub(super) fn refuse(path: &Path, expected: String, got: String, hint: &str) -> Error {
    Error::Checkpoint { path: path.to_path_buf(), expected, got, hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_the_reader_panic() {
        for length in 0..64u8 {
            for start in 0..=255u8 {
                let bytes: Vec<u8> =
                    (0..length).map(|place| start.wrapping_add(place.wrapping_mul(37))).collect();
                read_model(&bytes, &mut OnnxFile::default(), &mut BTreeSet::new());
            }
        }
    }

    /// Encodes a field that holds bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        if number > 15 {
            bytes = vec![(number << 3 | 2) | 0x80, number >> 4];
        }
        let mut length = content.len();
        while length > 0x7f {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [bytes, content.to_vec()].concat()
    }

    /// Reads a model whose graph has this content and outputs `y`.
    fn read_with(content: &[u8]) -> Result<OnnxFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let graph = [content, &field(12, &field(1, b"y"))].concat();
        std::fs::write(&path, field(7, &graph)).unwrap();
        read(&path)
    }

    #[test]
    fn graphs_inside_graphs_without_end_are_refused() {
        // Each graph holds a node whose attribute holds another such graph.
        let nested = |depth: usize| {
            (0..depth).fold(Vec::new(), |graph, _| field(1, &field(5, &field(6, &graph))))
        };
        assert!(read_with(&nested(DEEPEST)).is_ok());
        for depth in [DEEPEST + 1, 2000] {
            let error = read_with(&nested(depth)).unwrap_err().to_string();
            assert!(error.contains("got deeper nesting"), "{error}");
        }
    }

    #[test]
    fn the_files_of_sparse_weights_are_known_too() {
        let entry = [field(1, b"location"), field(2, b"w.bin")].concat();
        let sparse = field(1, &field(13, &entry));
        for content in [field(15, &sparse), field(1, &field(5, &field(22, &sparse)))] {
            assert_eq!(read_with(&content).unwrap().external, ["w.bin"]);
        }
    }

    #[test]
    fn a_port_is_read_and_described() {
        // name "x", tensor of i64, shape [dim_param "b", 3]
        let dimensions = [0x0a, 0x03, 0x12, 0x01, b'b', 0x0a, 0x02, 0x08, 0x03];
        let tensor = [&[0x08, 0x07, 0x12, dimensions.len() as u8][..], &dimensions].concat();
        let of = [&[0x0a, tensor.len() as u8][..], &tensor].concat();
        let value = [&[0x0a, 0x01, b'x', 0x12, of.len() as u8][..], &of].concat();
        let port = read_port(&value).unwrap();
        assert_eq!(port.describe(), "`x` i64 [?, 3]");
    }
}
