//! Prompts, which are put before texts: against sentence-transformers, and wherever texts are encoded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use frostbert::{Cache, Device, Embedder, EmbedderOptions, Key, Machine, Mode, Pooling, StateId};
use serde_json::{Value, json};

use crate::{
    encoder_oracle::largest_difference,
    support::{Ran, TINY_PIPELINE, Workshop, copy_folder, csv, fixture, read_json, texts},
};

const PIPELINE: &str = "pipeline.toml";

/// The largest difference from sentence-transformers, in states of f32.
const MOST: f32 = 1e-5;

/// The values of a state of the tiny BERT.
const HIDDEN: usize = 32;

/// Makes a model folder of the workshop, with what sentence-transformers saved in one of the fixtures.
fn model(workshop: &Workshop, name: &str) -> PathBuf {
    let target = workshop.path(name);
    copy_folder(&fixture("prompts").join(name), &target);
    let weights = "model.safetensors";
    fs::copy(fixture("tiny_bert").join(weights), target.join(weights)).unwrap();
    target
}

fn expected() -> Value {
    read_json(&fixture("prompts/expected.json"))
}

/// The means of the texts of the fixture with a prompt, one after the other.
fn expected_states(expected: &Value, folder: &str, prompt: &str) -> Vec<f32> {
    let rows = expected["folders"][folder][prompt].as_array().unwrap();
    let values = rows.iter().flat_map(|row| row.as_array().unwrap());
    values.map(|value| value.as_f64().unwrap() as f32).collect()
}

/// Writes the texts of the fixture to `texts.txt`.
fn write_texts(workshop: &Workshop, expected: &Value) {
    let texts = expected["texts"].as_array().unwrap().iter();
    let lines: String = texts.map(|text| format!("{}\n", text.as_str().unwrap())).collect();
    workshop.write("texts.txt", lines);
}

/// Runs `embed` on `texts.txt` with a model of the workshop.
fn embed(workshop: &Workshop, model: &str, more: &[&str]) -> Ran {
    let arguments = [
        &["embed", "texts.txt", "--model", model, "--out", "rows.npy", "--json"],
        &["--set", "cache.max_length=24", "--set", "model.device=cpu"][..],
        more,
    ];
    workshop.run(&arguments.concat())
}

/// The report of an `embed` that must succeed.
fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

/// The f32 values at the end of `rows.npy`.
fn rows(workshop: &Workshop, n_rows: usize) -> Vec<f32> {
    let bytes = fs::read(workshop.path("rows.npy")).unwrap();
    let values = bytes[bytes.len() - 4 * n_rows * HIDDEN..].chunks_exact(4);
    values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn states_with_a_prompt_equal_those_of_sentence_transformers() {
    let workshop = Workshop::empty();
    let expected = expected();
    write_texts(&workshop, &expected);
    let n_texts = expected["texts"].as_array().unwrap().len();
    for folder in ["included", "left_out"] {
        model(&workshop, folder);
        let mut all = Vec::new();
        for (name, text) in expected["prompts"].as_object().unwrap() {
            let text = text.as_str().unwrap();
            let states = expected_states(&expected, folder, text);
            for prompt in [name.as_str(), text] {
                let report = report(&embed(&workshop, folder, &["--prompt", prompt]));
                assert_eq!(report["rows"], json!(n_texts));
                let rows = rows(&workshop, n_texts);
                assert_eq!(rows.len(), states.len());
                let difference = largest_difference(&states, &rows);
                assert!(difference <= MOST, "{folder}, `{prompt}` differs by {difference}");
            }
            all.push(states);
        }
        // The comparison could not tell prompts apart if their states were the same.
        for (number, states) in all.iter().enumerate() {
            assert!(all[..number].iter().all(|other| largest_difference(states, other) > 0.01));
        }
    }
    let of = |folder: &str| expected_states(&expected, folder, "the film: ");
    assert!(largest_difference(&of("included"), &of("left_out")) > 0.01);
}

#[test]
fn an_embedder_puts_the_prompt_before_its_texts() {
    let workshop = Workshop::empty();
    let expected = expected();
    let texts: Vec<&str> =
        expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let machine = Machine::new("runtime/libonnxruntime.so", 1);
    let options = EmbedderOptions::default().machine(machine).device(Device::Cpu).max_length(24);
    for folder in ["included", "left_out"] {
        let model = model(&workshop, folder);
        for (options, prompt) in [
            (options.clone(), ""),
            (options.clone().prompt("query"), "is it a cold film? "),
            (options.clone().prompt("the film: "), "the film: "),
        ] {
            let mut embedder = Embedder::open(&model, &options).unwrap();
            let rows = embedder.embed(&texts, Pooling::Mean).unwrap();
            let states = expected_states(&expected, folder, prompt);
            let difference = largest_difference(&states, rows.as_slice().unwrap());
            assert!(difference <= MOST, "{folder}, `{prompt}` differs by {difference}");
        }
        let error = Embedder::open(&model, &options.clone().prompt("qeury"));
        assert!(error.err().unwrap().hint().unwrap().starts_with("did you mean `query`?"));
    }
}

/// The folders of caches in the workshop.
fn caches(workshop: &Workshop) -> Vec<PathBuf> {
    let folders = fs::read_dir(workshop.path("cache")).unwrap();
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("manifest.json").exists());
    folders
}

fn only_cache(workshop: &Workshop) -> PathBuf {
    let mut caches = caches(workshop);
    assert_eq!(caches.len(), 1, "{caches:?}");
    caches.remove(0)
}

#[test]
fn one_cache_holds_texts_with_and_without_a_prompt() {
    let workshop = Workshop::empty();
    let expected = expected();
    write_texts(&workshop, &expected);
    model(&workshop, "included");
    let counts = |prompt: &str| {
        let report = report(&embed(&workshop, "included", &["--prompt", prompt]));
        (report["computed"].clone(), report["reused"].clone())
    };
    for prompt in ["", "query", "passage"] {
        assert_eq!(counts(prompt), (json!(5), json!(0)), "{prompt}");
    }
    for prompt in ["document", "query", "the film: "] {
        assert_eq!(counts(prompt), (json!(0), json!(5)), "{prompt}");
    }
    let folder = only_cache(&workshop);
    let cache = Cache::open(&folder).unwrap();
    let first = expected["texts"][0].as_str().unwrap();
    let state = StateId::pooled(Pooling::Mean, 2);
    for key in [
        Key::of(Mode::Text, &[first]),
        Key::of(Mode::Prompted, &["is it a cold film? ", first]),
        Key::of(Mode::Prompted, &["the film: ", first]),
    ] {
        assert!(cache.contains(&key, state));
    }
    assert!(!cache.contains(&Key::of(Mode::Text, &[format!("the film: {first}")]), state));
    let manifest = read_json(&folder.join("manifest.json"));
    assert_eq!(manifest["inputs"].get("include_prompt"), None);
}

#[test]
fn a_prompt_that_pooling_leaves_out_has_a_cache_of_its_own() {
    let workshop = Workshop::empty();
    write_texts(&workshop, &expected());
    model(&workshop, "left_out");
    for prompt in ["", "query"] {
        report(&embed(&workshop, "left_out", &["--prompt", prompt]));
    }
    let of = |folder: &PathBuf| {
        let manifest = read_json(&folder.join("manifest.json"));
        manifest["inputs"].get("include_prompt").cloned()
    };
    let mut inputs: Vec<Option<Value>> = caches(&workshop).iter().map(of).collect();
    inputs.sort_by_key(Option::is_some);
    assert_eq!(inputs, [None, Some(json!(false))]);
}

/// Sets the default prompt of a model folder.
fn set_default(model: &Path, name: &str) {
    let path = model.join("config_sentence_transformers.json");
    let mut file = read_json(&path);
    file["default_prompt_name"] = json!(name);
    fs::write(path, file.to_string()).unwrap();
}

#[test]
fn what_a_folder_says_of_prompts_is_said_and_a_wrong_name_is_refused() {
    let workshop = Workshop::empty();
    let expected = expected();
    write_texts(&workshop, &expected);
    let folder = model(&workshop, "included");
    let ran = embed(&workshop, "included", &[]);
    report(&ran);
    let warning = "the model included was made for prompts, and none is chosen: it has `passage` (\"the film: \")";
    assert!(ran.stderr.contains("warning: ") && ran.stderr.contains(warning), "{}", ran.stderr);
    // The command has a flag where a pipeline file has a key.
    assert!(ran.stderr.contains("set --prompt to one of them"), "{}", ran.stderr);
    let plain = rows(&workshop, 5);
    let ran = embed(&workshop, "included", &["--prompt", ""]);
    assert!(!ran.stderr.contains("prompt"), "{}", ran.stderr);
    assert_eq!(rows(&workshop, 5), plain);

    set_default(&folder, "passage");
    let ran = embed(&workshop, "included", &[]);
    report(&ran);
    let note = "the model's default prompt `passage` (\"the film: \") is put before texts; --prompt \"\" leaves";
    assert!(ran.stderr.contains(note) && !ran.stderr.contains("was made for"), "{}", ran.stderr);
    let states = expected_states(&expected, "included", "the film: ");
    assert!(largest_difference(&states, &rows(&workshop, 5)) <= MOST);

    set_default(&folder, "document");
    let ran = embed(&workshop, "included", &[]);
    assert!(!ran.stderr.contains("prompt"), "{}", ran.stderr);
    assert_eq!(rows(&workshop, 5), plain);

    let ran = embed(&workshop, "included", &["--prompt", "pasage"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean `passage`?"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--prompt is `pasage`"), "{}", ran.stderr);
    set_default(&folder, "pasage");
    let ran = embed(&workshop, "included", &[]);
    assert!(ran.has_failed() && ran.stderr.contains("`default_prompt_name`"), "{}", ran.stderr);
}

/// A workshop with a pipeline over 120 texts, with this model and these lines of `[model]`.
fn training(folder: &str, model_lines: &str) -> Workshop {
    let workshop = Workshop::tiny();
    let path = model(&workshop, folder).display().to_string();
    let toml = TINY_PIPELINE.replace("\"MODEL\"", &format!("\"{path}\"\n{model_lines}"));
    workshop.write(PIPELINE, toml);
    workshop
}

#[test]
fn a_default_prompt_is_left_out_with_a_note_where_layers_are_trained() {
    let workshop = training("included", "");
    set_default(&workshop.path("included"), "passage");
    let prompt = "the model's default prompt `passage` (\"the film: \") is";
    let obstacle = "unfreeze trains layers from states of tokens";
    for (unfreeze, is_used) in
        [("train.unfreeze=1", false), ("sweep.unfreeze=[0, 1]", false), ("train.unfreeze=0", true)]
    {
        let ran = workshop.succeed(&["run", PIPELINE, "--set", unfreeze]);
        let note = if is_used {
            format!("{prompt} put before texts")
        } else {
            format!("{prompt} not used: {obstacle}")
        };
        assert!(ran.stderr.contains(&note), "{unfreeze}: {}", ran.stderr);
    }
    let prompts = ["001", "002", "003"].map(|run| {
        let lock = read_json(&workshop.path("runs/tiny").join(run).join("lock.json"));
        lock["pipeline"]["model"]["prompt"].clone()
    });
    assert_eq!(prompts, [Value::Null, Value::Null, json!("the film: ")]);

    let own = ["--set", "train.unfreeze=1", "--set", "model.prompt=\"passage\""];
    let error = workshop.fail(&[&["run", PIPELINE], &own[..]].concat());
    assert!(error.contains(&format!("model.prompt gives a prompt, but {obstacle}")), "{error}");
}

#[test]
fn a_comparison_that_trains_layers_leaves_the_default_prompt_out_of_every_method() {
    let workshop = training("included", "");
    set_default(&workshop.path("included"), "passage");
    let compare = |methods: &str, more: &[&str]| {
        let few = ["compare", PIPELINE, "--seeds", "1", "--epochs", "1", "--methods", methods];
        workshop.run(&[&few[..], more].concat())
    };
    let note = "the model's default prompt is not used";
    for (methods, is_used) in [("linear,top-1", false), ("linear", true)] {
        let ran = compare(methods, &[]);
        assert!(!ran.has_failed(), "{methods}: {}", ran.stderr);
        assert_eq!(!ran.stderr.contains(note), is_used, "{methods}: {}", ran.stderr);
    }
    let ran = compare("linear,top-1", &["--set", "model.prompt=\"passage\""]);
    let refusal = "model.prompt gives a prompt, but unfreeze trains layers";
    assert!(ran.has_failed() && ran.stderr.contains(refusal), "{}", ran.stderr);
}

#[test]
fn a_run_predicts_evaluates_and_replays_with_its_own_prompt() {
    for folder in ["included", "left_out"] {
        let workshop = training(folder, "prompt = \"passage\"");
        workshop.json(&["run", PIPELINE]);
        let run = "runs/tiny/001";
        let lock = read_json(&workshop.path(run).join("lock.json"));
        assert_eq!(lock["pipeline"]["model"]["prompt"], "the film: ");
        let cache = Cache::open(only_cache(&workshop)).unwrap();
        let corpus = texts(120);
        let state = StateId::pooled(Pooling::Mean, 2);
        let key = |text: &String| Key::of(Mode::Prompted, &["the film: ", text]);
        assert!(corpus.iter().all(|text| cache.contains(&key(text), state)));

        // From the cache, from a file, and one by one.
        let out = ["--out", "all.jsonl", "--probabilities"];
        let file = workshop.json(&[&["predict", run, "train.csv"], &out[..]].concat());
        assert_eq!(file["reused"], json!(120));
        let line = fs::read_to_string(workshop.path("all.jsonl")).unwrap();
        let line: Value = serde_json::from_str(line.lines().nth(7).unwrap()).unwrap();
        let one = workshop.json(&["predict", run, "--text", &corpus[7]]);
        assert_eq!(one["label"], line["label"]);
        for label in ["cold", "warm", "plain"] {
            let there = line[format!("p_{label}")].as_f64().unwrap();
            let here = one["probabilities"][label].as_f64().unwrap();
            assert!((there - here).abs() < 1e-3, "{there} and {here}");
        }

        let before = fs::read_dir(workshop.path("cache")).unwrap().count();
        workshop.json(&["evaluate", run, "--data", "train.csv"]);
        assert_eq!(fs::read_dir(workshop.path("cache")).unwrap().count(), before);
        // The folder may have another default by then: the lock holds the text.
        set_default(&workshop.path(folder), "query");
        workshop.succeed(&["run", "--locked", run]);
        let ran = workshop.run(&["predict", run, "train.csv", "--set", "prompt=a: "]);
        assert!(ran.has_failed() && ran.stderr.contains("the run's own prompt"), "{}", ran.stderr);
    }
}

#[test]
fn runs_with_and_without_a_prompt_are_compared_on_the_same_rows() {
    let workshop = training("included", "prompt = \"query\"");
    workshop.json(&["run", PIPELINE]);
    workshop.json(&["run", PIPELINE, "--set", "model.prompt=\"\""]);
    let diff = workshop.json(&["runs", "diff", "runs/tiny/001", "runs/tiny/002"]);
    assert!(!diff.to_string().contains("other rows"), "{diff}");
    assert!(diff.to_string().contains("model.prompt"), "{diff}");
}

#[test]
fn queries_and_passages_have_prompts_of_their_own() {
    let workshop = Workshop::empty();
    let corpus = texts(60);
    let rows = corpus.iter().zip(corpus.iter().skip(1)).enumerate();
    let rows = rows.map(|(number, (one, other))| format!("{one},{other},{number}\n"));
    workshop.write("pairs.csv", format!("text,other,score\n{}", rows.collect::<String>()));
    let path = model(&workshop, "included").display().to_string();
    let source = "{ path = \"pairs.csv\", text_pair = \"other\", label = \"score\", prompt = \"query\", \
                  pair_prompt = \"passage\" }\ntask = \"similarity\"";
    let toml = TINY_PIPELINE.replace("MODEL", &path).replace("{ path = \"train.csv\" }", source);
    workshop.write(PIPELINE, toml.replace("[train]\nepochs = 3\n", ""));
    workshop.json(&["run", PIPELINE]);
    let cache = Cache::open(only_cache(&workshop)).unwrap();
    let state = StateId::pooled(Pooling::Mean, 2);
    let holds =
        |prompt: &str, text: &str| cache.contains(&Key::of(Mode::Prompted, &[prompt, text]), state);
    let (query, passage) = ("is it a cold film? ", "the film: ");
    assert!(holds(query, &corpus[0]) && !holds(passage, &corpus[0]), "the first is no second text");
    assert!(holds(query, &corpus[1]) && holds(passage, &corpus[1]));
    assert!(!cache.contains(&Key::of(Mode::Text, &[&corpus[1]]), state));

    // Who looks for the second texts in the cache, or among those that a head learned from, knows their prompt.
    let run = "runs/tiny/001";
    let page = fs::read_to_string(workshop.path(run).join("report.html")).unwrap();
    assert!(
        page.contains("118 distinct texts have"),
        "the lengths of 59 first and 59 second texts"
    );
    workshop.json(&["run", PIPELINE, "--set", "head.kind=linear"]);
    let ran = workshop.run(&["evaluate", "runs/tiny/002", "--data", "pairs.csv"]);
    assert!(ran.stderr.contains("that the head learned from"), "{}", ran.stderr);
    let pair = ["--text", &corpus[0], "--text-pair", &corpus[1]];
    let predicted = workshop.json(&[&["predict", run], &pair[..]].concat());
    assert!(predicted["value"].is_f64(), "{predicted}");

    // A query has the prompt that is given, and its own text with the same prompt is wholly like it.
    let nearest = |prompt: &[&str]| {
        let arguments =
            [&["similar", PIPELINE, "--query", &corpus[1], "--top", "1"], prompt].concat();
        workshop.json(&arguments)["matches"][0]["score"].as_f64().unwrap()
    };
    assert!((nearest(&["--prompt", "query"]) - 1.0).abs() < 1e-3);
    assert!(nearest(&["--prompt", "very bad: "]) < 0.9999);
    let said = |prompt: &[&str]| {
        let arguments = [&["similar", PIPELINE, "--query", &corpus[1]], prompt].concat();
        workshop.succeed(&arguments).stderr
    };
    let lacking = "what is compared has no prompt, but the texts of `pairs.csv` have";
    assert!(said(&[]).contains(lacking), "{}", said(&[]));
    let with_own = said(&["--prompt", "query"]);
    assert!(with_own.contains("put before the query alone") && !with_own.contains(lacking));
    let ran = workshop.run(&["similar", PIPELINE, "--query", "a", "--prompt", "qeury"]);
    assert!(ran.has_failed() && ran.stderr.contains("did you mean `query`?"), "{}", ran.stderr);
}

#[test]
fn tasks_that_find_places_in_a_text_refuse_a_prompt() {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", csv(&texts(12), 0));
    for (settings, problem) in [
        (["data.task=tokens", "model.prompt=a: "], "the task `tokens` finds words"),
        (["head.pooling=attention", "model.prompt=a: "], "states of tokens are stored"),
        (["data.train.pair_prompt=a: ", "seed=1"], "has no second texts"),
    ] {
        let [one, other] = settings;
        let ran = workshop.run(&["run", PIPELINE, "--set", one, "--set", other]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(problem), "{}", ran.stderr);
    }
}

#[test]
fn init_writes_which_prompts_the_model_has_and_refuses_a_name_on_the_hub() {
    let workshop = Workshop::tiny();
    let folder = model(&workshop, "included");
    let init = |model: &str| {
        workshop.run(&["init", "train.csv", "--out", "new.toml", "--force", "--model", model])
    };
    let written = || fs::read_to_string(workshop.path("new.toml")).unwrap();
    assert_eq!(init("included").code, Some(0));
    let said = "# The model was made for texts with a prompt before them: `passage` (\"the film: \"), `query`";
    assert!(
        written().contains(said) && written().contains("# Choose one of them"),
        "{}",
        written()
    );
    set_default(&folder, "passage");
    assert_eq!(init("included").code, Some(0));
    assert!(written().contains("# Without the next key it is `passage`"), "{}", written());
    // The comment is a key once it is one no more.
    workshop.write("new.toml", written().replace("# prompt = \"\"", "prompt = \"query\""));
    let settings = ["--set", "cache.max_length=24", "--set", "model.device=cpu"];
    workshop.succeed(&[&["extract", "new.toml"], &settings[..]].concat());
    assert_eq!(init(&fixture("tiny_bert").display().to_string()).code, Some(0));
    assert!(!written().contains("prompt"), "{}", written());

    let ran = init("hf:acme/tiny");
    assert!(ran.has_failed() && ran.stderr.contains("`frostbert model pull hf:acme/tiny` once"));
    let ran = init("acme/tiny");
    assert_eq!(ran.code, Some(0), "it may be a folder that is not there yet: {}", ran.stderr);
    assert!(ran.stderr.contains("model pull hf:acme/tiny` once"), "{}", ran.stderr);
}
