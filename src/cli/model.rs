//! `frostbert model`: what a checkpoint is, and what training over it costs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Subcommand;
use frostbert::{
    encoder::checkpoint::Checkpoint,
    head::size::{head_sizes, training_bytes},
};
use indicatif::HumanCount;
use serde_json::json;

use super::{Context, output};

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Show layers, sizes, and what heads cost to train beside full fine-tuning
    Info {
        /// A checkpoint folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Outputs of the heads that are counted
        #[arg(long, value_name = "N", default_value_t = 2)]
        classes: usize,
    },
}

pub(super) fn run(command: &ModelCommand, context: &Context) -> Result<ExitCode> {
    let ModelCommand::Info { folder, classes } = command;
    let checkpoint = Checkpoint::open(folder)?;
    let config = &checkpoint.config;
    let parameters = checkpoint.parameters()?;
    let heads = head_sizes(config.hidden, *classes);
    // Fine-tuning trains the encoder and a linear head together.
    let fine_tuned = parameters + heads[0].trainable;
    if context.json {
        output::print_json(&json!({
            "family": config.family,
            "layers": config.layers,
            "hidden": config.hidden,
            "vocabulary": config.vocabulary,
            "parameters": parameters,
            "attention_heads": config.attention_heads,
            "intermediate": config.intermediate,
            "max_tokens": config.max_tokens,
            "heads": heads,
            "fine_tuning": { "trainable": fine_tuned, "training_bytes": training_bytes(fine_tuned) },
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    // A model.onnx need not say everything.
    let known = |size: Option<usize>| size.map_or("?".into(), |size| size.to_string());
    let mut text = format!(
        "{}: {}, {} layers of {} (feed-forward {}, {} attention heads), vocabulary {}, at most {} tokens\n\
         frozen parameters: {}\n\n",
        folder.display(),
        config.family,
        config.layers,
        config.hidden,
        known(config.intermediate),
        known(config.attention_heads),
        HumanCount(config.vocabulary as u64),
        known(config.max_tokens),
        HumanCount(parameters),
    );
    let mut lines = vec![
        ["what is trained", "trainable", "training memory", ""]
            .map(String::from)
            .to_vec(),
    ];
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
    text.push_str(&output::align(&lines));
    text.push_str("\nTraining memory: f32 weights, gradients and Adam's two moments, 16 bytes a parameter; activations come on top.\n");
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
