//! Locates the files of a run, since its run folder, model, data and cache may have been moved after the run.
//!
//! A path in a lock is used unchanged, unless the caller says that it was moved. A file that does not exist is searched
//! for in a few places ([`RunPlaces`]), and used if its hash is the one in the lock.

use std::path::{Component, Path, PathBuf};

use crate::{
    config::file::{Labels, PipelineFile, Sources},
    data::hash_of_path,
    encoder::checkpoint::{self, CheckpointHashes},
    error::{Error, Result},
    run_folder::lock::Lock,
};

/// What a caller says about the files of a run that were moved since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relocation {
    /// The new folder of the model.
    pub model: Option<PathBuf>,
    /// Prefixes of paths when the run was made, each with its replacement.
    pub moved: Vec<(PathBuf, PathBuf)>,
    /// The folder that relative paths are resolved against; `None` for the current folder.
    pub root: Option<PathBuf>,
}

impl Relocation {
    /// Returns whether nothing was moved.
    pub fn is_empty(&self) -> bool {
        *self == Relocation::default()
    }

    /// Returns the new path for a path of the run.
    fn path(&self, path: &Path) -> PathBuf {
        let whole = without_dots(path);
        let moved = self.moved.iter().filter_map(|(old, new)| {
            let old = without_dots(old);
            let rest = whole.strip_prefix(&old).ok()?;
            let is_itself = rest.as_os_str().is_empty();
            let now = if is_itself { new.clone() } else { new.join(rest) };
            Some((old.components().count(), now))
        });
        // The longest matching prefix is the most specific.
        match (moved.max_by_key(|(length, _)| *length), &self.root) {
            (Some((_, now)), _) => now,
            (None, Some(root)) => root.join(path),
            (None, None) => path.to_path_buf(),
        }
    }

    /// Changes every path of a pipeline to its new path.
    pub(crate) fn apply(&self, file: &mut PipelineFile) {
        file.run.dir = self.path(&file.run.dir);
        let has_model = !file.model.path.as_os_str().is_empty();
        if has_model {
            for path in [&mut file.cache.dir, &mut file.model.path] {
                *path = self.path(path);
            }
        }
        each_data_path(file, |path| *path = self.path(path));
        if let Some(model) = self.model.as_ref().filter(|_| has_model) {
            file.model.path.clone_from(model);
        }
    }
}

/// Visits the path of every data file of a pipeline.
fn each_data_path(file: &mut PipelineFile, mut visit: impl FnMut(&mut PathBuf)) {
    let data = &mut file.data;
    let given = [Some(&mut data.train), data.validation.as_mut(), data.test.as_mut()];
    for Sources(sources) in given.into_iter().flatten() {
        for source in sources {
            visit(&mut source.path);
            source.label_path.iter_mut().for_each(&mut visit);
        }
    }
    if let Some(Labels::File(path)) = &mut data.labels {
        visit(path);
    }
}

/// Removes `.` components from a path.
fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The places where the files of a run are searched for if they are not where its lock says.
#[derive(Clone, Debug)]
pub(crate) struct RunPlaces {
    /// The folder that the run's relative paths were relative to, inferred from the location of the run: for
    /// `runs/sentiment/001`, the folder that contains `runs`. `None` if it is the current folder or unknown.
    home: Option<PathBuf>,
}

impl RunPlaces {
    /// Creates the places for a run in `folder` that was made with this `run.dir`.
    pub(crate) fn of(folder: &Path, run_dir: &Path) -> RunPlaces {
        let here = Path::new(".").canonicalize().ok();
        RunPlaces { home: home_of(folder, run_dir).filter(|home| Some(home) != here.as_ref()) }
    }

    /// Returns where a file or folder of the run may be: at its path, or at its path relative to the home of the run.
    pub(crate) fn of_path(&self, path: &Path) -> Vec<PathBuf> {
        let home = self.home.iter().filter(|_| path.is_relative());
        std::iter::once(path.to_path_buf()).chain(home.map(|home| home.join(path))).collect()
    }

    /// Returns where the folder of the run's model may be: as in [`RunPlaces::of_path`], or under its name in a folder
    /// `models`.
    pub(crate) fn of_model(&self, path: &Path) -> Vec<PathBuf> {
        let mut places = self.of_path(path);
        if let Some(name) = path.file_name() {
            for place in self.of_path(&Path::new("models").join(name)) {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places
    }

    /// If a model does not exist, changes its path to a folder with the same bytes, if one is found, and returns a
    /// note. `lowercase` is the `model.lowercase` of the run.
    pub(crate) fn find_model(
        &self,
        path: &mut PathBuf,
        lowercase: Option<bool>,
        model: &CheckpointHashes,
    ) -> Option<String> {
        if path.exists() {
            return None;
        }
        let mut others = self.of_model(path).into_iter().skip(1);
        let place = others.find(|place| is_model(place, lowercase, model))?;
        let note = found_elsewhere(path, &place);
        *path = place;
        Some(note)
    }

    /// Returns the folder of caches that contains the cache of this fingerprint, if it is not `cache_dir`.
    pub(crate) fn of_cache(&self, cache_dir: &Path, fingerprint: &str) -> Option<PathBuf> {
        let mut places = self.of_path(cache_dir).into_iter();
        let is_there = places.next().is_some_and(|own| own.join(fingerprint).is_dir());
        places.find(|place| !is_there && place.join(fingerprint).is_dir())
    }
}

/// Returns the note that a file or folder was found elsewhere.
fn found_elsewhere(path: &Path, place: &Path) -> String {
    format!(
        "{} is not there: {} has the same bytes, and is read instead",
        path.display(),
        place.display()
    )
}

/// Returns the folder that relative paths were relative to when the run in `folder` was made.
fn home_of(folder: &Path, run_dir: &Path) -> Option<PathBuf> {
    let run_dir = without_dots(run_dir);
    if !run_dir.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let folder = folder.canonicalize().ok()?;
    // Below the folder of runs are a name and a number, and the task if there are several.
    let runs = [2, 3].into_iter().filter_map(|depth| folder.ancestors().nth(depth));
    let runs = { runs }.find(|runs| runs.ends_with(&run_dir))?;
    runs.ancestors().nth(run_dir.components().count()).map(Path::to_path_buf)
}

/// Returns whether a folder contains the model with these hashes.
fn is_model(folder: &Path, lowercase: Option<bool>, expected: &CheckpointHashes) -> bool {
    let hashes = checkpoint::hash_files(folder, lowercase);
    let expected = [&expected.weights, &expected.config, &expected.tokenizer];
    hashes.is_ok_and(|files| {
        files.iter().zip(expected).all(|((_, got), expected)| got.as_ref() == Some(expected))
    })
}

impl Lock {
    /// Changes the paths in the lock of a run in `folder` to where its files are now. Returns one line for each file
    /// that was found by its hash.
    ///
    /// # Errors
    /// When a file cannot be read, or one folder is said to be that of several models.
    pub(crate) fn relocate(
        &mut self,
        folder: &Path,
        relocation: &Relocation,
    ) -> Result<Vec<String>> {
        let places = RunPlaces::of(folder, &self.pipeline.run.dir);
        relocation.apply(&mut self.pipeline);
        let mut notes = self.relocate_models(&places, relocation)?;
        if let Some(hashes) = &self.model
            && self.models.is_empty()
            && relocation.model.is_none()
        {
            let model = &mut self.pipeline.model;
            notes.extend(places.find_model(&mut model.path, model.lowercase, hashes));
        }
        for file in &mut self.data {
            let old = relocation.path(&file.path);
            file.path.clone_from(&old);
            if old.exists() {
                continue;
            }
            for place in places.of_path(&old).into_iter().skip(1) {
                if place.exists() && hash_of_path(&place)?.as_ref() == Some(&file.blake3) {
                    notes.push(found_elsewhere(&old, &place));
                    file.path.clone_from(&place);
                    each_data_path(&mut self.pipeline, |path| {
                        if *path == old {
                            path.clone_from(&place);
                        }
                    });
                    break;
                }
            }
        }
        let cache = places.of_cache(&self.pipeline.cache.dir, &self.cache.fingerprint);
        if let Some(cache) = cache.filter(|_| self.model.is_some()) {
            self.pipeline.cache.dir = cache;
        }
        Ok(notes)
    }

    /// As [`Lock::relocate`], of the models that a sweep compared. They keep the names that the sweep has for them, which
    /// stand in its leaderboard.
    fn relocate_models(
        &mut self,
        places: &RunPlaces,
        relocation: &Relocation,
    ) -> Result<Vec<String>> {
        if let (Some(_), [first, _, ..]) = (&relocation.model, &self.models[..]) {
            return Err(Error::Argument {
                action: "replay the sweep",
                expected: format!("a folder for each of its {} models", self.models.len()),
                got: "one folder with --model".into(),
                hint: format!(
                    "say where each of them is, as in --moved {}=DIR, or where all paths start with --root DIR",
                    first.path.display()
                ),
            });
        }
        let mut notes = Vec::new();
        for model in &mut self.models {
            let old = relocation.model.clone().unwrap_or_else(|| relocation.path(model.folder()));
            let mut path = old.clone();
            let lowercase = self.pipeline.model.lowercase;
            notes.extend(places.find_model(&mut path, lowercase, &model.model));
            if self.pipeline.model.path == old {
                self.pipeline.model.path.clone_from(&path);
            }
            model.moved_to = (path != model.path).then_some(path);
        }
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_starts_anew_by_the_longest_that_fits_else_at_the_root() {
        let path = |from: &str, to: &str| (PathBuf::from(from), PathBuf::from(to));
        let relocation = Relocation {
            model: None,
            moved: vec![path("./data", "/new"), path("data/old/a.csv", "b.csv")],
            root: Some("/project".into()),
        };
        for (old, new) in [
            ("data/x.csv", "/new/x.csv"),
            ("./data/old/a.csv", "b.csv"),
            ("data2/x.csv", "/project/data2/x.csv"),
            ("/elsewhere/x.csv", "/elsewhere/x.csv"),
        ] {
            assert_eq!(relocation.path(Path::new(old)), Path::new(new), "{old}");
        }
        assert_eq!(Relocation::default().path(Path::new("./a")), Path::new("./a"));
    }
}
