use super::*;

/// The card of a classifier of which everything is known.
fn full() -> ModelCard {
    ModelCard {
        name: "sentiment".into(),
        version: "0.1.0".into(),
        task: "classification".into(),
        reads_pairs: false,
        model: CardModel {
            name: "someone/tiny".into(),
            shown: "`someone/tiny`".into(),
            revision: Some("0123456789ab".into()),
            is_on_hub: true,
            weights: "0011223344556677".into(),
        },
        head: CardHead {
            kind: "linear".into(),
            reads: Some("the mean state of layer 6".into()),
            parameters: Some("1,155 parameters".into()),
        },
        labels: vec![text("a|b"), text("<script>")],
        n_labels: 3,
        training: CardTraining {
            epochs: 24,
            epochs_shown: "24 epochs".into(),
            best_epoch: 14,
            stops: true,
            followed: "macro_f1".into(),
            is_of_sweep: false,
            is_refit: false,
        },
        settings: vec![CardSetting { key: "train.lr".into(), value: code("0.01") }],
        parts: vec![CardPart { name: "train", rows: 630 }],
        files: vec![CardFile {
            path: code("data/a.csv"),
            rows: 900,
            hash: "0011223344556677".into(),
        }],
        class_title: "label",
        classes: vec![CardClass { label: text("a|b"), train: 1, validation: 2, test: 3 }],
        n_classes: 2,
        data_notes: vec!["Classes are uneven.".into()],
        headline: Some(CardHeadline {
            part: "test",
            count: "135".into(),
            unit: "texts",
            metric: Metric::Accuracy,
            is_share: true,
            value: "68.1 %".into(),
            interval: Some("60.0 to 75.6 %".into()),
            baseline: Some(CardTrivialAnswer {
                description: "always `good`".into(),
                value: "33.3 %".into(),
            }),
            scores: vec![(Metric::Accuracy, 0.681), (Metric::MacroF1, 0.5), (Metric::Mcc, 1e-7)],
            data: ["a".into(), "a.csv".into()],
        }),
        result_parts: vec!["train", "test"],
        results: vec![CardScores {
            metric: Metric::Accuracy,
            cells: vec!["0.900".into(), "0.681 [0.600, 0.756]".into()],
        }],
        per_class: vec![CardClassScore {
            label: text("a|b"),
            precision: "0.500".into(),
            recall: "0.250".into(),
            f1: "0.333".into(),
            support: 45,
        }],
        baseline: Some(CardBaseline {
            description: "always `good`".into(),
            scores: [Metric::Accuracy, Metric::MacroF1]
                .map(|metric| CardScore { metric, value: "0.333".into() })
                .to_vec(),
        }),
        few_rows: true,
        texts: CardTexts {
            truncated: 2,
            documents: "900 texts".into(),
            max_length: 128,
            has_windows: false,
        },
        calibration: Some(CardCalibration {
            temperature: "1.234".into(),
            ece: Some("0.050".into()),
            before: Some("0.090".into()),
        }),
        findings: vec!["3 of 765 labels look wrong".into()],
        seed: 42,
        device: "cpu".into(),
    }
}

/// The card of a cosine without a test split.
fn bare() -> ModelCard {
    ModelCard {
        task: "similarity".into(),
        reads_pairs: true,
        model: CardModel {
            name: "tiny".into(),
            shown: "`tiny`".into(),
            revision: None,
            is_on_hub: false,
            ..full().model
        },
        head: CardHead { kind: "cosine".into(), reads: None, parameters: None },
        labels: Vec::new(),
        settings: Vec::new(),
        classes: Vec::new(),
        data_notes: Vec::new(),
        headline: None,
        result_parts: Vec::new(),
        results: Vec::new(),
        per_class: Vec::new(),
        baseline: None,
        few_rows: false,
        calibration: None,
        findings: Vec::new(),
        texts: CardTexts { truncated: 0, ..full().texts },
        ..full()
    }
}

#[test]
fn a_card_says_what_was_measured_and_nothing_in_it_is_markup_of_the_data() {
    let card = full().markdown();
    for expected in [
        "---\n# To publish:",
        "base_model: \"someone/tiny\"\n",
        "datasets: []\n",
        "metrics:\n  - \"accuracy\"\n  - \"f1\"\n  - \"matthews_correlation\"\n",
        "          value: 0.0000001\n",
        "\n---\n\n# sentiment\n",
        "Of 135 texts of test, the head gets 68.1 % right (95 % interval 60.0 to 75.6 %); a trivial answer, always `good`, \
         would get 33.3 %.\n",
        "| `train.lr` | `0.01` |\n",
        "| a\\|b | 1 | 2 | 3 |\n",
        "| `accuracy` | 0.900 | 0.681 [0.600, 0.756] |\n",
        "It predicts 3 labels: a\\|b, &lt;script>, and others.\n",
        "always `good`: `accuracy` 0.333, `macro_f1` 0.333.\n",
        "the weights are those of epoch 14, the best by `macro_f1` on validation.\n",
        "- The end of 2 of 900 texts was cut off",
        "- 3 of 765 labels look wrong.\n",
        "frostbert run --locked RUN\n",
    ] {
        assert!(card.contains(expected), "{expected} in\n{card}");
    }
    assert!(!card.contains("<script>") && !card.contains("\n\n\n") && !card.contains(" \n"));
    assert_eq!(card, full().markdown());
}

#[test]
fn a_card_without_a_metric_has_no_sentence_that_needs_one() {
    let card = ModelCard { headline: None, results: Vec::new(), ..full() }.markdown();
    assert!(card.contains("The head was not measured") && !card.contains("one by one"), "{card}");
}

#[test]
fn a_card_says_that_validation_chose_the_epoch_only_where_it_did() {
    let of = |part: &'static str, stops: bool| {
        let headline = full().headline.map(|headline| CardHeadline { part, ..headline });
        let training = CardTraining { stops, ..full().training };
        ModelCard { headline, training, ..full() }.markdown()
    };
    for (part, sentence) in [
        (
            "validation",
            "split: the validation rows also chose the epoch, so the figure is optimistic.\n",
        ),
        ("test", "nothing; validation rows chose the epoch and what is tuned after training.\n"),
    ] {
        assert!(of(part, true).contains(sentence), "{}", of(part, true));
        assert!(!of(part, false).contains("chose the epoch"), "{}", of(part, false));
    }
    assert!(of("test", false).contains("Test rows decided nothing.\n"));
    let validated = of("validation", false);
    assert!(
        validated.contains("There was no test split: the figure is of the validation rows.\n"),
        "{validated}"
    );
}

#[test]
fn a_refitted_head_without_epochs_learned_from_validation_too() {
    let of = |is_refit: bool| {
        let training = CardTraining { epochs: 0, stops: false, is_refit, ..full().training };
        ModelCard { training, ..full() }.markdown()
    };
    assert!(of(true).contains("It was fitted to all rows of train and validation at once.\n"));
    assert!(of(false).contains("It was fitted to all training rows at once.\n"));
}

#[test]
fn a_tagger_is_evaluated_on_a_file_of_tags() {
    let tagger = ModelCard { task: "tokens".into(), ..full() }.markdown();
    assert!(tagger.contains("evaluate RUN --data labelled.conll\n```\n"), "{tagger}");
    assert!(full().markdown().contains("evaluate RUN --data labelled.csv\n```\n"));
}

#[test]
fn a_card_of_little_says_that_little_is_known() {
    let card = bare().markdown();
    for expected in [
        "The head was not measured",
        "Nothing was trained",
        "(a local folder; BLAKE3 of its weights `0011223344556677`)",
        "All settings are the defaults.",
        "There is nothing to show.",
        "- No text of the data was cut off. Longer ones than 128 tokens are cut off at the end.\n",
        "--text-pair",
        "pipeline_tag: \"sentence-similarity\"\n",
    ] {
        assert!(card.contains(expected), "{expected} in\n{card}");
    }
    for absent in ["base_model", "model-index", "\n\n\n"] {
        assert!(!card.contains(absent), "{absent} in\n{card}");
    }
}

#[test]
fn sentences_and_names_of_data_are_no_markup() {
    assert_eq!(sentence("`a` and <b>\n"), "`a` and &lt;b> ");
    assert_eq!(sentence("always `a_b`, ![](c)"), "always `a_b`, !\\[\\](c)");
    assert_eq!(sentence("`a` ![](b) `"), "\\`a\\` !\\[\\](b) \\`");
    let named = ModelCard { name: "a ![](b)".into(), ..full() }.markdown();
    assert!(named.contains("\n# a !\\[\\](b)\n"), "{named}");
    assert_eq!(text("a_b\n`c` & <d>"), "a\\_b\\\\n\\`c\\` &amp; &lt;d>");
    assert_eq!(code("a`|"), "`a'\\|`");
}

#[test]
fn results_stand_beside_the_card_where_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    bare().write(folder.path()).unwrap();
    assert!(!folder.path().join(EVAL_RESULTS_FOLDER).exists());
    full().write(folder.path()).unwrap();
    let results = folder.path().join(EVAL_RESULTS_FOLDER).join(EVAL_RESULTS_FILE);
    let results = fs::read_to_string(results).unwrap();
    let entry = "- dataset:\n    id: \"a\"\n    task_id: \"accuracy\"\n  value: 0.681\n  notes: \"accuracy on 135 texts of test, \
                 from a.csv\"\n";
    assert!(results.contains(entry), "{results}");
}
