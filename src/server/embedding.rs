//! The vector of a text: that of a sentence-transformers folder if the model is one, else the mean of the last layer.

use std::sync::Arc;

use frostbert_cache::{
    shard::ShardLayout,
    states::{Dtype, Pooling, StateId},
};

use crate::{
    config::settings::ExtractionSettings,
    data::document::Document,
    encoder::{Encoder, checkpoint::Checkpoint, prompts::FolderPrompts, tokenizer::TextTokenizer},
    error::Result,
    extraction::{
        embedder::{EncodeRequest, EncodedTexts},
        sentence::SentenceState,
    },
    features::{FeatureView, pieces::Pieces},
};

/// The vector of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddedText {
    /// Its values, as the model gives them.
    pub values: Vec<f32>,
    /// Number of tokens that were encoded, with special tokens.
    pub tokens: u64,
    /// Whether the end of the text was cut off.
    pub is_truncated: bool,
}

/// A text to embed, with the prompt before it.
pub(super) struct PromptedText {
    pub(super) prompt: Arc<str>,
    pub(super) text: String,
}

/// How a model makes the vector of a text.
pub(super) struct TextVectors {
    /// The pooled states of the last layer that it is made of.
    states: Vec<StateId>,
    /// What is made of them, if they are not the vector themselves.
    sentence: Option<SentenceState>,
    hidden: usize,
    prompts: FolderPrompts,
}

impl TextVectors {
    /// Reads in the folder of a model how it makes vectors.
    ///
    /// # Errors
    /// Returns an error if the folder asks for something that is not computed here.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<TextVectors> {
        let sentence = SentenceState::of(checkpoint)?;
        let states = match &sentence {
            Some(sentence) => sentence.states().to_vec(),
            None => vec![StateId::pooled(Pooling::Mean, checkpoint.config.layers)],
        };
        let prompts = FolderPrompts::read(&checkpoint.folder)?;
        Ok(TextVectors { states, sentence, hidden: checkpoint.config.hidden, prompts })
    }

    /// The layer that the vectors are made of.
    pub(super) fn layer(&self) -> usize {
        self.states[0].layer
    }

    /// Returns the text of a prompt by its name, or the default one; empty if there is none. The error lists the names.
    pub(super) fn prompt(&self, name: Option<&str>) -> Result<Arc<str>, String> {
        match name {
            None => Ok(self.prompts.default_prompt().map_or("", |(_, text)| text).into()),
            Some(name) => match self.prompts.text_of(name) {
                Ok(text) => Ok(text.into()),
                Err(unknown) => Err(format!("{}: {}", unknown.problem, unknown.hint)),
            },
        }
    }

    /// Returns the vectors of some texts, in order, in f32.
    ///
    /// # Errors
    /// Returns an error if a text has no token or the encoder fails.
    pub(super) fn embed(
        &self,
        encoder: &mut Encoder,
        tokenizer: &TextTokenizer,
        batch_tokens: Option<usize>,
        texts: &[PromptedText],
    ) -> Result<Vec<EmbeddedText>> {
        let documents = texts.iter().map(|text| Document::of_text(Some(&text.prompt), &text.text));
        let documents: Vec<Document<'_>> = documents.collect();
        let request = EncodeRequest {
            tokenizer,
            states: &self.states,
            hidden: self.hidden,
            dtype: Dtype::F32,
            batch_tokens,
            spreads: batch_tokens != Some(1),
        };
        let EncodedTexts { layout, states, hidden } = request.run(encoder, &documents)?;
        let pieces = Pieces::of_layout(&layout, self.states[0].kind, states.len());
        let all: Vec<u32> = (0..documents.len() as u32).collect();
        let starts = (0..=documents.len() as u32).collect();
        let view = FeatureView::from_shard(&layout, states, hidden, Dtype::F32, pieces, starts)?;
        let view = match &self.sentence {
            Some(sentence) => view.mapped_to_one(Box::new(sentence.clone())),
            None => view,
        };
        let rows = view.decode_all(&all);
        let texts = rows.rows().into_iter().enumerate();
        Ok(texts.map(|(number, row)| embedded(&layout, number, row.to_vec())).collect())
    }
}

fn embedded(layout: &ShardLayout, number: usize, values: Vec<f32>) -> EmbeddedText {
    EmbeddedText {
        values,
        tokens: layout.documents.n_tokens_of(number),
        is_truncated: layout.documents.truncated(number),
    }
}

/// Returns the tokens in a batch that a run was trained with, or one where each text is to be encoded alone.
pub(super) fn batch_tokens(settings: &ExtractionSettings, is_alone: bool) -> Option<usize> {
    if is_alone { Some(1) } else { settings.batch_tokens }
}
