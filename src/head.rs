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
//! - [`neighbours`] and [`out_of_fold`] tell of the data: near copies, and predictions for rows that a head did not see.

pub mod applied;
pub mod bank;
pub mod block;
pub mod crf;
pub mod decode;
pub mod gram;
mod history;
pub mod layers;
pub mod lda;
pub mod learner;
pub mod linfa_logistic;
pub mod linfa_svm;
pub mod logistic;
pub mod matching;
pub mod neighbours;
pub mod network;
pub mod network_learner;
pub mod objective;
pub mod out_of_fold;
pub mod outputs;
pub mod pair;
pub mod ridge;
pub mod row_groups;
pub mod row_maps;
pub mod saved;
mod segments;
pub mod size;
#[cfg(test)]
mod sklearn;
pub mod span;
pub mod spec;
pub mod targets;
pub mod trained_head;
pub mod transform;
