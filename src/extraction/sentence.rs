//! The sentence vector of a sentence-transformers folder as a state that no cache holds: it is computed from the pooled
//! states of the last layer when they are read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use frostbert_cache::{
    about::About,
    export::DerivedState,
    fingerprint::{Digest, FingerprintInputs},
    reader::CacheReader,
    states::StateId,
};
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::{
    config::settings::Pipeline,
    encoder::{
        checkpoint::Checkpoint,
        sentence_folder::{SentenceFolder, SentenceVector},
    },
    error::{Error, Result},
    features::RowMap,
};

/// The name of the state.
pub(crate) const SENTENCE: &str = "sentence";

/// The sentence vector of a model, with the states that it is computed from.
#[derive(Clone, Debug)]
pub(crate) struct SentenceState {
    vector: SentenceVector,
    states: Vec<StateId>,
}

impl SentenceState {
    /// Reads how a model makes the vector of a text; `None` if its folder is not one of sentence-transformers.
    ///
    /// # Errors
    /// Returns an error that names what in the folder this program does not compute.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Result<Option<SentenceState>> {
        let Some(folder) = SentenceFolder::read(&checkpoint.folder)? else {
            return Ok(None);
        };
        let vector = folder.vector(checkpoint.config.hidden, checkpoint.lowercase)?;
        Ok(Some(SentenceState { states: vector.states(checkpoint.config.layers), vector }))
    }

    /// Returns how the vectors are made of these states, each of `hidden` values, in the folder of a pipeline's model,
    /// which made them and is read once.
    ///
    /// # Errors
    /// Returns the errors of [`SentenceState::required`], and one if the states are not those that the folder asks for.
    pub(crate) fn of_pipeline(
        pipeline: &Pipeline,
        hidden: usize,
        states: &[StateId],
    ) -> Result<SentenceState> {
        let folder = &pipeline.extraction.model;
        let vector = pipeline.sentence_vector(hidden)?.ok_or_else(|| no_modules(folder))?;
        let last = states.first().map_or(0, |state| state.layer);
        if vector.states(last) != states {
            return Err(Error::Checkpoint {
                path: folder.to_path_buf(),
                expected: format!("a sentence vector made of {states:?}"),
                got: format!("one of {}", vector.describe()),
                hint: "put the modules back that the head was trained with, or train again".into(),
            });
        }
        Ok(SentenceState { states: states.to_vec(), vector })
    }

    /// The hash of what is computed from the states.
    pub(crate) fn digest(&self) -> Digest {
        self.vector.digest()
    }

    /// Like [`SentenceState::of`], for a model that must have such a vector.
    ///
    /// # Errors
    /// Returns an error too if the folder is not one of sentence-transformers.
    pub(crate) fn required(checkpoint: &Checkpoint) -> Result<SentenceState> {
        SentenceState::of(checkpoint)?.ok_or_else(|| no_modules(&checkpoint.folder))
    }

    /// How the pooled states become the vector.
    pub(crate) fn vector(&self) -> &SentenceVector {
        &self.vector
    }

    /// The pooled states that it is computed from, in their order.
    pub(crate) fn states(&self) -> &[StateId] {
        &self.states
    }

    /// How it is computed, in words.
    pub(crate) fn describe(&self) -> String {
        self.vector.describe()
    }
}

fn no_modules(folder: &Path) -> Error {
    Error::Checkpoint {
        path: folder.to_path_buf(),
        expected: "a sentence-transformers folder, whose modules.json says what a sentence vector is".into(),
        got: if folder.is_dir() { "a folder without modules.json" } else { "no such folder" }.into(),
        hint: "ask for a pooling: cls, mean or max; or name the folder that sentence-transformers saved".into(),
    }
}

impl DerivedState for SentenceState {
    fn name(&self) -> &str {
        SENTENCE
    }

    fn states(&self) -> &[StateId] {
        &self.states
    }

    fn width(&self) -> usize {
        self.vector.n_values()
    }

    fn compute(&self, states: &[f32], out: &mut [f32]) {
        self.vector.compute(states, out);
    }
}

impl RowMap for SentenceState {
    fn n_rows(&self, _: u32, n_stored: usize) -> usize {
        n_stored
    }

    fn n_features(&self, _: usize) -> usize {
        self.vector.n_values()
    }

    fn map(&self, _: u32, stored: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
        for (states, mut vector) in stored.rows().into_iter().zip(out.rows_mut()) {
            let vector = vector.as_slice_mut().expect("a row is contiguous");
            self.vector.compute(&states.to_vec(), vector);
        }
    }
}

/// Returns how the model that made a cache computes sentence vectors: the model in `folder`, or if that is `None`, in a
/// folder that the pipeline or the cache itself names.
///
/// # Errors
/// Returns an error if no folder is known, or none holds the model that made the cache, or that has no such vector.
pub fn sentence_of_cache(
    cache: &CacheReader,
    folder: Option<&Path>,
    pipeline: Option<&Pipeline>,
) -> Result<Arc<dyn DerivedState>> {
    let checkpoint = model_of_cache(cache, folder, pipeline)?;
    Ok(Arc::new(SentenceState::required(&checkpoint)?))
}

/// Opens the model that made a cache: the one in `folder`, or if that is `None`, in a folder that the pipeline or the
/// cache itself names.
///
/// # Errors
/// Returns an error if no folder is known, or none holds that model.
pub(super) fn model_of_cache(
    cache: &CacheReader,
    folder: Option<&Path>,
    pipeline: Option<&Pipeline>,
) -> Result<Checkpoint> {
    let mut folders: Vec<PathBuf> = folder.map(Path::to_path_buf).into_iter().collect();
    if folders.is_empty() {
        let models = pipeline.iter().flat_map(|pipeline| pipeline.by_model());
        folders.extend(models.map(|own| own.extraction.model));
        folders.extend(About::read(cache.folder()).folder.map(PathBuf::from));
    }
    let mut problem = None;
    for folder in &folders {
        match model_that_made(cache, folder, pipeline) {
            Ok(Some(checkpoint)) => return Ok(checkpoint),
            Ok(None) => {
                let other = refuse(
                    format!("the model that made the cache `{}`", cache.folder().display()),
                    format!("`{}`, which holds another", folder.display()),
                );
                problem.get_or_insert(other);
            }
            Err(error) => {
                problem.get_or_insert(error);
            }
        }
    }
    Err(problem.unwrap_or_else(|| {
        refuse(
            "the folder of the model, which holds the modules after the encoder".into(),
            "a cache that names no sentence-transformers folder".into(),
        )
    }))
}

/// The folder that a cache notes of the model that makes it: that of sentence-transformers, in which more lies than the
/// states need.
pub(crate) fn folder_to_note(checkpoint: &Checkpoint) -> Option<String> {
    SentenceFolder::read(&checkpoint.folder).ok()??;
    checkpoint.folder.canonicalize().ok()?.to_str().map(String::from)
}

/// Opens the model in a folder if it made the cache. Without a pipeline, the `model.lowercase` that the cache was made
/// with is not known, and is found by the hash of the tokenizer.
fn model_that_made(
    cache: &CacheReader,
    folder: &Path,
    pipeline: Option<&Pipeline>,
) -> Result<Option<Checkpoint>> {
    let inputs = &cache.manifest().inputs;
    let given = pipeline.and_then(|pipeline| pipeline.extraction.lowercase);
    let checkpoint = Checkpoint::open_with_lowercase(folder, given)?;
    if made(&checkpoint, inputs) {
        return Ok(Some(checkpoint));
    }
    let own = &checkpoint.hashes;
    if pipeline.is_some() || (own.weights, own.config) != (inputs.weights, inputs.config) {
        return Ok(None);
    }
    // A tokenizer without such a choice refuses both.
    let others = [true, false].into_iter();
    let mut others =
        others.filter_map(|case| Checkpoint::open_with_lowercase(folder, Some(case)).ok());
    Ok(others.find(|checkpoint| made(checkpoint, inputs)))
}

/// Whether a cache with these inputs was computed by a model.
fn made(checkpoint: &Checkpoint, inputs: &FingerprintInputs) -> bool {
    let own = &checkpoint.hashes;
    (own.weights, own.config, own.tokenizer) == (inputs.weights, inputs.config, inputs.tokenizer)
}

fn refuse(expected: String, got: String) -> Error {
    Error::Argument {
        action: "export vectors",
        expected,
        got,
        hint: "name the model's folder with --model, or a pipeline with --pipeline".into(),
    }
}
