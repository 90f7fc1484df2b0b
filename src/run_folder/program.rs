//! The version of this program, and the kind of machine that it runs on.

use std::{env::consts, num::NonZero, thread};

use frostbert_cache::wording::counted;

/// The version with the commit that it was built from, such as `0.1.0 (3048279d2b1c)`, or with a remark that it was
/// built without git.
pub const PROGRAM: &str = env!("FROSTBERT_VERSION");

/// The version only.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that the program was built from, in 12 hexadecimal digits, followed by `+changes` if files were modified
/// since; `None` if it was built without git.
pub(crate) const COMMIT: Option<&str> = option_env!("FROSTBERT_COMMIT");

/// Returns the kind of machine, such as `linux x86_64, 2 cores`.
pub(crate) fn host() -> String {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    format!("{} {}, {}", consts::OS, consts::ARCH, counted(cores, "core"))
}
