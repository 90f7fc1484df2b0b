//! Files of a run and of a cache that are written so that a crash leaves the old content or the new one, whole, and never a part.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use crate::error::{Error, Result};

/// Writes a file aside, under its name with `tmp-` before it, syncs it, and renames it into place.
///
/// # Errors
/// When the folder cannot be written; what stood under the name before then stands still.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default();
    let mut aside = OsString::from("tmp-");
    aside.push(name);
    let aside = folder.join(aside);
    let written = write_new(&aside, content)
        .and_then(|()| fs::rename(&aside, path).map_err(Error::io("replace", path)));
    if written.is_err() {
        // On a full disk this makes room again; the first error is the one to tell.
        let _ = fs::remove_file(&aside);
    }
    written?;
    sync_folder(if folder == Path::new("") { Path::new(".") } else { folder })
}

/// Writes a file that is not there yet. What a killed process left under its name is removed first, and a link under
/// that name is removed and not followed.
fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    remove_file(path)?;
    let mut file = File::create_new(path).map_err(Error::io("write", path))?;
    file.write_all(content).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("sync", path))
}

/// Has a file opened only where its name is no link: what is written through it stays where it was meant to go.
pub fn through_no_link(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits() as i32);
    }
    options
}

/// Bytes that the disk of a folder has left for this user; `None` where the system does not tell.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Removes a file or a link, where there is one.
///
/// # Errors
/// When it is there and cannot be removed.
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
/// When the disk refuses.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
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
