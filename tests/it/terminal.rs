//! What people see on a terminal: what was probably meant.

use serde_json::Value;

use crate::support::{TINY_PIPELINE, Workshop, csv, texts};

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
