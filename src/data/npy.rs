//! npy: an array of vectors, as NumPy saves it, with their labels in a file of their own.

use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    iter,
};

use frostbert_cache::wording::{counted, shorten};
use half::f16;
use regex::Regex;

use super::{
    Records,
    bad_rows::FailedRows,
    record::{Record, WantedFields},
    source::{Format, Source},
    vector_rows::values_of,
};
use crate::error::{Error, Result};

/// The first bytes of every such file.
const MAGIC: [u8; 6] = *b"\x93NUMPY";

/// Most bytes of a header; NumPy writes less than 200 for an array of two dimensions.
const MOST_HEADER_BYTES: usize = 64 << 10;

/// The type of a value, little-endian.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ValueType {
    F16,
    F32,
    F64,
}

impl ValueType {
    /// The type with this name in a header.
    fn named(name: &str) -> Option<ValueType> {
        match name {
            "<f2" => Some(ValueType::F16),
            "<f4" => Some(ValueType::F32),
            "<f8" => Some(ValueType::F64),
            _ => None,
        }
    }

    fn size(self) -> usize {
        match self {
            ValueType::F16 => 2,
            ValueType::F32 => 4,
            ValueType::F64 => 8,
        }
    }

    /// The value at a place of a row.
    fn value(self, row: &[u8], place: usize) -> f64 {
        match self {
            ValueType::F16 => f16::from_le_bytes(bytes_at(row, place)).to_f64(),
            ValueType::F32 => f64::from(f32::from_le_bytes(bytes_at(row, place))),
            ValueType::F64 => f64::from_le_bytes(bytes_at(row, place)),
        }
    }
}

fn bytes_at<const N: usize>(row: &[u8], place: usize) -> [u8; N] {
    std::array::from_fn(|byte| row[place * N + byte])
}

/// What a header says of its array.
#[derive(Debug, PartialEq)]
struct ArrayShape {
    values: ValueType,
    rows: usize,
    width: usize,
}

/// Returns the source of the labels of an array, with whatever else is wanted of their file; `None` if nothing is.
///
/// # Errors
/// Returns an error if something is wanted and the source names no such file.
pub(super) fn label_source(source: &Source, want: WantedFields) -> Result<Option<Source>> {
    if !want.label && source.id.is_none() && source.label_columns.is_empty() {
        return Ok(None);
    }
    let Some(path) = source.label_path.clone() else {
        return Err(source.malformed(
            None,
            "a file of labels for these vectors",
            "none",
            "set `label_path` of this source to a csv, tsv or parquet file with a row for each vector, or to a text file \
             with a label on each line",
        ));
    };
    let labels = Source {
        path,
        format: None,
        // There are no texts, and the column of the labels is there.
        text: Some(source.label_column()),
        state: None,
        text_pair: None,
        label_path: None,
        split_column: None,
        skip_bad: None,
        ..source.clone()
    };
    if labels.resolve_format()? == Format::Lines {
        // A line is a label.
        let pattern = Some("(?<text>(?<label>.+))".to_owned());
        return Ok(Some(Source { label: None, text: None, pattern, ..labels }));
    }
    let label = Some(labels.label_column());
    Ok(Some(Source { label, ..labels }))
}

/// Streams the rows of an array, each with the label and the id of the same row of `labels`.
pub(super) fn read(
    file: File,
    labels: Option<Records>,
    source: &Source,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let mut file = file;
    file.rewind().map_err(Error::io("read", &source.path))?;
    let n_bytes = file.metadata().map_err(Error::io("read", &source.path))?.len();
    let mut input = BufReader::with_capacity(1 << 20, file);
    let shape = read_header(&mut input, source)?;
    let start = input.stream_position().map_err(Error::io("read", &source.path))?;
    let row_bytes = shape.width.checked_mul(shape.values.size());
    let declared = row_bytes
        .and_then(|row_bytes| (shape.rows as u64).checked_mul(row_bytes as u64))
        .and_then(|bytes| bytes.checked_add(start));
    let Some(row_bytes) = row_bytes.filter(|_| declared == Some(n_bytes)) else {
        return Err(source.malformed(
            None,
            format!(
                "the {} of {} that its header declares",
                counted(shape.rows, "vector"),
                counted(shape.width, "value")
            ),
            format!("a file of {}", counted(n_bytes, "byte")),
            "save the array again: the file was not written to its end, or is not as numpy.save writes it",
        ));
    };
    let mut labels = labels;
    // Rows of an array without rows may be declared to have any width.
    let mut bytes = vec![0; if shape.rows == 0 { 0 } else { row_bytes }];
    let mut row = 0;
    let source = source.clone();
    let mut next = move || -> Result<Option<Result<Record>>> {
        if row == shape.rows as u64 {
            let more = labels.as_mut().and_then(Iterator::next).transpose()?;
            return match more {
                None => Ok(None),
                Some(_) => Err(unequal(&source, shape.rows as u64, "more")),
            };
        }
        row += 1;
        input.read_exact(&mut bytes).map_err(Error::io("read", &source.path))?;
        let record = match labels.as_mut().map(Iterator::next) {
            None => Record::default(),
            Some(Some(label)) => labelled(label?),
            Some(None) => return Err(unequal(&source, shape.rows as u64, &(row - 1).to_string())),
        };
        let values = values_of(shape.width, |place| shape.values.value(&bytes, place));
        Ok(Some(source.with_vector(row, values, record)))
    };
    let mut n_read = 0;
    Ok(iter::from_fn(move || {
        loop {
            n_read += 1;
            match next() {
                Ok(None) => return None,
                Ok(Some(record)) => {
                    if let Some(record) = failed.keep(n_read..=n_read, record) {
                        return Some(record);
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }))
}

/// What a row of the file of labels says of its vector; in a file without columns, the line is the label.
fn labelled(row: Record) -> Record {
    let label = row.label.or_else(|| Some(row.text.trim().to_owned()));
    Record {
        id: row.id,
        label,
        labels: row.labels,
        label_cells: row.label_cells,
        ..Record::default()
    }
}

/// The error for a file of labels that has not as many rows as the array.
fn unequal(source: &Source, rows: u64, got: &str) -> Error {
    let labels = source.label_path.clone().unwrap_or_default();
    Error::Record {
        expected: format!("{}, as {} has vectors", counted(rows, "row"), source.path.display()),
        path: labels,
        line: None,
        got: got.to_owned(),
        hint: "write a row for each vector, in the same order; a row without a label has an empty cell".to_owned(),
    }
}

/// Reads the header, after which the values begin.
fn read_header(input: &mut impl Read, source: &Source) -> Result<ArrayShape> {
    let text = header_text(input).ok_or_else(|| {
        source.malformed(
            None,
            "an array in the format of numpy.save",
            "something else",
            "save the vectors with numpy.save, or name a Parquet file and its column with `state`",
        )
    })?;
    shape_of(&text).map_err(|(got, hint)| {
        let expected =
            "an array of two dimensions, of little-endian floats of 16, 32 or 64 bits, in C order";
        source.malformed(None, expected, got, hint)
    })
}

/// The text of a header; `None` if this is no such file.
fn header_text(input: &mut impl Read) -> Option<String> {
    let mut start = [0; 8];
    input.read_exact(&mut start).ok()?;
    if start[..6] != MAGIC {
        return None;
    }
    let length = if start[6] == 1 {
        let mut length = [0; 2];
        input.read_exact(&mut length).ok()?;
        usize::from(u16::from_le_bytes(length))
    } else {
        let mut length = [0; 4];
        input.read_exact(&mut length).ok()?;
        u32::from_le_bytes(length) as usize
    };
    if length > MOST_HEADER_BYTES {
        return None;
    }
    let mut text = vec![0; length];
    input.read_exact(&mut text).ok()?;
    String::from_utf8(text).ok()
}

/// Parses the text of a header, a Python dictionary.
///
/// # Errors
/// Returns what the array is instead of one of vectors, and what to do about it.
fn shape_of(header: &str) -> Result<ArrayShape, (String, &'static str)> {
    let of_key = |pattern: &str| {
        let pattern = Regex::new(pattern).expect("a pattern that compiles");
        let found = pattern.captures(header)?;
        Some(found.get(1)?.as_str().trim().to_owned())
    };
    let strange = || (format!("the header `{}`", shorten(header, 80)), "save the array again");
    let values = of_key(r#"'descr':\s*'([^']*)'"#).ok_or_else(strange)?;
    let is_fortran = of_key(r"'fortran_order':\s*(\w+)").ok_or_else(strange)? != "False";
    let shape = of_key(r"'shape':\s*\(([^)]*)\)").ok_or_else(strange)?;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let sizes: Option<Vec<usize>> = sizes.map(|size| size.parse().ok()).collect();
    let Some(values) = ValueType::named(&values) else {
        return Err((
            format!("values of type `{values}`"),
            "save it with array.astype(numpy.float32)",
        ));
    };
    match sizes.as_deref() {
        Some([_, _]) if is_fortran => {
            Err(("Fortran order".into(), "save it with numpy.ascontiguousarray(array)"))
        }
        Some([rows, width]) => Ok(ArrayShape { values, rows: *rows, width: *width }),
        Some(sizes) => {
            Err((counted(sizes.len(), "dimension"), "save an array with a row for each vector"))
        }
        None => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_the_array_is_and_why_it_cannot_be_read() {
        let of = |descr: &str, fortran: &str, shape: &str| {
            let text = format!(
                "{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}   \n"
            );
            shape_of(&text).map_err(|(got, _)| got)
        };
        let expected = ArrayShape { values: ValueType::F16, rows: 3, width: 4 };
        assert_eq!(of("<f2", "False", "(3, 4)"), Ok(expected));
        let error = |descr, fortran, shape| of(descr, fortran, shape).unwrap_err();
        assert_eq!(error("<f4", "True", "(3, 4)"), "Fortran order");
        assert_eq!(error(">f4", "False", "(3, 4)"), "values of type `>f4`");
        assert_eq!(error("<i8", "False", "(3, 4)"), "values of type `<i8`");
        assert_eq!(error("<f4", "False", "(3,)"), "1 dimension");
        assert_eq!(error("<f4", "False", "(3, 4, 5)"), "3 dimensions");
        assert!(error("<f4", "False", "(3, -4)").starts_with("the header"));
    }
}
