//! What is asked for, and what was written.

use std::path::PathBuf;

use frostbert_cache::wording::counted;
use serde::Serialize;

use crate::error::{Error, Result};

/// The format that a run is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportKind {
    /// Encoder, pooling, standardisation and head in one ONNX file.
    Onnx,
    /// The head alone as an ONNX file that reads states.
    OnnxHead,
    /// A folder that `transformers` loads.
    Transformers,
    /// A folder that sentence-transformers loads.
    SentenceTransformers,
    /// The head's tensors in one safetensors file.
    Safetensors,
}

impl ExportKind {
    /// Returns its name, as in `--to`.
    pub fn name(self) -> &'static str {
        match self {
            ExportKind::Onnx => "onnx",
            ExportKind::OnnxHead => "onnx-head",
            ExportKind::Transformers => "transformers",
            ExportKind::SentenceTransformers => "sentence-transformers",
            ExportKind::Safetensors => "safetensors",
        }
    }

    /// Creates the error for a run that this kind cannot express.
    pub(crate) fn refuse(self, expected: &str, got: String, hint: &str) -> Error {
        Error::Argument {
            action: "export the run",
            expected: format!("{expected}, for --to {}", self.name()),
            got,
            hint: hint.into(),
        }
    }
}

/// The number format of an exported encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportPrecision {
    /// f32 throughout.
    #[default]
    F32,
    /// Linear layers of the encoder in int8.
    Int8,
}

/// Where files are in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FolderLayout {
    /// All files side by side.
    #[default]
    Flat,
    /// The ONNX file in the subfolder `onnx`, as optimum and transformers.js expect it.
    Hub,
}

/// What is to be written, and where.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The format.
    pub kind: ExportKind,
    /// The folder, which must not exist yet.
    pub out: PathBuf,
    /// The number format of the encoder.
    pub precision: ExportPrecision,
    /// Where files are in the folder.
    pub layout: FolderLayout,
    /// Whether ONNX Runtime's own operators may be used.
    pub fused: bool,
}

impl ExportRequest {
    /// Fails for options that the kind does not have.
    pub(crate) fn require_fitting(&self) -> Result<()> {
        let has_onnx_file = self.kind == ExportKind::Onnx;
        let refuse = |option: &str| {
            let expected = format!("--to onnx with {option}");
            let got = format!("--to {}", self.kind.name());
            let hint = format!("leave {option} out");
            Err(Error::Argument { action: "export the run", expected, got, hint })
        };
        match self {
            _ if has_onnx_file => Ok(()),
            ExportRequest { precision: ExportPrecision::Int8, .. } => refuse("--precision int8"),
            ExportRequest { layout: FolderLayout::Hub, .. } => refuse("--layout hub"),
            ExportRequest { fused: true, .. } => refuse("--fused"),
            _ => Ok(()),
        }
    }
}

/// How the files compare with `predict`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExportCheck {
    /// The part of the run's data that the rows are from: `test`, or `validation` or `train` if the run has no test
    /// rows.
    pub part: &'static str,
    /// The number of rows that were compared.
    pub rows: usize,
    /// What was compared, such as `probabilities`.
    pub compared: &'static str,
    /// The largest absolute difference.
    pub largest_difference: f64,
    /// The tolerance.
    pub tolerance: f64,
    /// Whether differences above the tolerance fail the check, or only another label, except where the probability is
    /// within [`NEAR_BOUNDARY`] of the boundary, and differences above [`ROUNDED_TOLERANCE`].
    pub by_label: bool,
    /// Whether one of both encoders is quantised to int8, so that probabilities may differ by any amount.
    pub quantized: bool,
    /// The number of labels that were compared: one for each row, word, or start and end of an answer, or of numbers.
    pub judged: usize,
    /// The number of labels that differ although their probability is not near the boundary.
    pub other_labels: usize,
    /// How many of them do not fail the check.
    pub most_other_labels: usize,
}

/// How close to the boundary between two labels a probability must be for a rounding of states to change the label.
pub(crate) const NEAR_BOUNDARY: f64 = 2e-3;

/// The largest difference between f32 computations of the same run.
pub(crate) const TOLERANCE: f64 = 1e-5;

/// The largest difference where states were rounded: of a probability, or of a number, relative to it if it is above 1.
pub(crate) const ROUNDED_TOLERANCE: f64 = 0.05;

impl ExportCheck {
    /// Whether the files compute what `predict` does.
    pub fn passed(&self) -> bool {
        let most = match (self.by_label, self.quantized) {
            (true, true) => f64::MAX,
            (true, false) => ROUNDED_TOLERANCE,
            (false, _) => self.tolerance,
        };
        self.largest_difference <= most && self.other_labels <= self.most_other_labels
    }

    /// Fails if the files compute something else than `predict`.
    pub(crate) fn require_passed(&self, kind: ExportKind) -> Result<()> {
        if self.passed() {
            return Ok(());
        }
        let (rows, part) = (counted(self.rows, "row"), self.part);
        let got = format!(
            "a difference of {:.2e}, and {}",
            self.largest_difference,
            counted(self.other_labels, "other label")
        );
        if self.by_label && self.quantized && self.largest_difference.is_finite() {
            let expected = format!(
                "at most {} of {} on {rows} of {part} other than those of `predict`",
                self.most_other_labels,
                counted(self.judged, "label"),
            );
            return Err(kind.refuse(
                &expected,
                got,
                "nothing was written: int8 changes too much here; leave --precision int8 out, or make the run with \
                 model.precision = \"f32\" if it has int8",
            ));
        }
        let (most, labels) = if self.by_label {
            (ROUNDED_TOLERANCE, ", and its labels,")
        } else {
            (self.tolerance, "")
        };
        Err(kind.refuse(
            &format!(
                "the {} of `predict` within {most:e}{labels} on {rows} of {part}",
                self.compared
            ),
            got,
            "nothing was written: this is an error of the export, please report it with the run's lock.json",
        ))
    }

    /// Describes it in one line.
    pub fn in_words(&self) -> String {
        let against = if self.by_label {
            match self.other_labels {
                0 => format!("the same labels, except within {NEAR_BOUNDARY} of a boundary"),
                n => format!(
                    "{} of {}, not counting those within {NEAR_BOUNDARY} of a boundary",
                    counted(n, "other label"),
                    self.judged
                ),
            }
        } else {
            format!("tolerance {:e}", self.tolerance)
        };
        format!(
            "{} of {} rows of {} differ from predict by at most {:.1e} ({against})",
            self.compared, self.rows, self.part, self.largest_difference
        )
    }
}

/// The largest absolute difference between two lists of numbers: infinite if one of them is not finite, or if the lists
/// have different lengths.
pub(crate) fn largest_difference<'a>(
    these: impl IntoIterator<Item = &'a f32>,
    those: impl IntoIterator<Item = &'a f32>,
) -> f64 {
    let (mut these, mut those) = (these.into_iter(), those.into_iter());
    let mut largest = 0.0;
    loop {
        match (these.next(), those.next()) {
            (None, None) => return largest,
            (Some(one), Some(other)) => {
                let difference = (f64::from(*one) - f64::from(*other)).abs();
                if !difference.is_finite() {
                    return f64::INFINITY;
                }
                largest = f64::max(largest, difference);
            }
            _ => return f64::INFINITY,
        }
    }
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExportedFile {
    /// Its path in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedRun {
    /// The folder that was written.
    pub out: PathBuf,
    /// The number of rows that were compared with `predict`.
    pub checked_rows: usize,
    /// The largest absolute difference that was found.
    pub largest_difference: f64,
    /// The run folder.
    pub run: PathBuf,
    /// The format.
    pub kind: ExportKind,
    /// The folder that was written, as in `out`.
    pub folder: PathBuf,
    /// Its files, sorted by name.
    pub files: Vec<ExportedFile>,
    /// How they compare with `predict`.
    pub check: ExportCheck,
    /// What the files do otherwise than `predict`, and what else a reader of them should know.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_by_label_also_bounds_the_difference_unless_a_side_is_quantised() {
        let check = |largest_difference: f64, quantized: bool, other_labels: usize| {
            let check = ExportCheck {
                largest_difference,
                quantized,
                other_labels,
                most_other_labels: if quantized { 2 } else { 0 },
                tolerance: TOLERANCE,
                by_label: true,
                ..ExportCheck::default()
            };
            check.passed()
        };
        assert!(check(0.01, false, 0));
        assert!(!check(0.01, false, 1));
        assert!(!check(0.06, false, 0));
        assert!(check(0.06, true, 2));
        assert!(!check(0.06, true, 3));
        assert!(!check(f64::INFINITY, true, 0));
    }
}
