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
        Encoder, EncoderSettings, Request,
        checkpoint::Checkpoint,
        device::Devices,
        plan::{budget_of_few, plan_small_batches},
        runtime::Runtime,
        session::TokenBatch,
        tokenizer::TextTokenizer,
        worker::{Computed, locked},
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
    pub(super) settings: ExtractionSettings,
    pub(super) states: Vec<StateId>,
    pub(super) hidden: usize,
    pub(super) encoder: Encoder,
    pub(super) tokenizer: TextTokenizer,
    /// The most documents, or windows of them, in a batch.
    pub(super) most_rows: usize,
    /// Number of inputs so far.
    pub(crate) encoded: u64,
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
            most_rows: usize::MAX,
            encoded: 0,
            truncated: 0,
        })
    }

    /// Puts at most this number of documents, or windows of them, through the encoder together.
    #[must_use]
    pub(crate) fn with_batches_of(self, most_rows: usize) -> TextEncoder {
        TextEncoder { most_rows: most_rows.max(1), ..self }
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
        let budget = request.most_tokens(&self.encoder);
        let planned = request.plan(inputs, |_| budget, self.most_rows)?;
        self.encoded += inputs.len() as u64;
        self.truncated += planned.n_truncated();
        request.run_planned(&mut self.encoder, planned, inputs)
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
    /// Whether few documents are cut into smaller batches, so that no worker is without one and all are done soon.
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
        let most = self.most_tokens(encoder);
        let n_workers = encoder.workers().0.len().max(1);
        let budget = |lengths: &[u32]| match encoder.devices {
            _ if !self.spreads => most,
            Devices::Cpu => budget_of_few(lengths, most, n_workers),
            // A GPU computes a large batch faster, and most models without padding.
            Devices::Cuda(_) => {
                let tokens: usize = lengths.iter().map(|length| *length as usize).sum();
                most.min(tokens.div_ceil(n_workers).max(1))
            }
        };
        let planned = self.plan(inputs, budget, usize::MAX)?;
        self.run_planned(encoder, planned, inputs)
    }

    /// The most tokens in a batch, with padding.
    pub(super) fn most_tokens(&self, encoder: &Encoder) -> usize {
        self.batch_tokens.unwrap_or_else(|| encoder.devices.default_batch_tokens())
    }

    /// Tokenises documents and plans their batches: of at most `most_rows` windows, and of as many tokens as `budget`
    /// returns for the lengths of all windows.
    ///
    /// # Errors
    /// Returns an error if a document has no token, or the tokenizer fails.
    pub(super) fn plan(
        &self,
        inputs: &[Document<'_>],
        budget: impl Fn(&[u32]) -> usize,
        most_rows: usize,
    ) -> Result<PlannedTexts> {
        let states = self.states;
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
        let batches = plan_small_batches(&lengths, budget(&lengths), most_rows);
        let batches = batches.iter().map(|rows| {
            let places: Vec<WindowPlace> = rows.iter().map(|row| windows[*row as usize]).collect();
            let (batch, words, left_out) = batch_of(&encodings, &places, stores_words);
            TextBatch { batch, places, words, left_out }
        });
        Ok(PlannedTexts { batches: batches.collect(), layout })
    }

    /// Runs the batches of planned documents.
    fn run_planned(
        &self,
        encoder: &mut Encoder,
        planned: PlannedTexts,
        inputs: &[Document<'_>],
    ) -> Result<EncodedTexts> {
        let shard = Mutex::new(self.open_shard(planned.layout));
        encoder.run_batches(
            planned.batches.into_iter().map(Ok),
            |batch| &batch.batch,
            |batch, computed| self.place(&batch, computed, &shard, || inputs.to_vec()),
        )?;
        Ok(self.encoded(shard.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Returns an empty shard for the states of planned documents.
    pub(super) fn open_shard(&self, layout: ShardLayout) -> OpenShard {
        OpenShard::new(layout, self.states, self.hidden, self.dtype)
    }

    /// Returns the documents of a complete shard.
    pub(super) fn encoded(&self, shard: OpenShard) -> EncodedTexts {
        EncodedTexts {
            layout: shard.layout().clone(),
            states: shard.into_states(),
            hidden: self.hidden,
        }
    }

    /// Puts the states of a computed batch into the shard of its documents, which `inputs` returns for an error that names
    /// one of them.
    ///
    /// # Errors
    /// Returns an error if a state is not finite or does not fit into the storage type.
    pub(super) fn place<'d>(
        &self,
        batch: &TextBatch,
        computed: Computed,
        shard: &Mutex<OpenShard>,
        inputs: impl Fn() -> Vec<Document<'d>>,
    ) -> Result<()> {
        let (states, dtype) = (self.states, self.dtype);
        let (words, left_out) = (&batch.words[..], &batch.left_out[..]);
        let request = Request { states, dtype, stored: dtype, words, left_out };
        let name = |row: usize| {
            let document = batch.places[row].0 as usize;
            format!("the text `{}`", name_of(&inputs()[document]))
        };
        let states = computed.finish(request, name)?;
        locked(shard).place(&batch.places, &states);
        Ok(())
    }
}

/// Tokenised documents: where their states will be, and the batches that compute them.
pub(super) struct PlannedTexts {
    pub(super) layout: ShardLayout,
    pub(super) batches: Vec<TextBatch>,
}

impl PlannedTexts {
    /// Returns the number of documents whose end was cut off.
    pub(super) fn n_truncated(&self) -> u64 {
        let documents = &self.layout.documents;
        (0..documents.len()).filter(|number| documents.truncated(*number)).count() as u64
    }
}

/// A batch of windows, and where their states belong.
pub(super) struct TextBatch {
    pub(super) batch: TokenBatch,
    places: Vec<WindowPlace>,
    words: Vec<Vec<u16>>,
    left_out: Vec<u32>,
}

fn name_of(input: &Document<'_>) -> String {
    match input {
        Document::Text(text) | Document::Pair(text, _) | Document::Prompted { text, .. } => {
            shorten(text, 40)
        }
        Document::Words(words) => shorten(&words.join(" "), 40),
    }
}
