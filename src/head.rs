//! Heads: the few parameters that are trained, and the bank that trains many of them in one pass.
//!
//! - [`spec`] says what a head is and how it learns; [`network`] and its [`layers`] compute it, [`crf`] and [`span`] are
//!   objectives over sequences, [`targets`] what outputs are compared with;
//! - [`bank`] is the training loop; its [`learner`]s are [`block`]s of linear heads and [`network_learner`]s; a
//!   [`trained_head`] is what comes out, with the record of its epochs;
//! - [`ridge`], [`lda`] and [`logistic`] fit many linear heads in full batch, over [`row_groups`] and, the first two, the
//!   sums of a [`gram`]; so do, one at a time, [`linfa_logistic`] and [`linfa_svm`];
//! - [`row_maps`], [`pair`], [`matching`] and [`transform`] make rows of states into what a head reads;
//! - [`saved`] is a head as it is saved and used, [`decode`] turns its outputs into sequences of tags, [`size`] says what
//!   it costs;
//! - [`neighbours`] and [`out_of_fold`] tell of the data: near-duplicates, and predictions for rows that a head did not see.

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
pub(crate) mod matching;
pub(crate) mod neighbours;
pub(crate) mod network;
pub(crate) mod network_learner;
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
