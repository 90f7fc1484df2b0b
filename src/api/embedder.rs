//! From texts to an array, without a cache and without a pipeline file.

use std::path::Path;

use frostbert_cache::states::{Dtype, Pooling, StateId};
use ndarray::{Array2, Axis};

use crate::{
    config::settings::{ExtractionSettings, LayerChoice, layer_from_bottom},
    data::document::Document,
    encoder::{
        checkpoint::Checkpoint,
        device::{self, Device, Precision},
        prompts::FolderPrompts,
        sentence_folder::SentenceFolder,
        tokenizer::MIN_LENGTH,
        windows::Overflow,
    },
    error::{Error, Result},
    extraction::{embedder::TextEncoder, machine::Machine},
};

/// Number of documents that are tokenised and encoded at a time: enough to sort by length, few enough to hold their
/// tokens.
const DOCUMENTS_AT_A_TIME: usize = 8192;

/// Maximum length of an input in tokens where neither the options nor the model's folder say.
const DEFAULT_LENGTH: usize = 128;

/// How an [`Embedder`] runs its model. The defaults are those of a pipeline file, apart from `lowercase`.
///
/// ```
/// use frostbert::{Device, EmbedderOptions, Machine};
///
/// let machine = Machine::new("/opt/onnxruntime/libonnxruntime.so", 8);
/// let options = EmbedderOptions::default().machine(machine).device(Device::Cpu).max_length(256);
/// assert_eq!((options.layer, options.max_length), (-1, Some(256)));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbedderOptions {
    /// The path of ONNX Runtime, and the number of CPU threads. By default `runtime/libonnxruntime.so` and all threads.
    pub machine: Machine,
    /// The device that the model runs on. By default the first CUDA device if it works, otherwise the CPU.
    pub device: Device,
    /// The precision that the model computes in. By default f32.
    pub precision: Precision,
    /// The layer whose states are pooled: 0 is the embedding output, 1 the first layer; negative numbers count from the
    /// end. By default -1, the last.
    pub layer: i64,
    /// Maximum length of an input in tokens, including special tokens. By default that of a sentence-transformers folder,
    /// or 128 if the folder is another or says nothing.
    pub max_length: Option<usize>,
    /// How to handle longer texts. By default their end is cut off.
    pub overflow: Overflow,
    /// Maximum number of tokens in a batch, including padding. By default 512 on a CPU and 32,768 on a GPU.
    pub batch_tokens: Option<usize>,
    /// What is put before every text: the name of one of the model's prompts, or a text such as `"query: "`; an empty
    /// one is none. By default the model's default prompt, if it has one.
    pub prompt: Option<String>,
    /// Whether texts are converted to lower case. By default if the tokenizer's files say so, or if a
    /// sentence-transformers folder does and its tokenizer has the choice. (With a pipeline file, such a folder is
    /// refused or warned of where its tokenizer does not do what it asks for.)
    pub lowercase: Option<bool>,
}

impl Default for EmbedderOptions {
    fn default() -> EmbedderOptions {
        EmbedderOptions {
            machine: Machine::default(),
            device: Device::default(),
            precision: Precision::default(),
            layer: -1,
            max_length: None,
            overflow: Overflow::Truncate,
            batch_tokens: None,
            prompt: None,
            lowercase: None,
        }
    }
}

impl EmbedderOptions {
    /// Sets the path of ONNX Runtime, and the number of CPU threads.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> EmbedderOptions {
        self.machine = machine;
        self
    }

    /// Sets the device that the model runs on.
    #[must_use]
    pub fn device(mut self, device: Device) -> EmbedderOptions {
        self.device = device;
        self
    }

    /// Sets the precision that the model computes in.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> EmbedderOptions {
        self.precision = precision;
        self
    }

    /// Sets the layer whose states are pooled; negative numbers count from the end.
    #[must_use]
    pub fn layer(mut self, layer: i64) -> EmbedderOptions {
        self.layer = layer;
        self
    }

    /// Sets the maximum length of an input in tokens.
    #[must_use]
    pub fn max_length(mut self, max_length: usize) -> EmbedderOptions {
        self.max_length = Some(max_length);
        self
    }

    /// Sets how to handle longer texts.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> EmbedderOptions {
        self.overflow = overflow;
        self
    }

    /// Sets the maximum number of tokens in a batch, including padding.
    #[must_use]
    pub fn batch_tokens(mut self, batch_tokens: usize) -> EmbedderOptions {
        self.batch_tokens = Some(batch_tokens);
        self
    }

    /// Sets what is put before every text.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> EmbedderOptions {
        self.prompt = Some(prompt.into());
        self
    }

    /// Sets whether texts are converted to lower case.
    #[must_use]
    pub fn lowercase(mut self, lowercase: bool) -> EmbedderOptions {
        self.lowercase = Some(lowercase);
        self
    }
}

/// A frozen model that embeds texts as the rows of an array.
///
/// ```no_run
/// use frostbert::{Embedder, EmbedderOptions, Pooling};
///
/// let mut embedder = Embedder::open("models/minilm", &EmbedderOptions::default())?;
/// let states = embedder.embed(&["I would buy it again.", "It broke."], Pooling::Mean)?;
/// assert_eq!(states.dim(), (2, embedder.hidden()));
/// # Ok::<(), frostbert::Error>(())
/// ```
///
/// A row is the one that `frostbert extract` stores for the text with the same settings, before it is rounded to
/// `cache.dtype`. The last bits of a row may depend on the other texts in the call, because sums are taken in another
/// order; on one machine the same call gives the same bits, with any number of threads.
pub struct Embedder {
    encoder: TextEncoder,
    layer: usize,
    hidden: usize,
    prompt: String,
}

impl Embedder {
    /// Loads a model folder: a Hugging Face checkpoint (`config.json`, `tokenizer.json` or an older vocabulary, and
    /// `model.safetensors` or `pytorch_model.bin`), or a folder with `model.onnx` and a tokenizer.
    ///
    /// # Errors
    /// Returns [`Error::Checkpoint`] if the folder is not a model that can be run, [`Error::Runtime`] if ONNX Runtime
    /// cannot be loaded, [`Error::Device`] if the device cannot be used, and [`Error::Argument`] if the options ask for
    /// something that the model does not have: a layer, or a longer input. Returns [`Error::Checkpoint`] too if
    /// `lowercase` is set and the tokenizer has no such choice.
    pub fn open(model: impl AsRef<Path>, options: &EmbedderOptions) -> Result<Embedder> {
        let folder = SentenceFolder::read(model.as_ref())?;
        let lowercase = options.lowercase.or_else(|| {
            // The tokenizer does not do by itself what the folder asks for.
            folder.as_ref().is_some_and(SentenceFolder::needs_lowercase).then_some(true)
        });
        let checkpoint = Checkpoint::open_with_lowercase(model.as_ref(), lowercase)?;
        let max_length = length_of(options, folder.as_ref())?;
        let layer = check_options(options, max_length, &checkpoint)?;
        let prompt = prompt_of(options, &checkpoint)?;
        checkpoint.check_layers(&[layer])?;
        checkpoint.check_precision(options.precision)?;
        device::check(&options.device, options.precision, &options.machine.onnxruntime)?;
        let settings = ExtractionSettings {
            model: checkpoint.folder.clone(),
            device: options.device.clone(),
            precision: options.precision,
            batch_tokens: options.batch_tokens,
            lowercase,
            cache_dir: Default::default(),
            kinds: Vec::new(),
            layers: LayerChoice::of_numbers([]),
            dtype: Dtype::F32,
            max_length,
            overflow: options.overflow,
            shard_tokens: 0,
            sources: Vec::new(),
            pairs: Vec::new(),
            thinned: Vec::new(),
        };
        let states = [StateId::pooled(Pooling::Mean, layer)];
        let encoder = TextEncoder::open(&checkpoint, &settings, &states, &options.machine)?;
        Ok(Embedder { encoder, layer, hidden: checkpoint.config.hidden, prompt })
    }

    /// Number of values in a row: the model's hidden size.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Number of inputs so far that were truncated because they were longer than `max_length`.
    pub fn n_truncated(&self) -> u64 {
        self.encoder.truncated
    }

    /// Embeds texts, one row for each text in order: `f32 [texts, hidden]`.
    ///
    /// The mean and the maximum are over all tokens of a text, including `[CLS]` and `[SEP]`, and of all its windows if
    /// it was split into several.
    ///
    /// # Errors
    /// Returns [`Error::Encoder`] if a text has no tokens or ONNX Runtime fails, and [`Error::State`] if the model
    /// computes a value that is not finite.
    pub fn embed<T: AsRef<str>>(&mut self, texts: &[T], pooling: Pooling) -> Result<Array2<f32>> {
        let prompt = self.prompt.clone();
        let document = |number: usize| Document::of_text(Some(&prompt), texts[number].as_ref());
        self.rows(texts.len(), document, pooling)
    }

    /// Embeds pairs of texts, each encoded together as `[CLS] A [SEP] B [SEP]`, without a prompt:
    /// `f32 [pairs, hidden]`.
    ///
    /// # Errors
    /// Returns the errors of [`Embedder::embed`].
    pub fn embed_pairs<A: AsRef<str>, B: AsRef<str>>(
        &mut self,
        pairs: &[(A, B)],
        pooling: Pooling,
    ) -> Result<Array2<f32>> {
        let document = |number: usize| {
            let (first, second) = &pairs[number];
            Document::Pair(first.as_ref(), second.as_ref())
        };
        self.rows(pairs.len(), document, pooling)
    }

    fn rows<'a>(
        &mut self,
        n_documents: usize,
        document: impl Fn(usize) -> Document<'a>,
        pooling: Pooling,
    ) -> Result<Array2<f32>> {
        if let Pooling::Given(column) = pooling {
            return Err(Error::Argument {
                action: "embed texts",
                expected: "a pooling of the encoder's states".into(),
                got: format!("given vectors, `{column}`"),
                hint: "use Pooling::Mean, Pooling::Cls or Pooling::Max".into(),
            });
        }
        let state = StateId::pooled(pooling, self.layer);
        let mut rows = Array2::zeros((n_documents, self.hidden));
        let mut first = 0;
        for mut part in rows.axis_chunks_iter_mut(Axis(0), DOCUMENTS_AT_A_TIME) {
            let numbers = first..first + part.nrows();
            first = numbers.end;
            let documents: Vec<Document<'_>> = numbers.map(&document).collect();
            let encoded = self.encoder.encode_states(&documents, &[state])?;
            let values = part.as_slice_mut().expect("whole rows of a new array are contiguous");
            Dtype::F32.decode(&encoded.states[0].bytes, values);
        }
        Ok(rows)
    }
}

/// Returns the text that is put before every text; empty if there is none.
fn prompt_of(options: &EmbedderOptions, checkpoint: &Checkpoint) -> Result<String> {
    let prompts = FolderPrompts::read(&checkpoint.folder)?;
    let Some(given) = &options.prompt else {
        return Ok(prompts.default_prompt().map_or(String::new(), |(_, text)| text.into()));
    };
    let text = prompts.text_of(given).map_err(|unknown| Error::Argument {
        action: "open an embedder",
        expected: "a prompt, by its name or as a text".into(),
        got: unknown.problem,
        hint: unknown.hint,
    })?;
    Ok(text.to_string())
}

/// Returns the maximum length of an input.
fn length_of(options: &EmbedderOptions, folder: Option<&SentenceFolder>) -> Result<usize> {
    if let Some(length) = options.max_length {
        return Ok(length);
    }
    let of_folder = folder.map(SentenceFolder::max_length).transpose()?.flatten();
    Ok(of_folder.unwrap_or(DEFAULT_LENGTH))
}

/// Checks the options against the model and returns the absolute index of the layer.
fn check_options(
    options: &EmbedderOptions,
    max_length: usize,
    checkpoint: &Checkpoint,
) -> Result<usize> {
    let refuse = |expected: String, got: String, hint: &str| Error::Argument {
        action: "open an embedder",
        expected: format!("{expected} of the model `{}`", checkpoint.folder.display()),
        got,
        hint: hint.into(),
    };
    let n_layers = checkpoint.config.layers;
    let layer = layer_from_bottom(options.layer, n_layers).ok_or_else(|| {
        refuse(
            format!(
                "a layer from 0 (embeddings) to {n_layers}, or from -1 (last) to -{}",
                n_layers + 1
            ),
            options.layer.to_string(),
            "set EmbedderOptions::layer to one of these",
        )
    })?;
    let longest = checkpoint.config.max_tokens.unwrap_or(usize::from(u16::MAX));
    if !(MIN_LENGTH..=longest).contains(&max_length) {
        return Err(refuse(
            format!("inputs of {MIN_LENGTH} to {longest} tokens"),
            max_length.to_string(),
            "set EmbedderOptions::max_length to a number in this range",
        ));
    }
    if let Overflow::Windows { stride } = options.overflow
        && stride.saturating_add(MIN_LENGTH) > max_length
    {
        return Err(refuse(
            format!("windows of {max_length} tokens that share fewer with their neighbours"),
            format!("a stride of {stride}"),
            "set the stride to a quarter of EmbedderOptions::max_length, or less",
        ));
    }
    if options.batch_tokens == Some(0) {
        return Err(refuse(
            "a batch of at least one token".into(),
            "0".into(),
            "leave EmbedderOptions::batch_tokens out",
        ));
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Checkpoint {
        Checkpoint::open("tests/fixtures/tiny_bert".as_ref()).unwrap()
    }

    #[test]
    fn a_layer_may_be_counted_from_either_end() {
        let checkpoint = tiny();
        let layer =
            |layer| check_options(&EmbedderOptions::default().layer(layer), 32, &checkpoint);
        for (given, absolute) in [(0, 0), (2, 2), (-1, 2), (-3, 0)] {
            assert_eq!(layer(given).unwrap(), absolute);
        }
        for given in [3, -4, i64::MIN, i64::MAX] {
            let error = layer(given).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "cannot open an embedder: expected a layer from 0 (embeddings) to 2, or from -1 (last) to -3 of the \
                     model `tests/fixtures/tiny_bert`, got {given}"
                )
            );
        }
    }

    #[test]
    fn lengths_that_the_model_cannot_read_are_refused_with_the_option_to_change() {
        let checkpoint = tiny();
        let windows = EmbedderOptions::default().overflow(Overflow::Windows { stride: 30 });
        let refused = [
            (EmbedderOptions::default(), 65, "max_length"),
            (EmbedderOptions::default(), 1, "max_length"),
            (windows, 32, "stride"),
            (EmbedderOptions::default().batch_tokens(0), 32, "batch_tokens"),
        ];
        for (options, length, named) in refused {
            let error = check_options(&options, length, &checkpoint).unwrap_err();
            assert!(error.hint().unwrap().contains(named), "{error}");
        }
    }

    #[test]
    fn the_length_is_that_of_the_folder_unless_one_is_given() {
        let length = |folder: &str, options: EmbedderOptions| {
            let path = Path::new("tests/fixtures").join(folder);
            let folder = SentenceFolder::read(&path).unwrap();
            length_of(&options, folder.as_ref()).unwrap()
        };
        let default = EmbedderOptions::default;
        assert_eq!(length("sentence_folders/cls", default()), 12);
        assert_eq!(length("sentence_folders/cls", default().max_length(9)), 9);
        assert_eq!(length("tiny_bert", default()), 128);
    }
}
