//! The examples at the end of every help text: each command has two, and each of them runs in a folder like a checkout.

use std::{collections::BTreeMap, fs};

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

/// Creates a workshop like a checkout, in which `data/reviews.csv` is shorter.
fn checkout() -> Workshop {
    let workshop = Workshop::checkout();
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
    examples.retain(|name, _| !ALONE.contains(&name.as_str()));
    let last: Vec<_> = LAST.iter().filter_map(|name| examples.remove_entry(*name)).collect();
    let first: Vec<_> = FIRST.iter().filter_map(|name| examples.remove_entry(*name)).collect();
    let prepared = (String::new(), vec![PREPARATION.to_string()]);
    let all = std::iter::once(prepared).chain(first).chain(examples).chain(last);
    for (name, lines) in all {
        run_all(&workshop, &name, &lines);
    }
}
