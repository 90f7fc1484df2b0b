//! Records that were just encoded, as a saved head reads them.

use frostbert_cache::shard::ShardLayout;

use crate::{
    config::settings::Pipeline,
    data::Record,
    encoder::windows::Overflow,
    error::Result,
    extraction::embedder::EncodedTexts,
    features::{FeatureView, pieces::Pieces},
    head::saved::HeadDescription,
};

/// Records to predict for, with the states that the run's head reads.
pub(crate) struct EncodedRecords<'a> {
    /// The pipeline of the run.
    pub(crate) pipeline: &'a Pipeline,
    /// The description of the run's head.
    pub(crate) description: &'a HeadDescription,
    pub(crate) records: &'a [Record],
    pub(crate) encoded: EncodedTexts,
}

impl EncodedRecords<'_> {
    /// Returns the layout of the records' documents.
    pub(super) fn layout(&self) -> &ShardLayout {
        &self.encoded.layout
    }

    /// Whether the end of a document was cut off.
    pub(super) fn is_cut(&self, document: usize) -> bool {
        self.pipeline.extraction.overflow == Overflow::Truncate
            && self.layout().documents.truncated(document)
    }

    /// Returns the rows of every document as pieces.
    pub(super) fn pieces(&self) -> Pieces {
        let states = &self.encoded.states;
        Pieces::of_layout(self.layout(), states[0].state.kind, states.len())
    }

    /// Returns the view of these pieces, given the first piece of each sample.
    pub(super) fn view(
        self,
        pieces: Pieces,
        sample_start: Vec<u32>,
    ) -> Result<FeatureView<'static>> {
        let EncodedTexts { layout, states, hidden } = self.encoded;
        let dtype = self.pipeline.extraction.dtype;
        FeatureView::from_shard(&layout, states, hidden, dtype, pieces, sample_start)
    }
}
