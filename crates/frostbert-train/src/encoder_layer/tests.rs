use super::*;
use crate::vector::dot;

const SHAPE: LayerShape =
    LayerShape { hidden: 6, attention_heads: 2, intermediate: 10, epsilon: 1e-5 };

/// Texts of 3, 0, 1 and 5 rows.
const STARTS: [usize; 5] = [0, 3, 3, 4, 9];

const N_VALUES: usize = 9 * 6;

const ROW_IDS: [u64; 9] = [11, 12, 13, 21, 31, 32, 33, 34, 35];

fn numbers(n: usize, factor: f64) -> Vec<f64> {
    (0..n).map(|i| (i as f64 * factor).sin()).collect()
}

/// A layer with its input; the loss is the product of its output with some numbers.
struct Case {
    parameters: Vec<f64>,
    rows: Vec<f64>,
    weights: Vec<f64>,
    table: Vec<f64>,
    drops: bool,
}

impl Case {
    fn new(drops: bool) -> Case {
        Case {
            parameters: numbers(SHAPE.n_parameters(), 0.7)
                .iter()
                .map(|value| 0.6 * value)
                .collect(),
            rows: numbers(N_VALUES, 0.37),
            weights: numbers(N_VALUES, 1.3),
            table: numbers(12, 2.1),
            drops,
        }
    }

    fn input(&self) -> LayerInput<'_, f64> {
        LayerInput {
            rows: &self.rows,
            starts: &STARTS,
            distance_bias: Some(DistanceBias { table: &self.table, first_distances: &[0, 1, 3] }),
            dropout: self.drops.then_some(LayerDropout {
                after_attention: 0.3,
                after_feed_forward: 0.2,
                attention: 0.3,
                seed: 5,
                epoch: 2,
                row_ids: &ROW_IDS,
            }),
        }
    }

    fn layer(&self) -> EncoderLayer<'_, f64> {
        EncoderLayer { shape: SHAPE, parameters: &self.parameters }
    }

    fn output(&self) -> Vec<f64> {
        let mut trace = LayerTrace::default();
        f64::layer_forward(self.layer(), &self.input(), &mut trace);
        trace.output().to_vec()
    }

    fn loss(&self) -> f64 {
        dot(&self.output(), &self.weights)
    }

    /// The gradients of the parameters and of the rows.
    fn gradients(&self) -> (Vec<f64>, Vec<f64>) {
        let mut trace = LayerTrace::default();
        f64::layer_forward(self.layer(), &self.input(), &mut trace);
        let (mut gradient, mut gradients) =
            (self.weights.clone(), vec![0.0; self.parameters.len()]);
        f64::layer_backward(
            self.layer(),
            &self.input(),
            &trace,
            &mut LayerScratch::default(),
            &mut gradient,
            &mut gradients,
            true,
        );
        (gradients, gradient)
    }
}

/// The slope of the loss along one number.
fn slope(case: &mut Case, place: impl Fn(&mut Case) -> &mut f64) -> f64 {
    let step = 1e-5;
    *place(case) += step;
    let above = case.loss();
    *place(case) -= 2.0 * step;
    let below = case.loss();
    *place(case) += step;
    (above - below) / (2.0 * step)
}

#[test]
fn gradients_are_the_slopes_of_the_loss_with_and_without_dropout() {
    for drops in [false, true] {
        let mut case = Case::new(drops);
        let (gradients, d_rows) = case.gradients();
        let key_bias = 3 * 36 + 6..3 * 36 + 12;
        for (index, got) in gradients.iter().enumerate() {
            let expected = slope(&mut case, |case| &mut case.parameters[index]);
            assert!((got - expected).abs() < 1e-6, "{index}: {got} instead of {expected}");
            assert!(!key_bias.contains(&index) || *got == 0.0);
        }
        assert_eq!(d_rows.len(), N_VALUES);
        for (index, got) in d_rows.iter().enumerate() {
            let expected = slope(&mut case, |case| &mut case.rows[index]);
            assert!((got - expected).abs() < 1e-6, "row value {index}: {got} for {expected}");
        }
        assert!(gradients.iter().any(|gradient| gradient.abs() > 0.1));
    }
}

#[test]
fn what_is_dropped_differs_between_epochs_and_nothing_is_dropped_without_dropout() {
    let case = Case::new(true);
    let of_epoch = |epoch: u64| {
        let mut input = case.input();
        input.dropout = input.dropout.map(|dropout| LayerDropout { epoch, ..dropout });
        let mut trace = LayerTrace::default();
        f64::layer_forward(case.layer(), &input, &mut trace);
        trace.output().to_vec()
    };
    assert_eq!(of_epoch(2), case.output());
    assert_ne!(of_epoch(2), of_epoch(3));
    assert_ne!(case.output(), Case::new(false).output());
}

#[test]
fn gradients_are_added_to_what_is_there_and_a_trace_can_be_used_again() {
    let case = Case::new(false);
    let (expected, _) = case.gradients();
    let (mut trace, mut scratch) = (LayerTrace::default(), LayerScratch::default());
    let mut gradients = vec![0.5; expected.len()];
    for _ in 0..2 {
        f64::layer_forward(case.layer(), &case.input(), &mut trace);
        let mut gradient = case.weights.clone();
        let (layer, input) = (case.layer(), case.input());
        let sums = &mut gradients;
        f64::layer_backward(layer, &input, &trace, &mut scratch, &mut gradient, sums, false);
    }
    for (got, expected) in gradients.iter().zip(&expected) {
        assert!((got - (0.5 + 2.0 * expected)).abs() < 1e-12);
    }
}

#[test]
fn a_text_attends_to_its_own_rows_alone() {
    let case = Case::new(false);
    let mut other = Case::new(false);
    other.rows[4 * 6..].iter_mut().for_each(|value| *value += 1.0);
    let (first, second) = (case.output(), other.output());
    assert_eq!(first[..4 * 6], second[..4 * 6]);
    assert_ne!(first[4 * 6..], second[4 * 6..]);
}

#[test]
fn the_sizes_of_the_tensors_are_those_of_the_parameter_vector() {
    let lengths = SHAPE.tensors().map(|shape| shape.iter().product::<usize>());
    assert_eq!(lengths.iter().sum::<usize>(), SHAPE.n_parameters());
    assert_eq!(lengths[..6].iter().sum::<usize>(), 3 * 36 + 3 * 6);
    assert_eq!(N_TENSORS, lengths.len());
}
