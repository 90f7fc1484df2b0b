//! Tags: names that users give to runs. They are stored in one file in the folder of runs.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use frostbert_cache::{durable::write_file, wording::nearest};
use serde::Serialize;

use crate::{
    config::text_file,
    error::{Error, Result},
    run_folder::{lock::LOCK_FILE, number_of},
};

/// The name of the file of tags in a folder of runs.
pub(crate) const TAGS_FILE: &str = "tags.json";

/// The maximum size of the file in MiB.
const MAX_MIB: u64 = 16;

/// The tags in a folder of runs, each with the path of its run in that folder, such as `sentiment/002`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags(BTreeMap<String, String>);

/// A change of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TagChange {
    /// The tag.
    pub tag: String,
    /// The run that it refers to now; `None` if it was removed.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown_if_any")]
    pub run: Option<PathBuf>,
    /// The run that it referred to before.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown_if_any")]
    pub before: Option<PathBuf>,
}

impl Tags {
    /// Reads the tags of a folder of runs; there are none if the file does not exist.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or does not map names to runs.
    pub(crate) fn read(runs: &Path) -> Result<Tags> {
        let path = runs.join(TAGS_FILE);
        if !path.exists() {
            return Ok(Tags::default());
        }
        let text = text_file::read(&path, MAX_MIB)?;
        match serde_json::from_str(&text) {
            Ok(tags) => Ok(Tags(tags)),
            Err(error) => Err(Error::Run {
                path,
                expected: "tags and their runs, as {\"production\": \"sentiment/002\"}".into(),
                got: error.to_string(),
                hint: "correct the file, or remove it and tag the runs again".into(),
            }),
        }
    }

    /// Returns the folders of the tagged runs that exist, with links resolved, each with its tag.
    pub(crate) fn folders(&self, runs: &Path) -> Vec<(PathBuf, &str)> {
        let folder = |place: &str| runs.join(place).canonicalize().ok();
        let tags = self.0.iter();
        tags.filter_map(|(tag, place)| Some((folder(place)?, tag.as_str()))).collect()
    }

    /// Returns all tags, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the run that a tag refers to, as a path in the folder of runs.
    pub(crate) fn get(&self, tag: &str) -> Option<&str> {
        self.0.get(tag).map(String::as_str)
    }

    /// Returns the tags of a run and of the runs in its folder; `run` is a path in the folder of runs.
    pub(crate) fn of<'a>(&'a self, run: &'a str) -> impl Iterator<Item = &'a str> {
        let own = move |tagged: &String| Path::new(tagged).starts_with(run);
        self.0.iter().filter(move |(_, tagged)| own(tagged)).map(|(tag, _)| tag.as_str())
    }

    fn write(&self, runs: &Path) -> Result<()> {
        let mut json = serde_json::to_string_pretty(&self.0).expect("names become JSON");
        json.push('\n');
        Ok(write_file(&runs.join(TAGS_FILE), json.as_bytes())?)
    }
}

/// A lock on a folder of runs, held while this process changes its tags or its set of runs. Others wait until it is
/// dropped.
pub(crate) struct Changing {
    _runs: Option<File>,
}

impl Changing {
    /// Waits until no other process holds the lock. On a file system without locks, it does not wait.
    pub(crate) fn begin(runs: &Path) -> Changing {
        let folder = File::open(runs).ok();
        Changing { _runs: folder.filter(|folder| folder.lock().is_ok()) }
    }
}

/// Gives a run a tag. If another run has it, the tag is moved.
///
/// # Errors
/// Returns [`Error::Argument`] if the tag is not a valid name or is the name of runs. Also fails if `run` is not in a
/// folder of runs, or if the tags cannot be written.
pub fn tag(run: &Path, tag: &str) -> Result<TagChange> {
    let (runs, place) = place_of(run)?;
    let refuse = |expected: &str, hint: &str| Error::Argument {
        action: "tag the run",
        expected: expected.into(),
        got: format!("`{tag}`"),
        hint: hint.into(),
    };
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_number = tag.chars().all(|c| c.is_ascii_digit());
    if is_number || tag.starts_with(['.', '-']) || !tag.chars().all(known) {
        let expected = "a tag of letters, digits, -, _ and .";
        return Err(refuse(expected, "name it after its purpose, such as production"));
    }
    if runs.join(tag).is_dir() {
        let expected = "a tag that is not a name of runs";
        return Err(refuse(
            expected,
            "choose another one: this one would hide the runs of that name",
        ));
    }
    let _changing = Changing::begin(&runs);
    let mut tags = Tags::read(&runs)?;
    let before = tags.0.insert(tag.into(), place);
    tags.write(&runs)?;
    Ok(TagChange {
        tag: tag.into(),
        run: Some(run.to_path_buf()),
        before: before.map(|before| runs.join(before)),
    })
}

/// Removes a tag: `tag` is a tag in the folder `runs`, or a path such as `experiments/production`.
///
/// # Errors
/// Returns [`Error::Argument`] if there is no such tag. Also fails if the tags cannot be read or written.
pub fn untag(tag: &Path) -> Result<TagChange> {
    let unknown = |runs: &Path, meant: Option<&str>| {
        let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
        Error::Argument {
            action: "remove the tag",
            expected: format!("a tag of {}", runs.join(TAGS_FILE).display()),
            got: format!("`{}`", tag.display()),
            hint: format!("{meant}see `frostbert runs ls` for the tags that there are"),
        }
    };
    let Some((runs, name)) = folder_and_tag(tag) else {
        return Err(unknown(Path::new("."), None));
    };
    let _changing = Changing::begin(&runs);
    let mut tags = Tags::read(&runs)?;
    let Some(before) = tags.0.remove(name) else {
        return Err(unknown(&runs, nearest(name, tags.names())));
    };
    tags.write(&runs)?;
    Ok(TagChange { tag: name.into(), run: None, before: Some(runs.join(before)) })
}

/// Removes tags. The caller is [`Changing`] the folder of runs.
///
/// # Errors
/// Returns an error if the file of tags is damaged or cannot be written.
pub(crate) fn drop_tags(runs: &Path, dropped: &[String]) -> Result<()> {
    let mut tags = Tags::read(runs)?;
    if !dropped.is_empty() {
        tags.0.retain(|tag, _| !dropped.contains(tag));
        tags.write(runs)?;
    }
    Ok(())
}

/// The folder of runs and the tag that a path may mean: `production` is looked for in the default folder of runs.
pub(crate) fn folder_and_tag(path: &Path) -> Option<(PathBuf, &str)> {
    let name = path.file_name()?.to_str()?;
    let runs = path.parent()?;
    let is_alone = runs.as_os_str().is_empty();
    Some((if is_alone { super::default_dir() } else { runs.to_path_buf() }, name))
}

/// The folder of runs in which a run lies, and the run's path in it.
///
/// # Errors
/// When it lies elsewhere.
pub(crate) fn place_of(run: &Path) -> Result<(PathBuf, String)> {
    let typed = place_in(run);
    let found = typed.or_else(|| place_in(&run.canonicalize().ok()?));
    found.ok_or_else(|| Error::Run {
        path: run.join(LOCK_FILE),
        expected: "a run in a folder of runs, as runs/sentiment/001".into(),
        got: "one that is elsewhere".into(),
        hint: "name it by its folder, or put it into a folder of runs to tag it".into(),
    })
}

fn place_in(run: &Path) -> Option<(PathBuf, String)> {
    let numbered = run.ancestors().find(|folder| folder.file_name().and_then(number_of).is_some());
    let name = numbered?.parent()?;
    name.file_name()?;
    let runs = name.parent()?;
    let place = run.strip_prefix(runs).ok()?.to_str()?.to_string();
    let is_here = runs.as_os_str().is_empty();
    Some((if is_here { PathBuf::from(".") } else { runs.to_path_buf() }, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_lies_in_the_folder_above_its_name() {
        for (run, runs, place) in [
            ("runs/sentiment/002", "runs", "sentiment/002"),
            ("sentiment/002", ".", "sentiment/002"),
            ("/a/001/runs/two/012/topics", "/a/001/runs", "two/012/topics"),
        ] {
            assert_eq!(place_in(Path::new(run)), Some((runs.into(), place.into())), "{run}");
        }
        for run in ["copied", "001", "./001", "runs/sentiment"] {
            assert_eq!(place_in(Path::new(run)), None, "{run}");
        }
    }
}
