use std::sync::Arc;

use crate::{metrics::intervals::resample, selection::bias_corrected::*};

const DRAWS: Bootstrap = Bootstrap { resamples: 200, seed: 9 };

/// Classes 0 and 1, and heads that are right on the rows that a pattern says.
fn head(right: impl Iterator<Item = bool>) -> RowStatistics {
    let right: Vec<bool> = right.collect();
    let gold: Vec<u32> = (0..right.len() as u32).map(|row| row % 2).collect();
    let predicted = gold.iter().zip(right).map(|(class, right)| class ^ u32::from(!right));
    let predicted = predicted.collect();
    RowStatistics::classes(Arc::new(gold), predicted, 2)
}

fn some_right(random: &mut ChaCha8Rng, n_rows: usize, accuracy: f64) -> RowStatistics {
    head((0..n_rows).map(|_| random.gen_bool(accuracy)))
}

/// What a sweep of candidates, those of each seed, comes to, with a new test set of so many clusters: what all rows
/// chose and its score, and that corrected.
fn sweep(
    candidates: Vec<Vec<RowStatistics>>,
    metric: Metric,
    clusters: &RowClusters,
    test_clusters: usize,
) -> (usize, f64, Option<CorrectedScore>) {
    let score = |candidate: &Vec<RowStatistics>, rows: Option<&[u32]>| {
        let scores: Option<Vec<f64>> =
            candidate.iter().map(|head| head.score(metric, rows)).collect();
        scores.map(|scores| mean(&scores))
    };
    let all: Vec<Option<f64>> = candidates.iter().map(|one| score(one, None)).collect();
    let eligible: Vec<usize> = (0..candidates.len()).collect();
    let winner = chosen(std::slice::from_ref(&all), &eligible, metric)[0].unwrap();
    let draws: Vec<Vec<Option<f64>>> = resample(clusters.n_clusters(), DRAWS, |drawn| {
        let rows = clusters.weights(drawn);
        candidates.iter().map(|one| score(one, Some(&rows))).collect()
    });
    let chosen = chosen(&draws, &eligible, metric);
    let judged: HashMap<usize, Vec<RowStatistics>> = candidates.into_iter().enumerate().collect();
    let choice = RepeatedChoice {
        metric,
        chosen: &chosen,
        winner,
        judged: &judged,
        clusters,
        test_clusters,
        bootstrap: DRAWS,
    };
    (winner, all[winner].unwrap(), choice.corrected())
}

#[test]
fn without_a_choice_the_score_is_the_raw_one_for_any_metric() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // On a third of the rows many of these classes are missing, and their F1 is another number.
    let gold: Vec<u32> = (0..120).map(|_| random.gen_range(0..40)).collect();
    let predicted: Vec<u32> =
        gold.iter().map(|class| if random.gen_bool(0.7) { *class } else { 0 }).collect();
    let gold = Arc::new(gold);
    for metric in [Metric::Accuracy, Metric::MacroF1] {
        let head = RowStatistics::classes(gold.clone(), predicted.clone(), 40);
        let (_, raw, corrected) = sweep(vec![vec![head]], metric, &RowClusters::each_row(120), 120);
        let corrected = corrected.unwrap();
        assert!((corrected.score - raw).abs() < 1e-12, "{metric}: {raw} {corrected:?}");
        let [low, high] = corrected.ci.unwrap();
        assert!(low < raw && raw < high);
        let [lower, higher] = corrected.prediction_interval.unwrap();
        assert!(higher - lower > high - low, "{metric}: {corrected:?}");
    }
}

#[test]
fn it_is_the_mean_over_draws_of_what_the_best_on_drawn_rows_is_worth_on_the_others() {
    // The first is right on three rows of ten, the second on three others.
    let right: [&[usize]; 2] = [&[0, 1, 2], &[3, 4, 5]];
    let heads = right.map(|right| vec![head((0..10).map(|row| right.contains(&row)))]);
    let rows = RowClusters::each_row(10);
    let (winner, raw, corrected) = sweep(heads.into(), Metric::Accuracy, &rows, 10);
    assert_eq!((winner, raw), (0, 0.3), "the first of equals");
    let draws: Vec<Option<[f64; 2]>> = resample(10, DRAWS, |drawn| {
        let times = |rows: &[usize]| rows.iter().map(|row| drawn[*row]).sum::<u32>();
        let best = right[usize::from(times(right[1]) > times(right[0]))];
        let out: Vec<usize> = (0..10).filter(|row| drawn[*row] == 0).collect();
        let share = |right: &[usize]| {
            let n_right = out.iter().filter(|row| right.contains(row)).count();
            n_right as f64 / out.len() as f64
        };
        (!out.is_empty()).then(|| [share(best), share(right[0])])
    });
    let mean_of = |place: usize| {
        let values: Vec<f64> = draws.iter().flatten().map(|draw| draw[place]).collect();
        mean(&values)
    };
    let corrected = corrected.unwrap();
    assert!((corrected.score - (mean_of(0) + 0.3 - mean_of(1))).abs() < 1e-12);
    assert!(corrected.score < 0.26, "what is best on drawn rows is worse on the others");
}

#[test]
fn of_many_equal_heads_the_best_is_corrected_to_what_they_are_worth() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let (mut raws, mut scores, mut held) = (Vec::new(), Vec::new(), 0);
    for _ in 0..40 {
        let heads = (0..50).map(|_| vec![some_right(&mut random, 200, 0.7)]);
        let (_, raw, corrected) =
            sweep(heads.collect(), Metric::Accuracy, &RowClusters::each_row(200), 200);
        let corrected = corrected.unwrap();
        let [low, high] = corrected.ci.unwrap();
        held += usize::from(low <= 0.7 && 0.7 <= high);
        raws.push(raw);
        scores.push(corrected.score);
    }
    assert!(mean(&raws) > 0.75, "{}", mean(&raws));
    assert!((mean(&scores) - 0.7).abs() < 0.01, "{}", mean(&scores));
    assert!(held >= 38, "{held} of 40");
}

#[test]
fn a_small_test_set_may_score_further_from_it_than_a_large_one() {
    let of = |test_clusters| {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let heads = (0..8).map(|_| vec![some_right(&mut random, 300, 0.8)]);
        let rows = RowClusters::each_row(300);
        sweep(heads.collect(), Metric::MacroF1, &rows, test_clusters).2.unwrap()
    };
    let width = |corrected: CorrectedScore| {
        let [low, high] = corrected.prediction_interval.unwrap();
        high - low
    };
    let (small, large) = (of(30), of(3_000));
    assert_eq!((small.score, small.ci), (large.score, large.ci));
    let [low, high] = large.ci.unwrap();
    assert!(width(small) > 1.5 * width(large), "{small:?} {large:?}");
    assert!((width(large) / (high - low) - 1.0).abs() < 0.3, "{large:?}");
}

#[test]
fn rows_that_belong_together_say_no_more_than_one_of_them() {
    let of = |copies: usize| {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let heads = (0..10).map(|_| {
            let right: Vec<bool> = (0..60).map(|_| random.gen_bool(0.75)).collect();
            // Copies of a row are of its class: the classes take turns, and so do the copies of pairs.
            let rows = (0..60 * copies).map(|row| right[row / (2 * copies) * 2 + row % 2]);
            vec![head(rows)]
        });
        let groups = (0..60 * copies).map(|row| Some((row / (2 * copies)) as u64));
        let clusters = RowClusters::of_groups(groups);
        assert_eq!(clusters.n_clusters(), 30);
        sweep(heads.collect(), Metric::Accuracy, &clusters, 30)
    };
    assert_eq!(of(1), of(3));
}

#[test]
fn no_figure_is_better_than_the_best_value_of_its_metric() {
    let all_right = vec![vec![head((0..50).map(|_| true))]];
    let (.., corrected) = sweep(all_right, Metric::MacroF1, &RowClusters::each_row(50), 20);
    let one = Some([1.0, 1.0]);
    assert_eq!(corrected, Some(CorrectedScore { score: 1.0, ci: one, prediction_interval: one }));
    let mut errors = vec![0.0; 50];
    errors[7] = 0.1;
    let one = vec![vec![RowStatistics::means(vec![(Metric::Mae, errors)])]];
    let (.., corrected) = sweep(one, Metric::Mae, &RowClusters::each_row(50), 50);
    let corrected = corrected.unwrap();
    for ends in [corrected.ci, corrected.prediction_interval] {
        assert!((0.0..0.001).contains(&ends.unwrap()[0]), "{corrected:?}");
    }
}

#[test]
fn there_is_no_figure_where_draws_leave_nothing_out_or_choose_nothing() {
    let one_row = vec![vec![head(std::iter::once(true))]];
    assert_eq!(sweep(one_row, Metric::Accuracy, &RowClusters::each_row(1), 1).2, None);
    let judged = HashMap::from([(0, vec![head((0..9).map(|row| row < 5))])]);
    let choice = RepeatedChoice {
        metric: Metric::Accuracy,
        chosen: &[None; 200],
        winner: 0,
        judged: &judged,
        clusters: &RowClusters::each_row(9),
        test_clusters: 9,
        bootstrap: DRAWS,
    };
    assert_eq!(choice.corrected(), None);
}

#[test]
fn it_is_the_same_for_any_number_of_threads() {
    let on = |n_threads| {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut head = || some_right(&mut random, 150, 0.8);
        let heads: Vec<_> = (0..12).map(|_| vec![head(), head()]).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let rows = RowClusters::each_row(150);
        pool.install(|| sweep(heads, Metric::WeightedF1, &rows, 70))
    };
    assert_eq!(on(1), on(3));
}
