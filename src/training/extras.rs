//! What a run writes beside what every run writes, where it is asked for.

use std::path::{Path, PathBuf};

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunExtras {
    /// The folder of TensorBoard in which the run has one.
    pub(crate) tensorboard: Option<PathBuf>,
    /// Whether the run holds what cleanlab's Datalab reads.
    pub(crate) datalab: bool,
}

impl RunExtras {
    /// The run's own folder of TensorBoard: named as in its folder of runs, `sentiment/001`.
    pub(crate) fn tensorboard_of(&self, run: &Path, run_dir: &Path) -> Option<PathBuf> {
        let name = run.file_name().map_or(run, Path::new);
        Some(self.tensorboard.as_ref()?.join(run.strip_prefix(run_dir).unwrap_or(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_tensorboard_is_named_as_the_run_is() {
        let extras = RunExtras { tensorboard: Some("logs".into()), ..RunExtras::default() };
        for (run, run_dir, expected) in [
            ("runs/sentiment/001", "runs", "logs/sentiment/001"),
            ("./runs/two/002/topics", "./runs", "logs/two/002/topics"),
            ("/elsewhere/003", "runs", "logs/003"),
        ] {
            let folder = extras.tensorboard_of(Path::new(run), Path::new(run_dir));
            assert_eq!(folder.as_deref(), Some(Path::new(expected)));
        }
        assert_eq!(RunExtras::default().tensorboard_of(Path::new("a"), Path::new("b")), None);
    }
}
