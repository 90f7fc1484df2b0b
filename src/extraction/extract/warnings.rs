//! What an extraction warns of.

use frostbert_cache::{manifest::Manifest, progress::Progress, wording::part_of};

use crate::{
    config::settings::Pipeline,
    data::{
        Source, SwallowedLines,
        bad_rows::{self, BadRows},
    },
    encoder::windows::Overflow,
    extraction::spool::ReadCounts,
};

/// Warns about files in which a quote swallowed lines.
pub(crate) fn warn_of_swallowed(
    sources: &[Source],
    swallowed: &[SwallowedLines],
    progress: &dyn Progress,
) {
    for (source, swallowed) in sources.iter().zip(swallowed) {
        if let Some(words) = swallowed.in_words() {
            progress.warn(&format!("{}: {words}", source.path.display()));
        }
    }
}

/// Warns about files in which lines were left out because they cannot be read.
pub(super) fn warn_of_bad_rows(bad_rows: &BadRows, progress: &dyn Progress) {
    for warning in bad_rows::warnings(&bad_rows.rows()) {
        progress.warn(&warning);
    }
}

/// Warns about texts whose end was cut off.
pub(crate) fn warn_of_truncation(pipeline: &Pipeline, counts: ReadCounts, progress: &dyn Progress) {
    if counts.truncated == 0 {
        return;
    }
    let ReadCounts { truncated, unique, .. } = counts;
    let most = pipeline.extraction.max_length;
    progress.warn(&match pipeline.extraction.overflow {
        Overflow::Truncate => format!(
            "{} {} longer than {most} tokens and truncated (raise cache.max_length)",
            part_of(truncated, unique, "text"),
            if truncated == 1 { "is" } else { "are" },
        ),
        Overflow::Windows { stride } => format!(
            "{} {} whose first text leaves the second too few of {most} tokens for a stride of {stride}: its end is cut \
             off (raise cache.max_length, or lower cache.stride)",
            part_of(truncated, unique, "text"),
            if truncated == 1 { "is a pair" } else { "are pairs" },
        ),
    });
}

/// Warns if a cache was computed by another version of ONNX Runtime than adds to it.
pub(super) fn warn_of_versions(manifest: &Manifest, version: &str, progress: &dyn Progress) {
    let others: Vec<&str> =
        manifest.onnxruntime_versions().into_iter().filter(|other| *other != version).collect();
    if !others.is_empty() {
        progress.warn(&format!(
            "this cache has states computed by ONNX Runtime {}, and {version} adds to it: states of equal texts may \
             differ in their last bits",
            others.join(", ")
        ));
    }
}
