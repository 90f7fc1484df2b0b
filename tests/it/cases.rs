//! Small data sets for every task, and the contract that every run fulfils.

use std::{collections::BTreeMap, fs};

use parquet::{
    file::reader::SerializedFileReader,
    record::{Field, Row},
};
use serde_json::{Map, Value, json};

use crate::support::{Workshop, assert_same_files, contents, label, texts};

pub(crate) const PIPELINE: &str = "pipeline.toml";

/// The numbers of rows for training and validation, and of rows in a separate test file.
const N_TRAIN: usize = 90;
const N_TEST: usize = 30;

/// The data that a task is tested on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Data {
    Classes,
    Labels,
    Values,
    PairValues,
    PairClasses,
    Iob1,
    Iob2,
    Conllu,
    Questions,
    /// Questions of which a third have no answer.
    ImpossibleQuestions,
}

/// A generator of pseudo-random numbers that are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A word and its tag in IOB2.
pub(crate) type Tagged = (String, String);

/// Generates sentences of words in the tiny vocabulary: entities of two types among other words, often adjacent.
pub(crate) fn sentences(n: usize, seed: u64) -> Vec<Vec<Tagged>> {
    let mut random = Random::new(seed);
    let types = [("COLD", ["cold", "snow", "frost"]), ("WARM", ["warm", "good", "very"])];
    let sentence = |number: usize| {
        let mut words: Vec<Tagged> = Vec::new();
        for _ in 0..3 + random.below(6) {
            if random.below(2) == 0 {
                let word = ["the", "is", "and", "film", "not"][random.below(5)];
                words.push((word.into(), "O".into()));
                continue;
            }
            let (kind, names) = types[random.below(2)];
            for place in 0..1 + random.below(3) {
                let prefix = if place == 0 { "B" } else { "I" };
                words.push((names[random.below(3)].into(), format!("{prefix}-{kind}")));
            }
        }
        let digits = number.to_string();
        words.extend(digits.chars().map(|digit| (digit.into(), "O".into())));
        words
    };
    (0..n).map(sentence).collect()
}

/// Formats sentences as a conll file.
pub(crate) fn conll(sentences: &[Vec<Tagged>]) -> String {
    let lines = |sentence: &Vec<Tagged>| -> String {
        let lines = sentence.iter().map(|(word, tag)| format!("{word}\t{tag}\n"));
        lines.chain(["\n".to_string()]).collect()
    };
    sentences.iter().map(lines).collect()
}

/// Converts tags to IOB1, in which B- is used only if an entity follows another of its own type.
fn to_iob1(sentences: &[Vec<Tagged>]) -> Vec<Vec<Tagged>> {
    let convert = |sentence: &Vec<Tagged>| {
        let mut before = "";
        let mut converted = Vec::new();
        for (word, tag) in sentence {
            let kind = tag.split_once('-').map_or("", |(_, kind)| kind);
            let needed = tag.starts_with("B-") && kind == before;
            let tag = match kind {
                "" => tag.clone(),
                _ if needed => tag.clone(),
                kind => format!("I-{kind}"),
            };
            converted.push((word.clone(), tag));
            before = kind;
        }
        converted
    };
    sentences.iter().map(convert).collect()
}

fn conllu(sentences: &[Vec<Tagged>]) -> String {
    let part_of_speech = |word: &str| match word {
        "the" => "DET",
        "is" => "VERB",
        "and" => "CCONJ",
        "film" | "snow" | "frost" => "NOUN",
        "cold" | "warm" | "good" => "ADJ",
        "very" | "not" => "ADV",
        _ => "NUM",
    };
    let mut text = String::new();
    for sentence in sentences {
        for (number, (word, _)) in sentence.iter().enumerate() {
            let tag = part_of_speech(word);
            text.push_str(&format!("{}\t{word}\t_\t{tag}\t_\t_\t_\t_\t_\t_\n", number + 1));
        }
        text.push('\n');
    }
    text
}

/// Generates two questions for each of `n` contexts: the answer to one is the only `frost` of the context, and the
/// answer to the other its only `snow`. Every other context begins with multi-byte characters, and every third is
/// longer than a window.
pub(crate) fn squad(n: usize, seed: u64, with_impossible: bool) -> String {
    let mut random = Random::new(seed);
    let mut paragraphs = Vec::new();
    for number in 0..n {
        let mut words: Vec<String> = Vec::new();
        let n_words = if number % 3 == 0 { 30 } else { 8 };
        for _ in 0..n_words {
            words.push(["the", "is", "and", "film", "not", "good"][random.below(6)].into());
        }
        let answers = ["frost", "snow"];
        for answer in answers {
            words.insert(1 + random.below(words.len()), answer.into());
        }
        words.extend(number.to_string().chars().map(String::from));
        if number % 2 == 0 {
            words.insert(0, "🙂 café".into());
        }
        let context = words.join(" ");
        let question = |answer: &str, place: usize| {
            let impossible = with_impossible && (number + place).is_multiple_of(3);
            let start = context.find(answer).unwrap();
            let start = context[..start].chars().count();
            let answers = if impossible {
                json!([])
            } else {
                json!([{ "text": answer, "answer_start": start }])
            };
            let text = if impossible { "is it warm" } else { answer };
            json!({
                "id": format!("{seed}-{number}-{place}"),
                "question": format!("{text} {number} ?"),
                "answers": answers,
                "is_impossible": impossible,
            })
        };
        paragraphs.push(json!({
            "context": context,
            "qas": [question(answers[0], 0), question(answers[1], 1)],
        }));
    }
    json!({ "data": [{ "title": "cold", "paragraphs": paragraphs }] }).to_string()
}

impl Data {
    /// Returns the names and contents of the train file and the test file, and the keys of both sources.
    fn files(self) -> ([(&'static str, String); 2], &'static str) {
        let all = texts(N_TRAIN + N_TEST);
        let parts = [0..N_TRAIN, N_TRAIN..N_TRAIN + N_TEST];
        let csv = |header: &str, row: &dyn Fn(usize, &str) -> String| {
            parts.clone().map(|part| {
                let rows = part.map(|number| row(number, &all[number]) + "\n");
                format!("{header}\n") + &rows.collect::<String>()
            })
        };
        let both = |name: [&'static str; 2], [train, test]: [String; 2]| {
            [(name[0], train), (name[1], test)]
        };
        let of_csv = |contents| both(["train.csv", "test.csv"], contents);
        let second = |number: usize| &all[(number * 11 + 3) % all.len()];
        let tagged = [sentences(N_TRAIN, 1), sentences(N_TEST, 2)];
        let questions = |with| [squad(24, 1, with), squad(10, 2, with)];
        match self {
            Data::Classes => {
                (of_csv(csv("text,label", &|number, text| format!("{text},{}", label(number)))), "")
            }
            Data::Labels => (
                of_csv(csv("text,labels", &|number, text| {
                    let even = if number % 2 == 0 { ",even" } else { "" };
                    format!("{text},\"{}{even}\"", label(number))
                })),
                ", label = \"labels\"",
            ),
            Data::Values => (
                of_csv(csv("text,words", &|_, text| format!("{text},{}", text.split(' ').count()))),
                ", label = \"words\"",
            ),
            Data::PairValues => (
                of_csv(csv("text,other,score", &|number, text| {
                    let of = |text: &str| text.matches("snow").count() as f64 / 2.0;
                    let other = second(number);
                    format!("{text},{other},{}", (of(text) - of(other)).abs())
                })),
                ", text_pair = \"other\", label = \"score\"",
            ),
            Data::PairClasses => (
                of_csv(csv("text,other,label", &|number, text| {
                    let same = number % 3 == (number * 11 + 3) % all.len() % 3;
                    let other = second(number);
                    format!("{text},{other},{}", if same { "same" } else { "other" })
                })),
                ", text_pair = \"other\"",
            ),
            Data::Iob2 => {
                (both(["train.conll", "test.conll"], tagged.map(|part| conll(&part))), "")
            }
            Data::Iob1 => {
                (both(["train.conll", "test.conll"], tagged.map(|part| conll(&to_iob1(&part)))), "")
            }
            Data::Conllu => {
                (both(["train.conllu", "test.conllu"], tagged.map(|part| conllu(&part))), "")
            }
            Data::Questions => (both(["train.json", "test.json"], questions(false)), ""),
            Data::ImpossibleQuestions => (both(["train.json", "test.json"], questions(true)), ""),
        }
    }

    /// Returns the name of the test file.
    pub(crate) fn test_file(self) -> &'static str {
        self.files().0[1].0
    }
}

/// A run to test.
pub(crate) struct Case {
    pub(crate) task: &'static str,
    pub(crate) data: Data,
    /// The section `[cache]`, apart from the type of its values.
    pub(crate) cache: &'static str,
    /// Further keys of `[data]`, and the sections `[head]` and `[train]`.
    pub(crate) settings: &'static str,
}

impl Case {
    /// Creates a workshop with the files and the pipeline of the case. States are stored in f32, so that those of a
    /// text agree to six digits whether it is encoded alone or with others.
    pub(crate) fn workshop(&self) -> Workshop {
        let workshop = Workshop::empty();
        let ([train, test], keys) = self.data.files();
        let toml = format!(
            "name = \"tiny\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\nbatch_tokens = 512\n\
             [cache]\nshard_tokens = 400\ndtype = \"f32\"\n{}\n\
             [data]\ntask = \"{}\"\ntrain = {{ path = \"{}\"{keys} }}\ntest = {{ path = \"{}\"{keys} }}\n{}\n",
            self.cache, self.task, train.0, test.0, self.settings
        );
        workshop.write_pipeline(&toml);
        workshop.write(train.0, train.1);
        workshop.write(test.0, test.1);
        workshop
    }
}

/// Returns the test rows of a run's predictions.parquet, in the order of the file.
pub(crate) fn predictions(workshop: &Workshop, run: &str) -> Vec<Map<String, Value>> {
    let mut rows = all_predictions(workshop, run);
    rows.retain(|row| row["part"] == "test");
    rows
}

/// Returns all rows of a run's predictions.parquet.
pub(crate) fn all_predictions(workshop: &Workshop, run: &str) -> Vec<Map<String, Value>> {
    let path = workshop.path(run).join("predictions.parquet");
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let columns = |row: Row| {
        let columns = row.into_columns().into_iter();
        columns.map(|(name, field)| (name, value(&field))).collect()
    };
    reader.into_iter().map(|row| columns(row.unwrap())).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Str(text) => json!(text),
        Field::Float(number) => json!(number),
        Field::Double(number) => json!(number),
        Field::ULong(number) => json!(number),
        Field::Bytes(bytes) => json!(bytes.data().len()),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => panic!("no column holds {other:?}"),
    }
}

/// Runs `predict` and returns the lines of JSON that it prints.
pub(crate) fn predicted(workshop: &Workshop, arguments: &[&str]) -> Vec<Value> {
    let ran = workshop.succeed(&[&["predict"], arguments, &["--json"]].concat());
    let lines = ran.stdout.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the files of a run folder, except the lock file, which contains the path of the cache.
pub(crate) fn outputs(workshop: &Workshop, run: &Value) -> BTreeMap<String, Vec<u8>> {
    let mut files = contents(&workshop.path(run.as_str().unwrap()));
    files.remove("lock.json").unwrap();
    files
}

/// Asserts that two numbers agree to five digits.
pub(crate) fn assert_near(left: &Value, right: &Value, what: &str) {
    let (Some(l), Some(r)) = (left.as_f64(), right.as_f64()) else {
        panic!("{what}: {left} and {right} are not both numbers");
    };
    assert!((l - r).abs() <= 1e-5 * r.abs().max(1.0), "{what}: {l}, {r}");
}

/// Runs with `--threads 1`, then with `--threads 2` on another cache that was extracted before, and replays with
/// `--threads 4`. Asserts that all of them produce the same bytes, and returns the report of the first run.
pub(crate) fn assert_same_bytes(workshop: &Workshop) -> Value {
    let report = workshop.json(&["run", PIPELINE, "--threads", "1"]);
    let first = outputs(workshop, &report["train"]["run"]);
    let other = ["--set", "cache.dir=other", "--threads", "2"];
    let extracted = workshop.json(&[&["extract", PIPELINE][..], &other].concat());
    assert_eq!(extracted["computed"], report["extract"]["computed"]);
    let trained = workshop.json(&[&["train", PIPELINE][..], &other].concat());
    assert_same_files(&first, &outputs(workshop, &trained["run"]));
    let lock = "runs/tiny/001/lock.json";
    let replayed = workshop.json(&["run", "--locked", lock, "--threads", "4"]);
    assert_same_files(&first, &outputs(workshop, &replayed["train"]["run"]));
    report
}
