//! The memory that heads of many classes take, estimated before they are trained, and how many of them fit side by
//! side.

use frostbert_cache::{progress::Progress, wording::counted};

use crate::{
    config::settings::{KindSettings, Pipeline},
    data::{Part, dataset::Dataset},
    error::Result,
    extraction::forecast::{duration, megabytes},
    head::network::Network,
    metrics::MANY_CLASSES,
    tasks::task_kind,
    training::fit::network_of,
};

/// Number of bytes that stage 2 may use in addition to `train.memory_mb`.
pub(crate) const BESIDE_BYTES: u64 = 1 << 30;

/// Number of bytes for each parameter of a head in training: weights, gradients and two moments, the best so far, and
/// two copies of what is evaluated after an epoch; 4 bytes each.
const BYTES_OF_PARAMETER: u64 = 28;

/// Number of bytes for each output: logits, errors and probabilities of the 256 rows that are evaluated at a time on
/// each of two threads.
const BYTES_OF_OUTPUT: u64 = 2 * 256 * 4 * 3;

/// Number of bytes for each row and label of a multi-label task: targets, outputs and probabilities, those of a part,
/// and a column of the table.
const BYTES_OF_DECISION: u64 = 22;

/// For each parameter of a head whose C or lambda folds choose, fold after fold: the solutions and the heads of seven values,
/// or sums over their rows.
const BYTES_OF_CHOICE: u64 = 160;

/// For each row and label that is set or not where folds choose: what each of seven values decides, and the truth.
const BYTES_OF_CHOSEN_DECISION: u64 = 8;

/// What two cores are taken to do in a second: multiply-adds, bytes of parameters that a step moves, and exponentials. Rough:
/// the forecast is to tell minutes from hours.
const RATES: [f64; 3] = [4e10, 8e9, 1.2e8];

/// Forecasts longer than this are shown as warnings.
const LONG_SECONDS: f64 = 3600.0;

/// The memory and the time that the heads of a pipeline need.
pub(crate) struct ClassMemory {
    n_outputs: usize,
    n_inputs: usize,
    n_parameters: u64,
    /// For each head in training.
    head_bytes: u64,
    /// For all heads together: outputs, and the states that are read.
    shared_bytes: u64,
    /// The limit for all of it.
    most_bytes: u64,
    seconds: f64,
}

impl ClassMemory {
    /// Estimates the needs of a pipeline's head on these rows, over states of a model with so many layers and this width;
    /// `None` if there are few classes, or nothing to train.
    ///
    /// # Errors
    /// Returns an error if the pipeline names layers that the model lacks.
    pub(crate) fn of(
        pipeline: &Pipeline,
        dataset: &Dataset,
        [model_layers, hidden]: [usize; 2],
    ) -> Result<Option<ClassMemory>> {
        let (head, task) = (&pipeline.head, pipeline.data.task);
        let n_outputs = dataset.labels.len();
        if n_outputs <= MANY_CLASSES
            || matches!(head.kind, KindSettings::Cosine | KindSettings::Matching(..))
        {
            return Ok(None);
        }
        let states = pipeline.head_states(model_layers)?;
        let n_stored = if pipeline.has_separate_pairs() { 4 } else { 1 } * hidden;
        let (n_layers, n_features) = match head.pca {
            Some(n_components) => (1, n_components),
            // A sentence vector is at most this wide, unless a Dense module widens it.
            None if pipeline.reads_sentence() => (1, states.len() * n_stored),
            None => (states.len(), n_stored),
        };
        let network = network_of(pipeline, n_layers, n_features, n_outputs);
        let n_inputs = network.n_inputs();
        let n_parameters = Network::new(network).n_parameters() as u64;
        let (batch, epochs) =
            head.kind.steps().map_or((1, 0), |steps| (steps.batch_size, steps.epochs));
        let [rows, outputs, batch] = [dataset.rows.len(), n_outputs, batch].map(|n| n as u64);
        let n_train = dataset.part(Part::Train).len() as u64;
        // Documents have one row each; if words or tokens are read there are more rows, up to the limit.
        let is_row_each = task.reads_pooled() && !pipeline.pools_by_attention();
        let row_bytes = (states.len() * n_stored * pipeline.extraction.dtype.size_bytes()) as u64;
        let states_bytes = if is_row_each {
            pipeline.memory_bytes.min(rows.saturating_mul(row_bytes))
        } else {
            pipeline.memory_bytes
        };
        let decisions = task_kind(task).n_decisions(rows, outputs);
        let choice_bytes = if head.kind.is_chosen_by_folds() {
            n_parameters
                .saturating_mul(BYTES_OF_CHOICE)
                .saturating_add(decisions.saturating_mul(BYTES_OF_CHOSEN_DECISION))
        } else {
            0
        };
        let head_bytes = match head.kind {
            // The sums over each thousand rows, and the steps that the solver remembers.
            KindSettings::Logistic { .. } => (n_train / 1024 + 24).saturating_mul(8 * n_parameters),
            KindSettings::Ridge { .. } | KindSettings::Lda { .. } => {
                (n_train / 1024 + 8).saturating_mul(8 * n_parameters)
            }
            _ => n_parameters.saturating_mul(BYTES_OF_PARAMETER) + 2 * 4 * batch * outputs,
        };
        let [products, bytes, exponentials] = RATES;
        let n_steps = (n_train / batch.max(1) + 1) as f64;
        let of_epoch = n_train as f64 * 2.0 * n_parameters as f64 / products
            + n_steps * BYTES_OF_PARAMETER as f64 * n_parameters as f64 / bytes;
        Ok(Some(ClassMemory {
            n_outputs,
            n_inputs,
            n_parameters,
            head_bytes,
            // Heads choose one after the other.
            shared_bytes: (states_bytes + outputs * BYTES_OF_OUTPUT)
                .saturating_add(decisions.saturating_mul(BYTES_OF_DECISION))
                .saturating_add(choice_bytes),
            most_bytes: pipeline.memory_bytes.saturating_add(BESIDE_BYTES),
            seconds: epochs as f64 * of_epoch + 5.0 * rows as f64 * outputs as f64 / exponentials,
        }))
    }

    /// Reports what one head will need.
    ///
    /// # Errors
    /// Returns an error if it does not fit.
    pub(crate) fn settle(&self, pipeline: &Pipeline, progress: &dyn Progress) -> Result<()> {
        self.require(pipeline, 1, "")?;
        let predictions = format!(
            "to train: {} x {}, {}, about {} in memory, roughly {} at most",
            counted(self.n_outputs, "class"),
            counted(self.n_inputs, "feature"),
            counted(self.n_parameters, "parameter"),
            megabytes(self.bytes_of(1)),
            duration(self.seconds),
        );
        if self.seconds > LONG_SECONDS {
            progress.warn(&predictions)
        } else {
            progress.note(&predictions)
        }
        Ok(())
    }

    /// Returns how many heads may be trained side by side: at most `most`, and at least `together`.
    ///
    /// # Errors
    /// Returns an error if `together` heads do not fit.
    pub(crate) fn heads_at_a_time(
        &self,
        pipeline: &Pipeline,
        together: usize,
        most: usize,
        cure: &str,
    ) -> Result<usize> {
        self.require(pipeline, together, cure)?;
        let left = self.most_bytes - self.shared_bytes;
        Ok(usize::try_from(left / self.head_bytes.max(1)).map_or(most, |heads| heads.min(most)))
    }

    fn bytes_of(&self, n_heads: usize) -> u64 {
        let heads = self.head_bytes.saturating_mul(n_heads as u64);
        heads.saturating_add(self.shared_bytes)
    }

    fn require(&self, pipeline: &Pipeline, n_heads: usize, cure: &str) -> Result<()> {
        let needed = self.bytes_of(n_heads);
        if needed <= self.most_bytes {
            return Ok(());
        }
        let beside = BESIDE_BYTES.min(self.most_bytes);
        let memory_mb = needed.saturating_sub(beside).div_ceil(1 << 20);
        Err(pipeline.refuse(
            format!(
                "{} of {} with {} {} about {} of memory to train, but train.memory_mb plus 1 GiB is {}",
                counted(n_heads, "head"),
                counted(self.n_outputs, "class"),
                counted(self.n_inputs, "feature"),
                if n_heads == 1 { "takes" } else { "take" },
                megabytes(needed),
                megabytes(self.most_bytes),
            ),
            format!(
                "set train.memory_mb to {memory_mb} if the machine has that much, or learn fewer classes{cure}"
            ),
        ))
    }
}

#[cfg(test)]
mod tests;
