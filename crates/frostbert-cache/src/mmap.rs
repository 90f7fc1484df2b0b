//! Read-only memory maps; files are mapped only here.

use std::{fs::File, path::Path};

use bytes::Bytes;
use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps a whole file read-only. The map lives as long as the last slice of the returned bytes, and an empty file gives
/// empty bytes.
///
/// # Errors
/// Returns an error if the file cannot be opened or mapped.
pub fn map(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    if file.metadata().map_err(Error::io("read", path))?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and never handed out as anything but bytes. Files that we write are never changed in
    // place (written aside, then renamed); a foreign process that truncates a model file under us kills this process
    // with SIGBUS, which loses no committed data.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
    Ok(Bytes::from_owner(map))
}
