//! The pipeline file: its sections ([`mod@file`]), which keys apply to which heads ([`keys`]), the names of their values
//! ([`names`]), how the file is read ([`parse`]), and its checked settings ([`settings`]).

pub mod file;
pub mod keys;
pub mod names;
pub mod parse;
pub mod settings;
pub(crate) mod text_file;
