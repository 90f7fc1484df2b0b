//! Runs by what people call them: all in a folder of runs, or those of one name.

use std::path::{Path, PathBuf};

use frostbert_cache::wording::nearest;

use crate::{
    error::{Error, Result},
    run_folder::{
        by_name, default_dir, newest_first, number_of,
        tags::{Tags, folder_and_tag},
    },
};

/// Number of runs of a name that a hint lists.
const SHOWN_RUNS: usize = 3;

/// The runs in a folder of runs, or those of one name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunsOf {
    /// The folder of runs.
    pub runs: PathBuf,
    /// The name, if only its runs are meant.
    pub name: Option<String>,
}

impl RunsOf {
    /// Finds what `path` refers to: a folder of runs, the folder of a name in one, or a name in the default folder of runs.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn find(path: &Path) -> Result<RunsOf> {
        // Without a slash at its end, before which there is no name.
        let path: PathBuf = path.components().collect();
        let has_runs = |folder: &Path| newest_first(folder).is_ok_and(|runs| !runs.is_empty());
        let is_of_names = by_name(&path).is_ok_and(|names| !names.is_empty());
        if !is_of_names && has_runs(&path) {
            return RunsOf::of_name(&path);
        }
        let below = default_dir().join(&path);
        if !is_of_names && path.is_relative() && has_runs(&below) {
            return RunsOf::of_name(&below);
        }
        if path.is_dir() {
            return Ok(RunsOf { runs: path, name: None });
        }
        let others = "`frostbert runs ls` lists those in runs";
        let has_any = by_name(&default_dir()).is_ok_and(|names| !names.is_empty());
        let hint = match meant(&path, Known::Names) {
            Some(meant) => format!("{meant} {others}"),
            None if has_any => {
                format!("name the folder that run.dir names, or a name in it: {others}")
            }
            None => "no runs yet: `frostbert run PIPELINE` makes one; if it sets run.dir, name that folder".into(),
        };
        Err(Error::Run {
            path,
            expected: "a folder of runs, or a name of runs".into(),
            got: "no such folder".into(),
            hint,
        })
    }

    /// The runs of the name whose folder this is.
    fn of_name(folder: &Path) -> Result<RunsOf> {
        let named = match folder.file_name() {
            Some(_) => folder.to_path_buf(),
            // As of `.`.
            None => folder.canonicalize().map_err(Error::io("look at", folder))?,
        };
        let name = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let runs = named.parent().filter(|runs| !runs.as_os_str().is_empty());
        Ok(RunsOf { runs: runs.unwrap_or(Path::new(".")).to_path_buf(), name: Some(name) })
    }

    /// The names of the runs, sorted, each with its numbered folders, newest first.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(crate) fn by_name(&self) -> Result<Vec<(String, Vec<PathBuf>)>> {
        let mut names = by_name(&self.runs)?;
        names.retain(|(name, _)| self.name.as_ref().is_none_or(|own| own == name));
        Ok(names)
    }
}

/// What can be named where a run is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Names of runs.
    Names,
    /// Names of runs and tags.
    NamesAndTags,
}

/// Says which runs, or which tag, may have been meant by a path that leads to none, as the start of a hint. Of a numbered
/// run whose name exists but whose number does not, these are the newest runs of that name.
pub(crate) fn meant(path: &Path, known: Known) -> Option<String> {
    let number = path.file_name().filter(|name| number_of(name).is_some());
    let typed = if number.is_some() { path.parent()? } else { path };
    let (runs, typed_name) = folder_and_tag(typed)?;
    let names = by_name(&runs).unwrap_or_default();
    let tags = Tags::read(&runs).unwrap_or_default();
    let tags = tags.names().filter(|_| number.is_none() && known == Known::NamesAndTags);
    let all = names.iter().map(|(name, _)| name.as_str()).chain(tags);
    let name = nearest(typed_name, all)?;
    let folder = typed.with_file_name(name);
    let Some(number) = number else {
        return did_you_mean(&folder, path);
    };
    let (_, numbered) = names.iter().find(|(own, _)| own == name)?;
    if numbered.iter().any(|run| run.file_name() == Some(number)) {
        return did_you_mean(&folder.join(number), path);
    }
    let newest = numbered.iter().filter_map(|run| run.file_name()).take(SHOWN_RUNS);
    let newest: Vec<String> =
        newest.map(|number| folder.join(number).display().to_string()).collect();
    Some(match &newest[..] {
        [only] => format!("the newest run of {name} is {only};"),
        newest => format!("the newest runs of {name} are {};", newest.join(", ")),
    })
}

/// Asks whether a path was meant, unless it is the one that was typed.
fn did_you_mean(meant: &Path, typed: &Path) -> Option<String> {
    (meant != typed).then(|| format!("did you mean {}?", meant.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::run_folder::tags::TAGS_FILE;

    #[test]
    fn runs_are_those_of_a_folder_or_of_a_name_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        for run in ["tiny/001", "tiny/002", "2024/001", "empty"] {
            fs::create_dir_all(runs.join(run)).unwrap();
        }
        let found = |path: &str| RunsOf::find(&runs.join(path)).unwrap();
        let all = found("");
        assert_eq!(all, RunsOf { runs: runs.clone(), name: None });
        assert_eq!(all.by_name().unwrap().len(), 2);
        for path in ["tiny", "tiny/"] {
            let tiny = found(path);
            assert_eq!(tiny, RunsOf { runs: runs.clone(), name: Some("tiny".into()) });
            let numbered = vec![runs.join("tiny/002"), runs.join("tiny/001")];
            assert_eq!(tiny.by_name().unwrap(), [("tiny".to_string(), numbered)]);
        }
        assert_eq!(found("2024").name.as_deref(), Some("2024"));
        let empty = found("empty");
        assert_eq!((&empty.name, empty.by_name().unwrap().len()), (&None, 0));
        let error = RunsOf::find(&runs.join("tinny")).unwrap_err();
        let hint = error.hint().unwrap().to_string();
        let meant = format!("did you mean {}?", runs.join("tiny").display());
        assert!(hint.contains(&meant), "{hint}");
    }

    #[test]
    fn a_hint_never_suggests_what_was_typed() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        for run in ["tiny/001", "tiny/002", "tiny/004", "tiny/005", "other/001"] {
            fs::create_dir_all(runs.join(run)).unwrap();
        }
        fs::write(runs.join(TAGS_FILE), r#"{"production": "tiny/002"}"#).unwrap();
        let hint = |typed: &str, known| {
            let said = meant(&runs.join(typed), known);
            said.map(|said| said.replace(&format!("{}/", runs.display()), ""))
        };
        let both = Known::NamesAndTags;
        assert_eq!(hint("tinny/004", both).unwrap(), "did you mean tiny/004?");
        let newest = "the newest runs of tiny are tiny/005, tiny/004, tiny/002;";
        assert_eq!(hint("tiny/009", both).unwrap(), newest);
        assert_eq!(hint("tinny/009", both).unwrap(), newest);
        assert_eq!(hint("other/009", both).unwrap(), "the newest run of other is other/001;");
        assert_eq!(hint("tiny/004", both), None);
        assert_eq!(hint("prodution", both).unwrap(), "did you mean production?");
        assert_eq!(hint("production", both), None);
        assert_eq!(hint("prodution", Known::Names), None);
        assert_eq!(hint("production", Known::Names), None);
    }
}
