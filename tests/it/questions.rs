//! Question answering: the positions of answers, answers across windows, and questions without an answer.

use frostbert::cache::fingerprint::hash_bytes;
use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE, predicted, predictions, squad},
    support::{Workshop, read_json},
};

/// Creates a workshop with a head on the embedding layer, which learns perfectly that the answer is always the word
/// `frost`.
fn workshop(overflow: &str) -> Workshop {
    let case = Case {
        task: "qa",
        data: Data::Questions,
        cache: "",
        settings: "[head]\nlayers = [0]\ndropout = 0.0\n[train]\nepochs = 60\nlr = 3e-2\nearly_stopping = false",
    };
    let workshop = case.workshop();
    let toml = std::fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    workshop.write(PIPELINE, toml.replace("[cache]\n", &format!("[cache]\n{overflow}\n")));
    for (name, n, seed) in [("train.json", 40, 1), ("test.json", 20, 2)] {
        workshop.write(name, about_frost(&squad(n, seed, false)).to_string());
    }
    workshop
}

/// Keeps the questions whose answer is `frost`.
fn about_frost(squad: &str) -> Value {
    let mut file: Value = serde_json::from_str(squad).unwrap();
    for paragraph in file["data"][0]["paragraphs"].as_array_mut().unwrap() {
        let questions = paragraph["qas"].as_array_mut().unwrap();
        questions.retain(|question| question["answers"][0]["text"] == "frost");
    }
    file
}

fn characters(text: &str, start: &Value, end: &Value) -> String {
    let [start, end] = [start, end].map(|place| place.as_u64().unwrap() as usize);
    text.chars().skip(start).take(end - start).collect()
}

#[test]
fn answers_are_found_at_their_characters_in_whichever_window_they_stand() {
    let workshop = workshop("max_length = 24\nstride = 6");
    let report = workshop.json(&["run", PIPELINE]);
    assert_eq!(report["train"]["metrics"]["test"]["exact_match"], json!(1.0), "{report}");
    let rows = predictions(&workshop, "runs/tiny/001");
    let lines = predicted(&workshop, &["runs/tiny", "test.json"]);
    let (mut after_others, mut in_later_windows) = (0, 0);
    for (row, line) in rows.iter().zip(&lines) {
        let context = row["context"].as_str().unwrap();
        let start = context.split("frost").next().unwrap().chars().count();
        assert_eq!((&line["start"], &line["answer"]), (&json!(start), &json!("frost")));
        assert_eq!(characters(context, &row["start"], &row["end"]), "frost");
        after_others += usize::from(context.starts_with('🙂'));
        in_later_windows += usize::from(start > 90);
    }
    assert!(rows.len() == 20 && after_others > 5 && in_later_windows > 0);
}

#[test]
fn an_answer_that_was_cut_off_is_not_found_and_counts() {
    let workshop = workshop("max_length = 24\noverflow = \"truncate\"");
    let report = workshop.json(&["run", PIPELINE]);
    assert!(report["extract"]["truncated"].as_u64() > Some(0), "{report}");
    let metrics = &report["train"]["metrics"]["test"];
    assert_eq!(metrics["n"], json!(20));
    let rows = predictions(&workshop, "runs/tiny/001");
    let right = rows.iter().filter(|row| row["predicted"] == "frost").count();
    assert!((10..20).contains(&right), "{right} of 20 stand in the first window");
    assert_eq!(metrics["exact_match"], json!(right as f64 / 20.0));
}

#[test]
fn a_context_answers_a_question_that_is_asked_on_the_command_line() {
    let workshop = workshop("max_length = 24\nstride = 6");
    workshop.json(&["run", PIPELINE]);
    let context = "🙂🙂 thé film is, alas, not as cold as FROST !";
    let arguments = ["runs/tiny", "--text", "frost 3 ?", "--text-pair", context];
    let line = predicted(&workshop, &arguments).remove(0);
    let start = context.split("FROST").next().unwrap().chars().count();
    assert_eq!(
        (&line["answer"], &line["start"], &line["end"]),
        (&json!("FROST"), &json!(start), &json!(start + 5))
    );
    assert_eq!(line["question"], "frost 3 ?");
    assert!(line["score"].is_f64());
}

#[test]
fn no_answer_is_null_where_questions_may_have_none() {
    let case = Case {
        task: "qa",
        data: Data::ImpossibleQuestions,
        cache: "max_length = 24\nstride = 6",
        settings: "[head]\nkind = \"mlp\"\n[train]\nepochs = 4",
    };
    let workshop = case.workshop();
    let report = workshop.json(&["run", PIPELINE]);
    let metrics = &report["train"]["metrics"];
    let head = read_json(&workshop.path("runs/tiny/001/head.json"));
    assert!(head["no_answer_threshold"].is_f64(), "{head}");
    assert_eq!(head["no_answer_threshold"], metrics["no_answer_threshold"]);
    let [with, without] =
        ["has_answer", "no_answer"].map(|kind| metrics["test"][kind]["n"].as_u64());
    assert_eq!((with, without), (Some(13), Some(7)));

    // With a threshold below every margin no question is answered, and with one above them all are.
    let mut answered = Vec::new();
    for threshold in [-1e6, 1e6] {
        let mut head = head.clone();
        head["no_answer_threshold"] = json!(threshold);
        workshop.write("runs/tiny/001/head.json", head.to_string());
        let mut lock = read_json(&workshop.path("runs/tiny/001/lock.json"));
        lock["outputs"]["head.json"] = json!(hash_bytes(head.to_string().as_bytes()));
        workshop.write("runs/tiny/001/lock.json", lock.to_string());
        let lines = predicted(&workshop, &["runs/tiny", "test.json"]);
        for line in &lines {
            let nulls = ["answer", "start", "end"].map(|key| line[key].is_null());
            assert!(nulls == [nulls[0]; 3] && line["score"].is_f64(), "{line}");
        }
        answered.push(lines.iter().filter(|line| !line["answer"].is_null()).count());
    }
    assert_eq!(answered, [0, 20]);

    // If there are no impossible questions, every question is answered.
    let workshop = Case { data: Data::Questions, ..case }.workshop();
    workshop.json(&["run", PIPELINE]);
    assert!(read_json(&workshop.path("runs/tiny/001/head.json"))["no_answer_threshold"].is_null());
    let rows = predictions(&workshop, "runs/tiny/001");
    assert!(rows.iter().all(|row| row["predicted"].is_string()));
}
