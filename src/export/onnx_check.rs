//! Runs an exported ONNX file on rows of the run's data, each alone and in batches, and compares it with `predict`.

use std::path::Path;

use crate::{
    config::names::Pair,
    encoder::{
        onnx_run::{ExportedSession, InputValues},
        windows::{Encoding, Window},
    },
    error::Result,
    export::{
        checked_rows::CheckedRows,
        comparison::Comparison,
        exported_task::{ComparedRow, exported_task},
        onnx_graph::suffixes,
        request::ExportCheck,
    },
    extraction::machine::Machine,
    head::saved::HeadDescription,
    prediction::predictor::Predictor,
};

/// The number of rows that are run alone.
const ALONE: usize = 32;

/// The number of rows in a batch.
const BATCH: usize = 16;

/// The inputs of the file for rows of a run, with the samples of the head that they belong to.
pub(super) struct EncodedRows {
    /// The documents of each record: one, or the two of a pair.
    documents: Vec<Vec<Encoding>>,
    samples: Vec<EncodedSample>,
}

/// One row of the file's batch.
struct EncodedSample {
    record: usize,
    window: usize,
    /// The number of the head's sample.
    sample: usize,
}

impl EncodedRows {
    /// Tokenises rows as `predict` does. Except for questions, each of whose windows is a sample, only rows that fit
    /// into one window are kept, because the file reads one.
    pub(super) fn of(predictor: &Predictor, rows: &CheckedRows) -> Result<EncodedRows> {
        let run = predictor.run();
        let tokenizer = run.pipeline.extraction.tokenizer(predictor.checkpoint()?)?;
        let joint = run.pipeline.data.pair == Pair::Joint;
        let prompts = run.prompts();
        let mut documents = Vec::with_capacity(rows.records.len());
        for record in &rows.records {
            let inputs: Vec<_> = record.documents_with(&prompts, joint).collect();
            documents.push(tokenizer.encode(&inputs, true)?);
        }
        let mut samples = Vec::new();
        let mut n_samples = 0;
        for (record, own) in documents.iter().enumerate() {
            if run.pipeline.data.task.reads_contexts() {
                for window in 0..own[0].windows.len() {
                    samples.push(EncodedSample { record, window, sample: n_samples });
                    n_samples += 1;
                }
                continue;
            }
            if own.iter().all(|encoding| encoding.windows.len() == 1) {
                samples.push(EncodedSample { record, window: 0, sample: record });
            }
        }
        Ok(EncodedRows { documents, samples })
    }

    /// Returns the number of tokens of each text's prompt that pooling leaves out.
    pub(super) fn left_out(&self) -> [u32; 2] {
        [0, 1].map(|side| {
            let own = self.documents.iter().filter_map(|documents| documents.get(side));
            own.map(|encoding| encoding.left_out).max().unwrap_or(0)
        })
    }

    /// Whether no row fits into one window.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Returns the number of records that were left out.
    pub(super) fn n_too_long(&self) -> u64 {
        let mut kept: Vec<usize> = self.samples.iter().map(|sample| sample.record).collect();
        kept.dedup();
        (self.documents.len() - kept.len()) as u64
    }

    fn windows_of(&self, sample: &EncodedSample) -> Vec<&Window> {
        let own = self.documents[sample.record].iter();
        own.map(|encoding| &encoding.windows[sample.window]).collect()
    }

    /// Returns a sample with what the run makes of it.
    fn compared<'a>(
        &'a self,
        rows: &'a CheckedRows,
        description: &'a HeadDescription,
        sample: &EncodedSample,
    ) -> ComparedRow<'a> {
        let &EncodedSample { record, window, sample } = sample;
        let documents = &self.documents[record];
        let window = &documents[0].windows[window];
        ComparedRow { rows, description, record, sample, documents, window }
    }
}

/// Runs the file at `path` and compares its outputs with what `predict` gives.
pub(super) fn check(
    path: &Path,
    predictor: &Predictor,
    rows: &CheckedRows,
    encoded: &EncodedRows,
    machine: &Machine,
    [is_exact, is_quantized]: [bool; 2],
) -> Result<ExportCheck> {
    let run = predictor.run();
    let mut session = ExportedSession::open(&machine.onnxruntime, path, machine.threads)?;
    let task = exported_task(run.pipeline.data.task);
    let is_question = run.pipeline.data.task.reads_contexts();
    let is_crf = run.description.network.as_ref().is_some_and(|network| network.crf);
    let names = task.onnx_outputs(is_crf);
    let mut comparison = Comparison::new(&run.description, is_exact);
    let has_types = predictor.checkpoint()?.has_token_types();
    let batches = encoded.samples.chunks(BATCH).map(|batch| (batch, false));
    let alone =
        encoded.samples.iter().take(ALONE).map(|sample| (std::slice::from_ref(sample), true));
    for (batch, is_repeated) in batches.chain(alone) {
        if is_repeated {
            comparison.repeat();
        }
        let mut inputs = Vec::new();
        for (side, suffix) in suffixes(run).iter().enumerate() {
            let windows: Vec<&Window> =
                batch.iter().map(|sample| encoded.windows_of(sample)[side]).collect();
            inputs.extend(inputs_of(&windows, suffix, has_types, is_question));
        }
        let outputs = session.run(inputs, names)?;
        for (place, sample) in batch.iter().enumerate() {
            let of_row = |output: &Vec<f32>| -> Vec<f32> {
                let width = output.len() / batch.len();
                output[place * width..(place + 1) * width].to_vec()
            };
            let found: Vec<Vec<f32>> = outputs.iter().map(of_row).collect();
            let row = encoded.compared(rows, &run.description, sample);
            task.compare_row(&mut comparison, &row, &found);
        }
    }
    Ok(comparison.finish(task.compared(), rows.part, encoded.samples.len(), is_quantized))
}

/// Returns the inputs for windows, padded to the longest.
fn inputs_of(
    windows: &[&Window],
    suffix: &str,
    has_types: bool,
    is_question: bool,
) -> Vec<(String, Vec<usize>, InputValues)> {
    let width = windows.iter().map(|window| window.ids.len()).max().unwrap_or(0);
    let shape = vec![windows.len(), width];
    let padded = |values: &dyn Fn(&Window) -> Vec<i64>, padding: i64| {
        let rows = windows.iter().flat_map(|window| {
            let mut row = values(window);
            row.resize(width, padding);
            row
        });
        InputValues::I64(rows.collect())
    };
    let ids =
        |window: &Window| -> Vec<i64> { window.ids.iter().map(|id| i64::from(*id)).collect() };
    let mask = |window: &Window| -> Vec<i64> { vec![1; window.ids.len()] };
    let types =
        |window: &Window| -> Vec<i64> { window.type_ids.iter().map(|id| i64::from(*id)).collect() };
    let sequences = |window: &Window| -> Vec<i64> {
        let own = window.alignment.sequences.iter();
        own.map(|sequence| if *sequence > 1 { -1 } else { i64::from(*sequence) }).collect()
    };
    let mut inputs = vec![
        (format!("input_ids{suffix}"), shape.clone(), padded(&ids, 0)),
        (format!("attention_mask{suffix}"), shape.clone(), padded(&mask, 0)),
    ];
    if has_types {
        inputs.push((format!("token_type_ids{suffix}"), shape.clone(), padded(&types, 0)));
    }
    if is_question {
        inputs.push((format!("sequence_ids{suffix}"), shape, padded(&sequences, -1)));
    }
    inputs
}
