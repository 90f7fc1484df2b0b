//! Tagging metrics compared with seqeval and scikit-learn, on cases of `scripts/fixtures/metrics_seqeval.py`.

use std::collections::BTreeMap;

use frostbert::internals::metrics::{
    intervals::Bootstrap,
    tag_scheme::{Entity, TagScheme, entities_conlleval, entities_strict},
    tagging::{TaggedSentence, TaggingMetrics, evaluate},
};
use serde::Deserialize;
use serde_json::Value;

use crate::metrics_oracle::{assert_equal, assert_intervals};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    bootstrap: BootstrapCase,
}

type Sentence = (Vec<usize>, Vec<Option<usize>>);

#[derive(Deserialize)]
struct Case {
    name: String,
    labels: Vec<String>,
    sentences: Vec<Sentence>,
    /// The entities in the true tags of each sentence; empty for tags without a scheme.
    entities: Vec<Entities>,
    expected: Value,
}

/// The type, the first word, and one past the last word of each entity.
#[derive(Deserialize)]
struct Entities {
    strict: Vec<(String, usize, usize)>,
    conlleval: Vec<(String, usize, usize)>,
}

#[derive(Deserialize)]
struct BootstrapCase {
    labels: Vec<String>,
    sentences: Vec<Sentence>,
    intervals: BTreeMap<String, [f64; 2]>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/metrics_seqeval.json")).unwrap()
}

fn metrics(
    sentences: &[Sentence],
    labels: &[String],
    bootstrap: Option<Bootstrap>,
) -> TaggingMetrics {
    let sentences: Vec<TaggedSentence> =
        sentences.iter().map(|(truth, predicted)| TaggedSentence { truth, predicted }).collect();
    evaluate(&sentences, labels, bootstrap)
}

#[test]
fn every_tagging_metric_equals_that_of_seqeval_and_scikit_learn() {
    for case in fixture().cases {
        let got = metrics(&case.sentences, &case.labels, None);
        assert_equal(&case.name, &got, &case.expected);
    }
}

#[test]
fn entities_equal_those_of_seqeval_in_both_modes() {
    let mut n_orphans = 0;
    for case in fixture().cases {
        let Some(scheme) = TagScheme::new(&case.labels) else {
            assert!(case.entities.is_empty(), "{}", case.name);
            continue;
        };
        let named = |entities: Vec<Entity>| -> Vec<(String, usize, usize)> {
            let named = entities.into_iter();
            named.map(|e| (scheme.types[e.kind].clone(), e.start, e.end)).collect()
        };
        assert_eq!(case.entities.len(), case.sentences.len(), "{}", case.name);
        for ((truth, _), expected) in case.sentences.iter().zip(&case.entities) {
            let strict = named(entities_strict(&scheme, truth));
            let conlleval = named(entities_conlleval(&scheme, truth));
            assert_eq!(strict, expected.strict, "{}", case.name);
            assert_eq!(conlleval, expected.conlleval, "{}", case.name);
            n_orphans += conlleval.len() - strict.len();
        }
    }
    assert!(n_orphans > 0);
}

#[test]
fn both_modes_read_the_same_entities_exactly_where_every_tag_may_follow_the_one_before() {
    let [mut n_valid, mut n_invalid] = [0, 0];
    for case in fixture().cases {
        let Some(scheme) = TagScheme::new(&case.labels) else {
            continue;
        };
        for (truth, _) in &case.sentences {
            let is_valid = truth.iter().enumerate().all(|(word, &tag)| {
                let previous = word.checked_sub(1).map(|before| truth[before]);
                scheme.can_follow(previous, tag)
            });
            let reads_the_same =
                entities_strict(&scheme, truth) == entities_conlleval(&scheme, truth);
            assert_eq!(is_valid, reads_the_same, "{}: {truth:?}", case.name);
            *(if is_valid { &mut n_valid } else { &mut n_invalid }) += 1;
        }
    }
    assert!(n_valid > 20 && n_invalid > 20);
}

#[test]
fn tagging_intervals_agree_with_a_bootstrap_of_sentences_in_numpy() {
    let case = fixture().bootstrap;
    let got = metrics(&case.sentences, &case.labels, Some(Bootstrap::default()));
    assert_intervals(&got, &case.intervals);
}
