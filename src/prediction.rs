//! What saved runs are used for: predictions of new records, evaluation on other files; and similarity of texts, for
//! which nothing is trained.

pub mod evaluation;
pub(crate) mod known_rows;
pub mod predictor;
pub mod saved_run;
pub mod similar;
