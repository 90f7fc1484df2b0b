//! The folder of a sentence-transformers model: the modules after the encoder, and what the folder says of its inputs.
//!
//! Paths and keys are read as versions 2 to 6 of sentence-transformers write them; the versions differ in the names of
//! classes, in where the encoder lies, and in how they spell the pooling. What cannot be computed from pooled states is
//! refused by its name, but only when it is asked for: the encoder itself runs all the same.

mod dense;
mod module;
mod poolings;
mod query_expansion;
mod summary;
mod token_mask;
mod token_vectors;
mod vector;

use std::path::{Path, PathBuf};

use dense::Dense;
use frostbert_cache::{states::Pooling, wording::shorten};
use module::{FolderModule, SENTENCE};
pub(crate) use query_expansion::QueryExpansion;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
pub use summary::{MultiVectorSummary, SentenceSummary};
pub(crate) use token_mask::{TextRole, TokenFilter};
pub(crate) use token_vectors::TokenVectors;
pub(crate) use vector::{SentenceVector, VectorStep};

use super::{
    config::ConfigFile,
    sentence_files::{MODEL_SETTINGS, MODULES, POOLING_FOLDER},
    tokenizer_file::TokenizerFile,
    weights,
};
use crate::error::{Error, Result};

/// Settings of the encoder: the first name is today's, the others are of versions before 2.
const ENCODER_SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// The keys of these settings, old and new, that go to transformers as they are and have no effect here.
const NOT_READ: [&str; 7] = [
    "model_args",
    "model_kwargs",
    "config_args",
    "config_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "processing_kwargs",
];

/// The classes that run an encoder: today's, and those of the first releases.
const ENCODERS: [&str; 7] =
    ["Transformer", "BERT", "RoBERTa", "DistilBERT", "CamemBERT", "ALBERT", "XLMRoBERTa"];

const FETCH_AGAIN: &str = "fetch the model again, or name a pooling: cls, mean or max";
const NAME_A_POOLING: &str =
    "name a pooling that is stored: cls, mean or max (head.pooling, embed --pooling)";
const USE_TOKEN_VECTORS: &str = "use these vectors (similar --multi-vector, embed --pooling multi-vector, cache export \
                                 --state multi-vector), or name a pooling: cls, mean or max";

/// A sentence-transformers folder.
#[derive(Clone, Debug)]
pub struct SentenceFolder {
    folder: PathBuf,
    /// At least one.
    modules: Vec<FolderModule>,
}

/// The keys of [`MODEL_SETTINGS`] that are read here.
#[derive(Default, Deserialize)]
struct ModelSettings {
    model_type: Option<String>,
    truncate_dim: Option<usize>,
    similarity_fn_name: Option<String>,
}

/// The keys of [`ENCODER_SETTINGS`] that are read here.
#[derive(Default, Deserialize)]
struct EncoderFileSettings {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
    document_length: Option<usize>,
    query_length: Option<usize>,
    query_expansion: Option<Value>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl SentenceFolder {
    /// Reads the list of modules of a folder; `None` if there is none, as in any other model folder.
    ///
    /// # Errors
    /// Returns an error if the list cannot be read or leads out of the folder.
    pub fn read(folder: &Path) -> Result<Option<SentenceFolder>> {
        let modules = FolderModule::read_list(folder)?;
        Ok(modules.map(|modules| SentenceFolder { folder: folder.to_path_buf(), modules }))
    }

    /// The names of the modules, in order.
    pub fn parts(&self) -> Vec<&str> {
        self.modules.iter().map(FolderModule::name).collect()
    }

    /// The poolings of the encoder's last layer that make the vector of a text, in the order in which they are
    /// concatenated. `lowercase` is the `model.lowercase` of the pipeline.
    ///
    /// # Errors
    /// Returns an error that names the class or the pooling that this program does not compute, or the tokenizer if it
    /// does not lower-case although the folder asks for it.
    pub fn poolings(&self, lowercase: Option<bool>) -> Result<Vec<Pooling>> {
        self.check_modules()?;
        let poolings = poolings::read(&self.modules[1].folder)?;
        self.check_case(lowercase)?;
        Ok(poolings)
    }

    /// The way from the pooled states of the encoder's last layer, each of `hidden` values, to the vector of a text.
    /// `lowercase` is the `model.lowercase` of the pipeline.
    ///
    /// # Errors
    /// Returns an error that names what this program does not compute, or the file that does not fit.
    pub(crate) fn vector(&self, hidden: usize, lowercase: Option<bool>) -> Result<SentenceVector> {
        let poolings = self.poolings(lowercase)?;
        poolings::check_width(&self.modules[1].folder, hidden)?;
        let n_inputs = poolings.len() * hidden;
        let mut width = n_inputs;
        let mut steps = Vec::new();
        for module in &self.modules[2..] {
            match module.name() {
                "Dense" => {
                    module.check_names(SENTENCE, SENTENCE)?;
                    let dense = Dense::read(&module.folder, width)?;
                    width = dense.n_outputs();
                    steps.push(VectorStep::Dense(dense));
                }
                "Normalize" => {
                    module.check_names(SENTENCE, SENTENCE)?;
                    steps.push(VectorStep::Normalize);
                }
                // Dropout drops nothing outside training.
                _ => {}
            }
        }
        let kept = match self.settings()?.truncate_dim {
            Some(0) => {
                let expected = "a truncate_dim of at least 1".into();
                let path = self.folder.join(MODEL_SETTINGS);
                return Err(refuse(&path, expected, "0".into(), NAME_A_POOLING));
            }
            Some(most) => most.min(width),
            None => width,
        };
        Ok(SentenceVector { poolings, n_inputs, steps, width, kept })
    }

    /// The longest input in tokens that the folder asks for: `document_length` where it makes a vector of each token,
    /// else `max_seq_length`, else `model_max_length` of the tokenizer, else the positions of the model; never more
    /// than these. `None` if the folder says nothing.
    ///
    /// # Errors
    /// Returns an error if one of the files cannot be read.
    pub fn max_length(&self) -> Result<Option<usize>> {
        let has_token_vectors = self.has_token_vectors()?;
        let document = self.encoder_settings()?.document_length;
        self.length_of(document.filter(|_| has_token_vectors))
    }

    /// The longest input in tokens, where this one is asked for or, if it is `None`, what the folder says of any input.
    fn length_of(&self, asked: Option<usize>) -> Result<Option<usize>> {
        let encoder = &self.modules[0].folder;
        let mut asked = asked.or(self.encoder_settings()?.max_seq_length);
        let tokenizer = encoder.join("tokenizer_config.json");
        if asked.is_none() && tokenizer.is_file() {
            let settings: Map<String, Value> = json(&tokenizer, "the settings of a tokenizer")?;
            // Where nothing is known, transformers writes 1e30, which is no whole number of 64 bits.
            let length = settings.get("model_max_length").and_then(Value::as_u64);
            asked = length.and_then(|length| usize::try_from(length).ok());
        }
        let config = encoder.join("config.json");
        let positions =
            if config.is_file() { positions(&ConfigFile::read(&config)?) } else { None };
        let lengths = [asked, positions].into_iter().flatten();
        Ok(lengths.min().map(|length| length.min(usize::from(u16::MAX))))
    }

    /// The files of the modules after the encoder: those that must be there, and others if they are.
    pub(super) fn files_of_modules(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for module in &self.modules[1..] {
            let config = module.folder.join("config.json");
            if ["Pooling", "Dense"].contains(&module.name()) || config.is_file() {
                files.push(config);
            }
            let missing = (module.name() == "Dense").then_some(weights::SINGLE_FILE);
            let missing = missing.map(|name| module.folder.join(name));
            files.extend(weights::find(&module.folder).or(missing));
        }
        files
    }

    /// What the folder says that has no effect here, in words.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be read.
    pub fn ignored(&self) -> Result<Vec<String>> {
        let used: &[&str] =
            if self.has_token_vectors()? { &token_vectors::SIMILARITIES } else { &["cosine"] };
        let similarity = self.settings()?.similarity_fn_name;
        let other = similarity.filter(|name| !used.contains(&name.as_str()));
        let mut ignored: Vec<String> =
            other.map(|name| format!("similarity_fn_name = {name}")).into_iter().collect();
        let settings = self.encoder_settings()?.others;
        for key in NOT_READ {
            let given = settings.get(key).and_then(Value::as_object);
            if given.is_some_and(|given| !given.is_empty()) {
                ignored.push(format!("{key} = {}", shorten(&settings[key].to_string(), 80)));
            }
        }
        for module in &self.modules {
            if module.kwargs.as_array().is_some_and(|names| !names.is_empty()) {
                let names = module.kwargs.to_string();
                ignored.push(format!("kwargs = {} of {}", shorten(&names, 80), module.name()));
            }
        }
        Ok(ignored)
    }

    /// Checks that the modules are an encoder, a pooling, and what can follow it.
    fn check_modules(&self) -> Result<()> {
        let path = self.folder.join(MODULES);
        if self.has_token_vectors()? {
            let expected = "modules that make one vector of a text".into();
            let got = "modules that make one of each token".into();
            return Err(refuse(&path, expected, got, USE_TOKEN_VECTORS));
        }
        for (place, module) in self.modules.iter().enumerate() {
            let (is_known, expected) = match place {
                0 => {
                    (ENCODERS.contains(&module.name()), "the class Transformer as the first module")
                }
                1 => (module.name() == "Pooling", "the class Pooling as the second module"),
                _ => (
                    ["Dense", "Normalize", "Dropout"].contains(&module.name()),
                    "the classes Dense, Normalize and Dropout after the pooling",
                ),
            };
            if !is_known {
                return Err(refuse_class(&path, expected, module));
            }
            if !module.is_of_package() {
                return Err(refuse_class(&path, "classes of sentence-transformers", module));
            }
        }
        if self.modules.len() < 2 {
            let expected = "a pooling after the encoder".into();
            return Err(refuse(&path, expected, "the encoder alone".into(), NAME_A_POOLING));
        }
        match self.settings()?.model_type {
            Some(kind) if kind != "SentenceTransformer" => Err(refuse(
                &self.folder.join(MODEL_SETTINGS),
                "the model_type SentenceTransformer".into(),
                format!("`{kind}`"),
                NAME_A_POOLING,
            )),
            _ => Ok(()),
        }
    }

    /// Checks that a text is lower-cased where the folder asks for it: here only the tokenizer does so.
    fn check_case(&self, lowercase: Option<bool>) -> Result<()> {
        if self.has_its_case(lowercase)? {
            return Ok(());
        }
        Err(refuse(
            &self.tokenizer(),
            "a tokenizer that lower-cases, because do_lower_case of the encoder is true".into(),
            "one that does not".into(),
            "set model.lowercase = true, or name a pooling: cls, mean or max (head.pooling, embed --pooling)",
        ))
    }

    /// Says that the folder asks for lower case and its tokenizer leaves texts as they are; `None` where they agree. A
    /// tokenizer that cannot be read is reported when the model is opened.
    pub(crate) fn keeps_case(&self) -> Option<String> {
        let keeps = self.has_its_case(None).is_ok_and(|has_its_case| !has_its_case);
        keeps.then(|| {
            format!(
                "the sentence-transformers folder {} asks for lower case (do_lower_case), but its tokenizer keeps the \
                 case of texts: set model.lowercase = true, or to false to keep it",
                self.folder.display()
            )
        })
    }

    /// Returns whether the folder asks for lower case and its tokenizer leaves texts as they are, but has the choice.
    pub(crate) fn needs_lowercase(&self) -> bool {
        self.keeps_case().is_some() && self.has_its_case(Some(true)).is_ok_and(|has_case| has_case)
    }

    /// Whether a text is lower-cased if the folder asks for it.
    fn has_its_case(&self, lowercase: Option<bool>) -> Result<bool> {
        if !self.encoder_settings()?.do_lower_case {
            return Ok(true);
        }
        let file = TokenizerFile::open_with_lowercase(&self.tokenizer(), lowercase)?;
        let tokenizer: Value = serde_json::from_slice(&file.json).unwrap_or_default();
        Ok(lowers_case(&tokenizer["normalizer"]))
    }

    fn tokenizer(&self) -> PathBuf {
        self.modules[0].folder.join("tokenizer.json")
    }

    fn settings(&self) -> Result<ModelSettings> {
        let path = self.folder.join(MODEL_SETTINGS);
        if path.is_file() { json(&path, "the settings of a model") } else { Ok(Default::default()) }
    }

    fn encoder_settings(&self) -> Result<EncoderFileSettings> {
        let mut paths = ENCODER_SETTINGS.iter().map(|name| self.modules[0].folder.join(name));
        match paths.find(|path| path.is_file()) {
            Some(path) => json(&path, "the settings of an encoder"),
            None => Ok(EncoderFileSettings::default()),
        }
    }
}

/// The folder that holds config.json, the tokenizer and the weights: the folder itself, or that of the first module of
/// a sentence-transformers folder.
///
/// # Errors
/// Returns an error if the list of modules cannot be read, or names the class of a module that is no encoder where the
/// folder itself holds none.
pub(crate) fn encoder_folder(folder: &Path) -> Result<PathBuf> {
    let Some(sentence) = SentenceFolder::read(folder)? else {
        return Ok(folder.to_path_buf());
    };
    let first = &sentence.modules[0];
    if ENCODERS.contains(&first.name()) {
        return Ok(first.folder.clone());
    }
    // Whatever the modules are, a checkpoint in the folder itself has states.
    if folder.join("config.json").is_file() {
        return Ok(folder.to_path_buf());
    }
    Err(refuse_class(&folder.join(MODULES), "the class Transformer as the first module", first))
}

/// The folder of the pooling: that of the first such module, or in a folder without a list of modules the usual one.
///
/// # Errors
/// Returns an error if the list of modules cannot be read.
pub(super) fn pooling_folder(folder: &Path) -> Result<PathBuf> {
    let modules = SentenceFolder::read(folder)?.map_or_else(Vec::new, |sentence| sentence.modules);
    let pooling = modules.into_iter().find(|module| module.name() == "Pooling");
    Ok(pooling.map_or_else(|| folder.join(POOLING_FOLDER), |module| module.folder))
}

/// The longest input that the model has positions for, as far as config.json says.
fn positions(config: &ConfigFile) -> Option<usize> {
    let fused = config.fused_shape().ok().and_then(|shape| shape.config().max_tokens);
    fused.or_else(|| config.number("max_position_embeddings"))
}

fn lowers_case(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Lowercase") => true,
        Some("BertNormalizer") => normalizer["lowercase"] == Value::Bool(true),
        Some("Sequence") => {
            normalizer["normalizers"].as_array().into_iter().flatten().any(lowers_case)
        }
        _ => false,
    }
}

fn json<T: DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let got = format!("a file that cannot be parsed: {error}");
        refuse(path, expected.into(), got, FETCH_AGAIN)
    })
}

fn refuse_class(path: &Path, expected: &str, module: &FolderModule) -> Error {
    let got = format!("`{}`, which this program does not run", module.class);
    refuse(path, expected.into(), got, NAME_A_POOLING)
}

fn refuse(path: &Path, expected: String, got: String, hint: &str) -> Error {
    Error::Checkpoint { path: path.to_path_buf(), expected, got, hint: hint.into() }
}

#[cfg(test)]
mod tests;
