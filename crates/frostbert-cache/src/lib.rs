//! The cache of frostbert: hidden states of documents in Parquet files, content-addressed, committed shard by shard,
//! and verified on every read.
//!
//! To open a cache and get the rows of two texts as `f32 [texts, hidden]`:
//!
//! ```no_run
//! use frostbert_cache::{Cache, Key, Mode};
//!
//! let cache = Cache::open("cache/397e9e01919ffd5e")?;
//! let keys = ["I would buy it again.", "It broke."].map(|text| Key::of(Mode::Text, &[text]));
//! let rows = cache.rows(&keys, "mean-L06".parse()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Cache`] is the short way; [`reader`] is the long one, which copies nothing.
//! [`manifest`] says what a cache is and [`index`] which documents it holds; [`reader`] reads them. [`plan`] cuts what is
//! missing into shards, which [`shard`], [`staging`] and [`writer`] fill and commit. [`verify`], [`gc`], [`diff`] and
//! [`export`] work on whole caches, [`prune`] chooses those that go, and [`about`] says which model made one. What a document's key and a cache's fingerprint are made of is in [`fingerprint`].
//!
//! On disk:
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
//! A cache knows keys and states, never texts or labels: relabelling costs nothing, and a repeated text is encoded
//! once.

pub mod about;
pub mod batch_log;
mod cache;
pub mod diff;
// Files that are whole or not there: shared with frostbert, and not a part of the format.
#[doc(hidden)]
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
// As `durable`.
#[doc(hidden)]
pub mod mmap;
mod names;
pub mod plan;
pub mod progress;
pub mod prune;
pub mod reader;
pub mod shard;
pub mod staging;
pub mod state_file;
pub mod states;
mod tables;
// Rows that no encoder computed, for one run: shared with frostbert, and not a part of the format.
#[doc(hidden)]
pub mod vectors;
pub mod verify;
// How messages put numbers and names: shared with frostbert, and not a part of the format.
#[doc(hidden)]
pub mod wording;
pub mod writer;

pub use cache::Cache;
pub use error::{Error, IoError, Result};
pub use file::as_io;
#[doc(inline)]
pub use fingerprint::{Key, Mode};
#[doc(inline)]
pub use states::{Dtype, Pooling, StateId, StateKind};
