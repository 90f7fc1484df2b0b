//! The process over those that work: gives each target its share of the time, sees how they end, keeps what fails.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::{
    Settings, base,
    mutate::{Random, input},
    targets::{self, TARGETS, Target},
    work,
};

/// The address space of a process that works, in KiB: an allocation out of all proportion fails, and is seen.
const ADDRESS_SPACE: u64 = 8 << 20;

/// How often a target that ended its process is begun again.
const MOST_ENDS: usize = 8;

/// What became of a target.
#[derive(Default)]
struct Outcome {
    executions: u64,
    accepted: u64,
    seconds: f64,
    /// Each with the number of its input.
    problems: Vec<(u64, String)>,
}

/// Runs every target for its share of the time.
pub(crate) fn run_all(settings: &Settings) -> ExitCode {
    // Before anything else runs: a harness that finds nothing has to be one that can find something.
    let start = Instant::now();
    base::make();
    for (name, word) in targets::PLANTED {
        let outcome = fuzz(targets::named(name), settings.seed, 0.0);
        let found = outcome.problems.first().map_or("nothing", |(_, problem)| problem.as_str());
        assert!(found.contains(word), "of the target `{name}` the harness saw {found}");
    }
    let chosen: Vec<&Target> = if settings.names.is_empty() {
        TARGETS.iter().collect()
    } else {
        settings.names.iter().map(|name| targets::named(name)).collect()
    };
    let left = settings.seconds - start.elapsed().as_secs_f64();
    let share = (left * settings.jobs as f64 / chosen.len() as f64).max(0.1);
    println!(
        "fuzz: {} targets, {share:.1} s each, {} at a time, seed {}",
        chosen.len(),
        settings.jobs,
        settings.seed
    );

    let queue = Mutex::new(chosen.iter());
    let outcomes: Mutex<Vec<(&str, Outcome)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..settings.jobs {
            scope.spawn(|| {
                loop {
                    let Some(target) = queue.lock().unwrap().next() else {
                        break;
                    };
                    let outcome = fuzz(target, settings.seed, share);
                    report(target, &outcome);
                    outcomes.lock().unwrap().push((target.name, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let n_executions: u64 = outcomes.iter().map(|(_, outcome)| outcome.executions).sum();
    let n_problems: usize = outcomes.iter().map(|(_, outcome)| outcome.problems.len()).sum();
    println!(
        "fuzz: {n_executions} executions of {} targets in {:.1} s, {n_problems} problems",
        outcomes.len(),
        start.elapsed().as_secs_f64()
    );
    match n_problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn report(target: &Target, outcome: &Outcome) {
    println!(
        "{:>18} {:>9} executions in {:5.1} s, {:2.0} % accepted, {} problems",
        target.name,
        outcome.executions,
        outcome.seconds,
        100.0 * outcome.accepted as f64 / outcome.executions.max(1) as f64,
        outcome.problems.len()
    );
}

/// Runs a target in processes of its own until its time is over.
fn fuzz(target: &Target, seed: u64, seconds: f64) -> Outcome {
    let folder = base::output().join(target.name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let mut outcome = Outcome::default();
    let start = Instant::now();
    let mut from = 0;
    for _ in 0..MOST_ENDS {
        let left = seconds - start.elapsed().as_secs_f64();
        let Some((number, problem)) = work_once(target, seed, from, left.max(0.0), &mut outcome)
        else {
            break;
        };
        add(&mut outcome, number, problem);
        outcome.executions += number - from;
        from = number + 1;
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    keep(target, seed, &outcome);
    let _ = fs::remove_file(work::progress_file(target.name));
    outcome
}

fn add(outcome: &mut Outcome, number: u64, problem: String) {
    let stem = work::stem(&problem);
    let known = outcome.problems.iter().any(|(_, other)| work::stem(other) == stem);
    if !known {
        outcome.problems.push((number, problem));
    }
}

/// One process; the input that ended it before its time, and how.
fn work_once(
    target: &Target,
    seed: u64,
    from: u64,
    seconds: f64,
    outcome: &mut Outcome,
) -> Option<(u64, String)> {
    // One that ends before its first input is not to be taken for the process before it.
    fs::write(work::progress_file(target.name), from.to_le_bytes()).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -c 0; ulimit -v {ADDRESS_SPACE}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args([
            work::COMMAND,
            target.name,
            &seed.to_string(),
            &from.to_string(),
            &seconds.to_string(),
        ])
        .env("RAYON_NUM_THREADS", "1")
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let errors = child.stderr.take().unwrap();
    let errors = thread::spawn(move || {
        BufReader::new(errors).lines().map_while(Result::ok).collect::<Vec<_>>()
    });
    let mut is_done = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        match (line["number"].as_u64(), line["executions"].as_u64()) {
            (Some(number), _) => add(outcome, number, line["problem"].as_str().unwrap().to_owned()),
            (_, Some(executions)) => {
                outcome.executions += executions;
                outcome.accepted += line["accepted"].as_u64().unwrap();
                is_done = true;
            }
            _ => panic!("{line} from {}", target.name),
        }
    }
    let status = child.wait().unwrap();
    let errors = errors.join().unwrap().join(" / ");
    if is_done {
        return None;
    }
    let number = fs::read(work::progress_file(target.name)).ok();
    let number = number.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    let Some(number) = number else {
        panic!("{} ended before its first input: {status}, {errors}", target.name);
    };
    Some((number, end_of(status, &errors)))
}

/// How a process ended, in words that are the same for the same end.
fn end_of(status: ExitStatus, errors: &str) -> String {
    match status.code() {
        Some(work::HUNG) => "hang: the execution did not end".into(),
        Some(work::SWELLED) => format!("memory: more than {} MiB", work::MOST_MEMORY >> 20),
        _ => format!("abort: {status}, {}", errors.chars().take(300).collect::<String>()),
    }
}

/// Writes failing inputs, and how to repeat them.
fn keep(target: &Target, seed: u64, outcome: &Outcome) {
    if outcome.problems.is_empty() {
        return;
    }
    let corpus = work::corpus(target);
    let salt = Random::new(seed, 0).next();
    let folder = base::output().join(target.name);
    for (number, problem) in &outcome.problems {
        let path = folder.join(format!("{seed}-{number}"));
        fs::write(&path, input(&corpus, target.syntax, salt, *number)).unwrap();
        fs::write(path.with_extension("txt"), format!("{problem}\n")).unwrap();
        if !targets::is_planted(target.name) {
            eprintln!(
                "{}: {problem}\n    again: cargo test --test fuzz -- replay {} {}",
                target.name,
                target.name,
                path.display()
            );
        }
    }
}
