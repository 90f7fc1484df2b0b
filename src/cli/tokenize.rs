//! `frostbert tokenize`: shows a text as the encoder sees it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::internals::encoder::{tokenizer::TextTokenizer, windows::Overflow};
use serde_json::json;

use super::{Context, machine::or_installed, output, screen};

#[derive(Debug, Args)]
pub(super) struct TokenizeArguments {
    /// A checkpoint folder
    #[arg(long, value_name = "DIR", default_value = "models/minilm")]
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "TEXT")]
    text: String,
}

pub(super) fn run(arguments: &TokenizeArguments, context: &Context) -> Result<ExitCode> {
    // The text is never truncated here, however long it is.
    let model = or_installed(&arguments.model);
    let tokenizer = TextTokenizer::of_model(&model, usize::MAX, Overflow::Truncate)?;
    let table = tokenizer.table(&arguments.text)?;
    if context.json {
        output::print_json(&json!({
            "tokens": table.tokens,
            "ids": table.ids,
            "offsets": table.offsets,
            "word_ids": table.word_ids,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![["token", "id", "characters", "word"].map(String::from).to_vec()];
    for (place, token) in table.tokens.iter().enumerate() {
        let (start, end) = table.offsets[place];
        let word = table.word_ids[place];
        lines.push(vec![
            token.clone(),
            table.ids[place].to_string(),
            word.map_or("-".into(), |_| format!("{start}..{end}")),
            word.map_or("-".into(), |word| word.to_string()),
        ]);
    }
    output::print(&screen::align(&lines))?;
    Ok(ExitCode::SUCCESS)
}
