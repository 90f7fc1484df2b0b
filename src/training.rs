//! Stage 2 for one head: dataset and cached states, data checks, the fit, metrics and a run folder.

mod card;
pub(crate) mod checks;
pub(crate) mod class_memory;
pub(crate) mod extras;
pub(crate) mod fit;
pub(crate) mod full_batch;
pub(crate) mod inputs;
mod pictures;
pub(crate) mod regularization;
pub(crate) mod train;
pub(crate) mod unfrozen;
