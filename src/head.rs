//! Heads: the small trainable models on top of the frozen encoder, and the bank that trains many of them in one pass.
//!
//! - [`spec`] describes a head and how it is trained; [`network`] and its [`layers`] compute its outputs, [`crf`] and
//!   [`span`] are objectives over sequences, and [`targets`] holds what outputs are compared with;
//! - [`bank`] is the training loop; its [`learner`]s are [`block`]s of linear heads and [`network_learner`]s; the
//!   result is a [`trained_head`] with a record of every epoch;
//! - [`ridge`], [`lda`] and [`logistic`] fit many linear heads in full batch, over [`row_groups`]; the first two need
//!   only the sums of a [`gram`]. [`linfa_logistic`] and [`linfa_svm`] fit one head at a time in full batch;
//! - [`row_maps`], [`pair`], [`matching`] and [`transform`] turn rows of hidden states into the input of a head;
//! - [`saved`] is a head as it is stored and used, [`decode`] turns its outputs into sequences of tags, and [`size`]
//!   reports what it costs;
//! - [`neighbours`] and [`out_of_fold`] analyse the data: near-duplicates, and predictions for rows that were held out.

pub(crate) mod applied;
pub(crate) mod bank;
pub(crate) mod block;
pub(crate) mod crf;
pub(crate) mod decode;
pub(crate) mod gram;
mod history;
pub(crate) mod layers;
pub(crate) mod lda;
pub(crate) mod learner;
pub(crate) mod linfa_logistic;
pub(crate) mod linfa_svm;
pub(crate) mod logistic;
mod lora;
pub(crate) mod matching;
pub(crate) mod neighbours;
pub(crate) mod network;
pub(crate) mod network_learner;
mod network_outputs;
pub(crate) mod objective;
pub(crate) mod out_of_fold;
pub(crate) mod outputs;
pub(crate) mod pair;
pub(crate) mod ridge;
pub(crate) mod row_groups;
pub(crate) mod row_maps;
pub(crate) mod saved;
mod segments;
pub(crate) mod size;
#[cfg(test)]
mod sklearn;
pub(crate) mod span;
pub(crate) mod spec;
pub(crate) mod targets;
pub(crate) mod trained_head;
pub(crate) mod transform;
