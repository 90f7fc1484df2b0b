//! The modules of a sentence-transformers folder, as modules.json lists them.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{FETCH_AGAIN, NAME_A_POOLING, json, refuse};
use crate::{encoder::sentence_files::MODULES, error::Result};

/// The vector of a text, which modules read and write unless they say otherwise.
pub(super) const SENTENCE: &str = "sentence_embedding";

/// The vectors of a text's tokens.
pub(super) const TOKENS: &str = "token_embeddings";

/// One entry of modules.json.
#[derive(Clone, Debug)]
pub(super) struct FolderModule {
    /// The dotted path of its class.
    pub(super) class: String,
    pub(super) folder: PathBuf,
    /// The arguments of `encode` that are passed on to it.
    pub(super) kwargs: Value,
}

#[derive(Deserialize)]
struct ListedModule {
    path: String,
    #[serde(rename = "type")]
    class: String,
    #[serde(default)]
    kwargs: Value,
}

/// The keys by which a module names the vectors that it reads and writes.
#[derive(Default, Deserialize)]
struct ModuleNames {
    module_input_name: Option<String>,
    module_output_name: Option<String>,
}

impl FolderModule {
    /// Reads the list of modules of a folder; `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the list cannot be read, is empty or leads out of the folder.
    pub(super) fn read_list(folder: &Path) -> Result<Option<Vec<FolderModule>>> {
        let path = folder.join(MODULES);
        if !path.is_file() {
            return Ok(None);
        }
        let listed: Vec<ListedModule> = json(&path, "a list of modules with `path` and `type`")?;
        let mut modules = Vec::new();
        for ListedModule { path: inside, class, kwargs } in listed {
            let mut parts = Path::new(&inside).components();
            if !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                let got = format!("the path `{inside}`");
                return Err(refuse(&path, "modules inside the folder".into(), got, FETCH_AGAIN));
            }
            let folder =
                if inside.is_empty() { folder.to_path_buf() } else { folder.join(&inside) };
            modules.push(FolderModule { class, folder, kwargs });
        }
        if modules.is_empty() {
            let expected = "at least one module".into();
            return Err(refuse(&path, expected, "an empty list".into(), FETCH_AGAIN));
        }
        Ok(Some(modules))
    }

    /// The last part of the class: the versions differ in the parts before it.
    pub(super) fn name(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or(&self.class)
    }

    /// Whether the class is one of the package, and not code that comes with the model.
    pub(super) fn is_of_package(&self) -> bool {
        self.class.starts_with("sentence_transformers.")
    }

    /// Returns the names of what the module reads and writes; it reads `default` if it does not say.
    pub(super) fn names(&self, default: &str) -> Result<[String; 2]> {
        let path = self.folder.join("config.json");
        let names: ModuleNames = if path.is_file() {
            json(&path, "the settings of a module")?
        } else {
            Default::default()
        };
        let input = names.module_input_name.unwrap_or_else(|| default.into());
        let output = names.module_output_name.unwrap_or_else(|| input.clone());
        Ok([input, output])
    }

    /// Checks that the module reads and writes the vectors of a name; it reads `default` if it does not say.
    pub(super) fn check_names(&self, expected: &str, default: &str) -> Result<()> {
        match self.names(default)?.into_iter().find(|name| name != expected) {
            None => Ok(()),
            Some(other) => Err(refuse(
                &self.folder.join("config.json"),
                format!("a module that reads and writes `{expected}`"),
                format!("`{other}`"),
                NAME_A_POOLING,
            )),
        }
    }
}
