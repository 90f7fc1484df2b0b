//! Texts with marks in them, such as an answer in its context.

use serde::Serialize;

use super::texts::TextGate;

/// Characters of a context before and after what is marked.
const AROUND: usize = 160;

/// A text with marks in it.
pub(super) type MarkedText = Vec<TextPiece>;

/// A piece of a text, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TextPiece {
    pub(super) text: String,
    /// `plain`, `truth`, `predicted`, `right` or `wrong`.
    pub(super) kind: &'static str,
    /// What is to be said of it.
    pub(super) note: Option<String>,
}

/// What stands around the true and the predicted answer of a context, with both marked where they first stand.
pub(super) fn excerpt(
    context: &str,
    truth: Option<&str>,
    predicted: Option<&str>,
    gate: &TextGate,
) -> MarkedText {
    let find = |answer: Option<&str>| {
        let answer = answer.filter(|answer| !answer.is_empty())?;
        let start = context.find(answer)?;
        Some(start..start + answer.len())
    };
    let (truth, predicted) = (find(truth), find(predicted));
    let marked = [truth.clone(), predicted.clone()].into_iter().flatten();
    let first = marked.clone().map(|range| range.start).min().unwrap_or(0);
    let last = marked.map(|range| range.end).max().unwrap_or(0);
    let start = context[..first].char_indices().rev().nth(AROUND - 1).map_or(0, |(place, _)| place);
    let end =
        context[last..].char_indices().nth(AROUND).map_or(context.len(), |(place, _)| last + place);
    let (start, end) = between_words(context, start..first, last..end);
    let mut ends: Vec<usize> = vec![start, end];
    ends.extend(
        [&truth, &predicted].into_iter().flatten().flat_map(|range| [range.start, range.end]),
    );
    ends.sort_unstable();
    ends.dedup();
    let holds = |range: &Option<std::ops::Range<usize>>, place: usize| {
        range.as_ref().is_some_and(|range| range.contains(&place))
    };
    let mut pieces: MarkedText = Vec::new();
    for ends in ends.windows(2) {
        let kind = match (holds(&truth, ends[0]), holds(&predicted, ends[0])) {
            (true, true) => "right",
            (true, false) => "truth",
            (false, true) => "predicted",
            (false, false) => "plain",
        };
        let text = &context[ends[0]..ends[1]];
        // The whole counts as one text.
        pieces.push(TextPiece { text: text.into(), kind, note: None });
    }
    if start > 0 {
        pieces.insert(0, TextPiece { text: "… ".into(), kind: "plain", note: None });
    }
    if end < context.len() {
        pieces.push(TextPiece { text: " …".into(), kind: "plain", note: None });
    }
    gate.count_one();
    pieces
}

/// Where an excerpt starts and ends that cuts no word, given where it could, before and after what is marked.
fn between_words(
    context: &str,
    before: std::ops::Range<usize>,
    after: std::ops::Range<usize>,
) -> (usize, usize) {
    let (text_before, text_after) = (&context[before.clone()], &context[after.clone()]);
    let is_space = |c: char| c.is_whitespace();
    let start = match text_before.find(is_space) {
        Some(place) if before.start > 0 => before.start + place,
        _ => before.start,
    };
    let end = match text_after.rfind(is_space) {
        Some(place) if after.end < context.len() => after.start + place,
        _ => after.end,
    };
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(
        context: &str,
        truth: Option<&str>,
        predicted: Option<&str>,
    ) -> Vec<(String, &'static str)> {
        let gate = TextGate::new(true);
        let pieces = excerpt(context, truth, predicted, &gate);
        assert_eq!(gate.shown(), 1);
        pieces.into_iter().map(|piece| (piece.text, piece.kind)).collect()
    }

    #[test]
    fn an_answer_is_marked_where_it_stands_and_what_both_share_once() {
        let found = marks("Built in 1889 in Paris.", Some("in 1889"), Some("1889 in Paris"));
        let expected = [
            ("Built ", "plain"),
            ("in ", "truth"),
            ("1889", "right"),
            (" in Paris", "predicted"),
            (".", "plain"),
        ];
        assert_eq!(found, expected.map(|(text, kind)| (text.to_string(), kind)));
    }

    #[test]
    fn a_long_context_is_cut_around_what_is_marked_between_characters() {
        let context = format!("{}Ärger{}", "ü".repeat(400), "ß".repeat(400));
        let found = marks(&context, Some("Ärger"), None);
        assert_eq!(found[0].0, "… ");
        assert_eq!(found[1].0.chars().count(), AROUND);
        assert_eq!(found[2], ("Ärger".into(), "truth"));
        let words = format!("{} Ärger {}", "über alles ".repeat(40), "weiß nichts ".repeat(40));
        let found = marks(&words, Some("Ärger"), None);
        assert!(found[1].0.starts_with(" ") && found[3].0.ends_with("nichts"), "{found:?}");
        let none = marks("short", Some("elsewhere"), None);
        assert_eq!(none, [("short".to_string(), "plain")]);
    }
}
