//! Helpers for wording messages: counts with their nouns, lists of names, and texts that are safe to display.

use std::{
    borrow::{Borrow, Cow},
    path::Path,
};

use serde::Serializer;

/// Formats a count with its noun: `1 text`, `2 texts`, `1,000 queries`.
///
/// The last word of the noun gets a regular plural.
///
/// ```
/// use frostbert_cache::wording::counted;
///
/// assert_eq!(counted(1, "text"), "1 text");
/// assert_eq!(counted(12_345, "near copy"), "12,345 near copies");
/// assert_eq!(counted(0, "class"), "0 classes");
/// ```
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    // Counts are the sizes of things in memory or on a disk.
    let count: u64 = count.try_into().unwrap_or(u64::MAX);
    let grouped = grouped(count);
    let before_y = noun.strip_suffix('y');
    match (count, before_y) {
        (1, _) => format!("{grouped} {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => {
            format!("{grouped} {stem}ies")
        }
        // The ch of `epoch` is pronounced as a k.
        _ if noun.ends_with("epoch") => format!("{grouped} {noun}s"),
        _ if noun.ends_with(['s', 'x']) || noun.ends_with("ch") => format!("{grouped} {noun}es"),
        _ => format!("{grouped} {noun}s"),
    }
}

/// Formats a number with its thousands apart.
///
/// ```
/// use frostbert_cache::wording::grouped;
///
/// assert_eq!(grouped(999_u64), "999");
/// assert_eq!(grouped(13_083_usize), "13,083");
/// ```
pub fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats how many of a number of things something holds for.
///
/// ```
/// use frostbert_cache::wording::part_of;
///
/// assert_eq!(part_of(5_880, 5_881, "text"), "5,880 of 5,881 texts");
/// ```
pub fn part_of(part: impl TryInto<u64>, whole: impl TryInto<u64>, noun: &str) -> String {
    format!("{} of {}", grouped(part), counted(whole, noun))
}

/// Formats a list of names for a message: `` `a`, `b` and 75 more ``; at most ten names of at most 40 characters each.
pub fn name_list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const N_SHOWN: usize = 10;
    let n_names = names.len();
    let shown: Vec<String> =
        names.take(N_SHOWN).map(|name| format!("`{}`", shorten(name, 40))).collect();
    match n_names {
        0 => "none".to_owned(),
        n if n > N_SHOWN => format!("{} and {} more", shown.join(", "), n - N_SHOWN),
        _ => shown.join(", "),
    }
}

/// The name that was probably meant: the nearest of those that are known by letters that were left out, put in, changed or
/// swapped, where these are few for the name's length.
///
/// ```
/// use frostbert_cache::wording::nearest;
///
/// assert_eq!(nearest("droput", ["dropout", "pooling"]), Some("dropout"));
/// assert_eq!(nearest("colour", ["dropout", "pooling"]), None);
/// ```
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LETTERS_PER_SLIP: usize = 3;
    let slips = known.into_iter().map(|known| (slips_between(typed, known), known));
    let (slips, name) = slips.min_by_key(|(slips, _)| *slips)?;
    let most = (typed.chars().count().max(name.chars().count()) / LETTERS_PER_SLIP).max(1);
    (slips <= most && slips < name.chars().count()).then_some(name)
}

/// The optimal string alignment distance of two names, upper and lower case alike.
fn slips_between(a: &str, b: &str) -> usize {
    let letters = |name: &str| name.to_lowercase().chars().collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut slips =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                slips = slips.min(rows[i - 2][j - 2] + 1);
            }
            row.push(slips);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Characters of a name that stand in a sentence.
const QUOTED_CHARACTERS: usize = 120;

/// A name from the data as it stands in a sentence: between backticks, of which none are left in it, on one line and
/// shortened.
pub fn quoted(name: &str) -> String {
    format!("`{}`", shorten(name, QUOTED_CHARACTERS).replace('`', "'"))
}

/// At most `n_characters` of `text` on one line, with `...` where something is left out.
pub fn shorten(text: &str, n_characters: usize) -> String {
    let mut characters = text.chars();
    let mut short = String::new();
    for character in characters.by_ref().take(n_characters) {
        if character.is_control() {
            short.extend(character.escape_default())
        } else {
            short.push(character)
        }
    }
    if characters.next().is_some() {
        short.push_str("...");
    }
    short
}

/// Makes a text safe for a terminal: escapes control characters other than line ends and tabs, so that nothing in data
/// or in a file name can move the cursor, change colours or ring the bell.
///
/// ```
/// assert_eq!(frostbert_cache::wording::printable("a\u{1b}[31mb\tc\n"), "a\\u{1b}[31mb\tc\n");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            shown.extend(character.escape_default())
        } else {
            shown.push(character)
        }
    }
    Cow::Owned(shown)
}

/// Serialises a path for a report: anything that is not UTF-8 is shown as U+FFFD, where serde's own implementation
/// would fail. For paths that are not read back.
pub fn path_shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Does the same as [`path_shown`] for several paths.
pub fn paths_shown<S: Serializer>(
    paths: &[impl Borrow<Path>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.borrow().to_string_lossy()))
}

/// Does the same as [`path_shown`] for an optional path.
pub fn path_shown_if_any<S: Serializer>(
    path: &Option<impl Borrow<Path>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => path_shown(path.borrow(), serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

    use serde::Serialize;

    use super::*;

    #[test]
    fn a_path_that_is_no_utf_8_is_shown_and_fails_nothing() {
        #[derive(Serialize)]
        struct Report {
            #[serde(serialize_with = "path_shown")]
            one: PathBuf,
            #[serde(serialize_with = "paths_shown")]
            several: Vec<PathBuf>,
            #[serde(serialize_with = "path_shown_if_any")]
            any: Option<PathBuf>,
            #[serde(serialize_with = "path_shown_if_any")]
            none: Option<PathBuf>,
        }
        let path = PathBuf::from(OsStr::from_bytes(b"a/\xFF\"b"));
        assert!(serde_json::to_string(&path).is_err());
        let report = Report {
            one: path.clone(),
            several: vec![path.clone(), "c".into()],
            any: Some(path),
            none: None,
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            "{\"one\":\"a/\u{FFFD}\\\"b\",\"several\":[\"a/\u{FFFD}\\\"b\",\"c\"],\"any\":\"a/\u{FFFD}\\\"b\",\"none\":null}"
        );
    }

    #[test]
    fn a_list_of_names_is_cut_after_ten() {
        let names: Vec<String> = (0..77).map(|i| i.to_string()).collect();
        assert!(name_list(names.iter().map(String::as_str)).ends_with("`9` and 67 more"));
        assert_eq!(name_list(["a"].into_iter()), "`a`");
        assert_eq!(shorten("one\ntwo three", 7), "one\\ntwo...");
    }

    #[test]
    fn counts_stand_with_their_nouns_in_the_right_number() {
        for (count, noun, words) in [
            (1, "row", "1 row"),
            (2, "near copy", "2 near copies"),
            (999, "key", "999 keys"),
            (1000, "match", "1,000 matches"),
            (10, "epoch", "10 epochs"),
            (1_234_567, "row", "1,234,567 rows"),
        ] {
            assert_eq!(counted(count, noun), words);
        }
    }
}
