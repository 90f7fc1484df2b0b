//! The page of a run: of every task, whole whatever the data holds, and the same whenever it is written.

use std::fs;

use regex::Regex;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    cases::{Case, Data, PIPELINE},
    support::{Workshop, csv, texts},
};

const RUN: [&str; 2] = ["run", PIPELINE];

fn page(workshop: &Workshop, path: &str) -> String {
    let html = fs::read_to_string(workshop.path(path)).unwrap();
    assert_whole(&html);
    html
}

/// Fails unless every element is closed where it should be, and nothing is fetched.
fn assert_whole(html: &str) {
    const VOID: [&str; 3] = ["meta", "link", "br"];
    assert!(html.starts_with("<!doctype html>"), "{}", &html[..60]);
    for scheme in ["http:", "https:", "//"] {
        for attribute in ["src=\"", "href=\"", "url(", "xmlns=\""] {
            assert!(!html.contains(&format!("{attribute}{scheme}")), "{attribute}{scheme}");
        }
    }
    assert!(!html.contains("@import") && !html.contains("<img"));
    assert_eq!(html.matches("<script").count(), 1, "only its own script");
    assert!(!html.chars().any(|c| c.is_control() && !"\n\t".contains(c)), "a control character");
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!html.contains(turns), "a mark that turns the direction");
    // What stands in these two is no markup.
    let raw = Regex::new(r"(?s)<(style|script)>.*?</(style|script)>").unwrap();
    let markup = raw.replace_all(html, "");
    let tags = Regex::new(r#"<(/?)([a-zA-Z!][a-zA-Z0-9]*)((?:"[^"]*"|[^">])*?)(/?)>"#).unwrap();
    let mut open: Vec<String> = Vec::new();
    for tag in tags.captures_iter(&markup) {
        let name = tag[2].to_string();
        match (&tag[1], &tag[4]) {
            ("/", _) => assert_eq!(open.pop().as_ref(), Some(&name), "closes {name}"),
            (_, "/") => {}
            _ if name.starts_with('!') || VOID.contains(&name.as_str()) => {}
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} are left open");
    let outside = tags.replace_all(&markup, "");
    assert!(!outside.contains(['<', '>']), "a bare angle bracket");
}

fn headings(html: &str) -> Vec<String> {
    let headings = Regex::new("<h2>([^<]*)</h2>").unwrap();
    headings.captures_iter(html).map(|found| found[1].to_string()).collect()
}

fn sentence(html: &str) -> String {
    let lead = Regex::new("<p class=\"lead\">(.*?)</p>").unwrap();
    let code = Regex::new("</?code>").unwrap();
    code.replace_all(&lead.captures(html).unwrap()[1], "`").replace("&#x2f;", "/")
}

#[test]
fn a_run_of_every_task_has_a_page_with_its_parts() {
    let case = |task, data, settings| Case { task, data, cache: "max_length = 32", settings };
    let few = "[train]\nepochs = 4\n";
    let squad = Case {
        task: "qa",
        data: Data::ImpossibleQuestions,
        cache: "max_length = 24\nstride = 6",
        settings: few,
    };
    for (case, says, shows) in [
        (
            case("classification", Data::Classes, few),
            r"^Of 30 unseen texts the head labels [0-9.]+ % right \(95 % interval [0-9.]+ to [0-9.]+\); always answering `\w+` would get [0-9.]+ %\.$",
            [
                "Confusion matrix",
                "Reliability",
                "Precision and recall",
                "Only confident predictions",
            ],
        ),
        (
            case("classification", Data::PairClasses, few),
            r"^Of 30 unseen pairs the head labels",
            [
                "Confusion matrix",
                "Precision and recall",
                "ROC curve",
                "The area under the curve is",
            ],
        ),
        (
            case("multilabel", Data::Labels, few),
            r"^Of 30 unseen texts the head gets all labels right for [0-9.]+ %.* micro F1 is",
            ["Label by label", "threshold", "Reliability", "Precision and recall"],
        ),
        (
            case("regression", Data::Values, few),
            r"^On 30 unseen texts the predicted numbers .*, and are off by [0-9.]+ on average, where",
            ["Predicted beside true", "mean error", "off by", "Metrics"],
        ),
        (
            case("tokens", Data::Iob2, few),
            r"^In 30 unseen sentences the head finds entities with an F1 of",
            ["Entities", "Tag by tag", "commonest confusions", "<mark class=\"wrong\">"],
        ),
        (
            case("tokens", Data::Conllu, few),
            r"^Of [0-9]+ words in 30 unseen sentences the head tags [0-9.]+ % right.*; tagging every word `\w+` would get",
            ["Tag by tag", "Metrics", "<mark class=\"wrong\">", "words wrong"],
        ),
        (
            squad,
            r"^Of 20 unseen questions the head answers [0-9.]+ % exactly as people did.*; (never answering|answering a random span .*,) would get [0-9.]+\.$",
            ["With and without an answer", "Some questions", "no answer", "question"],
        ),
    ] {
        let workshop = case.workshop();
        let report = workshop.json(&RUN);
        assert_eq!(report["train"]["report"], "runs/tiny/001/report.html");
        let html = page(&workshop, "runs/tiny/001/report.html");
        let what = format!("{} on {:?}", case.task, case.data);
        let lead = sentence(&html);
        assert!(Regex::new(says).unwrap().is_match(&lead), "{what}: {lead}");
        let mut expected = vec!["Data", "The head", "What it is worth", "Where it fails"];
        let has_map = case.task != "qa" && case.task != "tokens";
        expected.extend(has_map.then_some("A map"));
        expected.push("How to get it again");
        let mut found = headings(&html);
        found.retain(|heading| heading != "What to do next");
        assert_eq!(found, expected, "{what}");
        for wanted in shows {
            assert!(html.contains(wanted), "{what} lacks {wanted}");
        }
        assert!(html.contains("frostbert run --locked runs&#x2f;tiny&#x2f;001&#x2f;lock.json"));
        // Written again, it is the same.
        let again = workshop.json(&["report", "runs/tiny"]);
        assert_eq!(again["report"], "runs/tiny/001/report.html");
        assert_eq!(again["bytes"], json!(html.len()));
        assert_eq!(page(&workshop, "runs/tiny/001/report.html"), html, "{what}");
    }
}

#[test]
fn a_similarity_without_training_has_a_page_too() {
    let case =
        Case { task: "similarity", data: Data::PairValues, cache: "max_length = 32", settings: "" };
    let workshop = case.workshop();
    workshop.json(&RUN);
    let html = page(&workshop, "runs/tiny/001/report.html");
    assert!(sentence(&html).starts_with("On 30 unseen pairs the predicted numbers"), "{html}");
    assert!(html.contains("none: it was fitted in one go") && html.contains("cosine"));
    assert!(!html.contains("no better than a trivial answer"), "its errors are on another scale");
}

#[test]
fn a_sweep_shows_its_leaderboard_settings_curves_and_map_of_heat() {
    let workshop = Workshop::tiny();
    let toml = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let sweep = "[sweep]\nlayer = [0, 1, 2]\npooling = [\"mean\", \"cls\"]\nfraction = [0.5, 1.0]\nlr = [1e-3, 1e-2]\ntest = \"all\"\n";
    workshop.write(PIPELINE, toml + sweep);
    let report = workshop.json(&RUN);
    assert_eq!(report["sweep"]["report"], "runs/tiny/001/report.html");
    let html = page(&workshop, "runs/tiny/001/report.html");
    assert!(headings(&html).contains(&"The sweep".to_string()));
    for wanted in [
        "24 settings were compared",
        "The head of this run has rank ",
        "is what to expect of it on many new rows",
        "On a new test set of 18 rows its score will lie between",
        "The winner and the next",
        "Leaderboard",
        "test (chose nothing)",
        "class=\"parallel\"",
        "Best score by layer and pooling",
        "Layer by layer",
        "Learning curve",
        "Expected best score",
        "What each setting does",
        "<tr class=\"marked\">",
    ] {
        assert!(html.contains(wanted), "lacks {wanted}");
    }
}

/// Texts and labels that try to be more than text.
fn hostile() -> Workshop {
    let workshop = Workshop::tiny();
    let labels = ["</script><script>alert(1)</script>", "a\"b' onload=x", "{{ 7*7 }} & <b>"];
    let mut rows = String::from("text,label\n");
    for (number, text) in texts(120).iter().enumerate() {
        let label = labels[number % 3].replace('"', "\"\"");
        let extra = [
            "</script>",
            "<!-- ",
            "]]>",
            "\u{202e}cod.exe",
            "\u{1b}[31m\u{7}",
            "</title></svg><img src=x onerror=alert(1)>",
            "{% raw %}",
        ];
        let extra = extra[number % extra.len()];
        rows.push_str(&format!("\"{extra} {text}\",\"{label}\"\n"));
    }
    workshop.write("train.csv", rows);
    workshop
}

#[test]
fn whatever_texts_and_labels_hold_the_page_stays_whole() {
    let workshop = hostile();
    workshop.json(&RUN);
    let html = page(&workshop, "runs/tiny/001/report.html");
    assert!(!html.contains("alert(1)</script>") && !html.contains("<script>alert"));
    assert!(html.contains("&lt;&#x2f;script&gt;") && html.contains("\\u{202e}"));
    assert!(html.contains("{{ 7*7 }}"), "a label is no template");
}

#[test]
fn a_page_without_texts_holds_none_and_says_so() {
    let workshop = Workshop::tiny();
    workshop.json(&RUN);
    let html = page(&workshop, "runs/tiny/001/report.html");
    let held = Regex::new("This page holds ([0-9,]+) texts of the data").unwrap();
    let held = held.captures(&html).unwrap()[1].to_string();
    assert_ne!(held, "0");
    // Every text of the data has its number at its end.
    let all = texts(120);
    assert!(all.iter().any(|text| html.contains(text.as_str())));
    let written = workshop.json(&["report", "tiny", "--no-texts", "--out", "without.html"]);
    assert_eq!(written["report"], "without.html");
    let without = page(&workshop, "without.html");
    assert!(without.contains("This page holds no texts of the data"));
    for text in &all {
        assert!(!without.contains(text.as_str()), "{text}");
    }
    assert_eq!(page(&workshop, "runs/tiny/001/report.html"), html, "the run's own page stays");
}

#[test]
fn a_page_can_do_without_the_model_the_data_and_the_cache() {
    let workshop = Workshop::tiny();
    let model = workshop.copy_model("model");
    let toml = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let fixture = crate::support::fixture("tiny_bert").display().to_string();
    workshop.write(PIPELINE, toml.replace(&fixture, "model"));
    workshop.json(&RUN);
    for folder in [model, workshop.path("cache")] {
        fs::remove_dir_all(folder).unwrap();
    }
    fs::remove_file(workshop.path("train.csv")).unwrap();
    workshop.json(&["report", "runs/tiny/001"]);
    let html = page(&workshop, "runs/tiny/001/report.html");
    assert!(html.contains("The model is not where the run found it"));
    assert!(!headings(&html).contains(&"A map".to_string()));
    // What the lock vouches for must be what it was.
    let metrics = workshop.path("runs/tiny/001/metrics.json");
    fs::write(&metrics, fs::read_to_string(&metrics).unwrap() + "\n").unwrap();
    assert!(workshop.fail(&["report", "runs/tiny/001"]).contains("metrics.json"));
}

#[test]
fn several_tasks_have_a_page_each_and_one_that_leads_to_them() {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(120), 0));
    workshop.write_pipeline(
        "name = \"two\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n[cache]\nmax_length = 32\n\
         [tasks.first.data]\ntrain = { path = \"train.csv\" }\n[tasks.first.train]\nepochs = 2\n\
         [tasks.second.data]\ntrain = { path = \"train.csv\" }\n[tasks.second.train]\nepochs = 3\n",
    );
    let report = workshop.json(&RUN);
    assert_eq!(report["train"]["report"], "runs/two/001/report.html");
    assert_eq!(report["train"]["tasks"]["first"]["report"], "runs/two/001/first/report.html");
    let index = page(&workshop, "runs/two/001/report.html");
    assert!(index.contains("href=\"first&#x2f;report.html\""), "{index}");
    page(&workshop, "runs/two/001/second/report.html");
    for named in ["runs/two", "two", "runs/two/001"] {
        assert_eq!(workshop.json(&["report", named])["report"], "runs/two/001/report.html");
    }
    assert_eq!(page(&workshop, "runs/two/001/report.html"), index);
    let error = workshop.fail(&["report", "two", "--out", "x.html"]);
    assert!(error.contains("name the run of a task"), "{error}");
}

#[test]
fn runs_are_compared_by_what_they_differ_in() {
    let workshop = Workshop::with_test_file();
    workshop.json(&RUN);
    workshop.json(&["run", PIPELINE, "--set", "train.lr=0.02"]);
    let written = workshop.json(&["report", "runs/tiny/001", "runs/tiny/002"]);
    assert_eq!(written["report"], "comparison.html");
    let html = page(&workshop, "comparison.html");
    assert_eq!(headings(&html), ["Runs", "In what they differ", "Metrics", "Curves"]);
    assert!(html.contains("train.lr") && html.contains("0.02") && html.contains("tiny 002"));
    assert!(!html.contains("not measured on the same rows"));
    // Of another split the test rows are others.
    let other = ["run", PIPELINE, "--set", "seed=7", "--set", "data.test={ path = \"train.csv\" }"];
    workshop.json(&other);
    workshop.json(&["report", "runs/tiny/001", "runs/tiny/003"]);
    assert!(page(&workshop, "comparison.html").contains("not measured on the same rows"));
}

#[test]
fn the_one_script_of_a_page_is_the_one_that_it_allows() {
    let workshop = Workshop::tiny();
    workshop.json(&RUN);
    let html = page(&workshop, "runs/tiny/001/report.html");
    let (_, rest) = html.split_once("<script>").unwrap();
    let (script, _) = rest.split_once("</script>").unwrap();
    let allowed = Regex::new("script-src '(sha256-[^']*)'").unwrap();
    let allowed = allowed.captures(&html).unwrap()[1].replace("&#x2f;", "/");
    assert_eq!(allowed, format!("sha256-{}", base64(&Sha256::digest(script.as_bytes())[..])));
    assert!(html.contains("default-src 'none'") && html.contains("img-src data:"));
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let all = [three[0], *three.get(1).unwrap_or(&0), *three.get(2).unwrap_or(&0)];
        let number = u32::from(all[0]) << 16 | u32::from(all[1]) << 8 | u32::from(all[2]);
        for place in 0..4 {
            let digit = (number >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= three.len() { DIGITS[digit] as char } else { '=' });
        }
    }
    text
}

#[test]
fn a_page_that_cannot_be_written_is_an_error_and_goes_elsewhere_on_request() {
    let workshop = Workshop::tiny();
    workshop.json(&RUN);
    // What stands in the way of the page is left as it is.
    let page = workshop.path("runs/tiny/001/report.html");
    fs::remove_file(&page).unwrap();
    fs::create_dir_all(page.join("in the way")).unwrap();
    let error = workshop.fail(&["report", "runs/tiny/001"]);
    assert!(error.contains("report.html"), "{error}");
    assert!(workshop.json(&["report", "runs/tiny/001", "--out", "x.html"])["bytes"].is_u64());
}
