use proptest::collection::btree_map;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn http(headers: &[(&str, &str)], body: &str) -> Result<Vec<CloudEvent>, EventError> {
    CloudEvent::from_http(
        headers.iter().map(|(name, value)| (*name, value.as_bytes())),
        body.as_bytes(),
    )
}

fn old(body: &Value) -> Result<CloudEvent, EventError> {
    let body = body.to_string();
    http(&[("Content-Type", "application/json")], &body).map(|mut events| events.remove(0))
}

fn structured(body: &Value) -> Result<CloudEvent, EventError> {
    let body = body.to_string();
    http(&[("content-type", STRUCTURED)], &body).map(|mut events| events.remove(0))
}

fn to_value(event: &CloudEvent) -> Value {
    serde_json::to_value(event).expect("JSON")
}

fn with(mut event: Value, name: &str, value: Value) -> Value {
    event[name] = value;
    event
}

fn old_event() -> Value {
    json!({
        "eventType": "vm.being.created", "eventTypeVersion": "2", "cloudEventsVersion": "0.1",
        "source": "vcenter1", "eventID": "42", "eventTime": "2018-06-01T00:00:00Z",
        "schemaURL": "http://a/b", "contentType": "application/json",
        "extensions": {"callback-url": "http://c", "type": 7, "deep": {"a": [1.5]}},
        "data": {"metadata": {"vm_name": "a"}}
    })
}

fn event() -> Value {
    json!({
        "specversion": "1.0", "id": "1", "source": "/shop", "type": "order.made",
        "subject": "o-7", "time": "2026-11-27T10:00:00.5+01:00",
        "datacontenttype": "application/json", "dataschema": "https://a/b",
        "traceid": "x", "hops": 3, "test": true, "data": {"sum": 12.30}
    })
}

#[test]
fn events_of_both_versions_keep_their_shape() {
    let read = old(&old_event()).expect("an event of 0.1");
    assert_eq!(read.spec_version, SpecVersion::V0_1);
    assert_eq!((read.event_type.as_str(), read.id.as_str()), ("vm.being.created", "42"));
    assert_eq!(to_value(&read), old_event());

    let read = structured(&event()).expect("an event of 1.0");
    assert_eq!(read.extensions["hops"], Extension::Integer(3));
    assert_eq!(to_value(&read), event());
    let text = serde_json::to_string(&read).expect("JSON");
    assert!(text.contains(r#"{"sum":12.3}"#), "the data is as it came: {text}");
    assert_eq!(serde_json::from_str::<CloudEvent>(&text).expect("what was stored"), read);
}

#[test]
fn a_function_sees_the_event_without_its_data() {
    let context = |event: &CloudEvent| serde_json::to_value(event.context()).expect("JSON");
    let read = old(&old_event()).expect("an event");
    assert_eq!(context(&read), with(old_event(), "data", Value::Null));
    assert_eq!(read.payload().get(), r#"{"metadata":{"vm_name":"a"}}"#);
    let read = structured(&event()).expect("an event");
    let mut without = event();
    without.as_object_mut().expect("an object").remove("data");
    assert_eq!(context(&read), without);

    for (data, payload) in [
        (None, "null"),
        (Some(Data::Text("a\"b".into())), r#""a\"b""#),
        (Some(Data::Binary(vec![0, 255])), r#""AP8=""#),
    ] {
        let event = CloudEvent::new(1, "/s", "t", Timestamp::UNIX_EPOCH, data);
        event.validate().expect("a valid event");
        assert_eq!(event.payload().get(), payload);
    }
}

#[test]
fn old_events_become_new_ones() {
    let modern = old(&old_event()).expect("an event").to_v1();
    modern.validate().expect("valid in 1.0");
    let wanted = json!({
        "specversion": "1.0", "id": "42", "source": "vcenter1", "type": "vm.being.created",
        "time": "2018-06-01T00:00:00Z", "datacontenttype": "application/json",
        "dataschema": "http://a/b", "eventtypeversion": "2", "callbackurl": "http://c",
        "exttype": 7, "deep": "{\"a\":[1.5]}", "data": {"metadata": {"vm_name": "a"}}
    });
    assert_eq!(to_value(&modern), wanted);
    assert_eq!(modern.to_v1(), modern);
}

#[test]
fn filters_see_the_new_names_in_old_events() {
    let event = old(&old_event()).expect("an event");
    for (name, wanted) in [
        ("specversion", Some("0.1")),
        ("type", Some("vm.being.created")),
        ("id", Some("42")),
        ("source", Some("vcenter1")),
        ("time", Some("2018-06-01T00:00:00Z")),
        ("dataschema", Some("http://a/b")),
        ("datacontenttype", Some("application/json")),
        ("eventtypeversion", Some("2")),
        ("callback-url", Some("http://c")),
        ("callbackurl", Some("http://c")),
        ("exttype", Some("7")),
        ("subject", None),
        ("data", None),
        ("eventType", None),
    ] {
        assert_eq!(event.attribute(name).as_deref(), wanted, "{name}");
    }
}

/// Every rule of the old server, in its words; the first that fails is said.
#[test]
fn old_events_are_checked_as_before() {
    let long = "a".repeat(MAX_TYPE_V0_1 + 1);
    let required = "in body is required";
    for (name, value, said) in [
        ("cloudEventsVersion", Value::Null, format!("cloudEventsVersion {required}")),
        (
            "cloudEventsVersion",
            json!("0.2"),
            "cloudEventsVersion in body should be one of [0.1]".into(),
        ),
        ("eventType", Value::Null, format!("eventType {required}")),
        ("eventType", json!(long), "eventType in body should be at most 128 chars long".into()),
        ("eventType", json!("a b"), r"eventType in body should match '^[\w\d\-\.]+$'".into()),
        ("eventType", json!("ä"), r"eventType in body should match '^[\w\d\-\.]+$'".into()),
        ("eventType", json!(7), "eventType in body must be of type string: 7".into()),
        ("source", json!(""), format!("source {required}")),
        ("eventID", json!(""), format!("eventID {required}")),
        (
            "eventTypeVersion",
            json!(""),
            "eventTypeVersion in body should be at least 1 chars long".into(),
        ),
        ("contentType", json!(""), "contentType in body should be at least 1 chars long".into()),
        (
            "eventTime",
            json!("today"),
            "eventTime in body must be of type date-time: \"today\"".into(),
        ),
        ("schemaURL", json!("a b"), "schemaURL in body must be of type uri: \"a b\"".into()),
        ("extensions", json!({}), "extensions in body should have at least 1 properties".into()),
        ("extensions", json!([]), "extensions in body must be of type object".into()),
        ("eventID", json!("a\nb"), r#"eventID should not have control characters: "a\nb""#.into()),
    ] {
        let error = old(&with(old_event(), name, value)).expect_err(&said);
        assert_eq!(error.to_string(), format!("Error validating event: {said}"));
        assert_eq!(error.status(), 400);
    }
    let least =
        json!({"cloudEventsVersion": "0.1", "eventType": "t", "source": "s", "eventID": "i"});
    old(&least).expect("the least event");
    let any_case = json!({
        "CLOUDEVENTSVERSION": "0.1", "eventtype": "wrong", "eventType": "t", "Source": "s",
        "eventid": "i", "id": "of the emission", "emitted-time": 7, "tags": [], "data": null
    });
    assert_eq!(to_value(&old(&any_case).expect("any case")), least);
}

#[test]
fn new_events_are_checked() {
    for (name, value, said) in [
        ("specversion", json!("0.3"), r#"specversion should be "1.0", not "0.3""#),
        ("specversion", json!(1.0), "specversion should be a text"),
        ("id", json!(""), "id is required"),
        ("id", Value::Null, "id is required"),
        ("id", json!(7), "id should be a text"),
        ("id", json!("a".repeat(MAX_ID + 1)), "id should be at most 512 bytes long"),
        ("source", json!("a b"), "source should be a URI reference"),
        ("type", Value::Null, "type is required"),
        ("type", json!("a".repeat(MAX_TYPE + 1)), "type should be at most 256 bytes long"),
        ("subject", json!(""), "subject should not be empty"),
        ("subject", json!("\u{7f}"), "subject should not have control characters"),
        ("time", json!("2026-11-27"), "time should be as in"),
        ("time", json!("2026-11-27 10:00:00Z"), "time should be as in"),
        ("time", json!("2026-11-27T10:00:00"), "time should be as in"),
        ("time", json!("2026-13-27T10:00:00Z"), "time should be as in"),
        ("time", json!("2026-11-27T10:00:00Z[UTC]"), "time should be as in"),
        ("datacontenttype", json!("json"), "datacontenttype should be as in"),
        ("dataschema", json!("relative"), "dataschema should be a URI"),
        ("Upper", json!("x"), "extension \"Upper\" should be named"),
        ("with-dash", json!("x"), "extension \"with-dash\" should be named"),
        ("", json!("x"), "extension \"\" should be named"),
        ("float", json!(1.5), "extension \"float\" should be a text"),
        ("large", json!(1_u64 << 31), "extension \"large\" should be a text"),
        ("object", json!({}), "extension \"object\" should be a text"),
        ("data_base64", json!("AA=="), "it has both data and data_base64"),
    ] {
        let error = structured(&with(event(), name, value)).expect_err(said).to_string();
        assert!(error.starts_with(&format!("Error validating event: {said}")), "{error}");
    }
    let mut many = event();
    for number in 0..=MAX_EXTENSIONS {
        many[format!("x{number}")] = json!(number);
    }
    assert!(structured(&many).expect_err("too many").to_string().contains("64 extensions"));
    assert!(structured(&json!({})).expect_err("nothing").to_string().contains("specversion"));
    structured(&old_event()).expect("an event of 0.1 in the same mode");
}

#[test]
fn data_is_json_text_or_bytes() {
    let base = json!({"specversion": "1.0", "id": "1", "source": "/", "type": "t"});
    for (content_type, member, value, wanted) in [
        (None, "data", json!("a"), Data::json("a").expect("JSON")),
        (Some("application/x+json"), "data", json!([1]), Data::json(&[1]).expect("JSON")),
        (Some("text/plain"), "data", json!("a"), Data::Text("a".into())),
        (Some("text/plain"), "data", json!({}), Data::json(&json!({})).expect("JSON")),
        (None, "data_base64", json!("AP8="), Data::Binary(vec![0, 255])),
    ] {
        let body = with(base.clone(), member, value);
        let body = match content_type {
            Some(content_type) => with(body, "datacontenttype", json!(content_type)),
            None => body,
        };
        let read = structured(&body).expect("an event");
        assert_eq!(read.data, Some(wanted));
        assert_eq!(to_value(&read), body);
    }
    for (depth, passes) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (1_000_000, false)] {
        let data = format!("{}\"[\\\"[\"{}", "[".repeat(depth), "]".repeat(depth));
        let body =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/","type":"t","data":{data}}}"#);
        assert_eq!(http(&[("content-type", STRUCTURED)], &body).is_ok(), passes, "{depth}");
    }
}

#[test]
fn binary_mode_is_decoded_once() {
    let headers = [
        ("CE-SpecVersion", "1.0"),
        ("ce-id", "\"a\\\"b\\\\\""),
        ("Ce-Source", "/a%20b%2520%zz"),
        ("ce-type", " Euro%20%E2%82%AC%20%F0%9F%98%80 "),
        ("ce-subject", "ü"),
        ("ce-hops", "3"),
        ("Content-Type", "text/csv; charset=utf-8"),
    ];
    let error = http(&headers, "a,b").expect_err("a space in the source").to_string();
    assert!(error.contains("source should be a URI reference"), "{error}");
    let mut headers = headers;
    headers[2].1 = "/a%2520%zz";
    let read = http(&headers, "a,b").expect("an event").remove(0);
    assert_eq!(read.id, r#"a"b\"#);
    assert_eq!(read.source, "/a%20%zz");
    assert_eq!(read.event_type, "Euro € 😀");
    assert_eq!(read.subject.as_deref(), Some("ü"));
    assert_eq!(read.extensions["hops"], Extension::from("3"));
    assert_eq!(read.data, Some(Data::Text("a,b".into())));

    let least = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/"), ("ce-type", "t")];
    for (content_type, body, wanted) in [
        ("application/json", "{\"a\": 1}", Ok(Some(json!({"a": 1})))),
        ("application/json", "{", Err("the body is not JSON")),
        ("application/json", "", Ok(None)),
        ("", "[1]", Ok(Some(json!([1])))),
        ("", "hello", Ok(Some(json!("aGVsbG8=")))),
        ("image/svg+xml", "<a/>", Ok(Some(json!("<a/>")))),
        ("application/octet-stream", "hello", Ok(Some(json!("aGVsbG8=")))),
        ("no media type", "hello", Err("datacontenttype should be as in")),
    ] {
        let mut headers = least.to_vec();
        headers.push(("content-type", content_type));
        match (http(&headers, body), wanted) {
            (Ok(events), Ok(wanted)) => {
                let payload: Value = serde_json::from_str(events[0].payload().get()).expect("JSON");
                assert_eq!(payload, wanted.unwrap_or_default(), "{content_type} {body}");
            }
            (Err(error), Err(wanted)) => assert!(error.to_string().contains(wanted), "{error}"),
            (read, _) => panic!("{content_type} {body}: {read:?}"),
        }
    }
    for missing in 0..least.len() {
        let mut headers = least.to_vec();
        let (name, _) = headers.remove(missing);
        let error = http(&headers, "{}").expect_err(name).to_string();
        assert!(error.contains(&format!("header {name} is required")), "{error}");
    }
    let twice = [least.as_slice(), &[("ce-id", "2")]].concat();
    assert!(http(&twice, "").expect_err("twice").to_string().contains("ce-id is there twice"));
    let other = [("ce-specversion", "0.3"), least[1], least[2], least[3]];
    assert!(http(&other, "").expect_err("0.3").to_string().contains("should be 1.0"));
}

#[test]
fn several_events_come_in_lists_or_one_after_the_other() {
    let ids = |events: Vec<CloudEvent>| {
        events.into_iter().map(|event| event.id).collect::<Vec<_>>().join(" ")
    };
    let numbered = |id: &str| with(event(), "id", json!(id)).to_string();
    let (a, b, c) = (numbered("a"), numbered("b"), old_event());
    let batch = [("content-type", "application/CloudEvents-batch+json; charset=utf-8")];
    let json = [("content-type", "application/json")];
    assert_eq!(ids(http(&batch, &format!("[{a},{b}]")).expect("a batch")), "a b");
    assert_eq!(ids(http(&batch, "[]").expect("an empty batch")), "");
    assert_eq!(ids(http(&json, &format!("[{c},{a}]\n {b}")).expect("a stream")), "42 a b");
    assert_eq!(ids(http(&[], &a).expect("without a content type")), "a");
    for (headers, body, status, said) in [
        (&batch[..], a.clone(), 400, "Error parsing event: invalid type: map"),
        (&batch, format!("[{a},{{}}]"), 400, "Error validating event: event 2: specversion"),
        (&batch, format!("[{}]", vec!["0"; MAX_BATCH + 1].join(",")), 413, "more than 1000 events"),
        (&json, vec!["0"; MAX_BATCH + 1].join(" "), 413, "more than 1000 events"),
        (&json, format!("{a} {{"), 400, "Error parsing event: EOF"),
        (&json, "7".into(), 400, "Error validating event: it should be a JSON object"),
        (&json, String::new(), 400, "Error parsing event: no events"),
        (&json, "[]".into(), 400, "Error parsing event: no events"),
        (
            &[("content-type", "text/plain")],
            a.clone(),
            415,
            "unsupported media type \"text/plain\"",
        ),
        (&[("content-type", "application/cloudevents+avro")], a.clone(), 415, "unsupported media"),
        (
            &[("content-type", STRUCTURED)],
            format!("[{a}]"),
            400,
            "Error validating event: it should",
        ),
    ] {
        let error = http(headers, &body).expect_err(said);
        assert_eq!(error.status(), status, "{error}");
        assert!(error.to_string().starts_with(said), "{error}");
    }
}

fn any_data() -> impl Strategy<Value = Option<Data>> {
    prop_oneof![
        Just(None),
        "[a-z\"\\\\ ]{0,9}".prop_map(|text| Data::json(&[text]).ok()),
        "\\PC{1,20}".prop_map(|text| Some(Data::Text(text))),
        proptest::collection::vec(any::<u8>(), 1..20).prop_map(|bytes| Some(Data::Binary(bytes))),
    ]
}

fn any_event() -> impl Strategy<Value = CloudEvent> {
    // Names of attributes are longer than those here.
    let extensions = btree_map("x[a-z0-9]{0,8}", "\\PC{0,20}".prop_map(Extension::String), 0..4);
    // Around a header's value white space means nothing, and quotes are taken off.
    ("\\PC{1,20}", "[!-~ü€]{1,20}", "\\PC{1,20}", extensions, any_data()).prop_map(
        |(id, source, event_type, extensions, data)| CloudEvent {
            extensions,
            ..CloudEvent::new(id, source, event_type, Timestamp::UNIX_EPOCH, data)
        },
    )
}

proptest! {
    /// What leaves in one of the modes arrives as it was.
    #[test]
    fn every_mode_carries_every_event(event in any_event()) {
        prop_assert_eq!(event.validate(), Ok(()));
        let (headers, body) = event.to_http_binary();
        for (name, value) in &headers {
            prop_assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{} {}", name, value);
        }
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let read = CloudEvent::from_http(headers, &body).expect("binary mode");
        prop_assert_eq!(&read, std::slice::from_ref(&event));

        let body = event.to_http_structured().expect("JSON");
        let read = CloudEvent::from_http([("content-type", STRUCTURED.as_bytes())], &body);
        prop_assert_eq!(read.as_deref(), Ok(std::slice::from_ref(&event)));

        let events = [event.clone(), event];
        let body = CloudEvent::to_http_batch(&events).expect("JSON");
        let read = CloudEvent::from_http([("content-type", BATCH.as_bytes())], &body);
        prop_assert_eq!(read.as_deref(), Ok(events.as_slice()));
    }

    /// What was valid in 0.1 is valid in 1.0, but for control characters in extensions.
    #[test]
    fn every_old_event_becomes_a_new_one(
        texts in proptest::collection::vec("\\PC{1,12}|/[a-z ]{0,9}|text/[a-z]{1,4}", 5),
        name in "\\PC{1,12}|type|data|id",
        data in any_data(),
    ) {
        let [id, source, kind, schema, value] = texts.try_into().expect("five");
        let event = CloudEvent {
            spec_version: SpecVersion::V0_1,
            id,
            source,
            event_type: "a.b".into(),
            data_content_type: Some(kind),
            data_schema: Some(schema),
            extensions: [(name, Extension::String(value))].into(),
            data,
            ..CloudEvent::default()
        };
        if event.validate().is_ok() {
            prop_assert_eq!(event.to_v1().validate(), Ok(()));
            let text = serde_json::to_string(&event).expect("JSON");
            prop_assert!(serde_json::from_str::<CloudEvent>(&text).is_ok(), "{}", text);
        }
    }

    /// Whatever comes, it is an event that keeps the rules, or refused.
    #[test]
    fn no_bytes_break_it(
        content_type in prop_oneof![Just(STRUCTURED), Just(BATCH), Just("application/json"), Just("")],
        headers in proptest::collection::vec(("ce-(id|source|type|time|x)", "\\PC{0,9}"), 0..4),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            r#"\[?\{("(id|source|type|specversion|eventID|data|x)":("1\.0"|1|\{\}|null),?){0,6}\}\]?"#
                .prop_map(String::into_bytes),
        ],
    ) {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let all = headers.chain([("content-type", content_type.as_bytes())]);
        for event in CloudEvent::from_http(all, &body).unwrap_or_default() {
            prop_assert_eq!(event.validate(), Ok(()));
        }
    }
}
