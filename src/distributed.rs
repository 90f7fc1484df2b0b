//! Extraction on several machines: one plan, workers that do its tasks, and a commit that makes a cache of what they
//! left. They share nothing but a folder, on a disk that all of them see or in a bucket of an object store.
//!
//! A task may be done any number of times, by any number of workers at once. What it computes is stored under the hash
//! of its bytes, and of its receipts only the first is kept, so the cache is the same whoever did what.

#[cfg(feature = "remote")]
mod bucket;
pub(crate) mod commit;
mod disk;
mod files;
pub(crate) mod plan;
pub(crate) mod pull;
pub(crate) mod receipt;
pub(crate) mod scratch;
pub(crate) mod shared_folder;
pub(crate) mod vacuum;
pub(crate) mod work;
