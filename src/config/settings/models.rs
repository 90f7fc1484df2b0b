//! The models that a sweep compares: each has a cache of its own.

use std::path::{Path, PathBuf};

use frostbert_cache::states::StateId;
use toml::Value;

use crate::{
    config::{
        file::PipelineFile,
        keys::MODEL_PATH,
        settings::{ExtractionSettings, LayerChoice, Pipeline, extraction::stored_layers},
    },
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
};

/// A model that a sweep compares with others.
#[derive(Clone, Debug)]
pub(crate) struct SweptModel {
    /// Its folder, as the pipeline file names it.
    pub name: PathBuf,
    /// Where the folder is: elsewhere in the replay of a run whose files have moved.
    pub path: PathBuf,
    /// The layers to store of it.
    layers: LayerChoice,
}

/// The models that the sweep of a file compares, each once: those that it names, and that of `[model]` where settings name
/// none. Without such a sweep there are none.
///
/// # Errors
/// When a value is no name of a folder, or a list names a model twice.
pub(super) fn swept_models(
    file: &PipelineFile,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<Vec<SweptModel>> {
    let Some(section) = file.sweep.as_ref().filter(|section| section.compares_models()) else {
        return Ok(Vec::new());
    };
    if let Some(Value::Array(listed)) = section.keys.get(MODEL_PATH) {
        let mut listed = listed.iter().enumerate().map(|(place, name)| (&listed[..place], name));
        if let Some((_, name)) = listed.find(|(before, name)| before.contains(name)) {
            return Err(refuse(
                format!("sweep.model.path names {name} twice"),
                "name every model once".into(),
            ));
        }
    }
    let mut names: Vec<PathBuf> = Vec::new();
    for value in section.values(MODEL_PATH) {
        let Some(name) = value.as_str() else {
            return Err(refuse(
                format!("sweep.model.path is {value}, but a model is named by its folder"),
                "name folders, as in model.path = [\"models/minilm\", \"models/other\"]".into(),
            ));
        };
        names.push(name.into());
    }
    if section.leaves_out(&[MODEL_PATH]) {
        names.push(file.model.path.clone());
    }
    let mut models: Vec<SweptModel> = Vec::new();
    for name in names {
        if models.iter().all(|model| model.name != name) {
            let layers = stored_layers(file, &name);
            models.push(SweptModel { path: name.clone(), name, layers });
        }
    }
    Ok(models)
}

impl Pipeline {
    /// The pipeline as stage 1 is to do it for each of the models: itself alone, where no models are compared.
    pub(crate) fn by_model(&self) -> Vec<Pipeline> {
        if self.models.is_empty() {
            return vec![self.clone()];
        }
        let own = |model: &SweptModel| Pipeline {
            extraction: ExtractionSettings {
                model: model.path.clone(),
                layers: model.layers.clone(),
                ..self.extraction.clone()
            },
            ..self.clone()
        };
        self.models.iter().map(own).collect()
    }

    /// Checks that a model can do what stage 1 asks of it. Returns the states to store.
    ///
    /// # Errors
    /// When an input is longer than the model's positions, or a layer or the precision is none of the model's.
    pub(crate) fn check_model(&self, checkpoint: &Checkpoint) -> Result<Vec<StateId>> {
        self.check_length(checkpoint)?;
        let states = self.stored_states(checkpoint.config.layers)?;
        let layers: Vec<usize> = states.iter().map(|state| state.layer).collect();
        checkpoint.check_layers(&layers)?;
        checkpoint.check_precision(self.extraction.precision)?;
        Ok(states)
    }

    /// The pipeline with the models of its sweep where their folders are now, each by its name.
    pub(crate) fn with_models_at<'p>(
        mut self,
        folders: impl Iterator<Item = (&'p Path, &'p Path)>,
    ) -> Pipeline {
        for (name, folder) in folders {
            for model in self.models.iter_mut().filter(|model| model.name == name) {
                model.path = folder.to_path_buf();
            }
        }
        self
    }

    /// Where the folder of a model is that a setting names.
    pub(super) fn folder_of_model(&self, name: &Value) -> Option<PathBuf> {
        let name = Path::new(name.as_str()?);
        let model = self.models.iter().find(|model| model.name == name)?;
        Some(model.path.clone())
    }

    /// An error of one of several models, with its name and the key that names it.
    pub(crate) fn naming_model(&self, error: Error) -> Error {
        if self.models.is_empty() {
            return error;
        }
        let model = &self.extraction.model;
        let is_own = *model == self.file.model.path;
        let key = if is_own { MODEL_PATH.to_string() } else { format!("sweep.{MODEL_PATH}") };
        match error {
            Error::Pipeline { file, line, column, problem, hint } => {
                let problem = format!("{problem} (the model `{}` of {key})", model.display());
                Error::Pipeline { file, line, column, problem, hint }
            }
            Error::Checkpoint { path, expected, got, hint } => {
                let hint = format!("{} names it in {key}: {hint}", self.path.display());
                Error::Checkpoint { path, expected, got, hint }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sweep: &str) -> Result<Pipeline> {
        let text = format!(
            "[model]\npath = \"own\"\n[data]\ntrain = {{ path = \"data.csv\" }}\n[sweep]\n{sweep}"
        );
        Pipeline::check("pipeline.toml".as_ref(), toml::from_str(&text).unwrap())
    }

    /// The models in their order, each with the layers that are stored of it.
    fn models(sweep: &str) -> Vec<(String, LayerChoice)> {
        let pipelines = check(sweep).unwrap().by_model().into_iter();
        let models = pipelines.map(|own| own.extraction);
        models.map(|own| (own.model.display().to_string(), own.layers)).collect()
    }

    fn model(name: &str, layers: &[i64]) -> (String, LayerChoice) {
        (name.to_string(), LayerChoice::Listed(layers.to_vec()))
    }

    #[test]
    fn each_model_that_is_compared_has_the_layers_that_its_heads_read() {
        assert_eq!(models("lr = [0.1]"), [model("own", &[-1])]);
        let both = [model("a", &[1, -1]), model("b", &[1, -1])];
        assert_eq!(models("model.path = [\"a\", \"b\"]\nlayer = [1, -1]"), both);
        // Settings that name no model have that of [model].
        let given = "[[sweep.settings]]\nmodel.path = \"a\"\nlayer = 9\n\
                     [[sweep.settings]]\nlr = 0.1\n[[sweep.settings]]\nmodel.path = \"a\"\nlayer = 3";
        assert_eq!(models(given), [model("a", &[9, 3]), model("own", &[-1])]);
        let listed = "model.path = [\"a\", \"own\"]\nlayer = [1]\n[[sweep.settings]]\nlayer = 2";
        assert_eq!(models(listed), [model("a", &[1]), model("own", &[1, 2])]);
    }

    #[test]
    fn layers_that_the_file_names_are_those_of_every_model() {
        let text = "[model]\npath = \"own\"\n[data]\ntrain = { path = \"data.csv\" }\n\
                    [cache]\nlayers = [0]\n[sweep]\nmodel.path = [\"a\", \"b\"]";
        let file: PipelineFile = toml::from_str(text).unwrap();
        let pipeline = Pipeline::check("pipeline.toml".as_ref(), file).unwrap();
        assert!(pipeline.by_model().iter().all(|own| own.extraction.layers == model("", &[0]).1));
        // What the lock keeps says the same again.
        for pipeline in [pipeline, check("model.path = [\"a\"]\nlayer = [2]").unwrap()] {
            let of_lock = Pipeline::check("lock.json".as_ref(), pipeline.file().clone()).unwrap();
            let layers = |pipeline: &Pipeline| pipeline.by_model()[0].extraction.layers.clone();
            assert_eq!(layers(&of_lock), layers(&pipeline));
        }
    }

    #[test]
    fn a_model_that_has_moved_keeps_its_name() {
        let pipeline = check("model.path = [\"a\", \"b\"]").unwrap();
        let moved = [(Path::new("b"), Path::new("elsewhere/b"))].into_iter();
        let pipeline = pipeline.with_models_at(moved);
        assert_eq!(pipeline.folder_of_model(&"a".into()), Some("a".into()));
        assert_eq!(pipeline.folder_of_model(&"b".into()), Some("elsewhere/b".into()));
        assert_eq!(pipeline.by_model()[1].extraction.model, Path::new("elsewhere/b"));
    }

    #[test]
    fn what_names_no_model_or_one_twice_is_refused() {
        for (sweep, expected) in [
            ("model.path = [\"a\", \"b\", \"a\"]", "sweep.model.path names \"a\" twice"),
            ("model.path = [\"a\", 3]", "sweep.model.path is 3, but a model is named"),
            ("model.path = { min = 1, max = 2 }\ntrials = 2", "but a model is named"),
        ] {
            let error = check(sweep).unwrap_err().to_string();
            assert!(error.contains(expected), "{sweep}: {error}");
        }
    }
}
