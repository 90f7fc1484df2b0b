//! Fits a head to the rows of a task: the transform of the features, the head's settings, and the fit itself.

use std::time::Instant;

use frostbert_cache::progress::Progress;

use crate::{
    config::settings::{HiddenLayers, KindSettings, Pipeline, StepSettings},
    data::{Part, dataset::Dataset},
    encoder::checkpoint::Checkpoint,
    error::Result,
    features::{linfa::principal_components, scaler::Scaler},
    head::{
        bank::{self, BankData, BankSettings, SampleSet},
        network::NetworkSpec,
        spec::{HeadSpec, Objective},
        trained_head::TrainedHead,
        transform::{Projection, Transform},
    },
    metrics::metric::Metric,
    tasks::{TaskRows, measure::ChosenNumber, own_metric},
    training::{
        full_batch::{self, FittedFor, FullBatchData, FullBatchHead, FullBatchKind},
        regularization::{choose_for, unchosen},
        unfrozen::UnfrozenLayers,
    },
};

/// A head that was fitted on transformed features.
pub(crate) struct FittedHead {
    pub(crate) network: NetworkSpec,
    pub(crate) trained: TrainedHead,
    pub(crate) transform: Transform,
    /// The C or lambda that folds chose.
    pub(crate) chosen: Option<ChosenNumber>,
    /// Wall time of the training alone, with the choice of its number.
    pub(crate) seconds: f64,
}

/// Fits the pipeline's head to the rows of its task, with layers of the checkpoint if the pipeline trains some. With
/// `stop_after`, trains for that many epochs without looking at validation, for when the best number of epochs is
/// known.
///
/// # Errors
/// Returns an error if the cache is damaged, a training diverges, the layers to train cannot be read, or `head.pca`
/// asks for more components than there are features or rows.
pub(crate) fn fit(
    pipeline: &Pipeline,
    dataset: &Dataset,
    checkpoint: Option<&Checkpoint>,
    rows: &TaskRows<'_>,
    stop_after: Option<usize>,
    progress: &dyn Progress,
) -> Result<FittedHead> {
    let column = pipeline.head.label.as_ref();
    let train = &rows.taught(dataset, column, rows.part(Part::Train))[..];
    let validation = rows.part(Part::Validation);
    let transform = transform(pipeline, rows)?;
    let unfrozen = UnfrozenLayers::read(pipeline, checkpoint)?;
    let network = NetworkSpec {
        encoder_layers: unfrozen.as_ref().map(|layers| layers.spec.clone()),
        ..network(pipeline, rows, &transform)
    };
    let Some(steps) = pipeline.head.kind.steps() else {
        let start = Instant::now();
        let data = FullBatchData {
            view: &rows.view,
            targets: &rows.targets,
            sets: &[train],
            transform: &transform,
            network: &network,
        };
        let chosen = choose_for(pipeline, dataset, data, 0, &rows.objective, progress)?;
        if let (None, Some(note)) = (&chosen, unchosen(&pipeline.head.kind, train.len())) {
            progress.note(&note);
        }
        let number = chosen.as_ref().map(|chosen| chosen.value);
        let kind = FullBatchKind::of(&pipeline.head.kind, number);
        let head = FullBatchHead { kind, set: 0, objective: rows.objective.clone() };
        let mut fitted = full_batch::fit(&[head], data, FittedFor::Run, progress)?;
        let trained = fitted.remove(0);
        return Ok(FittedHead {
            network,
            trained,
            transform,
            chosen,
            seconds: start.elapsed().as_secs_f64(),
        });
    };
    if validation.is_empty() && steps.stopping.is_some() && stop_after.is_none() {
        progress.warn(
            "there are no validation rows: every epoch is trained, and the last weights are kept",
        );
    }
    let own_metric = own_metric(pipeline.data.task, dataset.labels.names());
    let mut spec = spec(pipeline.seed, steps, own_metric, rows.objective.clone(), network.clone());
    spec.encoder_layers = unfrozen.map(|layers| layers.training);
    if stop_after.is_some() {
        spec.stop_after = stop_after;
        spec.stopping = None;
    }
    let followed: Vec<Metric> = spec.stopping.iter().map(|s| s.metric).collect();
    let evaluator = rows.task.evaluator(pipeline, dataset, validation, &followed);
    let data = BankData {
        view: &rows.view,
        transform: &transform,
        sets: &[SampleSet { targets: &rows.targets, train, validation, evaluator: &*evaluator }],
    };
    let bank_settings =
        BankSettings { seed: pipeline.seed, shuffles: true, evaluates_all: true, gives_up: false };
    let start = Instant::now();
    let trained = bank::train(&[spec], &data, bank_settings, progress)?.remove(0);
    let seconds = start.elapsed().as_secs_f64();
    Ok(FittedHead { network, trained, transform, chosen: None, seconds })
}

/// Fits standardisation and projection on the rows of train and validation, without their labels.
pub(crate) fn transform(pipeline: &Pipeline, rows: &TaskRows<'_>) -> Result<Transform> {
    let head = &pipeline.head;
    let seen: Vec<u32> = [Part::Train, Part::Validation]
        .iter()
        .flat_map(|part| rows.part(*part).iter().copied())
        .collect();
    // Layers of the encoder read the states as the layer below them left them.
    let scaler = if head.standardize && pipeline.file().unfreeze().is_none() {
        Scaler::fit(&rows.view, &seen)?
    } else {
        Scaler::identity(rows.view.n_features())
    };
    let mut transform = Transform { scaler, projection: None };
    if let Some(n_components) = head.pca {
        let n_features = rows.view.n_features();
        let n_rows: usize = seen.iter().map(|sample| rows.view.rows_of(*sample).len()).sum();
        if n_components > n_features.min(n_rows) {
            return Err(pipeline.refuse(
                format!(
                    "head.pca keeps {n_components} components, but there are {n_rows} rows of {n_features} features"
                ),
                format!("set head.pca to {} or less", n_features.min(n_rows)),
            ));
        }
        let (mean, components) =
            principal_components(&rows.view, &transform.scaler, &seen, n_components)?;
        transform.projection = Some(Projection { mean, components });
    }
    Ok(transform)
}

/// Returns the network of the head on these rows.
pub(crate) fn network(
    pipeline: &Pipeline,
    rows: &TaskRows<'_>,
    transform: &Transform,
) -> NetworkSpec {
    let n_layers = rows.view.n_layers();
    network_of(pipeline, n_layers, transform.n_features() / n_layers, rows.n_outputs)
}

/// Returns the network of the head on features of `n_layers` layers with `n_features` values each.
pub(crate) fn network_of(
    pipeline: &Pipeline,
    n_layers: usize,
    n_features: usize,
    n_outputs: usize,
) -> NetworkSpec {
    let kind = &pipeline.head.kind;
    let network = NetworkSpec {
        n_layers,
        attention: pipeline.pools_by_attention(),
        crf: matches!(kind, KindSettings::Crf(..)),
        ..NetworkSpec::linear(n_features, n_outputs)
    };
    match kind.hidden().cloned() {
        None => network,
        Some(HiddenLayers { widths, activation, skip, layer_norm }) => {
            NetworkSpec { hidden: widths, activation, skip, layer_norm, ..network }
        }
    }
}

/// Returns the settings of a head that is trained in steps, for a task whose own metric is `own_metric`.
pub(crate) fn spec(
    seed: u64,
    steps: &StepSettings,
    own_metric: Metric,
    objective: Objective,
    network: NetworkSpec,
) -> HeadSpec {
    HeadSpec {
        network,
        objective,
        dropout: steps.dropout,
        optimizer: steps.optimizer,
        schedule: steps.schedule,
        warmup: steps.warmup,
        clip: steps.clip,
        seed,
        stopping: steps.stopping(own_metric),
        epochs: steps.epochs,
        stop_after: None,
        batch_size: steps.batch_size,
        set: 0,
        encoder_layers: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::network::NetworkSpec;

    #[test]
    fn a_head_of_the_library_is_trained_as_by_a_pipeline_that_says_nothing() {
        let text = "[model]\npath = \"model\"\n[data]\ntrain = { path = \"data.csv\" }";
        let file = toml::from_str(text).unwrap();
        let pipeline = Pipeline::check("pipeline.toml".as_ref(), file).unwrap();
        let head = HeadSpec::new(NetworkSpec::linear(8, 2));
        let steps = pipeline.head.kind.steps().unwrap();
        let (objective, network) = (head.objective.clone(), head.network.clone());
        let own = spec(pipeline.seed, steps, Metric::MacroF1, objective, network);
        assert_eq!(own, head);
    }
}
