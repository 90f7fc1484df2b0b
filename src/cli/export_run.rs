//! `frostbert export`: writes a saved run for other tools.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use frostbert::internals::{
    export::{
        export_run,
        request::{ExportKind, ExportPrecision, ExportRequest, ExportedRun, FolderLayout},
    },
    prediction::saved_run::SavedRun,
};

use super::{Context, moved::MovedArguments, output, screen};

#[derive(Debug, Args)]
pub(super) struct ExportRunArguments {
    /// A run: its folder, a name or folder of runs (the newest is used), or a tag
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// What to write
    #[arg(long, value_name = "KIND", value_enum)]
    to: ExportKindArgument,
    /// The folder to write, which must not exist [default: <NAME>-<NUMBER>-<KIND>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The number format of the encoder; int8 needs ONNX Runtime's own operators
    #[arg(long, value_enum, default_value = "f32")]
    precision: ExportPrecisionArgument,
    /// Where the files are in the folder
    #[arg(long, value_enum, default_value = "flat")]
    layout: FolderLayoutArgument,
    /// Use ONNX Runtime's own fused operators, which other runtimes do not have
    #[arg(long)]
    fused: bool,
    #[command(flatten)]
    moved: MovedArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportKindArgument {
    /// Encoder, pooling, standardisation, head and temperature in one ONNX file of ordinary operators
    Onnx,
    /// The head alone as an ONNX file that reads states
    OnnxHead,
    /// A folder that transformers loads, where that is exact
    Transformers,
    /// A folder that sentence-transformers loads
    SentenceTransformers,
    /// The head's tensors in one file
    Safetensors,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportPrecisionArgument {
    F32,
    Int8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FolderLayoutArgument {
    /// All files side by side
    Flat,
    /// The ONNX file as onnx/model.onnx, as optimum and transformers.js expect it
    Hub,
}

impl ExportKindArgument {
    fn kind(self) -> ExportKind {
        match self {
            ExportKindArgument::Onnx => ExportKind::Onnx,
            ExportKindArgument::OnnxHead => ExportKind::OnnxHead,
            ExportKindArgument::Transformers => ExportKind::Transformers,
            ExportKindArgument::SentenceTransformers => ExportKind::SentenceTransformers,
            ExportKindArgument::Safetensors => ExportKind::Safetensors,
        }
    }
}

pub(super) const ABOUT: &str = "\
Write a trained head, or its encoder with it, for other tools, and check it

What is written is compared with what `predict` gives on rows of the run's test part (at most 256 of them), and the \
largest difference is printed and kept in export.json. If the files compute something else, or if the run cannot be \
expressed in the format, nothing is written. docs/handing-on.md describes every format.";

pub(super) const EXAMPLES: &str = "\
Examples:
  frostbert export runs/sentiment --to onnx
  frostbert export runs/sentiment --to safetensors --out sentiment-head";

pub(super) fn run(arguments: &ExportRunArguments, context: &Context) -> Result<ExitCode> {
    let saved = super::open_run(&arguments.run, &arguments.moved.relocation(), context)?;
    let kind = arguments.to.kind();
    let request = ExportRequest {
        kind,
        out: arguments.out.clone().unwrap_or_else(|| default_folder(&saved, kind)),
        precision: match arguments.precision {
            ExportPrecisionArgument::F32 => ExportPrecision::F32,
            ExportPrecisionArgument::Int8 => ExportPrecision::Int8,
        },
        layout: match arguments.layout {
            FolderLayoutArgument::Flat => FolderLayout::Flat,
            FolderLayoutArgument::Hub => FolderLayout::Hub,
        },
        fused: arguments.fused,
    };
    let exported = export_run(saved, &request, &context.machine, &context.progress)?;
    show(&exported, context)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the folder for a run named `sentiment/001`: `sentiment-001-onnx`.
fn default_folder(saved: &SavedRun, kind: ExportKind) -> PathBuf {
    let folder = saved.folder.file_name().unwrap_or_default().to_string_lossy();
    let is_number = folder.bytes().all(|byte| byte.is_ascii_digit());
    let name =
        if is_number { format!("{}-{folder}", saved.pipeline.name) } else { folder.into_owned() };
    PathBuf::from(format!("{name}-{}", kind.name()))
}

fn show(exported: &ExportedRun, context: &Context) -> Result<()> {
    if context.json {
        return output::print_json(exported);
    }
    let folder = exported.folder.display();
    let mut lines = vec![
        ("exported", format!("{} as {} to {folder}", exported.run.display(), exported.kind.name())),
        ("checked", exported.check.in_words()),
    ];
    let mut name = "notes";
    for note in &exported.notes {
        lines.push((name, note.clone()));
        name = "";
    }
    let mut name = "files";
    for file in &exported.files {
        lines.push((name, format!("{} ({})", file.name, output::bytes(file.bytes))));
        name = "";
    }
    output::print(&screen::facts(&lines))
}
