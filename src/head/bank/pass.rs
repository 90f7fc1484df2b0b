//! Heads that go over the same samples in batches of one size: each tile of rows is shared by all of them, and the next
//! tile is prepared while they learn from the current one.

use ndarray::{Array2, s};
use rayon::{ScopeFifo, prelude::*};

use super::{BankData, BankSettings};
use crate::{
    error::Result,
    features::{LoadedStates, Tile},
    head::{
        block::{BLOCK_COLUMNS, Block, LinearHead, fill_blocks},
        learner::{Learner, TrainingBatch},
        network_learner::NetworkLearner,
        spec::HeadSpec,
        targets::TargetTable,
        transform::Mask,
    },
    train::{loss::LossSum, panel::LANES},
};

/// Approximate size in bytes of a tile's rows: all blocks read them, so they should stay in the processor's cache.
const TILE_BYTES: usize = 2 << 20;

/// The heads that share one set and one batch size.
pub(super) struct Pass {
    /// The index of the set in the bank.
    pub(super) set: usize,
    batch_size: usize,
    groups: Vec<HeadGroup>,
}

/// Heads that see the same rows: with the same units dropped, or with none dropped.
struct HeadGroup {
    /// Rate and seed of the dropout applied to the rows before the blocks see them; networks apply their own dropout.
    dropout: Option<(f32, u64)>,
    n_features: usize,
    blocks: Vec<Block>,
    networks: Vec<NetworkLearner>,
}

impl Pass {
    pub(super) fn new(
        set: usize,
        batch_size: usize,
        heads: &[usize],
        specs: &[HeadSpec],
        data: &BankData<'_>,
    ) -> Pass {
        let n_steps = data.sets[set].train.len().div_ceil(batch_size);
        let n_features = data.transform.n_features();
        let mut groups: Vec<HeadGroup> = Vec::new();
        let mut linear: Vec<Vec<LinearHead>> = Vec::new();
        for head in heads.iter().copied() {
            let spec = &specs[head];
            let is_dropped = spec.is_linear() && spec.dropout > 0.0;
            let dropout = is_dropped.then_some((spec.dropout, spec.seed));
            let found = groups.iter().position(|group| group.dropout == dropout);
            let place = found.unwrap_or_else(|| {
                groups.push(HeadGroup {
                    dropout,
                    n_features,
                    blocks: Vec::new(),
                    networks: Vec::new(),
                });
                linear.push(Vec::new());
                groups.len() - 1
            });
            let total_steps = n_steps * spec.epochs;
            if spec.is_linear() {
                linear[place].push(LinearHead::new(head, spec.clone(), total_steps))
            } else {
                let learner = NetworkLearner::new(head, spec.clone(), total_steps);
                groups[place].networks.push(learner);
            }
        }
        for (group, heads) in groups.iter_mut().zip(linear) {
            group.fill(heads);
        }
        Pass { set, batch_size, groups }
    }

    pub(super) fn is_active(&self) -> bool {
        self.learners().any(|learner| learner.is_active())
    }

    /// The heads that are still training.
    pub(super) fn active(&self) -> Vec<usize> {
        self.learners()
            .filter(|learner| learner.is_active())
            .flat_map(|learner| learner.heads())
            .collect()
    }

    /// A head's current parameters.
    pub(super) fn parameters(&self, head: usize) -> Vec<f32> {
        let mut learners = self.learners();
        let learner = learners.find(|learner| learner.heads().contains(&head));
        learner.expect("a head of this pass").parameters(head)
    }

    /// Returns the losses of the steps since the last call.
    pub(super) fn take_losses(&mut self) -> Vec<(usize, LossSum)> {
        self.groups
            .iter_mut()
            .flat_map(HeadGroup::learners_mut)
            .flat_map(|learner| learner.take_losses())
            .collect()
    }

    /// Ends the training of some heads and repacks the remaining ones, so that the stopped heads cost nothing any more.
    pub(super) fn stop(&mut self, heads: &[usize]) {
        if heads.is_empty() {
            return;
        }
        for group in &mut self.groups {
            for learner in group.learners_mut() {
                for head in heads {
                    learner.stop(*head);
                }
            }
            group.networks.retain(|network| network.is_active());
            let blocks = std::mem::take(&mut group.blocks).into_iter();
            group.fill(blocks.flat_map(Block::into_heads).collect());
        }
        self.groups.retain(|group| !(group.blocks.is_empty() && group.networks.is_empty()));
    }

    fn learners(&self) -> impl Iterator<Item = &dyn Learner> {
        self.groups.iter().flat_map(|group| {
            let blocks = group.blocks.iter().map(|block| block as &dyn Learner);
            blocks.chain(group.networks.iter().map(|network| network as &dyn Learner))
        })
    }

    /// Runs one epoch; epochs count from 1.
    pub(super) fn run(
        &mut self,
        data: &BankData<'_>,
        settings: BankSettings,
        epoch: usize,
    ) -> Result<()> {
        if !self.is_active() {
            return Ok(());
        }
        let set = &data.sets[self.set];
        let order = if settings.shuffles {
            (data.view).epoch_order(set.train, settings.seed, epoch, self.batch_size)
        } else {
            set.train.to_vec()
        };
        let fused = match &self.groups[..] {
            [only] => only.mask(epoch),
            _ => None,
        };
        for window in data.view.loads(&order, self.batch_size) {
            let (window, loaded) = window?;
            let make = |samples: &[u32], buffer: Vec<f32>| {
                GatheredRows::make(data, set.targets, &loaded, samples, buffer, fused)
            };
            let mut parts = window.chunks(self.tile_samples(data, window));
            let mut tile = parts.next().map(|samples| make(samples, Vec::new()));
            let mut buffer = Vec::new();
            while let Some(rows) = tile {
                let next = parts.next();
                let mut made = None;
                // The learners are spawned first: preparing a tile splits into small tasks, which fill the time that
                // the learners leave idle on each thread.
                rayon::scope_fifo(|scope| {
                    self.learn(scope, &rows, fused.is_some(), epoch);
                    scope.spawn_fifo(|_| made = next.map(|samples| make(samples, buffer)));
                });
                buffer = rows.tile.into_buffer();
                tile = made;
            }
        }
        Ok(())
    }

    /// Number of samples in a tile: whole batches of about [`TILE_BYTES`].
    fn tile_samples(&self, data: &BankData<'_>, samples: &[u32]) -> usize {
        let rows = samples.iter().map(|sample| data.view.rows_of(*sample).len());
        let bytes = 4 * data.transform.n_features() * rows.sum::<usize>();
        let bytes_of_batch = bytes * self.batch_size / samples.len().max(1);
        (TILE_BYTES / bytes_of_batch.max(1)).max(1) * self.batch_size
    }

    /// Spawns a task for every learner that trains it on a tile.
    fn learn<'s>(
        &'s mut self,
        scope: &ScopeFifo<'s>,
        rows: &'s GatheredRows,
        is_dropped: bool,
        epoch: usize,
    ) {
        let batch_size = self.batch_size;
        for group in &mut self.groups {
            let mask = group.mask(epoch).filter(|_| !is_dropped);
            let Some(mask) = mask else {
                for learner in group.learners_mut() {
                    let values = &rows.tile.rows;
                    scope.spawn_fifo(move |_| rows.show(values, learner, batch_size, epoch));
                }
                continue;
            };
            scope.spawn_fifo(move |_| {
                let dropped = mask.dropped(&rows.tile);
                let mut learners: Vec<_> = group.learners_mut().collect();
                learners
                    .par_iter_mut()
                    .for_each(|learner| rows.show(&dropped, &mut **learner, batch_size, epoch));
            });
        }
    }
}

impl HeadGroup {
    /// Packs these heads into blocks: as wide as allowed, but enough of them to keep every thread busy.
    fn fill(&mut self, heads: Vec<LinearHead>) {
        let columns: usize = heads.iter().map(LinearHead::n_columns).sum();
        let share = columns.div_ceil(rayon::current_num_threads());
        let width = share.next_multiple_of(LANES).clamp(LANES, BLOCK_COLUMNS);
        self.blocks = fill_blocks(heads, self.n_features, width);
    }

    fn learners_mut(&mut self) -> impl Iterator<Item = &mut dyn Learner> {
        let blocks = self.blocks.iter_mut().map(|block| block as &mut dyn Learner);
        let networks = self.networks.iter_mut();
        blocks.chain(networks.map(|network| network as &mut dyn Learner))
    }

    /// The dropout mask for the rows that the group sees.
    fn mask(&self, epoch: usize) -> Option<Mask> {
        let (rate, seed) = self.dropout?;
        Some(Mask { rate, seed, epoch: epoch as u64 })
    }
}

/// Some samples, ready for training.
struct GatheredRows {
    tile: Tile,
    /// See [`Tile::output_starts`].
    output_starts: Vec<usize>,
    targets: TargetTable,
}

impl GatheredRows {
    /// Trains a head or a block on the rows, batch by batch; `values` are the rows as the learner sees them.
    fn show(
        &self,
        values: &Array2<f32>,
        learner: &mut dyn Learner,
        batch_size: usize,
        epoch: usize,
    ) {
        let tile = &self.tile;
        for start in (0..tile.n_samples()).step_by(batch_size) {
            let end = (start + batch_size).min(tile.n_samples());
            let range = tile.starts[start]..tile.starts[end];
            let own = |starts: &[usize]| -> Vec<usize> {
                starts[start..=end].iter().map(|row| row - starts[start]).collect()
            };
            learner.step(&TrainingBatch {
                rows: values.slice(s![range.clone(), ..]),
                starts: &own(&tile.starts),
                output_starts: &own(&self.output_starts),
                row_ids: &tile.row_ids[range.clone()],
                roles: tile.roles.get(range).unwrap_or_default(),
                targets: self.targets.slice(start..end, &self.output_starts),
                epoch,
            });
        }
    }

    fn make(
        data: &BankData<'_>,
        targets: &TargetTable,
        loaded: &LoadedStates,
        samples: &[u32],
        buffer: Vec<f32>,
        mask: Option<Mask>,
    ) -> GatheredRows {
        let tile = data.transform.tile(data.view, loaded, samples, buffer, mask);
        GatheredRows {
            output_starts: tile.output_starts().into_owned(),
            targets: targets.gather(data.view, samples),
            tile,
        }
    }
}
