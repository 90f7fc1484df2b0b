//! The name of a model on the hub.

use std::path::Path;

use crate::error::{Error, Result};

/// The prefix of a model name on the hub.
const SCHEME: &str = "hf:";

/// A model on the hub: `hf:owner/name`, or `hf:owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    /// The repository, as `owner/name`.
    pub repository: String,
    /// A branch, tag or commit; `None` for the main branch.
    pub revision: Option<String>,
}

impl HubModel {
    /// Parses `hf:owner/name[@revision]`; returns `None` if the text is something else.
    ///
    /// ```
    /// use frostbert::internals::encoder::hub_model::HubModel;
    ///
    /// let model = HubModel::parse("hf:google-bert/bert-base-uncased@v1").unwrap();
    /// assert_eq!(model.repository, "google-bert/bert-base-uncased");
    /// assert_eq!(model.revision.as_deref(), Some("v1"));
    /// assert_eq!(HubModel::parse("models/minilm"), None);
    /// ```
    pub fn parse(text: &str) -> Option<HubModel> {
        let text = text.strip_prefix(SCHEME)?;
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/')?;
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let sound =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(known);
        let sound =
            sound(owner) && sound(name) && revision.is_none_or(|revision| !revision.is_empty());
        sound
            .then(|| HubModel { repository: repository.into(), revision: revision.map(Into::into) })
    }

    /// Returns the part after the owner, which names the folder it is pulled into.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }
}

/// Says how to fetch a model if a path, at which there is no folder, is written like a name on the hub without its
/// scheme, as `owner/name`. Paths below `models` are not, because pulls put their folders there.
pub fn pull_instead(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let model = HubModel::parse(&format!("{SCHEME}{text}"))?;
    let is_name = !text.starts_with("models/");
    is_name.then(|| {
        format!(
            "if this is a name on the hub, run `frostbert model pull {SCHEME}{text}` once, then set model.path = \
             \"models/{}\"; otherwise set model.path to a folder with config.json, tokenizer.json and \
             model.safetensors",
            model.name()
        )
    })
}

/// Rejects a path that is a model name on the hub: only `frostbert model pull` fetches models.
///
/// # Errors
/// Returns an error if the path starts with `hf:`.
pub fn refuse_name_on_hub(path: &Path) -> Result<()> {
    let Some(text) = path.to_str().filter(|text| text.starts_with(SCHEME)) else {
        return Ok(());
    };
    let hint = match HubModel::parse(text) {
        Some(model) => format!(
            "models are fetched only on request: run `frostbert model pull {text}` once, then set model.path = \
             \"models/{}\"",
            model.name()
        ),
        None => "run `frostbert model pull hf:owner/name` once, then set model.path to the folder"
            .into(),
    };
    Err(Error::Checkpoint {
        path: path.into(),
        expected: "a checkpoint folder".into(),
        got: "a name on the hub".into(),
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_its_scheme_is_told_from_the_path_of_a_folder() {
        let hint = pull_instead(Path::new("sentence-transformers/all-mpnet-base-v2")).unwrap();
        assert!(hint.contains("model pull hf:sentence-transformers/all-mpnet-base-v2`"), "{hint}");
        assert!(hint.contains("model.path = \"models/all-mpnet-base-v2\""), "{hint}");
        let pinned = pull_instead(Path::new("acme/tiny@v1")).unwrap();
        assert!(pinned.contains("hf:acme/tiny@v1`") && pinned.contains("models/tiny\""));
        for path in ["minilm", "models/minilm", "./acme", "../acme", "/acme/tiny", "a/b/c", "a b/c"]
        {
            assert_eq!(pull_instead(Path::new(path)), None, "{path}");
        }
    }
}
