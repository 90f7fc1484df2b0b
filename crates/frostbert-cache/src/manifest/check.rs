//! Validates a manifest before anything is read by it; names, counts and sizes are checked here only.

use std::collections::BTreeSet;

use super::{Manifest, ShardEntry, shard_number};
use crate::{
    fingerprint::{self, Digest},
    names,
    states::{StateId, StateKind},
};

/// The expected content of a manifest, and the actual one.
pub(super) struct ManifestProblem {
    pub(super) expected: String,
    pub(super) got: String,
}

type Checked<T = ()> = Result<T, ManifestProblem>;

fn require(holds: bool, expected: impl Into<String>, got: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { Err(ManifestProblem { expected: expected.into(), got: got.into() }) }
}

/// The text before the checksum, which covers all bytes before this text.
pub(super) const BEFORE_CHECKSUM: &str = ",\n  \"checksum\": \"";

/// The text after the checksum.
pub(super) const AFTER_CHECKSUM: &str = "\"\n}";

/// Checks that a manifest's text is unchanged since it was written.
pub(super) fn checksum(text: &str) -> Checked {
    let sealed = text
        .trim_end_matches('\n')
        .strip_suffix(AFTER_CHECKSUM)
        .and_then(|text| text.rsplit_once(BEFORE_CHECKSUM));
    let Some((body, checksum)) = sealed else {
        let got = "none: the manifest was written by an earlier version, or was edited";
        return require(false, "a checksum as the manifest's last key", got);
    };
    let expected = fingerprint::hash_bytes(body.as_bytes());
    require(
        checksum.parse::<Digest>() == Ok(expected),
        format!("the checksum {}", expected.short()),
        checksum.get(..16).unwrap_or(checksum),
    )
}

/// Checks everything that can be checked without the shards' files.
pub(super) fn check(manifest: &Manifest) -> Checked {
    fingerprint(manifest)?;
    require(
        manifest.dtype.name() == manifest.inputs.dtype,
        format!("states of {}, as its inputs say", manifest.inputs.dtype),
        manifest.dtype.name(),
    )?;
    require(
        (1..=MOST_VALUES).contains(&manifest.hidden),
        format!("states of 1 to {MOST_VALUES} values"),
        manifest.hidden.to_string(),
    )?;
    require(
        manifest.model_layers <= MOST_LAYERS,
        format!("a model of at most {MOST_LAYERS} layers"),
        manifest.model_layers.to_string(),
    )?;
    let mut names = BTreeSet::new();
    for entry in &manifest.shards {
        shard(entry)?;
        require(names.insert(&entry.name), "each shard once", format!("{} twice", entry.name))?;
        let beyond = entry.states().find(|state| state.layer > manifest.model_layers);
        let got = beyond.map(|state| format!("{state} in {}", entry.name));
        require(
            beyond.is_none(),
            format!("states of the {} layers of the model", manifest.model_layers),
            got.unwrap_or_default(),
        )?;
    }
    counts(manifest)
}

/// The maximum width of a state.
const MOST_VALUES: usize = 1 << 20;

/// The maximum number of layers of a model.
pub(super) const MOST_LAYERS: usize = 1 << 16;

/// Checks that the fingerprint matches the inputs.
pub(super) fn fingerprint(manifest: &Manifest) -> Checked {
    let got = manifest.inputs.fingerprint();
    let expected = format!("inputs that make the fingerprint {}", manifest.fingerprint);
    require(got == manifest.fingerprint, expected, got)
}

/// Checks the names, states and sizes of one shard.
pub(super) fn shard(entry: &ShardEntry) -> Checked {
    let name = &entry.name;
    require(
        shard_number(name).is_some(),
        "a shard's name, such as shard-000000",
        format!("{name:?}"),
    )?;
    let mut states = BTreeSet::new();
    for state in entry.states() {
        let got = format!("{state} twice in {name}");
        require(states.insert(state), "each state once in a shard", got)?;
    }
    let mut expected = BTreeSet::from([names::DOCUMENTS_FILE.to_string()]);
    expected.extend(states.iter().copied().map(names::state_file_name));
    let holds = |kind: StateKind| states.iter().any(|state: &StateId| state.kind == kind);
    for (kind, table) in
        [(StateKind::Tokens, names::TOKENS_FILE), (StateKind::Words, names::WORDS_FILE)]
    {
        expected.extend(holds(kind).then(|| table.to_string()));
    }
    let got: BTreeSet<&String> = entry.files.iter().map(|file| &file.name).collect();
    require(
        got.len() == entry.files.len() && got.iter().copied().eq(&expected),
        format!("{name} to hold the files of its states, each once"),
        format!("{:?}", entry.files.iter().map(|file| &file.name).collect::<Vec<_>>()),
    )?;
    let fits = entry.documents <= MOST_DOCUMENTS
        && entry.windows <= u64::from(u32::MAX)
        && entry.tokens <= u64::from(u32::MAX)
        && entry.documents <= entry.windows
        && entry.files.iter().all(|file| file.bytes <= MOST_BYTES);
    require(
        fits,
        format!("documents, windows, tokens and bytes that {name} can hold"),
        format!(
            "{} documents, {} windows, {} tokens, {} bytes in its largest file",
            entry.documents,
            entry.windows,
            entry.tokens,
            entry.files.iter().map(|file| file.bytes).max().unwrap_or(0)
        ),
    )
}

/// The maximum number of documents in a shard, because row numbers have 31 bits.
const MOST_DOCUMENTS: u64 = (1 << 31) - 1;

/// The maximum size of a file in bytes; the sum over a shard's files fits into 64 bits.
const MOST_BYTES: u64 = 1 << 40;

/// Checks the cache's counts against those of its shards, considering that a document may be in several shards.
fn counts(manifest: &Manifest) -> Checked {
    for (what, count, of_shards) in [
        (
            "documents",
            manifest.documents,
            manifest.shards.iter().map(|entry| entry.documents).collect::<Vec<u64>>(),
        ),
        ("tokens", manifest.tokens, manifest.shards.iter().map(|entry| entry.tokens).collect()),
    ] {
        let least = of_shards.iter().copied().max().unwrap_or(0);
        // There are fewer than 2^31 shards, and each count is below 2^32, so no sum overflows.
        let most = of_shards.iter().sum::<u64>();
        require(
            (least..=most).contains(&count),
            format!("{least} to {most} {what}, as in its shards"),
            count.to_string(),
        )?;
    }
    require(
        manifest.truncated <= manifest.documents,
        format!("at most {} truncated documents", manifest.documents),
        manifest.truncated.to_string(),
    )
}
