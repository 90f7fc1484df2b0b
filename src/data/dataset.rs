//! The labelled rows of a pipeline: every source read, cleaned, labelled and split, each row with its key.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    ClassDistribution, CleanCounts, CleanOptions, Example, LabelMap, Part, Source, SplitFractions,
    Want, class_distribution, clean, read, require_texts, split_plan, stratified_split,
};
use crate::{
    error::{Error, Result},
    fingerprint::{self, Key, Mode},
};

/// Where labelled rows come from, and how they become a [`Dataset`].
#[derive(Clone, Debug)]
pub struct DatasetSettings<'a> {
    /// Rows to learn from, and to split for what is not given.
    pub train: &'a [Source],
    /// Validation rows, where they are given.
    pub validation: Option<&'a [Source]>,
    /// Test rows, where they are given.
    pub test: Option<&'a [Source]>,
    /// The labels, where they are given; else those of train.
    pub labels: Option<LabelMap>,
    /// How train is split.
    pub split: SplitFractions,
    /// What is left out.
    pub clean: CleanOptions,
    /// Decides the split.
    pub seed: u64,
}

/// One labelled row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The document's key in a cache.
    pub key: Key,
    /// Its own name, where the source has one.
    pub id: Option<String>,
    /// Its text.
    pub text: String,
    /// The id of its label.
    pub label: usize,
    /// What it is for.
    pub part: Part,
}

/// The labelled rows of a pipeline.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The labels, by id.
    pub labels: LabelMap,
    /// The rows: train in file order (with what was split from it), then given validation, then given test.
    pub rows: Vec<Row>,
    /// What cleaning found in train.
    pub cleaned: CleanCounts,
    /// How the classes are spread.
    pub distribution: ClassDistribution,
    /// The files, in the order in which they were read.
    pub files: Vec<FileRecord>,
    /// What the user should know: conflicts, duplicates and leaks.
    pub warnings: Vec<String>,
}

/// A data file as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path, as the pipeline names it.
    pub path: PathBuf,
    /// blake3 of its bytes.
    pub blake3: String,
    /// Records in it.
    pub rows: usize,
}

/// The key of an example's document.
pub fn example_key(example: &Example) -> Key {
    match &example.text_pair {
        None => Key::of(Mode::Text, &[&example.text]),
        Some(second) => Key::of(Mode::Pair, &[&example.text, second]),
    }
}

impl Dataset {
    /// Reads, cleans, labels and splits.
    ///
    /// # Errors
    /// When a file cannot be read or holds no record, a label is missing or none of train's, or all rows have one label.
    pub fn load(settings: &DatasetSettings<'_>) -> Result<Dataset> {
        let mut files = Vec::new();
        let (train, cleaned) = read_sources(settings.train, settings.clean, &mut files)?;
        let labels = match &settings.labels {
            Some(labels) => labels.clone(),
            None => {
                LabelMap::from_train(train.iter().filter_map(|example| example.label.as_deref()))
            }
        };
        let train_ids = label_ids(&train, &labels, settings.train)?;
        require_two_labels(&train_ids, &labels, &settings.train[0].path)?;

        let fractions = split_plan(
            settings.validation.is_some(),
            settings.test.is_some(),
            settings.split,
        );
        let parts = stratified_split(&train_ids, fractions, settings.seed);
        let mut rows = rows_of(train, &train_ids, parts.into_iter());
        let mut warnings = cleaning_warnings(&cleaned, "train", settings.clean);
        for (sources, part) in [
            (settings.validation, Part::Validation),
            (settings.test, Part::Test),
        ] {
            let Some(sources) = sources else { continue };
            // What is given is never thinned.
            let options = CleanOptions {
                drop_empty: false,
                drop_duplicates: false,
            };
            let (examples, counts) = read_sources(sources, options, &mut files)?;
            let ids = label_ids(&examples, &labels, sources)?;
            warnings.extend(cleaning_warnings(&counts, part_name(part), options));
            rows.extend(rows_of(examples, &ids, std::iter::repeat(part)));
        }
        warnings.extend(leaks(&rows));
        let distribution =
            class_distribution(&labels, rows.iter().map(|row| (row.label, row.part)));
        Ok(Dataset {
            labels,
            rows,
            cleaned,
            distribution,
            files,
            warnings,
        })
    }

    /// The places in `rows` of a part, in order.
    pub fn part(&self, part: Part) -> Vec<u32> {
        let places = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.part == part);
        places.map(|(place, _)| place as u32).collect()
    }

    /// The labels of some rows.
    pub fn labels_of(&self, places: &[u32]) -> Vec<u32> {
        places
            .iter()
            .map(|place| self.rows[*place as usize].label as u32)
            .collect()
    }
}

/// The name of a part in pipelines and reports.
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Validation => "validation",
        Part::Test => "test",
    }
}

fn read_sources(
    sources: &[Source],
    options: CleanOptions,
    files: &mut Vec<FileRecord>,
) -> Result<(Vec<Example>, CleanCounts)> {
    let first_file = files.len();
    for source in sources {
        let blake3 = fingerprint::hash_file(&source.path)?;
        files.push(FileRecord {
            path: source.path.clone(),
            blake3,
            rows: 0,
        });
    }
    let counted = &mut files[first_file..];
    let examples = read_all(sources, true).inspect(|example| {
        if let Ok(example) = example {
            counted[example.source].rows += 1;
        }
    });
    let (examples, counts) = clean(examples, options, example_key)?;
    let n_records: Vec<usize> = files[first_file..].iter().map(|file| file.rows).collect();
    require_texts(sources, &n_records, examples.len(), counts.empty as u64)?;
    Ok((examples, counts))
}

/// The examples of several sources one after the other, each with its source's number.
pub fn read_all(sources: &[Source], label: bool) -> impl Iterator<Item = Result<Example>> {
    sources
        .iter()
        .enumerate()
        .flat_map(move |(number, source)| {
            let want = Want {
                label,
                text_pair: source.text_pair.is_some(),
            };
            let (examples, error) = match read(source, want) {
                Ok(examples) => (Some(examples), None),
                Err(error) => (None, Some(Err(error))),
            };
            let examples = examples.into_iter().flatten();
            error.into_iter().chain(examples.map(move |example| {
                example.map(|example| Example {
                    source: number,
                    ..example
                })
            }))
        })
}

fn label_ids(examples: &[Example], labels: &LabelMap, sources: &[Source]) -> Result<Vec<usize>> {
    examples
        .iter()
        .map(|example| {
            let source = &sources[example.source];
            let Some(label) = &example.label else {
                return Err(source.malformed(
                    example.line,
                    "a label for the text, as csv, tsv, jsonl, parquet and lines have it",
                    format!("a record of {}, which has none", source.resolve_format()?),
                    "heads on words and on questions are not trained by this version: `frostbert extract` alone takes \
                     this file",
                ));
            };
            labels.id_at(label, &source.path, example.line)
        })
        .collect()
}

fn require_two_labels(ids: &[usize], labels: &LabelMap, path: &Path) -> Result<()> {
    let distinct: HashSet<usize> = ids.iter().copied().collect();
    match distinct.len() {
        0 | 1 => Err(Error::Record {
            path: path.to_path_buf(),
            line: None,
            expected: "rows of at least two labels".into(),
            got: match distinct.into_iter().next().and_then(|id| labels.name(id)) {
                Some(label) => format!("only `{label}` in all {} rows", ids.len()),
                None => "no labelled row".into(),
            },
            hint: "there is nothing to learn from one label: check which column the source's `label` names".into(),
        }),
        _ => Ok(()),
    }
}

fn rows_of(examples: Vec<Example>, ids: &[usize], parts: impl Iterator<Item = Part>) -> Vec<Row> {
    let labelled = examples.into_iter().zip(ids).zip(parts);
    labelled
        .map(|((example, label), part)| Row {
            key: example_key(&example),
            id: example.id,
            text: example.text,
            label: *label,
            part,
        })
        .collect()
}

fn cleaning_warnings(counts: &CleanCounts, name: &str, options: CleanOptions) -> Vec<String> {
    let dropped = |dropped| if dropped { "left out" } else { "kept" };
    let mut warnings = Vec::new();
    if counts.empty > 0 {
        warnings.push(format!(
            "{name}: {} empty texts, {}",
            counts.empty,
            dropped(options.drop_empty)
        ));
    }
    if counts.duplicates > 0 {
        let fate = dropped(options.drop_duplicates);
        warnings.push(format!(
            "{name}: {} repeated rows, {fate}",
            counts.duplicates
        ));
    }
    if let Some(conflict) = counts.conflicts.first() {
        let label = |label: &Option<String>| label.clone().unwrap_or_default();
        warnings.push(format!(
            "{name}: {} texts stand there with two labels, as `{}` with `{}` and `{}`",
            counts.conflicting,
            conflict.text,
            label(&conflict.first_label),
            label(&conflict.other_label),
        ));
    }
    warnings
}

/// Texts that stand in train and in another part: what is measured there is partly known by heart.
fn leaks(rows: &[Row]) -> Vec<String> {
    let keys = |part: Part| {
        rows.iter()
            .filter(move |row| row.part == part)
            .map(|row| row.key)
    };
    let train: HashSet<Key> = keys(Part::Train).collect();
    [Part::Validation, Part::Test]
        .into_iter()
        .filter_map(|part| {
            let n_leaked = keys(part).filter(|key| train.contains(key)).count();
            (n_leaked > 0)
                .then(|| format!("{n_leaked} texts of {} stand in train too", part_name(part)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(folder: &tempfile::TempDir, name: &str, content: &str) -> Source {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Source::new(path)
    }

    fn settings(train: &[Source]) -> DatasetSettings<'_> {
        DatasetSettings {
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
            dataset.rows.iter().map(|row| row.label).collect::<Vec<_>>(),
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
}
