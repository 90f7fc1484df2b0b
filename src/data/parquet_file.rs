//! parquet: columns of strings; labels and ids also of numbers and booleans. The one data reader that knows Parquet.

use std::{fs::File, iter};

use arrow::{
    array::{Array, ArrayRef, LargeStringArray},
    compute::cast,
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
};

use super::source::{Column, Example, Source, Want, name_list};
use crate::error::{Error, Result};

/// Rows that are decoded at once.
const N_BATCH_ROWS: usize = 1024;

/// Streams the rows of a file, batch by batch, and reads no column but the wanted ones.
///
/// A null text is an empty one, which cleaning drops; a null label is an error.
pub(super) fn read(
    source: &Source,
    want: Want,
) -> Result<impl Iterator<Item = Result<Example>> + Send + use<>> {
    if source.is_gzip() {
        return Err(source.malformed(
            None,
            "a Parquet file that is not gzipped as a whole",
            "a name that ends in .gz",
            "decompress it: Parquet compresses its own columns, and is read from its end",
        ));
    }
    let file = File::open(&source.path).map_err(Error::io("read", &source.path))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failure(source, error))?;
    let roots = Columns::find(builder.schema(), source, want)?;
    let mut projected: Vec<usize> = roots.all().collect();
    projected.sort_unstable();
    projected.dedup();
    let mask = ProjectionMask::roots(builder.parquet_schema(), projected.iter().copied());
    let batches = builder
        .with_projection(mask)
        .with_batch_size(N_BATCH_ROWS)
        .build()
        .map_err(|error| failure(source, error))?;
    let mut rows = Rows {
        batches,
        columns: roots.within(&projected),
        batch: None,
        n_rows_in_batch: 0,
        row_in_batch: 0,
        row: 0,
        source: source.clone(),
    };
    Ok(iter::from_fn(move || rows.next_example().transpose()))
}

/// Something for each wanted column: its place, or its values in a batch.
struct Columns<T> {
    text: T,
    text_pair: Option<T>,
    label: Option<T>,
    id: Option<T>,
}

impl<T> Columns<T> {
    fn map<U>(&self, change: impl Fn(&T) -> Result<U>) -> Result<Columns<U>> {
        Ok(Columns {
            text: change(&self.text)?,
            text_pair: self.text_pair.as_ref().map(&change).transpose()?,
            label: self.label.as_ref().map(&change).transpose()?,
            id: self.id.as_ref().map(&change).transpose()?,
        })
    }
}

impl Columns<usize> {
    fn find(schema: &Schema, source: &Source, want: Want) -> Result<Self> {
        let text =
            |key: &str, column: &Column| index(schema, source, key, column, is_text, "strings");
        let name = |key: &str, column: &Column| {
            index(
                schema,
                source,
                key,
                column,
                is_name,
                "strings, numbers or booleans",
            )
        };
        Ok(Columns {
            text: text("text", &source.text)?,
            text_pair: source
                .wanted_pair(want)?
                .map(|column| text("text_pair", column))
                .transpose()?,
            label: want
                .label
                .then(|| name("label", &source.label_column()))
                .transpose()?,
            id: source
                .id
                .as_ref()
                .map(|column| name("id", column))
                .transpose()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = usize> {
        [Some(self.text), self.text_pair, self.label, self.id]
            .into_iter()
            .flatten()
    }

    /// The places among the columns that are read.
    fn within(&self, projected: &[usize]) -> Self {
        let place = |root: usize| projected.partition_point(|&other| other < root);
        Columns {
            text: place(self.text),
            text_pair: self.text_pair.map(place),
            label: self.label.map(place),
            id: self.id.map(place),
        }
    }
}

struct Rows {
    batches: ParquetRecordBatchReader,
    columns: Columns<usize>,
    batch: Option<Columns<LargeStringArray>>,
    n_rows_in_batch: usize,
    row_in_batch: usize,
    row: u64,
    source: Source,
}

impl Rows {
    fn next_example(&mut self) -> Result<Option<Example>> {
        while self.row_in_batch == self.n_rows_in_batch {
            let Some(batch) = self.batches.next() else {
                return Ok(None);
            };
            let batch = batch.map_err(|error| failure(&self.source, error.into()))?;
            self.batch = Some(self.columns.map(|&place| self.strings(&batch, place))?);
            self.n_rows_in_batch = batch.num_rows();
            self.row_in_batch = 0;
        }
        let row = self.row_in_batch;
        self.row_in_batch += 1;
        self.row += 1;
        let Some(batch) = &self.batch else {
            return Ok(None);
        };
        let label = match &batch.label {
            None => None,
            Some(labels) => Some(
                value(labels, row)
                    .ok_or_else(|| self.null_label())?
                    .trim()
                    .to_owned(),
            ),
        };
        Ok(Some(Example {
            id: batch
                .id
                .as_ref()
                .and_then(|ids| value(ids, row))
                .map(str::to_owned),
            text: value(&batch.text, row).unwrap_or_default().to_owned(),
            text_pair: batch
                .text_pair
                .as_ref()
                .map(|texts| value(texts, row).unwrap_or_default().to_owned()),
            label,
            line: Some(self.row),
            source: 0,
        }))
    }

    fn strings(&self, batch: &RecordBatch, place: usize) -> Result<LargeStringArray> {
        let array: ArrayRef = cast(batch.column(place), &DataType::LargeUtf8)
            .map_err(|error| failure(&self.source, error.into()))?;
        Ok(LargeStringArray::from(array.to_data()))
    }

    fn null_label(&self) -> Error {
        self.source.malformed(
            None,
            format!("a label in row {}", self.row),
            "null",
            "give the row a label, or leave it out of the file",
        )
    }
}

fn value(array: &LargeStringArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

fn index(
    schema: &Schema,
    source: &Source,
    key: &str,
    column: &Column,
    accepts: fn(&DataType) -> bool,
    accepted: &str,
) -> Result<usize> {
    let fields = schema.fields();
    let found = match column {
        Column::Number(number) => Some(*number).filter(|&number| number < fields.len()),
        Column::Name(name) => fields.iter().position(|field| field.name() == name),
    };
    match found {
        None => Err(source.malformed(
            None,
            format!("a column {column} for `{key}`"),
            format!(
                "the columns {}",
                name_list(fields.iter().map(|field| field.name().as_str()))
            ),
            format!("set `{key}` of this source to one of these"),
        )),
        Some(place) if !accepts(fields[place].data_type()) => Err(source.malformed(
            None,
            format!("{accepted} in the column {column} for `{key}`"),
            format!("values of type {}", fields[place].data_type()),
            format!(
                "set `{key}` of this source to another column, or write that column as strings"
            ),
        )),
        Some(place) => Ok(place),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_name(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean => true,
        DataType::Dictionary(_, values) => is_name(values),
        _ => data_type.is_numeric() || is_text(data_type),
    }
}

fn failure(source: &Source, error: ParquetError) -> Error {
    source.malformed(
        None,
        "a Parquet file that is whole and compressed with zstd, snappy or nothing",
        error.to_string(),
        "check that the file was written to its end, or write it again with one of these compressions",
    )
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use arrow::{
        array::{
            BooleanArray, DictionaryArray, Float32Array, Int8Array, Int64Array, ListArray,
            StringArray, StringViewArray, types::Int32Type, types::Int64Type,
        },
        compute::concat_batches,
    };
    use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};

    use super::*;
    use crate::data;

    const LABELLED: Want = Want {
        label: true,
        text_pair: false,
    };

    fn write(path: &Path, batch: &RecordBatch, compression: Compression) {
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(1500))
            .build();
        let mut writer = ArrowWriter::try_new(
            File::create(path).unwrap(),
            batch.schema(),
            Some(properties),
        )
        .unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }

    fn read_columns(
        columns: &[(&str, ArrayRef)],
        source: Source,
        want: Want,
    ) -> Result<Vec<Example>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(
            &path,
            &RecordBatch::try_from_iter(columns.to_vec()).unwrap(),
            Compression::SNAPPY,
        );
        let source = Source {
            path: path.clone(),
            ..source
        };
        data::read(&source, want)
            .and_then(Iterator::collect)
            .map_err(|error| {
                format!("{error}; hint: {}", error.hint().unwrap())
                    .replace(&path.display().to_string(), "a.parquet")
            })
    }

    fn strings(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn texts_may_be_strings_of_any_layout_and_labels_any_plain_value() {
        let dictionary: DictionaryArray<Int32Type> = ["one", "two"].into_iter().collect();
        let texts: [ArrayRef; 4] = [
            strings(&["one", "two"]),
            Arc::new(LargeStringArray::from(vec!["one", "two"])),
            Arc::new(StringViewArray::from(vec!["one", "two"])),
            Arc::new(dictionary),
        ];
        let labels: [(ArrayRef, [&str; 2]); 5] = [
            (strings(&["pos", " neg "]), ["pos", "neg"]),
            (Arc::new(Int64Array::from(vec![7, -1])), ["7", "-1"]),
            (Arc::new(Int8Array::from(vec![1, 0])), ["1", "0"]),
            (
                Arc::new(BooleanArray::from(vec![true, false])),
                ["true", "false"],
            ),
            (Arc::new(Float32Array::from(vec![3.8, 5.0])), ["3.8", "5.0"]),
        ];
        for text in &texts {
            for (label, expected) in &labels {
                let columns = [("text", text.clone()), ("label", label.clone())];
                let examples = read_columns(&columns, Source::new(""), LABELLED).unwrap();
                let rows: Vec<_> = examples
                    .iter()
                    .map(|e| {
                        (
                            e.line.unwrap(),
                            e.text.as_str(),
                            e.label.as_deref().unwrap(),
                        )
                    })
                    .collect();
                assert_eq!(rows, [(1, "one", expected[0]), (2, "two", expected[1])]);
            }
        }
    }

    #[test]
    fn columns_are_found_by_name_and_by_number_in_any_order() {
        let columns = [
            ("label", strings(&["x"])),
            ("unused", strings(&["no"])),
            ("answer", strings(&["So."])),
            ("n", Arc::new(Int64Array::from(vec![17])) as ArrayRef),
            ("question", strings(&["Why?"])),
        ];
        let by_name = Source {
            text: "question".into(),
            text_pair: Some("answer".into()),
            id: Some("n".into()),
            ..Source::new("")
        };
        let by_number = Source {
            text: 4.into(),
            text_pair: Some(2.into()),
            id: Some(3.into()),
            label: Some(0.into()),
            ..Source::new("")
        };
        for source in [by_name, by_number] {
            let examples = read_columns(
                &columns,
                source,
                Want {
                    label: true,
                    text_pair: true,
                },
            )
            .unwrap();
            let expected = Example {
                id: Some("17".to_owned()),
                text: "Why?".to_owned(),
                text_pair: Some("So.".to_owned()),
                label: Some("x".to_owned()),
                line: Some(1),
                source: 0,
            };
            assert_eq!(examples, [expected]);
        }
        let twice = Source {
            text: "question".into(),
            label: Some("question".into()),
            ..Source::new("")
        };
        assert_eq!(
            read_columns(&columns, twice, LABELLED).unwrap()[0]
                .label
                .as_deref(),
            Some("Why?")
        );
    }

    #[test]
    fn a_null_text_is_empty_and_a_null_label_is_an_error() {
        let columns = [
            (
                "text",
                Arc::new(StringArray::from(vec![Some("one"), None])) as ArrayRef,
            ),
            ("label", Arc::new(Int64Array::from(vec![None, Some(1)]))),
        ];
        let examples = read_columns(&columns, Source::new(""), Want::default()).unwrap();
        assert_eq!((examples[1].text.as_str(), &examples[1].label), ("", &None));
        assert_eq!(
            read_columns(&columns, Source::new(""), LABELLED).unwrap_err(),
            "a.parquet: expected a label in row 1, got null; hint: give the row a label, or leave it out of the file"
        );
    }

    #[test]
    fn missing_columns_and_wrong_types_are_named() {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)])]);
        let columns = [
            ("text", strings(&["one"])),
            ("labels", Arc::new(list) as ArrayRef),
        ];
        for (source, start) in [
            (
                Source::new(""),
                "a.parquet: expected a column `label` for `label`, got the columns `text`, `labels`; ",
            ),
            (
                Source {
                    label: Some("labels".into()),
                    ..Source::new("")
                },
                "a.parquet: expected strings, numbers or booleans in the column `labels` for `label`, got values of ",
            ),
            (
                Source {
                    text: 1.into(),
                    ..Source::new("")
                },
                "a.parquet: expected strings in the column number 1 for `text`, got values of type List",
            ),
            (
                Source {
                    text: 2.into(),
                    ..Source::new("")
                },
                "a.parquet: expected a column number 2 for `text`, got the",
            ),
        ] {
            let message = read_columns(&columns, source, LABELLED).unwrap_err();
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn rows_stream_over_batches_and_row_groups_of_any_compression() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let texts: Vec<String> = (0..2500).map(|i| format!("text {i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let batch = RecordBatch::try_from_iter([("text", strings(&texts))]).unwrap();
        let batch = concat_batches(&batch.schema(), [&batch, &batch]).unwrap();
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(Default::default()),
        ] {
            write(&path, &batch, compression);
            let examples = data::read(&Source::new(&path), Want::default()).unwrap();
            let examples: Vec<Example> = examples.collect::<Result<_>>().unwrap();
            assert_eq!(examples.len(), 5000);
            assert!(
                examples
                    .iter()
                    .enumerate()
                    .all(|(i, e)| e.line == Some(i as u64 + 1))
            );
            assert_eq!(
                (examples[2499].text.as_str(), examples[2500].text.as_str()),
                ("text 2499", "text 0")
            );
        }
    }

    #[test]
    fn a_file_that_is_no_parquet_or_cut_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for content in [&b""[..], b"text,label\none,a\n"] {
            std::fs::write(&path, content).unwrap();
            let error = data::read(&Source::new(&path), LABELLED).err().unwrap();
            assert!(
                error
                    .to_string()
                    .contains("expected a Parquet file that is whole"),
                "{error}"
            );
        }
        let error = data::read(&Source::new(folder.path().join("a.parquet.gz")), LABELLED)
            .err()
            .unwrap();
        assert!(
            error.hint().unwrap().starts_with("decompress it"),
            "{error}"
        );
        let error = data::read(&Source::new(folder.path().join("none.parquet")), LABELLED)
            .err()
            .unwrap();
        assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
    }
}
