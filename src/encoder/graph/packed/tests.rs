use std::path::{Path, PathBuf};

use super::*;
use crate::encoder::{
    checkpoint::{Checkpoint, Model as CheckpointModel},
    ort_error::plain_reason,
    runtime,
    session::session_builder,
};

/// One checkpoint of every kind that the fused graph supports.
const FOLDERS: [&str; 10] = [
    "tiny_bert",
    "families/bert_sharded",
    "families/roberta",
    "families/xlm_roberta_f16",
    "families/camembert_bf16",
    "families/distilbert",
    "families/electra",
    "families/electra_one_width",
    "families/mpnet",
    "families/albert",
];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn onnx_runtime_accepts_the_graph_and_lacks_only_the_cuda_kernel_on_a_cpu() {
    let runtime = runtime::for_tests();
    for (folder, half) in FOLDERS.iter().flat_map(|folder| [(folder, false), (folder, true)]) {
        let checkpoint = Checkpoint::open(&repository("tests/fixtures").join(folder)).unwrap();
        let CheckpointModel::Fused(source) = &checkpoint.model else {
            panic!("{folder} is run by the fused graph");
        };
        let layers: Vec<usize> = (0..=checkpoint.config.layers).collect();
        let model = build(source, &layers, half).unwrap();
        let builder = session_builder(runtime, 1).unwrap();
        let Err(error) = model.into_session(&builder) else {
            panic!("a CPU runs packed attention");
        };
        // ONNX Runtime infers types and shapes before it looks for kernels, and the first layer's node is the first
        // without a kernel. For f16 it first tries casts around missing kernels, so the message differs.
        let node = format!("{}.0.attention", source.shape.family.tensors.layers);
        let expected = if !half {
            format!(
                "Could not find an implementation for PackedMultiHeadAttention(1) node with name '{node}'"
            )
        } else {
            format!(
                "Failed to find kernel for com.microsoft.PackedMultiHeadAttention(1) (node:'{node}' \
             ep:'CPUExecutionProvider'). Kernel not found"
            )
        };
        assert_eq!(plain_reason(&error), expected, "{folder}, half: {half}");
    }
}

#[test]
fn a_graph_of_wrong_shapes_is_refused_for_them_and_not_for_the_kernel() {
    // The test above would pass even if nothing were inferred; here the shape is wrong, as the rows are not cut out of
    // the batch.
    let runtime = runtime::for_tests();
    let checkpoint = Checkpoint::open(&repository("tests/fixtures/tiny_bert")).unwrap();
    let CheckpointModel::Fused(source) = &checkpoint.model else {
        panic!("tiny_bert is run by the fused graph");
    };
    let model = build_with(source, &[1], false, |builder, named| {
        let sizes = "three_sizes";
        shape_initializer(builder, sizes, &[1, -1, builder.shape.hidden as i64])?;
        let cubed = format!("{}.cubed", named.query);
        let inputs = [&named.query[..], sizes];
        builder.node("Reshape", ONNX_DOMAIN, &inputs, &[&cubed], vec![])?;
        let wrong = PackedAttention {
            query: cubed,
            key: named.key.clone(),
            value: named.value.clone(),
            output: named.output.clone(),
        };
        packed_attention(builder, &wrong)
    });
    let builder = session_builder(runtime, 1).unwrap();
    let Err(error) = model.unwrap().into_session(&builder) else {
        panic!("a query of three sizes is taken");
    };
    let reason = plain_reason(&error);
    assert!(reason.contains("Inputs 0 (query) shall be 2 or 4 dimensions"), "{reason}");
}
