//! Several sets of samples, such as the training rows of every fold, as unions of disjoint groups.

use std::{collections::BTreeMap, ops::Range};

use ndarray::ArrayView2;

use super::transform::Transform;
use crate::{error::Result, features::FeatureView};

/// Number of samples that are decoded at a time.
const PASS_SAMPLES: usize = 1024;

/// Groups of samples: two samples are in the same group if exactly the same sets contain them.
///
/// With folds there is one group per fold. Sums over groups serve every fold, and no row is processed for a set that
/// does not contain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowGroups {
    /// The samples that any set contains, group after group, ascending within each.
    pub samples: Vec<u32>,
    /// The range of each group in `samples`.
    pub ranges: Vec<Range<usize>>,
    /// The groups of each set, ascending.
    pub sets: Vec<Vec<usize>>,
}

impl RowGroups {
    /// Finds the groups of some sets of samples. A sample that occurs twice in a set counts once.
    ///
    /// ```
    /// use frostbert::internals::head::row_groups::RowGroups;
    /// let folds = RowGroups::new(&[&[2, 3, 4], &[0, 1, 4]]);
    /// assert_eq!(folds.samples, [2, 3, 4, 0, 1]);
    /// assert_eq!(folds.ranges, [0..2, 2..3, 3..5]);
    /// assert_eq!(folds.sets, [[0, 1], [1, 2]]);
    /// ```
    pub fn new(row_sets: &[&[u32]]) -> RowGroups {
        let mut sets_of: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (set, samples) in row_sets.iter().enumerate() {
            for sample in *samples {
                let sets = sets_of.entry(*sample).or_default();
                if sets.last() != Some(&set) {
                    sets.push(set);
                }
            }
        }
        let mut groups: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
        for (sample, sets) in sets_of {
            groups.entry(sets).or_default().push(sample);
        }
        let mut made = RowGroups {
            samples: Vec::new(),
            ranges: Vec::new(),
            sets: vec![Vec::new(); row_sets.len()],
        };
        for (group, (sets, samples)) in groups.into_iter().enumerate() {
            let first = made.samples.len();
            made.samples.extend(samples);
            made.ranges.push(first..made.samples.len());
            for set in sets {
                made.sets[set].push(group);
            }
        }
        made
    }

    /// Number of samples of a set.
    pub fn n_samples(&self, set: usize) -> usize {
        let groups = self.sets[set].iter();
        groups.map(|group| self.ranges[*group].len()).sum()
    }

    /// Visits the transformed rows of all samples: `visit` gets the position of the first row in `samples`, and at most
    /// 1024 rows `[rows, n_features]` of one group. The parts are the same whether the view is in memory or streamed.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    ///
    /// # Panics
    /// Panics if a sample does not have exactly one row.
    pub fn for_each_part(
        &self,
        view: &FeatureView<'_>,
        transform: &Transform,
        mut visit: impl FnMut(usize, ArrayView2<'_, f32>),
    ) -> Result<()> {
        for range in &self.ranges {
            let mut first = range.start;
            for window in view.loads(&self.samples[range.clone()], PASS_SAMPLES) {
                let (window, loaded) = window?;
                for part in window.chunks(PASS_SAMPLES) {
                    let rows = transform.apply(view.tile(&loaded, part).rows);
                    assert_eq!(rows.nrows(), part.len(), "a row for each sample");
                    visit(first, rows.view());
                    first += part.len();
                }
            }
        }
        Ok(())
    }
}
