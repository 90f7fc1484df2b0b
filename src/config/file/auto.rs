//! Keys of `[cache]` that may say `"auto"`, which is the same as leaving them out.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Unexpected, Visitor, value::SeqAccessDeserializer},
};

use crate::config::names::Store;

const AUTO: &str = "auto";

/// Reads a number; `None` for `"auto"`.
pub(super) fn number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<usize>, D::Error> {
    struct NumberOrAuto;
    impl Visitor<'_> for NumberOrAuto {
        type Value = Option<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number, or \"auto\"")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<usize>, E> {
            let wrong = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
            usize::try_from(number).map(Some).map_err(wrong)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<usize>, E> {
            let wrong = |_| E::invalid_value(Unexpected::Signed(number), &self);
            usize::try_from(number).map(Some).map_err(wrong)
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<Option<usize>, E> {
            none_if_auto(word, &self)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Option<usize>, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(NumberOrAuto)
}

/// Reads a list of states; `None` for `"auto"`.
pub(super) fn store<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Store>>, D::Error> {
    struct StatesOrAuto;
    impl<'de> Visitor<'de> for StatesOrAuto {
        type Value = Option<Vec<Store>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of states such as [\"mean\"], or \"auto\"")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, states: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(states)).map(Some)
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
            none_if_auto(word, &self)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(StatesOrAuto)
}

fn none_if_auto<T, E: de::Error>(word: &str, expected: &dyn de::Expected) -> Result<Option<T>, E> {
    if word == AUTO { Ok(None) } else { Err(E::invalid_value(Unexpected::Str(word), expected)) }
}

#[cfg(test)]
mod tests {
    use crate::config::{file::CacheSection, names::Store};

    #[test]
    fn auto_is_the_same_as_leaving_a_key_out() {
        let read = |text: &str| toml::from_str::<CacheSection>(text);
        assert_eq!(read("store = \"auto\"\nmax_length = \"auto\"").unwrap(), read("").unwrap());
        let given = read("store = [\"cls\", \"max\"]\nmax_length = 64").unwrap();
        assert_eq!(given.store, Some(vec![Store::Cls, Store::Max]));
        assert_eq!(given.max_length, Some(64));
        // As the lock has it.
        let json = serde_json::to_value(&given).unwrap();
        assert_eq!(serde_json::from_value::<CacheSection>(json).unwrap(), given);
        for (text, expected) in [
            ("max_length = -1", "integer `-1`, expected a whole number, or \"auto\""),
            ("max_length = \"all\"", "string \"all\", expected a whole number, or \"auto\""),
            ("store = \"mean\"", "expected a list of states such as [\"mean\"], or \"auto\""),
            ("store = [\"sum\"]", "unknown variant `sum`, expected one of `cls`, `mean`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
