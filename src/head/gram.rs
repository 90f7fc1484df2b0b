//! Sums of products of features, in one pass for all folds: all that least squares and linear discriminants need.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::{row_groups::RowGroups, targets::TargetTable, transform::Transform};
use crate::{
    error::Result,
    features::FeatureView,
    train::{gemm::multiply_add, real::Real},
};

/// Number of columns of a product that one thread computes at a time.
const BLOCK_COLUMNS: usize = 64;

/// Sums over the rows of some samples, with the origin subtracted from the features: `x` below is `x - origin`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GramSums {
    /// Number of rows.
    pub n: f64,
    /// `sum x`, `[n_features]`.
    pub x: Array1<f64>,
    /// `sum y`, `[n_outputs]`.
    pub y: Array1<f64>,
    /// `X^T X`, `[n_features, n_features]`.
    pub xx: Array2<f64>,
    /// `X^T Y`, `[n_features, n_outputs]`.
    pub xy: Array2<f64>,
}

/// The sums of every group of rows, over transformed features and their targets.
///
/// The targets are 1 for the row's own class and 0 elsewhere, the labels as they are, or the row's number. Everything
/// is computed in f64. An origin near the mean of the features is subtracted from them, so that quantities derived from
/// a difference of large sums, such as a variance, are not lost to rounding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gram {
    /// The mean of the first rows, 1024 at most.
    pub origin: Array1<f64>,
    /// The sums of each group.
    pub groups: Vec<GramSums>,
    /// Which groups make up each set of rows.
    pub row_groups: RowGroups,
    /// The kind of the targets.
    pub targets: GramTargets,
}

/// The kind of targets that sums were computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GramTargets {
    /// 1 for the row's own class, 0 for the others.
    Classes,
    /// 0 or 1 for each label.
    Labels,
    /// A number.
    Values,
}

impl GramSums {
    fn zeros(n_features: usize, n_outputs: usize) -> GramSums {
        GramSums {
            n: 0.0,
            x: Array1::zeros(n_features),
            y: Array1::zeros(n_outputs),
            xx: Array2::zeros((n_features, n_features)),
            xy: Array2::zeros((n_features, n_outputs)),
        }
    }
}

impl Gram {
    /// Computes the sums of some sets of samples in one pass over their rows.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    ///
    /// # Panics
    /// Panics if a sample does not have exactly one row, or if the targets are spans or tags.
    pub(crate) fn of(
        view: &FeatureView<'_>,
        transform: &Transform,
        targets: &TargetTable,
        n_outputs: usize,
        row_sets: &[&[u32]],
    ) -> Result<Gram> {
        let row_groups = RowGroups::new(row_sets);
        let n_features = transform.n_features();
        let mut origin: Option<Array1<f64>> = None;
        let mut groups = vec![GramSums::zeros(n_features, n_outputs); row_groups.ranges.len()];
        let mut group = 0;
        row_groups.for_each_part(view, transform, |first, rows| {
            while first >= row_groups.ranges[group].end {
                group += 1;
            }
            let rows = rows.mapv(f64::from);
            let origin = origin.get_or_insert_with(|| rows.sum_axis(Axis(0)) / rows.nrows() as f64);
            let rows = rows - &*origin;
            let samples = &row_groups.samples[first..first + rows.nrows()];
            let wanted = indicators(targets, samples, n_outputs);
            let sums = &mut groups[group];
            sums.n += rows.nrows() as f64;
            sums.x += &rows.sum_axis(Axis(0));
            sums.y += &wanted.sum_axis(Axis(0));
            add_square(rows.view(), &mut sums.xx);
            sums.xy
                .axis_chunks_iter_mut(Axis(1), BLOCK_COLUMNS)
                .into_par_iter()
                .zip(wanted.axis_chunks_iter(Axis(1), BLOCK_COLUMNS))
                .for_each(|(out, wanted)| multiply_add(rows.t(), wanted, out));
        })?;
        for sums in &mut groups {
            mirror(&mut sums.xx);
        }
        Ok(Gram {
            origin: origin.unwrap_or_else(|| Array1::zeros(n_features)),
            groups,
            row_groups,
            targets: match targets {
                TargetTable::Classes(_) => GramTargets::Classes,
                TargetTable::Labels(_) => GramTargets::Labels,
                _ => GramTargets::Values,
            },
        })
    }

    /// Returns the sums of a set of rows, which are those of its groups added up.
    pub(crate) fn of_set(&self, set: usize) -> GramSums {
        let n_features = self.origin.len();
        let n_outputs = self.groups.first().map_or(0, |sums| sums.y.len());
        let mut total = GramSums::zeros(n_features, n_outputs);
        for group in &self.row_groups.sets[set] {
            let sums = &self.groups[*group];
            total.n += sums.n;
            total.x += &sums.x;
            total.y += &sums.y;
            total.xx += &sums.xx;
            total.xy += &sums.xy;
        }
        total
    }
}

/// The targets of some samples as numbers, `[samples, n_outputs]`.
fn indicators(targets: &TargetTable, samples: &[u32], n_outputs: usize) -> Array2<f64> {
    let mut out = Array2::zeros((samples.len(), n_outputs));
    for (mut row, sample) in out.rows_mut().into_iter().zip(samples) {
        let sample = *sample as usize;
        match targets {
            TargetTable::Classes(classes) => row[classes[sample] as usize] = 1.0,
            TargetTable::Labels(labels) => row.assign(&labels.row(sample).mapv(f64::from)),
            TargetTable::Values(values) => row[0] = f64::from(values[sample]),
            TargetTable::Spans(_) | TargetTable::Tags(_) => {
                panic!("a class, labels or a number for each sample")
            }
        }
    }
    out
}

/// Adds `rows^T rows` to the upper triangle of `sums` (and to parts of the lower one), one block of columns per thread,
/// so that the bits do not depend on the number of threads. [`mirror`] fills in the rest.
pub(super) fn add_square<F: Real>(rows: ArrayView2<'_, F>, sums: &mut Array2<F>) {
    sums.axis_chunks_iter_mut(Axis(1), BLOCK_COLUMNS).into_par_iter().enumerate().for_each(
        |(block, mut out)| {
            let columns = block * BLOCK_COLUMNS..block * BLOCK_COLUMNS + out.ncols();
            let left = rows.slice(s![.., ..columns.end]);
            let right = rows.slice(s![.., columns.clone()]);
            multiply_add(left.t(), right, out.slice_mut(s![..columns.end, ..]));
        },
    );
}

/// Copies the upper triangle to the lower one.
pub(super) fn mirror<F: Real>(matrix: &mut Array2<F>) {
    for row in 0..matrix.nrows() {
        for column in 0..row {
            matrix[[row, column]] = matrix[[column, row]];
        }
    }
}

#[cfg(test)]
mod tests {
    use frostbert_cache::states::{Dtype, Pooling, StateId};
    use ndarray::{array, concatenate};

    use super::*;

    fn numbers(rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| {
            ((i * 37 + j * 101 + i * j) % 29) as f32 / 4.0 + 100.0 * (j % 3) as f32
        })
    }

    fn view(rows: &Array2<f32>) -> FeatureView<'static> {
        let mut bytes = Vec::new();
        Dtype::F32.encode(rows.as_slice().unwrap(), &mut bytes).unwrap();
        let state = StateId::pooled(Pooling::Mean, 1);
        FeatureView::from_bytes(state, rows.ncols(), Dtype::F32, bytes)
    }

    #[test]
    fn the_sums_of_a_fold_are_those_of_its_rows() {
        let rows = numbers(2500, 70);
        let classes: Vec<u32> = (0..2500).map(|row| row % 3).collect();
        let sets: [Vec<u32>; 2] = [
            (0..2500).filter(|row| row % 5 != 0).collect(),
            (0..2500).filter(|row| row % 5 != 1).collect(),
        ];
        let gram = Gram::of(
            &view(&rows),
            &Transform::identity(70),
            &TargetTable::Classes(classes.clone()),
            3,
            &[&sets[0], &sets[1]],
        )
        .unwrap();
        for (set, samples) in sets.iter().enumerate() {
            let sums = gram.of_set(set);
            let own: Vec<usize> = samples.iter().map(|sample| *sample as usize).collect();
            let x = rows.select(Axis(0), &own).mapv(f64::from) - &gram.origin;
            let y = Array2::from_shape_fn((own.len(), 3), |(row, class)| {
                f64::from(classes[own[row]] as usize == class)
            });
            assert_eq!((sums.n, &sums.y), (own.len() as f64, &y.sum_axis(Axis(0))));
            for (got, wanted) in [
                (&sums.xx, x.t().dot(&x)),
                (&sums.xy, x.t().dot(&y)),
                (&sums.x.clone().insert_axis(Axis(1)), x.sum_axis(Axis(0)).insert_axis(Axis(1))),
            ] {
                let worst = (got - &wanted).iter().fold(0.0f64, |w, d| w.max(d.abs()));
                assert!(worst < 1e-7, "{worst}");
            }
        }
    }

    #[test]
    fn a_sum_over_two_parts_is_that_of_all_their_rows() {
        let (first, second) = (array![[1.0, 2.0], [0.0, 3.0]], array![[-1.0, 4.0]]);
        let mut sums = Array2::<f64>::zeros((2, 2));
        add_square(first.view(), &mut sums);
        add_square(second.view(), &mut sums);
        mirror(&mut sums);
        let all = concatenate![Axis(0), first, second];
        assert_eq!(sums, all.t().dot(&all));
    }
}
