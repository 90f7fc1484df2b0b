//! Shows progress on stderr: as a bar on a terminal, and as occasional lines elsewhere.

use std::{
    collections::HashSet,
    io::IsTerminal,
    sync::Mutex,
    time::{Duration, Instant},
};

use frostbert::cache::{
    progress::Progress,
    wording::{counted, part_of, printable},
};
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use super::output::say;

/// The interval between lines if stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The interval between updates of the bar's numbers on a terminal.
const MESSAGE_EVERY: Duration = Duration::from_millis(100);

/// Shows the library's progress.
pub(super) struct TerminalProgress {
    quiet: bool,
    verbose: bool,
    terminal: bool,
    /// How long to wait for other processes.
    patience: Duration,
    stage: Mutex<Option<Stage>>,
    /// The warnings so far, because two stages may have the same one.
    warned: Mutex<HashSet<String>>,
}

struct Stage {
    name: String,
    unit: &'static str,
    total: Option<u64>,
    total_tokens: Option<u64>,
    done: u64,
    tokens: u64,
    started: Instant,
    last_shown: Instant,
    /// The latest detail, for the lines if stderr is not a terminal.
    detail: String,
    bar: ProgressBar,
}

impl TerminalProgress {
    pub(super) fn new(quiet: bool, verbose: bool, patience: Duration) -> TerminalProgress {
        let terminal = std::io::stderr().is_terminal();
        TerminalProgress {
            quiet,
            verbose,
            terminal,
            patience,
            stage: Mutex::new(None),
            warned: Mutex::new(HashSet::new()),
        }
    }

    /// Prints a line without breaking the bar.
    fn line(&self, text: &str) {
        let text = printable(text);
        match &*self.lock() {
            Some(stage) if self.terminal => stage.bar.suspend(|| say(&text)),
            _ => say(&text),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Stage>> {
        // After a panic elsewhere, the bar is at worst out of date.
        self.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Stage {
    fn rates(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let rate = |count: u64| HumanCount((count as f64 / seconds) as u64);
        let mut text = format!("{} {}/s", rate(self.done), self.unit);
        if self.tokens > 0 {
            text.push_str(&format!(", {} tokens/s", rate(self.tokens)));
        }
        // Long texts come first, so tokens predict the remaining time better than texts.
        let (done, total) = match self.total_tokens {
            Some(total) => (self.tokens, Some(total)),
            None => (self.done, self.total),
        };
        if let Some(total) = total
            && done > 0
        {
            let left = seconds * total.saturating_sub(done) as f64 / done as f64;
            text.push_str(&format!(", {} left", HumanDuration(Duration::from_secs_f64(left))));
        }
        text
    }

    /// Prints the current progress as a line.
    fn show_line(&mut self) {
        self.last_shown = Instant::now();
        let detail = match self.detail.as_str() {
            "" => String::new(),
            detail => format!("; {detail}"),
        };
        let (name, count, rates) = (&self.name, self.count(), self.rates());
        say(&format!("{name}: {count}, {rates}{detail}"));
    }

    fn count(&self) -> String {
        let unit = self.unit.strip_suffix('s').unwrap_or(self.unit);
        match self.total {
            Some(total) => part_of(self.done, total, unit),
            None => counted(self.done, unit),
        }
    }
}

impl Progress for TerminalProgress {
    fn start(&self, name: &str, total: Option<u64>, unit: &'static str) {
        if self.quiet {
            return;
        }
        let bar = if !self.terminal {
            ProgressBar::hidden()
        } else {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = match total {
                Some(_) => "{prefix:>12} {bar:30} {human_pos}/{human_len} {msg}",
                None => "{prefix:>12} {human_pos} {msg}",
            };
            let style =
                ProgressStyle::with_template(template).expect("a template that is fixed here");
            bar.with_style(style).with_prefix(name.to_string())
        };
        let now = Instant::now();
        *self.lock() = Some(Stage {
            name: name.to_string(),
            unit,
            total,
            total_tokens: None,
            done: 0,
            tokens: 0,
            started: now,
            last_shown: now,
            detail: String::new(),
            bar,
        });
    }

    fn expect_tokens(&self, tokens: u64) {
        if let Some(stage) = &mut *self.lock() {
            stage.total_tokens = Some(tokens);
        }
    }

    fn advance(&self, units: u64, tokens: u64) {
        let Some(stage) = &mut *self.lock() else {
            return;
        };
        stage.done += units;
        stage.tokens += tokens;
        let every = if self.terminal { MESSAGE_EVERY } else { LINE_EVERY };
        if stage.last_shown.elapsed() < every {
            return;
        }
        if !self.terminal {
            stage.show_line();
            return;
        }
        stage.last_shown = Instant::now();
        stage.bar.set_position(stage.done);
        if stage.tokens > 0 || stage.total.is_none() {
            stage.bar.set_message(stage.rates());
        }
    }

    fn detail(&self, message: &str) {
        if self.quiet {
            return;
        }
        if self.verbose {
            self.line(message);
        } else if let Some(stage) = &mut *self.lock() {
            let message = printable(message);
            stage.bar.set_message(message.to_string());
            stage.detail = message.to_string();
            if !self.terminal && stage.last_shown.elapsed() >= LINE_EVERY {
                stage.show_line();
            }
        }
    }

    fn finish(&self) {
        if let Some(stage) = self.lock().take() {
            stage.bar.finish_and_clear();
        }
    }

    fn ask(&self, question: &str) -> bool {
        if !self.terminal || !std::io::stdin().is_terminal() {
            return false;
        }
        self.line(&format!("{question} [y/N]"));
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).is_ok()
            && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn warn(&self, message: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if warned.insert(message.to_string()) {
            self.line(&format!("warning: {message}"));
        }
    }

    fn note(&self, message: &str) {
        if !self.quiet {
            self.line(&format!("note: {message}"));
        }
    }
}
