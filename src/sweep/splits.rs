//! The sets of rows that the heads of a sweep are trained on and evaluated on: folds, shares of the training rows,
//! resamples.

use std::collections::HashSet;

use frostbert_cache::wording::counted;

use crate::{
    config::{
        file::sweep::{Search, SweepSection},
        settings::Pipeline,
    },
    data::{Part, dataset::Dataset},
    error::Result,
    selection::folds::{Stratum, parted, resampled, share},
};

/// Maximum number of sets of rows; more are taken to be a mistake.
const MOST_CUTS: usize = 10_000;

/// Minimum number of rows that a head is trained on.
const LEAST_ROWS: usize = 2;

/// Rows of a dataset to train on and rows to evaluate on.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// The share of the training rows, as its position in `sweep.fraction`; `None` for all of them.
    pub(super) share: Option<usize>,
    /// The number of a resample; `None` for the rows as they are.
    pub(super) resample: Option<usize>,
    /// The fold that it has no rows of, if it is one of the splits that choose a setting without that fold.
    pub(super) without: Option<usize>,
    pub(super) train: Vec<u32>,
    pub(super) validation: Vec<u32>,
}

impl Split {
    /// Whether a row of the leaderboard is of its heads: resamples and what chooses without a fold stand elsewhere.
    pub(super) fn is_ranked(&self) -> bool {
        self.resample.is_none() && self.without.is_none()
    }
}

/// All sets of a sweep: each share and resample of each fold.
///
/// With folds, train and validation are divided together; test is not used.
///
/// # Errors
/// Returns an error if there are fewer rows than folds, or if a number is out of range.
pub(super) fn splits(
    pipeline: &Pipeline,
    section: &SweepSection,
    dataset: &Dataset,
) -> Result<Vec<Split>> {
    let refuse = |problem: String, hint: &str| Err(pipeline.refuse(problem, hint.into()));
    let (train, validation) = (dataset.part(Part::Train), dataset.part(Part::Validation));
    let seed = pipeline.seed;
    let mut parts: Vec<[Vec<u32>; 2]> = Vec::new();
    let mut pool = train.clone();
    match section.folds {
        None if validation.is_empty() => {
            return refuse(
                "a sweep chooses by validation rows, but there are none".into(),
                "set sweep.folds = 5, or give data.split.validation a share",
            );
        }
        None => parts.push([train, validation]),
        Some(n_folds) => {
            pool.extend(validation);
            pool.sort_unstable();
            let n_units = units(dataset, &pool);
            if n_folds < 2 || n_folds > n_units.min(MOST_CUTS) {
                return refuse(
                    format!(
                        "sweep.folds is {n_folds}, but train and validation have {}, counting those that belong \
                         together once",
                        counted(n_units, "row")
                    ),
                    "set sweep.folds to 5 or 10, or leave it out",
                );
            }
            parts = parted(&pool, &strata(dataset, &pool), n_folds, seed);
        }
    }
    let fractions = section.fraction.as_ref().map_or(&[][..], |fraction| fraction.values());
    if let Some(fraction) =
        fractions.iter().find(|fraction| !(**fraction > 0.0 && **fraction <= 1.0))
    {
        return refuse(
            format!("sweep.fraction names the share {fraction}"),
            "name shares of the training rows above 0 and up to 1, as in [0.1, 0.3, 1.0]",
        );
    }
    let resamples = section.bootstrap.unwrap_or(0);
    let n_nested = section.nested.unwrap_or(0).saturating_add(1);
    let n_splits = parts.len().saturating_mul(fractions.len().max(1)).saturating_mul(n_nested);
    if n_splits.saturating_mul(resamples.saturating_add(1)) > MOST_CUTS {
        return refuse(
            format!("folds, shares and resamples make more than {MOST_CUTS} sets of rows"),
            "lower sweep.bootstrap, sweep.folds or sweep.nested",
        );
    }
    let inner = match section.nested {
        None => Vec::new(),
        Some(n_folds) => nested(pipeline, section, dataset, n_folds, &parts)?,
    };
    // Whether a row is in a share does not depend on its fold.
    let strata = strata(dataset, &pool);
    let seed = pipeline.seed;
    let mut shares: Vec<(Option<usize>, Option<HashSet<u32>>)> = Vec::new();
    for (number, fraction) in fractions.iter().enumerate() {
        let rows = share(&pool, &strata, *fraction, seed);
        shares.push((Some(number), Some(rows.into_iter().collect())));
    }
    if shares.is_empty() {
        shares.push((None, None));
    }
    let mut splits = Vec::new();
    for [train, validation] in parts {
        for (number, rows) in &shares {
            let within = |row: &u32| rows.as_ref().is_none_or(|rows| rows.contains(row));
            let rows: Vec<u32> = train.iter().copied().filter(within).collect();
            if rows.len() < LEAST_ROWS {
                return refuse(
                    format!("a head would learn from only {}", counted(rows.len(), "row")),
                    "name larger shares in sweep.fraction or fewer sweep.folds, or add rows",
                );
            }
            let resamples = (0..resamples).map(Some);
            for resample in std::iter::once(None).chain(resamples) {
                splits.push(Split {
                    share: *number,
                    resample,
                    without: None,
                    train: match resample {
                        None => rows.clone(),
                        Some(number) => resampled(&rows, seed, number as u64),
                    },
                    validation: validation.clone(),
                });
            }
        }
    }
    splits.extend(inner);
    Ok(splits)
}

/// The folds of what each fold leaves: settings are chosen on these and the fold itself measures the choice.
fn nested(
    pipeline: &Pipeline,
    section: &SweepSection,
    dataset: &Dataset,
    n_folds: usize,
    parts: &[[Vec<u32>; 2]],
) -> Result<Vec<Split>> {
    let refuse = |problem: String, hint: &str| Err(pipeline.refuse(problem, hint.into()));
    if section.folds.is_none() {
        return refuse(
            "sweep.nested chooses again without each fold, but there are no folds".into(),
            "set sweep.folds = 5 beside it, or leave it out",
        );
    }
    let other = [
        (section.search == Search::Halving, "search = \"halving\""),
        (section.fraction.is_some(), "fraction"),
        (section.bootstrap.is_some_and(|n| n > 0), "bootstrap"),
    ];
    if let Some((_, key)) = other.iter().find(|(is_set, _)| *is_set) {
        return refuse(
            format!("sweep.nested cannot be combined with sweep.{key}"),
            "use one of them at a time",
        );
    }
    let n_units = parts.iter().map(|[train, _]| units(dataset, train)).min();
    let n_units = n_units.unwrap_or(0);
    if n_folds < 2 || n_folds > n_units {
        return refuse(
            format!(
                "sweep.nested is {n_folds}, but a fold leaves {}, counting those that belong together once",
                counted(n_units, "row")
            ),
            "set sweep.nested to 3 or 5, or leave it out",
        );
    }
    let mut splits = Vec::new();
    for (fold, [rows, _]) in parts.iter().enumerate() {
        for [train, validation] in parted(rows, &strata(dataset, rows), n_folds, pipeline.seed) {
            splits.push(Split {
                share: None,
                resample: None,
                without: Some(fold),
                train,
                validation,
            });
        }
    }
    Ok(splits)
}

/// Returns the number of rows without a group plus the number of groups, which is what can be dealt to folds.
fn units(dataset: &Dataset, rows: &[u32]) -> usize {
    let groups = rows.iter().map(|row| dataset.rows[*row as usize].group);
    let alone = groups.clone().filter(Option::is_none).count();
    alone + groups.flatten().collect::<HashSet<u64>>().len()
}

fn strata(dataset: &Dataset, rows: &[u32]) -> Vec<Stratum> {
    rows.iter()
        .map(|row| {
            let row = &dataset.rows[*row as usize];
            Stratum { class: row.target.class(), group: row.group }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::train::load_dataset;

    #[test]
    fn a_fold_has_no_part_in_the_folds_that_choose_without_it() {
        let text = "[model]\npath = \"model\"\n[data]\ntrain = { path = \"data/reviews.csv\" }\n\
                    [sweep]\nfolds = 3\nnested = 2\nlr = [0.1]";
        let file = toml::from_str(text).unwrap();
        let pipeline = Pipeline::check("pipeline.toml".as_ref(), file).unwrap();
        let dataset = load_dataset(&pipeline).unwrap();
        let splits = splits(&pipeline, pipeline.sweep().unwrap(), &dataset).unwrap();
        assert_eq!(splits.len(), 3 + 3 * 2);
        for (fold, outer) in splits[..3].iter().enumerate() {
            assert_eq!(outer.without, None);
            let inner: Vec<&Split> =
                splits.iter().filter(|split| split.without == Some(fold)).collect();
            assert_eq!(inner.len(), 2);
            let sorted = |rows: &[&[u32]]| {
                let mut rows = rows.concat();
                rows.sort_unstable();
                rows
            };
            for split in &inner {
                // The training and validation rows together are those outside the fold.
                assert_eq!(sorted(&[&split.train, &split.validation]), sorted(&[&outer.train]));
            }
            assert_eq!(
                sorted(&[&inner[0].validation, &inner[1].validation]),
                sorted(&[&outer.train])
            );
            assert!(outer.validation.iter().all(|row| !outer.train.contains(row)));
        }
    }
}
