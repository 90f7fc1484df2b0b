//! What a sweep has done so far, on disk: a sweep that was killed goes on where it was.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    run_folder::{self, UNFINISHED, lock::is_finished},
    sweep::heads::{HeadPlan, HeadResult},
};

/// What decides the sweep's result, but for the states.
const PLAN_FILE: &str = "lock.json";

/// What one unit of a sweep came to.
#[derive(Serialize, Deserialize)]
pub(super) struct UnitRecord {
    pub(super) heads: Vec<(HeadPlan, HeadResult)>,
    /// Rows of the dataset that are judged, of each split.
    pub(super) judged: Vec<Vec<u32>>,
    /// Samples that each head learned from, summed over heads.
    pub(super) rows: u64,
    /// Samples times epochs, summed over heads.
    pub(super) head_samples: u64,
    /// Wall time of the fit, with its validation.
    pub(super) seconds: f64,
}

/// What a rung of successive halving decided.
#[derive(Serialize, Deserialize)]
pub(super) struct Rung {
    /// The trials that go on, the best first.
    pub(super) go_on: Vec<usize>,
    /// The heads of those that do not, as they are to stay.
    pub(super) given_up: Vec<(HeadPlan, HeadResult)>,
    /// Wall time since the last rung.
    pub(super) seconds: f64,
}

/// The name under which a unit is kept.
pub(super) fn unit_name(number: usize) -> String {
    format!("{number:05}")
}

/// The folder of what a sweep has done, or several.
pub(crate) struct Journal {
    folder: PathBuf,
    /// Locked while this process is at it.
    _plan: File,
}

impl Journal {
    /// Begins in a run folder.
    pub(crate) fn begin(run: &Path, plan: &impl Serialize) -> Result<Journal> {
        // Under another name until the plan is whole and locked: what has this name can be gone on with.
        let (folder, aside) = (run.join(UNFINISHED), run.join(format!("tmp-{UNFINISHED}")));
        for old in [&folder, &aside] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(Error::io("delete", old))?;
            }
        }
        fs::create_dir_all(&aside).map_err(Error::io("create", &aside))?;
        let path = aside.join(PLAN_FILE);
        let failed = |error: std::io::Error| Error::io("write", &path)(error);
        let mut file = File::create_new(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        file.write_all(&bytes_of(plan)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&aside, &folder).map_err(Error::io("rename", &folder))?;
        Ok(Journal { folder, _plan: file })
    }

    /// Goes on in a run folder whose plan is the same, and which is not another process's work.
    pub(crate) fn resume(run: &Path, plan: &impl Serialize) -> Result<Option<Journal>> {
        let folder = run.join(UNFINISHED);
        let path = folder.join(PLAN_FILE);
        if !fs::read(&path).is_ok_and(|bytes| bytes == bytes_of(plan)) {
            return Ok(None);
        }
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        Ok(file.try_lock().is_ok().then_some(Journal { folder, _plan: file }))
    }

    /// The newest run of a name that is not whole and can be gone on with: its folder, and what it has done.
    pub(crate) fn find(
        run_dir: &Path,
        name: &str,
        plan: &impl Serialize,
    ) -> Result<Option<(PathBuf, Journal)>> {
        for run in run_folder::newest_first(&run_dir.join(name))? {
            if is_finished(&run) {
                remove_leftover(&run);
                continue;
            }
            if let Some(journal) = Journal::resume(&run, plan)? {
                return Ok(Some((run, journal)));
            }
        }
        Ok(None)
    }

    /// What was kept under a name; none where nothing was, or it was cut off.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let file = File::open(self.path(name)).ok()?;
        serde_json::from_reader(GzDecoder::new(BufReader::new(file))).ok()
    }

    /// Keeps something: written aside, then named.
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

    /// Clears up after a whole run.
    pub(crate) fn finish(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(Error::io("delete", self.folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json.gz"))
    }
}

/// Removes the journal of a finished run whose process was killed between its lock and [`Journal::finish`]. One that a
/// process is still removing is left to it; one that cannot be removed harms nobody.
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
