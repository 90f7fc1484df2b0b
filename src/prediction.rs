//! Applications of saved runs, prediction for new records and evaluation on other files, and the similarity of texts,
//! which needs no training.

pub(crate) mod cached_states;
pub(crate) mod evaluation;
pub(crate) mod known_rows;
pub(crate) mod multi_vector;
pub(crate) mod prediction_file;
pub(crate) mod predictor;
pub(crate) mod record_chunk;
pub(crate) mod run_diff;
pub(crate) mod run_encoder;
pub(crate) mod run_list;
pub(crate) mod run_record;
pub(crate) mod saved_run;
pub(crate) mod several;
pub(crate) mod similar;
pub(crate) mod sweep_pairs;
