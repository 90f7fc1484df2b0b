//! The targets of the samples of a view: classes, labels, values, spans, or a tag for each of their rows.

use std::ops::Range;

use ndarray::{Array2, Axis, s};

use crate::{features::FeatureView, train::loss::Targets};

/// The targets of every sample of a view.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetTable {
    /// A class for each sample.
    Classes(Vec<u32>),
    /// 0 or 1 for each sample and label: `[samples, labels]`.
    Labels(Array2<f32>),
    /// A number for each sample.
    Values(Vec<f32>),
    /// A first and a last row for each sample, as row numbers within the sample.
    Spans(Vec<[u32; 2]>),
    /// A class for each output of the view: for each row, or for each token that is one.
    Tags(Vec<u32>),
}

/// Borrowed targets of a batch.
#[derive(Clone, Copy)]
pub enum TargetsView<'a> {
    /// One for each output row.
    Rows(Targets<'a>),
    /// One for each sample.
    Spans(&'a [[u32; 2]]),
}

impl TargetTable {
    /// Returns the targets of some samples, in order.
    ///
    /// # Panics
    /// Panics if a sample is out of range.
    pub fn gather(&self, view: &FeatureView<'_>, samples: &[u32]) -> TargetTable {
        let places = || samples.iter().map(|sample| *sample as usize);
        match self {
            TargetTable::Classes(all) => TargetTable::Classes(places().map(|i| all[i]).collect()),
            TargetTable::Values(all) => TargetTable::Values(places().map(|i| all[i]).collect()),
            TargetTable::Spans(all) => TargetTable::Spans(places().map(|i| all[i]).collect()),
            TargetTable::Labels(all) => {
                TargetTable::Labels(all.select(Axis(0), &places().collect::<Vec<_>>()))
            }
            TargetTable::Tags(all) => TargetTable::Tags(
                samples
                    .iter()
                    .flat_map(|sample| all[view.outputs_of(*sample)].iter().copied())
                    .collect(),
            ),
        }
    }

    /// Returns the targets of some of its samples; `starts` holds the first output of each, followed by the number of
    /// outputs.
    pub fn slice(&self, samples: Range<usize>, starts: &[usize]) -> TargetsView<'_> {
        match self {
            TargetTable::Classes(all) => TargetsView::Rows(Targets::Classes(&all[samples])),
            TargetTable::Values(all) => TargetsView::Rows(Targets::Values(&all[samples])),
            TargetTable::Spans(all) => TargetsView::Spans(&all[samples]),
            TargetTable::Labels(all) => {
                TargetsView::Rows(Targets::Labels(all.slice(s![samples, ..])))
            }
            TargetTable::Tags(all) => {
                let rows = starts[samples.start]..starts[samples.end];
                TargetsView::Rows(Targets::Classes(&all[rows]))
            }
        }
    }
}
