//! Stage 2: cached states + labels -> a trained head -> metrics -> a run folder. The encoder is never loaded.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Serialize;

use super::{
    extract::{explain_miss, inputs_for},
    file::{ClassWeights, HeadKind, Labels, Pair},
    lock::{Lock, LockedCache, LockedSplit, LockedView, cpu_features},
    measure::{RunMetrics, fit_temperature, measure, write_metrics},
    run_folder,
    settings::Pipeline,
};
use crate::{
    cache::reader::CacheReader,
    data::{
        LabelMap, Part,
        dataset::{Dataset, DatasetSettings, FileRecord},
    },
    encoder::{checkpoint::Checkpoint, device::Device},
    error::{Error, Result},
    features::{FeatureView, scaler::Scaler},
    fingerprint::{self, Key},
    head::{
        bank::{self, BankData, BankSettings, LabelledRows, TrainedHead},
        linear::{HeadDescription, LinearHead},
        linfa_logistic,
        spec::HeadSpec,
    },
    metrics::calibration::softmax_rows,
    progress::Progress,
    report::tables,
    states::StateId,
    train::{loss::Loss, optimizer::Optimizer},
};

/// What a training did.
#[derive(Clone, Debug, Serialize)]
pub struct TrainReport {
    /// The new run folder.
    pub run: PathBuf,
    /// What was learned.
    pub task: String,
    /// Wall time of the stage.
    pub seconds: f64,
    /// What the head is worth.
    pub metrics: RunMetrics,
    /// Rows of each class in each part.
    pub classes: crate::data::ClassDistribution,
    /// The cache that was read.
    pub cache: PathBuf,
}

/// Reads, cleans and splits a pipeline's labelled rows.
///
/// # Errors
/// When the data is not what the pipeline says.
pub fn load_dataset(pipeline: &Pipeline) -> Result<Dataset> {
    let data = pipeline.data();
    let labels = match &pipeline.file.data.labels {
        None => None,
        Some(Labels::Names(names)) => Some(LabelMap::from_list(names.clone(), &pipeline.path)?),
        Some(Labels::File(path)) => Some(LabelMap::from_file(path)?),
    };
    let mut dataset = Dataset::load(&DatasetSettings {
        task: pipeline.file.data.task.of_data(),
        joint_pairs: pipeline.extraction.pair == Pair::Joint,
        train: data.train,
        validation: data.validation,
        test: data.test,
        labels,
        split: data.split,
        clean: data.clean,
        seed: data.seed,
    })?;
    if let Some(Labels::File(path)) = &pipeline.file.data.labels {
        let blake3 = fingerprint::hash_file(path)?;
        let rows = dataset.labels.len();
        dataset.files.push(FileRecord {
            path: path.clone(),
            blake3,
            rows,
        });
    }
    Ok(dataset)
}

/// Trains the pipeline's head on cached states and writes a run folder.
///
/// # Errors
/// When the data or the pipeline is at fault, the cache lacks rows ([`Error::CacheMiss`]) or is damaged, or the
/// training diverges.
pub fn train(pipeline: &Pipeline, progress: &dyn Progress) -> Result<TrainReport> {
    pipeline.check_training()?;
    let dataset = load_dataset(pipeline)?;
    for warning in &dataset.warnings {
        progress.warn(warning);
    }
    check_rows(pipeline, &dataset)?;
    let checkpoint = Checkpoint::open(&pipeline.extraction.model)?;
    train_on(&checkpoint, pipeline, &dataset, None, progress)
}

/// Checks what needs the rows but no states: that there is something to learn, and that class weights name labels.
pub(super) fn check_rows(pipeline: &Pipeline, dataset: &Dataset) -> Result<()> {
    let train = dataset.part(Part::Train);
    require_training_rows(pipeline, dataset, &train)?;
    class_weights(pipeline, &dataset.labels, &dataset.labels_of(&train)).map(|_| ())
}

/// As [`train`], on rows that are already loaded and whose warnings were shown; from the cache `folder` where one is
/// named, else from the one that holds the rows.
pub(super) fn train_on(
    checkpoint: &Checkpoint,
    pipeline: &Pipeline,
    dataset: &Dataset,
    folder: Option<&Path>,
    progress: &dyn Progress,
) -> Result<TrainReport> {
    let start = Instant::now();
    let state = pipeline.head_state(checkpoint.config.layers)?;
    let keys: Vec<Key> = dataset
        .rows
        .iter()
        .flat_map(|row| row.keys.clone())
        .collect();
    let given = folder.map(CacheReader::open).transpose()?.flatten();
    let cache = match given {
        Some(cache) => cache,
        None => open_cache(pipeline, checkpoint, state, &keys)?,
    };
    let view = FeatureView::read(&cache, state, &keys)?;
    if folder.is_none() {
        let provider = &cache.manifest().inputs.provider;
        progress.note(&format!(
            "states from {}, made on {provider}",
            cache.folder().display()
        ));
    }

    let [train, validation, _] = Part::ALL.map(|part| dataset.part(part));
    let trained = fit(pipeline, dataset, &view, &train, &validation, progress)?;
    let mut head = describe(pipeline, dataset, state, &view, &trained);
    let all: Vec<u32> = (0..dataset.rows.len() as u32).collect();
    let logits = head.logits(&view, &all);
    let temperature = fit_temperature(dataset, &logits);
    head.description.temperature = temperature;
    let metrics = measure(dataset, &logits, temperature, &trained, pipeline.file.seed);
    let probabilities = softmax_rows(logits.view(), temperature);

    let run = run_folder::create(&pipeline.file.run.dir, &pipeline.name)?;
    head.save(&run)?;
    write_metrics(&run, &metrics)?;
    // A head that is fitted in full batch has no epochs to tell of.
    if !trained.history.is_empty() {
        tables::write_history(&run, &trained.history)?;
    }
    tables::write_predictions(&run, dataset, probabilities.view())?;
    lock(pipeline, dataset, checkpoint, &cache, &view).write(&run)?;
    Ok(TrainReport {
        run,
        task: pipeline.file.data.task.to_string(),
        seconds: start.elapsed().as_secs_f64(),
        metrics,
        classes: dataset.distribution.clone(),
        cache: cache.folder().to_path_buf(),
    })
}

/// The cache that holds a state of these documents: of the device that the pipeline names; with `auto` of CUDA if it
/// has every row, else of the CPU.
fn open_cache(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    state: StateId,
    keys: &[Key],
) -> Result<CacheReader> {
    let providers: &[&str] = match pipeline.extraction.device {
        Device::Auto => &["cuda", "cpu"],
        Device::Cuda(_) => &["cuda"],
        Device::Cpu => &["cpu"],
    };
    let cache_dir = &pipeline.extraction.cache_dir;
    let mut incomplete = None;
    for provider in providers {
        let inputs = inputs_for(pipeline, checkpoint, provider);
        let folder = cache_dir.join(inputs.fingerprint());
        let Some(cache) = CacheReader::open(&folder)? else {
            continue;
        };
        cache.manifest().require(&folder, &inputs)?;
        if keys.iter().all(|key| cache.locate(key, state).is_some()) {
            return Ok(cache);
        }
        incomplete = Some(cache);
    }
    if let Some(cache) = incomplete {
        // Reading it says which rows are missing.
        return Ok(cache);
    }
    let inputs = inputs_for(pipeline, checkpoint, providers[providers.len() - 1]);
    let mut hint =
        "run `frostbert extract` with this pipeline first, or `frostbert run`, which does both"
            .to_string();
    if let Some(explanation) = explain_miss(cache_dir, &inputs)? {
        hint.push_str(&format!(" ({explanation})"));
    }
    Err(Error::CacheMiss {
        cache: cache_dir.join(inputs.fingerprint()),
        lacks: "everything: nothing was extracted with these settings".into(),
        hint,
    })
}

fn require_training_rows(pipeline: &Pipeline, dataset: &Dataset, train: &[u32]) -> Result<()> {
    let labels: std::collections::HashSet<u32> = dataset.labels_of(train).into_iter().collect();
    if labels.len() < 2 {
        return Err(Error::Record {
            path: pipeline.file.data.train.0[0].path.clone(),
            line: None,
            expected: "training rows of at least two labels after the split".into(),
            got: format!("{} rows of {}", train.len(), labels.len()),
            hint: "add rows, or give data.split.train a larger share".into(),
        });
    }
    Ok(())
}

/// Trains the head and folds its scaling into its weights.
fn fit(
    pipeline: &Pipeline,
    dataset: &Dataset,
    view: &FeatureView,
    train: &[u32],
    validation: &[u32],
    progress: &dyn Progress,
) -> Result<TrainedHead> {
    let settings = &pipeline.file.train;
    let seen: Vec<u32> = train.iter().chain(validation).copied().collect();
    let scaler = if pipeline.file.head.standardize {
        Scaler::fit(view, &seen)
    } else {
        Scaler::identity(view.n_features())
    };
    if validation.is_empty() && settings.early_stopping.0.is_some() {
        progress.warn(
            "there are no validation rows: every epoch is trained, and the last weights are kept",
        );
    }
    let (train_labels, validation_labels) =
        (dataset.labels_of(train), dataset.labels_of(validation));
    let data = BankData {
        view,
        scaler: &scaler,
        train: LabelledRows {
            samples: train,
            labels: &train_labels,
        },
        validation: LabelledRows {
            samples: validation,
            labels: &validation_labels,
        },
    };
    let head = match pipeline.file.head.kind {
        HeadKind::LinfaLogistic => {
            let (n_classes, c) = (dataset.labels.len(), pipeline.file.head.c);
            linfa_logistic::fit(view, &scaler, data.train, n_classes, c)?
        }
        _ => {
            let bank_settings = BankSettings {
                epochs: settings.epochs,
                batch_size: settings.batch_size,
                seed: pipeline.file.seed,
            };
            let spec = head_spec(pipeline, dataset, &train_labels)?;
            bank::train(&[spec], &data, bank_settings, progress)?.remove(0)
        }
    };
    let (weights, bias) = scaler.fold(&head.weights, &head.bias);
    Ok(TrainedHead {
        weights,
        bias,
        ..head
    })
}

fn head_spec(pipeline: &Pipeline, dataset: &Dataset, train_labels: &[u32]) -> Result<HeadSpec> {
    let (head, train) = (&pipeline.file.head, &pipeline.file.train);
    Ok(HeadSpec {
        n_classes: dataset.labels.len(),
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
        loss: Loss::CrossEntropy {
            class_weights: class_weights(pipeline, &dataset.labels, train_labels)?,
            label_smoothing: train.label_smoothing as f32,
        },
        seed: pipeline.file.seed,
        stopping: train.early_stopping.0.clone(),
    })
}

/// `balanced` is `n / (C n_c)`, as scikit-learn's; a class without training rows gets 1.
fn class_weights(
    pipeline: &Pipeline,
    labels: &LabelMap,
    train_labels: &[u32],
) -> Result<Option<Vec<f32>>> {
    let Some(weights) = &pipeline.file.train.class_weights else {
        return Ok(None);
    };
    let table = match weights {
        ClassWeights::Named(_) => {
            let mut counts = vec![0usize; labels.len()];
            for label in train_labels {
                counts[*label as usize] += 1;
            }
            let n_classes = counts.iter().filter(|count| **count > 0).count() as f64;
            let weight = |count: usize| match count {
                0 => 1.0,
                count => (train_labels.len() as f64 / (n_classes * count as f64)) as f32,
            };
            return Ok(Some(counts.into_iter().map(weight).collect()));
        }
        ClassWeights::Table(table) => table,
    };
    let refuse = |problem: String, hint: &str| Error::Pipeline {
        file: pipeline.path.clone(),
        line: None,
        column: None,
        problem,
        hint: hint.into(),
    };
    let mut result = vec![1.0f32; labels.len()];
    for (label, weight) in table {
        let Some(id) = labels.id(label) else {
            return Err(refuse(
                format!("train.class_weights names `{label}`, which is no label of train"),
                "name labels as the data spells them",
            ));
        };
        if !(*weight > 0.0 && weight.is_finite()) {
            return Err(refuse(
                format!("train.class_weights gives `{label}` the weight {weight}"),
                "give every label a weight above 0",
            ));
        }
        result[id] = *weight as f32;
    }
    Ok(Some(result))
}

fn describe(
    pipeline: &Pipeline,
    dataset: &Dataset,
    state: StateId,
    view: &FeatureView,
    trained: &TrainedHead,
) -> LinearHead {
    LinearHead {
        description: HeadDescription {
            task: pipeline.file.data.task.to_string(),
            kind: pipeline.file.head.kind.to_string(),
            labels: dataset.labels.names().to_vec(),
            pooling: state.kind.name().into(),
            layers: vec![state.layer],
            hidden: view.n_features(),
            standardize: pipeline.file.head.standardize,
            temperature: 1.0,
            best_epoch: trained.best_epoch,
            state,
        },
        weights: trained.weights.clone(),
        bias: trained.bias.clone(),
    }
}

fn lock(
    pipeline: &Pipeline,
    dataset: &Dataset,
    checkpoint: &Checkpoint,
    cache: &CacheReader,
    view: &FeatureView,
) -> Lock {
    let manifest = cache.manifest();
    let versions = manifest.onnxruntime_versions().into_iter();
    let device = manifest.devices().into_iter().next().map(String::from);
    Lock {
        frostbert: env!("CARGO_PKG_VERSION").into(),
        pipeline: pipeline.file.clone(),
        data: dataset.files.clone(),
        model: checkpoint.hashes.clone(),
        cache: LockedCache {
            path: cache.folder().to_path_buf(),
            fingerprint: manifest.fingerprint.clone(),
            onnxruntime: versions.map(String::from).collect(),
            rows: view.digest(dataset.rows.iter().flat_map(|row| &row.keys)),
        },
        view: LockedView::of(view.state),
        labels: dataset.labels.clone(),
        split: LockedSplit::of(dataset),
        seed: pipeline.file.seed,
        device: device.unwrap_or_default(),
        cpu: cpu_features(),
        outputs: Default::default(),
    }
}
