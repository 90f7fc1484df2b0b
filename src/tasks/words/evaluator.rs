//! The tags of a head for some sentences, and their metrics.

use ndarray::{ArrayView2, s};

use crate::{
    head::{bank::Evaluator, outputs::OutputHead},
    metrics::{
        metric::Metric,
        tagging::{self, TaggedSentence},
    },
    tasks::{
        predictions::{PredictionEvaluator, Predictions},
        words::{Sentence, tagger::Tagger},
    },
};

/// The evaluator of tags on the validation sentences.
pub(super) struct WordEvaluator<'a> {
    pub(super) rows: Vec<u32>,
    /// The gold tags and the words of each sentence.
    pub(super) sentences: Vec<(&'a [usize], &'a Sentence)>,
    pub(super) labels: &'a [String],
    pub(super) tagger: Tagger,
}

impl WordEvaluator<'_> {
    /// Returns the tags of every sentence.
    fn predicted(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Vec<Vec<Option<usize>>> {
        let network = &head.network;
        let has_crf = network.spec().crf;
        let scores = has_crf.then(|| network.crf_scores(&head.parameters));
        let mut first = 0;
        let mut predicted = Vec::with_capacity(self.sentences.len());
        for (_, sentence) in &self.sentences {
            let n_rows = sentence.with_state.len();
            let own = logits.slice(s![first..first + n_rows, ..]);
            first += n_rows;
            predicted.push(self.tagger.tags(scores.as_ref(), own, sentence));
        }
        predicted
    }
}

impl PredictionEvaluator for WordEvaluator<'_> {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn predictions(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Predictions {
        let small = |tag: Option<usize>| tag.map(|tag| tag as u32);
        let tags = self.predicted(logits, head).into_iter();
        Predictions::Tags(tags.map(|tags| tags.into_iter().map(small).collect()).collect())
    }
}

impl Evaluator for WordEvaluator<'_> {
    fn scores(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Vec<(Metric, f64)> {
        let predicted = self.predicted(logits, head);
        let sentences: Vec<TaggedSentence<'_>> = self
            .sentences
            .iter()
            .zip(&predicted)
            .map(|((truth, _), predicted)| TaggedSentence { truth, predicted })
            .collect();
        tagging::evaluate(&sentences, self.labels, None).scores.values(&[
            Metric::EntityF1Strict,
            Metric::TokenAccuracy,
            Metric::EntityF1Conlleval,
            Metric::MacroF1,
            Metric::WeightedF1,
        ])
    }
}
