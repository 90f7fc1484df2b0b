//! Fuzzing on stable Rust: every door through which a file or a text comes in, with the files of a corpus and with
//! seeded mutations of them. docs/development.md, "Fuzzing and soak", says how to run it and what each target is.
//!
//! Each target runs in a process of its own, so that an abort, a stack overflow and a hang are seen too, and two of
//! them at a time. What fails is written to `target/fuzz/TARGET/`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]
#![expect(clippy::unwrap_used, reason = "a test")]

mod base;
mod mutate;
mod supervise;
mod targets;
mod work;

use std::{path::PathBuf, process::ExitCode, time::Duration};

/// What the environment asks for.
struct Settings {
    /// For all targets together, as a clock on the wall counts them.
    seconds: f64,
    /// Decides the mutations.
    seed: u64,
    /// Targets that run side by side.
    jobs: usize,
    /// Names of targets; all where there are none.
    names: Vec<String>,
}

impl Settings {
    fn read() -> Settings {
        let number = |name: &str, default: f64| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.map_or(default, |value| {
                value.parse().unwrap_or_else(|_| panic!("{name} is `{value}`, and no number"))
            })
        };
        let names = std::env::var("FROSTBERT_FUZZ_TARGETS").unwrap_or_default();
        let split = names.split([',', ' ']).filter(|name| !name.is_empty());
        Settings {
            seconds: number("FROSTBERT_FUZZ_SECONDS", 60.0),
            seed: number("FROSTBERT_FUZZ_SEED", 1.0) as u64,
            jobs: number("FROSTBERT_FUZZ_JOBS", 2.0) as usize,
            names: split.map(str::to_owned).collect(),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [work::COMMAND, target, seed, from, seconds] => {
            let seconds = Duration::from_secs_f64(seconds.parse().unwrap());
            work::run(target, seed.parse().unwrap(), from.parse().unwrap(), seconds)
        }
        ["replay", target, ref files @ ..] => {
            let files: Vec<PathBuf> =
                files.iter().map(|file| std::path::absolute(file).unwrap()).collect();
            base::make();
            work::replay(target, &files)
        }
        // The questions and filters of `cargo test` are meant for other tests.
        ["--list", ..] => ExitCode::SUCCESS,
        _ if words.iter().any(|word| !word.starts_with('-')) => ExitCode::SUCCESS,
        _ => supervise::run_all(&Settings::read()),
    }
}
