//! Which program this is, and on which kind of machine it runs.

use std::{env::consts, num::NonZero, thread};

use frostbert_cache::wording::counted;

/// The version, with the commit that it was built from: `0.1.0 (3048279d2b1c)`. A program that was built without git says
/// so.
pub const PROGRAM: &str = env!("FROSTBERT_VERSION");

/// The version alone.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that the program was built from, in 12 hexadecimal digits, with `+changes` where files were changed since;
/// `None` where it was built without git.
pub(crate) const COMMIT: Option<&str> = option_env!("FROSTBERT_COMMIT");

/// The kind of machine: `linux x86_64, 2 cores`.
pub(crate) fn host() -> String {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    format!("{} {}, {}", consts::OS, consts::ARCH, counted(cores, "core"))
}
