//! The model card of a run: what it is, what it was trained on and what it is worth, for people and for the hub. No times
//! and no folders are in it: equal runs have equal cards.

mod yaml;

use std::{fs, path::Path};

use frostbert_cache::{durable::write_file, wording::shorten};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    metrics::metric::Metric,
};

/// The card.
pub(crate) const MODEL_CARD_FILE: &str = "model_card.md";

/// The folder in which the hub looks for results.
pub(crate) const EVAL_RESULTS_FOLDER: &str = ".eval_results";

const EVAL_RESULTS_FILE: &str = "frostbert.yaml";

const TEMPLATE: &str = include_str!("model_card.md");

/// What a publisher has to add, as no run knows it.
const FRONT_NOTE: &str = "\
# To publish: save this file as README.md, add a license, and name data sets that are on the hub in `datasets`.
";

/// What stands above the results in the hub's format.
const EVAL_NOTE: &str = "\
# The hub shows results of data sets that are registered there as benchmarks: put the data set's name on the hub in place of
# `id`, and the name of its task in place of `task_id`.
";

/// Characters of a name that are shown.
const SHOWN_CHARACTERS: usize = 60;

/// What a card says. Texts that stand in Markdown are ready for it: see [`text`], [`sentence`] and [`code`].
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelCard {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) task: String,
    pub(crate) reads_pairs: bool,
    pub(crate) model: CardModel,
    pub(crate) head: CardHead,
    /// The first of them.
    pub(crate) labels: Vec<String>,
    pub(crate) n_labels: usize,
    pub(crate) training: CardTraining,
    pub(crate) settings: Vec<CardSetting>,
    pub(crate) parts: Vec<CardPart>,
    pub(crate) files: Vec<CardFile>,
    /// `label` or `tag`.
    pub(crate) class_title: &'static str,
    pub(crate) classes: Vec<CardClass>,
    pub(crate) n_classes: usize,
    /// What else is known of the data, a sentence each.
    pub(crate) data_notes: Vec<String>,
    pub(crate) headline: Option<CardHeadline>,
    pub(crate) result_parts: Vec<&'static str>,
    pub(crate) results: Vec<CardScores>,
    pub(crate) per_class: Vec<CardClassScore>,
    pub(crate) baseline: Option<CardBaseline>,
    /// Whether the headline is of so few rows that it says little.
    pub(crate) few_rows: bool,
    pub(crate) texts: CardTexts,
    pub(crate) calibration: Option<CardCalibration>,
    /// What the checks of the data found.
    pub(crate) findings: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) device: String,
}

/// The encoder; without weights where the data brought vectors of another model with them.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CardModel {
    /// Its name on the hub, or of its folder.
    pub(crate) name: String,
    /// The same for Markdown.
    pub(crate) shown: String,
    pub(crate) revision: Option<String>,
    pub(crate) is_on_hub: bool,
    /// The hash of its weights, shortened.
    pub(crate) weights: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardHead {
    pub(crate) kind: String,
    /// What it reads, in words.
    pub(crate) reads: Option<String>,
    /// Number of them, with their noun.
    pub(crate) parameters: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardTraining {
    /// 0 for a head without epochs.
    pub(crate) epochs: usize,
    pub(crate) epochs_shown: String,
    pub(crate) best_epoch: usize,
    /// Whether validation chose the epoch, by which metric: not of heads without epochs, nor of refitted ones.
    pub(crate) stops: bool,
    pub(crate) followed: String,
    pub(crate) is_of_sweep: bool,
    /// Whether it learned from the validation rows too.
    pub(crate) is_refit: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardSetting {
    pub(crate) key: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardPart {
    pub(crate) name: &'static str,
    pub(crate) rows: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardFile {
    pub(crate) path: String,
    pub(crate) rows: usize,
    pub(crate) hash: String,
}

/// The rows of a class in each part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardClass {
    pub(crate) label: String,
    pub(crate) train: usize,
    pub(crate) validation: usize,
    pub(crate) test: usize,
}

/// The number that stands for the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardHeadline {
    /// `test`, or `validation` where there is no test.
    pub(crate) part: &'static str,
    /// How many rows it is of, and what they are.
    pub(crate) count: String,
    pub(crate) unit: &'static str,
    pub(crate) metric: Metric,
    /// Whether it is the share of right rows, in per cent.
    pub(crate) is_share: bool,
    pub(crate) value: String,
    pub(crate) interval: Option<String>,
    /// What a trivial answer scores by the same metric.
    pub(crate) baseline: Option<CardTrivialAnswer>,
    /// The values for the hub.
    pub(crate) scores: Vec<(Metric, f64)>,
    /// The data file that it was measured on, by its name without and with its extension.
    pub(crate) data: [String; 2],
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardTrivialAnswer {
    pub(crate) description: String,
    pub(crate) value: String,
}

/// A metric on every part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardScores {
    pub(crate) metric: Metric,
    pub(crate) cells: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardClassScore {
    pub(crate) label: String,
    pub(crate) precision: String,
    pub(crate) recall: String,
    pub(crate) f1: String,
    pub(crate) support: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardBaseline {
    pub(crate) description: String,
    pub(crate) scores: Vec<CardScore>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardScore {
    pub(crate) metric: Metric,
    pub(crate) value: String,
}

/// How long the texts are for the encoder.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardTexts {
    /// How many of them are longer than what the encoder reads of them.
    pub(crate) truncated: usize,
    /// Number of them, with their noun.
    pub(crate) documents: String,
    pub(crate) max_length: usize,
    pub(crate) has_windows: bool,
}

/// What is known of the confidences of a classifier.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CardCalibration {
    pub(crate) temperature: String,
    /// The expected calibration error with this temperature and without.
    pub(crate) ece: Option<String>,
    pub(crate) before: Option<String>,
}

impl ModelCard {
    /// Writes the card, and beside it the results in the hub's format where there are any.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn write(&self, run: &Path) -> Result<()> {
        write_file(&run.join(MODEL_CARD_FILE), self.markdown().as_bytes())?;
        let Some(headline) = &self.headline else {
            return Ok(());
        };
        let folder = run.join(EVAL_RESULTS_FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let results = EVAL_NOTE.to_string() + &yaml::lines(&eval_results(headline), 0);
        Ok(write_file(&folder.join(EVAL_RESULTS_FILE), results.as_bytes())?)
    }

    fn markdown(&self) -> String {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_keep_trailing_newline(true);
        environment.add_filter("text", |name: String| text(&name));
        let rendered = environment.render_named_str(MODEL_CARD_FILE, TEMPLATE, self);
        let prose = rendered.expect("the template names what a card holds");
        format!("---\n{}---\n\n{}", self.front_matter(), without_blank_runs(&prose))
    }

    /// The YAML at the top, which the hub reads.
    fn front_matter(&self) -> String {
        let hub_task = hub_task(&self.task);
        let mut front = json!({ "library_name": "frostbert", "pipeline_tag": hub_task });
        if self.model.is_on_hub {
            front["base_model"] = self.model.name.as_str().into();
        }
        front["datasets"] = json!([]);
        let mut metrics: Vec<&str> = Vec::new();
        for (metric, _) in self.headline.iter().flat_map(|headline| &headline.scores) {
            if !metrics.contains(&hub_metric(*metric)) {
                metrics.push(hub_metric(*metric));
            }
        }
        front["metrics"] = json!(metrics);
        front["tags"] = json!(["frostbert", hub_task, "frozen-encoder", self.head.kind]);
        if let Some(headline) = &self.headline {
            let [id, name] = &headline.data;
            let scores = headline.scores.iter().map(|(metric, value)| {
                json!({ "type": hub_metric(*metric), "value": value, "name": metric.in_words() })
            });
            front["model-index"] = json!([{
                "name": self.name,
                "results": [{
                    "task": { "type": hub_task, "name": self.task },
                    "dataset": { "type": id, "name": name, "split": headline.part },
                    "metrics": scores.collect::<Vec<Value>>(),
                }],
            }]);
        }
        FRONT_NOTE.to_string() + &yaml::lines(&front, 0)
    }
}

/// The entries of the hub's `.eval_results` (docs/hub/eval-results.md of huggingface/hub-docs); its date is that of the
/// commit.
fn eval_results(headline: &CardHeadline) -> Value {
    let CardHeadline { part, count, unit, data: [id, name], .. } = headline;
    let entries = headline.scores.iter().map(|(metric, value)| {
        json!({
            "dataset": { "id": id, "task_id": metric },
            "value": value,
            "notes": format!("{} on {count} {unit} of {part}, from {name}", metric.in_words()),
        })
    });
    entries.collect()
}

/// The hub's name of a task.
fn hub_task(task: &str) -> &'static str {
    match task {
        "similarity" => "sentence-similarity",
        "tokens" => "token-classification",
        "qa" => "question-answering",
        _ => "text-classification",
    }
}

/// The hub's name of a metric; those that average F1 differently share one.
fn hub_metric(metric: Metric) -> &'static str {
    use Metric::*;
    match metric {
        Accuracy | TokenAccuracy => "accuracy",
        MacroF1 | MicroF1 | WeightedF1 | SamplesF1 | F1 | EntityF1Strict | EntityF1Conlleval => {
            "f1"
        }
        Mcc => "matthews_correlation",
        RocAuc => "roc_auc",
        LogLoss => "log_loss",
        Brier => "brier_score",
        Ece => "expected_calibration_error",
        ExactMatch => "exact_match",
        Spearman => "spearmanr",
        Pearson => "pearsonr",
        Mse => "mse",
        Mae => "mae",
        EntityPrecisionStrict => "precision",
        EntityRecallStrict => "recall",
        Loss => "loss",
    }
}

/// A text for Markdown, in a table or out of it: one line, shortened, and nothing in it is markup.
pub(crate) fn text(text: &str) -> String {
    escaped(&shorten(text, SHOWN_CHARACTERS))
}

/// A text of one line in which nothing is markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A sentence about the data for Markdown: what stands between backticks is code, and nothing else in it is markup.
pub(crate) fn sentence(sentence: &str) -> String {
    let visible = |character: char| if character.is_control() { ' ' } else { character };
    let line: String = sentence.chars().map(visible).collect();
    let pieces: Vec<&str> = line.split('`').collect();
    // A backtick too many: which of them belong together cannot be told.
    if pieces.len().is_multiple_of(2) {
        return escaped(&line);
    }
    let shown = pieces.iter().enumerate().map(|(place, piece)| match place % 2 {
        0 => escaped(piece),
        _ => piece.replace('<', "&lt;"),
    });
    shown.collect::<Vec<String>>().join("`")
}

/// A text as code in Markdown, in a table or out of it.
pub(crate) fn code(text: &str) -> String {
    let text = shorten(text, 2 * SHOWN_CHARACTERS).replace('`', "'").replace('|', "\\|");
    format!("`{text}`")
}

/// At most one blank line after the other; what a template leaves out, leaves several.
fn without_blank_runs(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        if !line.is_empty() || lines.last().is_some_and(|last| !last.is_empty()) {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests;
