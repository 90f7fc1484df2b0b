//! Lists the files of a repository on the hub and selects those that make a checkpoint.

use std::{collections::BTreeMap, path::PathBuf};

use frostbert_cache::wording::shorten;
use serde::Deserialize;

use crate::{
    encoder::{
        config::ConfigFile,
        hub::{BROKEN, sum::Sum},
        hub_model::HubModel,
        onnx_model,
        sentence_files::{MODEL_SETTINGS, MODULES},
        source::COMPANIONS,
        tokenizer_parts::{BESIDE, VOCABULARIES},
        weights::{INDEX_FILE, PYTORCH_FILE, PYTORCH_INDEX, SINGLE_FILE},
    },
    error::{Error, Result},
};

/// The largest file that is fetched, in bytes: a pebibyte, so that the sum of several sizes does not overflow.
pub(super) const MOST_BYTES: u64 = 1 << 50;

/// The largest file that is read into memory, in bytes; this applies to all files but the weights.
const MOST_READ: u64 = 256 << 20;

const TOKENIZER: &str = "tokenizer.json";

/// What a sentence-transformers repository says of itself, besides the files of its modules.
const OF_SENTENCES: [&str; 2] = [MODULES, MODEL_SETTINGS];

/// The files of a repository at one commit.
pub(super) struct Listing {
    /// The commit that the revision resolves to.
    pub(super) commit: String,
    files: BTreeMap<String, RawFile>,
    /// What stands before the names of the encoder's files: `0_Transformer/` and the like in a sentence-transformers
    /// repository of the old layout, else nothing.
    encoder: String,
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// The path in the repository.
    pub(super) path: String,
    /// The name in the folder; that of a module's file has its folder in front.
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sum: Sum,
}

impl RemoteFile {
    /// Returns the name used while the file is downloaded. It contains the hash, so that a part of an older commit is
    /// not resumed. All parts lie in the model's folder itself, where they are easily found and removed.
    pub(super) fn part_name(&self) -> String {
        let digits = self.sum.digits();
        // `Listing::file` has checked that there are enough hexadecimal digits.
        format!("{}.{}.part", self.name.replace('/', "_"), &digits[..8])
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
    /// Parses the hub's answer.
    pub(super) fn parse(model: &HubModel, json: &[u8]) -> Result<Listing> {
        let raw: RawListing = serde_json::from_slice(json).map_err(|error| {
            model.refuse(
                "the hub's list of the repository's files".into(),
                format!("an answer that cannot be parsed: {error}"),
                "set HF_ENDPOINT to a hub, or unset it",
            )
        })?;
        let refuse = |expected: &str, got: String| {
            let hint = "set HF_ENDPOINT to a hub, or unset it";
            model.refuse(expected.into(), got, hint)
        };
        // The commit becomes part of a URL.
        let commit = hexadecimal(&raw.sha, 40).or_else(|| hexadecimal(&raw.sha, 64));
        let commit = commit.ok_or_else(|| {
            let got = format!("`{}`", shorten(&raw.sha, 80));
            refuse("a commit of 40 hexadecimal digits", got)
        })?;
        let mut files = BTreeMap::new();
        for file in raw.siblings {
            if let Some(twice) = files.insert(file.rfilename.clone(), file) {
                let got = format!("`{}` twice", shorten(&twice.rfilename, 80));
                return Err(refuse("a list with each file once", got));
            }
        }
        let mut listing = Listing { commit, files, encoder: String::new() };
        // Beside modules of their own folders, a config.json in the root is not that of the encoder.
        if listing.tokenizer().is_empty()
            && let Some(folder) = listing.old_encoder_folder()
        {
            listing.encoder = format!("{folder}/");
        }
        Ok(listing)
    }

    /// Returns config.json, after checking that the repository has what every checkpoint has.
    pub(super) fn config(&self, model: &HubModel) -> Result<RemoteFile> {
        let config = self.of_encoder("config.json");
        if !self.files.contains_key(&config) {
            return Err(model.refuse(
                "a repository with config.json".into(),
                "one without".into(),
                "this is not a model of the transformers library: name another repository",
            ));
        }
        if self.tokenizer().is_empty() {
            return Err(model.refuse(
                format!("a repository with {TOKENIZER}, or with {}", VOCABULARIES.join(" or ")),
                "one with none of them".into(),
                &converted("AutoTokenizer", TOKENIZER, model),
            ));
        }
        self.file(model, &config)
    }

    /// Returns the path of one of the encoder's files.
    fn of_encoder(&self, name: &str) -> String {
        format!("{}{name}", self.encoder)
    }

    /// Returns whether one of the encoder's files is there.
    fn there(&self, path: &String) -> bool {
        self.files.contains_key(path)
    }

    /// Returns the folder of the encoder, such as `0_Transformer`, in a sentence-transformers repository of the layout
    /// that has all modules in folders of their own.
    fn old_encoder_folder(&self) -> Option<&str> {
        let mut folders = self.files.keys().filter_map(|path| path.strip_suffix("/config.json"));
        // The folder is made on this machine.
        let known = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let first = folders.find(|folder| folder.starts_with("0_") && folder.chars().all(known));
        first.filter(|_| self.files.contains_key(MODULES))
    }

    /// Returns the files of a checkpoint with this config.json, which comes last; of sharded weights, only the index.
    pub(super) fn wanted(&self, model: &HubModel, config: &ConfigFile) -> Result<Vec<RemoteFile>> {
        let mut paths = self.weights(model, config)?;
        paths.extend(self.tokenizer());
        let companions = COMPANIONS.iter().map(|name| self.of_encoder(name));
        let optional = companions.chain(OF_SENTENCES.map(String::from));
        // `sentence_bert_config.json`, or in old repositories `sentence_roberta_config.json` and the like.
        let of_lengths = self.files.keys().filter(|path| {
            let name = path.strip_prefix(self.encoder.as_str()).unwrap_or_default();
            name.starts_with("sentence_") && name.ends_with("_config.json") && !name.contains('/')
        });
        for path in optional.chain(of_lengths.cloned()) {
            if self.files.contains_key(&path) && !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths.push(self.of_encoder("config.json"));
        paths.iter().map(|path| self.file(model, path)).collect()
    }

    /// Returns tokenizer.json, or else the files of a tokenizer in an older form; none if there are neither.
    fn tokenizer(&self) -> Vec<String> {
        let there = |path: &String| self.there(path);
        let tokenizer = self.of_encoder(TOKENIZER);
        if there(&tokenizer) {
            return vec![tokenizer];
        }
        let mut paths: Vec<String> =
            VOCABULARIES.map(|name| self.of_encoder(name)).into_iter().filter(there).collect();
        if !paths.is_empty() {
            paths.extend(BESIDE.map(|name| self.of_encoder(name)).into_iter().filter(there));
        }
        paths
    }

    /// Returns the files of the modules in these folders, but not those of the encoder: of each its config.json and its
    /// weights, if it has them.
    pub(super) fn of_modules(
        &self,
        model: &HubModel,
        folders: &[String],
    ) -> Result<Vec<RemoteFile>> {
        let mut files = Vec::new();
        for folder in folders.iter().filter(|folder| format!("{folder}/") != self.encoder) {
            let path_of = |name: &str| format!("{folder}/{name}");
            let there = |path: &String| self.files.contains_key(path);
            let config = Some(path_of("config.json")).filter(there);
            let weights = [SINGLE_FILE, PYTORCH_FILE].map(path_of).into_iter().find(there);
            for path in config.into_iter().chain(weights) {
                files.push(RemoteFile { name: path.clone(), ..self.file(model, &path)? });
            }
        }
        Ok(files)
    }

    /// Returns the shards that an index names.
    pub(super) fn shards<'a>(
        &self,
        model: &HubModel,
        index: &str,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<RemoteFile>> {
        let shards = names.into_iter().map(|name| {
            let path = self.of_encoder(name);
            if !self.there(&path) {
                return Err(model.refuse(
                    format!("the shard `{name}`, which {index} names"),
                    "a repository without".into(),
                    "the repository is incomplete: pin another revision, or name another repository",
                ));
            }
            self.file(model, &path)
        });
        shards.collect()
    }

    /// Chooses the weights by the same rule as `Checkpoint::open`; fetching others would be pointless.
    fn weights(&self, model: &HubModel, config: &ConfigFile) -> Result<Vec<String>> {
        let there = |path: &String| self.there(path);
        let of_encoder = |name: &str| self.of_encoder(name);
        // Where there are both, PyTorch's own files hold the same numbers again.
        let own = [SINGLE_FILE, INDEX_FILE, PYTORCH_FILE, PYTORCH_INDEX].map(of_encoder);
        let own = own.into_iter().find(there).map(|path| vec![path]);
        let onnx = onnx_model::PLACES.map(of_encoder).into_iter().find(there);
        let onnx = onnx.map(|path| {
            let data = Some(format!("{path}_data")).filter(there);
            [path].into_iter().chain(data).collect()
        });
        match (config.fused_shape(), own, onnx) {
            (Ok(_), Some(paths), _) | (_, _, Some(paths)) => Ok(paths),
            (Ok(_), None, None) => Err(model.refuse(
                "model.safetensors, pytorch_model.bin, their shards, or model.onnx".into(),
                "a repository without weights".into(),
                &converted("AutoModel", "model.safetensors", model),
            )),
            (Err(Error::Checkpoint { expected, got, hint, .. }), _, None) => Err(model.refuse(
                format!("{expected} in config.json, or else a model.onnx"),
                format!("{got}, and no model.onnx"),
                &hint,
            )),
            (Err(error), _, None) => Err(error),
        }
    }

    fn file(&self, model: &HubModel, path: &str) -> Result<RemoteFile> {
        let file = &self.files[path];
        let known = match (&file.lfs, &file.blob_id, file.size) {
            (Some(large), _, _) => {
                hexadecimal(&large.sha256, 64).map(|digits| (large.size, Sum::Sha256(digits)))
            }
            (None, Some(blob), Some(size)) => {
                hexadecimal(blob, 40).map(|digits| (size, Sum::GitBlob(digits)))
            }
            _ => None,
        };
        let (size, sum) = known.ok_or_else(|| {
            model.refuse(
                format!("size and hash of `{path}`"),
                "a list of files without them".into(),
                "what cannot be checked is not fetched: set HF_ENDPOINT to a hub that lists sizes and hashes",
            )
        })?;
        let is_weights = [".safetensors", ".bin"].iter().any(|ending| path.ends_with(ending))
            || path.contains(".onnx");
        let most = if is_weights { MOST_BYTES } else { MOST_READ };
        if size > most {
            return Err(model.refuse(
                format!("at most {most} bytes of `{path}`"),
                format!("a list of files that says {size}"),
                BROKEN,
            ));
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        // A model.onnx in a folder of its own is put beside the other files of the encoder.
        let name =
            if path.starts_with(&self.encoder) { self.of_encoder(name) } else { name.into() };
        Ok(RemoteFile { path: path.into(), name, size, sum })
    }
}

/// Returns a string of exactly `digits` hexadecimal digits in lower case, safe to use in file names.
fn hexadecimal(text: &str, digits: usize) -> Option<String> {
    let sound = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| text.to_ascii_lowercase())
}

/// Describes how to make a file that the repository lacks.
fn converted(class: &str, file: &str, model: &HubModel) -> String {
    format!(
        "with Python's transformers, {class}.from_pretrained(\"{}\").save_pretrained(\"{}\") writes {file}; or pull \
         another repository, or a revision that holds one",
        model.repository,
        default_folder(model).display(),
    )
}

fn default_folder(model: &HubModel) -> PathBuf {
    PathBuf::from("models").join(model.name())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn model() -> HubModel {
        HubModel::parse("hf:acme/tiny").unwrap()
    }

    fn listing(commit: &str, siblings: Value) -> Result<Listing> {
        let json = json!({ "sha": commit, "siblings": siblings });
        Listing::parse(&model(), json.to_string().as_bytes())
    }

    #[test]
    fn a_commit_that_is_none_and_a_file_that_is_listed_twice_are_refused() {
        assert_eq!(listing(&"A".repeat(40), json!([])).unwrap().commit, "a".repeat(40));
        for commit in ["", "main", "../../x", &"é".repeat(20)] {
            assert!(listing(commit, json!([])).is_err(), "{commit}");
        }
        let twice = json!([{ "rfilename": "a" }, { "rfilename": "a" }]);
        let error = listing(&"a".repeat(40), twice).err().unwrap().to_string();
        assert!(error.contains("`a` twice"), "{error}");
    }

    #[test]
    fn the_encoder_of_a_repository_of_sentence_transformers_is_found_in_either_layout() {
        let encoder = |names: &[&str]| {
            let files: Vec<Value> = names.iter().map(|name| json!({ "rfilename": name })).collect();
            let listing = listing(&"a".repeat(40), json!(files)).unwrap();
            let refusal = listing.config(&model()).err().map(|error| error.to_string());
            (listing.encoder, refusal.unwrap_or_default())
        };
        let old =
            ["0_BERT/config.json", "0_BERT/vocab.txt", "1_Pooling/config.json", "modules.json"];
        let without_hash = "size and hash of `0_BERT/config.json`";
        for root in [&[][..], &["config.json"]] {
            let (folder, refusal) = encoder(&[&old[..], root].concat());
            assert_eq!(folder, "0_BERT/");
            assert!(refusal.contains(without_hash), "{refusal}");
        }
        // With a tokenizer in the root, the encoder lies there.
        let new = [&old[..], &["config.json", "vocab.txt"]].concat();
        let (folder, refusal) = encoder(&new);
        assert!(folder.is_empty() && refusal.contains("of `config.json`"), "{folder} {refusal}");
        for other in [&old[..3], &["modules.json", "1_Pooling/config.json"], &["README.md"]] {
            let (folder, refusal) = encoder(other);
            assert!(folder.is_empty() && refusal.contains("with config.json"), "{refusal}");
        }
        let elsewhere = ["0_../config.json", "0_../vocab.txt", "modules.json"];
        assert_eq!(encoder(&elsewhere).0, "");
    }

    #[test]
    fn sizes_and_hashes_are_looked_at_before_they_name_a_file() {
        let file = |name: &str, file: Value| {
            let mut file = file;
            file["rfilename"] = json!(name);
            listing(&"a".repeat(40), json!([file])).unwrap().file(&model(), name)
        };
        let small =
            |blob: &str, size: u64| file("config.json", json!({ "blobId": blob, "size": size }));
        let large = |sha256: &str, size: u64| {
            file("model.safetensors", json!({ "lfs": { "sha256": sha256, "size": size } }))
        };
        let (blob, sha256) = ("b".repeat(40), "c".repeat(64));
        assert_eq!(small(&blob, MOST_READ).unwrap().part_name(), "config.json.bbbbbbbb.part");
        assert_eq!(large(&sha256, MOST_BYTES).unwrap().size, MOST_BYTES);
        for (problem, file) in [
            ("a short hash", small("b", 1)),
            ("a path", small(&"/".repeat(40), 1)),
            ("letters of two bytes", small(&"é".repeat(20), 1)),
            ("a short sha256", large(&blob, 1)),
            ("a file too large to read", small(&blob, MOST_READ + 1)),
            ("weights of no disk's size", large(&sha256, 1 << 63)),
        ] {
            assert!(file.is_err(), "{problem}");
        }
    }
}
