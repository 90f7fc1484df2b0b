//! Logistic regression in full batch, with scikit-learn's objective: every C of every fold in a few passes.
//!
//! - [`rows`] rotates the features so that they are uncorrelated, which saves most of the iterations;
//! - [`objective`] evaluates many problems in one pass over the rows;
//! - [`lbfgs`] chooses the next point of each problem, given the [`curvature`] at its start.

pub(crate) mod curvature;
pub(crate) mod lbfgs;
pub(crate) mod objective;
pub(crate) mod rows;
mod solver;

use std::sync::Arc;

use frostbert_cache::progress::Progress;
use ndarray::{Array1, Array2, ArrayView2, Axis};

use self::{
    objective::LogisticProblem,
    rows::TurnedRows,
    solver::{Solved, Solver},
};
use crate::{
    error::Result,
    features::FeatureView,
    head::{
        linfa_logistic::NEVER,
        network::{Network, NetworkSpec},
        row_groups::RowGroups,
        trained_head::TrainedHead,
        transform::Transform,
    },
};

/// One head's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticSpec {
    /// scikit-learn's C, the inverse of the regularisation strength; above 0.
    pub c: f64,
    /// A weight for each class, which multiplies the losses of its rows; `None` for 1 each.
    pub class_weights: Option<Vec<f32>>,
    /// The index of the set of rows that it learns from.
    pub rows: usize,
}

/// The data that all heads learn from.
#[derive(Clone, Copy)]
pub struct ClassRows<'a> {
    /// The features, one row per sample.
    pub view: &'a FeatureView<'a>,
    /// The transform that is applied to the features first.
    pub transform: &'a Transform,
    /// The class of every sample of the view.
    pub labels: &'a [u32],
    /// Number of classes.
    pub n_classes: usize,
}

/// The stopping criteria of all heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogisticSettings {
    /// A head is done when no entry of the gradient of the mean objective exceeds this: scikit-learn's `tol`.
    pub tolerance: f64,
    /// Maximum number of iterations of a head.
    pub max_iterations: usize,
}

impl Default for LogisticSettings {
    /// 1e-6, a hundredth of scikit-learn's default, and 1000 iterations.
    fn default() -> LogisticSettings {
        LogisticSettings { tolerance: 1e-6, max_iterations: 1000 }
    }
}

/// A fitted head and statistics of the fit.
#[derive(Clone, Debug)]
pub struct LogisticFit {
    /// The head.
    pub head: TrainedHead,
    /// Number of steps that were taken.
    pub iterations: usize,
    /// Number of evaluations of the objective.
    pub evaluations: usize,
    /// Largest entry of the gradient of `F` by weights and biases of the original features; above the tolerance, it may
    /// be a lower bound of that.
    pub gradient_norm: f64,
    /// The value of `F`.
    pub loss: f64,
}

/// For every spec, in order, minimises
///
/// ```text
/// F(W, b) = (sum_i s_i -log p_i(y_i) + |W|^2 / (2 C)) / sum_i s_i
/// ```
///
/// over the transformed rows of its set, where `s_i` is the weight of the row's class: scikit-learn's
/// `LogisticRegression(C, class_weight)`. The biases are not penalised. With `n` classes, `p = softmax(x W + b)`; with
/// two, as in scikit-learn, there is one column `w`, and the head gets `-w / 2` and `w / 2`. Classes without rows in a
/// set are left out of its problem, and get a bias so low that they are never predicted.
///
/// Uses L-BFGS on features that are rotated to be uncorrelated ([`TurnedRows`]). It starts from zero weights and biases
/// that give the class frequencies, with the Hessian there ([`curvature`]) as its first guess. Narrow problems are
/// solved in lockstep, side by side in up to 64 columns. The values of C of a wide problem are solved one after the
/// other, each starting at the previous minimum, or at the linear extrapolation of the previous two (over `log C`) if
/// that is better. A head is done at `settings.tolerance`. Once rounding in f32 hides further progress, at gradients of
/// about 1e-8 times the features, the solver continues in f64.
///
/// A fit whose loss does not end as a finite number is returned with the others, with that loss.
///
/// # Errors
/// Returns an error if the cache is damaged.
///
/// # Panics
/// Panics if a set has no rows, a sample does not have exactly one row, or labels and weights do not fit.
pub fn fit(
    data: &ClassRows<'_>,
    row_sets: &[&[u32]],
    specs: &[LogisticSpec],
    settings: LogisticSettings,
    progress: &dyn Progress,
) -> Result<Vec<LogisticFit>> {
    let ClassRows { view, transform, labels, n_classes } = *data;
    let groups = RowGroups::new(row_sets);
    let data = TurnedRows::new(view, transform, &groups)?;
    let labels: Vec<u32> = groups.samples.iter().map(|sample| labels[*sample as usize]).collect();
    let problems = problems(&groups, &labels, n_classes, specs);
    let solver = Solver { data: &data, groups: &groups, settings, progress };
    progress.start("fitting", Some(specs.len() as u64), "heads");
    let solved = solver.solve(&problems);
    progress.finish();
    let fits = solved.into_iter().zip(&problems);
    let fits = fits.map(|(solved, problem): (Solved, &LogisticProblem)| LogisticFit {
        head: head(&data, problem, n_classes, solved.point.view()),
        iterations: solved.iterations,
        evaluations: solved.evaluations,
        gradient_norm: solved.gradient_norm,
        loss: solved.value,
    });
    Ok(fits.collect())
}

fn problems(
    groups: &RowGroups,
    labels: &[u32],
    n_classes: usize,
    specs: &[LogisticSpec],
) -> Vec<LogisticProblem> {
    let counts: Vec<Vec<usize>> = groups
        .ranges
        .iter()
        .map(|range| {
            let mut counts = vec![0; n_classes];
            labels[range.clone()].iter().for_each(|label| counts[*label as usize] += 1);
            counts
        })
        .collect();
    let mut targets: Vec<(Vec<u32>, Arc<Vec<u32>>)> = Vec::new();
    let problem = |spec: &LogisticSpec| {
        let own = &groups.sets[spec.rows];
        assert!(!own.is_empty(), "a set of rows has rows");
        let count = |class: usize| own.iter().map(|group| counts[*group][class]).sum::<usize>();
        let classes: Vec<u32> =
            (0..n_classes as u32).filter(|class| count(*class as usize) > 0).collect();
        let weight = |class: u32| match &spec.class_weights {
            Some(weights) => f64::from(weights[class as usize]),
            None => 1.0,
        };
        let row_weights: Vec<f64> =
            classes.iter().map(|class| weight(*class) * count(*class as usize) as f64).collect();
        let known = targets.iter().find(|(of, _)| *of == classes);
        let places = match known {
            Some((_, places)) => Arc::clone(places),
            None => {
                let place = |label: &u32| classes.binary_search(label).unwrap_or(0) as u32;
                let places: Arc<Vec<u32>> = Arc::new(labels.iter().map(place).collect());
                targets.push((classes.clone(), Arc::clone(&places)));
                places
            }
        };
        LogisticProblem {
            groups: (0..groups.ranges.len()).map(|group| own.contains(&group)).collect(),
            class_weights: spec
                .class_weights
                .as_ref()
                .map(|_| classes.iter().map(|class| weight(*class) as f32).collect()),
            targets: places,
            total_weight: row_weights.iter().sum(),
            row_weights,
            classes,
            c: spec.c,
        }
    };
    specs.iter().map(problem).collect()
}

fn head(
    data: &TurnedRows,
    problem: &LogisticProblem,
    n_classes: usize,
    point: ArrayView2<'_, f64>,
) -> TrainedHead {
    let n_features = data.rows.ncols();
    let (weights, bias) = point.split_at(Axis(0), n_features);
    let (own, own_bias) = data.turn_back(weights, &bias.row(0).to_owned());
    let mut weights = Array2::zeros((n_features, n_classes));
    let mut bias = Array1::from_elem(n_classes, NEVER);
    for (place, class) in problem.classes.iter().enumerate() {
        let class = *class as usize;
        let (column, factor) = match problem.classes.len() {
            2 => (0, place as f64 - 0.5),
            _ => (place, 1.0),
        };
        let values = own.column(column).mapv(|weight| (factor * weight) as f32);
        weights.column_mut(class).assign(&values);
        bias[class] = (factor * own_bias[column]) as f32;
    }
    let network = Network::new(NetworkSpec::linear(n_features, n_classes));
    TrainedHead {
        parameters: network.with_output_layer(network.zeros(), weights.view(), bias.view()),
        history: Vec::new(),
        best_epoch: 0,
    }
}

#[cfg(test)]
mod tests;
