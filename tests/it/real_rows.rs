//! Public data sets for every task: no row is lost, and the reported counts are those that the authors publish.

use std::{collections::HashMap, path::PathBuf};

use frostbert::{
    Error,
    internals::data::{
        ClassCount, CleanOptions, DataTask, Format, LabelMap, Part, Source, SplitFractions,
        dataset::{Dataset, DatasetSettings},
    },
};

use crate::real_readers::{data_set, goemotions, sms_spam, stsb};

const KEEP_ALL: CleanOptions =
    CleanOptions { drop_empty: false, drop_duplicates: false, drop_unlabelled: false };

/// Returns the number of rows of each part.
fn counts(dataset: &Dataset) -> [usize; 3] {
    Part::ALL.map(|part| dataset.part(part).len())
}

/// Returns settings for classes from these sources, with the default split and without filters.
fn settings(train: &[Source]) -> DatasetSettings<'_> {
    DatasetSettings {
        task: DataTask::Classification,
        joint_pairs: false,
        train,
        validation: None,
        test: None,
        labels: None,
        split: SplitFractions::default(),
        clean: KEEP_ALL,
        seed: 42,
        label_columns: Vec::new(),
        teaches_validation: false,
    }
}

/// Loads files for train, validation and test without filters; parts that are given are not split.
fn load(task: DataTask, labels: Option<LabelMap>, sources: [&[Source]; 3]) -> Dataset {
    let [train, validation, test] = sources;
    let given = |sources: &[Source]| !sources.is_empty();
    let settings = DatasetSettings {
        task,
        joint_pairs: task == DataTask::Qa,
        validation: Some(validation).filter(|sources| given(sources)),
        test: Some(test).filter(|sources| given(sources)),
        labels,
        split: if !given(test) {
            SplitFractions::default()
        } else {
            SplitFractions { train: 1.0, validation: 0.0, test: 0.0 }
        },
        ..settings(train)
    };
    let dataset = Dataset::load(&settings).unwrap_or_else(|error| panic!("{error}"));
    let n_records: usize = dataset.files.iter().map(|file| file.rows).sum();
    assert_eq!(dataset.rows.len(), n_records);
    dataset
}

#[test]
fn wnut17_has_3394_1009_and_1287_sentences_of_13_tags() {
    let Some(train) = data_set("wnut17/wnut17train.conll") else {
        return;
    };
    let of = |file: &str| Source {
        format: Some(Format::Conll),
        ..Source::new(train.with_file_name(file))
    };
    let [train, validation, test] =
        ["wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"]
            .map(|file| [of(file)]);
    let dataset = load(DataTask::Tokens, None, [&train, &validation, &test]);
    assert_eq!(counts(&dataset), [3_394, 1_009, 1_287]);
    assert_eq!((dataset.labels.len(), dataset.labels.id("O")), (13, Some(12)));
    let words: usize = dataset.distribution.classes.iter().map(ClassCount::total).sum();
    assert_eq!(words, 62_730 + 15_733 + 23_394);
    let balance = dataset.checks.balance.unwrap();
    assert_eq!(
        (balance.rarest.as_str(), balance.rarest_rows, balance.most_frequent_rows),
        ("I-corporation", 46, 59_570)
    );

    // Its other test file has several tags in some cells, so no head can be evaluated on it.
    let several = [of("emerging.test.conll")];
    let labels = dataset.labels;
    let error =
        Dataset::of_part(DataTask::Tokens, false, &several, labels, None, Part::Test, false)
            .unwrap_err();
    let Error::Record { path, line: Some(_), got, .. } = &error else { panic!("{error}") };
    assert!(path.ends_with("emerging.test.conll") && got.contains(','), "{error}");
}

#[test]
fn ud_ewt_has_2001_and_2077_sentences_and_is_split_by_document() {
    let Some(dev) = data_set("ud_ewt/en_ewt-ud-dev.conllu") else {
        return;
    };
    let test = [Source::new(dev.with_file_name("en_ewt-ud-test.conllu"))];
    let train = [Source::new(dev)];
    let dataset = load(DataTask::Tokens, None, [&train, &[], &test]);
    assert_eq!(counts(&dataset), [2_001, 0, 2_077]);
    assert_eq!(dataset.labels.len(), 17);

    let dataset = load(DataTask::Tokens, None, [&train, &[], &[]]);
    let [n_train, n_validation, n_test] = counts(&dataset).map(|count| count as f64 / 2_001.0);
    assert!((n_train - 0.70).abs() < 0.02, "{n_train}");
    assert!((n_validation - 0.15).abs() < 0.02 && (n_test - 0.15).abs() < 0.02);
    assert_whole_groups(&dataset, 318);
}

fn assert_whole_groups(dataset: &Dataset, n_groups: usize) {
    let mut part_of = HashMap::new();
    for row in &dataset.rows {
        assert_eq!(*part_of.entry(row.group.unwrap()).or_insert(row.part), row.part);
    }
    assert_eq!(part_of.len(), n_groups);
}

#[test]
fn questions_of_one_squad_file_never_share_a_context_between_parts() {
    let Some(train) = data_set("squad_small/train_16articles.json") else {
        return;
    };
    let test = [Source::new(train.with_file_name("test_xquad_other_articles.json"))];
    let train = [Source::new(train)];
    let dataset = load(DataTask::Qa, None, [&train, &[], &test]);
    assert_eq!(counts(&dataset), [2_910, 0, 838]);
    assert!(dataset.checks.misplaced_answers.as_ref().unwrap().count == 0);
    assert!(dataset.rows.iter().all(|row| row.spans().count() == row.target.answers().len()));
    let n_contexts: Vec<usize> = dataset.questions.iter().map(|part| part.contexts).collect();
    assert_eq!(n_contexts, [646, 160]);

    let dataset = load(DataTask::Qa, None, [&train, &[], &[]]);
    for (count, share) in counts(&dataset).into_iter().zip([0.70, 0.15, 0.15]) {
        assert!((count as f64 / 2_910.0 - share).abs() < 0.01, "{count}");
    }
    assert_whole_groups(&dataset, 646);
    assert!(
        dataset.checks.shared.iter().all(|shared| shared.contexts.as_ref().unwrap().count == 0)
    );
}

#[test]
fn squad2_has_6078_questions_of_which_3168_are_impossible() {
    let Some(path) = data_set("squad2_cs224n/dev-v2.0.json") else {
        return;
    };
    let dataset = load(DataTask::Qa, None, [&[Source::new(path)], &[], &[]]);
    assert_eq!(dataset.rows.len(), 6_078);
    let impossible: usize = dataset.questions.iter().map(|part| part.impossible).sum();
    assert_eq!(impossible, 3_168);
}

#[test]
fn stsb_has_5749_1500_and_1379_pairs_with_scores() {
    let Some(train) = data_set("stsb/sts-train.csv") else {
        return;
    };
    let [train, validation, test] = ["sts-train.csv", "sts-dev.csv", "sts-test.csv"]
        .map(|file| [stsb(&train.with_file_name(file))]);
    let dataset = load(DataTask::Regression, None, [&train, &validation, &test]);
    assert_eq!(counts(&dataset), [5_749, 1_500, 1_379]);
    assert!(dataset.rows.iter().all(|row| row.keys.len() == 2));
    let scores = &dataset.values[0];
    assert_eq!((scores.min, scores.max), (0.0, 5.0));
    assert!((scores.mean - 2.700_999_025_365_339_5).abs() < 1e-12);

    let dataset = load(DataTask::Regression, None, [&train, &[], &[]]);
    assert_eq!(counts(&dataset), [4_024, 863, 862]);
    for summary in &dataset.values {
        assert!((summary.mean - 2.701).abs() < 0.02, "{summary:?}");
    }
}

#[test]
fn goemotions_has_43410_5426_and_5427_rows_of_28_emotions_by_id() {
    let Some(train) = data_set("goemotions/train.tsv") else {
        return;
    };
    let (labels, _) = LabelMap::from_file(&train.with_file_name("labels.txt")).unwrap();
    let [train, validation, test] =
        ["train.tsv", "dev.tsv", "test.tsv"].map(|file| [goemotions(&train.with_file_name(file))]);
    let names = Some(labels.clone());
    let dataset = load(DataTask::Multilabel, names, [&train, &validation, &test]);
    assert_eq!(counts(&dataset), [43_410, 5_426, 5_427]);
    let of_train = |label: &str| dataset.distribution.classes[labels.id(label).unwrap()].train;
    assert_eq!(["admiration", "grief", "neutral"].map(of_train), [4_130, 77, 14_219]);

    let dataset = load(DataTask::Multilabel, Some(labels), [&train, &[], &[]]);
    assert_eq!(counts(&dataset), [30_387, 6_512, 6_511]);
    for class in &dataset.distribution.classes {
        let share = class.test as f64 / class.total() as f64;
        assert!((share - 0.15).abs() < 0.03, "{class:?}");
    }
}

#[test]
fn covid_faq_and_sms_spam_are_classified_as_before() {
    let Some(path) = data_set("covid_faq/faq_200327.tsv") else {
        return;
    };
    let by = |label: &str, path: PathBuf| Source {
        text: Some("question".into()),
        label: Some(label.into()),
        ..Source::new(path)
    };
    let faq = [by("lang", path.clone())];
    let dataset = load(DataTask::Classification, None, [&faq, &[], &[]]);
    assert_eq!((dataset.rows.len(), dataset.labels.len()), (896, 5));
    let faq = [by("source", path.with_file_name("faq_covidbert.csv"))];
    let dataset = load(DataTask::Classification, None, [&faq, &[], &[]]);
    assert_eq!((dataset.rows.len(), dataset.labels.len()), (213, 6));

    let Some(path) = data_set("sms_spam/SMSSpamCollection") else {
        return;
    };
    let spam = [sms_spam(&path)];
    let dataset = load(DataTask::Classification, None, [&spam, &[], &[]]);
    assert_eq!(dataset.rows.len(), 5_574);
    assert_eq!(dataset.checks.files[0].duplicates.count, 403);
    let settings = DatasetSettings { clean: CleanOptions::default(), ..settings(&spam) };
    assert_eq!(Dataset::load(&settings).unwrap().rows.len(), 5_574 - 403);
}

/// Every public file with groups of rows. `cargo test --test it groups_of_real_data -- --nocapture` prints the table of
/// docs/performance.md.
#[test]
fn groups_of_real_data_are_split_within_three_rows_of_their_shares() {
    let files = [
        ("squad_small/train_16articles.json", DataTask::Qa),
        ("squad_small/test_xquad_other_articles.json", DataTask::Qa),
        ("squad2_cs224n/dev-v2.0.json", DataTask::Qa),
        ("ud_ewt/en_ewt-ud-dev.conllu", DataTask::Tokens),
        ("ud_ewt/en_ewt-ud-test.conllu", DataTask::Tokens),
    ];
    for (file, task) in files {
        let Some(path) = data_set(file) else { return };
        let source = [Source::new(path)];
        for seed in [42, 1, 2] {
            let joint_pairs = task == DataTask::Qa;
            let settings = DatasetSettings { task, joint_pairs, seed, ..settings(&source) };
            let dataset = Dataset::load(&settings).unwrap_or_else(|error| panic!("{error}"));
            let split = dataset.checks.split.as_ref().unwrap();
            let groups = split.groups.as_ref().unwrap();
            println!(
                "| {file} | {seed} | {} | {} | {} | {:?} | {:.4} {:.4} {:.4} |",
                dataset.rows.len(),
                groups.count,
                groups.largest,
                split.rows,
                split.real.train,
                split.real.validation,
                split.real.test
            );
            let n_rows = dataset.rows.len() as f64;
            for (rows, asked) in split.rows.into_iter().zip([
                split.asked.train,
                split.asked.validation,
                split.asked.test,
            ]) {
                assert!(
                    (rows as f64 - asked * n_rows).abs() <= 3.0,
                    "{file}, seed {seed}: {:?}",
                    split.rows
                );
            }
            assert!(!dataset.warnings.iter().any(|warning| warning.contains("data.split")));
        }
    }
}
