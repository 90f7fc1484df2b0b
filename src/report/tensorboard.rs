//! What TensorBoard shows of a run, and of the trials of a sweep: numbers by epoch, and the settings that they come from.

mod event_file;

use std::path::Path;

use toml::Value;

use self::event_file::EventFile;
use crate::{
    error::Result,
    head::trained_head::EpochRecord,
    metrics::scores::Scores,
    selection::leaderboard::{Leaderboard, LeaderboardRow},
};

/// Trials that have a folder, the best first: TensorBoard reads each of them.
pub(crate) const MOST_TRIALS: usize = 1000;

/// A run, as far as TensorBoard shows it.
pub(crate) struct RunEvents<'a> {
    pub(crate) history: &'a [EpochRecord],
    /// The epoch that was kept; 0 for a head without epochs.
    pub(crate) best_epoch: usize,
    /// The metrics of the finished head on each part.
    pub(crate) parts: Vec<(&'static str, &'a Scores)>,
    /// The settings to compare it with others by.
    pub(crate) settings: &'a [(String, Value)],
}

/// Writes the events of a run to its folder of TensorBoard: losses, learning rate and validation metrics by epoch, and the
/// metrics of the finished head, at the epoch that was kept.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn write_run(folder: &Path, run: &RunEvents<'_>) -> Result<()> {
    let mut file = EventFile::new(folder);
    for epoch in run.history {
        let step = epoch.epoch;
        file.scalar("learning_rate", step, epoch.lr);
        file.scalar("loss/train", step, epoch.train_loss);
        if let Some(loss) = epoch.validation_loss {
            file.scalar("loss/validation", step, loss);
        }
        for (metric, value) in &epoch.scores {
            file.scalar(&format!("validation/{metric}"), step, *value);
        }
    }
    for (part, scores) in &run.parts {
        // Those of validation are there epoch by epoch already, before the temperature and the thresholds were fitted.
        let tag = if *part == "validation" { "validation_finished" } else { *part };
        for score in scores.iter() {
            file.scalar(&format!("{tag}/{}", score.metric), run.best_epoch, score.value);
        }
    }
    file.session(run.settings, true);
    file.write()
}

/// Writes the trials of a sweep, each to a folder of its own below that of the sweep: its settings, and its score on
/// validation with the interval, at the mean of the epochs that were kept. Returns how many of them were left out.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn write_trials(folder: &Path, board: &Leaderboard) -> Result<usize> {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("trial-") && entry.path().is_dir() {
            event_file::remove_events(&entry.path())?;
        }
    }
    for row in board.rows.iter().take(MOST_TRIALS) {
        write_trial(&folder.join(format!("trial-{:04}", row.trial)), board, row)?;
    }
    Ok(board.rows.len().saturating_sub(MOST_TRIALS))
}

fn write_trial(folder: &Path, board: &Leaderboard, row: &LeaderboardRow) -> Result<()> {
    let mut file = EventFile::new(folder);
    let step = row.best_epoch.map_or(0, |epoch| epoch.round() as usize);
    let tag = format!("validation/{}", board.metric);
    if let Some(score) = row.score {
        file.scalar(&tag, step, score);
    }
    if let Some([low, high]) = row.interval {
        file.scalar(&format!("{tag}_low"), step, low);
        file.scalar(&format!("{tag}_high"), step, high);
    }
    file.session(&row.settings, row.score.is_some());
    file.write()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::metric::Metric, report::leaderboard::tests::layers_and_poolings};

    fn files(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names.extend(files(&path));
            } else {
                names.push(path.display().to_string());
            }
        }
        names
    }

    #[test]
    fn a_run_is_one_file_with_every_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let history = [1, 2].map(|epoch| EpochRecord {
            epoch,
            lr: 1e-3,
            train_loss: 0.5,
            validation_loss: Some(0.4),
            scores: vec![(Metric::MacroF1, 0.7)],
        });
        let scores = Scores::new([Metric::Accuracy], [Some(0.75)], [None]);
        let run = RunEvents {
            history: &history,
            best_epoch: 2,
            parts: vec![("validation", &scores), ("test", &scores)],
            settings: &[("train.lr".into(), 0.01.into())],
        };
        write_run(&folder.path().join("tiny/001"), &run).unwrap();
        let files = files(folder.path());
        assert!(
            files.len() == 1 && files[0].contains("tiny/001/events.out.tfevents."),
            "{files:?}"
        );
        let bytes = std::fs::read(&files[0]).unwrap();
        let count =
            |text: &str| bytes.windows(text.len()).filter(|w| *w == text.as_bytes()).count();
        for (tag, times) in [
            ("loss/train", 2),
            ("loss/validation", 2),
            ("learning_rate", 2),
            ("validation/macro_f1", 2),
            ("test/accuracy", 1),
            ("validation_finished/accuracy", 1),
            ("train.lr", 1),
        ] {
            assert_eq!(count(tag), times, "{tag}");
        }
    }

    #[test]
    fn every_trial_of_a_sweep_has_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let findings = layers_and_poolings();
        assert_eq!(write_trials(folder.path(), &findings.leaderboard).unwrap(), 0);
        let files = files(folder.path());
        assert_eq!(files.len(), findings.leaderboard.rows.len());
        assert!(files.iter().any(|file| file.contains("trial-0077/events")), "{files:?}");
    }
}
