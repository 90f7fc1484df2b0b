//! The cache on disk: content-addressed states in Parquet, committed shard by shard, checked whenever they are read.
//!
//! ```text
//! cache/<fingerprint>/
//!   manifest.json          what the cache is, and every file that belongs to it with its checksum
//!   plan-<hash>.json       the shards of the extraction in progress; gone when it is done
//!   shard-000000/
//!     docs.parquet         one row per window of a document: key, tokens, truncated
//!     mean-L06.parquet     one state of every document, in the same order
//!     words-L06.parquet    one state of every word: its first sub-word's
//!     words.parquet        which word of which document each of those rows is
//!     tokens-L06.parquet   one state of every token, special ones included
//!     tokens.parquet       which token of which document each of those rows is
//! ```
//!
//! It knows keys and states, never texts or labels: relabelling costs nothing, and a repeated text is computed once.

pub mod batch_log;
pub mod diff;
pub mod durable;
pub mod error;
pub mod export;
pub mod fence;
mod file;
pub mod fingerprint;
pub mod gc;
mod in_use;
pub mod index;
mod leftovers;
pub mod manifest;
pub mod mmap;
pub mod plan;
pub mod progress;
pub mod reader;
pub mod shard;
pub mod staging;
pub mod state_file;
pub mod states;
mod tables;
pub mod verify;
pub mod wording;
pub mod writer;

pub use error::{Error, IoError, Result};
pub use file::as_io;
