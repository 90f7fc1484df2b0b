//! The outputs of many heads on the same samples: rows are read once, and linear heads are evaluated as one matrix.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use ndarray::{ArrayView2, ArrayViewMut1, s};
use rayon::prelude::*;

use super::{
    block::BLOCK_COLUMNS,
    network::{Network, NetworkInput},
    network_outputs::network_outputs,
    transform::Transform,
};
use crate::{
    error::Result,
    features::{FeatureView, Tile},
    metrics::outputs::OutputRows,
    train::panel::{self, LANES},
};

/// Number of samples that are decoded at a time.
const TILE_SAMPLES: usize = 1024;

/// Number of rows whose outputs one thread computes at a time.
const PART_ROWS: usize = 256;

/// Maximum size in bytes of the outputs in memory at a time; more outputs take another pass over the samples.
pub(crate) const WAVE_BYTES: usize = 256 << 20;

/// Approximate size in bytes of the outputs of a tile when they are not all held in memory.
const TILE_BYTES: usize = 32 << 20;

/// A head whose outputs are to be computed.
pub struct OutputHead {
    /// The caller's number for the head.
    pub number: usize,
    /// The network that computes the outputs.
    pub network: Network,
    /// The parameters, in the layout of the network.
    pub parameters: Vec<f32>,
}

/// Passes the outputs of every head on all of `samples`, in order, to `visit`: `[rows, outputs]`, or
/// `[samples, outputs]` if a head pools its rows, along with the first output of each sample followed by their number
/// for a head with one for each row or token. Heads are visited concurrently and in no particular order.
///
/// If the outputs of a head with one row per sample take more than [`WAVE_BYTES`], they are in memory only while they
/// are being visited.
///
/// # Errors
/// Returns an error if a file of the cache does not match the manifest, or if `visit` fails.
pub(crate) fn for_each_head(
    view: &FeatureView<'_>,
    transform: &Transform,
    samples: &[u32],
    heads: Vec<OutputHead>,
    visit: impl Fn(&OutputHead, &dyn OutputRows, &[usize]) -> Result<()> + Sync,
) -> Result<()> {
    let places = Places::new(view, samples);
    let (linear, networks): (Vec<OutputHead>, Vec<OutputHead>) =
        heads.into_iter().partition(|head| head.network.spec().is_linear());
    let mut scorers: Vec<OutputComputer> =
        networks.into_iter().map(OutputComputer::network).collect();
    let mut open: Vec<OutputHead> = Vec::new();
    let mut used = 0;
    for head in linear {
        let n_columns = head.network.spec().n_outputs;
        if !open.is_empty() && used + n_columns > BLOCK_COLUMNS {
            scorers.push(OutputComputer::panel(std::mem::take(&mut open)));
            used = 0;
        }
        used += n_columns;
        open.push(head);
    }
    if !open.is_empty() {
        scorers.push(OutputComputer::panel(open));
    }
    let (large, scorers): (Vec<OutputComputer>, Vec<OutputComputer>) =
        scorers.into_iter().partition(|scorer| {
            let n_outputs = places.n_outputs(scorer);
            let is_row_each = n_outputs == samples.len() && scorer.heads.len() == 1;
            is_row_each && 4 * n_outputs * scorer.columns > WAVE_BYTES
        });
    for scorer in &large {
        let (head, _) = &scorer.heads[0];
        let outputs = Recomputed { view, transform, places: &places, scorer };
        visit(head, &outputs, &places.starts)?;
    }
    let mut rest = &scorers[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let wave = rest.iter().take_while(|scorer| {
            bytes += 4 * places.n_outputs(scorer) * scorer.columns;
            bytes <= WAVE_BYTES
        });
        let (wave, others) = rest.split_at(wave.count().max(1));
        rest = others;
        show(view, transform, &places, wave, &visit)?;
    }
    Ok(())
}

/// Runs one pass over the samples.
fn show(
    view: &FeatureView<'_>,
    transform: &Transform,
    places: &Places<'_>,
    scorers: &[OutputComputer],
    visit: &(impl Fn(&OutputHead, &dyn OutputRows, &[usize]) -> Result<()> + Sync),
) -> Result<()> {
    let mut all: Vec<Vec<f32>> =
        scorers.iter().map(|scorer| vec![0.0; places.n_outputs(scorer) * scorer.columns]).collect();
    let mut buffer = Vec::new();
    view.for_each_part(places.samples, TILE_SAMPLES, |samples, loaded| {
        let memory = std::mem::take(&mut buffer);
        let tile = transform.tile(view, loaded, samples, memory, None);
        scorers.par_iter().zip(&mut all).for_each(|(scorer, all)| {
            let outputs = scorer.outputs(&tile);
            places.put(scorer, samples, &tile.output_starts(), &outputs, all);
        });
        buffer = tile.into_buffer();
    })?;
    scorers.par_iter().zip(all).try_for_each(|(scorer, all)| {
        let columns = scorer.columns;
        scorer.heads.par_iter().try_for_each(|(head, range)| {
            let own: Cow<'_, [f32]> = if range.len() == columns {
                Cow::Borrowed(&all)
            } else {
                all.chunks_exact(columns)
                    .flat_map(|row| row[range.clone()].iter().copied())
                    .collect()
            };
            let logits = ArrayView2::from_shape((own.len() / range.len(), range.len()), &own);
            visit(head, &logits.expect("whole rows"), &places.starts)
        })
    })
}

/// Outputs of one head that are recomputed each time they are iterated over.
struct Recomputed<'a> {
    view: &'a FeatureView<'a>,
    transform: &'a Transform,
    places: &'a Places<'a>,
    scorer: &'a OutputComputer,
}

impl OutputRows for Recomputed<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.places.samples.len(), self.scorer.heads[0].1.len())
    }

    fn whole(&self) -> Option<ArrayView2<'_, f32>> {
        None
    }

    fn show(&self, visit: &mut dyn FnMut(&[usize], ArrayView2<'_, f32>)) -> Result<()> {
        let columns = self.scorer.columns;
        let at_a_time = (TILE_BYTES / (4 * columns)).clamp(PART_ROWS, TILE_SAMPLES);
        let samples = self.places.samples;
        let mut buffer = Vec::new();
        self.view.for_each_part(samples, at_a_time, |samples, loaded| {
            let memory = std::mem::take(&mut buffer);
            let tile = self.transform.tile(self.view, loaded, samples, memory, None);
            let outputs = self.scorer.outputs(&tile);
            let outputs = ArrayView2::from_shape((samples.len(), columns), &outputs);
            let outputs = outputs.expect("a row of outputs for each sample");
            let places = samples.iter().map(|sample| self.places.place_of[sample]);
            let places: Vec<usize> = places.collect();
            visit(&places, outputs.slice(s![.., self.scorer.heads[0].1.clone()]));
            buffer = tile.into_buffer();
        })
    }
}

/// Outputs of one head on some samples with one output row each, recomputed each time they are iterated over.
pub(crate) struct HeadOutputs<'a> {
    view: &'a FeatureView<'a>,
    transform: &'a Transform,
    places: Places<'a>,
    scorer: OutputComputer,
}

impl<'a> HeadOutputs<'a> {
    /// The outputs of a head on transformed features.
    pub(crate) fn new(
        view: &'a FeatureView<'a>,
        transform: &'a Transform,
        samples: &'a [u32],
        head: OutputHead,
    ) -> HeadOutputs<'a> {
        HeadOutputs {
            view,
            transform,
            places: Places::new(view, samples),
            scorer: if head.network.spec().is_linear() {
                OutputComputer::panel(vec![head])
            } else {
                OutputComputer::network(head)
            },
        }
    }

    fn recomputed(&self) -> Recomputed<'_> {
        Recomputed {
            view: self.view,
            transform: self.transform,
            places: &self.places,
            scorer: &self.scorer,
        }
    }
}

impl OutputRows for HeadOutputs<'_> {
    fn shape(&self) -> (usize, usize) {
        self.recomputed().shape()
    }

    fn whole(&self) -> Option<ArrayView2<'_, f32>> {
        None
    }

    fn show(&self, visit: &mut dyn FnMut(&[usize], ArrayView2<'_, f32>)) -> Result<()> {
        self.recomputed().show(visit)
    }
}

/// The position of the outputs of each sample.
struct Places<'a> {
    samples: &'a [u32],
    /// First output of each sample, followed by their number, for a head with one for each row or token.
    starts: Vec<usize>,
    place_of: HashMap<u32, usize>,
}

impl<'a> Places<'a> {
    fn new(view: &FeatureView<'_>, samples: &'a [u32]) -> Places<'a> {
        let mut starts = vec![0];
        let mut total = 0;
        for sample in samples {
            total += view.outputs_of(*sample).len();
            starts.push(total);
        }
        let places = samples.iter().enumerate();
        Places {
            samples,
            starts,
            place_of: places.map(|(place, sample)| (*sample, place)).collect(),
        }
    }

    fn n_outputs(&self, scorer: &OutputComputer) -> usize {
        if scorer.pools { self.samples.len() } else { self.starts[self.samples.len()] }
    }

    /// Copies the outputs on the samples of a tile to their positions among all outputs.
    fn put(
        &self,
        scorer: &OutputComputer,
        samples: &[u32],
        starts: &[usize],
        outputs: &[f32],
        all: &mut [f32],
    ) {
        let columns = scorer.columns;
        for (number, sample) in samples.iter().enumerate() {
            let place = self.place_of[sample];
            let (from, to) = if scorer.pools {
                (number..number + 1, place)
            } else {
                (starts[number]..starts[number + 1], self.starts[place])
            };
            let own = &outputs[from.start * columns..from.end * columns];
            all[to * columns..to * columns + own.len()].copy_from_slice(own);
        }
    }
}

/// Computes the outputs of one network, or of several linear heads.
struct OutputComputer {
    /// The heads and their columns.
    heads: Vec<(OutputHead, Range<usize>)>,
    columns: usize,
    /// Whether there is one row of outputs per sample rather than per input row.
    pools: bool,
    /// Weights `[n_features, columns]` and biases of linear heads.
    panel: Option<(Vec<f32>, Vec<f32>)>,
}

impl OutputComputer {
    fn network(head: OutputHead) -> OutputComputer {
        let spec = head.network.spec();
        let (columns, pools) = (0..spec.n_outputs, spec.pools());
        OutputComputer { columns: columns.end, pools, panel: None, heads: vec![(head, columns)] }
    }

    fn panel(heads: Vec<OutputHead>) -> OutputComputer {
        let outputs = heads.iter().map(|head| head.network.spec().n_outputs);
        let columns = outputs.sum::<usize>().next_multiple_of(LANES);
        let n_features = heads[0].network.spec().n_features;
        let (mut weights, mut bias) = (vec![0.0; n_features * columns], vec![0.0; columns]);
        let mut start = 0;
        let mut placed = Vec::with_capacity(heads.len());
        for head in heads {
            let range = start..start + head.network.spec().n_outputs;
            start = range.end;
            let (own, own_bias) = head.network.output_layer(&head.parameters);
            for (row, own) in weights.chunks_exact_mut(columns).zip(own.rows()) {
                ArrayViewMut1::from(&mut row[range.clone()]).assign(&own);
            }
            ArrayViewMut1::from(&mut bias[range.clone()]).assign(&own_bias);
            placed.push((head, range));
        }
        OutputComputer { heads: placed, columns, pools: false, panel: Some((weights, bias)) }
    }

    /// Computes the outputs on the rows of a tile, `[rows or samples, columns]`.
    fn outputs(&self, tile: &Tile) -> Vec<f32> {
        let Some((weights, bias)) = &self.panel else {
            let (head, _) = &self.heads[0];
            let input =
                NetworkInput { rows: tile.rows.view(), starts: &tile.starts, roles: &tile.roles };
            let outputs = network_outputs(&head.network, &head.parameters, &input);
            return outputs.into_raw_vec_and_offset().0;
        };
        let rows = tile.rows.as_slice().expect("rows of a tile are contiguous");
        let n_features = tile.rows.ncols();
        let mut outputs = vec![0.0; tile.rows.nrows() * self.columns];
        outputs
            .par_chunks_mut(PART_ROWS * self.columns)
            .zip(rows.par_chunks(PART_ROWS * n_features))
            .for_each(|(out, rows)| panel::outputs(rows, weights, bias, out));
        outputs
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use frostbert_cache::states::{Dtype, Pooling, StateId};
    use ndarray::Array2;

    use super::*;
    use crate::{head::network::NetworkSpec, metrics::outputs::gathered};

    #[test]
    fn outputs_that_are_computed_when_they_are_shown_have_the_bits_of_all_at_once() {
        let (n_samples, n_features, n_outputs) = (1500, 6, 50);
        let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin());
        let bytes = numbers(n_samples * n_features).flat_map(f32::to_le_bytes);
        let state = StateId::pooled(Pooling::Mean, 1);
        let view = FeatureView::from_bytes(state, n_features, Dtype::F32, bytes.collect());
        let transform = Transform::identity(n_features);
        let samples: Vec<u32> = (20..n_samples as u32).rev().collect();
        let head = || OutputHead {
            number: 3,
            network: Network::new(NetworkSpec::linear(n_features, n_outputs)),
            parameters: numbers((n_features + 1) * n_outputs).collect(),
        };
        let held = Mutex::new(Array2::zeros((0, 0)));
        for_each_head(&view, &transform, &samples, vec![head()], |head, outputs, starts| {
            assert_eq!((head.number, starts.len()), (3, samples.len() + 1));
            *held.lock().unwrap() = outputs.whole().expect("few outputs").to_owned();
            Ok(())
        })
        .unwrap();
        let computed = HeadOutputs::new(&view, &transform, &samples, head());
        assert!(computed.whole().is_none());
        assert_eq!(gathered(&computed).unwrap(), *held.lock().unwrap());
    }
}
