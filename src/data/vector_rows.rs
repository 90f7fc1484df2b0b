//! Vectors that another model made, as records that have these in place of texts.

use frostbert_cache::wording::counted;

use super::{
    record::Record,
    source::{ColumnName, Format, Source},
    vector::Vector,
};
use crate::error::{Error, Result};

/// Converts the values of a row to f32.
///
/// # Errors
/// Returns what is wrong with the row: it has no values, or one of them is not finite, or too large for f32.
pub(super) fn values_of(n: usize, value: impl Fn(usize) -> f64) -> Result<Vec<f32>, String> {
    if n == 0 {
        return Err("an empty vector".into());
    }
    let values: Vec<f32> = (0..n).map(|place| value(place) as f32).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(place) => {
            let value = value(place);
            let shown = if value.is_nan() { "NaN".to_owned() } else { format!("{value:e}") };
            Err(format!("{shown} as value {} of {n}", place + 1))
        }
    }
}

impl Source {
    /// Whether its records are vectors that another model made: the source names their column, or is an array.
    pub fn has_vectors(&self) -> bool {
        self.state.is_some() || self.resolve_format().is_ok_and(|format| format == Format::Npy)
    }

    /// Returns what its vectors are called: their column.
    pub(crate) fn vectors_name(&self) -> String {
        match &self.state {
            Some(ColumnName::Name(name)) => name.clone(),
            Some(ColumnName::Number(number)) => format!("column {number}"),
            None => "vectors".to_owned(),
        }
    }

    /// Returns an error if the source names a column of vectors and its format has none.
    pub(super) fn check_vectors(&self, format: Format) -> Result<()> {
        if self.state.is_none() || format == Format::Parquet {
            return Ok(());
        }
        Err(self.malformed(
            None,
            "a Parquet file for `state`, which names its column of vectors",
            match format {
                Format::Npy => "an array, which has no columns".to_owned(),
                format => format!("a {format} file"),
            },
            "leave `state` of this source out, or write the vectors to a Parquet file, as lists of floats",
        ))
    }

    /// Returns a record whose vector is in a row of the file, counted from 1.
    ///
    /// # Errors
    /// Returns an error if the row holds no vector, for the reason in `values`.
    pub(super) fn with_vector(
        &self,
        row: u64,
        values: Result<Vec<f32>, String>,
        record: Record,
    ) -> Result<Record> {
        match values {
            Ok(values) => Ok(Record {
                // A blank id would make it a record without text.
                text: record
                    .id
                    .clone()
                    .filter(|id| !id.trim().is_empty())
                    .unwrap_or_else(|| format!("row {row}")),
                vector: Some(Vector::of(&values)),
                line: Some(row),
                ..record
            }),
            Err(got) => Err(self.malformed(
                Some(row),
                "a vector of finite numbers",
                got,
                "compute the vector again, or leave the row out of the file",
            )),
        }
    }
}

/// The width of vectors, which must be the same in all files of a pipeline.
#[derive(Debug, Clone, Default)]
pub(super) struct VectorWidth {
    /// The first width, and where it was found.
    first: Option<(usize, String)>,
}

impl VectorWidth {
    /// Returns an error if the vector of a record is wider or narrower than the first one.
    pub(super) fn require(&mut self, record: &Record, source: &Source) -> Result<()> {
        let Some(vector) = &record.vector else { return Ok(()) };
        let row = record.line.unwrap_or_default();
        let here = || (vector.width(), format!("row {row} of {}", source.path.display()));
        let (width, place) = self.first.get_or_insert_with(here);
        if vector.width() == *width {
            return Ok(());
        }
        Err(Error::Record {
            path: source.path.clone(),
            line: record.line,
            expected: format!("a vector of {}, as in {place}", counted(*width, "value")),
            got: vector.width().to_string(),
            hint: "all vectors of a pipeline must come from the same model: check which one made these"
                .to_owned(),
        })
    }

    /// Does the same, and returns the record without the values of its vector, which are read again when they are
    /// stored.
    pub(super) fn check(&mut self, mut record: Record, sources: &[Source]) -> Result<Record> {
        self.require(&record, &sources[record.source])?;
        if let Some(vector) = &mut record.vector {
            vector.bytes = Vec::new();
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_finite_is_named_with_its_place() {
        let of = |values: &[f64]| values_of(values.len(), |place| values[place]);
        assert_eq!(of(&[0.5, -1.0]), Ok(vec![0.5, -1.0]));
        assert_eq!(of(&[0.5, f64::NAN]), Err("NaN as value 2 of 2".into()));
        assert_eq!(of(&[f64::NEG_INFINITY]), Err("-inf as value 1 of 1".into()));
        assert_eq!(of(&[1e300]), Err("1e300 as value 1 of 1".into()));
        assert_eq!(of(&[]), Err("an empty vector".into()));
    }

    #[test]
    fn a_row_without_an_id_or_with_a_blank_one_is_called_by_its_number() {
        let source = Source::new("v.parquet");
        for (id, expected) in
            [(None, "row 7"), (Some(""), "row 7"), (Some(" \t"), "row 7"), (Some("a1"), "a1")]
        {
            let record = Record { id: id.map(str::to_owned), ..Record::default() };
            let record = source.with_vector(7, Ok(vec![0.5]), record).unwrap();
            assert_eq!(record.text, expected, "{id:?}");
            assert!(!record.is_empty(), "{id:?}");
        }
    }
}
