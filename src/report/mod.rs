//! What a run leaves for people and for other programs.

pub mod tables;
