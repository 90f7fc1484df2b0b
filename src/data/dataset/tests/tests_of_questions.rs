use frostbert_cache::fingerprint::Mode;

use super::*;

#[test]
fn answers_that_are_not_where_they_say_count_but_teach_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let train = [squad(
        &folder,
        "train.json",
        &[(
            "Rome is old.",
            &[("What?", Some(("Rome", 0))), ("How?", Some(("old", 7))), ("Why?", None)],
        )],
    )];
    let settings =
        DatasetSettings { joint_pairs: true, ..all_train(of_task(DataTask::Qa, &train)) };
    let dataset = Dataset::load(&settings).unwrap();
    let n_spans: Vec<usize> = dataset.rows.iter().map(|row| row.spans().count()).collect();
    let n_answers: Vec<usize> = dataset.rows.iter().map(|row| row.target.answers().len()).collect();
    assert_eq!((n_spans, n_answers), (vec![1, 0, 0], vec![1, 1, 0]));
    assert_eq!(dataset.rows[0].keys, [Key::of(Mode::Pair, &["What?", "Rome is old."])]);
    let questions = &dataset.questions[0];
    assert_eq!((questions.questions, questions.impossible, questions.contexts), (3, 1, 1));
    let misplaced = dataset.checks.misplaced_answers.as_ref().unwrap();
    assert_eq!(misplaced.count, 1);
    assert_eq!(misplaced.examples[0].text, "old");
    assert_eq!(misplaced.examples[0].records[0].id.as_deref(), Some("id of How?"));
    let path = train[0].path.display();
    assert_eq!(
        dataset.warnings,
        [format!(
            "1 answer is not where `answer_start` says in the context, so nothing is learned from it, but it counts \
             as correct: question `id of How?` of {path}; data.misplaced = \"nearest\" moves those that are elsewhere \
             in it"
        )]
    );
    let none = [squad(&folder, "none.json", &[("Rome.", &[("Why?", None)])])];
    let message = message_of(&of_task(DataTask::Qa, &none));
    assert!(message.ends_with("got none with an answer among all 1"), "{message}");
}

#[test]
fn a_context_of_two_files_is_on_one_side_and_one_of_train_and_test_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let contexts: Vec<String> = (0..40).map(|n| format!("Number {n}.")).collect();
    let file = |name: &str, question: &str, contexts: &[String]| {
        let questions = [(question, Some(("Number", 0)))];
        let paragraphs: Vec<_> =
            contexts.iter().map(|context| (context.as_str(), &questions[..])).collect();
        squad(&folder, name, &paragraphs)
    };
    let train = [file("one.json", "What?", &contexts), file("two.json", "How many?", &contexts)];
    let dataset = Dataset::load(&of_task(DataTask::Qa, &train)).unwrap();
    for (one, two) in dataset.rows[..40].iter().zip(&dataset.rows[40..]) {
        assert_eq!((one.part, one.group), (two.part, two.group));
    }
    assert_eq!(Part::ALL.map(|part| dataset.part(part).len()), [56, 12, 12]);
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);

    let test =
        [file("test.json", "Which?", &contexts[..3]), file("again.json", "What?", &contexts[..1])];
    let given_test = all_train(DatasetSettings {
        joint_pairs: true,
        test: Some(&test),
        ..of_task(DataTask::Qa, &train)
    });
    let dataset = Dataset::load(&given_test).unwrap();
    assert_eq!(
        dataset.warnings,
        [
            "1 test row (1 text) also occurs in train",
            "4 questions of test are about 3 contexts of train",
        ]
    );
    let [shared] = &dataset.checks.shared[..] else { panic!("{:?}", dataset.checks.shared) };
    assert_eq!((shared.first, shared.other), (Part::Train, Part::Test));
    let place = &shared.texts.examples[0].records;
    assert_eq!((&place[0].file, &place[1].file), (&train[0].path, &test[1].path));
}
