//! Encodes texts in memory, without a cache: new texts to predict for, or queries.

use std::sync::{Mutex, PoisonError};

use frostbert_cache::{
    shard::{OpenShard, ShardLayout, StateRows, WindowPlace},
    states::{Dtype, StateId, StateKind},
    wording::shorten,
};

use crate::{
    config::settings::ExtractionSettings,
    data::document::Document,
    encoder::{
        Encoder, EncoderSettings, Request, checkpoint::Checkpoint, plan::plan_batches,
        runtime::Runtime, tokenizer::TextTokenizer, worker::locked,
    },
    error::{Error, Result},
    extraction::{
        encode::{batch_of, lay_out},
        machine::Machine,
    },
};

/// What fails where a text has no token.
pub(crate) const TOKENISE: &str = "tokenise a text";

/// An encoder for texts that are not cached. States are rounded to the cache's storage type, so a text has the same
/// states as in a cache.
pub(crate) struct TextEncoder {
    settings: ExtractionSettings,
    states: Vec<StateId>,
    hidden: usize,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    /// Number of inputs so far whose end was cut off.
    pub(crate) truncated: u64,
}

/// Encoded documents in memory: their layout, and the rows of every state.
#[derive(Default)]
pub(crate) struct EncodedTexts {
    pub(crate) layout: ShardLayout,
    pub(crate) states: Vec<StateRows>,
    pub(crate) hidden: usize,
}

impl TextEncoder {
    /// Loads the encoder of a checkpoint for some states.
    ///
    /// # Errors
    /// Returns an error if it cannot run on the device that the settings name.
    pub(crate) fn open(
        checkpoint: &Checkpoint,
        settings: &ExtractionSettings,
        states: &[StateId],
        machine: &Machine,
    ) -> Result<TextEncoder> {
        let runtime = Runtime::load(&machine.onnxruntime)?;
        let encoder = Encoder::open(
            &runtime,
            checkpoint,
            &EncoderSettings {
                device: settings.device.clone(),
                precision: settings.precision,
                layers: states.iter().map(|state| state.layer).collect(),
                threads: machine.threads,
            },
        )?;
        let tokenizer = settings.tokenizer(checkpoint)?;
        Ok(TextEncoder {
            settings: settings.clone(),
            states: states.to_vec(),
            hidden: checkpoint.config.hidden,
            encoder,
            tokenizer,
            truncated: 0,
        })
    }

    /// Returns the states of some inputs, in order; all workers share the batches.
    ///
    /// # Errors
    /// Returns an error if an input has no token, the encoder fails, or a state is not finite.
    pub(crate) fn encode(&mut self, inputs: &[Document<'_>]) -> Result<EncodedTexts> {
        let states = self.states.clone();
        self.encode_states(inputs, &states)
    }

    /// Like [`TextEncoder::encode`], with other states of the layers that the encoder was loaded for.
    ///
    /// # Errors
    /// Returns the errors of [`TextEncoder::encode`].
    pub(crate) fn encode_states(
        &mut self,
        inputs: &[Document<'_>],
        states: &[StateId],
    ) -> Result<EncodedTexts> {
        let request = EncodeRequest {
            tokenizer: &self.tokenizer,
            states,
            hidden: self.hidden,
            dtype: self.settings.dtype,
            batch_tokens: self.settings.batch_tokens,
            spreads: false,
        };
        let encoded = request.run(&mut self.encoder, inputs)?;
        let documents = &encoded.layout.documents;
        let truncated = (0..documents.len()).filter(|number| documents.truncated(*number));
        self.truncated += truncated.count() as u64;
        Ok(encoded)
    }
}

/// What to compute of some documents, and how they are cut into tokens. Several of these can share an encoder.
pub(crate) struct EncodeRequest<'a> {
    pub(crate) tokenizer: &'a TextTokenizer,
    /// The states, of layers that the encoder was opened for.
    pub(crate) states: &'a [StateId],
    /// The number of values of a state.
    pub(crate) hidden: usize,
    /// The type in which the states are returned.
    pub(crate) dtype: Dtype,
    /// The most tokens in a batch, with padding; the device's default if `None`.
    pub(crate) batch_tokens: Option<usize>,
    /// Whether few documents are cut into smaller batches, so that no worker is without one.
    pub(crate) spreads: bool,
}

impl EncodeRequest<'_> {
    /// Returns the states of some documents, in order; all workers share the batches.
    ///
    /// # Errors
    /// Returns an error if a document has no token, the encoder fails, or a state is not finite.
    pub(crate) fn run(
        &self,
        encoder: &mut Encoder,
        inputs: &[Document<'_>],
    ) -> Result<EncodedTexts> {
        let (states, dtype) = (self.states, self.dtype);
        let aligned = states.iter().any(|state| !matches!(state.kind, StateKind::Pooled(_)));
        let stores = |kind: StateKind| states.iter().any(|state| state.kind == kind);
        let (stores_words, stores_tokens) = (stores(StateKind::Words), stores(StateKind::Tokens));
        let encodings = self.tokenizer.encode(inputs, aligned)?;
        let mut layout = ShardLayout::default();
        let mut windows: Vec<WindowPlace> = Vec::new();
        let mut lengths: Vec<u32> = Vec::new();
        for (number, (input, encoding)) in inputs.iter().zip(&encodings).enumerate() {
            if encoding.has_empty_window() {
                return Err(Error::Encoder {
                    action: TOKENISE,
                    reason: format!("`{}` has no token", name_of(input)),
                });
            }
            lay_out(&mut layout, input.key(), encoding, stores_tokens, stores_words);
            let n_windows = encoding.windows.len() as u16;
            windows.extend((0..n_windows).map(|window| (number as u32, window)));
            lengths.extend(encoding.lengths());
        }
        let batches = plan_batches(&lengths, self.budget(encoder, &lengths));
        let shard = OpenShard::new(layout, states, self.hidden, dtype);
        let shard = Mutex::new(shard);
        let jobs = batches.iter().map(|rows| {
            let places: Vec<WindowPlace> = rows.iter().map(|row| windows[*row as usize]).collect();
            let (batch, words, left_out) = batch_of(&encodings, &places, stores_words);
            Ok((places, batch, words, left_out))
        });
        encoder.run_batches(
            jobs,
            |(_, batch, ..)| batch,
            |(places, _, words, left_out), computed| {
                let (words, left_out) = (&words[..], &left_out[..]);
                let request = Request { states, dtype, stored: dtype, words, left_out };
                let name = |row: usize| {
                    let input = &inputs[places[row].0 as usize];
                    format!("the text `{}`", name_of(input))
                };
                let states = computed.finish(request, name)?;
                let mut shard = locked(&shard);
                shard.place(&places, &states);
                Ok(())
            },
        )?;
        let shard = shard.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(EncodedTexts {
            layout: shard.layout().clone(),
            states: shard.into_states(),
            hidden: self.hidden,
        })
    }

    /// The most tokens in a batch of windows of these lengths.
    fn budget(&self, encoder: &mut Encoder, lengths: &[u32]) -> usize {
        let default_tokens = encoder.devices.default_batch_tokens();
        let most = self.batch_tokens.unwrap_or(default_tokens);
        if !self.spreads {
            return most;
        }
        let tokens: usize = lengths.iter().map(|length| *length as usize).sum();
        most.min(tokens.div_ceil(encoder.workers().0.len().max(1)).max(1))
    }
}

fn name_of(input: &Document<'_>) -> String {
    match input {
        Document::Text(text) | Document::Pair(text, _) | Document::Prompted { text, .. } => {
            shorten(text, 40)
        }
        Document::Words(words) => shorten(&words.join(" "), 40),
    }
}
