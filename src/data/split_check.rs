//! Compares the split that was made with the one that was requested.

use std::collections::HashMap;

use frostbert_cache::wording::counted;
use serde::{Deserialize, Serialize};

use crate::data::{
    example::{Example, part_name},
    split::{Part, SplitFractions},
    target::DataTask,
};

/// Difference between the actual and the requested share of a split above which the user is warned.
const FAR_FROM_SHARE: f64 = 0.05;

/// How the rows of train were divided among the splits that no file gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitCheck {
    /// The requested share of each split; 0 if a file gives it.
    pub asked: SplitFractions,
    /// The actual share of each split.
    pub real: SplitFractions,
    /// Number of rows of train, validation and test.
    pub rows: [usize; 3],
    /// The groups that were kept together, if rows have groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<SplitGroups>,
}

/// Groups of rows that a split does not separate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitGroups {
    /// The nouns for a row and for a group: `sentence` and `document`, or `question` and `context`.
    pub nouns: [String; 2],
    /// Number of groups; a row without a group is one of its own.
    pub count: usize,
    /// Number of rows of the largest group.
    pub largest: usize,
}

impl SplitCheck {
    /// Checks a split of train, whose rows have been assigned to splits.
    pub(super) fn of(task: DataTask, rows: &[Example], asked: SplitFractions) -> SplitCheck {
        let count = |part| rows.iter().filter(|row| row.part == part).count();
        let counts = Part::ALL.map(count);
        let [train, validation, test] = counts.map(|n| n as f64 / rows.len().max(1) as f64);
        let mut sizes: HashMap<u64, usize> = HashMap::new();
        let groups = rows.iter().filter_map(|row| row.group);
        groups.for_each(|group| *sizes.entry(group).or_default() += 1);
        let n_alone = rows.iter().filter(|row| row.group.is_none()).count();
        SplitCheck {
            asked,
            real: SplitFractions { train, validation, test },
            rows: counts,
            groups: task.group_nouns().map(|nouns| SplitGroups {
                nouns: nouns.map(String::from),
                count: sizes.len() + n_alone,
                largest: sizes.values().copied().max().unwrap_or(1),
            }),
        }
    }

    /// Returns a warning if some split got nothing, or else if some are far from their shares.
    pub(super) fn warnings(&self) -> Vec<String> {
        let shares = || Part::ALL.into_iter().zip(self.asked.shares()).zip(self.real.shares());
        let n_rows: usize = self.rows.iter().sum();
        let row = self.groups.as_ref().map_or("row", |groups| &groups.nouns[0]);
        let empty: Vec<&str> = shares()
            .filter(|((_, asked), real)| *asked > 0.0 && *real == 0.0)
            .map(|((part, _), _)| part_name(part))
            .collect();
        let reason = match &self.groups {
            Some(groups) if groups.count < n_rows => {
                let group = &groups.nouns[1];
                match groups.count {
                    1 => format!(
                        "the {} of train are all of one {group}, and a {group} is never split",
                        counted(n_rows, row)
                    ),
                    n => format!(
                        "the {} of train are of {}, which are never split, and the largest has {}",
                        counted(n_rows, row),
                        counted(n, group),
                        groups.largest
                    ),
                }
            }
            _ => format!("train has {} to split", counted(n_rows, row)),
        };
        let parts = shares().zip(self.rows);
        let parts = parts.filter(|(((_, asked), _), _)| *asked > 0.0);
        let parts: Vec<String> = parts
            .map(|(((part, asked), real), rows)| {
                format!(
                    "{} {rows} ({:.1} % of {row}s instead of {:.1} %)",
                    part_name(part),
                    100.0 * real,
                    100.0 * asked
                )
            })
            .collect();
        let parts = parts.join(", ");
        let is_far = self.groups.is_some()
            && shares().any(|((_, asked), real)| (asked - real).abs() > FAR_FROM_SHARE + 1e-9);
        let mut warnings = Vec::new();
        if !empty.is_empty() {
            let files: Vec<String> = empty.iter().map(|part| format!("data.{part}")).collect();
            warnings.push(format!(
                "no {row} for {}: {reason}: {parts}; name files in {}, or give all of data.split to the other parts",
                empty.join(" and "),
                files.join(" and ")
            ));
        } else if is_far {
            warnings.push(format!("the split is far from data.split: {parts}: {reason}"));
        }
        warnings
    }
}
