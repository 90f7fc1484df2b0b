//! The run that somebody means: by its folder, by the name of runs, or by a tag.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Result},
    run_folder::{
        default_dir,
        lock::{LOCK_FILE, Lock, is_finished},
        newest_first, passed_over, resolve,
        tags::{TAGS_FILE, Tags, folder_and_tag},
    },
};

/// A run that was found, and what is to be said about it.
#[derive(Debug, Default)]
pub(crate) struct FoundRun {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// How it was chosen among others.
    pub(crate) notes: Vec<String>,
    /// In what it is another one than may be expected.
    pub(crate) warnings: Vec<String>,
    /// Newer runs of the same name that cannot be used: their locks are not whole, or of another version.
    pub(crate) passed_over: Vec<PathBuf>,
}

/// Finds a run: `path` is its folder, or a folder of runs, or a tag; the last two are also looked for in the default
/// folder of runs. A tag goes before a name.
///
/// # Errors
/// When there is no finished run, or a tag names one that is not there.
pub(crate) fn find(path: &Path) -> Result<FoundRun> {
    if path.join(LOCK_FILE).is_file() {
        return Ok(FoundRun { folder: path.to_path_buf(), ..FoundRun::default() });
    }
    if let Some(tagged) = tagged(path)? {
        return Ok(tagged);
    }
    let runs = folder_of(path);
    let folder = resolve(&runs)?;
    let passed_over = passed_over(&runs, &folder);
    let mut found = FoundRun { passed_over, ..FoundRun::default() };
    let older = newest_first(&runs)?.into_iter().skip_while(|run| *run != folder).skip(1);
    if let Some(before) = { older }.find(|run| is_finished(run)) {
        found.notes.push(format!("the newest run of {} is used", runs.display()));
        found.warnings.extend(what_changed(&before, &folder)?);
    }
    found.folder = folder;
    Ok(found)
}

/// The run of a tag, where `path` is one.
fn tagged(path: &Path) -> Result<Option<FoundRun>> {
    let Some((runs, tag)) = folder_and_tag(path) else {
        return Ok(None);
    };
    let tags = Tags::read(&runs)?;
    let Some(place) = tags.get(tag) else {
        return Ok(None);
    };
    let folder = runs.join(place);
    if !folder.join(LOCK_FILE).is_file() {
        return Err(Error::Run {
            path: runs.join(TAGS_FILE),
            expected: format!("a run that has the tag `{tag}`"),
            got: format!("no run in {}", folder.display()),
            hint: format!(
                "give the tag to another run with `frostbert runs tag RUN {tag}`, or remove it with --remove"
            ),
        });
    }
    let mut found = FoundRun::default();
    found.notes.push(format!("the run with the tag {tag} is used"));
    if runs.join(tag).is_dir() {
        found.warnings.push(format!(
            "{tag} is both a tag and a name of runs: the run with the tag is used, {}",
            folder.display()
        ));
    }
    found.folder = folder;
    Ok(Some(found))
}

/// The folder that a path means: a name without a folder of its own is one of the default folder of runs.
fn folder_of(path: &Path) -> PathBuf {
    let below = default_dir().join(path);
    let is_own = !path.is_relative() || newest_first(path).is_ok_and(|runs| !runs.is_empty());
    if is_own || !below.is_dir() { path.to_path_buf() } else { below }
}

/// In what a run is of something else than the one before.
fn what_changed(before: &Path, newest: &Path) -> Result<Option<String>> {
    let [one, other] = [before, newest].map(|run| Lock::read(&run.join(LOCK_FILE)));
    let (one, other) = (one?, other?);
    let hashes = |lock: &Lock| lock.data.iter().map(|file| file.blake3).collect::<Vec<_>>();
    let differing = [
        ("another task", one.pipeline.data.task != other.pipeline.data.task),
        ("other labels", one.labels != other.labels),
        ("other data", hashes(&one) != hashes(&other)),
    ];
    let named = differing.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what);
    let named: Vec<&str> = named.collect();
    Ok((!named.is_empty()).then(|| {
        format!(
            "{} has {} than {} before it: name a run's folder, or a tag, to use another",
            newest.display(),
            named.join(" and "),
            before.display()
        )
    }))
}
