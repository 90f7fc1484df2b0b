//! `frostbert init`: writes a pipeline file for a data file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::{
        progress::Progress,
        wording::{counted, part_of},
    },
    internals::{
        data::{
            Format, Source,
            inspect::{ColumnShape, FileShape},
        },
        encoder::{
            hub_model::{pull_instead, refuse_name_on_hub},
            prompts::FolderPrompts,
        },
        error::Error,
    },
};
use serde_json::json;

use super::{Context, format_named, machine::or_installed, output, wrong_usage};

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// The data file: csv, tsv, jsonl, parquet, conll, conllu, squad JSON, or one text per line (.txt)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The pipeline file to write; - for stdout [default: the data file's name with .toml, in this folder]
    #[arg(long, value_name = "PIPELINE.toml")]
    out: Option<PathBuf>,
    /// The model's folder
    #[arg(long, value_name = "DIR", default_value = "models/minilm")]
    model: PathBuf,
    /// The format of the file: csv, tsv, jsonl, json, parquet, lines, conll, conllu, squad or folder [default: by its
    /// extension]
    #[arg(long, value_name = "FORMAT", value_parser = format_named)]
    format: Option<Format>,
    /// The field separator of a csv file [default: the one that its first line has most of]
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,
    /// The encoding of a text file, such as latin1 [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// The first record of a csv or tsv file is a record, and columns are named by their numbers from 0
    #[arg(long)]
    no_header: bool,
    /// Replace an existing pipeline file
    #[arg(long)]
    force: bool,
}

pub(super) const ABOUT: &str = "\
Look at a data file, and write a commented pipeline file for it

The first records show which columns there are and what they contain: the columns of texts and of labels, whether the \
labels are classes or numbers, how many are missing, and what separates the fields. The findings are in the pipeline's \
comments: read them, correct what is wrong, and run it.";

pub(super) const EXAMPLES: &str = "\
Examples:
  frostbert init data/reviews.csv
  frostbert init data/banking77/train.csv --out intents.toml";

pub(super) fn run(arguments: &InitArguments, context: &Context) -> Result<ExitCode> {
    refuse_name_on_hub(&arguments.model)?;
    let model = or_installed(&arguments.model);
    if !model.exists()
        && let Some(hint) = pull_instead(&model)
    {
        context.progress.warn(&format!("there is no folder `{}`: {hint}", model.display()));
    }
    let prompts = FolderPrompts::read(&model)?;
    let mut source = Source::new(&arguments.file);
    source.format = arguments.format;
    source.delimiter = arguments.delimiter;
    source.header = !arguments.no_header;
    if let Some(encoding) = &arguments.encoding {
        source.encoding = encoding.clone();
    }
    require_table(arguments, source.resolve_format()?)?;
    let shape = FileShape::of(&source)?;
    if shape.may_lack_header {
        context.progress.warn(&format!(
            "{}: the first record looks like values, but is taken as the names of the columns: if it is a record, \
             call init again with --no-header",
            arguments.file.display()
        ));
    }
    let text = pipeline(&source, &model, &prompts, &shape);
    if arguments.out.as_deref() == Some(Path::new("-")) {
        output::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let mut name = arguments.file.clone();
            if name.extension().is_some_and(|extension| extension == "gz") {
                name.set_extension("");
            }
            let stem = name.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // The name must be valid for a folder, because it will be the name of the runs.
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
            let name: String = stem.chars().map(plain).collect();
            let name = name.trim_matches('-');
            PathBuf::from(format!("{}.toml", if name.is_empty() { "pipeline" } else { name }))
        }
    };
    if out.exists() && !arguments.force {
        return Err(wrong_usage(format!(
            "`{}` is there already: name another file with --out, or replace it with --force",
            out.display()
        )));
    }
    fs::write(&out, &text).map_err(Error::io("write", &out))?;
    if context.json {
        let name = |place: Option<usize>| place.map(|place| shape.columns[place].name.clone());
        output::print_json(&json!({
            "out": out.display().to_string(),
            "format": shape.format.to_string(),
            "header": source.header,
            "records": shape.n_records,
            "all": shape.is_whole,
            "columns": shape.columns.iter().map(|column| json!({
                "name": column.name,
                "filled": column.n_filled,
                "mean_characters": column.mean_chars,
                "values": column.n_values,
            })).collect::<Vec<_>>(),
            "text": name(shape.text),
            "text_pair": name(shape.text_pair),
            "label": name(shape.label),
            "id": name(shape.id),
        }))?;
    } else {
        // Without labels there is nothing to train.
        let command = if has_labels(&shape) { "run" } else { "extract" };
        let out = out.display();
        output::print(&format!("wrote       {out}\nnext        frostbert {command} {out}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses arguments that would become keys of a csv file in a source that is none.
fn require_table(arguments: &InitArguments, format: Format) -> Result<()> {
    if matches!(format, Format::Csv | Format::Tsv) {
        return Ok(());
    }
    let named =
        [arguments.no_header.then_some("--no-header"), arguments.delimiter.map(|_| "--delimiter")];
    match named.into_iter().flatten().next() {
        None => Ok(()),
        Some(name) => Err(wrong_usage(format!(
            "{name} is for csv and tsv files, but `{}` is read as {format}: leave {name} out, or add --format csv if it \
             is one",
            arguments.file.display()
        ))),
    }
}

/// Returns whether the file has labels to train a head on.
fn has_labels(shape: &FileShape) -> bool {
    shape.label.is_some()
        || matches!(shape.format, Format::Conll | Format::Conllu | Format::Squad | Format::Folder)
}

/// Makes a text fit into a comment, which ends at the end of its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Describes the contents of a column, for a comment.
fn described(column: &ColumnShape, n_records: usize) -> String {
    let missing = match n_records - column.n_filled.min(n_records) {
        0 => String::new(),
        n => format!(", {n} empty"),
    };
    let values = counted(column.n_values, "value");
    if column.is_number {
        format!("numbers, {values}{missing}")
    } else {
        format!("{:.0} characters on average, {values}{missing}", column.mean_chars)
    }
}

/// Quotes a text as a TOML string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Says which prompts a model has, and how one is chosen, in lines for comments; none if it has none.
fn on_prompts(prompts: &FolderPrompts) -> Vec<String> {
    let Some(described) = prompts.described() else {
        return Vec::new();
    };
    let open = match prompts.default_prompt() {
        Some((name, _)) => {
            format!("# Without the next key it is `{}`; \"\" is for none.", one_line(name))
        }
        None => "# Choose one of them, or \"\" for none.".into(),
    };
    vec![
        format!(
            "# The model was made for texts with a prompt before them: {}.",
            one_line(&described)
        ),
        open,
        "# prompt = \"\"".into(),
    ]
}

fn pipeline(source: &Source, model: &Path, prompts: &FolderPrompts, shape: &FileShape) -> String {
    let file = &source.path;
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let column = |place: usize| &shape.columns[place];
    let name = one_line(&file.display().to_string());
    line(&format!("# A pipeline for {name}, written by `frostbert init`."));
    if !shape.columns.is_empty() {
        let looked = counted(shape.n_records, "record");
        let first = if shape.is_whole { "" } else { "the first " };
        line(&format!("# In {first}{looked} the columns hold:"));
        for one in &shape.columns {
            let name = one_line(&one.name);
            line(&format!("#   {name}: {}", described(one, shape.n_records)));
        }
    }
    line("");
    line("[model]");
    line(&format!("path = {}", quoted(&model.display().to_string())));
    on_prompts(prompts).iter().for_each(|said| line(said));
    line("");
    line("[data]");
    let labels = shape.label.map(column);
    let is_number = labels
        .is_some_and(|labels| labels.is_number && (labels.has_decimals || labels.n_values > 50));
    let task = match (shape.format, shape.text_pair) {
        (Format::Conll | Format::Conllu, _) => "tokens",
        (Format::Squad, _) => "qa",
        (_, Some(_)) if is_number => "similarity",
        (_, _) if is_number => "regression",
        _ if labels.is_some_and(|labels| labels.is_list) => "multilabel",
        _ => "classification",
    };
    line(&format!(
        "task = {} # or another: classification, multilabel, regression, tokens, qa, similarity",
        quoted(task)
    ));
    let mut keys = vec![format!("path = {}", quoted(&file.display().to_string()))];
    if let Some(format) = source.format {
        keys.push(format!("format = {}", quoted(&format.to_string())));
    }
    if !source.header {
        keys.push("header = false".into());
    }
    for (key, place, default) in [
        ("text", shape.text, "text"),
        ("text_pair", shape.text_pair, ""),
        ("label", shape.label, "label"),
        ("id", shape.id, ""),
    ] {
        let Some(place) = place else {
            continue;
        };
        let name = &column(place).name;
        if !source.header {
            keys.push(format!("{key} = {place}"));
        } else if name != default {
            keys.push(format!("{key} = {}", quoted(name)));
        }
    }
    let usual = if shape.format == Format::Tsv { '\t' } else { ',' };
    if shape.delimiter != usual {
        keys.push(format!("delimiter = {}", quoted(&shape.delimiter.to_string())));
    }
    if source.encoding != "utf-8" {
        keys.push(format!("encoding = {}", quoted(&source.encoding)));
    }
    if shape.may_lack_header {
        line(
            "# The first record looks like values: if it is one, add header = false and name columns by number.",
        );
    }
    line(&format!("train = {{ {} }}", keys.join(", ")));
    line(
        "# test = { path = \"...\" } # else 15 % of train are kept for validation and 15 % for test",
    );
    if let Some(labels) = labels
        && labels.n_filled < shape.n_records
    {
        line(&format!(
            "clean = {{ drop_unlabelled = true }} # {} have no label",
            part_of(shape.n_records - labels.n_filled, shape.n_records, "record")
        ));
    }
    if !has_labels(shape) {
        line(
            "# Nothing here looks like labels: `frostbert extract` and `frostbert embed` need none, a head does.",
        );
    }
    if task == "classification" && has_labels(shape) {
        line("");
        line("[head]");
        line(
            "kind = \"logistic\" # fitted at once, its C chosen by folds; linear and mlp are trained in epochs",
        );
        line("");
        line("# To compare heads in place of training one:");
        line("# [sweep]");
        line("# kind = [\"logistic\", \"lda\"]");
        line("# folds = 5");
    }
    text
}
