//! report.html: a run on one page that opens anywhere, from the files of its folder. Nothing is fetched: styles, script and
//! pictures stand in it.
//!
//! Each part of the page is a file here that turns files of a run into plain values (`*View`), which a template of its own
//! shows. The templates lie in `page/templates/`; [`render`] is the only file that knows their engine.

mod again;
mod board;
mod comparison;
mod csv_table;
mod data_part;
mod head_part;
mod index;
mod map;
mod marked_text;
mod methods;
mod mistakes;
mod numbers;
mod parallel;
mod render;
mod run_files;
mod shown_task;
mod states;
mod summary;
mod sweep_part;
mod table;
mod texts;
mod winner;
mod worth;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use frostbert_cache::{durable::write_file, progress::Progress};
use serde::Serialize;

use self::{
    again::AgainView,
    comparison::ComparisonView,
    data_part::{DataView, class_counts},
    head_part::HeadView,
    index::TasksView,
    map::MapView,
    methods::MethodsView,
    mistakes::MistakesView,
    render::render,
    run_files::RunFiles,
    states::RunStates,
    summary::{Circumstances, SummaryView},
    sweep_part::SweepView,
    texts::TextGate,
    worth::WorthView,
};
use crate::{
    config::names::Task,
    error::{Error, Result},
    report::{methods::MethodComparison, row_writer::write_output},
    run_folder::find::{FoundRun, find, find_tasks},
};

/// The page of a run, in its folder.
pub(crate) const REPORT_FILE: &str = "report.html";

/// The page of several runs, in the current folder.
const COMPARISON_FILE: &str = "comparison.html";

/// How a page is written.
#[derive(Clone, Debug)]
pub struct PageOptions {
    /// Whether it shows texts of the data.
    pub texts: bool,
    /// Where it goes; into the run's folder where nothing is said, or for several runs into the current one.
    pub out: Option<PathBuf>,
}

impl Default for PageOptions {
    fn default() -> PageOptions {
        PageOptions { texts: true, out: None }
    }
}

/// A page that was written.
#[derive(Clone, Debug, Serialize)]
pub struct WrittenPage {
    /// The file.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub report: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Writes the page of a run, or of several side by side. Runs are named as
/// [`SavedRun::open`](crate::SavedRun::open) takes them.
///
/// # Errors
/// When a run is not there, or one of its files is damaged; when the page cannot be written.
pub fn report(
    runs: &[PathBuf],
    options: &PageOptions,
    progress: &dyn Progress,
) -> Result<WrittenPage> {
    if let [run] = runs {
        if let Some((folder, tasks)) = find_tasks(run)? {
            if let Some(out) = &options.out {
                return Err(Error::Argument {
                    action: "write the report",
                    expected: "a run of one task where --out names a file".into(),
                    got: format!("{} tasks, for `{}`", tasks.len(), out.display()),
                    hint: format!("name the run of a task, such as {}", tasks[0].display()),
                });
            }
            return write_tasks(&folder, &tasks, options);
        }
        let folder = found(run, progress)?;
        return write_run(&folder, options);
    }
    let opened = runs.iter().map(|run| RunFiles::open(&found(run, progress)?));
    let opened: Vec<RunFiles> = opened.collect::<Result<_>>()?;
    let page = ComparisonView::of(&opened)?;
    let out = options.out.clone().unwrap_or_else(|| COMPARISON_FILE.into());
    write_page(&out, true, "comparison.html", &page)
}

/// The folder of a run, with what is to be said of how it was found.
fn found(run: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    let FoundRun { folder, notes, warnings, .. } = find(run)?;
    notes.iter().for_each(|note| progress.note(note));
    warnings.iter().for_each(|warning| progress.warn(warning));
    Ok(folder)
}

/// Writes the page of a run into its folder, or where the options say.
///
/// # Errors
/// When a file of the run is damaged, or the page cannot be written.
pub(crate) fn write_run(folder: &Path, options: &PageOptions) -> Result<WrittenPage> {
    write_of(&RunFiles::open(folder)?, options).map(|(written, _)| written)
}

/// Writes the page of each task into its folder, and one that leads to them into the folder of the run.
///
/// # Errors
/// As [`write_run`].
pub(crate) fn write_tasks(
    folder: &Path,
    tasks: &[PathBuf],
    options: &PageOptions,
) -> Result<WrittenPage> {
    let mut runs = Vec::new();
    for task in tasks {
        let run = RunFiles::open(task)?;
        let (_, sentence) = write_of(&run, options)?;
        runs.push((run, sentence));
    }
    let name = runs.first().and_then(|(run, _)| run.lock.pipeline.name.clone());
    let number = folder.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{} {number}", name.unwrap_or_default());
    let page = TasksView::of(title, &runs, REPORT_FILE);
    write_page(&folder.join(REPORT_FILE), false, "tasks.html", &page)
}

/// Writes the page of compared methods where they say.
///
/// # Errors
/// When the page cannot be written.
pub fn write_methods(comparison: &MethodComparison) -> Result<WrittenPage> {
    write_page(&comparison.report, true, "methods.html", &MethodsView::of(comparison))
}

/// Writes the page of a run; returns its sentence too.
fn write_of(run: &RunFiles, options: &PageOptions) -> Result<(WrittenPage, String)> {
    let page = RunPage::of(run, options.texts)?;
    let in_folder = run.folder.join(REPORT_FILE);
    let out = options.out.as_ref().unwrap_or(&in_folder);
    let written = write_page(out, options.out.is_some(), "run.html", &page)?;
    Ok((written, page.summary.sentence))
}

fn write_page(
    path: &Path,
    is_named: bool,
    template: &str,
    page: &impl Serialize,
) -> Result<WrittenPage> {
    let html = render(template, page).map_err(Error::io("write", path))?;
    if is_named {
        let write = |file: &mut std::fs::File| {
            file.write_all(html.as_bytes()).map_err(Error::io("write", path))
        };
        write_output(path, write)?;
    } else {
        write_file(path, html.as_bytes())?;
    }
    Ok(WrittenPage { report: path.to_path_buf(), bytes: html.len() as u64 })
}

/// The page of a run, part by part.
#[derive(Clone, Debug, Serialize)]
struct RunPage {
    title: String,
    task: String,
    kind: String,
    model: String,
    created: Option<String>,
    version: String,
    has_texts: bool,
    n_texts: usize,
    is_of_questions: bool,
    summary: SummaryView,
    data: DataView,
    head: HeadView,
    worth: WorthView,
    mistakes: Option<MistakesView>,
    map: Option<MapView>,
    sweep: Option<SweepView>,
    again: AgainView,
}

impl RunPage {
    fn of(run: &RunFiles, texts: bool) -> Result<RunPage> {
        let gate = TextGate::new(texts);
        let states = RunStates::open(run);
        let lengths = states.as_ref().and_then(RunStates::lengths);
        // Labels of words are not counted by rows.
        let trained_on: Vec<(String, usize)> = if run.task().reads_pooled() {
            class_counts(run).into_iter().map(|(label, [train, ..])| (label, train)).collect()
        } else {
            Vec::new()
        };
        let share_cut =
            lengths.as_ref().map(|lengths| lengths.cut as f64 / lengths.tokens.len() as f64);
        let summary = SummaryView::of(run, &Circumstances { trained_on: &trained_on, share_cut });
        Ok(RunPage {
            title: run.title(),
            task: run.task().to_string(),
            kind: run.head.kind.clone(),
            model: run.lock.base_model().to_string(),
            created: run.created(),
            version: run.lock.frostbert.clone(),
            is_of_questions: run.task() == Task::Qa,
            summary,
            data: DataView::of(run, lengths.as_ref(), &gate),
            head: HeadView::of(run)?,
            worth: WorthView::of(run, &gate),
            mistakes: MistakesView::of(run, &gate),
            map: states.as_ref().and_then(|states| MapView::of(run, states, &gate)),
            sweep: SweepView::of(run),
            again: AgainView::of(run),
            has_texts: texts,
            n_texts: gate.shown(),
        })
    }
}
