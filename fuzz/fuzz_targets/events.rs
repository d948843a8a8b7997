//! Messages with events: what is taken keeps the rules, and comes back the same from what is written of it.
#![no_main]

use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::{BATCH, STRUCTURED};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<(String, Vec<u8>)>, Vec<u8>)| {
    let (kind, headers, body) = input;
    let kinds = [STRUCTURED, BATCH, "application/json", "text/plain"];
    let kind = kinds[usize::from(kind) % kinds.len()];
    let headers: Vec<(String, Vec<u8>)> =
        headers.into_iter().map(|(name, value)| (format!("ce-{name}"), value)).collect();
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let all = all.chain([("content-type", kind.as_bytes())]);
    for event in CloudEvent::from_http(all, &body).unwrap_or_default() {
        event.validate().expect("what was read is valid");
        let stored = serde_json::to_string(&event).expect("JSON");
        let read: CloudEvent = serde_json::from_str(&stored).expect("what was stored");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), stored);
        let (headers, body) = event.to_http_binary();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        CloudEvent::from_http(headers, &body).expect("what was sent");
    }
});
