//! What an export of a run says and how it is checked, by task. There is one type for each kind of target, behind one
//! trait, which the kinds of export ask.

mod answers;
mod classes;
mod label_sets;
mod tags;
mod values;

use ndarray::{Array2, ArrayView2, s};

use self::{
    answers::ExportedAnswers, classes::ExportedClasses, label_sets::ExportedLabelSets,
    tags::ExportedTags, values::ExportedValues,
};
use crate::{
    config::names::Task,
    encoder::windows::{Encoding, Window},
    error::Result,
    export::{checked_rows::CheckedRows, comparison::Comparison, graph_ops::GraphOps},
    head::saved::HeadDescription,
    metrics::calibration::softmax_rows,
};

/// Returns a task as other tools have it: the only place of the exports where a task becomes a type.
pub(super) fn exported_task(task: Task) -> &'static dyn ExportedTask {
    match task {
        Task::Classification => &ExportedClasses,
        Task::Multilabel => &ExportedLabelSets,
        Task::Regression | Task::Similarity => &ExportedValues,
        Task::Tokens => &ExportedTags,
        Task::Qa => &ExportedAnswers,
    }
}

/// A task as other tools have it.
pub(super) trait ExportedTask {
    /// The name of its class in `transformers`, after the family's.
    fn class_name(&self) -> &'static str {
        "ForSequenceClassification"
    }

    /// The module of that class that is its head, a linear layer over tokens; `None` where the head is over a text.
    fn token_module(&self) -> Option<&'static str> {
        None
    }

    /// `problem_type` of config.json.
    fn problem_type(&self) -> Option<&'static str> {
        None
    }

    /// The names of a head's outputs in config.json of `transformers`; `None` where it names none.
    fn labels(&self, description: &HeadDescription) -> Option<Vec<String>> {
        Some(description.labels.clone())
    }

    /// The outputs of an ONNX file; `is_crf` says whether scores of transitions are added to the logits.
    fn onnx_outputs(&self, is_crf: bool) -> &'static [&'static str];

    /// Adds the probabilities that the logits of a head stand for to the graph of an ONNX file, and returns their name;
    /// `None` where it has none.
    fn add_probabilities(
        &self,
        _ops: &mut GraphOps,
        _description: &HeadDescription,
        _logits: &str,
    ) -> Result<Option<String>> {
        Ok(None)
    }

    /// Returns the probabilities that the logits of a head stand for, a row for each row of these.
    fn probabilities_of(
        &self,
        description: &HeadDescription,
        logits: ArrayView2<'_, f32>,
    ) -> Array2<f32> {
        softmax_rows(logits, description.temperature)
    }

    /// What is compared with `predict`.
    fn compared(&self) -> &'static str {
        "probabilities"
    }

    /// Whether heads return numbers, which have no label.
    fn has_numbers(&self) -> bool {
        false
    }

    /// Compares the outputs of an ONNX file for a row of a batch, `found`, with those of the run.
    fn compare_row(
        &self,
        comparison: &mut Comparison<'_>,
        row: &ComparedRow<'_>,
        found: &[Vec<f32>],
    );

    /// Compares what an exported head returns for a sample, `found`, with what the run's head does, `ours`. An exported
    /// head returns class logits over the temperature, or numbers in the unit of the targets.
    fn compare_outputs(
        &self,
        comparison: &mut Comparison<'_>,
        description: &HeadDescription,
        ours: ArrayView2<'_, f32>,
        found: ArrayView2<'_, f32>,
    );
}

/// Adds the probabilities of exclusive classes.
fn class_probabilities(
    ops: &mut GraphOps,
    description: &HeadDescription,
    logits: &str,
) -> Result<String> {
    let cooled = ops.scaled(logits, (1.0 / description.temperature) as f32)?;
    ops.softmax(&cooled, -1)
}

/// A row of a batch of an ONNX file, with what the run makes of it.
pub(super) struct ComparedRow<'a> {
    pub(super) rows: &'a CheckedRows,
    /// The description of the run's head.
    pub(super) description: &'a HeadDescription,
    /// The number of its record.
    pub(super) record: usize,
    /// The number of the head's sample.
    pub(super) sample: usize,
    /// The documents of its record.
    pub(super) documents: &'a [Encoding],
    /// Its window of the first document.
    pub(super) window: &'a Window,
}

impl ComparedRow<'_> {
    /// Returns the probability of each label that `predict` gives.
    fn probabilities(&self) -> Vec<f32> {
        let labels = self.rows.predictions[self.record].probabilities().iter();
        labels.map(|(_, probability)| *probability).collect()
    }

    /// Returns the outputs of the head for each token or word of the sample.
    fn outputs(&self) -> ArrayView2<'_, f32> {
        let outputs = self.rows.head.outputs.as_ref().expect("only a cosine has no outputs");
        let starts = &self.rows.head.output_starts;
        outputs.slice(s![starts[self.sample]..starts[self.sample + 1], ..])
    }
}
