use crate::data::{
    CleanOptions, ColumnName, DataTask, LabelMap, Part, Source, SplitFractions, Target,
    WantedFields,
    dataset::{Dataset, DatasetSettings},
    read,
};

fn source(folder: &tempfile::TempDir, name: &str, content: &str) -> Source {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Source::new(path)
}

/// Loads all rows of some files as train.
fn load(sources: &[Source], columns: &[ColumnName]) -> Result<Dataset, String> {
    let loaded = Dataset::load(&DatasetSettings {
        task: DataTask::Classification,
        joint_pairs: false,
        train: sources,
        validation: None,
        test: None,
        labels: None,
        split: SplitFractions { train: 1.0, validation: 0.0, test: 0.0 },
        clean: CleanOptions::default(),
        seed: 1,
        label_columns: columns.to_vec(),
        teaches_validation: false,
    });
    loaded.map_err(|error| format!("{error}; {}", error.hint().unwrap_or_default()))
}

fn classes(dataset: &Dataset, column: usize) -> Vec<Option<usize>> {
    let targets = dataset.label_columns[column].targets.iter();
    targets.map(|target| target.as_ref()?.class()).collect()
}

const EXPECTED: [Option<usize>; 4] = [Some(1), None, Some(0), Some(0)];

#[test]
fn cells_are_read_from_every_format_with_columns_and_what_is_not_there_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let csv = "text,label,rule\none,a,b\ntwo,b, \nthree,a,\"a\"\nfour,b,a\n";
    let json = "{\"text\":\"one\",\"label\":\"a\",\"rule\":\"b\"}\n{\"text\":\"two\",\"label\":\"b\",\"rule\":null}\n\
                {\"text\":\"three\",\"label\":\"a\",\"rule\":\" a \"}\n{\"text\":\"four\",\"label\":\"b\",\"rule\":\"a\"}\n";
    for (name, content) in [
        ("a.csv", csv.to_string()),
        ("a.tsv", csv.replace(',', "\t")),
        ("a.jsonl", json.to_string()),
        ("b.jsonl", json.replace(",\"rule\":null", "")),
    ] {
        let sources = [source(&folder, name, &content)];
        let dataset = load(&sources, &["rule".into()]).unwrap();
        assert_eq!(classes(&dataset, 0), EXPECTED, "{name}");
        let column = &dataset.label_columns[0];
        assert_eq!((column.n_asked, column.n_empty()), (4, 1), "{name}");
        let own: Vec<Option<usize>> = dataset.rows.iter().map(|row| row.target.class()).collect();
        assert_eq!(own, [Some(0), Some(1), Some(0), Some(1)], "{name}");
        assert_eq!(dataset.target_for(0, Some(&"rule".into())), Some(&Target::Class(1)));
        assert_eq!(dataset.target_for(1, Some(&"rule".into())), None);
        assert_eq!(dataset.target_for(1, None), Some(&Target::Class(1)));
        let warned = "1 of 4 rows has no label in the column `rule`";
        assert!(dataset.warnings.iter().any(|warning| warning.contains(warned)));
    }
}

#[test]
fn columns_without_names_are_numbered_and_a_line_must_reach_them() {
    let folder = tempfile::tempdir().unwrap();
    let numbered = |content: &str| Source {
        header: false,
        text: Some(0.into()),
        label: Some(1.into()),
        ..source(&folder, "a.csv", content)
    };
    let sources = [numbered("one,a,b\ntwo,b,\nthree,a,a\nfour,b,a\n")];
    let dataset = load(&sources, &[1.into(), 2.into()]).unwrap();
    assert_eq!(classes(&dataset, 1), EXPECTED);
    assert_eq!(classes(&dataset, 0), [Some(0), Some(1), Some(0), Some(1)]);
    let error = load(&[numbered("one,a,b\ntwo,b\n")], &[2.into()]).unwrap_err();
    assert!(error.contains("a.csv:2: expected at least 3 fields"), "{error}");
}

#[test]
fn files_of_validation_rows_are_asked_only_where_heads_learn_from_them() {
    let folder = tempfile::tempdir().unwrap();
    let train = [source(&folder, "train.csv", "text,label,rule\none,a,b\ntwo,b,a\n")];
    let judged = [source(&folder, "judged.csv", "text,label\nthree,a\n")];
    let settings = |teaches_validation| DatasetSettings {
        task: DataTask::Classification,
        joint_pairs: false,
        train: &train,
        validation: Some(&judged),
        test: None,
        labels: Some(LabelMap::from_train(["a", "b"])),
        split: SplitFractions { train: 1.0, validation: 0.0, test: 0.0 },
        clean: CleanOptions::default(),
        seed: 1,
        label_columns: vec!["rule".into()],
        teaches_validation,
    };
    let dataset = Dataset::load(&settings(false)).unwrap();
    assert_eq!(classes(&dataset, 0), [Some(1), Some(0), None]);
    assert_eq!((dataset.label_columns[0].n_asked, dataset.label_columns[0].n_empty()), (2, 0));
    assert_eq!(dataset.rows[2].part, Part::Validation);
    let error = Dataset::load(&settings(true)).unwrap_err();
    assert!(error.to_string().contains("judged.csv:1: expected a column `rule`"), "{error}");
}

#[test]
fn a_source_that_nobody_asked_reads_no_cell() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(&folder, "a.csv", "text,label,rule\none,a,b\n");
    let mut examples = read(&source, WantedFields::default()).unwrap();
    assert!(examples.next().unwrap().unwrap().label_cells.is_empty());
    let json = serde_json::to_string(&source).unwrap();
    assert!(!json.contains("label_columns"), "{json}");
}
