//! The cache compared with plain files: the cost of Parquet, checksums and commits when token states are written and
//! read.
//!
//! ```text
//! cargo bench --bench cache -- [SHARDS] [ROUNDS]
//! ```
//!
//! A shard is 131,072 tokens of 384 f16 values, 100 MB. `commit` writes a full shard through the cache's writer
//! (encode, checksum, sync, rename, manifest), and `side by side` does so with four shards being written at a time, as
//! in an extraction; `plain` writes the same bytes to one file and syncs it. `tiles` iterates over all rows of the
//! committed shards as slices, from the page cache, on one thread; `decoded` also converts each row to f32; `open` maps
//! the files and verifies their checksums, which a process does once. Each is run ROUNDS times, in turn, and the best
//! of each is reported.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::{fs::File, hint::black_box, io::Write, path::Path, time::Instant};

use frostbert::cache::{
    fingerprint::{FORMAT_VERSION, FingerprintInputs, Key, Mode, hash_bytes},
    manifest::{Origin, Parity},
    plan::PlannedShard,
    reader::CacheReader,
    shard::{OpenShard, ShardLayout, WindowPlace},
    states::{Alignment, BatchStates, Dtype, StateId, StateKind, StateValues},
    writer::{CacheShape, CacheWriter},
};

const HIDDEN: usize = 384;
const TOKENS: usize = 131_072;
const TOKENS_OF_A_TEXT: usize = 32;
const STATE: StateId = StateId { kind: StateKind::Tokens, layer: 6 };

fn main() {
    let arguments: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let number = |place: usize, default| arguments.get(place).copied().unwrap_or(default);
    let (n_shards, rounds) = (number(0, 4), number(1, 5));
    let mut noise = 1u64;
    let bytes: Vec<u8> = (0..TOKENS * HIDDEN)
        .flat_map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // f16 values between -2 and 2.
            ((noise >> 48) as u16 & 0xbfff).to_le_bytes()
        })
        .collect();
    let gigabytes = (bytes.len() * n_shards) as f64 / 1e9;
    println!("{n_shards} shards of {TOKENS} tokens x {HIDDEN} f16: {gigabytes:.3} GB of states");

    let mut best = [f64::INFINITY; 6];
    for round in 1..=rounds {
        let folder = tempfile::tempdir_in("target").expect("target takes a folder");
        let plain = seconds(|| write_plain(folder.path(), &bytes, n_shards));
        let (commit, cache) = write_cache(&folder.path().join("one"), &bytes, n_shards, 1);
        let (many, _) = write_cache(&folder.path().join("many"), &bytes, n_shards, 4);
        let (open, tiles, decoded) = read_cache(&cache, n_shards);
        println!(
            "round {round}: plain {:.2} GB/s, commit {:.2} GB/s, side by side {:.2} GB/s, open {:.2} GB/s, tiles {:.2} GB/s, decoded {:.2} GB/s",
            gigabytes / plain,
            gigabytes / commit,
            gigabytes / many,
            gigabytes / open,
            gigabytes / tiles,
            gigabytes / decoded
        );
        for (best, seconds) in best.iter_mut().zip([plain, commit, many, open, tiles, decoded]) {
            *best = best.min(seconds);
        }
    }
    let [plain, commit, many, open, tiles, decoded] = best.map(|seconds| gigabytes / seconds);
    println!("plain write and sync    {plain:.2} GB/s");
    println!("commit                  {commit:.2} GB/s, {:.2} of plain", commit / plain);
    println!("commit, side by side    {many:.2} GB/s, {:.2} of plain", many / plain);
    println!("open, checksum          {open:.2} GB/s of stored bytes, all threads");
    println!("tiles, not decoded      {tiles:.2} GB/s of stored bytes, one thread");
    println!("tiles, decoded to f32   {decoded:.2} GB/s of stored bytes, one thread");
}

fn write_plain(folder: &Path, bytes: &[u8], n_shards: usize) {
    for shard in 0..n_shards {
        let mut file = File::create(folder.join(format!("plain-{shard}"))).expect("a new file");
        for chunk in bytes.chunks(1 << 20) {
            file.write_all(chunk).expect("space on the disk");
        }
        file.sync_all().expect("a sync");
    }
}

/// Returns the seconds of all commits with this many shards being written at a time, and the cache folder.
fn write_cache(
    folder: &Path,
    bytes: &[u8],
    n_shards: usize,
    at_once: usize,
) -> (f64, std::path::PathBuf) {
    let shape = CacheShape { model_layers: 6, hidden: HIDDEN, dtype: Dtype::F16 };
    let mut writer = CacheWriter::open(folder, &inputs(), shape, &()).expect("a new cache");
    let mut total = 0.0;
    let numbers: Vec<usize> = (0..n_shards).collect();
    for numbers in numbers.chunks(at_once) {
        let shards: Vec<_> = numbers
            .iter()
            .map(|number| (writer.place(&planned(*number)), filled(bytes, *number)))
            .collect();
        total += seconds(|| {
            let written: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = shards
                    .into_iter()
                    .map(|(place, shard)| scope.spawn(|| place.write(shard, origin())))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().expect("a thread that writes"))
                    .collect()
            });
            for written in written {
                writer.commit(written.expect("space on the disk")).expect("a commit");
            }
        });
    }
    (total, writer.folder().to_path_buf())
}

fn planned(number: usize) -> PlannedShard {
    PlannedShard {
        name: format!("shard-{number:06}"),
        added: false,
        states: vec![STATE],
        documents: TOKENS / TOKENS_OF_A_TEXT,
        tokens: TOKENS as u64,
        keys: hash_bytes(b""),
    }
}

fn origin() -> Origin {
    Origin {
        states: vec![STATE],
        device: "cpu".into(),
        placement: None,
        onnxruntime: "none".into(),
        batch_tokens: 512,
        parity: Parity::default(),
    }
}

fn filled(bytes: &[u8], number: usize) -> OpenShard {
    let mut layout = ShardLayout::default();
    let alignment = Alignment {
        token_ids: (0..TOKENS_OF_A_TEXT as u32).map(|token| token * 37).collect(),
        words: (0..TOKENS_OF_A_TEXT as i32).collect(),
        char_starts: (0..TOKENS_OF_A_TEXT as u32).map(|token| token * 5).collect(),
        char_ends: (0..TOKENS_OF_A_TEXT as u32).map(|token| token * 5 + 4).collect(),
        sequences: vec![0; TOKENS_OF_A_TEXT],
    };
    for text in 0..TOKENS / TOKENS_OF_A_TEXT {
        let key = Key::of(Mode::Text, &[format!("{number} {text}")]);
        let length = [TOKENS_OF_A_TEXT as u32];
        layout.push(key, false, &length, std::iter::once(&alignment), &[]);
    }
    let mut shard = OpenShard::new(layout, &[STATE], HIDDEN, Dtype::F16);
    let windows: Vec<WindowPlace> =
        (0..(TOKENS / TOKENS_OF_A_TEXT) as u32).map(|text| (text, 0)).collect();
    let states = BatchStates { state: STATE, values: StateValues::Rows(bytes.to_vec()) };
    shard.place(&windows, &[states]);
    shard
}

/// Returns the seconds to open, to iterate, and to iterate and decode.
fn read_cache(cache: &Path, n_shards: usize) -> (f64, f64, f64) {
    let reader = CacheReader::open(cache).expect("a whole cache").expect("a cache");
    let mut files = Vec::new();
    let open = seconds(|| {
        files.extend(
            (0..n_shards as u32).map(|shard| reader.open_state(shard, STATE).expect("whole")),
        );
    });
    // The sum, of one word for every eight bytes, prevents the compiler from removing the reads.
    let tiles = seconds(|| {
        let mut sum = 0u64;
        for tile in files.iter().flat_map(|file| file.rows(0..file.n_rows())) {
            for eight in tile.chunks_exact(8) {
                sum = sum.wrapping_add(u64::from_le_bytes(eight.try_into().expect("eight bytes")));
            }
        }
        black_box(sum);
    });
    let mut values = vec![0.0f32; 64 * HIDDEN];
    let decoded = seconds(|| {
        for tile in files.iter().flat_map(|file| file.rows(0..file.n_rows())) {
            for rows in tile.chunks(64 * HIDDEN * 2) {
                let values = &mut values[..rows.len() / 2];
                Dtype::F16.decode(rows, values);
                black_box(values);
            }
        }
    });
    (open, tiles, decoded)
}

fn inputs() -> FingerprintInputs {
    FingerprintInputs {
        weights: hash_bytes(b""),
        config: hash_bytes(b""),
        tokenizer: hash_bytes(b""),
        graph: "none".into(),
        provider: "cpu".into(),
        precision: "f32".into(),
        dtype: "f16".into(),
        max_length: 128,
        overflow: "truncate".into(),
        stride: None,
        include_prompt: None,
        format_version: FORMAT_VERSION,
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
