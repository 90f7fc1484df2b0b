//! Datasets of every task, from small files.

mod tests_of_checks;
mod tests_of_questions;
mod tests_of_words;

use frostbert_cache::fingerprint::Mode;

use super::*;
use crate::data::Target;

fn source(folder: &tempfile::TempDir, name: &str, content: &str) -> Source {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Source::new(path)
}

fn settings(train: &[Source]) -> DatasetSettings<'_> {
    DatasetSettings {
        task: DataTask::Classification,
        joint_pairs: false,
        train,
        validation: None,
        test: None,
        labels: None,
        split: SplitFractions::default(),
        clean: CleanOptions::default(),
        seed: 42,
        label_columns: Vec::new(),
        teaches_validation: false,
    }
}

fn many(folder: &tempfile::TempDir) -> Source {
    let rows: String = (0..40).map(|row| format!("text {row},{}\n", ["a", "b"][row % 2])).collect();
    source(folder, "train.csv", &format!("text,label\n{rows}"))
}

#[test]
fn rows_are_split_by_class_and_the_split_is_a_function_of_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let train = [many(&folder)];
    let dataset = Dataset::load(&settings(&train)).unwrap();
    let counts = |part| dataset.part(part).len();
    assert_eq!((counts(Part::Train), counts(Part::Validation), counts(Part::Test)), (28, 6, 6));
    assert_eq!(dataset.rows, Dataset::load(&settings(&train)).unwrap().rows);
    let other = Dataset::load(&DatasetSettings { seed: 43, ..settings(&train) }).unwrap();
    assert_ne!(dataset.rows, other.rows);
    assert_eq!(dataset.files[0].rows, 40);
}

#[test]
fn a_label_that_only_test_has_is_an_error_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let train = [many(&folder)];
    let test = [source(&folder, "test.csv", "text,label\nfine,a\nnew,c\n")];
    let error =
        Dataset::load(&DatasetSettings { test: Some(&test), ..settings(&train) }).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("test.csv:3: expected one of the labels"), "{message}");
    assert!(message.contains("`c`"), "{message}");
}

#[test]
fn words_and_questions_have_no_label_of_their_text() {
    let folder = tempfile::tempdir().unwrap();
    let train = [source(&folder, "train.conll", "\nRome\tB-LOC\n")];
    let error = Dataset::load(&settings(&train)).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("train.conll:2: expected a label for the text"), "{message}");
    assert!(message.ends_with("got a record of conll, which has none"), "{message}");
}

#[test]
fn one_label_alone_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let train = [source(&folder, "one.csv", "text,label\nx,a\ny,a\n")];
    let error = Dataset::load(&settings(&train)).unwrap_err();
    assert!(error.to_string().contains("only `a` in all 2 rows"), "{error}");
}

#[test]
fn a_given_test_file_is_never_thinned_and_its_leaks_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let train = [many(&folder)];
    let test = [source(&folder, "test.csv", "text,label\nx,a\nx,a\ntext 0,a\ntext 0,a\n")];
    let all_train = SplitFractions { train: 1.0, validation: 0.0, test: 0.0 };
    let dataset =
        Dataset::load(&DatasetSettings { test: Some(&test), split: all_train, ..settings(&train) })
            .unwrap();
    assert_eq!(dataset.part(Part::Test).len(), 4);
    assert!(dataset.warnings.contains(&"2 test rows (1 text) also occur in train".to_string()));
    assert!(dataset.warnings.contains(&"test: 2 repeated rows, kept".to_string()));
}

#[test]
fn labels_from_two_files_meet_in_one_map() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |name: &str, label: &str, content: &str| Source {
        label: Some(label.into()),
        ..source(&folder, name, content)
    };
    let train =
        [lines("pos.txt", "pos", "good\nfine\nnice\n"), lines("neg.txt", "neg", "bad\npoor\n")];
    let dataset = Dataset::load(&settings(&train)).unwrap();
    assert_eq!(dataset.labels.names(), ["neg", "pos"]);
    assert_eq!(
        dataset.rows.iter().filter_map(|row| row.target.class()).collect::<Vec<_>>(),
        [1, 1, 1, 0, 0]
    );
    assert_eq!(dataset.files.iter().map(|file| file.rows).collect::<Vec<_>>(), [3, 2]);
}

fn of_task<'a>(task: DataTask, train: &'a [Source]) -> DatasetSettings<'a> {
    DatasetSettings { task, ..settings(train) }
}

fn all_train(settings: DatasetSettings<'_>) -> DatasetSettings<'_> {
    DatasetSettings { split: SplitFractions { train: 1.0, validation: 0.0, test: 0.0 }, ..settings }
}

/// A question, and the text and start of its answer.
type Question<'a> = (&'a str, Option<(&'a str, usize)>);

/// Writes a squad file of contexts, each with questions.
fn squad(folder: &tempfile::TempDir, name: &str, paragraphs: &[(&str, &[Question<'_>])]) -> Source {
    let question = |(question, answer): &Question<'_>| {
        let answers =
            answer.map(|(text, start)| serde_json::json!({ "text": text, "answer_start": start }));
        serde_json::json!({
            "id": format!("id of {question}"),
            "question": question,
            "is_impossible": answers.is_none(),
            "answers": answers.into_iter().collect::<Vec<_>>(),
        })
    };
    let paragraph = |(context, questions): &(&str, &[_])| {
        let questions: Vec<_> = questions.iter().map(question).collect();
        serde_json::json!({ "context": context, "qas": questions })
    };
    let paragraphs: Vec<_> = paragraphs.iter().map(paragraph).collect();
    let file = serde_json::json!({ "data": [{ "title": "t", "paragraphs": paragraphs }] });
    source(folder, name, &file.to_string())
}

fn targets(dataset: &Dataset) -> Vec<&Target> {
    dataset.rows.iter().map(|row| &row.target).collect()
}

fn message_of(settings: &DatasetSettings<'_>) -> String {
    let error = Dataset::load(settings).unwrap_err();
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    error.to_string()
}

#[test]
fn a_cell_holds_several_labels_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let content = "text,label\none,\"joy, fear\"\ntwo,\nthree,joy\nfour,\"fear,joy,fear\"\n";
    let train = [source(&folder, "train.csv", content)];
    let dataset = Dataset::load(&all_train(of_task(DataTask::Multilabel, &train))).unwrap();
    assert_eq!(dataset.labels.names(), ["fear", "joy"]);
    let classes = |ids: &[usize]| Target::Classes(ids.to_vec());
    let expected = [classes(&[0, 1]), classes(&[]), classes(&[1]), classes(&[0, 1])];
    assert!(targets(&dataset).into_iter().eq(&expected));
    let counts: Vec<usize> = dataset.distribution.classes.iter().map(|class| class.train).collect();
    assert_eq!(counts, [2, 3]);
    assert_eq!(dataset.checks.balance.as_ref().unwrap().rarest, "fear");

    let test = [source(&folder, "test.csv", "text,label\nx,joy\ny,\"joy,rage\"\n")];
    let message =
        message_of(&DatasetSettings { test: Some(&test), ..of_task(DataTask::Multilabel, &train) });
    assert!(
        message.ends_with("test.csv:3: expected one of the labels `fear`, `joy`, got `rage`"),
        "{message}"
    );
    let none = [source(&folder, "none.csv", "text,label\nx,\ny,\n")];
    let message = message_of(&of_task(DataTask::Multilabel, &none));
    assert!(
        message.ends_with("expected rows with labels, got no label in all 2 rows"),
        "{message}"
    );
}

#[test]
fn given_labels_may_be_spelt_by_their_ids_and_found_ones_not() {
    let folder = tempfile::tempdir().unwrap();
    let train = [source(&folder, "train.csv", "text,label\none,\"0,2\"\ntwo,fear\n")];
    let names = ["joy", "fear", "rage"].map(String::from).to_vec();
    let given = DatasetSettings {
        labels: Some(LabelMap::try_from(names).unwrap()),
        ..all_train(of_task(DataTask::Multilabel, &train))
    };
    let dataset = Dataset::load(&given).unwrap();
    let classes = |ids: &[usize]| Target::Classes(ids.to_vec());
    assert!(targets(&dataset).into_iter().eq(&[classes(&[0, 2]), classes(&[1])]));

    let beyond = [source(&folder, "beyond.csv", "text,label\none,3\n")];
    let message = message_of(&DatasetSettings { test: Some(&beyond), ..given });
    assert!(
        message.contains("beyond.csv:2: expected ids that all count from 0 (to 2) or all from 1 (to 3), got `3` here")
            && message.ends_with("train.csv"),
        "{message}"
    );

    let found = [many(&folder)];
    let test = [source(&folder, "test.csv", "text,label\none,1\n")];
    let message = message_of(&DatasetSettings { test: Some(&test), ..settings(&found) });
    assert!(message.ends_with("labels `a`, `b`, got `1`"), "{message}");
}

#[test]
fn values_are_finite_numbers_and_not_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = |name: &str, rows: &str| {
        [Source {
            text_pair: Some("other".into()),
            ..source(&folder, name, &format!("text,other,label\n{rows}"))
        }]
    };
    let train = pairs("train.csv", "a,b,2.5\na,c,-1e-3\nb,c,0\nb,d,2.50\n");
    let settings = all_train(of_task(DataTask::Regression, &train));
    let dataset = Dataset::load(&settings).unwrap();
    assert!(targets(&dataset).into_iter().eq(&[2.5, -1e-3, 0.0, 2.5].map(Target::Value)));
    assert!(dataset.labels.is_empty() && dataset.distribution.classes.is_empty());
    let [summary] = &dataset.values[..] else { panic!("{:?}", dataset.values) };
    assert_eq!((summary.min, summary.max, summary.rows), (-1e-3, 2.5, 4));
    assert!((summary.mean - 4.999 / 4.0).abs() < 1e-12);

    for cell in ["nan", ""] {
        let train = pairs("none.csv", &format!("a,b,1\na,c,\"{cell}\"\n"));
        let message = message_of(&of_task(DataTask::Regression, &train));
        assert!(message.contains("none.csv:3: expected a label for each text"), "{message}");
    }
    for (cell, got) in [("1,5", "got `1,5`"), ("inf", "got `inf`")] {
        let train = pairs("bad.csv", &format!("a,b,1\na,c,\"{cell}\"\n"));
        let message = message_of(&of_task(DataTask::Regression, &train));
        assert!(message.contains("bad.csv:3: expected a finite number"), "{message}");
        assert!(message.ends_with(got), "{message}");
    }
    let same = pairs("same.csv", "a,b,1\na,c,1.0\n");
    let message = message_of(&of_task(DataTask::Regression, &same));
    assert!(
        message.ends_with("expected rows of at least two values, got only 1 in all 2 rows"),
        "{message}"
    );
}

#[test]
fn a_label_that_is_no_number_costs_its_row_where_bad_ones_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let skipping = |name: &str, content: &str| {
        [Source { skip_bad: Some(true), ..source(&folder, name, content) }]
    };
    let train = skipping("train.csv", "text,label\na,1\nb,n/a\nc,2\n,\n");
    let test = skipping("test.csv", "text,label\nd,3\ne,high\n");
    let settings =
        DatasetSettings { test: Some(&test), ..all_train(of_task(DataTask::Regression, &train)) };
    let dataset = Dataset::load(&settings).unwrap();
    assert_eq!(dataset.rows.len(), 3);
    let lines: Vec<_> = dataset.checks.bad_rows.iter().map(|row| row.line).collect();
    assert_eq!(lines, [Some(3), Some(3)]);
    let counts: Vec<_> = dataset.checks.files.iter().map(|f| (f.bad_lines, f.empty)).collect();
    assert_eq!(counts, [(1, 1), (1, 0)]);
    assert!(dataset.warnings.iter().any(|warning| warning.starts_with("1 given test row is")));
}

#[test]
fn a_pair_is_one_document_or_two() {
    let folder = tempfile::tempdir().unwrap();
    let train = [Source {
        text_pair: Some("other".into()),
        ..source(&folder, "train.csv", "text,other,label\na,b,1\nc,d,2\n")
    }];
    let separate = Dataset::load(&of_task(DataTask::Regression, &train)).unwrap();
    let text = |text: &str| Key::of(Mode::Text, &[text]);
    assert_eq!(separate.rows[0].keys, [text("a"), text("b")]);
    assert_eq!(separate.rows[0].text_pair.as_deref(), Some("b"));
    let joint = Dataset::load(&DatasetSettings {
        joint_pairs: true,
        ..of_task(DataTask::Regression, &train)
    })
    .unwrap();
    assert_eq!(joint.rows[1].keys, [Key::of(Mode::Pair, &["c", "d"])]);
}

#[test]
fn tasks_of_words_and_questions_need_files_of_words_and_questions() {
    let folder = tempfile::tempdir().unwrap();
    let csv = [many(&folder)];
    for (task, expected) in [
        (DataTask::Tokens, "expected words with a tag each"),
        (DataTask::Qa, "expected questions with answers in a context"),
    ] {
        let message = message_of(&of_task(task, &csv));
        assert!(message.contains(expected), "{message}");
        assert!(message.ends_with("got a csv file"), "{message}");
    }
    let words = [source(&folder, "one.conll", "a\tO\n\nb\tO\n")];
    let message = message_of(&of_task(DataTask::Tokens, &words));
    assert!(message.ends_with("got only `O` in all 2 sentences"), "{message}");
}

#[test]
fn a_file_to_evaluate_on_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let sources = [source(&folder, "new.csv", "text,label\nx,b\nx,b\n")];
    let labels = LabelMap::from_train(["a", "b"]);
    let of_part = |sources| {
        Dataset::of_part(
            DataTask::Classification,
            false,
            sources,
            labels.clone(),
            None,
            Part::Test,
            false,
        )
    };
    let dataset = of_part(&sources).unwrap();
    assert_eq!(dataset.part(Part::Test), [0, 1]);
    assert_eq!(dataset.labels_of(&[0, 1]), [1, 1]);
    let unknown = [source(&folder, "unknown.csv", "text,label\nx,c\n")];
    assert!(of_part(&unknown).unwrap_err().to_string().ends_with("got `c`"));
}
