//! `frostbert sweep`: the heads of a `[sweep]`, and the best of them compared with one another.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use frostbert::internals::prediction::sweep_pairs::{
    ComparedHeads, RankedHead, SweepPairs, sweep_pairs,
};

use super::{
    Context, DryRunArgument, ExtrasArguments, OverrideArguments, cache_pull::open_and_fetch,
    examples, open_record, output, screen::Screen, stage_two,
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct SweepArguments {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml", required = true)]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArguments,
    #[command(flatten)]
    dry: DryRunArgument,
    #[command(flatten)]
    extras: ExtrasArguments,
    #[command(subcommand)]
    command: Option<SweepCommand>,
}

#[derive(Debug, Subcommand)]
enum SweepCommand {
    #[command(about = "Compare the best heads of a finished sweep, any two of them", long_about = PAIRS_ABOUT, after_help = examples::SWEEP_PAIRS)]
    Pairs(PairsArguments),
}

const PAIRS_ABOUT: &str = "\
Compare the best heads of a finished sweep, any two of them

Scores are those of the leaderboard, on the rows that the heads did not see. Each pair has the difference of the second head to \
the first with its 95 % interval, and a p-value by the test of the leaderboard, which is adjusted by Holm for the number of pairs.";

#[derive(Debug, Args)]
struct PairsArguments {
    /// The run of a sweep: its folder, a name of runs (then the newest), or a tag
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// How many of the best heads are compared
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=50))]
    best: u16,
    /// Compare the heads of these ranks instead, such as 1,4,9
    #[arg(long, value_name = "RANKS", value_delimiter = ',', conflicts_with = "best")]
    heads: Vec<usize>,
}

pub(super) fn run(arguments: &SweepArguments, context: &Context) -> Result<ExitCode> {
    if let Some(SweepCommand::Pairs(arguments)) = &arguments.command {
        pairs(arguments, context)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(pipeline) = &arguments.pipeline else {
        unreachable!("clap asks for a pipeline file, or for a command")
    };
    let experiment = open_and_fetch(pipeline, &arguments.overrides, &arguments.dry, context)?;
    let experiment = arguments.extras.of(experiment);
    stage_two::run_sweep(&experiment, arguments.dry.dry_run, context)
}

fn pairs(arguments: &PairsArguments, context: &Context) -> Result<()> {
    let run = open_record(&arguments.run, context)?;
    let compared = match &arguments.heads[..] {
        [] => ComparedHeads::Best(arguments.best.into()),
        ranks => ComparedHeads::Ranks(ranks.to_vec()),
    };
    let pairs = sweep_pairs(&run, &compared)?;
    if context.json {
        return output::print_json(&pairs);
    }
    let mut screen = Screen::default();
    describe(&pairs, !arguments.heads.is_empty(), &mut screen);
    output::show(&screen)
}

/// Describes the pairs; `are_picked` says that their heads were named one by one.
fn describe(sweep: &SweepPairs, are_picked: bool, screen: &mut Screen) {
    screen.as_it_is(&format!("run         {}", sweep.run.display()));
    let settings = SettingsOfHeads::of(sweep);
    screen.table("heads", &head_lines(sweep, &settings));
    let notes = [settings.shared_sentence(sweep), rung_sentence(sweep)];
    screen.sentences("", &notes.into_iter().flatten().collect::<Vec<_>>());
    if sweep.pairs.is_empty() {
        screen.text("pairs       none: fewer than two heads have a score\n");
        return;
    }
    let header = ["a", "b", "b - a", "p", "p (Holm)"].map(String::from);
    let mut lines = vec![header.to_vec()];
    lines.extend(sweep.pairs.iter().map(|pair| {
        let p = |p: Option<f64>| p.map_or("-".into(), |p| format!("{p:.4}"));
        let interval = pair.ci.map(|[low, high]| format!(" [{low:+.3}, {high:+.3}]"));
        vec![
            pair.a.to_string(),
            pair.b.to_string(),
            format!("{:+.3}{}", pair.difference, interval.unwrap_or_default()),
            p(pair.p_value),
            p(pair.p_value_holm),
        ]
    }));
    screen.table("pairs", &lines);
    if let Some(test) = &sweep.test {
        let mut notes = vec![format!("p-values by {test}, two-sided")];
        if are_picked {
            notes.push(
                "Holm's correction counts these pairs alone: of heads that were picked after a look at the leaderboard, \
                 p-values are too small"
                    .into(),
            );
        }
        screen.sentences("", &notes);
    }
}

/// How many of the heads were trained to the end, where halving gave others up.
fn rung_sentence(sweep: &SweepPairs) -> Option<String> {
    let last = sweep.last_rung?;
    let heads = sweep.heads.iter();
    let n_whole = heads.filter(|head| head.rung == Some(last)).count();
    Some(match sweep.heads.len() {
        all if all == n_whole => format!("all were trained to the end, rung {last}"),
        all => format!(
            "{n_whole} of {all} were trained to the end, rung {last}: the scores of the others are after fewer epochs \
             and cannot be compared with theirs"
        ),
    })
}

/// What the sweep varied: the keys in which the heads differ, and those that all have the same value of.
struct SettingsOfHeads<'a> {
    differing: Vec<&'a String>,
    shared: Vec<&'a String>,
}

impl SettingsOfHeads<'_> {
    fn of(sweep: &SweepPairs) -> SettingsOfHeads<'_> {
        let heads = &sweep.heads;
        let keys: BTreeSet<&String> = heads.iter().flat_map(|head| head.settings.keys()).collect();
        let differs = |key: &&String| {
            let of = |head: &RankedHead| head.settings.get(*key).cloned();
            heads.iter().any(|head| of(head) != of(&heads[0]))
        };
        let (differing, shared) = keys.into_iter().partition(differs);
        SettingsOfHeads { differing, shared }
    }

    /// What the table leaves out, as it is the same for all.
    fn shared_sentence(&self, sweep: &SweepPairs) -> Option<String> {
        let first = sweep.heads.first().filter(|_| sweep.heads.len() > 1)?;
        let value = |key: &&String| {
            Some(format!("{key} {}", output::value_cell(first.settings.get(*key)?)))
        };
        let values: Vec<String> = self.shared.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| format!("the same for all: {}", values.join(", ")))
    }
}

/// The heads with the settings in which they differ.
fn head_lines(sweep: &SweepPairs, settings: &SettingsOfHeads<'_>) -> Vec<Vec<String>> {
    let keys = &settings.differing;
    let has_rungs = sweep.last_rung.is_some();
    let mut header = vec!["rank".to_string()];
    header.extend(keys.iter().map(ToString::to_string));
    header.extend(has_rungs.then(|| "rung".to_string()));
    header.push(sweep.metric.clone());
    let mut lines = vec![header];
    lines.extend(sweep.heads.iter().map(|head| {
        let value = |key: &&String| head.settings.get(*key).map_or("-".into(), output::value_cell);
        let mut line = vec![head.rank.to_string()];
        line.extend(keys.iter().map(value));
        let rung = head.rung.map_or("-".into(), |rung| rung.to_string());
        line.extend(has_rungs.then_some(rung));
        line.push(output::score_cell(head.score, head.ci));
        line
    }));
    lines
}
