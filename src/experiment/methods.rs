//! Compares ways to train on one cache: heads on a frozen encoder, and its last layers with a head. All of them are
//! trained on the same rows and measured on the same test rows, with what each takes.

use std::path::{Path, PathBuf, is_separator};

use frostbert_cache::{progress::Progress, reader::CacheReader, wording::counted};
use toml::Value;

use crate::{
    config::{
        file::Labels,
        names::{HeadPooling, Task},
        settings::{Pipeline, Settings},
    },
    data::{Part, dataset::Dataset},
    doctor::process_memory,
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    extraction::{extract::extract_with, machine::Machine},
    head::size::training_bytes,
    metrics::metric::Metric,
    report::{
        methods::{ComparedMethod, FineTuningCost, MethodComparison, compare_with_best},
        row_writer::{folder_of, require_other_file},
    },
    sweep::{TestedSetting, test_setting},
    tasks::compared_by,
    training::{inputs::ModelCache, train::checked_dataset, unfrozen::UnfrozenLayers},
};

/// The kinds of head that stand for feature extraction: the first that the task has is fitted, in full batch.
const FEATURE_KINDS: [&str; 2] = ["logistic", "ridge"];

/// Numbers of last layers that are trained unless the request says otherwise; all of them too.
const USUAL_LAYERS: [usize; 2] = [1, 2];

/// No model has more layers, so no method has a name for more.
pub const MOST_LAYERS: usize = 10_000;

/// A way to train on cached states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingMethod {
    /// Feature extraction: a head that is fitted to the states in full batch.
    Features,
    /// Head replacement: a linear head that is trained in steps.
    Linear,
    /// Head replacement: a head with hidden layers.
    Mlp,
    /// The last layers of the encoder with a linear head: so many of them.
    Top(usize),
    /// All layers of the encoder above the embeddings, with a linear head.
    All,
}

impl TrainingMethod {
    /// Finds the method of this name: `features`, `linear`, `mlp`, `top-1` and so on to [`MOST_LAYERS`], or `all`.
    ///
    /// ```
    /// use frostbert::internals::experiment::methods::TrainingMethod;
    ///
    /// assert_eq!(TrainingMethod::named("top-2"), Some(TrainingMethod::Top(2)));
    /// assert_eq!(TrainingMethod::named("top-0"), None);
    /// ```
    pub fn named(name: &str) -> Option<TrainingMethod> {
        match name {
            "features" => Some(TrainingMethod::Features),
            "linear" => Some(TrainingMethod::Linear),
            "mlp" => Some(TrainingMethod::Mlp),
            "all" => Some(TrainingMethod::All),
            other => {
                let layers: usize = other.strip_prefix("top-")?.parse().ok()?;
                (1..=MOST_LAYERS).contains(&layers).then_some(TrainingMethod::Top(layers))
            }
        }
    }

    fn name(self) -> String {
        match self {
            TrainingMethod::Features => "features".into(),
            TrainingMethod::Linear => "linear".into(),
            TrainingMethod::Mlp => "mlp".into(),
            TrainingMethod::Top(layers) => format!("top-{layers}"),
            TrainingMethod::All => "all".into(),
        }
    }

    /// Its name for people; `kind` is that of its head.
    fn title(self, kind: &str) -> String {
        match self {
            TrainingMethod::Features => format!("feature extraction, {kind}"),
            TrainingMethod::Linear | TrainingMethod::Mlp => format!("head replacement, {kind}"),
            TrainingMethod::Top(1) => "top 1 layer".into(),
            TrainingMethod::Top(layers) => format!("top {layers} layers"),
            TrainingMethod::All => "all layers".into(),
        }
    }

    /// What it sets in a pipeline; layers are trained for `epochs`.
    fn settings(self, feature_kind: Option<&str>, epochs: usize) -> Option<Settings> {
        let (kind, unfreeze) = match self {
            TrainingMethod::Features => (feature_kind?, None),
            TrainingMethod::Linear => ("linear", None),
            TrainingMethod::Mlp => ("mlp", None),
            TrainingMethod::Top(layers) => {
                let layers = i64::try_from(layers).unwrap_or(i64::MAX);
                ("linear", Some(Value::Integer(layers)))
            }
            TrainingMethod::All => ("linear", Some("all".into())),
        };
        let mut settings: Settings = vec![("kind".into(), kind.into())];
        if let Some(unfreeze) = unfreeze {
            settings.push(("unfreeze".into(), unfreeze));
            // What is read lies below the trained layers, whatever the file says of heads.
            settings.push(("layers".into(), "auto".into()));
            settings.push(("epochs".into(), Value::Integer(epochs as i64)));
        }
        Some(settings)
    }
}

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct MethodRequest {
    /// The methods, in this order; if there are none, all that suit the task and the model.
    pub methods: Vec<TrainingMethod>,
    /// Number of heads of each method, which differ in initial weights and dropout.
    pub seeds: usize,
    /// Number of epochs where layers of the encoder are trained; validation chooses one of them.
    pub epochs: usize,
    /// Where the page is to be written.
    pub out: PathBuf,
}

/// A method, and the pipeline that it is.
struct PreparedMethod {
    method: TrainingMethod,
    pipeline: Pipeline,
}

/// Encodes what the methods read, and trains and measures each of them. The heads are not kept, and the page is left to
/// [`write_methods`](crate::page::write_methods).
///
/// # Errors
/// Returns an error before anything is encoded if the page cannot be where it is to be written, the pipeline does not
/// suit one of the methods, the model is none whose layers can be trained, or there are no validation or test rows.
/// Also returns the errors of [`Experiment::run`](crate::Experiment::run).
pub fn compare_methods(
    pipeline: &Pipeline,
    request: &MethodRequest,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<MethodComparison> {
    pipeline.extraction.require_encoder("compare ways to train")?;
    require_place(pipeline, &request.out)?;
    let checkpoint = pipeline.extraction.checkpoint()?;
    let (base, methods) = prepare(pipeline, request, &checkpoint, progress)?;
    let dataset = checked_dataset(&base, progress)?;
    require_parts(pipeline, &dataset)?;
    let extracted = extract_with(&checkpoint, &base, machine, progress)?;
    let cache = CacheReader::existing(&extracted.cache)?;
    let model = ModelCache { checkpoint: Some(&checkpoint), cache: &cache };
    let metric = metric_of(pipeline, &dataset);
    progress.start("comparing", Some(methods.len() as u64), "methods");
    let mut compared = Vec::with_capacity(methods.len());
    let mut drawn = Vec::with_capacity(methods.len());
    let mut linear_head = 0;
    for PreparedMethod { method, pipeline } in &methods {
        let is_measured = process_memory::restart_peak();
        let mut tested =
            test_setting(pipeline, &dataset, model, (request.seeds, metric), progress)?;
        let peak = process_memory::peak_rss_bytes();
        linear_head = tested.linear_head;
        drawn.push(std::mem::take(&mut tested.drawn));
        let n_layers = pipeline.unfrozen_layers(model.layers())?;
        let row = row(*method, pipeline, (n_layers, metric), tested);
        if row.diverged > 0 {
            progress.warn(&format!(
                "{}: {} of {} diverged (a loss was not a number), so it has no score",
                row.title,
                row.diverged,
                row.values.len()
            ));
        }
        let peak_bytes = (is_measured && peak > 0).then_some(peak);
        compared.push(ComparedMethod { peak_bytes, ..row });
        progress.advance(1, 0);
    }
    progress.finish();
    compare_with_best(&mut compared, metric, &drawn);
    let all_layers = compared.iter().find(|method| method.unfreeze == model.layers());
    let fine_tuned = checkpoint.parameters()? + linear_head as u64;
    let rows = |part: Part| dataset.part(part).len();
    Ok(MethodComparison {
        task: pipeline.data.task.to_string(),
        model: checkpoint.folder.display().to_string(),
        metric,
        seeds: request.seeds,
        train: rows(Part::Train),
        validation: rows(Part::Validation),
        test: rows(Part::Test),
        encoded: extracted.computed,
        encoding_seconds: extracted.seconds,
        fine_tuning: FineTuningCost {
            trainable: fine_tuned,
            training_bytes: training_bytes(fine_tuned),
            least_seconds: all_layers.map(|method| method.seconds),
        },
        methods: compared,
        report: request.out.clone(),
    })
}

/// Returns the pipeline whose cache stores what all methods read, and the methods.
fn prepare(
    pipeline: &Pipeline,
    request: &MethodRequest,
    checkpoint: &Checkpoint,
    progress: &dyn Progress,
) -> Result<(Pipeline, Vec<PreparedMethod>)> {
    let pooling = pipeline.head.pooling;
    if pipeline.data.task.reads_pooled()
        && ![HeadPooling::Mean, HeadPooling::Cls, HeadPooling::Max].contains(&pooling)
    {
        return Err(pipeline.refuse(
            format!(
                "head.pooling is {pooling}, but the poolings that every method has are mean, cls and max"
            ),
            "set head.pooling to one of these, as in --set head.pooling=mean".into(),
        ));
    }
    let plain = pipeline.comparing(&[])?;
    let fits = |kind: &&str| plain.with_settings(&vec![("kind".into(), (*kind).into())]).is_ok();
    let feature_kind = FEATURE_KINDS.into_iter().find(fits);
    if feature_kind.is_none() {
        progress.note(
            "feature extraction is left out: neither a logistic nor a ridge head suits the pipeline",
        );
    }
    let n_layers = checkpoint.config.layers;
    require_layers(&request.methods, n_layers)?;
    let mut methods = request.methods.clone();
    if methods.is_empty() {
        methods.extend([TrainingMethod::Features, TrainingMethod::Linear, TrainingMethod::Mlp]);
        // All layers have a name of their own.
        let few = USUAL_LAYERS.into_iter().filter(|layers| *layers < n_layers);
        methods.extend(few.map(TrainingMethod::Top));
        methods.push(TrainingMethod::All);
    }
    let named = methods
        .iter()
        .map(|method| Some((*method, method.settings(feature_kind, request.epochs)?)));
    let named: Vec<(TrainingMethod, Settings)> = named.flatten().collect();
    let all: Vec<Settings> = named.iter().map(|(_, settings)| settings.clone()).collect();
    if pipeline.leaves_out_prompt(&all) {
        progress.note(
            "the model's default prompt is not used, because layers are trained from texts without prompts; \
             --methods features,linear,mlp compares heads with it",
        );
    }
    let base = pipeline.comparing(&all)?;
    let mut prepared = Vec::with_capacity(named.len());
    for (method, settings) in named {
        let pipeline = base.with_settings(&settings)?;
        prepared.push(PreparedMethod { method, pipeline });
    }
    if prepared.is_empty() {
        return Err(pipeline.refuse(
            "there is nothing to compare: no method is left".into(),
            "name others with --methods, as in --methods linear,top-1".into(),
        ));
    }
    // A family whose layers are not trained is found before anything is encoded.
    let trains_layers = |own: &&PreparedMethod| own.pipeline.file().unfreeze().is_some();
    if let Some(first) = prepared.iter().find(trains_layers) {
        UnfrozenLayers::read(&first.pipeline, Some(checkpoint))?;
    }
    base.check_model(checkpoint)?;
    Ok((base, prepared))
}

/// Returns an error if a method trains more layers than the model has.
fn require_layers(methods: &[TrainingMethod], n_layers: usize) -> Result<()> {
    let has_too_many =
        |method: &&TrainingMethod| matches!(method, TrainingMethod::Top(n) if *n > n_layers);
    match methods.iter().find(has_too_many) {
        None => Ok(()),
        Some(method) => Err(Error::Argument {
            action: "compare ways to train",
            expected: format!("at most the {} of the model", counted(n_layers, "layer")),
            got: format!("--methods {}", method.name()),
            hint: format!("name top-{n_layers} or fewer layers in --methods, or all"),
        }),
    }
}

/// The row of a method, but for its peak memory.
fn row(
    method: TrainingMethod,
    pipeline: &Pipeline,
    (unfreeze, metric): (usize, Metric),
    tested: TestedSetting,
) -> ComparedMethod {
    let kind = pipeline.head.kind.name().to_string();
    let trainable = tested.trained as u64;
    ComparedMethod {
        method: method.name(),
        title: method.title(&kind),
        kind,
        unfreeze,
        metric,
        value: tested.value,
        interval: tested.interval,
        difference: None,
        difference_interval: None,
        p_value: None,
        p_adjusted: None,
        values: tested.values,
        std: tested.std,
        diverged: tested.diverged,
        epochs: tested.epochs,
        seconds: tested.seconds,
        peak_bytes: None,
        trainable,
        training_bytes: training_bytes(trainable),
    }
}

/// What is compared: `sweep.select`, if labels alone decide it; else the accuracy of classes, or the task's own metric.
fn metric_of(pipeline: &Pipeline, dataset: &Dataset) -> Metric {
    let task = pipeline.data.task;
    let known = compared_by(task, dataset.labels.names());
    let asked = pipeline.selected_by.as_deref().and_then(Metric::named);
    let asked = asked.filter(|metric| known.contains(metric) && !metric.needs_probabilities());
    let usual = if task == Task::Classification { Metric::Accuracy } else { known[0] };
    asked.unwrap_or(usual)
}

/// Returns an error if there are no rows to choose an epoch by or to measure on.
fn require_parts(pipeline: &Pipeline, dataset: &Dataset) -> Result<()> {
    for (part, name) in [(Part::Validation, "validation"), (Part::Test, "test")] {
        if dataset.part(part).is_empty() {
            return Err(pipeline.refuse(
                format!(
                    "methods are compared on test rows, and validation rows choose their epochs, but there are no \
                     {name} rows"
                ),
                format!("name a file in data.{name}, or give data.split.{name} a share"),
            ));
        }
    }
    Ok(())
}

/// Returns an error if the page would be written into a folder that is not there, in place of a folder, or over a file
/// that the pipeline reads.
fn require_place(pipeline: &Pipeline, out: &Path) -> Result<()> {
    let refuse = |expected: &str, hint: String| Error::Argument {
        action: "write the page",
        expected: expected.into(),
        got: format!("`{}`", out.display()),
        hint,
    };
    let is_named_as_folder = out.to_string_lossy().ends_with(is_separator);
    if is_named_as_folder || out.is_dir() {
        let inside = out.join("methods.html");
        return Err(refuse(
            "a file, not a folder",
            format!("name the file too, as in --out {}", inside.display()),
        ));
    }
    let folder = folder_of(out);
    if !folder.is_dir() {
        return Err(refuse(
            "a file in a folder that exists",
            format!("create {}, or name another file with --out", folder.display()),
        ));
    }
    let labels = match &pipeline.data.labels {
        Some(Labels::File(path)) => Some(path),
        _ => None,
    };
    let sources = pipeline.extraction.sources.iter().map(|source| &source.path);
    let inputs = [&pipeline.path].into_iter().chain(labels).chain(sources);
    require_other_file(out, inputs.map(PathBuf::as_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_found_by_its_name_and_trains_what_it_says() {
        for name in ["features", "linear", "mlp", "top-1", "top-12", "all"] {
            let method = TrainingMethod::named(name).unwrap();
            assert_eq!(method.name(), name);
        }
        for name in
            ["", "top", "top-", "top-0", "top--1", "top-10001", "top-9223372036854775808", "Linear"]
        {
            assert_eq!(TrainingMethod::named(name), None, "{name}");
        }
        let keys = |method: TrainingMethod| -> Option<Vec<String>> {
            let settings = method.settings(None, 4)?;
            Some(settings.into_iter().map(|(key, _)| key).collect())
        };
        assert_eq!(keys(TrainingMethod::Features), None);
        assert_eq!(keys(TrainingMethod::Mlp).unwrap(), ["kind"]);
        assert_eq!(keys(TrainingMethod::All).unwrap(), ["kind", "unfreeze", "layers", "epochs"]);
    }
}
