//! Determines the commit that the program is built from, for `frostbert --version` and the locks of runs.
//!
//! The commit is determined again only if the sources have changed, because then they are compiled anyway. A commit
//! that changes no source compiles nothing, and the program keeps the commit that its sources came from.

use std::{env, path::Path, process::Command};

fn main() {
    for path in ["build.rs", "Cargo.toml", "Cargo.lock", "src", "crates/frostbert-cache/src"] {
        // Some paths are missing from a package, and a missing path would trigger a rebuild every time.
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match commit() {
        Some(commit) => {
            println!("cargo:rustc-env=FROSTBERT_COMMIT={commit}");
            println!("cargo:rustc-env=FROSTBERT_VERSION={version} ({commit})");
        }
        None => {
            println!("cargo:rustc-env=FROSTBERT_VERSION={version} (built without git: no commit)");
        }
    }
}

/// Returns the commit that is checked out, followed by `+changes` if a tracked file was modified. Returns `None` if
/// this is not a checkout of this repository, or if git is not available.
fn commit() -> Option<String> {
    let folder = env::var("CARGO_MANIFEST_DIR").ok()?;
    // Sources inside another repository's checkout have a different commit, or none.
    if !Path::new(&folder).join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&folder).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_string())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let is_commit = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_hexdigit());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let changes = if changed.is_empty() { "" } else { "+changes" };
    is_commit.then(|| commit + changes)
}
