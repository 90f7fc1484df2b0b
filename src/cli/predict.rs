//! `frostbert predict`: applies saved runs to new texts.

mod printing;
mod reading;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use frostbert::{
    cache::{
        progress::Progress,
        wording::{counted, printable},
    },
    internals::{
        data::{BadRows, ColumnName, Record, Source, StopReading, SwallowedLines},
        prediction::{
            prediction_file::{
                PredictionColumns, PredictionOutput, describe_input, list_bad_rows, predict_to_file,
            },
            predictor::Predictor,
            saved_run::SavedRun,
            several::{NamedPredictor, names_of},
        },
        report::row_writer::require_other_file,
    },
};

use self::{
    printing::print_all,
    reading::{read, say_how_to_skip},
};
use super::{Context, FormatArgument, moved::MovedArguments, output};

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
    /// With --out: also write these columns of FILE, unchanged ('*' for all); separated by commas
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        requires = "file",
        requires = "out"
    )]
    keep_columns: Vec<ColumnName>,
    /// Leave out records that cannot be read, rather than stop at the first; with --out, they are listed in a file next to
    /// the output
    #[arg(long, requires = "file")]
    skip_bad: bool,
    /// Put at most N texts through the model together, and do not read states from the run's cache; with 1, a text's
    /// prediction depends on no other text
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,
    /// With --out DIR/: the number of rows in a part. If a call was killed, the same call goes on after its last part
    #[arg(long, value_name = "N", default_value = "100000", requires = "out")]
    part_rows: NonZeroUsize,
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
    let (bad_rows, stop) = (BadRows::default(), StopReading::default());
    let file = arguments.file.as_deref();
    let read = file.map(|file| read(&runs[0], file, arguments, &bad_rows, &stop)).transpose()?;
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
    // For a few texts, it is not worth searching the cache, and its states come from other batches.
    let uses_cache = arguments.file.is_some() && !is_stdin && arguments.batch.is_none();
    let is_alone = runs.len() == 1;
    let open = |(run, name): (SavedRun, String)| -> Result<NamedPredictor> {
        let predictor = if uses_cache {
            Predictor::open_with_cache(run, &context.machine)?
        } else {
            Predictor::without_encoder(run, &context.machine)?
        };
        let mut predictor = match arguments.batch {
            Some(most) => predictor.with_batches_of(most.get()),
            None => predictor,
        };
        // Of several runs, one may load the encoder of all.
        if !uses_cache && is_alone {
            predictor.load()?;
        }
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
    let swallowed = Mutex::new(SwallowedLines::default());
    let records = records.into_iter().flatten();
    let records = records.map(|record| record.map_err(|error| say_how_to_skip(error, arguments)));
    let records = given.chain(records).inspect(|record| {
        if let Ok(record) = record {
            swallowed.lock().unwrap_or_else(PoisonError::into_inner).count(record);
        }
    });
    let n_skipped = match &arguments.out {
        Some(out) => {
            let to = OutputOf { out, source, bad_rows: &bad_rows, stop: &stop };
            write_file(&mut predictors, records, to, arguments, context)?
        }
        None => {
            let with_id = source.id.is_some();
            print_all(&mut predictors, records, &stop, with_id, arguments, context)?
        }
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
    if let (Some(words), Some(file)) =
        (swallowed.into_inner().unwrap_or_else(PoisonError::into_inner).in_words(), &arguments.file)
    {
        context.progress.warn(&format!("{}: {words}", file.display()));
    }
    if arguments.skip_bad && arguments.out.is_none() && bad_rows.count() > 0 {
        let left_out = counted(bad_rows.count(), "record");
        context.progress.warn(&format!(
            "{left_out} that cannot be read left out; with --out, they are listed in a file next to the output"
        ));
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

/// A file to write, and what is read for it.
struct OutputOf<'a> {
    out: &'a Path,
    source: Source,
    bad_rows: &'a BadRows,
    stop: &'a StopReading,
}

/// Writes a row for each record to a file, and returns the number of records without a text.
fn write_file(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = frostbert::Result<Record>> + Send,
    to: OutputOf<'_>,
    arguments: &PredictArguments,
    context: &Context,
) -> Result<u64> {
    let OutputOf { out, source, bad_rows, stop } = to;
    let inputs = arguments.file.iter().map(PathBuf::as_path);
    require_other_file(out, inputs)?;
    let texts: Vec<&String> = arguments.text.iter().chain(&arguments.text_pair).collect();
    let input = describe_input(arguments.file.is_some().then_some(&source), out, &texts)?;
    let name_of = |column: ColumnName, number_name: &str| match column {
        ColumnName::Name(name) => name,
        ColumnName::Number(_) if number_name == "id" => number_name.into(),
        ColumnName::Number(number) => format!("{number_name}_{number}"),
    };
    let kept = source.kept_columns.into_iter().map(|column| name_of(column, "column"));
    let columns = PredictionColumns {
        id: source.id.map(|column| name_of(column, "id")),
        may_lack_id: source.may_lack_id,
        kept: kept.collect(),
        texts: arguments.with_text,
        probabilities: arguments.probabilities,
        min_confidence: arguments.min_confidence,
    };
    let written = PredictionOutput {
        out: out.to_path_buf(),
        columns,
        part_rows: arguments.part_rows.get(),
        most_texts: arguments.batch.map(NonZeroUsize::get),
        input,
    };
    let mut report = predict_to_file(predictors, records, stop, &written, &context.progress)?;
    if arguments.skip_bad {
        let (n_bad, list) = list_bad_rows(bad_rows, out)?;
        report.bad = n_bad;
        if n_bad > 0 {
            context.progress.warn(&format!(
                "{} that cannot be read left out, listed in {}",
                counted(n_bad, "record"),
                list.display()
            ));
        }
    }
    if context.json {
        output::print_json(&report)?;
    } else {
        let rows = counted(report.rows, "row");
        output::print(&format!("predicted   {} ({rows})\n", report.out.display()))?;
    }
    Ok(report.skipped)
}
