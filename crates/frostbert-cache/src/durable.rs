//! Writes files of runs and caches such that a crash leaves either the old content or the new one, never a part of it.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::error::{Error, Result};

/// Writes a file under a temporary name (its name with the prefix `tmp-`), syncs it, and renames it into place.
///
/// # Errors
/// Returns an error if the folder cannot be written; a previous file of that name is then unchanged.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    write_file_with(path, |file| file.write_all(content))
}

/// The same with what `write` puts into the file piece by piece, so that all of it is never in memory at once.
///
/// # Errors
/// As [`write_file`], and when `write` fails.
pub fn write_file_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default();
    let mut aside = OsString::from("tmp-");
    aside.push(name);
    let aside = folder.join(aside);
    let written = write_new(&aside, write)
        .and_then(|()| fs::rename(&aside, path).map_err(Error::io("replace", path)));
    if written.is_err() {
        // On a full disk this makes room again; the first error is the one to report.
        let _ = fs::remove_file(&aside);
    }
    written?;
    sync_folder(if folder == Path::new("") { Path::new(".") } else { folder })
}

/// Writes a new file. A leftover of a killed process under its name is removed first, and a link under that name is
/// removed instead of followed.
fn write_new(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    remove_file(path)?;
    let mut file = BufWriter::new(File::create_new(path).map_err(Error::io("write", path))?);
    write(&mut file).and_then(|()| file.flush()).map_err(Error::io("write", path))?;
    file.get_ref().sync_all().map_err(Error::io("sync", path))
}

/// Returns whether a path still is that of an open file, and not that of another one or of none: whoever held the lock
/// of a file before may have removed it.
///
/// # Errors
/// Returns an error if the open file cannot be looked at.
pub fn is_at(file: &File, path: &Path) -> Result<bool> {
    let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let own = file.metadata().map(place).map_err(Error::io("read", path))?;
    Ok(fs::metadata(path).map(place).ok() == Some(own))
}

/// Makes opening a file fail if its name is a link, so that nothing is written to where the link points.
pub fn through_no_link(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits() as i32);
    }
    options
}

/// Returns how many bytes of the folder's disk are available to this user; `None` if the system does not tell.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Removes a file or a link, if it exists.
///
/// # Errors
/// Returns an error if it exists and cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes renames in a folder durable.
///
/// # Errors
/// Returns an error if the folder cannot be synced.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_aside() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tmp-a.json"), "half of an old one").unwrap();
        for content in ["one", "two"] {
            let path = folder.path().join("a.json");
            write_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_fails_halfway_leaves_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write_file(&path, b"old").unwrap();
        let failed = write_file_with(&path, |file| {
            file.write_all(&[0; 1 << 16])?;
            Err(io::Error::other("the source is gone"))
        });
        assert!(failed.unwrap_err().to_string().contains("the source is gone"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_no_write_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        for name in ["a.json", "tmp-a.json"] {
            std::os::unix::fs::symlink(&precious, folder.path().join(name)).unwrap();
        }
        write_file(&folder.path().join("a.json"), b"new").unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        assert!(!folder.path().join("a.json").is_symlink());
    }
}
