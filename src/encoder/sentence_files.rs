//! The names of the files in a sentence-transformers folder that more than one module reads.

/// The list of modules, which makes a folder one of sentence-transformers.
pub(super) const MODULES: &str = "modules.json";

/// Settings of the whole model, its prompts among them.
pub(super) const MODEL_SETTINGS: &str = "config_sentence_transformers.json";

/// The folder of the pooling, unless the list of modules names another.
pub(super) const POOLING_FOLDER: &str = "1_Pooling";
