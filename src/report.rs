//! The files and tables in which a run reports its results, for people and for other programs.

pub(crate) mod chart;
pub(crate) mod leaderboard;
pub(crate) mod methods;
pub(crate) mod model_card;
pub(crate) mod plots;
pub(crate) mod predicted_table;
pub(crate) mod row_writer;
pub(crate) mod saved_table;
pub(crate) mod sheet;
pub(crate) mod summary;
pub(crate) mod tables;
pub(crate) mod tensorboard;
