//! Embeds data files into one file: runs stage 1 for them, and writes a row for each record, in order.

mod record_table;
mod rows;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::datatypes::DataType;
use frostbert_cache::{
    export::{DerivedState, ExportFormat, ExportOptions, Quantization},
    mmap::map,
    progress::Progress,
    reader::CacheReader,
    states::{Dtype, StateKind},
};
use record_table::{RecordTable, wanted};
use rows::{EmbeddingRows, offsets_of};
use serde::Serialize;
use serde_json::Value;

use crate::{
    config::{
        file::PipelineFile,
        parse::apply_override,
        settings::{
            Pipeline, layer_from_bottom,
            prompts::{self, PromptInput},
        },
    },
    data::{Format, Source, read},
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    extraction::{
        export::export_records,
        extract::extract_with,
        machine::Machine,
        multi_vector::{MULTI_VECTOR, MultiVectors},
        sentence::{SENTENCE, SentenceState},
    },
    report::row_writer::{RowFormat, folder_of, require_other_file},
};

/// What to embed, and how.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// The data files, with the column of texts of each, and those of ids and labels if they are to be written too.
    pub sources: Vec<Source>,
    /// The checkpoint folder.
    pub model: PathBuf,
    /// The pooling: `cls`, `mean` or `max`; or `sentence`, the vector of a sentence-transformers folder; or
    /// `multi-vector`, the vectors of tokens of a multi-vector model; or `auto`: what the model's folder makes of these
    /// if the layer is the last, and else the mean.
    pub pooling: String,
    /// The layer: absolute, or negative to count from the end.
    pub layer: i64,
    /// The type of the values in the cache and in the file.
    pub dtype: Dtype,
    /// How to write the values as small integers instead, if that is wanted.
    pub quantize: Option<Quantization>,
    /// The folder that holds the caches.
    pub cache_dir: PathBuf,
    /// What is put before every text: a text, or the name of one of the model's prompts; its default prompt if `None`.
    pub prompt: Option<String>,
    /// Other settings of a pipeline, as in `cache.max_length=256`.
    pub overrides: Vec<String>,
    /// Whether to write the texts too.
    pub with_text: bool,
    /// The file to write; its extension determines the format.
    pub out: PathBuf,
}

/// The report of an embedding.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EmbedReport {
    /// The file that was written.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub out: PathBuf,
    /// The state that was written, or `sentence` or `multi-vector`.
    pub state: String,
    /// How a sentence vector was made, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// How the vectors of tokens were made, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_vector: Option<String>,
    /// Number of rows in the file: one for each record.
    pub rows: u64,
    /// Number of vectors, where each token has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<u64>,
    /// Number of values in a vector.
    pub dimensions: usize,
    /// The name of the type of the values or, if they are quantised, of how.
    pub dtype: &'static str,
    /// The cache that holds the states.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub cache: PathBuf,
    /// Number of distinct texts that were encoded.
    pub computed: u64,
    /// Number of distinct texts whose states were already in the cache.
    pub reused: u64,
    /// Number of texts whose end was cut off.
    pub truncated: u64,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// The format of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutFormat {
    /// The rows alone, as an array.
    Npy,
    /// The rows alone, as a tensor.
    Safetensors,
    /// A table with the rows as a column.
    Table(RowFormat),
}

impl OutFormat {
    fn of(out: &Path) -> Result<OutFormat> {
        if let Some(format @ (RowFormat::Parquet | RowFormat::Arrow)) = RowFormat::of(out) {
            return Ok(OutFormat::Table(format));
        }
        let extension = out.extension().map(|name| name.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("npy") => Ok(OutFormat::Npy),
            Some("safetensors") => Ok(OutFormat::Safetensors),
            _ => Err(Error::Argument {
                action: "write embeddings",
                expected: "a file that ends in .npy, .parquet, .arrow or .safetensors".into(),
                got: format!("`{}`", out.display()),
                hint: "name the file accordingly".into(),
            }),
        }
    }
}

/// Encodes what the cache lacks, and writes a row for each record of the files, in order; a text that occurs twice has
/// two rows.
///
/// # Errors
/// Returns [`Error::Argument`] if the extension of the file is not that of a format, and the errors of
/// [`extract`](super::extract::extract).
pub fn embed(
    request: &EmbedRequest,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<EmbedReport> {
    let start = Instant::now();
    let format = OutFormat::of(&request.out)?;
    let folder = folder_of(&request.out);
    if !folder.is_dir() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::io("write into", folder)(missing));
    }
    require_other_file(&request.out, request.sources.iter().map(|source| source.path.as_path()))?;
    let stored = match request.pooling.as_str() {
        "auto" | SENTENCE => "mean",
        MULTI_VECTOR => "tokens",
        named => named,
    };
    let mut pipeline = pipeline_of(request, &[stored])?;
    pipeline.notes.iter().for_each(|note| progress.note(note));
    pipeline.warnings.iter().for_each(|warning| progress.warn(warning));
    // Report a missing column now rather than after everything was encoded.
    for source in &request.sources {
        if source.resolve_format()? == Format::Squad {
            return Err(Error::Argument {
                action: "embed the file",
                expected: "records of one text each".into(),
                got: format!("questions and contexts in `{}`", source.path.display()),
                hint: "use a pipeline: frostbert extract and frostbert cache export".into(),
            });
        }
        read(source, wanted(source))?.next().transpose()?;
    }
    let checkpoint = pipeline.extraction.checkpoint()?;
    let made = made_of_states(request, &checkpoint)?;
    if let Some(made) = &made {
        // Which states it is made of, and whether the layer is the last, is known only now.
        let stored = made.state.states().iter().map(|state| state.kind.name());
        pipeline = pipeline_of(request, &stored.collect::<Vec<&str>>())?;
    }
    let is_ragged = made.as_ref().is_some_and(MadeOfStates::is_of_tokens);
    if is_ragged {
        progress.note(
            "each text is embedded as a document of the multi-vector model: `similar --multi-vector` embeds queries",
        );
    }
    let states = pipeline.stored_states(checkpoint.config.layers)?;
    let state = match (&made, &states[..]) {
        (Some(made), _) => made.state.name().to_string(),
        (None, [state]) => state.to_string(),
        (None, _) => unreachable!("the options of the command name one pooling and one layer"),
    };
    let extracted = extract_with(&checkpoint, &pipeline, machine, progress)?;
    let cache = CacheReader::existing(&extracted.cache)?;
    // The rows in order, as an array on disk, so that memory does not grow with them.
    let staging = tempfile::Builder::new().prefix(".frostbert-embed-").tempdir_in(folder);
    let staging = staging.map_err(Error::io("make a folder in", folder))?;
    let options = ExportOptions {
        format: ExportFormat::Npy,
        states: if made.is_some() { Vec::new() } else { states },
        derived: made.as_ref().map(|made| made.state.clone()),
        as_f32: false,
        quantize: request.quantize,
        folder: staging.path().join("rows"),
    };
    let exported = export_records(&pipeline, &cache, &options, progress)?;
    let array = options.folder.join(format!("{state}.npy"));
    let width = exported.derived.as_ref().map_or(exported.hidden, |derived| derived.width);
    // What is computed from the stored states is not rounded to their type.
    let dtype = if made.is_some() { Dtype::F32 } else { exported.dtype };
    let n_records = exported.rows as usize;
    let n_vectors = exported.tokens.filter(|_| is_ragged);
    let offsets = match n_vectors {
        Some(n_vectors) => {
            let records = map(&options.folder.join("tokens.doc.npy"))?;
            Some(offsets_of(&records, n_vectors as usize, n_records))
        }
        None => None,
    };
    let rows = EmbeddingRows {
        bytes: map(&array)?,
        dimensions: request.quantize.map_or(width, |kind| kind.width(width)),
        data_type: match (request.quantize, dtype) {
            (Some(kind), _) => kind.data_type(),
            (None, Dtype::F16) => DataType::Float16,
            (None, Dtype::F32) => DataType::Float32,
        },
        n_rows: n_vectors.map_or(n_records, |n_vectors| n_vectors as usize),
        offsets,
    };
    let columns = RecordTable { request, n_rows: n_records, embeddings: None };
    // An array has no room for other columns, so they go to a table of their own. It is written first, so that no array
    // is there without it.
    let beside = &with_suffix(&request.out, ".meta.parquet");
    if matches!(format, OutFormat::Npy | OutFormat::Safetensors) {
        if columns.has_columns() {
            columns.write(beside, RowFormat::Parquet)?;
        } else {
            // A table from an earlier call would be of other rows.
            frostbert_cache::durable::remove_file(beside)?;
        }
    }
    let ranges = with_suffix(&request.out, ".ranges.npy");
    let measured = options.folder.join(format!("{state}.ranges.npy"));
    if measured.exists() {
        std::fs::rename(&measured, &ranges).map_err(Error::io("write", &ranges))?;
    } else {
        // Those of an earlier call would be of other values.
        frostbert_cache::durable::remove_file(&ranges)?;
    }
    match format {
        OutFormat::Npy => {
            rows.write_offsets(&with_suffix(&request.out, ".offsets.npy"))?;
            std::fs::rename(&array, &request.out).map_err(Error::io("write", &request.out))?;
        }
        OutFormat::Safetensors => rows.write_safetensors(&request.out)?,
        OutFormat::Table(format) => {
            RecordTable { embeddings: Some(&rows), ..columns }.write(&request.out, format)?;
        }
    }
    Ok(EmbedReport {
        out: request.out.clone(),
        state,
        sentence: made.as_ref().filter(|_| !is_ragged).map(|made| made.steps.clone()),
        multi_vector: made.as_ref().filter(|_| is_ragged).map(|made| made.steps.clone()),
        rows: exported.rows,
        vectors: n_vectors,
        dimensions: rows.dimensions,
        dtype: request.quantize.map_or(dtype.name(), Quantization::name),
        cache: extracted.cache,
        computed: extracted.computed,
        reused: extracted.reused,
        truncated: extracted.truncated,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Keys of a pipeline that the options of the command set, or that would leave records out, and their sections.
const SET_BY_OPTIONS: [&str; 9] = [
    "data",
    "model",
    "cache",
    "model.path",
    "model.prompt",
    "cache.store",
    "cache.layers",
    "cache.dtype",
    "cache.dir",
];

/// A vector that is computed from stored states.
struct MadeOfStates {
    state: Arc<dyn DerivedState>,
    /// How, in words.
    steps: String,
}

impl MadeOfStates {
    fn of_text(sentence: SentenceState) -> MadeOfStates {
        MadeOfStates { steps: sentence.describe(), state: Arc::new(sentence) }
    }

    fn of_tokens(vectors: MultiVectors) -> MadeOfStates {
        MadeOfStates { steps: vectors.describe(), state: Arc::new(vectors) }
    }

    /// Whether each token has one.
    fn is_of_tokens(&self) -> bool {
        self.state.states().iter().any(|state| state.kind == StateKind::Tokens)
    }
}

/// What the model's folder makes of the states, if that is to be written.
fn made_of_states(request: &EmbedRequest, checkpoint: &Checkpoint) -> Result<Option<MadeOfStates>> {
    let n_layers = checkpoint.config.layers;
    let is_last = layer_from_bottom(request.layer, n_layers) == Some(n_layers);
    match request.pooling.as_str() {
        "auto" if is_last => match MultiVectors::of(checkpoint)? {
            Some(vectors) => Ok(Some(MadeOfStates::of_tokens(vectors))),
            None => Ok(SentenceState::of(checkpoint)?.map(MadeOfStates::of_text)),
        },
        SENTENCE if is_last => {
            SentenceState::required(checkpoint).map(MadeOfStates::of_text).map(Some)
        }
        MULTI_VECTOR if is_last => {
            MultiVectors::required(checkpoint).map(MadeOfStates::of_tokens).map(Some)
        }
        SENTENCE | MULTI_VECTOR => Err(Error::Argument {
            action: "embed the files",
            expected: format!(
                "the last layer, of which {} vectors are made",
                if request.pooling == SENTENCE { "sentence" } else { "token" }
            ),
            got: format!("layer {}", request.layer),
            hint: "leave --layer out, or name a pooling: cls, mean or max".into(),
        }),
        _ => Ok(None),
    }
}

/// The path of a file beside the one that was asked for.
fn with_suffix(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.to_path_buf().into_os_string();
    name.push(suffix);
    name.into()
}

/// Returns a pipeline of stage 1 alone, in which every record has a row, that stores these kinds of states.
fn pipeline_of(request: &EmbedRequest, stored: &[&str]) -> Result<Pipeline> {
    let place = Path::new("embed");
    let refuse_with = |problem: String, hint: String| Error::Pipeline {
        file: place.to_path_buf(),
        line: None,
        column: None,
        problem,
        hint,
    };
    let refuse = |problem: String| refuse_with(problem, "see `frostbert embed --help`".into());
    let to_json = |value: &dyn Fn() -> serde_json::Result<Value>| {
        value().map_err(|error| refuse(error.to_string()))
    };
    // A pipeline cannot hold a path that is not UTF-8.
    let table = serde_json::json!({
        "model": { "path": to_json(&|| serde_json::to_value(&request.model))? },
        "data": {
            "train": to_json(&|| serde_json::to_value(&request.sources))?,
            "clean": { "drop_empty": false, "drop_duplicates": false },
        },
        "cache": {
            "dir": to_json(&|| serde_json::to_value(&request.cache_dir))?,
            "store": stored,
            "layers": [request.layer],
            "dtype": request.dtype,
        },
        // Nothing is trained: what the folder says of the pooling is not asked for here.
        "head": { "pooling": "mean" },
    });
    let mut table = toml::Table::try_from(table).map_err(|error| refuse(error.to_string()))?;
    for setting in &request.overrides {
        let key = setting.split('=').next().unwrap_or_default().trim();
        if key.starts_with("data.") || SET_BY_OPTIONS.contains(&key) {
            return Err(refuse(format!("`{key}` is set by the options of this command")));
        }
        apply_override(&mut table, setting)?;
    }
    let file: Result<PipelineFile> =
        table.try_into().map_err(|error: toml::de::Error| refuse(error.message().into()));
    let mut file = file?;
    file.model.prompt.clone_from(&request.prompt);
    let messages = prompts::choose(&mut file, PromptInput::Flag, &refuse_with)?;
    let mut pipeline = Pipeline::check(place, file)?;
    pipeline.notes.extend(messages.notes);
    pipeline.warnings.extend(messages.warnings);
    // Every record has a row, so no error may suggest the key that leaves some out.
    for source in &mut pipeline.extraction.sources {
        source.skip_bad = None;
    }
    Ok(pipeline)
}
