//! Labels that are given by their ids: whether these count from 0 or from 1.

use std::borrow::Cow;

use super::{labels::LabelMap, source::Source};
use crate::error::{Error, Result};

/// A cell with a number that is not the name of a label, and its place.
struct IdCell<'a> {
    id: usize,
    source: &'a Source,
    line: Option<u64>,
}

/// Returns the id of the first label, 0 or 1, with which all cells that hold ids can be read; `None` if no cell holds
/// an id.
///
/// A cell holds an id if it is a whole number and not the name of a label, provided that no label has a number as its
/// name. `cells` are those of all files that are read together: one way of counting must fit them all.
///
/// # Errors
/// Returns an error if neither way of counting fits, or if both do, because the numbers then do not determine the
/// labels.
pub(super) fn first_id<'a>(
    labels: &LabelMap,
    cells: impl Iterator<Item = (Cow<'a, str>, &'a Source, Option<u64>)>,
) -> Result<Option<usize>> {
    if labels.names().iter().any(|name| name.parse::<i64>().is_ok()) {
        return Ok(None);
    }
    let ids = cells.filter_map(|(cell, source, line)| {
        let id = cell.parse().ok().filter(|_| labels.id(&cell).is_none())?;
        Some(IdCell { id, source, line })
    });
    let (mut least, mut most): (Option<IdCell<'_>>, Option<IdCell<'_>>) = (None, None);
    for cell in ids {
        if most.as_ref().is_none_or(|most| cell.id > most.id) {
            most = Some(IdCell { ..cell });
        }
        if least.as_ref().is_none_or(|least| cell.id < least.id) {
            least = Some(cell);
        }
    }
    let (Some(least), Some(most)) = (least, most) else {
        return Ok(None);
    };
    let n = labels.len();
    if most.id > n {
        // Not the id of a label, whichever way ids count.
        return Err(labels.unknown(&most.id.to_string(), &most.source.path, most.line));
    }
    match (least.id == 0, most.id == n) {
        (true, false) => Ok(Some(0)),
        (false, true) => Ok(Some(1)),
        (true, true) => Err(refuse(
            &most,
            format!("ids that all count from 0 (to {}) or all from 1 (to {n})", n - 1),
            format!("`{n}` here, and `0` {}", place(&least)),
            "write the names of the labels, or correct the file whose ids are counted differently",
        )),
        (false, false) => Err(refuse(
            &least,
            format!(
                "names of labels, or ids that include 0 or {n}, so that it is clear whether the {n} labels are \
                 counted from 0 or from 1"
            ),
            if least.id == most.id {
                format!("`{}`, which may be counted either way", least.id)
            } else {
                format!("ids from {} to {}, which may be counted either way", least.id, most.id)
            },
            "write the names of the labels",
        )),
    }
}

fn refuse(cell: &IdCell<'_>, expected: String, got: String, hint: &str) -> Error {
    cell.source.malformed(cell.line, expected, got, hint)
}

fn place(cell: &IdCell<'_>) -> String {
    let path = cell.source.path.display();
    match cell.line {
        Some(line) => format!("on line {line} of {path}"),
        None => format!("in {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(labels: &[&str], cells: &[&str]) -> Result<Option<usize>> {
        let labels = LabelMap::from_train(labels.iter().copied());
        let source = Source::new("a.csv");
        let cells = cells.iter().zip(2..);
        first_id(&labels, cells.map(|(cell, line)| (Cow::Borrowed(*cell), &source, Some(line))))
    }

    #[test]
    fn ids_are_counted_as_all_of_them_can_be() {
        let labels = ["a", "b", "c", "d"];
        assert_eq!(first(&labels, &["a", "d"]).unwrap(), None);
        assert_eq!(first(&labels, &["0", "b", "2"]).unwrap(), Some(0));
        assert_eq!(first(&labels, &["1", "4", "a"]).unwrap(), Some(1));
        assert_eq!(first(&["1", "2"], &["0", "2"]).unwrap(), None, "names that are numbers");
    }

    #[test]
    fn ids_that_fit_no_way_of_counting_or_both_are_errors_with_their_place() {
        let labels = ["a", "b", "c", "d"];
        for (cells, message) in [
            (
                &["3", "1", "2"][..],
                "a.csv:3: expected names of labels, or ids that include 0 or 4, so that it is clear whether the 4 \
                 labels are counted from 0 or from 1, got ids from 1 to 3, which may be counted either way",
            ),
            (
                &["0", "4"],
                "a.csv:3: expected ids that all count from 0 (to 3) or all from 1 (to 4), got `4` here, and `0` on line 2 \
                 of a.csv",
            ),
            (&["0", "5"], "a.csv:3: expected one of the labels `a`, `b`, `c`, `d`, got `5`"),
        ] {
            assert_eq!(first(&labels, cells).unwrap_err().to_string(), message);
        }
    }
}
