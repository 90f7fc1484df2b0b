//! The rules of this code base (see the list of layers in docs/architecture.md), enforced by tests so that nobody has
//! to remember them.

mod decisions;
mod source;
mod structure;

use std::collections::HashSet;

use source::{NamedPath, ROOTS, Source, Token, paths};

use crate::support::repository;

/// The layers, from the top: a file imports only from layers below its own.
const LAYERS: [&str; 24] = [
    "internals",
    "api",
    "experiment",
    "export",
    "page",
    "sweep",
    "training",
    "server",
    "prediction",
    "doctor",
    "run_folder",
    "tasks",
    "distributed",
    "extraction",
    "report",
    "selection",
    "config",
    "head",
    "train",
    "metrics",
    "features",
    "encoder",
    "data",
    "error",
];

/// The layers of frostbert-cache. Files of one layer never import each other.
const CACHE_LAYERS: [&[&str]; 20] = [
    &["prune"],
    &["cache", "export", "diff", "gc", "verify"],
    &["batch_log", "vectors", "writer"],
    &["plan"],
    &["leftovers"],
    &["reader"],
    &["index", "staging"],
    &["state_file", "tables"],
    &["file"],
    &["about"],
    &["manifest", "shard"],
    &["in_use", "names"],
    &["states"],
    &["fingerprint"],
    &["durable"],
    &["fence"],
    &["mmap"],
    &["wording"],
    &["progress"],
    &["error"],
];

/// The layers of frostbert-train, as above. Files of one layer never import each other.
const TRAIN_LAYERS: [&[&str]; 5] = [
    &["encoder_layer"],
    &["layer_norm"],
    &["dropout", "eigen", "gemm", "loss", "optimizer", "vector"],
    &["aligned", "early_stopping", "panel", "real", "schedule"],
    &["error", "exp"],
];

/// The crates that frostbert-cache may depend on, because other programs compile all of them.
const CACHE_DEPENDENCIES: [&str; 14] = [
    "arrow",
    "blake3",
    "bytes",
    "crossbeam-channel",
    "half",
    "memmap2",
    "multiversion",
    "ndarray",
    "parquet",
    "rustix",
    "safetensors",
    "serde",
    "serde_json",
    "thiserror",
];

/// The crates that frostbert-train may depend on: what computes, and nothing that knows texts or files.
const TRAIN_DEPENDENCIES: [&str; 8] =
    ["faer", "gemm", "libm", "multiversion", "ndarray", "rayon", "serde", "thiserror"];

/// The modules of frostbert-cache that every layer may use. The other modules are the cache itself, which is above
/// `encoder`.
const BELOW_THE_CACHE: [&str; 8] =
    ["states", "fingerprint", "durable", "fence", "mmap", "wording", "progress", "error"];

/// Layers that know nothing about texts, tokens, Parquet or ONNX.
const BLIND: [&str; 2] = ["head", "metrics"];

/// Foreign crates, and the only places in the root package that may name them.
const FOREIGN: [(&[&str], &[&str]); 15] = [
    (&["ort"], &["encoder/"]),
    // Everywhere else it is `crate::train`, which has its row among the layers.
    (&["frostbert_train"], &["lib.rs", "error.rs"]),
    (
        &["parquet", "arrow"],
        &[
            "report/tables",
            "report/predicted_table",
            "report/row_writer",
            "data/parquet_",
            "data/inspect",
            "extraction/embed",
            "prediction/prediction_file",
        ],
    ),
    (&["tokenizers"], &["encoder/tokenizer.rs"]),
    (
        &["ureq"],
        &["encoder/hub/client.rs", "encoder/hub/redirect.rs", "distributed/bucket/transport.rs"],
    ),
    (&["object_store", "futures_util", "async_trait"], &["distributed/bucket"]),
    (&["plotters"], &["report/chart.rs", "report/plots/"]),
    (&["minijinja"], &["page/render.rs", "report/"]),
    (&["sha1"], &["encoder/hub/sum.rs"]),
    (&["sha2"], &["encoder/source.rs"]),
    (&["object"], &["encoder/cuda_libraries.rs"]),
    (
        &["linfa", "linfa_logistic", "linfa_svm", "linfa_linear", "linfa_reduction", "linfa_bayes"],
        &["head/", "metrics/", "features/linfa.rs"],
    ),
    (
        &[
            "anstream",
            "anstyle",
            "anyhow",
            "clap",
            "clap_complete",
            "clap_mangen",
            "indicatif",
            "terminal_size",
        ],
        &["main.rs", "cli/"],
    ),
    (&["axum", "base64", "hyper_util"], &["cli/serve"]),
    (&["http_body_util", "hyper", "tokio"], &["cli/serve", "distributed/bucket"]),
];

const UNSAFE_FILES: [&str; 3] = [
    "crates/frostbert-cache/src/mmap.rs",
    "crates/frostbert-train/src/gemm.rs",
    "src/encoder/shared_session.rs",
];

const MOST_LINES: usize = 500;

/// A rule checks one file and returns its complaints.
type Rule = fn(&Source) -> Vec<String>;

fn layers(source: &Source) -> Vec<String> {
    if source.is_binary() || source.path == "lib.rs" {
        return Vec::new();
    }
    let row = |module: &str| {
        if source.is_of_root() {
            LAYERS.iter().position(|layer| *layer == module)
        } else {
            let layers =
                if source.root == ROOTS[1] { &CACHE_LAYERS[..] } else { &TRAIN_LAYERS[..] };
            layers.iter().position(|layer| layer.contains(&module))
        }
    };
    let Some(own) = row(source.module()) else {
        return vec![source.complain(1, "stands in no row of the layer list")];
    };
    let tokens = source.all_tokens();
    let mut complaints = Vec::new();
    for path in paths(&tokens) {
        let supers = path.segments.iter().take_while(|segment| **segment == "super").count();
        if supers >= source.depth().max(2) {
            complaints
                .push(source.complain(path.line, "reaches the root by `super`: write `crate::`"));
        }
        if row("encoder").is_some_and(|encoder| own >= encoder) && sees_cache(&path) {
            let problem = format!("must not import `{}`", path.segments.join("::"));
            complaints.push(source.complain(path.line, &problem));
        }
        let ["crate", module, ..] = path.segments[..] else {
            continue;
        };
        match row(module) {
            None => complaints
                .push(source.complain(path.line, &format!("`crate::{module}` stands in no row"))),
            Some(other) if other < own || other == own && module != source.module() => {
                complaints.push(
                    source.complain(path.line, &format!("must not import `crate::{module}`")),
                );
            }
            Some(_) => {}
        }
    }
    complaints
}

/// Returns whether a path leads into the cache itself, and not only to the modules below it.
fn sees_cache(path: &NamedPath<'_>) -> bool {
    let ["frostbert_cache", module, ..] = path.segments[..] else {
        return false;
    };
    CACHE_LAYERS.iter().flat_map(|layer| *layer).any(|known| *known == module)
        && !BELOW_THE_CACHE.contains(&module)
}

fn foreign_crates(source: &Source) -> Vec<String> {
    if !source.is_of_root() {
        return Vec::new();
    }
    let tokens = source.tokens();
    let named = paths(&tokens);
    // One of our modules may have the name of the crate that it wraps.
    let own = |path: &NamedPath<'_>| ["crate", "super", "self"].contains(&path.segments[0]);
    let imported = named.iter().filter(|path| own(path)).filter_map(|path| path.segments.last());
    let declared = tokens.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| &pair[1].text);
    let ours: HashSet<&str> = imported.chain(declared).copied().collect();
    let complaint = |path: &NamedPath<'_>| {
        let (_, places) = FOREIGN.iter().find(|(names, _)| {
            names.contains(&path.segments[0]) && !ours.contains(path.segments[0])
        })?;
        let allowed = places.iter().any(|place| source.stands_in(place));
        let problem =
            format!("names `{}`, which belongs to {}", path.segments[0], places.join(", "));
        (!allowed).then(|| source.complain(path.line, &problem))
    };
    named.iter().filter_map(complaint).collect()
}

fn blind_modules(source: &Source) -> Vec<String> {
    if !source.is_of_root() || !BLIND.contains(&source.module()) {
        return Vec::new();
    }
    let tokens = source.all_tokens();
    let seen = paths(&tokens).into_iter().filter(|path| {
        sees_cache(path) || matches!(path.segments[..], ["crate", "data" | "encoder", ..])
    });
    seen.map(|path| {
        source.complain(path.line, &format!("must never see `{}`", path.segments.join("::")))
    })
    .collect()
}

fn quiet_library(source: &Source) -> Vec<String> {
    if source.is_binary() {
        return Vec::new();
    }
    let tokens = source.tokens();
    let prints = tokens.windows(2).filter(|pair| {
        ["println", "eprintln", "print", "eprint", "dbg"].contains(&pair[0].text)
            && pair[1].text == "!"
    });
    let mut complaints: Vec<String> = prints
        .map(|pair| source.complain(pair[0].line, &format!("prints with `{}!`", pair[0].text)))
        .collect();
    for path in paths(&tokens) {
        let reaches_out = path.segments.windows(2).any(|pair| {
            matches!(
                pair,
                ["process", "exit" | "abort"]
                    | [
                        "env",
                        "var" | "var_os" | "vars" | "vars_os" | "args" | "args_os" | "current_exe"
                    ]
                    | ["io", "stdout" | "stderr" | "stdin"]
                    | ["std", "net"]
            )
        });
        if reaches_out {
            complaints
                .push(source.complain(path.line, &format!("uses `{}`", path.segments.join("::"))));
        }
    }
    complaints
}

fn places_of_unsafe(source: &Source) -> Vec<String> {
    if UNSAFE_FILES.contains(&source.place().as_str()) {
        return Vec::new();
    }
    let tokens = source.all_tokens();
    let found = tokens.iter().filter(|token| token.text == "unsafe");
    found.map(|token| source.complain(token.line, "`unsafe` stands in three files only")).collect()
}

fn length(source: &Source) -> Vec<String> {
    let n_lines = source.text.lines().count();
    if n_lines <= MOST_LINES {
        return Vec::new();
    }
    vec![source.complain(
        n_lines,
        &format!("has {n_lines} lines, of at most {MOST_LINES}: two ideas live here"),
    )]
}

fn no_unwrap(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let calls = tokens.windows(3).filter(|three| spell(three) == ".unwrap(");
    calls.map(|three| source.complain(three[1].line, "`unwrap()` outside tests")).collect()
}

fn no_allow(source: &Source) -> Vec<String> {
    let tokens = source.all_tokens();
    let attributes = tokens
        .windows(4)
        .filter(|four| spell(&four[..3]) == "#[allow" || spell(four) == "#![allow");
    attributes
        .map(|four| source.complain(four[0].line, "`allow`: write `expect`, with a reason"))
        .collect()
}

fn nothing_left_to_do(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| ["TODO", "FIXME", "XXX"].iter().any(|word| line.contains(word)))
        .map(|(number, line)| source.complain(number + 1, line.trim()))
        .collect()
}

fn spell(tokens: &[Token<'_>]) -> String {
    tokens.iter().map(|token| token.text).collect()
}

fn hold(rule: Rule) {
    hold_in_each_crate(|sources| sources.iter().flat_map(rule).collect());
}

fn hold_in_each_crate(rule: impl Fn(&[Source]) -> Vec<String>) {
    for root in ROOTS {
        let sources = Source::read_all(root);
        assert!(sources.len() > 15, "only {} files found in {root}", sources.len());
        let complaints = rule(&sources);
        assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    }
}

#[test]
fn a_file_imports_only_from_rows_below_its_own() {
    hold(layers);
}

#[test]
fn a_foreign_crate_is_named_only_where_it_belongs() {
    hold(foreign_crates);
}

#[test]
fn heads_and_metrics_never_see_texts_tokens_or_caches() {
    hold(blind_modules);
}

#[test]
fn the_library_never_prints_never_exits_and_never_reads_the_environment() {
    hold(quiet_library);
}

#[test]
fn unsafe_code_stands_in_three_files() {
    hold(places_of_unsafe);
}

#[test]
fn no_files_of_a_folder_import_each_other_in_a_circle() {
    hold_in_each_crate(structure::circles);
}

#[test]
fn no_type_name_is_defined_twice_in_a_crate() {
    hold_in_each_crate(structure::doubled_types);
}

#[test]
fn a_task_is_decided_in_few_files() {
    let complaints = decisions::arms_on_tasks(&Source::read_all(ROOTS[0]));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn no_file_holds_two_ideas() {
    hold(length);
}

#[test]
fn nothing_outside_tests_is_unwrapped() {
    hold(no_unwrap);
}

#[test]
fn lints_are_expected_and_never_allowed() {
    hold(no_allow);
}

#[test]
fn no_note_to_oneself_is_left_in_the_source() {
    hold(nothing_left_to_do);
}

#[test]
fn every_module_of_the_library_stands_in_one_row() {
    let of_cache: Vec<&str> = CACHE_LAYERS.iter().flat_map(|layer| *layer).copied().collect();
    let of_train: Vec<&str> = TRAIN_LAYERS.iter().flat_map(|layer| *layer).copied().collect();
    for (root, rows) in ROOTS.iter().zip([&LAYERS[..], &of_cache, &of_train]) {
        let lib = std::fs::read_to_string(repository().join(root).join("lib.rs")).unwrap();
        let tokens = source::tokens(&lib);
        let declared =
            tokens.windows(3).filter(|three| three[0].text == "mod" && three[2].text == ";");
        for module in declared {
            let name = module[1].text;
            assert!(rows.contains(&name), "`{name}` of {root}/lib.rs stands in no row");
        }
    }
}

#[test]
fn the_crates_of_the_cache_and_of_training_bring_no_runtime_tokenizer_terminal_or_client() {
    for (own, allowed) in
        [("frostbert-cache", &CACHE_DEPENDENCIES[..]), ("frostbert-train", &TRAIN_DEPENDENCIES[..])]
    {
        let manifest = repository().join("crates").join(own).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
        let named = manifest["dependencies"].as_table().unwrap().keys();
        let others: Vec<&String> = named.filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(others.is_empty(), "{own} depends on {others:?}");
    }
}

#[test]
fn the_library_alone_compiles_no_terminal_and_no_client() {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    for (feature, names) in [
        ("cli", &["anyhow", "clap", "indicatif"][..]),
        ("hub", &["sha1", "ureq"]),
        ("serve", &["axum", "base64", "http-body-util", "hyper", "hyper-util", "tokio"]),
    ] {
        for name in names {
            let brought = toml::Value::from(format!("dep:{name}"));
            assert!(manifest["features"][feature].as_array().unwrap().contains(&brought), "{name}");
            let is_optional = &manifest["dependencies"][*name]["optional"];
            assert_eq!(is_optional.as_bool(), Some(true), "{name}");
        }
    }
}

/// Tests each rule with files that break it and files that do not.
#[test]
fn every_rule_finds_what_it_forbids_and_nothing_else() {
    let long = "//\n".repeat(MOST_LINES + 1);
    let cases: [(Rule, &str, &str, usize); 49] = [
        (layers, "data/read.rs", "use crate::encoder::Encoder;", 1),
        (layers, "data/read.rs", "use crate::{error::Error, head::{a, b}, data::X};", 2),
        (layers, "data/read.rs", "fn f() { crate::experiment::run(); }", 1),
        (layers, "data/read.rs", "use super::super::head;", 1),
        (layers, "data/read.rs", "use crate::data::Source; use crate::error::Error;", 0),
        (layers, "data/read.rs", "// use crate::experiment;\nlet a = \"crate::head::x\";", 0),
        (layers, "data/deep/read.rs", "use super::super::Source;", 0),
        (layers, "encoder.rs", "use frostbert_cache::{manifest, states::StateId};", 1),
        (layers, "data/read.rs", "fn f() { frostbert_cache::reader::open() }", 1),
        (layers, "data/read.rs", "use frostbert_cache::{Error, durable, wording::counted};", 0),
        (layers, "features.rs", "use frostbert_cache::reader::CacheReader;", 0),
        (layers, "crates/frostbert-cache/src/reader.rs", "use crate::export::CacheOrder;", 1),
        (layers, "crates/frostbert-cache/src/reader.rs", "use crate::{index, states::StateId};", 0),
        (layers, "crates/frostbert-cache/src/states.rs", "use crate::{reader, data};", 2),
        (layers, "crates/frostbert-cache/src/export/npy.rs", "use super::super::shard;", 1),
        (layers, "crates/frostbert-train/src/real.rs", "use crate::{exp, panel};", 1),
        (
            layers,
            "crates/frostbert-train/src/gemm.rs",
            "use crate::{error::Error, loss::Loss, real::Real};",
            1,
        ),
        (places_of_unsafe, "crates/frostbert-train/src/gemm.rs", "unsafe { g() }", 0),
        (layers, "error.rs", "use crate::nowhere::X;", 1),
        (layers, "nowhere.rs", "", 1),
        (foreign_crates, "experiment.rs", "use ort::session::Session;", 1),
        (foreign_crates, "metrics/counts.rs", "use frostbert_train::vector::dot;", 1),
        (foreign_crates, "experiment.rs", "use {serde::Serialize, arrow::array::Array};", 1),
        (foreign_crates, "encoder.rs", "let t = tokenizers::Tokenizer::new();", 1),
        (foreign_crates, "encoder/graph.rs", "use ort::editor::{Graph, Model};", 0),
        (foreign_crates, "features/scaler.rs", "use linfa::Dataset;", 1),
        (
            foreign_crates,
            "training/train.rs",
            "use crate::head::{bank, linfa_logistic}; fn f() { linfa_logistic::fit() }",
            0,
        ),
        (foreign_crates, "features.rs", "pub mod linfa; use self::linfa::dataset;", 0),
        (foreign_crates, "data.rs", "use anyhow::Result;", 1),
        (
            foreign_crates,
            "data.rs",
            "/// `ort::Session`\n#[cfg(test)] mod tests { use ort::x; }",
            0,
        ),
        (blind_modules, "head/spec.rs", "use crate::{error::Result, data::LabelMap};", 1),
        (
            blind_modules,
            "head/bank.rs",
            "use crate::features; use frostbert_cache::{durable, states};",
            0,
        ),
        (blind_modules, "head/bank.rs", "use frostbert_cache::{reader, states::StateId};", 1),
        (quiet_library, "data/read.rs", "fn f() { println!(\"x\"); std::process::exit(1) }", 2),
        (quiet_library, "data/read.rs", "use std::{env, fs}; fn f() { env::var(\"X\"); }", 1),
        (quiet_library, "data/read.rs", "use std::env::var_os;", 1),
        (
            quiet_library,
            "data/read.rs",
            "env!(\"X\"); std::env::consts::ARCH; writeln!(f, \"println!\");",
            0,
        ),
        (quiet_library, "data/read.rs", "#[cfg(test)]\nmod tests { fn f() { eprintln!(); } }", 0),
        (quiet_library, "data/tests.rs", "fn f() { eprintln!(); }", 0),
        (quiet_library, "data/read.rs", "use std::net::TcpStream;", 1),
        (foreign_crates, "encoder/hub/listing.rs", "use ureq::Agent;", 1),
        (places_of_unsafe, "features/load.rs", "fn f<'a>(x: &'a u8) { unsafe { g() } }", 1),
        (places_of_unsafe, "crates/frostbert-cache/src/mmap.rs", "unsafe { g() }", 0),
        (places_of_unsafe, "mmap.rs", "unsafe { g() }", 1),
        (length, "data/read.rs", &long, 1),
        (no_unwrap, "data/read.rs", "a.unwrap(); b.unwrap_or(1); c\n    .unwrap();", 2),
        (
            no_unwrap,
            "data/read.rs",
            "/// a.unwrap()\n#[cfg(test)] use x;\nfn f() { a.unwrap() }",
            1,
        ),
        (
            no_allow,
            "data/read.rs",
            "#![allow(dead_code)]\n#[expect(dead_code)]\n#[allow(unused)]",
            2,
        ),
        (nothing_left_to_do, "data/read.rs", "// TODO\nlet todo = 1; // FIXME: later", 2),
    ];
    for (rule, path, text, n_complaints) in cases {
        let crates = ROOTS[1..]
            .iter()
            .find_map(|root| Some((*root, path.strip_prefix(*root)?.strip_prefix('/')?)));
        let (root, path) = crates.unwrap_or((ROOTS[0], path));
        let source = Source { root, path: path.into(), text: text.into() };
        let complaints = rule(&source);
        assert_eq!(complaints.len(), n_complaints, "{path} with `{text}`: {complaints:?}");
    }
}

#[test]
fn strings_characters_and_comments_hide_nothing_and_are_not_taken_for_code() {
    let text = r##"let a = 'x'; let b = '\''; /* /* x */ y */ let c = r#"un"safe"#; f::<'static>("\"", b'a');"##;
    let words: Vec<&str> = source::tokens(text).iter().map(|token| token.text).collect();
    let expected = "let a = ; let b = ; let c = ; f :: < > ( , b ) ;";
    assert_eq!(words.join(" "), expected);
}
