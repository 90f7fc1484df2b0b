//! `frostbert predict`: applies saved runs to new texts.

use std::{
    cell::RefCell,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use frostbert::{
    cache::{
        progress::Progress,
        wording::{counted, printable},
    },
    internals::{
        data::{
            self, BadRows, ColumnName, Format, Record, Records, Source, SwallowedLines,
            WantedFields,
        },
        prediction::{
            prediction_file::{PredictionColumns, predict_to_file},
            predictor::Predictor,
            saved_run::SavedRun,
            several::{NamedPredictor, names_of, predict_with_all, records_at_a_time},
        },
        report::row_writer::require_other_file,
        tasks::prediction::{EntitySpan, Prediction},
    },
};
use serde_json::{Map, Value};

use super::{
    Context, FormatArgument,
    moved::MovedArguments,
    output::{self, Reader},
};

/// The most records predicted at a time where the results go to a terminal, so that the first ones appear soon.
const SHOWN_AT_A_TIME: usize = 256;

/// Labels that are listed with their probabilities, where nothing else is asked for.
const LISTED_LABELS: usize = 3;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("texts").required(true).multiple(true).args(["text", "file"]))]
pub(super) struct PredictArguments {
    /// A run: its folder, a name or folder of runs (the newest is used), or a tag
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Another run that predicts for the same texts; the predictions of each run are listed under its name. May be
    /// repeated
    #[arg(long = "run", value_name = "RUN")]
    more_runs: Vec<PathBuf>,
    /// A text (or a question); may be repeated
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// The second text of a pair, or the context of a question; one for each --text
    #[arg(long, value_name = "TEXT", requires = "text")]
    text_pair: Vec<String>,
    /// A file of texts, read with the settings of the run's train source; - for stdin (lines, unless --format is given)
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgument,
    /// The column of texts, if it is not that of the train source
    #[arg(long, value_name = "COLUMN", requires = "file")]
    text_column: Option<ColumnName>,
    /// The column of second texts
    #[arg(long, value_name = "COLUMN", requires = "file")]
    text_pair_column: Option<ColumnName>,
    /// A column of identifiers, to be copied to the output [default: that of the train source, if FILE has it and is
    /// neither stdin nor a pipe]
    #[arg(long, value_name = "COLUMN", requires = "file")]
    id_column: Option<ColumnName>,
    /// Override a setting for reading the file, as in delimiter=; or encoding=latin1
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::key_and_value, requires = "file")]
    set: Vec<String>,
    /// List the N most probable labels [default: 3; with --json all, in the order of their ids]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "out")]
    top: Option<u16>,
    /// Leave the label empty if its probability is lower
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    min_confidence: f32,
    /// Write a row for each record to this file: .csv, .jsonl or .parquet; with DIR/, to part-00000.parquet and so
    /// on in this folder
    #[arg(long, value_name = "FILE or DIR/")]
    out: Option<PathBuf>,
    /// With --out: also write a column p_<label> for each label
    #[arg(long, requires = "out")]
    probabilities: bool,
    /// With --out: also write the texts
    #[arg(long, requires = "out")]
    with_text: bool,
    #[command(flatten)]
    moved: MovedArguments,
}

/// The error is reported by clap as wrong usage.
fn probability(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value: &f32| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "expected a probability, from 0 to 1".into())
}

pub(super) const EXAMPLES: &str = "\
Examples:
  frostbert predict runs/sentiment --text \"I would buy it again.\"
  frostbert predict runs/sentiment data/held_out.csv --out predictions.csv --with-text";

pub(super) fn run(arguments: &PredictArguments, context: &Context) -> Result<ExitCode> {
    let relocation = arguments.moved.relocation();
    let runs = std::iter::once(&arguments.run).chain(&arguments.more_runs);
    let runs = runs.map(|run| super::open_run(run, &relocation, context));
    let runs: Vec<SavedRun> = runs.collect::<Result<_>>()?;
    let summaries: Vec<String> = runs.iter().map(SavedRun::summary).collect();
    let read = arguments.file.as_deref().map(|file| read(&runs[0], file, arguments)).transpose()?;
    let (records, source) = read.unzip();
    let source = source.unwrap_or_else(|| Source::new(""));
    let n_pairs = arguments.text_pair.len();
    if n_pairs > 0 && n_pairs != arguments.text.len() {
        return Err(super::wrong_usage(format!(
            "--text is given {} times and --text-pair {n_pairs}: give a --text-pair for each --text",
            arguments.text.len()
        )));
    }
    let is_stdin = arguments.file.as_deref() == Some(Path::new("-"));
    let open = |(run, name): (SavedRun, String)| -> Result<NamedPredictor> {
        // For a few texts, it is not worth searching the cache.
        let predictor = match &arguments.file {
            Some(_) if !is_stdin => Predictor::open_with_cache(run, &context.machine)?,
            _ => Predictor::open(run, &context.machine)?,
        };
        Ok(NamedPredictor { name, predictor })
    };
    let folders: Vec<_> = runs.iter().map(|run| run.folder.canonicalize().ok()).collect();
    if let Some(twice) = (1..runs.len()).find(|place| folders[..*place].contains(&folders[*place]))
    {
        return Err(super::wrong_usage(format!(
            "the run {} is named twice",
            runs[twice].folder.display()
        )));
    }
    let names = names_of(&runs);
    let mut predictors = runs.into_iter().zip(names).map(open).collect::<Result<Vec<_>>>()?;
    // The run that predicts is named even with --quiet.
    for summary in summaries {
        output::say(&format!("note: {}", printable(&summary)));
    }
    let given = arguments.text.iter().enumerate().map(|(number, text)| {
        Ok(Record {
            text: text.clone(),
            text_pair: arguments.text_pair.get(number).cloned(),
            ..Record::default()
        })
    });
    let swallowed = RefCell::new(SwallowedLines::default());
    let records = given.chain(records.into_iter().flatten()).inspect(|record| {
        if let Ok(record) = record {
            swallowed.borrow_mut().count(record);
        }
    });
    let n_skipped = match &arguments.out {
        Some(out) => write_file(&mut predictors, records, source, out, arguments, context)?,
        None => print_all(&mut predictors, records, source.id.is_some(), arguments, context)?,
    };
    for NamedPredictor { predictor, .. } in &predictors {
        if predictor.reused() > 0 {
            context.progress.note(&format!(
                "the states of {} were in the run's cache",
                counted(predictor.reused(), "text")
            ));
        }
        if let Some(problem) = predictor.cache_problem() {
            context.progress.warn(problem);
        }
    }
    if let (Some(words), Some(file)) = (swallowed.into_inner().in_words(), &arguments.file) {
        context.progress.warn(&format!("{}: {words}", file.display()));
    }
    if n_skipped > 0 {
        let were = if n_skipped == 1 { "was" } else { "were" };
        context
            .progress
            .warn(&format!("{} without a text {were} skipped", counted(n_skipped, "record"),));
    }
    let truncated = predictors.iter().map(|one| one.predictor.truncated()).max().unwrap_or(0);
    if truncated > 0 {
        context.progress.warn(&format!(
            "the {} cut off: longer than the run's max_length",
            match truncated {
                1 => "end of 1 text was".to_owned(),
                n => format!("ends of {} were", counted(n, "text")),
            }
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a row for each record to a file, and returns the number of records without a text.
fn write_file(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = frostbert::Result<Record>>,
    source: Source,
    out: &Path,
    arguments: &PredictArguments,
    context: &Context,
) -> Result<u64> {
    let columns = PredictionColumns {
        id: source.id.map(|column| match column {
            ColumnName::Name(name) => name,
            ColumnName::Number(_) => "id".into(),
        }),
        may_lack_id: source.may_lack_id,
        texts: arguments.with_text,
        probabilities: arguments.probabilities,
        min_confidence: arguments.min_confidence,
    };
    let inputs = arguments.file.iter().map(PathBuf::as_path);
    require_other_file(out, inputs)?;
    let report = predict_to_file(predictors, records, &columns, out, &context.progress)?;
    if context.json {
        output::print_json(&report)?;
    } else {
        let rows = counted(report.rows, "row");
        output::print(&format!("predicted   {} ({rows})\n", report.out.display()))?;
    }
    Ok(report.skipped)
}

/// Prints the predictions for each record, for programs with its id if `with_id`, and returns the number of records without
/// a text.
fn print_all(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = frostbert::Result<Record>>,
    with_id: bool,
    arguments: &PredictArguments,
    context: &Context,
) -> Result<u64> {
    let is_stdin = arguments.file.as_deref() == Some(Path::new("-"));
    // Who types is answered line by line.
    let most = match (is_stdin, std::io::stdout().is_terminal()) {
        (true, _) => 1,
        (false, true) => SHOWN_AT_A_TIME,
        (false, false) => usize::MAX,
    };
    let at_a_time = records_at_a_time(predictors).min(most);
    let shows_progress = arguments.file.is_some() && !is_stdin && !std::io::stdout().is_terminal();
    if shows_progress {
        context.progress.start("predicting", None, "rows");
    }
    let printed = print_chunks(predictors, records, with_id, at_a_time, arguments, context);
    if shows_progress {
        context.progress.finish();
    }
    printed
}

fn print_chunks(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = frostbert::Result<Record>>,
    with_id: bool,
    at_a_time: usize,
    arguments: &PredictArguments,
    context: &Context,
) -> Result<u64> {
    let mut n_skipped = 0;
    let mut records = records.peekable();
    while records.peek().is_some() {
        let chunk = records.by_ref().take(at_a_time).collect::<Result<Vec<Record>, _>>()?;
        let n_records = chunk.len() as u64;
        let mut text = String::new();
        let rows = predict_with_all(predictors, chunk)?;
        let mut rows: Vec<_> = rows.into_iter().map(Vec::into_iter).collect();
        for _ in 0..n_records {
            let mut said = Vec::with_capacity(rows.len());
            for rows in &mut rows {
                if let Some((record, Some(prediction))) = rows.next() {
                    let id = record.id.as_deref().filter(|_| with_id);
                    said.push(shown(id, prediction, arguments, context)?);
                }
            }
            if said.is_empty() {
                n_skipped += 1;
            } else {
                text.push_str(&side_by_side(predictors, said, context.json)?);
            }
        }
        context.progress.advance(n_records, 0);
        let reader =
            if context.json { output::write(&text) } else { output::write(&printable(&text)) };
        // If the reader has gone, there is nothing left to do.
        if reader? == Reader::Gone {
            break;
        }
    }
    Ok(n_skipped)
}

/// Joins the predictions of several runs for a record. For programs, they are one object with the keys of each
/// prediction prefixed with the name of its run; for people, they follow one another. A single prediction is returned
/// unchanged.
fn side_by_side(
    predictors: &[NamedPredictor],
    mut said: Vec<String>,
    json: bool,
) -> Result<String> {
    if said.len() == 1 {
        return Ok(said.remove(0));
    }
    let named = predictors.iter().map(|one| &one.name).zip(&said);
    if !json {
        return Ok(named.map(|(name, said)| format!("{name}: {said}")).collect());
    }
    let mut all = Map::new();
    for (name, said) in named {
        let own: Map<String, Value> = serde_json::from_str(said)?;
        for (key, value) in own {
            let key =
                if OF_RECORDS.contains(&key.as_str()) { key } else { format!("{name}.{key}") };
            all.insert(key, value);
        }
    }
    Ok(serde_json::to_string(&all)? + "\n")
}

/// The keys of a prediction that belong to its record.
const OF_RECORDS: [&str; 4] = ["id", "text", "text_pair", "question"];

/// Reads the records of a file, and returns as what it is read: the ids that it names are to be copied.
fn read(saved: &SavedRun, file: &Path, arguments: &PredictArguments) -> Result<(Records, Source)> {
    let want = WantedFields { label: false, text_pair: saved.pipeline.reads_pairs() };
    let format = arguments.format.format;
    let with_columns = |source: Source| Source {
        text: arguments.text_column.clone().or(source.text),
        text_pair: arguments.text_pair_column.clone().or(source.text_pair),
        id: arguments.id_column.clone().or(source.id),
        // Every record gets a row, even if the run skipped bad ones.
        skip_bad: None,
        ..source
    };
    if file == Path::new("-") {
        let name = Path::new("standard input");
        let source = match format {
            Some(_) => saved.source_with(name, format, &arguments.set)?,
            None => {
                let source = saved.source_with(name, Some(Format::Lines), &arguments.set)?;
                Source { text: None, ..source }
            }
        };
        let source = with_columns(source);
        return Ok((data::read_from(std::io::stdin(), &source, want)?, source));
    }
    let source = with_columns(saved.source_with(file, format, &arguments.set)?);
    if source.id.is_none()
        && let Some(id) = saved.id_column(&source)
    {
        let with_ids = Source { id: Some(id), may_lack_id: true, ..source.clone() };
        // Nobody asked for these ids: if they cannot be read, the file is read without them.
        if let Ok(records) = data::read_once(&with_ids, want, &BadRows::default()) {
            return Ok((records, with_ids));
        }
    }
    let records = data::read_once(&source, want, &BadRows::default());
    let records = records.map_err(|error| saved.explain_format(file, format, error))?;
    Ok((records, source))
}

/// Formats a prediction: one line of JSON, with the id of its record if it is given, or one or more lines for people.
fn shown(
    id: Option<&str>,
    mut prediction: Prediction,
    arguments: &PredictArguments,
    context: &Context,
) -> Result<String> {
    prediction.withhold_below(arguments.min_confidence);
    if !context.json {
        return Ok(describe(&prediction, arguments.top.map_or(LISTED_LABELS, usize::from)) + "\n");
    }
    if let Some(n) = arguments.top {
        prediction.keep_most_probable(usize::from(n));
    }
    let mut line = serde_json::to_string(&prediction)? + "\n";
    if let Some(id) = id {
        line.insert_str(1, &format!("\"id\":{},", serde_json::to_string(id)?));
    }
    Ok(line)
}

fn describe(prediction: &Prediction, n_listed: usize) -> String {
    match prediction {
        Prediction::Class { text, text_pair, label, confidence, probabilities: all } => {
            let texts = both(text, text_pair.as_deref());
            let label = if label.is_empty() { "-" } else { label };
            format!("{label}  {confidence:.3}  {texts}{}", probabilities(all, n_listed))
        }
        Prediction::Labels { text, text_pair, labels, probabilities: all } => {
            let labels = if labels.is_empty() { "-".to_string() } else { labels.join(", ") };
            let texts = both(text, text_pair.as_deref());
            format!("{labels}  {texts}{}", probabilities(all, n_listed))
        }
        Prediction::Value { text, text_pair, value } => {
            format!("{value:.3}  {}", both(text, text_pair.as_deref()))
        }
        Prediction::Tags { words, labels, entities, .. } => {
            let tagged = words.iter().zip(labels);
            let tagged: Vec<String> = tagged
                .map(|(word, label)| match label.as_str() {
                    "O" => word.clone(),
                    label => format!("{word}/{label}"),
                })
                .collect();
            let entities: Vec<String> = entities.iter().map(entity).collect();
            if entities.is_empty() {
                tagged.join(" ")
            } else {
                format!("{}\n    {}", tagged.join(" "), entities.join("  "))
            }
        }
        Prediction::Answer { question, answer, start, end, score } => {
            let answer = match (answer, start, end) {
                (Some(answer), Some(start), Some(end)) => {
                    format!("{}  ({start}..{end})", one_line(answer))
                }
                _ => "no answer".to_string(),
            };
            format!("{answer}  {score:.2}  {}", one_line(question))
        }
    }
}

/// Formats the most probable labels, in descending order.
fn probabilities(all: &[(String, f32)], n_listed: usize) -> String {
    let mut listed: Vec<&(String, f32)> = all.iter().collect();
    listed.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    listed.truncate(n_listed);
    let listed = listed.into_iter();
    let listed = listed.map(|(label, probability)| format!("{label} {probability:.3}"));
    format!("\n    {}", listed.collect::<Vec<_>>().join("  "))
}

fn entity(entity: &EntitySpan) -> String {
    format!("{} `{}` ({}..{})", entity.label, one_line(&entity.text), entity.start, entity.end)
}

fn both(text: &str, text_pair: Option<&str>) -> String {
    match text_pair {
        None => one_line(text),
        Some(second) => format!("{} | {}", one_line(text), one_line(second)),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
