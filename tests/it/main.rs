//! The integration tests: the program run as a user runs it, the library against its oracles, the source against its rules.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod cache;
mod care;
mod cases;
mod comparison;
mod contract;
mod crash;
mod damage;
mod damaged_manifests;
mod damaged_runs;
mod data_checks;
mod devices;
mod disk;
mod encoder_oracle;
mod errors;
mod examples;
mod export;
mod extraction_oracle;
mod families;
mod gpu_pack;
mod help;
mod hostile_models;
mod hub;
mod incremental;
mod interrupted_shards;
mod kills;
mod label_columns;
mod many_classes;
mod metrics_label_errors;
mod metrics_multilabel;
mod metrics_oracle;
mod metrics_regression;
mod metrics_sklearn;
mod metrics_span;
mod metrics_tagging;
mod misleading_messages;
mod multitask;
mod not_plain_files;
mod output_failures;
mod parquet_files;
mod precision;
mod questions;
mod real_alignment;
mod real_data;
mod record_limits;
mod replay;
mod selection;
mod shipped_data;
mod silent_errors;
mod similarity;
mod streaming;
mod support;
mod sweep;
mod sweep_kills;
mod tagging;
mod task_errors;
mod tasks;
mod tidy;
mod windows;
