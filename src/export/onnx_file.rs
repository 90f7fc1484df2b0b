//! The kinds `onnx` and `onnx-head`: the files, and how they are checked.

use std::fs;

use frostbert_cache::{states::Dtype, wording::counted};

use crate::{
    config::settings::KindSettings,
    encoder::{
        device::Precision,
        graph::exported::EncoderForm,
        onnx_run::{ExportedSession, InputValues},
        onnx_writer::{Dimension, OnnxGraph, OnnxType},
    },
    error::{Error, Result},
    export::{
        Exporting,
        exported_task::exported_task,
        folder::NewFolder,
        graph_ops::GraphOps,
        head_graph::add_head,
        model_files,
        onnx_check::{EncodedRows, check},
        onnx_graph::{self, GraphPlan, outputs},
        request::{
            ExportCheck, ExportKind, ExportPrecision, FolderLayout, TOLERANCE, largest_difference,
        },
        state_graph::pair,
    },
    head::saved::Head,
};

/// The ONNX file.
const MODEL_FILE: &str = "model.onnx";

/// The scores of a CRF.
const TRANSITIONS_FILE: &str = "transitions.npy";

/// Writes the encoder with the head, and checks it.
pub(super) fn write(exporting: &Exporting<'_>, folder: &NewFolder) -> Result<ExportCheck> {
    let Exporting { request, predictor, rows, machine, progress } = exporting;
    let run = predictor.run();
    let extraction = &run.pipeline.extraction;
    let form = match (request.precision, request.fused) {
        (ExportPrecision::Int8, _) => EncoderForm::Int8,
        (ExportPrecision::F32, true) => EncoderForm::Fused,
        (ExportPrecision::F32, false) => EncoderForm::Ordinary,
    };
    let encoded = EncodedRows::of(predictor, rows)?;
    if encoded.is_empty() {
        let expected = format!(
            "rows of {} that fit into one window of {} tokens, to check the file on",
            rows.part, extraction.max_length
        );
        return Err(request.kind.refuse(
            &expected,
            "none".into(),
            "the ONNX file reads one window: train with a larger cache.max_length, or with cache.overflow = \
             \"truncate\"",
        ));
    }
    if encoded.n_too_long() > 0 {
        progress.note(&format!(
            "{} longer than one window, which is what the file reads: the check leaves {} out",
            are(encoded.n_too_long(), "row"),
            if encoded.n_too_long() == 1 { "it" } else { "them" },
        ));
    }
    let name = match request.layout {
        FolderLayout::Flat => MODEL_FILE.to_owned(),
        FolderLayout::Hub => format!("onnx/{MODEL_FILE}"),
    };
    let path = folder.place(&name)?;
    let checkpoint = predictor.checkpoint()?;
    // Above trained layers, all tokens are pooled.
    let is_trained = run.description.has_encoder_layers();
    let left_out = if is_trained { [0, 0] } else { encoded.left_out() };
    onnx_graph::write(&GraphPlan { run, checkpoint, form, left_out }, &path)?;
    let of_transitions = match &run.head {
        Some(head) => write_transitions(head, folder)?,
        None => 0.0,
    };
    model_files::write(run, checkpoint, folder)?;
    let is_single = extraction.dtype == Dtype::F32 && extraction.precision == Precision::F32;
    let is_quantized = form == EncoderForm::Int8 || extraction.precision == Precision::Int8;
    let is_exact = is_single && !is_quantized;
    let kinds = [is_exact, is_quantized];
    let mut checked = check(&path, predictor, rows, &encoded, machine, kinds)?;
    checked.largest_difference = checked.largest_difference.max(of_transitions);
    Ok(checked)
}

/// Writes the head alone, and checks it.
pub(super) fn write_head(exporting: &Exporting<'_>, folder: &NewFolder) -> Result<ExportCheck> {
    let Exporting { rows, machine, .. } = exporting;
    let run = exporting.predictor.run();
    let head = run.head.as_ref().ok_or_else(|| {
        ExportKind::OnnxHead.refuse(
            "a trained head",
            "a cosine, which has none".into(),
            "use --to onnx, which writes the encoder with it",
        )
    })?;
    if matches!(run.pipeline.head.kind, KindSettings::Matching(..)) {
        return Err(ExportKind::OnnxHead.refuse(
            "a head that reads states alone",
            "a matching head, which compares the states of a whole window".into(),
            "use --to onnx, which writes the encoder with it",
        ));
    }
    let path = folder.place(MODEL_FILE)?;
    write_head_graph(exporting, head, &path)?;
    let of_transitions = write_transitions(head, folder)?;
    folder.write("config.json", &model_files::head_config(run))?;
    let mut session = ExportedSession::open(&machine.onnxruntime, &path, machine.threads)?;
    let ours = rows.head.outputs.as_ref().expect("a head has outputs");
    let task = exported_task(run.pipeline.data.task);
    let is_number = task.has_numbers();
    let is_crf = head.network().0.spec().crf;
    let has_probabilities = task.onnx_outputs(is_crf).contains(&"probabilities");
    let names: &[&str] = if is_number {
        &["value"]
    } else if has_probabilities {
        &["logits", "probabilities"]
    } else {
        &["logits"]
    };
    let found = head_outputs(exporting, head, &mut session, names)?;
    let probabilities =
        has_probabilities.then(|| task.probabilities_of(&head.description, ours.view()));
    let ours: Vec<f32> = if is_number {
        let rows = ours.rows().into_iter();
        rows.flat_map(|row| head.description.numbers(row)).map(|number| number as f32).collect()
    } else {
        flat(ours.view())
    };
    // Logits of another size are as exact as f32 is there, and so are probabilities of logits over the temperature.
    let size = ours.iter().fold(1.0f64, |size, value| size.max(f64::from(value.abs())));
    let mut largest = of_transitions.max(largest_difference(&found[0], &ours) / size);
    if let Some(probabilities) = &probabilities {
        let size = (size / head.description.temperature).max(1.0);
        largest = largest.max(largest_difference(&found[1], probabilities) / size);
    }
    Ok(ExportCheck {
        part: rows.part,
        rows: rows.records.len(),
        compared: match (is_number, has_probabilities) {
            (true, _) => "numbers",
            (false, true) => "logits and probabilities",
            (false, false) => "logits",
        },
        largest_difference: largest,
        tolerance: TOLERANCE,
        ..ExportCheck::default()
    })
}

/// Runs the file of a head on the checked rows, and returns the values of the outputs named.
fn head_outputs(
    exporting: &Exporting<'_>,
    head: &Head,
    session: &mut ExportedSession,
    names: &[&str],
) -> Result<Vec<Vec<f32>>> {
    let (states, starts) = (&exporting.rows.head.states, &exporting.rows.head.starts);
    let spec = head.network().0.spec();
    if spec.attention {
        // One sample at a time, as the samples have different numbers of rows.
        let mut found: Vec<Vec<f32>> = vec![Vec::new(); names.len()];
        for range in starts.windows(2) {
            let own = states.slice(ndarray::s![range[0]..range[1], ..]);
            let n_rows = own.nrows();
            let inputs = vec![
                ("states".to_owned(), vec![1, n_rows, own.ncols()], InputValues::F32(flat(own))),
                ("mask".to_owned(), vec![1, n_rows], InputValues::I64(vec![1; n_rows])),
            ];
            for (all, of_sample) in found.iter_mut().zip(session.run(inputs, names)?) {
                all.extend(of_sample);
            }
        }
        return Ok(found);
    }
    let inputs = if exporting.predictor.run().pipeline.has_separate_pairs() {
        let sides = sides_of(states, spec.n_layers);
        ["_a", "_b"]
            .into_iter()
            .zip(sides)
            .map(|(suffix, side)| {
                let shape = vec![states.nrows(), side.len() / states.nrows().max(1)];
                (format!("states{suffix}"), shape, InputValues::F32(side))
            })
            .collect()
    } else {
        let shape = vec![states.nrows(), states.ncols()];
        vec![("states".to_owned(), shape, InputValues::F32(flat(states.view())))]
    };
    session.run(inputs, names)
}

fn flat(values: ndarray::ArrayView2<'_, f32>) -> Vec<f32> {
    values.iter().copied().collect()
}

/// `1 row is`, `2 rows are`.
fn are(count: u64, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "is" } else { "are" })
}

fn write_head_graph(exporting: &Exporting<'_>, head: &Head, path: &std::path::Path) -> Result<()> {
    let run = exporting.predictor.run();
    let folder = path.parent().unwrap_or(path);
    let mut ops = GraphOps { graph: OnnxGraph::new(folder)? };
    let spec = head.network().0.spec();
    let n_inputs = head.transform.scaler.mean.len();
    let rows = Dimension::Named("rows");
    let batch = Dimension::Named("batch");
    let (logits, shape) = if spec.attention {
        let shape = [batch, rows, Dimension::Fixed(n_inputs)];
        ops.graph.input("states", OnnxType::F32, &shape);
        ops.graph.input("mask", OnnxType::I64, &shape[..2]);
        let mask = ops.float("mask")?;
        (add_head(&mut ops, head, "states", 3, Some(&mask))?, [batch])
    } else if run.pipeline.has_separate_pairs() {
        // Each layer's features are those of a pair: four times the width of a state.
        let width = n_inputs / 4;
        let mut sides = Vec::with_capacity(2);
        for name in ["states_a", "states_b"] {
            ops.graph.input(name, OnnxType::F32, &[rows, Dimension::Fixed(width)]);
            let of_layer = (width / spec.n_layers) as i64;
            let layers = (0..spec.n_layers as i64)
                .map(|layer| ops.slice(name, layer * of_layer, (layer + 1) * of_layer, 1));
            sides.push(layers.collect::<Result<Vec<String>>>()?);
        }
        let states = pair(&mut ops, &sides[0], &sides[1])?;
        (add_head(&mut ops, head, &states, 2, None)?, [rows])
    } else {
        ops.graph.input("states", OnnxType::F32, &[rows, Dimension::Fixed(n_inputs)]);
        (add_head(&mut ops, head, "states", 2, None)?, [rows])
    };
    outputs(&mut ops, &head.description, run.pipeline.data.task, &logits, &shape)?;
    ops.graph.write(path)
}

/// Returns the states of both texts of rows of pairs.
fn sides_of(rows: &ndarray::Array2<f32>, n_layers: usize) -> [Vec<f32>; 2] {
    let width = rows.ncols() / n_layers / 4;
    [0, 1].map(|side| {
        let mut states = Vec::with_capacity(rows.nrows() * n_layers * width);
        for row in rows.rows() {
            for layer in 0..n_layers {
                let first = (4 * layer + side) * width;
                states.extend(row.iter().skip(first).take(width));
            }
        }
        states
    })
}

/// Writes the scores of a CRF, if the head has one, and reads them again: returns 0, or infinity if they are others.
fn write_transitions(head: &Head, folder: &NewFolder) -> Result<f64> {
    let (network, parameters) = head.network();
    if !network.spec().crf {
        return Ok(0.0);
    }
    folder.write(TRANSITIONS_FILE, &transitions(head))?;
    let path = folder.path().join(TRANSITIONS_FILE);
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    let n_labels = network.spec().n_outputs;
    let found = values_of_array(&bytes, [n_labels + 2, n_labels]).unwrap_or_default();
    let scores = network.crf_scores(parameters);
    let expected = scores.transitions.iter().chain(&scores.start).chain(&scores.end);
    // Forbidden transitions have the score minus infinity, whose difference from itself is not a number.
    Ok(if found.iter().eq(expected) { 0.0 } else { f64::INFINITY })
}

/// Reads an f32 array of this shape in the format of NumPy; `None` if this is not one.
fn values_of_array(bytes: &[u8], [rows, columns]: [usize; 2]) -> Option<Vec<f32>> {
    let length = usize::from(u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]));
    let header = std::str::from_utf8(bytes.get(10..10 + length)?).ok()?;
    let shape = format!("'shape': ({rows}, {columns})");
    let keys = ["'descr': '<f4'", "'fortran_order': False", shape.as_str()];
    let is_array = bytes.starts_with(b"\x93NUMPY\x01\x00")
        && header.ends_with('\n')
        && keys.iter().all(|key| header.contains(*key));
    let values = bytes.get(10 + length..)?.chunks_exact(4);
    is_array.then(|| {
        values.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
    })
}

/// The scores of a CRF as an array `[labels + 2, labels]`: from label to label, then those of the first label and those
/// of the last.
fn transitions(head: &Head) -> Vec<u8> {
    let (network, parameters) = head.network();
    let scores = network.crf_scores(parameters);
    let n_labels = network.spec().n_outputs;
    let values = scores.transitions.iter().chain(&scores.start).chain(&scores.end);
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {n_labels}), }}",
        n_labels + 2
    );
    // The header ends with a line feed at a multiple of 64 bytes.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - header.len() - 1));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.flat_map(|value| value.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_read_back_in_the_shape_that_it_has_and_in_no_other() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1), }";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(118u16.to_le_bytes());
        bytes.extend(format!("{header:<117}\n").as_bytes());
        for value in [1.5f32, f32::NEG_INFINITY, -2.0] {
            bytes.extend(value.to_le_bytes());
        }
        let expected = Some(vec![1.5, f32::NEG_INFINITY, -2.0]);
        assert_eq!(values_of_array(&bytes, [3, 1]), expected);
        assert_eq!(values_of_array(&bytes, [1, 3]), None);
        assert_eq!(values_of_array(&bytes[..100], [3, 1]), None);
        bytes[10 + 118 - 1] = b' ';
        assert_eq!(values_of_array(&bytes, [3, 1]), None);
    }
}
