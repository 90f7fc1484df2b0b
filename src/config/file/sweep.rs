//! The section `[sweep]` of a pipeline file: what varies, and how the heads are compared.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};

use toml::Value;

use crate::config::keys::swept_names;

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

/// `[sweep]`: these keys, and every key of `[head]` and `[train]` by its last name with a list of values or a
/// distribution.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepSection {
    /// Parts that train and validation together are cut into: each head is trained once without each of them, and
    /// judged on what it did not see. Without it heads learn from train and are judged on validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    /// Parts that what is left of each fold is cut into, to choose a setting without the fold: what the whole choice is
    /// worth is then measured on rows that had no part in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested: Option<usize>,
    /// Heads of every setting, with other initial weights and dropout masks.
    pub seeds: usize,
    /// How settings are chosen and heads given up.
    pub search: Search,
    /// Settings that are drawn where a value has a distribution or the search is random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trials: Option<usize>,
    /// The validation metric that the best head has the best value of; by the task where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// Whether the winner is trained again on train and validation; with folds it is, without it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refit: Option<bool>,
    /// Which heads are scored on the test rows.
    #[serde(skip_serializing_if = "TestedHeads::is_winner")]
    pub test: TestedHeads,
    /// Shares of the training rows, for a learning curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<OneOrMany>,
    /// Heads of every setting that learn from rows drawn with replacement: how much the choice of rows matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<usize>,
    /// Settings that are compared as they are, next to those that the keys come to: values of such keys, one of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<GivenSettings>,
    /// What varies.
    #[serde(flatten)]
    pub keys: toml::Table,
}

/// `[[sweep.settings]]`: a value for some keys of `[head]` and `[train]`, by their last names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct GivenSettings(pub toml::Table);

impl SweepSection {
    /// The values of a key: of its list, or its one value or distribution, and of each given setting that has it.
    pub(crate) fn values<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s Value> {
        let listed = match self.keys.get(key) {
            Some(Value::Array(values)) => values,
            one => one.map_or(&[][..], std::slice::from_ref),
        };
        let given = self.settings.iter().filter_map(move |settings| settings.0.get(key));
        listed.iter().chain(given)
    }

    /// Whether settings are searched, and not only given.
    pub(crate) fn searches(&self) -> bool {
        !self.keys.is_empty() || self.settings.is_empty()
    }

    /// Whether some heads have none of these keys, and so what `[head]` and `[train]` say.
    pub(crate) fn leaves_out(&self, keys: &[&str]) -> bool {
        let lacks = |table: &toml::Table| !keys.iter().any(|key| table.contains_key(*key));
        let given = self.settings.iter();
        (self.searches() && lacks(&self.keys)) || given.map(|given| &given.0).any(lacks)
    }
}

impl Default for SweepSection {
    /// Nothing varies: one head.
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
                        _ => {
                            section.keys.insert(key, map.next_value()?);
                        }
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
                    settings.insert(key, map.next_value()?);
                }
                if settings.is_empty() {
                    return Err(A::Error::custom("a setting of sweep.settings names no key"));
                }
                Ok(GivenSettings(settings))
            }
        }
        deserializer.deserialize_map(Settings)
    }
}

/// A key that the section can have. Refused where it stands, so that errors know the line.
struct KnownKey(String);

/// A key that varies.
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

/// A key, if it is one of those that are known.
fn known<'de, D: Deserializer<'de>>(
    deserializer: D,
    known: impl Iterator<Item = &'static str>,
) -> Result<String, D::Error> {
    let key = String::deserialize(deserializer)?;
    let known: Vec<&str> = known.collect();
    if known.contains(&key.as_str()) {
        return Ok(key);
    }
    let known: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
    Err(D::Error::custom(format!("unknown field `{key}`, expected one of {}", known.join(", "))))
}

/// How settings are chosen, and whether heads are given up early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// Every combination of the values.
    #[default]
    Grid,
    /// `trials` combinations, drawn.
    Random,
    /// As grid or random, whichever the values ask for; after some epochs only the best go on: see [`crate::selection::halving`].
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
    /// One.
    One(f64),
    /// Several.
    Many(Vec<f64>),
}

impl OneOrMany {
    /// The numbers.
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
        assert!(error.message().ends_with("`early_stopping`"), "{error}");
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
}
