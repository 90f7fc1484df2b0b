//! A trained head that is applied to an array.

use std::{fs, path::Path};

use frostbert_cache::{
    states::{Dtype, Pooling, StateId},
    wording::counted,
};
use ndarray::{Array2, ArrayView2};

use crate::{
    config::names::Task,
    error::{Error, Result},
    features::FeatureView,
    head::saved::{DESCRIPTION_FILE, Head, HeadDescription},
    metrics::{calibration::softmax_rows, probability::predictions},
};

const PREDICT: &str = "predict";

/// A head that classifies rows as they come from an [`Embedder`](crate::Embedder) or a cache; returned by
/// [`fit`](crate::fit).
#[derive(Clone, Debug)]
pub struct Classifier {
    head: Head,
}

impl Classifier {
    /// Wraps a head that predicts one class for each row.
    pub(super) fn of(head: Head) -> Classifier {
        Classifier { head }
    }

    /// The description of the head.
    #[cfg(test)]
    pub(super) fn description(&self) -> &HeadDescription {
        &self.head.description
    }

    /// Opens the folder that [`Classifier::save`] wrote, or the run folder of a pipeline whose task is classification.
    /// The head of a run reads the states that its pipeline names, with several layers concatenated in one row.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a file is missing, and [`Error::Run`] if it is damaged, or if the head does not predict
    /// a single class from a row because it tags words, compares two texts, or pools tokens itself.
    pub fn open(folder: impl AsRef<Path>) -> Result<Classifier> {
        let folder = folder.as_ref();
        let head = Head::open(folder)?;
        let HeadDescription { task, pair, network, .. } = &head.description;
        let pools = network.as_ref().is_some_and(|network| network.pools());
        let got = match (*task == Task::Classification.to_string(), pair, pools) {
            (false, ..) => format!("one of the task {task}"),
            (_, true, _) => "one of two texts".into(),
            (_, _, true) => "one that pools tokens".into(),
            _ => return Ok(Classifier { head }),
        };
        Err(Error::Run {
            path: folder.join(DESCRIPTION_FILE),
            expected: "a head that tells the class of one row".into(),
            got,
            hint: "open it with Predictor::open_run, which reads texts".into(),
        })
    }

    /// Writes `head.safetensors` and `head.json` to a folder, which is created if it does not exist. The tensors have
    /// the names and shapes that PyTorch's modules would give them, `weight [classes, features]` and `bias [classes]`
    /// for a linear head, and apply to the original rows: standardisation is folded into the weights.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the folder cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        self.head.save(folder)
    }

    /// The classes, in the order of the columns of [`Classifier::predict_proba`].
    pub fn labels(&self) -> &[String] {
        &self.head.description.labels
    }

    /// Number of values in a row.
    pub fn n_features(&self) -> usize {
        self.head.transform.scaler.mean.len()
    }

    /// Predicts the probability of each class, `f32 [rows, classes]`: `softmax(z / T)` of the head's outputs `z`. Each
    /// row sums to 1. `T` is the temperature of a calibrated run, and 1 for a head from [`fit`](crate::fit).
    ///
    /// # Errors
    /// Returns [`Error::Argument`] if the rows differ in width from those that the head was trained on or hold a value
    /// that is not finite, and [`Error::Diverged`] if an output is not finite.
    pub fn predict_proba(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        if rows.ncols() != self.n_features() {
            return Err(Error::Argument {
                action: PREDICT,
                expected: format!("rows of {}", counted(self.n_features(), "feature")),
                got: format!("rows of {}", rows.ncols()),
                hint: "use the model, layer and pooling that the head was trained on".into(),
            });
        }
        let logits = self.head.logits(&view_of(rows, PREDICT)?)?;
        Ok(softmax_rows(logits.view(), self.head.description.temperature))
    }

    /// Predicts the most probable class of each row.
    ///
    /// # Errors
    /// Returns the errors of [`Classifier::predict_proba`].
    pub fn predict(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<&str>> {
        let best = predictions(self.predict_proba(rows)?.view());
        Ok(best.into_iter().map(|class| self.labels()[class].as_str()).collect())
    }
}

/// Converts rows to the view that heads read.
pub(super) fn view_of(
    rows: ArrayView2<'_, f32>,
    action: &'static str,
) -> Result<FeatureView<'static>> {
    let refuse = |expected: &str, got: String, hint: &str| Error::Argument {
        action,
        expected: expected.into(),
        got,
        hint: hint.into(),
    };
    let n_features = rows.ncols();
    if n_features == 0 {
        return Err(refuse(
            "rows of at least one feature",
            "rows of none".into(),
            "check the array's shape",
        ));
    }
    let rows = rows.as_standard_layout();
    let values = rows.as_slice().expect("an array in standard layout is contiguous");
    let mut bytes = Vec::new();
    if let Err(value) = Dtype::F32.encode(values, &mut bytes) {
        let place = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
        return Err(refuse(
            "finite values",
            format!("rows[[{}, {}]] = {value}", place / n_features, place % n_features),
            "leave the row out, or look for what computed it",
        ));
    }
    // A view names a state, but a head in memory ignores it.
    let state = StateId::pooled(Pooling::Mean, 0);
    Ok(FeatureView::from_bytes(state, n_features, Dtype::F32, bytes))
}
