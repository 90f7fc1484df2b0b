//! Rows of every task, from small files.

use super::*;

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
    }
}

fn many(folder: &tempfile::TempDir) -> Source {
    let rows: String = (0..40)
        .map(|row| format!("text {row},{}\n", ["a", "b"][row % 2]))
        .collect();
    source(folder, "train.csv", &format!("text,label\n{rows}"))
}

#[test]
fn rows_are_split_by_class_and_the_split_is_a_function_of_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let train = [many(&folder)];
    let dataset = Dataset::load(&settings(&train)).unwrap();
    let counts = |part| dataset.part(part).len();
    assert_eq!(
        (
            counts(Part::Train),
            counts(Part::Validation),
            counts(Part::Test)
        ),
        (28, 6, 6)
    );
    assert_eq!(dataset.rows, Dataset::load(&settings(&train)).unwrap().rows);
    let other = Dataset::load(&DatasetSettings {
        seed: 43,
        ..settings(&train)
    })
    .unwrap();
    assert_ne!(dataset.rows, other.rows);
    assert_eq!(dataset.files[0].rows, 40);
}

#[test]
fn a_label_that_only_test_has_is_an_error_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let train = [many(&folder)];
    let test = [source(&folder, "test.csv", "text,label\nfine,a\nnew,c\n")];
    let error = Dataset::load(&DatasetSettings {
        test: Some(&test),
        ..settings(&train)
    })
    .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("test.csv:3: expected one of the labels"),
        "{message}"
    );
    assert!(message.contains("`c`"), "{message}");
}

#[test]
fn words_and_questions_have_no_label_of_their_text() {
    let folder = tempfile::tempdir().unwrap();
    let train = [source(&folder, "train.conll", "\nRome\tB-LOC\n")];
    let error = Dataset::load(&settings(&train)).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("train.conll:2: expected a label for the text"),
        "{message}"
    );
    assert!(
        message.ends_with("got a record of conll, which has none"),
        "{message}"
    );
}

#[test]
fn one_label_alone_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let train = [source(&folder, "one.csv", "text,label\nx,a\ny,a\n")];
    let error = Dataset::load(&settings(&train)).unwrap_err();
    assert!(
        error.to_string().contains("only `a` in all 2 rows"),
        "{error}"
    );
}

#[test]
fn a_given_test_file_is_never_thinned_and_its_leaks_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let train = [many(&folder)];
    let test = [source(
        &folder,
        "test.csv",
        "text,label\nx,a\nx,a\ntext 0,a\ntext 0,a\n",
    )];
    let all_train = SplitFractions {
        train: 1.0,
        validation: 0.0,
        test: 0.0,
    };
    let dataset = Dataset::load(&DatasetSettings {
        test: Some(&test),
        split: all_train,
        ..settings(&train)
    })
    .unwrap();
    assert_eq!(dataset.part(Part::Test).len(), 4);
    assert!(
        dataset
            .warnings
            .contains(&"2 texts of test stand in train too".to_string())
    );
    assert!(
        dataset
            .warnings
            .contains(&"test: 2 repeated rows, kept".to_string())
    );
}

#[test]
fn labels_from_two_files_meet_in_one_map() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |name: &str, label: &str, content: &str| Source {
        label: Some(label.into()),
        ..source(&folder, name, content)
    };
    let train = [
        lines("pos.txt", "pos", "good\nfine\nnice\n"),
        lines("neg.txt", "neg", "bad\npoor\n"),
    ];
    let dataset = Dataset::load(&settings(&train)).unwrap();
    assert_eq!(dataset.labels.names(), ["neg", "pos"]);
    assert_eq!(
        dataset
            .rows
            .iter()
            .filter_map(|row| row.target.class())
            .collect::<Vec<_>>(),
        [1, 1, 1, 0, 0]
    );
    assert_eq!(
        dataset
            .files
            .iter()
            .map(|file| file.rows)
            .collect::<Vec<_>>(),
        [3, 2]
    );
}
