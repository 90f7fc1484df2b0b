//! The defaults that a sentence-transformers folder has for keys of a pipeline file, and the states that heads read.

use std::path::{Path, PathBuf};

use frostbert_cache::states::{Pooling, StateId};

use crate::{
    config::{
        file::{
            PipelineFile,
            sweep::SweepSection,
            unfreeze::{UnfreezeKey, UnfreezeWord},
        },
        keys::MODEL_PATH,
        names::{HeadPooling, Store, Task},
        settings::Pipeline,
    },
    encoder::sentence_folder::{SentenceFolder, SentenceVector},
    error::{Error, Result},
};

/// The defaults of the folder of a model, where a pipeline file leaves keys to it.
#[derive(Clone, Debug, Default)]
pub(super) struct FolderDefaults {
    /// The pooling of `"auto"`.
    pub(super) pooling: HeadPooling,
    /// Whether `head.pooling` was left to the folder.
    pub(super) is_auto: bool,
    /// The states that a sentence vector is made of, in their order; none if no head reads one.
    pub(super) sentence: Vec<Store>,
    /// What was taken, in a line.
    pub(super) note: Option<String>,
    /// What the folder asks for and a named pooling goes without.
    pub(super) warning: Option<String>,
}

/// How a model's folder makes sentence vectors, with what it was read for.
#[derive(Clone, Debug)]
pub(super) struct ReadVector {
    model: PathBuf,
    lowercase: Option<bool>,
    hidden: usize,
    vector: SentenceVector,
}

/// Fills in what a file leaves to the folder of its model: `head.pooling`, and `cache.max_length` if the folder is one
/// of sentence-transformers. A sweep over models compares all of them by the same values, so their folders are not
/// asked.
///
/// # Errors
/// Returns an error if the folder asks for something that is not computed, or a head is to read sentence vectors that
/// the folder does not describe.
pub(super) fn fill_in(
    file: &mut PipelineFile,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<FolderDefaults> {
    if file.data.has_given_states() {
        return Ok(FolderDefaults { pooling: HeadPooling::Mean, ..FolderDefaults::default() });
    }
    let compares = file.sweep.as_ref().is_some_and(SweepSection::compares_models);
    let folder = if compares { None } else { SentenceFolder::read(&file.model.path)? };
    let is_open = file.cache.max_length.is_none() || file.head.pooling == HeadPooling::Auto;
    let not_asked = is_open && compares && compares_folders(file);
    let mut taken = Vec::new();
    if file.cache.max_length.is_none()
        && file.data.task != Task::Qa
        && let Some(folder) = &folder
        && let Some(length) = folder.max_length()?
    {
        file.cache.max_length = Some(length);
        taken.push(format!("cache.max_length = {length}"));
    }
    let mut defaults = FolderDefaults { pooling: HeadPooling::Mean, ..FolderDefaults::default() };
    if file.model.lowercase.is_none() {
        defaults.warning = folder.as_ref().and_then(SentenceFolder::keeps_case);
    }
    let values = file.sweep.iter().flat_map(|section| section.values("pooling"));
    // An invalid pooling is refused when the trials are made.
    let mut read: Vec<HeadPooling> =
        values.filter_map(|value| value.clone().try_into().ok()).collect();
    read.push(file.head.pooling);
    defaults.is_auto = file.head.pooling == HeadPooling::Auto;
    if !file.data.task.reads_pooled() {
        if defaults.is_auto {
            file.head.pooling = defaults.pooling;
        }
        defaults.note = note_of(file, taken, not_asked);
        return Ok(defaults);
    }
    // A model with a vector of each token has no pooling of its own.
    let pools = match &folder {
        Some(folder) => !folder.has_token_vectors()?,
        None => false,
    };
    if read.contains(&HeadPooling::Auto)
        && let Some(folder) = folder.as_ref().filter(|_| pools)
    {
        defaults.pooling = match folder.poolings(file.model.lowercase)?[..] {
            [Pooling::Cls] => HeadPooling::Cls,
            [Pooling::Mean] => HeadPooling::Mean,
            [Pooling::Max] => HeadPooling::Max,
            // Poolings side by side are what the sentence vector is made of.
            _ => HeadPooling::Sentence,
        };
        read.push(defaults.pooling);
    }
    if defaults.is_auto {
        file.head.pooling = defaults.pooling;
        if pools {
            taken.push(format!("head.pooling = {}", defaults.pooling));
        }
    }
    if read.contains(&HeadPooling::Sentence) {
        defaults.sentence = match &folder {
            Some(folder) => {
                let poolings = folder.poolings(file.model.lowercase)?;
                poolings.into_iter().map(Store::of_pooling).collect()
            }
            None if compares => {
                return Err(refuse(
                    "the pooling \"sentence\" is another for each model, and sweep.model.path compares several"
                        .into(),
                    "name cls, mean, max or attention".into(),
                ));
            }
            // That there is no such folder is found when the model is opened.
            None if !file.model.path.exists() => vec![Store::Mean],
            None => {
                return Err(refuse(
                    format!(
                        "the pooling is \"sentence\", but `{}` has no modules.json, as sentence-transformers writes it",
                        file.model.path.display()
                    ),
                    "name cls, mean, max or attention".into(),
                ));
            }
        };
    }
    defaults.note = note_of(file, taken, not_asked);
    Ok(defaults)
}

/// Whether one of the models that a sweep compares is a sentence-transformers folder.
fn compares_folders(file: &PipelineFile) -> bool {
    let mut names = file.sweep.iter().flat_map(|section| section.values(MODEL_PATH));
    names.any(|name| {
        let folder = name.as_str().map(|name| SentenceFolder::read(Path::new(name)));
        matches!(folder, Some(Ok(Some(_))))
    })
}

/// Says which values were taken from the folder.
fn note_of(file: &PipelineFile, taken: Vec<String>, not_asked: bool) -> Option<String> {
    if not_asked {
        let note = "what sentence-transformers folders say of head.pooling and cache.max_length is not asked where a \
                    sweep compares models: set both for all of them";
        return Some(note.into());
    }
    let folder = file.model.path.display();
    let taken = taken.join(", ");
    (!taken.is_empty())
        .then(|| format!("taken from the sentence-transformers folder {folder}: {taken}"))
}

impl Pipeline {
    /// Whether the head reads the vector that sentence-transformers makes of a text.
    pub(crate) fn reads_sentence(&self) -> bool {
        self.data.task.reads_pooled() && self.head.pooling == HeadPooling::Sentence
    }

    /// Returns the way from pooled states of `hidden` values to the vector of a text, as the folder of the model says it;
    /// `None` if that is not one of sentence-transformers. The folder is read once.
    ///
    /// # Errors
    /// Returns an error that names what this program does not compute, or the file that does not fit.
    pub(crate) fn sentence_vector(&self, hidden: usize) -> Result<Option<SentenceVector>> {
        let (model, lowercase) = (&self.extraction.model, self.extraction.lowercase);
        // A copy of a pipeline may be of another model.
        let is_same = |read: &&ReadVector| {
            (&read.model, read.lowercase, read.hidden) == (model, lowercase, hidden)
        };
        if let Some(read) = self.read_vector.get().filter(is_same) {
            return Ok(Some(read.vector.clone()));
        }
        let Some(folder) = SentenceFolder::read(model)? else {
            return Ok(None);
        };
        let vector = folder.vector(hidden, lowercase)?;
        let model = model.clone();
        // Where another model's was read, this one is read every time.
        let _ =
            self.read_vector.set(ReadVector { model, lowercase, hidden, vector: vector.clone() });
        Ok(Some(vector))
    }

    /// Whether the head, or one of those that the sweep compares, reads such vectors.
    pub(crate) fn compares_sentences(&self) -> bool {
        !self.sentence.is_empty()
    }

    /// Returns the number of the encoder's last layers that are trained with the head, in a model of `model_layers`
    /// layers.
    ///
    /// # Errors
    /// Returns an error if the model has fewer.
    pub(crate) fn unfrozen_layers(&self, model_layers: usize) -> Result<usize> {
        match self.file().unfreeze() {
            None => Ok(0),
            Some(UnfreezeKey::Named(UnfreezeWord::All)) => Ok(model_layers),
            Some(UnfreezeKey::Last(n)) if n <= model_layers => Ok(n),
            Some(UnfreezeKey::Last(n)) => Err(self.refuse(
                format!("train.unfreeze is {n}, but the model has {model_layers} layers"),
                format!("set train.unfreeze to {model_layers} or less"),
            )),
        }
    }

    /// Returns the states that the head reads, in a model of `model_layers` layers: one for each of its layers, or
    /// those that the sentence vector is made of.
    ///
    /// # Errors
    /// Returns an error if the head reads no layer, reads one twice, or reads one that the model does not have, or that
    /// no sentence vector is made of.
    pub fn head_states(&self, model_layers: usize) -> Result<Vec<StateId>> {
        if let Some(state) = self.given_state() {
            return Ok(vec![state]);
        }
        let refuse = |problem: String, hint: String| self.refuse(problem, hint);
        self.unfrozen_layers(model_layers)?;
        let layers = self.head.layers.numbers(model_layers, "head.layers", &refuse)?;
        if layers.is_empty() {
            return Err(self.refuse(
                "head.layers is empty".into(),
                "name a layer, as in [-1], or several to be mixed".into(),
            ));
        }
        if self.reads_sentence() && layers != [model_layers] {
            return Err(self.refuse(
                format!(
                    "head.layers is {layers:?}, but sentence vectors are made of the last layer, {model_layers}"
                ),
                "leave head.layers out, or set head.pooling to cls, mean, max or attention".into(),
            ));
        }
        let kinds = match self.file().unfreeze() {
            Some(_) => vec![Store::Tokens],
            None => self.head.pooling.stores(self.data.task, &self.sentence),
        };
        let mut states: Vec<StateId> = Vec::new();
        for layer in layers {
            if states.iter().any(|state| state.layer == layer) {
                return Err(self.refuse(
                    format!("head.layers names layer {layer} twice"),
                    "name every layer once".into(),
                ));
            }
            states.extend(kinds.iter().map(|store| StateId { kind: store.kind(), layer }));
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipeline on a model whose folder says `max_seq_length` 24 and this pooling.
    fn check(pooling: &str, task: &str, more: &str) -> Result<Pipeline> {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let modules = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
                          {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
        write("modules.json", modules);
        write("sentence_bert_config.json", r#"{"max_seq_length": 24}"#);
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        write("1_Pooling/config.json", &format!("{{\"pooling_mode\": {pooling}}}"));
        let text = format!(
            "[model]\npath = {:?}\n[data]\ntask = \"{task}\"\ntrain = {{ path = \"a.csv\" }}\n{more}",
            folder.path()
        );
        Pipeline::check(Path::new("p.toml"), toml::from_str(&text).unwrap())
    }

    #[test]
    fn what_a_file_leaves_open_is_taken_from_the_folder_and_said() {
        let pipeline = check("\"cls\"", "classification", "").unwrap();
        assert_eq!(pipeline.file().cache.max_length, Some(24));
        assert_eq!(pipeline.file().head.pooling, HeadPooling::Cls);
        assert_eq!(pipeline.file().cache.store, Some(vec![Store::Cls]));
        let note = &pipeline.notes[0];
        assert!(note.ends_with(": cache.max_length = 24, head.pooling = cls"), "{note}");

        let given = "[cache]\nmax_length = 12\n[head]\npooling = \"max\"";
        let pipeline = check("\"cls\"", "classification", given).unwrap();
        assert_eq!(pipeline.file().cache.max_length, Some(12));
        assert_eq!(pipeline.file().cache.store, Some(vec![Store::Max]));
        assert!(pipeline.notes.is_empty(), "{:?}", pipeline.notes);
    }

    #[test]
    fn poolings_side_by_side_are_read_as_the_sentence_vector_of_the_last_layer() {
        let pipeline = check("[\"mean\", \"cls\"]", "classification", "").unwrap();
        assert_eq!(pipeline.file().cache.store, Some(vec![Store::Mean, Store::Cls]));
        let states = pipeline.head_states(2).unwrap();
        let names: Vec<String> = states.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["mean-L02", "cls-L02"]);
        let middle = "[head]\npooling = \"sentence\"\nlayers = [1]";
        let pipeline = check("\"mean\"", "classification", middle).unwrap();
        let error = pipeline.head_states(2).unwrap_err().to_string();
        assert!(error.contains("sentence vectors are made of the last layer, 2"), "{error}");
    }

    #[test]
    fn a_pooling_that_is_not_computed_stops_only_those_who_leave_it_to_the_folder() {
        let error = check("\"lasttoken\"", "classification", "").unwrap_err().to_string();
        assert!(error.contains("`lasttoken`"), "{error}");
        assert!(check("\"lasttoken\"", "classification", "[head]\npooling = \"cls\"").is_ok());
        assert!(check("\"lasttoken\"", "tokens", "").is_ok());
    }

    #[test]
    fn a_case_that_the_tokenizer_does_not_give_stops_those_who_leave_the_pooling_to_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let modules = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
                          {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
        write("modules.json", modules);
        write("sentence_bert_config.json", r#"{"max_seq_length": 24, "do_lower_case": true}"#);
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        write("1_Pooling/config.json", r#"{"pooling_mode": "cls"}"#);
        let check = |is_lower: bool, more: &str| {
            let tokenizer = serde_json::json!({
                "model": { "type": "WordPiece", "vocab": { "[UNK]": 0, "a": 1 }, "unk_token": "[UNK]" },
                "normalizer": { "type": "BertNormalizer", "lowercase": is_lower },
            });
            write("tokenizer.json", &tokenizer.to_string());
            let text = format!(
                "[data]\ntrain = {{ path = \"a.csv\" }}\n[model]\npath = {:?}\n{more}",
                folder.path()
            );
            Pipeline::check(Path::new("p.toml"), toml::from_str(&text).unwrap())
        };
        assert!(check(true, "").is_ok());
        assert!(check(false, "lowercase = true").is_ok());
        // Those who name a pooling are told.
        let warned =
            |is_lower: bool, more: &str| check(is_lower, more).unwrap().warnings.join("\n");
        let said = warned(false, "[head]\npooling = \"cls\"");
        assert!(
            said.contains("do_lower_case") && said.contains("model.lowercase = true"),
            "{said}"
        );
        for (is_lower, more) in [
            (true, "[head]\npooling = \"cls\""),
            (false, "lowercase = true\n[head]\npooling = \"cls\""),
            (false, "lowercase = false\n[head]\npooling = \"cls\""),
        ] {
            assert_eq!(warned(is_lower, more), "", "{more}");
        }
        for (is_lower, more) in
            [(false, ""), (true, "lowercase = false"), (false, "[head]\npooling = \"sentence\"")]
        {
            let error = check(is_lower, more).unwrap_err().to_string();
            assert!(error.contains("a tokenizer that lower-cases"), "{more}: {error}");
        }
    }

    #[test]
    fn sentence_vectors_need_a_folder_that_describes_them_and_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let text = |more: &str| {
            format!(
                "[model]\npath = {:?}\n[data]\ntrain = {{ path = \"a.csv\" }}\n[head]\npooling = \"sentence\"\n{more}",
                folder.path()
            )
        };
        for (more, expected) in [
            ("", "has no modules.json"),
            ("[sweep]\nmodel.path = [\"a\", \"b\"]", "is another for each model"),
        ] {
            let file = toml::from_str(&text(more)).unwrap();
            let error = Pipeline::check(Path::new("p.toml"), file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
