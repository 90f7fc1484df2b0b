//! Saved runs handed on to other tools: `frostbert export`.
//!
//! Every kind of export writes its files to a [`folder::NewFolder`] and compares what they compute with what `predict`
//! gives on rows of the run's own test part ([`checked_rows`]). The folder appears only after that.

pub(crate) mod checked_rows;
mod comparison;
mod dense_layers;
mod exported_task;
pub(crate) mod folder;
mod folder_check;
mod graph_ops;
mod head_graph;
mod model_files;
mod model_folder;
mod onnx_check;
mod onnx_file;
mod onnx_graph;
mod reencoded;
pub(crate) mod request;
mod safetensors_file;
mod sentence_transformers;
mod state_graph;
mod transformers;

use std::time::Instant;

use frostbert_cache::progress::Progress;

use crate::{
    error::Result,
    export::{
        checked_rows::CheckedRows,
        folder::NewFolder,
        request::{ExportKind, ExportRequest, ExportedRun},
    },
    extraction::machine::Machine,
    prediction::{predictor::Predictor, saved_run::SavedRun},
};

/// What a kind of export needs in order to write and check its files.
pub(crate) struct Exporting<'a> {
    pub(crate) request: &'a ExportRequest,
    /// The run and its encoder.
    pub(crate) predictor: Predictor,
    /// Rows of the run's data, with what `predict` computes for them.
    pub(crate) rows: CheckedRows,
    pub(crate) machine: &'a Machine,
    pub(crate) progress: &'a dyn Progress,
}

/// Writes a saved run in another format, checks it on rows of the run's test part, and says what was written.
///
/// # Errors
/// Returns an error if the kind cannot express the run (with the reason), if the folder exists, if the run's data or
/// model is missing, or if the check fails. Nothing is left behind then.
pub fn export_run(
    run: SavedRun,
    request: &ExportRequest,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<ExportedRun> {
    request.require_fitting()?;
    let is_head_alone = matches!(request.kind, ExportKind::Safetensors | ExportKind::OnnxHead);
    if run.description.has_encoder_layers() && is_head_alone {
        return Err(request.kind.refuse(
            "a head over the encoder of a checkpoint",
            "one whose layers of the encoder were trained with it (train.unfreeze)".into(),
            "use --to onnx, --to transformers or --to sentence-transformers, which write the encoder too, or the run \
             folder with `frostbert predict` or `serve`",
        ));
    }
    let folder = NewFolder::create(&request.out)?;
    let start = Instant::now();
    let dataset = CheckedRows::dataset(&run)?;
    let mut predictor = Predictor::open_with_cache(run, machine)?;
    let rows = CheckedRows::of(&mut predictor, &dataset)?;
    progress.detail(&format!(
        "predicted for {} rows of {} in {:.1} s",
        rows.records.len(),
        rows.part,
        start.elapsed().as_secs_f64()
    ));
    let exporting = Exporting { request, predictor, rows, machine, progress };
    let mut notes = Vec::new();
    let check = match request.kind {
        ExportKind::Safetensors => safetensors_file::write(&exporting, &folder)?,
        ExportKind::Onnx => onnx_file::write(&exporting, &folder)?,
        ExportKind::OnnxHead => onnx_file::write_head(&exporting, &folder)?,
        ExportKind::Transformers => transformers::write(&exporting, &folder, &mut notes)?,
        ExportKind::SentenceTransformers => {
            sentence_transformers::write(&exporting, &folder, &mut notes)?
        }
    };
    check.require_passed(request.kind)?;
    let run = exporting.predictor.run();
    folder.finish(run, request, check, notes)
}
