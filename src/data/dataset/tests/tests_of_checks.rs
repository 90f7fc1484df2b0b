use super::*;

#[test]
fn other_targets_make_no_duplicate_and_contradict_only_where_there_is_one_truth() {
    let folder = tempfile::tempdir().unwrap();
    let checks = |task, sources: &[Source]| {
        let dataset = Dataset::load(&all_train(of_task(task, sources))).unwrap();
        let train = &dataset.checks.files[0];
        (dataset.rows.len(), train.duplicates.count, train.conflicts.count)
    };
    let csv = |rows: &str| [source(&folder, "train.csv", &format!("text,label\n{rows}"))];
    assert_eq!(checks(DataTask::Multilabel, &csv("a,\"x,y\"\na,\"y,x\"\na,x\n")), (2, 1, 1));
    assert_eq!(checks(DataTask::Regression, &csv("a,1\na,1.0\na,2\n")), (2, 1, 1));
    let words = [source(&folder, "a.conll", "a\tO\nb\tX\n\na\tO\nb\tX\n\na\tX\nb\tO\n")];
    assert_eq!(checks(DataTask::Tokens, &words), (2, 1, 1));
    let questions: &[_] = &[("Q?", Some(("a", 0))), ("Q?", Some(("a", 0))), ("Q?", Some(("b", 2)))];
    let questions = [squad(&folder, "a.json", &[("a b", questions)])];
    assert_eq!(checks(DataTask::Qa, &questions), (2, 1, 0));
}

#[test]
fn checks_name_files_and_lines_and_become_json() {
    let folder = tempfile::tempdir().unwrap();
    let train = [
        source(&folder, "one.csv", "text,label\nx,a\ny,b\n"),
        source(&folder, "two.csv", "text,label\nx,a\n ,a\ny,a\n"),
    ];
    let validation = [source(&folder, "validation.csv", "text,label\nz,a\n")];
    let test = [source(&folder, "test.csv", "text,label\nx,a\nz,b\n")];
    let dataset = Dataset::load(&DatasetSettings {
        validation: Some(&validation),
        test: Some(&test),
        ..settings(&train)
    })
    .unwrap();
    let json = serde_json::to_string(&dataset.checks).unwrap();
    let folder = serde_json::to_string(&folder.path()).unwrap();
    let json = json.replace(&format!("{}/", folder.trim_matches('"')), "");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let at = |file: &str, line: u64| serde_json::json!({ "file": file, "line": line });
    assert_eq!(
        json["files"][0],
        serde_json::json!({
            "part": "train",
            "read": 5,
            "empty": 1,
            "empty_dropped": true,
            "duplicates": {
                "count": 1,
                "examples": [{ "text": "x", "records": [at("one.csv", 2), at("two.csv", 2)] }],
            },
            "duplicates_dropped": true,
            "conflicts": {
                "count": 1,
                "examples": [{
                    "text": "y",
                    "labels": ["b", "a"],
                    "records": [at("one.csv", 3), at("two.csv", 4)],
                }],
            },
        })
    );
    let shared: Vec<u64> = json["shared"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shared| shared["texts"]["count"].as_u64().unwrap())
        .collect();
    assert_eq!(shared, [0, 1, 1], "train and validation, train and test, validation and test");
    assert_eq!(json["balance"]["rarest"], "b");
    assert_eq!(
        serde_json::from_value::<DataChecks>(json).unwrap().warnings().len(),
        dataset.warnings.len()
    );
    assert_eq!(dataset.warnings.len(), 5, "{:?}", dataset.warnings);
}
