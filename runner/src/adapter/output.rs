//! What a program's output and exit code mean.

use bytes::Bytes;
use dispatch_api::ErrorType;
use serde_json::value::RawValue;

use super::serve::fault;
use crate::frame::Fault;

/// All that a program wrote as a result: JSON, or a text without its last line break; nothing is
/// `null`.
///
/// # Errors
/// It is neither.
pub fn result(output: &[u8]) -> Result<Bytes, Fault> {
    if output.trim_ascii().is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    if serde_json::from_slice::<&RawValue>(output).is_ok() {
        return Ok(Bytes::copy_from_slice(output));
    }
    let text = std::str::from_utf8(output).map_err(|_| {
        fault(ErrorType::FunctionError, "the output is neither JSON nor text in UTF-8")
    })?;
    let text = serde_json::to_vec(text.strip_suffix('\n').unwrap_or(text));
    text.map(Bytes::from).map_err(|error| fault(ErrorType::SystemError, error.to_string()))
}

/// Whose fault an exit code is: 64 and 65 say in sysexits(3) that usage and data were wrong.
pub fn whose_fault(code: i32) -> ErrorType {
    match code {
        64 | 65 => ErrorType::InputError,
        _ => ErrorType::FunctionError,
    }
}
