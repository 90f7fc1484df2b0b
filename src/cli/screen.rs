//! Output for people: tables that fit the width of their terminal, and colours.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use frostbert::cache::wording::{printable, shorten};
use terminal_size::{Width, terminal_size_of};

/// The width that is assumed if it is unknown, in columns.
const USUAL_COLUMNS: usize = 100;

/// A width of fewer columns than this is ignored.
const FEWEST_COLUMNS: usize = 40;

/// The width of the titles on the left, in columns.
pub(super) const MARGIN: usize = 12;

/// Cells of words are not shortened below this number of characters.
const SHORTEST_CELL: usize = 12;

/// The number of spaces between two columns of a table.
const GAP: usize = 2;

/// The style of the best rows of a table.
const BEST: Style = AnsiColor::Green.on_default().bold();

/// The beginnings of lines on stderr, and their styles.
const BEGINNINGS: [(&str, Style); 4] = [
    ("error:", AnsiColor::Red.on_default().bold()),
    ("warning:", AnsiColor::Yellow.on_default().bold()),
    ("hint:", AnsiColor::Cyan.on_default().bold()),
    ("note:", Style::new().bold()),
];

/// When there are colours.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

/// Chooses colours from the raw arguments, before they are parsed, because errors in the usage have colours too.
pub(crate) fn choose_colors(arguments: &[OsString]) {
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    let mut choice = anstream::ColorChoice::Auto;
    while let Some(argument) = arguments.next() {
        let value = match argument.split_once('=') {
            _ if argument == "--" => break,
            None if argument == "--color" => arguments.next(),
            Some(("--color", value)) => Some(value.to_string().into()),
            _ => None,
        };
        // clap reports invalid choices.
        match value.as_deref() {
            Some("always") => choice = anstream::ColorChoice::Always,
            Some("never") => choice = anstream::ColorChoice::Never,
            Some("auto") => choice = anstream::ColorChoice::Auto,
            _ => {}
        }
    }
    choice.write_global();
}

/// Writes a line to stderr, with colours if they are enabled. Failures are ignored, since there is nowhere to report
/// them.
pub(super) fn write_to_stderr(line: &str) {
    let styled = BEGINNINGS.iter().find_map(|(beginning, style)| {
        let rest = line.strip_prefix(beginning)?;
        Some(format!("{style}{beginning}{style:#}{rest}"))
    });
    let _ = writeln!(anstream::stderr(), "{}", styled.as_deref().unwrap_or(line));
}

/// Returns the width of the terminal in columns: the value of COLUMNS, or else what the terminal reports.
pub(super) fn columns() -> usize {
    let typed = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let found = || terminal_size_of(io::stdout()).map(|(Width(columns), _)| columns.into());
    typed.or_else(found).filter(|columns| *columns >= FEWEST_COLUMNS).unwrap_or(USUAL_COLUMNS)
}

/// A page for people, with colours and without control characters from the data.
#[derive(Default)]
pub(super) struct Screen {
    text: String,
}

impl Screen {
    /// Adds lines. Those that are too wide are wrapped, to the right of the titles.
    pub(super) fn text(&mut self, text: &str) {
        for line in text.lines() {
            let line = printable(line);
            let width = columns();
            if line.chars().count() <= width {
                self.text.push_str(&format!("{line}\n"));
                continue;
            }
            let (title, rest) = match line.char_indices().nth(MARGIN) {
                Some((end, _)) => line.split_at(end),
                None => ("", &*line),
            };
            for (number, line) in wrap(rest, width - MARGIN).into_iter().enumerate() {
                let title = if number == 0 { title } else { "" };
                self.text.push_str(&format!("{title:<MARGIN$}{line}\n"));
            }
        }
    }

    /// Adds a line that is meant to be copied, and is never wrapped.
    pub(super) fn as_it_is(&mut self, line: &str) {
        self.text.push_str(&format!("{}\n", printable(line)));
    }

    /// Adds sentences to the right of a title.
    pub(super) fn sentences(&mut self, title: &str, sentences: &[String]) {
        let lines: Vec<Vec<String>> = sentences.iter().map(|line| vec![line.clone()]).collect();
        self.table(title, &lines);
    }

    /// Adds a table to the right of a title.
    pub(super) fn table(&mut self, title: &str, lines: &[Vec<String>]) {
        self.table_with_best(title, lines, &[]);
    }

    /// Adds a table like [`Screen::table`], and highlights the lines with these numbers.
    pub(super) fn table_with_best(&mut self, title: &str, lines: &[Vec<String>], best: &[usize]) {
        let laid_out = lay_out(lines, columns() - MARGIN);
        for (place, (number, line)) in laid_out.iter().enumerate() {
            let title = if place == 0 { title } else { "" };
            let line = printable(line);
            let style = if best.contains(number) { BEST } else { Style::new() };
            let line = format!("{title:<MARGIN$}{style}{line}{style:#}");
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    /// Writes the page to stdout.
    pub(super) fn write(&self) -> io::Result<()> {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(self.text.as_bytes())?;
        stdout.flush()
    }
}

/// Lays out lines of cells in columns that fit the terminal.
pub(super) fn align(lines: &[Vec<String>]) -> String {
    let laid_out = lay_out(lines, columns());
    laid_out.into_iter().map(|(_, line)| line + "\n").collect()
}

/// Lays out names and their values, in lines that fit the terminal.
pub(super) fn facts(facts: &[(impl AsRef<str>, String)]) -> String {
    let names = facts.iter().map(|(name, _)| name.as_ref().chars().count());
    let names = names.max().unwrap_or(0) + GAP;
    let mut text = String::new();
    for (name, value) in facts {
        let mut name = name.as_ref();
        for line in wrap(value, columns().saturating_sub(names)) {
            text.push_str(&format!("{name:<names$}{line}\n"));
            name = "";
        }
    }
    text
}

/// Lays out lines of cells in columns, separated by two spaces and without trailing spaces, and returns each line with
/// the index of the line that it came from. If a table is too wide, words are shortened, and columns that still do not
/// fit are placed below, next to the first column again. The last cell of a line with fewer cells than others spans the
/// missing columns. A table with one column is wrapped as sentences.
fn lay_out(lines: &[Vec<String>], width: usize) -> Vec<(usize, String)> {
    let n_columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    if n_columns == 1 {
        let lines = lines.iter().enumerate();
        return lines
            .flat_map(|(number, line)| {
                wrap(line.first().map_or("", String::as_str), width)
                    .into_iter()
                    .map(move |line| (number, line))
            })
            .collect();
    }
    let widths = fitting_widths(lines, n_columns, width);
    let mut laid_out = Vec::new();
    let mut next = 1;
    while laid_out.is_empty() || next < n_columns {
        let mut used = widths.first().copied().unwrap_or(0);
        let mut block = vec![0];
        while next < n_columns && (block.len() == 1 || used + GAP + widths[next] <= width) {
            used += GAP + widths[next];
            block.push(next);
            next += 1;
        }
        if !laid_out.is_empty() {
            laid_out.push((usize::MAX, String::new()));
        }
        for (number, line) in lines.iter().enumerate() {
            let mut text = String::new();
            for column in &block {
                let Some(cell) = line.get(*column) else { break };
                let used = text.chars().count();
                let own = if spans(line, *column, n_columns) {
                    width.saturating_sub(used)
                } else {
                    widths[*column]
                };
                text.push_str(&format!("{:<own$}{:GAP$}", cut(cell, own), ""));
            }
            laid_out.push((number, text.trim_end().to_string()));
        }
        if n_columns == 0 {
            break;
        }
    }
    laid_out
}

/// Returns the width of each column: that of its widest cell, or less for columns of words if the table is too wide.
fn fitting_widths(lines: &[Vec<String>], n_columns: usize, width: usize) -> Vec<usize> {
    let length = |cell: &String| cell.chars().count();
    let cells = |column: usize| {
        let lines = lines.iter().filter(move |line| !spans(line, column, n_columns));
        lines.filter_map(move |line| line.get(column))
    };
    let mut widths: Vec<usize> =
        (0..n_columns).map(|column| cells(column).map(length).max().unwrap_or(0)).collect();
    let natural = widths.clone();
    let is_words: Vec<bool> =
        (0..n_columns).map(|column| cells(column).skip(1).any(|cell| !is_number(cell))).collect();
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * n_columns.saturating_sub(1);
    while total(&widths) > width {
        // The first column names the line, and is shortened only if it would leave little room for the others.
        let may_be_cut = |column: &usize| *column > 0 || widths[0] > width / 2;
        let wordy = (0..n_columns).filter(|column| is_words[*column] && may_be_cut(column));
        let widest = wordy.max_by_key(|column| widths[*column]);
        match widest.filter(|column| widths[*column] > SHORTEST_CELL) {
            Some(column) => widths[column] -= 1,
            // Columns that are placed below do not have to be shortened.
            None => {
                let most = width.saturating_sub(widths[0] + GAP);
                for (own, natural) in widths.iter_mut().zip(natural).skip(1) {
                    *own = natural.min(most);
                }
                break;
            }
        }
    }
    widths
}

/// Returns whether a cell is empty or a number, with or without an interval or a unit.
fn is_number(cell: &str) -> bool {
    let mut words = cell.split_whitespace();
    let is_number =
        |word: &str| word.starts_with(|c: char| c.is_ascii_digit() || "-+[".contains(c));
    words.next().is_none_or(is_number) && words.filter(|word| !is_number(word)).count() <= 1
}

/// Returns whether a cell spans the columns that its line lacks.
fn spans(line: &[String], column: usize, n_columns: usize) -> bool {
    line.len() < n_columns && column + 1 == line.len()
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width { cell.into() } else { shorten(cell, width.saturating_sub(3)) }
}

/// Returns a text unchanged if it fits, and otherwise as lines of words that are at most `width` characters long,
/// unless a single word is longer.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    if !text.trim().is_empty() && !text.contains('\n') && text.chars().count() <= width {
        return vec![text.into()];
    }
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(lines: &[&[&str]], width: usize) -> Vec<String> {
        let lines: Vec<Vec<String>> =
            lines.iter().map(|line| line.iter().map(|cell| cell.to_string()).collect()).collect();
        lay_out(&lines, width).into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn a_table_that_fits_stays_as_it_is() {
        let lines: [&[&str]; 2] = [&["metric", "test"], &["accuracy", "0.9"]];
        assert_eq!(laid_out(&lines, 14), ["metric    test", "accuracy  0.9"]);
        assert_eq!(laid_out(&[], 14), [""; 0]);
    }

    #[test]
    fn words_are_shortened_first_and_numbers_never() {
        let lines: [&[&str]; 2] =
            [&["class", "f1"], &["a_very_long_name_of_a_class", "0.912 [0.9, 0.93]"]];
        let shown = laid_out(&lines, 40);
        assert_eq!(shown[1], "a_very_long_name_o...  0.912 [0.9, 0.93]");
        assert_eq!(shown[1].len(), 40);
    }

    #[test]
    fn a_text_that_begins_with_a_number_is_shortened_as_words_are() {
        let lines: [&[&str]; 2] =
            [&["text", "truth"], &["2 words that are followed by many others", "no"]];
        assert_eq!(laid_out(&lines, 24)[1], "2 words that a...  no");
    }

    #[test]
    fn columns_that_do_not_fit_stand_below_beside_the_first() {
        let number = "0.912 [0.900, 0.930]";
        let lines: [&[&str]; 2] =
            [&["metric", "train", "validation", "test"], &["accuracy", number, number, number]];
        let shown = laid_out(&lines, 60);
        assert_eq!(
            shown,
            [
                "metric    train                 validation",
                "accuracy  0.912 [0.900, 0.930]  0.912 [0.900, 0.930]",
                "",
                "metric    test",
                "accuracy  0.912 [0.900, 0.930]",
            ]
        );
    }

    #[test]
    fn nothing_in_a_text_or_a_table_moves_the_cursor() {
        let mut screen = Screen::default();
        screen.text("a\u{1b}[31mred");
        screen.table("t", &[vec!["x\u{1b}[1m".into(), "y".into()]]);
        assert!(!screen.text.replace("\u{1b}[0m", "").contains('\u{1b}'), "{:?}", screen.text);
    }
}
