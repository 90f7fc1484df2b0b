//! What cleanlab's Datalab reads: probabilities by heads that did not see the rows, labels, features, and which rows they
//! are of.

use std::{io::Write, path::Path};

use frostbert_cache::{durable::write_file_with, export::npy_header};
use ndarray::{Array2, Axis};

use crate::{
    data::{
        Part,
        dataset::Dataset,
        example::{Example, part_name},
    },
    error::Result,
    features::FeatureView,
    report::sheet::{Sheet, SheetColumn},
};

/// The out-of-fold probabilities, `[rows, classes]`.
const PRED_PROBS_FILE: &str = "pred_probs.npy";

/// The class of each row: the number of its column of probabilities.
const LABELS_FILE: &str = "labels.npy";

/// The states, `[rows, features]`.
const FEATURES_FILE: &str = "features.npy";

/// Which rows these are.
const ROWS_FILE: &str = "datalab_rows.csv";

/// Rows with their classes, each with probabilities by a head that did not see it.
pub(super) struct JudgedRows {
    /// Their places in the dataset.
    pub(super) rows: Vec<u32>,
    pub(super) labels: Vec<usize>,
    /// `[rows, classes]`.
    pub(super) probabilities: Array2<f32>,
}

/// The files, in memory.
pub(crate) struct Datalab {
    rows: Sheet,
    features: Array2<f32>,
    /// Probabilities and classes, where there are any.
    judged: Option<(Array2<f32>, Vec<usize>)>,
}

impl Datalab {
    /// Of the rows that were judged, or where none were of those of train and validation. The view is in memory and has
    /// one row for each row of the dataset; `parts` are those that the rows were split into, which a head that learned from
    /// validation too no longer tells apart.
    pub(super) fn of(
        dataset: &Dataset,
        parts: &[Part],
        view: &FeatureView<'_>,
        judged: Option<JudgedRows>,
    ) -> Datalab {
        let (places, judged) = match judged {
            None => ([Part::Train, Part::Validation].map(|part| dataset.part(part)).concat(), None),
            Some(JudgedRows { rows, labels, probabilities }) => {
                (rows, Some(without_absent_classes(probabilities, labels)))
            }
        };
        let rows: Vec<&Example> =
            places.iter().map(|place| &dataset.rows[*place as usize]).collect();
        let mut sheet = Sheet::default();
        sheet.integers("row", (0..rows.len()).map(Some));
        let parts = places.iter().map(|place| part_name(parts[*place as usize]).to_string());
        sheet.texts("part", parts);
        sheet.push("id", SheetColumn::Texts(rows.iter().map(|row| row.id.clone()).collect()));
        sheet.texts("key", rows.iter().map(|row| row.keys[0].to_hex()));
        let files = rows.iter().map(|row| dataset.files[row.file].path.display().to_string());
        sheet.texts("file", files);
        sheet.integers("line", rows.iter().map(|row| row.line.map(|line| line as usize)));
        if judged.is_some() {
            let name = |row: &&Example| dataset.labels.name(row.target.class()?).map(String::from);
            sheet.push("label", SheetColumn::Texts(rows.iter().map(name).collect()));
        }
        Datalab { rows: sheet, features: view.decode_all(&places), judged }
    }

    /// Writes the files to a run folder.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn write(&self, run: &Path) -> Result<()> {
        write_array(&run.join(FEATURES_FILE), &self.features)?;
        if let Some((probabilities, labels)) = &self.judged {
            write_array(&run.join(PRED_PROBS_FILE), probabilities)?;
            let values = labels.iter().map(|label| (*label as i64).to_le_bytes());
            write_npy(&run.join(LABELS_FILE), "<i8", &format!("({},)", labels.len()), values)?;
        }
        self.rows.write_csv(&run.join(ROWS_FILE))
    }
}

/// Datalab numbers the classes that occur from 0, in order: so do the columns of probabilities, which add up to 1 again.
fn without_absent_classes(
    probabilities: Array2<f32>,
    mut labels: Vec<usize>,
) -> (Array2<f32>, Vec<usize>) {
    let mut numbers = vec![None; probabilities.ncols()];
    for label in &labels {
        numbers[*label] = Some(0);
    }
    let present: Vec<usize> =
        (0..numbers.len()).filter(|class| numbers[*class].is_some()).collect();
    if present.len() == numbers.len() {
        return (probabilities, labels);
    }
    for (number, class) in present.iter().enumerate() {
        numbers[*class] = Some(number);
    }
    for label in &mut labels {
        *label = numbers[*label].unwrap_or_default();
    }
    let mut probabilities = probabilities.select(Axis(1), &present);
    for mut row in probabilities.rows_mut() {
        let sum = row.sum();
        row.mapv_inplace(|probability| probability / sum);
    }
    (probabilities, labels)
}

fn write_array(path: &Path, array: &Array2<f32>) -> Result<()> {
    let (n_rows, n_columns) = array.dim();
    let values = array.iter().map(|value| value.to_le_bytes());
    write_npy(path, "<f4", &format!("({n_rows}, {n_columns})"), values)
}

/// Writes an array of NumPy, without a copy of it in memory.
fn write_npy<const N: usize>(
    path: &Path,
    descr: &str,
    shape: &str,
    mut values: impl Iterator<Item = [u8; N]>,
) -> Result<()> {
    Ok(write_file_with(path, |file| {
        file.write_all(&npy_header(descr, shape))?;
        values.try_for_each(|value| file.write_all(&value))
    })?)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn classes_that_no_row_has_are_left_out_and_the_others_numbered_anew() {
        let probabilities = array![[0.5, 0.25, 0.25], [0.2, 0.0, 0.6]];
        let (left, labels) = without_absent_classes(probabilities.clone(), vec![0, 2]);
        assert_eq!(labels, [0, 1]);
        assert_eq!(left.dim(), (2, 2));
        for (got, expected) in left.iter().zip([2.0 / 3.0, 1.0 / 3.0, 0.25, 0.75]) {
            assert!((got - expected).abs() < 1e-6, "{left}");
        }
        let all = without_absent_classes(probabilities.clone(), vec![2, 0, 1]);
        assert_eq!(all, (probabilities, vec![2, 0, 1]));
    }

    #[test]
    fn arrays_are_headers_and_little_endian_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write_array(&path, &array![[1.0, 2.0]]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 8);
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
        assert_eq!(bytes[128..], [0, 0, 0x80, 0x3F, 0, 0, 0, 0x40]);
    }
}
