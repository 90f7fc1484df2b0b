//! The cache on disk: content-addressed states in Parquet, committed shard by shard, checked whenever they are read.
//!
//! ```text
//! cache/<fingerprint>/
//!   manifest.json          what the cache is, and every file that belongs to it with its checksum
//!   plan-<hash>.json       the shards of the extraction in progress; gone when it is done
//!   shard-000000/
//!     docs.parquet         one row per document: key, tokens, truncated
//!     mean-L06.parquet     one state of every document, in the same order
//! ```
//!
//! It knows keys and states, never texts or labels: relabelling costs nothing, and a repeated text is computed once.

pub mod manifest;
pub mod plan;
pub mod reader;
mod schema;
pub mod shard;
pub mod writer;

pub(crate) use schema::as_io;
