//! Whether pooling counts the tokens of prompts, as a folder says that sentence-transformers saved.

use std::path::Path;

use serde::{Deserialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// The file that says whether pooling counts them.
const POOLING_FILE: &str = "1_Pooling/config.json";

/// What the file of the pooling says about prompts.
#[derive(Deserialize)]
struct PromptPooling {
    #[serde(default)]
    include_prompt: Option<bool>,
}

/// Returns whether the pooled states of a folder's model count the tokens of a prompt, as they do if it does not say.
///
/// # Errors
/// Returns an error if the file that says so is damaged.
pub(super) fn include_prompt(folder: &Path) -> Result<bool> {
    let file = read_if_there::<PromptPooling>(&folder.join(POOLING_FILE))?;
    Ok(file.and_then(|file| file.include_prompt).unwrap_or(true))
}

/// Reads a JSON file; `None` if there is none.
fn read_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: "JSON as sentence-transformers writes it".into(),
        got: error.to_string(),
        hint: "fetch the file again, or remove it".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(pooling: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        std::fs::write(folder.path().join(POOLING_FILE), pooling).unwrap();
        folder
    }

    #[test]
    fn pooling_counts_prompts_unless_the_folder_says_that_it_does_not() {
        let of = |pooling: &str| include_prompt(folder(pooling).path());
        assert!(of("{}").unwrap() && of(r#"{"include_prompt": true}"#).unwrap());
        assert!(!of(r#"{"pooling_mode": "mean", "include_prompt": false}"#).unwrap());
        assert!(of("{").is_err());
        assert!(include_prompt(tempfile::tempdir().unwrap().path()).unwrap());
    }
}
