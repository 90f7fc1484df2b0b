//! How long work is reported to whoever started it. The library itself never prints.

/// Receives what long work has to say. Every method has an empty default, so `&()` is a silent listener.
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

    /// Whether to go on; nobody there to ask means no.
    fn ask(&self, _question: &str) -> bool {
        false
    }
}

impl Progress for () {}
