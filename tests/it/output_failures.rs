//! Output that cannot be written: the work is still done, nothing panics, and the exit code reports the result.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Workshop, copy_folder, csv, program, repository, texts};

/// Opens a device to which every write fails.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// Returns the writing end of a pipe without a reader.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns a name that is not UTF-8.
fn strange(name: &str) -> OsString {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0xFF);
    OsString::from_vec(bytes)
}

#[test]
fn work_is_done_where_stderr_cannot_be_written() {
    let workshop = Workshop::tiny();
    for (number, stderr) in [full().into(), unread()].into_iter().enumerate() {
        let cache = format!("cache.dir=cache-{number}");
        let mut command = workshop.command(&["run", "pipeline.toml", "--verbose", "--set", &cache]);
        let output = command.stderr(stderr).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(&format!("run         runs/tiny/00{}", number + 1)), "{printed}");
    }
    // A message that cannot be printed does not change the exit code either.
    for (arguments, code) in [
        (&["train", "no-such-file.toml"][..], 4),
        (&["no-such-command"], 2),
        (&["similar", "pipeline.toml", "--text", "a"], 2),
    ] {
        let mut command = workshop.command(arguments);
        let output = command.stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn what_is_written_to_files_is_finished_where_nobody_reads_stdout() {
    let workshop = Workshop::tiny();
    for command in ["extract", "train", "run"] {
        for json in [&[][..], &["--json"]] {
            let arguments = [&[command, "pipeline.toml"], json].concat();
            let output = workshop.command(&arguments).stdout(unread()).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            assert!(!stderr(&output).contains("error:"), "{}", stderr(&output));
        }
    }
    assert!(workshop.path("runs/tiny/004/lock.json").is_file());
    for arguments in [&["--help"][..], &["--version"], &["predict", "--help"]] {
        let mut command = workshop.command(arguments);
        let output = command.stdout(unread()).output().unwrap();
        assert_eq!(
            (output.status.code(), stderr(&output).as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_full_disk_behind_stdout_is_an_error_and_the_run_is_there() {
    let workshop = Workshop::tiny();
    for arguments in [
        &["run", "pipeline.toml", "--quiet"][..],
        &["run", "pipeline.toml", "--quiet", "--json"],
        &["predict", "runs/tiny", "--text", "the cold"],
        &["predict", "runs/tiny", "train.csv", "--json"],
        &["cache", "ls"],
        &["tokenize", "--model", "MODEL", "--text", "the cold"],
        &["--help"],
        &["--version"],
    ] {
        let model = repository().join("tests/fixtures/tiny_bert");
        let named = |argument: &&str| match *argument {
            "MODEL" => model.display().to_string(),
            other => other.to_string(),
        };
        let arguments: Vec<String> = arguments.iter().map(named).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = workshop.command(&arguments).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = stderr(&output);
        assert!(
            stderr.contains("error: cannot write to standard output: No space left on device"),
            "{arguments:?}: {stderr}"
        );
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    assert!(workshop.path("runs/tiny/002/lock.json").is_file());
}

#[test]
fn predict_stops_when_its_reader_has_gone() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml"]);
    // An endless stream: the program must not try to read all of it.
    let (reader, writer) = std::io::pipe().unwrap();
    let text = csv(&texts(5000), 0).replace("text,label\n", "");
    std::thread::spawn(move || {
        use std::io::Write;
        let mut writer = writer;
        while writer.write_all(text.as_bytes()).is_ok() {}
    });
    let mut child = workshop
        .command(&["predict", "runs/tiny", "-"])
        .stdin(reader)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    assert!(!first.is_empty());
    drop(stdout);
    let since = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if since.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("still running a minute after its reader had gone");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("error") && !said.contains("panicked"), "{said}");
}

/// Runs the program with arguments that may not be UTF-8, which must succeed, and parses what it prints.
fn json(folder: &Path, arguments: &[&OsStr]) -> Value {
    let output = command(folder, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn command(folder: &Path, arguments: &[&OsStr]) -> Command {
    let mut command = program(folder, &["--json"]);
    command.args(arguments);
    command
}

#[test]
fn paths_that_are_no_utf_8_are_shown_and_fail_nothing() {
    let workshop = Workshop::tiny();
    // Everything in a folder with such a name, with relative paths inside.
    let folder = workshop.path("x").with_file_name(strange("w"));
    fs::create_dir(&folder).unwrap();
    let pipeline = fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let unnamed = folder.join(strange("p"));
    fs::write(&unnamed, pipeline.replace("name = \"tiny\"\n", "")).unwrap();
    fs::write(folder.join("pipeline.toml"), pipeline).unwrap();
    fs::copy(workshop.path("train.csv"), folder.join("train.csv")).unwrap();
    let run = json(&folder, &["run".as_ref(), "pipeline.toml".as_ref()]);
    assert_eq!(run["train"]["run"], "runs/tiny/001");
    assert!(folder.join("runs/tiny/001/lock.json").is_file());
    let locked = ["run", "--locked", "runs/tiny/001/lock.json"].map(OsStr::new);
    json(&folder, &locked);

    // Every path that can be given as an argument.
    let name = |path: &Path| path.file_name().unwrap().to_owned();
    let (runs, caches, data, model, out) =
        (strange("runs"), strange("caches"), strange("data"), strange("model"), strange("out"));
    copy_folder(&folder.join("runs"), &folder.join(&runs));
    copy_folder(&folder.join("cache"), &folder.join(&caches));
    fs::copy(folder.join("train.csv"), folder.join(&data)).unwrap();
    copy_folder(&repository().join("tests/fixtures/tiny_bert"), &folder.join(&model));
    let cache = fs::read_dir(folder.join(&caches)).unwrap().next().unwrap();
    let cache: PathBuf = Path::new(&caches).join(name(&cache.unwrap().path()));
    let run = Path::new(&runs).join("tiny");
    let of = |words: &'static [&'static str]| words.iter().map(|word| OsStr::new(*word));
    let shown = "\u{FFFD}";
    for (arguments, place) in [
        (
            of(&["evaluate", "--format", "csv"])
                .chain([run.as_os_str(), "--data".as_ref(), &data])
                .collect::<Vec<_>>(),
            "/run",
        ),
        (of(&["cache", "ls"]).chain([caches.as_os_str()]).collect(), "/caches/0/path"),
        (of(&["cache", "info"]).chain([cache.as_os_str()]).collect(), ""),
        (of(&["cache", "gc"]).chain([caches.as_os_str()]).collect(), "/caches/0/path"),
        (of(&["cache", "diff"]).chain([cache.as_os_str(), cache.as_os_str()]).collect(), ""),
        (
            of(&["cache", "export", "--to", "npy", "--out"])
                .chain([out.as_os_str(), cache.as_os_str()])
                .collect(),
            "/folder",
        ),
        (of(&["model", "info"]).chain([model.as_os_str()]).collect(), ""),
        (of(&["train"]).chain([unnamed.as_os_str()]).collect(), "/run"),
        (of(&["extract"]).chain([unnamed.as_os_str()]).collect(), ""),
    ] {
        let printed = json(&folder, &arguments);
        let text = printed.pointer(place).map(Value::to_string);
        let text = text.unwrap_or_else(|| panic!("no {place} in {printed}"));
        assert!(place.is_empty() || text.contains(shown), "{arguments:?}: {text}");
    }

    // A missing library is reported as a finding.
    let nowhere = strange("nowhere");
    let doctor =
        ["doctor".as_ref(), unnamed.as_os_str(), "--ort-lib".as_ref(), nowhere.as_os_str()];
    let output = command(&folder, &doctor).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["onnxruntime"]["library"], "nowhere\u{FFFD}");

    // Damaged files are named too.
    let shard = fs::read_dir(folder.join(&cache))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    let file = fs::read_dir(&shard).unwrap().next().unwrap();
    fs::write(file.unwrap().path(), "damage").unwrap();
    for repair in [&[][..], &[OsStr::new("--repair")]] {
        let verify = [&["cache".as_ref(), "verify".as_ref(), cache.as_os_str()], repair].concat();
        let output = command(&folder, &verify).output().unwrap();
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let damaged = printed["damaged"][0].as_str().unwrap();
        assert!(damaged.contains(shown), "{damaged}");
    }

    // Texts must be UTF-8; anything else is wrong usage.
    let text = strange("text");
    let arguments = ["predict".as_ref(), run.as_os_str(), "--text".as_ref(), text.as_os_str()];
    let output = command(&folder, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}
