//! Sweeps that are killed and resumed: real processes, which end with the same bytes.

use std::{fs, path::Path, process::Child, time::Duration};

use crate::{
    support::{Workshop, csv, texts},
    sweep::{SWEEP, workshop},
};

/// A sweep with about six units of heads, each of which reads two files of states.
const LONG: &str = "folds = 3\nseeds = 4\nlr = { min = 1e-4, max = 1e-1, log = true }\nepochs = [20, 30]\ntrials = 60\n\
    pooling = [\"cls\", \"mean\", \"max\"]\nlayer = [1, 2]";

const UNIT: &str = "runs/tiny/001/unfinished/00000.json.gz";

/// Starts a long sweep and waits for a file that it writes on the way.
fn begun(workshop: &Workshop, sign: &str) -> Child {
    let mut child = workshop.command(SWEEP).spawn().unwrap();
    while !workshop.path(sign).exists() {
        let has_ended = child.try_wait().unwrap().is_some();
        assert!(!has_ended, "the sweep ended before {sign} was seen");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Kills a sweep as soon as a file is there.
pub(crate) fn kill_at(workshop: &Workshop, sign: &str) {
    let mut child = begun(workshop, sign);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The files of a sweep, without its timings.
const FILES: [&str; 5] =
    ["leaderboard.csv", "effects.csv", "head.safetensors", "metrics.json", "predictions.parquet"];

pub(crate) fn assert_same_run(one: &Path, other: &Path) {
    for name in FILES {
        let bytes = |run: &Path| fs::read(run.join(name)).unwrap();
        assert!(bytes(one) == bytes(other), "{name}");
    }
}

#[test]
fn a_killed_sweep_goes_on_in_its_folder_and_ends_in_the_same_bytes() {
    let workshop = workshop(LONG);
    kill_at(&workshop, UNIT);
    let run = workshop.path("runs/tiny/001");
    assert!(!run.join("lock.json").exists(), "killed in time");
    // A sweep with another plan is a separate run.
    let mut other = SWEEP.to_vec();
    other.extend(["--set", "sweep.select=accuracy", "--set", "sweep.trials=2"]);
    let other = workshop.succeed(&other);
    assert!(!other.stderr.contains("resuming"), "{}", other.stderr);
    assert!(workshop.path("runs/tiny/002/lock.json").exists() && workshop.path(UNIT).exists());

    let resumed = workshop.succeed(SWEEP);
    for line in ["resuming the unfinished sweep", "heads were trained before"] {
        assert!(resumed.stderr.contains(line), "{}", resumed.stderr);
    }
    assert!(!workshop.path(UNIT).exists(), "what was kept is cleared");
    // A finished sweep is not resumed: run it again without an interruption.
    let again = workshop.succeed(SWEEP);
    assert!(!again.stderr.contains("resuming"), "{}", again.stderr);
    let whole = workshop.path("runs/tiny/003");
    assert_same_run(&run, &whole);
}

#[test]
fn a_winner_with_trained_layers_is_calibrated_alike_after_a_kill() {
    // The first setting wins, and is trained before the kill.
    let workshop = workshop(
        "folds = 2\nseeds = 2\nunfreeze = [1]\nepochs = [20]\nlr = [1e-2, 1e-7, 2e-7, 3e-7, 4e-7]",
    );
    kill_at(&workshop, UNIT);
    let run = workshop.path("runs/tiny/001");
    assert!(!run.join("lock.json").exists(), "killed in time");
    let resumed = workshop.succeed(SWEEP);
    assert!(resumed.stderr.contains("heads were trained before"), "{}", resumed.stderr);
    workshop.succeed(SWEEP);
    let whole = workshop.path("runs/tiny/002");
    assert_same_run(&run, &whole);
    let [head, other] = [&run, &whole].map(|run| fs::read(run.join("head.json")).unwrap());
    assert!(head == other, "head.json");
    let board = fs::read_to_string(run.join("leaderboard.csv")).unwrap();
    let mut rows = board.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let place = rows.next().unwrap().iter().position(|name| *name == "lr").unwrap();
    assert_eq!(rows.next().unwrap()[place], "0.01");
}

#[test]
fn a_sweep_that_another_build_of_the_program_began_is_begun_anew() {
    let workshop = workshop(LONG);
    kill_at(&workshop, UNIT);
    let program = workshop.path("runs/tiny/001/unfinished/program.txt");
    let own = fs::read_to_string(&program).unwrap();
    assert!(own.starts_with(env!("CARGO_PKG_VERSION")), "{own}");
    fs::write(&program, "0.0.9 (000000000000)").unwrap();
    let anew = workshop.succeed(SWEEP);
    let note = "it was begun by another build of the program (0.0.9 (000000000000))";
    assert!(anew.stderr.contains(note) && !anew.stderr.contains("resuming"), "{}", anew.stderr);
    assert!(workshop.path("runs/tiny/002/lock.json").exists() && workshop.path(UNIT).exists());

    fs::write(&program, own).unwrap();
    let resumed = workshop.succeed(SWEEP);
    assert!(resumed.stderr.contains("resuming the unfinished sweep"), "{}", resumed.stderr);
    assert!(!resumed.stderr.contains("another build"), "{}", resumed.stderr);
    assert_same_run(&workshop.path("runs/tiny/001"), &workshop.path("runs/tiny/002"));
}

#[test]
fn a_journal_that_outlived_its_finished_sweep_is_removed_by_the_next_one() {
    let workshop = workshop(LONG);
    workshop.succeed(SWEEP);
    // This is what remains after a kill between writing the lock of the run and removing the journal.
    let left = workshop.path("runs/tiny/001/unfinished");
    fs::create_dir(&left).unwrap();
    fs::copy(workshop.path("runs/tiny/001/lock.json"), left.join("lock.json")).unwrap();
    workshop.succeed(SWEEP);
    assert!(!left.exists() && workshop.path("runs/tiny/002/lock.json").exists());
}

#[test]
fn a_sweep_that_another_process_is_at_is_left_alone() {
    let workshop = workshop(LONG);
    let mut first = begun(&workshop, UNIT);
    let second = workshop.succeed(SWEEP);
    assert!(!second.stderr.contains("resuming"), "{}", second.stderr);
    assert!(first.wait().unwrap().success());
    let board = |run: &str| fs::read(workshop.path(run).join("leaderboard.csv")).unwrap();
    assert!(board("runs/tiny/001") == board("runs/tiny/002"));
}

#[test]
fn a_torn_plan_is_no_plan() {
    let workshop = workshop("lr = [1e-3, 1e-2]");
    let report = workshop.json(SWEEP);
    let run = workshop.path(report["run"].as_str().unwrap());
    fs::remove_file(run.join("lock.json")).unwrap();
    fs::create_dir(run.join("unfinished")).unwrap();
    fs::write(run.join("unfinished/lock.json"), "{ \"torn\": ").unwrap();
    let other = workshop.json(SWEEP);
    assert_ne!(other["run"], report["run"]);
}

const HALVING: &str = "search = \"halving\"\nfolds = 3\nseeds = 2\nlr = { min = 1e-4, max = 1e-1, log = true }\n\
    epochs = [64]\ntrials = 40\npooling = [\"cls\", \"mean\"]\nkind = [\"linear\", \"ridge\"]";

const RUNG: &str = "runs/tiny/001/unfinished/rung-1.json.gz";

#[test]
fn a_killed_halving_goes_on_from_its_rungs_and_ends_in_the_same_bytes() {
    let workshop = workshop(HALVING);
    kill_at(&workshop, RUNG);
    let run = workshop.path("runs/tiny/001");
    assert!(!run.join("lock.json").exists(), "killed in time");
    let resumed = workshop.succeed(SWEEP);
    for line in ["resuming the unfinished sweep", "settings were given up before"] {
        assert!(resumed.stderr.contains(line), "{}", resumed.stderr);
    }
    assert!(!run.join("unfinished").exists(), "what was kept is cleared");
    workshop.succeed(SWEEP);
    assert_same_run(&run, &workshop.path("runs/tiny/002"));
}

#[test]
fn a_rung_that_was_cut_off_is_decided_again() {
    let workshop = workshop(HALVING);
    kill_at(&workshop, RUNG);
    for name in ["rung-1", "rung-2", "rung-3"] {
        let path = workshop.path(&format!("runs/tiny/001/unfinished/{name}.json.gz"));
        if let Ok(bytes) = fs::read(&path) {
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    let resumed = workshop.succeed(SWEEP);
    assert!(resumed.stderr.contains("resuming the unfinished sweep"));
    assert!(!resumed.stderr.contains("given up before"), "{}", resumed.stderr);
    workshop.succeed(SWEEP);
    let [run, whole] = ["001", "002"].map(|run| workshop.path("runs/tiny").join(run));
    assert_same_run(&run, &whole);
}

#[test]
fn killed_sweeps_that_test_every_setting_end_in_the_same_bytes() {
    for (sweep, sign) in [(LONG, UNIT), (HALVING, RUNG)] {
        let workshop = workshop(&format!("{sweep}\ntest = \"all\""));
        kill_at(&workshop, sign);
        let run = workshop.path("runs/tiny/001");
        assert!(!run.join("lock.json").exists(), "killed in time");
        let resumed = workshop.succeed(SWEEP);
        assert!(resumed.stderr.contains("resuming the unfinished sweep"));
        workshop.succeed(SWEEP);
        assert_same_run(&run, &workshop.path("runs/tiny/002"));
        let board = fs::read_to_string(run.join("leaderboard.csv")).unwrap();
        let header = board.lines().next().unwrap();
        assert!(header.contains(",test_macro_f1_not_for_selection,"), "{header}");
    }
}

/// Two tasks on one file with a sweep each, and one head.
fn tasks() -> Workshop {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(120), 0));
    let sweep = "folds = 3\nseeds = 4\nlr = { min = 1e-4, max = 1e-1, log = true }\nepochs = [20]\ntrials = 40";
    workshop.write_pipeline(&format!(
        "name = \"tiny\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\nbatch_tokens = 512\n\
         [cache]\nmax_length = 32\n\
         [tasks.one.data]\ntrain = {{ path = \"train.csv\" }}\n[tasks.one.sweep]\n{sweep}\n\
         [tasks.plain.data]\ntrain = {{ path = \"train.csv\" }}\n[tasks.plain.train]\nepochs = 2\n\
         [tasks.two.data]\ntrain = {{ path = \"train.csv\" }}\n[tasks.two.head]\npooling = \"cls\"\n\
         [tasks.two.sweep]\n{sweep}\n"
    ));
    workshop.succeed(&["extract", "pipeline.toml"]);
    workshop
}

#[test]
fn a_killed_run_of_several_tasks_goes_on_in_its_folder() {
    let workshop = tasks();
    kill_at(&workshop, "runs/tiny/001/two/unfinished/00000.json.gz");
    let run = workshop.path("runs/tiny/001");
    assert!(run.join("one/lock.json").exists());
    assert!(!run.join("two/lock.json").exists(), "killed in time");
    let resumed = workshop.succeed(SWEEP);
    for line in [
        "resuming the unfinished run in runs/tiny/001",
        "resuming the unfinished sweep in runs/tiny/001/one",
        "480 of 480 heads were trained before",
    ] {
        assert!(resumed.stderr.contains(line), "{line}: {}", resumed.stderr);
    }
    for folder in ["unfinished", "one/unfinished", "two/unfinished"] {
        assert!(!run.join(folder).exists(), "{folder} is cleared");
    }
    let again = workshop.succeed(SWEEP);
    assert!(!again.stderr.contains("resuming"), "{}", again.stderr);
    let whole = workshop.path("runs/tiny/002");
    for task in ["one", "two"] {
        assert_same_run(&run.join(task), &whole.join(task));
    }
    let head = |run: &Path| fs::read(run.join("plain/head.safetensors")).unwrap();
    assert!(head(&run) == head(&whole));
}
