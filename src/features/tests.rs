use frostbert_cache::states::Pooling;
use ndarray::s;

use super::*;

fn view(n: usize) -> FeatureView<'static> {
    let values: Vec<f32> = (0..2 * n).map(|value| value as f32).collect();
    let mut bytes = Vec::new();
    Dtype::F32.encode(&values, &mut bytes).unwrap();
    FeatureView::from_bytes(StateId::pooled(Pooling::Mean, 1), 2, Dtype::F32, bytes)
}

/// Repeats each row of a sample and appends its number.
struct Doubled;

impl RowMap for Doubled {
    fn n_rows(&self, _: u32, n_stored: usize) -> usize {
        2 * n_stored
    }

    fn n_features(&self, n_stored: usize) -> usize {
        n_stored + 1
    }

    fn map(&self, sample: u32, stored: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
        for (place, mut row) in out.rows_mut().into_iter().enumerate() {
            row.slice_mut(s![..2]).assign(&stored.row(place / 2));
            row[2] = sample as f32;
        }
    }
}

/// The sum of all values of a sample.
struct Summed;

impl RowMap for Summed {
    fn n_rows(&self, _: u32, _: usize) -> usize {
        1
    }

    fn n_features(&self, _: usize) -> usize {
        1
    }

    fn map(&self, _: u32, stored: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
        out[[0, 0]] = stored.sum();
    }
}

#[test]
fn a_tile_holds_the_rows_of_its_samples_in_their_order() {
    let view = view(4);
    let order = [3, 0];
    let (samples, loaded) = view.loads(&order, 1).next().unwrap().unwrap();
    let tile = view.tile(&loaded, samples);
    assert_eq!(tile.rows, ndarray::array![[6.0, 7.0], [0.0, 1.0]]);
    assert_eq!(tile.starts, [0, 1, 2]);
    assert_eq!(tile.row_ids, [3 * ROWS_OF_SAMPLE, 0]);
    assert!(tile.roles.is_empty());
    assert_eq!(tile.output_starts()[..], tile.starts[..]);
}

#[test]
fn the_roles_of_tokens_come_with_their_rows() {
    // Two documents of 2 and of 1 + 3 tokens.
    let mut roles = TokenRole::of_documents([vec![2], vec![1, 3]].into_iter().map(Vec::into_iter));
    let begins = |begins: fn(&TokenRole) -> bool| -> Vec<usize> {
        (0..roles.len()).filter(|row| begins(&roles[*row])).collect()
    };
    assert_eq!(begins(|role| role.begins_document), [0, 2]);
    assert_eq!(begins(|role| role.begins_window), [0, 2, 3]);
    assert!(begins(|role| role.is_output).is_empty());
    for row in [1, 4, 5] {
        roles[row].is_output = true;
    }
    let view = view(6).grouped(2).with_roles(roles.clone());
    assert_eq!([0, 1, 2].map(|sample| view.outputs_of(sample)), [0..1, 1..1, 1..3]);
    let order = [2, 0, 1];
    let (samples, loaded) = view.loads(&order, 1).next().unwrap().unwrap();
    let tile = view.tile(&loaded, samples);
    assert_eq!(tile.roles, [&roles[4..], &roles[..4]].concat());
    assert_eq!(tile.output_starts()[..], [0, 2, 3, 3]);
}

#[test]
fn a_mapped_view_counts_and_hands_out_mapped_rows() {
    let view = view(3).mapped(Box::new(Doubled));
    assert_eq!((view.n_rows(), view.n_features()), (6, 3));
    assert_eq!(view.rows_of(1), 2..4);
    assert_eq!(view.decode_all(&[2]), ndarray::array![[4.0, 5.0, 2.0], [4.0, 5.0, 2.0]]);
}

#[test]
fn maps_follow_each_other() {
    let view = view(2).mapped(Box::new(Doubled)).mapped_to_one(Box::new(Summed));
    assert_eq!((view.n_rows(), view.n_features(), view.n_layers()), (2, 1, 1));
    assert_eq!(view.decode_all(&[1]), ndarray::array![[2.0 * (2.0 + 3.0 + 1.0)]]);
}

#[test]
fn the_digest_changes_with_a_value_a_key_and_the_order_of_samples() {
    let keys: Vec<Key> = (0..3).map(|key| Key([key; 32])).collect();
    let first = view(3).digest(&keys).unwrap();
    assert_eq!(first, view(3).digest(&keys).unwrap());
    let swapped = [keys[1], keys[0], keys[2]];
    assert_ne!(first, view(3).digest(&swapped).unwrap());
    let mut bytes = Vec::new();
    Dtype::F32.encode(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.5], &mut bytes).unwrap();
    let other = FeatureView::from_bytes(StateId::pooled(Pooling::Mean, 1), 2, Dtype::F32, bytes);
    assert_ne!(first, other.digest(&keys).unwrap());
}
