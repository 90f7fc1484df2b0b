//! Question answering: a span of the context as the answer, or none.

mod baseline;
mod evaluator;
mod kind;

use std::iter;

use ndarray::{Array2, ArrayView2, s};

pub(super) use self::kind::QuestionKind;
use crate::{
    config::settings::{KindSettings, Pipeline},
    data::{Part, Record, dataset::Dataset, example::Example},
    encoder::windows::Overflow,
    error::Result,
    features::{FeatureView, TokenRole, pieces},
    head::{
        row_maps::WindowRows,
        saved::{Head, HeadDescription},
        span::join_windows,
        spec::Objective,
        targets::TargetTable,
    },
    metrics::{
        metric::Metric,
        probability_curves::ProbabilityCurves,
        span::{self, AnsweredQuestion, NullScore, best_no_answer_threshold},
    },
    report::tables::Table,
    tasks::{
        MeasuredRows, PredictionTask, RowSource, SamplePurpose, TaskMetrics, TaskResult, TaskRows,
        characters::characters,
        encoded::EncodedRecords,
        measure::RunMetrics,
        prediction::Prediction,
        predictions::{Calibration, PredictionEvaluator, answered},
        questions::evaluator::QuestionEvaluator,
        row_columns,
        windows::{AnswerPlace, QuestionWindow, Unseen, windows_of},
    },
};

/// The question answering task: the windows of each question.
struct QuestionTask {
    /// All windows; those of a question are consecutive.
    windows: Vec<QuestionWindow>,
    /// The first window of each question, followed by the number of windows.
    start: Vec<usize>,
    /// Whether a question has an answer that none of its windows contains as a whole.
    is_unseen: Vec<bool>,
    max_answer_tokens: usize,
    /// Whether a question of train or validation has no answer, so that "no answer" can be predicted.
    may_be_impossible: bool,
}

/// A head's answer to a question.
#[derive(Clone, Debug, Default)]
struct FoundAnswer {
    /// The first character in the context, the one after the last, and the score of the span; `None` if there is no
    /// context token.
    span: Option<(usize, usize, f64)>,
    /// The score of "no answer".
    null_score: f64,
}

impl FoundAnswer {
    /// Returns by how much "no answer" scores higher than the span.
    fn margin(&self) -> f64 {
        self.span.map_or(f64::INFINITY, |(.., score)| self.null_score - score)
    }

    /// Returns the span, unless the margin of "no answer" is above the threshold. Without a threshold, the span is
    /// always returned.
    fn answer(&self, threshold: Option<f64>) -> Option<(usize, usize, f64)> {
        let is_null = threshold.is_some_and(|threshold| self.margin() > threshold);
        self.span.filter(|_| !is_null)
    }
}

/// Returns the rows of a dataset of questions: a sample for each window of a question, with its first token and its
/// context tokens as candidates.
pub(super) fn rows<'c>(source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
    let RowSource { pipeline, dataset, cache, states } = source;
    let keys = dataset.keys();
    let mut windows_of_question: Vec<Vec<QuestionWindow>> = vec![Vec::new(); keys.len()];
    let may_be_cut = pipeline.extraction.overflow == Overflow::Truncate;
    let mut is_cut = vec![false; keys.len()];
    let documents = pieces::locate(cache, states, &keys, |place, layout, document| {
        let context = dataset.rows[place].text_pair.as_deref().unwrap_or_default();
        windows_of_question[place] = windows_of(layout, document, context, may_be_cut);
        is_cut[place] = may_be_cut && layout.documents.truncated(document);
    })?;
    let mut questions = QuestionTask::new(pipeline, windows_of_question, is_impossible_in(dataset));
    let view = questions.view(pipeline, states.len(), &documents, |pieces, sample_start| {
        let memory_bytes = pipeline.memory_bytes;
        FeatureView::new(cache, states, pieces, sample_start, memory_bytes)
    })?;
    let windows = questions.start.windows(2).map(|bounds| bounds[1] - bounds[0]);
    let keys = keys
        .into_iter()
        .zip(windows)
        .flat_map(|(key, n_windows)| iter::repeat_n(key, n_windows))
        .collect();
    let mut spans = Vec::new();
    let mut unseen = Unseen::default();
    for (number, row) in dataset.rows.iter().enumerate() {
        let windows = &questions.windows[questions.start[number]..questions.start[number + 1]];
        let answer = row.spans().next().map(|answer| {
            // White space around an answer belongs to no token.
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
        // Row 0 of a window stands for "no answer".
        spans.extend(own.into_iter().map(|span| span.unwrap_or([0, 0])));
    }
    let purpose = SamplePurpose::Training;
    let parts =
        Part::ALL.map(|part| questions.windows_of_rows(dataset, &dataset.part(part), purpose));
    Ok(TaskRows {
        view,
        targets: TargetTable::Spans(spans),
        parts,
        objective: Objective::Span,
        n_outputs: 2,
        keys,
        task: Box::new(questions),
        warnings: unseen.warning().into_iter().collect(),
    })
}

fn is_impossible_in(dataset: &Dataset) -> bool {
    let mut seen = dataset.rows.iter().filter(|row| row.part != Part::Test);
    seen.any(|row| row.target.answers().is_empty())
}

impl QuestionTask {
    fn new(
        pipeline: &Pipeline,
        windows_of_question: Vec<Vec<QuestionWindow>>,
        may_be_impossible: bool,
    ) -> QuestionTask {
        let mut start = vec![0];
        for windows in &windows_of_question {
            start.push(start[start.len() - 1] + windows.len());
        }
        QuestionTask {
            is_unseen: vec![false; windows_of_question.len()],
            windows: windows_of_question.into_iter().flatten().collect(),
            start,
            max_answer_tokens: pipeline.head.max_answer_tokens,
            may_be_impossible,
        }
    }

    /// Returns the view of all windows: the candidates themselves, or their features for the matching head; for layers
    /// of the encoder, all tokens with their roles. `make` creates the view of the windows' stored rows from their
    /// pieces and the first piece of each.
    fn view<'c>(
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
        let view = make(pieces, sample_start)?;
        if pipeline.file().unfreeze().is_some() {
            return Ok(view.with_roles(self.roles()));
        }
        Ok(view.mapped(Box::new(WindowRows {
            shapes: shapes.collect(),
            n_layers,
            matching: matches!(pipeline.head.kind, KindSettings::Matching(..)),
        })))
    }

    /// The roles of the tokens of all windows. The candidates for an answer have outputs.
    fn roles(&self) -> Vec<TokenRole> {
        let mut roles = Vec::new();
        for QuestionWindow { rows, shape, .. } in &self.windows {
            let first = roles.len();
            TokenRole::push_window(&mut roles, rows.len());
            for row in iter::once(0).chain(shape.context.clone()) {
                (roles[first + row].is_output, roles[first + row].is_candidate) = (true, true);
            }
            for row in shape.question.clone() {
                roles[first + row].is_question = true;
            }
        }
        roles
    }

    /// Returns the answer that the outputs on the windows of a question predict.
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

    /// Returns the answers of a head to some questions; `view` holds the windows of all questions.
    fn decode(
        &self,
        view: &FeatureView<'_>,
        head: &Head,
        questions: &[u32],
    ) -> Result<Vec<FoundAnswer>> {
        let windows_of = |question: u32| {
            let question = question as usize;
            self.start[question]..self.start[question + 1]
        };
        let windows = questions.iter().flat_map(|question| windows_of(*question));
        let windows: Vec<u32> = windows.map(|window| window as u32).collect();
        let mut outputs = vec![Array2::zeros((0, 2)); self.windows.len()];
        head.for_each_output(view, &windows, |samples, starts, logits| {
            for (number, sample) in samples.iter().enumerate() {
                let own = logits.slice(s![starts[number]..starts[number + 1], ..]);
                outputs[*sample as usize] = own.to_owned();
            }
        })?;
        let found = questions.iter().map(|question| {
            let own = outputs[windows_of(*question)].iter();
            self.join(*question as usize, own.map(|output| output.view()))
        });
        Ok(found.collect())
    }

    /// Returns all questions.
    fn all(&self) -> Vec<u32> {
        (0..self.start.len() as u32 - 1).collect()
    }

    /// The windows of some questions from which there is something to learn: a question whose answers all stand elsewhere
    /// than they say teaches nothing, nor does one whose answer lies in no window as a whole. Where models are compared, the
    /// latter count: another model may see the answer.
    fn windows_of_rows(&self, dataset: &Dataset, rows: &[u32], purpose: SamplePurpose) -> Vec<u32> {
        let is_taught = |row: &&u32| {
            let is_unseen = self.is_unseen[**row as usize] && purpose != SamplePurpose::Comparison;
            let row = &dataset.rows[**row as usize];
            !is_unseen && (row.spans().next().is_some() || row.target.answers().is_empty())
        };
        let taught: Vec<u32> = rows.iter().filter(is_taught).copied().collect();
        self.measured_samples(&taught)
    }

    /// Returns the number of output rows of a window.
    fn n_candidates(&self, window: usize) -> usize {
        self.windows[window].shape.n_candidates()
    }

    /// Returns the threshold that scores best on some questions; 0 if there are none.
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
}

impl PredictionTask for QuestionTask {
    fn evaluator<'a>(
        &'a self,
        _: &Pipeline,
        dataset: &'a Dataset,
        samples: &[u32],
        _: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a> {
        let mut questions: Vec<usize> = Vec::new();
        for sample in samples {
            let question = self.start.partition_point(|start| *start <= *sample as usize) - 1;
            if questions.last() != Some(&question) {
                questions.push(question);
            }
        }
        Box::new(QuestionEvaluator { questions, task: self, dataset })
    }

    fn has_one_output_row(&self) -> bool {
        false
    }

    fn samples_of(
        &self,
        _: &FeatureView<'_>,
        dataset: &Dataset,
        rows: &[u32],
        purpose: SamplePurpose,
    ) -> Vec<u32> {
        self.windows_of_rows(dataset, rows, purpose)
    }

    fn measured_samples(&self, rows: &[u32]) -> Vec<u32> {
        let windows = rows.iter().flat_map(|row| {
            let question = *row as usize;
            self.start[question] as u32..self.start[question + 1] as u32
        });
        windows.collect()
    }

    fn objective(&self, _: &Pipeline, _: &Dataset, _: &[u32]) -> Result<Objective> {
        Ok(Objective::Span)
    }

    fn describe(&self, head: &mut HeadDescription) {
        head.max_answer_tokens = Some(self.max_answer_tokens);
    }

    /// Fits the threshold for "no answer". Questions that a head cannot learn from count too.
    fn calibrate(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<Calibration> {
        if !self.may_be_impossible {
            return Ok(Calibration::default());
        }
        let validation = rows.dataset.part(Part::Validation);
        let found = self.decode(&rows.rows.view, head, &validation)?;
        let threshold = self.tune(rows.dataset, validation.into_iter().zip(&found));
        Ok(Calibration { no_answer_threshold: Some(threshold), ..Calibration::default() })
    }

    fn measure(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<TaskResult> {
        let dataset = rows.dataset;
        let found = self.decode(&rows.rows.view, head, &self.all())?;
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
        let parts = rows.parts(|rows, bootstrap| {
            let questions: Vec<AnsweredQuestion> = rows
                .iter()
                .map(|row| answered(&dataset.rows[*row as usize], answers[*row as usize].clone()))
                .collect();
            TaskMetrics::Qa(span::evaluate(&questions, bootstrap))
        });
        Ok(TaskResult {
            metrics: RunMetrics {
                no_answer_threshold: threshold,
                ..RunMetrics::of_parts(parts, self.random_spans(dataset, rows.pipeline.seed))
            },
            predictions: table(dataset, &found, &answers, threshold),
            curves: ProbabilityCurves::default(),
        })
    }

    fn predict(
        &self,
        records: &[Record],
        view: &FeatureView<'_>,
        head: &Head,
    ) -> Result<Vec<Prediction>> {
        let found = self.decode(view, head, &self.all())?;
        let threshold = head.description.no_answer_threshold;
        let answers = records.iter().zip(found).map(|(record, found)| {
            let span = found.answer(threshold);
            let context = record.text_pair.as_deref().unwrap_or_default();
            Prediction::Answer {
                question: record.text.clone(),
                answer: span.map(|(start, end, _)| characters(context, start, end)),
                start: span.map(|span| span.0),
                end: span.map(|span| span.1),
                score: span.map_or(found.null_score, |span| span.2),
            }
        });
        Ok(answers.collect())
    }
}

/// Returns the windows of questions that were just encoded.
pub(super) fn read_encoded(
    encoded: EncodedRecords<'_>,
) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
    let pipeline = encoded.pipeline;
    let n_layers = encoded.encoded.states.len();
    let windows = encoded.records.iter().enumerate().map(|(document, record)| {
        let context = record.text_pair.as_deref().unwrap_or_default();
        let may_be_cut = encoded.is_cut(document);
        windows_of(encoded.layout(), document, context, may_be_cut)
    });
    let questions = QuestionTask::new(pipeline, windows.collect(), false);
    let documents = encoded.pieces();
    let view = questions.view(pipeline, n_layers, &documents, |pieces, sample_start| {
        encoded.view(pieces, sample_start)
    })?;
    Ok((Box::new(questions), view))
}

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
