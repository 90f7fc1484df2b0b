//! The names of the files of a cache.

use crate::states::StateId;

/// The table of documents, one row per window.
pub(crate) const DOCUMENTS_FILE: &str = "docs.parquet";

/// The table that locates each token row in its document.
pub(crate) const TOKENS_FILE: &str = "tokens.parquet";

/// The table that locates each word row in its document.
pub(crate) const WORDS_FILE: &str = "words.parquet";

/// Returns the file name of a state, such as `mean-L06.parquet`. A column's name may be none of a file.
pub(crate) fn state_file_name(state: StateId) -> String {
    if state.column().is_some() {
        return "given.parquet".into();
    }
    format!("{state}.parquet")
}

/// The name of the lock file in the cache folder.
pub(crate) const LOCK_FILE: &str = "writer.lock";

/// The name prefix of batch logs.
pub(crate) const BATCH_LOG_PREFIX: &str = "tmp-batches-";

/// Returns whether this program gives the name to a batch log.
pub(crate) fn is_batch_log(name: &str) -> bool {
    let digits = name.strip_prefix(BATCH_LOG_PREFIX);
    digits.is_some_and(|digits| digits.len() == 16 && is_hexadecimal(digits))
}

/// Returns whether this program gives the name to a plan.
pub(crate) fn is_plan(name: &str) -> bool {
    let digits = name.strip_prefix("plan-").and_then(|name| name.strip_suffix(".json"));
    digits.is_some_and(|digits| (1..=16).contains(&digits.len()) && is_hexadecimal(digits))
}

fn is_hexadecimal(digits: &str) -> bool {
    digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
