//! Reads an export in any format into the same columns, with the crates for its format, and `.npy` by hand.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{
        DataType, Float16Type, Float32Type, Int8Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
        UInt32Type,
    },
};
use frostbert::cache::{fingerprint::Key, states::Dtype};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use safetensors::{SafeTensors, tensor::Dtype as TensorType};

/// The width of the tiny BERT's states.
pub(super) const HIDDEN: usize = 32;

/// A column of an export, independent of its format.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Column {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
    /// Vectors of this type; what is quantised is narrower than a state where it is bits.
    States(TensorType, Vec<Vec<f32>>),
}

/// All columns of an export, by names such as `documents.key`, `tokens.doc` and `mean-L06`.
pub(super) type Columns = BTreeMap<String, Column>;

/// Reads an export in any format, with the names of the expected columns.
pub(super) fn read(folder: &Path, format: &str) -> Columns {
    match format {
        "npy" => files(folder, "npy")
            .map(|path| {
                let column = read_npy(&fs::read(&path).unwrap());
                (full_name(stem(&path)), column)
            })
            .collect(),
        "safetensors" => files(folder, "safetensors")
            .flat_map(|path| read_safetensors(&fs::read(path).unwrap()))
            .collect(),
        "arrow" => read_tables(folder, "arrow", |path| {
            let reader = arrow::ipc::reader::FileReader::try_new(File::open(path).unwrap(), None);
            reader.unwrap().map(Result::unwrap).collect()
        }),
        _ => read_tables(folder, "parquet", |path| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
            reader.unwrap().build().unwrap().map(Result::unwrap).collect()
        }),
    }
}

fn files(folder: &Path, extension: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|own| own == extension)).collect();
    assert!(!paths.is_empty(), "no {extension} in {}", folder.display());
    paths.into_iter()
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

/// Returns the full name of a column: `keys` is `documents.key`, `line` is `documents.line`, and other names are full.
fn full_name(name: &str) -> String {
    match name {
        "keys" => "documents.key".into(),
        name if name.contains(['.', '-']) => name.into(),
        name => format!("documents.{name}"),
    }
}

pub(super) fn read_npy(bytes: &[u8]) -> Column {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0, "data is aligned");
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.contains("'fortran_order': False"), "{header}");
    let data = &bytes[10 + length..];
    let descr = header.split('\'').nth(3).unwrap();
    let shape: Vec<usize> = header[header.find('(').unwrap() + 1..header.find(')').unwrap()]
        .split(',')
        .filter_map(|size| size.trim().parse().ok())
        .collect();
    let width: usize = descr[2..].parse().unwrap();
    let item = if descr.starts_with("<U") { 4 * width } else { width };
    assert_eq!(shape.iter().product::<usize>() * item, data.len(), "{header}");
    let items = data.chunks_exact(item);
    match &descr[1..2] {
        "f" => {
            assert_eq!(shape[1], HIDDEN);
            let dtype = if width == 2 { TensorType::F16 } else { TensorType::F32 };
            Column::States(dtype, vectors(dtype, data))
        }
        kind @ ("i" | "u") if shape.len() == 2 => {
            let dtype = if kind == "i" { TensorType::I8 } else { TensorType::U8 };
            Column::States(dtype, small_vectors(dtype, data, shape[1]))
        }
        "S" => Column::Texts(items.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()),
        "U" => Column::Texts(
            items
                .map(|text| {
                    let codes = text.chunks_exact(4).map(|code| code.try_into().unwrap());
                    let characters =
                        codes.map(|code| char::from_u32(u32::from_le_bytes(code)).unwrap());
                    characters.take_while(|character| *character != '\0').collect()
                })
                .collect(),
        ),
        kind => Column::Numbers(items.map(|item| integer(item, kind == "i")).collect()),
    }
}

fn integer(bytes: &[u8], signed: bool) -> i64 {
    let fill = if signed && bytes[bytes.len() - 1] > 127 { 255 } else { 0 };
    let mut eight = [fill; 8];
    eight[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(eight)
}

/// Returns vectors of single bytes, as the numbers that they are.
fn small_vectors(dtype: TensorType, bytes: &[u8], width: usize) -> Vec<Vec<f32>> {
    let number = |byte: &u8| integer(&[*byte], dtype == TensorType::I8) as f32;
    bytes.chunks_exact(width).map(|row| row.iter().map(number).collect()).collect()
}

fn vectors(dtype: TensorType, bytes: &[u8]) -> Vec<Vec<f32>> {
    let dtype = if dtype == TensorType::F16 { Dtype::F16 } else { Dtype::F32 };
    let rows = bytes.chunks_exact(HIDDEN * dtype.size_bytes());
    rows.map(|row| {
        let mut vector = vec![0.0; HIDDEN];
        dtype.decode(row, &mut vector);
        vector
    })
    .collect()
}

fn read_safetensors(bytes: &[u8]) -> Columns {
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let pairs = metadata.metadata().clone().unwrap();
    assert_eq!(pairs["frostbert.hidden"], HIDDEN.to_string());
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let mut columns = Columns::new();
    for (name, tensor) in tensors.tensors() {
        let signed = matches!(tensor.dtype(), TensorType::I32 | TensorType::I64);
        let width = tensor.dtype().bitsize() / 8;
        let offset = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(offset % width, 0, "{name} is aligned");
        let column = match tensor.dtype() {
            dtype @ (TensorType::F16 | TensorType::F32) => {
                assert_eq!(tensor.shape()[1], HIDDEN);
                Column::States(dtype, vectors(dtype, tensor.data()))
            }
            _ if name == "keys" => {
                assert_eq!(tensor.shape()[1], 32);
                let keys = tensor.data().chunks_exact(32);
                Column::Texts(keys.map(hex).collect())
            }
            dtype @ (TensorType::I8 | TensorType::U8) if tensor.shape().len() == 2 => {
                Column::States(dtype, small_vectors(dtype, tensor.data(), tensor.shape()[1]))
            }
            _ if name == "id.offsets" => continue,
            _ if name == "id.utf8" => {
                let offsets = tensors.tensor("id.offsets").unwrap();
                let offsets = offsets.data().chunks_exact(8);
                let offsets: Vec<usize> =
                    offsets.map(|eight| integer(eight, true) as usize).collect();
                let text = |bounds: &[usize]| tensor.data()[bounds[0]..bounds[1]].to_vec();
                let texts =
                    offsets.windows(2).map(|bounds| String::from_utf8(text(bounds)).unwrap());
                columns.insert("documents.id".into(), Column::Texts(texts.collect()));
                continue;
            }
            _ => {
                let items = tensor.data().chunks_exact(width);
                Column::Numbers(items.map(|item| integer(item, signed)).collect())
            }
        };
        columns.insert(full_name(&name), column);
    }
    columns
}

fn hex(key: &[u8]) -> String {
    Key(key.try_into().unwrap()).to_hex()
}

fn read_tables(
    folder: &Path,
    extension: &str,
    open: impl Fn(&Path) -> Vec<RecordBatch>,
) -> Columns {
    let mut columns = Columns::new();
    for path in files(folder, extension) {
        let batches = open(&path);
        let schema = batches[0].schema();
        for (number, field) in schema.fields().iter().enumerate() {
            assert!(!field.is_nullable(), "{field}");
            let name = if field.name().contains('-') {
                field.name().clone()
            } else {
                format!("{}.{}", stem(&path), field.name())
            };
            let mut parts = batches.iter().map(|batch| read_array(batch.column(number)));
            let first = parts.next().unwrap();
            columns.insert(name, parts.fold(first, join));
        }
    }
    columns
}

fn join(all: Column, more: Column) -> Column {
    match (all, more) {
        (Column::Numbers(all), Column::Numbers(more)) => Column::Numbers([all, more].concat()),
        (Column::Texts(all), Column::Texts(more)) => Column::Texts([all, more].concat()),
        (Column::States(dtype, all), Column::States(_, more)) => {
            Column::States(dtype, [all, more].concat())
        }
        other => panic!("{other:?}"),
    }
}

fn read_array(array: &dyn Array) -> Column {
    macro_rules! numbers {
        ($type:ty) => {{
            let values = array.as_primitive::<$type>().values().iter();
            Column::Numbers(values.map(|value| i64::from(*value)).collect())
        }};
    }
    match array.data_type() {
        DataType::FixedSizeBinary(32) => {
            Column::Texts(array.as_fixed_size_binary().iter().flatten().map(hex).collect())
        }
        DataType::Utf8 => {
            let texts = array.as_string::<i32>().iter().flatten();
            Column::Texts(texts.map(String::from).collect())
        }
        DataType::UInt8 => numbers!(UInt8Type),
        DataType::UInt16 => numbers!(UInt16Type),
        DataType::UInt32 => numbers!(UInt32Type),
        DataType::Int32 => numbers!(Int32Type),
        DataType::Int64 => numbers!(Int64Type),
        DataType::FixedSizeList(element, width) => {
            assert!(!element.is_nullable());
            let width = *width as usize;
            let values = array.as_fixed_size_list().values();
            let (dtype, values): (_, Vec<f32>) = match element.data_type() {
                DataType::Int8 => {
                    let values = values.as_primitive::<Int8Type>().values().iter();
                    (TensorType::I8, values.map(|value| f32::from(*value)).collect())
                }
                DataType::UInt8 => {
                    let values = values.as_primitive::<UInt8Type>().values().iter();
                    (TensorType::U8, values.map(|value| f32::from(*value)).collect())
                }
                DataType::Float16 => {
                    assert_eq!(width, HIDDEN);
                    let values = values.as_primitive::<Float16Type>().values().iter();
                    (TensorType::F16, values.map(|value| value.to_f32()).collect())
                }
                _ => {
                    assert_eq!(width, HIDDEN);
                    let values = values.as_primitive::<Float32Type>().values();
                    (TensorType::F32, values.to_vec())
                }
            };
            Column::States(dtype, values.chunks(width).map(<[f32]>::to_vec).collect())
        }
        other => panic!("a column of {other}"),
    }
}
