//! Tags of words: their schemes, invalid sequences, words without a state, and the positions of entities in a text.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    cases::{
        Case, Data, PIPELINE, Random, Tagged, all_predictions, conll, outputs, predicted,
        predictions,
    },
    support::{Workshop, assert_same_files},
};

fn tagger(settings: &'static str) -> Case {
    Case { task: "tokens", data: Data::Iob2, cache: "max_length = 32", settings }
}

/// A tagger on the embedding layer, which learns perfectly what every word is by itself.
const BY_WORD: &str = "[head]\nkind = \"KIND\"\nlayers = [0]\ndropout = 0.0\n\
                       [train]\nepochs = 40\nlr = 3e-2\nearly_stopping = false";

fn by_word(kind: &str) -> String {
    BY_WORD.replace("KIND", kind)
}

fn workshop(train: &str, test: &str, settings: &str) -> Workshop {
    let workshop = tagger("").workshop();
    let toml = std::fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    workshop.write(PIPELINE, toml + settings);
    workshop.write("train.conll", train);
    workshop.write("test.conll", test);
    workshop
}

fn texts_of(value: &Value) -> Vec<String> {
    let texts = value.as_array().unwrap().iter();
    texts.map(|text| text.as_str().unwrap().to_string()).collect()
}

/// Returns whether every I- continues an entity of its type.
fn is_iob2(tags: &[String]) -> bool {
    let mut before = "O";
    tags.iter().all(|tag| {
        let goes_on = tag.strip_prefix("I-").is_none_or(|kind| {
            before.strip_prefix("B-").or(before.strip_prefix("I-")) == Some(kind)
        });
        before = tag;
        goes_on
    })
}

fn assert_all_iob2(rows: &[Map<String, Value>]) -> usize {
    let mut inside = 0;
    for row in rows {
        let tags = texts_of(&row["predicted"]);
        assert!(is_iob2(&tags), "{row:?}");
        inside += tags.iter().filter(|tag| tag.starts_with("I-")).count();
    }
    inside
}

#[test]
fn both_schemes_of_the_same_entities_give_the_same_head() {
    let train = "[train]\nepochs = 3";
    let run = |data: Data| {
        let case = Case { data, ..tagger(train) };
        let workshop = case.workshop();
        let report = workshop.json(&["run", PIPELINE]);
        let mut files = outputs(&workshop, &report["train"]["run"]);
        // What was found in the data names its bytes, and so does the card.
        for name in ["checks.json", "model_card.md"] {
            files.remove(name).unwrap();
        }
        files
    };
    assert_same_files(&run(Data::Iob2), &run(Data::Iob1));
}

#[test]
fn no_head_says_that_an_entity_goes_on_which_has_not_begun() {
    // In training, `snow` always continues an entity that `frost` began; in the test set, none has begun.
    let [mut train, mut test] = [Vec::new(), Vec::new()];
    let mut random = Random::new(5);
    let tagged = |word: &str, tag: &str| -> Tagged { (word.into(), tag.into()) };
    for _ in 0..60 {
        let fillers = ["the", "is", "and", "film"];
        let mut sentence: Vec<Tagged> = Vec::new();
        for _ in 0..1 + random.below(4) {
            sentence.push(tagged(fillers[random.below(4)], "O"));
        }
        let mut alone = sentence.clone();
        sentence.push(tagged("frost", "B-COLD"));
        sentence.push(tagged("snow", "I-COLD"));
        alone.push(tagged("snow", "O"));
        train.push(sentence);
        test.push(alone);
    }
    test.push(train[0].clone());
    for kind in ["linear", "mlp", "crf"] {
        let workshop = workshop(&conll(&train), &conll(&test), &by_word(kind));
        workshop.json(&["run", PIPELINE]);
        let rows = predictions(&workshop, "runs/tiny/001");
        assert_all_iob2(&rows);
        let known = rows.last().unwrap();
        assert_eq!(
            known["predicted"], known["labels"],
            "{kind}: `snow` after `frost` is learned to be I-COLD, so it would be said wherever it is allowed"
        );
    }
}

#[test]
fn heads_trained_on_noise_say_valid_sequences_alone() {
    let mut random = Random::new(11);
    let words = ["the", "is", "and", "film", "not", "cold", "snow", "frost"];
    // Inside tags are the most frequent, so a head predicts them wherever they are allowed.
    let tags = ["O", "B-A", "I-A", "I-A", "I-A", "B-B", "I-B", "I-B", "I-B"];
    let mut sentence = |number: usize| {
        let mut sentence: Vec<Tagged> = Vec::new();
        let mut before = "O";
        while sentence.len() < 12 {
            let tag = tags[random.below(tags.len())];
            let begun = tag.strip_prefix("I-").is_none_or(|kind| {
                before.strip_prefix("B-").or(before.strip_prefix("I-")) == Some(kind)
            });
            if begun {
                sentence.push((words[random.below(words.len())].into(), tag.into()));
                before = tag;
            }
        }
        sentence.push(((number % 10).to_string(), "O".into()));
        sentence
    };
    let mut some = |n: usize| conll(&(0..n).map(&mut sentence).collect::<Vec<_>>());
    let (train, test) = (some(60), some(30));
    for kind in ["linear", "mlp", "crf"] {
        let settings = format!(
            "[head]\nkind = \"{kind}\"\n[train]\nepochs = 4\nlr = 0.3\nearly_stopping = false"
        );
        let workshop = workshop(&train, &test, &settings);
        workshop.json(&["run", PIPELINE]);
        let inside = assert_all_iob2(&all_predictions(&workshop, "runs/tiny/001"));
        assert!(inside > 0, "{kind} says nothing of the inside of entities");
        for line in predicted(&workshop, &["runs/tiny", "test.conll"]) {
            assert!(is_iob2(&texts_of(&line["labels"])), "{line}");
        }
    }
}

/// Returns the entities in tags in IOB2: the sentence, the type, the first word, and one past the last word.
fn entities(sentences: &[Vec<String>]) -> BTreeSet<(usize, String, usize, usize)> {
    let mut found = BTreeSet::new();
    for (number, tags) in sentences.iter().enumerate() {
        for (start, tag) in tags.iter().enumerate() {
            if let Some(kind) = tag.strip_prefix("B-") {
                let inside = format!("I-{kind}");
                let n_inside = tags[start + 1..].iter().take_while(|tag| **tag == inside);
                let end = start + 1 + n_inside.count();
                found.insert((number, kind.to_string(), start, end));
            }
        }
    }
    found
}

#[test]
fn words_beyond_the_longest_input_count_as_outside() {
    let sentence = |n: usize| -> Vec<Tagged> {
        let words = (0..n).map(|place| match place % 3 {
            0 => ("frost".to_string(), "B-COLD".to_string()),
            1 => ("snow".to_string(), "I-COLD".to_string()),
            _ => ("the".to_string(), "O".to_string()),
        });
        words.collect()
    };
    let train: Vec<Vec<Tagged>> = (1..31).map(sentence).collect();
    // 30 words have a state: 32 tokens without the two special ones.
    let test = [sentence(9), sentence(60)];
    let workshop = workshop(&conll(&train), &conll(&test), &by_word("linear"));
    let report = workshop.json(&["run", PIPELINE]);
    assert_eq!(report["extract"]["truncated"], json!(1));
    let rows = predictions(&workshop, "runs/tiny/001");
    let truth: Vec<Vec<String>> = rows.iter().map(|row| texts_of(&row["labels"])).collect();
    let said: Vec<Vec<String>> = rows.iter().map(|row| texts_of(&row["predicted"])).collect();
    assert_eq!(truth[1].len(), 60);
    assert_eq!(said[1][..30], truth[1][..30], "the head has learned its words");
    assert!(said[1].len() == 60 && said[1][30..].iter().all(|tag| tag == "O"));

    let metrics = &report["train"]["metrics"]["test"];
    assert_eq!(metrics["n_words"], json!(69));
    let pairs = truth.iter().flatten().zip(said.iter().flatten());
    let right = pairs.filter(|(truth, said)| truth == said).count();
    assert_eq!(metrics["token_accuracy"], json!(right as f64 / 69.0));
    let (gold, found) = (entities(&truth), entities(&said));
    assert_eq!((gold.len(), found.len()), (23, 13));
    let strict = 2.0 * gold.intersection(&found).count() as f64 / (23.0 + 13.0);
    let reported = metrics["entity_f1_strict"].as_f64().unwrap();
    assert!((reported - strict).abs() < 1e-12, "{reported}, {strict}");
    let measured = workshop.json(&["evaluate", "runs/tiny", "--data", "test.conll"]);
    assert_eq!(measured["metrics"], *metrics);
    let lines = predicted(&workshop, &["runs/tiny", "test.conll"]);
    assert_eq!(texts_of(&lines[1]["labels"]), said[1]);
}

#[test]
fn entities_stand_at_characters_whatever_their_bytes() {
    let train: Vec<Vec<Tagged>> = crate::cases::sentences(90, 1);
    let workshop = workshop(&conll(&train), &conll(&train[..5]), &by_word("linear"));
    workshop.json(&["run", PIPELINE]);
    let text = "🙂 Café, thé: the FROST snow is néw";
    let given = predicted(&workshop, &["runs/tiny", "--text", text]);
    let characters: Vec<char> = text.chars().collect();
    let slice = |start: usize, end: usize| characters[start..end].iter().collect::<String>();
    let words = texts_of(&given[0]["words"]);
    assert!(words.contains(&"Café".to_string()), "{words:?}");
    assert_eq!(words.len(), texts_of(&given[0]["labels"]).len());
    let entities = given[0]["entities"].as_array().unwrap();
    for entity in entities {
        let keys: Vec<&String> = entity.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["label", "start", "end", "text"]);
        let [start, end] = ["start", "end"].map(|key| entity[key].as_u64().unwrap() as usize);
        assert_eq!(entity["text"], slice(start, end));
    }
    let frost = entities.iter().find(|entity| entity["start"] == json!(17));
    let text = frost.unwrap_or_else(|| panic!("{entities:?}"))["text"].as_str().unwrap();
    assert!(text.starts_with("FROST"), "{entities:?}");

    // The words of a file are joined by single spaces.
    workshop.write("new.conll", "🙂\tO\nthé\tO\nsnow\tO\n\n");
    let line = predicted(&workshop, &["runs/tiny", "new.conll"]).remove(0);
    assert_eq!(line["text"], "🙂 thé snow");
    let entities = line["entities"].as_array().unwrap();
    let snow = entities.iter().find(|entity| entity["text"] == "snow");
    let snow = snow.unwrap_or_else(|| panic!("{line}"));
    assert_eq!(
        (&snow["label"], &snow["start"], &snow["end"]),
        (&json!("COLD"), &json!(6), &json!(10))
    );
}
