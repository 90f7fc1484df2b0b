//! The integration tests: the program run as a user runs it, the library against its oracles, the source against its rules.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod cache;
mod care;
mod contract;
mod crash;
mod damage;
mod disk;
mod encoder_oracle;
mod errors;
mod export;
mod extraction_oracle;
mod families;
mod help;
mod hub;
mod incremental;
mod kills;
mod metrics_multilabel;
mod metrics_oracle;
mod metrics_regression;
mod metrics_sklearn;
mod metrics_span;
mod metrics_tagging;
mod parquet_files;
mod real_alignment;
mod real_data;
mod replay;
mod support;
mod tidy;
mod windows;
