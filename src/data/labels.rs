//! Label names and their ids: `id2label` and `label2id` of a Hugging Face `config.json`.

use std::{collections::HashMap, path::Path};

use frostbert_cache::{
    fingerprint::Digest,
    wording::{name_list, shorten},
};
use serde::{Deserialize, Serialize};

use super::{
    open_file::OpenFile,
    read::next_line,
    record_limit::{MAX_RECORD_BYTES, PART_BYTES, too_long},
    source::Source,
};
use crate::error::{Error, Result};

/// The names of the classes, by id. Serialised as a plain list of the names.
///
/// ```
/// let labels = frostbert::internals::data::LabelMap::from_train(["spam", "ham", "spam"]);
/// assert_eq!(labels.names(), ["ham", "spam"]);
/// assert_eq!(labels.id("spam"), Some(1));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct LabelMap {
    labels: Vec<String>,
    ids: HashMap<String, usize>,
}

impl LabelMap {
    /// Collects the distinct labels of the training rows, sorted as numbers if all are integers, and otherwise by their
    /// bytes. An empty label is not a class, nor is `NaN` (or `nan`), which stands for a missing label;
    /// [`LabelMap::id_at`] fails on the rows that have it.
    pub fn from_train(labels: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut ids: HashMap<String, usize> = HashMap::new();
        for label in labels {
            let label = label.as_ref();
            if !is_missing(label) && !ids.contains_key(label) {
                ids.insert(label.to_owned(), 0);
            }
        }
        let mut labels: Vec<String> = ids.keys().cloned().collect();
        if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
            labels.sort_by_cached_key(|label| (label.parse::<i64>().ok(), label.clone()))
        } else {
            labels.sort()
        }
        Self::index(labels)
    }

    /// Takes the labels of the list `data.labels` of the pipeline file `pipeline`, in id order.
    ///
    /// Fails if the list is empty, or if a name is empty or occurs twice.
    pub fn from_list(labels: Vec<String>, pipeline: &Path) -> Result<Self> {
        let checked = if labels.is_empty() {
            Err("expected at least one label, got an empty list".to_owned())
        } else {
            Self::try_from(labels)
        };
        checked.map_err(|problem| Error::Pipeline {
            file: pipeline.to_path_buf(),
            line: None,
            column: None,
            problem: format!("data.labels: {problem}"),
            hint: "name every label once, in the order of their ids; or leave data.labels out to find them in train"
                .to_owned(),
        })
    }

    /// Reads the labels of a file, and the BLAKE3 hash of its bytes. The file has one name per line, in id order;
    /// surrounding white space and blank lines are ignored.
    ///
    /// Fails if the file cannot be read as UTF-8, names no label, or names one twice.
    pub fn from_file(path: &Path) -> Result<(Self, Digest)> {
        let source = Source::new(path);
        let mut file = OpenFile::open(path)?;
        let blake3 = file.blake3()?;
        let mut input = file.text(&source)?;
        let mut line_of: HashMap<String, u64> = HashMap::new();
        let mut labels = Vec::new();
        let (mut line, mut n_bytes) = (0, 0);
        while let Some(content) = next_line(&mut input, &source, line + 1)? {
            line += 1;
            let name = content.trim();
            if name.is_empty() {
                continue;
            }
            n_bytes += name.len() + PART_BYTES;
            if n_bytes > MAX_RECORD_BYTES {
                return Err(too_long(
                    &source,
                    Some(line),
                    "a file of labels",
                    "set data.labels to a file with one label per line, not to a file of texts",
                ));
            }
            if let Some(first) = line_of.insert(name.to_owned(), line) {
                let got = format!("`{}`, which is also on line {first}", shorten(name, 40));
                return Err(source.malformed(
                    Some(line),
                    "a label that was not listed before",
                    got,
                    "name every label once",
                ));
            }
            labels.push(name.to_owned());
        }
        if labels.is_empty() {
            return Err(source.malformed(
                None,
                "one label per line",
                "no label",
                "name the labels in id order",
            ));
        }
        file.require_unchanged()?;
        Ok((Self::index(labels), blake3))
    }

    /// Returns the id of `label`, from 0.
    pub fn id(&self, label: &str) -> Option<usize> {
        self.ids.get(label).copied()
    }

    /// Returns the id of a label that is given by its name or, if no name is an integer, by a number that counts from
    /// `first_id`: with the labels `["neg", "pos"]` and ids from 0, `1` is `pos`.
    ///
    /// ```
    /// let labels = frostbert::internals::data::LabelMap::from_train(["neg", "pos"]);
    /// assert_eq!((labels.id_or_number("pos", 0), labels.id_or_number("0", 0), labels.id_or_number("2", 0)), (Some(1), Some(0), None));
    /// assert_eq!((labels.id_or_number("2", 1), labels.id_or_number("0", 1)), (Some(1), None));
    /// let stars = frostbert::internals::data::LabelMap::from_train(["1", "2"]);
    /// assert_eq!((stars.id_or_number("1", 0), stars.id_or_number("0", 0)), (Some(0), None));
    /// ```
    pub fn id_or_number(&self, label: &str, first_id: usize) -> Option<usize> {
        let by_number = || {
            let id = label.parse::<usize>().ok()?.checked_sub(first_id)?;
            let is_integer = |name: &String| name.parse::<i64>().is_ok();
            (id < self.len() && !self.labels.iter().any(is_integer)).then_some(id)
        };
        self.id(label).or_else(by_number)
    }

    /// Adds a label with the next id, unless it is there already.
    pub(super) fn push(&mut self, label: String) {
        if !self.ids.contains_key(&label) {
            self.ids.insert(label.clone(), self.len());
            self.labels.push(label);
        }
    }

    /// Returns the id of `label`, which is on `line` of the data file `path`; fails if there is no such label.
    pub fn id_at(&self, label: &str, path: &Path, line: Option<u64>) -> Result<usize> {
        self.id(label).ok_or_else(|| self.unknown(label, path, line))
    }

    /// The error for a label that is not one of these.
    pub(super) fn unknown(&self, label: &str, path: &Path, line: Option<u64>) -> Error {
        Error::Record {
            path: path.to_path_buf(),
            line,
            expected: format!(
                "one of the labels {}",
                name_list(self.labels.iter().map(String::as_str))
            ),
            got: match label {
                "" => "an empty one".to_owned(),
                _ if is_missing(label) => format!("`{label}`, which stands for a missing label"),
                _ => format!("`{}`", shorten(label, 40)),
            },
            hint: "correct the label or leave the record out; or add it to data.labels, where it is a class of its own"
                .to_owned(),
        }
    }

    /// Returns the name of the label with this id.
    pub fn name(&self, id: usize) -> Option<&str> {
        self.labels.get(id).map(String::as_str)
    }

    /// Returns all names, in id order.
    pub fn names(&self) -> &[String] {
        &self.labels
    }

    /// Returns the number of labels.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    fn index(labels: Vec<String>) -> Self {
        let ids = labels.iter().enumerate().map(|(id, label)| (label.clone(), id)).collect();
        LabelMap { labels, ids }
    }
}

/// Whether a cell stands for a missing label: it is empty, or what tables of numbers have for a missing value.
pub(super) fn is_missing(label: &str) -> bool {
    matches!(label, "" | "NaN" | "nan")
}

impl TryFrom<Vec<String>> for LabelMap {
    type Error = String;

    fn try_from(labels: Vec<String>) -> Result<Self, String> {
        if labels.iter().any(|label| label.trim().is_empty()) {
            return Err("expected names, got an empty one".to_owned());
        }
        let labels: Vec<String> = labels.into_iter().map(|label| label.trim().to_owned()).collect();
        let map = Self::index(labels);
        match map.labels.iter().enumerate().find(|(id, label)| map.ids[*label] != *id) {
            Some((_, label)) => {
                Err(format!("expected distinct names, got `{}` twice", shorten(label, 40)))
            }
            None => Ok(map),
        }
    }
}

impl From<LabelMap> for Vec<String> {
    fn from(map: LabelMap) -> Self {
        map.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_error(content: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        std::fs::write(&path, content).unwrap();
        let error = LabelMap::from_file(&path).unwrap_err();
        (
            error.to_string().replace(&path.display().to_string(), "labels.txt"),
            error.hint().unwrap().to_owned(),
        )
    }

    #[test]
    fn labels_of_train_are_sorted_as_numbers_where_all_are_numbers() {
        for (labels, expected) in [
            (vec!["spam", "ham", "spam", "", "NaN", "nan"], vec!["ham", "spam"]),
            (vec!["10", "9", "-1", "9"], vec!["-1", "9", "10"]),
            (vec!["10", "9", "other"], vec!["10", "9", "other"]),
            (vec!["1", "01", "0"], vec!["0", "01", "1"]),
            (vec![], vec![]),
        ] {
            assert_eq!(LabelMap::from_train(labels).names(), expected);
        }
    }

    #[test]
    fn ids_and_names_belong_together() {
        let map =
            LabelMap::from_list(vec!["neg".to_owned(), " pos".to_owned()], Path::new("p.toml"))
                .unwrap();
        assert_eq!((map.id("pos"), map.name(1), map.len()), (Some(1), Some("pos"), 2));
        assert_eq!((map.id("?"), map.name(2), map.is_empty()), (None, None, false));
    }

    #[test]
    fn serde_writes_a_plain_list_and_refuses_one_with_duplicates() {
        let map = LabelMap::from_train(["b", "a"]);
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(json, r#"["a","b"]"#);
        assert_eq!(serde_json::from_str::<LabelMap>(&json).unwrap(), map);
        let error = serde_json::from_str::<LabelMap>(r#"["a", "b", "a"]"#).unwrap_err();
        assert!(error.to_string().contains("expected distinct names, got `a` twice"), "{error}");
    }

    #[test]
    fn a_list_with_duplicates_or_empty_names_is_an_error_of_the_pipeline() {
        for (labels, problem) in [
            (vec!["a", "b", "a "], "p.toml: data.labels: expected distinct names, got `a` twice"),
            (vec!["a", " "], "p.toml: data.labels: expected names, got an empty one"),
            (vec![], "p.toml: data.labels: expected at least one label, got an empty list"),
        ] {
            let labels = labels.into_iter().map(str::to_owned).collect();
            assert_eq!(
                LabelMap::from_list(labels, Path::new("p.toml")).unwrap_err().to_string(),
                problem
            );
        }
    }

    #[test]
    fn a_file_names_one_label_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        std::fs::write(&path, "\u{feff}pos\r\n\n neg \nneutral").unwrap();
        assert_eq!(LabelMap::from_file(&path).unwrap().0.names(), ["pos", "neg", "neutral"]);
    }

    #[test]
    fn a_file_with_duplicates_or_nothing_is_refused() {
        let (message, _) = file_error("pos\n\nneg\npos \n");
        assert_eq!(
            message,
            "labels.txt:4: expected a label that was not listed before, got `pos`, which is also on line 1"
        );
        assert_eq!(file_error("\n \n").0, "labels.txt: expected one label per line, got no label");
        assert!(LabelMap::from_file(Path::new("no such file")).unwrap_err().hint().is_some());
    }

    #[test]
    fn an_unknown_label_names_file_line_label_and_ten_known_ones() {
        let names: Vec<String> = (0..77).map(|i| format!("intent {i:02}")).collect();
        let map = LabelMap::from_train(names.iter().map(String::as_str));
        let error = map.id_at("oops", Path::new("test.csv"), Some(12)).unwrap_err();
        let message = error.to_string();
        assert!(
            message
                .starts_with("test.csv:12: expected one of the labels `intent 00`, `intent 01`, "),
            "{message}"
        );
        assert!(message.ends_with("`intent 09` and 67 more, got `oops`"), "{message}");
        assert!(error.hint().unwrap().contains("data.labels"));
        let error = map.id_at("", Path::new("test.csv"), None).unwrap_err();
        assert!(error.to_string().ends_with(", got an empty one"), "{error}");
    }
}
