//! One process that feeds one target: executes, catches panics, watches the clock and the memory, and says what it did.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    base,
    mutate::{Random, input},
    targets::{self, Target},
};

/// The first argument of such a process.
pub(crate) const COMMAND: &str = "fuzz-target";

/// An execution that takes longer hangs.
const MOST_TIME: Duration = Duration::from_secs(20);

/// More memory than this, for inputs of at most 256 KB, is out of all proportion.
pub(crate) const MOST_MEMORY: u64 = 1 << 30;

/// The exit code of a process that hung.
pub(crate) const HUNG: i32 = 33;

/// The exit code of a process that took too much memory.
pub(crate) const SWELLED: i32 = 34;

/// Of every so many executions one is thorough.
const THOROUGH: u64 = 32;

/// What the last panic said, and where.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// The file into which a process writes the number of the input that it is about to execute.
pub(crate) fn progress_file(target: &str) -> PathBuf {
    base::output().join(target).join("current")
}

/// The corpus of a target: its saved files, what it finds among the fixtures, what the base holds.
pub(crate) fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = base::corpus(target.name);
    let mut paths: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    paths.extend((target.more)());
    paths.sort();
    let mut files: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    files.extend((target.made)());
    assert!(!files.is_empty(), "{} has no corpus", target.name);
    files
}

/// Executes a target for some time, from the input of this number on.
pub(crate) fn run(name: &str, seed: u64, from: u64, time: Duration) -> ExitCode {
    std::env::set_current_dir(base::folder()).unwrap();
    let target = targets::named(name);
    let corpus = corpus(target);
    let folder = scratch();
    let mut execute = (target.open)(folder.path());
    let progress = File::create(progress_file(name)).unwrap();
    silence();

    static NUMBER: AtomicU64 = AtomicU64::new(u64::MAX);
    let start = Instant::now();
    static SINCE: AtomicU64 = AtomicU64::new(0);
    let most_time = match name {
        // This one hangs for certain.
        "planted-hang" => MOST_TIME / 8,
        _ => MOST_TIME,
    };
    thread::spawn(move || watch(start, most_time, &NUMBER, &SINCE));

    let (mut executions, mut accepted) = (0u64, 0u64);
    let mut seen = BTreeSet::new();
    let mut number = from;
    let salt = Random::new(seed, 0).next();
    let most = most_executions();
    // The corpus is executed whatever the time.
    while number < corpus.len() as u64 || (start.elapsed() < time && number < most) {
        let bytes = input(&corpus, target.syntax, salt, number);
        progress.write_all_at(&number.to_le_bytes(), 0).unwrap();
        SINCE.store(start.elapsed().as_millis() as u64, Relaxed);
        NUMBER.store(number, Relaxed);
        let thorough = number < corpus.len() as u64 || number.is_multiple_of(THOROUGH);
        match panic::catch_unwind(AssertUnwindSafe(|| execute(&bytes, thorough))) {
            Ok(is_accepted) => accepted += u64::from(is_accepted),
            Err(_) => {
                let message = PANIC.lock().unwrap().clone();
                if seen.insert(stem(&message)) {
                    println!("{}", json!({ "number": number, "problem": message }));
                }
                // A panic may have left the target's folder or state halfway.
                clear(folder.path());
                execute = (target.open)(folder.path());
            }
        }
        executions += 1;
        number += 1;
    }
    let done = json!({ "executions": executions, "accepted": accepted, "seconds": start.elapsed().as_secs_f64() });
    println!("{done}");
    // The watching thread and a server may still be at work.
    std::process::exit(0);
}

/// Executions of a target at most. Without a word about time they are so few that every machine comes to the same: a
/// change is to fail by what it does, and not by how fast the machine is.
fn most_executions() -> u64 {
    let given = |name: &str| std::env::var(name).ok();
    match (given("FROSTBERT_FUZZ_EXECUTIONS"), given("FROSTBERT_FUZZ_SECONDS")) {
        (Some(number), _) => number.parse().expect("FROSTBERT_FUZZ_EXECUTIONS is a number"),
        (None, Some(_)) => u64::MAX,
        (None, None) => 500,
    }
}

/// Executes a target on some files, and says what came of each.
pub(crate) fn replay(name: &str, files: &[PathBuf]) -> ExitCode {
    let target = targets::named(name);
    let folder = scratch();
    let mut execute = (target.open)(folder.path());
    let mut code = ExitCode::SUCCESS;
    silence();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let start = Instant::now();
        let outcome = match panic::catch_unwind(AssertUnwindSafe(|| execute(&bytes, true))) {
            Ok(true) => "accepted".to_string(),
            Ok(false) => "refused".to_string(),
            Err(_) => {
                code = ExitCode::FAILURE;
                PANIC.lock().unwrap().clone()
            }
        };
        println!("{}: {outcome} ({:.3} s)", file.display(), start.elapsed().as_secs_f64());
    }
    code
}

/// A folder for a target's files, in memory where there is one.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Empties a folder.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }
}

/// Keeps what a panic says in place of printing it.
fn silence() {
    panic::set_hook(Box::new(|info| {
        let said = info.payload();
        let text = said.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or_else(|| said.downcast_ref::<String>().cloned());
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        *PANIC.lock().unwrap() = format!("{place}: {}", text.unwrap_or_default());
    }));
}

/// A message without its numbers: two that differ in them alone are one problem.
pub(crate) fn stem(message: &str) -> String {
    let place = message.split(": ").next().unwrap_or_default();
    if place.starts_with("tests/fuzz") {
        message.chars().filter(|c| !c.is_ascii_digit()).take(160).collect()
    } else {
        place.to_string()
    }
}

/// Ends the process where one execution takes too long or too much memory.
fn watch(start: Instant, most_time: Duration, number: &AtomicU64, since: &AtomicU64) {
    loop {
        thread::sleep(Duration::from_millis(50));
        if number.load(Relaxed) == u64::MAX {
            continue;
        }
        let spent = start.elapsed().as_millis() as u64 - since.load(Relaxed);
        if spent > most_time.as_millis() as u64 {
            std::process::exit(HUNG);
        }
        if resident_bytes() > MOST_MEMORY {
            std::process::exit(SWELLED);
        }
    }
}

/// The memory of this process; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}
