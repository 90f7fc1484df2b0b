//! Which nodes of a model.onnx run on the GPU and which on the CPU, as ONNX Runtime reports while it loads the file.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use ort::{
    logging::LogLevel,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};

use crate::{
    encoder::{
        device::register_cuda, ort_error::encoder_error, provider::Provider, runtime::Runtime,
        worker::locked,
    },
    error::{Error, Result},
};

/// The number of nodes by operator, for each of ONNX Runtime's providers by its own name, such as
/// `CPUExecutionProvider`.
type Nodes = BTreeMap<String, BTreeMap<String, u64>>;

/// Returns the operators of a model.onnx that run on the CPU instead of the GPU, with their numbers of nodes.
///
/// The file is loaded once more for this, because only a session that logs everything reports it, and that session
/// would log in every run.
///
/// # Errors
/// Returns an error if no node runs on the GPU at all, which would be a CPU run under another name, or if the device is
/// unavailable.
pub(super) fn cpu_nodes(
    runtime: &Runtime,
    model: &Path,
    number: u32,
) -> Result<BTreeMap<String, u64>> {
    let nodes = nodes_of(runtime, model, |builder| register_cuda(builder, runtime, number, false))?;
    on_cpu(nodes).ok_or_else(|| Error::Device {
        device: Provider::Cuda(number).to_string(),
        reason: format!(
            "ONNX Runtime places no node of `{}` on the GPU",
            model.display()
        ),
        hint: "export the model with operators that CUDA supports, as f32 or f16; or set model.device = \"cpu\"".into(),
    })
}

/// Returns the CPU's nodes, provided that another provider has some too.
fn on_cpu(mut nodes: Nodes) -> Option<BTreeMap<String, u64>> {
    let cpu = nodes.remove("CPUExecutionProvider").unwrap_or_default();
    (!nodes.is_empty()).then_some(cpu)
}

/// Loads a model with a logger that records where its nodes are placed.
fn nodes_of(
    runtime: &Runtime,
    model: &Path,
    register: impl Fn(SessionBuilder) -> Result<SessionBuilder>,
) -> Result<Nodes> {
    let action = "ask where nodes run";
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&said);
    let builder = Session::builder(&runtime.environment)
        .map_err(encoder_error(action))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(encoder_error(action))?
        .with_intra_threads(1)
        .map_err(encoder_error(action))?
        .with_log_level(LogLevel::Verbose)
        .map_err(encoder_error(action))?
        .with_logger(Arc::new(move |_, _, _, _, message: &str| {
            let mut heard = locked(&heard);
            heard.push(message.to_string());
        }))
        .map_err(encoder_error(action))?;
    let session =
        register(builder)?.commit_from_file(model).map_err(encoder_error("load model.onnx"))?;
    drop(session);
    let said = locked(&said);
    Ok(parse(&said))
}

/// Parses the log. ` Node(s) placed on [P]. Number of nodes: N` is followed by the nodes, as in `  Shape (name)`;
/// ` All nodes placed on [P]. ...` lists none.
fn parse(messages: &[String]) -> Nodes {
    let mut nodes = Nodes::new();
    let mut provider: Option<String> = None;
    for message in messages {
        if let Some((start, rest)) = message.split_once("placed on [") {
            let name = rest.split(']').next().unwrap_or_default();
            nodes.entry(name.into()).or_default();
            provider = (!start.contains("All")).then(|| name.into());
            continue;
        }
        let node = message.strip_prefix("  ").and_then(|node| node.split_once(" ("));
        match (&provider, node) {
            (Some(provider), Some((operator, _))) => {
                let operators = nodes.entry(provider.clone()).or_default();
                *operators.entry(operator.into()).or_default() += 1;
            }
            _ => provider = None,
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(String::from).collect()
    }

    #[test]
    fn nodes_are_counted_by_provider_and_operator() {
        let nodes = parse(&lines(
            "Node placements\n Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3\n  Shape (/a/Shape)\n  \
             Gather (/a/Gather)\n  Shape (/b/Shape)\n Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 1\n  \
             MatMul (/c)\nSaving initialized tensors.\n  Shape (no node)",
        ));
        assert_eq!(nodes.len(), 2);
        let cpu = on_cpu(nodes).unwrap();
        let expected = [("Gather", 1), ("Shape", 2)];
        assert_eq!(cpu, expected.map(|(name, n)| (name.into(), n)).into());
    }

    #[test]
    fn a_graph_that_runs_on_one_provider_is_told_apart() {
        let all = |name: &str| {
            parse(&lines(&format!(" All nodes placed on [{name}]. Number of nodes: 5")))
        };
        assert_eq!(on_cpu(all("CUDAExecutionProvider")), Some(BTreeMap::new()));
        assert_eq!(on_cpu(all("CPUExecutionProvider")), None);
    }

    #[test]
    fn onnx_runtime_says_where_the_nodes_of_a_file_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let runtime = Runtime::load(&root.join("runtime/libonnxruntime.so"))
            .expect("runtime/ is not there: run `make setup`");
        let model = root.join("tests/fixtures/families/deberta_onnx/model.onnx");
        let nodes = nodes_of(&runtime, &model, Ok).unwrap();
        assert_eq!(nodes.len(), 1);
        assert!(nodes.contains_key("CPUExecutionProvider"), "{nodes:?}");
    }

    #[test]
    fn a_node_that_falls_to_the_cpu_is_refused_where_the_whole_graph_was_promised() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let runtime = Runtime::load(&root.join("runtime/libonnxruntime.so"))
            .expect("runtime/ is not there: run `make setup`");
        let model = root.join("tests/fixtures/families/deberta_onnx/model.onnx");
        // The CPU's is the only provider here, so every node falls back to it.
        let error = nodes_of(&runtime, &model, |builder| {
            builder.with_disable_cpu_fallback().map_err(encoder_error("configure a session"))
        })
        .unwrap_err();
        // The phrase that `cuda_failure` looks for.
        assert!(error.to_string().contains("assigned to the default CPU EP"), "{error}");
    }
}
