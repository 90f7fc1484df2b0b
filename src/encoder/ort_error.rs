//! Converts errors of ONNX Runtime to errors of this crate.

use std::fmt::Display;

use crate::error::Error;

/// Wraps an error of ONNX Runtime.
pub(super) fn encoder_error<E: Display>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Encoder { action, reason: plain_reason(&error) }
}

/// Returns ONNX Runtime's message without the location in its source code that precedes it.
pub(super) fn plain_reason(error: &impl Display) -> String {
    let text = error.to_string();
    let after_marker = text.split_once("[ONNXRuntimeError] : ").map(|(_, rest)| rest);
    // `1 : FAIL : the reason`
    let reason = after_marker.and_then(|rest| rest.splitn(3, " : ").nth(2)).unwrap_or(&text);
    reason.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_loses_the_place_in_foreign_source_code() {
        let text = "/src/provider_bridge_ort.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : no libcublasLt.so.13 : x\n";
        assert_eq!(plain_reason(&text), "no libcublasLt.so.13 : x");
        assert_eq!(plain_reason(&"something else"), "something else");
    }
}
