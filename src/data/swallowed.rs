//! Quotes of a tsv file that swallowed the lines after them.

use frostbert_cache::wording::counted;

use super::record::Record;

/// Counts the records of one file that probably swallowed the lines after them: see [`Record::swallowed_to`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwallowedLines {
    n_records: u64,
    /// The first and the last line of the first such record.
    lines: Option<(u64, u64)>,
}

impl SwallowedLines {
    /// Counts a record if it swallowed lines.
    pub fn count(&mut self, example: &Record) {
        if let Some(last) = example.swallowed_to {
            self.n_records += 1;
            self.lines.get_or_insert((example.line.unwrap_or_default(), last));
        }
    }

    /// Returns a warning with a remedy; `None` if there are no such records.
    pub fn in_words(&self) -> Option<String> {
        let (first, last) = self.lines?;
        Some(format!(
            "in {}, a quote joins several lines with tabs into one field, first in lines {first} to {last}; if quotes \
             are ordinary characters of the texts, set `quoting = false` for the source",
            counted(self.n_records, "record")
        ))
    }
}
