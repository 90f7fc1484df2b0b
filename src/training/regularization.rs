//! `head.C` and `head.lambda` where the file leaves them to the data: chosen by folds over the rows that a head learns from.
//!
//! The values lie on a grid. Each is fitted without each fold and predicts it; the best is the one whose predictions for
//! the rows of all folds together are best by the metric of the task (for numbers, by their squared error) or the one by
//! which a sweep selects, among equals by their log loss, as in early stopping, and then the strongest regularisation, or
//! without a loss the value nearest to 1. The head itself is fitted to all rows afterwards.

use std::{
    mem,
    sync::{Arc, Mutex},
};

use frostbert_cache::{
    progress::{Progress, WithinStage},
    wording::counted,
};
use ndarray::{Array2, ArrayView2};

use crate::{
    config::settings::{KindSettings, Pipeline, UNCHOSEN},
    data::dataset::Dataset,
    error::Result,
    features::FeatureView,
    head::{
        network::{Network, NetworkSpec},
        outputs::{OutputHead, for_each_head},
        spec::Objective,
        targets::TargetTable,
        transform::Transform,
    },
    metrics::{
        calibration::softmax_rows,
        metric::Metric,
        outputs::OutputRows,
        probability::{log_loss, predictions},
        row_statistics::RowStatistics,
    },
    selection::folds::{Stratum, parted},
    tasks::{
        measure::{ChosenNumber, TriedNumber},
        own_metric,
    },
    training::full_batch::{self, FittedFor, FullBatchData, FullBatchHead, FullBatchKind},
};

/// Folds at most: as many as there are rows, where there are fewer.
const N_FOLDS: usize = 5;

/// Outputs of heads up to which those of all folds are fitted together.
const FEW_OUTPUTS: usize = 32;

/// Values of C, the strongest regularisation first.
const VALUES_OF_C: &[f64] = &[1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3];

/// Values of lambda, the strongest regularisation first. It counts rows, of which there may be many.
const VALUES_OF_LAMBDA: &[f64] = &[1e5, 1e4, 1e3, 1e2, 1e1, 1.0, 1e-1];

/// What folds choose for a kind of head.
#[derive(Clone, Copy)]
struct Grid {
    /// The key of `[head]`.
    key: &'static str,
    /// The strongest regularisation first.
    values: &'static [f64],
    /// Whether the outputs of its heads are logarithms of probabilities.
    tells_probabilities: bool,
}

impl Grid {
    /// Of a kind of head; none where its number is given, or it has none.
    fn of(kind: &KindSettings) -> Option<Grid> {
        match kind {
            KindSettings::Logistic { c: None } => {
                Some(Grid { key: "C", values: VALUES_OF_C, tells_probabilities: true })
            }
            KindSettings::Lda { lambda: None } => {
                Some(Grid { key: "lambda", values: VALUES_OF_LAMBDA, tells_probabilities: true })
            }
            KindSettings::Ridge { lambda: None } => {
                Some(Grid { key: "lambda", values: VALUES_OF_LAMBDA, tells_probabilities: false })
            }
            _ => None,
        }
    }
}

/// The rows that a number is chosen on, and what heads learn of them.
#[derive(Clone, Copy)]
pub(crate) struct ChoiceRows<'a> {
    pub(crate) view: &'a FeatureView<'a>,
    pub(crate) transform: &'a Transform,
    pub(crate) network: &'a NetworkSpec,
    pub(crate) objective: &'a Objective,
    /// What heads learn of every sample, and are judged by: where that is another column of labels, the labels by which
    /// the head itself is judged have no part in its choice.
    pub(crate) targets: &'a TargetTable,
    /// The samples that heads learn from.
    pub(crate) samples: &'a [u32],
    pub(crate) metric: Metric,
    /// Shuffles the folds.
    pub(crate) seed: u64,
}

/// Chooses the number of a pipeline's head for one of some sets of samples; `None` where the pipeline gives it, or folds
/// cannot tell.
///
/// # Errors
/// When the cache is damaged, or features are not finite.
pub(crate) fn choose_for(
    pipeline: &Pipeline,
    dataset: &Dataset,
    data: FullBatchData<'_>,
    set: usize,
    objective: &Objective,
    progress: &dyn Progress,
) -> Result<Option<ChosenNumber>> {
    let kind = &pipeline.head.kind;
    if !kind.is_chosen_by_folds() {
        return Ok(None);
    }
    let rows = ChoiceRows {
        view: data.view,
        transform: data.transform,
        network: data.network,
        objective,
        targets: data.targets,
        samples: data.sets[set],
        metric: chosen_by(pipeline, dataset.labels.names()),
        seed: pipeline.seed,
    };
    choose(kind, &rows, progress)
}

/// The metric that folds choose by: the one by which a sweep selects, or else the task's own.
///
/// Numbers are chosen by their squared error in place of a correlation: the stronger the regularisation, the closer
/// predictions lie to the mean, which no correlation sees. Folds keep what heads decide, and of classes the log loss, which
/// stands for whatever else is computed from probabilities.
fn chosen_by(pipeline: &Pipeline, labels: &[String]) -> Metric {
    let own = own_metric(pipeline.data.task, labels);
    let selected = pipeline.selected_by.as_deref().and_then(Metric::named).unwrap_or(own);
    let tells_probabilities = Grid::of(&pipeline.head.kind).is_some_and(|g| g.tells_probabilities);
    match selected {
        Metric::Spearman | Metric::Pearson => Metric::Mse,
        metric if !metric.needs_probabilities() => metric,
        // Heads whose outputs are logarithms of probabilities learn classes.
        _ if tells_probabilities => Metric::LogLoss,
        _ => own,
    }
}

/// Chooses the number of a kind of head; `None` where it is given, or folds cannot tell.
///
/// # Errors
/// When the cache is damaged, or features are not finite.
pub(crate) fn choose(
    kind: &KindSettings,
    rows: &ChoiceRows<'_>,
    progress: &dyn Progress,
) -> Result<Option<ChosenNumber>> {
    let Some(grid) = Grid::of(kind) else {
        return Ok(None);
    };
    let parts = parts(rows);
    if parts.iter().all(|[train, _]| tells_something(rows.targets, train)) {
        choose_on(&parts, grid, kind, rows, progress)
    } else {
        Ok(None)
    }
}

/// Says that folds of so many rows could not choose the number of a kind of head; `None` where it is given.
pub(crate) fn unchosen(kind: &KindSettings, n_rows: usize) -> Option<String> {
    let key = Grid::of(kind)?.key;
    let rows = counted(n_rows, "row");
    Some(format!("{key} is {UNCHOSEN}: folds of {rows} cannot choose it"))
}

/// For each fold, the samples outside it and those in it.
fn parts(rows: &ChoiceRows<'_>) -> Vec<[Vec<u32>; 2]> {
    let stratum = |sample: &u32| {
        let class = match rows.targets {
            TargetTable::Classes(classes) => Some(classes[*sample as usize] as usize),
            _ => None,
        };
        // Documents have no groups.
        Stratum { class, group: None }
    };
    let strata: Vec<Stratum> = rows.samples.iter().map(stratum).collect();
    let n_folds = strata.len().clamp(1, N_FOLDS);
    parted(rows.samples, &strata, n_folds, rows.seed)
}

/// Chooses by what heads that learned from the first rows of each part predict for the second; `None` where that has no
/// value of the metric.
fn choose_on(
    parts: &[[Vec<u32>; 2]],
    grid: Grid,
    kind: &KindSettings,
    rows: &ChoiceRows<'_>,
    progress: &dyn Progress,
) -> Result<Option<ChosenNumber>> {
    let n_fits = (grid.values.len() * parts.len()) as u64;
    let stage = format!("choosing {} by {}", grid.key, counted(parts.len(), "fold"));
    progress.start(&stage, Some(n_fits), "fits");
    let within = WithinStage::new(progress);
    // With more outputs than this, the heads of one fold take memory enough.
    let at_a_time = if rows.network.n_outputs > FEW_OUTPUTS { 1 } else { parts.len() };
    let mut decided: Vec<Decisions> =
        grid.values.iter().map(|_| Decisions::none(rows.targets)).collect();
    for parts in parts.chunks(at_a_time) {
        decide(parts, grid, kind, rows, &mut decided, &within)?;
    }
    // Not every kind counts its fits.
    progress.advance(n_fits.saturating_sub(within.advanced()), 0);
    progress.finish();
    let judged: Vec<u32> = parts.iter().flat_map(|[_, judged]| judged.iter().copied()).collect();
    let tried = grid.values.iter().zip(decided).map(|(value, decided)| TriedNumber {
        value: *value,
        loss: decided.loss().filter(|_| grid.tells_probabilities),
        score: decided.score(rows, &judged),
    });
    let tried: Vec<TriedNumber> = tried.collect();
    Ok(best(rows.metric, &tried).map(|(value, score)| ChosenNumber {
        key: grid.key,
        value,
        folds: parts.len(),
        metric: rows.metric,
        score,
        tried,
    }))
}

/// Whether a head can learn something from some samples: a class alone is nothing to learn from.
fn tells_something(targets: &TargetTable, samples: &[u32]) -> bool {
    match targets {
        TargetTable::Classes(classes) => {
            let mut classes = samples.iter().map(|sample| classes[*sample as usize]);
            let first = classes.next();
            classes.any(|class| Some(class) != first)
        }
        _ => !samples.is_empty(),
    }
}

/// The value with the best score, and that score; of equal scores that with the lowest loss. Where there is no loss, it is
/// the value nearest to the one that is used without a choice: the strongest would leave outputs near 0 that say nothing.
fn best(metric: Metric, tried: &[TriedNumber]) -> Option<(f64, f64)> {
    let scored = tried.iter().filter_map(|tried| Some((tried, tried.score?)));
    let best = scored.reduce(|best, next| {
        let distance = |tried: &TriedNumber| (tried.value / UNCHOSEN).ln().abs();
        let is_better = match (next.0.loss, best.0.loss) {
            (Some(next), Some(best)) => next < best,
            _ => distance(next.0) < distance(best.0),
        };
        if (next.1 == best.1 && is_better) || metric.is_better(next.1, best.1) {
            next
        } else {
            best
        }
    });
    best.map(|(tried, score)| (tried.value, score))
}

/// Fits heads of every value to the first rows of each part, and adds what they decide of the second.
fn decide(
    parts: &[[Vec<u32>; 2]],
    grid: Grid,
    kind: &KindSettings,
    rows: &ChoiceRows<'_>,
    decided: &mut [Decisions],
    progress: &dyn Progress,
) -> Result<()> {
    let sets: Vec<&[u32]> = parts.iter().map(|[train, _]| train.as_slice()).collect();
    let data = FullBatchData {
        view: rows.view,
        targets: rows.targets,
        sets: &sets,
        transform: rows.transform,
        network: rows.network,
    };
    // Value after value, so that those that take as many steps stand side by side.
    let heads: Vec<FullBatchHead> = grid
        .values
        .iter()
        .flat_map(|value| (0..parts.len()).map(move |set| (*value, set)))
        .map(|(value, set)| FullBatchHead {
            kind: FullBatchKind::of(kind, Some(value)),
            set,
            objective: rows.objective.clone(),
        })
        .collect();
    let mut fitted = full_batch::fit(&heads, data, FittedFor::Choice, progress)?;
    let decided = Mutex::new(decided);
    for (set, [_, judged]) in parts.iter().enumerate() {
        let heads = (0..grid.values.len()).map(|number| OutputHead {
            number,
            network: Network::new(rows.network.clone()),
            parameters: mem::take(&mut fitted[number * parts.len() + set].parameters),
        });
        let heads: Vec<OutputHead> = heads.collect();
        for_each_head(rows.view, rows.transform, judged, heads, |head, outputs, _| {
            let own = Decisions::of(rows.targets, judged, outputs)?;
            decided.lock().expect("no panic among decisions")[head.number].append(own);
            Ok(())
        })?;
    }
    Ok(())
}

/// What a head decides of some rows, one after the other.
#[derive(Debug, PartialEq)]
enum Decisions {
    /// A class of each, and the sum of their losses.
    Classes { classes: Vec<u32>, loss: f64 },
    /// Whether each label is set, of each.
    Labels(Vec<bool>),
    /// A number of each.
    Values(Vec<f64>),
}

impl Decisions {
    /// Of no rows.
    fn none(targets: &TargetTable) -> Decisions {
        match targets {
            TargetTable::Classes(_) => Decisions::Classes { classes: Vec::new(), loss: 0.0 },
            TargetTable::Labels(_) => Decisions::Labels(Vec::new()),
            TargetTable::Values(_) => Decisions::Values(Vec::new()),
            TargetTable::Spans(_) | TargetTable::Tags(_) => {
                unreachable!("no kind of head that is fitted in full batch learns these")
            }
        }
    }

    /// Of some samples, by the outputs of a head on these.
    fn of(targets: &TargetTable, samples: &[u32], outputs: &dyn OutputRows) -> Result<Decisions> {
        let (n_rows, n_outputs) = outputs.shape();
        let mut decisions = Decisions::none(targets);
        match &mut decisions {
            Decisions::Classes { classes, loss } => {
                classes.resize(n_rows, 0);
                outputs.show(&mut |places, outputs| {
                    let own: Vec<u32> = places.iter().map(|place| samples[*place]).collect();
                    *loss += summed_loss(targets, &own, outputs);
                    for (place, class) in places.iter().zip(predictions(outputs)) {
                        classes[*place] = class as u32;
                    }
                })?;
            }
            Decisions::Labels(labels) => {
                labels.resize(n_rows * n_outputs, false);
                outputs.show(&mut |places, outputs| {
                    for (place, row) in places.iter().zip(outputs.rows()) {
                        let own = &mut labels[place * n_outputs..(place + 1) * n_outputs];
                        own.iter_mut().zip(row).for_each(|(set, logit)| *set = *logit >= 0.0);
                    }
                })?;
            }
            Decisions::Values(values) => {
                values.resize(n_rows, 0.0);
                outputs.show(&mut |places, outputs| {
                    for (place, value) in places.iter().zip(outputs.column(0)) {
                        values[*place] = f64::from(*value);
                    }
                })?;
            }
        }
        Ok(decisions)
    }

    /// Adds those of further rows.
    fn append(&mut self, other: Decisions) {
        match (self, other) {
            (
                Decisions::Classes { classes, loss },
                Decisions::Classes { classes: more, loss: of_more },
            ) => {
                classes.extend(more);
                *loss += of_more;
            }
            (Decisions::Labels(all), Decisions::Labels(more)) => all.extend(more),
            (Decisions::Values(all), Decisions::Values(more)) => all.extend(more),
            _ => unreachable!("decisions of one task"),
        }
    }

    /// The mean log loss of classes.
    fn loss(&self) -> Option<f64> {
        match self {
            Decisions::Classes { classes, loss } => Some(loss / classes.len() as f64),
            _ => None,
        }
    }

    /// What they are worth, where they are of these samples.
    fn score(self, rows: &ChoiceRows<'_>, samples: &[u32]) -> Option<f64> {
        if rows.metric == Metric::LogLoss {
            return self.loss().filter(|loss| loss.is_finite());
        }
        let n_outputs = rows.network.n_outputs;
        let places = || samples.iter().map(|sample| *sample as usize);
        let statistics = match (rows.targets, self) {
            (TargetTable::Classes(truth), Decisions::Classes { classes, .. }) => {
                let truth: Vec<u32> = places().map(|place| truth[place]).collect();
                RowStatistics::classes(Arc::new(truth), classes, n_outputs)
            }
            (TargetTable::Labels(truth), Decisions::Labels(decided)) => {
                let shape = (samples.len(), n_outputs);
                let truth = Array2::from_shape_fn(shape, |(row, label)| {
                    truth[[samples[row] as usize, label]] > 0.5
                });
                let decided = ArrayView2::from_shape(shape, &decided).expect("all labels of rows");
                RowStatistics::labels(truth.view(), decided)
            }
            (TargetTable::Values(truth), Decisions::Values(decided)) => {
                let truth: Vec<f64> = places().map(|place| f64::from(truth[place])).collect();
                RowStatistics::values(&truth, &decided)
            }
            _ => unreachable!("decisions of one task"),
        };
        statistics.score(rows.metric, None)
    }
}

/// The sum of the log losses of some samples, from the outputs of a head on them.
fn summed_loss(targets: &TargetTable, samples: &[u32], outputs: ArrayView2<'_, f32>) -> f64 {
    let TargetTable::Classes(classes) = targets else {
        return 0.0;
    };
    let truth: Vec<usize> =
        samples.iter().map(|sample| classes[*sample as usize] as usize).collect();
    let mean = log_loss(&truth, softmax_rows(outputs, 1.0).view());
    // Outputs that are no numbers tell nothing.
    mean.unwrap_or(f64::INFINITY) * truth.len() as f64
}

#[cfg(test)]
mod tests;
