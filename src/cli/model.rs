//! `frostbert model`: describes checkpoints and the cost of training on them, fetches them, and verifies their files.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Subcommand;
use frostbert::{
    cache::wording::counted,
    internals::{
        encoder::{
            checkpoint::Checkpoint,
            device::Precision,
            sentence_folder::{SentenceFolder, SentenceSummary},
            source::{Verified, verify},
            tokenizer_file::TokenizerFile,
        },
        head::size::{head_sizes, training_bytes},
    },
};
use indicatif::HumanCount;
use serde_json::json;

use super::{Context, examples, output, screen};

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Show layers and sizes, and the cost of training heads compared with full fine-tuning
    #[command(after_help = examples::MODEL_INFO)]
    Info {
        /// A checkpoint folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Number of outputs of the heads
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        classes: u32,
    },
    /// Fetch a model from the Hugging Face hub, or resume an interrupted pull
    ///
    /// This is the only command that opens a network connection. Every file is checked against the hub's hash. HF_TOKEN
    /// (or the token file of the hub's own tools) gives access to private and gated models, HF_ENDPOINT names another
    /// hub, and HTTPS_PROXY a proxy. If the disk has no room for the model, nothing is fetched unless --yes is given.
    #[cfg(feature = "hub")]
    #[command(after_help = examples::MODEL_PULL)]
    Pull(super::hub::PullArguments),
    /// Read every file of a model, and compare its size and SHA-256 with those recorded by the pull
    #[command(after_help = examples::MODEL_VERIFY)]
    Verify {
        /// Checkpoint folders
        #[arg(value_name = "DIR", required = true)]
        folders: Vec<PathBuf>,
    },
}

pub(super) fn run(command: &ModelCommand, context: &Context) -> Result<ExitCode> {
    match command {
        ModelCommand::Info { folder, classes } => info(folder, *classes as usize, context),
        #[cfg(feature = "hub")]
        ModelCommand::Pull(arguments) => super::hub::pull_model(arguments, context),
        ModelCommand::Verify { folders } => verify_models(folders, context),
    }
}

fn verify_models(folders: &[PathBuf], context: &Context) -> Result<ExitCode> {
    let mut n_files = 0;
    let mut damaged = Vec::new();
    let mut text = String::new();
    for folder in folders {
        let verified = verify(folder)?;
        n_files += verified.files.len();
        let broken = verified.files.iter().filter(|file| file.damage.is_some());
        damaged.extend(broken.map(|file| file.path.clone()));
        text.push_str(&verified_text(folder, &verified));
    }
    if context.json {
        output::print_json(&json!({ "files": n_files, "damaged": output::shown(&damaged) }))?;
    } else {
        text.push_str(&format!(
            "{} checked, {} damaged\n",
            counted(n_files, "file"),
            damaged.len()
        ));
        output::print(&text)?;
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verified_text(folder: &Path, verified: &Verified) -> String {
    let mut text = match &verified.source {
        Some(source) => {
            format!("{}: {} at {}\n", folder.display(), source.repository, source.revision)
        }
        None => format!(
            "{}: no source.json, so there are no hashes to compare with; the blake3 of each whole file is shown\n",
            folder.display()
        ),
    };
    for file in &verified.files {
        let path = file.path.display();
        text.push_str(&match (&file.damage, &file.blake3) {
            (Some(damage), _) => format!("damaged: {path}: {damage}\n"),
            (None, Some(blake3)) => format!("whole: {path} {blake3}\n"),
            (None, None) => format!("whole: {path}\n"),
        });
    }
    text
}

/// Says from what a tokenizer was built, and what was taken although no file says so.
fn built_tokenizer(tokenizer: &TokenizerFile) -> String {
    let path = tokenizer.path.display();
    let warning = tokenizer.warning.iter().map(|warning| format!("warning: {warning}\n"));
    format!("tokenizer: built from {path}, as there is no tokenizer.json\n")
        + &warning.collect::<String>()
}

/// The number of values of the sentence vectors that heads read if a pipeline leaves the pooling to the folder: of a
/// single pooling they read that.
fn width_of_sentences(sentence: &SentenceSummary) -> Option<usize> {
    sentence.dimensions.filter(|_| sentence.pooling.len() > 1)
}

fn info(folder: &Path, classes: usize, context: &Context) -> Result<ExitCode> {
    let checkpoint = Checkpoint::open(folder)?;
    let config = &checkpoint.config;
    let parameters = checkpoint.parameters()?;
    let cpu = checkpoint.graph_profile("cpu", Precision::F32);
    let cuda = checkpoint.graph_profile("cuda", Precision::F32);
    let int8 = checkpoint.check_precision(Precision::Int8);
    let int8 = int8.is_ok().then(|| checkpoint.graph_profile("cpu", Precision::Int8));
    let sentence = SentenceFolder::read(folder)?;
    let sentence = sentence.map(|sentence| sentence.summary(config.hidden)).transpose()?;
    let width = sentence.as_ref().and_then(width_of_sentences).unwrap_or(config.hidden);
    let heads = head_sizes(width, config.hidden, classes);
    // Fine-tuning trains the encoder together with a linear head.
    let fine_tuned = parameters + heads[0].trainable;
    if context.json {
        let mut report = json!({
            "family": config.family,
            "layers": config.layers,
            "hidden": config.hidden,
            "vocabulary": config.vocabulary,
            "parameters": parameters,
            "attention_heads": config.attention_heads,
            "intermediate": config.intermediate,
            "max_tokens": config.max_tokens,
            "graphs": { "cpu": cpu, "cpu_int8": int8, "cuda": cuda },
            "tokenizer": checkpoint.tokenizer.path.display().to_string(),
            "heads": heads,
            "fine_tuning": { "trainable": fine_tuned, "training_bytes": training_bytes(fine_tuned) },
        });
        if let Some(sentence) = sentence {
            report["sentence_transformers"] = json!(sentence);
        }
        output::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    // A model.onnx may lack some of these.
    let known = |size: Option<usize>| size.map_or("?".into(), |size| size.to_string());
    let mut text = format!(
        "{}: {}, {} layers of {} (feed-forward {}, {} attention heads), vocabulary {}, at most {} tokens\n\
         frozen parameters: {}\n\
         graph: {cpu}{}; on CUDA {cuda}\n\n",
        folder.display(),
        config.family,
        config.layers,
        config.hidden,
        known(config.intermediate),
        known(config.attention_heads),
        HumanCount(config.vocabulary as u64),
        known(config.max_tokens),
        HumanCount(parameters),
        int8.map_or(String::new(), |graph| format!(", with 8-bit weights {graph}")),
    );
    let tokenizer = &checkpoint.tokenizer;
    if tokenizer.is_built {
        text.insert_str(0, &built_tokenizer(tokenizer));
    }
    if let Some(sentence) = &sentence {
        text.push_str(&of_sentence(sentence));
        text.push('\n');
    }
    let mut lines =
        vec![["what is trained", "trainable", "training memory", ""].map(String::from).to_vec()];
    for head in &heads {
        lines.push(vec![
            head.kind.to_string(),
            HumanCount(head.trainable).to_string(),
            output::bytes(head.training_bytes),
            head.description.clone(),
        ]);
    }
    lines.push(vec![
        "full fine-tuning".into(),
        HumanCount(fine_tuned).to_string(),
        output::bytes(training_bytes(fine_tuned)),
        "encoder and a linear head".into(),
    ]);
    text.push_str(&screen::align(&lines));
    text.push_str(
        "\nTraining memory: f32 weights, gradients and Adam's two moments, 16 bytes per parameter; activations come \
         on top.\n",
    );
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What the folder says as one of sentence-transformers, and what is made of it.
fn of_sentence(summary: &SentenceSummary) -> String {
    let words = |words: &[String], none: &str| match words {
        [] => none.to_string(),
        words => words.join(", "),
    };
    let vector = match (&summary.sentence, summary.dimensions) {
        (Some(steps), Some(values)) => format!("{steps}: {values} values"),
        _ => "none is computed".into(),
    };
    let length = summary.max_length.map_or("not given: 128".into(), |length| length.to_string());
    let mut facts = vec![("sentence-transformers", words(&summary.parts, "no modules"))];
    match &summary.multi_vector {
        None => facts.extend([
            ("pooling", words(&summary.pooling, "not computed")),
            ("longest input", length),
            ("sentence vector", vector),
        ]),
        Some(tokens) => facts.extend([
            ("longest document", length),
            ("queries", tokens.queries.clone()),
            ("token vectors", format!("{}: {} values", tokens.steps, tokens.dimensions)),
            ("tokens", tokens.tokens.clone()),
            ("similarity", tokens.similarity.clone()),
        ]),
    }
    if let Some(refused) = &summary.refused {
        facts.push(("not run", refused.clone()));
    }
    let prompts = summary.prompts.iter().filter(|(_, text)| !text.is_empty());
    let prompts = prompts.map(|(name, text)| {
        let is_default = summary.default_prompt.as_ref() == Some(name);
        format!("{name} {text:?}{}", if is_default { " (the default)" } else { "" })
    });
    let mut prompts = prompts.collect::<Vec<_>>().join(", ");
    if !prompts.is_empty() {
        if !summary.include_prompt {
            prompts.push_str("; left out of the pooling");
        }
        facts.push(("prompts", prompts));
    }
    facts.push(("ignored", words(&summary.ignored, "nothing")));
    screen::facts(&facts)
}
