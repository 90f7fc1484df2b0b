//! Read-only memory maps; files are mapped only here.

use std::{fs::File, path::Path, sync::Arc};

use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};

use crate::error::{Error, Result};

/// The memory that a mapped file takes.
#[derive(Clone, Default)]
pub struct MappedPages(Option<Arc<Mmap>>);

/// What keeps a map for its bytes.
struct MapOwner(Arc<Mmap>);

impl MappedPages {
    /// Gives back the pages that are in memory. Those that are needed again are read again, mostly from what the system
    /// keeps of the file.
    pub fn release(&self) {
        let Some(map) = &self.0 else {
            return;
        };
        // SAFETY: the map is read-only and of a file, so its pages hold nothing but what is in the file, and are read
        // from there again.
        let released = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // If the system refuses, the pages stay, which is no error.
        let _ = released;
    }
}

impl AsRef<[u8]> for MapOwner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps a whole file read-only. The map lives as long as the last slice of the returned bytes, and an empty file gives
/// empty bytes.
///
/// # Errors
/// Returns an error if the file cannot be opened or mapped.
pub fn map(path: &Path) -> Result<Bytes> {
    Ok(map_with_pages(path)?.0)
}

/// Like [`map`], and also returns the pages, which keep the map alive as the bytes do.
///
/// # Errors
/// Returns an error if the file cannot be opened or mapped.
pub(crate) fn map_with_pages(path: &Path) -> Result<(Bytes, MappedPages)> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    if file.metadata().map_err(Error::io("read", path))?.len() == 0 {
        return Ok((Bytes::new(), MappedPages::default()));
    }
    // SAFETY: the map is read-only and never handed out as anything but bytes. Files that we write are never changed in
    // place (written aside, then renamed); a foreign process that truncates a model file under us kills this process
    // with SIGBUS, which loses no committed data.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
    let map = Arc::new(map);
    Ok((Bytes::from_owner(MapOwner(Arc::clone(&map))), MappedPages(Some(map))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns how much of a mapped file is in this process's memory, in kilobytes.
    fn resident(path: &Path) -> u64 {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let name = path.to_str().unwrap();
        let after = maps.lines().skip_while(|line| !line.ends_with(name));
        let mut sizes = after.filter_map(|line| line.strip_prefix("Rss:"));
        let size = sizes.next().expect("the file is mapped");
        size.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn pages_that_are_released_leave_memory_and_read_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("pages");
        let content: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
        fs::write(&path, &content).unwrap();
        let (bytes, pages) = map_with_pages(&path).unwrap();
        assert!(bytes == content);
        assert!(resident(&path) > 0);
        pages.release();
        assert_eq!(resident(&path), 0);
        assert!(bytes == content);
        fs::write(&path, []).unwrap();
        let (empty, none) = map_with_pages(&path).unwrap();
        none.release();
        assert!(empty.is_empty());
    }
}
