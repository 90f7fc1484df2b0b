//! The examples at the end of every help text: each command has two, and each of them runs in a folder like a checkout.

use std::{collections::BTreeMap, os::unix::fs::symlink, path::Path, process::Command};

use crate::{
    help::commands,
    support::{Workshop, finish, minilm, repository},
};

/// Commands that are run first, in this order, because other examples need their results, and commands that are run
/// last, because they remove something.
const FIRST: [&str; 5] = ["init", "extract", "", "run", "train"];
const LAST: [&str; 3] = ["cache gc", "cache prune", "runs rm"];

/// Prepares what examples need but no example creates.
const PREPARATION: &str = "frostbert extract pipelines/embed.toml";

/// The only command that opens a connection, which no test does. Its examples try to reach a hub, and find none.
const ONLINE: &str = "model pull";

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

/// Returns the command that runs a line in a shell.
fn shell(folder: &Path, line: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_frostbert")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env_clear();
    command.env("PATH", format!("{}:{path}", program.display()));
    // No hub listens at this address.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HOME", folder);
    command
}

#[test]
fn every_example_of_every_help_runs() {
    let workshop = Workshop::empty();
    let mut examples = examples(&workshop);
    assert!(examples.len() >= 22, "only {:?} have examples", examples.keys());
    for name in ["data", "pipelines"] {
        symlink(repository().join(name), workshop.path(name)).unwrap();
    }
    std::fs::create_dir(workshop.path("models")).unwrap();
    symlink(minilm(), workshop.path("models/minilm")).unwrap();
    let last: Vec<_> = LAST.iter().filter_map(|name| examples.remove_entry(*name)).collect();
    let first: Vec<_> = FIRST.iter().filter_map(|name| examples.remove_entry(*name)).collect();
    let prepared = (String::new(), vec![PREPARATION.to_string()]);
    let all = std::iter::once(prepared).chain(first).chain(examples).chain(last);
    for (name, lines) in all {
        for line in lines {
            let ran = finish(shell(&workshop.path(""), &line));
            if name == ONLINE {
                assert_eq!(ran.code, Some(1), "{line}: {}", ran.stderr);
                assert!(ran.stderr.contains("cannot pull"), "{line}: {}", ran.stderr);
            } else {
                assert_eq!(ran.code, Some(0), "{line}: {}{}", ran.stdout, ran.stderr);
            }
        }
    }
}
