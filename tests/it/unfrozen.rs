//! The training of the encoder's last layers with a head, from cached token states.

use std::fs;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE, outputs},
    support::{TINY_PIPELINE, Workshop, csv, fixture, read_json, texts},
    sweep::workshop as sweep_workshop,
};

const UNFREEZE: [&str; 2] = ["--set", "train.unfreeze=1"];

fn run(workshop: &Workshop, arguments: &[&str]) -> String {
    let report = workshop.json(&[&["run", PIPELINE], arguments].concat());
    report["train"]["run"].as_str().unwrap().to_string()
}

#[test]
fn the_trained_layer_is_saved_by_its_names_in_the_checkpoint_and_is_no_longer_the_checkpoints() {
    let workshop = Workshop::tiny();
    let folder = workshop.path(&run(&workshop, &UNFREEZE));
    let trained = fs::read(folder.join("layers.safetensors")).unwrap();
    let base = fs::read(fixture("tiny_bert/model.safetensors")).unwrap();
    let (trained, base) =
        (SafeTensors::deserialize(&trained).unwrap(), SafeTensors::deserialize(&base).unwrap());
    assert_eq!(trained.len(), 16);
    for (name, view) in trained.tensors() {
        let before = base.tensor(&name).unwrap();
        assert_eq!(view.shape(), before.shape(), "{name}");
        assert!(name.starts_with("encoder.layer.1."), "{name}");
        // Softmax takes out the bias of the keys.
        assert!(name.ends_with("key.bias") || view.data() != before.data(), "{name}");
    }
    let (head, lock) = (read_json(&folder.join("head.json")), read_json(&folder.join("lock.json")));
    assert_eq!(head["base"], lock["model"]["weights"]);
    assert_eq!((&head["layers"], &head["states"]), (&json!([1]), &json!(["tokens-L01"])));
    assert_eq!(head["standardize"], json!(false));
    assert!(lock["outputs"]["layers.safetensors"].is_string());

    // What was changed after the run is not used.
    let mut bytes = fs::read(folder.join("layers.safetensors")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(folder.join("layers.safetensors"), bytes).unwrap();
    let refused = workshop.run(&["predict", "tiny", "train.csv"]);
    assert!(refused.has_failed(), "{}", refused.stdout);
    assert!(refused.stderr.contains("layers.safetensors"), "{}", refused.stderr);
}

#[test]
fn layers_learn_what_a_head_alone_does_not() {
    let loss = |arguments: &[&str]| {
        let workshop = Workshop::tiny();
        let more = ["--set", "train.epochs=20", "--set", "train.early_stopping=false"];
        let folder = workshop.path(&run(&workshop, &[arguments, &more].concat()));
        let history = fs::read_to_string(folder.join("history.csv")).unwrap();
        let last = history.lines().last().unwrap().to_string();
        let column =
            history.lines().next().unwrap().split(',').position(|name| name == "train_loss");
        last.split(',').nth(column.unwrap()).unwrap().parse::<f64>().unwrap()
    };
    let frozen = loss(&["--set", "train.unfreeze=2", "--set", "train.layer_lr=1e-12"]);
    for settings in
        [["train.unfreeze=2", "train.layer_lr=1e-2"], ["train.unfreeze=2", "train.lora={}"]]
    {
        let [unfreeze, other] = settings;
        let rate = ["--set", "train.layer_lr=1e-2"];
        let trained = loss(&[&["--set", unfreeze, "--set", other], &rate[..]].concat());
        assert!(trained < 0.8 * frozen, "{settings:?}: {trained} and {frozen}");
    }
}

#[test]
fn a_pipeline_that_trains_no_layer_has_the_bytes_of_one_that_does_not_name_the_key() {
    let workshop = Workshop::tiny();
    let [plain, none] = [run(&workshop, &[]), run(&workshop, &["--set", "train.unfreeze=0"])];
    let mut files = [plain, none].map(|folder| outputs(&workshop, &json!(folder)));
    for files in &mut files {
        // It lists the settings of the file.
        files.remove("model_card.md").unwrap();
    }
    let [plain, none] = files;
    assert!(plain == none);
    assert!(!plain.contains_key("layers.safetensors"));
}

#[test]
fn streamed_states_give_the_same_bytes_for_any_number_of_threads() {
    let workshop = Workshop::empty();
    // Two and a half megabytes of token states.
    workshop.write("train.csv", csv(&texts(1400), 0));
    workshop.write_pipeline(&TINY_PIPELINE.replace(
        "shard_tokens = 400\n\n[train]\nepochs = 3",
        "shard_tokens = 1500\ndtype = \"f32\"\n\n[train]\nepochs = 1\nunfreeze = 1\nmemory_mb = 1",
    ));
    let [one, three] = ["1", "3"].map(|threads| {
        let folder = run(&workshop, &["--threads", threads]);
        outputs(&workshop, &json!(folder))
    });
    assert!(one == three && one.contains_key("layers.safetensors"));
}

#[test]
fn what_does_not_go_together_with_trained_layers_is_refused_with_the_cure() {
    let workshop = Workshop::tiny();
    for (more, expected) in [
        (&["train.unfreeze=3"][..], "train.unfreeze is 3, but the model has 2 layers"),
        (&["head.layers=[1]"], "leave head.layers out"),
        (&["head.pca=4"], "leave head.pca out"),
        (&["head.kind=ridge"], "train.unfreeze trains layers of the encoder, which a head of kind"),
        (&["sweep.unfreeze=[1, 3]"], "sweep.unfreeze is 3, but the model has 2 layers"),
        (&["sweep.unfreeze=[-1]"], "sweep.unfreeze has the value -1"),
        (&["sweep.unfreeze=[1, \"some\"]"], "a number of layers, or \"all\""),
        (&["sweep.unfreeze=[1]", "sweep.lora_rank=[-1]"], "[sweep], lora_rank = -1"),
        (&["sweep.unfreeze=[1]", "head.layers=[1]"], "leave head.layers out"),
        (&["train.unfreeze=\"some\""], "a number of layers, or \"all\""),
        (&["train.lora={rank=0}"], "give it a rank from 1 to 65536"),
        (&["train.lora={rank=99999999999}"], "give it a rank from 1 to 65536"),
        (&["train.lora={alpha=0}"], "train.lora has alpha 0"),
        (&["train.lora={targets=[]}"], "train.lora has no targets"),
        (&["train.lora={targets=[\"key\", \"key\"]}"], "train.lora has a target twice"),
        (&["train.lora={targets=[\"head\"]}"], "unknown variant `head`"),
        (&["train.unfreeze=0", "train.lora={}"], "leave train.lora out"),
        (&["train.layer_lr=0"], "set train.layer_lr to a value above 0"),
    ] {
        let sets = more.iter().flat_map(|set| ["--set", *set]);
        let arguments: Vec<&str> =
            ["run", PIPELINE].into_iter().chain(UNFREEZE).chain(sets).collect();
        let ran = workshop.run(&arguments);
        assert!(ran.has_failed(), "{more:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(expected), "{more:?}: {}", ran.stderr);
    }
    // A sweep over states that were stored before checks the number by itself.
    let sweep = sweep_workshop("unfreeze = [1, 2]");
    let error = sweep.fail(&["sweep", PIPELINE, "--set", "sweep.unfreeze=[1, 3]"]);
    assert!(error.contains("sweep.unfreeze is 3, but the model has 2 layers"), "{error}");
    assert!(!error.contains("train.unfreeze"), "{error}");
    let folder = run(&workshop, &UNFREEZE);
    for kind in ["onnx-head", "safetensors"] {
        let ran = workshop.run(&["export", &folder, "--to", kind, "--out", "exported"]);
        assert!(ran.has_failed(), "{}", ran.stdout);
        assert!(ran.stderr.contains("(train.unfreeze)"), "{}", ran.stderr);
    }
}

#[test]
fn a_sweep_over_layers_saves_the_run_that_train_makes_of_the_best() {
    let workshop = sweep_workshop("unfreeze = [1, 2]\nlayer_lr = [1e-3, 1e-2]");
    let report = workshop.json(&["sweep", PIPELINE]);
    assert_eq!(report["heads"], 4);
    let settings = &report["best"]["settings"];
    let best = ["unfreeze", "layer_lr"].map(|key| format!("train.{key}={}", settings[key]));
    let text = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    workshop.write("one.toml", text.split("[sweep]").next().unwrap());
    let one = workshop.json(&["train", "one.toml", "--set", &best[0], "--set", &best[1]]);
    let [sweep, train] =
        [&report, &one].map(|report| workshop.path(report["run"].as_str().unwrap()));
    for name in [
        "head.safetensors",
        "layers.safetensors",
        "predictions.parquet",
        "metrics.json",
        "history.csv",
    ] {
        let bytes = |run: &std::path::Path| fs::read(run.join(name)).unwrap();
        assert!(bytes(&sweep) == bytes(&train), "{name}");
    }
    let folder = report["run"].as_str().unwrap();
    let said = workshop.json(&["predict", folder, "--text", "a very cold film"]);
    assert!(said["label"].is_string(), "{said}");
    let lock = format!("{folder}/lock.json");
    let replay = workshop.succeed(&["run", "--locked", &lock]);
    assert!(replay.stdout.contains("layers.safetensors"), "{}", replay.stdout);
}

#[test]
fn a_sweep_with_folds_compares_frozen_heads_layers_and_ranks_by_the_same_bytes_for_any_threads() {
    let workshop =
        sweep_workshop("folds = 2\nseeds = 2\nunfreeze = [0, 1]\nlora_rank = [0, 2]\nlr = [1e-2]");
    let runs = ["1", "3"].map(|threads| {
        let ran = workshop.succeed(&["--json", "sweep", PIPELINE, "--threads", threads]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(
            ran.stderr.contains("2 of 3 settings train layers of the encoder"),
            "{}",
            ran.stderr
        );
        // The rank says nothing where no layer is trained.
        assert_eq!(report["heads"], 3 * 2 * 2);
        let board = report["leaderboard"].as_array().unwrap();
        for row in board {
            let settings = &row["settings"];
            assert_eq!(settings["lora_rank"].is_null(), settings["unfreeze"] == 0, "{settings}");
            assert!(row["score"].is_f64(), "{row}");
        }
        outputs(&workshop, &report["run"])
    });
    let [one, three] = runs;
    for name in ["leaderboard.csv", "head.safetensors", "metrics.json", "predictions.parquet"] {
        assert!(one[name] == three[name], "{name}");
    }
}

#[test]
fn halving_trains_frozen_heads_and_layers_side_by_side() {
    let workshop = sweep_workshop(
        "search = \"halving\"\nunfreeze = [0, 1, \"all\"]\nlr = [1e-3, 1e-2]\nepochs = [16]",
    );
    let report = workshop.json(&["sweep", PIPELINE]);
    assert_eq!(report["heads"], 6);
    let board = report["leaderboard"].as_array().unwrap();
    let rungs: Vec<u64> = board.iter().map(|row| row["rung"].as_u64().unwrap()).collect();
    assert!(rungs.is_sorted_by(|a, b| a >= b) && rungs[0] > rungs[5], "{rungs:?}");
}

#[test]
fn a_winner_is_calibrated_on_the_heads_of_the_folds_as_on_heads_that_are_trained_again_for_it() {
    let settings =
        "[train]\nepochs = 2\nunfreeze = 1\n[sweep]\nfolds = 2\nseeds = 2\nlayer_lr = [1e-2]";
    for (task, data, cache, tuned, untuned) in [
        ("classification", Data::Classes, "max_length = 24", "temperature", json!(1.0)),
        ("multilabel", Data::Labels, "max_length = 24", "thresholds", json!([0.5, 0.5, 0.5, 0.5])),
        (
            "qa",
            Data::ImpossibleQuestions,
            "max_length = 24\nstride = 6",
            "no_answer_threshold",
            json!(0.0),
        ),
    ] {
        let workshop = Case { task, data, cache, settings }.workshop();
        // Halving keeps no outputs, and has no rungs to drop a single setting at.
        let runs = ["grid", "halving"].map(|search| {
            let search = format!("sweep.search=\"{search}\"");
            let report = workshop.json(&["run", PIPELINE, "--set", &search]);
            workshop.path(report["sweep"]["run"].as_str().unwrap())
        });
        for name in ["head.json", "head.safetensors", "layers.safetensors", "predictions.parquet"] {
            let [kept, again] = runs.each_ref().map(|run| fs::read(run.join(name)).unwrap());
            assert!(kept == again, "{task}: {name}");
        }
        let head = read_json(&runs[0].join("head.json"));
        assert!(!head[tuned].is_null() && head[tuned] != untuned, "{task}: {}", head[tuned]);
    }
}
