//! From the rows of a task to a trained head: what is done to features first, the head's settings, and the fit.

use std::time::Instant;

use super::{file::HeadKind, settings::Pipeline, tasks::TaskRows};
use crate::{
    data::{Part, dataset::Dataset},
    error::Result,
    features::{linfa::principal_components, scaler::Scaler},
    head::{
        bank::{self, BankData, BankSettings, SampleSet, TrainedHead},
        linfa_logistic, linfa_svm,
        network::NetworkSpec,
        spec::{HeadSpec, Objective},
        targets::TargetTable,
        transform::{Projection, Transform},
    },
    progress::Progress,
    train::optimizer::Optimizer,
};

/// A head that was fitted, on transformed features.
pub(super) struct Fitted {
    pub(super) network: NetworkSpec,
    pub(super) trained: TrainedHead,
    pub(super) transform: Transform,
    /// Wall time of the training alone.
    pub(super) seconds: f64,
}

/// Fits the pipeline's head to the rows of its task.
///
/// # Errors
/// When the cache is damaged, a training diverges, or there are fewer features than components asked for.
pub(super) fn fit(
    pipeline: &Pipeline,
    dataset: &Dataset,
    rows: &TaskRows<'_>,
    progress: &dyn Progress,
) -> Result<Fitted> {
    let (train, validation) = (rows.part(Part::Train), rows.part(Part::Validation));
    let settings = &pipeline.file.train;
    let transform = transform(pipeline, rows)?;
    let network = network(pipeline, rows, &transform);
    let is_full_batch = matches!(
        pipeline.file.head.kind,
        HeadKind::LinfaLogistic | HeadKind::LinfaSvm
    );
    if is_full_batch {
        let start = Instant::now();
        let trained = fit_in_full_batch(pipeline, rows, &transform, &network)?;
        return Ok(Fitted {
            network,
            trained,
            transform,
            seconds: start.elapsed().as_secs_f64(),
        });
    }
    if validation.is_empty() && settings.early_stopping.0.is_some() {
        progress.warn(
            "there are no validation rows: every epoch is trained, and the last weights are kept",
        );
    }
    let judge = rows.judge(pipeline, dataset, &network);
    let spec = spec(pipeline, rows.objective.clone(), network.clone());
    let data = BankData {
        view: &rows.view,
        transform: &transform,
        sets: &[SampleSet {
            targets: &rows.targets,
            train,
            validation,
            judge: &*judge,
        }],
    };
    let bank_settings = BankSettings {
        seed: pipeline.file.seed,
        judges_all: true,
    };
    let start = Instant::now();
    let trained = bank::train(&[spec], &data, bank_settings, progress)?.remove(0);
    Ok(Fitted {
        network,
        trained,
        transform,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Standardisation and projection, fitted on the rows of train and validation without their labels.
fn transform(pipeline: &Pipeline, rows: &TaskRows<'_>) -> Result<Transform> {
    let head = &pipeline.file.head;
    let seen: Vec<u32> = [Part::Train, Part::Validation]
        .iter()
        .flat_map(|part| rows.part(*part).iter().copied())
        .collect();
    let scaler = match head.standardize {
        true => Scaler::fit(&rows.view, &seen)?,
        false => Scaler::identity(rows.view.n_features()),
    };
    let mut transform = Transform {
        scaler,
        projection: None,
    };
    if let Some(n_components) = head.pca {
        let n_features = rows.view.n_features();
        let n_rows: usize = seen
            .iter()
            .map(|sample| rows.view.rows_of(*sample).len())
            .sum();
        if n_components > n_features.min(n_rows) {
            return Err(pipeline.refuse(
                format!(
                    "head.pca keeps {n_components} components, and there are {n_rows} rows of {n_features} features"
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

fn network(pipeline: &Pipeline, rows: &TaskRows<'_>, transform: &Transform) -> NetworkSpec {
    let head = &pipeline.file.head;
    let n_layers = rows.view.states.len();
    NetworkSpec {
        n_layers,
        n_features: transform.n_features() / n_layers,
        attention: pipeline.file.pools_by_attention(),
        hidden: pipeline.hidden_layers(),
        activation: head.activation,
        skip: head.skip,
        layer_norm: head.layer_norm,
        n_outputs: rows.n_outputs,
        crf: rows.objective == Objective::Crf,
    }
}

fn spec(pipeline: &Pipeline, objective: Objective, network: NetworkSpec) -> HeadSpec {
    let (head, train) = (&pipeline.file.head, &pipeline.file.train);
    HeadSpec {
        network,
        objective,
        dropout: head.dropout as f32,
        optimizer: Optimizer {
            kind: train.optimizer,
            lr: train.lr,
            weight_decay: train.weight_decay,
            momentum: train.momentum,
            betas: train.betas,
        },
        schedule: train.schedule,
        warmup: train.warmup,
        clip: train.clip,
        seed: pipeline.file.seed,
        stopping: train.early_stopping.0.clone(),
        epochs: train.epochs,
        batch_size: train.batch_size,
        set: 0,
    }
}

fn fit_in_full_batch(
    pipeline: &Pipeline,
    rows: &TaskRows<'_>,
    transform: &Transform,
    network: &NetworkSpec,
) -> Result<TrainedHead> {
    let train = rows.part(Part::Train);
    let TargetTable::Classes(classes) = &rows.targets else {
        unreachable!("checked with the settings: these kinds learn classes");
    };
    let labels: Vec<u32> = train
        .iter()
        .map(|sample| classes[*sample as usize])
        .collect();
    let features = crate::features::linfa::records(&rows.view, train)?;
    let features = transform.apply(features);
    let head = &pipeline.file.head;
    match head.kind {
        HeadKind::LinfaSvm => linfa_svm::fit(features, &labels, network, head.c),
        _ => linfa_logistic::fit(features, &labels, network, head.c),
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
        let own = spec(&pipeline, head.objective.clone(), head.network.clone());
        assert_eq!(own, head);
    }
}
