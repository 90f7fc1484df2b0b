use frostbert_cache::states::{Dtype, Pooling, StateId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const N_FEATURES: usize = 24;

/// Rows around a common direction, with last features much larger than the others.
fn values(n: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    (0..n * N_FEATURES)
        .map(|place| {
            let size = if place % N_FEATURES > 21 { 40.0 } else { 1.0 };
            size * (3.0 + random.gen_range(-1.0f32..1.0))
        })
        .collect()
}

fn view(values: &[f32]) -> FeatureView<'static> {
    let mut bytes = Vec::new();
    Dtype::F32.encode(values, &mut bytes).unwrap();
    FeatureView::from_bytes(StateId::pooled(Pooling::Mean, 1), N_FEATURES, Dtype::F32, bytes)
}

/// The definition, row by row in f64: the mean of the cosines of standardised rows, over the rows of a sample.
fn by_definition(values: &[f32], among: &[u32], one: u32, other: u32, rows: usize) -> f64 {
    let row = |sample: u32, number: usize| -> Vec<f64> {
        let first = (sample as usize * rows + number) * N_FEATURES;
        values[first..first + N_FEATURES].iter().map(|value| f64::from(*value)).collect()
    };
    let all: Vec<Vec<f64>> =
        among.iter().flat_map(|sample| (0..rows).map(|number| row(*sample, number))).collect();
    let n = all.len() as f64;
    let moments: Vec<(f64, f64)> = (0..N_FEATURES)
        .map(|feature| {
            let mean = all.iter().map(|row| row[feature]).sum::<f64>() / n;
            let variance = all.iter().map(|row| (row[feature] - mean).powi(2)).sum::<f64>() / n;
            (mean, variance.sqrt())
        })
        .collect();
    let scaled = |sample: u32, number: usize| -> Vec<f64> {
        let row = row(sample, number);
        row.iter()
            .zip(&moments)
            .map(|(value, (mean, deviation))| (value - mean) / deviation)
            .collect()
    };
    let dot = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(u, v)| u * v).sum::<f64>();
    let cosines = (0..rows).map(|number| {
        let (u, v) = (scaled(one, number), scaled(other, number));
        dot(&u, &v) / (dot(&u, &u) * dot(&v, &v)).sqrt()
    });
    cosines.sum::<f64>() / rows as f64
}

/// More samples than fit into a tile, on both sides.
fn samples(n: u32) -> (Vec<u32>, Vec<u32>) {
    (0..n).partition(|sample| sample % 5 != 0)
}

#[test]
fn the_nearest_sample_and_its_cosine_are_those_of_the_definition() {
    let values = values(1500);
    let view = view(&values);
    let (among, of) = samples(1500);
    let found = nearest(&view, &among, &of).unwrap();
    assert_eq!(found.len(), of.len());
    for (one, found) in of.iter().zip(&found).step_by(31) {
        let cosines = among.iter().map(|other| by_definition(&values, &among, *one, *other, 1));
        let best = cosines.fold(f64::NEG_INFINITY, f64::max);
        let own = by_definition(&values, &among, *one, found.sample, 1);
        assert!((own - best).abs() < 1e-5, "{one}: {own}, not {best}");
        assert!((f64::from(found.cosine) - own).abs() < 1e-5, "{one}: {found:?}, not {own}");
    }
}

#[test]
fn pairs_are_as_alike_as_both_of_their_texts_on_average() {
    let values = values(400);
    let view = view(&values).grouped(2);
    let (among, of) = samples(200);
    for (one, found) in of.iter().zip(nearest(&view, &among, &of).unwrap()) {
        let cosine = by_definition(&values, &among, *one, found.sample, 2);
        assert!((f64::from(found.cosine) - cosine).abs() < 1e-5, "{one}: {found:?}, not {cosine}");
    }
}

#[test]
fn a_copy_has_cosine_1_and_the_first_of_several_is_named() {
    let mut values = values(60);
    for copy in [20, 30, 59] {
        values.copy_within(4 * N_FEATURES..5 * N_FEATURES, copy * N_FEATURES);
    }
    let among: Vec<u32> = (0..59).filter(|row| *row != 4).collect();
    let found = nearest(&view(&values), &among, &[59]).unwrap()[0];
    assert_eq!(found.sample, 20);
    assert!((found.cosine - 1.0).abs() < 1e-6, "{found:?}");
}

#[test]
fn nothing_is_like_the_mean_itself() {
    let mut values = vec![0.0; 3 * N_FEATURES];
    values[..N_FEATURES].fill(1.0);
    values[N_FEATURES..2 * N_FEATURES].fill(-1.0);
    let found = nearest(&view(&values), &[0, 1], &[2]).unwrap()[0];
    assert_eq!(found.cosine, 0.0);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let view = view(&values(1500));
    let (among, of) = samples(1500);
    let of_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| nearest(&view, &among, &of).unwrap())
    };
    let one = of_threads(1);
    assert_eq!(one, of_threads(2));
    assert_eq!(one, of_threads(4));
}
