use serde_json::json;

use super::*;

fn event() -> CloudEvent {
    serde_json::from_value(json!({
        "specversion": "1.0", "id": "1", "source": "/shop/eu", "type": "order.made",
        "subject": "o-7", "hops": 3, "test": true
    }))
    .expect("an event")
}

/// As a server does it: read, then compile.
fn fits(pattern: &str, filters: &Value) -> Result<bool, String> {
    let filters = read(filters.as_array().expect("a list")).map_err(|error| error.to_string())?;
    let text = serde_json::to_string(&filters).expect("JSON");
    assert_eq!(serde_json::from_str::<Vec<Filter>>(&text).expect("what was written"), filters);
    let compiled = compile(pattern, &filters).map_err(|error| error.to_string())?;
    Ok(compiled.matches(&event()))
}

#[test]
fn types_fit_patterns() {
    for (pattern, event_type, wanted) in [
        ("", "a", true),
        ("*", "a.b", true),
        ("order.made", "order.made", true),
        ("order.made", "order.made.eu", false),
        ("order.*", "order.made", true),
        ("order.*", "order.made.eu", true),
        ("order.*", "order.", false),
        ("order.*", "order", false),
        ("order.*", "orders.made", false),
        ("order.*", "x.order.made", false),
        (".*", "a", false),
        ("*.made", "order.made", false),
    ] {
        let read = TypePattern::new(pattern);
        assert_eq!(read.matches(event_type), wanted, "{pattern} {event_type}");
        assert_eq!(TypePattern::new(&read.to_string()), read);
    }
}

#[test]
fn events_fit_filters() {
    let yes = json!({"exact": {"type": "order.made"}});
    let no = json!({"exact": {"type": "order.paid"}});
    for (filter, wanted) in [
        (json!({"exact": {"type": "order.made", "subject": "o-7"}}), true),
        (json!({"exact": {"type": "order.made", "subject": "o-8"}}), false),
        (json!({"exact": {"type": "ORDER.MADE"}}), false),
        (json!({"exact": {"hops": "3", "test": "true", "specversion": "1.0"}}), true),
        (json!({"exact": {"absent": "x"}}), false),
        (json!({"exact": {"time": "x"}}), false),
        (json!({"prefix": {"source": "/shop"}}), true),
        (json!({"prefix": {"source": "shop"}}), false),
        (json!({"suffix": {"source": "/eu"}}), true),
        (json!({"suffix": {"source": "/shop"}}), false),
        (json!({"all": [yes, yes]}), true),
        (json!({"all": [yes, no]}), false),
        (json!({"any": [no, yes]}), true),
        (json!({"any": [no, no]}), false),
        (json!({"not": no}), true),
        (json!({"not": yes}), false),
        (json!({"not": {"exact": {"absent": "x"}}}), true),
        (json!({"sql": "type LIKE 'order.%' AND hops < 4"}), true),
        (json!({"sql": "absent = 'x'"}), false),
        (json!({"sql": "NOT (absent = 'x')"}), false),
        (json!({"sql": "hops"}), false),
        (json!({"not": {"sql": "absent = 'x'"}}), true),
        (json!({"not": {"any": [no, {"all": [yes, {"not": no}]}]}}), false),
    ] {
        assert_eq!(fits("order.*", &json!([filter])), Ok(wanted), "{filter}");
        assert_eq!(fits("*", &json!([filter, no])), Ok(false));
        assert_eq!(fits("user.*", &json!([filter])), Ok(false));
    }
    assert_eq!(fits("", &json!([])), Ok(true));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let long = "a".repeat(MAX_ATTRIBUTE + 1);
    let many: BTreeMap<String, &str> =
        (0..=MAX_ATTRIBUTES).map(|number| (format!("a{number}"), "x")).collect();
    for (filter, said) in [
        (json!([7]), "filters[0]: it should be an object with one member"),
        (json!([{}]), "filters[0]: it should be an object with one member"),
        (json!([{"all": [], "any": []}]), "filters[0]: it should be an object with one member"),
        (json!([{"like": {}}]), "filters[0].like: there is no such filter"),
        (json!([{"exact": {}}]), "filters[0].exact: it should be an object of one attribute"),
        (json!([{"exact": "x"}]), "filters[0].exact: it should be an object of one attribute"),
        (json!([{"exact": {"type": ""}}]), "filters[0].exact.type: it should be a text"),
        (json!([{"exact": {"type": 7}}]), "filters[0].exact.type: it should be a text"),
        (json!([{"prefix": {"Type": "x"}}]), "filters[0].prefix.Type: names of attributes"),
        (json!([{"suffix": {"type": long}}]), "filters[0].suffix.type: it should be at most 4096"),
        (json!([{"suffix": many}]), "filters[0].suffix: it should name 1 to 64 attributes"),
        (json!([{"sql": 7}]), "filters[0].sql: it should be an expression"),
        (
            json!([{"sql": "type LIKE"}]),
            "filters[0].sql: LIKE wants a text in quotes at character 10",
        ),
        (
            json!([{"sql": "1 = F(2)"}]),
            "filters[0].sql: there is no function F with so many arguments at character 5",
        ),
        (json!([{"all": []}]), "filters[0].all: it should be a list"),
        (json!([{"any": {}}]), "filters[0].any: it should be a list"),
        (
            json!([{"exact": {"id": "1"}}, {"any": [{"not": {"exact": {"": "x"}}}]}]),
            "filters[1].any[0].not.exact.: names of attributes",
        ),
    ] {
        let error = fits("*", &filter).expect_err(said);
        assert!(error.starts_with(said), "{filter}: {error}");
    }
    let error = serde_json::from_value::<Filter>(json!({"not": {"all": 7}})).expect_err("a number");
    assert!(error.to_string().starts_with("filter.not.all: it should be a list"), "{error}");
    // What was not read but put together is checked as well.
    let error = Filter::Not(Box::new(Filter::Any(Vec::new()))).compile().expect_err("empty");
    assert_eq!(error.at, "filters[0].not.any");
    let empty = Filter::Exact(BTreeMap::new()).compile().expect_err("empty");
    assert_eq!(empty.at, "filters[0].exact");
}

#[test]
fn size_and_depth_are_bounded() {
    let leaf = json!({"exact": {"type": "order.made"}});
    let nested = |depth: usize| (1..depth).fold(leaf.clone(), |inner, _| json!({"all": [inner]}));
    assert_eq!(fits("*", &json!([nested(MAX_DEPTH)])), Ok(true));
    assert!(fits("*", &json!([nested(MAX_DEPTH + 1)])).expect_err("deep").contains("nest deeper"));
    let half = vec![leaf; MAX_FILTERS / 2];
    assert_eq!(fits("*", &json!(half)), Ok(true));
    // 2 and two times 128.
    let error = fits("*", &json!([{"all": half}, {"any": half}])).expect_err("many");
    assert!(error.contains("there are more than 256 filters"), "{error}");
    let typed = (0..=MAX_DEPTH).fold(Filter::All(Vec::new()), |inner, _| Filter::Not(inner.into()));
    assert!(typed.compile().expect_err("deep").reason.contains("nest deeper"));
}
