//! The examples at the end of every help text: each command has two, and each of them runs in a folder like a checkout,
//! but with a small model in the place of the default one. What the default model makes of the same pipelines is shown
//! by the tutorials.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use regex::Regex;

use crate::{help::commands, support::Workshop};

/// Commands that are run first, in this order, because other examples need their results, and commands that are run
/// last, because they remove something.
const FIRST: [&str; 8] = ["init", "extract", "plan", "work", "commit", "", "run", "train"];
const LAST: [&str; 4] = ["cache gc", "cache prune", "runs rm", "vacuum"];

/// Commands whose examples need nothing that others leave behind: a test of their own runs them at the same time.
const ALONE: [&str; 11] = [
    "compare",
    "completions",
    "doctor",
    "embed",
    "man",
    "model info",
    ONLINE,
    "model verify",
    "precision-report",
    "similar",
    "tokenize",
];

/// Prepares what examples need but no example creates.
const PREPARATION: &str = "frostbert extract pipelines/embed.toml";

/// The only command that opens a connection, which no test does. Its examples try to reach a hub, and find none.
const ONLINE: &str = "model pull";

/// The number of reviews: whether a command works is seen on a fifth of them as well as on all.
const N_REVIEWS: usize = 180;

/// The caches of the default model that examples name, and what fills them.
const CACHES: [(&str, &[&str]); 2] = [
    ("397e9e01919ffd5e", &["extract", "pipelines/embed.toml"]),
    ("4542ca5da5cd99bc", &["extract", "pipelines/embed.toml", "--set", "cache.max_length=64"]),
];

/// Returns the fingerprint of the cache that a command would fill.
fn fingerprint(workshop: &Workshop, command: &[&str]) -> String {
    let report = workshop.json(&[command, &["--dry-run"]].concat());
    report["extract"]["fingerprint"].as_str().unwrap().to_string()
}

/// Creates a workshop like a checkout, in which `data/reviews.csv` is shorter and the model small.
fn checkout() -> Workshop {
    let workshop = Workshop::checkout();
    workshop.take_small_model();
    let path = workshop.path("data/reviews.csv");
    let mut reader = csv::Reader::from_path(&path).unwrap();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(reader.headers().unwrap()).unwrap();
    for record in reader.records().take(N_REVIEWS) {
        writer.write_record(&record.unwrap()).unwrap();
    }
    // It is a link to the whole file.
    fs::remove_file(&path).unwrap();
    fs::write(path, writer.into_inner().unwrap()).unwrap();
    workshop
}

/// Returns the examples of every command, by the words of the command.
fn examples(workshop: &Workshop) -> BTreeMap<String, Vec<String>> {
    let mut examples = BTreeMap::new();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = waiting.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = workshop.succeed(&arguments).stdout;
        let below: Vec<Vec<String>> = commands(&help)
            .into_iter()
            .map(|next| [&command[..], &[next.to_string()]].concat())
            .collect();
        let name = command.join(" ");
        // What is only a group of commands needs none.
        let shown = help.rsplit_once("\nExamples:\n").map(|(_, shown)| shown);
        if below.is_empty() || name.is_empty() || shown.is_some() {
            let own = shown.unwrap_or_default();
            let own: Vec<String> = own.lines().map(|line| line.trim().to_string()).collect();
            assert!(own.len() >= 2, "the help of `{name}` does not end with two examples:\n{help}");
            let call = format!("frostbert {name}");
            assert!(own.iter().all(|line| line.starts_with(call.trim_end())), "{own:?}");
            examples.insert(name, own);
        }
        waiting.extend(below);
    }
    examples
}

/// Puts the caches of the small model in the place of those that examples name.
fn name_own_caches(workshop: &Workshop, examples: &mut BTreeMap<String, Vec<String>>) {
    for (named, command) in CACHES {
        let own = fingerprint(workshop, command);
        for line in examples.values_mut().flatten() {
            *line = line.replace(named, &own);
        }
    }
}

/// Runs the examples of a command.
fn run_all(workshop: &Workshop, name: &str, lines: &[String]) {
    for line in lines {
        let ran = workshop.shell(line);
        if name == ONLINE {
            assert_eq!(ran.code, Some(1), "{line}: {}", ran.stderr);
            assert!(ran.stderr.contains("cannot pull"), "{line}: {}", ran.stderr);
        } else {
            assert_eq!(ran.code, Some(0), "{line}: {}{}", ran.stdout, ran.stderr);
        }
    }
}

#[test]
fn every_example_of_a_command_that_needs_no_results_runs() {
    let workshop = checkout();
    let examples = examples(&workshop);
    for name in ALONE {
        let lines = examples.get(name).unwrap_or_else(|| panic!("no examples of `{name}`"));
        run_all(&workshop, name, lines);
    }
}

#[test]
fn every_example_of_every_other_command_runs() {
    let workshop = checkout();
    let mut examples = examples(&workshop);
    assert!(examples.len() >= 22, "only {:?} have examples", examples.keys());
    name_own_caches(&workshop, &mut examples);
    examples.retain(|name, _| !ALONE.contains(&name.as_str()));
    let last: Vec<_> = LAST.iter().filter_map(|name| examples.remove_entry(*name)).collect();
    let first: Vec<_> = FIRST.iter().filter_map(|name| examples.remove_entry(*name)).collect();
    let prepared = (String::new(), vec![PREPARATION.to_string()]);
    let all = std::iter::once(prepared).chain(first).chain(examples).chain(last);
    for (name, lines) in all {
        run_all(&workshop, &name, &lines);
    }
}

#[test]
fn the_caches_that_examples_name_are_those_of_the_default_model() {
    let workshop = Workshop::checkout();
    for (named, command) in CACHES {
        assert_eq!(fingerprint(&workshop, command), named, "{command:?}");
    }
    let cache = Regex::new(r"\bcache/(\w+)").unwrap();
    let lines = examples(&workshop).into_values().flatten().collect::<Vec<_>>().join("\n");
    let named: BTreeSet<&str> =
        cache.captures_iter(&lines).map(|found| found.get(1).unwrap().as_str()).collect();
    assert_eq!(named, BTreeSet::from(CACHES.map(|(name, _)| name)));
}
