//! The pipeline file: its keys and defaults ([`mod@file`]), how it is read ([`parse`]), and its checked settings
//! ([`settings`]).

pub mod file;
pub mod parse;
pub mod settings;
pub(crate) mod text_file;
