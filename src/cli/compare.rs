//! `frostbert compare`: feature extraction, head replacement and trained layers, measured side by side.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::wording::counted,
    internals::{
        experiment::methods::{MOST_LAYERS, MethodRequest, TrainingMethod, compare_methods},
        page::write_methods,
        report::methods::{ComparedMethod, MethodComparison, PEAK_COUNTS},
    },
};
use indicatif::HumanCount;

use super::{Context, PipelineArguments, output, screen::Screen};

pub(super) const ABOUT: &str = "\
Compare feature extraction, new heads and trained layers on one cache: score, time, memory

Trains the pipeline's task in several ways on the same rows: a head that is fitted to the states in full batch \
(features), a linear head and one with hidden layers (linear, mlp), the last layer or layers of the encoder with a \
linear head (top-1, top-2), and all layers (all). Texts are encoded once. Prints for each the score on the test rows \
with its 95 % interval, the seconds and the peak memory of its training, and the parameters that are trained; beside \
them, computed, what full fine-tuning would need. Writes a page with the same figures. The heads are not kept: \
`frostbert run` makes a run of what suits.";

pub(super) const EXAMPLES: &str = "\
Examples:
  frostbert compare pipelines/sentiment.toml --methods linear,top-1 --seeds 1
  frostbert compare pipelines/sentiment.toml --methods features,mlp --out methods.html --json";

#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// The methods, in this order: features, linear, mlp, top-1, top-2 and so on, all [default: these, as far as the
    /// model has the layers]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = method_named)]
    methods: Vec<TrainingMethod>,
    /// Number of heads of each method, with other initial weights and dropout; the score is their mean
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,
    /// Number of epochs where layers are trained, of which validation chooses one; heads alone have those of the
    /// pipeline
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    epochs: u32,
    /// Where the page goes
    #[arg(long, value_name = "FILE", default_value = "methods.html")]
    out: PathBuf,
}

/// The error is reported by clap as wrong usage.
fn method_named(name: &str) -> Result<TrainingMethod, String> {
    TrainingMethod::named(name.trim()).ok_or_else(|| {
        format!(
            "expected features, linear, mlp, all, or top-1, top-2 and so on to top-{MOST_LAYERS} for the last layers"
        )
    })
}

pub(super) fn run(arguments: &CompareArguments, context: &Context) -> Result<ExitCode> {
    let pipeline = arguments.pipeline.read(context)?;
    let request = MethodRequest {
        methods: arguments.methods.clone(),
        seeds: arguments.seeds as usize,
        epochs: arguments.epochs as usize,
        out: arguments.out.clone(),
    };
    let comparison = compare_methods(&pipeline, &request, &context.machine, &context.progress)?;
    if context.json {
        output::print_json(&comparison)?;
    } else {
        let mut screen = Screen::default();
        describe(&comparison, &mut screen);
        output::show(&screen)?;
    }
    // After the figures, which took long, are shown: whatever hinders the page does not lose them.
    write_methods(&comparison)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what was compared, then a line for each method, and one for full fine-tuning.
fn describe(comparison: &MethodComparison, screen: &mut Screen) {
    screen.text(&format!(
        "task        {}: {}, {} and {}",
        comparison.task,
        counted(comparison.train, "train row"),
        counted(comparison.validation, "validation row"),
        counted(comparison.test, "test row"),
    ));
    screen.text(&format!(
        "encoding    {} in {:.1} s, once for all methods",
        counted(comparison.encoded, "text"),
        comparison.encoding_seconds
    ));
    let metric = comparison.metric.in_words();
    let titles = ["method", &metric, "to the best (p)", "seconds", "memory", "trained", "computed"];
    let mut lines = vec![titles.map(String::from).to_vec()];
    lines.extend(comparison.methods.iter().map(line));
    let everything = &comparison.fine_tuning;
    let least = everything.least_seconds.map(|least| format!("over {}", seconds(least)));
    lines.push(vec![
        "full fine-tuning".into(),
        "-".into(),
        "-".into(),
        least.unwrap_or_else(|| "-".into()),
        "-".into(),
        HumanCount(everything.trainable).to_string(),
        output::bytes(everything.training_bytes),
    ]);
    screen.table("methods", &lines);
    screen.sentences("", &comparison.sentences());
    let notes = format!(
        "To the best: the difference on the same test rows, and its p of the paired bootstrap after Holm's method, \
         which does not cover another training with other seeds. Memory: {PEAK_COUNTS}. Computed: f32 weights, \
         gradients and Adam's two moments, 16 bytes for each trained parameter; activations come on top."
    );
    screen.sentences("", &[notes]);
    screen.as_it_is(&format!("page        {}", comparison.report.display()));
}

fn line(method: &ComparedMethod) -> Vec<String> {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let is_named = method.unfreeze > 0 || method.method == method.kind;
    let score = method.value.map(|value| match method.interval {
        Some([low, high]) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        None => format!("{value:.3}"),
    });
    vec![
        if is_named {
            method.method.clone()
        } else {
            format!("{} ({})", method.method, method.kind)
        },
        or_nothing(score),
        or_nothing(to_the_best(method)),
        seconds(method.seconds),
        or_nothing(method.peak_bytes.map(output::bytes)),
        HumanCount(method.trainable).to_string(),
        output::bytes(method.training_bytes),
    ]
}

/// The difference to the best method with its adjusted p-value.
fn to_the_best(method: &ComparedMethod) -> Option<String> {
    let p = method.p_adjusted.map(|p| format!(" ({p:.3})"));
    method.difference.map(|difference| format!("{difference:+.3}{}", p.unwrap_or_default()))
}

/// Seconds with as many digits as say something.
fn seconds(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{seconds:.3}"),
        1.0..100.0 => format!("{seconds:.1}"),
        _ => format!("{seconds:.0}"),
    }
}
