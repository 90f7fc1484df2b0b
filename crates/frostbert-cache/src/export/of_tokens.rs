//! Vectors of tokens that are computed while they are exported, for the tokens that have one.

use arrow::{array::BooleanArray, buffer::Buffer, compute::filter};

use super::{
    derived::DerivedState,
    gather::{ExportColumns, Gatherer, OpenShards, PlacedRows},
    rows::DocumentRow,
};
use crate::{
    error::Result,
    index::Location,
    reader::rows_of,
    states::{Dtype, StateId, StateKind},
};

/// The vectors of the tokens of some documents.
pub(super) struct VectorsOfTokens {
    placed: PlacedRows,
    /// Whether each token has a vector.
    kept: BooleanArray,
    /// The vectors, f32, one after the other.
    pub(super) values: Buffer,
}

impl OpenShards<'_> {
    /// Returns whether each token of a document has a vector.
    ///
    /// # Errors
    /// Returns an error if the shard is damaged.
    fn kept(&mut self, (shard, row): Location, derived: &dyn DerivedState) -> Result<Vec<bool>> {
        let layout = self.layout(shard, StateKind::Tokens)?;
        let tokens = rows_of(layout, StateKind::Tokens, row as usize);
        let ids = layout.alignment.token_ids[tokens].iter();
        Ok(ids.map(|id| derived.keeps(*id)).collect())
    }

    /// Returns the number of tokens of a document that have a vector.
    ///
    /// # Errors
    /// Returns an error if the cache lacks the state or is damaged.
    pub(super) fn n_kept(
        &mut self,
        row: &DocumentRow,
        state: StateId,
        derived: &dyn DerivedState,
    ) -> Result<u64> {
        let location = self.locate(&row.key, state)?;
        Ok(self.kept(location, derived)?.into_iter().filter(|kept| *kept).count() as u64)
    }
}

impl Gatherer<'_> {
    /// Computes the vectors of the tokens of the given documents.
    ///
    /// # Errors
    /// Returns an error if the cache lacks the states or is damaged.
    pub(super) fn of_tokens(
        &mut self,
        derived: &dyn DerivedState,
        rows: &[DocumentRow],
    ) -> Result<VectorsOfTokens> {
        let state = derived.states()[0];
        let placed = self.place(rows, state)?;
        let mut kept: Vec<bool> = Vec::new();
        for location in &placed.locations {
            kept.extend(self.shards.kept(*location, derived)?);
        }
        let states = self.values(state, &placed, Dtype::F32)?;
        let states: &[f32] = states.typed_data();
        let rows = states.chunks_exact(self.hidden).zip(&kept).filter(|(_, kept)| **kept);
        let states: Vec<f32> = rows.flat_map(|(row, _)| row.iter().copied()).collect();
        let mut values = vec![0.0f32; states.len() / self.hidden * derived.width()];
        derived.compute_rows(&states, &mut values);
        Ok(VectorsOfTokens { placed, kept: kept.into(), values: Buffer::from_vec(values) })
    }

    /// Builds the columns of the tokens that have a vector: their places, and the vectors.
    ///
    /// # Errors
    /// Returns an error if the cache lacks the states or is damaged.
    pub(super) fn columns_of_tokens(
        &mut self,
        derived: &dyn DerivedState,
        rows: &[DocumentRow],
        first: u64,
    ) -> Result<ExportColumns> {
        let VectorsOfTokens { placed, kept, values } = self.of_tokens(derived, rows)?;
        let columns = self.alignment(StateKind::Tokens, rows, &placed, first)?;
        let mut columns: ExportColumns = columns
            .into_iter()
            .map(|(name, values)| (name, filter(&values, &kept).expect("a flag for each token")))
            .collect();
        let written = self.written(derived.name(), derived.width(), values, Dtype::F32);
        columns.push((derived.name().into(), written));
        Ok(columns)
    }
}
