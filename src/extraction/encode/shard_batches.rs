//! The batches of a shard, and of its parity sample.

use std::sync::Arc;

use frostbert_cache::{
    plan::PlannedShard,
    shard::{ShardLayout, WindowPlace},
    states::StateKind,
};

use super::{ExtractionJob, PlannedBatch, ShardStart, batch_of, lay_out};
use crate::{
    encoder::{plan::plan_batches, windows::Encoding},
    extraction::{parity, tokenised::TokenisedShard},
};

/// A shard whose batches are being planned.
struct Planning<'a> {
    number: usize,
    planned: Arc<PlannedShard>,
    members: &'a [u32],
    encodings: &'a [Encoding],
}

impl ExtractionJob<'_> {
    /// Returns what a shard of this number holds, and its batches, followed by the windows of its sample, each in a
    /// batch of its own.
    pub(super) fn plan_shard(
        &self,
        number: usize,
        shard: TokenisedShard,
    ) -> (ShardStart, Vec<PlannedBatch>) {
        let planning = Planning {
            number,
            planned: Arc::new(shard.planned),
            members: &shard.members,
            encodings: &shard.encodings,
        };
        let n_tokens: Vec<u32> =
            shard.encodings.iter().map(|encoding| encoding.n_tokens() as u32).collect();
        let sampled = parity::choose(&n_tokens);
        let batches = planning.batches(&sampled, self.settings.batch_tokens);
        let start = ShardStart {
            shard: number,
            layout: self.layout(&planning, 0..shard.encodings.len()),
            of_sample: self.layout(&planning, sampled.iter().copied()),
            planned: Arc::clone(&planning.planned),
            sampled,
        };
        (start, batches)
    }

    /// Returns the layout of some rows of a shard.
    fn layout(&self, shard: &Planning<'_>, rows: impl Iterator<Item = usize>) -> ShardLayout {
        let stores_tokens = shard.stores(StateKind::Tokens);
        let stores_words = shard.stores(StateKind::Words);
        let mut layout = ShardLayout::default();
        for row in rows {
            let key = self.spool.document(shard.members[row]).key;
            lay_out(&mut layout, key, &shard.encodings[row], stores_tokens, stores_words);
        }
        layout
    }
}

impl Planning<'_> {
    fn batches(&self, sampled: &[usize], batch_tokens: usize) -> Vec<PlannedBatch> {
        let windows = self.encodings.iter().enumerate().flat_map(|(row, encoding)| {
            (0..encoding.windows.len()).map(move |window| (row as u32, window as u16))
        });
        let windows: Vec<WindowPlace> = windows.collect();
        let lengths: Vec<u32> = self.encodings.iter().flat_map(Encoding::lengths).collect();
        let mut batches = Vec::new();
        for rows in plan_batches(&lengths, batch_tokens) {
            batches.push(self.batch(rows.iter().map(|row| windows[*row as usize]).collect()));
        }
        for (number, row) in sampled.iter().enumerate() {
            for window in 0..self.encodings[*row].windows.len() as u16 {
                let mut batch = self.batch(vec![(*row as u32, window)]);
                batch.in_sample = true;
                batch.places = vec![(number as u32, window)];
                batches.push(batch);
            }
        }
        for (number, batch) in batches.iter_mut().enumerate() {
            batch.number = number as u32;
        }
        batches
    }

    fn batch(&self, places: Vec<WindowPlace>) -> PlannedBatch {
        let stores_words = self.stores(StateKind::Words);
        let (batch, words, left_out) = batch_of(self.encodings, &places, stores_words);
        PlannedBatch {
            shard: self.number,
            planned: Arc::clone(&self.planned),
            number: 0,
            in_sample: false,
            documents: places.iter().map(|(row, _)| self.members[*row as usize]).collect(),
            words,
            left_out,
            batch,
            places,
        }
    }

    fn stores(&self, kind: StateKind) -> bool {
        self.planned.states.iter().any(|state| state.kind == kind)
    }
}
