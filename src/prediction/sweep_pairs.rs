//! Heads of a sweep, each compared with each: what its run folder says of them.

use std::{
    collections::HashSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    metrics::comparison::holm,
    prediction::run_record::RunRecord,
    report::leaderboard::{LEADERBOARD_CSV, PAIRS_FILE, RUNG},
    selection::leaderboard::pairs::MOST_PAIRED,
};

/// Which heads are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComparedHeads {
    /// So many of the best.
    Best(usize),
    /// Those of these ranks.
    Ranks(Vec<usize>),
}

/// Heads of a sweep, and any two of them compared.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SweepPairs {
    /// The run folder of the sweep.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// The metric that orders the heads.
    pub metric: String,
    /// The test that the p-values come from; none without pairs.
    pub test: Option<String>,
    /// With halving, the rung of heads that were trained to the end; the others stopped earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rung: Option<usize>,
    /// The heads, the best first.
    pub heads: Vec<RankedHead>,
    /// Any two of them.
    pub pairs: Vec<HeadPair>,
}

/// A head of a leaderboard.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RankedHead {
    /// Its rank, from 1.
    pub rank: usize,
    /// What the sweep varies, with the values of this head.
    pub settings: Map<String, Value>,
    /// With halving, the last rung that it reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rung: Option<usize>,
    /// Its score on the rows that it did not see.
    pub score: f64,
    /// The 95 % interval of the score.
    pub ci: Option<[f64; 2]>,
}

/// Two heads of a leaderboard, by their ranks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HeadPair {
    /// The first.
    pub a: usize,
    /// The second, of a higher rank.
    pub b: usize,
    /// The score of the second minus that of the first.
    pub difference: f64,
    /// The 95 % interval of the difference.
    pub ci: Option<[f64; 2]>,
    /// The probability of such a difference between equally good heads.
    pub p_value: Option<f64>,
    /// The p-value, adjusted by Holm for the number of pairs.
    pub p_value_holm: Option<f64>,
}

/// A line of pairs.csv.
#[derive(Deserialize)]
struct PairLine {
    a: usize,
    b: usize,
    difference: f64,
    low: Option<f64>,
    high: Option<f64>,
    p_value: Option<f64>,
    test: String,
}

/// Heads of a sweep that have a score, and any two of them compared.
///
/// # Errors
/// When the run is not of a sweep, or was made before pairs were kept; when a rank is not among those that were compared;
/// when its files are damaged.
pub fn sweep_pairs(run: &RunRecord, compared: &ComparedHeads) -> Result<SweepPairs> {
    let path = run.folder.join(LEADERBOARD_CSV);
    if run.lock.winner.is_none() {
        return Err(Error::Run {
            path,
            expected: "the leaderboard of a sweep".into(),
            got: "a run of one head".into(),
            hint: "name a run of a pipeline with a section [sweep]".into(),
        });
    }
    let bytes = run.lock.read_output(&run.folder, LEADERBOARD_CSV)?;
    let RankedHeads { metric, last_rung, mut heads } = heads_in(&path, &bytes)?;
    match compared {
        ComparedHeads::Best(best) => heads.truncate(*best),
        ComparedHeads::Ranks(ranks) => {
            check_ranks(ranks, heads.len())?;
            heads.retain(|head| ranks.contains(&head.rank));
        }
    }
    let mut lines = if heads.len() < 2 { Vec::new() } else { pair_lines(&run.folder)? };
    let ranks: HashSet<usize> = heads.iter().map(|head| head.rank).collect();
    lines.retain(|pair| ranks.contains(&pair.a) && ranks.contains(&pair.b));
    let known: Vec<f64> = lines.iter().filter_map(|pair| pair.p_value).collect();
    let mut adjusted = holm(&known).into_iter();
    let test = lines.first().map(|pair| pair.test.clone());
    let pairs = lines.into_iter().map(|pair| HeadPair {
        a: pair.a,
        b: pair.b,
        difference: pair.difference,
        ci: pair.low.zip(pair.high).map(|(low, high)| [low, high]),
        p_value: pair.p_value,
        p_value_holm: pair.p_value.and_then(|_| adjusted.next()),
    });
    let pairs = pairs.collect();
    Ok(SweepPairs { run: run.folder.clone(), metric, test, last_rung, heads, pairs })
}

/// Refuses ranks of which no pairs are kept; those of `n_scored` heads follow each other.
fn check_ranks(ranks: &[usize], n_scored: usize) -> Result<()> {
    let most = n_scored.min(MOST_PAIRED);
    let distinct: HashSet<&usize> = ranks.iter().collect();
    let unknown = ranks.iter().find(|rank| !(1..=most).contains(*rank));
    if distinct.len() > 1 && unknown.is_none() {
        return Ok(());
    }
    Err(Error::Argument {
        action: "compare these heads",
        expected: format!(
            "two ranks or more from 1 to {most}: those of the best {MOST_PAIRED} heads that have a score"
        ),
        got: match unknown {
            Some(rank) => format!("rank {rank}"),
            None => format!("{} of them", distinct.len()),
        },
        hint: format!("{LEADERBOARD_CSV} in the run folder lists all heads with their ranks"),
    })
}

/// What a leaderboard says of its heads.
struct RankedHeads {
    metric: String,
    /// The last rung that any head reached, where there are rungs.
    last_rung: Option<usize>,
    /// Those that have a score.
    heads: Vec<RankedHead>,
}

fn heads_in(path: &Path, bytes: &[u8]) -> Result<RankedHeads> {
    let mut reader = csv::Reader::from_reader(bytes);
    let names = reader.headers().map_err(|error| damaged(path, error.to_string()))?.clone();
    let place = |wanted: &dyn Fn(&str) -> bool| names.iter().position(wanted);
    let score_at = place(&|name| name.starts_with(SCORE));
    let score_at = score_at.ok_or_else(|| damaged(path, "no column of scores".into()))?;
    let rung_at = place(&|name| name == RUNG);
    let settings_end = rung_at.unwrap_or(score_at);
    let mut last_rung: Option<usize> = None;
    let mut heads = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| damaged(path, error.to_string()))?;
        let rung: Option<usize> = rung_at.and_then(|column| record.get(column)?.parse().ok());
        last_rung = last_rung.max(rung);
        let number = |column: usize| record.get(column).and_then(|cell| cell.parse::<f64>().ok());
        let Some(score) = number(score_at) else {
            continue;
        };
        let rank = record.get(0).and_then(|cell| cell.parse().ok());
        let settings = (FIRST_SETTING..settings_end).filter_map(|column| {
            let cell = record.get(column).filter(|cell| !cell.is_empty())?;
            Some((names[column].to_string(), setting(cell)))
        });
        heads.push(RankedHead {
            rank: rank.ok_or_else(|| damaged(path, "a line without a rank".into()))?,
            settings: settings.collect(),
            rung,
            score,
            ci: number(score_at + 1).zip(number(score_at + 2)).map(|(low, high)| [low, high]),
        });
    }
    Ok(RankedHeads { metric: names[score_at][SCORE.len()..].to_string(), last_rung, heads })
}

/// How the name of a leaderboard's column of scores begins; what follows is the metric.
const SCORE: &str = "validation_";

/// The first column of settings, after rank and trial.
const FIRST_SETTING: usize = 2;

/// A cell of a setting: a number, a truth value or a list where it is one, else a text.
fn setting(cell: &str) -> Value {
    serde_json::from_str(cell).unwrap_or_else(|_| cell.into())
}

fn pair_lines(run: &Path) -> Result<Vec<PairLine>> {
    let path = run.join(PAIRS_FILE);
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::Run {
            path: path.clone(),
            expected: "the comparison of the sweep's heads with one another".into(),
            got: "no such file".into(),
            hint: "the sweep was made by an earlier version, which kept none: make it again with `frostbert run --locked`"
                .into(),
        },
        _ => Error::io("read", &path)(error),
    })?;
    let mut reader = csv::Reader::from_reader(&bytes[..]);
    let lines: Result<Vec<PairLine>, csv::Error> = reader.deserialize().collect();
    lines.map_err(|error| damaged(&path, error.to_string()))
}

fn damaged(path: &Path, got: String) -> Error {
    Error::Run {
        path: path.to_path_buf(),
        expected: "a table that a sweep writes".into(),
        got,
        hint: "copy the run folder again, or make the sweep again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_with_the_types_of_their_settings() {
        let csv = "rank,trial,kind,hidden,lr,rung,validation_macro_f1,low,high,p_value\n\
                   1,2,mlp,\"[8, 4]\",0.01,2,0.75,0.5,0.875,\n\
                   2,0,ridge,,,3,0.5,,,0.25\n\
                   3,1,linear,,1e38,0,,,,\n";
        let RankedHeads { metric, last_rung, heads } =
            heads_in(Path::new("leaderboard.csv"), csv.as_bytes()).unwrap();
        assert_eq!((metric.as_str(), last_rung), ("macro_f1", Some(3)));
        let settings = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let first = RankedHead {
            rank: 1,
            settings: settings(r#"{ "kind": "mlp", "hidden": [8, 4], "lr": 0.01 }"#),
            rung: Some(2),
            score: 0.75,
            ci: Some([0.5, 0.875]),
        };
        let second = RankedHead {
            rank: 2,
            settings: settings(r#"{ "kind": "ridge" }"#),
            rung: Some(3),
            score: 0.5,
            ci: None,
        };
        assert_eq!(heads, [first, second], "one without a score is left out");
    }
    #[test]
    fn ranks_that_no_pair_is_kept_of_are_refused() {
        check_ranks(&[3, 1], 3).unwrap();
        for (ranks, n_scored, got) in [
            (&[1, 4][..], 3, "rank 4"),
            (&[0, 1][..], 3, "rank 0"),
            (&[1, MOST_PAIRED + 1][..], 200, "rank 51"),
            (&[2, 2][..], 3, "1 of them"),
        ] {
            let error = check_ranks(ranks, n_scored).unwrap_err().to_string();
            assert!(error.contains(&format!("got {got}")), "{error}");
        }
    }
}
