//! Extractions of every kind of state that are killed at random moments and resumed, into new caches and existing ones.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{
    RICH_PIPELINE, Workshop, assert_same_files, contents, copy_folder, csv_with_repeats, read_json,
};

/// An existing cache, and the extraction that extends it.
struct Growth {
    seed: u64,
    n_kills: usize,
    /// For the extraction that comes first, the number of texts, and the keys of `[cache]` that replace storing all
    /// states; `None` for a new cache.
    before: Option<(usize, &'static str)>,
    /// The same for the extraction that is killed.
    after: (usize, &'static str),
}

/// The maximum number of kills, as a multiple of the requested number.
const MOST_TRIES: usize = 6;

const ALL: &str = r#"layers = [1, -1]
store = ["cls", "mean", "words", "tokens"]"#;

fn write(workshop: &Workshop, (n_texts, states): (usize, &str)) {
    assert!(RICH_PIPELINE.contains(ALL));
    workshop.write("train.csv", csv_with_repeats(n_texts));
    workshop.write_pipeline(&RICH_PIPELINE.replace(ALL, states));
}

/// Returns the number of commits in a manifest, each of which adds an origin.
fn n_commits(cache: &Path) -> usize {
    let manifest = fs::read_to_string(cache.join("manifest.json")).unwrap_or_default();
    manifest.matches("\"parity\"").count()
}

/// Returns the number of documents in shards that have at least this many states.
fn n_complete(cache: &Path, states: usize) -> u64 {
    if !cache.join("manifest.json").is_file() {
        return 0;
    }
    let manifest = read_json(&cache.join("manifest.json"));
    let shards = manifest["shards"].as_array().unwrap().iter();
    let complete = shards.filter(|shard| {
        let origins = shard["origins"].as_array().unwrap().iter();
        let held: usize = origins.map(|origin| origin["states"].as_array().unwrap().len()).sum();
        held >= states
    });
    complete.map(|shard| shard["documents"].as_u64().unwrap()).sum()
}

fn extract(threads: &str) -> [&str; 4] {
    ["extract", "pipeline.toml", "--threads", threads]
}

/// Kills an extraction `delay` after its commit of this number. Returns whether it was killed before its end.
fn kill(workshop: &Workshop, cache: &Path, threads: &str, commit: usize, delay: Duration) -> bool {
    let mut command = workshop.command(&extract(threads));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    while n_commits(cache) < commit && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "commit {commit} never came");
        std::thread::sleep(Duration::from_micros(300));
    }
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(9)
}

impl Growth {
    /// Kills and resumes at random moments of this seed, and asserts that every cache has the same bytes in the end as
    /// one that was never killed.
    fn survive(&self) {
        let uninterrupted = Workshop::empty();
        if let Some(before) = self.before {
            write(&uninterrupted, before);
            uninterrupted.succeed(&extract("2"));
        }
        let base = Workshop::empty();
        fs::create_dir_all(uninterrupted.path("cache")).unwrap();
        copy_folder(&uninterrupted.path("cache"), &base.path("cache"));
        let n_before = self.before.map_or(0, |_| n_commits(&base.cache()));
        let n_states = self.n_states();
        write(&uninterrupted, self.after);
        let start = Instant::now();
        let whole = uninterrupted.json(&extract("1"));
        let seconds = start.elapsed().as_secs_f64();
        let expected = contents(&uninterrupted.cache());
        let n_after = n_commits(&uninterrupted.cache());
        let n_new = n_after - n_before;
        assert!(n_new >= 8, "{n_new} commits are too few to be killed between");

        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut n_halfway = 0;
        let mut number = 0;
        // On a busy machine, kills come late. Further kills, ever closer to a commit, make up for that.
        while number < self.n_kills
            || (2 * n_halfway < self.n_kills && number < MOST_TRIES * self.n_kills)
        {
            let is_extra = number >= self.n_kills;
            let most_delay = if is_extra { 0.0 } else { seconds / n_new as f64 };
            let commits = if is_extra { 1..n_new / 2 } else { 0..n_new };
            let (commit, delay) = (
                random.gen_range(commits),
                Duration::from_secs_f64(random.gen_range(0.0..=most_delay)),
            );
            let moment =
                format!("seed {} kill {number}: {delay:?} after commit {commit}", self.seed);
            let workshop = Workshop::empty();
            copy_folder(&base.path("cache"), &workshop.path("cache"));
            write(&workshop, self.after);
            let cache = workshop.path("cache").join(whole["fingerprint"].as_str().unwrap());
            let [first, second] = [["1", "2"], ["2", "1"], ["1", "1"]][number % 3];
            let killed = kill(&workshop, &cache, first, n_before + commit, delay);
            let left = n_commits(&cache);
            n_halfway += usize::from(killed && (n_before + 1..n_after).contains(&left));

            let n_complete = n_complete(&cache, n_states);
            let report = workshop.json(&extract(second));
            let unique = self.after.0 as u64;
            assert_eq!(report["reused"], n_complete, "{moment}: {report}");
            assert_eq!(report["computed"], unique - n_complete, "{moment}: {report}");
            assert_same(&expected, &contents(&cache), &moment);
            number += 1;
        }
        assert!(
            2 * n_halfway >= self.n_kills,
            "seed {}: only {n_halfway} of {number} kills fell between the first commit and the last",
            self.seed,
        );
    }

    /// Returns the number of states in a complete shard, not counting those that its documents have in other shards.
    fn n_states(&self) -> usize {
        let n_states = |states: &str| {
            let table: toml::Table = states.parse().unwrap();
            let length = |key: &str| table[key].as_array().unwrap().len();
            length("layers") * length("store")
        };
        let elsewhere = self.before.filter(|before| before.0 > self.after.0);
        n_states(self.after.1) - elsewhere.map_or(0, |before| n_states(before.1))
    }
}

/// Does the same as [`assert_same_files`], and names the moment of the kill.
fn assert_same(
    expected: &BTreeMap<String, Vec<u8>>,
    got: &BTreeMap<String, Vec<u8>>,
    moment: &str,
) {
    if expected != got {
        crate::support::say(moment);
    }
    assert_same_files(expected, got);
}

#[test]
fn a_new_cache_of_every_kind_of_state_survives_kills_at_random_moments() {
    Growth { seed: 1, n_kills: 20, before: None, after: (240, ALL) }.survive();
}

#[test]
fn a_layer_and_a_pooling_that_are_added_survive_kills_at_random_moments() {
    Growth {
        seed: 2,
        n_kills: 10,
        before: Some((240, "layers = [-1]\nstore = [\"mean\", \"words\"]")),
        after: (240, "layers = [1, -1]\nstore = [\"cls\", \"mean\", \"words\"]"),
    }
    .survive();
}

#[test]
fn texts_that_are_added_survive_kills_at_random_moments() {
    Growth { seed: 3, n_kills: 10, before: Some((100, ALL)), after: (300, ALL) }.survive();
}

#[test]
fn tokens_that_are_added_to_a_cache_of_means_survive_kills_at_random_moments() {
    Growth {
        seed: 4,
        n_kills: 10,
        before: Some((240, "layers = [-1]\nstore = [\"mean\"]")),
        after: (240, "layers = [-1]\nstore = [\"mean\", \"tokens\"]"),
    }
    .survive();
}

#[test]
fn states_and_texts_that_are_added_together_survive_kills_at_random_moments() {
    Growth {
        seed: 5,
        n_kills: 6,
        before: Some((160, "layers = [-1]\nstore = [\"mean\"]")),
        after: (260, "layers = [1, -1]\nstore = [\"mean\", \"tokens\", \"words\"]"),
    }
    .survive();
}

#[test]
fn states_that_are_added_for_some_texts_alone_survive_kills_at_random_moments() {
    // Hardly any shard is requested completely, so the new states are written to new shards.
    Growth {
        seed: 6,
        n_kills: 6,
        before: Some((300, "layers = [-1]\nstore = [\"mean\"]")),
        after: (240, "layers = [-1]\nstore = [\"mean\", \"words\", \"tokens\"]"),
    }
    .survive();
}
