//! Reports the progress of long work to its caller. The library itself never prints.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Receives the progress of long work. Every method has a default, so `&()` stays silent.
pub trait Progress: Sync {
    /// Called when a stage begins, with its name and the number of units it will process (`None` if unknown).
    fn start(&self, _stage: &str, _total: Option<u64>, _unit: &'static str) {}

    /// Called with the total number of tokens of the stage, if that predicts its duration better than the units.
    fn expect_tokens(&self, _tokens: u64) {}

    /// Called when more units are done; `tokens` is the number of real tokens, if the stage has any.
    fn advance(&self, _units: u64, _tokens: u64) {}

    /// Called when the stage has ended.
    fn finish(&self) {}

    /// Reports something that the user should know although nothing failed.
    fn warn(&self, _message: &str) {}

    /// Describes the state of the stage in words; each message replaces the previous one.
    fn detail(&self, _message: &str) {}

    /// Reports something that may interest the user.
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

/// Progress within a stage that has already begun: inner stages do not replace it, and their units count as units of
/// the outer stage.
pub struct WithinStage<'a> {
    outer: &'a dyn Progress,
    counts: bool,
    advanced: AtomicU64,
}

impl WithinStage<'_> {
    /// Creates progress within the stage that `outer` shows.
    pub fn new(outer: &dyn Progress) -> WithinStage<'_> {
        WithinStage { outer, counts: true, advanced: AtomicU64::new(0) }
    }

    /// Creates progress whose units are not counted, for a stage that counts in another way.
    pub fn uncounted(outer: &dyn Progress) -> WithinStage<'_> {
        WithinStage { counts: false, ..WithinStage::new(outer) }
    }

    /// Returns the number of units counted so far.
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
