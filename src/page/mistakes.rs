//! Where the head fails: its most confident mistakes, or its largest.

use frostbert_cache::wording::{counted, part_of};
use serde::Serialize;

use super::{
    data_part::apart,
    marked_text::{MarkedText, TextPiece, excerpt},
    numbers::{decimal, grouped, percent},
    run_files::RunFiles,
    texts::TextGate,
    worth::best_f1,
};
use crate::config::names::Task;

/// Mistakes that are shown.
const MOST_SHOWN: usize = 100;

/// Those of them that are shown at once.
const SHOWN_FIRST: usize = 20;

/// Characters of a text.
const MOST_CHARACTERS: usize = 400;

/// Words of a sentence.
const MOST_WORDS: usize = 80;

/// Labels whose probabilities are shown of a set.
const MOST_LABELS: usize = 4;

/// The fifth part of a page.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MistakesView {
    pub(super) sentence: String,
    pub(super) first: Vec<Mistake>,
    pub(super) rest: Vec<Mistake>,
    /// The classes that mistakes are of or look like, for a filter.
    pub(super) classes: Vec<String>,
}

/// A row on which the head is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Mistake {
    /// Where the row stands: its id, or its number in the table of predictions.
    pub(super) place: String,
    /// Its text, with marks in it; none on a page without texts.
    pub(super) text: MarkedText,
    pub(super) truth: Option<SaidView>,
    pub(super) predicted: Option<SaidView>,
    /// What else is to be said.
    pub(super) note: String,
    /// Its classes, true and predicted.
    pub(super) classes: Vec<String>,
}

/// What is true of a row or predicted for it, and how probable the head finds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct SaidView {
    pub(super) name: String,
    pub(super) probability: Option<String>,
}

impl SaidView {
    fn plain(name: String) -> SaidView {
        SaidView { name, probability: None }
    }
}

/// A mistake, and how bad it is.
struct Weighed {
    row: usize,
    weight: f64,
}

impl MistakesView {
    /// `None` where there is nothing to be wrong on.
    pub(super) fn of(run: &RunFiles, gate: &TextGate) -> Option<MistakesView> {
        let rows = run.judged_rows();
        if rows.is_empty() {
            return None;
        }
        let finder = Finder { run, gate };
        let (mut wrong, what) = match run.task() {
            Task::Classification => (finder.wrong_classes(&rows), "the most confident first"),
            Task::Multilabel => (finder.wrong_label_sets(&rows), "the most confident first"),
            Task::Regression => (finder.far_numbers(&rows), "the largest errors first"),
            // A cosine has another scale than the truth.
            Task::Similarity => return None,
            Task::Tokens => (finder.wrong_sentences(&rows), "those with most wrong words first"),
            Task::Qa => (finder.wrong_answers(&rows), "the most confident first"),
        };
        wrong.sort_by(|one, other| {
            other.weight.total_cmp(&one.weight).then(one.row.cmp(&other.row))
        });
        let n_wrong = wrong.len();
        let kept = wrong.iter().take(MOST_SHOWN).map(|one| finder.show(one));
        let mut first: Vec<Mistake> = kept.collect();
        let rest = first.split_off(first.len().min(SHOWN_FIRST));
        let mut classes: Vec<String> =
            first.iter().chain(&rest).flat_map(|mistake| mistake.classes.clone()).collect();
        classes.sort();
        classes.dedup();
        let n_rows = counted(rows.len(), run.noun());
        let shown = first.len() + rest.len();
        let of_rows = |n: usize| part_of(n, rows.len(), run.noun());
        let sentence = match (run.task(), n_wrong) {
            (_, 0) => format!("None of {n_rows} is wrong."),
            (Task::Regression, _) => format!("{}, {what}.", of_rows(shown)),
            (Task::Qa, _) => format!(
                "{} {} answered without a word of a true answer, {what}.",
                of_rows(n_wrong),
                if n_wrong == 1 { "is" } else { "are" }
            ),
            _ if shown < n_wrong => {
                format!("{} are wrong; {} of them, {what}.", of_rows(n_wrong), grouped(shown))
            }
            _ => format!(
                "{} {} wrong, {what}.",
                of_rows(n_wrong),
                if n_wrong == 1 { "is" } else { "are" }
            ),
        };
        Some(MistakesView { sentence, first, rest, classes })
    }
}

/// Finds mistakes among the rows of a run.
struct Finder<'a> {
    run: &'a RunFiles,
    gate: &'a TextGate,
}

impl Finder<'_> {
    fn texts(&self, name: &str) -> Vec<Option<&str>> {
        self.run.rows.texts(name).unwrap_or_default()
    }

    fn lists(&self, name: &str) -> Vec<Vec<&str>> {
        self.run.rows.text_lists(name).unwrap_or_default()
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        self.run.rows.numbers(name).unwrap_or_default()
    }

    fn wrong_classes(&self, rows: &[usize]) -> Vec<Weighed> {
        let (truth, predicted) = (self.texts("label"), self.texts("predicted"));
        let confidence = self.numbers("confidence");
        let wrong = rows.iter().copied().filter(|row| truth[*row] != predicted[*row]);
        wrong.map(|row| Weighed { row, weight: confidence[row] }).collect()
    }

    /// Weighed by the decision of a label that is wrong by most.
    fn wrong_label_sets(&self, rows: &[usize]) -> Vec<Weighed> {
        let labels = self.run.labels();
        let (joined, predicted) = (self.texts("labels"), self.lists("predicted"));
        let truth: Vec<Vec<&str>> =
            rows.iter().map(|row| apart(joined[*row].unwrap_or_default(), labels)).collect();
        let mut weights = vec![f64::NEG_INFINITY; joined.len()];
        for label in labels {
            let probability = self.numbers(&format!("p_{label}"));
            for (row, truth) in rows.iter().zip(&truth) {
                let is_true = truth.contains(&label.as_str());
                let is_predicted = predicted[*row].contains(&label.as_str());
                if is_true != is_predicted {
                    let p = probability.get(*row).copied().unwrap_or(0.5);
                    let wrong_by = if is_true { 1.0 - p } else { p };
                    weights[*row] = weights[*row].max(wrong_by);
                }
            }
        }
        let wrong = rows.iter().copied().filter(|row| weights[*row].is_finite());
        wrong.map(|row| Weighed { row, weight: weights[row] }).collect()
    }

    fn far_numbers(&self, rows: &[usize]) -> Vec<Weighed> {
        let (truth, predicted) = (self.numbers("value"), self.numbers("predicted"));
        let error = |row: usize| (truth[row] - predicted[row]).abs();
        let all = rows.iter().map(|row| Weighed { row: *row, weight: error(*row) });
        all.filter(|one| one.weight.is_finite() && one.weight > 0.0).collect()
    }

    fn wrong_sentences(&self, rows: &[usize]) -> Vec<Weighed> {
        let (truth, predicted) = (self.lists("labels"), self.lists("predicted"));
        let n_wrong = |row: usize| {
            let pairs = truth[row].iter().zip(&predicted[row]);
            pairs.filter(|(truth, predicted)| truth != predicted).count() as f64
        };
        let all = rows.iter().map(|row| Weighed { row: *row, weight: n_wrong(*row) });
        all.filter(|one| one.weight > 0.0).collect()
    }

    /// Answers that share no word with a true one, and those that are missing or should be; weighed by how far the answer
    /// is ahead of no answer, or behind it.
    fn wrong_answers(&self, rows: &[usize]) -> Vec<Weighed> {
        let (gold, predicted) = (self.lists("answers"), self.texts("predicted"));
        let (score, null_score) = (self.numbers("score"), self.numbers("null_score"));
        let wrong = rows.iter().copied().filter(|row| best_f1(&gold[*row], predicted[*row]) == 0.0);
        let weight = |row: usize| {
            let margin = score[row] - null_score[row];
            let margin = if predicted[row].is_some() { margin } else { -margin };
            if margin.is_finite() { margin } else { f64::MIN }
        };
        wrong.map(|row| Weighed { row, weight: weight(row) }).collect()
    }

    fn show(&self, one: &Weighed) -> Mistake {
        let row = one.row;
        let id = self.run.rows.text_at("id", row);
        let place = id.map_or_else(|| format!("row {}", grouped(row as u64 + 1)), String::from);
        let mistake = match self.run.task() {
            Task::Classification => self.show_class(row),
            Task::Multilabel => self.show_label_set(row),
            Task::Tokens => self.show_sentence(row),
            Task::Qa => self.show_answer(row),
            Task::Regression | Task::Similarity => self.show_number(row),
        };
        Mistake { place, ..mistake }
    }

    /// The text of a row, and its second one.
    fn text_of(&self, row: usize) -> MarkedText {
        let piece = |text: Option<&str>, kind: &'static str| {
            let text = self.gate.text(text?, MOST_CHARACTERS)?;
            Some(TextPiece { text, kind, note: None })
        };
        let columns = [("text", "plain"), ("text_pair", "second")].into_iter();
        columns.filter_map(|(name, kind)| piece(self.run.rows.text_at(name, row), kind)).collect()
    }

    fn show_class(&self, row: usize) -> Mistake {
        let rows = &self.run.rows;
        let name = |column: &str| rows.text_at(column, row).unwrap_or_default().to_string();
        let (truth, predicted) = (name("label"), name("predicted"));
        let confidence = rows.number_at("confidence", row).unwrap_or(f64::NAN);
        let own = rows.number_at(&format!("p_{truth}"), row);
        Mistake {
            text: self.text_of(row),
            classes: vec![truth.clone(), predicted.clone()],
            truth: Some(SaidView { name: truth, probability: own.map(percent) }),
            predicted: Some(SaidView { name: predicted, probability: Some(percent(confidence)) }),
            ..Mistake::default()
        }
    }

    fn show_label_set(&self, row: usize) -> Mistake {
        let labels = self.run.labels();
        let rows = &self.run.rows;
        let joined = rows.text_at("labels", row).unwrap_or_default();
        let truth = apart(joined, labels);
        let predicted = rows.list_at("predicted", row);
        let wrong = labels
            .iter()
            .filter(|label| truth.contains(&label.as_str()) != predicted.contains(&label.as_str()));
        let probabilities = wrong.clone().take(MOST_LABELS).map(|label| {
            let p = rows.number_at(&format!("p_{label}"), row).unwrap_or(f64::NAN);
            format!("{label} {}", percent(p))
        });
        let note = probabilities.collect::<Vec<_>>().join(", ");
        let or_none = |names: &str| if names.is_empty() { "none" } else { names }.to_string();
        Mistake {
            text: self.text_of(row),
            classes: wrong.cloned().collect(),
            truth: Some(SaidView::plain(or_none(joined))),
            predicted: Some(SaidView::plain(or_none(&predicted.join(", ")))),
            note,
            ..Mistake::default()
        }
    }

    fn show_number(&self, row: usize) -> Mistake {
        let number = |name: &str| self.run.rows.number_at(name, row).unwrap_or(f64::NAN);
        let (truth, predicted) = (number("value"), number("predicted"));
        Mistake {
            text: self.text_of(row),
            truth: Some(SaidView::plain(decimal(truth))),
            predicted: Some(SaidView::plain(decimal(predicted))),
            note: format!("off by {}", decimal((truth - predicted).abs())),
            ..Mistake::default()
        }
    }

    fn show_sentence(&self, row: usize) -> Mistake {
        let [truth, predicted, words] =
            ["labels", "predicted", "words"].map(|name| self.run.rows.list_at(name, row));
        let mut text = MarkedText::new();
        let mut classes: Vec<String> = Vec::new();
        let mut n_wrong = 0;
        for (place, word) in words.iter().enumerate() {
            let tags =
                [&truth, &predicted].map(|tags| tags.get(place).copied().unwrap_or_default());
            let is_wrong = tags[0] != tags[1];
            n_wrong += usize::from(is_wrong);
            if is_wrong {
                classes.extend(tags.map(String::from));
            }
            if place < MOST_WORDS && self.gate.is_open() {
                let note = is_wrong.then(|| format!("{} → {}", tags[0], tags[1]));
                let kind = if is_wrong { "wrong" } else { "plain" };
                text.push(TextPiece { text: (*word).into(), kind, note });
                text.push(TextPiece { text: " ".into(), kind: "plain", note: None });
            }
        }
        if self.gate.is_open() {
            self.gate.count_one();
        }
        classes.sort();
        classes.dedup();
        let note = format!("{} wrong", part_of(n_wrong, words.len(), "word"));
        Mistake { text, classes, note, ..Mistake::default() }
    }

    fn show_answer(&self, row: usize) -> Mistake {
        let rows = &self.run.rows;
        let gold = rows.list_at("answers", row).first().copied();
        let said = rows.text_at("predicted", row);
        let number = |name: &str| rows.number_at(name, row).unwrap_or(f64::NAN);
        let (score, null_score) = (number("score"), number("null_score"));
        let mut text = MarkedText::new();
        let question = rows.text_at("question", row).unwrap_or_default();
        if let Some(question) = self.gate.text(question, MOST_CHARACTERS) {
            text.push(TextPiece { text: question, kind: "question", note: None });
            let context = rows.text_at("context", row).unwrap_or_default();
            text.extend(excerpt(context, gold, said, self.gate));
        }
        let answer = |answer: Option<&str>| match answer {
            Some(answer) => self.gate.text(answer, MOST_CHARACTERS).map(SaidView::plain),
            None => Some(SaidView::plain("no answer".into())),
        };
        Mistake {
            text,
            truth: answer(gold),
            predicted: answer(said),
            note: format!("score {}, of no answer {}", decimal(score), decimal(null_score)),
            ..Mistake::default()
        }
    }
}
