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

/// Records to predict for, with the states that the head of a run reads of them.
pub(crate) struct EncodedRecords<'a> {
    /// The pipeline of the run.
    pub(crate) pipeline: &'a Pipeline,
    /// Its head.
    pub(crate) description: &'a HeadDescription,
    pub(crate) records: &'a [Record],
    pub(crate) encoded: EncodedTexts,
}

impl EncodedRecords<'_> {
    /// Where the records' documents lie.
    pub(super) fn layout(&self) -> &ShardLayout {
        &self.encoded.layout
    }

    /// Whether the end of a document was cut off.
    pub(super) fn is_cut(&self, document: usize) -> bool {
        self.pipeline.extraction.overflow == Overflow::Truncate
            && self.layout().documents.truncated(document)
    }

    /// The rows of every document.
    pub(super) fn pieces(&self) -> Pieces {
        let states = &self.encoded.states;
        Pieces::of_layout(self.layout(), states[0].state.kind, states.len())
    }

    /// The view of these pieces, and of those at which each sample starts.
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
