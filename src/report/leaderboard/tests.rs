use std::sync::Arc;

use arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    metrics::{
        intervals::Bootstrap, metric::Metric, row_statistics::RowStatistics, scores::Scores,
    },
    selection::leaderboard::{Candidate, SeedResult, tests::rank},
};

/// Simulates a sweep: for each setting, heads of two seeds that are right on 400 rows as often as `accuracy` says.
pub(crate) fn findings(
    settings: &[Vec<(&str, Value)>],
    continuous: &[String],
    accuracy: impl Fn(usize) -> f64,
) -> SweepFindings {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let gold: Arc<Vec<u32>> = Arc::new((0..400).map(|_| rng.gen_range(0..2)).collect());
    let candidates: Vec<Candidate> = settings
        .iter()
        .enumerate()
        .map(|(trial, settings)| {
            let outcomes = [1, 2].map(|_| {
                let chance = accuracy(trial) + f64::from(rng.gen_range(-10..10)) / 1_000.0;
                let predicted =
                    gold.iter().map(|class| class ^ u32::from(!rng.gen_bool(chance))).collect();
                SeedResult {
                    statistics: RowStatistics::classes(gold.clone(), predicted, 2),
                    fold_scores: vec![],
                    best_epochs: vec![trial % 5 + 1],
                    epochs: vec![10],
                    diverged: 0,
                }
            });
            let value =
                |key: &str| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
            let kind = value("kind").and_then(Value::as_str).unwrap_or("linear");
            let fraction = value("fraction").and_then(Value::as_float).unwrap_or(1.0);
            Candidate {
                kind: kind.into(),
                train_rows: (fraction * 500.0).round() as usize,
                settings: settings
                    .iter()
                    .map(|(key, value)| (key.to_string(), value.clone()))
                    .collect(),
                outcomes: outcomes.into(),
                rung: None,
            }
        })
        .collect();
    let draws = Bootstrap { resamples: 200, seed: 3 };
    SweepFindings::new(rank(&candidates, Metric::MacroF1, draws), continuous)
}

/// All layers, three poolings and two learning rates: better in the upper middle, and with the mean.
pub(crate) fn layers_and_poolings() -> SweepFindings {
    let mut settings = Vec::new();
    for layer in 0..13 {
        for pooling in ["mean", "cls", "max"] {
            for lr in [3e-4, 1e-3] {
                settings.push(vec![
                    ("layers", Value::Array(vec![layer.into()])),
                    ("pooling", pooling.into()),
                    ("lr", lr.into()),
                ]);
            }
        }
    }
    findings(&settings, &[], |trial| {
        let layer = (trial / 6) as f64;
        let pooling = [0.0, -0.04, -0.02][trial / 2 % 3];
        0.84 - 0.0025 * (layer - 9.0).powi(2) + pooling - 0.01 * (trial % 2) as f64
    })
}

/// Five shares of the training rows, and dropout from a distribution.
pub(crate) fn shares() -> SweepFindings {
    let mut settings = Vec::new();
    for fraction in [0.1, 0.25, 0.5, 0.75, 1.0] {
        for dropout in 0..8 {
            settings.push(vec![
                ("fraction", fraction.into()),
                ("dropout", (f64::from(dropout) / 17.0).into()),
            ]);
        }
    }
    findings(&settings, &["dropout".into()], |trial| {
        let fraction: f64 = [0.1, 0.25, 0.5, 0.75, 1.0][trial / 8];
        0.8 + 0.06 * fraction.ln() / 2.3 - 0.003 * (trial % 8) as f64
    })
}

/// As after a sweep that tests all heads, of which the second row's have no score.
pub(crate) fn with_test_scores(mut findings: SweepFindings) -> SweepFindings {
    let board = &findings.leaderboard;
    let rows = board.rows.iter();
    let scores = rows.map(|row| {
        let score = (row.rank != 2).then_some(1.0 / row.rank as f64);
        Scores::new([board.metric], [score], [Some([0.125, 1.0])])
    });
    findings.test = Some(scores.collect());
    findings
}

/// Three shares of the training rows for each of two kinds.
pub(crate) fn shares_of_kinds() -> SweepFindings {
    let mut settings = Vec::new();
    for kind in ["linear", "ridge"] {
        for fraction in [0.05, 0.5, 1.0] {
            settings.push(vec![("kind", kind.into()), ("fraction", fraction.into())]);
        }
    }
    findings(&settings, &[], |trial| [0.6, 0.7, 0.8, 0.7, 0.75, 0.78][trial])
}

fn written(findings: &SweepFindings) -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), findings, None, None).unwrap();
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn text(files: &[(String, Vec<u8>)], name: &str) -> String {
    let (_, bytes) = files.iter().find(|(file, _)| file == name).unwrap();
    String::from_utf8(bytes.clone()).unwrap()
}

#[test]
fn a_sweep_leaves_the_files_of_what_it_varied_and_equal_ones_the_same_bytes() {
    let files = written(&layers_and_poolings());
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        EFFECTS_FILE,
        EXPECTED_BEST_FILE,
        EXPECTED_BEST_PLOT,
        HEAT_MAP_FILE,
        HEAT_MAP_PLOT,
        LAYER_PROFILE_FILE,
        LAYER_PROFILE_PLOT,
        LEADERBOARD_CSV,
        LEADERBOARD_PARQUET,
        PAIRS_FILE,
    ];
    assert_eq!(names, expected);
    assert_eq!(files, written(&layers_and_poolings()));
    let names = |files: Vec<(String, Vec<u8>)>| files.into_iter().map(|(name, _)| name);
    let of_shares: Vec<String> = names(written(&shares())).collect();
    assert!(of_shares.contains(&LEARNING_CURVE_FILE.to_string()));
    assert!(of_shares.contains(&LEARNING_CURVE_PLOT.to_string()));
    assert!(!of_shares.contains(&HEAT_MAP_PLOT.to_string()));
}

#[test]
fn the_leaderboard_has_a_line_for_each_row_and_a_column_for_each_setting() {
    let findings = layers_and_poolings();
    let files = written(&findings);
    let text = text(&files, LEADERBOARD_CSV);
    let mut lines = text.lines();
    let names = "rank,trial,layers,pooling,lr,validation_macro_f1,low,high,not_worse_than_best,p_value,p_adjusted,\
                 n_seeds,seed_std,seed_min,seed_max,n_folds,fold_std,fold_min,fold_max,mean_best_epoch,mean_epochs";
    assert_eq!(lines.next(), Some(names));
    assert_eq!(lines.count(), 78);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    for (record, row) in reader.records().zip(&findings.leaderboard.rows) {
        let record = record.unwrap();
        assert_eq!(record[0], row.rank.to_string());
        assert_eq!(&record[2], show(row.setting("layers").unwrap()));
        assert_eq!(record[4].parse::<f64>().ok(), row.settings[2].1.as_float());
        assert_eq!(record[5].parse::<f64>().ok(), row.score);
        assert_eq!(record[8], row.not_worse_than_best.to_string());
        assert_eq!(record[10].parse::<f64>().ok(), row.p_adjusted);
        assert_eq!(&record[16], "");
    }
}

#[test]
fn test_scores_of_all_rows_stand_in_columns_that_say_what_they_are_not_for() {
    let files = written(&with_test_scores(shares()));
    let text = text(&files, LEADERBOARD_CSV);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    let first = names.iter().position(|name| name == "high").unwrap() + 1;
    let expected = [
        "test_macro_f1_not_for_selection",
        "test_low_not_for_selection",
        "test_high_not_for_selection",
        "not_worse_than_best",
    ];
    assert_eq!(names[first..first + 4], expected);
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    let cells = |row: usize| [0, 1, 2].map(|column| records[row][first + column].to_string());
    assert_eq!(cells(0), ["1", "0.125", "1"]);
    assert_eq!(cells(1), ["", "", ""]);
    assert_eq!(cells(3), ["0.25", "0.125", "1"]);
}

#[test]
fn parquet_and_csv_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let corrected =
        CorrectedScore { score: 0.5, ci: Some([0.25, 0.75]), prediction_interval: None };
    let findings = with_test_scores(shares());
    let sheet = leaderboard_sheet(&findings, Some((0, 0.25)), Some((0, corrected)));
    let [csv, parquet] = ["a.csv", "a.parquet"].map(|name| folder.path().join(name));
    sheet.write_csv(&csv).unwrap();
    sheet.write_parquet(&parquet).unwrap();
    let file = std::fs::File::open(parquet).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    let mut reader = csv::Reader::from_path(csv).unwrap();
    let names: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    let schema = batch.schema();
    let fields: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    assert_eq!(fields, names.iter().collect::<Vec<_>>());
    for (row, record) in reader.records().enumerate() {
        for (column, cell) in record.unwrap().iter().enumerate() {
            use arrow::datatypes::{DataType, Float64Type, Int64Type};
            let array = batch.column(column);
            let value = match array.data_type() {
                _ if array.is_null(row) => String::new(),
                DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
                DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
                DataType::Boolean => array.as_boolean().value(row).to_string(),
                _ => array.as_string::<i32>().value(row).to_string(),
            };
            assert_eq!(cell, value, "row {row}, {}", names[column]);
        }
    }
}

#[test]
fn settings_keep_their_types_and_mixed_ones_are_texts() {
    let settings = |value: Value| vec![("seed", 1.into()), ("weights", value)];
    let board = |values: [Value; 2]| findings(&values.map(settings), &[], |_| 0.7).leaderboard;
    let column = |values: [Value; 2]| format!("{:?}", setting_column(&board(values), "weights"));
    assert!(column([1.into(), 2.into()]).starts_with("Integers"));
    assert!(column([1.into(), 0.5.into()]).starts_with("Numbers"));
    assert!(column([true.into(), false.into()]).starts_with("Flags"));
    let mixed = column(["balanced".into(), vec![1, 2].into()]);
    assert!(mixed.starts_with("Texts") && mixed.contains("[1, 2]"), "{mixed}");
}

#[test]
fn pairs_are_written_with_their_test_and_one_head_alone_has_no_file_of_them() {
    let findings = shares();
    let text = text(&written(&findings), PAIRS_FILE);
    let pairs = &findings.leaderboard.pairs;
    assert_eq!(pairs.len(), 40 * 39 / 2);
    let [low, high] = pairs[0].interval.unwrap();
    let first = format!(
        "1,2,{},{low},{high},{},paired bootstrap",
        pairs[0].difference,
        pairs[0].p_value.unwrap()
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["a,b,difference,low,high,p_value,test", &first]);
    assert_eq!(lines.len(), 1 + pairs.len());
    let alone = findings_of_one();
    assert!(written(&alone).iter().all(|(name, _)| name != PAIRS_FILE));
}

/// A sweep of one head.
fn findings_of_one() -> SweepFindings {
    findings(&[vec![("lr", 0.1.into())]], &[], |_| 0.8)
}

#[test]
fn effects_and_curves_are_written_as_they_were_found() {
    let findings = shares();
    let files = written(&findings);
    let effects = text(&files, EFFECTS_FILE);
    let first = &findings.effects[0].values[0];
    let line = format!(
        "fraction,0.1,8,0,{},{},{}",
        first.mean.unwrap(),
        first.median.unwrap(),
        first.best.unwrap()
    );
    assert_eq!(effects.lines().nth(1), Some(line.as_str()));
    assert_eq!(effects.lines().count(), 1 + 5 + 5);
    let curve = text(&files, LEARNING_CURVE_FILE);
    assert_eq!(
        curve.lines().next(),
        Some("fraction,validation_macro_f1,low,high,seed_std,fold_std,heads")
    );
    assert_eq!(curve.lines().count(), 6);
    let expected = text(&files, EXPECTED_BEST_FILE);
    let line = format!("8,{}", findings.expected_best[7]);
    assert_eq!(expected.lines().last(), Some(line.as_str()));
}

#[test]
fn a_learning_curve_of_several_kinds_is_by_kind_and_by_training_rows() {
    let files = written(&shares_of_kinds());
    let curve = text(&files, LEARNING_CURVE_FILE);
    let lines: Vec<&str> = curve.lines().collect();
    let header = "kind,fraction,train_rows,validation_macro_f1,low,high,seed_std,fold_std,heads";
    assert_eq!(lines[0], header);
    let expected = [
        "linear,0.05,25,",
        "linear,0.5,250,",
        "linear,1,500,",
        "ridge,0.05,25,",
        "ridge,0.5,250,",
        "ridge,1,500,",
    ];
    assert_eq!(lines.len(), 1 + expected.len());
    for (line, start) in lines[1..].iter().zip(expected) {
        assert!(line.starts_with(start), "{line}");
    }
    let svg = text(&files, LEARNING_CURVE_PLOT);
    let shown: Vec<&str> = svg.lines().map(str::trim).collect();
    for wanted in ["linear", "ridge", "training rows", "50", "100", "200", "500"] {
        assert!(shown.contains(&wanted), "the curve lacks `{wanted}`");
    }
}

#[test]
fn pictures_say_what_they_show() {
    let files = written(&layers_and_poolings());
    let shown = |name: &str, wanted: &[&str]| {
        let svg = text(&files, name);
        assert!(svg.trim_end().ends_with("</svg>"));
        // Every text is on a line of its own.
        let lines: Vec<&str> = svg.lines().map(str::trim).collect();
        for wanted in wanted {
            assert!(lines.contains(wanted), "{name} lacks `{wanted}`");
        }
    };
    shown(LAYER_PROFILE_PLOT, &["layer", "validation macro_f1", "0", "12"]);
    shown(EXPECTED_BEST_PLOT, &["trials", "validation macro_f1"]);
    let findings = layers_and_poolings();
    let map = findings.heat_map.unwrap();
    let best = format!("{:.3}", findings.leaderboard.rows[0].score.unwrap());
    let worst = map.best.iter().flatten().flatten().copied().fold(1.0, f64::min);
    let worst = format!("{worst:.3}");
    shown(HEAT_MAP_PLOT, &["pooling", "[12]", "cls", &best, &worst]);
    let table = text(&files, HEAT_MAP_FILE);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "layers,pooling,best,mean");
    assert_eq!(lines.len(), 1 + map.rows.len() * map.columns.len());
    let first = format!("{},{},{},", map.rows[0], map.columns[0], map.best[0][0].unwrap());
    assert!(lines[1].starts_with(&first), "{table}");
}
