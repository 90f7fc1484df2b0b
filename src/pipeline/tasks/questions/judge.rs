//! What a head says of some questions, and what that is worth.

use ndarray::{ArrayView2, s};

use super::{Found, Questions, answered, context_of};
use crate::{
    data::dataset::Dataset,
    error::Result,
    head::{bank::Judge, outputs::OutputHead},
    metrics::{
        outputs::{OutputRows, gathered},
        span::{self, AnsweredQuestion},
    },
    pipeline::tasks::{
        judges::defined,
        said::{Listener, Said, Tuned},
    },
};

/// Scores answers on the validation questions, with no answer wherever its score is the higher one.
pub(crate) struct QuestionJudge<'a> {
    pub(super) questions: Vec<usize>,
    pub(super) of: &'a Questions,
    pub(super) dataset: &'a Dataset,
}

impl QuestionJudge<'_> {
    /// What outputs say of every question.
    fn found(&self, logits: ArrayView2<'_, f32>) -> Vec<Found> {
        let mut first = 0;
        let mut all = Vec::with_capacity(self.questions.len());
        for question in &self.questions {
            let windows = self.of.start[*question]..self.of.start[*question + 1];
            let mut outputs = Vec::new();
            for window in windows {
                let n = self.of.n_candidates(window);
                outputs.push(logits.slice(s![first..first + n, ..]));
                first += n;
            }
            all.push(self.of.join(*question, outputs.into_iter()));
        }
        all
    }

    /// The answer to every question.
    fn predicted(&self, logits: ArrayView2<'_, f32>) -> Vec<Option<String>> {
        let found = self.found(logits);
        let answers = self.questions.iter().zip(&found).map(|(question, found)| {
            let row = &self.dataset.rows[*question];
            let answer = found.answer(self.of.may_be_impossible.then_some(0.0));
            answer.map(|(start, end, _)| context_of(row, start, end))
        });
        answers.collect()
    }
}

impl Listener for QuestionJudge<'_> {
    fn rows(&self) -> Vec<u32> {
        self.questions.iter().map(|row| *row as u32).collect()
    }

    fn said(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Said {
        Said::Answers(self.predicted(logits))
    }

    fn tuned(&self, logits: &dyn OutputRows) -> Result<Tuned> {
        let logits = gathered(logits)?;
        let tune = || {
            let found = self.found(logits.view());
            let all = self.questions.iter().map(|question| *question as u32);
            self.of.tune(self.dataset, all.zip(&found))
        };
        Ok(Tuned { no_answer_threshold: self.of.may_be_impossible.then(tune), ..Tuned::default() })
    }
}

impl Judge for QuestionJudge<'_> {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(&'static str, f64)> {
        let questions = self.questions.iter().zip(self.predicted(logits));
        let answers: Vec<AnsweredQuestion> =
            questions.map(|(row, answer)| answered(&self.dataset.rows[*row], answer)).collect();
        let metrics = span::evaluate(&answers, None);
        defined(vec![("f1", metrics.f1), ("exact_match", metrics.exact_match)])
    }
}
