//! `runs rm`: what goes, what is asked for first, and what never goes.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::{
    runs::begun,
    support::{Workshop, contents, finish},
};

/// A workshop with so many runs.
fn with_runs(n_runs: usize) -> Workshop {
    let workshop = Workshop::tiny();
    for _ in 0..n_runs {
        workshop.succeed(&["run", "pipeline.toml", "--set", "train.epochs=1"]);
    }
    workshop
}

/// Fails unless a removal is refused with this code and these words, and nothing changes.
fn assert_refused(workshop: &Workshop, arguments: &[&str], code: i32, wanted: &str) {
    let before = contents(&workshop.path(""));
    let ran = workshop.run(&[&["runs", "rm"], arguments].concat());
    assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
    assert!(ran.stderr.contains(wanted), "{arguments:?}: {}", ran.stderr);
    assert!(contents(&workshop.path("")) == before, "{arguments:?} changed something");
}

#[test]
fn runs_are_removed_by_their_folders_once_somebody_says_yes() {
    let workshop = with_runs(4);
    // Nobody is there to ask.
    let asked = "this removes 2 runs, ";
    assert_refused(&workshop, &["runs/tiny/001", "tiny/002"], 1, asked);
    assert_refused(&workshop, &["tiny/001"], 1, "hint: run it again with --yes to proceed");
    let ran = workshop.succeed(&["runs", "rm", "runs/tiny/001/", "tiny/001", "--yes"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "removed runs/tiny/001");
    assert!(lines[1].starts_with("removed 1 run, ") && lines.len() == 2, "{lines:?}");
    let report = workshop.json(&["runs", "rm", "tiny/002", "runs/tiny/004", "--yes"]);
    assert_eq!(report["removed"], json!(["runs/tiny/002", "runs/tiny/004"]));
    assert_eq!(report["tags"], json!([]));
    assert!(report["bytes"].as_u64() > Some(1000), "{report}");
    let names = fs::read_dir(workshop.path("runs/tiny")).unwrap();
    let names: BTreeSet<String> =
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    let left = [".last-removed", "003"].map(String::from);
    assert_eq!(names, BTreeSet::from(left), "the third run alone is left, and nothing aside");
    workshop.succeed(&["predict", "tiny", "--text", "the cold snow"]);
    let next = workshop.json(&["train", "pipeline.toml"]);
    assert_eq!(next["run"], "runs/tiny/005", "the number of a run that is gone is not given again");
}

#[test]
fn what_is_no_run_stays() {
    let workshop = with_runs(1);
    fs::create_dir_all(workshop.path("runs/tiny/002/unfinished")).unwrap();
    workshop.write("runs/tiny/002/unfinished/lock.json", "{}");
    fs::create_dir(workshop.path("notes")).unwrap();
    workshop.write("notes/lock.json", "{ \"mine\": true }");
    // A lock alone, kept to replay its run.
    fs::create_dir(workshop.path("kept")).unwrap();
    fs::copy(workshop.path("runs/tiny/001/lock.json"), workshop.path("kept/lock.json")).unwrap();
    // A name of runs that is a number, as a run is.
    let elsewhere = ["--set", "name=\"2024\"", "--set", "run.dir=others"];
    workshop.succeed(&[&["train", "pipeline.toml"][..], &elsewhere].concat());
    for (run, code, wanted) in [
        ("runs", 4, "got a folder without one"),
        ("runs/tiny", 4, "got a folder of runs"),
        ("tiny", 4, "name a run in it"),
        ("runs/tiny/002", 4, "got a folder without one"),
        ("runs/tiny/002/unfinished", 2, "what a sweep has done so far"),
        ("runs/tiny/003", 4, "got no such folder"),
        ("cache", 4, "got a folder without one"),
        (".", 4, "got a folder without one"),
        ("notes", 3, "expected a lock file of this program"),
        ("kept", 2, "which has a lock.json and no "),
        ("others/2024", 4, "got a folder of runs"),
    ] {
        assert_refused(&workshop, &[run, "--yes"], code, wanted);
        // One that must stay keeps the others too.
        assert_refused(&workshop, &["runs/tiny/001", run, "--yes", "--force"], code, wanted);
    }
    let ran = workshop.run(&["runs", "rm", "--yes"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
}

#[test]
fn a_run_with_a_tag_goes_only_by_force_and_its_tags_go_with_it() {
    let workshop = with_runs(2);
    for tag in ["best", "v1.0"] {
        workshop.succeed(&["runs", "tag", "tiny/001", tag]);
    }
    workshop.succeed(&["runs", "tag", "tiny/002", "other"]);
    for run in ["tiny/001", "runs/tiny/001", "best"] {
        assert_refused(&workshop, &[run, "--yes"], 2, "which has the tag best");
    }
    let error: Value =
        serde_json::from_str(&workshop.run(&["runs", "rm", "best", "--json"]).stdout).unwrap();
    assert_eq!(error["error"]["kind"], "usage");
    let hint = error["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("frostbert runs tag --remove best"), "{hint}");
    let report = workshop.json(&["runs", "rm", "best", "--force", "--yes"]);
    assert_eq!(report["removed"], json!(["runs/tiny/001"]));
    assert_eq!(report["tags"], json!(["best", "v1.0"]));
    let list = workshop.json(&["runs", "ls"]);
    assert_eq!(list["runs"].as_array().unwrap().len(), 1);
    assert_eq!(list["runs"][0]["tags"], json!(["other"]));
}

#[test]
fn a_run_that_is_being_written_stays() {
    let workshop = with_runs(1);
    // As a run locks its folder.
    let folder = fs::File::open(workshop.path("runs/tiny/001")).unwrap();
    folder.lock_shared().unwrap();
    let wanted = "the run `runs/tiny/001` is being written by another process";
    assert_refused(&workshop, &["tiny/001", "--yes", "--force"], 5, wanted);
    drop(folder);
    workshop.succeed(&["runs", "rm", "tiny/001", "--yes"]);

    // Of a run of two tasks one is finished, and the other is not yet.
    let workshop = Workshop::empty();
    let mut child = begun(&workshop);
    let codes = ["two/001", "two/001/first"]
        .map(|run| workshop.run(&["runs", "rm", run, "--yes", "--force"]).code);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(codes, [Some(5), Some(5)]);
    let report = workshop.json(&["runs", "rm", "two/001/first", "two/001", "--yes"]);
    assert_eq!(report["removed"], json!(["runs/two/001"]), "with all that lies in it");
}

#[test]
#[cfg(unix)]
fn a_link_to_a_run_stays_and_so_does_what_it_leads_to() {
    use std::os::unix::fs::symlink;

    let workshop = with_runs(1);
    symlink("tiny/001", workshop.path("runs/latest")).unwrap();
    symlink("tiny", workshop.path("runs/small")).unwrap();
    for link in ["runs/latest", "runs/latest/", "latest"] {
        let ran = workshop.run(&["runs", "rm", link, "--yes", "--force"]);
        assert_eq!(ran.code, Some(2), "{link}: {}", ran.stderr);
        assert!(ran.stderr.contains("which is a link"), "{}", ran.stderr);
    }
    workshop.succeed(&["runs", "tag", "tiny/001", "mine"]);
    let ran = workshop.run(&["runs", "rm", "runs/small/001", "--yes"]);
    assert!(ran.stderr.contains("which has the tag mine"), "{}", ran.stderr);
    let report = workshop.json(&["runs", "rm", "runs/small/001", "--yes", "--force"]);
    assert_eq!(report["tags"], json!(["mine"]));
    assert!(!workshop.path("runs/tiny/001").exists() && workshop.path("runs/tiny").is_dir());
}

#[test]
#[cfg(unix)]
fn a_tag_holds_a_run_that_is_named_through_another_folder_of_runs() {
    use std::os::unix::fs::symlink;

    let workshop = with_runs(1);
    workshop.succeed(&["runs", "tag", "tiny/001", "mine"]);
    fs::create_dir(workshop.path("others")).unwrap();
    symlink(workshop.path("runs/tiny"), workshop.path("others/tiny")).unwrap();
    assert_refused(&workshop, &["others/tiny/001", "--yes"], 2, "which has the tag mine");
}

#[test]
fn a_command_does_not_remove_the_run_in_which_it_is_called() {
    let workshop = with_runs(1);
    let mut command = workshop.command(&["runs", "rm", ".", "--yes"]);
    let ran = finish({
        command.current_dir(workshop.path("runs/tiny/001"));
        command
    });
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("in which this command runs"), "{}", ran.stderr);
}
