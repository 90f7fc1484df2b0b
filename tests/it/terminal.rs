//! Output on a terminal: colours, tables that fit, suggestions for misspelt names, completions, and manual pages.

use std::fs;

use serde_json::Value;

use crate::support::{TINY_PIPELINE, Workshop, csv, finish, texts};

const RED: &str = "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m ";

#[test]
fn colours_come_where_they_are_asked_for_and_nowhere_else() {
    let workshop = Workshop::tiny();
    let plain = workshop.run(&["run", "missing.toml"]).stderr;
    assert!(plain.starts_with("error: ") && !plain.contains('\u{1b}'), "{plain}");
    for always in [&["--color", "always"][..], &["--color=always"]] {
        let ran = workshop.run(&[&["run", "missing.toml"], always].concat());
        assert!(ran.stderr.starts_with(RED), "{:?}", ran.stderr);
    }
    let usage = workshop.run(&["fly", "--color=always"]);
    assert!(usage.stderr.contains('\u{1b}'), "{:?}", usage.stderr);
    let usage = workshop.run(&["fly", "--color=never"]);
    assert!(!usage.stderr.contains('\u{1b}'), "{:?}", usage.stderr);
    let wrong = workshop.run(&["run", "missing.toml", "--color", "mauve"]);
    assert_eq!(wrong.code, Some(2));

    // Data cannot change colours.
    workshop.write("train.csv", "text,label\n\u{1b}[31mred,\u{1b}[31mred\nb,c\n");
    let ran = workshop.run(&["run", "pipeline.toml", "--color=always"]);
    assert!(!ran.stderr.contains("\u{1b}[31mred"), "{:?}", ran.stderr);
    // Warnings are yellow; the log has no colours.
    let warned = workshop.run(&["run", "pipeline.toml", "--color=always", "--log", "log"]);
    assert!(!fs::read_to_string(workshop.path("log")).unwrap().contains('\u{1b}'));
    assert!(!warned.stderr.is_empty());
}

/// Creates a workshop with a sweep over kinds of heads, poolings and rates on the tiny BERT.
fn sweep_of_kinds() -> Workshop {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(90), 0));
    let sweep = "\n[sweep]\nfolds = 2\nkind = [\"linear\", \"mlp\", \"ridge\"]\nhidden = [[8]]\nlr = [0.003, 0.01]\n\
                 dropout = [0.1, 0.5]\nlambda = [1.0, 10.0]\nlayer = [1, 2]\npooling = [\"cls\", \"mean\"]\n";
    workshop.write_pipeline(&(TINY_PIPELINE.to_string() + sweep));
    workshop
}

#[test]
fn a_leaderboard_fits_the_terminal_and_its_best_rows_stand_out() {
    let workshop = sweep_of_kinds();
    let page = workshop.succeed(&["run", "pipeline.toml"]).stdout;
    let wide = page.lines().filter(|line| line.chars().count() > 100);
    assert_eq!(wide.count(), 0, "{page}");
    let header = page.lines().find(|line| line.starts_with("leaderboard ")).unwrap();
    let titles: Vec<&str> = header.split("  ").map(str::trim).filter(|t| !t.is_empty()).collect();
    assert_eq!(
        titles,
        [
            "leaderboard rank",
            "kind",
            "layer",
            "pooling",
            "settings of the kind",
            "macro_f1",
            "fold std"
        ]
    );
    assert!(page.contains("dropout 0.") || page.contains("lambda 1"), "{page}");
    // Layers are in the leaderboard and in their own table, and therefore not among the effects.
    let effects = page.split("\neffects ").nth(1).unwrap().split("\nlayers ").next().unwrap();
    assert!(effects.contains(" pooling ") && !effects.contains(" layer "), "{effects}");

    let page = workshop.succeed(&["sweep", "pipeline.toml", "--color", "always"]).stdout;
    let first = page.lines().find(|line| line.contains(" 1= ") || line.contains("1=  ")).unwrap();
    assert!(first.contains("\u{1b}[1m\u{1b}[32m1="), "{first:?}");

    let mut command = workshop.command(&["sweep", "pipeline.toml"]);
    command.env("COLUMNS", "64");
    let page = finish(command).stdout;
    let copied = |line: &&str| !line.starts_with("run  ") && !line.starts_with("next  ");
    let widest = page.lines().filter(copied).max_by_key(|line| line.chars().count()).unwrap();
    assert!(widest.chars().count() <= 64, "{widest}\n{page}");
}

#[test]
fn one_key_that_is_swept_is_listed_once() {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(60), 0));
    workshop.write_pipeline(&(TINY_PIPELINE.to_string() + "\n[sweep]\nlr = [0.001, 0.01, 0.1]\n"));
    let page = workshop.succeed(&["run", "pipeline.toml"]).stdout;
    assert!(page.contains("leaderboard rank  lr ") && !page.contains("effects"), "{page}");
}

#[test]
fn of_many_classes_the_worst_confusions_are_listed() {
    let workshop = Workshop::empty();
    let rows = texts(400);
    let rows = rows.iter().enumerate().map(|(row, text)| format!("{text},class_{:02}\n", row % 25));
    workshop.write("train.csv", "text,label\n".to_string() + &rows.collect::<String>());
    workshop.write_pipeline(TINY_PIPELINE);
    let page = workshop.succeed(&["run", "pipeline.toml"]).stdout;
    assert!(!page.contains("true \\ predicted"), "{page}");
    let mut lines = page.lines().skip_while(|line| !line.trim_start().starts_with("true "));
    let titles: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(titles, ["true", "predicted", "count"]);
    let counts = lines
        .take_while(|line| line.contains("class_"))
        .map(|line| line.split_whitespace().last().unwrap().parse::<usize>().unwrap());
    let counts: Vec<usize> = counts.collect();
    assert!(counts.len() == 10 && counts.is_sorted_by(|a, b| a >= b), "{counts:?}\n{page}");
}

#[test]
fn a_slip_of_the_finger_is_met_with_what_was_meant() {
    let workshop = Workshop::empty();
    let slips = [
        ("[haed]\n", "did you mean `head`?"),
        ("[head]\ndroput = 0.1\n", "did you mean `dropout`?"),
        ("[head]\nkind = \"logistik\"\n", "did you mean `logistic`?"),
        ("[head]\nlr = 0.1\n", "did you mean `train.lr`?"),
        ("[cache]\ndtype = \"f61\"\n", "did you mean `f16`?"),
        ("[sweep]\nlamda = [1.0]\n", "did you mean `lambda`?"),
    ];
    for (toml, meant) in slips {
        let start = "[model]\npath = \"m\"\n[data]\ntrain = { path = \"train.csv\" }\n";
        workshop.write_pipeline(&format!("{start}{toml}"));
        let ran = workshop.run(&["run", "pipeline.toml"]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(&format!("hint: {meant}")), "{}", ran.stderr);
    }
    workshop.write("train.csv", csv(&texts(60), 0));
    workshop.write_pipeline(TINY_PIPELINE);
    for (setting, meant) in [
        ("train.optimiser=sgd", "`optimizer`"),
        ("train.optimizer=adamv", "`adam"),
        ("lr=0.1", "`train.lr`"),
        ("data.taks=qa", "`task`"),
        ("data.train.lable=x", "`label`"),
    ] {
        let ran = workshop.run(&["run", "pipeline.toml", "--set", setting, "--json"]);
        assert_eq!(ran.code, Some(2));
        let error: Value = serde_json::from_str(&ran.stdout).unwrap();
        let hint = error["error"]["hint"].as_str().unwrap();
        assert!(hint.starts_with(&format!("did you mean {meant}")), "{setting}: {hint}");
    }
    let ran = workshop.run(&["run", "pipeline.toml", "--set", "train.colour=blue"]);
    assert!(!ran.stderr.contains("did you mean"), "{}", ran.stderr);
    let ran = workshop.run(&["embed", "train.csv", "--out", "x.npy", "--format", "cvs"]);
    assert!(ran.stderr.contains("did you mean csv?"), "{}", ran.stderr);
}

#[test]
fn shells_complete_every_command_and_every_command_has_a_page() {
    let workshop = Workshop::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = workshop.succeed(&["completions", shell]).stdout;
        for word in ["precision-report", "prune", "dry-run"] {
            assert!(script.contains(word), "{shell} knows no {word}");
        }
    }
    assert_eq!(workshop.run(&["completions", "csh"]).code, Some(2));
    let page = workshop.succeed(&["man"]).stdout;
    assert!(page.contains(".TH frostbert 1") && page.contains("frostbert\\-run(1)"), "{page}");
    let made = workshop.json(&["man", "--out", "pages/man1"]);
    let pages: Vec<&str> =
        made["pages"].as_array().unwrap().iter().map(|page| page.as_str().unwrap()).collect();
    for name in ["frostbert.1", "frostbert-run.1", "frostbert-cache-prune.1"] {
        assert!(pages.contains(&name), "{pages:?}");
        let page = fs::read_to_string(workshop.path("pages/man1").join(name)).unwrap();
        assert!(page.contains("Examples:") || name == "frostbert-cache.1", "{page}");
    }
}
