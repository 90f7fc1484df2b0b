use std::io::Cursor;

use crate::data::{ColumnName, Record, Source, WantedFields, read_from};

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

/// Sentences with a multi-word token, an empty node, a form with a space and a hash, and comments of all kinds.
const TREES: &str = "\
# newdoc id = notes
# newpar
# sent_id = notes-1
# text = Don't!
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tDo\tdo\tAUX\tVB\tMood=Imp\t0\troot\t0:root\t_
2\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t1:advmod\t_
2.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t1:dep\t_
3\t!\t!\tPUNCT\t.\t_\t1\tpunct\t1:punct\t_

1\t10 000\t10 000\tNUM\tCD\t_\t0\troot\t_\t_
2\t#\t#\tSYM\tNFP\t_\t1\tdep\t_\t_


# newdoc
# sent_id=plain
1\t_\t_\tPUNCT\tNFP\t_\t0\troot\t_\t_
";

fn read_str(
    content: &str,
    source: &Source,
    want: WantedFields,
) -> crate::error::Result<Vec<Record>> {
    read_from(Cursor::new(content.to_owned()), source, want)?.collect()
}

fn source(words: Option<ColumnName>, tags: Option<ColumnName>) -> Source {
    Source { words, tags, ..Source::new("a.conllu") }
}

fn error(content: &str) -> String {
    read_str(content, &source(None, None), LABELLED).unwrap_err().to_string()
}

/// Formats the line of a word whose other columns are `_`.
fn word(id: &str, form: &str, upos: &str) -> String {
    format!("{id}\t{form}\t_\t{upos}\t_\t_\t_\t_\t_\t_\n")
}

#[test]
fn forms_and_parts_of_speech_are_read_without_multi_word_tokens_and_empty_nodes() {
    let owned = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let expected = [
        Record {
            id: Some("notes-1".to_owned()),
            text: "Do n't !".to_owned(),
            words: owned(&["Do", "n't", "!"]),
            tags: owned(&["AUX", "PART", "PUNCT"]),
            group: Some("notes".to_owned()),
            line: Some(1),
            ..Record::default()
        },
        Record {
            text: "10 000 #".to_owned(),
            words: owned(&["10 000", "#"]),
            tags: owned(&["NUM", "SYM"]),
            group: Some("notes".to_owned()),
            line: Some(11),
            ..Record::default()
        },
        Record {
            id: Some("plain".to_owned()),
            text: "_".to_owned(),
            words: owned(&["_"]),
            tags: owned(&["PUNCT"]),
            group: Some("2".to_owned()),
            line: Some(15),
            ..Record::default()
        },
    ];
    let plain = source(None, None);
    assert_eq!(read_str(TREES, &plain, LABELLED).unwrap(), expected);
    let crlf = format!("\u{feff}{}", TREES.trim_end().replace('\n', "\r\n"));
    assert_eq!(read_str(&crlf, &plain, LABELLED).unwrap(), expected);
    let untagged = expected.map(|example| Record { tags: None, ..example });
    assert_eq!(read_str(TREES, &plain, WantedFields::default()).unwrap(), untagged);
}

#[test]
fn columns_are_chosen_by_name_or_number() {
    for (words, tags, first) in [
        (ColumnName::from("LEMMA"), ColumnName::from("XPOS"), ("do not !", "VB RB .")),
        (2.into(), 4.into(), ("do not !", "VB RB .")),
        ("Form".into(), "feats".into(), ("Do n't !", "Mood=Imp _ _")),
        (1.into(), "DEPREL".into(), ("Do n't !", "root advmod punct")),
    ] {
        let source = source(Some(words), Some(tags));
        let example = read_str(TREES, &source, LABELLED).unwrap().swap_remove(0);
        assert_eq!((example.text.as_str(), example.tags.unwrap().join(" ").as_str()), first);
    }
    for column in [ColumnName::from("POS"), 10.into()] {
        let error = read_str("", &source(None, Some(column.clone())), LABELLED).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "a.conllu: expected a column of conllu for `tags`, `ID`, `FORM`, `LEMMA`, `UPOS`, `XPOS`, `FEATS`, \
                 `HEAD`, `DEPREL`, `DEPS`, `MISC` (or their numbers, from 0), got {column}"
            )
        );
    }
}

#[test]
fn a_line_that_is_no_word_is_named() {
    let fine = word("1", "a", "X");
    for (line, message) in [
        ("1\tb\tX\n".to_owned(), "10 columns separated by tabs, got 3"),
        (word("1", "b", "X"), "the sentence's word number 2, got the ID `1`"),
        (word("3", "b", "X"), "the sentence's word number 2, got the ID `3`"),
        (word("2-", "b", "X"), "the sentence's word number 2, got the ID `2-`"),
        (word("", "b", "X"), "the sentence's word number 2, got the ID ``"),
        (word("2", "", "X"), "a word in column FORM (number 1), got an empty cell"),
        (word("2", "b", ""), "a tag in column UPOS (number 3), got ``"),
        (word("2", "b", "_"), "a tag in column UPOS (number 3), got `_`"),
    ] {
        assert_eq!(
            error(&format!("{fine}\n# text = b\n{fine}{line}")),
            format!("a.conllu:5: expected {message}")
        );
    }
}

#[test]
fn a_sentence_without_words_is_named_by_its_first_line() {
    let fine = word("1", "a", "X");
    for empty in ["# sent_id = 2\n".to_owned(), word("0.1", "a", "X"), word("1-2", "a", "_")] {
        for rest in ["", &fine] {
            assert_eq!(
                error(&format!("{fine}\n\n{empty}\n{rest}")),
                "a.conllu:4: expected at least one word in the sentence, got none"
            );
        }
    }
    let comments = format!("# a treebank\n\n# global.columns = ID\n\n{fine}\n# its end\n");
    let examples = read_str(&comments, &source(None, None), LABELLED).unwrap();
    assert_eq!((examples.len(), examples[0].line), (1, Some(5)));
}

#[test]
fn labels_and_second_texts_are_refused() {
    let labelled = Source { label: Some("UPOS".into()), ..source(None, None) };
    let error = read_str("", &labelled, LABELLED).unwrap_err();
    assert!(error.hint().unwrap().contains("`tags`"), "{error}");
    assert!(read_str("", &labelled, WantedFields::default()).is_ok());
    let pair = WantedFields { label: false, text_pair: true };
    assert!(read_str("", &source(None, None), pair).is_err());
}
