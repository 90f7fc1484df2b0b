//! Incompatible tasks, heads and files, with the exact text on stderr.

use std::fs;

use insta::assert_snapshot;

use crate::{
    cases::{Case, Data, PIPELINE},
    support::Workshop,
};

fn refused(case: Case) -> String {
    case.workshop().fail(&["run", PIPELINE])
}

const CLASSES: Case =
    Case { task: "classification", data: Data::Classes, cache: "max_length = 32", settings: "" };

fn classes(settings: &'static str) -> Case {
    Case { settings, ..CLASSES }
}

#[test]
fn a_head_of_another_task_is_refused_with_those_there_are() {
    assert_snapshot!(refused(classes("[head]\nkind = \"crf\"")));
    let matching =
        Case { task: "regression", data: Data::Values, ..classes("[head]\nkind = \"matching\"") };
    assert_snapshot!("a_matching_head_for_numbers", refused(matching));
    let svm = Case { task: "tokens", data: Data::Iob2, ..classes("[head]\nkind = \"linfa-svm\"") };
    assert_snapshot!("a_support_vector_machine_for_words", refused(svm));
    let cosine = Case {
        task: "qa",
        data: Data::Questions,
        cache: "max_length = 24\nstride = 6",
        settings: "[head]\nkind = \"cosine\"",
    };
    assert_snapshot!("a_cosine_for_questions", refused(cosine));
}

#[test]
fn what_a_head_has_not_is_refused() {
    assert_snapshot!("hidden_layers_of_a_linear_head", refused(classes("[head]\nhidden = [16]")));
    assert_snapshot!("more_components_than_features", refused(classes("[head]\npca = 33")));
    let pairs = Case { data: Data::PairClasses, ..classes("[head]\npooling = \"attention\"") };
    assert_snapshot!("attention_over_pairs_in_two_inputs", refused(pairs));
    assert_snapshot!(
        "mixed_layers_in_full_batch",
        refused(classes("[head]\nkind = \"linfa-logistic\"\nlayers = [1, 2]"))
    );
}

#[test]
fn what_a_task_cannot_be_trained_with_is_refused() {
    let numbers = |settings| Case { task: "regression", data: Data::Values, ..classes(settings) };
    assert_snapshot!(
        "class_weights_of_numbers",
        refused(numbers("[train]\nclass_weights = \"balanced\""))
    );
    assert_snapshot!(
        "the_loss_of_another_task",
        refused(numbers("[train]\nloss = \"cross-entropy\""))
    );
    assert_snapshot!(
        "the_metric_of_another_task",
        refused(classes("[train]\nearly_stopping = { metric = \"entity_f1_strict\" }"))
    );
    assert_snapshot!(
        "a_weight_of_an_unknown_class",
        refused(classes("[train]\nclass_weights = { hot = 2.0 }"))
    );
}

#[test]
fn a_file_of_another_task_is_refused() {
    let of = |task: &'static str, data| refused(Case { task, data, ..CLASSES });
    assert_snapshot!("words_of_a_csv", of("tokens", Data::Classes));
    let questions = Case { task: "qa", cache: "max_length = 24\nstride = 6", ..CLASSES };
    assert_snapshot!("questions_of_a_csv", refused(questions));
    assert_snapshot!("similarity_of_single_texts", of("similarity", Data::Values));
    assert_snapshot!("classes_of_a_conll_file", of("classification", Data::Iob2));
}

#[test]
fn a_head_is_asked_what_it_was_trained_for() {
    let pairs = Case { data: Data::PairClasses, ..classes("[train]\nepochs = 1") };
    let workshop = pairs.workshop();
    workshop.json(&["run", PIPELINE]);
    let alone = ["predict", "runs/tiny", "--text", "the snow"];
    assert_snapshot!("one_text_for_a_head_of_pairs", workshop.fail(&alone));
    let uneven = [&alone[..], &["--text", "the film", "--text-pair", "cold"]].concat();
    let ran = workshop.run(&uneven);
    assert_eq!(ran.code, Some(2), "wrong usage");
    assert_snapshot!("fewer_second_texts_than_first", ran.stderr);

    let workshop = classes("[train]\nepochs = 1").workshop();
    workshop.json(&["run", PIPELINE]);
    let both = [&alone[..], &["--text-pair", "the frost"]].concat();
    assert_snapshot!("two_texts_for_a_head_of_one", workshop.fail(&both));
    workshop.write("other.csv", "text,label\nthe snow,cold\nthe sun,hot\n");
    let evaluate = ["evaluate", "runs/tiny", "--data", "other.csv"];
    assert_snapshot!("an_unknown_label_to_evaluate", workshop.fail(&evaluate));
    workshop.write("other.conll", "the\tO\n\n");
    let evaluate = ["evaluate", "runs/tiny", "--data", "other.conll"];
    assert_snapshot!("words_to_evaluate_a_classifier", workshop.fail(&evaluate));
}

#[test]
fn an_unknown_tag_to_evaluate_is_named() {
    let workshop =
        Case { task: "tokens", data: Data::Iob2, ..classes("[train]\nepochs = 1") }.workshop();
    workshop.json(&["run", PIPELINE]);
    workshop.write("other.conll", "the\tO\nsnow\tB-HOT\n\n");
    assert_snapshot!(workshop.fail(&["evaluate", "runs/tiny", "--data", "other.conll"]));
}

const TOP: &str = "[model]\npath = \"MODEL\"\n[cache]\nmax_length = 32\n";

fn with_tasks(tasks: &str) -> Workshop {
    let workshop = CLASSES.workshop();
    workshop.write_pipeline(&format!("{TOP}{tasks}"));
    workshop
}

#[test]
fn a_file_of_tasks_is_read_as_strictly_as_any() {
    let run = ["run", PIPELINE];
    assert_snapshot!("no_task", with_tasks("[tasks]\n").fail(&run));
    let data = "[tasks.kind.data]\ntrain = { path = \"train.csv\" }\n";
    assert_snapshot!(
        "an_unknown_key_of_a_task",
        with_tasks(&format!("{data}[tasks.kind.train]\nepoch = 3\n")).fail(&run)
    );
    assert_snapshot!(
        "an_unknown_section_of_a_task",
        with_tasks(&format!("{data}[tasks.kind.cache]\nmax_length = 3\n")).fail(&run)
    );
    assert_snapshot!(
        "a_task_without_data",
        with_tasks("[tasks.kind.train]\nepochs = 3\n").fail(&run)
    );
    assert_snapshot!(
        "tasks_beside_a_head",
        with_tasks(&format!("{data}[head]\nkind = \"mlp\"\n")).fail(&run)
    );
}

#[test]
fn a_command_for_one_task_says_so() {
    let data = |name: &str| format!("[tasks.{name}.data]\ntrain = {{ path = \"train.csv\" }}\n");
    let workshop = with_tasks(&(data("kind") + &data("other")));
    let similar = ["similar", PIPELINE, "--query", "the snow"];
    assert_snapshot!(workshop.fail(&similar));
    workshop.json(&["extract", PIPELINE]);
    let cache = workshop.cache_named().display().to_string();
    let export = ["cache", "export", &cache, "--to", "npy", "--pipeline", PIPELINE];
    assert!(workshop.fail(&export).contains("has 2 tasks"));
}

#[test]
fn rows_of_one_text_and_of_two_are_never_mixed() {
    let workshop = classes("").workshop();
    workshop.write("pairs.csv", "text,text_pair,label\na,b,warm\nc,d,cold\n");
    let test = "data.test={path='pairs.csv', text_pair='text_pair'}";
    assert_snapshot!(workshop.fail(&["train", PIPELINE, "--set", test]));
}

#[test]
fn a_task_is_named_as_a_folder() {
    let workshop = classes("").workshop();
    let text = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let (model, _) = text.split_once("[data]").unwrap();
    let tasks = "[tasks.'../out'.data]\ntrain = { path = 'train.csv' }\n";
    workshop.write_pipeline(&format!("{model}\n{tasks}"));
    assert_snapshot!(workshop.fail(&["train", PIPELINE]));
}
