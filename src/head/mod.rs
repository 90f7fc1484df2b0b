//! Heads: the few parameters that are trained, and the bank that trains many of them in one pass.
//!
//! [`bank`] holds the training loop and [`block`] one step of it; [`linfa_logistic`] fits in full batch; [`linear`] is a
//! head as it is saved and used; [`size`] says what a head costs.
//!
//! Over the words of a sentence: [`crf`], and [`decode`] for taggers without one. Over the tokens of a question's window:
//! [`matching`] features and the [`span`] of the answer. Over a pair of texts: [`pair`]. These are plain functions on views.

pub mod bank;
pub mod block;
pub mod crf;
pub mod decode;
pub mod layers;
pub mod linear;
pub mod linfa_logistic;
pub mod matching;
pub mod network;
pub mod pair;
pub mod segments;
pub mod size;
pub mod span;
pub mod spec;
