//! The similarity of texts according to their states alone.

use serde_json::{Value, json};

use crate::{
    cases::{PIPELINE, assert_near},
    support::{TINY_PIPELINE, TINY_ROWS, Workshop, texts},
};

fn score(workshop: &Workshop, texts: [&str; 2]) -> f64 {
    let arguments = ["similar", PIPELINE, "--text", texts[0], "--text", texts[1]];
    let report = workshop.json(&arguments);
    assert_eq!(report.as_object().unwrap().len(), 1, "{report}");
    report["score"].as_f64().unwrap()
}

fn matches(workshop: &Workshop, query: &str, top: &str) -> Vec<Value> {
    let report = workshop.json(&["similar", PIPELINE, "--query", query, "--top", top]);
    let matches = report["matches"].as_array().unwrap();
    for found in matches {
        assert!(found["text"].is_string() && found["score"].is_f64(), "{found}");
    }
    matches.clone()
}

#[test]
fn a_text_is_wholly_like_itself_and_two_are_alike_both_ways() {
    let workshop = Workshop::tiny();
    let (one, other) = ("the snow is cold", "not a good film");
    assert!((score(&workshop, [one, one]) - 1.0).abs() < 1e-6);
    let there = score(&workshop, [one, other]);
    assert!((there - score(&workshop, [other, one])).abs() < 1e-3, "states are stored in f16");
    assert!(there < 0.999, "{there}");
}

#[test]
fn a_text_whose_end_is_cut_off_is_warned_of() {
    let workshop = Workshop::tiny();
    let long = "snow ".repeat(40);
    for (arguments, name) in [
        (&["--text", &long, "--text", "snow"][..], "the first text"),
        (&["--text", "snow", "--text", &long], "the second text"),
        (&["--query", &long], "the query"),
    ] {
        let ran = workshop.succeed(&[&["similar", PIPELINE], arguments].concat());
        let end = "is longer than 32 tokens and truncated (raise cache.max_length)";
        assert!(ran.stderr.contains(&format!("{name} {end}")), "{}", ran.stderr);
        assert_eq!(ran.stderr.matches(end).count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn a_text_of_a_corpus_is_its_own_first_match() {
    let workshop = Workshop::tiny();
    let corpus = texts(TINY_ROWS);
    for pooling in ["mean", "cls", "max"] {
        let head = format!("{TINY_PIPELINE}\n[head]\npooling = \"{pooling}\"\n");
        workshop.write_pipeline(&head);
        for query in [&corpus[0], &corpus[77]] {
            let found = matches(&workshop, query, "5");
            assert_eq!(found.len(), 5);
            assert_eq!(found[0]["text"], json!(query));
            assert!((found[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-3);
            let scores: Vec<f64> = found.iter().map(|m| m["score"].as_f64().unwrap()).collect();
            assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]), "{scores:?}");
        }
    }
}

#[test]
fn matches_are_scored_as_two_texts_are_and_are_as_many_as_there_are() {
    let workshop = Workshop::tiny();
    workshop.write_pipeline(&TINY_PIPELINE.replace("[cache]", "[cache]\ndtype = \"f32\""));
    let query = "the cold film is good";
    let all = matches(&workshop, query, "100000");
    let mut found: Vec<&str> = all.iter().map(|m| m["text"].as_str().unwrap()).collect();
    let corpus = texts(TINY_ROWS);
    let mut expected: Vec<&str> = corpus.iter().map(String::as_str).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for place in [0, 60, TINY_ROWS - 1] {
        let text = all[place]["text"].as_str().unwrap();
        assert_near(&all[place]["score"], &json!(score(&workshop, [query, text])), text);
    }
    assert_eq!(matches(&workshop, query, "7"), all[..7]);
}

#[test]
fn both_texts_of_pairs_are_looked_through_each_for_itself() {
    let workshop = Workshop::tiny();
    workshop.write(
        "train.csv",
        "text,other,score\nthe snow,the frost,1\nthe film,very bad,0\nthe snow,warm,0\n",
    );
    let source = "\"train.csv\", text_pair = \"other\", label = \"score\" }\ntask = \"similarity\"";
    workshop.write_pipeline(&TINY_PIPELINE.replace("\"train.csv\" }", source));
    let found = matches(&workshop, "very bad", "9");
    assert_eq!((found.len(), &found[0]["text"]), (5, &json!("very bad")));
}
