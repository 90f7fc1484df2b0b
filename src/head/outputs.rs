//! The outputs of many heads on the same samples: the rows are read once, the columns of linear heads stand side by side.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use ndarray::{ArrayView2, ArrayViewMut1};
use rayon::prelude::*;

use super::{block::BLOCK_COLUMNS, network::Network, saved, transform::Transform};
use crate::{
    error::Result,
    features::{FeatureView, Tile},
    train::panel::{self, LANES},
};

/// Samples that are decoded at a time.
const TILE_SAMPLES: usize = 1024;

/// Rows whose outputs one thread computes at a time.
const PART_ROWS: usize = 256;

/// Bytes of outputs that are in memory at a time; what is more takes another pass over the samples.
const WAVE_BYTES: usize = 256 << 20;

/// A head whose outputs are wanted.
pub struct OutputHead {
    /// What the caller knows it by.
    pub number: usize,
    /// What it computes.
    pub network: Network,
    /// Laid out as the network lays them out.
    pub parameters: Vec<f32>,
}

/// Shows the outputs of every head on all of `samples`, in their order: `[rows, outputs]`, or where a head pools its rows
/// `[samples, outputs]`, and the first row of each sample with the number of rows. Heads are shown side by side, in no
/// particular order.
///
/// # Errors
/// When a file of the cache is not what the manifest says.
pub fn for_each_head(
    view: &FeatureView<'_>,
    transform: &Transform,
    samples: &[u32],
    heads: Vec<OutputHead>,
    visit: impl Fn(&OutputHead, ArrayView2<'_, f32>, &[usize]) + Sync,
) -> Result<()> {
    let places = Places::new(view, samples);
    let (linear, networks): (Vec<OutputHead>, Vec<OutputHead>) = heads
        .into_iter()
        .partition(|head| head.network.spec().is_linear());
    let mut scorers: Vec<Scorer> = networks.into_iter().map(Scorer::network).collect();
    let mut open: Vec<OutputHead> = Vec::new();
    let mut used = 0;
    for head in linear {
        let n_columns = head.network.spec().n_outputs;
        if !open.is_empty() && used + n_columns > BLOCK_COLUMNS {
            scorers.push(Scorer::panel(std::mem::take(&mut open)));
            used = 0;
        }
        used += n_columns;
        open.push(head);
    }
    if !open.is_empty() {
        scorers.push(Scorer::panel(open));
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

/// One pass over the samples.
fn show(
    view: &FeatureView<'_>,
    transform: &Transform,
    places: &Places<'_>,
    scorers: &[Scorer],
    visit: &(impl Fn(&OutputHead, ArrayView2<'_, f32>, &[usize]) + Sync),
) -> Result<()> {
    let mut all: Vec<Vec<f32>> = scorers
        .iter()
        .map(|scorer| vec![0.0; places.n_outputs(scorer) * scorer.columns])
        .collect();
    let mut buffer = Vec::new();
    view.for_each_part(places.samples, TILE_SAMPLES, |samples, loaded| {
        let memory = std::mem::take(&mut buffer);
        let tile = transform.tile(view, loaded, samples, memory, None);
        scorers.par_iter().zip(&mut all).for_each(|(scorer, all)| {
            let outputs = scorer.outputs(&tile);
            places.put(scorer, samples, &tile.starts, &outputs, all);
        });
        buffer = tile.into_buffer();
    })?;
    scorers.par_iter().zip(all).for_each(|(scorer, all)| {
        let columns = scorer.columns;
        scorer.heads.par_iter().for_each(|(head, range)| {
            let own: Cow<'_, [f32]> = match range.len() == columns {
                true => Cow::Borrowed(&all),
                false => all
                    .chunks_exact(columns)
                    .flat_map(|row| row[range.clone()].iter().copied())
                    .collect(),
            };
            let logits = ArrayView2::from_shape((own.len() / range.len(), range.len()), &own);
            visit(head, logits.expect("whole rows"), &places.starts);
        });
    });
    Ok(())
}

/// Where the outputs of each sample lie.
struct Places<'a> {
    samples: &'a [u32],
    /// First row of each sample, and the number of rows.
    starts: Vec<usize>,
    place_of: HashMap<u32, usize>,
}

impl<'a> Places<'a> {
    fn new(view: &FeatureView<'_>, samples: &'a [u32]) -> Places<'a> {
        let mut starts = vec![0];
        let mut total = 0;
        for sample in samples {
            total += view.rows_of(*sample).len();
            starts.push(total);
        }
        let places = samples.iter().enumerate();
        Places {
            samples,
            starts,
            place_of: places.map(|(place, sample)| (*sample, place)).collect(),
        }
    }

    fn n_outputs(&self, scorer: &Scorer) -> usize {
        match scorer.pools {
            true => self.samples.len(),
            false => self.starts[self.samples.len()],
        }
    }

    /// Copies the outputs on the samples of a tile to where they belong among all.
    fn put(
        &self,
        scorer: &Scorer,
        samples: &[u32],
        starts: &[usize],
        outputs: &[f32],
        all: &mut [f32],
    ) {
        let columns = scorer.columns;
        for (number, sample) in samples.iter().enumerate() {
            let place = self.place_of[sample];
            let (from, to) = match scorer.pools {
                true => (number..number + 1, place),
                false => (starts[number]..starts[number + 1], self.starts[place]),
            };
            let own = &outputs[from.start * columns..from.end * columns];
            all[to * columns..to * columns + own.len()].copy_from_slice(own);
        }
    }
}

/// What computes the outputs of one network, or of several linear heads.
struct Scorer {
    /// The heads and their columns.
    heads: Vec<(OutputHead, Range<usize>)>,
    columns: usize,
    /// Whether there is a row of outputs for each sample, not for each row.
    pools: bool,
    /// Weights `[n_features, columns]` and biases of linear heads.
    panel: Option<(Vec<f32>, Vec<f32>)>,
}

impl Scorer {
    fn network(head: OutputHead) -> Scorer {
        let spec = head.network.spec();
        let (columns, pools) = (0..spec.n_outputs, spec.attention);
        Scorer {
            columns: columns.end,
            pools,
            panel: None,
            heads: vec![(head, columns)],
        }
    }

    fn panel(heads: Vec<OutputHead>) -> Scorer {
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
        Scorer {
            heads: placed,
            columns,
            pools: false,
            panel: Some((weights, bias)),
        }
    }

    /// Outputs on the rows of a tile, `[rows or samples, columns]`.
    fn outputs(&self, tile: &Tile) -> Vec<f32> {
        let Some((weights, bias)) = &self.panel else {
            let (head, _) = &self.heads[0];
            let rows = tile.rows.view();
            let outputs = saved::outputs(&head.network, &head.parameters, rows, &tile.starts);
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
