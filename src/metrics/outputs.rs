//! Outputs of a head on some rows, which may not fit into memory all at once.

use ndarray::{ArrayView2, CowArray, Ix2, s};

use crate::error::Result;

/// Number of rows that are visited at a time if all are in memory.
const SHOWN_ROWS: usize = 1024;

/// Outputs `[rows, outputs]` that can be iterated over any number of times.
pub trait OutputRows: Sync {
    /// Number of rows and of outputs.
    fn shape(&self) -> (usize, usize);

    /// All outputs, if they are in memory.
    fn whole(&self) -> Option<ArrayView2<'_, f32>>;

    /// Visits every row once, a few at a time, with the positions of the rows among all and their outputs.
    ///
    /// # Errors
    /// Returns an error if the data that they are computed from cannot be read.
    fn show(&self, visit: &mut dyn FnMut(&[usize], ArrayView2<'_, f32>)) -> Result<()>;
}

impl OutputRows for ArrayView2<'_, f32> {
    fn shape(&self) -> (usize, usize) {
        self.dim()
    }

    fn whole(&self) -> Option<ArrayView2<'_, f32>> {
        Some(self.view())
    }

    fn show(&self, visit: &mut dyn FnMut(&[usize], ArrayView2<'_, f32>)) -> Result<()> {
        for first in (0..self.nrows()).step_by(SHOWN_ROWS) {
            let end = (first + SHOWN_ROWS).min(self.nrows());
            let places: Vec<usize> = (first..end).collect();
            visit(&places, self.slice(s![first..end, ..]));
        }
        Ok(())
    }
}

/// Returns all outputs, gathering them in memory if they are not there yet.
///
/// # Errors
/// Returns the errors of [`OutputRows::show`].
pub(crate) fn gathered(rows: &dyn OutputRows) -> Result<CowArray<'_, f32, Ix2>> {
    if let Some(whole) = rows.whole() {
        return Ok(whole.into());
    }
    let mut all = ndarray::Array2::zeros(rows.shape());
    rows.show(&mut |places, outputs| {
        for (place, row) in places.iter().zip(outputs.rows()) {
            all.row_mut(*place).assign(&row);
        }
    })?;
    Ok(all.into())
}

/// Rows of several sources, concatenated in the order of the sources.
pub(crate) struct Chained<T>(pub Vec<T>);

impl<T: OutputRows> OutputRows for Chained<T> {
    fn shape(&self) -> (usize, usize) {
        let shapes = self.0.iter().map(OutputRows::shape);
        shapes.fold((0, 0), |(rows, _), (more, outputs)| (rows + more, outputs))
    }

    fn whole(&self) -> Option<ArrayView2<'_, f32>> {
        None
    }

    fn show(&self, visit: &mut dyn FnMut(&[usize], ArrayView2<'_, f32>)) -> Result<()> {
        let mut first = 0;
        for source in &self.0 {
            source.show(&mut |places, outputs| {
                let places: Vec<usize> = places.iter().map(|place| first + place).collect();
                visit(&places, outputs);
            })?;
            first += source.shape().0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn chained_rows_stand_one_source_after_the_other() {
        let [one, other] =
            [1500, 3].map(|n| Array2::from_shape_fn((n, 2), |(r, c)| (n + r * 2 + c) as f32));
        let chained = Chained(vec![one.view(), other.view()]);
        assert_eq!(chained.shape(), (1503, 2));
        let all = gathered(&chained).expect("rows in memory");
        assert_eq!(all.slice(s![..1500, ..]), one);
        assert_eq!(all.slice(s![1500.., ..]), other);
    }
}
