use frostbert_cache::fingerprint::Mode;

use super::*;

#[test]
fn words_have_the_tags_of_train_and_documents_stay_whole() {
    let folder = tempfile::tempdir().unwrap();
    let sentence = |n: usize| format!("Rome{n}\tB-LOC\nis\tO\n\n");
    let document =
        |n: usize| format!("-DOCSTART-\tO\n\n{}{}", sentence(2 * n), sentence(2 * n + 1));
    let content = (0..20).map(document).collect::<String>();
    let train = [
        source(&folder, "one.conll", &content),
        source(&folder, "two.conll", &content.replace("Rome", "Oslo")),
    ];
    let dataset = Dataset::load(&of_task(DataTask::Tokens, &train)).unwrap();
    assert_eq!(dataset.labels.names(), ["B-LOC", "O"]);
    assert_eq!(dataset.rows.len(), 80);
    let row = &dataset.rows[41];
    assert_eq!(row.target, Target::Tags(vec![0, 1]));
    assert_eq!(row.words.as_deref().unwrap(), ["Oslo1", "is"]);
    assert_eq!(row.keys, [Key::of(Mode::Words, &["Oslo1", "is"])]);
    assert_eq!((row.file, row.line, row.group), (1, Some(6), Some(20)));
    for document in dataset.rows.chunks(2) {
        assert_eq!(document[0].group, document[1].group);
        assert_eq!(document[0].part, document[1].part);
    }
    assert_eq!(Part::ALL.map(|part| dataset.part(part).len()), [56, 12, 12]);
    let tags = &dataset.distribution.classes;
    assert_eq!((tags[0].train, tags[1].total()), (56, 80));
}

#[test]
fn a_second_word_of_a_known_entity_is_a_label_and_any_other_new_tag_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let train = [source(&folder, "train.conll", "Rome\tB-LOC\nis\tO\n\nBonn\tB-LOC\n")];
    let test = [source(&folder, "test.conll", "New\tB-LOC\nYork\tI-LOC\n")];
    let given_test =
        all_train(DatasetSettings { test: Some(&test), ..of_task(DataTask::Tokens, &train) });
    let dataset = Dataset::load(&given_test).unwrap();
    assert_eq!(dataset.labels.names(), ["B-LOC", "O", "I-LOC"]);
    assert_eq!(dataset.rows[2].target, Target::Tags(vec![0, 2]));
    assert_eq!(dataset.checks.balance.as_ref().unwrap().absent, ["I-LOC"]);

    let given = message_of(&DatasetSettings {
        labels: Some(LabelMap::from_train(["O", "B-LOC"])),
        ..given_test.clone()
    });
    assert!(given.ends_with("got `I-LOC` for the word `York`"), "{given}");

    let other = [source(&folder, "other.conll", "\nis\tO\nEve\tB-PER\n")];
    let message = message_of(&DatasetSettings { test: Some(&other), ..given_test });
    assert!(
        message.ends_with(
            "other.conll:2: expected one of the labels `B-LOC`, `O`, got `B-PER` for the word `Eve`"
        ),
        "{message}"
    );
}
