//! What the model card of a run says, from what was read, trained and measured.

use std::collections::HashSet;

use frostbert_cache::{fingerprint::Key, reader::CacheReader, wording::counted};

use crate::{
    config::{
        file::{PipelineFile, Sources},
        settings::{Pipeline, Settings, changed_settings, show},
    },
    data::{
        ClassDistribution, QuestionSummary, ValueSummary, dataset::Dataset, example::part_name,
    },
    encoder::{hub_model::HubModel, windows::Overflow},
    head::saved::{Head, HeadDescription},
    metrics::{
        metric::Metric,
        scores::{Score, Scores},
    },
    report::model_card::{
        CardBaseline, CardCalibration, CardClass, CardClassScore, CardFile, CardHead, CardHeadline,
        CardModel, CardPart, CardScore, CardScores, CardSetting, CardTexts, CardTraining,
        CardTrivialAnswer, ModelCard, code, sentence, text,
    },
    run_folder::lock::{BaseModel, Lock},
    tasks::{
        TaskMetrics,
        measure::{RunMetrics, measured_parts},
        own_metric,
    },
    training::{checks::RunChecks, pictures::told_part},
};

/// Labels that are named, of all that there are.
const LISTED_LABELS: usize = 20;

/// Classes that have a line in a table.
const LISTED_CLASSES: usize = 30;

/// Fewer rows than this say little of a head.
const FEW_ROWS: usize = 200;

/// How long the texts of a dataset are for the encoder.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextLengths {
    documents: usize,
    truncated: usize,
    max_length: usize,
    has_windows: bool,
}

impl TextLengths {
    /// Of the distinct texts of a dataset.
    pub(super) fn of(pipeline: &Pipeline, dataset: &Dataset, cache: &CacheReader) -> TextLengths {
        let keys: HashSet<Key> = dataset.document_keys().into_iter().collect();
        let is_truncated = |key: &&Key| cache.index().truncated(key) == Some(true);
        TextLengths {
            documents: keys.len(),
            truncated: keys.iter().filter(is_truncated).count(),
            max_length: pipeline.extraction.max_length,
            has_windows: matches!(pipeline.extraction.overflow, Overflow::Windows { .. }),
        }
    }
}

/// What a card is made from.
pub(super) struct CardSource<'a> {
    pub(super) lock: &'a Lock,
    pub(super) description: &'a HeadDescription,
    pub(super) head: Option<&'a Head>,
    pub(super) metrics: &'a RunMetrics,
    pub(super) checks: &'a RunChecks,
    pub(super) classes: &'a ClassDistribution,
    pub(super) values: &'a [ValueSummary],
    pub(super) questions: &'a [QuestionSummary],
    pub(super) texts: TextLengths,
    pub(super) reads_pairs: bool,
}

impl CardSource<'_> {
    /// The card.
    pub(super) fn card(&self) -> ModelCard {
        let (lock, description, metrics) = (self.lock, self.description, self.metrics);
        let told = told_part(metrics);
        let is_of_tags = matches!(told, Some((_, TaskMetrics::Tokens(_))));
        let headline = told.and_then(|(part, metrics)| self.headline(part, metrics));
        let labels = description.labels.iter().take(LISTED_LABELS);
        let classes = self.classes.classes.iter().take(LISTED_CLASSES);
        let TextLengths { documents, truncated, max_length, has_windows } = self.texts;
        let findings = self.checks.summary();
        ModelCard {
            name: lock.pipeline.name.clone().unwrap_or_default(),
            version: lock.frostbert.clone(),
            task: description.task.clone(),
            reads_pairs: self.reads_pairs,
            model: self.model(),
            head: self.head(),
            labels: labels.map(|label| text(label)).collect(),
            n_labels: description.labels.len(),
            training: self.training(),
            settings: self.settings(),
            parts: self.parts(),
            files: self.files(),
            class_title: if is_of_tags { "tag" } else { "label" },
            classes: classes
                .map(|class| CardClass {
                    label: text(&class.label),
                    train: class.train,
                    validation: class.validation,
                    test: class.test,
                })
                .collect(),
            n_classes: self.classes.classes.len(),
            data_notes: self.data_notes(),
            few_rows: told.is_some_and(|(_, metrics)| n_rows(metrics) < FEW_ROWS),
            headline,
            result_parts: measured_parts(metrics).map(|(part, _)| part).collect(),
            results: results(metrics),
            per_class: told.map_or_else(Vec::new, |(_, metrics)| per_class(metrics)),
            baseline: self.baseline(),
            texts: CardTexts {
                truncated,
                documents: counted(documents, "text"),
                max_length,
                has_windows,
            },
            calibration: metrics.temperature.map(|temperature| self.calibration(temperature)),
            findings: findings.iter().map(|finding| sentence(finding)).collect(),
            seed: lock.seed,
            device: lock.device.clone(),
        }
    }

    /// The pipeline of the head: in a sweep that of the winner.
    fn file(&self) -> &PipelineFile {
        self.lock.head_pipeline()
    }

    fn model(&self) -> CardModel {
        let Some(model) = &self.lock.model else {
            return CardModel::default();
        };
        let BaseModel { name, revision } = BaseModel::of(&self.file().model.path);
        CardModel {
            is_on_hub: revision.is_some() && HubModel::parse(&format!("hf:{name}")).is_some(),
            shown: code(&name),
            revision: revision.map(|commit| commit.get(..12).unwrap_or(&commit).to_string()),
            weights: model.weights.short(),
            name,
        }
    }

    fn head(&self) -> CardHead {
        let parameters = self.head.map(|head| head.network().1.len());
        CardHead {
            kind: self.description.kind.clone(),
            reads: self.head.map(|_| self.reads()),
            parameters: parameters.map(|count| counted(count, "parameter")),
        }
    }

    /// What the head reads, in words.
    fn reads(&self) -> String {
        let HeadDescription { pooling, layers, pair, states, .. } = self.description;
        if let Some(column) = states.first().and_then(|state| state.column()) {
            return format!("the vectors of the column {}", code(column));
        }
        let pair = if *pair { "; of two texts both, their distance and their product" } else { "" };
        let trained = self.description.network.as_ref().map(|network| &network.encoder_layers);
        if let (Some(Some(trained)), Some(below)) = (trained, layers.first()) {
            let n_layers = trained.tensors.len();
            return format!(
                "the output of the encoder's last {}, trained with it from the token states of layer {below}{pair},",
                counted(n_layers, "layer")
            );
        }
        let states = match pooling.as_str() {
            "attention" => "the states of all tokens, pooled by learned attention,".to_string(),
            "words" => "the state of each word".to_string(),
            "sentence" => "the sentence vector of a text".to_string(),
            "tokens" => "the states of all tokens of a question and its context".to_string(),
            pooling => format!("the {pooling} state of a text"),
        };
        let numbers: Vec<String> = layers.iter().map(ToString::to_string).collect();
        let layers = match &numbers[..] {
            [one] => format!("of layer {one}"),
            several => format!("of layers {}, mixed by learned weights", several.join(", ")),
        };
        format!("{states} {layers}{pair}")
    }

    fn training(&self) -> CardTraining {
        let (metrics, file) = (self.metrics, self.file());
        let own = own_metric(file.data.task, &self.description.labels);
        let stopping = file.train.early_stopping.0;
        let followed = stopping.and_then(|stopping| stopping.metric).unwrap_or(own);
        let is_of_sweep = self.lock.winner.is_some();
        let had_validation = self.lock.split.validation > 0;
        CardTraining {
            epochs: metrics.epochs,
            epochs_shown: counted(metrics.epochs, "epoch"),
            best_epoch: metrics.best_epoch,
            stops: stopping.is_some() && metrics.validation.is_some() && metrics.epochs > 0,
            followed: followed.to_string(),
            is_of_sweep,
            is_refit: is_of_sweep && had_validation && metrics.validation.is_none(),
        }
    }

    fn settings(&self) -> Vec<CardSetting> {
        let settings = self.changed_settings().into_iter();
        settings.map(|(key, value)| CardSetting { key, value: code(&show(&value)) }).collect()
    }

    /// The settings that are not the defaults.
    fn changed_settings(&self) -> Settings {
        // What cannot be told apart from the defaults is no reason to lose a run.
        changed_settings(self.file()).unwrap_or_default()
    }

    /// The settings by which the run is compared with others: its task and its kind of head, and what is not the default.
    pub(super) fn compared_settings(&self) -> Settings {
        let HeadDescription { task, kind, .. } = self.description;
        let mut settings: Settings = vec![
            ("data.task".into(), task.as_str().into()),
            ("head.kind".into(), kind.as_str().into()),
        ];
        let changed = self.changed_settings().into_iter();
        settings.extend(changed.filter(|(key, _)| key != "head.kind"));
        settings
    }

    fn parts(&self) -> Vec<CardPart> {
        let split = &self.lock.split;
        let parts =
            [("train", split.train), ("validation", split.validation), ("test", split.test)];
        parts.map(|(name, rows)| CardPart { name, rows }).to_vec()
    }

    fn files(&self) -> Vec<CardFile> {
        let files = self.lock.data.iter().map(|file| CardFile {
            path: code(&file.path.display().to_string()),
            rows: file.rows,
            hash: file.blake3.short(),
        });
        files.collect()
    }

    /// Values and questions of each part.
    fn data_notes(&self) -> Vec<String> {
        let values = self.values.iter().map(|values| {
            format!(
                "Values of {}: from {:.3} to {:.3}, {:.3} on average.",
                part_name(values.part),
                values.min,
                values.max,
                values.mean
            )
        });
        let questions = self.questions.iter().map(|questions| {
            format!(
                "Questions of {}: {}, about {}; {} without an answer.",
                part_name(questions.part),
                counted(questions.questions, "question"),
                counted(questions.contexts, "context"),
                questions.impossible
            )
        });
        values.chain(questions).collect()
    }

    /// The number that stands for the run: of classes the share of right rows, of other tasks their own metric, or the
    /// first that has a value.
    fn headline(&self, part: &'static str, metrics: &TaskMetrics) -> Option<CardHeadline> {
        let is_share = matches!(metrics, TaskMetrics::Classification(_));
        let own = if is_share {
            Metric::Accuracy
        } else {
            own_metric(self.file().data.task, &self.description.labels)
        };
        let scores = metrics.scores();
        let Score { metric, value, interval } =
            *scores.get(own).or_else(|| scores.iter().next())?;
        let shown = |value: f64| {
            if is_share { format!("{:.1}", 100.0 * value) } else { format!("{value:.3}") }
        };
        let percent = if is_share { " %" } else { "" };
        let baseline = self.metrics.baseline.as_ref().filter(|_| part == "test");
        let trivial = baseline.and_then(|baseline| {
            let value = baseline.metrics.get(metric.name())?.as_f64()?;
            Some(CardTrivialAnswer {
                description: sentence(&baseline.description),
                value: format!("{}{percent}", shown(value)),
            })
        });
        let scores = scores.iter().map(|score| (score.metric, score.value));
        Some(CardHeadline {
            part,
            count: n_rows(metrics).to_string(),
            unit: self.unit(),
            metric,
            is_share,
            value: format!("{}{percent}", shown(value)),
            interval: interval
                .map(|[low, high]| format!("{} to {}{percent}", shown(low), shown(high))),
            baseline: trivial,
            scores: scores.collect(),
            data: self.measured_data(part),
        })
    }

    /// What the rows are.
    fn unit(&self) -> &'static str {
        match self.description.task.as_str() {
            "tokens" => "sentences",
            "qa" => "questions",
            _ if self.reads_pairs => "pairs",
            _ => "texts",
        }
    }

    /// The name of the first file that a part was read from, as the hub could call it and as it is.
    fn measured_data(&self, part: &str) -> [String; 2] {
        let data = &self.file().data;
        let given = if part == "test" { &data.test } else { &data.validation };
        let Sources(sources) = given.as_ref().unwrap_or(&data.train);
        let path = sources.first().map(|source| source.path.as_path());
        let name = |part: Option<&std::ffi::OsStr>| {
            part.map_or("data".to_string(), |part| part.to_string_lossy().into_owned())
        };
        let known = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let stem = name(path.and_then(|path| path.file_stem()));
        [stem.chars().map(known).collect(), name(path.and_then(|path| path.file_name()))]
    }

    fn baseline(&self) -> Option<CardBaseline> {
        let baseline = self.metrics.baseline.as_ref()?;
        let scores = baseline.metrics.iter().filter_map(|(name, value)| {
            let (metric, value) = (Metric::named(name)?, value.as_f64()?);
            Some(CardScore { metric, value: format!("{value:.3}") })
        });
        let scores: Vec<CardScore> = scores.collect();
        let description = sentence(&baseline.description);
        (!scores.is_empty()).then_some(CardBaseline { description, scores })
    }

    fn calibration(&self, temperature: f64) -> CardCalibration {
        let ece = |scores: &Scores| Some(format!("{:.3}", scores.value(Metric::Ece)?));
        let is_scaled = temperature != 1.0;
        let before = self.metrics.before_calibration.as_ref().filter(|_| is_scaled);
        let told = told_part(self.metrics);
        CardCalibration {
            temperature: if is_scaled { format!("{temperature:.3}") } else { "1".into() },
            ece: told.and_then(|(_, metrics)| ece(metrics.scores())),
            before: before.and_then(ece),
        }
    }
}

/// Rows of a part.
fn n_rows(metrics: &TaskMetrics) -> usize {
    match metrics {
        TaskMetrics::Classification(metrics) => metrics.n,
        TaskMetrics::Multilabel(metrics) => metrics.n,
        TaskMetrics::Regression(metrics) => metrics.n,
        TaskMetrics::Tokens(metrics) => metrics.n,
        TaskMetrics::Qa(metrics) => metrics.n,
    }
}

/// Every metric on every part, with intervals.
fn results(metrics: &RunMetrics) -> Vec<CardScores> {
    let parts: Vec<&Scores> = measured_parts(metrics).map(|(_, part)| part.scores()).collect();
    let mut known: Vec<Metric> = Vec::new();
    // What test has, first.
    for score in parts.iter().rev().flat_map(|scores| scores.iter()) {
        if !known.contains(&score.metric) {
            known.push(score.metric);
        }
    }
    let cell = |score: Option<&Score>| match score {
        None => "-".to_string(),
        Some(Score { value, interval: None, .. }) => format!("{value:.3}"),
        Some(Score { value, interval: Some([low, high]), .. }) => {
            format!("{value:.3} [{low:.3}, {high:.3}]")
        }
    };
    let rows = known.into_iter().map(|metric| CardScores {
        metric,
        cells: parts.iter().map(|scores| cell(scores.get(metric))).collect(),
    });
    rows.collect()
}

/// The scores of every class, or of every type of entity; none where there are too many for a table.
fn per_class(metrics: &TaskMetrics) -> Vec<CardClassScore> {
    let score = |name: &str, [precision, recall, f1]: [f64; 3], support: u64| {
        let [precision, recall, f1] = [precision, recall, f1].map(|score| format!("{score:.3}"));
        CardClassScore { label: text(name), precision, recall, f1, support }
    };
    let scores: Vec<CardClassScore> = match metrics {
        TaskMetrics::Classification(metrics) => {
            let classes = metrics.per_class.iter();
            classes
                .map(|of| score(&of.name, [of.precision, of.recall, of.f1], of.support))
                .collect()
        }
        TaskMetrics::Multilabel(metrics) => {
            let labels = metrics.per_class.iter();
            labels.map(|of| score(&of.name, [of.precision, of.recall, of.f1], of.support)).collect()
        }
        TaskMetrics::Tokens(metrics) if !metrics.per_type.is_empty() => {
            let types = metrics.per_type.iter();
            types.map(|of| score(&of.kind, [of.precision, of.recall, of.f1], of.support)).collect()
        }
        TaskMetrics::Tokens(metrics) => {
            let tags = metrics.per_class.iter();
            tags.map(|of| score(&of.name, [of.precision, of.recall, of.f1], of.support)).collect()
        }
        TaskMetrics::Regression(_) | TaskMetrics::Qa(_) => Vec::new(),
    };
    if scores.len() <= LISTED_CLASSES { scores } else { Vec::new() }
}
