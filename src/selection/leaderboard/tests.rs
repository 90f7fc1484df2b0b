use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::selection::leaderboard::{pairs::MOST_PAIRED, *};

const DRAWS: Bootstrap = Bootstrap { resamples: 200, seed: 9 };

/// A leaderboard of given scores, as it would result from trials in this order.
pub(crate) fn board(keys: &[&str], trials: &[(&[Value], f64)]) -> Leaderboard {
    let candidates: Vec<Candidate> = trials
        .iter()
        .map(|(values, score)| {
            let settings = keys.iter().map(ToString::to_string);
            let value =
                |key: &str| keys.iter().position(|other| *other == key).map(|at| &values[at]);
            let kind = value("kind").and_then(Value::as_str).unwrap_or("linear");
            let fraction = value("fraction").and_then(Value::as_float).unwrap_or(1.0);
            Candidate {
                settings: settings.zip(values.iter().cloned()).collect(),
                kind: kind.into(),
                train_rows: (fraction * 1000.0).round() as usize,
                outcomes: vec![outcome(RowStatistics::means(vec![(
                    Metric::Accuracy,
                    vec![*score; 3],
                )]))],
                rung: None,
            }
        })
        .collect();
    rank(&candidates, Metric::Accuracy, DRAWS)
}

/// A leaderboard with draws of its rows, each by itself.
pub(crate) fn rank(candidates: &[Candidate], metric: Metric, bootstrap: Bootstrap) -> Leaderboard {
    let n_rows = candidates.first().map_or(0, |first| first.outcomes[0].statistics.n_rows());
    let drawn = drawn_scores(candidates, metric, &RowClusters::each_row(n_rows), bootstrap);
    crate::selection::leaderboard::rank(candidates, metric, &drawn)
}

fn outcome(statistics: RowStatistics) -> SeedResult {
    SeedResult {
        statistics,
        fold_scores: vec![],
        best_epochs: vec![3],
        epochs: vec![5],
        diverged: 0,
    }
}

fn candidate(name: &str, statistics: Vec<RowStatistics>) -> Candidate {
    Candidate {
        settings: vec![("name".into(), name.into())],
        kind: "linear".into(),
        train_rows: 100,
        outcomes: statistics.into_iter().map(outcome).collect(),
        rung: None,
    }
}

/// Binary labels, and heads that are right on each row with a given probability, independently of one another.
struct Rows {
    rng: ChaCha8Rng,
    gold: Arc<Vec<u32>>,
}

impl Rows {
    fn new(n_rows: usize, seed: u64) -> Rows {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gold = (0..n_rows).map(|_| rng.gen_range(0..2)).collect();
        Rows { rng, gold: Arc::new(gold) }
    }

    fn head(&mut self, accuracy: f64) -> RowStatistics {
        let gold = self.gold.clone();
        let predicted =
            gold.iter().map(|&class| class ^ u32::from(!self.rng.gen_bool(accuracy))).collect();
        RowStatistics::classes(gold, predicted, 2)
    }
}

fn names(board: &Leaderboard) -> Vec<&str> {
    let rows = board.rows.iter();
    rows.filter_map(|row| row.setting("name")?.as_str()).collect()
}

#[test]
fn the_best_stands_first_ties_in_the_order_of_trials_and_the_undefined_last() {
    let of = |name, score: f64| {
        let metrics = [Metric::Mse, Metric::Spearman].map(|metric| (metric, vec![score]));
        candidate(name, vec![RowStatistics::means(metrics.to_vec())])
    };
    let diverged = candidate("none", vec![RowStatistics::means(vec![(Metric::Mae, vec![0.0])])]);
    let candidates = [diverged, of("b", 2.0), of("a", 1.0), of("c", 2.0)];
    let least = rank(&candidates, Metric::Mse, DRAWS);
    assert_eq!(names(&least), ["a", "b", "c", "none"]);
    let trials: Vec<(usize, usize)> = least.rows.iter().map(|row| (row.rank, row.trial)).collect();
    assert_eq!(trials, [(1, 2), (2, 1), (3, 3), (4, 0)]);
    assert_eq!(names(&rank(&candidates, Metric::Spearman, DRAWS))[0], "b");
    assert!(!least.rows[3].not_worse_than_best);
    assert_eq!(least.rows[3].interval, None);
}

#[test]
fn the_head_with_the_smaller_loss_stands_first_and_others_are_compared_with_it_draw_by_draw() {
    let mut rng = ChaCha8Rng::seed_from_u64(31);
    let gold: Vec<u32> = (0..300).map(|_| rng.gen_range(0..2)).collect();
    let mut head = |name: &str, metric: Metric, certainty: f32| {
        let sure = gold.iter().map(|&class| {
            let noise = rng.gen_range(-0.45..0.45f32);
            let of_truth = (certainty + noise).clamp(0.01, 0.99);
            match class {
                0 => [of_truth, 1.0 - of_truth],
                _ => [1.0 - of_truth, of_truth],
            }
        });
        let probabilities: Vec<[f32; 2]> = sure.collect();
        let probabilities = ndarray::arr2(&probabilities);
        let statistics = RowStatistics::class_probabilities(metric, &gold, probabilities.view());
        candidate(name, vec![statistics])
    };
    for metric in [Metric::LogLoss, Metric::Brier, Metric::RocAuc] {
        let candidates = [("bad", 0.55), ("good", 0.75), ("fair", 0.65)]
            .map(|(name, certainty)| head(name, metric, certainty));
        let board = rank(&candidates, metric, DRAWS);
        assert_eq!(names(&board), ["good", "fair", "bad"], "{metric}");
        assert_eq!(board.test, Test::PairedBootstrap);
        let [low, high] = board.rows[0].interval.unwrap();
        let score = board.rows[0].score.unwrap();
        assert!(low < score && score < high, "{metric}");
        assert!(!board.rows[2].not_worse_than_best, "{metric}");
    }
}

#[test]
fn a_later_rung_stands_before_a_better_score_of_an_earlier_one() {
    let mut rows = Rows::new(400, 3);
    let mut candidates =
        [0.7, 0.6, 0.9].map(|accuracy| candidate(&accuracy.to_string(), vec![rows.head(accuracy)]));
    candidates[0].rung = Some(1);
    candidates[1].rung = Some(1);
    candidates[2].rung = Some(0);
    let board = rank(&candidates, Metric::Accuracy, DRAWS);
    assert_eq!(names(&board), ["0.7", "0.6", "0.9"]);
    assert_eq!(board.rows[2].p_value, Some(1.0));
    assert!(board.rows[2].not_worse_than_best);
}

#[test]
fn a_score_is_the_mean_over_seeds_with_their_spread_and_that_of_the_folds() {
    let gold = Arc::new(vec![0, 0, 0, 0]);
    let head = |right: usize| {
        let predicted = (0..4).map(|row| u32::from(row >= right)).collect();
        RowStatistics::classes(gold.clone(), predicted, 2)
    };
    let mut one = candidate("one", vec![head(4), head(2)]);
    one.outcomes[0].fold_scores = vec![1.0, 0.5, 0.75];
    one.outcomes[1].fold_scores = vec![0.5, 0.75, 0.25];
    one.outcomes[0].best_epochs = vec![1, 2];
    one.outcomes[1].best_epochs = vec![4, 5];
    let board = rank(&[one], Metric::Accuracy, DRAWS);
    let row = &board.rows[0];
    assert_eq!((row.score, row.seeds, row.folds), (Some(0.75), 2, 3));
    let spread = row.seed_spread.unwrap();
    assert_eq!((spread.min, spread.max), (0.5, 1.0));
    assert!((spread.std - 0.125f64.sqrt()).abs() < 1e-12);
    let folds = row.fold_spread.unwrap();
    assert_eq!((folds.std, folds.min, folds.max), (0.125, 0.5, 0.75));
    assert_eq!((row.best_epoch, row.epochs), (Some(3.0), Some(5.0)));
    assert_eq!((row.p_value, row.not_worse_than_best), (None, true));
    assert_eq!(board.test, Test::PairedBootstrap);
}

#[test]
fn intervals_are_those_of_the_bootstrap_of_the_metric() {
    let mut rows = Rows::new(300, 4);
    let statistics = rows.head(0.8);
    let [expected] = crate::metrics::intervals::bootstrap(300, DRAWS, |weights| {
        [statistics.score(Metric::MacroF1, Some(weights))]
    });
    let board = rank(&[candidate("one", vec![statistics])], Metric::MacroF1, DRAWS);
    assert!(expected.is_some());
    assert_eq!(board.rows[0].interval, expected);
}

#[test]
fn single_seeds_are_compared_by_mcnemar_where_the_metric_is_a_share_of_right_rows() {
    let gold = Arc::new(vec![0; 10]);
    let head = |wrong: &[u32]| {
        let predicted = (0..10).map(|row| u32::from(wrong.contains(&row))).collect();
        vec![RowStatistics::classes(gold.clone(), predicted, 2)]
    };
    // Seven rows that only the first gets right, and one that only the second does.
    let candidates =
        [candidate("first", head(&[0])), candidate("second", head(&[1, 2, 3, 4, 5, 6, 7]))];
    let board = rank(&candidates, Metric::Accuracy, DRAWS);
    assert_eq!(board.test, Test::Mcnemar);
    assert!((board.rows[1].p_value.unwrap() - 2.0 * 9.0 / 256.0).abs() < 1e-12);
    let other = rank(&candidates, Metric::MacroF1, DRAWS);
    assert_eq!(other.test, Test::PairedBootstrap);
}

#[test]
fn any_two_of_the_first_heads_are_compared_and_with_the_best_as_on_the_leaderboard() {
    for (metric, n_seeds) in [(Metric::Accuracy, 1), (Metric::Accuracy, 2), (Metric::MacroF1, 1)] {
        let mut rows = Rows::new(200, 12);
        let candidates: Vec<Candidate> = (0..MOST_PAIRED + 3)
            .map(|head| {
                let accuracy = 0.9 - head as f64 / 200.0;
                candidate("", (0..n_seeds).map(|_| rows.head(accuracy)).collect())
            })
            .collect();
        let board = rank(&candidates, metric, DRAWS);
        assert_eq!(board.pairs.len(), MOST_PAIRED * (MOST_PAIRED - 1) / 2, "{metric}");
        for pair in &board.pairs {
            let [a, b] = [pair.a, pair.b].map(|rank| &board.rows[rank - 1]);
            assert!(pair.a < pair.b && b.rank <= MOST_PAIRED, "{pair:?}");
            assert_eq!(pair.difference, b.score.unwrap() - a.score.unwrap());
            let [low, high] = pair.interval.unwrap();
            assert!(low <= high, "{pair:?}");
            if pair.a == 1 {
                assert_eq!(pair.p_value, b.p_value, "{metric}, {n_seeds} seeds: {pair:?}");
            }
        }
    }
}

#[test]
fn heads_without_a_score_are_in_no_pair() {
    let of =
        |value: f64| candidate("", vec![RowStatistics::means(vec![(Metric::Mse, vec![value; 4])])]);
    let mut diverged = of(0.0);
    diverged.outcomes[0].diverged = 1;
    let board = rank(&[of(1.0), diverged, of(2.0)], Metric::Mse, DRAWS);
    let [pair] = &board.pairs[..] else { panic!("{:?}", board.pairs) };
    assert_eq!((pair.a, pair.b, pair.difference), (1, 2, 1.0));
    assert!(rank(&[of(1.0)], Metric::Mse, DRAWS).pairs.is_empty());
}

/// Runs `n_sweeps` sweeps of heads with these accuracies, and returns the share of heads, besides the best, marked as
/// worse.
fn share_marked(metric: Metric, accuracies: &[f64], n_sweeps: u64) -> f64 {
    let mut n_marked = 0;
    for seed in 0..n_sweeps {
        let mut rows = Rows::new(300, 1_000 + seed);
        let candidates: Vec<Candidate> =
            accuracies.iter().map(|&accuracy| candidate("", vec![rows.head(accuracy)])).collect();
        let board = rank(&candidates, metric, DRAWS);
        n_marked += board.rows.iter().filter(|row| !row.not_worse_than_best).count();
    }
    n_marked as f64 / (n_sweeps as f64 * (accuracies.len() - 1) as f64)
}

#[test]
fn of_two_equally_good_heads_one_is_rarely_called_worse() {
    for metric in [Metric::Accuracy, Metric::MacroF1] {
        let share = share_marked(metric, &[0.8, 0.8], 400);
        // A test at 5 % marks 20 of 400, within 3 standard deviations 7 to 33.
        assert!((0.005..0.085).contains(&share), "{metric}: {share}");
    }
}

#[test]
fn of_many_equally_good_heads_few_are_called_worse() {
    for metric in [Metric::Accuracy, Metric::MacroF1] {
        let share = share_marked(metric, &[0.8; 30], 30);
        assert!(share < 0.02, "{metric}: {share}");
    }
}

#[test]
fn clearly_worse_heads_are_called_worse_among_many() {
    let mut accuracies = vec![0.9];
    accuracies.resize(101, 0.7);
    for metric in [Metric::Accuracy, Metric::MacroF1] {
        let share = share_marked(metric, &accuracies, 2);
        assert!(share > 0.98, "{metric}: {share}");
    }
}

#[test]
fn the_board_is_the_same_for_any_number_of_threads() {
    let mut rows = Rows::new(250, 5);
    let candidates: Vec<Candidate> = (0..20)
        .map(|head| {
            let accuracy = 0.7 + f64::from(head % 7) / 50.0;
            candidate("", vec![rows.head(accuracy), rows.head(accuracy)])
        })
        .collect();
    let on = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| rank(&candidates, Metric::WeightedF1, DRAWS))
    };
    let one = on(1);
    assert!(one.rows[19].p_value.is_some());
    assert_eq!(one, on(3));
}

#[test]
fn a_setting_that_some_candidates_lack_counts_as_varied() {
    let mut board = board(
        &["lr", "hidden", "seed"],
        &[(&[0.1.into(), 8.into(), 1.into()], 0.5), (&[0.2.into(), 8.into(), 1.into()], 0.6)],
    );
    assert_eq!(board.varied(), ["lr"]);
    board.rows[0].settings.remove(1);
    assert_eq!(board.varied(), ["lr", "hidden"]);
}

#[test]
fn without_draws_there_are_scores_and_nothing_of_their_luck() {
    let mut rows = Rows::new(50, 6);
    let candidates = [0.9, 0.6].map(|accuracy| candidate("", vec![rows.head(accuracy)]));
    let none = Bootstrap { resamples: 0, seed: 1 };
    let board = rank(&candidates, Metric::MacroF1, none);
    assert_eq!((board.rows[0].interval, board.rows[1].p_value), (None, None));
    assert!(board.rows[1].not_worse_than_best);
    assert_eq!(rank(&[], Metric::MacroF1, none).rows, []);
}

#[test]
#[should_panic(expected = "all heads are measured on the same 5 rows")]
fn heads_of_other_rows_are_refused() {
    let of = |n_rows| candidate("", vec![Rows::new(n_rows, 1).head(0.5)]);
    rank(&[of(5), of(6)], Metric::Accuracy, DRAWS);
}
