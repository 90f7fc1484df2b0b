//! Whether the figures of a sweep's winner hold: synthetic sweeps whose truth is known, and the time that the draws
//! take.
//!
//!     cargo bench --bench selection [-- SWEEPS]
//!
//! Heads are right on a row with a probability of their own, drawn around a mean; three of five decide by a number that
//! the row shares with all heads, so that heads agree. The best of them on n rows wins. For each case of SWEEPS sweeps
//! (500): how far the raw and the corrected score are from what the winner is worth on endless rows, on average, in
//! points; how often either 95 % interval holds that, and how wide it is; how often it holds the score of a new test
//! set of n / 2 rows, and how wide the interval for such a set is. Heads that are really trained, with epochs and
//! folds: scripts/simulate-selection.py.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::{collections::HashMap, sync::Arc, time::Instant};

use frostbert::internals::{
    metrics::{
        intervals::{Bootstrap, RowClusters, resample},
        metric::Metric,
        row_statistics::RowStatistics,
    },
    selection::bias_corrected::{RepeatedChoice, chosen},
};
use rand::{Rng, SeedableRng, distributions::WeightedIndex, prelude::Distribution};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

/// As in a sweep.
const DRAWS: usize = 200;

/// Share of the rows on which a head decides by what the row shares.
const SHARED: f64 = 0.6;

/// What heads are like, and what they are measured by.
struct World {
    metric: Metric,
    n_classes: usize,
    mean: f64,
    deviation: f64,
}

/// The rows of a split: their classes, and the number that each shares with all heads.
struct Rows {
    classes: Arc<Vec<u32>>,
    shared: Vec<f64>,
}

/// An interval, and whether it holds what it is for.
#[derive(Default)]
struct Tally {
    held: usize,
    width: f64,
}

/// Sums over sweeps.
#[derive(Default)]
struct Sums {
    raw: f64,
    corrected: f64,
    /// Raw and corrected intervals for the truth, then for a new test.
    tallies: [Tally; 4],
}

fn main() {
    let n_sweeps = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(500);
    let world = |metric, n_classes, mean, deviation| World { metric, n_classes, mean, deviation };
    let worlds = [
        world(Metric::Accuracy, 2, 0.8, 0.0),
        world(Metric::Accuracy, 2, 0.8, 0.02),
        world(Metric::Accuracy, 2, 0.95, 0.01),
        world(Metric::MacroF1, 10, 0.8, 0.02),
    ];
    println!(
        "| metric, skill | rows | heads | raw - truth | held | width | corrected - truth | held | width | \
         new test: raw held | held | width |\n|{}",
        "---|".repeat(12)
    );
    for world in &worlds {
        for n_rows in [200, 500, 2_000] {
            for n_heads in [1, 20, 100, 500] {
                show(world, n_rows, n_heads, n_sweeps);
            }
        }
    }
    time(&worlds[3], 10_000, 500);
}

fn show(world: &World, n_rows: usize, n_heads: usize, n_sweeps: usize) {
    let sweeps = (0..n_sweeps as u64).into_par_iter();
    let sweeps: Vec<_> = sweeps.map(|seed| sweep(world, n_rows, n_heads, seed)).collect();
    let mut sums = Sums::default();
    for (scores, intervals) in &sweeps {
        sums.raw += scores[0];
        sums.corrected += scores[1];
        for (tally, (low, value, high)) in sums.tallies.iter_mut().zip(intervals) {
            tally.held += usize::from(low - 1e-9 <= *value && *value <= high + 1e-9);
            tally.width += high - low;
        }
    }
    let points = |sum: f64| 100.0 * sum / n_sweeps as f64;
    let [raw, corrected, raw_test, test] =
        sums.tallies.map(|tally| (points(tally.held as f64), points(tally.width)));
    println!(
        "| {} {} ± {} | {n_rows} | {n_heads} | {:+.2} | {:.1} % | {:.1} | {:+.2} | {:.1} % | {:.1} | {:.1} % | \
         {:.1} % | {:.1} |",
        world.metric.in_words(),
        world.mean,
        world.deviation,
        points(sums.raw),
        raw.0,
        raw.1,
        points(sums.corrected),
        corrected.0,
        corrected.1,
        raw_test.0,
        test.0,
        test.1,
    );
}

/// The differences of the raw and the corrected score from the truth, and the intervals with what each is to hold.
fn sweep(
    world: &World,
    n_rows: usize,
    n_heads: usize,
    seed: u64,
) -> ([f64; 2], [(f64, f64, f64); 4]) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let rows = world.rows(n_rows, &mut random);
    let skills: Vec<f64> = (0..n_heads).map(|_| world.skill(&mut random)).collect();
    let heads: Vec<RowStatistics> =
        skills.iter().map(|skill| world.head(&rows, *skill, &mut random)).collect();
    let (metric, bootstrap) = (world.metric, Bootstrap { resamples: DRAWS, seed });
    let all: Vec<Option<f64>> = heads.iter().map(|head| head.score(metric, None)).collect();
    let eligible: Vec<usize> = (0..n_heads).collect();
    let winner = chosen(std::slice::from_ref(&all), &eligible, metric)[0].expect("a score");
    let draws = drawn(&heads, metric, bootstrap);
    let raw = percentiles(draws.iter().filter_map(|draw| draw[winner]).collect());
    let chosen = chosen(&draws, &eligible, metric);
    let n_test = n_rows / 2;
    let corrected = RepeatedChoice {
        metric,
        chosen: &chosen,
        winner,
        judged: &heads.into_iter().map(|head| vec![head]).enumerate().collect(),
        clusters: &RowClusters::each_row(n_rows),
        test_clusters: n_test,
        bootstrap,
    };
    let corrected = corrected.corrected().expect("draws with scores");
    let truth = world.truth(skills[winner]);
    let test = world.rows(n_test, &mut random);
    let test = world.head(&test, skills[winner], &mut random).score(metric, None);
    let test = test.expect("a score");
    let [ci, prediction] =
        [corrected.ci, corrected.prediction_interval].map(|interval| interval.expect("draws"));
    let holds = |[low, high]: [f64; 2], value: f64| (low, value, high);
    (
        [all[winner].expect("a score") - truth, corrected.score - truth],
        [holds(raw, truth), holds(ci, truth), holds(raw, test), holds(prediction, test)],
    )
}

fn drawn(heads: &[RowStatistics], metric: Metric, bootstrap: Bootstrap) -> Vec<Vec<Option<f64>>> {
    let n_rows = heads.first().map_or(0, RowStatistics::n_rows);
    resample(n_rows, bootstrap, |weights| {
        heads.iter().map(|head| head.score(metric, Some(weights))).collect()
    })
}

/// The 2.5th and the 97.5th percentile.
fn percentiles(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_unstable_by(f64::total_cmp);
    [0.025, 0.975].map(|share| {
        let place = share * (values.len() - 1) as f64;
        let [below, above] = [values[place.floor() as usize], values[place.ceil() as usize]];
        below + (above - below) * place.fract()
    })
}

impl World {
    /// Class c is as frequent as 1 / (c + 1).
    fn frequencies(&self) -> Vec<f64> {
        let weights = (0..self.n_classes).map(|class| 1.0 / (class + 1) as f64);
        let sum: f64 = weights.clone().sum();
        weights.map(|weight| weight / sum).collect()
    }

    fn rows(&self, n_rows: usize, random: &mut ChaCha8Rng) -> Rows {
        let class = WeightedIndex::new(self.frequencies()).expect("positive weights");
        let classes = (0..n_rows).map(|_| class.sample(random) as u32).collect();
        Rows { classes: Arc::new(classes), shared: (0..n_rows).map(|_| random.r#gen()).collect() }
    }

    fn skill(&self, random: &mut ChaCha8Rng) -> f64 {
        let normal: f64 = random.sample(StandardNormal);
        (self.mean + self.deviation * normal).clamp(0.01, 0.995)
    }

    fn head(&self, rows: &Rows, skill: f64, random: &mut ChaCha8Rng) -> RowStatistics {
        let others = self.n_classes as u32 - 1;
        let predicted = rows.classes.iter().zip(&rows.shared).map(|(class, shared)| {
            let number = if random.gen_bool(SHARED) { *shared } else { random.r#gen() };
            if number < skill {
                *class
            } else {
                (class + 1 + random.gen_range(0..others)) % (others + 1)
            }
        });
        let predicted = predicted.collect();
        RowStatistics::classes(rows.classes.clone(), predicted, self.n_classes)
    }

    /// What a head of a skill scores on endless rows.
    fn truth(&self, skill: f64) -> f64 {
        if self.metric == Metric::Accuracy {
            return skill;
        }
        let wrong = (1.0 - skill) / (self.n_classes - 1) as f64;
        let of_class = |frequency: f64| {
            let predicted = frequency * skill + (1.0 - frequency) * wrong;
            2.0 * frequency * skill / (frequency + predicted)
        };
        let scores = self.frequencies().into_iter().map(of_class);
        scores.sum::<f64>() / self.n_classes as f64
    }
}

/// How long the draws take, and what they say of the winner then.
fn time(world: &World, n_rows: usize, n_heads: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let rows = world.rows(n_rows, &mut random);
    let heads: Vec<RowStatistics> =
        (0..n_heads).map(|_| world.head(&rows, world.mean, &mut random)).collect();
    let (metric, bootstrap) = (world.metric, Bootstrap { resamples: DRAWS, seed: 1 });
    let start = Instant::now();
    let draws = drawn(&heads, metric, bootstrap);
    let seconds = start.elapsed().as_secs_f64();
    let eligible: Vec<usize> = (0..n_heads).collect();
    let chosen = chosen(&draws, &eligible, metric);
    let judged: HashMap<usize, Vec<RowStatistics>> =
        heads.into_iter().map(|head| vec![head]).enumerate().collect();
    let choice = RepeatedChoice {
        metric,
        chosen: &chosen,
        winner: 0,
        judged: &judged,
        clusters: &RowClusters::each_row(n_rows),
        test_clusters: n_rows / 2,
        bootstrap,
    };
    let start = Instant::now();
    choice.corrected().expect("draws with scores");
    println!(
        "\n{DRAWS} draws of {n_rows} rows, {n_heads} heads, {}: {seconds:.2} s for all heads, which the leaderboard \
         needs too; {:.2} s for the correction",
        metric.in_words(),
        start.elapsed().as_secs_f64(),
    );
}
