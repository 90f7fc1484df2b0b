//! The pipeline file: its sections ([`mod@file`]), which keys apply to which heads ([`keys`]), the names of their
//! values ([`names`]), what is true of each task ([`task_facts`]), how the file is parsed ([`parse`]), and its checked
//! settings ([`settings`]).

pub(crate) mod file;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod parse;
pub(crate) mod settings;
pub(crate) mod task_facts;
pub(crate) mod text_file;
