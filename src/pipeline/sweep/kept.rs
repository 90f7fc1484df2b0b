//! What a sweep has done so far, on disk: a sweep that was killed goes on where it was.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};

use super::heads::{HeadPlan, HeadResult};
use crate::{
    error::{Error, Result},
    pipeline::{
        lock::{LOCK_FILE, Lock},
        run_folder,
    },
};

/// The folder in a run folder that holds what was done, until the run is whole.
const FOLDER: &str = "unfinished";

/// What decides the sweep's result, but for the states.
const PLAN_FILE: &str = "lock.json";

/// What one unit of a sweep came to.
#[derive(Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) heads: Vec<(HeadPlan, HeadResult)>,
    /// Rows of the dataset that are judged, of each cut.
    pub(super) judged: Vec<Vec<u32>>,
    /// Samples that each head learned from, summed over heads.
    pub(super) rows: u64,
    /// Samples times epochs, summed over heads.
    pub(super) head_samples: u64,
    /// Wall time of the fit, with its validation.
    pub(super) seconds: f64,
}

/// The folder of what a sweep has done.
pub(super) struct Kept {
    folder: PathBuf,
    /// Locked while this process is at it.
    _plan: File,
}

impl Kept {
    /// Begins in a run folder.
    pub(super) fn begin(run: &Path, plan: &Lock) -> Result<Kept> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let path = folder.join(PLAN_FILE);
        let failed = |error: std::io::Error| Error::io("write", &path)(error);
        let mut file = File::create(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        let json = serde_json::to_vec_pretty(plan).expect("plain fields become JSON");
        file.write_all(&json).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(Kept {
            folder,
            _plan: file,
        })
    }

    /// The newest run of a name that has the same plan, is not whole, and is not another process's work; its folder, and
    /// what it has done.
    pub(super) fn find(run_dir: &Path, name: &str, plan: &Lock) -> Result<Option<(PathBuf, Kept)>> {
        for run in run_folder::newest_first(&run_dir.join(name))? {
            let folder = run.join(FOLDER);
            let is_unfinished = folder.is_dir() && !run.join(LOCK_FILE).exists();
            let path = folder.join(PLAN_FILE);
            let has_plan = || Lock::read(&path).is_ok_and(|lock| lock == *plan);
            if !(is_unfinished && has_plan()) {
                continue;
            }
            let file = File::open(&path).map_err(Error::io("read", &path))?;
            if file.try_lock().is_ok() {
                let kept = Kept {
                    folder,
                    _plan: file,
                };
                return Ok(Some((run, kept)));
            }
        }
        Ok(None)
    }

    /// A unit that was done before; none where it was not, or was cut off.
    pub(super) fn read(&self, number: usize) -> Option<Unit> {
        let file = File::open(self.path(number)).ok()?;
        serde_json::from_reader(GzDecoder::new(BufReader::new(file))).ok()
    }

    /// Keeps a unit: written aside, then named.
    pub(super) fn write(&self, number: usize, unit: &Unit) -> Result<()> {
        let path = self.path(number);
        let aside = path.with_extension("new");
        let failed = |error: std::io::Error| Error::io("write", &aside)(error);
        let file = File::create(&aside).map_err(failed)?;
        let mut writer = GzEncoder::new(BufWriter::new(file), Compression::fast());
        serde_json::to_writer(&mut writer, unit).map_err(|error| failed(error.into()))?;
        let file = writer.finish().map_err(failed)?;
        file.into_inner()
            .map_err(|error| failed(error.into_error()))?
            .sync_all()
            .map_err(failed)?;
        fs::rename(&aside, &path).map_err(Error::io("write", path))
    }

    /// Clears up after a whole run.
    pub(super) fn finish(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(Error::io("delete", self.folder))
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number:05}.json.gz"))
    }
}
