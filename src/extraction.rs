//! Stage 1: what a pipeline asks for is tokenised, encoded and committed to a cache; and what else reads its texts and
//! its cache: exports, garbage collection, texts embedded in memory.

pub(crate) mod committer;
pub(crate) mod dry_run;
pub(crate) mod embed;
pub(crate) mod embedder;
pub(crate) mod encode;
pub(crate) mod export;
pub(crate) mod extract;
pub(crate) mod filling_shard;
pub(crate) mod forecast;
pub(crate) mod gc;
pub(crate) mod lazy_encoder;
pub(crate) mod machine;
pub(crate) mod parity;
pub(crate) mod spool;
