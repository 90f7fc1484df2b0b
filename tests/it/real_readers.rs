//! The readers on public data sets with published counts.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use frostbert::{
    Error,
    internals::data::{
        ClassCount, Format, LabelMap, Record, Source, SplitFractions, WantedFields,
        class_distribution, read, stratified_split,
    },
};

use crate::support::datasets;

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

/// Returns a file of the data sets, or `None`, after a message, if this machine does not have them.
pub(crate) fn data_set(file: &str) -> Option<PathBuf> {
    Some(datasets()?.join(file))
}

pub(crate) fn examples(source: &Source, want: WantedFields) -> Vec<Record> {
    read(source, want).unwrap().collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}"))
}

/// A file of sms_spam: the label comes first, and quotes are ordinary characters.
pub(crate) fn sms_spam(path: &Path) -> Source {
    Source {
        format: Some(Format::Tsv),
        header: false,
        quoting: false,
        label: Some(0.into()),
        text: Some(1.into()),
        ..Source::new(path)
    }
}

/// A file of goemotions: labels are ids separated by commas.
pub(crate) fn goemotions(path: &Path) -> Source {
    Source {
        header: false,
        text: Some(0.into()),
        label: Some(1.into()),
        id: Some(2.into()),
        ..Source::new(path)
    }
}

/// A file of stsb: tab-separated despite its name, with pairs in the sixth and seventh fields.
pub(crate) fn stsb(path: &Path) -> Source {
    Source {
        format: Some(Format::Tsv),
        header: false,
        quoting: false,
        label: Some(4.into()),
        text: Some(5.into()),
        text_pair: Some(6.into()),
        ..Source::new(path)
    }
}

fn label_counts(examples: &[Record]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for example in examples {
        *counts.entry(example.label.as_deref().unwrap()).or_default() += 1;
    }
    counts
}

fn label_map(examples: &[Record]) -> LabelMap {
    LabelMap::from_train(examples.iter().filter_map(|example| example.label.as_deref()))
}

/// Returns a record's line in the file, to compare with the record.
fn line_at(path: &Path, line: Option<u64>) -> String {
    let content = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    content.split('\n').nth(line.unwrap() as usize - 1).unwrap().to_owned()
}

#[test]
fn mr_is_a_file_of_lines_for_each_class() {
    let Some(path) = data_set("mr/rt-polarity.pos") else {
        return;
    };
    for (path, label) in [(path.clone(), "pos"), (path.with_extension("neg"), "neg")] {
        let source =
            Source { format: Some(Format::Lines), label: Some(label.into()), ..Source::new(path) };
        let examples = examples(&source, LABELLED);
        assert_eq!(label_counts(&examples), HashMap::from([(label, 5331)]));
        assert_eq!(examples.last().unwrap().line, Some(5331));
    }
}

#[test]
fn trec_is_read_by_a_pattern_from_latin1() {
    let Some(path) = data_set("trec/train_5500.label") else {
        return;
    };
    let utf8 = Source {
        format: Some(Format::Lines),
        pattern: Some(r"(?<label>\w+):\S+ (?<text>.*)".to_owned()),
        ..Source::new(&path)
    };
    let error = read(&utf8, LABELLED).unwrap().collect::<Result<Vec<_>, _>>().unwrap_err();
    let Error::Record { line, got, .. } = &error else { panic!("{error}") };
    assert_eq!((*line, got.as_str()), (Some(66), "the byte 0xF0"));

    let latin1 = Source { encoding: "latin1".to_owned(), ..utf8 };
    let train = examples(&latin1, LABELLED);
    assert_eq!(train.len(), 5452);
    assert_eq!(label_map(&train).names(), ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]);
    assert_eq!((label_counts(&train)["ABBR"], label_counts(&train)["ENTY"]), (86, 1250));
    assert!(train[65].text.contains('\u{f0}'), "{}", train[65].text);
    let test = Source { path: path.with_file_name("TREC_10.label"), ..latin1 };
    assert_eq!(examples(&test, LABELLED).len(), 500);
}

#[test]
fn banking77_keeps_line_breaks_in_fields_and_all_77_labels() {
    let Some(path) = data_set("banking77/train.csv") else {
        return;
    };
    let source = Source { label: Some("category".into()), ..Source::new(&path) };
    let train = examples(&source, LABELLED);
    let test = examples(&Source { path: path.with_file_name("test.csv"), ..source }, LABELLED);
    assert_eq!((train.len(), test.len()), (10_003, 3_080));
    let labels = label_map(&train);
    assert_eq!(labels.len(), 77);
    let broken: Vec<&Record> = train.iter().filter(|example| example.text.contains('\n')).collect();
    assert_eq!(broken.len(), 10);
    for example in broken.into_iter().chain(train.last()) {
        let first_line = example.text.trim_end_matches('\r').split('\n').next().unwrap();
        assert!(line_at(&path, example.line).contains(first_line), "{example:?}");
    }

    let id = |example: &Record| {
        labels.id_at(example.label.as_deref().unwrap(), &path, example.line).unwrap()
    };
    let ids: Vec<usize> = train.iter().map(id).collect();
    let parts = stratified_split(&ids, SplitFractions::default(), 42);
    let distribution = class_distribution(&labels, ids.into_iter().zip(parts));
    let sum =
        |count: fn(&ClassCount) -> usize| distribution.classes.iter().map(count).sum::<usize>();
    assert_eq!((sum(|c| c.train), sum(|c| c.validation), sum(|c| c.test)), (7002, 1501, 1500));
    assert!(
        distribution
            .classes
            .iter()
            .all(|class| class.train > 0 && class.validation > 0 && class.test > 0)
    );
}

#[test]
fn sms_spam_has_literal_quotes_and_no_header() {
    let Some(path) = data_set("sms_spam/SMSSpamCollection") else {
        return;
    };
    let source = sms_spam(&path);
    let all = examples(&source, LABELLED);
    assert_eq!(label_counts(&all), HashMap::from([("ham", 4827), ("spam", 747)]));
    assert_eq!(all.iter().filter(|example| example.text.starts_with('"')).count(), 54);
    assert_eq!(all.last().unwrap().line, Some(5574));
}

#[test]
fn goemotions_has_quoted_fields_and_several_labels() {
    let Some(path) = data_set("goemotions/train.tsv") else {
        return;
    };
    let source = goemotions(&path);
    for (file, n_rows, n_several) in
        [("train.tsv", 43_410, 7_102), ("dev.tsv", 5_426, 878), ("test.tsv", 5_427, 837)]
    {
        let examples =
            examples(&Source { path: path.with_file_name(file), ..source.clone() }, LABELLED);
        let labels: Vec<Vec<_>> = examples
            .iter()
            .map(|example| source.split_labels(example.label.as_deref().unwrap()))
            .collect();
        assert_eq!(examples.len(), n_rows, "{file}");
        assert_eq!(labels.iter().filter(|labels| labels.len() > 1).count(), n_several, "{file}");
        let numbers = LabelMap::from_train(labels.into_iter().flatten());
        assert_eq!((numbers.len(), numbers.name(2), numbers.name(27)), (28, Some("2"), Some("27")));
        assert_eq!(
            examples.iter().map(|example| example.id.as_deref()).collect::<HashSet<_>>().len(),
            n_rows
        );
    }
    assert_eq!(
        LabelMap::from_file(&path.with_file_name("labels.txt")).unwrap().0.name(27),
        Some("neutral")
    );
}

#[test]
fn covid_faq_holds_html_and_line_breaks_in_its_fields() {
    let Some(path) = data_set("covid_faq/faq_200327.tsv") else {
        return;
    };
    let source = Source {
        text: Some("question".into()),
        text_pair: Some("answer_html".into()),
        label: Some("lang".into()),
        ..Source::new(&path)
    };
    let both = WantedFields { label: true, text_pair: true };
    let tsv = examples(&source, both);
    let counts = label_counts(&tsv);
    assert_eq!((tsv.len(), counts["de"], counts["en"], counts["pl"]), (896, 399, 224, 131));
    let html = || tsv.iter().filter_map(|example| example.text_pair.as_deref());
    assert_eq!(html().filter(|html| html.contains('\n')).count(), 670);
    assert_eq!(html().map(|html| html.chars().count()).max(), Some(19_668));
    for example in &tsv {
        let first_line = example.text.split(['\n', '"']).next().unwrap();
        assert!(
            line_at(&path, example.line).contains(first_line),
            "{:?} {}",
            example.line,
            example.text
        );
    }
    let csv = Source { path: path.with_file_name("faq_covidbert.csv"), ..source };
    assert_eq!(examples(&csv, both).len(), 213);
}

#[test]
fn stsb_has_pairs_in_records_of_seven_or_nine_fields() {
    let Some(path) = data_set("stsb/sts-train.csv") else {
        return;
    };
    for (file, n_rows) in [("sts-train.csv", 5749), ("sts-dev.csv", 1500), ("sts-test.csv", 1379)] {
        let source = stsb(&path.with_file_name(file));
        let examples = examples(&source, WantedFields { label: true, text_pair: true });
        assert_eq!(examples.len(), n_rows, "{file}");
        for example in &examples {
            let score: f64 = example.label.as_deref().unwrap().parse().unwrap();
            assert!((0.0..=5.0).contains(&score));
            let pair = example.text_pair.as_deref().unwrap();
            assert!(!example.text.is_empty() && !pair.is_empty() && !pair.contains(['\r', '\n']));
        }
    }
}

#[test]
fn the_corpus_is_read_from_gzip_without_labels() {
    let Some(path) = data_set("corpus/sentences_60k.txt.gz") else {
        return;
    };
    let n_texts = |path: PathBuf| examples(&Source::new(path), WantedFields::default()).len();
    assert_eq!(n_texts(path.with_file_name("paragraphs_4k.txt.gz")), 4_000);
    assert_eq!(n_texts(path), 60_000);
}
