//! The pipeline file: its keys ([`mod@file`]) and the names of their values ([`names`]), how it is read ([`parse`]), and its
//! checked settings ([`settings`]).

pub mod file;
pub mod names;
pub mod parse;
pub mod settings;
pub(crate) mod text_file;
