use crate::{
    config::settings::{LayerChoice, described},
    sweep::trials::*,
};

fn base(sweep: &str) -> Pipeline {
    base_of("", sweep)
}

/// Returns a pipeline with this sweep; `rest` holds other sections of the file.
fn base_of(rest: &str, sweep: &str) -> Pipeline {
    let text = format!(
        "[model]\npath = \"model\"\n[data]\ntrain = {{ path = \"data.csv\" }}\n{rest}\n[sweep]\n{sweep}"
    );
    Pipeline::check("pipeline.toml".as_ref(), toml::from_str(&text).unwrap()).unwrap()
}

fn all_of(base: &Pipeline) -> Result<Trials> {
    trials(base, base.sweep().unwrap())
}

/// Returns the widths of the hidden layers of a trial's head.
fn widths(trial: &Trial) -> &[usize] {
    trial.pipeline.head.kind.hidden().map_or(&[], |layers| &layers.widths)
}

fn of(sweep: &str) -> Result<Vec<Trial>> {
    all_of(&base(sweep)).map(|trials| trials.all)
}

fn warnings(sweep: &str) -> Vec<String> {
    all_of(&base(sweep)).unwrap().warnings
}

#[test]
fn a_value_that_says_nothing_of_a_head_makes_no_second_trial_of_it() {
    let all = of("kind = [\"linear\", \"ridge\", \"mlp\"]\nlr = [1e-3, 1e-2]\nlambda = [0.1, 1.0, 10.0]\nhidden = [[8], [16]]").unwrap();
    let described: Vec<String> = all.iter().map(|trial| described(&trial.settings)).collect();
    assert_eq!(described.len(), 2 + 3 + 4, "{described:#?}");
    assert!(described.contains(&"kind = ridge, lambda = 0.1".to_string()), "{described:#?}");
    assert!(described.contains(&"kind = linear, lr = 0.01".to_string()), "{described:#?}");
    assert!(
        described.contains(&"hidden = [16], kind = mlp, lr = 0.001".to_string()),
        "{described:#?}"
    );
}

#[test]
fn all_layers_as_one_value_are_a_mix_of_which_a_warning_tells_how_to_compare_them() {
    let said = warnings("layer = \"all\"");
    let expected = "sweep.layer = \"all\" is one value, a head on a mix of all layers: to compare the layers, list them, \
                    as in layer = [0, 1, 2]";
    assert_eq!(said, [expected]);
    assert_eq!(warnings("layers = [\"all\", 1]"), [""; 0], "a mix next to a layer is meant");
    // A kind that mixes no layers says so too.
    let error = of("kind = [\"ridge\"]\nlayer = \"all\"").unwrap_err();
    assert!(error.hint().unwrap().contains("list them in [sweep]: layer = [0, 1, 2]"), "{error}");
}

#[test]
fn models_are_varied_like_any_key() {
    let shown = |trial: &Trial| {
        let model = trial.pipeline.extraction.model.display();
        format!("{}: {model}", described(&trial.settings))
    };
    let all = of("model.path = [\"a\", \"b\"]\nlr = [1e-3, 1e-2]").unwrap();
    assert_eq!(
        all.iter().map(shown).collect::<Vec<_>>(),
        [
            "lr = 0.001, model.path = a: a",
            "lr = 0.001, model.path = b: b",
            "lr = 0.01, model.path = a: a",
            "lr = 0.01, model.path = b: b",
        ]
    );
    assert!(all.iter().all(|trial| trial.pipeline.sweep.is_none()));
    let given =
        "[[sweep.settings]]\nmodel.path = \"a\"\nkind = \"ridge\"\n[[sweep.settings]]\nlr = 0.1";
    let all = of(given).unwrap();
    let expected = ["kind = ridge, model.path = a: a", "lr = 0.1: model"];
    assert_eq!(all.iter().map(shown).collect::<Vec<_>>(), expected);
}

#[test]
fn hidden_layers_are_those_that_an_mlp_has() {
    let all = of("kind = [\"linear\", \"mlp\"]\nhidden = [[], [256], [8]]").unwrap();
    let described: Vec<String> = all.iter().map(|trial| described(&trial.settings)).collect();
    let expected = ["kind = linear", "hidden = [256], kind = mlp", "hidden = [8], kind = mlp"];
    assert_eq!(described.len(), expected.len(), "{described:?}");
    for (trial, described) in all.iter().zip(&described) {
        assert!(expected.contains(&described.as_str()), "{described}");
        assert_eq!(widths(trial).is_empty(), described == "kind = linear");
    }
}

#[test]
fn combinations_that_cannot_be_are_left_out_where_each_value_can() {
    let sweep = "kind = [\"linear\", \"ridge\"]\npooling = [\"mean\", \"attention\"]";
    assert_eq!(of(sweep).unwrap().len(), 3);
    let [warning] = &warnings(sweep)[..] else { panic!("a warning") };
    let expected = "one impossible combination of values is left out: [sweep], kind = ridge, pooling = attention: ";
    assert!(warning.starts_with(expected), "{warning}");
    let error = of("kind = [\"ridge\"]\npooling = [\"attention\"]").unwrap_err();
    assert!(error.to_string().contains("pooling = attention"), "{error}");
    // The same whatever else is drawn.
    let drawn = format!("{sweep}\nlr = {{ min = 1e-4, max = 1e-2 }}\ntrials = 12");
    assert!(of(&drawn).unwrap().len() > 3);
    let error = of("lr = [0.1]\ndropout = { min = 0.5, max = 3.0 }\ntrials = 9").unwrap_err();
    assert!(error.to_string().contains("head.dropout is"), "{error}");
}

#[test]
fn whether_a_value_can_be_does_not_depend_on_what_was_drawn() {
    let lists = "kind = [\"linear\", \"ridge\", \"lda\"]\npooling = [\"mean\", \"attention\"]\nlr = { min = 1e-4, max = 1e-2 }";
    for seed in 0..40 {
        let mut base = base(&format!("{lists}\ntrials = {}", 1 + seed % 4));
        base.seed = seed;
        let trials = all_of(&base).unwrap();
        assert_eq!(trials.all.len() as u64, 1 + seed % 4, "seed {seed}: {:?}", trials.warnings);
    }
}

#[test]
fn what_no_trial_can_have_is_refused() {
    // A loss has no effect on ridge, whatever it is.
    let ridge = "[head]\nkind = \"ridge\"";
    let base = base_of(ridge, "loss = [\"mse\"]\nlambda = [1.0]");
    let trials = all_of(&base).unwrap();
    assert_eq!(trials.all.len(), 1);
    assert!(trials.warnings[0].starts_with("sweep.loss does not affect"));
    // Where the section is at fault in all that it says, or the rest of the file.
    assert!(of("loss = [\"mse\"]").is_err());
    assert!(all_of(&base_of(&format!("{ridge}\nlambda = -1.0"), "")).is_err());
    let both = "kind = [\"ridge\", \"lda\"]\npooling = [\"attention\"]";
    assert!(of(both).is_err());
}

#[test]
fn a_key_that_changes_nothing_is_warned_of() {
    let [warning] = &warnings("C = [0.1, 1.0]\nlr = [0.1]")[..] else { panic!("a warning") };
    let expected = "sweep.C does not affect heads of kind linear, and is left out";
    assert_eq!(warning, expected);
    assert!(warnings("kind = [\"linear\", \"logistic\"]\nC = [0.1, 1.0]").is_empty());
}

#[test]
fn keys_of_trained_layers_without_any_are_warned_of_as_such() {
    let expected = ["layer_lr", "lora_rank"]
        .map(|key| format!("sweep.{key} has an effect only with unfreeze, and is left out"));
    assert_eq!(warnings("layer_lr = [1e-4]\nlora_rank = [2, 4]"), expected);
    assert!(warnings("unfreeze = [0, 1]\nlora_rank = [2, 4]").is_empty());
    let [warning] = &warnings("kind = [\"ridge\"]\nlayer_lr = [1e-4]")[..] else { panic!() };
    assert_eq!(warning, "sweep.layer_lr does not affect heads of kind ridge, and is left out");
    let given = "[[sweep.settings]]\nC = 1.0\nlayer_lr = 1e-4";
    let [warning] = &warnings(given)[..] else { panic!() };
    let expected = "sweep.settings, number 1: C does not affect a head of kind linear; \
                    layer_lr has an effect only with unfreeze";
    assert_eq!(warning, expected);
}

#[test]
fn settings_that_train_no_layers_have_no_updates_of_them() {
    let given = "[[sweep.settings]]\nunfreeze = 1\n[[sweep.settings]]\nlr = 0.1";
    let base = base_of("[train]\nlora = { rank = 2 }", given);
    base.check_training().unwrap();
    let Trials { all, warnings } = all_of(&base).unwrap();
    let rank_of = |trial: &Trial| trial.pipeline.file().train.lora.as_ref().map(|lora| lora.rank);
    let ranks: Vec<Option<usize>> = all.iter().map(rank_of).collect();
    assert_eq!(ranks, [Some(2), None]);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn as_many_trials_are_drawn_as_were_asked_for() {
    let lists = "kind = [\"linear\", \"ridge\"]\nlambda = [0.1, 1.0]";
    let drawn = format!("{lists}\nlr = {{ min = 1e-4, max = 1e-2, log = true }}\ntrials = 30");
    assert_eq!(of(&drawn).unwrap().len(), 30);
    assert!(warnings(&drawn).is_empty());
    let few = format!("{lists}\nsearch = \"random\"\ntrials = 30");
    assert_eq!(of(&few).unwrap().len(), 3);
    let expected = "sweep.trials is 30, but only 3 settings were found that make different heads";
    assert_eq!(warnings(&few), [expected]);
}

#[test]
fn what_is_said_of_another_kind_of_head_is_left_out() {
    let rest = "[head]\nhidden = [8]\n[train]\nlabel_smoothing = 0.1";
    let base = base_of(rest, "kind = [\"mlp\", \"ridge\"]");
    base.check_training().unwrap();
    let all = all_of(&base).unwrap().all;
    let hidden: Vec<&[usize]> = all.iter().map(widths).collect();
    assert_eq!(hidden, [&[8][..], &[]]);
    assert_eq!(all[1].pipeline.head.loss.label_smoothing, 0.0);
}

#[test]
fn values_reach_the_pipeline_of_their_trial() {
    let all = of("layer = [-1, 3]\npooling = [\"cls\"]\nbatch_size = [64]").unwrap();
    assert_eq!(all.len(), 2);
    let pipeline = &all[1].pipeline;
    assert_eq!(pipeline.head.layers, LayerChoice::Listed(vec![3]));
    assert_eq!(pipeline.head.kind.steps().unwrap().batch_size, 64);
    assert_eq!(pipeline.sweep, None);
    let mixed = of("layers = [[1, 2], [3]]").unwrap();
    assert_eq!(mixed[0].pipeline.head.layers, LayerChoice::Listed(vec![1, 2]));
}

#[test]
fn a_sweep_stores_every_state_that_a_trial_reads() {
    let base = base("layer = [-1, 3]\npooling = [\"cls\", \"attention\"]");
    assert_eq!(base.extraction.layers, LayerChoice::Listed(vec![-1, 3]));
    let kinds: Vec<&str> = base.extraction.kinds.iter().map(|kind| kind.name()).collect();
    assert_eq!(kinds, ["cls", "tokens"]);
}

#[test]
fn what_cannot_be_swept_is_said_with_the_setting() {
    for (text, problem) in [
        ("lr = [\"fast\"]", "lr = fast"),
        ("kind = [\"linear\", \"crf\"]", "kind = crf"),
        ("kind = [\"none\"]", "kind = none"),
        ("dropout = [0.1, 1.5]", "dropout = 1.5"),
    ] {
        let error = of(text).unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}
