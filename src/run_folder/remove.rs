//! Runs that somebody names, removed.

use std::{
    env,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    error::{Error, Result},
    run_folder::{
        UNFINISHED, default_dir, finished_in, is_being_written,
        lock::{LOCK_FILE, Lock},
        names::{Known, meant},
        newest_first, number_of,
        prune::{bytes_in, remove},
        tags::{Changing, Tags, drop_tags, folder_and_tag, place_of},
    },
};

/// Runs that can be removed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Removal {
    /// Their folders, each once; none that lies in another of them.
    pub folders: Vec<PathBuf>,
    /// Bytes of their files.
    pub bytes: u64,
    /// Whether those with a tag go too.
    force: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Removed {
    /// The folders that are gone.
    #[serde(serialize_with = "frostbert_cache::wording::paths_shown")]
    pub removed: Vec<PathBuf>,
    /// The tags that went with them.
    pub tags: Vec<String>,
    /// Bytes of the files that are gone.
    pub bytes: u64,
}

impl Removal {
    /// Looks at runs that are to be removed, each named by its own folder, which is also looked for in the default folder of
    /// runs, or by a tag. A name of runs is not taken for its newest run. Nothing is removed.
    ///
    /// # Errors
    /// When one of them is no run, another process writes it, or it has a tag and there is no `force`.
    pub fn of(named: &[PathBuf], force: bool) -> Result<Removal> {
        let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
        for path in named {
            let folder = locate(path)?;
            check(&folder, force)?;
            let whole = without_links(&folder)?;
            if !found.iter().any(|(_, known)| *known == whole) {
                found.push((folder, whole));
            }
        }
        let is_inside = |whole: &PathBuf| {
            found.iter().any(|(_, other)| other != whole && whole.starts_with(other))
        };
        let mut removal = Removal { folders: Vec::new(), bytes: 0, force };
        for (folder, whole) in &found {
            if !is_inside(whole) {
                removal.bytes += bytes_in(folder)?;
                removal.folders.push(folder.clone());
            }
        }
        Ok(removal)
    }

    /// Removes them.
    ///
    /// # Errors
    /// When one of them has changed since, or the disk refuses: what was removed before is gone.
    pub fn carry_out(&self) -> Result<Removed> {
        let mut done = Removed::default();
        for folder in &self.folders {
            let whole = without_links(folder)?;
            let runs = place_of(&whole).ok().map(|(runs, _)| runs);
            // Nobody gives it a tag until it is gone.
            let _changing = runs.as_deref().map(Changing::begin);
            check(folder, self.force)?;
            let tags = tags_of(&whole)?;
            let bytes = bytes_in(folder)?;
            remove(&whole)?;
            if let Some(runs) = &runs {
                drop_tags(runs, &tags)?;
            }
            done.tags.extend(tags);
            done.bytes += bytes;
            done.removed.push(folder.clone());
        }
        Ok(done)
    }
}

/// The folder of a run that somebody named.
fn locate(path: &Path) -> Result<PathBuf> {
    // Without a slash at its end, behind which a link is not seen.
    let named: PathBuf = path.components().collect();
    if is_run(&named) {
        return Ok(named);
    }
    if let Some((runs, tag)) = folder_and_tag(&named) {
        let tags = Tags::read(&runs)?;
        if let Some(place) = tags.get(tag) {
            return Ok(runs.join(place));
        }
    }
    let below = default_dir().join(&named);
    if is_run(&below) {
        return Ok(below);
    }
    Err(no_run(if !named.exists() && below.exists() { below } else { named }))
}

/// Whether a folder holds a lock, or is the numbered one of a run of several tasks. A name of runs can be a number too.
fn is_run(folder: &Path) -> bool {
    let is_numbered = folder.file_name().and_then(number_of).is_some();
    let is_name = || newest_first(folder).is_ok_and(|runs| !runs.is_empty());
    folder.join(LOCK_FILE).is_file()
        || (is_numbered && !is_name() && !finished_in(folder).is_empty())
}

/// Why a folder is no run.
fn no_run(folder: PathBuf) -> Error {
    if is_written(&folder) {
        return Error::RunInUse { run: folder };
    }
    let is_name = newest_first(&folder).is_ok_and(|runs| !runs.is_empty());
    let (got, hint) = match () {
        () if is_name => (
            "a folder of runs",
            "name a run in it, such as runs/sentiment/001; `frostbert runs prune` removes old ones",
        ),
        () if folder.is_dir() => {
            ("a folder without one", "nothing but runs is removed: see `frostbert runs ls`")
        }
        () => ("no such folder", "see `frostbert runs ls` for the runs that there are"),
    };
    let meant = if folder.exists() { None } else { meant(&folder, Known::NamesAndTags) };
    let hint = meant.map_or(hint.into(), |meant| format!("{meant} {hint}"));
    Error::Run {
        path: folder,
        expected: "a run folder with lock.json".into(),
        got: got.into(),
        hint,
    }
}

/// Fails where a run must stay.
fn check(folder: &Path, force: bool) -> Result<()> {
    let refuse = |expected: &str, why: String, hint: String| Error::Argument {
        action: "remove the run",
        expected: expected.into(),
        got: format!("`{}`, {why}", folder.display()),
        hint,
    };
    if folder.is_symlink() {
        let hint = "name the folder that it leads to".into();
        return Err(refuse("the folder of a run", "which is a link".into(), hint));
    }
    if folder.file_name().is_some_and(|name| name == UNFINISHED) {
        let hint = "start the sweep again to finish it".into();
        return Err(refuse("the folder of a run", "what a sweep has done so far".into(), hint));
    }
    if is_written(folder) {
        return Err(Error::RunInUse { run: folder.to_path_buf() });
    }
    if !is_run(folder) {
        return Err(no_run(folder.to_path_buf()));
    }
    let whole = without_links(folder)?;
    let is_inside = env::current_dir().and_then(|here| here.canonicalize());
    if is_inside.is_ok_and(|here| here.starts_with(&whole)) {
        let hint = "go to another folder first".into();
        return Err(refuse("the folder of a run", "in which this command runs".into(), hint));
    }
    let lock = folder.join(LOCK_FILE);
    if lock.is_file() {
        let lock = Lock::read(&lock)?;
        if let Some(missing) = lock.outputs.keys().find(|name| !folder.join(name).is_file()) {
            let why = format!("which has a lock.json and no {missing}");
            let hint = "remove it by hand if it is what is left of a run".into();
            return Err(refuse("the folder of a whole run", why, hint));
        }
    }
    match tags_of(&whole)?.into_iter().next() {
        Some(tag) if !force => Err(refuse(
            "a run without a tag",
            format!("which has the tag {tag}"),
            format!("take it away with `frostbert runs tag --remove {tag}`, or give --force"),
        )),
        _ => Ok(()),
    }
}

/// Returns the tags of a run, and of those in its folder, given as a path without links.
fn tags_of(whole: &Path) -> Result<Vec<String>> {
    let Ok((runs, _)) = place_of(whole) else {
        return Ok(Vec::new());
    };
    let tags = Tags::read(&runs)?;
    let own = tags.folders(&runs).into_iter().filter(|(run, _)| run.starts_with(whole));
    Ok(own.map(|(_, tag)| tag.to_string()).collect())
}

/// Whether a process writes a run, or the run of several tasks that it belongs to.
fn is_written(folder: &Path) -> bool {
    let is_numbered = |folder: &&Path| folder.file_name().and_then(number_of).is_some();
    let above = folder.parent().filter(is_numbered);
    is_being_written(folder) || above.is_some_and(is_being_written)
}

fn without_links(folder: &Path) -> Result<PathBuf> {
    folder.canonicalize().map_err(Error::io("look at", folder))
}
