//! The command line: the arguments, and the dispatch to one file per command. Commands call the library and print what
//! it returns.

mod cache;
mod cache_list;
mod cache_pull;
mod compare;
mod completions;
mod distributed;
mod doctor;
mod dry_run;
mod embed;
mod errors;
mod evaluate;
mod examples;
mod export;
mod export_run;
mod extract;
#[cfg(feature = "hub")]
mod hub;
mod init;
mod log;
mod machine;
mod model;
mod moved;
mod output;
mod part;
mod precision_report;
mod predict;
mod progress;
mod quantities;
mod report;
mod run;
mod runs;
mod screen;
#[cfg(feature = "serve")]
mod serve;
mod similar;
mod stage_two;
mod sweep;
mod sweep_report;
mod tokenize;
mod train_report;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand};
use errors::wrong_usage;
pub(crate) use errors::{exit_code, print_error, print_usage};
use frostbert::{
    cache::{progress::Progress, wording::nearest},
    internals::{
        config::{keys::by_kinds, settings::Pipeline},
        data::Format,
        experiment::Experiment,
        prediction::{run_record::RunRecord, saved_run::SavedRun},
        run_folder::{program::PROGRAM, relocation::Relocation},
    },
};
use progress::TerminalProgress;
use screen::ColorWhen;
pub(crate) use screen::choose_colors;

/// The maximum width of a help text in columns.
const HELP_WIDTH: usize = 100;

/// Run a frozen BERT once over a corpus, keep its states, and train lightweight heads on them.
///
/// A pipeline file (TOML) describes one experiment: the model, the texts, the states to keep, and the head to train.
/// Results go to stdout; progress, notes and warnings go to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or invalid
/// pipeline, 3 bad data, 4 something is missing, 5 in use by another process, 6 no space, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "frostbert", version = PROGRAM, max_term_width = HELP_WIDTH, after_help = examples::PROGRAM)]
pub(crate) struct Arguments {
    #[command(flatten)]
    global: GlobalArguments,
    #[command(subcommand)]
    command: Command,
}

/// The maximum number of threads per core, whatever --threads says.
const THREADS_PER_CORE: usize = 4;

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct GlobalArguments {
    /// Print one JSON object (predict: one per line) instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Suppress progress and notes, but not warnings, errors, and which run predicts
    #[arg(long, global = true)]
    quiet: bool,
    /// Print more, such as the loss of every epoch
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Number of CPU threads, at most four per core [default: one per core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Path of ONNX Runtime's library, libonnxruntime.so [default: ORT_DYLIB_PATH, or else the one in runtime/ or in the
    /// system's folders]
    #[arg(long, global = true, value_name = "PATH")]
    ort_lib: Option<PathBuf>,
    /// Proceed without asking
    #[arg(long, global = true)]
    yes: bool,
    /// Wait while another process is using the cache, instead of failing; for at most DURATION, such as 10m, if it is
    /// given
    #[arg(long, global = true, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = quantities::duration)]
    wait: Option<Option<Duration>>,
    /// Also append what is printed to stderr to this file, each line with its time: notes, warnings and errors, but
    /// neither progress bars nor the results, which go to stdout and into the run's folder
    #[arg(long, global = true, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Colours: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    color: ColorWhen,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Extract what is missing, train, measure, and write a new run folder
    #[command(after_help = examples::RUN)]
    Run(run::RunArguments),
    #[command(about = "Write the embeddings of texts to a file for other tools; no pipeline file", long_about = embed::ABOUT, after_help = embed::EXAMPLES)]
    Embed(embed::EmbedArguments),
    #[command(about = "Look at a data file, and write a commented pipeline file for it", long_about = init::ABOUT, after_help = init::EXAMPLES)]
    Init(init::InitArguments),
    /// Stage 1 alone: encode texts into the cache (needs no labels)
    #[command(after_help = examples::EXTRACT)]
    Extract(extract::ExtractArguments),
    #[command(flatten)]
    Distributed(distributed::DistributedCommand),
    /// Stage 2 alone: train on cached states without loading the encoder
    #[command(after_help = keys_by_kind(examples::TRAIN))]
    Train(HeadArguments),
    /// Train every head of a pipeline's [sweep] on cached states and compare them; resumes an unfinished sweep
    #[command(after_help = keys_by_kind(examples::SWEEP))]
    Sweep(sweep::SweepArguments),
    /// Evaluate a trained head on other labelled data
    #[command(after_help = examples::EVALUATE)]
    Evaluate(evaluate::EvaluateArguments),
    /// Predict labels, numbers, tags or answers for new texts
    ///
    /// States of texts that are in the run's cache are read from it. The others are encoded and not kept: to predict for
    /// the same file more than once, put its texts into the cache first, with `frostbert extract PIPELINE --set
    /// 'data.train={path="FILE"}'`.
    #[command(after_help = predict::EXAMPLES)]
    Predict(predict::PredictArguments),
    #[cfg(feature = "serve")]
    #[command(about = "Answer requests over HTTP: predictions of runs, and embeddings of their models", long_about = serve::ABOUT, after_help = serve::EXAMPLES)]
    Serve(serve::ServeArguments),
    #[command(about = "Write a trained head, or its encoder with it, for other tools, and check it", long_about = export_run::ABOUT, after_help = export_run::EXAMPLES)]
    Export(export_run::ExportRunArguments),
    #[command(about = "Write the page of a run, or one that compares several", long_about = report::ABOUT, after_help = examples::REPORT)]
    Report(report::ReportArguments),
    /// List, show and compare runs, tag them, and remove them
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Compute the cosine of two texts, or find the texts of a corpus that are nearest to a query
    #[command(after_help = examples::SIMILAR)]
    Similar(similar::SimilarArguments),
    /// Compare f32, f16 and int8: states layer by layer, speed, and the metric of the pipeline's head
    #[command(after_help = examples::PRECISION_REPORT)]
    PrecisionReport(precision_report::PrecisionReportArguments),
    #[command(about = "Compare feature extraction, new heads and trained layers on one cache: score, time, memory", long_about = compare::ABOUT, after_help = compare::EXAMPLES)]
    Compare(compare::CompareArguments),
    /// List, describe, check, export and clean caches
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Fetch, describe and check models
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Check whether this machine can extract: ONNX Runtime, CUDA, the model, the folder of caches
    #[command(after_help = examples::DOCTOR)]
    Doctor(doctor::DoctorArguments),
    /// Show a text's tokens, ids, character offsets and words
    #[command(after_help = examples::TOKENIZE)]
    Tokenize(tokenize::TokenizeArguments),
    /// Print a script that completes the command line in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(completions::CompletionsArguments),
    /// Print the manual page, or write the pages of all commands to a folder
    #[command(after_help = examples::MAN)]
    Man(completions::ManArguments),
}

/// A pipeline file, and values to use in place of its own.
#[derive(Debug, Args)]
struct PipelineArguments {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pipeline: PathBuf,
    #[command(flatten)]
    overrides: OverrideArguments,
}

/// A pipeline file, and whether to work on it or only to look.
#[derive(Debug, Args)]
struct StageArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    #[command(flatten)]
    dry: DryRunArgument,
}

/// As [`StageArguments`], where heads are trained.
#[derive(Debug, Args)]
struct HeadArguments {
    #[command(flatten)]
    stage: StageArguments,
    #[command(flatten)]
    extras: ExtrasArguments,
}

/// What is written beside a run's own files.
#[derive(Debug, Args)]
struct ExtrasArguments {
    /// Write event files for TensorBoard below this folder: losses and metrics by epoch, and each trial of a sweep with
    /// its settings
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    /// Write what cleanlab's Datalab reads to the run folder: pred_probs.npy (out of fold), labels.npy, features.npy, and
    /// which rows they are of
    #[arg(long)]
    datalab: bool,
}

#[derive(Debug, Args)]
struct DryRunArgument {
    /// Check everything and print what would be computed, without writing anything
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct OverrideArguments {
    /// Override a value of the pipeline, as in train.lr=1e-3; a bare word is a string
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<String>,
}

/// Lists which keys of the pipeline file apply to which heads, for the end of a command's help, before its examples.
fn keys_by_kind(examples: &str) -> String {
    let mut text =
        "Keys of [head] and [train], by the kinds of head that they apply to:\n".to_string();
    for (kinds, keys) in by_kinds() {
        text.push_str(&format!("  {kinds}:\n"));
        let mut line = String::new();
        for key in keys {
            if line.len() + key.len() > HELP_WIDTH - 6 {
                text.push_str(&format!("   {line}\n"));
                line.clear();
            }
            line.push_str(&format!(" {key}"));
        }
        text.push_str(&format!("   {line}\n"));
    }
    text + "What each key does and its default are in docs/pipeline.md.\n\n" + examples
}

/// How a data file is written.
#[derive(Debug, Args)]
struct FormatArgument {
    /// The format of the file: csv, tsv, jsonl, json, parquet, lines, conll, conllu or squad [default: that of the run's
    /// train source if the extension is the same, otherwise by extension]
    #[arg(long, value_name = "FORMAT", value_parser = format_named)]
    format: Option<Format>,
}

/// The error is reported by clap as wrong usage.
fn format_named(name: &str) -> Result<Format, String> {
    Format::named(name).ok_or_else(|| {
        let names = Format::ALL.map(|format| format.to_string());
        let meant = nearest(name, names.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        format!("expected one of {}{meant}", names.join(", "))
    })
}

/// The error is reported by clap as wrong usage.
fn key_and_value(setting: &str) -> Result<String, String> {
    if setting.contains('=') {
        Ok(setting.to_string())
    } else {
        Err("expected key=value, as in train.lr=1e-3".into())
    }
}

impl PipelineArguments {
    fn read(&self, context: &Context) -> Result<Pipeline> {
        let pipeline = Pipeline::read(&self.pipeline, &self.overrides.set)?;
        for note in &pipeline.notes {
            context.progress.note(note);
        }
        for warning in &pipeline.warnings {
            context.progress.warn(warning);
        }
        Ok(pipeline)
    }
}

impl StageArguments {
    fn experiment(&self) -> Result<Experiment> {
        let PipelineArguments { pipeline, overrides } = &self.pipeline;
        Ok(Experiment::open_with(pipeline, &overrides.set)?)
    }
}

impl ExtrasArguments {
    /// An experiment that writes what was asked for.
    fn of(&self, experiment: Experiment) -> Experiment {
        let experiment = match &self.tensorboard {
            Some(folder) => experiment.with_tensorboard(folder),
            None => experiment,
        };
        if self.datalab { experiment.with_datalab() } else { experiment }
    }
}

impl Arguments {
    /// Returns whether results and errors are printed as JSON.
    pub(crate) fn json(&self) -> bool {
        self.global.json
    }

    /// Returns whether the command does something else about an interrupt than to exit.
    fn stops_by_itself(&self) -> bool {
        #[cfg(feature = "serve")]
        if let Command::Serve(_) = &self.command {
            return true;
        }
        false
    }

    /// Returns what is kept when the command is interrupted, and how to resume it.
    fn after_interrupt(&self) -> &'static str {
        match &self.command {
            Command::Run(_) | Command::Extract(_) | Command::Embed(_) | Command::Sweep(_) => {
                "what was committed is kept: run the same command again to continue from there"
            }
            Command::Train(_) => {
                "the cache is unchanged, and no run was written: run the same command again"
            }
            Command::Evaluate(_)
            | Command::Similar(_)
            | Command::PrecisionReport(_)
            | Command::Compare(_) => {
                "states that were committed are kept: run the same command again"
            }
            _ => "run the same command again",
        }
    }
}

/// Rewrites `--wait 10m` in a command line as `--wait=10m`, if the word after `--wait` is a duration.
pub(crate) fn typed(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut typed: Vec<OsString> = Vec::new();
    let mut is_over = false;
    for word in words {
        is_over = is_over || word == "--";
        let duration = word.to_str().filter(|word| quantities::duration(word).is_ok());
        match (typed.last_mut(), duration) {
            (Some(last), Some(duration)) if !is_over && last == "--wait" => {
                *last = format!("--wait={duration}").into();
            }
            _ => typed.push(word),
        }
    }
    typed
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(log) = &arguments.global.log {
        log::open(log)?;
    }
    if !arguments.stops_by_itself() {
        errors::catch_interrupts(arguments.after_interrupt(), arguments.json());
    }
    let context = Context::new(&arguments.global)?;
    match &arguments.command {
        Command::Run(arguments) => run::run(arguments, &context),
        Command::Extract(arguments) => extract::run(arguments, &context),
        Command::Distributed(command) => distributed::run(command, &context),
        Command::Embed(arguments) => embed::run(arguments, &context),
        Command::Init(arguments) => init::run(arguments, &context),
        Command::Train(arguments) => stage_two::run_train(arguments, &context),
        Command::Sweep(arguments) => sweep::run(arguments, &context),
        Command::Evaluate(arguments) => evaluate::run(arguments, &context),
        Command::Predict(arguments) => predict::run(arguments, &context),
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => serve::run(arguments, &context),
        Command::Export(arguments) => export_run::run(arguments, &context),
        Command::Report(arguments) => report::run(arguments, &context),
        Command::Runs(command) => runs::run(command, &context),
        Command::Similar(arguments) => similar::run(arguments, &context),
        Command::PrecisionReport(arguments) => precision_report::run(arguments, &context),
        Command::Compare(arguments) => compare::run(arguments, &context),
        Command::Cache(command) => cache::run(command, &context),
        Command::Model(command) => model::run(command, &context),
        Command::Doctor(arguments) => doctor::run(arguments, &context),
        Command::Tokenize(arguments) => tokenize::run(arguments, &context),
        Command::Completions(arguments) => completions::run_completions(arguments),
        Command::Man(arguments) => completions::run_man(arguments, &context),
    }
}

/// The context that every command receives.
struct Context {
    json: bool,
    machine: frostbert::internals::extraction::machine::Machine,
    /// How ONNX Runtime was found.
    search: frostbert::internals::doctor::RuntimeSearch,
    progress: TerminalProgress,
}

impl Context {
    fn new(global: &GlobalArguments) -> Result<Context> {
        let patience = match global.wait {
            None => Duration::ZERO,
            Some(None) => Duration::MAX,
            Some(Some(most)) => most,
        };
        let progress = TerminalProgress::new(global.quiet, global.verbose, patience);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let most = cores.saturating_mul(THREADS_PER_CORE);
        let asked = global.threads.map_or(cores, usize::from);
        let threads = asked.min(most);
        if threads < asked {
            // Each thread takes a session of the model and a stack.
            progress.note(&format!(
                "--threads {asked}: only {threads} are used, because more would only cost memory"
            ));
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| {
            anyhow!("cannot start {threads} threads ({error}): give fewer with --threads")
        })?;
        let (machine, search) = machine::machine(global.ort_lib.as_deref(), threads, global.yes);
        Ok(Context { json: global.json, machine, search, progress })
    }
}

/// Opens a run, and reports how it was chosen and which newer runs were passed over.
fn open_run(path: &Path, relocation: &Relocation, context: &Context) -> Result<SavedRun> {
    let saved = SavedRun::open_moved(path, relocation)?;
    let SavedRun { folder, passed_over, notes, warnings, .. } = &saved;
    say_how_chosen(folder, passed_over, [notes, warnings], context);
    Ok(saved)
}

/// The same of a run of which the head is not needed.
fn open_record(path: &Path, context: &Context) -> Result<RunRecord> {
    let record = RunRecord::open(path)?;
    let RunRecord { folder, passed_over, notes, warnings, .. } = &record;
    say_how_chosen(folder, passed_over, [notes, warnings], context);
    Ok(record)
}

fn say_how_chosen(
    folder: &Path,
    passed_over: &[PathBuf],
    [notes, warnings]: [&Vec<String>; 2],
    context: &Context,
) {
    for run in passed_over {
        context.progress.warn(&format!(
            "{} is skipped, because its lock.json is incomplete or of another version: {} is used instead",
            run.display(),
            folder.display()
        ));
    }
    for note in notes {
        context.progress.note(note);
    }
    for warning in warnings {
        context.progress.warn(warning);
    }
}
