//! Endless records: a file of a few megabytes that decompresses to gigabytes is rejected with file and line, in little
//! memory.

use std::{io::Write, process::Command, time::Instant};

use flate2::{Compression, write::GzEncoder};

use crate::support::{Workshop, finish};

const MIB: usize = 1 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns gzip data of `start`, followed by 8 GiB of `unit` in members of 1 MiB, which decompress to a single text.
fn bomb(start: &str, unit: &str) -> Vec<u8> {
    let block = gzip(unit.repeat(MIB / unit.len()).as_bytes());
    [gzip(start.as_bytes()), block.repeat(8 * 1024)].concat()
}

/// Runs the program with at most 1.5 GB of address space, which must fail, and returns its stderr.
fn refused(workshop: &Workshop, arguments: &[&str]) -> String {
    let program = workshop.command(arguments);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 1500000; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(workshop.path(""))
        .env("ORT_DYLIB_PATH", crate::support::repository().join("runtime"));
    let since = Instant::now();
    let ran = finish(command);
    assert!(ran.has_failed(), "{arguments:?}: {}", ran.stderr);
    assert!(since.elapsed().as_secs() < 60, "{arguments:?}");
    workshop.normalise(&ran.stderr)
}

#[test]
fn a_record_without_an_end_is_refused_in_little_memory() {
    let workshop = Workshop::tiny();
    let squad = "{\"data\": [{\"title\": \"t\", \"paragraphs\": [\n{\"context\": \"c\", \"qas\": []},\n{\"context\": \"";
    for (name, start, unit, task, expected) in [
        ("a.txt", "one\n", "a", "classification", ":2: expected a line of at most 64 MiB"),
        (
            "a.jsonl",
            "{\"text\": \"one\"}\n{\"text\": \"",
            "a",
            "classification",
            ":2: expected a line of at most 64 MiB",
        ),
        (
            "a.json",
            "[{\"text\": \"one\"},\n{\"text\": \"",
            "a",
            "classification",
            ":2: expected an item of the array of at most 64 MiB",
        ),
        (
            "a.csv",
            "text,label\none,x\n\"",
            "a\n",
            "classification",
            ":3: expected a record of at most 64 MiB",
        ),
        ("b.csv", "text,label\n", ",", "classification", ":2: expected a record of at most 64 MiB"),
        (
            "a.tsv",
            "text\tlabel\n",
            "a",
            "classification",
            ":2: expected a record of at most 64 MiB",
        ),
        ("a.conll", "one O\n\n", "a O\n", "tokens", ":3: expected a sentence of at most 64 MiB"),
        ("a.conllu", "", "1", "tokens", ":1: expected a line of at most 64 MiB"),
        (
            "b.json",
            squad,
            "a",
            "qa",
            ":3: expected a paragraph (with what separates it from the next) of at most 64 MiB",
        ),
        ("c.json", "{\"data\": [{\"title\": \"", "a", "qa", ":1: expected a paragraph"),
    ] {
        let name = format!("{name}.gz");
        workshop.write(&name, bomb(start, unit));
        let path = format!("data.train.path={name}");
        let task = format!("data.task={task}");
        let set = ["--set", &path, "--set", &task, "--set", "cache.stride=2"];
        let said = refused(&workshop, &[&["extract", "pipeline.toml"], &set[..]].concat());
        assert!(said.contains(&format!("error: {name}{expected}")), "{said}");
        assert!(said.contains("\nhint: "), "{said}");
        std::fs::remove_file(workshop.path(&name)).unwrap();
    }
    assert!(!workshop.path("cache").join("export.json").exists());
}

#[test]
fn what_else_is_read_has_a_limit_too() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    workshop.write("a.txt.gz", bomb("", "a"));
    for arguments in [
        &["predict", "runs/tiny", "a.txt.gz"][..],
        &["evaluate", "runs/tiny", "--data", "a.txt.gz", "--format", "jsonl"],
        &["run", "pipeline.toml", "--set", "data.labels=a.txt.gz"],
    ] {
        let said = refused(&workshop, arguments);
        assert!(
            said.contains("error: a.txt.gz:1: expected a line of at most 64 MiB, got a longer one"),
            "{said}"
        );
    }
    // A very long list of short names.
    let names: String = (0..2_000_000).map(|number| format!("{number}\n")).collect();
    workshop.write("names", names);
    let said = refused(&workshop, &["run", "pipeline.toml", "--set", "data.labels=names"]);
    assert!(said.contains("expected a file of labels of at most 64 MiB"), "{said}");
    // A sparse file of 10 GB.
    for (name, mib, arguments) in [
        ("a.toml", 8, &["run", "a.toml"][..]),
        ("lock.json", 256, &["run", "--locked", "lock.json"]),
    ] {
        let file = std::fs::File::create(workshop.path(name)).unwrap();
        file.set_len(10_000_000_000).unwrap();
        let said = refused(&workshop, arguments);
        assert!(
            said.contains(&format!("error: {name}: expected at most {mib} MiB, got more")),
            "{said}"
        );
    }
    // Endless standard input.
    let mut command = workshop.command(&["predict", "runs/tiny", "-"]);
    command.stdin(std::fs::File::open("/dev/zero").unwrap());
    let ran = finish_with_stdin(command);
    assert!(
        ran.contains(
            "error: standard input:1: expected a line of at most 64 MiB, got a longer one"
        ),
        "{ran}"
    );
}

/// Runs a command with its own stdin, which must fail, and returns its stderr.
fn finish_with_stdin(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    String::from_utf8(output.stderr).unwrap()
}
