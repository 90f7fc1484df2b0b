//! Examines the folder of caches: whether it is writable, how much space it has, and how fast it is.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use frostbert_cache::durable::free_bytes;
use rand::RngCore;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use crate::{
    doctor::Problem,
    error::{Error, Result},
};

/// The size of the test file, if there is enough space for it.
const TEST_BYTES: u64 = 256 << 20;

/// The number of bytes written at a time.
const BLOCK_BYTES: usize = 4 << 20;

/// What was found about the folder of caches.
#[derive(Clone, Debug, Serialize)]
pub struct CacheFindings {
    /// `cache.dir`.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub folder: PathBuf,
    /// Whether it exists; an extraction creates it.
    pub exists: bool,
    /// The free space on its disk.
    pub free_bytes: Option<u64>,
    /// The number of bytes that the test wrote.
    pub test_bytes: u64,
    /// The speed of writing to the disk, including the sync; `None` if nothing could be written.
    pub write_bytes_per_second: Option<f64>,
    /// The speed of reading the file back after the system was asked to drop it from its cache. If it does not (as in
    /// an in-memory file system), this is the speed of memory.
    pub read_bytes_per_second: Option<f64>,
    /// Why it cannot be written.
    pub problem: Option<Problem>,
}

/// Writes a file to the folder, or to the nearest existing one above it, reads it back and removes it.
pub(super) fn look(folder: &Path) -> CacheFindings {
    look_with(folder, TEST_BYTES)
}

fn look_with(folder: &Path, most_bytes: u64) -> CacheFindings {
    // Do not create the folder: a mere check leaves nothing behind.
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let there = absolute.ancestors().find(|folder| folder.exists());
    let there = there.unwrap_or(Path::new("/"));
    let free_bytes = free_bytes(there);
    // Write at least a page, because a full disk only shows when it is written to.
    let test_bytes = most_bytes.min((free_bytes.unwrap_or(u64::MAX) / 4).max(4096));
    let speeds = measure(there, test_bytes);
    let speed = |pick: fn(&(f64, f64)) -> f64| speeds.as_ref().ok().map(pick);
    CacheFindings {
        folder: folder.to_path_buf(),
        exists: folder.exists(),
        free_bytes,
        test_bytes,
        write_bytes_per_second: speed(|speeds| speeds.0),
        read_bytes_per_second: speed(|speeds| speeds.1),
        problem: speeds.as_ref().err().map(Problem::fatal),
    }
}

/// Returns the speeds of writing and reading in bytes per second.
fn measure(folder: &Path, n_bytes: u64) -> Result<(f64, f64)> {
    // Random, so that a compressing file system gains nothing.
    let mut block = vec![0u8; BLOCK_BYTES.min(n_bytes.max(1) as usize)];
    ChaCha8Rng::seed_from_u64(0).fill_bytes(&mut block);
    // This file is removed whatever happens.
    let mut file = tempfile::tempfile_in(folder).map_err(Error::io("write to", folder))?;
    let start = Instant::now();
    let written = write(&mut file, &block, n_bytes).map_err(Error::io("write to", folder))?;
    let write_seconds = start.elapsed().as_secs_f64();
    // If the advice is ignored, the measured speed is too high; nothing else goes wrong.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let start = Instant::now();
    let read = read(&mut file, &mut block).map_err(Error::io("read from", folder))?;
    let read_seconds = start.elapsed().as_secs_f64();
    Ok((written as f64 / write_seconds, read as f64 / read_seconds))
}

fn write(file: &mut File, block: &[u8], n_bytes: u64) -> io::Result<u64> {
    let mut written = 0;
    while written < n_bytes {
        file.write_all(block)?;
        written += block.len() as u64;
    }
    file.sync_all()?;
    Ok(written)
}

fn read(file: &mut File, block: &mut [u8]) -> io::Result<u64> {
    file.rewind()?;
    let mut total = 0;
    loop {
        match file.read(block)? {
            0 => return Ok(total),
            n_bytes => total += n_bytes as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_and_left_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("cache");
        let found = look_with(&folder, 1 << 20);
        assert!(found.problem.is_none(), "{found:?}");
        assert!(!found.exists && !folder.exists());
        assert_eq!(found.test_bytes, 1 << 20);
        assert!(found.write_bytes_per_second.unwrap() > 0.0);
        assert!(found.read_bytes_per_second.unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_none_is_a_problem() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = look_with(&file.path().join("cache"), 1 << 20);
        let problem = found.problem.unwrap();
        assert!(problem.fatal && problem.reason.contains("cannot write to"), "{problem:?}");
        assert_eq!(found.write_bytes_per_second, None);
    }
}
