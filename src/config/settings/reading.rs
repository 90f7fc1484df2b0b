//! Reads the tasks of a pipeline file, and checks the settings of each.

use std::path::{Path, PathBuf};

use crate::{
    config::{
        file::PipelineFile,
        names::Task,
        parse,
        settings::{
            NamedTask, Pipeline, extraction, given_states, is_folder_name,
            prompts::{PromptInput, choose},
            refusal, sources,
        },
    },
    error::Result,
};

impl Pipeline {
    /// Reads and checks a pipeline file of one task, which has no name, or of several tasks.
    ///
    /// # Errors
    /// Returns an error with a hint if a key or a value is unknown or not supported.
    pub fn read_tasks(path: &Path, overrides: &[String]) -> Result<Vec<NamedTask>> {
        check_tasks(path, parse::read(path, overrides)?)
    }

    /// The same, where the cache may be in a bucket: if `cache.dir` is an address, it is returned too, and caches are read
    /// from a folder of this machine instead.
    ///
    /// # Errors
    /// Returns the errors of [`Pipeline::read_tasks`].
    pub(crate) fn read_tasks_of_any_cache(
        path: &Path,
        overrides: &[String],
        folder: &Path,
    ) -> Result<(Vec<NamedTask>, Option<PathBuf>)> {
        let mut files = parse::read(path, overrides)?;
        let mut address = None;
        // All tasks have one [cache].
        for (_, file) in &mut files {
            if extraction::is_address(&file.cache.dir) {
                address = Some(std::mem::replace(&mut file.cache.dir, folder.to_path_buf()));
            }
        }
        Ok((check_tasks(path, files)?, address))
    }
}

fn check_tasks(
    path: &Path,
    mut files: Vec<(Option<String>, PipelineFile)>,
) -> Result<Vec<NamedTask>> {
    if files.iter().any(|(_, file)| file.data.task == Task::Qa) {
        for (_, file) in &mut files {
            extraction::set_qa_defaults(&mut file.cache);
        }
    }
    for name in files.iter().filter_map(|(name, _)| name.as_ref()) {
        if !is_folder_name(name) {
            return Err(refusal(path)(
                format!("a task has the name `{name}`, which cannot be the name of a folder"),
                "use letters, digits, - and _, as in [tasks.sentiment]".into(),
            ));
        }
    }
    let checked = files.into_iter().map(|(name, mut file)| {
        sources::tell_json(&mut file);
        // A lock is not held to this: it may be of a release that took such keys and did nothing with them.
        sources::refuse_keys_of_questions(&mut file.data, &refusal(path))?;
        given_states::check(&file, &refusal(path))?;
        let mut notes = sources::find_texts(&mut file);
        let chosen = choose(&mut file, PromptInput::Key, &refusal(path))?;
        notes.extend(chosen.notes);
        let mut pipeline = Pipeline::check(path, file)?;
        pipeline.warnings.extend(chosen.warnings);
        pipeline.notes.extend(notes);
        pipeline.prompt_is_default = chosen.takes_default;
        Ok(NamedTask { name, pipeline })
    });
    checked.collect()
}
