//! From the states of tokens above layers of an encoder to the rows that a head reads, and back: documents that are
//! pooled, pairs of them, or the tokens that have outputs of their own.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

use super::NetworkInput;
use crate::{
    features::TokenRole,
    head::{matching, pair},
    train::{real::Real, vector::add_scaled},
};

/// What is made of the tokens of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenPooling {
    /// The mean of all tokens.
    Mean,
    /// The first token, `[CLS]`.
    Cls,
    /// The largest value of each unit among all tokens.
    Max,
    /// Nothing: a head has a row of outputs for each token whose role says so.
    Outputs,
    /// The same, where the head reads how candidates for an answer match the question's tokens in their window: see
    /// [`matching::features`].
    Matching,
}

impl TokenPooling {
    /// Whether tokens have rows of their own.
    pub(super) fn keeps_tokens(self) -> bool {
        matches!(self, TokenPooling::Outputs | TokenPooling::Matching)
    }
}

/// Which tokens of a pass attend to one another, and of which the rows are made that a head reads.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenPlan {
    /// The first row of each window, followed by the number of rows.
    pub(super) windows: Vec<usize>,
    /// The first row of each document, followed by the number of rows: one for each sample, or two.
    documents: Vec<usize>,
    /// The rows of the tokens that have outputs.
    pub(super) outputs: Vec<usize>,
    /// The windows with a question and candidates for its answer.
    questions: Vec<QuestionRows>,
}

/// The rows of a window in which an answer is looked for.
#[derive(Clone, Debug)]
struct QuestionRows {
    question: Vec<usize>,
    candidates: Vec<usize>,
    /// The places of the candidates among all rows with outputs.
    outputs: Vec<usize>,
}

impl TokenPlan {
    /// Plans a pass over samples, each of which is a document or, if `is_pair`, two of them.
    ///
    /// # Panics
    /// Panics if the first row begins no window.
    pub(super) fn set<F>(&mut self, input: &NetworkInput<'_, F>, is_pair: bool) {
        let NetworkInput { starts, roles, .. } = *input;
        let n_rows = input.rows.nrows();
        self.windows.clear();
        self.documents.clear();
        self.outputs.clear();
        self.questions.clear();
        if roles.is_empty() {
            self.windows.extend_from_slice(starts);
            self.outputs.extend(0..n_rows);
        } else {
            let rows_with = |counts: fn(&TokenRole) -> bool| {
                (0..n_rows).filter(move |row| counts(&roles[*row]))
            };
            self.windows.extend(rows_with(|role| role.begins_window));
            self.windows.push(n_rows);
            self.outputs.extend(rows_with(|role| role.is_output));
            for window in self.windows.windows(2) {
                let rows_with = |counts: fn(&TokenRole) -> bool| -> Vec<usize> {
                    (window[0]..window[1]).filter(|row| counts(&roles[*row])).collect()
                };
                let question = rows_with(|role| role.is_question);
                if !question.is_empty() {
                    let candidates = rows_with(|role| role.is_candidate && role.is_output);
                    let outputs = candidates.iter().map(|row| {
                        self.outputs.binary_search(row).expect("a candidate that has an output")
                    });
                    let outputs = outputs.collect();
                    self.questions.push(QuestionRows { question, candidates, outputs });
                }
            }
        }
        assert_eq!(self.windows.first(), Some(&0), "a window that the first row begins");
        if !is_pair {
            self.documents.extend_from_slice(starts);
            return;
        }
        let begins_document =
            |row: &usize| roles.get(*row).is_some_and(|role| role.begins_document);
        for sample in starts.windows(2) {
            let second = (sample[0] + 1..sample[1]).find(begins_document);
            self.documents.extend([sample[0], second.unwrap_or(sample[1])]);
        }
        self.documents.push(n_rows);
    }
}

/// How a head reads the states of tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenReader {
    /// Width of a state.
    pub(super) hidden: usize,
    pub(super) pooling: TokenPooling,
    /// Whether a sample is two documents, whose pooled states are compared: see [`pair`].
    pub(super) is_pair: bool,
}

impl TokenReader {
    /// Number of values of a row that the head reads.
    pub(super) fn width(&self) -> usize {
        match self.pooling {
            TokenPooling::Matching => matching::width(self.hidden, 1),
            _ if self.is_pair => pair::width(self.hidden),
            _ => self.hidden,
        }
    }

    /// Makes the rows that the head reads of the states of all tokens. `sides` keeps the pooled documents of pairs for
    /// [`TokenReader::scatter`].
    pub(super) fn gather<F: Real>(
        &self,
        plan: &TokenPlan,
        states: &[F],
        sides: &mut Vec<F>,
        read: &mut Vec<F>,
    ) {
        if self.pooling.keeps_tokens() {
            read.clear();
            read.resize(plan.outputs.len() * self.width(), F::zero());
            for (row, read) in plan.outputs.iter().zip(read.chunks_exact_mut(self.width())) {
                read[..self.hidden].copy_from_slice(self.row(states, *row));
            }
            if self.pooling == TokenPooling::Matching {
                self.match_questions(plan, states, read);
            }
        } else if self.is_pair {
            self.pool(states, &plan.documents, sides);
            read.resize(2 * sides.len(), F::zero());
            let pairs = sides.chunks_exact(2 * self.hidden);
            for (both, read) in pairs.zip(read.chunks_exact_mut(self.width())) {
                let (u, v) = both.split_at(self.hidden);
                pair::forward(u, v, read);
            }
        } else {
            self.pool(states, &plan.documents, read);
        }
    }

    /// Writes `dL/dstates`, given `dL/dread` of the rows that [`TokenReader::gather`] made of `states`; `d_sides` is
    /// scratch space.
    pub(super) fn scatter<F: Real>(
        &self,
        plan: &TokenPlan,
        [states, sides]: [&[F]; 2],
        d_read: &[F],
        d_sides: &mut Vec<F>,
        d_states: &mut [F],
    ) {
        d_states.fill(F::zero());
        if self.pooling.keeps_tokens() {
            for (row, d_read) in plan.outputs.iter().zip(d_read.chunks_exact(self.width())) {
                self.row_mut(d_states, *row).copy_from_slice(&d_read[..self.hidden]);
            }
            if self.pooling == TokenPooling::Matching {
                self.match_backward(plan, states, d_read, d_states);
            }
        } else if self.is_pair {
            d_sides.resize(sides.len(), F::zero());
            let d_pairs = d_sides.chunks_exact_mut(2 * self.hidden);
            let pairs = sides.chunks_exact(2 * self.hidden).zip(d_pairs);
            for ((both, d_both), d_read) in pairs.zip(d_read.chunks_exact(self.width())) {
                let (u, v) = both.split_at(self.hidden);
                let (d_u, d_v) = d_both.split_at_mut(self.hidden);
                pair::backward(u, v, d_read, d_u, d_v);
            }
            self.pool_backward(states, d_sides, &plan.documents, d_states);
        } else {
            self.pool_backward(states, d_read, &plan.documents, d_states);
        }
    }

    /// Writes how the candidates of each window match its question after their states.
    fn match_questions<F: Real>(&self, plan: &TokenPlan, states: &[F], read: &mut [F]) {
        let states = matrix(states, self.hidden);
        let mut read = ArrayViewMut2::from_shape((plan.outputs.len(), self.width()), read)
            .expect("a row for each output");
        for QuestionRows { question, candidates, outputs } in &plan.questions {
            let question = states.select(Axis(0), question);
            let candidates = states.select(Axis(0), candidates);
            let mut features = Array2::zeros((outputs.len(), self.width()));
            matching::features(candidates.view(), question.view(), 1, features.view_mut());
            for (output, features) in outputs.iter().zip(features.rows()) {
                read.row_mut(*output).assign(&features);
            }
        }
    }

    /// Adds `dL/dstates` of [`TokenReader::match_questions`].
    fn match_backward<F: Real>(
        &self,
        plan: &TokenPlan,
        states: &[F],
        d_read: &[F],
        d_states: &mut [F],
    ) {
        let (states, d_read) = (matrix(states, self.hidden), matrix(d_read, self.width()));
        for QuestionRows { question, candidates, outputs } in &plan.questions {
            let own = [candidates, question].map(|rows| states.select(Axis(0), rows));
            let d_features = d_read.select(Axis(0), outputs);
            let mut d_own = own.each_ref().map(|own| Array2::zeros(own.dim()));
            let views = own.each_ref().map(Array2::view);
            let d_views = d_own.each_mut().map(Array2::view_mut);
            matching::add_gradient(views, d_features.view(), d_views);
            for (rows, d_own) in [candidates, question].into_iter().zip(&d_own) {
                for (row, d_row) in rows.iter().zip(d_own.rows()) {
                    let d_row = d_row.to_slice().expect("rows one after the other");
                    add_scaled(self.row_mut(d_states, *row), F::one(), d_row);
                }
            }
        }
    }

    /// Pools the rows of each document into `pooled`, `[documents, hidden]`; a document without rows gives zeros.
    fn pool<F: Real>(&self, states: &[F], documents: &[usize], pooled: &mut Vec<F>) {
        pooled.clear();
        pooled.resize((documents.len() - 1) * self.hidden, F::zero());
        if self.pooling == TokenPooling::Max {
            return self
                .for_each_largest(states, documents, |value, from| pooled[value] = states[from]);
        }
        self.for_each_share(documents, |document, row, share| {
            add_scaled(self.row_mut(pooled, document), share, self.row(states, row));
        });
    }

    /// Adds `dL/dstates` of [`TokenReader::pool`]; of equal largest values, the first one counts.
    fn pool_backward<F: Real>(
        &self,
        states: &[F],
        d_pooled: &[F],
        documents: &[usize],
        d_states: &mut [F],
    ) {
        if self.pooling == TokenPooling::Max {
            return self.for_each_largest(states, documents, |value, from| {
                d_states[from] += d_pooled[value];
            });
        }
        self.for_each_share(documents, |document, row, share| {
            add_scaled(self.row_mut(d_states, row), share, self.row(d_pooled, document));
        });
    }

    /// Visits every row that counts in a document: the document, the row, and its share.
    fn for_each_share<F: Real>(&self, documents: &[usize], mut visit: impl FnMut(usize, usize, F)) {
        for (document, bounds) in documents.windows(2).enumerate() {
            let rows = match self.pooling {
                TokenPooling::Cls => bounds[0]..bounds[1].min(bounds[0] + 1),
                _ => bounds[0]..bounds[1],
            };
            let share = F::one() / F::of(rows.len().max(1) as f64);
            rows.for_each(|row| visit(document, row, share));
        }
    }

    /// Visits every value of the documents that have rows: its place, and that of the largest state of its unit.
    fn for_each_largest<F: Real>(
        &self,
        states: &[F],
        documents: &[usize],
        mut visit: impl FnMut(usize, usize),
    ) {
        for (document, bounds) in documents.windows(2).enumerate() {
            for unit in 0..self.hidden {
                let mut places = (bounds[0]..bounds[1]).map(|row| row * self.hidden + unit);
                let Some(first) = places.next() else { break };
                let largest =
                    places.fold(
                        first,
                        |best, place| if states[place] > states[best] { place } else { best },
                    );
                visit(document * self.hidden + unit, largest);
            }
        }
    }

    fn row<'a, F>(&self, rows: &'a [F], row: usize) -> &'a [F] {
        &rows[row * self.hidden..(row + 1) * self.hidden]
    }

    fn row_mut<'a, F>(&self, rows: &'a mut [F], row: usize) -> &'a mut [F] {
        &mut rows[row * self.hidden..(row + 1) * self.hidden]
    }
}

fn matrix<F>(values: &[F], width: usize) -> ArrayView2<'_, F> {
    ArrayView2::from_shape((values.len() / width, width), values).expect("whole rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> Array2<f64> {
        Array2::from_shape_fn((9, 6), |(row, unit)| (row * 6 + unit) as f64)
    }

    /// The first value of each row that a head reads of samples of 4, 1, 0 and 4 tokens.
    fn first_values(pooling: TokenPooling, is_pair: bool, roles: &[TokenRole]) -> Vec<f64> {
        let states = states();
        let input = NetworkInput { rows: states.view(), starts: &[0, 4, 5, 5, 9], roles };
        let mut plan = TokenPlan::default();
        plan.set(&input, is_pair);
        let reader = TokenReader { hidden: 6, pooling, is_pair };
        let mut read = vec![f64::NAN; 3];
        reader.gather(&plan, states.as_slice().unwrap(), &mut Vec::new(), &mut read);
        read.into_iter().step_by(reader.width()).collect()
    }

    #[test]
    fn a_sample_is_pooled_to_the_mean_the_first_or_the_largest_of_its_rows() {
        assert_eq!(first_values(TokenPooling::Max, false, &[]), [18.0, 24.0, 0.0, 48.0]);
        assert_eq!(first_values(TokenPooling::Mean, false, &[]), [9.0, 24.0, 0.0, 39.0]);
        assert_eq!(first_values(TokenPooling::Cls, false, &[]), [0.0, 24.0, 0.0, 30.0]);
    }

    #[test]
    fn documents_are_pooled_over_their_windows_and_tokens_attend_within_them() {
        let documents = [vec![3, 1], vec![1], vec![], vec![2, 2]];
        let roles = TokenRole::of_documents(documents.into_iter().map(Vec::into_iter));
        assert_eq!(first_values(TokenPooling::Mean, false, &roles), [9.0, 24.0, 0.0, 39.0]);
        let states = states();
        let input = NetworkInput { rows: states.view(), starts: &[0, 4, 5, 5, 9], roles: &roles };
        let mut plan = TokenPlan::default();
        plan.set(&input, false);
        assert_eq!(plan.windows, [0, 3, 4, 5, 7, 9]);
    }

    #[test]
    fn the_documents_of_a_pair_are_pooled_by_themselves() {
        let documents = [vec![3], vec![1], vec![1], vec![2], vec![1, 1]];
        let roles = TokenRole::of_documents(documents.into_iter().map(Vec::into_iter));
        // u of each pair.
        assert_eq!(first_values(TokenPooling::Mean, true, &roles), [6.0, 24.0, 0.0, 33.0]);
        let states = states();
        let input = NetworkInput { rows: states.view(), starts: &[0, 4, 5, 5, 9], roles: &roles };
        let mut plan = TokenPlan::default();
        plan.set(&input, true);
        assert_eq!(plan.documents, [0, 3, 4, 5, 5, 5, 5, 7, 9]);
    }

    #[test]
    fn tokens_with_outputs_are_read_as_they_are() {
        let mut roles = vec![TokenRole::default(); 9];
        roles[0].begins_window = true;
        for row in [1, 2, 8] {
            roles[row].is_output = true;
        }
        assert_eq!(first_values(TokenPooling::Outputs, false, &roles), [6.0, 12.0, 48.0]);
    }
}
