//! folder: a folder for each label, with one text per file: `<label>/<name>.txt`.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use frostbert_cache::fingerprint::{Digest, Stamp};

use super::{
    bad_rows::FailedRows,
    open_file::OpenFile,
    read::{self, Text},
    record::{Record, WantedFields},
    record_limit::{MAX_RECORD_BYTES, too_long},
    source::{Format, Source},
};
use crate::error::{Error, Result};

/// The files of a folder, as they were when it was listed.
#[derive(Clone, Debug)]
pub(super) struct TextFolder {
    root: PathBuf,
    files: Vec<TextFile>,
}

#[derive(Clone, Debug)]
struct TextFile {
    label: String,
    /// Its path in the folder.
    name: String,
    stamp: Stamp,
}

impl TextFolder {
    /// Lists the files, in the order of their labels and names. Hidden files and files of other kinds are ignored.
    pub(super) fn list(root: &Path) -> Result<TextFolder> {
        let mut files = Vec::new();
        for folder in names_in(root)? {
            let path = root.join(&folder);
            if !path.is_dir() {
                continue;
            }
            for file in names_in(&path)? {
                let plain = file.to_lowercase();
                if !plain.ends_with(".txt") && !plain.ends_with(".txt.gz") {
                    continue;
                }
                files.push(TextFile {
                    label: folder.clone(),
                    name: format!("{folder}/{file}"),
                    stamp: Stamp::of(&path.join(file))?,
                });
            }
        }
        Ok(TextFolder { root: root.to_path_buf(), files })
    }

    /// Computes the BLAKE3 hash of the names and the BLAKE3 hashes of all files.
    pub(super) fn blake3(&self) -> Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            hasher.update(file.name.as_bytes());
            hasher.update(&[0]);
            let path = self.root.join(&file.name);
            hasher.update(OpenFile::open(&path)?.blake3()?.to_string().as_bytes());
        }
        Ok(hasher.finalize().into())
    }

    /// Reads the texts one by one. The id is the file's path in the folder.
    pub(super) fn read(
        self,
        source: &Source,
        want: WantedFields,
        failed: FailedRows,
    ) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
        if self.files.is_empty() {
            return Err(source.malformed(
                None,
                "a folder for each label, with a .txt file for each text in it",
                "none",
                "name the folder that contains the folders of the labels",
            ));
        }
        let has_more = want.text_pair || !source.label_columns.is_empty();
        if has_more || source.label.is_some() || source.id.is_some() {
            return Err(source.malformed(
                None,
                "a text and the label that its folder is named after",
                "columns other than these",
                "leave `label`, `text_pair` and `id` of this source out, as well as train.label and sweep.label",
            ));
        }
        let source = source.clone();
        Ok(self.files.into_iter().filter_map(move |file| {
            let path = self.root.join(&file.name);
            let own = Source { path, format: Some(Format::Folder), ..source.clone() };
            match open(&file, &own).map(|text| whole(text, &own)) {
                Err(error) => Some(Err(error)),
                Ok(Err(error)) => failed.settle(None, error).err().map(Err),
                Ok(Ok(text)) => Some(Ok(Record {
                    text,
                    label: want.label.then(|| file.label.clone()),
                    id: Some(file.name),
                    ..Record::default()
                })),
            }
        }))
    }
}

/// Opens a file, which `source` names.
fn open(file: &TextFile, source: &Source) -> Result<Text> {
    let open = OpenFile::open(&source.path)?;
    if Stamp::of(&source.path)? != file.stamp {
        return Err(source.malformed(
            None,
            "a file that does not change while the folder is read",
            "one that has changed meanwhile",
            "run the command again when whatever writes the folder has finished",
        ));
    }
    open.text(source)
}

/// The whole text of a file, without the end of its last line.
fn whole(input: Text, source: &Source) -> Result<String> {
    let failed = |error| read::failure(source, error);
    let mut text = Vec::new();
    input.take(MAX_RECORD_BYTES as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > MAX_RECORD_BYTES {
        return Err(too_long(source, None, "a text", "shorten the text, or remove the file"));
    }
    let text = String::from_utf8(text)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Lists the names in a folder, sorted, without hidden ones.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let failed = || Error::io("read", folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let name = name.into_string().map_err(|name| Error::Record {
            path: folder.join(name),
            line: None,
            expected: "a name in UTF-8".to_owned(),
            got: "other bytes".to_owned(),
            hint: "rename the file or folder: labels and ids are made of names".to_owned(),
        })?;
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{bad_rows::BadRows, hash_of_path, read, read_logged};

    #[test]
    fn a_folder_for_each_label_holds_a_text_in_each_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, text) in [
            ("pos/b.txt", "good\r\n"),
            ("neg/a.txt", "bad,\nvery\n"),
            ("neg/.c.txt", "no"),
            ("neg/d.md", "no"),
        ] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(root.join("urls.txt"), "no").unwrap();
        let source = Source::new(root);
        assert_eq!(source.resolve_format().unwrap(), Format::Folder);
        let want = WantedFields { label: true, text_pair: false };
        let records: Vec<Record> = read(&source, want).unwrap().map(Result::unwrap).collect();
        let rows: Vec<_> = records
            .iter()
            .map(|r| (r.id.as_deref().unwrap(), r.label.as_deref().unwrap(), r.text.as_str()))
            .collect();
        assert_eq!(rows, [("neg/a.txt", "neg", "bad,\nvery"), ("pos/b.txt", "pos", "good")]);

        // The digest covers names and contents.
        let digest = || hash_of_path(root).unwrap();
        let before = digest();
        fs::write(root.join("urls.txt"), "else").unwrap();
        assert_eq!(digest(), before);
        fs::rename(root.join("pos/b.txt"), root.join("neg/b.txt")).unwrap();
        assert_ne!(digest(), before);
        let empty = Source { format: Some(Format::Folder), ..Source::new(root.join("neg")) };
        let error = read(&empty, want).err().unwrap().to_string();
        assert!(error.contains("expected a folder for each label"), "{error}");
    }

    #[test]
    fn a_text_that_cannot_be_read_costs_itself() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("pos")).unwrap();
        for (name, text) in [
            ("a.txt", b"good".to_vec()),
            ("b.txt", b"fine\ncaf\xE9".to_vec()),
            // A character that the limit cuts in two.
            ("c.txt", "\u{e9}".repeat(MAX_RECORD_BYTES / 2 + 1).into_bytes()),
        ] {
            fs::write(root.join("pos").join(name), text).unwrap();
        }
        let want = WantedFields { label: true, text_pair: false };
        let source = Source { skip_bad: Some(false), ..Source::new(root) };
        let error = read(&source, want).unwrap().find_map(Result::err).unwrap();
        assert!(error.to_string().ends_with("b.txt:2: expected UTF-8 text, got the byte 0xE9"));
        assert_eq!(error.hint().unwrap().matches("leave such texts out").count(), 1, "{error}");
        let (source, log) = (Source { skip_bad: Some(true), ..source }, BadRows::default());
        let records = read_logged(&source, want, &log).unwrap();
        assert_eq!(records.map(|record| record.unwrap().text).collect::<Vec<_>>(), ["good"]);
        let rows: Vec<_> = log.rows().into_iter().map(|row| (row.file, row.line)).collect();
        let path = |name: &str| root.join("pos").join(name);
        assert_eq!(rows, [(path("b.txt"), Some(2)), (path("c.txt"), None)]);
    }
}
