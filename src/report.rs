//! What a run leaves for people and for other programs.

pub mod leaderboard;
pub mod plots;
pub mod sheet;
pub mod summary;
pub mod tables;
