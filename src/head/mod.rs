//! Heads: the few parameters that are trained, and the bank that trains many of them in one pass.
//!
//! [`bank`] holds the training loop and [`block`] one step of it; [`linfa_logistic`] fits in full batch; [`linear`] is a
//! head as it is saved and used; [`size`] says what a head costs.

pub mod bank;
pub mod block;
pub mod layers;
pub mod linear;
pub mod linfa_logistic;
pub mod network;
pub mod size;
pub mod spec;
