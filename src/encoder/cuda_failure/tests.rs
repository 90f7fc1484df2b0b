//! The messages here are those of onnxruntime-gpu 1.31.1, observed with and without the CUDA libraries and with stub
//! drivers that return the given error numbers. CUDA failures 2 and 209 and the cuBLAS failure were not observed; they
//! are written after the others.

use super::*;
use crate::encoder::gpus::Gpu;

fn failure(number: u32, words: &str) -> String {
    format!(
        "provider_options_utils.h:187 Parse Failed to parse provider option \"device_id\": CUDA failure {number}: \
         {words} ; GPU=-1 ; hostname=vm ; \
         file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc ; line=70 ; \
         expr=cudaGetDeviceCount(&num_devices);"
    )
}

fn facts(gpus: &'static dyn Fn() -> Gpus) -> FailureContext<'static> {
    FailureContext { cuda: Some(13), onnxruntime: "1.31.1", gpus }
}

fn old_driver() -> Gpus {
    Gpus { driver: Some("550.54.14".into()), ..Gpus::default() }
}

#[test]
fn an_old_driver_is_told_with_both_versions() {
    let words = failure(35, "CUDA driver version is insufficient for CUDA runtime version");
    let (reason, hint) = facts(&old_driver).explain(&words);
    assert_eq!(
        reason,
        "driver 550.54.14 is too old for CUDA 13, which ONNX Runtime 1.31.1 was built for"
    );
    assert!(hint.contains("580 or later for CUDA 13"), "{hint}");
    // CUDA reports the same error if the driver's library is an empty stub.
    let (reason, _) = facts(&Gpus::default).explain(&words);
    assert!(reason.starts_with("the driver is missing, or too old for CUDA 13"), "{reason}");
}

#[test]
fn a_machine_without_a_device_says_so() {
    let (reason, hint) =
        facts(&Gpus::default).explain(&failure(100, "no CUDA-capable device is detected"));
    assert_eq!(reason, "the driver finds no CUDA device");
    assert!(hint.contains("CUDA_VISIBLE_DEVICES"), "{hint}");
}

#[test]
fn a_device_that_is_not_there_is_told_with_those_there_are() {
    let words = "provider_options_utils.h:187 Parse Failed to parse provider option \"device_id\": \
                 cuda_execution_provider_info.cc:71 operator() Invalid device ID: 3, must be between 0 (inclusive) and \
                 2 (exclusive).";
    let (reason, _) = facts(&Gpus::default).explain(words);
    assert_eq!(reason, "there is no CUDA device 3: there are 2, 0 to 1");
    let one = words.replace("2 (exclusive)", "1 (exclusive)");
    let (reason, _) = facts(&Gpus::default).explain(&one);
    assert_eq!(reason, "there is no CUDA device 3: the only one is 0");
}

#[test]
fn other_failures_of_cuda_keep_their_words_and_lose_foreign_source_code() {
    let explain = |number, words| facts(&Gpus::default).explain(&failure(number, words)).0;
    let unknown = explain(999, "unknown error");
    assert_eq!(unknown, "CUDA failure 999: unknown error");
    let compatibility = "forward compatibility was attempted on non supported HW";
    assert!(explain(804, compatibility).contains("different versions"));
    let image = "no kernel image is available for execution on the device";
    assert!(explain(209, image).contains("architecture"));
    assert!(explain(2, "out of memory").contains("memory"));
    let cudnn = "Exception during initialization: /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 \
                 std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, \
                 int) [with ERRTYPE = cudnnStatus_t; bool THRW = true] CUDNN failure 1001: \
                 CUDNN_STATUS_NOT_INITIALIZED ; GPU=-1 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/\
                 providers/cuda/cuda_execution_provider.cc ; line=250 ; expr=cudnnCreate(&cudnn_handle_);";
    let (reason, _) = facts(&Gpus::default).explain(cudnn);
    assert_eq!(reason, "CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED");
    // Error numbers of other libraries do not have CUDA's meanings.
    let cublas = cudnn.replace("CUDNN failure 1001", "CUBLAS failure 2");
    assert!(facts(&Gpus::default).explain(&cublas).0.starts_with("CUBLAS failure 2:"));
}

#[test]
fn nodes_that_would_fall_to_the_cpu_are_told() {
    let words = "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has \
                 been explicitly disabled by the user.";
    let (reason, hint) = facts(&Gpus::default).explain(words);
    assert!(reason.contains("no CUDA kernel for some nodes"), "{reason}");
    assert!(hint.contains("newer onnxruntime-gpu"), "{hint}");
}

#[test]
fn a_cudnn_that_is_missed_late_is_told() {
    let words = "cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed for libcudnn.so: \
                 libcudnn.so: cannot open shared object file: No such file or directory";
    let (reason, hint) = facts(&Gpus::default).explain(words);
    assert_eq!(reason, words);
    assert!(hint.contains("cuDNN 9"), "{hint}");
}

fn library(name: &str, part: &'static str) -> Library {
    Library {
        name: name.into(),
        part,
        package: None,
        problem: Some(format!("{name}: cannot open shared object file: No such file or directory")),
    }
}

#[test]
fn a_missing_driver_is_told_beside_missing_libraries_and_alone() {
    let none = || Gpus::default();
    let both = [library("libcudart.so.13", "CUDA runtime"), library(DRIVER_LIBRARY, "the driver")];
    let (reason, _) = explain_libraries(&both, Some(13), &none).unwrap();
    assert_eq!(
        reason,
        "the CUDA provider needs libraries that are not found: `libcudart.so.13` (CUDA runtime); and there is no \
         NVIDIA driver: neither `libcuda.so.1` nor `/dev/nvidiactl`"
    );
    let (reason, hint) = explain_libraries(&both[1..], Some(13), &none).unwrap();
    assert!(reason.starts_with("there is no NVIDIA driver"), "{reason}");
    assert!(hint.contains("580 or later") && hint.contains("--gpus all"), "{hint}");
    assert!(explain_libraries(&[], Some(13), &none).is_none());
}

#[test]
fn a_kernel_module_without_its_library_is_another_matter() {
    let module = || Gpus {
        driver: Some("580.65.06".into()),
        control_device: true,
        gpus: vec![Gpu { name: "NVIDIA T4".into(), memory_bytes: None }],
        ..Gpus::default()
    };
    let alone = [library(DRIVER_LIBRARY, "the driver")];
    let (reason, _) = explain_libraries(&alone, Some(13), &module).unwrap();
    assert!(reason.contains("though its kernel module is loaded"), "{reason}");
}
