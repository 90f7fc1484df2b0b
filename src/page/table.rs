//! Tables, bars and figures as the templates show them.

use serde::Serialize;

use crate::report::chart::{Chart, ChartFrame};

/// A table: names of columns, and rows of cells.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct TableView {
    pub(super) columns: Vec<ViewColumn>,
    pub(super) rows: Vec<ViewRow>,
    /// What is to be said of it, below.
    pub(super) note: Option<String>,
}

/// The head of a column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ViewColumn {
    pub(super) name: String,
    pub(super) is_number: bool,
}

/// The cells of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ViewRow {
    pub(super) cells: Vec<String>,
    /// Whether it stands out.
    pub(super) is_marked: bool,
}

impl TableView {
    /// A table without rows: columns of words first, then columns of numbers.
    pub(super) fn new(words: &[&str], numbers: &[&str]) -> TableView {
        let column = |name: &&str, is_number: bool| ViewColumn { name: (*name).into(), is_number };
        let words = words.iter().map(|name| column(name, false));
        let columns = words.chain(numbers.iter().map(|name| column(name, true)));
        TableView { columns: columns.collect(), ..TableView::default() }
    }

    /// Adds a row.
    pub(super) fn push<const N: usize>(&mut self, cells: [String; N]) {
        self.push_row(cells.to_vec(), false);
    }

    /// Adds a row, which may stand out.
    pub(super) fn push_row(&mut self, cells: Vec<String>, is_marked: bool) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{cells:?}");
        self.rows.push(ViewRow { cells, is_marked });
    }

    /// The table, where it has rows.
    pub(super) fn if_any(self) -> Option<TableView> {
        (!self.rows.is_empty()).then_some(self)
    }
}

/// A bar with its name and its number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: String,
    /// Its length, of 1.
    pub(super) length: f64,
}

/// Bars of numbers, the longest of them of length 1.
pub(super) fn bars(values: impl Iterator<Item = (String, String, f64)> + Clone) -> Vec<Bar> {
    let longest = values.clone().map(|(.., value)| value).fold(f64::MIN_POSITIVE, f64::max);
    values.map(|(name, shown, value)| Bar { name, value: shown, length: value / longest }).collect()
}

/// A chart with what stands in for it: a description, and its numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    pub(super) title: String,
    pub(super) description: String,
    pub(super) width: u32,
    pub(super) height: u32,
    /// What the SVG holds. The library that drew it has escaped every text in it.
    pub(super) shapes: String,
    pub(super) numbers: TableView,
}

impl Figure {
    /// A chart as a figure of a page, which says its title itself.
    pub(super) fn new(
        title: impl Into<String>,
        description: String,
        chart: Chart,
        numbers: TableView,
    ) -> Figure {
        let frame = ChartFrame::PAGE;
        let svg = Chart { title: String::new(), ..chart }.draw(frame);
        // The page writes the element itself: with a title, and without the address of a name space.
        let inside = svg.split_once('>').map_or("", |(_, rest)| rest);
        let shapes = inside.trim_end().trim_end_matches("</svg>").to_string();
        let (width, height) = frame.size;
        Figure { title: title.into(), description, width, height, shapes, numbers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::{Axis, BLUE, Curve};

    #[test]
    fn a_figure_holds_the_shapes_of_its_chart_and_no_address() {
        let chart = Chart {
            title: "Loss".into(),
            x_label: "epoch".into(),
            y_label: "loss".into(),
            x: Axis::over(1.0..3.0),
            y: None,
            mark: Some(2.0),
            legend: None,
            curves: vec![Curve::new("train", BLUE, vec![(1.0, 2.0), (3.0, 1.0)])],
        };
        let figure = Figure::new("Loss", "falls".into(), chart, TableView::default());
        assert!(figure.shapes.contains("<polyline") && figure.shapes.contains("epoch"));
        assert!(!figure.shapes.contains("http") && !figure.shapes.contains("svg"));
    }

    #[test]
    fn the_longest_bar_is_as_long_as_there_is_room() {
        let values = [("a", 2.0), ("b", 4.0)].map(|(name, n)| (name.to_string(), n.to_string(), n));
        let lengths: Vec<f64> =
            bars(values.into_iter()).into_iter().map(|bar| bar.length).collect();
        assert_eq!(lengths, [0.5, 1.0]);
    }
}
