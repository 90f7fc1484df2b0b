//! Pipes, devices, sockets and folders in place of a file: each is read, or rejected immediately with the cure.

use std::{
    fs::File,
    io::Write,
    os::unix::net::UnixListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Ran, Workshop};

/// What the program's stdin is.
#[derive(Clone, Copy)]
enum Stdin<'a> {
    Null,
    /// A pipe with this text.
    Pipe(&'a str),
    /// A file of the workshop.
    File(&'a str),
}

/// Runs the program, which must exit within half a minute.
fn run(workshop: &Workshop, arguments: &[&str], stdin: Stdin<'_>) -> Ran {
    let mut command = workshop.command(arguments);
    command.stdin(match stdin {
        Stdin::Null => Stdio::null(),
        Stdin::Pipe(_) => Stdio::piped(),
        Stdin::File(name) => File::open(workshop.path(name)).unwrap().into(),
    });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let Stdin::Pipe(text) = stdin {
        let mut pipe = child.stdin.take().unwrap();
        // A program that rejects stdin does not read it.
        let _ = pipe.write_all(text.as_bytes());
    }
    ended(child)
}

fn ended(mut child: Child) -> Ran {
    let since = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if since.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("it hangs: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Creates a workshop with a run, a named pipe, a folder, and a socket that lives as long as the returned listener.
fn with_strange_files() -> (Workshop, UnixListener) {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    let made = Command::new("mkfifo").arg(workshop.path("pipe")).status();
    assert!(made.unwrap().success());
    let socket = UnixListener::bind(workshop.path("socket")).unwrap();
    std::fs::create_dir(workshop.path("folder")).unwrap();
    (workshop, socket)
}

#[test]
fn data_that_cannot_be_read_twice_is_refused_at_once() {
    let (workshop, _socket) = with_strange_files();
    let words = |what: &str| {
        format!(
            "expected a regular file, because data files are read more than once, got {what}\nhint: write its \
             contents to a file first, and name that file\n"
        )
    };
    for (path, stdin, said) in [
        ("pipe", Stdin::Null, words("a pipe")),
        ("socket", Stdin::Null, words("a socket")),
        ("/dev/null", Stdin::Null, words("a device")),
        ("/dev/zero", Stdin::Null, words("a device")),
        ("/dev/stdin", Stdin::Null, words("a device")),
        ("/dev/stdin", Stdin::Pipe("text,label\na,b\n"), words("a pipe")),
        ("/dev/fd/0", Stdin::Pipe("text,label\na,b\n"), words("a pipe")),
        ("folder", Stdin::Null, "Is a directory".into()),
        ("/dev/fd/77", Stdin::Null, "No such file or directory".into()),
    ] {
        let train = format!("data.train={{path=\"{path}\", format=\"csv\"}}");
        let labels = format!("data.labels={path}");
        for arguments in [
            &["extract", "pipeline.toml", "--set", &train][..],
            &["train", "pipeline.toml", "--set", &train],
            &["run", "pipeline.toml", "--set", &train],
            &["similar", "pipeline.toml", "--query", "a", "--set", &train],
            &["evaluate", "runs/tiny", "--data", path, "--format", "csv"],
            &["train", "pipeline.toml", "--set", &labels],
        ] {
            let ran = run(&workshop, arguments, stdin);
            assert!(ran.has_failed(), "{arguments:?}: {}", ran.stderr);
            assert!(
                ran.stderr.contains(path) && ran.stderr.contains(&said),
                "{arguments:?}: {}",
                ran.stderr
            );
        }
    }
}

#[test]
fn standard_input_that_is_a_file_is_data_like_any_other() {
    let workshop = Workshop::tiny();
    for path in ["/dev/stdin", "/dev/fd/0"] {
        let train = format!("data.train={{path=\"{path}\", format=\"csv\"}}");
        let arguments = ["run", "pipeline.toml", "--set", &train];
        let ran = run(&workshop, &arguments, Stdin::File("train.csv"));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
}

#[test]
fn predict_reads_what_can_be_read_once() {
    let (workshop, _socket) = with_strange_files();
    let csv = "text\nthe cold snow\n";
    for (path, stdin, n_lines) in [
        ("/dev/stdin", Stdin::Pipe(csv), 1),
        ("/dev/fd/0", Stdin::Pipe(csv), 1),
        ("/dev/stdin", Stdin::File("train.csv"), 120),
        ("/dev/null", Stdin::Null, 0),
    ] {
        let arguments = ["predict", "runs/tiny", path, "--format", "csv", "--json"];
        let ran = run(&workshop, &arguments, stdin);
        assert_eq!(ran.code, Some(0), "{path}: {}", ran.stderr);
        assert_eq!(ran.stdout.lines().count(), n_lines, "{path}");
    }
    // Reading from a named pipe waits for its writer.
    let child = workshop
        .command(&["predict", "runs/tiny", "pipe", "--format", "csv", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::fs::write(workshop.path("pipe"), csv).unwrap();
    let ran = ended(child);
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 1));
    for (arguments, said) in [
        (
            &["predict", "runs/tiny", "socket", "--format", "csv"][..],
            "error: socket: expected a regular file, because data files are read more than once, got a socket",
        ),
        (
            &["predict", "runs/tiny", "folder", "--format", "csv"],
            "error: cannot read `folder`: Is a directory",
        ),
        (
            &["predict", "runs/tiny", "/dev/zero", "--format", "lines"],
            "error: /dev/zero:1: expected a line of at most 64 MiB, got a longer one",
        ),
        (
            &["predict", "runs/tiny", "/dev/null", "--format", "parquet"],
            "error: /dev/null: expected a text format, as this is read from a stream, got parquet",
        ),
    ] {
        let ran = run(&workshop, arguments, Stdin::Null);
        assert!(ran.has_failed(), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn a_pipeline_comes_from_a_file_or_from_a_pipe_that_has_a_writer() {
    let (workshop, _socket) = with_strange_files();
    let pipeline = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let lock = std::fs::read_to_string(workshop.path("runs/tiny/001/lock.json")).unwrap();
    for (arguments, stdin) in [
        (&["train", "/dev/stdin"][..], Stdin::Pipe(&pipeline)),
        (&["train", "/dev/fd/0"], Stdin::Pipe(&pipeline)),
        (&["train", "/dev/stdin"], Stdin::File("pipeline.toml")),
        (&["run", "--locked", "/dev/stdin"], Stdin::Pipe(&lock)),
    ] {
        let ran = run(&workshop, arguments, stdin);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
    }
    for (path, got) in [
        ("pipe", "a named pipe"),
        ("socket", "a socket"),
        ("/dev/zero", "a device"),
        ("/dev/null", "a device"),
        ("/dev/stdin", "a device"),
    ] {
        let said = format!(
            "error: {path}: expected a regular file, got {got}\nhint: write its contents to a file first"
        );
        for arguments in [
            &["run", path][..],
            &["extract", path],
            &["doctor", path],
            &["run", "--locked", path],
            &["cache", "gc", "cache", "--pipeline", path],
        ] {
            let ran = run(&workshop, arguments, Stdin::Null);
            assert!(ran.has_failed(), "{arguments:?}");
            assert!(ran.stderr.contains(&said), "{arguments:?}: {}", ran.stderr);
        }
    }
    let ran = run(&workshop, &["run", "folder"], Stdin::Null);
    assert!(ran.stderr.contains("error: cannot read `folder`: Is a directory"), "{}", ran.stderr);
}

#[test]
fn a_delimiter_of_train_holds_for_no_other_format() {
    let workshop = Workshop::tiny();
    let rows = std::fs::read_to_string(workshop.path("train.csv")).unwrap();
    workshop.write("train.csv", rows.replace(',', ";"));
    let source = "data.train={path=\"train.csv\", delimiter=\";\"}";
    workshop.succeed(&["run", "pipeline.toml", "--set", source]);
    workshop.write("a.jsonl", "{\"text\": \"the cold\"}\n");
    workshop.write("a.tsv", "text\tother\nthe cold\tx;y\n");
    for file in ["a.jsonl", "a.tsv"] {
        let ran = workshop.succeed(&["predict", "runs/tiny", file, "--json"]);
        assert!(ran.stdout.contains("\"the cold\""), "{}", ran.stdout);
    }
    let arguments = ["predict", "runs/tiny", "-", "--format", "jsonl", "--json"];
    let ran = run(&workshop, &arguments, Stdin::Pipe("{\"text\": \"the cold\"}\n"));
    assert!(ran.stdout.contains("\"the cold\""), "{}", ran.stderr);
    let arguments = ["predict", "runs/tiny", "-", "--format", "csv", "--json"];
    let ran = run(&workshop, &arguments, Stdin::Pipe("text;n\nthe cold;1\n"));
    assert!(ran.stdout.contains("\"the cold\""), "{}", ran.stderr);
}

#[test]
fn an_export_warns_of_quotes_that_took_in_lines() {
    let workshop = Workshop::tiny();
    workshop.write("q.tsv", "text\tlabel\n\"the snow\tx\nb\tc\"\td\nthe cold\tx\n");
    let set = ["--set", "data.train={path=\"q.tsv\"}"];
    workshop.succeed(&[&["extract", "pipeline.toml"], &set[..]].concat());
    let cache = workshop.cache_named().display().to_string();
    let export = ["cache", "export", &cache, "--to", "npy", "--pipeline", "pipeline.toml"];
    let ran = workshop.succeed(&[&export[..], &set].concat());
    assert!(
        ran.stderr.contains(
            "q.tsv: in 1 record, a quote joins several lines with tabs into one field, first in lines 2 to 3"
        ),
        "{}",
        ran.stderr
    );
}
