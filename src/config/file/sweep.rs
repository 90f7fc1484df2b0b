//! The section `[sweep]` of a pipeline file: what varies, and how the heads are compared.

use std::{fmt, path::Path};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};

use toml::Value;

use crate::config::keys::{MODEL_PATH, swept_names};

/// The section's own keys.
pub(crate) const OWN_KEYS: [&str; 11] = [
    "folds",
    "nested",
    "seeds",
    "search",
    "trials",
    "select",
    "refit",
    "test",
    "fraction",
    "bootstrap",
    "settings",
];

/// `[sweep]`: these keys, every key of `[head]` and `[train]` by its last name with a list of values or a distribution,
/// and `model.path` with a list of models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepSection {
    /// Number of cross-validation folds over train and validation together: each head is trained once without each
    /// fold, and evaluated on that fold. If absent, heads are trained on train and evaluated on validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    /// Number of inner folds of nested cross-validation: the setting is chosen again without each outer fold, so that
    /// the whole choice is evaluated on rows that had no part in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested: Option<usize>,
    /// Number of heads for each setting, with different initial weights and dropout masks.
    pub seeds: usize,
    /// How settings are chosen, and whether the weaker heads are dropped early.
    pub search: Search,
    /// Number of settings to draw if a key has a distribution or the search is random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trials: Option<usize>,
    /// The validation metric by which the best head is chosen; the task's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// Whether the winner is retrained on train and validation; if absent, only with folds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refit: Option<bool>,
    /// Which heads are scored on the test rows.
    #[serde(skip_serializing_if = "TestedHeads::is_winner")]
    pub test: TestedHeads,
    /// Shares of the training rows, for a learning curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<OneOrMany>,
    /// Number of further heads for each setting that learn from rows drawn with replacement, to show how much the
    /// choice of rows matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<usize>,
    /// Settings that are compared as they are, next to those that the keys below span: one value for each of some keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<GivenSettings>,
    /// The keys that vary.
    #[serde(flatten)]
    pub keys: toml::Table,
}

/// `[[sweep.settings]]`: a value for some keys of `[head]` and `[train]`, by their last names, and for `model.path`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct GivenSettings(pub toml::Table);

impl SweepSection {
    /// Iterates over the values of a key: those of its list, or its single value or distribution, and those of the
    /// given settings.
    pub(crate) fn values<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s Value> {
        let listed = match self.keys.get(key) {
            Some(Value::Array(values)) => values,
            one => one.map_or(&[][..], std::slice::from_ref),
        };
        let given = self.settings.iter().filter_map(move |settings| settings.0.get(key));
        listed.iter().chain(given)
    }

    /// Whether settings are searched, and not only given by `settings`.
    pub(crate) fn searches(&self) -> bool {
        !self.keys.is_empty() || self.settings.is_empty()
    }

    /// Whether some heads have none of these keys, and so take what `[head]` and `[train]` say.
    pub(crate) fn leaves_out(&self, keys: &[&str]) -> bool {
        let lacks = |table: &toml::Table| !keys.iter().any(|key| table.contains_key(*key));
        let given = self.settings.iter();
        (self.searches() && lacks(&self.keys)) || given.map(|given| &given.0).any(lacks)
    }

    /// Whether models are compared.
    pub(crate) fn compares_models(&self) -> bool {
        self.values(MODEL_PATH).next().is_some()
    }

    /// What of it is tried with a model; `is_own` says that the model is the one of `[model]`, which settings have that
    /// name none.
    pub(crate) fn of_model(&self, model: &Path, is_own: bool) -> SweepSection {
        let is_it = |value: &Value| value.as_str().is_some_and(|name| Path::new(name) == model);
        let has_it = |table: &toml::Table| match table.get(MODEL_PATH) {
            Some(Value::Array(models)) => models.iter().any(is_it),
            Some(one) => is_it(one),
            None => is_own,
        };
        let given = self.settings.iter().filter(|given| has_it(&given.0));
        SweepSection {
            settings: given.cloned().collect(),
            keys: if has_it(&self.keys) { self.keys.clone() } else { toml::Table::new() },
            ..self.clone()
        }
    }
}

impl Default for SweepSection {
    /// The section in which nothing varies: one head.
    fn default() -> SweepSection {
        SweepSection {
            folds: None,
            nested: None,
            seeds: 1,
            search: Search::Grid,
            trials: None,
            select: None,
            refit: None,
            test: TestedHeads::Winner,
            fraction: None,
            bootstrap: None,
            settings: Vec::new(),
            keys: toml::Table::new(),
        }
    }
}

impl<'de> Deserialize<'de> for SweepSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Section;
        impl<'de> Visitor<'de> for Section {
            type Value = SweepSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as { lr = [1e-3, 1e-2] }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SweepSection, A::Error> {
                let mut section = SweepSection::default();
                while let Some(KnownKey(key)) = map.next_key()? {
                    match key.as_str() {
                        "folds" => section.folds = Some(map.next_value()?),
                        "nested" => section.nested = Some(map.next_value()?),
                        "seeds" => section.seeds = map.next_value()?,
                        "search" => section.search = map.next_value()?,
                        "trials" => section.trials = Some(map.next_value()?),
                        "select" => section.select = Some(map.next_value()?),
                        "refit" => section.refit = Some(map.next_value()?),
                        "test" => section.test = map.next_value()?,
                        "fraction" => section.fraction = Some(map.next_value()?),
                        "bootstrap" => section.bootstrap = Some(map.next_value()?),
                        "settings" => section.settings = map.next_value()?,
                        _ => read_swept(&mut section.keys, key, &mut map)?,
                    }
                }
                Ok(section)
            }
        }
        deserializer.deserialize_map(Section)
    }
}

impl<'de> Deserialize<'de> for GivenSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Settings;
        impl<'de> Visitor<'de> for Settings {
            type Value = GivenSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as { kind = \"logistic\", C = 0.1 }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<GivenSettings, A::Error> {
                let mut settings = toml::Table::new();
                while let Some(SweptKey(key)) = map.next_key()? {
                    read_swept(&mut settings, key, &mut map)?;
                }
                if settings.is_empty() {
                    return Err(A::Error::custom("a table of sweep.settings has no keys"));
                }
                Ok(GivenSettings(settings))
            }
        }
        deserializer.deserialize_map(Settings)
    }
}

/// A key that the section can have. Unknown keys are refused while parsing, so that errors have the line.
struct KnownKey(String);

/// A key of `[head]` or `[train]` that can vary.
struct SweptKey(String);

impl<'de> Deserialize<'de> for KnownKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        known(deserializer, OWN_KEYS.into_iter().chain(swept_names())).map(KnownKey)
    }
}

impl<'de> Deserialize<'de> for SweptKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        known(deserializer, swept_names()).map(SweptKey)
    }
}

/// What `model.path` begins with: without quotes TOML reads it as a table in the section.
const MODEL: &str = "model";

/// The table that `model.path` without quotes is, with what stands at `path`.
struct ModelTable(Value);

impl<'de> Deserialize<'de> for ModelTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKey;
        impl<'de> Visitor<'de> for OneKey {
            type Value = ModelTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the key model.path, as in model.path = [\"models/minilm\"]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelTable, A::Error> {
                let mut path = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "path" {
                        return Err(A::Error::unknown_field(&key, &["path"]));
                    }
                    path = Some(map.next_value()?);
                }
                path.map(ModelTable).ok_or_else(|| A::Error::missing_field("path"))
            }
        }
        deserializer.deserialize_map(OneKey)
    }
}

/// Reads the value of a key that varies into a table.
fn read_swept<'de, A: MapAccess<'de>>(
    table: &mut toml::Table,
    key: String,
    map: &mut A,
) -> Result<(), A::Error> {
    let (key, value) = match key.as_str() {
        MODEL => (MODEL_PATH.to_string(), map.next_value::<ModelTable>()?.0),
        _ => (key, map.next_value()?),
    };
    if table.contains_key(&key) {
        return Err(A::Error::custom(format!("`{key}` is given twice: leave one of them out")));
    }
    table.insert(key, value);
    Ok(())
}

/// A key, if it is one of those that are known.
fn known<'de, D: Deserializer<'de>>(
    deserializer: D,
    known: impl Iterator<Item = &'static str>,
) -> Result<String, D::Error> {
    let key = String::deserialize(deserializer)?;
    let known: Vec<&str> = known.collect();
    if key == MODEL || known.contains(&key.as_str()) {
        return Ok(key);
    }
    let known: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
    Err(D::Error::custom(format!("unknown field `{key}`, expected one of {}", known.join(", "))))
}

/// How settings are chosen, and whether the weaker heads are dropped early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// Every combination of the values.
    #[default]
    Grid,
    /// `trials` combinations, drawn at random.
    Random,
    /// Like grid or random, depending on the values, but only the better heads are trained to the end: see
    /// [`crate::selection::halving`].
    Halving,
}

/// The heads that are scored on the test rows; whichever they are, test rows choose nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestedHeads {
    /// The chosen one alone.
    #[default]
    Winner,
    /// Those of every setting too.
    All,
}

impl TestedHeads {
    /// Whether it is the chosen head alone.
    fn is_winner(&self) -> bool {
        *self == TestedHeads::Winner
    }
}

/// A number, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum OneOrMany {
    /// A single number.
    One(f64),
    /// A list of numbers.
    Many(Vec<f64>),
}

impl OneOrMany {
    /// The numbers as a slice.
    pub fn values(&self) -> &[f64] {
        match self {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_none_is_refused_where_it_stands() {
        let text = "folds = 3\nlr = [0.1]\n  rate = [0.1]";
        let error = toml::from_str::<SweepSection>(text).unwrap_err();
        assert_eq!(&text[error.span().unwrap()], "rate");
        let known = "unknown field `rate`, expected one of `folds`, `nested`, ";
        assert!(error.message().starts_with(known), "{error}");
        assert!(error.message().ends_with("`layer_decay`, `lora_rank`"), "{error}");
    }

    #[test]
    fn a_section_is_read_as_it_was_written_from_toml_and_json() {
        let text = "folds = 3\nnested = 2\nseeds = 4\nsearch = \"random\"\ntrials = 5\nselect = \"mcc\"\nrefit = false\n\
                    test = \"all\"\nfraction = [0.5, 1.0]\nbootstrap = 6\nlr = [0.1]\nlayer = [[1, 2], 3]\n\
                    [[settings]]\nlr = 0.2\n[[settings]]\nkind = \"ridge\"\nlambda = 3.0";
        let section: SweepSection = toml::from_str(text).unwrap();
        let of_toml = toml::to_string(&section).unwrap();
        assert_eq!(toml::from_str::<SweepSection>(&of_toml).unwrap(), section);
        let of_json = serde_json::to_string(&section).unwrap();
        assert_eq!(serde_json::from_str::<SweepSection>(&of_json).unwrap(), section);
        assert_eq!(section.keys.len(), 2);
        assert_eq!(section.test, TestedHeads::All);
        let least: SweepSection = toml::from_str("").unwrap();
        assert_eq!((least.seeds, least.search), (1, Search::Grid));
        // A lock says nothing of what is as ever.
        let winner: SweepSection = toml::from_str("test = \"winner\"").unwrap();
        assert_eq!(winner, least);
        assert!(!toml::to_string(&winner).unwrap().contains("test"));
    }

    #[test]
    fn models_are_named_with_quotes_and_without() {
        let section = |text: &str| toml::from_str::<SweepSection>(text);
        let plain = section("model.path = [\"a\", \"b\"]\nlr = [0.1]").unwrap();
        assert_eq!(section("\"model.path\" = [\"a\", \"b\"]\nlr = [0.1]").unwrap(), plain);
        assert_eq!(section("lr = [0.1]\n[model]\npath = [\"a\", \"b\"]").unwrap(), plain);
        let names: Vec<&str> = plain.values(MODEL_PATH).filter_map(Value::as_str).collect();
        assert_eq!(names, ["a", "b"]);
        let given = section("[[settings]]\nmodel.path = \"c\"\n[[settings]]\nlr = 0.1").unwrap();
        assert!(given.compares_models() && given.leaves_out(&[MODEL_PATH]));
        for section in [plain, given] {
            let json = serde_json::to_string(&section).unwrap();
            assert!(json.contains("\"model.path\":"), "{json}");
            assert_eq!(serde_json::from_str::<SweepSection>(&json).unwrap(), section);
        }
        for (text, expected) in [
            ("model = [\"a\", \"b\"]", "the key model.path"),
            ("model.device = [\"cpu\"]", "unknown field `device`"),
            ("\"model.path\" = [\"a\"]\nmodel.path = [\"b\"]", "is given twice"),
        ] {
            let error = section(text).unwrap_err();
            assert!(error.message().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn of_a_sweep_over_models_each_has_the_settings_that_name_it() {
        let text = "model.path = [\"a\", \"b\"]\nlayer = [1]\n\
                    [[settings]]\nmodel.path = \"b\"\nlayer = 9\n[[settings]]\nlayer = 3";
        let section: SweepSection = toml::from_str(text).unwrap();
        let layers = |model: &str| {
            let own = section.of_model(Path::new(model), model == "own");
            own.values("layer").filter_map(Value::as_integer).collect::<Vec<i64>>()
        };
        assert_eq!([layers("a"), layers("b"), layers("own")], [vec![1], vec![1, 9], vec![3]]);
        let plain: SweepSection = toml::from_str("layer = [1]\n[[settings]]\nlr = 0.1").unwrap();
        assert!(!plain.compares_models());
        assert_eq!(plain.of_model(Path::new("own"), true), plain);
    }
}
