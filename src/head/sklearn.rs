//! scikit-learn's results on the fixture's rows (scripts/fixtures/classical.py), for the tests of the convex heads.

use frostbert_cache::states::{Dtype, Pooling, StateId};
use ndarray::{Array1, Array2};
use serde::Deserialize;

use crate::{
    features::FeatureView,
    head::{
        network::{Network, NetworkSpec},
        trained_head::TrainedHead,
    },
};

#[derive(Deserialize)]
pub(super) struct Fixture {
    rows: Vec<Vec<f32>>,
    pub(super) classes: Vec<u32>,
    pub(super) two: Vec<u32>,
    pub(super) labels: Vec<[f32; 2]>,
    pub(super) values: Vec<f32>,
    pub(super) sets: Vec<Vec<u32>>,
    pub(super) given_weights: Vec<f32>,
    pub(super) ridge_classes: Vec<Case>,
    pub(super) ridge_labels: Vec<Case>,
    pub(super) ridge_values: Vec<Case>,
    pub(super) lda: Vec<Case>,
    pub(super) logistic: Vec<Case>,
    pub(super) logistic_two: Vec<Case>,
}

/// A setting on a set of rows, and the parameters that were learned.
#[derive(Deserialize)]
pub(super) struct Case {
    pub(super) set: usize,
    #[serde(default)]
    pub(super) lambda: f64,
    #[serde(default)]
    pub(super) c: f64,
    #[serde(default)]
    pub(super) class_weights: usize,
    weights: Vec<Vec<f64>>,
    bias: Vec<f64>,
    #[serde(default)]
    pub(super) probabilities: Vec<Vec<f64>>,
}

impl Fixture {
    pub(super) fn read() -> Fixture {
        let text = include_str!("../../tests/fixtures/classical.json");
        serde_json::from_str(text).expect("the fixture is JSON")
    }

    pub(super) fn n_features(&self) -> usize {
        self.rows[0].len()
    }

    pub(super) fn view(&self) -> FeatureView<'static> {
        view(&self.rows.concat(), self.n_features())
    }

    pub(super) fn row_sets(&self) -> Vec<&[u32]> {
        self.sets.iter().map(Vec::as_slice).collect()
    }

    /// The outputs of a head on the rows of a set.
    pub(super) fn scores(
        &self,
        set: usize,
        weights: &Array2<f64>,
        bias: &Array1<f64>,
    ) -> Array2<f64> {
        let samples = &self.sets[set];
        let rows = Array2::from_shape_fn((samples.len(), self.n_features()), |(row, feature)| {
            f64::from(self.rows[samples[row] as usize][feature])
        });
        rows.dot(weights) + bias
    }

    /// The classes that occur in the rows of a set.
    pub(super) fn present(&self, set: usize, classes: &[u32]) -> Vec<usize> {
        let has =
            |class: &usize| self.sets[set].iter().any(|s| classes[*s as usize] as usize == *class);
        (0..3).filter(has).collect()
    }
}

impl Case {
    /// scikit-learn's parameters, `[features, columns]` and `[columns]`.
    pub(super) fn parameters(&self) -> (Array2<f64>, Array1<f64>) {
        let shape = (self.weights.len(), self.bias.len());
        let weights = Array2::from_shape_fn(shape, |(feature, class)| self.weights[feature][class]);
        (weights, Array1::from(self.bias.clone()))
    }
}

pub(super) fn view(values: &[f32], n_features: usize) -> FeatureView<'static> {
    let mut bytes = Vec::new();
    Dtype::F32.encode(values, &mut bytes).expect("finite numbers");
    FeatureView::from_bytes(StateId::pooled(Pooling::Mean, 1), n_features, Dtype::F32, bytes)
}

pub(super) fn parameters(head: &TrainedHead, n_features: usize) -> (Array2<f64>, Array1<f64>) {
    let n_outputs = head.parameters.len() / (n_features + 1);
    let network = Network::new(NetworkSpec::linear(n_features, n_outputs));
    let (weights, bias) = network.output_layer(&head.parameters);
    (weights.mapv(f64::from), bias.mapv(f64::from))
}

/// The largest difference between two matrices, relative to the largest entry of the second (at least 1).
pub(super) fn difference(left: &Array2<f64>, right: &Array2<f64>) -> f64 {
    assert_eq!(left.dim(), right.dim());
    let largest = right.iter().fold(1.0f64, |most, value| most.max(value.abs()));
    let pairs = left.iter().zip(right);
    pairs.fold(0.0f64, |most, (l, r)| most.max((l - r).abs())) / largest
}
