//! From the states of a text's tokens to its vectors, one of each token, as `MultiVectorEncoder` of
//! sentence-transformers computes them.

use std::path::Path;

use frostbert_cache::states::{StateId, StateKind};
use ndarray::{Array2, ArrayView2};

use super::{
    ENCODER_SETTINGS, ENCODERS, FETCH_AGAIN, MODEL_SETTINGS, MODULES, QueryExpansion,
    SentenceFolder,
    dense::Dense,
    module::{FolderModule, SENTENCE, TOKENS},
    refuse, refuse_class,
    token_mask::{TextRole, TokenFilter, TokenMask},
    vector::VectorStep,
};
use crate::error::{Error, Result};

/// The `model_type` of a folder that `MultiVectorEncoder` saved.
const MULTI_VECTOR: &str = "MultiVectorEncoder";

/// The `model_type` of a folder that PyLate saved, in which parts of the model are not listed.
const PYLATE: &str = "ColBERT";

const CONVERT: &str = "convert it: MultiVectorEncoder(FOLDER).save_pretrained(NEW_FOLDER) with sentence-transformers 6 \
                       writes a folder that lists all parts of the model";

/// The names of the two similarities of such a model: a sum over the tokens of a query, and their mean.
pub(super) const SIMILARITIES: [&str; 2] = ["maxsim", "meanmaxsim"];

/// What becomes of the states of a text's tokens in the last layer: linear layers and normalisation in the order of the
/// folder, for the tokens that have a vector.
#[derive(Clone, Debug)]
pub(crate) struct TokenVectors {
    steps: Vec<VectorStep>,
    width: usize,
    mask: TokenMask,
    /// The longest query in tokens, if the folder says it.
    query_length: Option<usize>,
    /// How short queries are filled up.
    pub(crate) expansion: Option<QueryExpansion>,
    /// Whether the similarity is a mean over the tokens of a query.
    is_mean: bool,
}

impl SentenceFolder {
    /// Whether the modules make a vector of each token of a text, and not one of the text.
    ///
    /// # Errors
    /// Returns an error if the settings of the model or of a module cannot be read.
    pub(crate) fn has_token_vectors(&self) -> Result<bool> {
        if matches!(self.settings()?.model_type.as_deref(), Some(MULTI_VECTOR | PYLATE)) {
            return Ok(true);
        }
        let after = &self.modules[1..];
        if after.iter().any(|module| module.name() == "Pooling") {
            return Ok(false);
        }
        for module in after.iter().filter(|module| ["Dense", "Normalize"].contains(&module.name()))
        {
            if module.names(SENTENCE)?.contains(&TOKENS.to_string()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The way from the states of tokens in the last layer, each of `hidden` values, to the vectors of a text.
    /// `lowercase` is the `model.lowercase` of the pipeline.
    ///
    /// # Errors
    /// Returns an error that names what this program does not compute, or the file that does not fit.
    pub(crate) fn token_vectors(
        &self,
        hidden: usize,
        lowercase: Option<bool>,
    ) -> Result<TokenVectors> {
        let settings = self.settings()?;
        let path = self.folder.join(MODEL_SETTINGS);
        if settings.model_type.as_deref() == Some(PYLATE) {
            let expected = format!("the model_type {MULTI_VECTOR}");
            return Err(refuse(&path, expected, format!("`{PYLATE}`, of PyLate"), CONVERT));
        }
        if !self.has_token_vectors()? {
            return Err(refuse(
                &self.folder.join(MODULES),
                format!("modules that read and write `{TOKENS}`, as MultiVectorEncoder saves them"),
                "modules that make one vector of a text".into(),
                "leave --multi-vector out, or name a folder of a multi-vector model, such as a ColBERT",
            ));
        }
        // Of an unpooled SentenceTransformer, a Dense module says what it reads.
        let is_multi_vector = settings.model_type.as_deref() == Some(MULTI_VECTOR);
        let default = if is_multi_vector { TOKENS } else { SENTENCE };
        let (steps, mask) = self.token_steps(hidden, default)?;
        self.check_case(lowercase)?;
        let width = steps.iter().fold(hidden, |width, step| match step {
            VectorStep::Dense(dense) => dense.n_outputs(),
            VectorStep::Normalize => width,
        });
        let (query_length, expansion) = self.query_settings(mask.is_some())?;
        Ok(TokenVectors {
            steps,
            width,
            mask: mask.unwrap_or_default(),
            query_length,
            expansion,
            is_mean: settings.similarity_fn_name.as_deref() == Some(SIMILARITIES[1]),
        })
    }

    /// The modules after the encoder: what is done to each vector, and which tokens have one. A Dense module reads
    /// `default` if it does not say.
    fn token_steps(
        &self,
        hidden: usize,
        default: &str,
    ) -> Result<(Vec<VectorStep>, Option<TokenMask>)> {
        let path = self.folder.join(MODULES);
        let (first, after) = (&self.modules[0], &self.modules[1..]);
        if !ENCODERS.contains(&first.name()) || !first.is_of_package() {
            return Err(refuse_class(&path, "the class Transformer as the first module", first));
        }
        let (mut steps, mut mask, mut width) = (Vec::new(), None, hidden);
        for module in after {
            if !module.is_of_package() {
                return Err(refuse_class(&path, "classes of sentence-transformers", module));
            }
            match module.name() {
                "Dense" => {
                    module.check_names(TOKENS, default)?;
                    let dense = Dense::read(&module.folder, width)?;
                    width = dense.n_outputs();
                    steps.push(VectorStep::Dense(dense));
                }
                "Normalize" => {
                    module.check_names(TOKENS, SENTENCE)?;
                    steps.push(VectorStep::Normalize);
                }
                "MultiVectorMask" if mask.is_none() => {
                    mask = Some(TokenMask::read(&module.folder)?)
                }
                "Dropout" => {}
                _ => return Err(refuse_token_class(&path, module)),
            }
        }
        Ok((steps, mask))
    }

    /// The longest query, and how short ones are filled up.
    fn query_settings(&self, has_mask: bool) -> Result<(Option<usize>, Option<QueryExpansion>)> {
        let encoder = &self.modules[0].folder;
        let path = encoder.join(ENCODER_SETTINGS[0]);
        let settings = self.encoder_settings()?;
        let expansion = settings.query_expansion.as_ref();
        let expansion =
            expansion.map(|given| QueryExpansion::of(given, &path, encoder)).transpose()?;
        let Some(expansion) = expansion else {
            return Ok((self.length_of(settings.query_length)?, None));
        };
        let refuse = |expected: String, got: String| Err(refuse(&path, expected, got, FETCH_AGAIN));
        if !has_mask {
            let expected =
                "a MultiVectorMask module, which counts the tokens of query_expansion".into();
            return refuse(expected, "modules without one".into());
        }
        let length = expansion.length;
        if let Some(most) = settings.query_length.filter(|most| *most < length) {
            let expected =
                format!("a query_length of at least {length}, as query_expansion has it");
            return refuse(expected, most.to_string());
        }
        let asked = if expansion.is_fixed { Some(length) } else { settings.query_length };
        let most = self.length_of(asked)?;
        if let Some(most) = most.filter(|most| *most < length) {
            let expected = format!("a length of query_expansion of at most {most} tokens");
            return refuse(expected, length.to_string());
        }
        Ok((most, Some(expansion)))
    }
}

fn refuse_token_class(path: &Path, module: &FolderModule) -> Error {
    let expected = "the classes Dense, Normalize, Dropout and one MultiVectorMask after the encoder of a model with a \
                    vector of each token";
    refuse_class(path, expected, module)
}

impl TokenVectors {
    /// The state that they are computed from.
    pub(crate) fn state(&self, last_layer: usize) -> StateId {
        StateId { kind: StateKind::Tokens, layer: last_layer }
    }

    /// The number of values of each vector.
    pub(crate) fn n_values(&self) -> usize {
        self.width
    }

    /// The longest query in tokens; `otherwise` if the folder does not say.
    pub(crate) fn query_length(&self, otherwise: usize) -> usize {
        let most = self.query_length.unwrap_or(otherwise);
        self.expansion.as_ref().map_or(most, |expansion| most.max(expansion.length))
    }

    /// Which tokens of a text have a vector, where `id_of` returns the ids of tokens.
    pub(crate) fn filter(
        &self,
        role: TextRole,
        id_of: impl Fn(&str) -> Option<u32>,
    ) -> TokenFilter {
        self.mask.filter(role, id_of)
    }

    /// Whether ids of tokens have to be looked up.
    pub(crate) fn needs_ids(&self) -> bool {
        !self.mask.keeps_all() || self.expansion.is_some()
    }

    /// The vectors of states `[tokens, hidden]`.
    pub(crate) fn of_states(&self, states: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut rows = states.to_owned();
        for step in &self.steps {
            rows = step.apply_to_rows(rows);
        }
        rows
    }

    /// The similarity of a query and a document, of which `[tokens, values]` are the vectors (Khattab and Zaharia 2020,
    /// ColBERT): the largest dot product of each vector of the query with one of the document, and of these the sum, or
    /// with `meanmaxsim` the mean. A document without a vector is less similar than any other, as in
    /// sentence-transformers.
    pub(crate) fn similarity(&self, query: &Array2<f32>, document: &Array2<f32>) -> f64 {
        const WITHOUT_A_VECTOR: f64 = -1e9;
        let n_tokens = if self.is_mean { query.nrows().max(1) as f64 } else { 1.0 };
        if document.nrows() == 0 {
            return WITHOUT_A_VECTOR / n_tokens;
        }
        let products = query.dot(&document.t());
        let best =
            products.rows().into_iter().map(|row| row.fold(f32::NEG_INFINITY, |a, b| a.max(*b)));
        best.map(f64::from).sum::<f64>() / n_tokens
    }

    /// The name of the similarity, as sentence-transformers calls it.
    pub(crate) fn similarity_name(&self) -> &'static str {
        SIMILARITIES[usize::from(self.is_mean)]
    }

    /// The steps in words: `Dense 64 -> 16, identity, Normalize`.
    pub(crate) fn describe(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(VectorStep::describe).collect();
        if steps.is_empty() { "the states as they are".into() } else { steps.join(", ") }
    }

    /// Which tokens have a vector, in words.
    pub(super) fn describe_mask(&self) -> String {
        self.mask.describe()
    }

    /// How long queries are, in words.
    pub(super) fn describe_queries(&self) -> String {
        match (&self.expansion, self.query_length) {
            (Some(expansion), _) if expansion.is_fixed => expansion.describe(),
            (Some(expansion), Some(most)) => format!("{}, at most {most}", expansion.describe()),
            (Some(expansion), None) => expansion.describe(),
            (None, Some(most)) => format!("at most {most} tokens"),
            (None, None) => "as long as documents".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ndarray::array;

    use super::*;

    const ENCODER: &str = "sentence_transformers.base.modules.transformer.Transformer";
    const DENSE: &str = "sentence_transformers.base.modules.dense.Dense";
    const NORMALIZE: &str = "sentence_transformers.base.modules.normalize.Normalize";
    const MASK: &str =
        "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask";
    const OF_TOKENS: &str = r#"{"module_input_name": "token_embeddings"}"#;

    /// A folder with these modules after the encoder, each with its settings, and these settings of the model.
    fn folder(modules: &[(&str, &str)], model: &str, encoder: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut listed = vec![serde_json::json!({ "path": "", "type": ENCODER })];
        for (place, (class, settings)) in modules.iter().enumerate() {
            let path = format!("{}_module", place + 1);
            fs::create_dir(folder.path().join(&path)).unwrap();
            fs::write(folder.path().join(&path).join("config.json"), settings).unwrap();
            listed.push(serde_json::json!({ "path": path, "type": class }));
        }
        let listed = serde_json::Value::Array(listed).to_string();
        fs::write(folder.path().join(MODULES), listed).unwrap();
        fs::write(folder.path().join(MODEL_SETTINGS), model).unwrap();
        fs::write(folder.path().join("sentence_bert_config.json"), encoder).unwrap();
        fs::write(folder.path().join("tokenizer_config.json"), r#"{"mask_token": "[MASK]"}"#)
            .unwrap();
        folder
    }

    const OF_MODEL: &str = r#"{"model_type": "MultiVectorEncoder"}"#;

    fn read(folder: &tempfile::TempDir) -> Result<TokenVectors> {
        SentenceFolder::read(folder.path()).unwrap().unwrap().token_vectors(4, None)
    }

    fn refused(modules: &[(&str, &str)], model: &str, encoder: &str) -> String {
        read(&folder(modules, model, encoder)).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_makes_vectors_of_tokens_if_it_says_so_or_a_module_after_no_pooling_reads_them() {
        let has = |modules: &[(&str, &str)], model: &str| {
            let folder = folder(modules, model, "{}");
            SentenceFolder::read(folder.path()).unwrap().unwrap().has_token_vectors().unwrap()
        };
        let pooling = ("sentence_transformers.models.Pooling", "{}");
        assert!(has(&[], OF_MODEL));
        assert!(has(&[(NORMALIZE, OF_TOKENS)], "{}"));
        assert!(!has(&[(NORMALIZE, OF_TOKENS), pooling], "{}"));
        assert!(!has(&[pooling, (NORMALIZE, "{}")], r#"{"model_type": "SentenceTransformer"}"#));
        assert!(!has(&[], "{}"));
    }

    #[test]
    fn modules_that_are_not_run_are_refused_by_their_names() {
        let pooling = "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling";
        let error = refused(&[(NORMALIZE, OF_TOKENS), (pooling, "{}")], OF_MODEL, "{}");
        assert!(
            error.contains("HierarchicalTokenPooling`, which this program does not run"),
            "{error}"
        );
        let error = refused(&[(MASK, "{}"), (MASK, "{}")], OF_MODEL, "{}");
        assert!(error.contains("one MultiVectorMask"), "{error}");
        let error = refused(&[("own.Dense", OF_TOKENS)], OF_MODEL, "{}");
        assert!(error.contains("classes of sentence-transformers, got `own.Dense`"), "{error}");
        // Without a name it would normalise a vector of the text, which there is not.
        let error = refused(&[(NORMALIZE, "{}")], OF_MODEL, "{}");
        assert!(
            error.contains("reads and writes `token_embeddings`, got `sentence_embedding`"),
            "{error}"
        );
        let error = refused(&[(DENSE, r#"{"in_features": 3, "out_features": 2}"#)], OF_MODEL, "{}");
        assert!(error.contains("in_features = 4"), "{error}");
        let error = refused(&[], r#"{"model_type": "ColBERT"}"#, "{}");
        assert!(error.contains("got `ColBERT`, of PyLate"), "{error}");
        let error = refused(&[], "{}", "{}");
        assert!(error.contains("got modules that make one vector of a text"), "{error}");
    }

    #[test]
    fn queries_are_as_long_as_the_folder_says() {
        let expansion =
            |more: &str| format!(r#"{{"max_seq_length": 24, "query_expansion": {{{more}}}}}"#);
        let of = |settings: &str| read(&folder(&[(MASK, "{}")], OF_MODEL, settings)).unwrap();
        assert_eq!(of("{}").query_length(40), 40);
        assert_eq!(of(r#"{"max_seq_length": 24, "document_length": 12}"#).query_length(12), 24);
        assert_eq!(of(r#"{"max_seq_length": 24, "query_length": 9}"#).query_length(12), 9);
        let fixed = of(&expansion(r#""strategy": "fixed", "length": 32"#));
        assert_eq!((fixed.query_length(12), fixed.needs_ids()), (32, true));
        let at_least = of(&expansion(r#""strategy": "min", "length": 8"#));
        assert_eq!(at_least.query_length(12), 24);
        assert_eq!(
            at_least.describe_queries(),
            "at least 8 tokens, filled up with [MASK] that nothing attends to, at most 24"
        );
        let settings =
            r#"{"query_length": 4, "query_expansion": {"strategy": "min", "length": 8}}"#;
        let error = refused(&[(MASK, "{}")], OF_MODEL, settings);
        assert!(error.contains("a query_length of at least 8"), "{error}");
        let error = refused(&[], OF_MODEL, settings);
        assert!(error.contains("a MultiVectorMask module"), "{error}");
    }

    #[test]
    fn the_similarity_is_the_sum_or_the_mean_of_the_largest_products() {
        let query = array![[1.0, 0.0], [0.0, 2.0]];
        let document = array![[-1.0, 0.5], [-2.0, -1.0], [-3.0, 0.25]];
        let sum = read(&folder(&[(MASK, "{}")], OF_MODEL, "{}")).unwrap();
        assert_eq!(
            (sum.similarity(&query, &document), sum.similarity_name()),
            (-1.0 + 1.0, "maxsim")
        );
        let mean = r#"{"model_type": "MultiVectorEncoder", "similarity_fn_name": "meanmaxsim"}"#;
        let mean = read(&folder(&[(MASK, "{}")], mean, "{}")).unwrap();
        let last = array![[-3.0, 0.25]];
        assert_eq!(mean.similarity(&query, &last), (-3.0 + 0.5) / 2.0);
        assert_eq!(mean.similarity_name(), "meanmaxsim");
        // Less than any other.
        assert_eq!(sum.similarity(&query, &Array2::zeros((0, 2))), -1e9);
    }

    #[test]
    fn vectors_are_made_of_states_row_by_row() {
        let normalized = read(&folder(&[(NORMALIZE, OF_TOKENS)], OF_MODEL, "{}")).unwrap();
        let states = array![[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]];
        let expected = array![[0.6, 0.8, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
        assert_eq!(normalized.of_states(states.view()), expected);
        assert_eq!((normalized.describe().as_str(), normalized.n_values()), ("Normalize", 4));
        let as_they_are = read(&folder(&[], OF_MODEL, "{}")).unwrap();
        assert_eq!(as_they_are.of_states(states.view()), states);
        assert_eq!(as_they_are.describe(), "the states as they are");
    }
}
