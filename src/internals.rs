//! The internal items that the program, the benches and the tests of this repository use. They are not part of the
//! library's interface: names and signatures may change in any release.

pub mod config {
    pub mod file {
        pub use crate::config::file::PipelineFile;
    }
    pub mod keys {
        pub use crate::config::keys::by_kinds;
    }
    pub mod names {
        pub use crate::config::names::Task;
    }
    pub mod settings {
        pub use crate::config::settings::{Pipeline, show};
    }
}
pub mod data {
    pub use crate::data::{
        Answer, BadRows, ClassCount, CleanOptions, ColumnName, DataTask, Format, LabelMap, Part,
        Prompts, QuestionSummary, Record, Records, Source, SplitFractions, StopReading,
        SwallowedLines, WantedFields, class_distribution, grouped_split, read, read_from,
        read_from_logged, read_once, split_plan, stratified_split,
    };
    pub mod dataset {
        pub use crate::data::dataset::{Dataset, DatasetSettings};
    }
    pub mod document {
        pub use crate::data::document::Document;
    }
    pub mod example {
        pub use crate::data::example::{FileRecord, part_name};
    }
    pub mod inspect {
        pub use crate::data::inspect::{ColumnShape, FileShape};
    }
}
pub mod distributed {
    pub mod commit {
        pub use crate::distributed::commit::{CommitReport, commit};
    }
    pub mod plan {
        pub use crate::distributed::plan::{PlanReport, has_plan, plan};
    }
    pub mod pull {
        pub use crate::distributed::pull::{
            PullReport, PulledCache, pull, pull_scratch, pull_to_read,
        };
    }
    pub mod scratch {
        pub use crate::distributed::scratch::WorkerScratch;
    }
    pub mod shared_folder {
        pub use crate::distributed::shared_folder::{SharedFolder, StoreAccess};
    }
    pub mod vacuum {
        pub use crate::distributed::vacuum::{VacuumReport, vacuum};
    }
    pub mod work {
        pub use crate::distributed::work::{
            PlanWorker, StartedWorker, TaskStatus, WorkedTask, WorkerOptions,
        };
    }
}
pub mod doctor {
    pub use crate::doctor::{
        Diagnosis, DoctorRequest, Problem, RuntimeFindings, RuntimeSearch, examine,
    };
    pub mod python_environment {
        pub use crate::doctor::python_environment::PythonEnvironment;
    }
    pub mod cuda {
        pub use crate::doctor::cuda::CudaFindings;
    }
    pub mod disk {
        pub use crate::doctor::disk::CacheFindings;
    }
    pub mod machine {
        pub use crate::doctor::machine::Memory;
    }
    pub mod model {
        pub use crate::doctor::model::{DeviceFindings, ModelFindings, TEXT_TOKENS};
    }
    pub mod process_memory {
        pub use crate::doctor::process_memory::{peak_rss_bytes, rss_bytes};
    }
}
pub mod encoder {
    pub use crate::encoder::{Encoder, EncoderSettings, Request, fingerprint_inputs};
    pub mod checkpoint {
        pub use crate::encoder::checkpoint::Checkpoint;
    }
    pub mod device {
        pub use crate::encoder::device::{Device, Devices, Precision};
    }
    #[cfg(feature = "hub")]
    pub mod hub {
        pub use crate::encoder::hub::{Hub, pull};
    }
    pub mod hub_model {
        pub use crate::encoder::hub_model::{HubModel, pull_instead, refuse_name_on_hub};
    }
    pub mod plan {
        pub use crate::encoder::plan::{padding_efficiency, plan_batches};
    }
    pub mod pooling {
        pub use crate::encoder::pooling::pool;
    }
    pub mod prompts {
        pub use crate::encoder::prompts::FolderPrompts;
    }
    pub mod provider {
        pub use crate::encoder::provider::Provider;
    }
    pub mod quantize {
        pub use crate::encoder::quantize::{Quantized, smoothing};
    }
    pub mod runtime {
        pub use crate::encoder::runtime::Runtime;
    }
    pub mod sentence_folder {
        pub use crate::encoder::sentence_folder::{
            MultiVectorSummary, SentenceFolder, SentenceSummary,
        };
    }
    pub mod session {
        pub use crate::encoder::session::{EncoderSession, SessionOptions, TokenBatch};
    }
    pub mod source {
        pub use crate::encoder::source::{Verified, verify};
    }
    pub mod tokenizer {
        pub use crate::encoder::tokenizer::TextTokenizer;
    }
    pub mod tokenizer_file {
        pub use crate::encoder::tokenizer_file::TokenizerFile;
    }
    pub mod windows {
        pub use crate::encoder::windows::{Encoding, Overflow, Window};
    }
}
pub mod error {
    pub use crate::error::{Error, ErrorKind, Result};
}
pub mod experiment {
    pub use crate::experiment::{
        DryRun, Experiment, HeadsReport, Replayed, RunReport, Stages, TaskForecast, TaskReport,
        caches_to_read, open_to_read, replay,
    };
    pub mod methods {
        pub use crate::experiment::methods::{
            MOST_LAYERS, MethodRequest, TrainingMethod, compare_methods,
        };
    }
    pub mod precision {
        pub use crate::experiment::precision::{LayerError, PrecisionReport, PrecisionRow, report};
    }
}
pub mod export {
    pub use crate::export::export_run;
    pub mod request {
        pub use crate::export::request::{
            ExportCheck, ExportKind, ExportPrecision, ExportRequest, ExportedFile, ExportedRun,
            FolderLayout,
        };
    }
}
pub mod extraction {
    pub mod dry_run {
        pub use crate::extraction::dry_run::ExtractForecast;
    }
    pub mod export {
        pub use crate::extraction::export::export_records;
    }
    pub mod embed {
        pub use crate::extraction::embed::{EmbedReport, EmbedRequest, embed};
    }
    pub mod extract {
        pub use crate::extraction::extract::{ExtractReport, extract};
    }
    pub mod gc {
        pub use crate::extraction::gc::NeededDocuments;
    }
    pub mod machine {
        pub use crate::extraction::machine::Machine;
    }
    pub mod multi_vector {
        pub use crate::extraction::multi_vector::multi_vectors_of_cache;
    }
    pub mod sentence {
        pub use crate::extraction::sentence::sentence_of_cache;
    }
}
pub mod features {
    pub use crate::features::FeatureView;
    pub mod linfa {
        pub use crate::features::linfa::dataset;
    }
    pub mod scaler {
        pub use crate::features::scaler::Scaler;
    }
}
pub mod head {
    pub mod bank {
        pub use crate::head::bank::{BankData, BankSettings, SampleSet, train};
    }
    pub mod crf {
        pub use crate::head::crf::{CrfScores, CrfScratch, negative_log_likelihood};
    }
    pub mod decode {
        pub use crate::head::decode::{AllowedTags, decode};
    }
    pub mod layers {
        pub mod activation {
            pub use crate::head::layers::activation::{Activation, forward};
        }
        pub mod attention {
            pub use crate::head::layers::attention::softmax;
        }
        pub mod dense {
            pub use crate::head::layers::dense::forward;
        }
    }
    pub mod logistic {
        pub use crate::head::logistic::{
            ClassRows, LogisticFit, LogisticSettings, LogisticSpec, fit,
        };
    }
    pub mod matching {
        pub use crate::head::matching::{features, width};
    }
    pub mod network {
        pub use crate::head::network::{Network, NetworkSpec};
    }
    pub mod out_of_fold {
        pub use crate::head::out_of_fold::{epochs, folds, multiply_adds, probabilities};
    }
    pub mod pair {
        pub use crate::head::pair::{features, width};
    }
    pub mod row_groups {
        pub use crate::head::row_groups::RowGroups;
    }
    pub mod saved {
        pub use crate::head::saved::{DESCRIPTION_FILE, Head, WEIGHTS_FILE, read_description};
    }
    pub mod size {
        pub use crate::head::size::{head_sizes, training_bytes};
    }
    pub mod span {
        pub use crate::head::span::{Span, best_spans, join_windows, loss};
    }
    pub mod spec {
        pub use crate::head::spec::{HeadSpec, Objective};
    }
    pub mod targets {
        pub use crate::head::targets::TargetTable;
    }
    pub mod transform {
        pub use crate::head::transform::Transform;
    }
}
pub mod metrics {
    pub use crate::metrics::{ClassScore, ClassificationMetrics};
    pub mod baseline {
        pub use crate::metrics::baseline::{majority_class, majority_labels, mean_value};
    }
    pub mod calibration {
        pub use crate::metrics::calibration::{sigmoid_rows, softmax_rows, temperature};
    }
    pub mod classification {
        pub use crate::metrics::classification::evaluate;
    }
    pub mod comparison {
        pub use crate::metrics::comparison::{
            holm, mcnemar, mcnemar_of_rows, paired_bootstrap, standard_deviation,
        };
    }
    pub mod confusion {
        pub use crate::metrics::confusion::{ConfusionCell, confusion_cells};
    }
    pub mod counts {
        pub use crate::metrics::counts::{ClassCounts, confusion};
    }
    pub mod intervals {
        pub use crate::metrics::intervals::{Bootstrap, RowClusters, bootstrap, resample};
    }
    pub mod label_errors {
        pub use crate::metrics::label_errors::{likely_errors, thresholds};
    }
    pub mod metric {
        pub use crate::metrics::metric::Metric;
    }
    pub mod multilabel {
        pub use crate::metrics::multilabel::{evaluate, tune_thresholds};
    }
    pub mod paired {
        pub use crate::metrics::paired::{PairedDifference, paired_difference};
    }
    pub mod permutation {
        pub use crate::metrics::permutation::{Permutations, permutation_test};
    }
    pub mod probability {
        pub use crate::metrics::probability::{brier, ece, log_loss, predictions};
    }
    pub mod ranking {
        pub use crate::metrics::ranking::roc_auc;
    }
    pub mod regression {
        pub use crate::metrics::regression::evaluate;
    }
    pub mod row_statistics {
        pub use crate::metrics::row_statistics::RowStatistics;
    }
    pub mod scorer {
        pub use crate::metrics::scorer::ClassScorer;
    }
    pub mod scores {
        pub use crate::metrics::scores::{Score, Scores};
    }
    pub mod span {
        pub use crate::metrics::span::{
            AnsweredQuestion, NullScore, best_no_answer_threshold, evaluate, exact_match, f1,
            normalize_answer,
        };
    }
    pub mod tag_scheme {
        pub use crate::metrics::tag_scheme::{
            Entity, TagScheme, entities_conlleval, entities_strict,
        };
    }
    pub mod tagging {
        pub use crate::metrics::tagging::{TaggedSentence, TaggingMetrics, evaluate};
    }
}
pub mod page {
    pub use crate::page::{PageOptions, WrittenPage, report, write_methods};
}
pub mod prediction {
    pub mod evaluation {
        pub use crate::prediction::evaluation::evaluate;
    }
    pub mod multi_vector {
        pub use crate::prediction::multi_vector::{compare_multi_vectors, nearest_multi_vectors};
    }
    pub mod predictor {
        pub use crate::prediction::predictor::Predictor;
    }
    pub mod prediction_file {
        pub use crate::prediction::prediction_file::{
            PredictionColumns, PredictionOutput, PredictionReport, describe_input, list_bad_rows,
            predict_to_file,
        };
    }
    pub mod run_diff {
        pub use crate::prediction::run_diff::{
            ChangedExample, ChangedExamples, DataDiff, MetricDiff, RunDiff, SideBySide,
            compare_runs,
        };
    }
    pub mod run_list {
        pub use crate::prediction::run_list::{ListedRun, RunList, list_runs};
    }
    pub mod run_record {
        pub use crate::prediction::run_record::{RowsByPart, RunDescription, RunRecord};
    }
    pub mod saved_run {
        pub use crate::prediction::saved_run::SavedRun;
    }
    pub mod several {
        pub use crate::prediction::several::{
            ChunkSize, NamedPredictor, PredictedRecords, names_of, predict_all, predict_with_all,
            records_at_a_time,
        };
    }
    pub mod similar {
        pub use crate::prediction::similar::{compare, nearest};
    }
    pub mod sweep_pairs {
        pub use crate::prediction::sweep_pairs::{
            ComparedHeads, HeadPair, RankedHead, SweepPairs, sweep_pairs,
        };
    }
}
pub mod report {
    pub mod methods {
        pub use crate::report::methods::{
            ComparedMethod, FineTuningCost, MethodComparison, PEAK_COUNTS,
        };
    }
    pub mod row_writer {
        pub use crate::report::row_writer::require_other_file;
    }
    pub mod summary {
        pub use crate::report::summary::summary;
    }
}
pub mod run_folder {
    pub mod lock {
        pub use crate::run_folder::lock::{LOCK_FILE, Lock};
    }
    pub mod names {
        pub use crate::run_folder::names::RunsOf;
    }
    pub mod program {
        pub use crate::run_folder::program::PROGRAM;
    }
    pub mod prune {
        pub use crate::run_folder::prune::{PruneRule, Pruned, prunable, prune};
    }
    pub mod relocation {
        pub use crate::run_folder::relocation::Relocation;
    }
    pub mod remove {
        pub use crate::run_folder::remove::{Removal, Removed};
    }
    pub mod tags {
        pub use crate::run_folder::tags::{TagChange, tag, untag};
    }
}
pub mod selection {
    pub mod bias_corrected {
        pub use crate::selection::bias_corrected::{CorrectedScore, RepeatedChoice, chosen};
    }
    pub mod curves {
        pub use crate::selection::curves::expected_best;
    }
    pub mod folds {
        pub use crate::selection::folds::{Stratum, folds};
    }
    pub mod halving {
        pub use crate::selection::halving::rungs;
    }
    pub mod trials {
        pub use crate::selection::trials::trials;
    }
}
pub mod server {
    pub mod answers {
        pub use crate::server::answers::{AnswerError, Answers, Ticket};
    }
    pub mod embedding {
        pub use crate::server::embedding::EmbeddedText;
    }
    pub mod engine {
        pub use crate::server::engine::{
            Engine, EngineOptions, EngineTotals, ServedRun, UnloadedEngine,
        };
    }
    pub mod queue {
        pub use crate::server::queue::{BatchQueue, QueueLimits, Refusal};
    }
}
pub mod sweep {
    pub use crate::sweep::{BiasCorrected, NestedScore, SweepReport};
}
pub mod tasks {
    pub use crate::tasks::TaskMetrics;
    pub mod measure {
        pub use crate::tasks::measure::{Baseline, ChosenNumber, RunMetrics, measured_parts};
    }
    pub mod prediction {
        pub use crate::tasks::prediction::{EntitySpan, Prediction};
    }
}
pub mod train {
    pub mod gemm {
        pub use crate::train::gemm::multiply;
    }
    pub mod loss {
        pub use crate::train::loss::Loss;
    }
    pub mod optimizer {
        pub use crate::train::optimizer::Optimizer;
    }
}
pub mod training {
    pub mod train {
        pub use crate::training::train::{TrainReport, load_dataset};
    }
}
