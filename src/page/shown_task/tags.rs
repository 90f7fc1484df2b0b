//! Tagging on a page.

use frostbert_cache::wording::part_of;

use super::{JudgedRow, Mistake, ShownTask, WeighedRow, parts_with_rows};
use crate::{
    data::example::part_name,
    metrics::metric::Metric,
    page::{
        marked_text::{MarkedText, TextPiece},
        numbers::grouped,
        run_files::RunFiles,
        table::TableView,
        texts::TextGate,
    },
};

/// Words of a sentence.
const MOST_WORDS: usize = 80;

/// A tag for each word of a row.
pub(super) struct ShownTags;

impl ShownTask for ShownTags {
    fn metrics(&self) -> Vec<Metric> {
        Metric::OF_TAGS.to_vec()
    }

    fn label_noun(&self) -> &'static str {
        "tag"
    }

    fn labels_of_rows<'r>(&self, run: &'r RunFiles) -> Vec<Vec<&'r str>> {
        run.rows.text_lists("labels").unwrap_or_default()
    }

    fn parts(&self, run: &RunFiles) -> TableView {
        let words = run.rows.text_lists("words").unwrap_or_default();
        let mut table = TableView::new(&["part"], &["sentences", "words"]);
        for (part, own) in parts_with_rows(run) {
            let n_words: usize = own.iter().map(|row| words[*row].len()).sum();
            table.push([
                part_name(part).into(),
                grouped(own.len() as u64),
                grouped(n_words as u64),
            ]);
        }
        table
    }

    fn mistakes(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<WeighedRow>> {
        let truth = run.rows.text_lists("labels").unwrap_or_default();
        let predicted = run.rows.text_lists("predicted").unwrap_or_default();
        let n_wrong = |row: usize| {
            let pairs = truth[row].iter().zip(&predicted[row]);
            pairs.filter(|(truth, predicted)| truth != predicted).count() as f64
        };
        let all = rows.iter().map(|row| WeighedRow { row: *row, weight: n_wrong(*row) });
        Some(all.filter(|one| one.weight > 0.0).collect())
    }

    fn worst_first(&self) -> &'static str {
        "those with most wrong words first"
    }

    fn show_mistake(&self, run: &RunFiles, row: usize, gate: &TextGate) -> Mistake {
        let [truth, predicted, words] =
            ["labels", "predicted", "words"].map(|name| run.rows.list_at(name, row));
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
            if place < MOST_WORDS && gate.is_open() {
                let note = is_wrong.then(|| format!("{} → {}", tags[0], tags[1]));
                let kind = if is_wrong { "wrong" } else { "plain" };
                text.push(TextPiece { text: (*word).into(), kind, note });
                text.push(TextPiece { text: " ".into(), kind: "plain", note: None });
            }
        }
        if gate.is_open() {
            gate.count_one();
        }
        classes.sort();
        classes.dedup();
        let note = format!("{} wrong", part_of(n_wrong, words.len(), "word"));
        Mistake { text, classes, note, ..Mistake::default() }
    }

    fn judge(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<JudgedRow>> {
        let truth = run.rows.text_lists("labels")?;
        let predicted = run.rows.text_lists("predicted")?;
        let judge = |row: &usize| {
            let is_wrong = truth[*row] != predicted[*row];
            let label = if is_wrong { "a word is wrong" } else { "all words right" };
            JudgedRow { label: label.into(), predicted: String::new(), is_wrong: false }
        };
        Some(rows.iter().map(judge).collect())
    }

    fn hues(&self, _: &RunFiles, judged: &[JudgedRow]) -> Vec<Option<u32>> {
        let hue = |one: &JudgedRow| if one.label.starts_with("all") { 210 } else { 30 };
        judged.iter().map(|one| Some(hue(one))).collect()
    }
}
