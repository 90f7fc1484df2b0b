//! Labels that are missing, or that look as if they stood for something else.

use std::collections::BTreeMap;

use frostbert_cache::wording::{counted, part_of};

use super::{clean::CleanOptions, labels::LabelMap, record::Record, source::Source};
use crate::error::Result;

/// Counts the records without a label, over several files.
#[derive(Default)]
pub(super) struct Unlabelled {
    count: usize,
    /// The source and the line of the first such record.
    first: Option<(usize, Option<u64>)>,
}

impl Unlabelled {
    pub(super) fn count(&mut self, example: &Record) {
        self.count += 1;
        self.first.get_or_insert((example.source, example.line));
    }

    /// Returns a warning if they were dropped, and an error otherwise; `None` if there are none.
    pub(super) fn settle(
        self,
        sources: &[Source],
        n_read: usize,
        options: CleanOptions,
    ) -> Result<Option<String>> {
        let Some((source, line)) = self.first else { return Ok(None) };
        let source = &sources[source];
        let (n, part) = (self.count, part_of(self.count, n_read, "record"));
        let (have, were) = if n == 1 { ("has", "was") } else { ("have", "were") };
        if options.drop_unlabelled && n < n_read {
            let files = match sources {
                [source] => source.path.display().to_string(),
                sources => counted(sources.len(), "file"),
            };
            return Ok(Some(format!("{files}: {part} {have} no label and {were} left out")));
        }
        Err(source.malformed(
            line,
            "a label for each text",
            format!("none: {part} {have} no label"),
            if options.drop_unlabelled {
                "check which column the source's `label` names"
            } else {
                "leave them out with data.clean.drop_unlabelled = true in the pipeline, or check which column the source's `label` names"
            },
        ))
    }
}

/// Returns warnings about odd names of labels: those that may stand for a missing label, and those that differ only in
/// spelling.
pub(super) fn label_warnings(labels: &LabelMap) -> Vec<String> {
    const NOTHING: [&str; 8] = ["null", "none", "n/a", "na", "nil", "-", "?", "#n/a"];
    let names = labels.names();
    let mut warnings = Vec::new();
    let odd = names.iter().filter(|name| NOTHING.contains(&name.to_lowercase().as_str()));
    let odd: Vec<String> = odd.map(|name| format!("`{name}`")).collect();
    if !odd.is_empty() {
        warnings.push(format!(
            "{} is learned as a label like any other: if it stands for a missing label, empty these cells and set \
             data.clean.drop_unlabelled = true",
            odd.join(", ")
        ));
    }
    let plain = |name: &str| -> String {
        // -1 and 1 are different numbers, not two spellings of one name.
        if !name.chars().any(char::is_alphabetic) {
            return name.to_owned();
        }
        let kept = name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '_' | '-'));
        kept.flat_map(char::to_lowercase).collect()
    };
    let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        alike.entry(plain(name)).or_default().push(name);
    }
    let alike = alike.into_values().filter(|names| names.len() > 1);
    let alike: Vec<String> = alike.map(|names| format!("`{}`", names.join("`, `"))).collect();
    if !alike.is_empty() {
        let more =
            if alike.len() > 3 { format!(" and {} more", alike.len() - 3) } else { String::new() };
        let shown = alike[..alike.len().min(3)].join("; ");
        warnings.push(format!(
            "labels that differ only in spelling are different classes: {shown}{more}; if they are one, write them alike \
             in the data, because no setting merges labels"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_without_a_label_are_counted_with_thousands_apart() {
        let unlabelled = Unlabelled { count: 1_500, first: Some((0, None)) };
        let options = CleanOptions { drop_unlabelled: true, ..CleanOptions::default() };
        let warning = unlabelled.settle(&[Source::new("a.csv")], 12_000, options).unwrap();
        let expected = "a.csv: 1,500 of 12,000 records have no label and were left out";
        assert_eq!(warning.as_deref(), Some(expected));
    }

    #[test]
    fn labels_that_look_alike_are_named_with_what_to_do() {
        let warnings = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            label_warnings(&LabelMap::from_list(names, "a.csv".as_ref()).unwrap())
        };
        let said = warnings(&["Cold", "cold", "too_warm", "too warm", "-1", "1"]);
        let expected = "labels that differ only in spelling are different classes: `Cold`, `cold`; `too_warm`, `too warm`; \
                        if they are one, write them alike in the data, because no setting merges labels";
        assert_eq!(said, [expected]);
        assert_eq!(warnings(&["cold", "warm"]), [""; 0]);
    }
}
