//! `frostbert similar`: computes the similarity of texts from their states alone.

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgGroup, Args};
use frostbert::{
    cache::progress::Progress,
    internals::{
        config::settings::Pipeline,
        prediction::{
            multi_vector::{compare_multi_vectors, nearest_multi_vectors},
            similar::{compare, nearest},
        },
    },
};
use serde_json::json;

use super::{Context, PipelineArguments, output};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["text", "query"]))]
pub(super) struct SimilarArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// A text; give two to print their similarity
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// A text for which to find the nearest texts in the pipeline's files
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// Compare by the vectors of tokens of a multi-vector model, such as a ColBERT: the sum over the query's vectors of
    /// the largest dot product with one of the text's. Of two texts, the first is the query
    #[arg(long)]
    multi_vector: bool,
    /// What is put before the query or the two texts (with --multi-vector, before the query alone): one of the model's
    /// prompts by its name, or a text such as "query: " [default: model.prompt; with --multi-vector, the model's prompt
    /// of queries]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Number of nearest texts
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
}

pub(super) fn run(arguments: &SimilarArguments, context: &Context) -> Result<ExitCode> {
    let pipeline = arguments.pipeline.read(context)?;
    let prompt = arguments.prompt.as_deref();
    say_what_prompt(arguments, &pipeline, context);
    let Some(query) = &arguments.query else {
        let [first, second] = &arguments.text[..] else {
            return Err(super::wrong_usage(format!(
                "--text is given {} times: give two texts to compare, or one --query",
                arguments.text.len()
            )));
        };
        let texts = [first.as_str(), second];
        let compare = if arguments.multi_vector { compare_multi_vectors } else { compare };
        let score = compare(&pipeline, texts, prompt, &context.machine, &context.progress)?;
        if context.json {
            output::print_json(&json!({ "score": score }))?;
        } else {
            output::print(&format!("{score:.4}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let top = arguments.top as usize;
    let nearest = if arguments.multi_vector { nearest_multi_vectors } else { nearest };
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

/// Says which texts `--prompt` is put before, as notes on the pipeline are about its own prompts, and warns if a source
/// alone has a prompt. A multi-vector model has a prompt of queries of its own.
fn say_what_prompt(arguments: &SimilarArguments, pipeline: &Pipeline, context: &Context) {
    if arguments.multi_vector {
        return;
    }
    match (&arguments.prompt, &arguments.query) {
        (Some(_), Some(_)) => context.progress.note(
            "--prompt is put before the query alone: the texts of the files have the prompts of the pipeline file",
        ),
        (Some(_), None) => {
            context.progress.note("--prompt is put before both texts, in place of model.prompt");
        }
        (None, _) => {
            if let Some(lacking) = pipeline.lacking_query_prompt() {
                context.progress.warn(&lacking);
            }
        }
    }
}
