//! Refuses `nan` and `inf` in a pipeline: TOML has them, but JSON, in which the lock stores the pipeline, does not.

use toml::Value;

use crate::{
    config::file::PipelineFile,
    error::{Error, Result},
};

/// Checks that no value of the file is `nan` or `inf`.
pub(super) fn require_finite(
    file: &PipelineFile,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    // A file that does not convert to TOML was not read from it.
    let Ok(value) = Value::try_from(file) else {
        return Ok(());
    };
    match endless("", &value) {
        None => Ok(()),
        Some((key, number)) => Err(refuse(
            format!("{key} is {number}, but must be finite"),
            format!("set {key} to a finite number, or leave it out"),
        )),
    }
}

/// Returns the first value that is `nan` or `inf`, with its key.
fn endless(key: &str, value: &Value) -> Option<(String, f64)> {
    match value {
        Value::Float(number) if !number.is_finite() => Some((key.to_string(), *number)),
        Value::Array(values) => values.iter().find_map(|value| endless(key, value)),
        Value::Table(table) => table.iter().find_map(|(name, value)| {
            let key = match key {
                "" => name.clone(),
                section => format!("{section}.{name}"),
            };
            endless(&key, value)
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_named_with_its_key() {
        for (text, key) in [
            ("[train]\nlr = inf", Some("train.lr")),
            ("[head]\ndropout = nan", Some("head.dropout")),
            ("[train]\nbetas = [0.9, -inf]", Some("train.betas")),
            ("[sweep]\nlr = { min = 1e-3, max = inf }", Some("sweep.lr.max")),
            ("[train]\nlr = 1e-3", None),
        ] {
            let text =
                format!("[model]\npath = \"m\"\n[data]\ntrain = {{ path = \"a.csv\" }}\n{text}");
            let file: PipelineFile = toml::from_str(&text).unwrap();
            let refuse = |problem: String, _| Error::Consent { what: problem };
            let got = require_finite(&file, &refuse).err();
            assert_eq!(got.is_some(), key.is_some(), "{text}");
            if let (Some(error), Some(key)) = (got, key) {
                assert!(error.to_string().starts_with(&format!("{key} is ")), "{error}");
            }
        }
    }
}
