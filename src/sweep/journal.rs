//! The work that a sweep has done so far, on disk, so that a sweep that was killed can be resumed.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use frostbert_cache::progress::Progress;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    run_folder::{self, UNFINISHED, lock::is_finished, program::PROGRAM},
    sweep::heads::{HeadPlan, HeadResult},
    tasks::predictions::Calibration,
};

/// Everything that determines the sweep's result, except for the states.
const PLAN_FILE: &str = "lock.json";

/// The version and commit of the program that began the sweep: another one may compute other last digits.
const PROGRAM_FILE: &str = "program.txt";

/// The results of one unit of a sweep.
#[derive(Serialize, Deserialize)]
pub(super) struct UnitRecord {
    pub(super) heads: Vec<(HeadPlan, HeadResult)>,
    /// The rows of the dataset that are evaluated, for each split.
    pub(super) judged: Vec<Vec<u32>>,
    /// Number of training samples, summed over heads.
    pub(super) rows: u64,
    /// Number of training samples times epochs, summed over heads.
    pub(super) head_samples: u64,
    /// Wall time of the fit, with its validation.
    pub(super) seconds: f64,
    /// Of a trial whose heads take long to train again: what it is calibrated to if it wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) calibration: Option<Calibration>,
}

/// The decision of a rung of successive halving.
#[derive(Serialize, Deserialize)]
pub(super) struct Rung {
    /// The trials that go on, best first.
    pub(super) go_on: Vec<usize>,
    /// The heads of the other trials, with their final results.
    pub(super) given_up: Vec<(HeadPlan, HeadResult)>,
    /// Wall time since the last rung.
    pub(super) seconds: f64,
}

/// Returns the name under which a unit is saved.
pub(super) fn unit_name(number: usize) -> String {
    format!("{number:05}")
}

/// The folder with the work that a sweep, or several, have done.
pub(crate) struct Journal {
    folder: PathBuf,
    /// Locked while this process works on it.
    _plan: File,
}

impl Journal {
    /// Starts a journal in a run folder.
    pub(crate) fn begin(run: &Path, plan: &impl Serialize) -> Result<Journal> {
        // Under another name until the plan is complete and locked: a folder of this name can be resumed.
        let (folder, aside) = (run.join(UNFINISHED), run.join(format!("tmp-{UNFINISHED}")));
        for old in [&folder, &aside] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(Error::io("delete", old))?;
            }
        }
        fs::create_dir_all(&aside).map_err(Error::io("create", &aside))?;
        let path = aside.join(PROGRAM_FILE);
        fs::write(&path, PROGRAM).map_err(Error::io("write", &path))?;
        let path = aside.join(PLAN_FILE);
        let failed = |error: std::io::Error| Error::io("write", &path)(error);
        let mut file = File::create_new(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        file.write_all(&bytes_of(plan)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&aside, &folder).map_err(Error::io("rename", &folder))?;
        Ok(Journal { folder, _plan: file })
    }

    /// Resumes the journal in a run folder; `None` if its plan differs, if another process is working on it, or, with a
    /// note, if another build of the program began it.
    pub(crate) fn resume(
        run: &Path,
        plan: &impl Serialize,
        progress: &dyn Progress,
    ) -> Result<Option<Journal>> {
        let folder = run.join(UNFINISHED);
        let path = folder.join(PLAN_FILE);
        if !fs::read(&path).is_ok_and(|bytes| bytes == bytes_of(plan)) {
            return Ok(None);
        }
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let begun_by = fs::read_to_string(folder.join(PROGRAM_FILE));
        let begun_by = begun_by.unwrap_or_else(|_| "an older one".into());
        if begun_by != PROGRAM {
            progress.note(&format!(
                "what is unfinished in {} is begun anew, in a folder of its own: it was begun by another build of the \
                 program ({begun_by}), and this is {PROGRAM}",
                run.display()
            ));
            return Ok(None);
        }
        Ok(Some(Journal { folder, _plan: file }))
    }

    /// Finds the newest unfinished run of a name that can be resumed, and returns its folder and its journal.
    pub(crate) fn find(
        run_dir: &Path,
        name: &str,
        plan: &impl Serialize,
        progress: &dyn Progress,
    ) -> Result<Option<(PathBuf, Journal)>> {
        for run in run_folder::newest_first(&run_dir.join(name))? {
            if is_finished(&run) {
                remove_leftover(&run);
                continue;
            }
            if let Some(journal) = Journal::resume(&run, plan, progress)? {
                return Ok(Some((run, journal)));
            }
        }
        Ok(None)
    }

    /// Returns the value that was saved under a name; `None` if there is none, or if it is incomplete.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let file = File::open(self.path(name)).ok()?;
        serde_json::from_reader(GzDecoder::new(BufReader::new(file))).ok()
    }

    /// Saves a value: the file is written under another name, then renamed.
    pub(super) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.path(name);
        let aside = path.with_extension("new");
        let failed = |error: std::io::Error| Error::io("write", &aside)(error);
        let file = File::create(&aside).map_err(failed)?;
        let mut writer = GzEncoder::new(BufWriter::new(file), Compression::fast());
        serde_json::to_writer(&mut writer, value).map_err(|error| failed(error.into()))?;
        let file = writer.finish().map_err(failed)?;
        file.into_inner()
            .map_err(|error| failed(error.into_error()))?
            .sync_all()
            .map_err(failed)?;
        fs::rename(&aside, &path).map_err(Error::io("write", path))
    }

    /// Removes the journal of a run that is complete.
    pub(crate) fn finish(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(Error::io("delete", self.folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json.gz"))
    }
}

/// Removes the journal of a finished run whose process was killed between its lock and [`Journal::finish`]. A journal
/// that another process is still removing is left to it; one that cannot be removed does no harm.
fn remove_leftover(run: &Path) {
    let folder = run.join(UNFINISHED);
    let plan = File::open(folder.join(PLAN_FILE));
    if !plan.is_ok_and(|plan| plan.try_lock().is_err()) {
        let _ = fs::remove_dir_all(folder);
    }
}

fn bytes_of(plan: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(plan).expect("plain fields become JSON")
}
