//! The hashes that the hub reports for files.

use std::path::Path;

use frostbert_cache::mmap;
use sha1::{Digest, Sha1};

use crate::{
    encoder::source::{hex, sha256_of_file},
    error::Result,
};

/// A hash that the hub reports for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    /// SHA-256, for large files.
    Sha256(String),
    /// A git blob hash, for small files: the SHA-1 of `blob `, the length in decimal digits, a zero byte, and the
    /// content.
    GitBlob(String),
}

impl Sum {
    /// Returns the kind of hash in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Sum::Sha256(_) => "sha256",
            Sum::GitBlob(_) => "git blob sha1",
        }
    }

    /// Returns the hexadecimal digits.
    pub(super) fn digits(&self) -> &str {
        match self {
            Sum::Sha256(digits) | Sum::GitBlob(digits) => digits,
        }
    }

    /// Computes the same kind of hash for the file at `path`.
    pub(super) fn of_file(&self, path: &Path) -> Result<String> {
        match self {
            Sum::Sha256(_) => sha256_of_file(path),
            Sum::GitBlob(_) => {
                let bytes = mmap::map(path)?;
                let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
                hasher.update(&bytes);
                Ok(hex(&hasher.finalize()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sums_are_those_of_sha256sum_and_of_git_hash_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "frost\n").unwrap();
        assert_eq!(
            Sum::GitBlob(String::new()).of_file(&path).unwrap(),
            "1ee0a8235204462ad576eb20280852587555686c"
        );
        assert_eq!(
            Sum::Sha256(String::new()).of_file(&path).unwrap(),
            "dd8f754d502a187e76e87042c26e51270eb776d33146aaaeabec436e27b993f3"
        );
        assert_eq!(
            sha256_of_file(&path).unwrap(),
            "dd8f754d502a187e76e87042c26e51270eb776d33146aaaeabec436e27b993f3"
        );
        // The well-known hash of git's empty blob.
        fs::write(&path, "").unwrap();
        assert_eq!(
            Sum::GitBlob(String::new()).of_file(&path).unwrap(),
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
        );
    }
}
