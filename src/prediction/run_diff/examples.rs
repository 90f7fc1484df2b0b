//! Examples that two runs do not predict equally well.

use serde::Serialize;
use serde_json::Value;

use super::SameRows;

/// Examples that one of two runs predicts better.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChangedExamples {
    /// How many there are.
    pub count: usize,
    /// Some of them, those first for which it matters most.
    pub examples: Vec<ChangedExample>,
}

/// An example that two runs predict differently.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChangedExample {
    /// Its own name, where the data has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its text; of words all of them, of questions the question.
    pub text: String,
    /// Its second text; of questions the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// What is true of it.
    pub truth: Value,
    /// What the first run predicts.
    pub a: Value,
    /// What the second run predicts.
    pub b: Value,
}

/// The examples that the second run predicts worse, and those that it predicts better; at most `limit` of each are listed.
pub(super) fn changed_examples(rows: &SameRows, limit: usize) -> [ChangedExamples; 2] {
    let (before, after) = (rows.a.outcomes.quality(), rows.b.outcomes.quality());
    let gains: Vec<f64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
    [-1.0, 1.0].map(|direction| {
        let gain = |row: usize| direction * gains[row];
        let mut changed: Vec<usize> = (0..gains.len()).filter(|row| gain(*row) > 0.0).collect();
        changed.sort_by(|one, other| gain(*other).total_cmp(&gain(*one)));
        let examples = changed.iter().take(limit).map(|row| example(rows, *row));
        ChangedExamples { count: changed.len(), examples: examples.collect() }
    })
}

fn example(rows: &SameRows, row: usize) -> ChangedExample {
    let [truth, a] = rows.a.outcomes.shown(row, &rows.labels);
    let [_, b] = rows.b.outcomes.shown(row, &rows.labels);
    ChangedExample {
        id: rows.a.ids[row].clone(),
        text: rows.a.texts[row].clone(),
        text_pair: rows.a.second_texts[row].clone(),
        truth,
        a,
        b,
    }
}
