//! Questions with a span of their context as an answer, or none.

mod evaluator;

use frostbert_cache::{reader::CacheReader, states::StateId};
use ndarray::{ArrayView2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    config::settings::{KindSettings, Pipeline},
    data::{Part, dataset::Dataset, example::Example},
    encoder::windows::Overflow,
    error::Result,
    features::{FeatureView, pieces},
    head::{
        row_maps::WindowRows, saved::Head, span::join_windows, spec::Objective,
        targets::TargetTable,
    },
    metrics::{
        metric::Metric,
        span::{self, AnsweredQuestion, NullScore, best_no_answer_threshold},
    },
    report::tables::Table,
    tasks::{
        CalibrationRows, TaskExtras, TaskMetrics, TaskResult, TaskRows,
        characters::characters,
        measure::{Baseline, RunMetrics},
        measured,
        predictions::answered,
        questions::evaluator::QuestionEvaluator,
        row_columns,
        windows::{AnswerPlace, QuestionWindow, Unseen, windows_of},
    },
};

/// What a task of questions knows beside what a head needs.
pub(crate) struct Questions {
    /// All windows, those of a question one after the other.
    windows: Vec<QuestionWindow>,
    /// First window of each question, and the number of windows.
    start: Vec<usize>,
    /// Whether the answer of a question lies in none of its windows as a whole.
    is_unseen: Vec<bool>,
    max_answer_tokens: usize,
    /// Whether a question of train or validation has no answer, so that "no answer" is one.
    may_be_impossible: bool,
}

/// The answer of a head to a question.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundAnswer {
    /// First character in the context and the one after the last, and the score of the span; `None` without a context token.
    pub(crate) span: Option<(usize, usize, f64)>,
    /// The score of no answer.
    pub(crate) null_score: f64,
}

impl FoundAnswer {
    /// By how much no answer scores higher than the span.
    fn margin(&self) -> f64 {
        self.span.map_or(f64::INFINITY, |(.., score)| self.null_score - score)
    }

    /// The span, unless no answer is the answer: its margin is above the threshold. Without one there is always a span.
    pub(crate) fn answer(&self, threshold: Option<f64>) -> Option<(usize, usize, f64)> {
        let is_null = threshold.is_some_and(|threshold| self.margin() > threshold);
        self.span.filter(|_| !is_null)
    }
}

/// A sample for each window of a question: its candidates are its first token and the context.
pub(super) fn rows<'c>(
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &'c CacheReader,
    states: &[StateId],
) -> Result<TaskRows<'c>> {
    let keys = dataset.keys();
    let mut windows_of_question: Vec<Vec<QuestionWindow>> = vec![Vec::new(); keys.len()];
    let may_be_cut = pipeline.extraction.overflow == Overflow::Truncate;
    let mut is_cut = vec![false; keys.len()];
    let documents = pieces::locate(cache, states, &keys, |place, layout, document| {
        let context = dataset.rows[place].text_pair.as_deref().unwrap_or_default();
        windows_of_question[place] = windows_of(layout, document, context, may_be_cut);
        is_cut[place] = may_be_cut && layout.documents.truncated(document);
    })?;
    let mut questions = Questions::new(pipeline, windows_of_question, is_impossible_in(dataset));
    let view = questions.view(pipeline, states.len(), &documents, |pieces, sample_start| {
        let memory_bytes = pipeline.memory_bytes;
        FeatureView::new(cache, states, pieces, sample_start, memory_bytes)
    })?;
    let windows = questions.start.windows(2).map(|bounds| bounds[1] - bounds[0]);
    let keys = keys
        .into_iter()
        .zip(windows)
        .flat_map(|(key, n_windows)| std::iter::repeat_n(key, n_windows))
        .collect();
    let mut spans = Vec::new();
    let mut unseen = Unseen::default();
    for (number, row) in dataset.rows.iter().enumerate() {
        let windows = &questions.windows[questions.start[number]..questions.start[number + 1]];
        let answer = row.spans().next().map(|answer| {
            // Blanks around an answer belong to no token.
            let n_blank = answer.text.chars().take_while(|c| c.is_whitespace()).count();
            let start = answer.start + n_blank;
            let end = start + answer.text.trim().chars().count();
            AnswerPlace::find(windows, start, end, is_cut[number])
        });
        let own = windows.iter().map(|window| window.span_of(answer.flatten()?));
        let own: Vec<Option<[u32; 2]>> = own.collect();
        let is_seen = own.iter().any(Option::is_some);
        if answer.is_some() && !is_seen {
            if row.part == Part::Train {
                unseen.count(row, answer.flatten().is_some());
            }
            questions.is_unseen[number] = true;
        }
        // Row 0 of a window is no answer.
        spans.extend(own.into_iter().map(|span| span.unwrap_or([0, 0])));
    }
    let parts = Part::ALL.map(|part| questions.windows_of_rows(dataset, &dataset.part(part)));
    Ok(TaskRows {
        view,
        targets: TargetTable::Spans(spans),
        parts,
        objective: Objective::Span,
        n_outputs: 2,
        keys,
        own: TaskExtras::Questions(questions),
        warnings: unseen.warning().into_iter().collect(),
    })
}

fn is_impossible_in(dataset: &Dataset) -> bool {
    let mut seen = dataset.rows.iter().filter(|row| row.part != Part::Test);
    seen.any(|row| row.target.answers().is_empty())
}

impl Questions {
    pub(crate) fn new(
        pipeline: &Pipeline,
        windows_of_question: Vec<Vec<QuestionWindow>>,
        may_be_impossible: bool,
    ) -> Questions {
        let mut start = vec![0];
        for windows in &windows_of_question {
            start.push(start[start.len() - 1] + windows.len());
        }
        Questions {
            is_unseen: vec![false; windows_of_question.len()],
            windows: windows_of_question.into_iter().flatten().collect(),
            start,
            max_answer_tokens: pipeline.head.max_answer_tokens,
            may_be_impossible,
        }
    }

    /// The view of all windows: candidates alone, or their features of the matching head. `make` makes the view of the
    /// windows' stored rows from their pieces and the first piece of each.
    pub(crate) fn view<'c>(
        &self,
        pipeline: &Pipeline,
        n_layers: usize,
        documents: &pieces::Pieces,
        make: impl FnOnce(pieces::Pieces, Vec<u32>) -> Result<FeatureView<'c>>,
    ) -> Result<FeatureView<'c>> {
        let parts = (0..self.start.len() - 1).flat_map(|question| {
            let windows = self.start[question]..self.start[question + 1];
            windows.map(move |window| (question, self.windows[window].rows.clone()))
        });
        let pieces = documents.parts(parts);
        let sample_start = (0..=self.windows.len() as u32).collect();
        let shapes = self.windows.iter().map(|window| window.shape.clone());
        Ok(make(pieces, sample_start)?.mapped(Box::new(WindowRows {
            shapes: shapes.collect(),
            n_layers,
            matching: matches!(pipeline.head.kind, KindSettings::Matching(..)),
        })))
    }

    /// The span that outputs on the windows of a question predict.
    fn join<'a>(
        &self,
        question: usize,
        outputs: impl Iterator<Item = ArrayView2<'a, f32>>,
    ) -> FoundAnswer {
        let joined = join_windows(outputs, self.max_answer_tokens);
        let span = joined.best.map(|(window, span)| {
            let offsets = &self.windows[self.start[question] + window].offsets;
            let (start, end) = (offsets[span.start - 1].0, offsets[span.end - 1].1);
            (start, end, span.score)
        });
        FoundAnswer { span, null_score: joined.null_score }
    }

    /// The answer of a head to every question.
    pub(crate) fn find(&self, view: &FeatureView<'_>, head: &Head) -> Result<Vec<FoundAnswer>> {
        let n_questions = self.start.len() - 1;
        let all: Vec<u32> = (0..self.windows.len() as u32).collect();
        let mut outputs = vec![ndarray::Array2::zeros((0, 2)); self.windows.len()];
        head.for_each_output(view, &all, |samples, starts, logits| {
            for (number, sample) in samples.iter().enumerate() {
                let own = logits.slice(s![starts[number]..starts[number + 1], ..]);
                outputs[*sample as usize] = own.to_owned();
            }
        })?;
        let found = (0..n_questions).map(|question| {
            let windows = self.start[question]..self.start[question + 1];
            self.join(question, outputs[windows].iter().map(|output| output.view()))
        });
        Ok(found.collect())
    }

    /// The windows of some questions from which there is something to learn: a question whose answers all stand elsewhere
    /// than they say teaches nothing, nor does one whose answer lies in no window as a whole.
    pub(super) fn windows_of_rows(&self, dataset: &Dataset, rows: &[u32]) -> Vec<u32> {
        let is_taught = |row: &&u32| {
            let is_unseen = self.is_unseen[**row as usize];
            let row = &dataset.rows[**row as usize];
            !is_unseen && (row.spans().next().is_some() || row.target.answers().is_empty())
        };
        rows.iter()
            .filter(is_taught)
            .flat_map(|row| {
                let question = *row as usize;
                self.start[question] as u32..self.start[question + 1] as u32
            })
            .collect()
    }

    pub(super) fn evaluator<'a>(
        &'a self,
        dataset: &'a Dataset,
        validation: &[u32],
    ) -> QuestionEvaluator<'a> {
        let mut questions: Vec<usize> = Vec::new();
        for sample in validation {
            let question = self.start.partition_point(|start| *start <= *sample as usize) - 1;
            if questions.last() != Some(&question) {
                questions.push(question);
            }
        }
        QuestionEvaluator { questions, of: self, dataset }
    }

    /// Rows of outputs of a window.
    fn n_candidates(&self, window: usize) -> usize {
        self.windows[window].shape.n_candidates()
    }

    pub(super) fn finish(
        &self,
        rows: &TaskRows<'_>,
        pipeline: &Pipeline,
        dataset: &Dataset,
        head: &mut Head,
        tuning: CalibrationRows<'_>,
    ) -> Result<TaskResult> {
        let found = self.find(&rows.view, head)?;
        if let CalibrationRows::Given(calibration) = tuning {
            calibration.apply(&mut head.description);
        }
        if matches!(tuning, CalibrationRows::OnValidation) {
            head.description.no_answer_threshold = self.may_be_impossible.then(|| {
                let rows = dataset.part(Part::Validation).into_iter();
                self.tune(dataset, rows.map(|row| (row, &found[row as usize])))
            });
        }
        if tuning.is_new() {
            head.description.max_answer_tokens = Some(self.max_answer_tokens);
        }
        let threshold = head.description.no_answer_threshold;
        let answers: Vec<Option<String>> = dataset
            .rows
            .iter()
            .zip(&found)
            .map(|(row, found)| {
                let span = found.answer(threshold);
                span.map(|(start, end, _)| context_of(row, start, end))
            })
            .collect();
        let [train, validation, test] = measured(pipeline, dataset, |rows, bootstrap| {
            let questions: Vec<AnsweredQuestion> = rows
                .iter()
                .map(|row| answered(&dataset.rows[*row as usize], answers[*row as usize].clone()))
                .collect();
            TaskMetrics::Qa(span::evaluate(&questions, bootstrap))
        });
        Ok(TaskResult {
            metrics: RunMetrics {
                train,
                validation,
                test,
                baseline: self.random_spans(dataset, pipeline.seed),
                no_answer_threshold: threshold,
                ..RunMetrics::default()
            },
            predictions: table(dataset, &found, &answers, threshold),
        })
    }

    /// The threshold that scores best on some questions; 0 where there are none.
    fn tune<'a>(
        &self,
        dataset: &Dataset,
        questions: impl Iterator<Item = (u32, &'a FoundAnswer)>,
    ) -> f64 {
        let scores: Vec<NullScore> = questions
            .map(|(row, found)| {
                let row = &dataset.rows[row as usize];
                let f1_of = |answer: Option<String>| {
                    let metrics = span::evaluate(&[answered(row, answer)], None);
                    metrics.scores.value(Metric::F1).unwrap_or(0.0)
                };
                let answer = found.span.map(|(start, end, _)| context_of(row, start, end));
                NullScore {
                    margin: found.margin(),
                    f1_if_answered: f1_of(answer),
                    f1_if_null: f1_of(None),
                }
            })
            .collect();
        if scores.is_empty() { 0.0 } else { best_no_answer_threshold(&scores) }
    }

    /// What a random span of the context scores on test: the mean over some draws.
    fn random_spans(&self, dataset: &Dataset, seed: u64) -> Option<Baseline> {
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
                metrics["always_no_answer"] = scores(&silent);
            }
            let description = format!(
                "a random span of at most {} tokens, the mean of {RANDOM_SPANS} draws",
                self.max_answer_tokens
            );
            Baseline::new(description, &metrics)
        })
    }
}

/// Random spans that are drawn of each question.
const RANDOM_SPANS: usize = 20;

fn context_of(row: &Example, start: usize, end: usize) -> String {
    characters(row.text_pair.as_deref().unwrap_or_default(), start, end)
}

fn table(
    dataset: &Dataset,
    found: &[FoundAnswer],
    answers: &[Option<String>],
    threshold: Option<f64>,
) -> Table {
    let mut table = row_columns(dataset);
    let rows = || dataset.rows.iter();
    table.texts("question", rows().map(|row| row.text.as_str()));
    table.texts("context", rows().map(|row| row.text_pair.as_deref().unwrap_or_default()));
    table.lists(
        "answers",
        rows().map(|row| {
            let answers = row.target.answers().iter();
            answers.map(|answer| answer.text.as_str()).collect()
        }),
    );
    table.optional_texts("predicted", answers.iter().map(Option::as_deref));
    let spans = || found.iter().map(|found| found.answer(threshold));
    table.optional_integers("start", spans().map(|span| span.map(|(start, ..)| start as u64)));
    table.optional_integers("end", spans().map(|span| span.map(|(_, end, _)| end as u64)));
    table.floats(
        "score",
        found.iter().map(|found| found.span.map_or(f32::NAN, |(.., score)| score as f32)),
    );
    table.floats("null_score", found.iter().map(|found| found.null_score as f32));
    table
}
