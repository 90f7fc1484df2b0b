//! Reads small text files that the user names: a pipeline, a lock.

use std::{fs, fs::File, io::Read, os::unix::fs::FileTypeExt, path::Path};

use crate::error::{Error, Result};

/// Reads a text file of at most `max_mib` MiB: a regular file, a process substitution or `/dev/stdin`.
///
/// # Errors
/// Returns an error if the file is larger, cannot be read or is not UTF-8, or if it is a named pipe, a socket or a
/// device, from which reading might never end.
pub(crate) fn read(path: &Path, max_mib: u64) -> Result<String> {
    let failed = || Error::io("read", path);
    let refused = |expected: String, got: &str, hint: &str| Error::Record {
        path: path.to_path_buf(),
        line: None,
        expected,
        got: got.into(),
        hint: hint.into(),
    };
    let kind = fs::metadata(path).map_err(failed())?.file_type();
    // An unnamed pipe already has a writer; its path under /dev/fd does not resolve to a file.
    let is_unnamed_pipe = kind.is_fifo() && fs::canonicalize(path).is_err();
    if !kind.is_file() && !kind.is_dir() && !is_unnamed_pipe {
        let got = match () {
            () if kind.is_fifo() => "a named pipe",
            () if kind.is_socket() => "a socket",
            () => "a device",
        };
        let hint = "write its contents to a file first, and name that file";
        return Err(refused("a regular file".into(), got, hint));
    }
    let file = File::open(path).map_err(failed())?;
    let max_bytes = max_mib << 20;
    let mut text = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut text).map_err(failed())?;
    if text.len() as u64 > max_bytes {
        let hint = "check that this is the file that was meant";
        return Err(refused(format!("at most {max_mib} MiB"), "more", hint));
    }
    String::from_utf8(text)
        .map_err(|error| failed()(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_some_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
        assert_eq!(read(&path, 1).unwrap().len(), 1 << 20);
        fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        let error = read(&path, 1).unwrap_err().to_string();
        assert!(error.ends_with("a.toml: expected at most 1 MiB, got more"), "{error}");
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        for (path, got) in [(folder.path().join("s"), "a socket"), ("/dev/zero".into(), "a device")]
        {
            let error = read(&path, 1).unwrap_err().to_string();
            let expected = format!("expected a regular file, got {got}");
            assert!(error.ends_with(&expected), "{error}");
        }
        fs::write(&path, b"\xFF").unwrap();
        assert!(matches!(read(&path, 1), Err(Error::Io(_))));
    }
}
