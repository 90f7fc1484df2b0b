//! Summarises a leaderboard as lines of cells, for a terminal.

use toml::Value;

use crate::{
    config::settings::show,
    selection::{
        SweepFindings,
        curves::{FRACTION, by_kind},
        leaderboard::LeaderboardRow,
    },
};

/// Maximum number of rows of the leaderboard that are listed.
pub(crate) const LISTED_ROWS: usize = 10;

/// Maximum number of values of settings that are listed; the effects of many values are easier to see in the file.
const LISTED_VALUES: usize = 30;

/// The number of trials that the line on the expected best score mentions, if there were enough.
const FEW_TRIALS: usize = 10;

/// Doubling the number of trials is likely to help if the last doubling raised the expected best score by more than
/// this share of half the interval of the best head.
const WORTHWHILE: f64 = 0.25;

/// A table with a title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryTable {
    /// The title, which is shown next to the first line.
    pub title: &'static str,
    /// Lines of cells, whose columns are to be aligned; a line of one cell is a sentence.
    pub lines: Vec<Vec<String>>,
    /// The indices of the lines to highlight: those of the best heads.
    pub best: Vec<usize>,
}

/// Returns the first rows of the leaderboard, the effects of settings, the layer profile, the learning curve, and the
/// expected best score, as far as they exist.
pub fn summary(findings: &SweepFindings) -> Vec<SummaryTable> {
    let board = &findings.leaderboard;
    let plain = |title, lines| SummaryTable { title, lines, best: Vec::new() };
    let rows = board.rows.iter().take(LISTED_ROWS).enumerate();
    // The header is line 0.
    let best = rows.filter(|(_, row)| row.not_worse_than_best).map(|(place, _)| place + 1);
    let best = best.collect();
    let blocks = [
        SummaryTable { title: "leaderboard", lines: board_lines(findings), best },
        plain("", board_notes(findings)),
        plain("effects", effect_lines(findings)),
        plain("layers", layer_lines(findings)),
        plain("labels", learning_lines(findings)),
        plain("trials", expected_line(findings).into_iter().collect()),
    ];
    let blocks = blocks.into_iter();
    blocks.filter(|block| !block.lines.is_empty()).collect()
}

fn board_lines(findings: &SweepFindings) -> Vec<Vec<String>> {
    let board = &findings.leaderboard;
    let varied = board.varied();
    let is_of_all = |key: &&str| board.rows.iter().all(|row| row.setting(key).is_some());
    let (mut keys, mut of_some): (Vec<&str>, Vec<&str>) = varied.into_iter().partition(is_of_all);
    if of_some.len() == 1 {
        keys.append(&mut of_some);
    }
    // A key that has the same value wherever it is set says nothing that the rest of the row does not.
    of_some.retain(|key| {
        let mut values = board.rows.iter().filter_map(|row| row.setting(key));
        let first = values.next();
        values.any(|value| Some(value) != first)
    });
    let has_rungs = board.rows.iter().any(|row| row.rung.is_some());
    let has_seeds = board.rows.iter().any(|row| row.seed_spread.is_some());
    let has_folds = board.rows.iter().any(|row| row.fold_spread.is_some());
    let mut header = vec!["rank".to_string()];
    header.extend(keys.iter().map(ToString::to_string));
    header.extend((!of_some.is_empty()).then(|| "settings of the kind".to_string()));
    header.extend(has_rungs.then(|| "rung".to_string()));
    header.push(board.metric.to_string());
    header.extend(has_seeds.then(|| "seed std".to_string()));
    header.extend(has_folds.then(|| "fold std".to_string()));
    header.extend(findings.test.is_some().then(|| format!("test {}", board.metric)));
    let mut lines = vec![header];
    lines.extend(board.rows.iter().take(LISTED_ROWS).enumerate().map(|(place, row)| {
        let mark = if row.not_worse_than_best { "=" } else { "" };
        let mut line = vec![format!("{}{mark}", row.rank)];
        let value = |key: &&str| row.setting(key).map_or("-".to_string(), short);
        line.extend(keys.iter().map(value));
        let own =
            of_some.iter().filter_map(|key| Some(format!("{key} {}", short(row.setting(key)?))));
        line.extend((!of_some.is_empty()).then(|| own.collect::<Vec<_>>().join(", ")));
        let rung = row.rung.map_or("-".to_string(), |rung| rung.to_string());
        line.extend(has_rungs.then_some(rung));
        line.push(score_cell(row.score, row.interval));
        let std = |row: &LeaderboardRow, of_seeds: bool| {
            let spread = if of_seeds { row.seed_spread } else { row.fold_spread };
            spread.map_or("-".to_string(), |spread| format!("{:.3}", spread.std))
        };
        line.extend(has_seeds.then(|| std(row, true)));
        line.extend(has_folds.then(|| std(row, false)));
        line.extend(findings.test.as_ref().map(|test| {
            let test = &test[place];
            score_cell(test.value(board.metric), test.interval(board.metric))
        }));
        line
    }));
    lines
}

/// Formats numbers to four digits, and everything else unchanged.
fn short(value: &Value) -> String {
    match value {
        Value::Float(number) => {
            let rounded: f64 = format!("{number:.3e}").parse().unwrap_or(*number);
            rounded.to_string()
        }
        other => show(other),
    }
}

fn score_cell(score: Option<f64>, interval: Option<[f64; 2]>) -> String {
    let score = score.map_or("-".to_string(), |score| format!("{score:.3}"));
    let interval = interval.map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
    score + &interval.unwrap_or_default()
}

fn board_notes(findings: &SweepFindings) -> Vec<Vec<String>> {
    let board = &findings.leaderboard;
    let n_rows = board.rows.len();
    let mut notes = Vec::new();
    let n_equal = board.rows.iter().filter(|row| row.not_worse_than_best).count();
    if n_rows > 1 && board.rows.iter().any(|row| row.p_value.is_some()) {
        notes.push(vec![format!(
            "= not significantly worse than the best ({}, Holm): {n_equal} of {n_rows}",
            board.test.name()
        )]);
    }
    if findings.test.is_some() {
        notes.push(vec![
            "test scores were not used to choose: picking by them would overstate the score"
                .to_string(),
        ]);
    }
    if n_rows > LISTED_ROWS {
        notes.push(vec![format!("{} more in leaderboard.csv", n_rows - LISTED_ROWS)]);
    }
    notes
}

/// Returns the settings in descending order of their effect, without those that have a table of their own, or that the
/// leaderboard alone shows well enough.
fn effect_lines(findings: &SweepFindings) -> Vec<Vec<String>> {
    let board = &findings.leaderboard;
    if board.varied().len() == 1 && board.rows.len() <= LISTED_ROWS {
        return Vec::new();
    }
    let is_shown = |key: &str| match key {
        "layer" | "layers" => !layer_lines(findings).is_empty(),
        FRACTION => !findings.learning_curve.is_empty(),
        _ => false,
    };
    let effects = findings.effects.iter();
    let mut effects: Vec<_> =
        effects.filter(|effect| effect.values.len() > 1 && !is_shown(&effect.key)).collect();
    effects.sort_by(|a, b| b.range().total_cmp(&a.range()));
    if effects.is_empty() {
        return Vec::new();
    }
    let of_all = effects.iter().flat_map(|effect| &effect.values);
    let has_diverged = of_all.clone().any(|value| value.diverged > 0);
    let mut header = vec!["setting", "value", "heads"];
    header.extend(has_diverged.then_some("diverged"));
    header.extend(["mean", "median", "best"]);
    let mut lines = vec![header.into_iter().map(String::from).collect::<Vec<_>>()];
    for effect in effects {
        if lines.len() - 1 + effect.values.len() > LISTED_VALUES {
            lines.push(vec![
                effect.key.clone(),
                format!("{} values in effects.csv", effect.values.len()),
            ]);
            continue;
        }
        lines.extend(effect.values.iter().enumerate().map(|(index, value)| {
            let key = if index == 0 { &effect.key } else { "" };
            let mut line = vec![key.to_string(), value.value.clone(), value.heads.to_string()];
            line.extend(has_diverged.then(|| value.diverged.to_string()));
            let scores = [value.mean, value.median, value.best];
            line.extend(scores.map(|score| score_cell(score, None)));
            line
        }));
    }
    lines
}

fn layer_lines(findings: &SweepFindings) -> Vec<Vec<String>> {
    let layers = &findings.layer_profile;
    if layers.len() < 2 {
        return Vec::new();
    }
    let header = ["layer", "best head", "mean"].map(String::from).to_vec();
    let lines = layers.iter().map(|layer| {
        vec![
            layer.layer.to_string(),
            score_cell(Some(layer.best), layer.interval),
            format!("{:.3}", layer.mean),
        ]
    });
    std::iter::once(header).chain(lines).collect()
}

fn learning_lines(findings: &SweepFindings) -> Vec<Vec<String>> {
    let points = &findings.learning_curve;
    if points.is_empty() {
        return Vec::new();
    }
    let kinds = by_kind(points);
    let has_kinds = kinds.len() > 1;
    let mut header = vec!["share".to_string(), "best head".to_string()];
    if has_kinds {
        header.insert(0, "kind".into());
        header.insert(2, "rows".into());
    }
    let lines = kinds.iter().flat_map(|points| points.iter().enumerate()).map(|(place, point)| {
        let share = format!("{} %", (point.fraction * 1e4).round() / 1e2);
        let mut line = vec![share, score_cell(Some(point.score), point.interval)];
        if has_kinds {
            line.insert(0, if place == 0 { point.kind.clone() } else { String::new() });
            line.insert(2, point.train_rows.to_string());
        }
        line
    });
    std::iter::once(header).chain(lines).collect()
}

/// Returns what fewer trials would have found, and whether more trials are likely to find a better head.
fn expected_line(findings: &SweepFindings) -> Option<Vec<String>> {
    let expected = &findings.expected_best;
    let n = expected.len();
    let last = *expected.last()?;
    let few = FEW_TRIALS.min(n.div_ceil(2));
    // Half of two trials is one, which says nothing about a third.
    if n < 4 {
        return None;
    }
    let gain = (last - expected[n.div_ceil(2) - 1]).abs();
    let [low, high] = findings.leaderboard.rows.first()?.interval?;
    let verdict = if gain > WORTHWHILE * (high - low) / 2.0 { "likely" } else { "unlikely" };
    Some(vec![format!(
        "expected best score after {few} {} {:.3}, after {n} trials {last:.3}; more trials are {verdict} to help",
        if few == 1 { "trial" } else { "trials" },
        expected[few - 1],
    )])
}

#[cfg(test)]
mod tests;
