use std::{path::Path, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanArray, DictionaryArray, Float32Array, Int8Array, Int64Array,
        LargeStringArray, ListArray, StringArray, StringViewArray, types::Int32Type,
        types::Int64Type,
    },
    compute::concat_batches,
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};

use super::*;
use crate::data;

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

fn write(path: &Path, batch: &RecordBatch, compression: Compression) {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(1500))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties))
            .unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn read_columns(
    columns: &[(&str, ArrayRef)],
    source: Source,
    want: WantedFields,
) -> Result<Vec<Record>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &RecordBatch::try_from_iter(columns.to_vec()).unwrap(), Compression::SNAPPY);
    let source = Source { path: path.clone(), ..source };
    data::read(&source, want).and_then(Iterator::collect).map_err(|error| {
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
        (Arc::new(BooleanArray::from(vec![true, false])), ["true", "false"]),
        (Arc::new(Float32Array::from(vec![3.8, 5.0])), ["3.8", "5.0"]),
    ];
    for text in &texts {
        for (label, expected) in &labels {
            let columns = [("text", text.clone()), ("label", label.clone())];
            let examples = read_columns(&columns, Source::new(""), LABELLED).unwrap();
            let rows: Vec<_> = examples
                .iter()
                .map(|e| (e.line.unwrap(), e.text.as_str(), e.label.as_deref().unwrap()))
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
        text: Some("question".into()),
        text_pair: Some("answer".into()),
        id: Some("n".into()),
        ..Source::new("")
    };
    let by_number = Source {
        text: Some(4.into()),
        text_pair: Some(2.into()),
        id: Some(3.into()),
        label: Some(0.into()),
        ..Source::new("")
    };
    for source in [by_name, by_number] {
        let examples =
            read_columns(&columns, source, WantedFields { label: true, text_pair: true }).unwrap();
        let expected = Record {
            id: Some("17".to_owned()),
            text: "Why?".to_owned(),
            text_pair: Some("So.".to_owned()),
            label: Some("x".to_owned()),
            line: Some(1),
            ..Record::default()
        };
        assert_eq!(examples, [expected]);
    }
    let twice =
        Source { text: Some("question".into()), label: Some("question".into()), ..Source::new("") };
    assert_eq!(read_columns(&columns, twice, LABELLED).unwrap()[0].label.as_deref(), Some("Why?"));
}

#[test]
fn a_null_text_is_empty_and_a_null_label_is_none() {
    let columns = [
        ("text", Arc::new(StringArray::from(vec![Some("one"), None])) as ArrayRef),
        ("label", Arc::new(Int64Array::from(vec![None, Some(1)]))),
    ];
    let examples = read_columns(&columns, Source::new(""), WantedFields::default()).unwrap();
    assert_eq!((examples[1].text.as_str(), &examples[1].label), ("", &None));
    let examples = read_columns(&columns, Source::new(""), LABELLED).unwrap();
    let labels: Vec<Option<&str>> = examples.iter().map(|row| row.label.as_deref()).collect();
    assert_eq!(labels, [None, Some("1")]);
}

#[test]
fn missing_columns_and_wrong_types_are_named() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)])]);
    let columns = [("text", strings(&["one"])), ("labels", Arc::new(list) as ArrayRef)];
    for (source, start) in [
        (
            Source::new(""),
            "a.parquet: expected a column `label` for `label`, got the columns `text`, `labels`; ",
        ),
        (
            Source { label: Some("labels".into()), ..Source::new("") },
            "a.parquet: expected strings, numbers or booleans in the column `labels` for `label`, got values of ",
        ),
        (
            Source { text: Some(1.into()), ..Source::new("") },
            "a.parquet: expected strings in the column number 1 for `text`, got values of type List",
        ),
        (
            Source { text: Some(2.into()), ..Source::new("") },
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
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
    ] {
        write(&path, &batch, compression);
        let examples = data::read(&Source::new(&path), WantedFields::default()).unwrap();
        let examples: Vec<Record> = examples.collect::<Result<_>>().unwrap();
        assert_eq!(examples.len(), 5000);
        assert!(examples.iter().enumerate().all(|(i, e)| e.line == Some(i as u64 + 1)));
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
        assert!(error.to_string().contains("expected a Parquet file that is whole"), "{error}");
    }
    let error =
        data::read(&Source::new(folder.path().join("a.parquet.gz")), LABELLED).err().unwrap();
    assert!(error.hint().unwrap().starts_with("decompress it"), "{error}");
    let error =
        data::read(&Source::new(folder.path().join("none.parquet")), LABELLED).err().unwrap();
    assert!(matches!(&error, Error::Io(refused) if refused.action == "read"), "{error}");
}

#[test]
fn columns_of_labels_are_strings_or_numbers_and_null_is_empty() {
    let rule: ArrayRef = Arc::new(StringArray::from(vec![Some(" a "), None]));
    let number: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(3)]));
    let columns = [("text", strings(&["one", "two"])), ("rule", rule), ("number", number)];
    let source =
        Source { label_columns: vec!["number".into(), 1.into()], ..Source::new("a.parquet") };
    let examples = read_columns(&columns, source, WantedFields::default()).unwrap();
    let cells: Vec<Vec<String>> = examples.into_iter().map(|one| one.label_cells).collect();
    assert_eq!(cells, [["", "a"], ["3", ""]]);
    let missing = Source { label_columns: vec!["annotator".into()], ..Source::new("a.parquet") };
    let error = read_columns(&columns, missing, WantedFields::default()).unwrap_err();
    assert!(error.contains("a column `annotator`"), "{error}");
    assert!(error.contains("train.label and sweep.label"), "{error}");
}

#[test]
fn columns_of_one_name_are_told_apart_by_their_numbers() {
    let columns =
        [("text", strings(&["one"])), ("label", strings(&["a"])), ("label", strings(&["b"]))];
    let fields = columns.iter().map(|(name, column)| {
        arrow::datatypes::Field::new(*name, column.data_type().clone(), false)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.iter().map(|(_, column)| column.clone()).collect();
    let folder = tempfile::tempdir().unwrap();
    let source = Source::new(folder.path().join("a.parquet"));
    let batch = RecordBatch::try_new(schema, arrays).unwrap();
    write(&source.path, &batch, Compression::UNCOMPRESSED);
    let error = data::read(&source, LABELLED).err().unwrap();
    assert!(
        error
            .to_string()
            .ends_with("a.parquet: expected one column `label` for `label`, got 2 of that name"),
        "{error}"
    );
    let source = Source { label: Some(2.into()), ..source };
    let examples: Vec<Record> =
        data::read(&source, LABELLED).unwrap().map(Result::unwrap).collect();
    assert_eq!(examples[0].label.as_deref(), Some("b"));
}

#[test]
fn a_parquet_value_has_a_limit_and_a_value_of_many_rows_is_in_memory_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::new(folder.path().join("a.parquet"));
    let write = |column: ArrayRef| {
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        // Large enough for a dictionary page, so that each value is written once.
        let properties =
            WriterProperties::builder().set_dictionary_page_size_limit(16 << 20).build();
        let file = File::create(&source.path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    };
    let long = "x".repeat(MAX_RECORD_BYTES + 1);
    write(Arc::new(StringArray::from(vec!["a", long.as_str()])));
    let error = data::read(&source, WantedFields::default())
        .unwrap()
        .collect::<Result<Vec<_>>>()
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("a.parquet:2: expected a value of at most 64 MiB, got a longer one"),
        "{error}"
    );
    // 300 rows of 8 MiB that hold the same value: copied row by row, they would be too large for a column of strings.
    let values = StringArray::from(vec![&long[..8 << 20]]);
    let keys = arrow::array::Int32Array::from(vec![0; 300]);
    write(Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(values))));
    assert!(std::fs::metadata(&source.path).unwrap().len() < 20 << 20);
    let rows = data::read(&source, WantedFields::default()).unwrap();
    assert_eq!(rows.map(|row| row.unwrap().text.len()).sum::<usize>(), 2400 << 20);
}
