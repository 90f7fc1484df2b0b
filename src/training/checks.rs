//! Checks of the data by its states, besides those that need no model: texts of validation and test that are
//! near-duplicates of texts of train, and labels that are likely wrong.

pub(crate) mod datalab;
mod label_errors;
mod near_duplicates;

use std::path::Path;

use frostbert_cache::{
    durable::write_file,
    fingerprint::Key,
    progress::Progress,
    reader::CacheReader,
    states::{Pooling, StateId, StateKind},
    wording::{counted, part_of, quoted, shorten},
};
use serde::{Deserialize, Serialize};

pub(crate) use crate::training::checks::{
    label_errors::LabelErrors,
    near_duplicates::{NearDuplicates, NearDuplicatesOfPart},
};
use crate::{
    config::settings::Pipeline,
    data::{
        ClassBalance, Part,
        bad_rows::BAD_ROWS_FILE,
        checks::{DataChecks, SharedTexts},
        dataset::Dataset,
        example::Example,
    },
    error::Result,
    features::FeatureView,
    metrics::MANY_CLASSES,
    report::sheet::Sheet,
    tasks::{TaskRows, documents},
    training::checks::{
        datalab::{Datalab, JudgedRows},
        label_errors::{NOT_RESIDENT, label_errors},
        near_duplicates::near_duplicates,
    },
};

/// The name of the file with the findings in the data.
pub(crate) const CHECKS_FILE: &str = "checks.json";

/// Number of rows that are listed for each kind of finding.
const N_LISTED: usize = 20;

/// Number of characters of a text that are shown: near-duplicates often differ late.
const N_SHOWN: usize = 200;

/// The findings of a run in its data, as written to checks.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunChecks {
    /// The findings that need no model.
    #[serde(flatten)]
    pub data: DataChecks,
    /// Texts that are almost the same in two parts.
    pub near_duplicates: Check<NearDuplicates>,
    /// Labels that are likely wrong.
    pub label_errors: Check<LabelErrors>,
}

/// The result of a check, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Check<T> {
    Done(T),
    Skipped { skipped: String },
}

/// Checks the rows of a pipeline by a pooled state of theirs: the head's own, or one of the same layer that the cache
/// holds. What the labels were checked by is returned too for Datalab, where that is wanted: `datalab` are the parts that the
/// rows were split into.
///
/// # Errors
/// Returns an error if a file of the cache is damaged.
pub(crate) fn check(
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &CacheReader,
    rows: &TaskRows<'_>,
    datalab: Option<&[Part]>,
    progress: &dyn Progress,
) -> Result<(RunChecks, Option<Datalab>)> {
    let wants_datalab = datalab.is_some();
    let checks = |near_duplicates, label_errors| RunChecks {
        data: dataset.checks.clone(),
        near_duplicates,
        label_errors,
    };
    let Some(state) = pooled_state(cache, &rows.view.states, &dataset.document_keys()) else {
        let reason = no_pooled_state(&rows.view.states);
        if wants_datalab {
            progress.warn(&format!("nothing is written for Datalab: {reason}"));
        }
        return Ok((checks(skipped(&reason), skipped(&reason)), None));
    };
    progress.start("checking the data", None, "rows");
    let labels = |view: &FeatureView<'_>| label_errors(pipeline, dataset, view, wants_datalab);
    let for_datalab = |view: &FeatureView<'_>, judged: Option<JudgedRows>| {
        let parts = datalab.filter(|_| view.is_resident());
        parts.map(|parts| Datalab::of(dataset, parts, view, judged))
    };
    let reads_state = rows.view.states == [state] && !pipeline.reads_sentence();
    let (checked, datalab) = if reads_state && !pipeline.has_separate_pairs() {
        let near_duplicates = near_duplicates(dataset, &rows.view)?;
        let (label_errors, judged) = labels(&rows.view)?;
        (checks(near_duplicates, label_errors), for_datalab(&rows.view, judged))
    } else {
        let view = documents::stored_view(pipeline, dataset, cache, &[state])?;
        let near_duplicates = near_duplicates(dataset, &view)?;
        let view = documents::paired(view, pipeline);
        let (label_errors, judged) = labels(&view)?;
        (checks(near_duplicates, label_errors), for_datalab(&view, judged))
    };
    progress.finish();
    if let (Check::Skipped { skipped }, true) = (&checked.label_errors, wants_datalab) {
        progress.warn(&match datalab {
            Some(_) => format!("Datalab gets no pred_probs.npy and no labels.npy: {skipped}"),
            None => format!("nothing is written for Datalab: {NOT_RESIDENT}"),
        });
    }
    if let (Check::Skipped { skipped }, true) =
        (&checked.label_errors, dataset.labels.len() > MANY_CLASSES)
    {
        progress.note(&format!("labels were not checked: {skipped}"));
    }
    Ok((checked, datalab))
}

fn skipped<T>(reason: &str) -> Check<T> {
    Check::Skipped { skipped: reason.to_string() }
}

/// Returns the state of the deepest of a head's layers if it has one row per document; otherwise a pooled state of one
/// of these layers that the cache holds for every document.
fn pooled_state(cache: &CacheReader, states: &[StateId], keys: &[Key]) -> Option<StateId> {
    let mut layers: Vec<usize> = states.iter().map(|state| state.layer).collect();
    layers.sort_unstable_by(|one, other| other.cmp(one));
    let own = states[0].kind;
    if matches!(own, StateKind::Pooled(_)) {
        return Some(StateId { kind: own, layer: layers[0] });
    }
    let pooled = layers.into_iter().flat_map(|layer| {
        let poolings = [Pooling::Mean, Pooling::Cls, Pooling::Max].into_iter();
        poolings.map(move |pooling| StateId::pooled(pooling, layer))
    });
    pooled.into_iter().find(|state| keys.iter().all(|key| cache.locate(key, *state).is_some()))
}

fn no_pooled_state(states: &[StateId]) -> String {
    let layers: Vec<String> = states.iter().map(|state| state.layer.to_string()).collect();
    format!(
        "the cache holds no pooled state of layer {} (add \"mean\" to cache.store, and extract)",
        layers.join(" or ")
    )
}

fn text_of(row: &Example) -> String {
    match &row.text_pair {
        Some(second) => shorten(&format!("{} | {second}", row.text), N_SHOWN),
        None => shorten(&row.text, N_SHOWN),
    }
}

fn four_places(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

impl RunChecks {
    /// Writes checks.json, and bad_rows.csv where records were left out because they cannot be read.
    pub(crate) fn write(&self, run: &Path) -> Result<()> {
        let path = run.join(CHECKS_FILE);
        let mut json = serde_json::to_string_pretty(self).expect("counts and texts become JSON");
        json.push('\n');
        write_file(&path, json.as_bytes())?;
        let bad_rows = &self.data.bad_rows;
        if bad_rows.is_empty() {
            return Ok(());
        }
        Sheet::of_bad_rows(bad_rows).write_csv(&run.join(BAD_ROWS_FILE))
    }

    /// Reads the checks of a run; `None` where there are none, or another version wrote them.
    pub(crate) fn read(run: &Path) -> Option<RunChecks> {
        let bytes = std::fs::read(run.join(CHECKS_FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Returns what the user should know from the checks by states before trusting the metrics, one line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let Check::Done(near) = &self.near_duplicates else {
            return Vec::new();
        };
        let parts = near.parts.iter().filter(|part| part.count > 0);
        parts.map(NearDuplicatesOfPart::in_words).collect()
    }

    /// Returns the findings in words, one line each, to be shown beside the metrics.
    pub(crate) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let shared = self.data.shared.iter();
        lines.extend(shared.flat_map(SharedTexts::warnings));
        match &self.near_duplicates {
            Check::Skipped { skipped } => {
                lines.push(format!("near-duplicates were not looked for: {skipped}"))
            }
            Check::Done(_) => {
                let warnings = self.warnings();
                if warnings.is_empty() {
                    lines.push(
                        "no text of validation or test is a near-duplicate of one of train".into(),
                    )
                } else {
                    lines.extend(warnings)
                }
            }
        }
        if let Check::Done(errors) = &self.label_errors {
            lines.push(format!(
                "{} {} wrong (cross-validated heads reproduce {:.0} % of the labels): see checks.json",
                part_of(errors.count, errors.judged, "label"),
                if errors.count == 1 { "looks" } else { "look" },
                100.0 * errors.accuracy
            ));
        }
        if let Some(balance) = &self.data.balance {
            lines.push(in_words(balance));
        }
        lines
    }
}

fn in_words(balance: &ClassBalance) -> String {
    let (fewest, most) = (balance.rarest_rows, balance.most_frequent_rows);
    if fewest == most {
        return format!("{} per class in train", counted(most, "row"));
    }
    format!(
        "{} of the rarest class in train, {}, and {} of the most frequent, {}",
        counted(fewest, "row"),
        quoted(&balance.rarest),
        counted(most, "row"),
        quoted(&balance.most_frequent),
    )
}

#[cfg(test)]
mod tests;
