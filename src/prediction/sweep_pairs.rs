//! The best heads of a sweep, each compared with each: what its run folder says of them.

use std::{
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
    report::leaderboard::{LEADERBOARD_CSV, PAIRS_FILE},
};

/// The best heads of a sweep, and any two of them compared.
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

/// The `best` heads of a sweep that have a score, and any two of them compared.
///
/// # Errors
/// When the run is not of a sweep, or was made before pairs were kept; when its files are damaged.
pub fn sweep_pairs(run: &RunRecord, best: usize) -> Result<SweepPairs> {
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
    let (metric, mut heads) = heads_in(&path, &bytes)?;
    heads.truncate(best);
    let mut lines = if heads.len() < 2 { Vec::new() } else { pair_lines(&run.folder)? };
    lines.retain(|pair| pair.a <= heads.len() && pair.b <= heads.len());
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
    Ok(SweepPairs { run: run.folder.clone(), metric, test, heads, pairs })
}

/// The metric of a leaderboard, and its heads that have a score.
fn heads_in(path: &Path, bytes: &[u8]) -> Result<(String, Vec<RankedHead>)> {
    let mut reader = csv::Reader::from_reader(bytes);
    let names = reader.headers().map_err(|error| damaged(path, error.to_string()))?.clone();
    let place = |wanted: &dyn Fn(&str) -> bool| names.iter().position(wanted);
    let score_at = place(&|name| name.starts_with(SCORE));
    let score_at = score_at.ok_or_else(|| damaged(path, "no column of scores".into()))?;
    let settings_end = place(&|name| name == "rung").unwrap_or(score_at);
    let mut heads = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| damaged(path, error.to_string()))?;
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
            score,
            ci: number(score_at + 1).zip(number(score_at + 2)).map(|(low, high)| [low, high]),
        });
    }
    Ok((names[score_at][SCORE.len()..].to_string(), heads))
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
                   1,2,mlp,\"[8, 4]\",0.01,3,0.75,0.5,0.875,\n\
                   2,0,ridge,,,3,0.5,,,0.25\n\
                   3,1,linear,,1e38,0,,,,\n";
        let (metric, heads) = heads_in(Path::new("leaderboard.csv"), csv.as_bytes()).unwrap();
        assert_eq!(metric, "macro_f1");
        let settings = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let first = RankedHead {
            rank: 1,
            settings: settings(r#"{ "kind": "mlp", "hidden": [8, 4], "lr": 0.01 }"#),
            score: 0.75,
            ci: Some([0.5, 0.875]),
        };
        let second = RankedHead {
            rank: 2,
            settings: settings(r#"{ "kind": "ridge" }"#),
            score: 0.5,
            ci: None,
        };
        assert_eq!(heads, [first, second], "one without a score is left out");
    }
}
