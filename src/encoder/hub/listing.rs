//! What a repository on the hub holds, and which of its files make a checkpoint.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::HubModel;
use crate::{
    encoder::{
        config::ConfigFile,
        onnx_model,
        source::{COMPANIONS, Sum},
        weights::{INDEX_FILE, SINGLE_FILE},
    },
    error::{Error, Result},
};

/// The files of a repository at one commit.
pub(super) struct Listing {
    /// The commit that the revision stands for.
    pub(super) commit: String,
    files: BTreeMap<String, RawFile>,
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Its path in the repository.
    pub(super) path: String,
    /// Its name in the folder.
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sum: Sum,
}

impl RemoteFile {
    /// The name under which it grows. The hash in it keeps what an older commit left from being gone on with.
    pub(super) fn part_name(&self) -> String {
        let digits = self.sum.digits();
        format!("{}.{}.part", self.name, &digits[..digits.len().min(8)])
    }
}

#[derive(Deserialize)]
struct RawListing {
    sha: String,
    siblings: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<RawLargeFile>,
}

#[derive(Deserialize)]
struct RawLargeFile {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Reads the hub's answer.
    pub(super) fn parse(model: &HubModel, json: &[u8]) -> Result<Listing> {
        let raw: RawListing = serde_json::from_slice(json).map_err(|error| {
            model.refuse(
                "the hub's list of the repository's files".into(),
                format!("what JSON calls: {error}"),
                "set HF_ENDPOINT to a hub, or leave it out",
            )
        })?;
        let files = raw.siblings.into_iter();
        let files = files.map(|file| (file.rfilename.clone(), file));
        Ok(Listing {
            commit: raw.sha,
            files: files.collect(),
        })
    }

    /// config.json, of a repository that has what every checkpoint has.
    pub(super) fn config(&self, model: &HubModel) -> Result<RemoteFile> {
        if !self.files.contains_key("config.json") {
            return Err(model.refuse(
                "a repository with config.json".into(),
                "one without".into(),
                "this is no model of the transformers library: name another repository",
            ));
        }
        if !self.files.contains_key("tokenizer.json") {
            return Err(model.refuse(
                "a repository with tokenizer.json".into(),
                "one without, as old ones are".into(),
                &converted("AutoTokenizer", "tokenizer.json", model),
            ));
        }
        self.file(model, "config.json")
    }

    /// The files of a checkpoint with this config.json, which is the last; of weights in shards only the index.
    pub(super) fn wanted(&self, model: &HubModel, config: &ConfigFile) -> Result<Vec<RemoteFile>> {
        let mut paths = self.weights(model, config)?;
        paths.push("tokenizer.json".into());
        let optional = COMPANIONS.iter().map(|name| name.to_string());
        paths.extend(optional.filter(|name| self.files.contains_key(name)));
        paths.push("config.json".into());
        paths.iter().map(|path| self.file(model, path)).collect()
    }

    /// The shards that an index names.
    pub(super) fn shards<'a>(
        &self,
        model: &HubModel,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<RemoteFile>> {
        let shards = names.into_iter().map(|name| {
            if !self.files.contains_key(name) {
                return Err(model.refuse(
                    format!("the shard `{name}`, which {INDEX_FILE} names"),
                    "a repository without".into(),
                    "the repository is incomplete: pin another revision, or name another repository",
                ));
            }
            self.file(model, name)
        });
        shards.collect()
    }

    /// The weights that the folder will be run from, by the rule of `Checkpoint::open`: others would be fetched in vain.
    fn weights(&self, model: &HubModel, config: &ConfigFile) -> Result<Vec<String>> {
        let there = |path: &String| self.files.contains_key(path);
        let safetensors = [SINGLE_FILE, INDEX_FILE].map(String::from);
        let safetensors = safetensors.into_iter().find(there).map(|path| vec![path]);
        let onnx = onnx_model::PLACES.map(String::from).into_iter().find(there);
        let onnx = onnx.map(|path| {
            let data = Some(format!("{path}_data")).filter(there);
            [path].into_iter().chain(data).collect()
        });
        match (config.fused_shape(), safetensors, onnx) {
            (Ok(_), Some(paths), _) | (_, _, Some(paths)) => Ok(paths),
            (Ok(_), None, None) => {
                let got = match self.files.contains_key("pytorch_model.bin") {
                    true => "pytorch_model.bin alone",
                    false => "a repository without weights",
                };
                Err(model.refuse(
                    "model.safetensors, its shards, or model.onnx".into(),
                    got.into(),
                    &converted("AutoModel", "model.safetensors", model),
                ))
            }
            (Err(Error::Checkpoint { expected, got, .. }), _, None) => Err(model.refuse(
                format!("{expected} in config.json, or else a model.onnx"),
                format!("{got}, and no model.onnx"),
                &exported(model),
            )),
            (Err(error), _, None) => Err(error),
        }
    }

    fn file(&self, model: &HubModel, path: &str) -> Result<RemoteFile> {
        let file = &self.files[path];
        let known = match (&file.lfs, &file.blob_id, file.size) {
            (Some(large), _, _) => Some((large.size, Sum::Sha256(large.sha256.clone()))),
            (None, Some(blob), Some(size)) => Some((size, Sum::GitBlob(blob.clone()))),
            _ => None,
        };
        let (size, sum) = known.ok_or_else(|| {
            model.refuse(
                format!("size and hash of `{path}`"),
                "a list of files without".into(),
                "what cannot be checked is not fetched: set HF_ENDPOINT to a hub that lists sizes and hashes",
            )
        })?;
        let name = path.rsplit('/').next().unwrap_or(path).to_string();
        Ok(RemoteFile {
            path: path.into(),
            name,
            size,
            sum,
        })
    }
}

/// How to make a file that a repository lacks.
fn converted(class: &str, file: &str, model: &HubModel) -> String {
    format!(
        "with Python's transformers, {class}.from_pretrained(\"{}\").save_pretrained(\"{}\") writes {file}; or pull \
         another repository, or a revision that holds one",
        model.repository,
        default_folder(model).display(),
    )
}

/// How to make the model.onnx that a repository lacks.
fn exported(model: &HubModel) -> String {
    format!(
        "with Python's optimum, `optimum-cli export onnx --task feature-extraction --model {} {}` writes model.onnx; or \
         pull another repository, or a revision that holds one",
        model.repository,
        default_folder(model).display(),
    )
}

fn default_folder(model: &HubModel) -> PathBuf {
    PathBuf::from("models").join(model.name())
}
