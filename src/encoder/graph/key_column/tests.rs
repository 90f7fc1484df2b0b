use std::{fs, iter::repeat_n, path::Path};

use ort::value::Tensor;
use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

use crate::encoder::{
    checkpoint::{Checkpoint, Model},
    graph, runtime,
    session::session_builder,
};

/// What the sizes of the fixture are multiplied by, so that its heads have 64 values.
const LARGER: usize = 8;

/// With heads of 64 values, a tile has the keys of 1,016 tokens if the L2 cache has 2 MiB, and fewer if it is smaller.
const TOKENS: usize = 3_000;

/// Writes a NomicBERT with random weights.
fn model() -> tempfile::TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/nomic_bert");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = fs::read(fixture.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    for key in ["hidden_size", "intermediate_size", "head_dim"] {
        config[key] = (config[key].as_u64().unwrap() * LARGER as u64).into();
    }
    config["max_position_embeddings"] = TOKENS.into();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let bytes = fs::read(fixture.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<&str> = tensors.names();
    names.sort_unstable();
    let mut larger = Vec::new();
    for name in names {
        let sizes = tensors.tensor(name).unwrap().shape().to_vec();
        // Neither the vocabulary of 90 nor the 2 token types.
        let larger_size = |size: usize| if size.is_multiple_of(8) { LARGER * size } else { size };
        let shape: Vec<usize> = sizes.into_iter().map(larger_size).collect();
        // So that a linear layer keeps the variance of what is normalised, and a norm nearly does nothing else.
        let (middle, spread) = match shape[..] {
            [_, columns] => (0.0, (3.0 / columns as f32).sqrt()),
            _ if name.ends_with("weight") => (1.0, 0.1),
            _ => (0.0, 0.1),
        };
        let n_values: usize = shape.iter().product();
        let values = (0..n_values).map(|_| middle + rng.gen_range(-spread..spread));
        let values: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        larger.push((name, shape, values));
    }
    let views = larger.iter().map(|(name, shape, values)| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), values).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

/// Returns the last states of each text, run together by the graph for a CPU or the other one.
fn states(folder: &Path, for_cpu: bool, texts: &[&[i32]]) -> Vec<Vec<f32>> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let Model::Fused(source) = &checkpoint.model else {
        panic!("a NomicBERT is run by the fused graph");
    };
    let last = checkpoint.config.layers;
    let model = graph::build(source, &[last], false, for_cpu).unwrap();
    let builder = session_builder(runtime::for_tests(), 1).unwrap();
    let mut session = model.into_session(&builder).unwrap();
    let width = texts.iter().map(|text| text.len()).max().unwrap();
    let input = |value: fn(i32) -> i32| {
        let rows = texts.iter().flat_map(|text| {
            text.iter().map(|id| value(*id)).chain(repeat_n(0, width - text.len()))
        });
        Tensor::from_array(([texts.len(), width], rows.collect::<Vec<i32>>())).unwrap()
    };
    let inputs = ort::inputs![
        "input_ids" => input(|id| id),
        "token_type_ids" => input(|_| 0),
        "attention_mask" => input(|_| 1),
    ];
    let outputs = session.run(inputs).unwrap();
    let all = outputs[graph::output_name(last)].try_extract_tensor::<f32>().unwrap().1;
    let hidden = checkpoint.config.hidden;
    let rows = all.chunks(width * hidden).zip(texts);
    rows.map(|(row, text)| row[..text.len() * hidden].to_vec()).collect()
}

#[test]
fn a_text_of_several_tiles_alone_and_beside_a_short_one_has_the_states_of_all_pairs_at_once() {
    let model = model();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let long: Vec<i32> = (0..TOKENS).map(|_| rng.gen_range(5..90)).collect();
    let short = &long[TOKENS - 9..];
    let run = |for_cpu: bool, texts: &[&[i32]]| states(model.path(), for_cpu, texts);
    let expected = [&long[..], short].map(|text| run(false, &[text]).remove(0));
    let alone = run(true, &[&long]).remove(0);
    let [long, short] = &run(true, &[&long, short])[..] else { panic!("two texts") };
    for (got, expected) in [(&alone, &expected[0]), (long, &expected[0]), (short, &expected[1])] {
        assert_eq!(got.len(), expected.len());
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(largest > 1.0, "{largest}");
        let differences = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
        let most = differences.fold(0.0, f32::max);
        assert!(most <= 1e-5 * largest, "{most} of {largest} in {} values", got.len());
    }
}
