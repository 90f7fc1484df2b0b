//! `frostbert embed`: writes the embeddings of data files to one file, without a pipeline file.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use frostbert::{
    cache::{states::Dtype, wording::counted},
    internals::{
        data::{ColumnName, Format, Source},
        error::Error,
        extraction::embed::{EmbedReport, EmbedRequest, embed},
    },
};

use super::{
    Context, export::QuantizeArgument, format_named, key_and_value, machine::or_installed, output,
    screen,
};

#[derive(Debug, Args)]
pub(super) struct EmbedArguments {
    /// Files of texts: csv, tsv, jsonl, parquet, or one text per line (.txt); - for stdin (one text per line, unless
    /// --format is given)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The file to write; its extension decides the format: .npy, .parquet, .arrow or .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The model's folder
    #[arg(long, value_name = "DIR", default_value = "models/minilm")]
    model: PathBuf,
    /// The vector that represents a text: the mean or maximum over all its tokens, the state of [CLS], or the one that
    /// sentence-transformers would return; multi-vector: a vector of each token, of a model that makes them; auto: what
    /// the model's folder says how to make, else the mean
    #[arg(long, value_enum, default_value = "auto")]
    pooling: PoolingArgument,
    /// What is put before every text: one of the model's prompts by its name, or a text such as "query: " [default: the
    /// model's default prompt, if it has one]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The layer, counted from 0 (the embedding layer); negative numbers count from the last
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    layer: i64,
    /// The type of the values in the cache and the file. Caches of f32 and of f16 are two: a pipeline stores f16 unless
    /// its cache.dtype says otherwise, so f16 can use what `run` has cached, and f32 encodes the texts again
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeArgument,
    /// Write small integers, as quantize_embeddings of sentence-transformers does; the ranges of int8 and uint8, the
    /// least and the greatest value of each dimension, go to FILE.ranges.npy
    #[arg(long, value_name = "KIND", value_enum)]
    quantize: Option<QuantizeArgument>,
    /// The column of texts, by name, or by number counted from 0
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    text_column: ColumnName,
    /// A column of identifiers, which is written as `id`
    #[arg(long, value_name = "COLUMN")]
    id_column: Option<ColumnName>,
    /// A column of labels, which is written as `label`
    #[arg(long, value_name = "COLUMN")]
    label_column: Option<ColumnName>,
    /// Also write the texts, as `text`
    #[arg(long)]
    with_text: bool,
    /// The format of the files: csv, tsv, jsonl, json, parquet or lines [default: by their extensions]
    #[arg(long, value_name = "FORMAT", value_parser = format_named)]
    format: Option<Format>,
    /// The field separator of a csv file
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,
    /// The folder of caches
    #[arg(long, value_name = "DIR", default_value = "cache")]
    cache: PathBuf,
    /// Override any other setting of a pipeline, as in cache.max_length=256 or model.device=cuda
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArgument {
    Auto,
    Mean,
    Cls,
    Max,
    Sentence,
    MultiVector,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeArgument {
    F32,
    F16,
}

pub(super) const ABOUT: &str = "\
Write the embeddings of texts to a file that other tools can read, without a pipeline file

Row i is record i of the files, in order, including repeated texts. States are cached: a second call encodes only what \
is not in the cache yet. A table (.parquet, .arrow) has the columns `id`, `text` and `label` if they are requested, \
and `embedding`; for an array (.npy, .safetensors with the tensor `embeddings`), the requested columns are written to \
FILE.meta.parquet. Texts that are too long are truncated to cache.max_length tokens, and counted.

With --pooling multi-vector a text has a vector of each token: `embedding` is a list of vectors, and of an array the \
vectors of record i are the rows from offsets[i] to offsets[i + 1], where the offsets are the tensor `offsets` or, of \
an .npy file, FILE.offsets.npy.";

pub(super) const EXAMPLES: &str = "\
Examples:
  frostbert embed data/corpus.txt --out corpus.npy
  frostbert embed data/reviews.csv --out reviews.parquet --id-column id --label-column label";

pub(super) fn run(arguments: &EmbedArguments, context: &Context) -> Result<ExitCode> {
    // Files are read more than once, and stdin can be read only once.
    let mut copies = Vec::new();
    let mut sources = Vec::new();
    for file in &arguments.files {
        let is_stdin = file == Path::new("-");
        let path = if is_stdin {
            let copy = copy_of_stdin()?;
            copies.push(copy);
            copies[copies.len() - 1].path().to_path_buf()
        } else {
            file.clone()
        };
        let format = arguments.format.or(is_stdin.then_some(Format::Lines));
        sources.push(Source {
            format,
            text: Some(arguments.text_column.clone()),
            id: arguments.id_column.clone(),
            label: arguments.label_column.clone(),
            delimiter: arguments.delimiter,
            ..Source::new(path)
        });
    }
    let request = EmbedRequest {
        sources,
        model: or_installed(&arguments.model),
        pooling: match arguments.pooling {
            PoolingArgument::Auto => "auto",
            PoolingArgument::Mean => "mean",
            PoolingArgument::Cls => "cls",
            PoolingArgument::Max => "max",
            PoolingArgument::Sentence => "sentence",
            PoolingArgument::MultiVector => "multi-vector",
        }
        .into(),
        layer: arguments.layer,
        dtype: match arguments.dtype {
            DtypeArgument::F32 => Dtype::F32,
            DtypeArgument::F16 => Dtype::F16,
        },
        quantize: arguments.quantize.map(QuantizeArgument::quantization),
        cache_dir: arguments.cache.clone(),
        prompt: arguments.prompt.clone(),
        overrides: arguments.set.clone(),
        with_text: arguments.with_text,
        out: arguments.out.clone(),
    };
    let report = embed(&request, &context.machine, &context.progress)?;
    if context.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies stdin to a file that is removed when the command ends.
fn copy_of_stdin() -> Result<tempfile::NamedTempFile> {
    let folder = std::env::temp_dir();
    let copy = tempfile::NamedTempFile::new_in(&folder).map_err(Error::io("write into", folder))?;
    let mut file: &File = copy.as_file();
    io::copy(&mut io::stdin().lock(), &mut file)
        .map_err(Error::io("copy standard input to", copy.path()))?;
    Ok(copy)
}

fn describe(report: &EmbedReport) -> String {
    let state = match report.sentence.as_ref().or(report.multi_vector.as_ref()) {
        Some(steps) => format!("{} ({steps})", report.state),
        None => report.state.clone(),
    };
    let vectors = report.vectors.map(|vectors| counted(vectors, "vector"));
    screen::facts(&[
        ("embedded", report.out.display().to_string()),
        (
            "",
            format!(
                "{}{} x {} {}, {}",
                counted(report.rows, "row"),
                vectors.map_or(String::new(), |vectors| format!(", {vectors}")),
                report.dimensions,
                report.dtype,
                state
            ),
        ),
        (
            "cache",
            format!(
                "{}: {} computed, {} reused; {} truncated",
                report.cache.display(),
                report.computed,
                report.reused,
                report.truncated
            ),
        ),
    ])
}
