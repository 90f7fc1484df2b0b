//! Quotes of a tsv file that took in the lines after them.

use frostbert_cache::wording::counted;

use super::record::Record;

/// Records of one file that likely took in the lines after them: see [`Record::swallowed_to`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwallowedLines {
    n_records: u64,
    /// First and last line of the first of them.
    lines: Option<(u64, u64)>,
}

impl SwallowedLines {
    /// Looks at one more record.
    pub fn count(&mut self, example: &Record) {
        if let Some(last) = example.swallowed_to {
            self.n_records += 1;
            self.lines.get_or_insert((example.line.unwrap_or_default(), last));
        }
    }

    /// What happened and what to do about it; none where nothing did.
    pub fn in_words(&self) -> Option<String> {
        let (first, last) = self.lines?;
        Some(format!(
            "in {}, a quote joins several lines with tabs into one field, first in lines {first} to {last}; if quotes \
             are ordinary characters of the texts, set `quoting = false` for the source",
            counted(self.n_records, "record")
        ))
    }
}
