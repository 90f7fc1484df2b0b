//! `frostbert cache export`: writes the values of a cache for other tools.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use frostbert::{
    cache::{
        about::note_use,
        export::{ExportFormat, ExportOptions, ExportReport, Quantization, export_cache},
        reader::CacheReader,
        states::StateId,
        wording::{counted, nearest},
    },
    internals::{
        config::settings::Pipeline,
        extraction::{
            export::export_records, multi_vector::multi_vectors_of_cache,
            sentence::sentence_of_cache,
        },
    },
};
use serde_json::json;

use super::{Context, OverrideArguments, output, screen};

/// The names of the states that are in no cache.
const SENTENCE: &str = "sentence";
const MULTI_VECTOR: &str = "multi-vector";

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// A cache folder: <cache.dir>/<fingerprint>
    #[arg(value_name = "DIR")]
    cache: PathBuf,
    /// The format to write
    #[arg(long, value_name = "FORMAT", value_enum)]
    to: ExportFormatArgument,
    /// One row per record of this pipeline's data files, in order [default: every document once, as the cache holds
    /// them]
    #[arg(long, value_name = "PIPELINE.toml")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArguments,
    /// States to write, as in mean-L06 tokens-L06, and `sentence`, the vector that sentence-transformers would return,
    /// or `multi-vector`, the vectors of tokens of a multi-vector model [default: those that the pipeline stores, or
    /// without a pipeline those that every document has]
    #[arg(long = "state", value_name = "STATE", num_args = 1..)]
    states: Vec<StateArgument>,
    /// The folder of the model that made the cache, for `sentence` and `multi-vector` [default: the pipeline's, or the
    /// one that the cache notes]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Write f32 where the cache holds f16, for tools that have no f16
    #[arg(long = "as", value_name = "TYPE", value_enum)]
    value_type: Option<ValueTypeArgument>,
    /// Write small integers, as quantize_embeddings of sentence-transformers does; the ranges of int8 and uint8, the
    /// least and the greatest exported value of each dimension, go to STATE.ranges.npy
    #[arg(long, value_name = "KIND", value_enum, conflicts_with = "value_type")]
    quantize: Option<QuantizeArgument>,
    /// The folder to create; an earlier export in it is replaced [default: next to the cache, <DIR>-<FORMAT>]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormatArgument {
    /// NumPy: one .npy file per array, to be mapped with numpy.load(FILE, mmap_mode="r")
    Npy,
    /// One .safetensors file per table, with one tensor per column
    Safetensors,
    /// One Arrow IPC file per table, with states as fixed-size lists
    Arrow,
    /// One Parquet file per table, with states as lists
    ParquetList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateArgument {
    Stored(StateId),
    Sentence,
    MultiVector,
}

impl FromStr for StateArgument {
    type Err = String;

    /// The error is reported by clap as wrong usage.
    fn from_str(name: &str) -> Result<StateArgument, String> {
        if name == SENTENCE {
            return Ok(StateArgument::Sentence);
        }
        if name == MULTI_VECTOR {
            return Ok(StateArgument::MultiVector);
        }
        name.parse().map(StateArgument::Stored).map_err(|error: frostbert::cache::Error| {
            let meant = nearest(name, [SENTENCE, MULTI_VECTOR]);
            let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            format!("{error}, or `{SENTENCE}` or `{MULTI_VECTOR}`{meant}")
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ValueTypeArgument {
    F32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum QuantizeArgument {
    /// Steps from -128 to 127
    Int8,
    /// Steps from 0 to 255
    Uint8,
    /// One bit for each value, whether it is above 0, eight to a byte, as signed bytes
    Binary,
    /// The same as unsigned bytes
    Ubinary,
}

impl QuantizeArgument {
    pub(super) fn quantization(self) -> Quantization {
        match self {
            QuantizeArgument::Int8 => Quantization::Int8,
            QuantizeArgument::Uint8 => Quantization::Uint8,
            QuantizeArgument::Binary => Quantization::Binary,
            QuantizeArgument::Ubinary => Quantization::Ubinary,
        }
    }
}

pub(super) const ABOUT: &str = "\
Write a cache's values as typed vectors for other tools

With --pipeline, row i of every array or table is record i of the pipeline's data files (train, then validation, then \
test), including repeated texts, with its file, line and id, so that the rows match your own table. A pair of texts \
that were encoded separately has two rows, `part` 0 and 1. Every record must be in the cache.

Without --pipeline, every document is written once, with its key (the hash of its text), shard by shard.

The documents are written with one vector per pooled state; token and word states have their own table, whose `doc` is \
the row of the document. Memory use does not grow with the size of the states (with --pipeline and token or word \
states, it grows by 20 bytes per token). The folder appears once it is complete.

The state `sentence` is in no cache: it is computed from the pooled states of the last layer, in f32, as the model's \
sentence-transformers folder says (pooling, Dense, Normalize, the first truncate_dim values). The state `multi-vector` \
of a multi-vector model is computed from the tokens of the last layer; the table of tokens then has a row for each \
token that has a vector.";

pub(super) const EXAMPLES: &str = "\
Examples:
  frostbert cache export cache/397e9e01919ffd5e --to npy --pipeline pipelines/embed.toml
  frostbert cache export cache/397e9e01919ffd5e --to parquet-list --as f32 --state mean-L06
  frostbert cache export cache/397e9e01919ffd5e --to npy --state mean-L06 --quantize int8";

pub(super) fn run(arguments: &ExportArguments, context: &Context) -> Result<ExitCode> {
    let cache = CacheReader::existing(&arguments.cache)?;
    note_use(cache.folder());
    let overrides = &arguments.overrides.set;
    let pipeline = match &arguments.pipeline {
        Some(path) => Some(Pipeline::read(path, overrides)?),
        None if !overrides.is_empty() => {
            bail!("--set changes a pipeline: name one with --pipeline")
        }
        None => None,
    };
    let format = match arguments.to {
        ExportFormatArgument::Npy => ExportFormat::Npy,
        ExportFormatArgument::Safetensors => ExportFormat::Safetensors,
        ExportFormatArgument::Arrow => ExportFormat::Arrow,
        ExportFormatArgument::ParquetList => ExportFormat::ParquetList,
    };
    let wants = |state| arguments.states.contains(&state);
    let (model, pipeline_given) = (arguments.model.as_deref(), pipeline.as_ref());
    let derived = match (wants(StateArgument::Sentence), wants(StateArgument::MultiVector)) {
        (true, true) => bail!(
            "a model makes one vector of a text or one of each token: ask for --state sentence or multi-vector"
        ),
        (true, false) => Some(sentence_of_cache(&cache, model, pipeline_given)?),
        (false, true) => Some(multi_vectors_of_cache(&cache, model, pipeline_given)?),
        (false, false) if model.is_some() => bail!(
            "--model is needed for --state sentence and multi-vector alone: leave it out, or ask for such a state"
        ),
        (false, false) => None,
    };
    let stored = arguments.states.iter().filter_map(|state| match state {
        StateArgument::Stored(state) => Some(*state),
        StateArgument::Sentence | StateArgument::MultiVector => None,
    });
    let quantize = arguments.quantize.map(QuantizeArgument::quantization);
    let options = ExportOptions {
        format,
        states: stored.collect(),
        derived,
        as_f32: arguments.value_type == Some(ValueTypeArgument::F32),
        quantize,
        folder: match &arguments.out {
            Some(folder) => folder.clone(),
            None => beside(&cache, pipeline.as_ref(), format, quantize),
        },
    };
    let report = match &pipeline {
        Some(pipeline) => export_records(pipeline, &cache, &options, &context.progress)?,
        None => export_cache(&cache, &options, &context.progress)?,
    };
    show(&report, context)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the default output folder, `<DIR>-<FORMAT>`, with the pipeline's name in between if there is one, and with
/// how values are quantised at the end if they are.
fn beside(
    cache: &CacheReader,
    pipeline: Option<&Pipeline>,
    format: ExportFormat,
    quantize: Option<Quantization>,
) -> PathBuf {
    let folder = cache.folder();
    let mut name = match folder.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => cache.manifest().fingerprint.clone(),
    };
    let pipeline = pipeline.map(|pipeline| pipeline.name.as_str());
    for part in
        [pipeline, Some(format.name()), quantize.map(Quantization::name)].into_iter().flatten()
    {
        name.push('-');
        name.push_str(part);
    }
    // A folder such as `.` has no name that a suffix could be added to.
    match folder.file_name() {
        Some(_) => folder.with_file_name(name),
        None => Path::new("..").join(name),
    }
}

/// Returns the name of the type of the values in the files.
fn type_name(report: &ExportReport) -> &'static str {
    report.quantize.map_or(report.dtype.name(), Quantization::name)
}

fn show(report: &ExportReport, context: &Context) -> Result<()> {
    if context.json {
        let files = report.files.iter().map(|file| &file.name);
        return output::print_json(&json!({
            "folder": report.folder.to_string_lossy(),
            "files": files.collect::<Vec<_>>(),
            "rows": report.rows,
            "tokens": report.tokens,
            "words": report.words,
            "bytes": report.bytes(),
            "dtype": type_name(report),
        }));
    }
    let names = |states: &[StateId]| {
        let names: Vec<String> = states.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let stored = format!("{} as {}", names(&report.states), type_name(report));
    let mut written = vec![stored];
    if report.states.is_empty() {
        written.clear();
    }
    if let Some(derived) = &report.derived {
        let (of, values) =
            (names(&derived.states), report.quantize.map_or("f32", Quantization::name));
        written
            .push(format!("{} of {} values as {values}, from {of}", derived.name, derived.width));
    }
    let states = written.join("; ");
    let mut rows = counted(report.rows, "row");
    for (count, name) in [(report.tokens, "token"), (report.words, "word")] {
        if let Some(count) = count {
            rows.push_str(&format!(", {}", counted(count, name)));
        }
    }
    let mut lines =
        vec![("exported", report.folder.display().to_string()), ("", format!("{states}: {rows}"))];
    for file in &report.files {
        lines.push(("", format!("{} ({})", file.name, output::bytes(file.bytes))));
    }
    output::print(&screen::facts(&lines))
}
