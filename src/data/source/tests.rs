//! Sources as pipelines write them.

use super::*;

#[test]
fn a_small_source_takes_the_contracts_defaults() {
    let source: Source = serde_json::from_str(r#"{"path": "data/reviews.csv"}"#).unwrap();
    assert_eq!(source, Source::new("data/reviews.csv"));
    assert_eq!(source.label_column(), ColumnName::from("label"));
    assert_eq!(
        serde_json::from_str::<Source>(&serde_json::to_string(&source).unwrap()).unwrap(),
        source
    );
}

#[test]
fn columns_are_names_or_numbers_and_nothing_else() {
    let source: Source =
        serde_json::from_str(r#"{"path": "a.tsv", "text": 1, "label": "kind"}"#).unwrap();
    assert_eq!(
        (source.text_column(), source.label_column()),
        (ColumnName::from(1), ColumnName::from("kind"))
    );
    let error = serde_json::from_str::<Source>(r#"{"path": "a.tsv", "text": -1}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("expected a column's name, or its number from 0"),
        "{error}"
    );
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = serde_json::from_str::<Source>(r#"{"path": "a.csv", "lable": 0}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `lable`"), "{error}");
    assert!(error.to_string().contains("`label_separator`"), "{error}");
}

#[test]
fn the_extension_gives_the_format_and_gz_does_not_count() {
    for (name, format) in [
        ("a.csv", Format::Csv),
        ("a.TSV", Format::Tsv),
        ("a.jsonl.gz", Format::Jsonl),
        ("a.ndjson", Format::Jsonl),
        ("a.parquet", Format::Parquet),
        ("a.txt.GZ", Format::Lines),
        ("a.lines", Format::Lines),
        ("a.conll", Format::Conll),
        ("a.conllu", Format::Conllu),
        ("v1.1.json", Format::Squad),
    ] {
        assert_eq!(Source::new(name).resolve_format().unwrap(), format, "{name}");
        let word = format!("\"{format}\"");
        assert_eq!(serde_json::from_str::<Format>(&word).unwrap(), format, "{word}");
    }
}

#[test]
fn an_unknown_extension_names_the_file_and_says_to_set_the_format() {
    for (name, got) in
        [("rt-polarity.neg", "got `.neg`"), ("reviews", "got no extension"), ("b.gz", "no ext")]
    {
        let error = Source::new(name).resolve_format().unwrap_err();
        assert!(error.to_string().starts_with(name) && error.to_string().contains(got), "{error}");
        assert!(error.hint().unwrap().starts_with("set `format`"));
    }
    let source = Source { format: Some(Format::Lines), ..Source::new("rt-polarity.neg") };
    assert_eq!(source.resolve_format().unwrap(), Format::Lines);
}

#[test]
fn an_empty_separator_leaves_a_multi_label_cell_whole() {
    let source = Source { label_separator: String::new(), ..Source::new("a.csv") };
    assert_eq!(source.split_labels(" a,b "), ["a,b"]);
}
