//! The cache of frostbert: hidden states of documents in Parquet, addressed by their content, committed shard by shard,
//! and checked whenever they are read.
//!
//! Opening a cache and taking the rows of two texts, as f32 `[texts, hidden]`:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use frostbert_cache::{
//!     fingerprint::{Key, Mode},
//!     reader::CacheReader,
//!     states::StateId,
//! };
//!
//! let cache = CacheReader::existing(Path::new("cache/421d16ab30b554b2"))?;
//! let (hidden, dtype) = (cache.manifest().hidden, cache.manifest().dtype);
//! let state: StateId = "mean-L06".parse().expect("a state");
//! let texts = ["I would buy it again.", "It broke after a week."];
//! let place = |text: &&str| cache.locate(&Key::of(Mode::Text, &[text]), state);
//! let places: Vec<_> = texts.iter().map(|text| place(text).expect("a text of the cache")).collect();
//! let mut rows = vec![vec![0.0f32; hidden]; places.len()];
//! cache.read_rows(state, &places, |place, bytes| dtype.decode(bytes, &mut rows[place]))?;
//! # Ok::<(), frostbert_cache::Error>(())
//! ```
//!
//! [`manifest`] says what a cache is and [`index`] which documents it holds; [`reader`] reads them. [`plan`] cuts what is
//! missing into shards, which [`shard`], [`staging`] and [`writer`] fill and commit. [`verify`], [`gc`], [`diff`] and
//! [`export`] work on whole caches. What a document's key and a cache's fingerprint are made of is in [`fingerprint`].
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
//! A cache knows keys and states, never texts or labels: relabelling costs nothing, and a repeated text is computed once.

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
mod names;
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
