//! The pages of docs/tutorials: their commands run in the order in which they stand there, and print what the pages show.

use std::{fs, path::PathBuf, sync::LazyLock};

use regex::Regex;

use crate::support::{Workshop, repository};

/// The pages on the reviews, which share a cache: the first encodes all layers that the second reads.
const ON_REVIEWS: [&str; 2] = ["sweeps", "classification"];

/// The page that takes longest of the others, so that it is followed at the same time.
const ON_QUESTIONS: &str = "questions";

/// Lines that begin with these words have nothing in them that depends on the machine.
const SAME_EVERYWHERE: [&str; 10] = [
    "baseline ",
    "data ",
    "dry run ",
    "embedded ",
    "next ",
    "predicted ",
    "report ",
    "rows ",
    "run ",
    "wrote ",
];

/// Lines with these words in them have figures that no training has changed.
const UNTRAINED: [&str; 4] = [" computed, ", " rows x ", "always no answer", "without training"];

/// The largest picture in bytes.
const LARGEST_PICTURE: u64 = 60_000;

/// How far a figure may be from the page's, besides a quarter of its interval: one entity of a small test part.
/// Processors of another kind round differently, and early stopping may then end at another epoch.
const LEAST_TOLERANCE: f64 = 0.04;

/// A figure with its interval, such as `0.785 [0.711, 0.852]`.
static ESTIMATE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"([-+]?\d+\.\d+) \[([-+]?\d+\.\d+), ([-+]?\d+\.\d+)\]").unwrap());

/// A row of a table of counts, such as those of the labels in each part.
static COUNTS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^ +\S.*?( +\d[\d,]*){2,}$").unwrap());

/// A cosine, alone or with the text that it belongs to.
static COSINE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\d\.\d{4}(  .+)?$").unwrap());

static DECIMAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+\.\d+").unwrap());

/// How far a figure that no training has changed may be from the page's: processors round differently.
const UNTRAINED_TOLERANCE: f64 = 0.002;

/// A label that is predicted with a confidence of at least 0.9: no rounding changes it.
static SURE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(\w+  )0\.9\d+(  .+)$").unwrap());

fn folder() -> PathBuf {
    repository().join("docs/tutorials")
}

fn text(page: &str) -> String {
    fs::read_to_string(folder().join(page).with_extension("md")).unwrap()
}

/// Returns the names of all pages but the index, in order.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> = names
        .filter_map(|name| Some(name.strip_suffix(".md")?.to_string()))
        .filter(|page| page != "README")
        .collect();
    pages.sort_unstable();
    pages
}

/// A fenced block: the word behind its fence, and its lines.
struct Block<'a> {
    kind: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            is_open = !is_open;
            if is_open {
                blocks.push(Block { kind, lines: Vec::new() });
            }
        } else if is_open && let Some(block) = blocks.last_mut() {
            block.lines.push(line);
        }
    }
    assert!(!is_open, "a block is not closed");
    blocks
}

/// Writes a pipeline to the file that its first line names; if there is one already, both must say the same.
fn place_pipeline(workshop: &Workshop, page: &str, lines: &[&str]) {
    let name = lines[0].strip_prefix("# ").filter(|name| name.ends_with(".toml"));
    let name = name.unwrap_or_else(|| panic!("{page}: a pipeline begins with {}", lines[0]));
    let shown = lines.join("\n");
    let path = workshop.path(name);
    if path.exists() {
        let there = fs::read_to_string(path).unwrap();
        let [shown, there] = [shown, there].map(|text| text.parse::<toml::Table>().unwrap());
        assert_eq!(shown, there, "{page}: {name}");
    } else {
        workshop.write(name, shown);
    }
}

/// Returns the commands of a block, each with the lines that are shown below it.
fn commands<'a>(lines: &[&'a str]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command, Vec::new()));
        } else {
            let (_, shown) = commands.last_mut().expect("a block begins with a command");
            shown.push(line);
        }
    }
    commands
}

fn estimates(line: &str) -> Vec<[f64; 3]> {
    let found = ESTIMATE.captures_iter(line);
    found.map(|found| [1, 2, 3].map(|group| found[group].parse().unwrap())).collect()
}

/// Returns the first word of a line that names its figures: a metric, a rank or a layer.
fn name_of_figures(line: &str) -> Option<&str> {
    let first = ESTIMATE.find(line)?;
    line[..first.start()].split_whitespace().next()
}

/// Returns whether two lines have figures of the same name that are near each other.
fn are_near(shown: &str, printed: &str) -> bool {
    let (shown_figures, printed_figures) = (estimates(shown), estimates(printed));
    let mut pairs = shown_figures.iter().zip(&printed_figures);
    name_of_figures(shown) == name_of_figures(printed)
        && shown_figures.len() == printed_figures.len()
        && pairs.all(|([value, low, high], [got, ..])| {
            (value - got).abs() <= LEAST_TOLERANCE.max((high - low) / 4.0)
        })
}

/// Returns whether two lines are the same but for small differences of decimal numbers.
fn are_same(shown: &str, printed: &str) -> bool {
    let decimals = |line: &str| -> Vec<f64> {
        DECIMAL.find_iter(line).map(|found| found.as_str().parse().unwrap()).collect()
    };
    let words = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        DECIMAL.replace_all(&words.join(" "), "#").into_owned()
    };
    let (one, other) = (decimals(shown), decimals(printed));
    words(shown) == words(printed)
        && one.iter().zip(&other).all(|(one, other)| (one - other).abs() <= UNTRAINED_TOLERANCE)
}

/// Returns whether the figures of a line are those of the data, the cache or the encoder alone.
fn is_untrained(line: &str) -> bool {
    UNTRAINED.iter().any(|words| line.contains(words))
        || COSINE.is_match(line)
        || COUNTS.is_match(line)
}

/// Asserts that lines that a page shows are printed; returns how many of them could be compared.
fn compare(shown: &[&str], printed: &str, context: &str) -> usize {
    let mut n_compared = 0;
    for line in shown {
        if SAME_EVERYWHERE.iter().any(|word| line.starts_with(word)) {
            assert!(printed.lines().any(|other| other == *line), "{context}: {line}\n{printed}");
            n_compared += 1;
        } else if is_untrained(line) {
            let is_found = printed.lines().any(|other| are_same(line, other));
            assert!(is_found, "{context} shows\n{line}\nand prints\n{printed}");
            n_compared += 1;
        } else if let Some(sure) = SURE.captures(line) {
            let is_same = |other: &str| other.starts_with(&sure[1]) && other.ends_with(&sure[2]);
            assert!(printed.lines().any(is_same), "{context}: {line}\n{printed}");
            n_compared += 1;
        } else if name_of_figures(line).is_some() {
            let is_found = printed.lines().any(|other| are_near(line, other));
            assert!(is_found, "{context} shows\n{line}\nand prints\n{printed}");
            n_compared += 1;
        }
    }
    n_compared
}

/// Follows a page from its beginning to its end.
fn follow(workshop: &Workshop, page: &str) {
    let text = text(page);
    let mut n_compared = 0;
    for block in blocks(&text) {
        match block.kind {
            "toml" => place_pipeline(workshop, page, &block.lines),
            "console" => {
                for (command, shown) in commands(&block.lines) {
                    let ran = workshop.shell(command);
                    assert_eq!(
                        ran.code,
                        Some(0),
                        "{page}: {command}: {}{}",
                        ran.stdout,
                        ran.stderr
                    );
                    n_compared += compare(&shown, &ran.stdout, &format!("{page}: {command}"));
                }
            }
            _ => {}
        }
    }
    assert!(n_compared >= 5, "{page} shows only {n_compared} lines that can be compared");
}

#[test]
fn the_commands_of_the_pages_on_reviews_print_what_the_pages_show() {
    let workshop = Workshop::checkout();
    ON_REVIEWS.iter().for_each(|page| follow(&workshop, page));
}

#[test]
fn the_commands_of_the_page_on_questions_print_what_the_page_shows() {
    follow(&Workshop::checkout(), ON_QUESTIONS);
}

#[test]
fn the_commands_of_all_other_pages_print_what_the_pages_show() {
    let workshop = Workshop::checkout();
    let mut others = pages();
    others.retain(|page| page != ON_QUESTIONS && !ON_REVIEWS.contains(&page.as_str()));
    assert!(others.len() >= 3, "{others:?}");
    others.iter().for_each(|page| follow(&workshop, page));
}

#[test]
fn figures_that_are_far_from_the_page_or_missing_are_found() {
    let shown = ["            accuracy     0.894  0.704 [0.622, 0.778]  0.778 [0.704, 0.844]"];
    let near = "metrics\n            accuracy  0.9  0.711 [0.63, 0.78]  0.770 [0.70, 0.84]";
    assert_eq!(compare(&shown, near, "near"), 1);
    for far in [
        "            accuracy  0.9  0.711 [0.63, 0.78]  0.622 [0.54, 0.70]",
        "            accuracy  0.9  0.770 [0.70, 0.84]",
        "            macro_f1  0.9  0.704 [0.62, 0.78]  0.778 [0.70, 0.84]",
    ] {
        assert!(std::panic::catch_unwind(|| compare(&shown, far, "far")).is_err(), "{far}");
    }
    for (line, other) in [
        ("run         runs/reviews/001", "run         runs/reviews/002"),
        ("positive  0.977  A text.", "negative  0.977  A text."),
    ] {
        assert_eq!(compare(&[line], line, "same"), 1);
        assert!(std::panic::catch_unwind(|| compare(&[line], other, "other")).is_err(), "{line}");
    }
}

#[test]
fn figures_that_no_training_has_changed_are_compared_closely() {
    for (shown, near, far) in [
        (
            "            negative  210  45  45",
            "            negative    210    45  45",
            "  negative  210  45  46",
        ),
        (
            "            all 9 tags  1,590  356  315",
            "   all 9 tags  1,590  356  315",
            "   all 9 tags  1,591  356  315",
        ),
        (
            "            90 texts: 0 computed, 135 reused",
            "  90 texts: 0 computed, 135 reused",
            "  90 texts: 1 computed, 135 reused",
        ),
        ("0.5161", "0.5159", "0.5200"),
        ("0.4640  A choir.", "0.4641  A choir.", "0.4640  The tenor."),
        (
            "  the cosine of the two texts, without training: spearman 0.945 on test",
            "  the cosine of the two texts, without training: spearman 0.944 on test",
            "  the cosine of the two texts, without training: spearman 0.905 on test",
        ),
    ] {
        assert_eq!(compare(&[shown], near, "near"), 1, "{shown}");
        let is_refused = std::panic::catch_unwind(|| compare(&[shown], far, "far")).is_err();
        assert!(is_refused, "{far}");
    }
    // What a head has learned is compared with more room, or not at all.
    for trained in ["            = not significantly worse: 14 of 24", "2.294  A man | Someone"] {
        assert_eq!(compare(&[trained], "", "trained"), 0, "{trained}");
    }
}

#[test]
fn links_lead_to_files_the_index_names_every_page_and_pictures_are_small() {
    let link = Regex::new(r"\]\(([^)#]+)[^)]*\)").unwrap();
    let pages = pages();
    let index = text("README");
    for page in &pages {
        assert!(index.contains(&format!("]({page}.md)")), "the index does not name {page}");
    }
    for page in pages.iter().map(String::as_str).chain(["README"]) {
        for found in link.captures_iter(&text(page)) {
            assert!(folder().join(&found[1]).exists(), "{page}: {}", &found[1]);
        }
    }
    let all: String = pages.iter().map(|page| text(page)).collect();
    for picture in fs::read_dir(folder().join("images")).unwrap() {
        let picture = picture.unwrap();
        let name = picture.file_name().into_string().unwrap();
        assert!(all.contains(&format!("(images/{name})")), "no page shows {name}");
        assert!(picture.metadata().unwrap().len() <= LARGEST_PICTURE, "{name} is too large");
    }
}
