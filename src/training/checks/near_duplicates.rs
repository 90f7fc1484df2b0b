//! Texts of validation and test that are near-duplicates of texts of train, by the cosine of states.

use std::collections::HashSet;

use frostbert_cache::{
    fingerprint::Key,
    wording::{counted, part_of},
};
use serde::{Deserialize, Serialize};

use crate::{
    data::{Part, checks::RecordPlace, dataset::Dataset, example::part_name},
    error::Result,
    features::FeatureView,
    head::neighbours,
    training::checks::{Check, N_LISTED, four_places, skipped, text_of},
};

/// Lowest cosine of standardised states at which two texts count as near-duplicates. In the training set of STS-B,
/// people rate nine in ten of the pairs that are at least this similar (mean state of MiniLM's last layer) 4 or 5: the
/// same in meaning except for details. From 0.95 to 0.97, it is three in four.
pub(crate) const NEAR_COPY: f32 = 0.97;

/// Maximum number of multiply-adds for the search for near-duplicates: about a second on two cores.
const MOST_COMPARISONS: u64 = 50_000_000_000;

/// Rows of validation and test that are near-duplicates of a row of train.
///
/// Rows whose exact text occurs in train are not among them; they are counted elsewhere
/// ([`crate::data::checks::DataChecks::shared`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NearDuplicates {
    /// The state that texts were compared by.
    pub state: String,
    /// The lowest cosine that counts: [`NEAR_COPY`].
    pub threshold: f32,
    /// The counts of each part.
    pub parts: Vec<NearDuplicatesOfPart>,
    /// The most similar pairs, best first.
    pub pairs: Vec<NearCopy>,
}

/// The number of near-duplicates in a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NearDuplicatesOfPart {
    /// The part.
    pub part: Part,
    /// Number of its rows whose exact text does not occur in train.
    pub rows: usize,
    /// Number of these that were compared: an evenly spread sample if all would take too long.
    pub compared: usize,
    /// Number of the compared rows that are near-duplicates.
    pub count: usize,
}

/// Two texts that are almost the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NearCopy {
    /// The part of the row that is not in train.
    pub part: Part,
    /// Its text, shortened.
    pub text: String,
    /// The text of the training row, shortened.
    pub train_text: String,
    /// Their cosine, to four places.
    pub cosine: f64,
    /// Their places in the data files: the training row, then the other.
    pub records: [RecordPlace; 2],
}

pub(super) fn near_duplicates(
    dataset: &Dataset,
    view: &FeatureView<'_>,
) -> Result<Check<NearDuplicates>> {
    let train = dataset.part(Part::Train);
    let known: HashSet<&[Key]> =
        train.iter().map(|row| &dataset.rows[*row as usize].keys[..]).collect();
    let parts = [Part::Validation, Part::Test].map(|part| {
        let mut rows = dataset.part(part);
        rows.retain(|row| !known.contains(&dataset.rows[*row as usize].keys[..]));
        (part, rows)
    });
    let all: Vec<u32> = parts.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
    if train.is_empty() || all.is_empty() {
        let n_judged = dataset.rows.iter().filter(|row| row.part != Part::Train);
        return Ok(skipped(&match n_judged.count() {
            0 => "there are no rows of validation or test to compare with train".to_owned(),
            1 => {
                "the only row of validation and test is an exact copy of a row of train".to_owned()
            }
            n => format!(
                "all {} of validation and test are exact copies of rows of train",
                counted(n, "row")
            ),
        }));
    }
    let width = view.rows_of(train[0]).len() * view.n_features();
    let most = MOST_COMPARISONS / (train.len() * width) as u64;
    let compared = evenly_spread(&all, most.max(1) as usize);
    let nearest = neighbours::nearest(view, &train, &compared)?;
    let mut near: Vec<_> =
        compared.iter().zip(nearest).filter(|(_, nearest)| nearest.cosine >= NEAR_COPY).collect();
    near.sort_by(|(_, one), (_, other)| other.cosine.total_cmp(&one.cosine));
    let row = |place: u32| &dataset.rows[place as usize];
    let count = |rows: &mut dyn Iterator<Item = u32>, part| {
        rows.filter(|place| row(*place).part == part).count()
    };
    let parts = parts.iter().filter(|(_, rows)| !rows.is_empty());
    Ok(Check::Done(NearDuplicates {
        state: view.states[0].to_string(),
        threshold: NEAR_COPY,
        parts: parts
            .map(|(part, rows)| NearDuplicatesOfPart {
                part: *part,
                rows: rows.len(),
                compared: count(&mut compared.iter().copied(), *part),
                count: count(&mut near.iter().map(|(place, _)| **place), *part),
            })
            .collect(),
        pairs: near
            .iter()
            .take(N_LISTED)
            .map(|(place, nearest)| {
                let (other, train) = (row(**place), row(nearest.sample));
                NearCopy {
                    part: other.part,
                    text: text_of(other),
                    train_text: text_of(train),
                    cosine: four_places(f64::from(nearest.cosine)),
                    records: [train, other].map(|row| RecordPlace::of(row, &dataset.files)),
                }
            })
            .collect(),
    }))
}

/// Returns at most `most` of some rows, spread as evenly as possible.
fn evenly_spread(rows: &[u32], most: usize) -> Vec<u32> {
    let n = most.min(rows.len());
    (0..n).map(|number| rows[number * rows.len() / n]).collect()
}

impl NearDuplicatesOfPart {
    /// Returns the counts in words.
    pub(crate) fn in_words(&self) -> String {
        format!(
            "{} of {} {} of train",
            part_of(self.count, self.compared, "row"),
            part_name(self.part),
            match self.count {
                1 => "is a near-duplicate of a row",
                _ => "are near-duplicates of rows",
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_part_and_all_of_them_are_written_alike() {
        let part = Part::Test;
        let many = NearDuplicatesOfPart { part, rows: 9_000, compared: 5_881, count: 5_880 };
        let said = "5,880 of 5,881 rows of test are near-duplicates of rows of train";
        assert_eq!(many.in_words(), said);
        let one = NearDuplicatesOfPart { count: 1, ..many };
        assert!(one.in_words().starts_with("1 of 5,881 rows of test is a near-duplicate"));
    }

    #[test]
    fn a_sample_of_rows_spreads_over_all_of_them() {
        let rows: Vec<u32> = (10..20).collect();
        assert_eq!(evenly_spread(&rows, 4), [10, 12, 15, 17]);
        assert_eq!(evenly_spread(&rows, 10), rows);
        assert_eq!(evenly_spread(&rows, 1000), rows);
    }
}
