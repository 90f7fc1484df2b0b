//! A worker: does tasks of a plan, one after the other, with one model in memory.

use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use frostbert_cache::{
    fingerprint::hash_file,
    manifest::{FileEntry, ShardEntry, shard_name},
    plan::Planner,
    progress::Progress,
    writer::CacheWriter,
};
use serde::Serialize;

use crate::{
    config::settings::Pipeline,
    distributed::{
        files::{OBJECTS, PLAN_FILE, damage},
        plan::DistributedPlan,
        receipt::TaskReceipt,
        scratch::WorkerScratch,
        shared_folder::SharedFolder,
    },
    encoder::{checkpoint::Checkpoint, tokenizer::TextTokenizer},
    error::{Error, Result},
    extraction::{
        encode::{ComputedBy, ExtractionJob},
        extract::{Entered, enter, shape_of, stores_rows},
        machine::Machine,
        spool::Spool,
        tokenised::TokenisedShards,
    },
};

/// What a worker has on its machine.
#[derive(Debug)]
pub struct WorkerOptions {
    /// The folder of the model; where the plan found it if absent.
    pub model: Option<PathBuf>,
    /// The folder in which shards are put together before they go to the shared folder.
    pub scratch: WorkerScratch,
}

/// A plan that is open on one machine, with the model.
pub struct PlanWorker {
    shared: SharedFolder,
    plan: DistributedPlan,
    pipeline: Pipeline,
    checkpoint: Checkpoint,
    scratch: WorkerScratch,
}

/// What came of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// It was done, and has its receipt now.
    Done,
    /// It had a receipt, or another worker was faster.
    Skipped,
    /// One of its texts cannot be encoded. Nothing is left of it.
    Failed,
}

/// The outcome of a task, with its size.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WorkedTask {
    /// The number of the task.
    pub task: usize,
    /// Whether it was done.
    pub status: TaskStatus,
    /// Number of its shards.
    pub shards: usize,
    /// Number of its documents.
    pub documents: u64,
    /// Number of their tokens.
    pub tokens: u64,
    /// Size in bytes of what its receipt names; 0 if it failed.
    pub bytes: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How to fix that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl PlanWorker {
    /// Opens the plan of a shared folder. The pipeline is the one that was planned; if another is given, it must ask
    /// for the same, and its model and device are used.
    ///
    /// # Errors
    /// Returns an error if there is no plan, or if the pipeline or the model does not fit it.
    pub fn open(
        shared: SharedFolder,
        given: Option<&Pipeline>,
        options: WorkerOptions,
    ) -> Result<PlanWorker> {
        let plan = DistributedPlan::read(&shared)?;
        let mut file = plan.pipeline.clone();
        if let Some(given) = given {
            plan.require(given, &shared)?;
            file.model = given.file().model.clone();
        }
        if let Some(model) = options.model {
            file.model.path = model;
        }
        let mut pipeline = Pipeline::check(&shared.path(PLAN_FILE), file)?;
        pipeline.extraction.cache_dir = shared.root().to_path_buf();
        let checkpoint = pipeline.extraction.checkpoint()?;
        Ok(PlanWorker { shared, plan, pipeline, checkpoint, scratch: options.scratch })
    }

    /// Returns the number of tasks.
    pub fn n_tasks(&self) -> usize {
        self.plan.tasks.len()
    }

    /// Returns the tasks of a part, from 1 to `n_parts`: some that follow each other. Parts differ by at most one task.
    pub fn part(&self, part: usize, n_parts: usize) -> Range<usize> {
        tasks_of_part(self.n_tasks(), part, n_parts)
    }

    /// Checks that this machine computes what was planned. The model is loaded when a task needs it.
    ///
    /// # Errors
    /// Returns an error if the device cannot be used, or if the states would not be those of the plan.
    pub fn start<'a>(
        &'a self,
        machine: &'a Machine,
        progress: &'a dyn Progress,
    ) -> Result<StartedWorker<'a>> {
        let entered = enter(&self.checkpoint, &self.pipeline, machine, progress)?;
        if entered.inputs != self.plan.inputs || entered.states != self.plan.states {
            let differences = self.plan.inputs.differences(&entered.inputs);
            return Err(Error::Argument {
                action: "work on the plan",
                expected: format!("a model and a device that give {}", self.plan.inputs.fingerprint()),
                got: format!(
                    "{}, which differs in {}",
                    entered.inputs.fingerprint(),
                    differences.join(", ")
                ),
                hint: "give the worker the same files of the model and the same kind of device as the plan".into(),
            });
        }
        let tokenizer = self.pipeline.extraction.tokenizer(&self.checkpoint)?;
        Ok(StartedWorker { worker: self, entered, tokenizer, progress })
    }
}

/// A worker whose machine fits the plan.
pub struct StartedWorker<'a> {
    worker: &'a PlanWorker,
    entered: Entered<'a>,
    tokenizer: TextTokenizer,
    progress: &'a dyn Progress,
}

impl StartedWorker<'_> {
    /// Does a task, unless it has a receipt.
    ///
    /// # Errors
    /// Returns an error if there is no such task, or if nothing can be computed or written here: then other tasks would
    /// fail too. That a text cannot be encoded is no error of the worker, see [`TaskStatus::Failed`].
    pub fn run(&mut self, task: usize) -> Result<WorkedTask> {
        let worker = self.worker;
        let (shared, plan) = (&worker.shared, &worker.plan);
        let Some(planned) = plan.tasks.get(task) else {
            return Err(Error::Argument {
                action: "work on the plan",
                expected: format!("a task from 0 to {}", plan.tasks.len().saturating_sub(1)),
                got: task.to_string(),
                hint: "`frostbert plan --json` prints the number of tasks".into(),
            });
        };
        let worked = |status, bytes| WorkedTask {
            task,
            status,
            shards: planned.shards,
            documents: planned.documents,
            tokens: planned.tokens,
            bytes,
            error: None,
            hint: None,
        };
        if let Some(receipt) = TaskReceipt::read(shared, plan, task)? {
            return Ok(worked(TaskStatus::Skipped, receipt.bytes()));
        }
        let receipt = match self.compute(task) {
            Ok(receipt) => receipt,
            Err(error) if is_of_texts(&error) => {
                return Ok(WorkedTask {
                    error: Some(error.to_string()),
                    hint: error.hint().map(String::from),
                    ..worked(TaskStatus::Failed, 0)
                });
            }
            Err(error) => return Err(error),
        };
        let json = serde_json::to_vec(&receipt).expect("plain fields become JSON");
        if shared.create(&TaskReceipt::name(&plan.id, task), &json)? {
            return Ok(worked(TaskStatus::Done, receipt.bytes()));
        }
        // Another worker was faster. What it wrote may have the same names, so nothing is removed.
        let first = TaskReceipt::read(shared, plan, task)?;
        Ok(worked(TaskStatus::Skipped, first.map_or(0, |first| first.bytes())))
    }

    /// Computes the shards of a task in a cache of their own, and copies their files to the shared folder.
    fn compute(&mut self, task: usize) -> Result<TaskReceipt> {
        let worker = self.worker;
        let PlanWorker { shared, plan, pipeline, checkpoint, scratch } = worker;
        let scratch = scratch.path();
        let planned = &plan.tasks[task];
        let name = plan.texts_of(task);
        let texts = shared.path(&name);
        let fetched = shared.fetch(&name)?;
        let found = hash_file(fetched.path())?;
        if found != planned.texts {
            let expected = format!("the texts of task {task}, {}", planned.texts.short());
            let hint = "remove it and run `frostbert plan` again: it writes the same plan, and the missing files";
            return Err(damage(&texts, expected, found.short(), hint));
        }
        let spool = Spool::open(fetched.path())?;
        let aside = tempfile::Builder::new()
            .prefix("task-")
            .tempdir_in(scratch)
            .map_err(Error::io("create a folder in", scratch))?;
        let shape = shape_of(pipeline, checkpoint);
        let mut writer = CacheWriter::open(aside.path(), &plan.inputs, shape, &())?;
        let row_bytes = plan.hidden * plan.dtype.size_bytes();
        let planner = Planner::new(&plan.states, writer.manifest(), writer.index(), row_bytes);
        let documents = spool.documents();
        // The first document of a task begins a shard, so the cuts are those of the whole extraction.
        let key = |number: usize| documents[number].key;
        let cutter = planner.cutter(documents.len(), key, plan.settings.clone());
        let aligned = stores_rows(&planner);
        let sources = &pipeline.extraction.sources;
        let mut shards = TokenisedShards::new(&spool, &self.tokenizer, sources, aligned, cutter);
        let job = ExtractionJob {
            settings: plan.settings.clone(),
            spool: &spool,
            sources,
            hidden: plan.hidden,
            dtype: plan.dtype,
        };
        let onnxruntime = self.entered.lazy.runtime()?.version;
        let encoder = self.entered.lazy.open(self.progress)?;
        let computer = ComputedBy {
            device: encoder.devices.to_string(),
            placement: encoder.placement.clone(),
            onnxruntime,
        };
        self.progress.start("encoding", Some(planned.documents), "texts");
        self.progress.expect_tokens(planned.tokens);
        let totals = job.run(&mut shards, encoder, &mut writer, &computer, self.progress);
        self.progress.finish();
        totals?;
        let truncated = writer.manifest().truncated;
        let mut entries = Vec::new();
        for (number, entry) in writer.manifest().shards.iter().enumerate() {
            let folder = writer.folder().join(&entry.name);
            for file in &entry.files {
                copy(&folder.join(&file.name), file, shared)?;
            }
            let name = shard_name(planned.first_shard + number);
            entries.push(ShardEntry { name, ..entry.clone() });
        }
        let receipt = TaskReceipt { plan: plan.id.clone(), task, truncated, shards: entries };
        receipt.check(plan).map_err(|got| {
            let hint = "use the same version of frostbert as the plan";
            damage(&texts, format!("the shards of task {task}"), got, hint)
        })?;
        Ok(receipt)
    }
}

/// Copies a file of a shard to the shared folder, under the hash of its bytes.
fn copy(path: &Path, file: &FileEntry, shared: &SharedFolder) -> Result<()> {
    let mut from = File::open(path).map_err(Error::io("read", path))?;
    let digest = shared.put(OBJECTS, |to| io::copy(&mut from, to).map(drop))?;
    if digest == file.blake3 {
        return Ok(());
    }
    let hint = "check this machine's disk, and do the task again";
    Err(damage(path, format!("the blake3 {}", file.blake3.short()), digest.short(), hint))
}

/// Whether a task failed because of its texts, so that it would fail on any machine.
fn is_of_texts(error: &Error) -> bool {
    matches!(error, Error::State { .. } | Error::Record { .. })
}

fn tasks_of_part(n_tasks: usize, part: usize, n_parts: usize) -> Range<usize> {
    let start = |part: usize| (n_tasks as u128 * part as u128 / n_parts as u128) as usize;
    start(part - 1)..start(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_in_one_part_and_parts_differ_by_at_most_one_task() {
        for (n_tasks, n_parts) in [(0, 3), (1, 4), (10, 4), (12, 4), (1_000_000, 7)] {
            let parts: Vec<Range<usize>> =
                (1..=n_parts).map(|part| tasks_of_part(n_tasks, part, n_parts)).collect();
            assert_eq!((parts[0].start, parts[n_parts - 1].end), (0, n_tasks));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes: Vec<usize> = parts.iter().map(Range::len).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1, "{sizes:?}");
        }
    }
}
