//! Pipelines whose rows bring their states with them: vectors that another model made. They have no model and no cache,
//! and their heads read one vector a row.

use frostbert_cache::states::StateId;

use crate::{
    config::{
        file::{CacheSection, DataSection, HeadSection, PipelineFile, sweep::SweepSection},
        settings::{ExtractionSettings, Pipeline},
    },
    data::Source,
    error::{Error, Result},
};

impl DataSection {
    /// Iterates over the sources of train, validation and test, as the file has them.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let given = [Some(&self.train), self.validation.as_ref(), self.test.as_ref()];
        given.into_iter().flatten().flat_map(|sources| &sources.0)
    }

    /// Whether the rows bring their states with them.
    pub(crate) fn has_given_states(&self) -> bool {
        self.sources().any(Source::has_vectors)
    }
}

impl Pipeline {
    /// The state that the rows bring with them; `None` if an encoder computes the states.
    pub(crate) fn given_state(&self) -> Option<StateId> {
        let source = &self.data.train[0];
        source.has_vectors().then(|| StateId::given(&source.vectors_name()))
    }
}

impl ExtractionSettings {
    /// Returns an error if there is no encoder, because the rows bring their states with them. `action` is what needs
    /// one.
    pub(crate) fn require_encoder(&self, action: &'static str) -> Result<()> {
        let Some(source) = self.sources.iter().find(|source| source.has_vectors()) else {
            return Ok(());
        };
        Err(Error::Argument {
            action,
            expected: "a model that encodes texts".into(),
            got: format!(
                "none: the rows bring vectors of another model with them (`{}` of {})",
                source.vectors_name(),
                source.path.display()
            ),
            hint: "`predict RUN FILE` and `evaluate RUN --data FILE` read such vectors from a file; other commands need a \
                   pipeline with [model]"
                .into(),
        })
    }
}

/// Checks a pipeline file for keys that do not go together with vectors of another model, and for a missing model.
///
/// # Errors
/// Returns an error that names the key.
pub(super) fn check(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let Some(source) = file.data.sources().find(|source| source.has_vectors()) else {
        return Ok(());
    };
    let what = format!("{} has vectors of another model", source.path.display());
    if let Some(other) = file.data.sources().find(|source| !source.has_vectors()) {
        return Err(refuse(
            format!("{what}, but {} has none", other.path.display()),
            "set `state` in every source to its column of vectors, or in none".into(),
        ));
    }
    let without = |key: &str, reason: &str| {
        Err(refuse(format!("{key} is set, but {what}: {reason}"), format!("leave {key} out")))
    };
    if !file.model.path.as_os_str().is_empty() {
        return without("model.path", "nothing is encoded");
    }
    if file.cache != CacheSection::default() {
        return without("[cache]", "there is no cache");
    }
    let task = file.data.task;
    if let Some(reason) = task.facts().unfit_for_vectors {
        return Err(refuse(
            format!("{what}, but the task `{task}` {reason}"),
            "set data.task to classification, multilabel or regression".into(),
        ));
    }
    if file.data.pair.is_some() {
        return without("data.pair", "there are no texts");
    }
    for source in file.data.sources() {
        if let Some(key) = key_of_texts(source) {
            return without(&format!("`{key}` of a source"), "there are no texts");
        }
    }
    let default = HeadSection::default();
    if file.head.layers != default.layers {
        return without("head.layers", "there are no layers");
    }
    if file.head.pooling != default.pooling {
        return without("head.pooling", "nothing is pooled");
    }
    let Some(sweep) = &file.sweep else { return Ok(()) };
    if SweepSection::compares_models(sweep) {
        return without("sweep.model.path", "nothing is encoded");
    }
    for (key, reason) in [
        ("layer", "there are no layers"),
        ("layers", "there are no layers"),
        ("pooling", "nothing is pooled"),
    ] {
        if sweep.values(key).next().is_some() {
            return without(&format!("sweep.{key}"), reason);
        }
    }
    Ok(())
}

/// Returns an error if there is no model and the rows bring no states with them.
pub(super) fn require_model(
    file: &PipelineFile,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    if file.data.has_given_states() || !file.model.path.as_os_str().is_empty() {
        return Ok(());
    }
    Err(refuse(
        "missing field `model`: no model is named".into(),
        "name the folder of one, as in [model] path = \"models/minilm\"; or, if the rows bring vectors of another model \
         with them, their column with `state` of every source"
            .into(),
    ))
}

/// The first key of a source that only texts have.
fn key_of_texts(source: &Source) -> Option<&'static str> {
    let keys = [
        ("text", source.text.is_some()),
        ("text_pair", source.text_pair.is_some()),
        ("prompt", source.prompt.is_some()),
        ("pair_prompt", source.pair_prompt.is_some()),
        ("pattern", source.pattern.is_some()),
        ("words", source.words.is_some()),
        ("tags", source.tags.is_some()),
    ];
    keys.into_iter().find_map(|(key, is_set)| is_set.then_some(key))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::settings::refusal;

    const TRAIN: &str = "train = { path = \"a.parquet\", state = \"e\" }";

    fn checked(toml: &str) -> Result<(), String> {
        let file: PipelineFile = toml::from_str(toml).unwrap();
        let path = Path::new("p.toml");
        let checked = check(&file, &refusal(path)).and_then(|()| Pipeline::check(path, file));
        checked.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pipeline_with_states_of_its_own_needs_no_model_and_others_do() {
        assert_eq!(checked(&format!("[data]\n{TRAIN}")), Ok(()));
        assert_eq!(checked("[data]\ntrain = { path = \"a.npy\", label_path = \"a.csv\" }"), Ok(()));
        let error = checked("[data]\ntrain = { path = \"a.csv\" }").unwrap_err();
        assert!(error.contains("no model is named"), "{error}");
        let file: PipelineFile = toml::from_str(&format!("[data]\n{TRAIN}")).unwrap();
        let pipeline = Pipeline::check(Path::new("p.toml"), file).unwrap();
        assert_eq!(pipeline.given_state(), Some(StateId::given("e")));
        assert_eq!(pipeline.head_states(0).unwrap(), [StateId::given("e")]);
        assert!(pipeline.extraction.require_encoder("serve").is_err());
        // What the lock holds is read again.
        let table = toml::Table::try_from(pipeline.file()).unwrap();
        let toml = toml::to_string(&table).unwrap();
        assert_eq!(checked(&toml), Ok(()), "{toml}");
    }

    #[test]
    fn what_does_not_go_together_with_vectors_is_refused_by_its_key() {
        let data = format!("[data]\n{TRAIN}");
        for (toml, expected) in [
            (format!("[model]\npath = \"m\"\n{data}"), "model.path is set"),
            (format!("{data}\n[cache]\ndtype = \"f32\""), "[cache] is set"),
            (format!("{data}\ntask = \"tokens\""), "the task `tokens` reads a state for each word"),
            (format!("{data}\ntask = \"qa\""), "the task `qa` reads a state for each token"),
            (format!("{data}\ntask = \"similarity\""), "the task `similarity` compares"),
            (format!("{data}\npair = \"joint\""), "data.pair is set"),
            (format!("{data}\ntest = {{ path = \"b.csv\" }}"), "but b.csv has none"),
            (format!("{data}\n[head]\nlayers = [3]"), "head.layers is set"),
            (format!("{data}\n[head]\npooling = \"cls\""), "head.pooling is set"),
            (format!("{data}\n[sweep]\nlayer = [1, 2]"), "sweep.layer is set"),
            (format!("{data}\n[sweep]\npooling = [\"cls\"]"), "sweep.pooling is set"),
            (format!("{data}\n[sweep]\nmodel.path = [\"a\", \"b\"]"), "sweep.model.path is set"),
            (data.replace(" }", ", text = \"t\" }"), "`text` of a source is set"),
            (data.replace(" }", ", text_pair = \"t\" }"), "`text_pair` of a source is set"),
            (data.replace(" }", ", prompt = \"t\" }"), "`prompt` of a source is set"),
        ] {
            let error = checked(&toml).unwrap_err();
            assert!(error.contains(expected), "{toml}\n{error}");
        }
    }
}
