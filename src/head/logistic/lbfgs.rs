//! L-BFGS with inverted control: it says which point to evaluate next, and is told the result.
//!
//! This lets the caller evaluate many problems in one pass over the data.

use std::collections::VecDeque;

use crate::train::vector::{add_scaled, dot};

/// Number of past steps that are kept to approximate the curvature.
const MEMORY: usize = 10;

/// A step is accepted if it gains at least this share of what the slope promises (Armijo condition).
const LEAST_GAIN: f64 = 1e-4;

/// Relative rounding error of a value: for smaller differences, slopes are compared instead (Hager and Zhang 2005).
const VALUE_NOISE: f64 = 1e-7;

/// Maximum number of trials for one step.
const MOST_TRIALS: usize = 20;

/// The solver stops when this many steps together gain next to nothing.
const PATIENCE: usize = 10;

/// The result of a trial point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrialOutcome {
    /// The trial point was accepted as the new point.
    Accepted,
    /// A shorter step is tried next.
    Shortened,
    /// No step gains anything, or the last ones gained nothing: rounding hides further progress.
    Stuck,
}

/// The state of the minimisation of a smooth convex function.
///
/// Nocedal and Wright 2006, algorithms 7.4 and 7.5, with a guess `P` of the Hessian: the first direction is `-P^-1 g`,
/// the later ones start from `(s y / y P^-1 y) P^-1`, and a step length of 1 is tried first.
pub(crate) struct Lbfgs<P> {
    /// The current point.
    pub point: Vec<f64>,
    /// The value of the function at the point; infinite until it has been evaluated.
    pub value: f64,
    /// The gradient at the point.
    pub gradient: Vec<f64>,
    /// Number of accepted steps.
    pub iterations: usize,
    /// Multiplies a vector by `P^-1`, in place.
    solve: P,
    steps: VecDeque<Step>,
    direction: Vec<f64>,
    /// The dot product of gradient and direction.
    slope: f64,
    length: f64,
    n_trials: usize,
    trial: Vec<f64>,
    /// The values before each of the last steps.
    values: VecDeque<f64>,
    least_progress: f64,
}

/// A step and the change of the gradient along it.
#[derive(Clone, Debug)]
struct Step {
    points: Vec<f64>,
    gradients: Vec<f64>,
    /// `1 / (points gradients)`.
    rho: f64,
}

impl<P: Fn(&mut [f64])> Lbfgs<P> {
    /// Starts at a point; `solve` multiplies a vector by `P^-1`, where `P` is positive definite. The solver stops when
    /// ten steps together gain no more than `least_progress` of the value. Negative infinity requires no progress, for
    /// the case that the gradient is more precise than a difference of rounded values.
    pub(crate) fn new(start: Vec<f64>, solve: P, least_progress: f64) -> Lbfgs<P> {
        Lbfgs {
            value: f64::INFINITY,
            gradient: Vec::new(),
            iterations: 0,
            solve,
            steps: VecDeque::new(),
            direction: Vec::new(),
            slope: 0.0,
            length: 1.0,
            n_trials: 0,
            values: VecDeque::new(),
            least_progress,
            trial: start.clone(),
            point: start,
        }
    }

    /// The point at which the function and its gradient are needed next.
    pub(crate) fn trial(&self) -> &[f64] {
        &self.trial
    }

    /// Takes the function and its gradient at the trial point, and chooses the next one.
    pub(crate) fn tell(&mut self, value: f64, gradient: Vec<f64>) -> TrialOutcome {
        if self.value == f64::INFINITY {
            self.value = value;
            self.gradient = gradient;
            self.turn();
            return TrialOutcome::Accepted;
        }
        let gained = self.value - value;
        let new_slope = dot(&gradient, &self.direction);
        let is_below = gained >= -LEAST_GAIN * self.length * self.slope;
        let is_hidden = gained.abs() <= VALUE_NOISE * self.value.abs();
        let is_flatter = new_slope <= (2.0 * LEAST_GAIN - 1.0) * self.slope;
        if !(is_below || is_hidden && is_flatter) {
            self.n_trials += 1;
            if self.n_trials >= MOST_TRIALS {
                return TrialOutcome::Stuck;
            }
            // The minimum of the parabola through both values and the slope, within bounds.
            let bend = -gained - self.slope * self.length;
            let share = -self.slope * self.length / (2.0 * bend);
            self.length *= if share.is_finite() { share.clamp(0.1, 0.5) } else { 0.1 };
            self.walk();
            return TrialOutcome::Shortened;
        }
        let points = difference(&self.trial, &self.point);
        let gradients = difference(&gradient, &self.gradient);
        let product = dot(&points, &gradients);
        if product > 0.0 {
            if self.steps.len() == MEMORY {
                self.steps.pop_front();
            }
            self.steps.push_back(Step { points, gradients, rho: 1.0 / product });
        }
        self.point.clone_from(&self.trial);
        self.values.push_back(self.value);
        self.value = value;
        self.gradient = gradient;
        self.iterations += 1;
        if self.values.len() == PATIENCE {
            let before = self.values.pop_front().unwrap_or(f64::INFINITY);
            if before - value <= self.least_progress * value.abs() {
                return TrialOutcome::Stuck;
            }
        }
        self.turn();
        TrialOutcome::Accepted
    }

    /// Computes the next direction, by the two-loop recursion.
    fn turn(&mut self) {
        let mut direction: Vec<f64> = self.gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::with_capacity(self.steps.len());
        for step in self.steps.iter().rev() {
            let share = step.rho * dot(&step.points, &direction);
            add_scaled(&mut direction, -share, &step.gradients);
            shares.push(share);
        }
        (self.solve)(&mut direction);
        if let Some(last) = self.steps.back() {
            let mut solved = last.gradients.clone();
            (self.solve)(&mut solved);
            let scale = 1.0 / (last.rho * dot(&last.gradients, &solved));
            direction.iter_mut().for_each(|value| *value *= scale);
        }
        for (step, share) in self.steps.iter().zip(shares.into_iter().rev()) {
            let other = step.rho * dot(&step.gradients, &direction);
            add_scaled(&mut direction, share - other, &step.points);
        }
        self.slope = dot(&self.gradient, &direction);
        self.direction = direction;
        self.length = 1.0;
        self.n_trials = 0;
        self.walk();
    }

    fn walk(&mut self) {
        self.trial.clone_from(&self.point);
        add_scaled(&mut self.trial, self.length, &self.direction);
    }
}

fn difference(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(l, r)| l - r).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sum_i w_i cosh(x_i - i)`: its minimum is at `x_i = i`.
    fn cosh(point: &[f64]) -> (f64, Vec<f64>) {
        let weight = |place: usize| 10f64.powi(place as i32 % 5);
        let terms = point.iter().enumerate();
        let value = terms.clone().map(|(i, x)| weight(i) * (x - i as f64).cosh());
        let gradient = terms.map(|(i, x)| weight(i) * (x - i as f64).sinh());
        (value.sum(), gradient.collect())
    }

    fn minimize(most: usize) -> Vec<f64> {
        let mut solver = Lbfgs::new(vec![0.0; 12], |_: &mut [f64]| {}, 1e-12);
        for _ in 0..most {
            let (value, gradient) = cosh(solver.trial());
            if solver.tell(value, gradient) == TrialOutcome::Stuck {
                break;
            }
        }
        solver.point
    }

    #[test]
    fn the_minimum_of_a_function_far_from_a_parabola_is_found() {
        for (place, x) in minimize(1000).iter().enumerate() {
            assert!((x - place as f64).abs() < 1e-3, "{place}: {x}");
        }
    }

    #[test]
    fn a_parabola_whose_curvature_is_known_takes_one_step() {
        let curvature = vec![4.0, 0.01, 100.0];
        let solve = |values: &mut [f64]| {
            values.iter_mut().zip(&curvature).for_each(|(v, c)| *v /= c);
        };
        let mut solver = Lbfgs::new(vec![1.0, -2.0, 3.0], solve, 1e-12);
        for _ in 0..2 {
            let point = solver.trial().to_vec();
            let terms = || point.iter().zip(&curvature);
            let value = terms().map(|(x, c)| c * x * x / 2.0).sum();
            assert_eq!(
                solver.tell(value, terms().map(|(x, c)| c * x).collect()),
                TrialOutcome::Accepted
            );
        }
        assert_eq!(solver.iterations, 1);
        assert!(solver.point.iter().all(|x| x.abs() < 1e-15));
    }

    #[test]
    fn values_never_rise_by_more_than_rounding() {
        let solve = |values: &mut [f64]| values.iter_mut().for_each(|value| *value *= 1e3);
        let mut solver = Lbfgs::new(vec![0.0; 12], solve, 1e-12);
        let mut last = f64::INFINITY;
        let mut shortened = 0;
        for _ in 0..200 {
            let (value, gradient) = cosh(solver.trial());
            match solver.tell(value, gradient) {
                TrialOutcome::Accepted => {
                    assert!(solver.value <= last * (1.0 + 1e-5));
                    last = solver.value;
                }
                TrialOutcome::Shortened => shortened += 1,
                TrialOutcome::Stuck => break,
            }
        }
        assert!(shortened > 0, "the first step is far too long");
    }
}
