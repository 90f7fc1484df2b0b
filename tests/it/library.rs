//! The types at the root of the library, compared with the program: the same states, heads and predictions.

use std::{fs, path::Path};

use frostbert::{
    Cache, Classifier, Device, Embedder, EmbedderOptions, Error, Experiment, FitOptions, Key,
    Machine, Mode, Overflow, Pooling, Prediction, Predictor, StateId, fit, ndarray::Array2,
};
use serde_json::{Value, json};

use crate::support::{
    RICH_PIPELINE, TINY_ROWS, Workshop, copy_folder, fixture, label, read_json, texts,
};

fn options() -> EmbedderOptions {
    let machine = Machine::new("runtime/libonnxruntime.so", 2);
    EmbedderOptions::default().machine(machine).device(Device::Cpu).max_length(32)
}

fn keys(texts: &[impl AsRef<str>]) -> Vec<Key> {
    texts.iter().map(|text| Key::of(Mode::Text, &[text])).collect()
}

fn largest_difference(one: &Array2<f32>, other: &Array2<f32>) -> f32 {
    assert_eq!(one.dim(), other.dim());
    one.iter().zip(other).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

/// Runs the workshop's pipeline with the program, and opens the cache.
fn extracted(workshop: &Workshop, overrides: &[&str]) -> Cache {
    let mut arguments = vec!["extract", "pipeline.toml"];
    arguments.extend(overrides.iter().flat_map(|setting| ["--set", *setting]));
    let report = workshop.json(&arguments);
    Cache::open(workshop.path(report["cache"].as_str().unwrap())).unwrap()
}

#[test]
fn embedded_texts_are_the_rows_that_extract_stores() {
    let workshop = Workshop::tiny();
    let store = "cache.store=[\"cls\",\"mean\",\"max\"]";
    let cache = extracted(&workshop, &[store, "cache.layers=[1,2]", "cache.dtype=f32"]);
    let texts = texts(TINY_ROWS);
    for (layer, absolute) in [(1, 1), (-1, 2)] {
        let mut embedder = Embedder::open(fixture("tiny_bert"), &options().layer(layer)).unwrap();
        assert_eq!(embedder.hidden(), cache.hidden());
        for pooling in Pooling::ALL {
            let stored = cache.rows(&keys(&texts), StateId::pooled(pooling, absolute)).unwrap();
            let embedded = embedder.embed(&texts, pooling).unwrap();
            let off = largest_difference(&embedded, &stored);
            assert!(off < 2e-6, "{pooling:?} of layer {layer}: {off}");
            assert_eq!(embedder.embed(&texts, pooling).unwrap(), embedded, "the same bits again");
        }
    }
}

#[test]
fn long_texts_are_cut_or_read_window_by_window_as_by_extract() {
    let workshop = Workshop::rich(40);
    assert!(RICH_PIPELINE.contains("max_length = 16"));
    let cache = extracted(&workshop, &["cache.dtype=f32"]);
    let texts = texts(40);
    let options = options().max_length(16);
    let windows = options.clone().overflow(Overflow::Windows { stride: 4 });
    let mut embedder = Embedder::open(fixture("tiny_bert"), &windows).unwrap();
    let stored = cache.rows(&keys(&texts), StateId::pooled(Pooling::Mean, 2)).unwrap();
    let whole = embedder.embed(&texts, Pooling::Mean).unwrap();
    let off = largest_difference(&whole, &stored);
    assert!(off < 2e-6, "{off}");
    assert_eq!(embedder.n_truncated(), 0);
    let mut embedder = Embedder::open(fixture("tiny_bert"), &options).unwrap();
    let cut = embedder.embed(&texts, Pooling::Mean).unwrap();
    assert!(embedder.n_truncated() > 0);
    assert!(largest_difference(&cut, &whole) > 1e-3);
    assert_eq!(embedder.embed::<&str>(&[], Pooling::Cls).unwrap().dim(), (0, 32));
}

#[test]
fn pairs_are_encoded_in_one_input_as_by_extract() {
    let workshop = Workshop::tiny();
    let texts = texts(12);
    let pairs: Vec<(&str, &str)> =
        texts.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let row = |(first, second): &(&str, &str)| format!("{first},{second},cold\n");
    let rows: String = pairs.iter().map(row).collect();
    workshop.write("train.csv", format!("text,second,label\n{rows}"));
    let cache = extracted(
        &workshop,
        &["data.train.text_pair=second", "data.pair=joint", "cache.dtype=f32"],
    );
    let keys: Vec<Key> = pairs.iter().map(|(a, b)| Key::of(Mode::Pair, &[a, b])).collect();
    let stored = cache.rows(&keys, StateId::pooled(Pooling::Mean, 2)).unwrap();
    let mut embedder = Embedder::open(fixture("tiny_bert"), &options()).unwrap();
    let embedded = embedder.embed_pairs(&pairs, Pooling::Mean).unwrap();
    let off = largest_difference(&embedded, &stored);
    assert!(off < 2e-6, "{off}");
}

/// The pipeline trains on all rows, as `fit` does.
#[test]
fn a_fitted_head_is_the_head_that_train_saves() {
    let workshop = Workshop::tiny();
    let all = "data.split={train=1.0,validation=0.0,test=0.0}";
    let linear = ["head.kind=linear", "train.early_stopping=false", "train.epochs=10"];
    let labels: Vec<&str> = (0..TINY_ROWS).map(label).collect();
    let texts = texts(TINY_ROWS);
    for (run, overrides, head) in [
        ("001", &["head.kind=logistic"][..], frostbert::FitHead::default()),
        ("002", &linear, frostbert::FitHead::linear()),
    ] {
        let mut arguments = vec!["run", "pipeline.toml", "--set", all];
        arguments.extend(overrides.iter().flat_map(|setting| ["--set", *setting]));
        workshop.succeed(&arguments);
        let trained = Classifier::open(workshop.path(&format!("runs/tiny/{run}"))).unwrap();
        let cache = extracted(&workshop, &[]);
        let rows = cache.rows(&keys(&texts), StateId::pooled(Pooling::Mean, 2)).unwrap();
        let fitted = fit(rows.view(), &labels, &FitOptions::default().head(head)).unwrap();
        assert_eq!(fitted.labels(), trained.labels());
        let [fitted, trained] =
            [fitted, trained].map(|head| head.predict_proba(rows.view()).unwrap());
        assert_eq!(fitted, trained, "run {run}");
    }
}

#[test]
fn a_run_opened_by_its_folder_predicts_what_its_head_gives_for_embedded_texts() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", "pipeline.toml", "--set", "cache.dtype=f32"]);
    let run = workshop.path("runs/tiny");
    let mut predictor = Predictor::open_run(&run, &Machine::default()).unwrap();
    let new = ["the cold snow", "very good film"];
    let predictions = predictor.predict_texts(&new).unwrap();
    let head = Classifier::open(run.join("001")).unwrap();
    let mut embedder = Embedder::open(fixture("tiny_bert"), &options()).unwrap();
    let states = embedder.embed(&new, Pooling::Mean).unwrap();
    let (p, labels) =
        (head.predict_proba(states.view()).unwrap(), head.predict(states.view()).unwrap());
    for (number, prediction) in predictions.iter().enumerate() {
        let Prediction::Class { text, label, probabilities, .. } = prediction else {
            panic!("a class: {prediction:?}");
        };
        assert_eq!((text.as_str(), label.as_str()), (new[number], labels[number]));
        for (class, (name, probability)) in probabilities.iter().enumerate() {
            assert_eq!(name, &head.labels()[class]);
            assert!((probability - p[[number, class]]).abs() < 1e-6);
        }
    }
    let error = predictor.predict_pairs(&[("one", "two")]).unwrap_err();
    assert!(error.to_string().contains("expected one text for each prediction"), "{error}");
}

#[test]
fn a_head_of_words_is_no_classifier() {
    let workshop = Workshop::empty();
    workshop.write("train.conll", "cold\tO\nsnow\tB-ICE\n\n".repeat(12));
    workshop.write_pipeline(
        "[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n[data]\ntask = \"tokens\"\ntrain = { path = \"train.conll\" }\n\
         clean = { drop_empty = true, drop_duplicates = false }\n[cache]\nmax_length = 32\n[train]\nepochs = 1\n",
    );
    workshop.succeed(&["run", "pipeline.toml"]);
    let error = Classifier::open(workshop.path("runs/pipeline/001")).unwrap_err();
    assert!(matches!(error, Error::Run { .. }), "{error}");
    assert!(error.to_string().ends_with("got one of the task tokens"), "{error}");
    assert!(error.hint().unwrap().contains("Predictor::open_run"));
}

#[test]
fn an_experiment_of_two_tasks_reports_both_and_extracts_alone() {
    let workshop = Workshop::tiny();
    let data = workshop.path("train.csv").display().to_string();
    let task = |name: &str| {
        format!(
            "[tasks.{name}]\ndata = {{ train = {{ path = \"{data}\" }} }}\ntrain = {{ epochs = 1 }}\n"
        )
    };
    workshop.write_pipeline(&format!(
        "[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n[cache]\nmax_length = 32\n{}{}",
        task("one"),
        task("two")
    ));
    let dirs = ["cache", "run"].map(|name| {
        let dir = workshop.path(name).display().to_string();
        format!("{name}.dir={dir}")
    });
    let overrides = dirs.each_ref().map(String::as_str);
    let experiment = Experiment::open_with(workshop.path("pipeline.toml"), &overrides).unwrap();
    let extracted = experiment.extract(&Machine::default(), &()).unwrap();
    assert_eq!((extracted.computed, extracted.reused), (120, 0));
    assert_eq!(Cache::open(&extracted.cache).unwrap().n_documents(), 120);
    let report = experiment.run(&Machine::default(), &()).unwrap();
    let extract = report.extract.as_ref().unwrap();
    assert_eq!((extract.computed, extract.reused), (0, 120));
    for name in ["one", "two"] {
        assert_eq!(report.metrics(Some(name)).unwrap().epochs, 1);
        let task = report.heads.task(Some(name)).unwrap();
        assert_eq!(task.folder(), report.folder().join(name));
    }
    assert!(report.metrics(None).is_none());
    assert!(Experiment::open(workshop.path("none.toml")).is_err());
}

#[test]
fn a_predictor_reads_the_modules_of_sentence_vectors_once() {
    let workshop = Workshop::tiny();
    let model = workshop.path("sentences");
    copy_folder(&fixture("sentence_folders/mean_max_dense"), &model);
    workshop.write_pipeline(&format!(
        "name = \"tiny\"\n[model]\npath = {model:?}\ndevice = \"cpu\"\n[data]\ntrain = {{ path = \"train.csv\" }}\n\
         [train]\nepochs = 2\n"
    ));
    workshop.json(&["run", "pipeline.toml"]);
    let mut predictor =
        Predictor::open_run(workshop.path("runs/tiny"), &Machine::default()).unwrap();
    let new = ["the cold snow", "very good film"];
    let predicted = predictor.predict_texts(&new).unwrap();
    fs::remove_dir_all(model.join("2_Dense")).unwrap();
    assert_eq!(predictor.predict_texts(&new).unwrap(), predicted);
}

#[test]
fn a_sentence_transformers_folder_says_how_long_texts_are_and_in_which_case() {
    let expected = read_json(&fixture("sentence_folders/expected.json"));
    let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
    let vectors: Vec<Vec<f32>> =
        serde_json::from_value(expected["folders"]["cls"]["vectors"].clone()).unwrap();
    let vectors = Array2::from_shape_fn((texts.len(), 16), |(row, column)| vectors[row][column]);
    let machine = Machine::new("runtime/libonnxruntime.so", 2);
    let options = EmbedderOptions::default().machine(machine).device(Device::Cpu);
    let embed = |folder: &Path, options: &EmbedderOptions| {
        let mut embedder = Embedder::open(folder, options).unwrap();
        embedder.embed(&texts, Pooling::Cls).unwrap()
    };
    let of_folder = embed(&fixture("sentence_folders/cls"), &options);
    assert!(largest_difference(&of_folder, &vectors) < 1e-5);

    // The same folder with a tokenizer that keeps the case, which the encoder's settings undo.
    let workshop = Workshop::empty();
    let cased = workshop.path("cased");
    copy_folder(&fixture("sentence_folders/cls"), &cased);
    let set = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut file = read_json(&cased.join(name));
        change(&mut file);
        fs::write(cased.join(name), file.to_string()).unwrap();
    };
    set("tokenizer.json", &|file| file["normalizer"]["lowercase"] = json!(false));
    let kept = embed(&cased, &options);
    assert!(largest_difference(&kept, &of_folder) > 1e-3, "the case makes a difference");
    set("sentence_bert_config.json", &|file| file["do_lower_case"] = json!(true));
    assert_eq!(embed(&cased, &options), of_folder);
    assert_eq!(embed(&cased, &options.clone().lowercase(false)), kept);

    // A tokenizer without the choice reads texts as it does without the folder's word.
    set("tokenizer.json", &|file| file["normalizer"] = json!({ "type": "NFC" }));
    let without_choice = embed(&cased, &options);
    set("sentence_bert_config.json", &|file| file["do_lower_case"] = json!(false));
    assert_eq!(embed(&cased, &options), without_choice);
}
