//! Finds rows of an evaluation file that a run has seen before.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use frostbert_cache::{fingerprint::Key, wording::counted};

use crate::{
    data::{Part, dataset::Dataset, document::Document, example::part_name},
    error::Result,
    prediction::saved_run::SavedRun,
    report::tables::{PREDICTIONS_FILE, read_texts_of_rows},
};

/// Returns a warning for the rows of `dataset` (read from `data`) that the run was trained on, and one for those that
/// were in its validation set. The run's own test rows do not count.
///
/// # Errors
/// Returns an error if the run's table of predictions, which holds the keys of its rows, is damaged.
pub(crate) fn warnings(run: &SavedRun, data: &Path, dataset: &Dataset) -> Result<Vec<String>> {
    // A cosine is not trained.
    if run.head.is_none() {
        return Ok(Vec::new());
    }
    let path = run.folder.join(PREDICTIONS_FILE);
    let bytes = match run.read_output(PREDICTIONS_FILE) {
        Ok(bytes) => bytes,
        // Not an error, because the table is needed only for a warning.
        Err(error) => {
            let why = if path.is_file() {
                error.to_string()
            } else {
                format!("{} is missing", path.display())
            };
            return Ok(vec![format!(
                "it is not known whether the run was trained on rows of {}: {why}",
                data.display()
            )]);
        }
    };
    let prompts = run.prompts();
    let has_two_keys = run.pipeline.has_separate_pairs();
    let rows = read_texts_of_rows(&path, bytes, has_two_keys.then_some("text_pair"))?;
    let mut part_of: HashMap<Vec<Key>, &str> = HashMap::new();
    for row in &rows {
        let second = row.second.as_ref();
        let second = second.map(|text| Document::of_text(prompts.text_pair.as_deref(), text).key());
        let keys = std::iter::once(row.key).chain(second).collect();
        let part = part_of.entry(keys).or_insert(&row.part);
        // A text that is also in the training set was trained on.
        if row.part == part_name(Part::Train) {
            *part = &row.part;
        }
    }
    let seen = |part: Part| {
        let is_of = |keys: &Vec<Key>| part_of.get(keys) == Some(&part_name(part));
        let rows: Vec<&Vec<Key>> =
            dataset.rows.iter().map(|row| &row.keys).filter(|keys| is_of(keys)).collect();
        let texts: HashSet<&Vec<Key>> = rows.iter().copied().collect();
        (rows.len(), texts.len())
    };
    let mut warnings = Vec::new();
    for (part, what) in [
        (Part::Train, "that the head learned from"),
        (Part::Validation, "that were used to choose its epoch and settings"),
    ] {
        let (n_rows, n_texts) = seen(part);
        if n_rows > 0 {
            warnings.push(format!(
                "{} of {} ({}) {} among those {what}: the metrics are better than on new texts",
                counted(n_rows, "row"),
                data.display(),
                counted(n_texts, "text"),
                if n_rows == 1 { "is" } else { "are" },
            ));
        }
    }
    Ok(warnings)
}
