//! Bodies of requests at the gateway: the payload is JSON, or the request is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(dispatch_server::gateway::body::fuzz(data));
});
