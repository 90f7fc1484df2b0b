//! The inner part of `frostbert serve`, which knows nothing of HTTP: texts of many requests wait in a bounded queue, and
//! one thread for each model encodes those that wait together and answers each of them.

pub(crate) mod answers;
pub(crate) mod embedding;
pub(crate) mod engine;
pub(crate) mod model_thread;
pub(crate) mod queue;
