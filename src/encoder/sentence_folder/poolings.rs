//! The pooling of a sentence-transformers folder, from the settings of its module.

use std::path::Path;

use frostbert_cache::states::Pooling;
use serde_json::{Map, Value};

use super::{FETCH_AGAIN, NAME_A_POOLING, json, refuse};
use crate::error::Result;

/// The old keys of a pooling, in the order in which several are concatenated.
const OLD_POOLING_KEYS: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

/// Reads the poolings of a module, in the order in which they are concatenated.
///
/// # Errors
/// Returns an error that names a pooling that this program does not compute, or that stands there twice.
pub(super) fn read(folder: &Path) -> Result<Vec<Pooling>> {
    let path = folder.join("config.json");
    let settings: Map<String, Value> = json(&path, "the settings of a pooling")?;
    let modes = pooling_modes(&settings).ok_or_else(|| {
        let got = settings["pooling_mode"].to_string();
        refuse(&path, "a `pooling_mode`, or a list of them".into(), got, FETCH_AGAIN)
    })?;
    let poolings = modes.iter().map(|mode| {
        let known = Pooling::ALL.into_iter().find(|pooling| pooling.name() == mode.as_str());
        known.ok_or_else(|| {
            let got = format!("`{mode}`, which this program does not compute");
            refuse(&path, "the pooling cls, mean or max".into(), got, NAME_A_POOLING)
        })
    });
    let poolings: Vec<Pooling> = poolings.collect::<Result<_>>()?;
    let twice = (1..poolings.len()).find(|place| poolings[..*place].contains(&poolings[*place]));
    match twice {
        None => Ok(poolings),
        Some(place) => {
            let got = format!("`{}` twice", poolings[place].name());
            Err(refuse(&path, "every pooling once".into(), got, NAME_A_POOLING))
        }
    }
}

/// Checks that the pooling is of vectors as wide as the states.
pub(super) fn check_width(folder: &Path, hidden: usize) -> Result<()> {
    let path = folder.join("config.json");
    let settings: Map<String, Value> = json(&path, "the settings of a pooling")?;
    let keys = ["embedding_dimension", "word_embedding_dimension"];
    let width = keys.into_iter().find_map(|key| settings.get(key)?.as_u64());
    match width {
        Some(width) if width != hidden as u64 => Err(refuse(
            &path,
            format!("a pooling of states of {hidden} values, as the model has them"),
            format!("one of {width}"),
            "fetch the model again: these files do not belong together",
        )),
        _ => Ok(()),
    }
}

/// The names of the poolings that the settings ask for; `None` if they are neither a name nor a list of names.
fn pooling_modes(settings: &Map<String, Value>) -> Option<Vec<String>> {
    match settings.get("pooling_mode") {
        Some(Value::String(mode)) => Some(vec![mode.clone()]),
        Some(Value::Array(modes)) if !modes.is_empty() => {
            modes.iter().map(|mode| mode.as_str().map(String::from)).collect()
        }
        Some(_) => None,
        None => {
            let is_on = |key: &str| settings.get(key).and_then(Value::as_bool) == Some(true);
            let on = OLD_POOLING_KEYS.iter().filter(|(key, _)| is_on(key));
            let modes: Vec<String> = on.map(|(_, mode)| mode.to_string()).collect();
            Some(if modes.is_empty() { vec!["mean".into()] } else { modes })
        }
    }
}
