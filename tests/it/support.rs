//! Helpers that the tests share: a workshop (a temporary folder with a small pipeline), functions that run the program
//! in it, and the replacement of whatever differs between machines in its output.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use frostbert::internals::encoder::runtime::Runtime;
use regex::Regex;
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A pipeline with a small BERT with random weights: 2 layers of 32, a vocabulary of 90, at most 64 tokens.
pub(crate) const TINY_PIPELINE: &str = r#"name = "tiny"

[model]
path = "MODEL"
device = "cpu"
batch_tokens = 256

[data]
train = { path = "train.csv" }

[cache]
max_length = 32
shard_tokens = 400

[train]
epochs = 3
"#;

/// Like [`TINY_PIPELINE`], with documents in several windows and every kind of state of two layers, in many shards.
pub(crate) const RICH_PIPELINE: &str = r#"name = "rich"

[model]
path = "MODEL"
device = "cpu"
batch_tokens = 256

[data]
train = { path = "train.csv" }

[cache]
max_length = 16
overflow = "windows"
stride = 4
shard_tokens = 400
layers = [1, -1]
store = ["cls", "mean", "words", "tokens"]

[head]
pooling = "mean"
layers = [-1]

[train]
epochs = 3
"#;

/// The number of rows in the data of a new workshop.
pub(crate) const TINY_ROWS: usize = 120;

const PROGRAM: &str = env!("CARGO_BIN_EXE_frostbert");

/// Returns the folder of the checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns a file or folder of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// Returns the folder of the default model, which `make setup` fetches.
pub(crate) fn minilm() -> PathBuf {
    let folder = repository().join("models/minilm");
    assert!(
        folder.join("model.safetensors").is_file(),
        "models/minilm is not there: run `make setup`"
    );
    folder
}

/// How many times smaller than the default model's the states of the small model are.
const SMALLER: usize = 8;

/// Writes the default model with an eighth of its dimensions: all its layers and its tokenizer, and the first values of
/// its weights. Its states are worth nothing, and it is opened and run in a fraction of the time.
fn write_small_model(folder: &Path) {
    let whole = minilm();
    fs::create_dir(folder).unwrap();
    for file in fs::read_dir(&whole).unwrap() {
        let file = file.unwrap();
        // The sizes, the weights, and the hashes of a pulled model are other ones.
        if !["config.json", "model.safetensors", "source.json"]
            .iter()
            .any(|name| file.file_name() == *name)
        {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
    let mut config = read_json(&whole.join("config.json"));
    let sizes = ["hidden_size", "intermediate_size"].map(|key| {
        let size = config[key].as_u64().unwrap() as usize;
        config[key] = json!(size / SMALLER);
        size
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let bytes = fs::read(whole.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let cut: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let of_size = |size: &usize| if sizes.contains(size) { size / SMALLER } else { *size };
            let shape: Vec<usize> = tensor.shape().iter().map(of_size).collect();
            (name, tensor.dtype(), first_values(&tensor, &shape), shape)
        })
        .collect();
    let views = cut.iter().map(|(name, dtype, values, shape)| {
        (*name, TensorView::new(*dtype, shape.clone(), values).unwrap())
    });
    let small = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("model.safetensors"), small).unwrap();
}

/// Returns the first rows and columns of a matrix, or the first values of a vector, as bytes.
fn first_values(tensor: &TensorView<'_>, shape: &[usize]) -> Vec<u8> {
    let n_values: usize = tensor.shape().iter().product();
    let (n_columns, columns_kept) = (tensor.shape().last().unwrap(), shape.last().unwrap());
    let value = tensor.data().len() / n_values;
    let rows_kept = shape.iter().product::<usize>() / columns_kept;
    let rows = tensor.data().chunks_exact(n_columns * value).take(rows_kept);
    rows.flat_map(|row| &row[..columns_kept * value]).copied().collect()
}

/// Returns ONNX Runtime, which is loaded once for all tests of this process.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        Runtime::load(&repository().join("runtime/libonnxruntime.so"))
            .expect("runtime/ is not there: run `make setup`")
    })
}

/// Returns the folder of public data sets, or `None`, after a message, if there is none.
pub(crate) fn datasets() -> Option<PathBuf> {
    let folder = std::env::var_os("FROSTBERT_DATASETS").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        say("skipped: FROSTBERT_DATASETS is not set");
    }
    folder.map(PathBuf::from)
}

/// Writes a line to stderr that the test harness does not capture, such as why a test was skipped.
pub(crate) fn say(line: &str) {
    let test = std::thread::current().name().map(str::to_owned);
    let line = format!("{}: {line}\n", test.unwrap_or_default());
    // The line is not needed if there is no stderr.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Returns the program with a clean environment and an empty stdin.
pub(crate) fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).args(arguments).env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Generates distinct texts of words in the tiny vocabulary, of 6 to 21 tokens.
pub(crate) fn texts(n_texts: usize) -> Vec<String> {
    let classes = [["cold", "snow", "frost"], ["warm", "good", "very"], ["film", "not", "bad"]];
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let text = |number: usize| {
        let words = classes[number % 3];
        let mut text = String::from("the");
        for _ in 0..2 + random(12) {
            text.push(' ');
            text.push_str(if random(4) == 0 {
                ["is", "and", "the"][random(3)]
            } else {
                words[random(3)]
            });
        }
        for digit in number.to_string().chars() {
            text.push(' ');
            text.push(digit);
        }
        text
    };
    (0..n_texts).map(text).collect()
}

/// Returns the label of the text with this number.
pub(crate) fn label(number: usize) -> &'static str {
    ["cold", "warm", "plain"][number % 3]
}

/// Formats texts with their labels as a csv file; the numbers count from `first`.
pub(crate) fn csv(texts: &[String], first: usize) -> String {
    let rows = texts.iter().enumerate();
    let rows = rows.map(|(row, text)| format!("{text},{}\n", label(first + row)));
    std::iter::once("text,label\n".to_string()).chain(rows).collect()
}

/// Formats texts like [`csv`], with every seventh row repeated.
pub(crate) fn csv_with_repeats(n_texts: usize) -> String {
    let once = csv(&texts(n_texts), 0);
    let mut lines: Vec<&str> = once.lines().collect();
    let repeated: Vec<&str> = lines[1..].iter().step_by(7).copied().collect();
    lines.extend(repeated);
    lines.join("\n") + "\n"
}

/// Copies a folder with all its contents.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, bytes) in contents(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// The result of running the program.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Returns whether the program failed with an error of its own, which has an exit code from 1 to 6.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.code, Some(1..=6))
    }
}

/// A temporary folder in which the program runs.
pub(crate) struct Workshop {
    folder: TempDir,
}

impl Workshop {
    /// Creates an empty workshop.
    pub(crate) fn empty() -> Workshop {
        Workshop { folder: tempfile::tempdir().unwrap() }
    }

    /// Creates a workshop like a checkout, with links to the data, the pipelines and the default model.
    pub(crate) fn checkout() -> Workshop {
        let workshop = Workshop::empty();
        fs::create_dir(workshop.path("data")).unwrap();
        for entry in fs::read_dir(repository().join("data")).unwrap() {
            let entry = entry.unwrap();
            symlink(entry.path(), workshop.path("data").join(entry.file_name())).unwrap();
        }
        symlink(repository().join("pipelines"), workshop.path("pipelines")).unwrap();
        fs::create_dir(workshop.path("models")).unwrap();
        symlink(minilm(), workshop.path("models/minilm")).unwrap();
        workshop
    }

    /// Puts a small model in the place of the default one of a [`Workshop::checkout`].
    pub(crate) fn take_small_model(&self) {
        let folder = self.path("models/minilm");
        fs::remove_file(&folder).unwrap();
        write_small_model(&folder);
    }

    /// Creates a workshop with `pipeline.toml` (tiny BERT) and `train.csv`.
    pub(crate) fn tiny() -> Workshop {
        let workshop = Workshop::empty();
        workshop.write("train.csv", csv(&texts(TINY_ROWS), 0));
        workshop.write_pipeline(TINY_PIPELINE);
        workshop
    }

    /// Creates a workshop like [`Workshop::tiny`], with a test file of 60 texts that are not in train.
    pub(crate) fn with_test_file() -> Workshop {
        let workshop = Workshop::tiny();
        workshop.write("test.csv", csv(&texts(TINY_ROWS + 60)[TINY_ROWS..], TINY_ROWS));
        let both = "\"train.csv\" }\ntest = { path = \"test.csv\" }";
        workshop.write_pipeline(&TINY_PIPELINE.replace("\"train.csv\" }", both));
        workshop
    }

    /// Creates a workshop with [`RICH_PIPELINE`] and this many distinct texts, of which every seventh occurs twice.
    pub(crate) fn rich(n_texts: usize) -> Workshop {
        let workshop = Workshop::empty();
        workshop.write("train.csv", csv_with_repeats(n_texts));
        workshop.write_pipeline(RICH_PIPELINE);
        workshop
    }

    /// Writes `pipeline.toml`, with the tiny BERT in place of `MODEL`.
    pub(crate) fn write_pipeline(&self, toml: &str) {
        let model = fixture("tiny_bert").display().to_string();
        self.write("pipeline.toml", toml.replace("MODEL", &model));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Copies the tiny BERT to a folder of the workshop, to be damaged.
    pub(crate) fn copy_model(&self, name: &str) -> PathBuf {
        let target = self.path(name);
        fs::create_dir(&target).unwrap();
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(fixture("tiny_bert").join(file), target.join(file)).unwrap();
        }
        target
    }

    /// Returns the program with these arguments, in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        program(self.folder.path(), arguments)
    }

    /// Runs the program until it exits.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments))
    }

    /// Runs a line in a shell, in which `frostbert` is the program.
    pub(crate) fn shell(&self, line: &str) -> Ran {
        let folder = Path::new(PROGRAM).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(self.folder.path()).env_clear();
        command.env("PATH", format!("{folder}:{path}")).env("HOME", self.folder.path());
        // No hub listens at this address.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").stdin(Stdio::null());
        finish(command)
    }

    /// Runs the program with `--json`, which must succeed, and parses the one object it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.succeed(&[arguments, &["--json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| {
            panic!("{error} in the stdout of {arguments:?}: {}", ran.stdout)
        })
    }

    /// Runs the program, which must succeed.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?} failed: {}", ran.stderr);
        ran
    }

    /// Runs the program, which must fail with nothing on stdout, and returns its stderr, normalised for a snapshot.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert!(ran.has_failed() && ran.stdout.is_empty(), "{arguments:?}: {}", ran.stderr);
        self.normalise(&ran.stderr)
    }

    /// Replaces what differs between machines and runs: folders, hashes, process numbers, versions of the runtime.
    pub(crate) fn normalise(&self, text: &str) -> String {
        let folder = self.folder.path();
        let canonical = folder.canonicalize().unwrap();
        // The runtime in a checkout may be a link to another folder.
        let runtime = repository().join("runtime");
        let runtime = runtime.canonicalize().unwrap_or(runtime);
        let mut text = text
            .replace(&runtime.display().to_string(), "[repository]/runtime")
            .replace(&canonical.display().to_string(), "[dir]")
            .replace(&folder.display().to_string(), "[dir]")
            .replace(&repository().display().to_string(), "[repository]");
        for (pattern, name) in [
            (r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b", "[hash]"),
            (r"\bprocess [0-9]+", "process [pid]"),
            (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}\b", "[date]"),
            (r"[0-9.]+ [kMG]B free", "[space] free"),
            (r"libonnxruntime\.so\.[0-9.]+[0-9]", "libonnxruntime.so.[version]"),
        ] {
            let pattern = Regex::new(pattern).unwrap();
            text = pattern.replace_all(&text, name).into_owned();
        }
        text
    }

    /// Returns the only cache folder under `cache`.
    pub(crate) fn cache(&self) -> PathBuf {
        let mut caches: Vec<PathBuf> = fs::read_dir(self.path("cache"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|folder| !folder.join("export.json").exists())
            .collect();
        assert_eq!(caches.len(), 1, "{caches:?}");
        caches.remove(0)
    }

    /// Returns the only cache folder, as a path in the workshop.
    pub(crate) fn cache_named(&self) -> PathBuf {
        Path::new("cache").join(self.cache().file_name().unwrap())
    }

    /// Returns the manifest of the only cache.
    pub(crate) fn manifest(&self) -> Value {
        read_json(&self.cache().join("manifest.json"))
    }
}

/// Runs a command until it exits, for at most two minutes.
pub(crate) fn finish(command: Command) -> Ran {
    let output =
        assert_cmd::Command::from_std(command).timeout(Duration::from_secs(120)).output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Returns every file under a folder with its bytes, by its path in the folder, except a writer's lock, in which a
/// killed process leaves a number, and files that are only for people.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if !["writer.lock", "about.json", "report.html"].iter().any(|name| path.ends_with(name))
            {
                let bytes = fs::read(&path).unwrap();
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, bytes);
            }
        }
    }
    files
}

/// Asserts that the files are the same, and otherwise names those that are missing or have other bytes.
pub(crate) fn assert_same_files(
    expected: &BTreeMap<String, Vec<u8>>,
    got: &BTreeMap<String, Vec<u8>>,
) {
    let names = expected.keys().chain(got.keys());
    let different: std::collections::BTreeSet<&String> =
        names.filter(|name| expected.get(*name) != got.get(*name)).collect();
    assert!(different.is_empty(), "these files differ: {different:?}");
}
