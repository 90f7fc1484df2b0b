use crate::{
    data::{ClassBalance, Part, checks::SharedTexts},
    training::checks::*,
};

fn checks() -> RunChecks {
    RunChecks {
        data: DataChecks::default(),
        near_duplicates: Check::Done(NearDuplicates {
            state: "mean-L06".into(),
            threshold: near_duplicates::NEAR_COPY,
            parts: [(Part::Validation, 0), (Part::Test, 12)]
                .map(|(part, count)| NearDuplicatesOfPart { part, rows: 300, compared: 200, count })
                .to_vec(),
            pairs: Vec::new(),
        }),
        label_errors: Check::Done(LabelErrors {
            state: "mean-L06".into(),
            judged: 1000,
            accuracy: 0.875,
            left_out: Vec::new(),
            count: 31,
            rows: Vec::new(),
        }),
    }
}

#[test]
fn the_summary_tells_what_stands_twice_what_looks_wrong_and_how_even_classes_are() {
    let mut checks = checks();
    checks.data.shared.push(SharedTexts {
        first: Part::Train,
        other: Part::Test,
        texts: crate::data::checks::SharedRecords { count: 2, rows: 3, examples: Vec::new() },
        contexts: None,
    });
    checks.data.balance = Some(ClassBalance {
        classes: 2,
        rarest: "spam".into(),
        rarest_rows: 40,
        most_frequent: "ham".into(),
        most_frequent_rows: 960,
        absent: Vec::new(),
    });
    assert_eq!(
        checks.summary(),
        [
            "3 test rows (2 texts) also occur in train",
            "12 of 200 rows of test are near-duplicates of rows of train",
            "31 of 1,000 labels look wrong (cross-validated heads reproduce 88 % of the labels): see checks.json",
            "40 rows of the rarest class in train, `spam`, and 960 rows of the most frequent, `ham`",
        ]
    );
    assert_eq!(checks.warnings(), ["12 of 200 rows of test are near-duplicates of rows of train"]);
}

#[test]
fn even_classes_are_told_in_one_number() {
    let balance =
        ClassBalance { rarest_rows: 50, most_frequent_rows: 50, ..ClassBalance::default() };
    assert_eq!(in_words(&balance), "50 rows per class in train");
}

#[test]
fn names_of_classes_do_not_end_the_code_that_they_stand_in() {
    let balance = ClassBalance {
        rarest: "a` ![](http://b) `".into(),
        rarest_rows: 1,
        most_frequent: "c".into(),
        most_frequent_rows: 2,
        ..ClassBalance::default()
    };
    let told = in_words(&balance);
    assert!(told.contains("`a' ![](http://b) '`, and 2 rows of the most frequent, `c`"), "{told}");
}

#[test]
fn what_was_not_checked_is_said_with_its_reason() {
    let mut checks = checks();
    checks.near_duplicates =
        skipped(&no_pooled_state(&[StateId { kind: StateKind::Words, layer: 4 }]));
    checks.label_errors = skipped("only tasks with one class per row are checked");
    let reason =
        "the cache holds no pooled state of layer 4 (add \"mean\" to cache.store, and extract)";
    assert_eq!(checks.summary(), [format!("near-duplicates were not looked for: {reason}")]);
    let json = serde_json::to_value(&checks).unwrap();
    assert_eq!(json["near_duplicates"]["skipped"], reason);
    assert_eq!(json["label_errors"]["skipped"], "only tasks with one class per row are checked");
    assert_eq!(serde_json::from_value::<RunChecks>(json).unwrap(), checks);
}
