//! Which problems are solved together, which one after the other, and when they stop.

use frostbert_cache::{progress::Progress, wording::counted};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::{
    LogisticSettings,
    curvature::Curvature,
    lbfgs::{Lbfgs, TrialOutcome},
    objective::{Evaluation, EvaluationPoint, LogisticProblem, evaluate},
    rows::TurnedRows,
};
use crate::head::row_groups::RowGroups;

/// Maximum number of columns of narrow problems that are evaluated together; a wider problem is evaluated alone.
const BLOCK_COLUMNS: usize = 64;

/// A problem leaves f32 when ten steps together gain no more than this share of the value.
const LEAST_PROGRESS: f64 = 1e-12;

/// The problems of one job, by number.
enum Job {
    /// Solved in lockstep, with their columns side by side.
    Together(Vec<usize>),
    /// Solved one after the other, each starting from the previous result.
    InTurn(Vec<usize>),
}

/// Packs narrow problems into blocks, in order, and chains wide ones with the same rows and weights by ascending C.
fn jobs(problems: &[LogisticProblem]) -> Vec<Job> {
    let mut blocks: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for (number, problem) in problems.iter().enumerate() {
        let columns = problem.n_columns();
        if columns * 2 <= BLOCK_COLUMNS {
            match blocks.last_mut().filter(|(used, _)| used + columns <= BLOCK_COLUMNS) {
                Some((used, block)) => {
                    *used += columns;
                    block.push(number);
                }
                None => blocks.push((columns, vec![number])),
            }
            continue;
        }
        let same = rows.iter_mut().find(|row| {
            let first = &problems[row[0]];
            first.groups == problem.groups && first.class_weights == problem.class_weights
        });
        match same {
            Some(row) => row.push(number),
            None => rows.push(vec![number]),
        }
    }
    for row in &mut rows {
        row.sort_by(|one, other| problems[*one].c.total_cmp(&problems[*other].c));
    }
    let blocks = blocks.into_iter().map(|(_, block)| Job::Together(block));
    blocks.chain(rows.into_iter().map(Job::InTurn)).collect()
}

/// Number of steps between two progress reports.
const STEPS_TOLD: usize = 5;

/// The result of a problem.
pub(super) struct Solved {
    /// `[n_features + 1, columns]`, for rotated features.
    pub(super) point: Array2<f64>,
    pub(super) value: f64,
    pub(super) gradient_norm: f64,
    pub(super) iterations: usize,
    pub(super) evaluations: usize,
}

/// What all jobs share.
pub(super) struct Solver<'a> {
    pub(super) data: &'a TurnedRows,
    pub(super) groups: &'a RowGroups,
    pub(super) settings: LogisticSettings,
    pub(super) progress: &'a dyn Progress,
}

impl Solver<'_> {
    /// Returns the minima of all problems, in order.
    pub(super) fn solve(&self, problems: &[LogisticProblem]) -> Vec<Solved> {
        let mut solved: Vec<(usize, Solved)> =
            jobs(problems).into_par_iter().flat_map_iter(|job| self.work(problems, job)).collect();
        solved.sort_by_key(|(number, _)| *number);
        solved.into_iter().map(|(_, solved)| solved).collect()
    }

    fn work(&self, problems: &[LogisticProblem], job: Job) -> Vec<(usize, Solved)> {
        match job {
            Job::Together(block) => {
                let running = block.iter().map(|number| {
                    let problem = &problems[*number];
                    Running::new(problem, self.rates(problem), self.data)
                });
                let solved = self.minimize(running.collect());
                block.into_iter().zip(solved).collect()
            }
            Job::InTurn(row) => {
                let mut done: Vec<(usize, Solved)> = Vec::with_capacity(row.len());
                let mut path: Vec<(f64, Array2<f64>)> = Vec::new();
                for number in row {
                    let problem = &problems[number];
                    let running = self.best(problem, self.starts(problem, &path));
                    let solved = self.minimize(vec![running]).remove(0);
                    path.push((problem.c.ln(), solved.point.clone()));
                    done.push((number, solved));
                }
                done
            }
        }
    }

    /// Candidate starting points of a problem, given the `log C` and the minimum of each earlier problem.
    fn starts(&self, problem: &LogisticProblem, path: &[(f64, Array2<f64>)]) -> Vec<Array2<f64>> {
        let [.., (last_at, last)] = path else {
            return vec![self.rates(problem)];
        };
        let mut starts = vec![last.clone()];
        if let [.., (before_at, before), _] = path {
            let ahead = (problem.c.ln() - last_at) / (last_at - before_at);
            // Two problems with the same C define no line.
            if ahead.is_finite() {
                starts.push(last + &((last - before) * ahead));
            }
        }
        starts
    }

    /// The point with zero weights whose biases give the class frequencies.
    fn rates(&self, problem: &LogisticProblem) -> Array2<f64> {
        let n_features = self.data.rows.ncols();
        let mut point = Array2::zeros((n_features + 1, problem.n_columns()));
        let mut bias = point.row_mut(n_features);
        let logarithms: Array1<f64> = problem.row_weights.iter().map(|w| w.ln()).collect();
        if problem.n_columns() == logarithms.len() {
            bias.assign(&(logarithms - problem.total_weight.ln()))
        } else {
            bias[0] = logarithms[1] - logarithms[0]
        }
        point
    }

    /// Returns the problem at the starting point with the lowest value.
    fn best<'p>(&self, problem: &'p LogisticProblem, starts: Vec<Array2<f64>>) -> Running<'p> {
        let n_starts = starts.len();
        let requests: Vec<EvaluationPoint<'_>> =
            starts.iter().map(|start| EvaluationPoint { problem, point: start.view() }).collect();
        let found = evaluate::<f32>(self.data, self.groups, &requests);
        let all = starts.iter().zip(found);
        let (start, evaluation) = all
            .min_by(|one, other| one.1.value.total_cmp(&other.1.value))
            .expect("at least one start");
        let mut running = Running::new(problem, start.clone(), self.data);
        running.evaluations = n_starts - 1;
        running.take(evaluation, self.data, self.settings);
        running
    }

    /// Runs some problems to the end, evaluating all of them in one pass per step.
    fn minimize(&self, mut problems: Vec<Running<'_>>) -> Vec<Solved> {
        for step in 1.. {
            let mut active: Vec<&mut Running<'_>> =
                problems.iter_mut().filter(|running| !running.is_done).collect();
            if active.is_empty() {
                break;
            }
            if step % STEPS_TOLD == 0 {
                let n_left = counted(active.len(), "fit");
                let detail =
                    format!("step {step} of logistic regression, {n_left} not at their minimum");
                self.progress.detail(&detail);
            }
            active.sort_by_key(|running| running.is_exact);
            let n_fast = active.partition_point(|running| !running.is_exact);
            let requests: Vec<EvaluationPoint<'_>> =
                active.iter().map(|running| running.request()).collect();
            let (fast, exact) = requests.split_at(n_fast);
            let mut found = Vec::with_capacity(active.len());
            if !fast.is_empty() {
                found.extend(evaluate::<f32>(self.data, self.groups, fast));
            }
            if !exact.is_empty() {
                found.extend(evaluate::<f64>(self.data, self.groups, exact));
            }
            let taken: Vec<_> = active.into_iter().zip(found).collect();
            taken.into_par_iter().for_each(|(running, evaluation)| {
                running.take(evaluation, self.data, self.settings);
                if running.is_done {
                    self.progress.advance(1, 0);
                }
            });
        }
        problems.into_iter().map(Running::into_solved).collect()
    }
}

/// Multiplies by the inverse of a problem's curvature.
type Solve = Box<dyn Fn(&mut [f64]) + Send + Sync>;

/// A problem that is being solved.
struct Running<'p> {
    problem: &'p LogisticProblem,
    solver: Lbfgs<Solve>,
    gradient_norm: f64,
    iterations_before: usize,
    evaluations: usize,
    /// Whether f32 rounding hid further progress, so that the problem is now evaluated in f64.
    is_exact: bool,
    is_done: bool,
}

impl<'p> Running<'p> {
    fn new(problem: &'p LogisticProblem, start: Array2<f64>, data: &TurnedRows) -> Running<'p> {
        Running {
            problem,
            solver: solver(problem, start.into_raw_vec_and_offset().0, data, LEAST_PROGRESS),
            gradient_norm: f64::INFINITY,
            iterations_before: 0,
            evaluations: 0,
            is_exact: false,
            is_done: false,
        }
    }

    fn iterations(&self) -> usize {
        self.iterations_before + self.solver.iterations
    }

    fn request(&self) -> EvaluationPoint<'_> {
        EvaluationPoint { problem: self.problem, point: matrix(self.solver.trial(), self.problem) }
    }

    fn take(&mut self, evaluation: Evaluation, data: &TurnedRows, settings: LogisticSettings) {
        self.evaluations += 1;
        let gradient = evaluation.gradient.into_raw_vec_and_offset().0;
        let outcome = self.solver.tell(evaluation.value, gradient);
        if outcome != TrialOutcome::Shortened {
            let gradient = matrix(&self.solver.gradient, self.problem);
            let (weights, bias) = gradient.split_at(Axis(0), data.rows.ncols());
            let bias = bias.row(0).to_owned();
            self.gradient_norm = data.gradient_norm(weights, &bias, settings.tolerance);
        }
        // A problem with one class has nothing to learn: its gradient is 0.
        self.is_done = self.gradient_norm <= settings.tolerance
            || self.iterations() >= settings.max_iterations
            || !self.solver.value.is_finite();
        if outcome != TrialOutcome::Stuck || self.is_done {
            return;
        }
        if self.is_exact {
            self.is_done = true;
        } else {
            self.is_exact = true;
            self.iterations_before = self.iterations();
            let point = std::mem::take(&mut self.solver.point);
            self.solver = solver(self.problem, point, data, f64::NEG_INFINITY);
        }
    }

    fn into_solved(self) -> Solved {
        Solved {
            point: matrix(&self.solver.point, self.problem).to_owned(),
            value: self.solver.value,
            gradient_norm: self.gradient_norm,
            iterations: self.iterations(),
            evaluations: self.evaluations,
        }
    }
}

/// Creates a solver that starts at a point, with the problem's curvature.
fn solver(
    problem: &LogisticProblem,
    start: Vec<f64>,
    data: &TurnedRows,
    least_progress: f64,
) -> Lbfgs<Solve> {
    let curvature = Curvature::new(problem, data);
    let solve: Solve = Box::new(move |values| curvature.solve(values));
    Lbfgs::new(start, solve, least_progress)
}

/// `[n_features + 1, columns]`.
fn matrix<'a>(values: &'a [f64], problem: &LogisticProblem) -> ArrayView2<'a, f64> {
    let columns = problem.n_columns();
    ArrayView2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}
