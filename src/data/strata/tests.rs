use proptest::prelude::*;

use super::*;
use crate::data::Answer;

fn count(parts: &[Part]) -> [usize; 3] {
    Part::ALL.map(|part| parts.iter().filter(|other| **other == part).count())
}

fn split(targets: &[Target], groups: &[Option<u64>]) -> Vec<Part> {
    let targets: Vec<&Target> = targets.iter().collect();
    split_rows(&targets, groups, SplitFractions::default(), 42)
}

#[test]
fn the_same_seed_gives_groups_the_same_parts_today_and_next_year() {
    let groups: Vec<u64> = (0..40).map(|row| row / 2).collect();
    let parts = grouped_split(&groups, SplitFractions::default(), 42);
    let letters: String =
        parts.iter().step_by(2).map(|part| ["t", "v", "x"][*part as usize]).collect();
    assert_eq!(letters, "tttvxxttttvtttxtttvt");
    let renamed: Vec<u64> = groups.iter().map(|group| u64::MAX - group * 7).collect();
    assert_eq!(grouped_split(&renamed, SplitFractions::default(), 42), parts);
    assert_ne!(grouped_split(&groups, SplitFractions::default(), 43), parts);
}

#[test]
fn each_part_gets_a_group_where_there_are_enough() {
    let three = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
    for seed in 0..20 {
        let parts = grouped_split(&three, SplitFractions::default(), seed);
        assert_eq!(count(&parts), [4, 4, 4]);
        let parts = grouped_split(&[5, 5, 5], SplitFractions::default(), seed);
        assert_eq!(count(&parts), [3, 0, 0]);
    }
    assert!(grouped_split(&[], SplitFractions::default(), 1).is_empty());
}

#[test]
fn groups_of_uneven_size_are_split_as_near_to_the_shares_as_they_allow() {
    let rows = |sizes: &[usize]| -> Vec<u64> {
        let groups = sizes.iter().zip(0..);
        groups.flat_map(|(size, group)| vec![group; *size]).collect()
    };
    for (sizes, expected) in [
        (&[38, 1, 1][..], &[[38, 1, 1]][..]),
        (&[1, 38, 1], &[[38, 1, 1]]),
        (&[100, 5, 5, 5], &[[100, 10, 5], [100, 5, 10]]),
        (&[100, 10, 10, 10, 10], &[[100, 20, 20]]),
        (&[20, 20], &[[20, 20, 0]]),
        (&[40], &[[40, 0, 0]]),
        (&[12, 12, 12, 12, 12, 10, 10, 10, 10], &[[68, 12, 20], [68, 20, 12]]),
    ] {
        let groups = rows(sizes);
        for seed in 0..20 {
            let counts = count(&grouped_split(&groups, SplitFractions::default(), seed));
            assert!(expected.contains(&counts), "{sizes:?}, seed {seed}: {counts:?}");
        }
    }
    // Documents of very different sizes: the split is within a row of the best possible one.
    let sizes: Vec<usize> = (1..=40).map(|n| n * n / 10 + 1).collect();
    let groups = rows(&sizes);
    let n_rows = groups.len() as f64;
    for seed in 0..20 {
        let counts = count(&grouped_split(&groups, SplitFractions::default(), seed));
        for (count, share) in counts.into_iter().zip([0.70, 0.15, 0.15]) {
            assert!((count as f64 - share * n_rows).abs() <= 1.5, "seed {seed}: {counts:?}");
        }
    }
}

#[test]
fn large_groups_are_spread_over_the_parts_and_not_all_of_train() {
    // Thirty large groups and three hundred small ones: test gets its share of the large ones.
    let sizes = (0..330).map(|group| if group < 30 { 20 } else { 2 });
    let groups: Vec<u64> = sizes.zip(0..).flat_map(|(size, group)| vec![group; size]).collect();
    let n_large_in_test: usize = (0..20)
        .map(|seed| {
            let parts = grouped_split(&groups, SplitFractions::default(), seed);
            let large = (0..30).filter(|group| parts[group * 20] == Part::Test);
            large.count()
        })
        .sum();
    // The expected number is 4.5 for each seed.
    assert!((60..=120).contains(&n_large_in_test), "{n_large_in_test}");
}

proptest! {
    #[test]
    fn no_group_is_torn_and_no_part_is_further_above_its_share_than_the_largest_group(
        sizes in prop::collection::vec(1_usize..30, 1..60),
        (train, validation) in (0.0..1.0, 0.0..1.0),
        seed in any::<u64>(),
    ) {
        let groups: Vec<u64> = sizes.iter().zip(0..).flat_map(|(size, group)| vec![group; *size]).collect();
        let test = 0.25;
        let sum = train + validation + test;
        let fractions = SplitFractions { train: train / sum, validation: validation / sum, test: test / sum };
        let parts = grouped_split(&groups, fractions, seed);
        for (groups, parts) in groups.windows(2).zip(parts.windows(2)) {
            prop_assert!(groups[0] != groups[1] || parts[0] == parts[1]);
        }
        let largest = *sizes.iter().max().unwrap() as f64;
        for (count, share) in count(&parts).into_iter().zip(fractions.shares()) {
            prop_assert!(count as f64 <= share * groups.len() as f64 + largest + 1e-9);
            prop_assert!(count > 0 || sizes.len() < 3 || share == 0.0);
        }
    }
}

#[test]
fn sentences_without_a_document_are_split_one_by_one() {
    let sentence = |row: usize| Target::Tags(vec![row % 2]);
    let targets: Vec<Target> = (0..100).map(sentence).collect();
    assert_eq!(count(&split(&targets, &[None; 100])), [70, 15, 15]);
    let documents: Vec<Option<u64>> = (0..100).map(|row| (row < 50).then_some(row / 10)).collect();
    let parts = split(&targets, &documents);
    for document in parts[..50].chunks(10) {
        assert!(document.iter().all(|part| *part == document[0]));
    }
    assert!(parts[50..].iter().any(|part| *part != parts[50]), "{parts:?}");
    assert_eq!(
        own_groups(&[Some(3), None, Some(3), None]),
        [3, 5, 3, 7],
        "new numbers are those of no group"
    );
}

#[test]
fn questions_stay_with_their_context() {
    let targets = vec![Target::Answers(vec![Answer { text: "a".into(), start: 0 }]); 60];
    let contexts: Vec<Option<u64>> = (0..60).map(|row| Some(row % 20)).collect();
    let parts = split(&targets, &contexts);
    assert_eq!(count(&parts), [42, 9, 9]);
    for (row, part) in parts.iter().enumerate() {
        assert_eq!(*part, parts[row % 20]);
    }
}

#[test]
fn rows_of_several_labels_are_spread_by_the_rarest() {
    let classes = |ids: &[usize]| Target::Classes(ids.to_vec());
    let few = [
        classes(&[0, 2]),
        classes(&[0]),
        classes(&[0, 1]),
        classes(&[1, 2]),
        classes(&[]),
        classes(&[2, 5]),
    ];
    let few: Vec<&Target> = few.iter().collect();
    // Rows of each label: 3, 2, 3, 0, 0, 1; of equally rare labels, the first counts.
    assert_eq!(rarest_labels(&few), [0, 0, 1, 1, 6, 5]);

    // Every row has label 0, and a tenth also label 1: both are distributed, no worse than by sets of labels.
    let many: Vec<Target> =
        (0..200).map(|row| if row % 10 == 0 { classes(&[0, 1]) } else { classes(&[0]) }).collect();
    let parts = split(&many, &[None; 200]);
    assert_eq!(count(&parts), [140, 30, 30]);
    let rare: Vec<Part> = parts.into_iter().step_by(10).collect();
    assert_eq!(count(&rare), [14, 3, 3]);
}

#[test]
fn values_are_spread_by_tenths_and_equal_ones_are_in_one() {
    let values: Vec<Target> =
        (0..100).map(|row| Target::Value(f64::from(row * row % 101))).collect();
    let values: Vec<&Target> = values.iter().collect();
    let tenths = quantiles(&values);
    for (value, tenth) in values.iter().zip(&tenths) {
        let below = values.iter().filter(|other| other.value() < value.value()).count();
        assert_eq!(*tenth, below / 10);
    }
    let tied = [1.0, 0.0, 1.0, 1.0, 2.0].map(Target::Value);
    assert_eq!(quantiles(&tied.iter().collect::<Vec<_>>()), [2, 0, 2, 2, 8]);

    let spread: Vec<Target> = (0..1000).map(|row| Target::Value(f64::from(row))).collect();
    let parts = split(&spread, &[None; 1000]);
    for tenth in parts.chunks(100) {
        assert_eq!(count(tenth), [70, 15, 15]);
    }
}
