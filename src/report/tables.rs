//! The tables of a run folder: predictions.parquet and history.csv. No times are in them.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, FixedSizeBinaryArray, Float32Array, RecordBatch, StringArray},
    buffer::Buffer,
    datatypes::{DataType, Field, Schema},
};
use ndarray::ArrayView2;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::{WriterProperties, WriterVersion},
};

use crate::{
    cache::as_io,
    data::dataset::{Dataset, part_name},
    error::{Error, Result},
    head::bank::EpochRecord,
};

/// The file of predictions.
pub const PREDICTIONS_FILE: &str = "predictions.parquet";

/// The file of the training's course.
pub const HISTORY_FILE: &str = "history.csv";

/// Writes every row of a dataset with what the head says of it: `key`, `id`, `part`, `text`, `label`, `predicted`,
/// `confidence`, and a column `p_<label>` for each label.
///
/// # Errors
/// When the disk refuses.
///
/// # Panics
/// When there is not one row of probabilities per row of the dataset.
pub fn write_predictions(
    folder: &Path,
    dataset: &Dataset,
    probabilities: ArrayView2<'_, f32>,
) -> Result<()> {
    assert_eq!(
        probabilities.nrows(),
        dataset.rows.len(),
        "one row of probabilities per row"
    );
    let path = folder.join(PREDICTIONS_FILE);
    let label = |id: usize| dataset.labels.name(id).unwrap_or_default();
    let predicted: Vec<usize> = crate::metrics::probability::predictions(probabilities);
    let keys: Vec<u8> = dataset.rows.iter().flat_map(|row| row.keys[0].0).collect();
    let confidence = predicted
        .iter()
        .enumerate()
        .map(|(row, class)| probabilities[[row, *class]]);

    let mut fields = vec![
        Field::new("key", DataType::FixedSizeBinary(32), false),
        Field::new("id", DataType::Utf8, true),
        Field::new("part", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, false),
        Field::new("label", DataType::Utf8, false),
        Field::new("predicted", DataType::Utf8, false),
        Field::new("confidence", DataType::Float32, false),
    ];
    let rows = || dataset.rows.iter();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::new(32, Buffer::from_vec(keys), None)),
        Arc::new(StringArray::from_iter(rows().map(|row| row.id.as_deref()))),
        Arc::new(StringArray::from_iter_values(
            rows().map(|row| part_name(row.part)),
        )),
        Arc::new(StringArray::from_iter_values(
            rows().map(|row| row.text.as_str()),
        )),
        Arc::new(StringArray::from_iter_values(
            rows().map(|row| row.target.class().map_or("", label)),
        )),
        Arc::new(StringArray::from_iter_values(
            predicted.iter().map(|class| label(*class)),
        )),
        Arc::new(Float32Array::from_iter_values(confidence)),
    ];
    for (class, name) in dataset.labels.names().iter().enumerate() {
        fields.push(Field::new(format!("p_{name}"), DataType::Float32, false));
        columns.push(Arc::new(Float32Array::from_iter_values(
            probabilities.column(class).iter().copied(),
        )));
    }

    let schema = Arc::new(Schema::new(fields));
    let failed = |error: ParquetError| Error::io("write", &path)(as_io(error));
    let batch =
        RecordBatch::try_new(schema.clone(), columns).map_err(|error| failed(error.into()))?;
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.close().map_err(failed)?;
    Ok(())
}

/// Writes the course of a training, one line per epoch; cells without a value are empty.
///
/// # Errors
/// When the disk refuses.
pub fn write_history(folder: &Path, history: &[EpochRecord]) -> Result<()> {
    let path = folder.join(HISTORY_FILE);
    let mut text = String::from(
        "epoch,lr,train_loss,validation_loss,validation_accuracy,validation_macro_f1\n",
    );
    let cell = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for record in history {
        text.push_str(&format!(
            "{},{},{},{},{},{}\n",
            record.epoch,
            record.lr,
            record.train_loss,
            cell(record.validation_loss),
            cell(record.validation_accuracy),
            cell(record.validation_macro_f1),
        ));
    }
    std::fs::write(&path, text).map_err(Error::io("write", path))
}
