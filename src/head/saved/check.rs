//! Checks the description of a head before a network is built from it.

use frostbert_cache::states::{StateId, StateKind};

use super::HeadDescription;
use crate::head::network::NetworkSpec;

/// Checks that sizes, numbers and names are consistent; the error says what was expected and what was found.
pub(super) fn check(description: &HeadDescription) -> Result<(), (&'static str, String)> {
    let HeadDescription { layers, states, sentence, .. } = description;
    let is_pooled = |state: &StateId| matches!(state.kind, StateKind::Pooled(_));
    // A sentence vector is made of several poolings of one layer.
    let make_sentences = sentence.is_some() && states.iter().all(is_pooled);
    let kinds_fit = make_sentences || states.iter().all(|state| state.kind == states[0].kind);
    require(!states.is_empty() && kinds_fit, "states of one kind", || format!("{states:?}"))?;
    let mut own_layers: Vec<usize> = states.iter().map(|state| state.layer).collect();
    if make_sentences {
        own_layers.dedup();
    }
    require(own_layers == *layers, "the layers of its states", || format!("{layers:?}"))?;
    check_network(description)
}

/// Like [`check`], but ignores the states that the head reads: a head that belongs to no run names none.
pub(super) fn check_network(description: &HeadDescription) -> Result<(), (&'static str, String)> {
    let HeadDescription { labels, network, thresholds, .. } = description;
    let numbers = [description.temperature]
        .into_iter()
        .chain(thresholds.iter().flatten().copied())
        .chain(description.no_answer_threshold)
        .chain(description.output_scale.into_iter().flatten());
    require(
        numbers.clone().all(f64::is_finite) && description.temperature > 0.0,
        "finite numbers, and a temperature above 0",
        || format!("{:?}", numbers.clone().collect::<Vec<f64>>()),
    )?;
    let n_thresholds = thresholds.as_ref().map_or(labels.len(), Vec::len);
    require(n_thresholds == labels.len(), "a threshold for each label", || {
        format!("{n_thresholds} for {}", labels.len())
    })?;
    require(description.max_answer_tokens != Some(0), "answers of at least a token", || {
        "max_answer_tokens 0".into()
    })?;
    let Some(network) = network else {
        return Ok(());
    };
    let has_labels = !labels.is_empty() || TASKS_WITH_LABELS.contains(&description.task.as_str());
    require(!has_labels || network.n_outputs == labels.len(), "an output for each label", || {
        format!("{} for {}", network.n_outputs, labels.len())
    })?;
    require(
        n_parameters(network).is_some(),
        "a network with sizes from 1, and at most 2^31 parameters",
        || format!("{network:?}"),
    )
}

fn require(
    holds: bool,
    expected: &'static str,
    got: impl FnOnce() -> String,
) -> Result<(), (&'static str, String)> {
    if holds { Ok(()) } else { Err((expected, got())) }
}

/// The tasks whose heads have one output per label, as named in `data.task`.
const TASKS_WITH_LABELS: [&str; 3] = ["classification", "multilabel", "tokens"];

/// Maximum number of parameters: 8 GB of weights.
const MOST_PARAMETERS: usize = 1 << 31;

/// An upper bound on the number of parameters of such a network; `None` if a size is 0, there are too many, or layers
/// of an encoder are none.
fn n_parameters(spec: &NetworkSpec) -> Option<usize> {
    let sizes = [spec.n_layers, spec.n_features, spec.n_outputs];
    if sizes.iter().chain(&spec.hidden).any(|size| *size == 0) {
        return None;
    }
    let mut total = spec.n_layers.checked_mul(spec.n_features)?;
    if let Some(layers) = &spec.encoder_layers {
        if spec.n_layers != 1 {
            return None;
        }
        total = total.checked_add(layers.n_parameters(spec.n_features)?)?;
    }
    // A pair's rows are wider than a state, whose width is bounded by then.
    let mut inputs = spec.n_read();
    let widths = spec.hidden.iter().chain([&spec.n_outputs]);
    for width in widths {
        // A weight for each pair, the same again if the input is added through a projection, and a bias, a gain and a
        // shift for each output.
        let pairs = inputs.checked_add(3)?.checked_mul(*width)?;
        total = total.checked_add(pairs.checked_mul(2)?)?;
        inputs = *width;
    }
    let scores =
        if spec.crf { spec.n_outputs.checked_add(2)?.checked_mul(spec.n_outputs)? } else { 0 };
    total.checked_add(scores).filter(|total| *total <= MOST_PARAMETERS)
}

#[cfg(test)]
mod tests {
    use frostbert_cache::states::{Pooling, StateId};

    use super::*;

    fn described(network: NetworkSpec) -> HeadDescription {
        HeadDescription {
            labels: vec!["cold".into(), "warm".into()],
            layers: vec![2],
            states: vec![StateId::pooled(Pooling::Mean, 2)],
            network: Some(network),
            ..HeadDescription::default()
        }
    }

    #[test]
    fn sizes_and_numbers_that_cannot_be_are_refused_before_a_network_is_built() {
        let good = described(NetworkSpec::linear(32, 2));
        assert!(check(&good).is_ok());
        let huge = 1 << 62;
        let networks: [&dyn Fn(&mut NetworkSpec); 6] = [
            &|spec| spec.n_features = 0,
            &|spec| spec.n_features = huge,
            &|spec| spec.hidden = vec![huge, huge],
            &|spec| spec.n_layers = usize::MAX,
            &|spec| spec.n_outputs = 3,
            &|spec| (spec.n_features, spec.hidden) = (1 << 16, vec![1 << 16]),
        ];
        for change in networks {
            let mut spec = NetworkSpec::linear(32, 2);
            change(&mut spec);
            assert!(check(&described(spec.clone())).is_err(), "{spec:?}");
        }
        let descriptions: [&dyn Fn(&mut HeadDescription); 8] = [
            &|head| (head.task, head.labels) = ("tokens".into(), Vec::new()),
            &|head| head.temperature = 0.0,
            &|head| head.temperature = f64::INFINITY,
            &|head| head.thresholds = Some(vec![0.5]),
            &|head| head.output_scale = Some([f64::NAN, 1.0]),
            &|head| head.states.clear(),
            &|head| head.layers = vec![1],
            &|head| head.max_answer_tokens = Some(0),
        ];
        for change in descriptions {
            let mut head = good.clone();
            change(&mut head);
            assert!(check(&head).is_err(), "{head:?}");
        }
    }
}
