//! Texts and pairs of texts with one row of outputs each: a class, several labels, or a number.

use frostbert_cache::{reader::CacheReader, states::StateId};
use ndarray::{Array2, ArrayView2};

use crate::{
    config::{names::Task, settings::Pipeline},
    data::{ColumnName, Part, Target, dataset::Dataset},
    error::Result,
    features::{FeatureView, pieces},
    head::{
        applied::Applied, row_maps::PairRows, saved::Head, spec::Objective, targets::TargetTable,
    },
    metrics::{
        baseline,
        calibration::{sigmoid_rows, softmax_rows},
        intervals::Bootstrap,
        metric::Metric,
        multilabel,
        outputs::OutputRows,
        regression,
        scorer::ClassScorer,
    },
    report::tables::Table,
    tasks::{
        CalibrationRows, TaskExtras, TaskMetrics, TaskResult, TaskRows,
        class_table::ClassTable,
        evaluators::{ClassEvaluator, LabelSetEvaluator, ValueEvaluator},
        measure::{Baseline, RunMetrics},
        measured,
        predictions::{PredictionEvaluator, labels_of},
        rows_of, text_columns, try_measured, weights,
    },
};

/// What a task of documents knows beside what a head needs.
pub(crate) struct Documents {
    /// Mean and deviation that numbers are scaled by while a head learns them; 0 and 1 for other tasks.
    pub(crate) scale: [f64; 2],
}

/// A sample for each row of the dataset: its document, or its two.
pub(super) fn rows<'c>(
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &'c CacheReader,
    states: &[StateId],
) -> Result<TaskRows<'c>> {
    let view = view(pipeline, dataset, cache, states)?;
    let parts = Part::ALL.map(|part| dataset.part(part));
    let (mut targets, scale) = targets(pipeline, dataset, &parts[0]);
    if let Some(column) = &pipeline.head.label {
        let is_learned = |row: u32| dataset.rows[row as usize].part == Part::Train;
        targets = classes_taught(dataset, Some(column), is_learned);
    }
    Ok(TaskRows {
        view: paired(view, pipeline, states.len()),
        targets,
        objective: Objective::Rows(weights::loss(pipeline, dataset, &parts[0])?),
        n_outputs: match pipeline.data.task {
            Task::Classification | Task::Multilabel => dataset.labels.len(),
            _ => 1,
        },
        parts,
        keys: dataset.document_keys(),
        own: TaskExtras::Documents(Documents { scale }),
        warnings: Vec::new(),
    })
}

/// A view with a sample for each row of a dataset: the states of its document, or of its two.
pub(crate) fn view<'c>(
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: &'c CacheReader,
    states: &[StateId],
) -> Result<FeatureView<'c>> {
    let pieces = pieces::locate(cache, states, &dataset.document_keys(), |_, _, _| {})?;
    let mut sample_start = vec![0];
    let mut total = 0;
    for row in &dataset.rows {
        total += row.keys.len() as u32;
        sample_start.push(total);
    }
    FeatureView::new(cache, states, pieces, sample_start, pipeline.memory_bytes)
}

/// A view over documents with the rows of pairs made into one each, where the pipeline encodes pairs in two.
pub(crate) fn paired<'c>(
    view: FeatureView<'c>,
    pipeline: &Pipeline,
    n_layers: usize,
) -> FeatureView<'c> {
    if pipeline.has_separate_pairs() { view.mapped(Box::new(PairRows { n_layers })) } else { view }
}

fn targets(pipeline: &Pipeline, dataset: &Dataset, train: &[u32]) -> (TargetTable, [f64; 2]) {
    let rows = || dataset.rows.iter().map(|row| &row.target);
    match pipeline.data.task {
        Task::Classification => {
            let class = |target: &Target| target.class().expect("rows of classification") as u32;
            (TargetTable::Classes(rows().map(class).collect()), [0.0, 1.0])
        }
        Task::Multilabel => {
            let mut labels = Array2::zeros((dataset.rows.len(), dataset.labels.len()));
            for (row, target) in rows().enumerate() {
                for label in target.label_ids() {
                    labels[[row, *label]] = 1.0;
                }
            }
            (TargetTable::Labels(labels), [0.0, 1.0])
        }
        _ => {
            let values = values_of(dataset, train);
            let scale =
                if pipeline.head.standardize { mean_and_deviation(&values) } else { [0.0, 1.0] };
            let scaled = rows().map(|target| {
                let value = target.value().expect("rows of regression");
                ((value - scale[0]) / scale[1]) as f32
            });
            (TargetTable::Values(scaled.collect()), scale)
        }
    }
}

/// What heads learn from a column of labels: on the rows that are learned from its classes, on the others, and where it
/// has none, the rows' own.
pub(super) fn classes_taught(
    dataset: &Dataset,
    column: Option<&ColumnName>,
    is_learned: impl Fn(u32) -> bool,
) -> TargetTable {
    let class = |row: u32| {
        let own = &dataset.rows[row as usize].target;
        let learned = dataset.target_for(row, column).filter(|_| is_learned(row));
        learned.unwrap_or(own).class().expect("rows of classification") as u32
    };
    TargetTable::Classes((0..dataset.rows.len() as u32).map(class).collect())
}

fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    [mean, deviation]
}

fn classes_of(dataset: &Dataset, rows: &[u32]) -> Vec<usize> {
    let labels = dataset.labels_of(rows);
    labels.into_iter().map(|label| label as usize).collect()
}

fn values_of(dataset: &Dataset, rows: &[u32]) -> Vec<f64> {
    let value = |row: &u32| dataset.rows[*row as usize].target.value();
    rows.iter().filter_map(value).collect()
}

impl Documents {
    pub(super) fn evaluator<'a>(
        &self,
        pipeline: &'a Pipeline,
        dataset: &Dataset,
        validation: &[u32],
        followed: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a> {
        let rows = validation.to_vec();
        let select = pipeline.sweep.as_ref();
        let select = select.and_then(|section| section.select.as_deref());
        let needs_probabilities =
            select.and_then(Metric::named).is_some_and(Metric::needs_probabilities);
        match pipeline.data.task {
            Task::Classification => Box::new(ClassEvaluator {
                rows,
                labels: classes_of(dataset, validation),
                n_classes: dataset.labels.len(),
                followed: followed.to_vec(),
                needs_probabilities,
            }),
            Task::Multilabel => Box::new(LabelSetEvaluator {
                rows,
                labels: labels_of(dataset, validation),
                needs_probabilities,
            }),
            _ => Box::new(ValueEvaluator {
                rows,
                values: values_of(dataset, validation),
                scale: self.scale,
            }),
        }
    }

    pub(super) fn finish(
        &self,
        rows: &TaskRows<'_>,
        pipeline: &Pipeline,
        dataset: &Dataset,
        head: &mut Head,
        tuning: CalibrationRows<'_>,
    ) -> Result<TaskResult> {
        let is_number = matches!(pipeline.data.task, Task::Regression | Task::Similarity);
        if tuning.is_new() && is_number {
            head.description.output_scale = Some(self.scale);
        }
        match tuning {
            CalibrationRows::Saved => {}
            CalibrationRows::Given(calibration) => calibration.apply(&mut head.description),
            CalibrationRows::OnValidation => {
                let validation = rows.part(Part::Validation);
                let evaluator = self.evaluator(pipeline, dataset, validation, &[]);
                let calibration =
                    evaluator.calibration(&Applied::new(head, &rows.view, validation)?)?;
                calibration.apply(&mut head.description);
            }
        }
        match pipeline.data.task {
            Task::Classification => finish_classes(rows, pipeline, dataset, head),
            Task::Multilabel => {
                let logits = head.logits(&rows.view)?;
                Ok(finish_labels(rows, pipeline, dataset, head, &logits))
            }
            _ => {
                let logits = head.logits(&rows.view)?;
                let values = head.description.numbers(logits.column(0));
                Ok(finish_values(rows, pipeline, dataset, &values))
            }
        }
    }
}

fn finish_classes(
    rows: &TaskRows<'_>,
    pipeline: &Pipeline,
    dataset: &Dataset,
    head: &Head,
) -> Result<TaskResult> {
    let temperature = head.description.temperature;
    let n_classes = dataset.labels.len();
    let mut table = ClassTable::new(dataset);
    let mut before_calibration = None;
    let mut measure = |samples: &[u32], bootstrap: Option<Bootstrap>, part: Part| {
        let labels = classes_of(dataset, samples);
        let logits = Applied::new(head, &rows.view, samples)?;
        let mut scorer = ClassScorer::new(labels.clone(), n_classes, bootstrap);
        let mut before = (part == Part::Test).then(|| ClassScorer::new(labels, n_classes, None));
        logits.show(&mut |places, logits| {
            let probabilities = softmax_rows(logits, temperature);
            scorer.add(places, probabilities.view());
            let own: Vec<u32> = places.iter().map(|place| samples[*place]).collect();
            table.add(&own, probabilities.view());
            if let Some(before) = &mut before {
                before.add(places, softmax_rows(logits, 1.0).view());
            }
        })?;
        if scorer.wants_ranks() {
            logits.show(&mut |_, logits| scorer.rank(softmax_rows(logits, temperature).view()))?;
        }
        before_calibration =
            before.map(|before| before.finish().scores.only(Metric::measures_probabilities));
        Ok(TaskMetrics::Classification(scorer.finish()))
    };
    let [train, validation, test] = try_measured(pipeline, dataset, &mut measure)?;
    let train_classes = classes_of(dataset, rows.part(Part::Train));
    let majority = baseline::majority_class(
        &train_classes,
        &classes_of(dataset, rows.part(Part::Test)),
        n_classes,
    );
    Ok(TaskResult {
        metrics: RunMetrics {
            train,
            validation,
            test,
            baseline: majority.map(|majority| {
                let label = dataset.labels.name(majority.label).unwrap_or_default();
                Baseline::new(format!("always `{label}`"), &majority)
            }),
            before_calibration,
            temperature: Some(temperature),
            ..RunMetrics::default()
        },
        predictions: table.finish(),
    })
}

fn probability_columns(table: &mut Table, dataset: &Dataset, probabilities: ArrayView2<'_, f32>) {
    for (class, name) in dataset.labels.names().iter().enumerate() {
        table.floats(&format!("p_{name}"), probabilities.column(class).iter().copied());
    }
}

fn finish_labels(
    rows: &TaskRows<'_>,
    pipeline: &Pipeline,
    dataset: &Dataset,
    head: &Head,
    logits: &Array2<f32>,
) -> TaskResult {
    let probabilities = sigmoid_rows(logits.view());
    let given = head.description.thresholds.clone();
    let thresholds = given.unwrap_or_else(|| vec![0.5; dataset.labels.len()]);
    let [train, validation, test] = measured(pipeline, dataset, |samples, bootstrap| {
        TaskMetrics::Multilabel(multilabel::evaluate(
            labels_of(dataset, samples).view(),
            rows_of(probabilities.view(), samples).view(),
            &thresholds,
            bootstrap,
        ))
    });
    let majority = baseline::majority_labels(
        labels_of(dataset, rows.part(Part::Train)).view(),
        labels_of(dataset, rows.part(Part::Test)).view(),
    );
    let names = |ids: &[usize]| {
        let names = ids.iter().filter_map(|id| dataset.labels.name(*id));
        names.collect::<Vec<_>>().join(", ")
    };
    let mut table = text_columns(dataset);
    let predicted: Vec<Vec<&str>> = probabilities
        .rows()
        .into_iter()
        .map(|row| chosen(row.iter().copied(), &thresholds, dataset.labels.names()))
        .collect();
    table.texts(
        "labels",
        dataset
            .rows
            .iter()
            .map(|row| names(row.target.label_ids()))
            .collect::<Vec<String>>()
            .iter()
            .map(String::as_str),
    );
    table.lists("predicted", predicted.into_iter());
    probability_columns(&mut table, dataset, probabilities.view());
    TaskResult {
        metrics: RunMetrics {
            train,
            validation,
            test,
            baseline: majority.map(|majority| {
                Baseline::new(format!("always `{}`", names(&majority.labels)), &majority)
            }),
            ..RunMetrics::default()
        },
        predictions: table,
    }
}

/// The labels whose probability reaches their threshold.
pub(crate) fn chosen<'l>(
    probabilities: impl Iterator<Item = f32>,
    thresholds: &[f64],
    labels: &'l [String],
) -> Vec<&'l str> {
    let all = probabilities.zip(thresholds).zip(labels);
    all.filter(|((probability, threshold), _)| f64::from(*probability) >= **threshold)
        .map(|(_, label)| label.as_str())
        .collect()
}

/// Metrics and predictions of a task of numbers.
pub(crate) fn finish_values(
    rows: &TaskRows<'_>,
    pipeline: &Pipeline,
    dataset: &Dataset,
    values: &[f64],
) -> TaskResult {
    let [train, validation, test] = measured(pipeline, dataset, |samples, bootstrap| {
        let predicted: Vec<f64> = samples.iter().map(|row| values[*row as usize]).collect();
        TaskMetrics::Regression(regression::evaluate(
            &values_of(dataset, samples),
            &predicted,
            bootstrap,
        ))
    });
    let mean = baseline::mean_value(
        &values_of(dataset, rows.part(Part::Train)),
        &values_of(dataset, rows.part(Part::Test)),
    );
    let mut table = text_columns(dataset);
    let truth = dataset.rows.iter().map(|row| row.target.value());
    table.doubles("value", truth.map(|value| value.unwrap_or(f64::NAN)));
    table.doubles("predicted", values.iter().copied());
    TaskResult {
        metrics: RunMetrics {
            train,
            validation,
            test,
            baseline: mean.map(|mean| {
                Baseline::new(format!("always {:.3}, train's mean", mean.value), &mean)
            }),
            ..RunMetrics::default()
        },
        predictions: table,
    }
}
