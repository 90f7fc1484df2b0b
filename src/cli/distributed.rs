//! Extraction on several machines: `frostbert plan`, `work`, `commit` and `vacuum`, and `extract --part`.

use std::{
    env,
    io::{self, BufRead},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand, value_parser};
use frostbert::{
    cache::wording::counted,
    internals::{
        config::settings::Pipeline,
        distributed::{
            commit::{CommitReport, commit},
            plan::{PlanReport, has_plan, plan},
            scratch::WorkerScratch,
            shared_folder::{SharedFolder, StoreAccess},
            vacuum::vacuum,
            work::{PlanWorker, TaskStatus, WorkedTask, WorkerOptions},
        },
    },
};
use serde_json::json;

use super::{
    Context, PipelineArguments, errors::HintedFailure, examples, output, part::JobPart, quantities,
    wrong_usage,
};

/// The days after which `vacuum` removes files by default: no worker takes that long for a task.
const DAYS: u64 = 7;

/// The most failed tasks that a message lists.
const LISTED_TASKS: usize = 8;

#[derive(Debug, Subcommand)]
pub(super) enum DistributedCommand {
    /// Divide an extraction into tasks for several machines, in a folder that all of them see
    #[command(after_help = examples::PLAN)]
    Plan(PlanArguments),
    /// Do tasks of a plan, and print one JSON object for each
    #[command(after_help = examples::WORK)]
    Work(WorkArguments),
    /// Make a cache of a plan whose tasks are all done
    #[command(after_help = examples::COMMIT)]
    Commit(CommitArguments),
    /// Remove what a plan and its workers left and nothing needs
    #[command(after_help = examples::VACUUM)]
    Vacuum(VacuumArguments),
}

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// The folder that all machines see, or s3://BUCKET/PREFIX; the cache will be in it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of shards in a task: a worker that is killed loses at most one task
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    shards: u32,
}

#[derive(Debug, Args)]
pub(super) struct WorkArguments {
    /// The folder of the plan, or s3://BUCKET/PREFIX
    #[arg(value_name = "DIR")]
    out: PathBuf,
    /// Numbers of tasks, from 0 [default: read from standard input, one per line]
    #[arg(value_name = "TASK")]
    tasks: Vec<usize>,
    /// The model's folder on this machine [default: that of the plan's pipeline]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    scratch: ScratchArgument,
}

#[derive(Debug, Args)]
pub(super) struct ScratchArgument {
    /// A folder on this machine's own disk with room for a task [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl ScratchArgument {
    /// Fails where the folder is named and nothing would be written to it.
    pub(super) fn require_out(&self, out: Option<&Path>) -> Result<()> {
        if self.scratch.is_some() && out.is_none() {
            return Err(wrong_usage(
                "--scratch is for a part of the work: name the folder that all machines see with --out".into(),
            ));
        }
        Ok(())
    }

    /// Makes a folder for this worker in it.
    fn begin(&self, context: &Context) -> Result<WorkerScratch> {
        let parent = self.scratch.clone().unwrap_or_else(env::temp_dir);
        Ok(WorkerScratch::begin(&parent, &context.progress)?)
    }
}

#[derive(Debug, Args)]
pub(super) struct CommitArguments {
    /// The folder of the plan, or s3://BUCKET/PREFIX
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct VacuumArguments {
    /// The folder of the plan, or s3://BUCKET/PREFIX
    #[arg(value_name = "DIR")]
    out: PathBuf,
    /// Remove only files that are older than this, such as 12h or 30d [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = quantities::duration)]
    older_than: Option<Duration>,
    /// Go on although a plan was begun and is not committed; what its plan or a receipt names stays
    #[arg(long)]
    force: bool,
}

/// Opens a folder that machines share; that of an object store by the variables `AWS_*`.
pub(super) fn open(out: &Path, scratch: PathBuf) -> Result<SharedFolder> {
    let texts = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let variables = texts.filter(|(name, _)| name.starts_with("AWS_")).collect();
    Ok(SharedFolder::open(out, &StoreAccess { variables, scratch })?)
}

pub(super) fn run(command: &DistributedCommand, context: &Context) -> Result<ExitCode> {
    match command {
        DistributedCommand::Plan(arguments) => run_plan(arguments, context),
        DistributedCommand::Work(arguments) => run_work(arguments, context),
        DistributedCommand::Commit(arguments) => run_commit(arguments, context),
        DistributedCommand::Vacuum(arguments) => run_vacuum(arguments, context),
    }
}

fn run_plan(arguments: &PlanArguments, context: &Context) -> Result<ExitCode> {
    let pipeline = arguments.pipeline.read(context)?;
    let shards = arguments.shards as usize;
    let shared = open(&arguments.out, env::temp_dir())?;
    let report = plan(&pipeline, &shared, shards, &context.machine, &context.progress)?;
    if context.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe_plan(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe_plan(report: &PlanReport) -> String {
    format!(
        "plan        {}{}\n            {} of {}, {} distinct, {} truncated; {}\n",
        report.plan,
        if report.existed { ", which was there already" } else { "" },
        counted(report.tasks, "task"),
        counted(report.documents, "text"),
        report.unique,
        report.truncated,
        counted(report.tokens, "token"),
    )
}

/// Does the tasks that are named, or else those that come on standard input, and prints a line of JSON for each.
fn run_work(arguments: &WorkArguments, context: &Context) -> Result<ExitCode> {
    let scratch = arguments.scratch.begin(context)?;
    let shared = open(&arguments.out, scratch.path().to_path_buf())?;
    let options = WorkerOptions { model: arguments.model.clone(), scratch };
    let worker = PlanWorker::open(shared, None, options)?;
    let mut started = worker.start(&context.machine, &context.progress)?;
    let mut failed = Vec::new();
    let mut run = |task: usize| -> Result<output::Reader> {
        let worked = started.run(task)?;
        let line = format!("{}\n", serde_json::to_string(&worked)?);
        if worked.status == TaskStatus::Failed {
            failed.push(worked);
        }
        output::write(&line)
    };
    if arguments.tasks.is_empty() {
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| anyhow!("cannot read standard input: {error}"))?;
            let Some(task) = task_of(&line)? else { continue };
            if run(task)? == output::Reader::Gone {
                break;
            }
        }
    } else {
        for task in &arguments.tasks {
            run(*task)?;
        }
    }
    require_none_failed(&failed)?;
    Ok(ExitCode::SUCCESS)
}

/// The task that a line of standard input names; none if it is empty.
fn task_of(line: &str) -> Result<Option<usize>> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let task = line.parse().map_err(|_| {
        wrong_usage(format!("standard input: expected the number of a task, got `{line}`"))
    })?;
    Ok(Some(task))
}

/// Does the tasks of a part of the plan, which is made first if there is none.
pub(super) fn extract_part(
    pipeline: &Pipeline,
    out: &Path,
    part: Option<&str>,
    scratch: &ScratchArgument,
    context: &Context,
) -> Result<ExitCode> {
    let JobPart { number, of } =
        JobPart::find(part, |name| env::var(name).ok()).map_err(wrong_usage)?;
    let scratch = scratch.begin(context)?;
    let shared = open(out, scratch.path().to_path_buf())?;
    if !has_plan(&shared)? {
        plan(pipeline, &shared, 1, &context.machine, &context.progress)?;
    }
    let options = WorkerOptions { model: None, scratch };
    let worker = PlanWorker::open(shared, Some(pipeline), options)?;
    let mut started = worker.start(&context.machine, &context.progress)?;
    let mut worked = Vec::new();
    for task in worker.part(number, of) {
        worked.push(started.run(task)?);
    }
    let n = |status: TaskStatus| worked.iter().filter(|task| task.status == status).count();
    let (done, skipped) = (n(TaskStatus::Done), n(TaskStatus::Skipped));
    let (failed, _): (Vec<WorkedTask>, Vec<WorkedTask>) =
        worked.iter().cloned().partition(|task| task.status == TaskStatus::Failed);
    require_none_failed(&failed)?;
    if context.json {
        let report = json!({
            "out": out.to_string_lossy(),
            "part": number,
            "parts": of,
            "done": done,
            "skipped": skipped,
        });
        output::print_json(&report)?;
    } else {
        let text = format!(
            "part        {number} of {of}: {} done, {skipped} done before\n",
            counted(done, "task")
        );
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails if some tasks failed, with the reason for each.
fn require_none_failed(failed: &[WorkedTask]) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    let listed = failed.iter().take(LISTED_TASKS);
    let listed = listed.map(|worked| {
        let error = worked.error.as_deref().unwrap_or_default();
        format!("\n  task {}: {error}", worked.task)
    });
    let more = if failed.len() > LISTED_TASKS { "\n  ..." } else { "" };
    let message = format!(
        "{} cannot be done (all others of this worker are done):{}{more}",
        counted(failed.len(), "task"),
        listed.collect::<String>()
    );
    Err(HintedFailure { message, hint: failed.iter().find_map(|worked| worked.hint.clone()) }
        .into())
}

fn run_commit(arguments: &CommitArguments, context: &Context) -> Result<ExitCode> {
    let shared = open(&arguments.out, env::temp_dir())?;
    let report = commit(&shared, &context.progress)?;
    if context.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe_commit(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe_commit(report: &CommitReport) -> String {
    format!(
        "cache       {}{}\n            {} in {}, {}, {}\n",
        report.cache.display(),
        if report.existed { ", which was there already" } else { "" },
        counted(report.documents, "text"),
        counted(report.shards, "shard"),
        counted(report.tokens, "token"),
        output::bytes(report.bytes),
    )
}

fn run_vacuum(arguments: &VacuumArguments, context: &Context) -> Result<ExitCode> {
    let older_than = arguments.older_than.unwrap_or(Duration::from_secs(DAYS * 24 * 3600));
    let shared = open(&arguments.out, env::temp_dir())?;
    let report = vacuum(&shared, older_than, arguments.force)?;
    if context.json {
        output::print_json(&report)?;
    } else {
        let text = format!(
            "{} removed, {}; {} too new\n",
            counted(report.removed, "file"),
            output::bytes(report.bytes),
            report.too_new
        );
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
