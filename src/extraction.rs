//! Stage 1: tokenises what a pipeline asks for, encodes it and commits it to a cache. Also everything else that reads
//! its texts and its cache: exports, garbage collection, and texts embedded in memory.

pub(crate) mod busy;
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
pub(crate) mod given;
pub(crate) mod lazy_encoder;
pub(crate) mod machine;
pub(crate) mod multi_vector;
pub(crate) mod parity;
pub(crate) mod sentence;
pub(crate) mod spool;
pub(crate) mod text_stream;
pub(crate) mod tokenised;
