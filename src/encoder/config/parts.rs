//! The keys of config.json that decide what a layer is made of.

use serde_json::Value;

use super::{ConfigFile, FusedShape, MOST_LAYERS};
use crate::{
    encoder::{
        attention_positions::{Disentangled, RotaryLayer},
        family::{Attention, EncoderActivation, Family, RotaryKeys, WindowKeys},
    },
    error::{Error, Result},
};

/// The kinds of layers in `layer_types` and `rope_parameters` of a family with windows.
const WHOLE: &str = "full_attention";
const WINDOW: &str = "sliding_attention";

/// Where the weights have a tensor of the graph.
#[derive(Debug, PartialEq)]
pub(in crate::encoder) struct StoredPart {
    /// Its name.
    pub(in crate::encoder) name: String,
    /// Which of the equal parts of its rows.
    pub(in crate::encoder) part: usize,
    /// The number of these parts.
    pub(in crate::encoder) of: usize,
}

/// The convolution over neighbouring tokens that is added to the output of the first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::encoder) struct Convolution {
    /// What the names of its tensors begin with.
    pub(in crate::encoder) tensors: &'static str,
    /// The number of tokens that it reads, the token itself in the middle.
    pub(in crate::encoder) kernel: usize,
    /// The number of equal parts of a state, each of which is computed from its own part.
    pub(in crate::encoder) groups: usize,
    /// Whether its activation is tanh, or else that of the feed-forward layers.
    pub(in crate::encoder) is_tanh: bool,
}

impl FusedShape {
    /// Returns where the weights have a tensor that the graph names so.
    pub(in crate::encoder) fn stored(&self, name: &str) -> StoredPart {
        let tensors = self.family.tensors;
        let in_layer = name.strip_prefix(tensors.layers).and_then(|rest| rest.strip_prefix('.'));
        let numbered = in_layer.and_then(|rest| {
            let (layer, rest) = rest.split_once('.')?;
            Some((layer.parse::<usize>().ok()?, rest))
        });
        let Some((layer, rest)) = numbered else {
            return StoredPart { name: name.into(), part: 0, of: 1 };
        };
        let number = self.groups.map_or(layer, |groups| layer * groups / self.layers);
        let prefix = format!("{}.{number}{}", tensors.layers, tensors.inner);
        let rows = tensors.stored.iter().find_map(|rows| {
            let ending = rest.strip_prefix(rows.name).filter(|ending| ending.starts_with('.'))?;
            let name = format!("{prefix}.{}{ending}", rows.tensor);
            Some(StoredPart { name, part: rows.part, of: rows.of })
        });
        rows.unwrap_or_else(|| StoredPart { name: format!("{prefix}.{rest}"), part: 0, of: 1 })
    }

    /// Whether a linear layer of this name in the graph has a bias.
    pub(in crate::encoder) fn has_bias(&self, name: &str) -> bool {
        let without = self.family.tensors.without_bias;
        let is_named = |ending: &str| name.strip_suffix(ending).is_some_and(|b| b.ends_with('.'));
        !without.iter().any(|ending| is_named(ending))
    }

    /// Whether embeddings are projected to hidden states.
    pub(in crate::encoder) fn projects_embeddings(&self) -> bool {
        self.embedding != self.hidden || self.family.embeddings.always_projects
    }
}

impl ConfigFile {
    /// Returns what a key holds, unless that is null.
    fn given(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|given| !given.is_null())
    }

    /// Refuses a config with another value than this.
    fn refuse_value(&self, key: &str, expected: &str, given: Option<&Value>) -> Error {
        let got = given.map_or("none".to_string(), |given| format!("`{given}`"));
        self.refuse(&format!("{key} {expected}"), got, &self.unsupported().way_out())
    }

    pub(super) fn number_of_layers(&self, key: &str) -> Result<usize> {
        let layers = self.size(key)?;
        if layers > MOST_LAYERS {
            return Err(self.refuse(
                &format!("a {key} of at most {MOST_LAYERS}"),
                layers.to_string(),
                "fetch the checkpoint again",
            ));
        }
        Ok(layers)
    }

    /// Checks the values that decide the arithmetic of the family.
    pub(super) fn check_demands(&self, family: &Family) -> Result<()> {
        let unsupported = self.unsupported();
        if unsupported.has_experts {
            return Err(self.refuse(
                "one feed-forward half in each layer",
                "several experts".into(),
                &unsupported.way_out(),
            ));
        }
        for demand in family.demands {
            let given = self.given(demand.key);
            let is_met = match given {
                Some(given) => demand.allowed.contains(&given.to_string().as_str()),
                None => demand.may_be_missing,
            };
            if !is_met {
                return Err(self.refuse_value(demand.key, &demand.allowed.join(" or "), given));
            }
        }
        Ok(())
    }

    pub(super) fn activation(&self, family: &Family) -> Result<EncoderActivation> {
        let key = family.keys.activation;
        let known = family.activations;
        let given = self.text(key).unwrap_or(known[0].0);
        let found = known.iter().find(|(name, _)| *name == given);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            self.refuse(
                &format!("{key} {}", names.join(" or ")),
                format!("`{given}`"),
                &self.unsupported().way_out(),
            )
        })
    }

    pub(super) fn has_norm_bias(&self, family: &Family) -> Result<bool> {
        let Some(key) = family.keys.norm_bias else { return Ok(true) };
        match self.given(key) {
            None => Ok(false),
            Some(Value::Bool(has)) => Ok(*has),
            other => Err(self.refuse_value(key, "true or false", other)),
        }
    }

    /// Returns the number of rows in the token type table; 0 if there is none.
    pub(super) fn token_types(&self, family: &Family) -> Result<usize> {
        let key = "type_vocab_size";
        match (family.token_types, self.fields.get(key)) {
            (None, _) => Ok(0),
            (Some(default), None) => Ok(default),
            // Without a position table, embeddings are summed without an operator that wants this table too.
            (Some(_), Some(given)) if given.as_u64() == Some(0) && !family.has_position_table() => {
                Ok(0)
            }
            (Some(_), Some(_)) => self.size(key),
        }
    }

    /// Returns the number of groups of layers, in a family whose layers share weights.
    pub(super) fn groups(&self, family: &Family, layers: usize) -> Result<Option<usize>> {
        if !family.layer.shares_weights {
            return Ok(None);
        }
        let key = "num_hidden_groups";
        let groups = if self.given(key).is_some() { self.size(key)? } else { 1 };
        if groups > layers {
            return Err(self.refuse_value(key, "of at most the number of layers", self.given(key)));
        }
        Ok(Some(groups))
    }

    /// Returns the longest input: the number of positions, or the length up to which the model was trained if longer
    /// texts would turn all others by other angles.
    pub(super) fn longest_input(&self, family: &Family, positions: usize) -> Result<usize> {
        let Attention::Rotary(RotaryKeys { trained_length: Some(key), .. }) =
            family.layer.attention
        else {
            return Ok(positions);
        };
        if self.given("rotary_scaling_factor").is_none() {
            return Ok(positions);
        }
        // 2,048 is the default of these repositories' code.
        let trained = if self.given(key).is_some() { self.size(key)? } else { 2_048 };
        Ok(positions.min(trained))
    }

    /// Returns the rotary positions of every layer, for heads of this width, if the family has them.
    pub(super) fn rotary(
        &self,
        family: &Family,
        layers: usize,
        width: usize,
    ) -> Result<Option<Vec<RotaryLayer>>> {
        let Attention::Rotary(keys) = family.layer.attention else { return Ok(None) };
        let whole =
            self.angles(keys.windows.map(|_| WHOLE), keys.theta, keys.default_theta, width)?;
        let Some(windows) = keys.windows else {
            return Ok(Some(vec![whole; layers]));
        };
        let tokens = match self.given(windows.tokens) {
            Some(_) => self.size(windows.tokens)?,
            None => windows.default_tokens,
        };
        let window = self.angles(Some(WINDOW), windows.theta, windows.default_theta, width)?;
        let window = RotaryLayer { window: Some(tokens / 2), ..window };
        let is_whole = self.whole_layers(windows, layers)?;
        let kinds = is_whole.into_iter().map(|is_whole| if is_whole { whole } else { window });
        Ok(Some(kinds.collect()))
    }

    /// Returns for each layer whether its tokens see all others.
    fn whole_layers(&self, windows: &WindowKeys, layers: usize) -> Result<Vec<bool>> {
        let key = "layer_types";
        let Some(given) = self.given(key) else {
            let every = match self.given(windows.every) {
                Some(_) => self.size(windows.every)?,
                None => windows.default_every,
            };
            return Ok((0..layers).map(|layer| layer.is_multiple_of(every)).collect());
        };
        let kinds = given.as_array().filter(|kinds| kinds.len() == layers);
        let kinds = kinds.map(|kinds| kinds.iter().map(|kind| kind.as_str()));
        let is_whole = |kind: Option<&str>| match kind {
            Some(WHOLE) => Some(true),
            Some(WINDOW) => Some(false),
            _ => None,
        };
        let known: Option<Vec<bool>> = kinds.and_then(|kinds| kinds.map(is_whole).collect());
        let expected = format!("with `{WHOLE}` or `{WINDOW}` for each of {layers} layers");
        known.ok_or_else(|| self.refuse_value(key, &expected, Some(given)))
    }

    /// Returns the angles of a kind of layers by `rope_parameters` of `transformers` 5, or by keys of their own.
    fn angles(
        &self,
        kind: Option<&str>,
        key: &str,
        default: f64,
        width: usize,
    ) -> Result<RotaryLayer> {
        let given = self.given("rope_parameters");
        let parameters = match kind {
            Some(kind) => given.and_then(|given| given.get(kind)),
            None => given,
        };
        let parameters = parameters.filter(|parameters| !parameters.is_null());
        let older = self.given("rope_scaling");
        if parameters.is_some() && older.is_some() {
            return Err(self.refuse_value("rope_scaling", "null beside rope_parameters", older));
        }
        let name = if parameters.is_some() { "rope_parameters" } else { "rope_scaling" };
        let scaling = parameters.or(older);
        let of_scaling = |key: &str| scaling.and_then(|scaling| scaling.get(key));
        let part = of_scaling("partial_rotary_factor");
        if part.is_some_and(|part| part.as_f64() != Some(1.0)) {
            return Err(self.refuse_value("partial_rotary_factor", "1", part));
        }
        let theta = match of_scaling("rope_theta").or(self.given(key)) {
            None => default,
            Some(theta) => {
                let sound = theta.as_f64().filter(|theta| (1.0..1e12).contains(theta));
                sound.ok_or_else(|| self.refuse_value(key, "a number from 1", Some(theta)))?
            }
        };
        let plain = RotaryLayer { theta, divisor: 1.0, window: None };
        let rope_type = of_scaling("rope_type").or(of_scaling("type"));
        let factor = of_scaling("factor").and_then(Value::as_f64);
        let factor = factor.filter(|factor| (1.0..1e6).contains(factor));
        let is_mixed = of_scaling("mixed_b").is_some_and(|mixed| !mixed.is_null());
        match (rope_type.and_then(Value::as_str), factor) {
            (None, _) if rope_type.is_none() && older.is_none() => Ok(plain),
            (Some("default"), _) => Ok(plain),
            (Some("linear"), Some(factor)) => Ok(RotaryLayer { divisor: factor, ..plain }),
            (Some("ntk"), Some(factor)) if !is_mixed => Ok(RotaryLayer {
                theta: theta * factor,
                divisor: factor.powf(2.0 / width as f64),
                ..plain
            }),
            _ => {
                let expected = "of type `default`, or `linear` or `ntk` with a factor from 1";
                Err(self.refuse_value(name, expected, scaling))
            }
        }
    }

    /// Returns what attention does with distances, in the family whose attention has states for them.
    pub(super) fn disentangled(
        &self,
        family: &Family,
        positions: usize,
    ) -> Result<Option<Disentangled>> {
        if family.layer.attention != Attention::Disentangled {
            return Ok(None);
        }
        // A number below 1 stands for none.
        let positive = |key: &str| self.number(key);
        let key = "pos_att_type";
        let given = self.given(key);
        let terms: Vec<&str> = match given {
            Some(Value::String(terms)) => terms.split('|').map(str::trim).collect(),
            Some(Value::Array(terms)) => terms.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if terms.is_empty() || terms.iter().any(|term| !["c2p", "p2c"].contains(term)) {
            return Err(self.refuse_value(key, "of `c2p`, `p2c` or both", given));
        }
        let found = Disentangled {
            buckets: positive("position_buckets").unwrap_or(0),
            furthest: positive("max_relative_positions").unwrap_or(positions),
            keys_of_distances: terms.contains(&"c2p"),
            queries_of_distances: terms.contains(&"p2c"),
            shares_projections: self.given("share_att_key").and_then(Value::as_bool) == Some(true),
            is_normed: self.text("norm_rel_ebd") == Some("layer_norm"),
        };
        // Buckets are distances up to the middle, and then widen up to the furthest distance.
        if found.buckets == 1 || (found.buckets > 0 && found.furthest <= found.buckets / 2 + 1) {
            let given = self.given("position_buckets");
            return Err(self.refuse_value(
                "position_buckets",
                "of 2 or more, less than twice the relative positions",
                given,
            ));
        }
        Ok(Some(found))
    }

    /// Returns the convolution after the first layer, in a family that may have one.
    pub(super) fn convolution(
        &self,
        family: &Family,
        hidden: usize,
    ) -> Result<Option<Convolution>> {
        let (key, of_groups, of_activation) = ("conv_kernel_size", "conv_groups", "conv_act");
        let Some(tensors) = family.layer.convolution else { return Ok(None) };
        let is_none = |size: &Value| size.as_i64().is_some_and(|size| size <= 0);
        if self.given(key).is_none_or(is_none) {
            return Ok(None);
        }
        let kernel = self.size(key)?;
        if kernel.is_multiple_of(2) {
            let expected = "that is odd, so that there is a state for every token";
            return Err(self.refuse_value(key, expected, self.given(key)));
        }
        let groups = if self.given(of_groups).is_some() { self.size(of_groups)? } else { 1 };
        if !hidden.is_multiple_of(groups) {
            let expected = "that divides the hidden size";
            return Err(self.refuse_value(of_groups, expected, self.given(of_groups)));
        }
        // What `transformers` takes where the config does not say.
        let tanh = Value::from("tanh");
        let activation = self.given(of_activation).unwrap_or(&tanh);
        let is_tanh = *activation == tanh;
        let is_of_family = |name: &str| family.activations.iter().any(|(own, _)| *own == name);
        let is_known = is_tanh || activation.as_str().is_some_and(is_of_family);
        if !is_known {
            let expected = "`tanh` or `gelu`";
            return Err(self.refuse_value(of_activation, expected, Some(activation)));
        }
        Ok(Some(Convolution { tensors, kernel, groups, is_tanh }))
    }
}

#[cfg(test)]
mod tests;
