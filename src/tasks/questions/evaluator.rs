//! The answers of a head to some questions, and their metrics.

use ndarray::{ArrayView2, s};

use crate::{
    data::dataset::Dataset,
    error::Result,
    head::{bank::Evaluator, outputs::OutputHead},
    metrics::{
        metric::Metric,
        outputs::{OutputRows, gathered},
        span::{self, AnsweredQuestion},
    },
    tasks::{
        predictions::{Calibration, PredictionEvaluator, Predictions, answered},
        questions::{FoundAnswer, QuestionTask, context_of},
    },
};

/// The evaluator of answers on the validation questions. If some questions have no answer, "no answer" is predicted
/// wherever it scores higher than the span.
pub(super) struct QuestionEvaluator<'a> {
    pub(super) questions: Vec<usize>,
    pub(super) task: &'a QuestionTask,
    pub(super) dataset: &'a Dataset,
}

impl QuestionEvaluator<'_> {
    /// Returns the answers that the outputs predict for every question, with their scores.
    fn found(&self, logits: ArrayView2<'_, f32>) -> Vec<FoundAnswer> {
        let mut first = 0;
        let mut all = Vec::with_capacity(self.questions.len());
        for question in &self.questions {
            let windows = self.task.start[*question]..self.task.start[*question + 1];
            let mut outputs = Vec::new();
            for window in windows {
                let n = self.task.n_candidates(window);
                outputs.push(logits.slice(s![first..first + n, ..]));
                first += n;
            }
            all.push(self.task.join(*question, outputs.into_iter()));
        }
        all
    }

    /// The answer to every question; none wherever its score is the higher one.
    fn predicted(&self, logits: ArrayView2<'_, f32>) -> Vec<Option<String>> {
        self.answers(logits, self.task.may_be_impossible.then_some(0.0))
    }

    /// The answer to every question; none wherever its score is higher by more than a threshold.
    fn answers(&self, logits: ArrayView2<'_, f32>, threshold: Option<f64>) -> Vec<Option<String>> {
        let found = self.found(logits);
        let answers = self.questions.iter().zip(&found).map(|(question, found)| {
            let row = &self.dataset.rows[*question];
            let answer = found.answer(threshold);
            answer.map(|(start, end, _)| context_of(row, start, end))
        });
        answers.collect()
    }
}

impl PredictionEvaluator for QuestionEvaluator<'_> {
    fn rows(&self) -> Vec<u32> {
        self.questions.iter().map(|row| *row as u32).collect()
    }

    fn predictions(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Predictions {
        Predictions::Answers(self.predicted(logits))
    }

    fn is_tuned(&self) -> bool {
        self.task.may_be_impossible
    }

    fn tuned(&self, logits: ArrayView2<'_, f32>, calibration: &Calibration) -> Option<Predictions> {
        let threshold = calibration.no_answer_threshold?;
        Some(Predictions::Answers(self.answers(logits, Some(threshold))))
    }

    fn is_calibrated(&self) -> bool {
        self.task.may_be_impossible
    }

    fn calibration(&self, logits: &dyn OutputRows) -> Result<Calibration> {
        let logits = gathered(logits)?;
        let tune = || {
            let found = self.found(logits.view());
            let all = self.questions.iter().map(|question| *question as u32);
            self.task.tune(self.dataset, all.zip(&found))
        };
        Ok(Calibration {
            no_answer_threshold: self.task.may_be_impossible.then(tune),
            ..Calibration::default()
        })
    }
}

impl Evaluator for QuestionEvaluator<'_> {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(Metric, f64)> {
        let questions = self.questions.iter().zip(self.predicted(logits));
        let answers: Vec<AnsweredQuestion> =
            questions.map(|(row, answer)| answered(&self.dataset.rows[*row], answer)).collect();
        span::evaluate(&answers, None).scores.values(&[Metric::F1, Metric::ExactMatch])
    }
}
