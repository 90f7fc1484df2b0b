//! `frostbert similar`: computes the similarity of texts from their states alone.

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgGroup, Args};
use frostbert::internals::prediction::similar::{compare, nearest};
use serde_json::json;

use super::{Context, PipelineArguments, output};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["text", "query"]))]
pub(super) struct SimilarArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// A text; give two to print their cosine
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// A text for which to find the nearest texts in the pipeline's files
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// What is put before the query or the two texts: one of the model's prompts by its name, or a text such as
    /// "query: " [default: model.prompt]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Number of nearest texts
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
}

pub(super) fn run(arguments: &SimilarArguments, context: &Context) -> Result<ExitCode> {
    let pipeline = arguments.pipeline.read(context)?;
    let prompt = arguments.prompt.as_deref();
    let Some(query) = &arguments.query else {
        let [first, second] = &arguments.text[..] else {
            return Err(super::wrong_usage(format!(
                "--text is given {} times: give two texts to compare, or one --query",
                arguments.text.len()
            )));
        };
        let texts = [first.as_str(), second];
        let score = compare(&pipeline, texts, prompt, &context.machine, &context.progress)?;
        if context.json {
            output::print_json(&json!({ "score": score }))?;
        } else {
            output::print(&format!("{score:.4}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let top = arguments.top as usize;
    let matches = nearest(&pipeline, query, prompt, top, &context.machine, &context.progress)?;
    if context.json {
        output::print_json(&json!({ "matches": matches }))?;
    } else {
        let lines = matches.iter().map(|found| {
            let text: Vec<&str> = found.text.split_whitespace().collect();
            format!("{:.4}  {}\n", found.score, text.join(" "))
        });
        output::print(&lines.collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}
