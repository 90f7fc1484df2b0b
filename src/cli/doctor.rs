//! `frostbert doctor`: reports whether this machine can extract, on which device, and what to do if it cannot.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::internals::{
    config::settings::Pipeline,
    doctor::{
        Diagnosis, DoctorRequest, Problem, RuntimeFindings,
        cuda::CudaFindings,
        disk::CacheFindings,
        examine,
        machine::Memory,
        model::{DeviceFindings, ModelFindings, TEXT_TOKENS},
    },
};
use indicatif::HumanCount;
use serde_json::json;

use super::{
    Context, OverrideArguments,
    machine::or_installed,
    output,
    screen::{self, wrap},
};

/// The exit code is 1 if nothing can be extracted: there is no ONNX Runtime, the model does not load, the folder of
/// caches cannot be written, or the device that the pipeline names is not available.
#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// A pipeline file, whose model, device and folder of caches are tested [default: models/minilm, auto, cache]
    #[arg(value_name = "PIPELINE.toml")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArguments,
}

pub(super) fn run(arguments: &DoctorArguments, context: &Context) -> Result<ExitCode> {
    // All tasks of a file share the model, the device and the folder of caches.
    let task = match &arguments.pipeline {
        Some(path) => Pipeline::read_tasks(path, &arguments.overrides.set)?.into_iter().next(),
        None => None,
    };
    let mut asked = DoctorRequest::of(task.as_ref().map(|task| &task.pipeline));
    if task.is_none() {
        asked.model = or_installed(&asked.model);
    }
    let search = context.search.clone();
    let findings = examine(&asked, &context.machine, search, &context.progress);
    if context.json {
        let mut value = serde_json::to_value(&findings)?;
        value["well"] = json!(findings.is_well());
        output::print_json(&value)?;
    } else {
        output::print(&describe(&findings))?;
    }
    Ok(if findings.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A page of sections, each with a name, a first line, and further lines below it.
struct Page {
    text: String,
}

/// The width of the column of names.
const NAMES: usize = 14;

impl Page {
    fn line(&mut self, name: &str, text: &str) {
        let line = format!("{name:<NAMES$}{text}");
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Adds a problem with a mark, and its hint below it. Problems that prevent extraction are marked with `!!`.
    fn problem(&mut self, problem: Option<&Problem>) {
        let Some(problem) = problem else {
            return;
        };
        self.marked(if problem.fatal { "!!" } else { "-" }, &problem.reason);
        if let Some(hint) = &problem.hint {
            self.marked("", &format!("hint: {hint}"));
        }
    }

    /// Adds text after a mark, wrapped to the width of the terminal.
    fn marked(&mut self, mark: &str, text: &str) {
        let mut mark = mark;
        for line in wrap(text, screen::columns() - NAMES - 3) {
            self.line("", &format!("{mark:<3}{line}"));
            mark = "";
        }
    }
}

fn describe(findings: &Diagnosis) -> String {
    let mut page = Page { text: String::new() };
    page.line(
        "frostbert",
        &format!("{}, cache format {}", findings.frostbert, findings.cache_format),
    );
    describe_cpu(&mut page, findings);
    describe_runtime(&mut page, &findings.onnxruntime);
    describe_cuda(&mut page, &findings.cuda);
    if let Some(device) = &findings.device {
        describe_device(&mut page, device, findings.cuda.problem.as_ref());
    }
    describe_model(&mut page, &findings.model);
    describe_cache(&mut page, &findings.cache);
    let n_fatal = findings.problems().iter().filter(|problem| problem.fatal).count();
    page.text.push('\n');
    page.text.push_str(&match n_fatal {
        0 => "ready to extract\n".to_string(),
        1 => "not ready: 1 problem, marked with !!\n".to_string(),
        n_fatal => format!("not ready: {n_fatal} problems, marked with !!\n"),
    });
    page.text
}

fn describe_cpu(page: &mut Page, findings: &Diagnosis) {
    let cpu = &findings.cpu;
    let model = if cpu.model.is_empty() { "unknown" } else { &cpu.model };
    page.line(
        "cpu",
        &format!(
            "{model}, {}, {}",
            several(cpu.cores, "core"),
            several(findings.threads, "thread")
        ),
    );
    let instructions = if cpu.instructions.is_empty() {
        "no vector instructions known".into()
    } else {
        cpu.instructions.join(" ")
    };
    page.line("", &instructions);
    let Memory { total_bytes, available_bytes, limit_bytes } = findings.memory;
    let limit = limit_bytes.map_or(String::new(), |limit| {
        format!("; this control group may use {}", output::bytes(limit))
    });
    page.line(
        "memory",
        &format!(
            "{}, {} available{limit}",
            output::bytes(total_bytes),
            output::bytes(available_bytes)
        ),
    );
}

fn describe_runtime(page: &mut Page, runtime: &RuntimeFindings) {
    let how = match runtime.search.how {
        "found" => "found by searching".into(),
        "environment" => "of the Python environment".into(),
        "not found" => "not named anywhere".into(),
        how => format!("named by {how}"),
    };
    match &runtime.version {
        Some(version) => page.line(
            "onnxruntime",
            &format!("{version} (at least {} is needed), {how}", runtime.needed),
        ),
        None => page.line("onnxruntime", &format!("at least {} is needed, {how}", runtime.needed)),
    }
    if runtime.search.how == "not found" {
        page.line("", "searched:");
        for folder in &runtime.search.looked {
            page.line("", &format!("  {}", folder.display()));
        }
    } else {
        page.line("", &runtime.library.display().to_string());
    }
    page.problem(runtime.problem.as_ref());
    if runtime.version.is_some() {
        page.line("  provider", "cpu: usable");
    }
}

fn describe_cuda(page: &mut Page, cuda: &CudaFindings) {
    let version = cuda.version.map_or(String::new(), |version| format!(" (CUDA {version})"));
    let numbers: Vec<String> = cuda.devices.iter().map(ToString::to_string).collect();
    let state = match (&cuda.problem, cuda.compiled_in) {
        (_, None) => "cuda: not known without ONNX Runtime".into(),
        (None, Some(true)) => format!("cuda{version}: usable, cuda:{}", numbers.join(", cuda:")),
        (_, Some(true)) => format!("cuda{version}: compiled in, not usable"),
        (_, Some(false)) => "cuda: not compiled in".into(),
    };
    page.line("  provider", &state);
    page.problem(cuda.problem.as_ref());
    let shown: Vec<Vec<String>> = cuda
        .libraries
        .iter()
        .filter(|library| library.is_cuda() || library.problem.is_some())
        .map(|library| {
            let state = match library.problem {
                Some(_) => "missing",
                None => "found",
            };
            vec![library.name.clone(), library.part.into(), state.into()]
        })
        .collect();
    for (number, line) in screen::align(&shown).lines().enumerate() {
        page.line(if number == 0 { "  libraries" } else { "" }, line);
    }
    let driver = &cuda.driver;
    match (&driver.driver, driver.source) {
        (Some(version), Some(source)) => page.line("  driver", &format!("{version} ({source})")),
        _ => page.line("  driver", "none: neither nvidia-smi nor /proc/driver/nvidia reports one"),
    }
    for gpu in &driver.gpus {
        let memory =
            gpu.memory_bytes.map_or(String::new(), |memory| format!(", {}", output::bytes(memory)));
        page.line("  gpu", &format!("{}{memory}", gpu.name));
    }
}

fn describe_device(page: &mut Page, device: &DeviceFindings, cuda: Option<&Problem>) {
    let precision = device.precision.name();
    let took = match (&device.took, &device.reason) {
        (_, Some(reason)) => format!("{} chose {reason}", device.asked),
        (Some(_), None) => format!("{}, {precision}: works", device.asked),
        (None, None) => format!("{}, {precision}: not available", device.asked),
    };
    for (number, line) in wrap(&took, screen::columns() - NAMES).iter().enumerate() {
        page.line(if number == 0 { "device" } else { "" }, line);
    }
    let nodes = device.placement.as_ref().map(|placement| &placement.cpu_nodes);
    if let Some(nodes) = nodes.filter(|nodes| !nodes.is_empty()) {
        let nodes: Vec<String> =
            nodes.iter().map(|(operator, count)| format!("{count} {operator}")).collect();
        page.line("", &format!("still on the CPU: {}", nodes.join(", ")));
    }
    match (&device.problem, cuda) {
        // The problem with CUDA is already shown.
        (Some(problem), Some(cuda)) if problem.reason.ends_with(&cuda.reason) => {
            page.marked(
                "!!",
                "it was requested, but CUDA is not usable: the reason is given above",
            );
        }
        (problem, _) => page.problem(problem.as_ref()),
    }
}

fn describe_model(page: &mut Page, model: &ModelFindings) {
    let shape = match (&model.family, model.layers, model.hidden) {
        (Some(family), Some(layers), Some(hidden)) => {
            format!(": {family}, {layers} layers of {hidden}")
        }
        _ => String::new(),
    };
    page.line("model", &format!("{}{shape}", model.folder.display()));
    if let (Some(speed), Some(device)) = (model.tokens_per_second, &model.tried_on) {
        page.line(
            "",
            &format!(
                "loads; its states are finite; {} tokens/s on {device} (texts of {TEXT_TOKENS} tokens)",
                HumanCount(speed as u64)
            ),
        );
    }
    page.problem(model.problem.as_ref());
}

fn describe_cache(page: &mut Page, cache: &CacheFindings) {
    let exists = if cache.exists { "" } else { " (does not exist yet)" };
    let free =
        cache.free_bytes.map_or(String::new(), |free| format!(", {} free", output::bytes(free)));
    page.line("cache", &format!("{}{exists}{free}", cache.folder.display()));
    if let (Some(write), Some(read)) = (cache.write_bytes_per_second, cache.read_bytes_per_second) {
        page.line(
            "",
            &format!(
                "writes {}/s and reads {}/s (a file of {}, synced)",
                output::bytes(write as u64),
                output::bytes(read as u64),
                output::bytes(cache.test_bytes)
            ),
        );
    }
    page.problem(cache.problem.as_ref());
}

fn several(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
