//! The output of `--help` for the program and for every command, which are found by reading the help itself.

use crate::support::Workshop;

/// Returns the commands that a help text lists.
pub(crate) fn commands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect()
}

#[test]
fn every_command_has_a_help_that_says_what_it_takes() {
    let workshop = Workshop::empty();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    let mut n_commands = 0;
    while let Some(command) = waiting.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let ran = workshop.succeed(&arguments);
        assert_eq!(ran.stderr, "", "help goes to stdout");
        assert!(
            ran.stdout.lines().all(|line| line.chars().count() <= 100),
            "{command:?} has lines over 100"
        );
        let name = std::iter::once("frostbert".to_string())
            .chain(command.clone())
            .collect::<Vec<_>>()
            .join("-");
        insta::assert_snapshot!(format!("help-of-{name}"), ran.stdout);
        waiting.extend(
            commands(&ran.stdout)
                .into_iter()
                .map(|next| [&command[..], &[next.to_string()]].concat()),
        );
        n_commands += 1;
    }
    assert!(n_commands >= 13, "only {n_commands} helps were found");
}

#[test]
fn wrong_usage_exits_with_2_and_shows_the_usage() {
    let workshop = Workshop::tiny();
    let wrong: [&[&str]; 9] = [
        &[],
        &["fly"],
        &["run"],
        &["run", "pipeline.toml", "--locked", "lock.json"],
        &["extract", "pipeline.toml", "--no-such-flag"],
        &["evaluate", "runs/tiny"],
        &["predict", "runs/tiny"],
        &["cache", "verify"],
        &["tokenize"],
    ];
    for arguments in wrong {
        let ran = workshop.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("Usage: frostbert"), "{arguments:?}: {}", ran.stderr);
    }
    for value in [["--threads", "0"], ["--set", "train.lr"]] {
        let ran = workshop.run(&["extract", "pipeline.toml", value[0], value[1]]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    }
}

#[test]
fn the_version_is_that_of_the_crate_with_its_commit() {
    let version = Workshop::empty().succeed(&["--version"]).stdout;
    let rest = version.strip_prefix(&format!("frostbert {} (", env!("CARGO_PKG_VERSION")));
    let commit = rest.and_then(|rest| rest.strip_suffix(")\n"));
    let commit = commit.unwrap_or_else(|| panic!("{version}"));
    let hash = commit.strip_suffix("+changes").unwrap_or(commit);
    let is_hash = hash.len() >= 12 && hash.chars().all(|c| c.is_ascii_hexdigit());
    assert!(is_hash || commit == "built without git: no commit", "{version}");
}
