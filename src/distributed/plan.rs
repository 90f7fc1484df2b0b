//! The plan of an extraction on several machines: the texts, divided into tasks of one or more shards each.
//!
//! The shards are those of an extraction on one machine, in the order of the documents' keys. Keys are hashes, so the
//! texts of a task come from all over the corpus: they are copied to a file for each task, and workers need no other.

use std::path::PathBuf;

use frostbert_cache::{
    about::About,
    fingerprint::{self, Digest, FingerprintInputs},
    index::DocumentIndex,
    manifest::Manifest,
    plan::{PlanSettings, Planner},
    progress::Progress,
    states::{Dtype, StateId},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{
        file::{CacheSection, PipelineFile},
        settings::Pipeline,
    },
    distributed::{
        files::{PLAN_FILE, TEXTS, damage},
        shared_folder::SharedFolder,
    },
    error::{Error, Result},
    extraction::{
        extract::{
            Entered, about, cutter, enter, read_texts, shape_of, stores_rows, warn_of_truncation,
        },
        machine::Machine,
        spool::Spool,
        tokenised::TokenisedShards,
    },
};

/// All that workers need to know, and that decides what they compute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DistributedPlan {
    /// The start of the hash of its file.
    #[serde(skip)]
    pub(crate) id: String,
    pub(crate) inputs: FingerprintInputs,
    pub(crate) model_layers: usize,
    pub(crate) hidden: usize,
    pub(crate) dtype: Dtype,
    pub(crate) settings: PlanSettings,
    /// The states that every document gets.
    pub(crate) states: Vec<StateId>,
    /// The number of documents, and the blake3 of their keys in order.
    pub(crate) documents: u64,
    pub(crate) keys: Digest,
    pub(crate) about: About,
    /// The pipeline after defaults and overrides.
    pub(crate) pipeline: PipelineFile,
    pub(crate) tasks: Vec<PlannedTask>,
}

/// A task: shards that one worker computes, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlannedTask {
    /// The blake3 of the file of its texts.
    pub(crate) texts: Digest,
    pub(crate) first_shard: usize,
    pub(crate) shards: usize,
    pub(crate) documents: u64,
    pub(crate) tokens: u64,
}

/// The outcome of planning: the plan and its size.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PlanReport {
    /// The shared folder.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub out: PathBuf,
    /// The id of the plan: the start of its hash.
    pub plan: String,
    /// The fingerprint of the cache to be, which is the name of its folder in the shared one.
    pub fingerprint: String,
    /// Number of records read.
    pub documents: u64,
    /// Number of distinct texts among them.
    pub unique: u64,
    /// Number of tasks.
    pub tasks: usize,
    /// Number of shards.
    pub shards: usize,
    /// Number of tokens to encode.
    pub tokens: u64,
    /// Number of distinct texts whose end is cut off.
    pub truncated: u64,
    /// Whether the same plan was there already.
    pub existed: bool,
}

/// Reads and tokenises the texts of a pipeline, and writes a plan with tasks of so many shards to a shared folder. If
/// the same plan is there, it is kept, with all that workers have done of it.
///
/// # Errors
/// Returns an error if the data, the model or the device does not match the pipeline, if the folder has another plan or
/// a cache of this fingerprint already, or if it cannot be written.
pub fn plan(
    pipeline: &Pipeline,
    shared: &SharedFolder,
    shards_per_task: usize,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<PlanReport> {
    shared.probe()?;
    if !pipeline.models.is_empty() {
        return Err(pipeline.refuse(
            "the sweep compares several models, but a plan is for one".into(),
            "plan each model by itself, with --set model.path=FOLDER and without sweep.model.path"
                .into(),
        ));
    }
    let checkpoint = pipeline.extraction.checkpoint()?;
    // The cache is to be in the shared folder, wherever this pipeline has its own.
    let mut pipeline = pipeline.clone();
    pipeline.extraction.cache_dir = shared.root().to_path_buf();
    let settings = &pipeline.extraction;
    let Entered { lazy: _, states, devices, inputs, folder } =
        enter(&checkpoint, &pipeline, machine, progress)?;
    if !has_plan(shared)? && shared.manifest(&inputs.fingerprint())?.is_some() {
        return Err(Error::Argument {
            action: "plan an extraction",
            expected: "a folder without a cache of the same fingerprint".into(),
            got: format!("`{}`, which is complete", folder.display()),
            hint: format!(
                "texts are added to it by `frostbert extract` with --set cache.dir={}; for a new cache, name another \
                 folder",
                shared.root().display()
            ),
        });
    }
    let shape = shape_of(&pipeline, &checkpoint);
    let nothing = Manifest::empty(&inputs, shape.model_layers, shape.hidden, shape.dtype);
    let index = DocumentIndex::default();
    let row_bytes = shape.hidden * settings.dtype.size_bytes();
    let planner = Planner::new(&states, &nothing, &index, row_bytes);
    let tokenizer = settings.tokenizer(&checkpoint)?;
    let (spool, mut counts) = read_texts(&pipeline, &planner, &index, &shared.aside(), progress)?;
    let cutter = cutter(&pipeline, &devices, &spool, &planner);
    let whole = planner.extraction_plan(spool.keys(), &cutter);
    let aligned = stores_rows(&planner);
    let mut shards = TokenisedShards::new(&spool, &tokenizer, &settings.sources, aligned, cutter);
    progress.start("tokenising", Some(whole.documents), "texts");
    let tasks = write_tasks(&mut shards, &spool, shards_per_task, shared, progress)?;
    progress.finish();
    counts.truncated += shards.truncated;
    warn_of_truncation(&pipeline, counts, progress);
    let mut plan = DistributedPlan {
        id: String::new(),
        inputs,
        model_layers: shape.model_layers,
        hidden: shape.hidden,
        dtype: shape.dtype,
        settings: whole.settings,
        states: whole.states,
        documents: whole.documents,
        keys: whole.keys,
        about: about(&checkpoint),
        pipeline: pipeline.file().clone(),
        tasks,
    };
    let existed = !plan.write(shared)?;
    Ok(PlanReport {
        out: shared.root().to_path_buf(),
        plan: plan.id.clone(),
        fingerprint: plan.inputs.fingerprint(),
        documents: counts.documents,
        unique: counts.unique,
        tasks: plan.tasks.len(),
        shards: plan.tasks.iter().map(|task| task.shards).sum(),
        tokens: plan.tasks.iter().map(|task| task.tokens).sum(),
        truncated: counts.truncated,
        existed,
    })
}

/// Returns whether a shared folder has a plan.
///
/// # Errors
/// Returns an error if that cannot be told.
pub fn has_plan(shared: &SharedFolder) -> Result<bool> {
    Ok(shared.read(PLAN_FILE)?.is_some())
}

/// Writes the texts of every task.
fn write_tasks(
    shards: &mut TokenisedShards<'_>,
    spool: &Spool,
    shards_per_task: usize,
    shared: &SharedFolder,
    progress: &dyn Progress,
) -> Result<Vec<PlannedTask>> {
    let mut tasks = Vec::new();
    let mut first_shard = 0;
    loop {
        let (mut members, mut n_shards, mut tokens) = (Vec::new(), 0, 0);
        for shard in shards.by_ref().take(shards_per_task.max(1)) {
            let shard = shard?;
            progress.advance(shard.members.len() as u64, 0);
            members.extend(shard.members);
            n_shards += 1;
            tokens += shard.planned.tokens;
        }
        if n_shards == 0 {
            return Ok(tasks);
        }
        let texts = shared.put(TEXTS, |file| spool.write(&members, file))?;
        let documents = members.len() as u64;
        tasks.push(PlannedTask { texts, first_shard, shards: n_shards, documents, tokens });
        first_shard += n_shards;
    }
}

impl DistributedPlan {
    /// Reads the plan of a shared folder.
    ///
    /// # Errors
    /// Returns an error if there is none, or if it was written by another version of the program.
    pub(crate) fn read(shared: &SharedFolder) -> Result<DistributedPlan> {
        DistributedPlan::read_if_any(shared)?.ok_or_else(|| {
            let lacks = format!("a {PLAN_FILE}: nothing is planned here");
            let hint = "run `frostbert plan PIPELINE.toml --out` with this folder first".into();
            frostbert_cache::Error::Miss { cache: shared.root().to_path_buf(), lacks, hint }.into()
        })
    }

    /// The same, where there may be none.
    pub(crate) fn read_if_any(shared: &SharedFolder) -> Result<Option<DistributedPlan>> {
        let Some(bytes) = shared.read(PLAN_FILE)? else {
            return Ok(None);
        };
        let plan: DistributedPlan = serde_json::from_slice(&bytes).map_err(|error| {
            let hint = "use the version of frostbert that wrote it, or plan into another folder";
            damage(&shared.path(PLAN_FILE), "a plan".into(), error.to_string(), hint)
        })?;
        Ok(Some(DistributedPlan { id: fingerprint::hash_bytes(&bytes).short(), ..plan }))
    }

    /// Writes the plan; returns `false` if the same one is there already.
    fn write(&mut self, shared: &SharedFolder) -> Result<bool> {
        let json = serde_json::to_vec(self).expect("plain fields become JSON");
        self.id = fingerprint::hash_bytes(&json).short();
        if shared.create(PLAN_FILE, &json)? {
            return Ok(true);
        }
        if shared.read(PLAN_FILE)?.is_some_and(|there| there == json) {
            return Ok(false);
        }
        Err(Error::Argument {
            action: "plan an extraction",
            expected: "a folder without another plan".into(),
            got: format!(
                "`{}` of other texts, settings or tasks",
                shared.path(PLAN_FILE).display()
            ),
            hint: "name another folder; or finish that plan with `frostbert commit`, and make room with `frostbert \
                   vacuum --older-than 0s`"
                .into(),
        })
    }

    /// Returns the name of the file of a task's texts.
    pub(crate) fn texts_of(&self, task: usize) -> String {
        format!("{TEXTS}/{}", self.tasks[task].texts)
    }

    /// Checks that a pipeline asks for what was planned, as far as can be told without reading its texts.
    pub(crate) fn require(&self, pipeline: &Pipeline, shared: &SharedFolder) -> Result<()> {
        let (own, asked) = (&self.pipeline, pipeline.file());
        // Where caches are is no matter of what is computed.
        let cache = CacheSection { dir: own.cache.dir.clone(), ..asked.cache.clone() };
        // As they are written: some fields of a source are not, and are set as it is read.
        let section = if json_of(&own.data) != json_of(&asked.data) {
            "data"
        } else if json_of(&own.cache) != json_of(&cache) {
            "cache"
        } else {
            return Ok(());
        };
        Err(pipeline.refuse(
            format!(
                "[{section}] is not that of the plan in `{}`",
                shared.path(PLAN_FILE).display()
            ),
            "use the pipeline that was planned, or plan this one into another folder".into(),
        ))
    }
}

fn json_of(section: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(section).expect("plain fields become JSON")
}
