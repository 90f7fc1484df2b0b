//! Where the head fails: its most confident mistakes, or its largest.

use frostbert_cache::wording::counted;
use serde::Serialize;

use super::{
    numbers::grouped,
    run_files::RunFiles,
    shown_task::{Mistake, MistakeCounts, shown_task},
    texts::TextGate,
};

/// Mistakes that are shown.
const MOST_SHOWN: usize = 100;

/// Those of them that are shown at once.
const SHOWN_FIRST: usize = 20;

/// The fifth part of a page.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MistakesView {
    pub(super) sentence: String,
    pub(super) first: Vec<Mistake>,
    pub(super) rest: Vec<Mistake>,
    /// The classes that mistakes are of or look like, for a filter.
    pub(super) classes: Vec<String>,
}

impl MistakesView {
    /// `None` where there is nothing to be wrong on.
    pub(super) fn of(run: &RunFiles, gate: &TextGate) -> Option<MistakesView> {
        let rows = run.judged_rows();
        if rows.is_empty() {
            return None;
        }
        let task = shown_task(run.task());
        let mut wrong = task.mistakes(run, &rows)?;
        wrong.sort_by(|one, other| {
            other.weight.total_cmp(&one.weight).then(one.row.cmp(&other.row))
        });
        let n_wrong = wrong.len();
        let kept = wrong.iter().take(MOST_SHOWN).map(|one| Mistake {
            place: place_of(run, one.row),
            ..task.show_mistake(run, one.row, gate)
        });
        let mut first: Vec<Mistake> = kept.collect();
        let rest = first.split_off(first.len().min(SHOWN_FIRST));
        let mut classes: Vec<String> =
            first.iter().chain(&rest).flat_map(|mistake| mistake.classes.clone()).collect();
        classes.sort();
        classes.dedup();
        let sentence = if n_wrong == 0 {
            format!("None of {} is wrong.", counted(rows.len(), run.noun()))
        } else {
            task.mistakes_in_words(&MistakeCounts {
                rows: rows.len(),
                wrong: n_wrong,
                shown: first.len() + rest.len(),
                noun: run.noun(),
            })
        };
        Some(MistakesView { sentence, first, rest, classes })
    }
}

/// Where a row stands: its id, or its number in the table of predictions.
fn place_of(run: &RunFiles, row: usize) -> String {
    let id = run.rows.text_at("id", row);
    id.map_or_else(|| format!("row {}", grouped(row as u64 + 1)), String::from)
}
