use crate::training::class_memory::*;

fn pipeline(memory_mb: u64) -> Pipeline {
    let text = format!(
        "[model]\npath = \"model\"\n[data]\ntrain = {{ path = \"data.csv\" }}\n[train]\nmemory_mb = {memory_mb}"
    );
    let file = toml::from_str(&text).unwrap();
    Pipeline::check("pipeline.toml".as_ref(), file).unwrap()
}

fn memory(pipeline: &Pipeline, head_bytes: u64, shared_bytes: u64) -> ClassMemory {
    ClassMemory {
        n_outputs: 3000,
        n_inputs: 384,
        n_parameters: 385 * 3000,
        head_bytes,
        shared_bytes,
        most_bytes: pipeline.memory_bytes + BESIDE_BYTES,
        seconds: 1.0,
    }
}

#[test]
fn as_many_heads_are_trained_together_as_fit_beside_what_all_share() {
    let pipeline = pipeline(1024);
    let of = |head_bytes| {
        let memory = memory(&pipeline, head_bytes, 1 << 30);
        memory.heads_at_a_time(&pipeline, 1, 256, "")
    };
    assert_eq!(of(1 << 28).unwrap(), 4);
    assert_eq!(of((1 << 28) + 1).unwrap(), 3);
    assert_eq!(of(1 << 20).unwrap(), 256);
}

#[test]
fn heads_that_do_not_fit_are_refused_with_what_they_need() {
    let pipeline = pipeline(512);
    let memory = memory(&pipeline, 1 << 30, 1 << 29);
    assert!(memory.settle(&pipeline, &()).is_ok());
    let error = memory.heads_at_a_time(&pipeline, 2, 256, ", with fewer seeds or folds");
    let error = error.unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline.toml: 2 heads of 3,000 classes with 384 features take about 2.7 GB of memory to train, but \
         train.memory_mb plus 1 GiB is 1.6 GB"
    );
    assert_eq!(
        error.hint().unwrap(),
        "set train.memory_mb to 1536 if the machine has that much, or learn fewer classes, with fewer seeds or folds"
    );
}
