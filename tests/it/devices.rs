//! Unavailable devices, with stub libraries in place of CUDA's, and what `doctor` reports about a machine.
//!
//! The stubs have version numbers that CUDA does not have, so the tests find no more on a machine with CUDA than on one
//! without.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Ran, Workshop, finish, repository, say};

const STUBS: [&str; 4] =
    ["libcublasLt.so.99", "libcurand.so.99", "libcudart.so.99", "libcudnn.so.99"];

/// Creates the folder `ort` with the CPU build of ONNX Runtime and a fake CUDA provider, which needs the stubs in
/// `stubs` and the libraries `more`. Returns `None`, after a message, if there is no C compiler.
fn false_provider(workshop: &Workshop, more: &[&str]) -> Option<PathBuf> {
    let (ort, stubs) = (workshop.path("ort"), workshop.path("stubs"));
    for folder in [&ort, &stubs] {
        std::fs::create_dir(folder).unwrap();
    }
    workshop.write("nothing.c", "int nothing;");
    let source = workshop.path("nothing.c");
    let mut needed = Vec::new();
    for name in STUBS.iter().chain(more) {
        let library = stubs.join(name);
        let soname = format!("-Wl,-soname,{name}");
        compile(&library, &[Path::new(&soname), &source])?;
        needed.push(library);
    }
    let mut arguments = vec![source.as_path(), Path::new("-Wl,--no-as-needed")];
    arguments.extend(needed.iter().map(PathBuf::as_path));
    compile(&ort.join("libonnxruntime_providers_cuda.so"), &arguments)?;
    for name in ["libonnxruntime.so", "libonnxruntime_providers_shared.so"] {
        // Copied instead of linked, because the program looks next to the real file.
        std::fs::copy(repository().join("runtime").join(name), ort.join(name)).unwrap();
    }
    Some(ort)
}

fn compile(library: &Path, arguments: &[&Path]) -> Option<()> {
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).args(arguments).output();
    if !made.as_ref().is_ok_and(|output| output.status.success()) {
        say("skipped: there is no C compiler to make false libraries with");
        return None;
    }
    Some(())
}

/// Runs the program with the fake provider, and with a folder of libraries for the loader.
fn with_provider(workshop: &Workshop, arguments: &[&str], libraries: Option<&Path>) -> Ran {
    let mut command = workshop.command(&[arguments, &["--ort-lib", "ort"]].concat());
    match libraries {
        Some(folder) => command.env("LD_LIBRARY_PATH", folder),
        None => command.env_remove("LD_LIBRARY_PATH"),
    };
    finish(command)
}

const CUDA: [&str; 4] = ["extract", "pipeline.toml", "--set", "model.device=cuda"];

#[test]
fn every_missing_library_is_named_at_once_with_its_part_and_its_package() {
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    let ran = with_provider(&workshop, &CUDA, None);
    assert!(ran.has_failed());
    insta::assert_snapshot!(workshop.normalise(&ran.stderr));
    let shards = crate::support::contents(&workshop.path("cache"));
    assert!(!shards.keys().any(|name| name.contains("shard")));
    // A library that is found is not mentioned.
    let some = workshop.path("some");
    std::fs::create_dir(&some).unwrap();
    for name in &STUBS[..3] {
        std::fs::copy(workshop.path("stubs").join(name), some.join(name)).unwrap();
    }
    let ran = with_provider(&workshop, &CUDA, Some(&some));
    assert!(ran.stderr.contains("not found: `libcudnn.so.99` (cuDNN)\n"), "{}", ran.stderr);
}

#[test]
fn a_library_that_is_broken_is_told_in_the_loaders_words() {
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    std::fs::write(workshop.path("stubs/libcurand.so.99"), "no library").unwrap();
    let ran = with_provider(&workshop, &CUDA, Some(&workshop.path("stubs")));
    assert!(
        ran.stderr.contains("`libcurand.so.99` cannot be loaded: ")
            && ran.stderr.contains("file too short"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_provider_that_is_no_library_is_told() {
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    workshop.write("ort/libonnxruntime_providers_cuda.so", "<html>");
    let ran = with_provider(&workshop, &CUDA, None);
    assert!(
        ran.stderr.contains("providers_cuda.so` is not a library for this machine"),
        "{}",
        ran.stderr
    );
}

#[test]
fn half_a_provider_is_told_by_the_file_that_it_lacks() {
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    std::fs::remove_file(workshop.path("ort/libonnxruntime_providers_shared.so")).unwrap();
    let ran = with_provider(&workshop, &CUDA, None);
    assert!(
        ran.stderr.contains("`libonnxruntime_providers_shared.so` is not beside ONNX Runtime"),
        "{}",
        ran.stderr
    );
}

#[test]
fn libraries_beside_onnx_runtime_or_where_pip_puts_them_are_found_without_a_variable() {
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    // The layout of pip: site-packages/onnxruntime/capi and site-packages/nvidia/cu99/lib.
    let packages = workshop.path("site-packages");
    let pip = packages.join("nvidia/cu99/lib");
    std::fs::create_dir_all(&pip).unwrap();
    std::fs::create_dir(packages.join("onnxruntime")).unwrap();
    let capi = packages.join("onnxruntime/capi");
    std::fs::rename(workshop.path("ort"), &capi).unwrap();
    for (number, name) in STUBS.iter().enumerate() {
        let folder = if number < 2 { &pip } else { &capi };
        std::fs::rename(workshop.path("stubs").join(name), folder.join(name)).unwrap();
    }
    let library = ["--ort-lib", "site-packages/onnxruntime/capi"];
    let ran = workshop.run(&[&CUDA[..], &library].concat());
    // All libraries were found, so ONNX Runtime was asked for its devices; it was built for the CPU only.
    assert!(ran.has_failed());
    assert!(
        ran.stderr.contains("built without CUDA, whatever libraries are next to it"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_missing_driver_is_told_as_such() {
    if Path::new("/dev/nvidiactl").exists() {
        say("skipped: this machine has an NVIDIA driver");
        return;
    }
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &["libcuda.so.1"]).is_none() {
        return;
    }
    std::fs::remove_file(workshop.path("stubs/libcuda.so.1")).unwrap();
    let ran = with_provider(&workshop, &CUDA, Some(&workshop.path("stubs")));
    insta::assert_snapshot!(workshop.normalise(&ran.stderr));
}

#[test]
fn auto_says_what_it_took_and_why() {
    let workshop = Workshop::tiny();
    let auto = ["extract", "pipeline.toml", "--set", "model.device=auto"];
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    let ran = with_provider(&workshop, &auto, None);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let note = "note: device auto chose the CPU: the CUDA provider needs libraries that are not found: \
                `libcublasLt.so.99`";
    assert_eq!(ran.stderr.matches(note).count(), 1, "{}", ran.stderr);
    // Once more, with everything cached, and as JSON.
    let ran = with_provider(&workshop, &[&auto[..], &["--json"]].concat(), None);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["device"], &report["computed"]), (&"cpu".into(), &0.into()));
    let reason = report["device_reason"].as_str().unwrap();
    assert!(reason.starts_with("the CPU: the CUDA provider"), "{reason}");
    // The manifest of a CPU does not mention GPUs.
    let origin = &workshop.manifest()["shards"][0]["origins"][0];
    assert!(origin.get("placement").is_none(), "{origin}");
}

#[test]
fn several_devices_are_each_named_in_what_they_lack() {
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    for device in ["cuda:0,1", "cuda:all", "cuda:3"] {
        let setting = format!("model.device={device}");
        let ran = with_provider(&workshop, &["extract", "pipeline.toml", "--set", &setting], None);
        assert!(ran.has_failed());
        let named = ["cuda:0`", "cuda:3`"].iter().any(|name| ran.stderr.contains(name));
        assert!(named && ran.stderr.contains("`libcudart.so.99`"), "{}", ran.stderr);
    }
}

fn provider_of_checkout() -> bool {
    repository().join("runtime/libonnxruntime_providers_cuda.so").exists()
}

/// Replaces what differs between machines: numbers, names of CPUs, and speeds.
fn steady(workshop: &Workshop, text: &str) -> String {
    // The line breaks depend on the length of the folders' names.
    let mut text = workshop.normalise(&text.replace("\n                 ", " "));
    for (pattern, name) in [
        (r"(?m)^frostbert +\S+,", "frostbert     [version],"),
        (r"(?m)^cpu .*\n.*$", "cpu           [cpu]"),
        (r"(?m)^memory .*$", "memory        [memory]"),
        (r"(?m)^onnxruntime +1[0-9.]+ ", "onnxruntime   [version] "),
        (r"[0-9,]+ tokens/s", "[n] tokens/s"),
        (r"[0-9.]+ [KMGT]iB(/s| free)", "[n]$1"),
        (r"a file of [0-9.]+ [KMG]iB", "a file of [n]"),
        (r"(?m)^  driver .*\n(  gpu .*\n)*", "  driver      [driver]\n"),
    ] {
        let pattern = regex::Regex::new(pattern).unwrap();
        text = pattern.replace_all(&text, name).into_owned();
    }
    text
}

#[test]
fn doctor_says_that_a_machine_without_a_gpu_is_ready() {
    if provider_of_checkout() {
        say("skipped: the runtime of this checkout has a CUDA provider");
        return;
    }
    let workshop = Workshop::tiny();
    let ran = workshop.succeed(&["doctor", "pipeline.toml", "--quiet"]);
    insta::assert_snapshot!(steady(&workshop, &ran.stdout));
    // A mere check leaves nothing behind.
    assert!(!workshop.path("cache").exists());
}

#[test]
fn doctor_says_the_same_as_json() {
    let workshop = Workshop::tiny();
    let found = workshop.json(&["doctor", "pipeline.toml"]);
    assert_eq!(found["well"], true);
    assert_eq!(found["cache_format"], 2);
    assert_eq!(found["device"]["took"], "cpu");
    assert_eq!(found["model"]["layers"], 2);
    assert_eq!(found["model"]["hidden"], 32);
    assert!(found["model"]["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(found["cache"]["write_bytes_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(found["onnxruntime"]["how"], "found");
}

#[test]
fn doctor_lists_the_libraries_that_are_missing_and_fails_where_cuda_is_asked_for() {
    let workshop = Workshop::tiny();
    if false_provider(&workshop, &[]).is_none() {
        return;
    }
    let stub = workshop.path("stubs/libcurand.so.99");
    std::fs::rename(stub, workshop.path("ort/libcurand.so.99")).unwrap();
    let arguments = ["doctor", "pipeline.toml", "--quiet"];
    let ran = with_provider(&workshop, &arguments, None);
    assert_eq!(ran.code, Some(0), "nobody asked for CUDA: {}", ran.stdout);
    let asked = ["--set", "model.device=cuda"];
    let ran = with_provider(&workshop, &[&arguments[..], &asked].concat(), None);
    assert!(ran.has_failed());
    insta::assert_snapshot!(steady(&workshop, &ran.stdout));
}

#[test]
fn doctor_goes_on_where_something_is_broken_and_fails() {
    let workshop = Workshop::tiny();
    let broken = ["doctor", "pipeline.toml", "--quiet", "--ort-lib", "nowhere.so"];
    let model = ["--set", "model.path=no_model"];
    workshop.write("cache", "a file where a folder should be");
    let ran = workshop.run(&[&broken[..], &model].concat());
    assert!(ran.has_failed());
    insta::assert_snapshot!(steady(&workshop, &ran.stdout));
}

#[test]
fn doctor_refuses_a_precision_that_the_device_has_not() {
    let workshop = Workshop::tiny();
    let half = ["doctor", "pipeline.toml", "--set", "model.precision=f16"];
    let ran = workshop.run(&half);
    assert!(ran.has_failed());
    assert!(
        ran.stdout.contains("!! cannot run on device `cpu`: a CPU has no kernels"),
        "{}",
        ran.stdout
    );
    // The model itself works, which is reported too.
    assert!(ran.stdout.contains("tokens/s on cpu"), "{}", ran.stdout);
}
