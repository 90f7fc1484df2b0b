//! The encoder of a run, which is loaded when a text needs it.

use frostbert_cache::{
    fingerprint::FingerprintInputs,
    states::{Dtype, StateId},
};

use crate::{
    config::settings::ExtractionSettings,
    encoder::checkpoint::Checkpoint,
    error::Result,
    extraction::{embedder::TextEncoder, machine::Machine},
    prediction::saved_run::SavedRun,
};

/// The encoder of a run, or of several that read states of the same one.
pub(crate) struct RunEncoder {
    checkpoint: Checkpoint,
    settings: ExtractionSettings,
    inputs: FingerprintInputs,
    states: Vec<StateId>,
    machine: Machine,
    /// The most texts that it reads together; `None` if only the number of tokens is limited.
    most_texts: Option<usize>,
    loaded: Option<TextEncoder>,
}

impl RunEncoder {
    /// Creates the encoder of a run without loading it.
    ///
    /// # Errors
    /// Returns an error if the model is not the one that the head was trained on.
    pub(crate) fn new(run: &SavedRun, machine: &Machine) -> Result<RunEncoder> {
        let checkpoint = run.checkpoint()?;
        Ok(RunEncoder {
            settings: run.pipeline.extraction.of_sources(Vec::new()),
            inputs: run.inputs(&checkpoint),
            states: run.description.states.clone(),
            machine: machine.clone(),
            most_texts: None,
            loaded: None,
            checkpoint,
        })
    }

    /// Returns the encoder, which is loaded on the first call.
    ///
    /// # Errors
    /// Returns an error if the model cannot run on the device of its settings.
    pub(crate) fn load(&mut self) -> Result<&mut TextEncoder> {
        if self.loaded.is_none() {
            let encoder =
                TextEncoder::open(&self.checkpoint, &self.settings, &self.states, &self.machine)?;
            self.loaded = Some(encoder.with_batches_of(self.most_texts.unwrap_or(usize::MAX)));
        }
        Ok(self.loaded.as_mut().expect("just loaded"))
    }

    /// Returns its model.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Returns what determines the states of a text.
    pub(crate) fn inputs(&self) -> &FingerprintInputs {
        &self.inputs
    }

    /// Reads at most this number of texts, or windows of them, together.
    pub(crate) fn limit_batches(&mut self, most_texts: usize) {
        self.most_texts = Some(most_texts);
        self.loaded = None;
    }

    /// Also returns the states of another run. If the encoder was loaded without them, it is loaded again.
    pub(crate) fn add_states(&mut self, other: &RunEncoder) {
        for state in &other.states {
            if !self.states.contains(state) {
                self.states.push(*state);
                self.loaded = None;
            }
        }
    }

    /// Whether a text has the same states with the other encoder, and is computed in the same way.
    pub(crate) fn is_same(&self, other: &RunEncoder) -> bool {
        self.inputs == other.inputs
            && self.settings.device == other.settings.device
            && self.settings.batch_tokens == other.settings.batch_tokens
            && self.most_texts == other.most_texts
    }

    /// Returns the type in which states are stored.
    pub(crate) fn dtype(&self) -> Dtype {
        self.settings.dtype
    }

    /// Returns the number of texts so far that were encoded.
    pub(crate) fn encoded(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |encoder| encoder.encoded)
    }

    /// Returns the number of texts so far that were truncated.
    pub(crate) fn truncated(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |encoder| encoder.truncated)
    }
}
