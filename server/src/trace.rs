//! Request ids and W3C trace context (<https://www.w3.org/TR/trace-context/>).

use axum::http::HeaderMap;
use uuid::Uuid;

/// The header that carries a request's id.
pub const REQUEST_ID: &str = "x-request-id";

/// Where a request stands in its caller's trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The caller's `traceparent`, checked; functions receive it.
    pub traceparent: Option<String>,
    /// The caller's `tracestate`.
    pub tracestate: Option<String>,
    /// The request's id: the caller's own where it is plain, otherwise a new one.
    pub request_id: String,
}

impl Trace {
    /// The trace of something that is no request, such as an event. What is malformed is treated as
    /// absent.
    pub fn new(traceparent: Option<&str>, tracestate: Option<&str>) -> Trace {
        let traceparent = traceparent.filter(|value| is_traceparent(value));
        let tracestate = tracestate.filter(|value| traceparent.is_some() && value.len() <= 512);
        Trace {
            traceparent: traceparent.map(str::to_owned),
            tracestate: tracestate.map(str::to_owned),
            request_id: String::new(),
        }
    }

    /// Reads the headers of a request. What is malformed is treated as absent.
    pub fn from_headers(headers: &HeaderMap) -> Trace {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = text(REQUEST_ID).filter(|value| is_plain(value));
        let request_id =
            request_id.map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned);
        Trace { request_id, ..Trace::new(text("traceparent"), text("tracestate")) }
    }
}

fn is_plain(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, neither id all zero.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    hex(version, 2)
        && *version != "ff"
        && hex(trace, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && trace.bytes().any(|byte| byte != b'0')
        && parent.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_trace_contexts_pass() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_id_that_could_forge_log_lines_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, "a b".parse().expect("a header"));
        assert_ne!(Trace::from_headers(&headers).request_id, "a b");
        headers.insert(REQUEST_ID, "abc-1".parse().expect("a header"));
        assert_eq!(Trace::from_headers(&headers).request_id, "abc-1");
    }
}
