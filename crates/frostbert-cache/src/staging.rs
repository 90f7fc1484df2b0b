//! Writes shards to disk: any thread may write one to a temporary folder, from which it is then moved into place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    durable::sync_folder,
    error::{Error, Result},
    file::damage,
    manifest::{FileEntry, Manifest, Origin, ShardEntry},
    names,
    shard::{DocumentTable, OpenShard, ShardLayout, StateRows},
    state_file::{self, StateMetadata},
    states::StateKind,
    tables,
};

/// The place for a planned shard: all that a thread needs to write it, apart from the shard itself.
pub struct ShardPlace {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
    pub(crate) metadata: StateMetadata,
    /// The existing shard, if states are added to one.
    pub(crate) entry: Option<ShardEntry>,
}

impl ShardPlace {
    /// Writes the files to a temporary folder, with checksums, and syncs them.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or if the existing shard holds other documents; nothing is left
    /// behind then.
    ///
    /// # Panics
    /// Panics if the shard is incomplete.
    pub fn write(self, shard: OpenShard, origin: Origin) -> Result<WrittenShard> {
        assert!(shard.is_complete(), "a shard is written whole");
        let (layout, states) = shard.into_parts();
        let states = states.into_iter().map(Ok);
        let origins = vec![origin];
        let Some(entry) = &self.entry else {
            return write_aside(&self.folder, &self.metadata, &self.name, layout, states, origins);
        };
        if tables::read_documents(&self.folder, entry)? != layout.documents {
            return Err(damage(
                &self.folder.join(&self.name).join(names::DOCUMENTS_FILE),
                "the windows that the tokenizer produces now",
                "different ones".into(),
            ));
        }
        let aside = StagingFolder::new(&self.folder, &self.name)?;
        let files = write_states(&aside.path, &self.metadata, &layout, states, &entry.files)?;
        Ok(WrittenShard {
            name: self.name,
            added: true,
            files,
            origins,
            documents: layout.documents,
            aside,
        })
    }
}

/// A shard, or states to add to one, in a temporary folder, complete and synced. Dropping it removes the folder.
pub struct WrittenShard {
    pub(crate) name: String,
    /// Whether the shard exists and the states are added to it.
    pub(crate) added: bool,
    pub(crate) files: Vec<FileEntry>,
    pub(crate) origins: Vec<Origin>,
    pub(crate) documents: DocumentTable,
    aside: StagingFolder,
}

impl WrittenShard {
    /// Moves a new shard into place; the manifest does not list it yet.
    pub(crate) fn rename(self, folder: &Path) -> Result<ShardEntry> {
        let target = folder.join(&self.name);
        fs::rename(&self.aside.path, &target).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => in_the_way(&target),
            _ => Error::io("rename", &target)(error),
        })?;
        self.aside.renamed();
        sync_folder(folder)?;
        Ok(ShardEntry {
            name: self.name,
            documents: self.documents.len() as u64,
            windows: self.documents.n_windows() as u64,
            tokens: self.documents.n_tokens(),
            origins: self.origins,
            files: self.files,
        })
    }

    /// Moves the files into the existing shard; the manifest does not list them yet.
    pub(crate) fn move_into(&self, shard: &Path) -> Result<()> {
        for file in &self.files {
            let path = shard.join(&file.name);
            let moved = fs::rename(self.aside.path.join(&file.name), &path);
            moved.map_err(Error::io("rename", &path))?;
        }
        sync_folder(shard)
    }
}

/// Writes a new shard to a temporary folder and renames it; the manifest does not list it yet.
///
/// # Errors
/// Returns an error if a file cannot be written; nothing is left behind then.
pub(crate) fn write_shard(
    folder: &Path,
    manifest: &Manifest,
    name: &str,
    layout: ShardLayout,
    states: impl Iterator<Item = Result<StateRows>>,
    origins: Vec<Origin>,
) -> Result<ShardEntry> {
    let metadata = StateMetadata::of(manifest);
    write_aside(folder, &metadata, name, layout, states, origins)?.rename(folder)
}

fn write_aside(
    folder: &Path,
    metadata: &StateMetadata,
    name: &str,
    layout: ShardLayout,
    states: impl Iterator<Item = Result<StateRows>>,
    origins: Vec<Origin>,
) -> Result<WrittenShard> {
    let aside = StagingFolder::new(folder, name)?;
    let mut files = vec![tables::write_documents(&aside.path, &layout.documents)?];
    files.extend(write_states(&aside.path, metadata, &layout, states, &[])?);
    sync_folder(&aside.path)?;
    Ok(WrittenShard {
        name: name.into(),
        added: false,
        files,
        origins,
        documents: layout.documents,
        aside,
    })
}

/// Writes states one after the other, and the tables of tokens and words that they need and that `present` lacks.
fn write_states(
    aside: &Path,
    metadata: &StateMetadata,
    layout: &ShardLayout,
    states: impl Iterator<Item = Result<StateRows>>,
    present: &[FileEntry],
) -> Result<Vec<FileEntry>> {
    let mut files: Vec<FileEntry> = Vec::new();
    for rows in states {
        let rows = rows?;
        let mut known = present.iter().chain(&files);
        match rows.state.kind {
            StateKind::Tokens if known.all(|file| file.name != names::TOKENS_FILE) => {
                files.push(tables::write_tokens(aside, layout)?);
            }
            StateKind::Words if known.all(|file| file.name != names::WORDS_FILE) => {
                files.push(tables::write_words(aside, layout)?);
            }
            _ => {}
        }
        files.push(state_file::write_state(aside, rows, metadata)?);
    }
    Ok(files)
}

/// Builds the error for files of somebody else that are in the place of a shard.
fn in_the_way(path: &Path) -> Error {
    Error::Damage {
        path: path.to_path_buf(),
        expected: "room for a new shard".into(),
        got: "something that does not belong to this cache".into(),
        hint: "move it out of the cache folder and run the same command again".into(),
    }
}

/// A temporary folder in a cache; unless it was renamed, it is removed with its content when dropped.
struct StagingFolder {
    path: PathBuf,
}

impl StagingFolder {
    fn new(folder: &Path, name: &str) -> Result<StagingFolder> {
        let path = folder.join(format!("tmp-{name}"));
        fs::create_dir(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => in_the_way(&path),
            _ => Error::io("create", &path)(error),
        })?;
        Ok(StagingFolder { path })
    }

    fn renamed(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for StagingFolder {
    fn drop(&mut self) {
        if self.path != Path::new("") {
            // On a full disk this makes room again; whatever cannot be removed now, the next writer removes.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
