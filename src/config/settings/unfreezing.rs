//! How many of the encoder's last layers the heads of a file train: one number, or those that its sweep compares.

use toml::Value;

use crate::{
    config::{
        file::{
            PipelineFile,
            unfreeze::{UnfreezeKey, UnfreezeWord},
        },
        keys::UNFREEZE,
        names::HeadKind,
        settings::Pipeline,
    },
    error::{Error, Result},
};

/// More numbers of layers than models have, so that a distribution without an end is not listed.
const MOST_LAYERS: i64 = 1000;

/// Checks the values of `sweep.unfreeze`, by which the states of the cache are chosen.
///
/// # Errors
/// Returns an error if one is no number of layers.
pub(super) fn check_swept(
    file: &PipelineFile,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    let is_valid = |value: &Value| match value.as_table() {
        Some(table) => {
            let end = |name: &str| table.get(name).and_then(Value::as_integer);
            end("min").zip(end("max")).is_some_and(|(min, max)| (0..max).contains(&min))
        }
        None => !listed(value).is_empty(),
    };
    let mut values = file.sweep.iter().flat_map(|section| section.values(UNFREEZE));
    match values.find(|value| !is_valid(value)) {
        None => Ok(()),
        Some(value) => Err(refuse(
            format!("sweep.unfreeze has the value {value}"),
            "give every value as a number of layers, or \"all\", as in unfreeze = [0, 1, \"all\"], or draw whole \
             numbers, as in unfreeze = { min = 0, max = 2 }"
                .into(),
        )),
    }
}

/// Returns what the heads of a file train of the encoder, each once; `None` stands for heads that train none of it.
pub(super) fn unfreezings(file: &PipelineFile) -> Vec<Option<UnfreezeKey>> {
    let Some(section) = &file.sweep else {
        return vec![file.unfreeze()];
    };
    // Kinds that are invalid are refused when the trials are made.
    let kinds = section.values("kind").filter_map(|value| value.clone().try_into().ok());
    let mut kinds: Vec<Option<HeadKind>> = kinds.map(Some).collect();
    if kinds.is_empty() || section.leaves_out(&["kind"]) {
        kinds.push(file.head.kind);
    }
    let mut numbers: Vec<Option<UnfreezeKey>> =
        section.values(UNFREEZE).flat_map(listed).map(Some).collect();
    if section.leaves_out(&[UNFREEZE]) {
        numbers.push(file.train.unfreeze);
    }
    let mut all = Vec::new();
    for kind in kinds {
        let mut own = PipelineFile { sweep: None, ..file.clone() };
        own.head.kind = kind;
        for number in &numbers {
            own.train.unfreeze = *number;
            let trained = own.unfreeze();
            if !all.contains(&trained) {
                all.push(trained);
            }
        }
    }
    all
}

/// The numbers of layers that a value of the sweep stands for: itself, or all of a distribution.
fn listed(value: &Value) -> Vec<UnfreezeKey> {
    let Some(table) = value.as_table() else {
        return value.clone().try_into().ok().into_iter().collect();
    };
    let end = |name: &str| table.get(name).and_then(Value::as_integer);
    let (Some(min), Some(max)) = (end("min"), end("max")) else {
        return Vec::new();
    };
    let numbers = min.clamp(0, MOST_LAYERS)..=max.min(MOST_LAYERS);
    numbers.filter_map(|number| usize::try_from(number).ok()).map(UnfreezeKey::Last).collect()
}

impl Pipeline {
    /// Checks that a model of `model_layers` layers has as many as the heads train.
    ///
    /// # Errors
    /// Returns an error if the model has fewer.
    pub(crate) fn check_unfreezings(&self, model_layers: usize) -> Result<()> {
        let mut swept = self.sweep.iter().flat_map(|section| section.values(UNFREEZE));
        let key = if swept.next().is_some() { "sweep.unfreeze" } else { "train.unfreeze" };
        for number in unfreezings(self.file()).into_iter().flatten() {
            if let UnfreezeKey::Last(n) = number
                && n > model_layers
            {
                return Err(self.refuse(
                    format!("{key} is {n}, but the model has {model_layers} layers"),
                    format!("set it to {model_layers} or less, or to \"all\""),
                ));
            }
        }
        Ok(())
    }
}

/// The layer that is read below those that are trained, from the end: -1 is the last.
pub(super) fn layer_below(trained: UnfreezeKey) -> i64 {
    match trained {
        UnfreezeKey::Last(n) => i64::try_from(n).map_or(i64::MIN, |n| -n - 1),
        UnfreezeKey::Named(UnfreezeWord::All) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{file::LayersKey, names::Store, settings::LayerChoice};

    fn check(more: &str) -> Result<Pipeline> {
        let text = format!("[model]\npath = \"m\"\n[data]\ntrain = {{ path = \"a.csv\" }}\n{more}");
        Pipeline::check("p.toml".as_ref(), toml::from_str(&text).unwrap())
    }

    #[test]
    fn a_sweep_stores_what_is_read_below_every_number_of_layers() {
        let stored = |more: &str| {
            let pipeline = check(more).unwrap();
            let LayerChoice::Listed(layers) = pipeline.extraction.layers.clone() else { panic!() };
            assert_eq!(pipeline.file().cache.layers, Some(LayersKey::Listed(layers.clone())));
            (pipeline.file().cache.store.clone().unwrap(), layers)
        };
        use Store::{Mean, Tokens};
        let swept = "[sweep]\nunfreeze = [0, 1, 2, \"all\"]";
        assert_eq!(stored(swept), (vec![Tokens, Mean], vec![-1, -2, -3, 0]));
        assert_eq!(stored("[sweep]\nunfreeze = [1, 2]"), (vec![Tokens], vec![-2, -3]));
        let drawn = "[sweep]\ntrials = 4\nunfreeze = { min = 1, max = 3 }";
        assert_eq!(stored(drawn), (vec![Tokens], vec![-2, -3, -4]));
        let one = "[train]\nunfreeze = 1\n[sweep]\nlr = [0.1, 0.2]";
        assert_eq!(stored(one), (vec![Tokens], vec![-2]));
        // A ridge head trains no layers.
        let kinds = "[train]\nunfreeze = 1\n[sweep]\nkind = [\"linear\", \"ridge\"]";
        assert_eq!(stored(kinds), (vec![Tokens, Mean], vec![-2, -1]));
        let given = "[sweep]\n[[sweep.settings]]\nunfreeze = 1\n[[sweep.settings]]\nlr = 0.1";
        assert_eq!(stored(given), (vec![Tokens, Mean], vec![-2, -1]));
        assert_eq!(stored("[sweep]\nlr = [0.1]"), (vec![Mean], vec![-1]));
    }

    #[test]
    fn what_is_no_number_of_layers_is_refused_by_the_name_of_the_key() {
        for value in [
            "[-1]",
            "[1, -1]",
            "[\"some\"]",
            "[0.5]",
            "{ min = 0.5, max = 1.5 }",
            "{ min = -1, max = 1 }",
            "{ min = 2, max = 1 }",
            "{ min = 1 }",
        ] {
            let error = check(&format!("[sweep]\ntrials = 2\nunfreeze = {value}")).unwrap_err();
            assert!(error.to_string().contains("sweep.unfreeze has the value"), "{value}: {error}");
            assert!(error.hint().unwrap().contains("a number of layers, or \"all\""), "{value}");
        }
        let given = check("[sweep]\n[[sweep.settings]]\nunfreeze = -1").unwrap_err().to_string();
        assert!(given.contains("sweep.unfreeze has the value -1"), "{given}");
        let many = check("[sweep]\ntrials = 2\nunfreeze = { min = 2000, max = 3000 }").unwrap();
        assert!(many.stored_states(6).unwrap_err().to_string().contains("the model has 6 layers"));
    }

    #[test]
    fn more_layers_than_the_model_has_are_refused_by_the_name_of_the_key() {
        let pipeline = check("[sweep]\nunfreeze = [1, 9]").unwrap();
        let error = pipeline.stored_states(6).unwrap_err().to_string();
        assert!(error.contains("sweep.unfreeze is 9, but the model has 6 layers"), "{error}");
        assert!(pipeline.stored_states(9).is_ok());
    }

    #[test]
    fn a_trial_has_the_rank_that_it_names_and_none_without_layers() {
        let pipeline =
            check("[train]\nlora = { alpha = 4 }\n[sweep]\nunfreeze = [0, 1]\nlora_rank = [0, 2]")
                .unwrap();
        pipeline.check_training().unwrap();
        let trial = |unfreeze: i64, rank: i64| {
            let settings = [("unfreeze", unfreeze), ("lora_rank", rank)];
            let settings = settings.map(|(key, value)| (key.to_string(), Value::Integer(value)));
            let variant = pipeline.variant(settings.to_vec()).unwrap();
            let lora = variant.check().unwrap().file().train.lora.clone();
            (variant.settings.len(), lora.map(|lora| (lora.rank, lora.alpha)))
        };
        assert_eq!(trial(1, 2), (2, Some((2, 4.0))));
        assert_eq!(trial(1, 0), (2, None));
        assert_eq!(trial(0, 2), (1, None));
    }
}
