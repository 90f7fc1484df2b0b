//! The data files of a pipeline as they are read: with what the whole section says of each.

use crate::{
    config::file::{DataSection, Sources},
    data::Source,
};

/// The sources of train, and those of validation and test where these are given.
pub(super) struct FilesAsRead {
    pub(super) train: Vec<Source>,
    pub(super) validation: Option<Vec<Source>>,
    pub(super) test: Option<Vec<Source>>,
}

impl FilesAsRead {
    pub(super) fn of(data: &DataSection) -> FilesAsRead {
        let as_read =
            |source: &Source| Source { skip_bad: Some(data.clean.skip_bad), ..source.clone() };
        let all = |sources: &Sources| sources.0.iter().map(as_read).collect();
        FilesAsRead {
            train: all(&data.train),
            validation: data.validation.as_ref().map(all),
            test: data.test.as_ref().map(all),
        }
    }
}
