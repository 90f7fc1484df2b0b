//! The receipts of tasks: what a worker leaves when a task is done.

use frostbert_cache::manifest::{ShardEntry, shard_name};
use serde::{Deserialize, Serialize};

use crate::{
    distributed::{
        files::{RECEIPTS, damage},
        plan::DistributedPlan,
        shared_folder::SharedFolder,
    },
    error::Result,
};

/// What was computed for a task. It holds no times, hosts or processes, and two workers of the same kind of CPU write
/// the same bytes. The first receipt of a task decides which of their files are in the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskReceipt {
    /// The id of the plan.
    pub(crate) plan: String,
    /// The number of the task, from 0.
    pub(crate) task: usize,
    /// The number of truncated documents.
    pub(crate) truncated: u64,
    /// The shards, as the manifest is to list them.
    pub(crate) shards: Vec<ShardEntry>,
}

impl TaskReceipt {
    /// Returns the name of the receipt of a task.
    pub(crate) fn name(plan: &str, task: usize) -> String {
        format!("{}/{task:06}.json", TaskReceipt::folder(plan))
    }

    /// Returns the folder of the receipts of a plan.
    pub(crate) fn folder(plan: &str) -> String {
        format!("{RECEIPTS}/{plan}")
    }

    /// Reads the receipt of a task, and checks it against the plan; returns `None` if there is none.
    pub(crate) fn read(
        shared: &SharedFolder,
        plan: &DistributedPlan,
        task: usize,
    ) -> Result<Option<TaskReceipt>> {
        let name = TaskReceipt::name(&plan.id, task);
        let Some(bytes) = shared.read(&name)? else {
            return Ok(None);
        };
        let wrong = |got: String| {
            let expected = format!("the receipt of task {task}");
            let hint = "remove it, and the task is done again by the next worker";
            damage(&shared.path(&name), expected, got, hint)
        };
        let receipt: TaskReceipt =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if receipt.plan != plan.id || receipt.task != task {
            return Err(wrong(format!("that of task {} of plan {}", receipt.task, receipt.plan)));
        }
        receipt.check(plan).map_err(wrong)?;
        Ok(Some(receipt))
    }

    /// Checks that the shards are those of the plan.
    ///
    /// # Errors
    /// Returns what they are instead.
    pub(crate) fn check(&self, plan: &DistributedPlan) -> Result<(), String> {
        let planned = &plan.tasks[self.task];
        let sum = |of: fn(&ShardEntry) -> u64| self.shards.iter().map(of).sum::<u64>();
        let (documents, tokens) = (sum(|shard| shard.documents), sum(|shard| shard.tokens));
        let shards = (self.shards.len(), documents, tokens);
        let expected = (planned.shards, planned.documents, planned.tokens);
        if shards != expected {
            let told = |(shards, documents, tokens): (usize, u64, u64)| {
                format!("{shards} shards of {documents} documents and {tokens} tokens")
            };
            return Err(format!("{}, where the plan has {}", told(shards), told(expected)));
        }
        for (shard, number) in self.shards.iter().zip(planned.first_shard..) {
            if shard.name != shard_name(number) {
                return Err(format!("`{}` in place of `{}`", shard.name, shard_name(number)));
            }
            if plan.states.iter().any(|state| !shard.holds(*state)) {
                return Err(format!("`{}`, which lacks a state", shard.name));
            }
        }
        Ok(())
    }

    /// Returns the size of the files in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(ShardEntry::bytes).sum()
    }
}
