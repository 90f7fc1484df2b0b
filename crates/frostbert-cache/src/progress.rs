//! How long work is reported to whoever started it. The library itself never prints.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Receives the progress of long work. Every method has an empty default, so `&()` stays silent.
pub trait Progress: Sync {
    /// A stage begins: its name, and how many units of what it will do (`None` when nobody knows).
    fn start(&self, _stage: &str, _total: Option<u64>, _unit: &'static str) {}

    /// How many tokens the stage has to do in all, where that tells more of its time than its units.
    fn expect_tokens(&self, _tokens: u64) {}

    /// Some more units are done; `tokens` counts real tokens where the stage has any.
    fn advance(&self, _units: u64, _tokens: u64) {}

    /// The stage has ended.
    fn finish(&self) {}

    /// Something that the user should know although nothing failed.
    fn warn(&self, _message: &str) {}

    /// How the stage is getting on, in words: the newest replaces the one before.
    fn detail(&self, _message: &str) {}

    /// Something that the user may like to know.
    fn note(&self, _message: &str) {}

    /// How long to wait for another process that uses what is needed, before that is an error.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether to go on; nobody there to ask means no.
    fn ask(&self, _question: &str) -> bool {
        false
    }
}

impl Progress for () {}

/// Progress inside of a stage that has begun: stages of the work within do not take its place, and what they get done
/// counts as done of it.
pub struct WithinStage<'a> {
    outer: &'a dyn Progress,
    counts: bool,
    advanced: AtomicU64,
}

impl WithinStage<'_> {
    /// Progress inside of the stage that `outer` shows.
    pub fn new(outer: &dyn Progress) -> WithinStage<'_> {
        WithinStage { outer, counts: true, advanced: AtomicU64::new(0) }
    }

    /// What gets done within counts for nothing: whoever began the stage counts otherwise.
    pub fn uncounted(outer: &dyn Progress) -> WithinStage<'_> {
        WithinStage { counts: false, ..WithinStage::new(outer) }
    }

    /// Units that were counted so far.
    pub fn advanced(&self) -> u64 {
        self.advanced.load(Ordering::Relaxed)
    }
}

impl Progress for WithinStage<'_> {
    fn advance(&self, units: u64, tokens: u64) {
        if self.counts {
            self.advanced.fetch_add(units, Ordering::Relaxed);
            self.outer.advance(units, tokens);
        }
    }

    fn warn(&self, message: &str) {
        self.outer.warn(message);
    }

    fn detail(&self, message: &str) {
        self.outer.detail(message);
    }

    fn note(&self, message: &str) {
        self.outer.note(message);
    }

    fn patience(&self) -> Duration {
        self.outer.patience()
    }
}
