//! What a trivial answer to questions is worth: a random span of the context, or never answering.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    data::{Part, dataset::Dataset},
    metrics::span::{self, AnsweredQuestion},
    tasks::{
        measure::{ALWAYS_NO_ANSWER, Baseline},
        predictions::answered,
        questions::{QuestionTask, context_of},
    },
};

/// Number of random spans that are drawn for each question.
const RANDOM_SPANS: usize = 20;

impl QuestionTask {
    /// Scores random spans of the context on test, as the mean over several draws.
    pub(super) fn random_spans(&self, dataset: &Dataset, seed: u64) -> Option<Baseline> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut questions = Vec::new();
        for row in dataset.part(Part::Test) {
            let number = row as usize;
            let windows = &self.windows[self.start[number]..self.start[number + 1]];
            // A token that two windows share counts once.
            let mut offsets: Vec<(usize, usize)> = Vec::new();
            for token in windows.iter().flat_map(|window| &window.offsets) {
                if offsets.last().is_none_or(|last| last.0 < token.0) {
                    offsets.push(*token);
                }
            }
            for _ in 0..RANDOM_SPANS {
                let span = (!offsets.is_empty()).then(|| {
                    let start = random.gen_range(0..offsets.len());
                    let n_tokens = random.gen_range(1..=self.max_answer_tokens);
                    let end = (start + n_tokens).min(offsets.len()) - 1;
                    (offsets[start].0, offsets[end].1)
                });
                let row = &dataset.rows[number];
                let answer = span.map(|(start, end)| context_of(row, start, end));
                questions.push(answered(row, answer));
            }
        }
        (!questions.is_empty()).then(|| {
            let scores = |questions: &[AnsweredQuestion]| {
                serde_json::json!(span::evaluate(questions, None).scores)
            };
            let mut metrics = scores(&questions);
            if self.may_be_impossible {
                let test = dataset.part(Part::Test).into_iter();
                let silent: Vec<AnsweredQuestion> =
                    test.map(|row| answered(&dataset.rows[row as usize], None)).collect();
                metrics[ALWAYS_NO_ANSWER] = scores(&silent);
            }
            let description = format!(
                "a random span of at most {} tokens, the mean of {RANDOM_SPANS} draws",
                self.max_answer_tokens
            );
            Baseline::new(description, &metrics)
        })
    }
}
