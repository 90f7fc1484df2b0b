//! The doors: what is executed on an input, and what must hold where the input is accepted.
//!
//! A target panics where something accepted is wrong; a panic of the library is found the same way.

mod cache;
mod data;
mod download;
mod model;
mod pipeline;
mod run;

use std::path::{Path, PathBuf};

use frostbert::internals::data::Format;

use crate::mutate::Syntax;

/// Executes one input, where asked to with everything that takes long too; whether the input was accepted.
pub(crate) type Execute = Box<dyn FnMut(&[u8], bool) -> bool>;

/// One door.
pub(crate) struct Target {
    /// Its name: also that of its folder in the corpus.
    pub(crate) name: &'static str,
    /// What its inputs are written in.
    pub(crate) syntax: Syntax,
    /// Files beside those of its corpus.
    pub(crate) more: fn() -> Vec<PathBuf>,
    /// Inputs that are made of the base.
    pub(crate) made: fn() -> Vec<Vec<u8>>,
    /// Prepares it in an empty folder.
    pub(crate) open: fn(&Path) -> Execute,
}

const fn target(name: &'static str, syntax: Syntax, open: fn(&Path) -> Execute) -> Target {
    Target { name, syntax, more: Vec::new, made: Vec::new, open }
}

const fn with(target: Target, more: fn() -> Vec<PathBuf>) -> Target {
    Target { more, ..target }
}

const fn with_made(target: Target, made: fn() -> Vec<Vec<u8>>) -> Target {
    Target { made, ..target }
}

use Syntax::{Bytes, Json, Text, Toml};

/// All doors.
pub(crate) static TARGETS: [Target; 33] = [
    with(target("pipeline", Toml, pipeline::file), pipeline::shipped),
    target("overrides", Text, pipeline::overrides),
    target("labels", Text, pipeline::labels),
    target("csv", Text, |folder| data::text(folder, Format::Csv)),
    target("tsv", Text, |folder| data::text(folder, Format::Tsv)),
    target("jsonl", Text, |folder| data::text(folder, Format::Jsonl)),
    target("json", Json, |folder| data::text(folder, Format::Json)),
    target("lines", Text, |folder| data::text(folder, Format::Lines)),
    target("conll", Text, |folder| data::text(folder, Format::Conll)),
    target("conllu", Text, |folder| data::text(folder, Format::Conllu)),
    target("squad", Json, |folder| data::text(folder, Format::Squad)),
    with_made(target("gzip", Bytes, data::gzip), data::gzipped),
    with(target("parquet", Bytes, data::parquet), data::parquet_files),
    with(target("manifest", Json, cache::manifest), cache::manifests),
    with_made(target("plan", Json, cache::plan), cache::plans),
    with(target("docs", Bytes, |folder| cache::table(folder, "docs.parquet")), || {
        cache::files("docs.parquet")
    }),
    with(target("tokens", Bytes, |folder| cache::table(folder, "tokens.parquet")), || {
        cache::files("tokens.parquet")
    }),
    with(target("words", Bytes, |folder| cache::table(folder, "words.parquet")), || {
        cache::files("words.parquet")
    }),
    with(target("state", Bytes, |folder| cache::table(folder, "mean-L02.parquet")), || {
        cache::files("mean-L02.parquet")
    }),
    with(target("head_json", Json, run::head_json), || run::files("head.json")),
    with(target("head_weights", Bytes, run::head_weights), || run::files("head.safetensors")),
    with(target("lock", Json, run::lock), || run::files("lock.json")),
    with(target("config", Json, model::config), || model::files("config.json")),
    with(target("weights", Bytes, model::weights), model::small_weights),
    with(target("weights_index", Json, model::index), || {
        model::files("model.safetensors.index.json")
    }),
    with(target("torch_weights", Bytes, model::torch_weights), model::small_torch_weights),
    with(target("onnx", Bytes, model::onnx), || model::files("model.onnx")),
    with(target("tokenizer", Json, model::tokenizer), || model::files("tokenizer.json")),
    target("tokenizer_config", Json, model::tokenizer_config),
    with(target("sentencepiece", Bytes, model::sentencepiece), model::sentencepiece_models),
    target("windows", Text, model::windows),
    target("source", Json, model::provenance),
    target("hub", Json, download::listing),
];

/// Targets that do what must be found, and what the harness says of each.
pub(crate) const PLANTED: [(&str, &str); 4] = [
    ("planted-panic", "is planted"),
    ("planted-overflow", "abort: "),
    ("planted-hang", "hang: "),
    ("planted-memory", "memory: "),
];

static PLANTED_TARGETS: [Target; 4] = [
    planted(PLANTED[0].0, |_| Box::new(|_, _| panic!("this one is planted"))),
    planted(PLANTED[1].0, |_| Box::new(|_, _| overflow(u64::MAX) == 0)),
    planted(PLANTED[2].0, |_| {
        Box::new(|_, _| {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        })
    }),
    planted(PLANTED[3].0, |_| {
        Box::new(|_, _| {
            let mut held = Vec::new();
            loop {
                held.push(vec![1u8; 64 << 20]);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        })
    }),
];

const fn planted(name: &'static str, open: fn(&Path) -> Execute) -> Target {
    with_made(target(name, Bytes, open), || vec![Vec::new()])
}

/// Calls itself until the stack is full.
fn overflow(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    match depth {
        0 => room[0],
        _ => overflow(depth - 1).wrapping_add(room[1]),
    }
}

/// Decides by an input itself, so that it does the same again wherever it comes from.
fn sum(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| usize::from(*byte)).sum()
}

/// Whether a target is there to be found.
pub(crate) fn is_planted(name: &str) -> bool {
    PLANTED.iter().any(|(planted, _)| *planted == name)
}

/// The target of this name.
pub(crate) fn named(name: &str) -> &'static Target {
    let all = TARGETS.iter().chain(&PLANTED_TARGETS);
    let found = all.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("no target `{name}`: there are {}", names.join(", "))
    })
}
