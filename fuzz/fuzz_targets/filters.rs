//! Filters: refused, or an answer for an event, whatever is written.
#![no_main]

use dispatch_api::filter::{self, sql::Expression};
use dispatch_api::{CloudEvent, Filter};
use libfuzzer_sys::fuzz_target;

const EVENT: &str = r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "order.made", "hops": 3, "x": "äb"}"#;

fuzz_target!(|text: &str| {
    let event: CloudEvent = serde_json::from_str(EVENT).expect("an event");
    if let Ok(expression) = Expression::parse(text) {
        let (_, errors) = expression.evaluate(&event);
        assert!(errors.is_empty() || !expression.matches(&event));
    }
    if let Ok(filters) = serde_json::from_str::<Vec<Filter>>(text) {
        if let Ok(compiled) = filter::compile("*", &filters) {
            compiled.matches(&event);
        }
    }
});
