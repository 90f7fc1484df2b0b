//! Reads modules.json of a sentence-transformers repository, as far as a pull needs it: the folders of its modules.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::{
    encoder::sentence_files::MODULES,
    error::{Error, Result},
};

#[derive(Deserialize)]
struct RemoteModule {
    /// The module's folder in the repository; empty for the encoder in the root.
    path: String,
}

/// Returns the folders of the modules that have one of their own, such as `1_Pooling`.
///
/// # Errors
/// Returns an error if the file is not a list of modules, or names a folder that could lie elsewhere.
pub(super) fn folders(path: &Path) -> Result<Vec<String>> {
    let refuse = |got: String| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: format!("{MODULES} with the modules of a sentence-transformers model"),
        got,
        hint: "fetch the model again".into(),
    };
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let modules: Vec<RemoteModule> = serde_json::from_str(&text)
        .map_err(|error| refuse(format!("a file that cannot be parsed: {error}")))?;
    let mut folders = Vec::new();
    for module in modules {
        let folder = module.path.trim_end_matches('/').to_string();
        if folder.is_empty() || folders.contains(&folder) {
            continue;
        }
        // Files are written there, so the name must not lead out of the model's folder or be that of another file.
        let known = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !folder.split('/').all(|part| !part.is_empty() && part.chars().all(known)) {
            return Err(refuse(format!("`{}` for a module's folder", module.path)));
        }
        folders.push(folder);
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MODULES);
        fs::write(&path, text).unwrap();
        folders(&path)
    }

    #[test]
    fn the_folders_of_modules_are_named_and_the_root_is_none() {
        let modules = r#"[
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Dense/", "type": "a.b.Dense", "kwargs": []},
            {"idx": 3, "name": "3", "path": "1_Pooling", "type": "a.b.Pooling"}]"#;
        assert_eq!(read(modules).unwrap(), ["1_Pooling", "2_Dense"]);
    }

    #[test]
    fn a_folder_that_could_lie_elsewhere_is_refused() {
        for path in ["../x", "/x", "a/../b", "a//b", ".", "a/.git", "1_Pooling.part", "a\\\\b"] {
            let error = read(&format!(r#"[{{"path": "{path}"}}]"#)).unwrap_err().to_string();
            assert!(error.contains("for a module's folder"), "{path}: {error}");
        }
        assert!(read("{}").unwrap_err().to_string().contains("cannot be parsed"));
    }
}
