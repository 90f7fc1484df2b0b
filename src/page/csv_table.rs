//! The tables of a run folder that people read, read back: history.csv and those of a sweep.

use std::path::Path;

/// The cells of a CSV file with a line of names.
#[derive(Clone, Debug, Default)]
pub(super) struct CsvTable {
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl CsvTable {
    /// Reads a file; `None` where there is none, or it is no table.
    pub(super) fn read(path: &Path) -> Option<CsvTable> {
        CsvTable::parse(&std::fs::read(path).ok()?)
    }

    /// Reads the bytes of a file.
    pub(super) fn parse(bytes: &[u8]) -> Option<CsvTable> {
        let mut reader = csv::Reader::from_reader(bytes);
        let names = reader.headers().ok()?.iter().map(String::from).collect();
        let records = reader.records().map(|record| {
            let cells = record.ok()?;
            Some(cells.iter().map(String::from).collect())
        });
        Some(CsvTable { names, rows: records.collect::<Option<_>>()? })
    }

    /// The place of a column.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|own| own == name)
    }

    /// The cells of a column.
    pub(super) fn column(&self, name: &str) -> Option<Vec<&str>> {
        let place = self.place(name)?;
        Some(self.rows.iter().map(|row| row[place].as_str()).collect())
    }

    /// The numbers of a column; none where a cell is empty or no number.
    pub(super) fn numbers(&self, name: &str) -> Option<Vec<Option<f64>>> {
        let cells = self.column(name)?.into_iter();
        let number = |cell: &str| cell.parse().ok().filter(|number: &f64| number.is_finite());
        Some(cells.map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_by_the_names_of_their_columns() {
        let table = CsvTable::parse(b"epoch,loss\n1,0.5\n2,\n").unwrap();
        assert_eq!(table.numbers("loss").unwrap(), [Some(0.5), None]);
        assert_eq!(table.column("epoch").unwrap(), ["1", "2"]);
        assert!(table.column("lr").is_none());
        assert!(CsvTable::parse(b"a,b\n1\n").is_none());
    }
}
