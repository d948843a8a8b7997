use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn event(attributes: &Json) -> CloudEvent {
    let mut event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"});
    for (name, value) in attributes.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    serde_json::from_value(event).expect("an event")
}

fn to_json(value: &Value<'_>) -> Json {
    match value {
        Value::Boolean(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::String(value) => json!(value),
    }
}

#[test]
fn the_conformance_tests_pass() {
    let mut count = 0;
    for line in include_str!("vectors.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split('|').map(str::trim);
        let mut next = || fields.next().unwrap_or_default();
        let (text, wanted, error, attributes) = (next(), next(), next(), next());
        let attributes = if attributes.is_empty() { "{}" } else { attributes };
        let event = event(&serde_json::from_str(attributes).expect(line));
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{line}: {error}"));
        let (value, errors) = expression.evaluate(&event);
        let errors: Vec<String> = errors.iter().map(|error| format!("{error:?}")).collect();
        assert_eq!(to_json(&value), serde_json::from_str::<Json>(wanted).expect(line), "{line}");
        assert_eq!(errors.join(" "), error, "{line}");
        let fits = wanted == "true" && error.is_empty();
        assert_eq!(expression.matches(&event), fits, "{line}");
        count += 1;
    }
    assert!(count > 250, "only {count} lines were read");
}

#[test]
fn what_is_no_expression_says_why_and_where() {
    for (text, at, reason) in [
        ("", 1, "an attribute, a number"),
        ("   ", 4, "an attribute, a number"),
        ("(1", 3, "\")\" is expected"),
        ("1)", 2, "an operator or the end"),
        ("1 2", 3, "an operator or the end"),
        ("1 +", 4, "an attribute, a number"),
        ("'abc", 1, "the text that begins here has no end"),
        ("\"a\\\"", 1, "the text that begins here has no end"),
        ("a = #", 5, "'#' means nothing here"),
        ("a ! b", 3, "'!' means nothing here"),
        ("missingAttribute = 1", 1, "attributes are named with a to z"),
        ("a_b = 1", 1, "attributes are named with a to z"),
        ("a.b = 1", 2, "'.' means nothing here"),
        ("type LIKE id", 11, "LIKE wants a text"),
        ("type LIKE 5", 11, "LIKE wants a text"),
        ("type NOT 'a'", 10, "LIKE or IN is expected"),
        ("1 IN ()", 8, "IN wants one element"),
        ("1 IN 1", 6, "\"(\" is expected"),
        ("EXISTS 'a'", 8, "EXISTS wants an attribute"),
        ("EXISTS", 7, "EXISTS wants an attribute"),
        ("EXISTS and", 8, "and is no operand"),
        ("AND", 1, "AND is no operand"),
        ("NOT", 4, "an attribute, a number"),
        ("AND(1)", 1, "functions are named"),
        ("F1(1)", 1, "functions are named"),
        ("CONCAT(1,)", 10, "an attribute, a number"),
        ("CONCAT(1 2)", 10, "\")\" is expected"),
        ("2147483648", 1, "the number does not fit"),
        ("1 + -2147483649", 6, "the number does not fit"),
        ("ä", 1, "'ä' means nothing here"),
    ] {
        let error = Expression::parse(text).expect_err(text);
        assert!(error.reason.starts_with(reason), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
    }
    let unknown = Expression::parse("1 = 1 OR nope() = abs(1, 2)").expect("an expression");
    assert_eq!(unknown.unknown_function(), Some(("nope", 10)));
}

#[test]
fn size_depth_and_work_are_bounded() {
    let deep = |depth: usize| "(".repeat(depth) + "1" + &")".repeat(depth);
    assert!(Expression::parse(&deep(MAX_DEPTH)).is_ok());
    for depth in [MAX_DEPTH + 1, MAX_EXPRESSION / 2 - 1] {
        let error = Expression::parse(&deep(depth)).expect_err("too deep");
        assert!(error.reason.contains("nest deeper"), "{error}");
    }
    let long = Expression::parse(&"1".repeat(MAX_EXPRESSION + 1)).expect_err("too long");
    assert!(long.reason.contains("longer than 4096"), "{long}");

    // Long, but not deep: no stack is needed for it.
    let text = "a".repeat(crate::cloud_event::MAX_ATTRIBUTE);
    let event = event(&json!({"a": text, "one": 1}));
    let evaluate = |text: &str| {
        let expression = Expression::parse(text).expect(text);
        let (value, errors) = expression.evaluate(&event);
        (to_json(&value), errors)
    };
    let sum = "one".to_owned() + &"+one".repeat(1000);
    assert_eq!(evaluate(&sum), (json!(1001), vec![]));
    let nots = "NOT ".repeat(1000) + "TRUE";
    assert_eq!(evaluate(&nots), (json!(true), vec![]));
    let minuses = "-".repeat(4000) + "one";
    assert_eq!(evaluate(&minuses), (json!(1), vec![]));

    // Work that grows with the square of what is given ends.
    let pattern = format!("a LIKE '%{}b'", "a".repeat(2000));
    let list = vec!["a"; 2000].join(",");
    for text in [
        pattern,
        format!("LENGTH(CONCAT({list})) = 1"),
        format!("LENGTH(CONCAT_WS(CONCAT({}), {})) = 1", &list[..1999], &list[..1999]),
    ] {
        assert_eq!(evaluate(&text), (json!(false), vec![Error::Generic]), "{text:.60}");
    }
}

#[test]
fn attributes_of_old_events_have_the_new_names() {
    let event: CloudEvent = serde_json::from_value(json!({
        "cloudEventsVersion": "0.1", "eventType": "vm.made", "eventID": "1", "source": "v",
        "extensions": {"callback-url": "http://c", "hops": 3}
    }))
    .expect("an event");
    for text in [
        "type = 'vm.made' AND id = 1 AND specversion = '0.1'",
        "callbackurl LIKE 'http://%'",
        "hops + 1 = 4",
        "NOT EXISTS subject",
    ] {
        assert!(Expression::parse(text).expect(text).matches(&event), "{text}");
    }
}

/// The meaning of a pattern, said again in the simplest way.
fn like(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|from| like(rest, &text[from..])),
        ['\\', next @ ('%' | '_'), rest @ ..] => {
            text.first() == Some(next) && like(rest, &text[1..])
        }
        ['_', rest @ ..] => !text.is_empty() && like(rest, &text[1..]),
        [next, rest @ ..] => text.first() == Some(next) && like(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn patterns_mean_what_they_say(pattern in "[ab%_\\\\]{0,9}", text in "[ab%\\\\]{0,9}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let mut left = MAX_WORK;
        let fits = Pattern::new(&pattern).matches(&text, &mut left);
        prop_assert_eq!(fits, like(&chars(&pattern), &chars(&text)));
        prop_assert!(left > 0);
    }

    /// Whatever is written, it is read or refused; what is read has a value, and a true one has no error.
    #[test]
    fn no_text_breaks_it(
        words in proptest::collection::vec(
            "TRUE|'a%'|\"\\\\\"|[0-9]{1,11}|type|missing|\\(|\\)|,|-|\\+|\\*|/|%|=|<>|<=|NOT|AND|OR|XOR|IN|LIKE|EXISTS|\
             LEFT\\(|SUBSTRING\\(|CONCAT_WS\\(|INT\\(|\\PC{1,3}",
            0..24,
        ),
    ) {
        let text = words.join(" ");
        if let Ok(expression) = Expression::parse(&text) {
            let event = event(&json!({}));
            let (value, errors) = expression.evaluate(&event);
            prop_assert_eq!(expression.matches(&event), errors.is_empty() && value == Value::Boolean(true));
        }
    }

    /// Arithmetic on what is written as numbers is arithmetic.
    #[test]
    fn sums_are_sums(numbers in proptest::collection::vec(-1000_i32..1000, 1..20)) {
        let text = numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(" + ");
        let event = event(&json!({}));
        let expression = Expression::parse(&text).expect("a sum");
        let wanted = (Value::Integer(numbers.iter().sum()), vec![]);
        prop_assert_eq!(expression.evaluate(&event), wanted);
    }
}
