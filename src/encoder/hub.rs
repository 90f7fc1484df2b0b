//! Fetches a checkpoint from the Hugging Face hub. This is the only place in the crate that opens a socket.
//!
//! One request lists the files of a revision with their sizes and hashes; each file is then fetched by commit. Files
//! are downloaded under a temporary name (`*.part`), checked when complete, and only then renamed, config.json last.
//! The folder left by a killed pull is therefore not a checkpoint, and the next pull resumes where the last one
//! stopped.

mod client;
mod listing;
mod modules;
mod redirect;
mod sum;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use frostbert_cache::{
    durable::{free_bytes, remove_file},
    progress::Progress,
};

use client::Client;
use listing::{Listing, RemoteFile};
use sum::Sum;

use super::{
    config::ConfigFile,
    hub_model::HubModel,
    sentence_files::MODULES,
    source::{ModelSource, SOURCE, SourceFile, sha256_of_file},
    weights,
};
use crate::error::{Error, Result};

/// The hint for a repository whose files cannot be used.
const BROKEN: &str = "the repository is broken: pin another revision, or name another repository";

/// The address of the hub and the credentials to use.
#[derive(Clone)]
pub struct Hub {
    /// The address, such as `https://host`.
    pub endpoint: String,
    /// An access token for private or gated repositories. It is sent only to the endpoint's own host and port.
    pub token: Option<String>,
    /// The proxy to connect through, such as `http://host:port`.
    pub proxy: Option<String>,
}

impl HubModel {
    fn refuse(&self, expected: String, got: String, hint: &str) -> Error {
        Error::Hub { repository: self.repository.clone(), expected, got, hint: hint.into() }
    }

    /// Turns an error about a fetched file into a hub error, without the path, which would be that of a temporary file.
    fn refuse_content(&self, error: Error, hint: &str) -> Error {
        match error {
            Error::Checkpoint { expected, got, .. } => self.refuse(expected, got, hint),
            other => other,
        }
    }
}

/// The result of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The commit that is now in the folder.
    pub commit: String,
    /// The number of files in the model.
    pub files: usize,
    /// Bytes received over the network, not counting the file listing.
    pub bytes_fetched: u64,
}

/// Fetches a model, or the files that are missing from its folder, and checks every file's size and hash.
///
/// The files are config.json; tokenizer.json, or else the files of an older tokenizer, and their companions; the
/// weights; and what a sentence-transformers repository says of its modules. The weights are model.safetensors or its
/// shards, or else pytorch_model.bin or its shards, if our graph can run what config.json describes, and otherwise a
/// model.onnx. If the disk has too little room for the missing files, nothing more is fetched unless `go_on` is set.
///
/// # Errors
/// Returns [`Error::Hub`] if the hub cannot be reached, refuses the request, lacks a file, or sends other bytes than it
/// announced; if there are no weights that can be run, or not enough room; or if the folder holds another model or
/// cannot be written.
pub fn pull(
    hub: &Hub,
    model: &HubModel,
    folder: &Path,
    go_on: bool,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let client = Client::new(hub, model)?;
    let listing = client.list()?;
    let config = listing.config(model)?;
    let is_new = !folder.exists();
    let _lock = open_folder(folder, model, &config.name)?;
    // config.json is small and decides which weights are needed.
    let mut bytes_fetched = client.fetch(&listing.commit, &config, folder, &())?;
    let wanted = ConfigFile::read(&present(folder, &config))
        .map_err(|error| model.refuse_content(error, BROKEN))
        .and_then(|config| listing.wanted(model, &config));
    let mut files = match wanted {
        Ok(files) => files,
        Err(error) => {
            // No later pull could resume from this part.
            remove_file(&folder.join(config.part_name()))?;
            if is_new {
                fs::remove_dir(folder).map_err(Error::io("remove", folder))?;
            }
            return Err(error);
        }
    };
    for list in files.clone() {
        let Some(read) = reader_of_list(&list) else { continue };
        // A list is small and decides which other files are needed.
        bytes_fetched += client.fetch(&listing.commit, &list, folder, &())?;
        files.splice(0..0, read(&listing, model, &present(folder, &list))?);
    }
    // Each is at most `listing::MOST_BYTES`, so the sum does not overflow.
    let missing = files.iter().map(|file| missing_bytes(folder, file)).sum();
    if !go_on {
        require_room(model, folder, missing, free_bytes(folder))?;
    }
    progress.start(&format!("pull {}", model.name()), Some(missing), "bytes");
    let fetched: Result<u64> = files.iter().try_fold(bytes_fetched, |bytes, file| {
        Ok(bytes + client.fetch(&listing.commit, file, folder, progress)?)
    });
    progress.finish();
    bytes_fetched = fetched?;
    put_in_place(folder, model, &listing.commit, &files, &config.name)?;
    Ok(Pulled { commit: listing.commit, files: files.len(), bytes_fetched })
}

/// Reads a fetched list, and returns the files of the repository that it names.
type ReadList = fn(&Listing, &HubModel, &Path) -> Result<Vec<RemoteFile>>;

/// Returns how a file is read that names further files: an index of shards, or the list of modules.
fn reader_of_list(file: &RemoteFile) -> Option<ReadList> {
    // In the old layout of sentence-transformers, an index lies in the folder of the encoder.
    match file.name.rsplit('/').next().unwrap_or_default() {
        weights::INDEX_FILE => Some(|listing, model, path| {
            let names = weights::shards(path);
            let names = names.map_err(|error| model.refuse_content(error, BROKEN))?;
            listing.shards(model, weights::INDEX_FILE, &names)
        }),
        weights::PYTORCH_INDEX => Some(|listing, model, path| {
            let names = weights::shards_ending(path, ".bin");
            let names = names.map_err(|error| model.refuse_content(error, BROKEN))?;
            listing.shards(model, weights::PYTORCH_INDEX, &names)
        }),
        MODULES => Some(|listing, model, path| {
            let folders = modules::folders(path);
            let folders = folders.map_err(|error| model.refuse_content(error, BROKEN))?;
            listing.of_modules(model, &folders)
        }),
        _ => None,
    }
}

/// Returns an error if the disk has too little room; if the free space is unknown, the pull goes ahead.
fn require_room(model: &HubModel, folder: &Path, missing: u64, free: Option<u64>) -> Result<()> {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    match free {
        Some(free) if free < missing => Err(model.refuse(
            format!("room for {} in `{}`", megabytes(missing), folder.display()),
            format!("{} left on its disk", megabytes(free)),
            "free some space, name a folder on another disk with --to, or continue with --yes: what was fetched \
             before the disk is full is kept",
        )),
        _ => Ok(()),
    }
}

/// Creates the folder if necessary and locks it against a second pull for as long as the returned file is open.
fn open_folder(folder: &Path, model: &HubModel, config_name: &str) -> Result<File> {
    let refuse = |why: &str, hint: &str| {
        let got = format!("`{}`, {why}", folder.display());
        model.refuse("a folder for the model".into(), got, hint)
    };
    let elsewhere = "name another folder with --to";
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    match ModelSource::read(folder)? {
        Some(source) if source.repository != model.repository => {
            let why = format!("which holds `{}`", source.repository);
            return Err(refuse(&why, elsewhere));
        }
        None if ["config.json", config_name].iter().any(|name| folder.join(name).exists()) => {
            return Err(refuse("which holds a model that was not pulled", elsewhere));
        }
        _ => {}
    }
    let lock = File::open(folder).map_err(Error::io("open", folder))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let why = "into which another process is pulling";
            Err(refuse(why, "wait until it has finished"))
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", folder)(error)),
    }
}

/// Renames complete parts to their final names, the encoder's config.json last, and writes the source file. All files are
/// complete by now.
fn put_in_place(
    folder: &Path,
    model: &HubModel,
    commit: &str,
    files: &[RemoteFile],
    config_name: &str,
) -> Result<()> {
    let part = |file: &RemoteFile| folder.join(file.part_name());
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(Error::io("rename", from));
    let mut source = ModelSource {
        repository: model.repository.clone(),
        revision: commit.into(),
        files: Default::default(),
    };
    for file in files {
        let sha256 = match &file.sum {
            Sum::Sha256(digits) => digits.clone(),
            Sum::GitBlob(_) => sha256_of_file(&present(folder, file))?,
        };
        let size = file.size;
        source.files.insert(file.name.clone(), SourceFile { size, sha256 });
    }
    let before = ModelSource::read(folder)?;
    if before.as_ref() == Some(&source) && !files.iter().any(|file| part(file).exists()) {
        return Ok(());
    }
    // From here to the end, the folder has no config.json and is therefore not a checkpoint.
    let config = folder.join(config_name);
    let old = || before.iter().flat_map(|source| source.files.keys());
    // That of an older commit may lie elsewhere.
    for name in old().filter(|name| *name == "config.json" || name.starts_with("0_")) {
        if name.ends_with("config.json") && name != config_name && lies_inside(folder, name) {
            remove_file(&folder.join(name))?;
        }
    }
    for file in files.iter().filter(|file| file.name == config_name) {
        if part(file).exists() { remove_file(&config)? } else { rename(&config, &part(file))? }
    }
    for file in files.iter().filter(|file| file.name != config_name) {
        if part(file).exists() {
            let place = folder.join(&file.name);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
            }
            rename(&part(file), &place)?;
        }
    }
    // Files of an older commit that this one lacks would be mistaken for parts of the model.
    for name in old().filter(|name| !source.files.contains_key(*name)) {
        if lies_inside(folder, name) {
            remove_file(&folder.join(name))?;
        }
    }
    write_source(&source, folder)?;
    for file in files.iter().filter(|file| file.name == config_name) {
        rename(&part(file), &config)?;
    }
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Returns whether every folder on the way to a file of this name is a folder, and no link to one elsewhere.
fn lies_inside(folder: &Path, name: &str) -> bool {
    let parents = Path::new(name).ancestors().skip(1).filter(|parent| *parent != Path::new(""));
    let is_folder = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    parents.map(|parent| folder.join(parent)).all(is_folder)
}

/// Writes `source.json` through a temporary file; the next pull removes the `.part` that a kill may leave behind.
fn write_source(source: &ModelSource, folder: &Path) -> Result<()> {
    let aside = folder.join(format!("{SOURCE}.part"));
    // A struct of strings and numbers always becomes JSON.
    let json = serde_json::to_string_pretty(source).expect("plain fields become JSON");
    fs::write(&aside, json + "\n").map_err(Error::io("write", &aside))?;
    fs::rename(&aside, folder.join(SOURCE)).map_err(Error::io("rename", &aside))
}

/// Returns the path that currently holds the bytes of a complete file.
fn present(folder: &Path, file: &RemoteFile) -> PathBuf {
    let part = folder.join(file.part_name());
    if part.exists() { part } else { folder.join(&file.name) }
}

fn is_whole(path: &Path, file: &RemoteFile) -> Result<bool> {
    let as_long = fs::metadata(path).is_ok_and(|metadata| metadata.len() == file.size);
    Ok(as_long && file.sum.of_file(path)? == file.sum.digits())
}

/// Returns the number of bytes still to be fetched, judging by file sizes.
fn missing_bytes(folder: &Path, file: &RemoteFile) -> u64 {
    let length = |name: &str| fs::metadata(folder.join(name)).map_or(0, |metadata| metadata.len());
    if length(&file.name) == file.size {
        0
    } else {
        file.size.saturating_sub(length(&file.part_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_behind_a_link_does_not_lie_inside() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir_all(own.join("1_Pooling/deep")).unwrap();
        std::os::unix::fs::symlink(folder.path(), own.join("link")).unwrap();
        for (name, inside) in [
            ("config.json", true),
            ("1_Pooling/config.json", true),
            ("1_Pooling/deep/config.json", true),
            ("link/config.json", false),
            ("link/own/config.json", false),
            ("none/config.json", false),
        ] {
            assert_eq!(lies_inside(&own, name), inside, "{name}");
        }
    }

    #[test]
    fn what_a_disk_cannot_hold_is_not_begun() {
        let model = HubModel::parse("hf:acme/tiny").unwrap();
        let room = |missing, free| require_room(&model, Path::new("models/tiny"), missing, free);
        assert!(room(10, Some(10)).is_ok() && room(10, None).is_ok());
        let error = room(2_500_000, Some(1_000_000)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot pull `acme/tiny`: expected room for 2.5 MB in `models/tiny`, got 1.0 MB left on its disk"
        );
        assert!(error.hint().unwrap().contains("--yes"));
        assert!(free_bytes(Path::new(".")).is_some_and(|free| free > 0));
    }
}
