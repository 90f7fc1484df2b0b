//! Which commit the program is built from, for `frostbert --version` and the locks of runs.
//!
//! It is asked for where the sources were changed, because then they are compiled again anyway: a commit that changes no
//! source compiles nothing, and a program that it finds built keeps the commit that its sources came from.

use std::{env, path::Path, process::Command};

fn main() {
    for path in ["build.rs", "Cargo.toml", "Cargo.lock", "src", "crates/frostbert-cache/src"] {
        // A package holds the library alone, and a path that is not there would be new at every build.
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

/// The commit that is checked out, `+changes` behind it where a tracked file differs; `None` where there is no checkout of
/// this repository, or no git to ask.
fn commit() -> Option<String> {
    let folder = env::var("CARGO_MANIFEST_DIR").ok()?;
    // Sources that lie in somebody else's checkout have another commit, or none.
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
