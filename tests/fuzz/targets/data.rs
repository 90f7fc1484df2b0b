//! Readers of data, and the rows that are made of what they read.

use std::{
    fs::{self, File},
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use frostbert::internals::data::{
    CleanOptions, ColumnName, DataTask, Format, Record, Records, Source, SplitFractions,
    WantedFields,
    dataset::{Dataset, DatasetSettings},
    read, read_from,
};

use super::{Execute, sum};
use crate::base;

/// Of an endless stream that a few bytes stand for (as gzip's may) no more examples are read.
const MOST_EXAMPLES: usize = 100_000;

/// A reader of a text format, from a stream and, when there is time, from a file.
pub(super) fn text(folder: &Path, format: Format) -> Execute {
    let path = folder.join("data").with_extension(format.to_string());
    let sources = sources(&path, format);
    Box::new(move |bytes, thorough| {
        let mut accepted = false;
        for (source, want) in some(&sources, bytes, thorough) {
            let examples = read_from(Cursor::new(bytes.to_vec()), source, *want).and_then(collect);
            if let Ok(examples) = &examples {
                accepted = true;
                check(source, *want, examples);
            }
            if thorough {
                fs::write(&path, bytes).unwrap();
                let again = read(source, *want).and_then(collect);
                // A stream of lines is handed out before its end is known, so that a carriage return may mean another thing.
                if format != Format::Lines {
                    let (stream, file) = (examples.ok(), again.ok());
                    assert!(
                        stream == file,
                        "a stream is not read as its file: {stream:?}\n{file:?}"
                    );
                }
            }
        }
        if thorough {
            load(&sources[0].0);
        }
        accepted
    })
}

/// A format that is read from files alone.
fn file(path: PathBuf, format: Format) -> Execute {
    let sources = sources(&path, format);
    Box::new(move |bytes, thorough| {
        fs::write(&path, bytes).unwrap();
        let mut accepted = false;
        for (source, want) in some(&sources, bytes, thorough) {
            if let Ok(examples) = read(source, *want).and_then(collect) {
                accepted = true;
                check(source, *want, &examples);
            }
        }
        if thorough {
            load(&sources[0].0);
        }
        accepted
    })
}

pub(super) fn gzip(folder: &Path) -> Execute {
    file(folder.join("data.csv.gz"), Format::Csv)
}

/// Files of several formats, compressed.
pub(super) fn gzipped() -> Vec<Vec<u8>> {
    let names = ["csv/small.csv", "csv/quoted.csv", "csv/ids.csv"];
    let compressed = names.map(|name| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&fs::read(base::corpus(name)).unwrap()).unwrap();
        encoder.finish().unwrap()
    });
    // Gzip allows several members in a file.
    let members = [compressed[0].clone(), compressed[1].clone()].concat();
    compressed.into_iter().chain([members]).collect()
}

pub(super) fn parquet(folder: &Path) -> Execute {
    file(folder.join("data.parquet"), Format::Parquet)
}

/// Small tables of every kind of column that the reader takes, written anew.
pub(super) fn parquet_files() -> Vec<PathBuf> {
    use arrow::{
        array::{
            Array, Float64Array, Int64Array, LargeStringArray, ListBuilder, RecordBatch,
            StringArray, StringBuilder,
        },
        datatypes::{Field, Schema},
    };
    use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};

    let folder = base::output().join("parquet-seeds");
    fs::create_dir_all(&folder).unwrap();
    let texts = ["the cold snow", "very warm", "film"];
    let mut lists = ListBuilder::new(StringBuilder::new());
    for text in texts {
        lists.values().append_value(text);
        lists.append(true);
    }
    let strings: Arc<dyn Array> = Arc::new(StringArray::from(texts.to_vec()));
    let with_null: Arc<dyn Array> =
        Arc::new(LargeStringArray::from(vec![Some("a"), None, Some("c")]));
    let numbers: Arc<dyn Array> = Arc::new(Int64Array::from(vec![0, 1, 2]));
    let reals: Arc<dyn Array> = Arc::new(Float64Array::from(vec![0.5, -1.0, 2.0]));
    let lists: Arc<dyn Array> = Arc::new(lists.finish());
    let tables = [
        (
            "strings",
            vec![("text", strings.clone()), ("label", strings.clone())],
            Compression::UNCOMPRESSED,
        ),
        (
            "numbers",
            vec![("text", strings.clone()), ("label", numbers), ("second", with_null)],
            Compression::SNAPPY,
        ),
        ("reals", vec![("text", strings.clone()), ("label", reals)], Compression::UNCOMPRESSED),
        ("gzip", vec![("text", strings.clone())], Compression::GZIP(Default::default())),
        ("brotli", vec![("text", strings.clone())], Compression::BROTLI(Default::default())),
        ("lists", vec![("text", strings), ("label", lists)], Compression::ZSTD(Default::default())),
    ];
    let written = tables.map(|(name, columns, compression)| {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let path = folder.join(name).with_extension("parquet");
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(
            File::create(&path).unwrap(),
            Arc::clone(&schema),
            Some(properties),
        )
        .unwrap();
        writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
        writer.close().unwrap();
        path
    });
    written.to_vec()
}

/// All ways to read a file, or one that the input decides.
fn some<'a>(
    sources: &'a [(Source, WantedFields)],
    bytes: &[u8],
    all: bool,
) -> &'a [(Source, WantedFields)] {
    if all {
        sources
    } else {
        let one = sum(bytes) % sources.len();
        &sources[one..=one]
    }
}

/// Ways to read a file of a format.
fn sources(path: &Path, format: Format) -> Vec<(Source, WantedFields)> {
    let plain = Source { format: Some(format), ..Source::new(path) };
    let named = |name: &str| Some(ColumnName::Name(name.into()));
    let (label, all, none) = (
        WantedFields { label: true, text_pair: false },
        WantedFields { label: true, text_pair: true },
        WantedFields::default(),
    );
    let further = match format {
        Format::Csv | Format::Tsv => vec![
            (
                Source {
                    header: false,
                    quoting: false,
                    text: Some(ColumnName::Number(0)),
                    label: Some(ColumnName::Number(1)),
                    encoding: "latin1".into(),
                    ..plain.clone()
                },
                label,
            ),
            (Source { delimiter: Some(';'), encoding: "utf-16".into(), ..plain.clone() }, none),
            (
                Source {
                    text_pair: named("second"),
                    label_columns: vec![ColumnName::Name("second".into()), ColumnName::Number(0)],
                    ..plain.clone()
                },
                all,
            ),
        ],
        Format::Lines => vec![(
            Source { pattern: Some(r"(?P<label>[a-z]+)\t(?P<text>.*)".into()), ..plain.clone() },
            label,
        )],
        Format::Conll | Format::Conllu => vec![(
            Source {
                words: Some(ColumnName::Number(1)),
                tags: Some(ColumnName::Number(3)),
                ..plain.clone()
            },
            label,
        )],
        Format::Squad => vec![(plain.clone(), none)],
        _ => vec![
            (
                Source {
                    text_pair: named("second"),
                    id: named("id"),
                    label_columns: vec![ColumnName::Name("second".into())],
                    ..plain.clone()
                },
                all,
            ),
            (Source { text: named("second"), ..plain.clone() }, none),
        ],
    };
    [(plain, label)].into_iter().chain(further).collect()
}

fn collect(examples: Records) -> frostbert::internals::error::Result<Vec<Record>> {
    examples.take(MOST_EXAMPLES).collect()
}

/// What must hold of examples, whatever the file.
fn check(source: &Source, want: WantedFields, examples: &[Record]) {
    for example in examples {
        if let Some(label) = &example.label {
            let _ = source.split_labels(label);
            assert_eq!(label.trim(), label, "a label with white space around it");
        }
        if let Some(words) = &example.words {
            assert!(!words.is_empty(), "a sentence without a word");
            assert_eq!(words.join(" "), example.text, "a text that is not its words");
            let n_tags = example.tags.as_ref().map(Vec::len);
            assert_eq!(n_tags, want.label.then_some(words.len()), "a tag for each word");
        }
        if want.label && source.format == Some(Format::Squad) {
            assert!(example.answers.is_some(), "a question without a list of answers");
        }
        assert_eq!(
            example.label_cells.len(),
            source.label_columns.len(),
            "a cell for each label column"
        );
    }
}

/// Makes rows of a file in every way that its format allows.
fn load(source: &Source) {
    let tasks = match source.format {
        Some(Format::Conll | Format::Conllu) => vec![DataTask::Tokens],
        Some(Format::Squad) => vec![DataTask::Qa],
        _ => vec![DataTask::Classification, DataTask::Multilabel, DataTask::Regression],
    };
    for task in tasks {
        let sources = [source.clone()];
        let settings = DatasetSettings {
            task,
            joint_pairs: false,
            train: &sources,
            validation: None,
            test: None,
            labels: None,
            split: SplitFractions::default(),
            clean: CleanOptions::default(),
            seed: 1,
            label_columns: Vec::new(),
            teaches_validation: false,
        };
        let Ok(dataset) = Dataset::load(&settings) else {
            continue;
        };
        for row in &dataset.rows {
            let class = row.target.class();
            assert!(
                class.is_none_or(|class| class < dataset.labels.len()),
                "a class that is no label: {class:?} of {}",
                dataset.labels.len()
            );
            assert!(row.target.value().is_none_or(f64::is_finite), "a target that is no number");
        }
    }
}
